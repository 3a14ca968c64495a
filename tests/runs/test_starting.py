"""Which runs may go side by side: of two that may not one is refused, whoever started the other, however it ended."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.errors import GuardError, UsageError
from shared.models import Approval, Run, RunKind, RunState, Starter
from shared.runs import documents, orders
from shared.runs.hosts import leases, starting, terminal, terminal_lease, watchdog
from shared.runs.model import ENGINE, keys
from shared.runs.model.messages import End, Gathered, Ref
from shared.runs.model.request import FixRequest, RunRequest
from shared.runs.steps.run_record import finish
from shared.store import Store, new_run_id
from tests.runs.simulated.clock import now, virtually
from tests.runs.simulated.rig import Rig, rig

A, B, C = (f"{n}1111111-2222-3333-4444-aaaaaaaaaaaa" for n in (1, 2, 3))
HOUR = timedelta(hours=1)


@dataclass
class Orchestrations:
    """Of nobody: none goes but those that were started here."""

    started: list[Ref] = field(default_factory=list)

    async def start(self, run_id: str, ref: Ref) -> None:
        self.started.append(ref)

    async def wake(self, run_id: str) -> None:
        raise AssertionError(run_id)

    async def going(self, run_id: str) -> bool:
        return run_id in [ref.run_id for ref in self.started]

    async def end(self, run_id: str, why: str) -> None:
        raise AssertionError(run_id)

    async def forget(self, before: datetime) -> int:
        return 0


def made(request: RunRequest, kind: RunKind = RunKind.FIX, *, ago: timedelta = HOUR, **fields: Any) -> Run:
    """A run that began some time ago; one that is over ended just now."""
    started = datetime.now(UTC) - ago
    run = Run(new_run_id(started), kind, RunState.RUNNING, started, by=Starter.HTTP, engine=ENGINE)
    run = replace(run, request=request.model_dump(mode="json"), **fields)
    return replace(run, finished=datetime.now(UTC)) if run.state.final else run


def fix(**fields: Any) -> Run:
    return made(FixRequest(subscriptions=(A,)), **fields)


async def kept(world: Rig, run: Run, *, leased_to: str = "") -> Run:
    """The run, recorded, with a plan of nothing if it is a fix."""
    await world.store.save_run(run)
    await documents.save(world.store, run.id, keys.GATHERED, documents.GATHERED, Gathered())
    if leased_to:
        assert await world.store.claim(leases.name(run.id), leased_to, 60)
    return run


async def start(world: Rig, orchestrations: Orchestrations | None = None) -> Run:
    request = FixRequest(subscriptions=(A,))
    return await starting.start(
        world.services, orchestrations or Orchestrations(), RunKind.FIX, request, by=Starter.HTTP
    )


async def alone(world: Rig) -> Run:
    """A terminal's fix that does nothing."""
    run = fix(by=Starter.TERMINAL, ago=timedelta())

    async def work() -> Run:
        return run

    return await terminal_lease.alone(world.services, run, work)


# The scope


@pytest.mark.parametrize(
    ("mine", "theirs", "default", "same"),
    [
        ({"subscriptions": (A,)}, {"subscriptions": (B,)}, (), False),
        ({"subscriptions": (A,)}, {"subscriptions": (A.upper(), B)}, (), True),
        ({"subscriptions": (C,)}, {}, (A, B), False),
        ({"subscriptions": (C,)}, {}, (), True),
        ({"subscriptions": (C,)}, {"management_group": "prod"}, (A, B), True),
        ({"subscriptions": (C,)}, {"management_group": "prod", "subscriptions": (A,)}, (A, B), False),
        ({"management_group": "prod"}, {"management_group": "dev"}, (A, B), True),
    ],
)
def test_fixes_whose_subscriptions_may_overlap(
    mine: dict[str, Any], theirs: dict[str, Any], default: tuple[str, ...], same: bool
) -> None:
    one, other = made(FixRequest(**mine)), made(FixRequest(**theirs))
    assert starting.same_scope(one, other, default) is same
    assert starting.same_scope(other, one, default) is same


@pytest.mark.parametrize(
    ("theirs", "same"),
    [
        ({"management_group": "platform", "clusters": ("AKS",)}, True),
        ({"management_group": "other", "clusters": ("aks",)}, False),
        ({"clusters": ("aks",)}, False),
    ],
)
def test_audits_of_the_same_in_other_letters(theirs: dict[str, Any], same: bool) -> None:
    one = made(RunRequest(management_group="Platform", clusters=("aks",)), RunKind.AUDIT)
    assert starting.same_scope(one, made(RunRequest(**theirs), RunKind.AUDIT), ()) is same


