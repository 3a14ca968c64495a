"""Advancing batches on the sandbox: what one process has begun another one goes on with, and nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest

import sandbox
from shared.azure import Pending
from shared.errors import NotStorable, StoreError
from shared.models import Finding, Outcome, Run, RunKind, Status
from shared.node.edits import Method
from shared.runs.hosts import terminal as runs
from shared.runs.model import batch as batches
from shared.runs.model.messages import LeavePool
from shared.runs.model.plans import NodePlan
from shared.runs.model.request import FixRequest
from shared.runs.nodes.repairing import LOOK_CODE
from shared.runs.services import Services
from shared.runs.steps import left_undone
from shared.store import Store
from tests.runs.by_hand import advanced, found, gathered, opened, recorded
from tests.support.bench import Bench, BenchFactory, one_pool

FAST = {"allow_fix": True, "restart_seconds": 8, "command_deadline_seconds": 90.0}


def nobody_lives_long(seconds: float = 0.0) -> AbstractContextManager[Any]:
    """Whoever sends a command is believed to be dead after so many seconds."""
    return patch.object(batches, "SENDING", timedelta(seconds=seconds))


async def closed(services: Services, run: Run, names: Sequence[str]) -> None:
    """Advance batches until nothing is open."""
    async with asyncio.timeout(60):
        # Nothing tells when a command has ended.
        while any(batch.due is not None for batch in (await advanced(services, run, names)).batches):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def commands(b: Bench) -> list[int]:
    """How many commands each node was sent."""
    return sorted(b.box.stats()["commands"].values())


async def test_a_started_command_is_waited_for_and_not_started_again(bench: BenchFactory) -> None:
    async with bench(one_pool("compliant_default", "false_file")) as b:
        run = await recorded(b.services, RunKind.AUDIT)
        names = await found(b.services, run)
        begun = await advanced(b.services, run, names)
        assert (begun.started, [batch.open for batch in begun.batches]) == (2, [2])
        elsewhere = replace(b.services)
        await closed(elsewhere, run, names)
        assert commands(b) == [1, 1]
        assert sorted(item.status for item in await b.findings(run.id)) == [Status.FAIL, Status.PASS]


async def test_two_that_advance_one_batch_at_once_start_one_command(bench: BenchFactory) -> None:
    async with bench(one_pool("compliant_default", "compliant_flag")) as b:
        run = await recorded(b.services, RunKind.AUDIT)
        names = await found(b.services, run)
        ended = await asyncio.gather(*(advanced(b.services, run, names) for _ in range(3)), return_exceptions=True)
        assert sorted(type(one).__name__ for one in ended) == ["Advanced", "OvertakenError", "OvertakenError"]
        await closed(b.services, run, names)
        assert commands(b) == [1, 1]


async def test_a_batch_whose_sender_died_is_sent_again(bench: BenchFactory) -> None:
    """Nobody knows whether Azure has got what was being sent: after a while it is sent once more."""
    async with bench(one_pool("compliant_default")) as b:
        run = await recorded(b.services, RunKind.AUDIT)
        names = await found(b.services, run)
        with (
            patch.object(b.services.azure, "start", side_effect=asyncio.CancelledError),
            pytest.raises(asyncio.CancelledError),
        ):
            await advanced(b.services, run, names)
        (batch,) = (await advanced(b.services, run, names)).batches
        assert batch.due is not None, "it may still be being sent"
        assert "runCommand" not in b.box.stats()["calls"]
        with nobody_lives_long():
            await closed(b.services, run, names)
        assert commands(b) == [1]
        (finding,) = await b.findings(run.id)
        assert finding.status is Status.PASS


async def test_a_batch_that_is_over_is_left_as_it_is(bench: BenchFactory) -> None:
    async with bench(one_pool("compliant_default", "false_file")) as b:
        run = await recorded(b.services, RunKind.AUDIT)
        names = await found(b.services, run)
        await closed(b.services, run, names)
        before = b.box.stats()["calls"]
        again = await advanced(b.services, run, names)
        (batch,) = again.batches
        assert (batch.open, batch.due, batch.tally.statuses) == (0, None, {"pass": 1, "fail": 1})
        assert b.box.stats()["calls"] == before


async def test_an_earlier_beginning_of_a_run_does_nothing_more(bench: BenchFactory) -> None:
    async with bench(one_pool("compliant_default")) as b:
        run = await recorded(b.services, RunKind.AUDIT)
        names = await found(b.services, run)
        await b.services.store.save_run(replace(run, epoch=1))
        assert (await advanced(b.services, run, names)).over
        assert "runCommand" not in b.box.stats()["calls"]


# Fixes


async def planned(b: Bench, method: Method = "auto") -> list[NodePlan]:
    run = await runs.survey_here(b.services, RunKind.PLAN, FixRequest(method=method))
    return sorted(await runs.plans_of(b.services, run), key=lambda plan: plan.node.instance_id)


async def test_a_fix_whose_sender_died_is_this_runs_fix(bench: BenchFactory) -> None:
    """Azure carried it out, and nothing says so: sent again, it finds its own work, which is no stranger's change."""
    async with bench(one_pool("false_file"), **FAST) as b:
        plans = await planned(b)
        run = await recorded(b.services, RunKind.FIX)
        await gathered(b.services, run, plans)
        names = await opened(b.services, run, 0, 1)
        start = b.services.azure.start

        async def carried_out_and_died(*arguments: Any, **more: Any) -> Any:
            began = await start(*arguments, **more)
            assert isinstance(began, Pending)
            while isinstance(began, Pending):
                await asyncio.sleep((began.due - datetime.now(UTC)).total_seconds())
                began = await b.services.azure.look(plans[0].node, began)
            raise asyncio.CancelledError

        with (
            patch.object(b.services.azure, "start", carried_out_and_died),
            pytest.raises(asyncio.CancelledError),
        ):
            await advanced(b.services, run, names)
        with nobody_lives_long():
            await closed(b.services, run, names)
        (finding,) = await b.findings(run.id)
        assert (finding.outcome, finding.status) == (Outcome.FIXED, Status.PASS), finding


