"""Starting a run in the serverless app, on a schedule or by hand, and not where one like it is going."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from shared import telemetry
from shared.errors import GuardError
from shared.models import Run, RunKind, RunState
from shared.runs.context import Json
from shared.runs.request import RunRequest
from shared.runs.services import Services
from shared.store import Store, new_run_id

log = logging.getLogger(__name__)

Approval = Literal["auto", "manual"]

# A start takes a second; whoever is cut in the middle of one holds up the others for this long.
_TURN_SECONDS = 30.0
_TURN_TRIES = 40
# A run may be recorded this long before its orchestration is there.
_BIRTH = timedelta(minutes=2)
# An audit from a terminal says nothing of itself while it goes; after this long it is not believed to.
_TERMINAL_AUDIT = timedelta(days=1)


class Orchestrations(Protocol):
    """The Durable Functions client, as far as it is needed."""

    async def start(self, run_id: str, job: Json) -> None:
        """Start the `run` orchestrator, its instance having the run's id."""

    async def wake(self, run_id: str) -> None:
        """Make a waiting run look into the store; nothing where it is over."""

    async def going(self, run_id: str) -> bool:
        """Whether the instance is there and not over."""


class NotAllowedError(GuardError):
    """This deployment does not allow fixes."""


class GoingError(GuardError):
    """A run on the same scope is going: `run`."""

    def __init__(self, run: Run) -> None:
        super().__init__(f"the {run.kind} {run.id} on the same scope is going")
        self.run = run


class CrowdedError(GuardError):
    """Others are starting runs right now; the same again in some seconds."""


async def start(
    services: Services,
    orchestrations: Orchestrations,
    kind: RunKind,
    request: RunRequest,
    *,
    by: Literal["http", "timer"],
    approval: Approval = "auto",
) -> Run:
    """Record a run and start it. Raises NotAllowedError, GoingError and CrowdedError; then nothing was started."""
    if kind is RunKind.FIX and not services.settings.allow_fix:
        raise NotAllowedError(
            "this deployment does not allow fixes; where they are wanted, it is deployed with GUARD_ALLOW_FIX=true"
        )
    now = datetime.now(UTC)
    scope = request.model_dump(mode="json")
    record = {**scope, "by": by}
    job: dict[str, Json] = {"kind": kind.value, "request": scope}
    if kind is RunKind.FIX:
        job |= {"plan_run": new_run_id(now), "approval": approval}
        record |= {"plan_run": job["plan_run"], "approval": approval}
    run = Run(new_run_id(now), kind, RunState.RUNNING, now, request=record)
    async with turn(services.store, run.id):
        for other in await going(services.store):
            if not same_scope(run, other, services.settings.subscriptions):
                continue
            if await alive(services.store, orchestrations, other, now):
                raise GoingError(other)
            await give_up(services.store, other, "the app lost this run: its orchestration is not there any more")
        await services.store.save_run(run)
    try:
        await orchestrations.start(run.id, {**job, "run_id": run.id, "record": record})
    except Exception as error:
        await give_up(services.store, run, f"the run could not be started: {type(error).__name__}")
        raise
    return run


async def going(store: Store) -> list[Run]:
    """The runs that are not over, newest first."""
    return [
        run
        for state in (RunState.RUNNING, RunState.AWAITING_APPROVAL)
        for run in (await store.runs(1000, state=state)).runs
    ]


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
    return "fix_run" not in other.request and _scope(run) == _scope(other)


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
    if "by" not in run.request:
        if run.kind is RunKind.FIX:
            return await store.holder(lease(run.id)) is not None
        return now - run.started < _TERMINAL_AUDIT
    return now - run.started < _BIRTH or await orchestrations.going(run.id)


def lease(run_id: str) -> str:
    """The claim that a terminal holds while it carries out this fix (exclusive.py)."""
    return f"fix/{run_id}"


async def give_up(store: Store, run: Run, why: str) -> None:
    """Record that a run failed without its orchestration being able to say so."""
    log.error("run %s: %s", run.id, why)
    failed = replace(run, state=RunState.FAILED, finished=datetime.now(UTC), error=why)
    telemetry.tell_run(failed)
    await store.save_run(failed)
