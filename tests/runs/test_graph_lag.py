"""An audit that Azure Resource Graph told of clusters as they were some time ago, and in parts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from unittest.mock import patch

import pytest

from shared.azure import GraphAnswer
from shared.errors import UsageError
from shared.models import Problem, RunKind, Status
from shared.runs.hosts import terminal
from shared.runs.model import keys
from shared.runs.model.messages import Ref
from shared.runs.model.request import RunRequest
from shared.runs.steps import scope
from shared.store.backend import Row, Table
from tests.runs.simulated.clock import virtually
from tests.runs.simulated.rig import rig
from tests.support.bench import BenchFactory
from tests.support.findings import AUDIT
from tests.support.records import RUN, run

STARTED, GROWN, STEADY = (f"{number}1111111-2222-4333-8444-555555555555" for number in range(1, 4))
WHERE = "resource_group: rg, location: westeurope, version: 1.33.2"
NODES = "nodes: [{state: deallocated}]"
FLEET = f"""
timing: {{latency: [0, 0], graph_lag: 600}}
subscriptions:
- id: "{STARTED}"
  name: Started
  clusters:
  - {{name: one, {WHERE}, switched: 30, pools: [{{name: np1, {NODES}}}]}}
  - {{name: two, {WHERE}, pools: [{{name: np1, {NODES}}}, {{name: np2, switched: 30, {NODES}}}]}}
- id: "{GROWN}"
  name: Grown
  clusters:
  - {{name: three, {WHERE}, pools: [{{name: np1, {NODES}}}, {{name: np3, age: 30, {NODES}}}]}}
- id: "{STEADY}"
  name: Steady
  clusters:
  - {{name: four, {WHERE}, pools: [{{name: np1, {NODES}}}]}}
  - {{name: young, age: 30, {WHERE}, pools: [{{name: np1, {NODES}}}]}}
"""


async def test_what_was_so_some_time_ago_is_no_verdict(bench: BenchFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "GRAPH_FROM", 2)
    async with bench(FLEET) as b:
        audit = await terminal.survey_here(b.services, RunKind.AUDIT, AUDIT)
        found = {(item.cluster, item.node_pool, item.code) for item in await b.findings(audit.id)}
        assert found == {
            ("one", "np1", "deallocated"),
            ("two", "np1", "deallocated"),
            ("two", "np2", "deallocated"),
            ("three", "np1", "deallocated"),
            ("three", "np3", "deallocated"),
            ("four", "np1", "deallocated"),
        }
        calls = b.box.stats()["calls"]
        assert (calls["graph.query"], calls["clusters.list"], calls["clusters.get"]) == (1, 1, 1)


async def test_a_name_is_refused_only_by_what_azure_itself_lists(
    bench: BenchFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scope, "GRAPH_FROM", 2)
    async with bench(FLEET) as b:
        audit = await terminal.survey_here(b.services, RunKind.AUDIT, AUDIT.model_copy(update={"clusters": ("YOUNG",)}))
        assert [(item.cluster, item.code) for item in await b.findings(audit.id)] == [("young", "deallocated")]
        with pytest.raises(UsageError, match=r"no node pool named np9 in the 3 subscriptions; .*np3"):
            await terminal.survey_here(b.services, RunKind.AUDIT, RunRequest(node_pools=("np9",)))


def test_what_the_graph_answered_before_it_refused_is_kept_and_at_once() -> None:
    async def work() -> None:
        world = rig(1)
        names = [f"s{number:02}" for number in range(40)]
        for name in names:
            world.azure.add(name, f"aks-{name}", [False])

        async def graph_clusters(asked: Sequence[str]) -> GraphAnswer:
            answered = {name: [c for c in world.azure.known if c.subscription == name] for name in asked[:30]}
            return GraphAnswer(answered, Problem(Status.ERROR, "TooManyRequests", "", ""))

        put, now, most = world.backend.put, 0, 0

        async def slow(table: Table, partition: str, rows: Mapping[str, Row]) -> None:
            nonlocal now, most
            now += 1
            most = max(now, most)
            await asyncio.sleep(0.1)
            await put(table, partition, rows)
            now -= 1

        await world.store.save_run(run())
        with (
            patch.object(world.azure, "graph_clusters", graph_clusters, create=True),
            patch.object(world.backend, "put", slow),
        ):
            assert (await scope.scope(world.services, Ref(run_id=RUN))).subscriptions == tuple(names)
        assert 10 < most <= 20
        kept = [await world.store.document(RUN, keys.listed(name)) is not None for name in names]
        assert kept == [True] * 30 + [False] * 10

    virtually(work)