async def test_a_fix_that_is_being_sent_when_the_run_is_lost_may_have_changed_its_node(bench: BenchFactory) -> None:
    """And one that was not begun has not."""
    async with bench(one_pool("false_file", "false_flag"), **FAST) as b:
        run = await recorded(b.services, RunKind.FIX, FixRequest(max_unavailable="2", canary=False))
        await gathered(b.services, run, await planned(b))
        names = await opened(b.services, run, 0, 1)
        with (
            patch.object(b.services.azure, "start", side_effect=asyncio.CancelledError),
            pytest.raises(asyncio.CancelledError),
        ):
            await advanced(b.services, run, names)
        lost = LeavePool(run_id=run.id, pool=0, first=0, count=2, reason="no answer", lost=True)
        left = await left_undone.leave_pool(b.services, lost)
        assert left.tally.outcomes == {"failed": 1, "not_tried": 1}
        first, second = sorted(await b.findings(run.id), key=lambda item: item.instance_id)
    assert (first.outcome, first.status) == (Outcome.FAILED, Status.ERROR)
    assert first.reason.startswith("LOOK AT THIS NODE")
    assert first.code == LOOK_CODE
    assert (second.outcome, second.status) == (Outcome.NOT_TRIED, Status.FAIL)


@pytest.mark.parametrize(("writes", "outcome"), [(0, Outcome.NOT_TRIED), (1, Outcome.FAILED)])
async def test_where_the_store_fails_a_node_is_said_to_be_changed_only_if_it_may_be(
    bench: BenchFactory, writes: int, outcome: Outcome
) -> None:
    """Before anything is sent, and after Azure took it."""
    async with bench(one_pool("false_file"), **FAST) as b:
        run = await recorded(b.services, RunKind.FIX)
        await gathered(b.services, run, await planned(b))
        names = await opened(b.services, run, 0, 1)
        put, count = Store.put_work, 0

        async def failing(*arguments: Any) -> str | None:
            nonlocal count
            count += 1
            if count > writes:
                raise StoreError("no answer")
            return await put(*arguments)

        with patch.object(Store, "put_work", failing), pytest.raises(StoreError):
            await advanced(b.services, run, names)
        assert ("runCommand" in b.box.stats()["calls"]) is True
        await left_undone.leave_pool(
            b.services, LeavePool(run_id=run.id, pool=0, first=0, count=1, reason="no answer", lost=True)
        )
        (finding,) = await b.findings(run.id)
    assert finding.outcome is outcome
    assert finding.reason.startswith("LOOK AT THIS NODE") == (outcome is Outcome.FAILED)
    assert (finding.code == LOOK_CODE) == (outcome is Outcome.FAILED)


async def test_what_cannot_be_stored_is_that_nodes_failure(bench: BenchFactory) -> None:
    async with bench(one_pool("false_file", "false_flag"), **FAST) as b:
        plans = await planned(b)
        run = await recorded(b.services, RunKind.FIX, FixRequest(max_unavailable="2", canary=False))
        await gathered(b.services, run, plans)
        names = await opened(b.services, run, 0, 2)
        save = Store.save_findings

        async def unstorable(store: Store, made: Sequence[Finding]) -> None:
            if any(item.outcome is Outcome.FIXED and item.instance_id == "0" for item in made):
                raise NotStorable("odd")
            await save(store, made)

        with patch.object(Store, "save_findings", unstorable):
            await closed(b.services, run, names)
        first, second = sorted(await b.findings(run.id), key=lambda item: item.instance_id)
    assert (first.outcome, second.outcome) == (Outcome.FAILED, Outcome.FIXED)
    assert first.reason.startswith("LOOK AT THIS NODE")
    assert first.code == LOOK_CODE


async def test_a_fix_that_may_have_run_is_not_sent_again(bench: BenchFactory) -> None:
    """Its answer was lost on the way: whether Azure took it is not known."""
    async with bench(one_pool("false_file"), **FAST) as b:
        run = await recorded(b.services, RunKind.FIX)
        await gathered(b.services, run, await planned(b))
        names = await opened(b.services, run, 0, 1)
        b.box.inject(sandbox.Fault("runCommand", drop="after"))
        await closed(b.services, run, names)
        (finding,) = await b.findings(run.id)
        assert (finding.outcome, finding.status) == (Outcome.FAILED, Status.ERROR), finding
        assert finding.reason.startswith("LOOK AT THIS NODE")
        assert finding.code == LOOK_CODE
        assert commands(b) == [2], "one to plan, one to fix"
