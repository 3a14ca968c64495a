"""A batch of nodes from evidence to the store: what is remembered, and that no node takes others along."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from shared.models import Evidence, Finding, Node, RunKind, Status
from shared.runs import auditing, documents
from shared.runs.model.plans import NodePlan
from shared.runs.model.request import FixRequest
from shared.runs.services import Services
from shared.store import FindingQuery, Store, new_run_id, open_store
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
        async def collect(services: Services, run_id: str, asked: Node) -> Evidence:
            return nodes[asked.instance_id]

        monkeypatch.setattr(auditing, "collect", collect)

    return shows


async def audited(
    store: Store, nodes: int, kind: RunKind = RunKind.AUDIT, hears: Callable[[list[Finding]], None] | None = None
) -> tuple[dict[str, Finding], list[NodePlan]]:
    """The stored findings by instance id, and the stored plans, of a batch of so many nodes."""
    run_id = new_run_id(datetime.now(UTC))
    await documents.save(store, run_id, "nodes/s/0", documents.NODES, [node(number) for number in range(nodes)])
    services = Services(cast("Any", None), store, cast("Any", None), on_findings=hears or (lambda _: None))
    job = {"run_id": run_id, "request": FixRequest().model_dump(), "subscription": "s", "batch": 0, "kind": kind}
    counts = await auditing.audit_batch(services, job)
    made = [item async for item in store.all_findings(FindingQuery(run_id=run_id))]
    assert sum(counts.values()) == len(made) == nodes
    plans = [] if kind is RunKind.AUDIT else await documents.load(store, run_id, "plans/s/0", documents.PLANS)
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


async def test_what_cannot_be_shown_is_that_node_s_finding_alone(store: Store, show: Show) -> None:
    show({"0": evidence(), "1": evidence()})
    told: list[str] = []

    def hears(made: list[Finding]) -> None:
        told.append(made[0].code)
        if made[0].instance_id == "0" and made[0].code != "internal":
            raise ValueError("a terminal that does not take it")

    found, _ = await audited(store, 2, hears=hears)
    assert {number: item.code for number, item in found.items()} == {"0": "internal", "1": "right"}
    assert sorted(told) == ["internal", "right", "right"]


async def test_what_cannot_be_judged_is_that_node_s_finding_alone(store: Store, show: Show) -> None:
    broken = replace(evidence(), files=cast("Any", None))
    show({"0": evidence(), "1": broken})
    found, _ = await audited(store, 2, RunKind.PLAN)
    assert {number: item.code for number, item in found.items()} == {"0": "right", "1": "internal"}
