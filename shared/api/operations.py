"""What each operation of the HTTP API does: from a validated request to an answer."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from shared import __version__
from shared.api import problems
from shared.api.bodies import (
    Alive,
    ApprovalView,
    ApproveBody,
    AuditBody,
    Check,
    DoctorRow,
    FieldError,
    FindingList,
    FindingsQuery,
    FixBody,
    Health,
    HealthQuery,
    HeldView,
    HoldBody,
    HoldView,
    Links,
    ListedRun,
    NodePlanView,
    PlanQuery,
    PlanView,
    ProblemBody,
    ProgressView,
    RunDetail,
    RunList,
    RunsQuery,
    RunView,
    Scope,
    SummaryView,
)
from shared.errors import GuardError, NotFixedError, UsageError
from shared.models import Approval, Run, RunKind, RunState, Starter
from shared.plain import plain
from shared.settings import place_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from shared.runs.hosts.starting import Orchestrations
    from shared.runs.model.request import RunRequest
    from shared.runs.services import Services
    from shared.store import Hold

RETRY_AFTER = {"Retry-After": "10"}
_HEALTH_SECONDS = 20
_LONGEST = 4_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back."""

    status: int
    body: BaseModel
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Caller:
    """What operations work with: the connections, and the Durable Functions client of this call."""

    services: Services
    orchestrations: Orchestrations


def problem(
    kind: problems.Kind, detail: str, errors: Sequence[FieldError] = (), run: Run | None = None, **headers: str
) -> Answer:
    """An answer that says what is wrong."""
    view = None if run is None else view_of(run)
    body = ProblemBody(
        type=kind.type,
        title=kind.title,
        status=kind.status,
        detail=plain(detail, _LONGEST),
        errors=list(errors),
        run=view,
    )
    return Answer(kind.status, body, {name.replace("_", "-"): value for name, value in headers.items()})


async def start_audit(caller: Caller, body: AuditBody) -> Answer:
    """Start an audit: look at every node in scope, judge it and record the findings."""
    from shared.runs.model.request import RunRequest

    return await _start(caller, RunKind.AUDIT, RunRequest.model_validate(body.model_dump()), manual=False)


async def start_fix(caller: Caller, body: FixBody) -> Answer:
    """Start a fix: plan, wait for an approval where it is manual, and change failing nodes in waves."""
    from shared.runs.model.request import FixRequest

    request = FixRequest.model_validate(body.model_dump(exclude={"approval"}))
    return await _start(caller, RunKind.FIX, request, manual=body.approval == "manual")


async def _start(caller: Caller, kind: RunKind, request: RunRequest, *, manual: bool) -> Answer:
    from shared.runs.hosts import starting

    try:
        run = await starting.start(
            caller.services, caller.orchestrations, kind, request, by=Starter.HTTP, manual=manual
        )
    except (starting.NotAllowedError, NotFixedError) as error:
        return problem(problems.FIX_NOT_ALLOWED, str(error))
    except starting.HeldError as error:
        return problem(problems.HELD, str(error))
    except starting.GoingError as error:
        links = view_of(error.run).links
        return problem(problems.GOING, str(error), run=error.run, Location=links.self)
    except starting.CrowdedError as error:
        return problem(problems.CROWDED, str(error), Retry_After="10")
    view = view_of(run)
    return Answer(202, view, {"Location": view.links.self, **RETRY_AFTER})


async def list_runs(caller: Caller, query: RunsQuery) -> Answer:
    """List runs, newest first."""
    page = await caller.services.store.runs(query.limit, query.continuation, kind=query.kind, state=query.state)
    return Answer(200, RunList(runs=[_listed(run) for run in page.runs], continuation=page.continuation))


async def get_run(caller: Caller, run_id: str) -> Answer:
    """Show a run and how far it is."""
    from shared.runs.hosts import starting
    from shared.runs.model.progress import sum_of

    store = caller.services.store
    run = await _run(caller, run_id)
    if run is None:
        return _unknown(run_id)
    progress = _progress(sum_of(await store.progress(run.id)), run)
    planning = None
    if run.plan_run:
        planning = _progress(sum_of(await store.progress(run.plan_run)), run)
    approval = None
    if run.state is RunState.AWAITING_APPROVAL and run.approval is not None and run.approval.expires is not None:
        asked = run.approval
        approval = ApprovalView(digest=asked.digest, expires=run.approval.expires, why=asked.why)
    held = _held(await store.hold()) if run.kind is RunKind.FIX and not run.state.final else None
    lost = not run.state.final and not await starting.alive(store, caller.orchestrations, run, datetime.now(UTC))
    detail = RunDetail(
        **dict(view_of(run)), progress=progress, lost=lost, held=held, planning=planning, approval=approval
    )
    return Answer(200, detail, {} if run.state.final else RETRY_AFTER)


