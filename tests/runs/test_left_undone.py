"""Recording what is left: not by who was overtaken, and not beside a batch that stays open."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from unittest.mock import patch

from shared.models import Outcome, RunKind, RunState
from shared.runs.model import batch as batches
from shared.runs.model import findings, keys
from shared.runs.model.messages import Ask, Leave, LeavePool, Ref
from shared.runs.model.request import FixRequest
from shared.runs.steps import fix_plan, left_undone, run_record
from shared.store import FindingQuery
from tests.runs.by_hand import found, gathered, opened, recorded
from tests.runs.simulated.clock import virtually
from tests.runs.simulated.rig import rig
from tests.runs.test_simulated import A, planned
from tests.support.findings import NOW

THREE = ("3.2.4", "3.2.6", "3.2.8")


def test_a_batch_that_another_one_writes_meanwhile_is_closed_all_the_same() -> None:
    async def work() -> None:
        world = rig(1)
        world.azure.add(A, "aks", [True] * 2)
        plans = await planned(world)
        run = await recorded(world.services, RunKind.FIX, FixRequest(canary=False, max_unavailable="2"))
        await gathered(world.services, run, plans)
        (name,) = await opened(world.services, run, 0, 2)
        put = world.store.put_work
        overtaken: list[str | None] = []

        async def after_another(run_id: str, name: str, text: str, etag: str | None) -> str | None:
            if not overtaken:
                work = await world.store.work(run_id, name)
                assert work is not None
                overtaken.append(await put(run_id, name, work.text, work.etag))
            return await put(run_id, name, text, etag)

        leave = LeavePool(run_id=run.id, pool=0, first=0, count=2, reason="it failed")
        with patch.object(world.store, "put_work", after_another):
            left = await left_undone.leave_pool(world.services, leave)
        assert overtaken
        assert left.tally.outcomes == {Outcome.NOT_TRIED: 2}
        row = await world.store.work(run.id, name)
        assert row is not None
        assert batches.from_text(row.text, name).nodes == ()
        assert len(await world.findings(run.id)) == 2

    virtually(work)


def test_a_node_that_was_recorded_in_part_gets_the_rest() -> None:
    """A step's findings are several transactions: between two of them a node may have some."""

    async def work() -> None:
        world = rig(3)
        world.azure.add(A, "aks", [True] * 2)
        run = await recorded(world.services, RunKind.AUDIT, FixRequest(controls=THREE))
        (name,) = await found(world.services, run)
        row = await world.store.work(run.id, name)
        assert row is not None
        first, second = (each.node for each in batches.from_text(row.text, name).nodes)
        problem = left_undone.failed("its process died")
        for node, some in ((first, THREE[:1]), (second, THREE)):
            done = findings.from_problem(run.id, NOW, node, some, replace(problem, code="before"))
            await world.store.save_findings(done)
        left = await left_undone.leave(world.services, Leave(run_id=run.id, subscription=A, batches=(name,)))
        made = Counter([(item.node, item.code) async for item in world.store.all_findings(FindingQuery(run.id))])
        codes = ((first, "before", 1), (first, "batch_failed", 2), (second, "before", 3))
        assert made == {(node.name, code): count for node, code, count in codes}
        assert (left.tally.nodes, left.tally.statuses) == (2, {"error": 6})

    virtually(work)


def test_an_earlier_beginning_writes_nothing() -> None:
    async def work() -> None:
        world = rig(2)
        world.azure.add(A, "aks", [True] * 2)
        plans = await planned(world)
        audit = await recorded(world.services, RunKind.AUDIT)
        (name,) = await found(world.services, audit)
        await world.store.save_run(replace(audit, epoch=1))
        leave = Leave(run_id=audit.id, subscription=A, batches=(name,), chunks_from=0, reason="it failed")
        assert (await left_undone.leave(world.services, leave)).over
        assert await world.findings(audit.id) == {}

        run = await recorded(world.services, RunKind.FIX)
        await gathered(world.services, run, plans)
        await world.store.save_run(replace(run, epoch=1))
        left = LeavePool(run_id=run.id, pool=0, first=0, count=2, reason="it failed")
        assert (await left_undone.leave_pool(world.services, left)).over
        assert (await fix_plan.gather(world.services, Ref(run_id=run.id))).over
        await run_record.ask_approval(world.services, Ask(run_id=run.id, digest="d"))
        assert (await world.run(run.id)).state is RunState.RUNNING
        assert await world.findings(run.id) == {}
        assert await world.store.work(run.id, keys.fix_batch(0, 0)) is None

    virtually(work)
