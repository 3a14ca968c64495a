"""Holding the records of runs against what is going: nothing inside an orchestration can mend the orchestration itself.

In the Functions host the top instance fails for good where its worker dies in the wrong moment (FACTS, section 9). Its
run is then begun again, from what the store knows; after some times it is ended, with every node recorded.

Each quarter of an hour it also says what lasts, for the alerts (`shared.telemetry`), and that it came through itself.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from shared import telemetry
from shared.errors import GuardError
from shared.models import Run, RunKind, RunState, Starter
from shared.runs import orders
from shared.runs.hosts import leases, starting, tidying
from shared.runs.hosts.starting import Orchestrations
from shared.runs.model import ENGINE
from shared.runs.model.messages import End, Ref
from shared.runs.model.progress import sum_of
from shared.runs.model.request import FixRequest, RunRequest
from shared.runs.services import Services
from shared.runs.steps.run_record import finish
from shared.schedule import next_after
from shared.store import Store, new_run_id

log = logging.getLogger(__name__)

BEGINNINGS = 5
"""How often a run is begun in all."""

LATE = timedelta(minutes=20)
"""A scheduled run that has not started by then is overdue."""

EARLY = timedelta(minutes=1)
"""So long before it was due a scheduled run may be recorded."""

_IDLE = timedelta(minutes=15)
_PATIENCE = timedelta(minutes=5)
# How long after it was due a scheduled run is still tried; that it did not happen is said until the next one is due.
_BACK = timedelta(hours=6)
_SPANS = (timedelta(minutes=2), timedelta(hours=1), timedelta(days=1), timedelta(days=366))
# A run is late where it takes half as long again as was expected, this long at least and at most: that a fix waited
# for its approval is in its time too.
_LATE_LEAST, _LATE_MOST = timedelta(minutes=15), timedelta(hours=2)
_PURGE_EVERY = 20 * 3600.0
_RETRY_EVERY = 10 * 60.0
_RETRIES = 6


@dataclass(frozen=True, slots=True)
class Seen:
    """What the watchdog did: runs begun again, ended and woken, and the scheduled run that it started. `overdue` says
    that one did not happen, `going` counts the runs that were."""

    begun: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    woken: tuple[str, ...] = ()
    started: str = ""
    overdue: bool = False
    going: int = 0


async def tick(connect: Callable[[], Awaitable[Services]], orchestrations: Orchestrations, now: datetime) -> None:
    """One minute's look: `watch`, or nothing where that may be left out. `connect` gives the connections.

    What refuses is said, which needs no store, and raised.
    """
    try:
        services = await connect()
        if await idle(services, now):
            return
        seen = await watch(services, orchestrations, now)
    except GuardError as error:
        telemetry.tell_refusal("", error)
        raise
    if _quarter(now):
        telemetry.tell_heartbeat(seen.going)


async def watch(
    services: Services,
    orchestrations: Orchestrations,
    now: datetime,
) -> Seen:
    """Reconcile records and orchestrations once."""
    begun: list[str] = []
    ended: list[str] = []
    woken: list[str] = []
    going = await starting.going(services.store)
    for run in going:
        try:
            did = await _mind(services, orchestrations, run, now)
        except Exception as error:
            # One run, or one answer of Durable Functions, keeps no other from being looked after.
            log.warning("the watchdog could not look after the run %s: %s", run.id, error)
            if isinstance(error, GuardError):
                telemetry.tell_refusal(run.id, error)
            continue
        for word, runs in (("begun", begun), ("ended", ended), ("woken", woken)):
            if did == word:
                runs.append(run.id)
    started, overdue = await _schedule(services, orchestrations, going, now)
    if _quarter(now):
        await _tell_what_lasts(services, [run for run in going if run.id not in ended], now)
    await _tidy(services, orchestrations, now)
    return Seen(tuple(begun), tuple(ended), tuple(woken), started, overdue, len(going))


async def idle(services: Services, now: datetime) -> bool:
    """Whether this minute may be left out: nothing is recorded as going, and it is not a quarter of an hour."""
    if _quarter(now):
        return False
    return not await starting.going(services.store)


def _quarter(now: datetime) -> bool:
    return now.minute % (_IDLE.seconds // 60) == 0


async def _tell_what_lasts(services: Services, going: Sequence[Run], now: datetime) -> None:
    """Say which fixes wait for a person, which runs are late, and that fixes are held."""
    hold = await services.store.hold()
    if hold is not None:
        telemetry.tell_hold(hold.by, hold.since, hold.reason)
    for run in going:
        if run.state is RunState.AWAITING_APPROVAL:
            telemetry.tell_run(run)
        elif hold is None or run.kind is not RunKind.FIX:
            so_far = sum_of(await services.store.progress(run.id))
            if so_far.until is not None and late(run.started, so_far.until, now):
                telemetry.tell_late(run, so_far.until, so_far.found, so_far.done)


def late(started: datetime, expected: datetime, now: datetime) -> bool:
    """Whether a run that should have ended at `expected` takes too long (pure). That time is the least that Azure's
    published limits allow, so a bit more says nothing."""
    return now - expected > max(_LATE_LEAST, min(_LATE_MOST, (expected - started) / 2))


async def _mind(services: Services, orchestrations: Orchestrations, run: Run, now: datetime) -> str:
    if run.fix_run:
        return await _mind_plan(services, run)
    if run.by is Starter.TERMINAL:
        return await _mind_terminal(services, orchestrations, run, now)
    if run.engine != ENGINE:
        await orchestrations.end(run.id, "another version of the app began it")
        await finish(services, run, End(error="the app was updated while this run was going: start it again"))
        return "ended"
    if await orchestrations.going(run.id):
        return await _wake(services, orchestrations, run)
    # Read again: it may have come to its end since it was listed.
    latest = await services.store.run(run.id)
    if latest is None or latest.state.final or (now - latest.started < starting.BIRTH and latest.epoch == 0):
        return ""
    if latest.epoch + 1 >= BEGINNINGS:
        await finish(services, latest, End(error=f"{starting.LOST}, after {BEGINNINGS} beginnings"))
        return "ended"
    known = latest.epoch

    def begun_again(record: Run) -> Run | None:
        return None if record.state.final or record.epoch != known else replace(record, epoch=known + 1)

    again = await services.store.change_run(run.id, begun_again)
    if again is None:
        return ""
    log.warning("run %s: %s; it is begun again (%d of %d)", run.id, starting.LOST, again.epoch + 1, BEGINNINGS)
    await orchestrations.start(run.id, Ref(run_id=run.id, epoch=again.epoch))
    return "begun"


async def _mind_terminal(services: Services, orchestrations: Orchestrations, run: Run, now: datetime) -> str:
    """A terminal's run is its own business, but where that has gone away for good.

    Where the store was away, the terminal is given the time to renew its lease.
    """
    store, seen = services.store, f"gone/{run.id}/{run.epoch}"
    if await starting.alive(store, orchestrations, run, now):
        return ""
    since = await store.holder(seen)
    if since is None:
        await store.claim(seen, now.isoformat(), 3 * leases.LEASE_SECONDS)
        return ""
    if (now - datetime.fromisoformat(since)).total_seconds() < leases.LEASE_SECONDS:
        return ""
    await starting.end_lost(services, run)
    return "ended"


async def _mind_plan(services: Services, plan: Run) -> str:
    """A plan ends with its fix; one that was recorded when that had ended already would go on for ever."""
    fix = await services.store.run(plan.fix_run)
    if fix is not None and not fix.state.final:
        return ""
    await finish(services, plan, End(ended="the fix that it was made for ended"))
    return "ended"


async def _wake(services: Services, orchestrations: Orchestrations, run: Run) -> str:
    """A run that waits for a word that was said, and was not woken."""
    if run.state is not RunState.AWAITING_APPROVAL or run.approval is None:
        return ""
    said = await orders.decision(services.store, run.id, run.approval.digest)
    expired = run.approval.expires is not None and run.approval.expires < datetime.now(UTC)
    if said is None and not expired and not await orders.cancelled(services.store, run):
        return ""
    await orchestrations.wake(run.id)
    return "woken"


async def _schedule(
    services: Services, orchestrations: Orchestrations, going: Sequence[Run], now: datetime
) -> tuple[str, bool]:
    """Try the scheduled run again that could not start or found nothing, and say where one is overdue."""
    schedule = services.settings.schedule
    since = await _known_since(services, schedule, now)
    due = last_due(schedule, now)
    if due is None or due < since or now - due < _PATIENCE:
        return "", False
    runs = await _started_since(services.store, due - EARLY)
    tries = [run for run in runs if run.by is Starter.TIMER and not run.fix_run]
    if any(run.state is not RunState.FAILED or _found(run) for run in tries):
        return "", False
    # One that takes longer than the schedule's gap keeps the next from starting, and is late itself at most.
    overdue = now - due >= LATE and not any(run.by is Starter.TIMER for run in going)
    if overdue and _quarter(now):
        telemetry.tell_overdue(due, tries[0].error if tries else "")
    if len(tries) >= _RETRIES or now - due >= _BACK:
        return "", overdue
    if not await services.store.claim(f"schedule/{due.isoformat()}/{len(tries)}", new_run_id(now), _RETRY_EVERY):
        return "", overdue
    try:
        run = await start_scheduled(services, orchestrations)
    except GuardError as error:
        log.warning("the scheduled run could not be started: %s", error)
        telemetry.tell_refusal("", error)
        return "", overdue
    return run.id, overdue


async def _started_since(store: Store, moment: datetime) -> list[Run]:
    """The runs that were started since then, newest first."""
    runs: list[Run] = []
    continuation: str | None = None
    while True:
        page = await store.runs(100, continuation)
        runs += [run for run in page.runs if run.started >= moment]
        continuation = page.continuation
        if continuation is None or page.runs[-1].started < moment:
            return runs


async def _known_since(services: Services, schedule: str, now: datetime) -> datetime:
    """When the app first saw this schedule: what it would have started before then is not overdue."""
    store, name = services.store, f"schedule since/{schedule}"
    since = await store.holder(name)
    if since is None:
        await store.claim(name, now.isoformat(), orders.FOR_GOOD)
        since = await store.holder(name) or now.isoformat()  # another instance may have been faster
    return datetime.fromisoformat(since)


def last_due(schedule: str, now: datetime) -> datetime | None:
    """When a schedule last came, at `now` at the latest; None where it did not in a year (pure)."""
    firsts = (next_after(schedule, now - span) for span in _SPANS)
    due, end = next((first for first in firsts if first <= now), None), now
    if due is None:
        return None
    # It lies from `due` to `end`, which come nearer to each other until no whole second is between them.
    while end - due >= timedelta(seconds=1):
        middle = due + (end - due) / 2
        later = next_after(schedule, middle)
        if later <= now:
            due = later
        else:
            end = middle
    return due


def _found(run: Run) -> bool:
    return run.summary is not None and run.summary.nodes > 0


async def start_scheduled(services: Services, orchestrations: Orchestrations) -> Run:
    """Start the scheduled run (GUARD_MODE). Raises as `starting.start`."""
    kind = RunKind(services.settings.mode)
    request = RunRequest() if kind is RunKind.AUDIT else FixRequest()
    return await starting.start(services, orchestrations, kind, request, by=Starter.TIMER)


async def _tidy(services: Services, orchestrations: Orchestrations, now: datetime) -> None:
    """Once a day delete what is old, in the store and in Durable Functions."""
    store, settings = services.store, services.settings
    if not await store.claim("tidy", leases.APP + now.isoformat(), _PURGE_EVERY):
        return
    await tidying.purge(store, settings, now)
    await orchestrations.forget(now - timedelta(days=settings.keep_work_days))