async def cancel_run(caller: Caller, run_id: str) -> Answer:
    """Cancel a run: nodes in hand are finished, the others are recorded as skipped."""
    from shared.runs import orders
    from shared.runs.hosts import starting

    run = await _run(caller, run_id)
    if run is None:
        return _unknown(run_id)
    if run.state.final:
        return problem(problems.OVER, f"the run {run.id} is {run.state}", run=run)
    if not await starting.alive(caller.services.store, caller.orchestrations, run, datetime.now(UTC)):
        run = await starting.end_lost(caller.services, run)
        return problem(problems.OVER, f"the run {run.id} was lost, and is recorded as {run.state} now", run=run)
    await orders.cancel(caller.services.store, run)
    # Read again: whoever waits for an approval since then may have looked before the word was there.
    run = await caller.services.store.run(run.id) or run
    if run.state is RunState.AWAITING_APPROVAL:
        await caller.orchestrations.wake(run.id)
    return Answer(202, view_of(run), {"Location": view_of(run).links.self, **RETRY_AFTER})


async def approve_run(caller: Caller, run_id: str, body: ApproveBody) -> Answer:
    """Approve or refuse the plan that a fix waits with, named by its digest."""
    from shared.runs import orders
    from shared.runs.hosts import starting

    run = await _run(caller, run_id)
    if run is None:
        return _unknown(run_id)
    if run.state is not RunState.AWAITING_APPROVAL:
        detail = f"the run {run.id} is {run.state}: it waits for no approval"
        return problem(problems.NOTHING_TO_APPROVE, detail, run=run)
    if await orders.cancelled(caller.services.store, run):
        return problem(
            problems.CANCELLED, f"the run {run.id} was asked to stop: nothing of it is done any more", run=run
        )
    asked = run.approval or Approval()
    expires = asked.expires or datetime.now(UTC)
    if datetime.now(UTC) >= expires:
        detail = f"the approval of the run {run.id} expired at {expires:%Y-%m-%d %H:%M:%S} UTC; start the fix again"
        return problem(problems.EXPIRED, detail, run=run)
    if body.digest != asked.digest:
        detail = f"the plan of the run {run.id} has the digest {asked.digest}, not {body.digest}: look at it again"
        return problem(problems.OTHER_PLAN, detail, run=run)
    if not await starting.alive(caller.services.store, caller.orchestrations, run, datetime.now(UTC)):
        detail = (
            f"the app has lost the run {run.id}; the watchdog begins it again in a minute, or ends it: ask again then"
        )
        return problem(problems.LOST, detail, run=run)
    said = orders.Decision.APPROVED if body.approve else orders.Decision.REFUSED
    if not await orders.decide(caller.services.store, run.id, asked.digest, said):
        return problem(problems.DECIDED, f"the plan of the run {run.id} was already decided on", run=run)
    await caller.orchestrations.wake(run.id)
    return Answer(202, view_of(run), {"Location": view_of(run).links.self, **RETRY_AFTER})


async def get_plan(caller: Caller, run_id: str, query: PlanQuery) -> Answer:
    """Show the plan of a fix, or of a run that plans: what would be changed on each failing node."""
    from shared.runs import documents
    from shared.runs.model import keys

    store = caller.services.store
    run = await _run(caller, run_id)
    if run is None:
        return _unknown(run_id)
    planner = await store.run(run.plan_run) if run.plan_run else run
    index = None
    if planner is not None and planner.kind is RunKind.PLAN and planner.state is RunState.COMPLETED:
        index = await documents.find(store, planner.id, keys.INDEX, documents.INDEX)
    if planner is None or index is None:
        return problem(problems.NO_PLAN, f"the run {run.id} ({run.kind}) has no plan, or none yet")
    place = index.documents[query.continuation : query.continuation + 1]
    plans = await documents.load(store, planner.id, place[0], documents.PLANS) if place else []
    more = query.continuation + 1 < len(index.documents)
    view = PlanView(
        run_id=run.id,
        digest=index.digest,
        nodes=[
            NodePlanView(
                subscription=plan.node.subscription,
                resource_group=plan.node.resource_group,
                cluster=plan.node.cluster,
                node_pool=plan.node.node_pool,
                node=plan.node.name,
                controls=list(plan.controls),
                left=dict(plan.left),
                also=list(plan.also),
                steps=list(plan.steps),
                restart=plan.restart and not plan.refused,
                diff=plan.diff,
                refused=plan.refused,
            )
            for plan in plans
        ],
        continuation=query.continuation + 1 if more else None,
    )
    return Answer(200, view)


async def list_findings(caller: Caller, query: FindingsQuery) -> Answer:
    """List findings: of the run that is named, else of the latest complete audit.

    That is the latest complete audit of everything, else the latest complete one; the answer names it with its scope.
    A run that is named may be of any kind and going. To page through, name the run that the first page named.
    """
    from shared.runs.model.request import scope_of
    from shared.store import FindingQuery

    store = caller.services.store
    if query.run_id is None:
        run = await store.latest_audit()
        if run is None:
            return Answer(200, FindingList(run=None, scope=None, findings=[], continuation=None))
    else:
        run = await _run(caller, query.run_id)
        if run is None:
            return _unknown(query.run_id)
    names = {"status", "control", "subscription", "cluster", "node_pool", "node"}
    wanted = FindingQuery(run_id=run.id, **query.model_dump(include=names))
    page = await store.findings(wanted, query.limit, query.continuation)
    scope = Scope.model_validate(scope_of(run))
    found = FindingList(run=run.id, scope=scope, findings=list(page.findings), continuation=page.continuation)
    return Answer(200, found)


