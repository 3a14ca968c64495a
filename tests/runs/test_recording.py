"""A batch of nodes from evidence to the store: what is remembered, and that no node takes others along."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytest_asyncio

from shared.azure import Stats
from shared.models import Evidence, Finding, RunKind, Status
from shared.runs import documents
from shared.runs.model import batch as batches
from shared.runs.model import keys
from shared.runs.model.batch import Batch, OpenNode
from shared.runs.model.plans import NodePlan
from shared.runs.nodes.program import Program
from shared.runs.services import Services
from shared.runs.steps import advancing
from shared.store import FindingQuery, Store, open_store
from tests.runs.by_hand import advanced, recorded
from tests.support.evidence import AKS_UNIT, CONFIG, ENVIRONMENT, config, edited, evidence, process, touched
from tests.support.findings import node

Show = Callable[[Mapping[str, Evidence]], None]
LATIN = "M\udcfcller"


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(str(tmp_path / "guard.db")) as opened:
        yield opened


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Show:
    """Nodes that show this evidence, by instance id, when they are looked at."""

    def shows(nodes: Mapping[str, Evidence]) -> None:
        def collect(run_id: str, node_key: str) -> Program[Evidence]:
            yield from ()
            return nodes[node_key.rsplit("/", 1)[1]]

        monkeypatch.setattr(advancing, "collect", collect)

    return shows


async def audited(
    store: Store, nodes: int, kind: RunKind = RunKind.AUDIT, hears: Callable[[list[Finding]], None] | None = None
) -> tuple[dict[str, Finding], list[NodePlan]]:
    """The stored findings by instance id, and the stored plans, of a batch of so many nodes."""
    azure = cast("Any", SimpleNamespace(stats=Stats({}, 0, 0, 0.0)))
    services = Services(azure, store, cast("Any", None), on_findings=hears or (lambda _: None))
    run, name = await recorded(services, kind), keys.audit_batch("s", 0, "t", 0)
    batch = Batch("westeurope", nodes, tuple(OpenNode(node(number)) for number in range(nodes)))
    await store.put_work(run.id, name, batches.to_text(batch), None)
    (now,) = (await advanced(services, run, [name])).batches
    made = [item async for item in store.all_findings(FindingQuery(run_id=run.id))]
    assert sum(now.tally.statuses.values()) == len(made) == nodes
    plans = await documents.find(store, run.id, keys.plans(name, 0), documents.PLANS) or []
    return {item.instance_id: item for item in made}, plans


async def test_a_proved_look_is_a_witness_for_later_runs(store: Store, show: Show) -> None:
    async def look(seen: Evidence) -> str:
        show({"0": seen})
        return (await audited(store, 1))[0]["0"].code

    chmod = touched(evidence(), CONFIG)
    assert await look(chmod) == "unproved"
    assert await look(evidence()) == "right"
    assert await look(chmod) == "right"
    assert await look(edited(evidence(), CONFIG, config(maxPods=7))) == "unproved"
    assert await look(chmod) == "right", "an unproved look in between takes nothing away"
    assert await look(process(chmod, pid=7, ticks=7)) == "unproved"


async def test_bytes_that_are_not_utf_8_are_planned_stored_and_shown(store: Store, show: Show) -> None:
    flag = "--make-iptables-util-chains=false"
    wrong = evidence(flag, files={ENVIRONMENT: f"# {LATIN}\nKUBELET_FLAGS={flag}\n"})
    right = evidence(unit=AKS_UNIT.replace("[Service]", f"# {LATIN}\n[Service]"))
    odd = process(right, argv=("/opt/bin/kubelet", f"--hostname-override={LATIN}"))
    show({"0": wrong, "1": right, "2": evidence(flag), "3": odd})
    found, plans = await audited(store, 4, RunKind.PLAN)
    assert found["0"].status is Status.FAIL
    assert found["1"].status is Status.PASS
    assert [plan.node.instance_id for plan in plans if not plan.refused] == ["0", "2"]
    assert "M\\xfcller" in plans[0].diff
    assert all(item.reason.isprintable() and item.hint.isprintable() for item in found.values())


async def test_what_cannot_be_shown_is_recorded_all_the_same(store: Store, show: Show) -> None:
    show({"0": evidence(), "1": evidence()})

    def hears(made: list[Finding]) -> None:
        raise ValueError("a terminal that does not take it")

    found, _ = await audited(store, 2, hears=hears)
    assert {number: item.code for number, item in found.items()} == {"0": "right", "1": "right"}


async def test_what_cannot_be_judged_is_that_node_s_finding_alone(store: Store, show: Show) -> None:
    broken = replace(evidence(), files=cast("Any", None))
    show({"0": evidence(), "1": broken})
    found, _ = await audited(store, 2, RunKind.PLAN)
    assert {number: item.code for number, item in found.items()} == {"0": "right", "1": "internal"}
