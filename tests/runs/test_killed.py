"""A batch whose process is killed at every one of its steps, one after the other, and gone on with by another one.

Every node gets its findings once, none is sent a second command while the first goes, and a fix whose sender died ends
right: it was carried out once, and says so.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from itertools import pairwise

import pytest

from shared.errors import StoreError
from shared.models import Outcome, Run, RunKind, Status
from shared.runs.hosts import terminal
from shared.runs.model.batch import SENDING
from shared.runs.model.request import FixRequest
from shared.runs.steps.advancing import OvertakenError
from tests.runs import by_hand
from tests.runs.simulated.azure import Member
from tests.runs.simulated.clock import now, virtually
from tests.runs.simulated.rig import Rig, rig
from tests.support.mortal import Life

SUBSCRIPTION = "5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1"
WRONG = (True, False, True)


async def made_ready(world: Rig, kind: RunKind) -> tuple[Run, tuple[str, ...], list[Member]]:
    """A run of one batch of three nodes, not begun."""
    members = world.azure.add(SUBSCRIPTION, "aks", WRONG)
    if kind is RunKind.AUDIT:
        run = await by_hand.recorded(world.services, kind)
        return run, await by_hand.found(world.services, run), members
    planning = await terminal.survey_here(world.services, RunKind.PLAN, FixRequest())
    run = await by_hand.recorded(world.services, kind)
    await by_hand.gathered(world.services, run, await terminal.plans_of(world.services, planning))
    return run, await by_hand.opened(world.services, run, 0, sum(WRONG)), members


async def killed_at(world: Rig, run: Run, names: Sequence[str], step: int) -> bool:
    """Advance to the end in a process that is killed at its step number `step`; whether it got so far."""
    life = Life()

    def suspended(count: int) -> None:
        if count == step:
            life.kill()

    task = life.spawn(to_the_end(world, run, names), suspended)
    await asyncio.wait([task])
    return life.dead


async def to_the_end(world: Rig, run: Run, names: Sequence[str]) -> None:
    while True:
        advanced = await by_hand.advanced(world.services, run, names, first_look=20.0)
        (batch,) = advanced.batches
        if batch.due is None:
            return
        await asyncio.sleep(max(0.0, (batch.due - now()).total_seconds()) + 0.01)


async def holds(world: Rig, run: Run, members: Sequence[Member]) -> None:
    """What must be so at the end, whatever happened."""
    found = await world.findings(run.id)
    if run.kind is RunKind.AUDIT:
        assert Counter(item.status for item in found.values()) == {Status.FAIL: 2, Status.PASS: 1}
        assert all(len(member.accepted) <= 2 for member in members)
    else:
        assert [item.outcome for item in found.values()] == [Outcome.FIXED] * 2, found
        assert [member.restarts for member in members] == [1, 0, 1]
        assert not any(member.wrong for member in members)
    for member in members:
        assert len(member.refused) <= 1
        looks = member.accepted[1:] if run.kind is RunKind.FIX else member.accepted
        for earlier, later in pairwise(looks):
            assert later - earlier >= SENDING - timedelta(seconds=5), "only where the first sender was given up"


@pytest.mark.parametrize("kind", [RunKind.AUDIT, RunKind.FIX])
@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_every_step(kind: RunKind, stride: int) -> None:
    async def work(step: int) -> bool:
        world = rig(step)
        run, names, members = await made_ready(world, kind)
        died = await killed_at(world, run, names, step)
        await to_the_end(world, run, names)
        await holds(world, run, members)
        return died

    step = 1
    while virtually(partial(work, step)):
        step += stride
    assert step > 30


@pytest.mark.parametrize("kind", [RunKind.AUDIT, RunKind.FIX])
@pytest.mark.parametrize("seconds", [20.25, 20.75, 45.0])
def test_killed_at_a_time(kind: RunKind, seconds: float) -> None:
    """While commands are on their way, or looked at."""

    async def work() -> None:
        world = rig(1)
        world.azure.call_seconds = lambda source: source.uniform(0.1, 1.0)
        run, names, members = await made_ready(world, kind)
        life = Life()
        task = life.spawn(to_the_end(world, run, names))
        await asyncio.sleep(seconds)
        life.kill()
        await asyncio.wait([task])
        await to_the_end(world, run, names)
        await holds(world, run, members)

    virtually(work)


@pytest.mark.parametrize("kind", [RunKind.AUDIT, RunKind.FIX])
def test_a_store_that_fails_at_every_call(kind: RunKind) -> None:
    """Before it has done what it was asked for, and after: each call of a batch in its turn, once."""

    async def work(call: int) -> bool:
        world = rig(call)
        run, names, members = await made_ready(world, kind)
        count = 0

        def trouble() -> None:
            nonlocal count
            count += 1
            if count == call:
                raise StoreError("the store is not there", transient=True)

        world.backend.trouble = trouble
        while True:
            try:
                await to_the_end(world, run, names)
                break
            except (StoreError, OvertakenError):
                await asyncio.sleep(2)
        met = count >= call
        world.backend.trouble = lambda: None
        await holds(world, run, members)
        return met

    call = 1
    while virtually(partial(work, call)):
        call += 1
    assert call > 20
