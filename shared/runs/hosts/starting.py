"""Starting a run in the serverless app, on a schedule or by hand, and not where one like it is going."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from shared.errors import GuardError
from shared.models import Approval, Run, RunKind, RunState, Starter
from shared.runs.hosts import leases
from shared.runs.model import ENGINE
from shared.runs.model.messages import End, Ref
from shared.runs.model.request import RunRequest
from shared.runs.services import Services
from shared.runs.steps.run_record import finish
from shared.store import Store, new_run_id

log = logging.getLogger(__name__)

LOST = "the app lost this run: its orchestration is not there any more"

# A start takes a second; whoever is cut in the middle of one holds up the others for this long.
_TURN_SECONDS = 30.0
_TURN_TRIES = 40
# A run may be recorded this long before its orchestration is there.
BIRTH = timedelta(minutes=2)
# An audit from a terminal says nothing of itself while it goes; after this long it is not believed to.
_TERMINAL_AUDIT = timedelta(days=1)
# What a run that has ended may have left going is over by then.
_AFTERMATH = timedelta(minutes=10)


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
    """This deployment does not allow fixes."""


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

    Raises NotAllowedError, HeldError, GoingError and CrowdedError; then nothing was started.
    """
    store = services.store
    if kind is RunKind.FIX:
        if not services.settings.allow_fix:
            raise NotAllowedError(
                "this deployment does not allow fixes; where they are wanted, it is deployed with GUARD_ALLOW_FIX=true"
            )
        held = await store.hold()
        if held is not None:
            raise HeldError(f"fixes are held since {held.since:%Y-%m-%d %H:%M} UTC by {held.by}: {held.reason}")
    now = datetime.now(UTC)
    run = Run(
        new_run_id(now), kind, RunState.RUNNING, now, request=request.model_dump(mode="json"), by=by, engine=ENGINE
    )
    if kind is RunKind.FIX:
        run = replace(run, plan_run=new_run_id(now), approval=Approval(manual=manual))
    async with turn(store, run.id):
        await _make_room(services, orchestrations, run, now)
        await store.save_run(run)
    try:
        await orchestrations.start(run.id, Ref(run_id=run.id, epoch=run.epoch))
    except Exception as error:
        await finish(services, run, End(error=f"the run could not be started: {type(error).__name__}"))
        raise
    return run


async def _make_room(services: Services, orchestrations: Orchestrations, run: Run, now: datetime) -> None:
    """Raises GoingError where a run on the same scope is going, or something that one has left."""
    store, default = services.store, services.settings.subscriptions
    for other in await going(store):
        if not same_scope(run, other, default):
            continue
        if await alive(store, orchestrations, other, now):
            raise GoingError(other)
        await finish(services, other, End(error=LOST))
    if run.kind is RunKind.FIX:
        for other in await ended_since(store, now - _AFTERMATH):
            if same_scope(run, other, default) and await leases.holder(store, other.id) is not None:
                raise GoingError(other)


async def going(store: Store) -> list[Run]:
    """The runs that are not over, newest first."""
    return [
        run
        for state in (RunState.RUNNING, RunState.AWAITING_APPROVAL)
        for run in (await store.runs(1000, state=state)).runs
    ]


async def ended_since(store: Store, moment: datetime) -> list[Run]:
    """The newest runs that ended since then."""
    newest = (await store.runs(50)).runs
    return [run for run in newest if run.finished is not None and run.finished >= moment]


def same_scope(run: Run, other: Run, default: tuple[str, ...]) -> bool:
    """Whether two runs may not go at the same time (pure).

    Fixes: where their subscriptions overlap (none named: `default`, and no default: all). Others: where the same is
    asked for.
    """
    if run.kind is not other.kind:
        return False
    if run.kind is RunKind.FIX:
        mine, theirs = (set(_subscriptions(item) or default) for item in (run, other))
        return not mine or not theirs or not mine.isdisjoint(theirs)
    return not other.fix_run and _scope(run) == _scope(other)


def _subscriptions(run: Run) -> list[str]:
    named = run.request.get("subscriptions", [])
    assert isinstance(named, list | tuple)  # RunRequest wrote it
    return [str(item) for item in named]


def _scope(run: Run) -> Mapping[str, object]:
    fields = RunRequest.model_fields
    values = {name: run.request.get(name) or [] for name in fields}
    return {
        name: sorted(str(item).lower() for item in value) if isinstance(value, list | tuple) else value
        for name, value in values.items()
    }


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