async def test_a_management_group_of_the_settings_may_be_anything() -> None:
    world = rig(1, subscriptions=(B,), management_group="prod")
    await kept(world, made(FixRequest(), by=Starter.TERMINAL), leased_to="another")
    with pytest.raises(starting.GoingError):
        await start(world)


# What goes, and what one that has ended has left


async def test_a_lease_that_outlives_its_run_is_waited_for_by_a_terminal_too() -> None:
    world = rig(1)
    over = await kept(world, fix(state=RunState.FAILED), leased_to=leases.APP)
    with pytest.raises(starting.GoingError, match=f"{over.id} on the same scope has ended, and what it had begun"):
        await start(world)
    with pytest.raises(UsageError, match=f"the fix {over.id} on the same subscriptions has ended, and what it had"):
        await alone(world)
    await leases.release(world.store, over.id)
    assert (await alone(world)).by is Starter.TERMINAL


async def test_it_is_found_however_many_runs_began_since() -> None:
    world = rig(1)
    over = await kept(world, fix(state=RunState.FAILED, ago=6 * HOUR), leased_to=leases.APP)
    for number in range(60):
        await kept(world, made(RunRequest(), RunKind.AUDIT, ago=timedelta(minutes=number), state=RunState.COMPLETED))
    with pytest.raises(starting.GoingError, match=over.id):
        await start(world)


