"""Starting a run in the serverless app, on a schedule or by hand, and not where one like it is going."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from shared.errors import GuardError
from shared.models import Approval, Run, RunKind, RunState, Starter
from shared.runs.hosts import leases
from shared.runs.model import ENGINE
from shared.runs.model.messages import End, Ref
from shared.runs.model.request import SCOPE, RunRequest, named, settled
from shared.runs.services import Services
from shared.runs.steps.run_record import finish
from shared.store import Hold, Store, new_run_id

log = logging.getLogger(__name__)

LOST = "the app lost this run: its orchestration is not there any more"
_GONE = "its terminal went away before it was over"

# A start takes a second; whoever is cut in the middle of one holds up the others for this long.
_TURN_SECONDS = 30.0
_TURN_TRIES = 40
# Whoever took longer to look around records nothing: the turn might be another's by the time that it is written.
_LOOK_SECONDS = 20.0
_LOOKS = 5
# A run may be recorded this long before its orchestration is there.
BIRTH = timedelta(minutes=2)
# An audit from a terminal says nothing of itself while it goes; after this long it is not believed to.
_TERMINAL_AUDIT = timedelta(days=1)
# What a run that has ended may have left going is over by then.
_AFTERMATH = timedelta(minutes=10)
# Newer fixes than one that ended within the aftermath: never so many.
_FIXES = 1000


class Orchestrations(Protocol):
    """The Durable Functions client, as far as it is needed."""

    async def start(self, run_id: str, ref: Ref) -> None:
        """Start the `run` orchestrator, its instance having the run's id."""

    async def wake(self, run_id: str) -> None:
        """Make a waiting run look into the store; nothing where it is over."""

    async def going(self, run_id: str) -> bool:
        """Whether the instance is there and not over."""

    async def end(self, run_id: str, why: str) -> None:
        """End the instance, where it is going."""

    async def forget(self, before: datetime) -> int:
        """Delete the histories of instances that ended before; gives how many there were."""


class NotAllowedError(GuardError):
    """This deployment does not allow fixes, or not those of a control."""


class HeldError(GuardError):
    """Fixes are held."""


class GoingError(GuardError):
    """A run on the same scope is going: `run`."""

    def __init__(self, run: Run) -> None:
        over = "" if not run.state.final else " has ended, and what it had begun"
        super().__init__(f"the {run.kind} {run.id} on the same scope{over} is going")
        self.run = run


class CrowdedError(GuardError):
    """Others are starting runs right now; the same again in some seconds."""


async def start(
    services: Services,
    orchestrations: Orchestrations,
    kind: RunKind,
    request: RunRequest,
    *,
    by: Starter,
    manual: bool = False,
) -> Run:
    """Record a run and start it; a fix that is `manual` waits for an approval of its plan.

    Raises NotAllowedError, NotFixedError, SettingsError, HeldError, GoingError and CrowdedError; then nothing was
    started.
    """
    store = services.store
    if kind is RunKind.FIX:
        if not services.settings.allow_fix:
            raise NotAllowedError(
                "this deployment does not allow fixes; where they are wanted, it is deployed with GUARD_ALLOW_FIX=true"
            )
        held = await store.hold()
        if held is not None:
            raise HeldError(held_words(held))
    now = datetime.now(UTC)
    request = settled(kind, request, services.settings)
    run = Run(
        new_run_id(now), kind, RunState.RUNNING, now, request=request.model_dump(mode="json"), by=by, engine=ENGINE
    )
    if kind is RunKind.FIX:
        run = replace(run, plan_run=new_run_id(now), approval=Approval(manual=manual))

    async def look() -> list[Run]:
        return await _in_the_way(services, orchestrations, run, now)

    await record_alone(services, run.id, look, lambda: store.save_run(run))
    try:
        await orchestrations.start(run.id, Ref(run_id=run.id, epoch=run.epoch))
    except Exception as error:
        why = error if isinstance(error, GuardError) else type(error).__name__
        await finish(services, run, End(error=f"the run could not be started: {why}"))
        raise
    return run


