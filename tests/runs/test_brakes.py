"""The brake on a rule that newly fails a large part of a fleet: night after night, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from shared.models import Cluster, History, Node, Run, RunKind, RunState, ScopeProblem, Starter
from shared.runs import orders
from shared.runs.hosts import starting
from shared.runs.model.request import FixRequest
from shared.runs.steps import fix_plan
from shared.store import Store
from tests.runs.simulated.azure import Member
from tests.runs.simulated.clock import virtually
from tests.runs.simulated.rig import App, Rig, rig

A = "5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1"
NODES = 20


async def scheduled_fix(world: Rig, **request: object) -> Run:
    """The schedule's fix, when it has ended or waits."""
    asked = FixRequest.model_validate({"pause_seconds": 0, **request})
    run = await starting.start(world.services, App(world.hub), RunKind.FIX, asked, by=Starter.TIMER)
    while not (run.state.final or run.state is RunState.AWAITING_APPROVAL):
        await asyncio.sleep(10)
        run = await world.run(run.id)
    return run


async def say(world: Rig, run: Run, decision: orders.Decision) -> Run:
    assert run.approval is not None
    await orders.decide(world.store, run.id, run.approval.digest, decision)
    return await world.ended(run.id)


async def audit(world: Rig) -> None:
    await world.ended((await world.start(RunKind.AUDIT)).id)


async def yesterday(world: Rig) -> list[Member]:
    """A fleet that was right, and was fixed as a whole (there was nothing to do)."""
    members = world.azure.add(A, "aks", [False] * NODES)
    await audit(world)
    assert (await scheduled_fix(world)).state is RunState.COMPLETED
    await asyncio.sleep(86_400)
    return members


def go_wrong(members: Sequence[Member]) -> None:
    for member in members:
        member.wrong = True


def why(run: Run) -> str:
    return run.approval.why if run.state is RunState.AWAITING_APPROVAL and run.approval is not None else ""


def test_a_refused_fix_asks_again_the_next_night() -> None:
    async def work() -> None:
        world = rig(1)
        members = await yesterday(world)
        go_wrong(members[:3])
        for _ in range(3):
            run = await scheduled_fix(world)
            assert why(run).startswith("3 of 20 nodes newly fail, more than the 5% of GUARD_FIX_NEW_PERCENT")
            assert (await say(world, run, orders.Decision.REFUSED)).state is RunState.CANCELLED
            assert sum(member.restarts for member in members) == 0
            await asyncio.sleep(86_400)

    virtually(work)


def test_an_audit_before_the_fix_does_not_disarm_it() -> None:
    async def work() -> None:
        world = rig(2)
        members = await yesterday(world)
        go_wrong(members[:3])
        await audit(world)
        assert why(await scheduled_fix(world)).startswith("3 of 20 nodes newly fail")

    virtually(work)


def test_a_fix_that_was_approved_is_the_end_of_the_news() -> None:
    """What it could not mend has failed since before it, and does not hold up the next ones for ever."""

    async def work() -> None:
        world = rig(3)
        members = await yesterday(world)
        go_wrong(members[:3])
        for member in members[:3]:
            member.broken = True
        await audit(world)
        await asyncio.sleep(60)
        run = await scheduled_fix(world)
        assert why(run).startswith("3 of 20")
        assert (await say(world, run, orders.Decision.APPROVED)).state is RunState.COMPLETED
        await asyncio.sleep(86_400)
        run = await scheduled_fix(world)
        assert (why(run), run.state) == ("", RunState.COMPLETED)

    virtually(work)


def test_a_fix_of_a_part_says_nothing_of_the_rest() -> None:
    async def work() -> None:
        world = rig(4)
        members = await yesterday(world)
        go_wrong(members[:3])
        await audit(world)
        world.azure.add(A, "other", [False])
        part = await scheduled_fix(world, clusters=["other"])
        assert part.state is RunState.COMPLETED
        assert why(await scheduled_fix(world)).startswith("3 of 21 nodes newly fail")

    virtually(work)


def test_the_share_is_of_the_nodes_that_were_judged() -> None:
    async def work() -> None:
        world = rig(5)
        members = await yesterday(world)
        for member in members[8:]:
            member.node = replace(member.node, power="deallocated")
        go_wrong(members[:1])
        assert why(await scheduled_fix(world)).startswith("1 of 8 nodes newly fail")

    virtually(work)


def test_nodes_of_a_listing_that_died_are_not_counted() -> None:
    async def work() -> None:
        world = rig(6)
        world.azure.add(A, "aks", [at == 0 for at in range(60)])
        listed, died = world.azure.nodes, False

        async def nodes(cluster: Cluster, pools: Sequence[str] | None) -> AsyncIterator[Node | ScopeProblem]:
            nonlocal died
            at = 0
            async for item in listed(cluster, pools):
                at += 1
                if at > 50 and not died:  # a batch is written by now
                    died = True
                    raise RuntimeError("the worker died")
                yield item

        world.azure.nodes = nodes  # type: ignore[method-assign, assignment]
        run = await world.ended((await world.start(RunKind.PLAN)).id)
        assert died
        assert (await fix_plan.index(world.services, run.id)).looked_at == 60

    virtually(work)


@pytest.mark.parametrize("cut", ["put_work", "save_findings"])
def test_nodes_that_are_recorded_twice_still_fail_newly(cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever recorded them died before the batch said so: the history knows already that they fail."""

    async def work() -> None:
        world = rig(7)
        members = await yesterday(world)
        go_wrong(members[:3])
        write, recording = getattr(Store, cut), Store.save_history
        recorded = died = False

        async def save_history(store: Store, history: Sequence[History]) -> None:
            nonlocal recorded
            await recording(store, history)
            recorded = recorded or bool(history)

        async def dies_once(*arguments: object) -> object:
            nonlocal died
            if recorded and not died:
                died = True
                raise RuntimeError("the worker died")
            return await write(*arguments)

        monkeypatch.setattr(Store, "save_history", save_history)
        monkeypatch.setattr(Store, cut, dies_once)
        run = await scheduled_fix(world)
        assert died
        assert why(run).startswith("3 of 20 nodes newly fail")

    virtually(work)