def test_of_two_starts_that_meet_a_lost_run_one_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ending the lost one takes longer than a turn lasts."""

    async def slow(*arguments: Any, **options: Any) -> Run:
        await asyncio.sleep(60)
        return await finish(*arguments, **options)

    async def work() -> None:
        world = rig(1)
        lost = await kept(world, fix(started=now() - HOUR))
        orchestrations = Orchestrations()

        async def later() -> Run:
            await asyncio.sleep(40)
            return await start(world, orchestrations)

        ends = await asyncio.gather(start(world, orchestrations), later(), return_exceptions=True)
        assert [type(end) for end in ends] == [Run, starting.GoingError]
        assert len(orchestrations.started) == len(await starting.going(world.store)) == 1
        assert (await world.run(lost.id)).error == starting.LOST

    monkeypatch.setattr(starting, "finish", slow)
    virtually(work)


async def test_whoever_looked_around_for_too_long_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = rig(1)
    monkeypatch.setattr(starting, "_LOOK_SECONDS", -1.0)
    with pytest.raises(starting.CrowdedError):
        await start(world)
    assert await starting.going(world.store) == []


# Records that two write


async def test_a_run_that_ends_while_it_is_begun_again_stays_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    world = rig(1)
    run = await kept(world, fix())
    whole = Store.change_run

    async def late(store: Store, run_id: str, change: Any) -> Run | None:
        monkeypatch.undo()
        await finish(world.services, run, End(ended="it was cancelled"))
        return await whole(store, run_id, change)

    monkeypatch.setattr(Store, "change_run", late)
    orchestrations = Orchestrations()
    seen = await watchdog.watch(world.services, orchestrations, datetime.now(UTC))
    assert (seen.begun, orchestrations.started) == ((), [])
    assert (await world.run(run.id)).state is RunState.CANCELLED
    assert len(world.runs) == 1


async def test_a_run_that_is_begun_again_while_it_is_ended_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    world = rig(1)
    run = await kept(world, fix())
    whole = Store.count

    async def late(store: Store, run_id: str) -> Any:
        monkeypatch.undo()
        assert (await watchdog.watch(world.services, Orchestrations(), datetime.now(UTC))).begun == (run.id,)
        return await whole(store, run_id)

    monkeypatch.setattr(Store, "count", late)
    told = await finish(world.services, run, End(error=starting.LOST))
    assert told == await world.run(run.id)
    assert (told.state, told.epoch, world.runs) == (RunState.RUNNING, 1, [])


async def test_a_terminal_that_slept_does_not_end_its_heirs_run(monkeypatch: pytest.MonkeyPatch) -> None:
    world = rig(1)
    run = await kept(world, fix(by=Starter.TERMINAL))
    working = asyncio.Event()

    async def driven(*_: Any) -> Any:
        working.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(terminal, "_drive", driven)
    slept = asyncio.create_task(terminal._driven(world.services, run, lambda _: None))
    await asyncio.wait_for(working.wait(), 5)
    heir = asyncio.create_task(terminal.resume_fix_here(world.services, run.id))
    while (await world.run(run.id)).epoch == 0:  # noqa: ASYNC110 - the heir is another process
        await asyncio.sleep(0.01)
    slept.cancel()
    assert isinstance((await asyncio.gather(slept, return_exceptions=True))[0], asyncio.CancelledError)
    assert (await world.run(run.id)).state is RunState.RUNNING
    with pytest.raises(UsageError, match=f"the fix {run.id} is going"):
        await alone(world)
    heir.cancel()
    await asyncio.gather(heir, return_exceptions=True)
    assert (await world.run(run.id)).error == "it was interrupted"


async def test_of_two_that_go_on_with_a_fix_one_does() -> None:
    world = rig(1)
    run = await kept(world, fix(by=Starter.TERMINAL, state=RunState.CANCELLED, epoch=3))

    async def work() -> Run:
        return await world.run(run.id)

    again = replace(run, state=RunState.RUNNING, finished=None, epoch=4)
    await terminal_lease.alone(world.services, again, work)
    with pytest.raises(UsageError, match="was gone on with elsewhere"):
        await terminal_lease.alone(world.services, again, work)
    assert await leases.holder(world.store, run.id) is None


# A terminal and the app


async def test_a_fix_of_the_app_that_a_terminal_goes_on_with_is_the_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    world = rig(1)
    asked = Approval(manual=True, digest="d", expires=datetime.now(UTC) + HOUR)
    run = await kept(world, fix(state=RunState.CANCELLED, approval=asked))
    drive = terminal._drive

    async def watched(*arguments: Any) -> Any:
        seen = await watchdog.watch(world.services, Orchestrations(), datetime.now(UTC))
        assert (seen.begun, seen.ended) == ((), ())
        return await drive(*arguments)

    monkeypatch.setattr(terminal, "_drive", watched)
    ended = await asyncio.wait_for(terminal.resume_fix_here(world.services, run.id), 10)
    assert (ended.state, ended.by, ended.epoch) == (RunState.COMPLETED, Starter.TERMINAL, 1)


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.AWAITING_APPROVAL])
async def test_a_fix_of_the_app_that_is_not_over_is_not_taken(state: RunState) -> None:
    world = rig(1)
    run = await kept(world, fix(state=state))
    words = state.replace("_", " ")
    with pytest.raises(UsageError, match=f"the fix {run.id} of the app is {words}; cancel it there first"):
        await terminal.resume_fix_here(world.services, run.id)
    assert await world.run(run.id) == run


async def test_a_plan_that_was_refused_is_not_gone_on_with() -> None:
    world = rig(1)
    run = await kept(world, fix(state=RunState.CANCELLED, approval=Approval(manual=True, digest="d")))
    assert await orders.decide(world.store, run.id, "d", orders.Decision.REFUSED)
    with pytest.raises(UsageError, match="was refused; make a new one"):
        await terminal.left_to_fix(world.services, run.id)


async def test_where_a_terminal_is_gone_it_says_so_to_the_app_as_well() -> None:
    world = rig(1)
    lost = await kept(world, fix(by=Starter.TERMINAL))
    run = await start(world)
    assert run.by is Starter.HTTP
    assert (await world.run(lost.id)).error == "its terminal went away before it was over"


# The lease


async def test_a_lease_that_could_not_be_claimed_is_claimed_by_the_next_step() -> None:
    world = rig(1)
    run = await kept(world, fix())

    def away() -> None:
        world.backend.trouble = lambda: None
        raise GuardError("the store is away")

    world.backend.trouble = away
    with pytest.raises(GuardError):
        await leases.renew(world.store, run.id)
    assert await leases.renew(world.store, run.id)
    assert await leases.holder(world.store, run.id) == leases.APP


async def test_no_step_is_carried_out_under_anothers_lease() -> None:
    world = rig(1)
    run = await kept(world, fix(), leased_to="a terminal")
    assert not await leases.renew(world.store, run.id)
    answer = await world.hub.carry_out("begin", {"run_id": run.id, "epoch": 0})
    assert answer["again"]
    assert "carried out by another one" in answer["failed"]
    # Of several steps that renew it at once all hold it.
    await world.store.release(leases.name(run.id), "a terminal")
    assert all(await asyncio.gather(*(leases.renew(world.store, run.id) for _ in range(8))))