async def _in_the_way(services: Services, orchestrations: Orchestrations, run: Run, now: datetime) -> list[Run]:
    """Runs on the same scope that are recorded as going and are not.

    Raises GoingError where one is, or something that one has left.
    """
    store, settings = services.store, services.settings
    # What belongs to a management group is not known here.
    default = () if settings.management_group else settings.subscriptions
    others = [other for other in await going(store) if same_scope(run, other, default)]
    for other in others:
        if await alive(store, orchestrations, other, now):
            raise GoingError(other)
    if run.kind is RunKind.FIX:
        left = await left_going(store, run, default, now)
        if left is not None:
            raise GoingError(left)
    return others


async def record_alone(
    services: Services, owner: str, look: Callable[[], Awaitable[list[Run]]], record: Callable[[], Awaitable[None]]
) -> None:
    """Look around and record in one turn, so that of two starts that see the same one sees the other.

    `look` raises where something goes that must not, and gives lost runs that are in the way. They are ended between
    turns, for that may take minutes, and then it is looked again. Raises CrowdedError.
    """
    for _ in range(_LOOKS):
        async with turn(services.store, owner):
            begun = time.monotonic()
            lost = await look()
            if not lost and time.monotonic() - begun <= _LOOK_SECONDS:
                await record()
                return
        for other in lost:
            await end_lost(services, other)
    raise CrowdedError("what is going could not be looked at in time; try again in some seconds")


async def end_lost(services: Services, run: Run) -> Run:
    """Record the end of a run that is not alive; a terminal's fix can be gone on with."""
    if run.by is Starter.TERMINAL:
        return await finish(services, run, End(error=_GONE), resumable=True)
    return await finish(services, run, End(error=LOST))


def held_words(hold: Hold) -> str:
    """Why nothing is started."""
    return f"fixes are held since {hold.since:%Y-%m-%d %H:%M} UTC by {hold.by}: {hold.reason}"


async def going(store: Store) -> list[Run]:
    """The runs that are not over, newest first."""
    return [
        run
        for state in (RunState.RUNNING, RunState.AWAITING_APPROVAL)
        for run in (await store.runs(1000, state=state)).runs
    ]


async def left_going(store: Store, run: Run, default: tuple[str, ...], now: datetime) -> Run | None:
    """A fix on the scope of `run` that has ended, and something of which may still go on."""
    for other in (await store.runs(_FIXES, kind=RunKind.FIX)).runs:
        if other.id == run.id or other.finished is None or other.finished < now - _AFTERMATH:
            continue
        if same_scope(run, other, default) and await leases.holder(store, other.id) is not None:
            return other
    return None


def same_scope(run: Run, other: Run, default: tuple[str, ...]) -> bool:
    """Whether two runs may not go at the same time (pure).

    Fixes: where their subscriptions overlap. None named: `default`, but all where a management group is named, whose
    subscriptions are not known here, and where there is no default. Others: where the same is asked for.
    """
    if run.kind is not other.kind:
        return False
    if run.kind is RunKind.FIX:
        mine, theirs = (_subscriptions(item, default) for item in (run, other))
        return not mine or not theirs or not mine.isdisjoint(theirs)
    return not other.fix_run and all(named(run, name) == named(other, name) for name in SCOPE)


def _subscriptions(run: Run, default: tuple[str, ...]) -> frozenset[str]:
    """What a fix may touch; the empty set: anything."""
    if subscriptions := named(run, "subscriptions"):
        return subscriptions
    return frozenset() if named(run, "management_group") else frozenset(item.lower() for item in default)


@asynccontextmanager
async def turn(store: Store, owner: str) -> AsyncIterator[None]:
    """One start at a time, over all instances of the app. Raises CrowdedError."""
    for _ in range(_TURN_TRIES):
        if await store.claim("start", owner, _TURN_SECONDS):
            break
        await asyncio.sleep(random.uniform(0.1, 0.4))  # noqa: S311 - so that waiters do not march in step
    else:
        raise CrowdedError("other runs are being started right now; try again in some seconds")
    try:
        yield
    finally:
        await store.release("start", owner)


async def alive(store: Store, orchestrations: Orchestrations, run: Run, now: datetime) -> bool:
    """Whether a run that is recorded as going is: the app's by its orchestration, a terminal's fix by its lease."""
    if run.by is Starter.TERMINAL:
        if run.kind is RunKind.FIX:
            return await leases.holder(store, run.id) is not None
        return now - run.started < _TERMINAL_AUDIT
    if run.fix_run:
        return True  # it ends with its fix
    if now - run.started < BIRTH or await orchestrations.going(run.id):
        return True
    return await leases.holder(store, run.id) is not None