async def get_hold(caller: Caller) -> Answer:
    """Say whether fixes are held."""
    return Answer(200, HoldView(held=_held(await caller.services.store.hold())))


async def set_hold(caller: Caller, body: HoldBody) -> Answer:
    """Hold all fixes, here and in terminals on the same store: none starts, and none begins another wave.

    What is in hand on a node comes to its end. A fix that is held waits, and goes on when the hold is released.
    """
    from shared.store import Hold

    await caller.services.store.set_hold(Hold(by="the API", since=datetime.now(UTC), reason=plain(body.reason)))
    return await get_hold(caller)


async def release_hold(caller: Caller) -> Answer:
    """Let fixes go on."""
    await caller.services.store.release_hold()
    return await get_hold(caller)


def _held(hold: Hold | None) -> HeldView | None:
    return None if hold is None else HeldView(by=hold.by, since=hold.since, reason=hold.reason)


async def live() -> Answer:
    """Say that the app is up: without a key, and without asking anybody else."""
    return Answer(200, Alive(version=__version__))


async def health(caller: Caller, query: HealthQuery) -> Answer:
    """Say whether the app has what it needs: its storage and its identity; with `deep` all that a run needs.

    That takes up to two minutes, and is what `kubelet-guard doctor` shows; nothing is changed, and no node is asked.
    """
    services = caller.services
    storage, identity = await asyncio.gather(
        _check(services.store.latest_run(), "the store answers"),
        _check(services.azure.subscriptions(), "the identity sees {} subscriptions"),
    )
    place = place_of(services.settings.store.get_secret_value())
    settings = {**services.settings.model_dump(mode="json"), "store": place}
    well = storage.ok and identity.ok
    held = _held(await services.store.hold()) if storage.ok else None
    checks = None
    if query.deep:
        from shared.doctor import Level, verdict
        from shared.doctor.examining import examine

        location = services.settings.store.get_secret_value()
        found = await examine(services.settings, services.azure, services.store, location, os.environ)
        checks = [
            DoctorRow.model_validate({name: plain(value, None) for name, value in asdict(row).items()}) for row in found
        ]
        well = well and verdict(found) is not Level.FAIL
    body = Health(
        ok=well,
        version=__version__,
        settings=settings,
        storage=storage,
        identity=identity,
        held=held,
        checks=checks,
    )
    return Answer(200 if well else 503, body)


async def _check(asked: Awaitable[Any], well: str) -> Check:
    try:
        answer = await asyncio.wait_for(asked, _HEALTH_SECONDS)
    except GuardError as error:
        return Check(ok=False, detail=str(error))
    except TimeoutError:
        return Check(ok=False, detail=f"no answer within {_HEALTH_SECONDS} seconds")
    return Check(ok=True, detail=well.format(len(answer)) if isinstance(answer, list) else well)


async def _run(caller: Caller, run_id: str) -> Run | None:
    try:
        return await caller.services.store.run(run_id)
    except UsageError:
        return None  # not even the form of a run id: there is none


def _unknown(run_id: str) -> Answer:
    return problem(problems.NO_SUCH_RUN, f"there is no run {plain(run_id, 60)!r}; GET /api/runs lists them")


def view_of(run: Run) -> RunView:
    """A run as it is shown."""
    return RunView(**dict(_listed(run)), request=dict(run.request))


def _listed(run: Run) -> ListedRun:
    here = f"/api/runs/{run.id}"
    waits = run.state is RunState.AWAITING_APPROVAL
    return ListedRun(
        id=run.id,
        kind=run.kind,
        state=run.state,
        started=run.started,
        finished=run.finished,
        summary=None if run.summary is None else SummaryView.model_validate(asdict(run.summary)),
        error=run.error,
        by=run.by,
        plan_run=run.plan_run or None,
        fix_run=run.fix_run or None,
        links=Links(
            self=here,
            findings=f"/api/findings?run_id={run.id}",
            cancel=None if run.state.final else f"{here}/cancel",
            approve=f"{here}/approve" if waits else None,
            plan=None if run.kind is RunKind.AUDIT else f"{here}/plan",
        ),
    )


def _progress(so_far: Any, run: Run) -> ProgressView:
    # An estimate that has passed was wrong, and says nothing of the end any more.
    ahead = run.state is RunState.RUNNING and so_far.until is not None and so_far.until > datetime.now(UTC)
    return ProgressView(
        nodes_found=so_far.found,
        nodes_done=so_far.done,
        statuses=dict(so_far.statuses),
        outcomes=dict(so_far.outcomes),
        waves=so_far.waves,
        azure_calls=so_far.azure_calls,
        throttle_waits=so_far.throttle_waits,
        throttled_seconds=so_far.throttled_seconds,
        expected_end=so_far.until if ahead else None,
    )
