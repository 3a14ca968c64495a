"""A run's record in the store, from its beginning to its summary. Idempotent: a record that is final stays as it is."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from shared.models import Approval, Problem, Run, RunKind, RunState, RunSummary, Starter, Status
from shared.runs import documents, orders
from shared.runs.model import ENGINE, keys
from shared.runs.model.messages import Ask, Asked, Begun, Decided, End, Finish, Finished, FixJob, Ref, Word
from shared.runs.model.progress import sum_of
from shared.runs.services import Services
from shared.runs.steps import fix_plan
from shared.runs.steps.left_undone import CANCELLED, failed, leave_all
from shared.runs.steps.standing import Standing, stand

log = logging.getLogger(__name__)

_REFUSED = {
    orders.Decision.APPROVED: "",
    orders.Decision.REFUSED: "the plan was refused",
    orders.Decision.EXPIRED: "nobody approved the plan in time",
}


async def begin(services: Services, ref: Ref) -> Begun:
    """What a run has to do; for a fix whose plan is to be made, that run is recorded as well."""
    store, settings = services.store, services.settings
    standing = await stand(services, ref)
    run, request = standing.run, standing.request
    if standing.over:
        return Begun(over=True)
    fix, made = None, False
    if run.kind is RunKind.FIX:
        made = await documents.find(store, run.id, keys.GATHERED, documents.GATHERED) is not None
        if not made:
            await _record_plan_run(services, run)
        fix = FixJob(
            run_id=run.id,
            epoch=ref.epoch,
            max_unavailable=request.max_unavailable,
            max_failures=request.max_failures,
            canary=request.canary,
            pause_seconds=request.pause_seconds,
            first_look=settings.command_seconds + settings.settle_seconds,
            held_hours=settings.approval_hours,
            asks=request.sweeps,
        )
    return Begun(
        patient=run.by is not Starter.TERMINAL,
        sweeps=request.sweeps,
        share=settings.budget_percent / 100,
        first_look=settings.command_seconds,
        # A command takes about 20 s at least (FACTS, section 3).
        first_look_least=min(settings.command_seconds, 20.0),
        fix=fix,
        plan_run=run.plan_run,
        made=made,
        manual=run.approval is not None and run.approval.manual,
    )


async def _record_plan_run(services: Services, fix: Run) -> None:
    made = Run(fix.plan_run, RunKind.PLAN, RunState.RUNNING, datetime.now(UTC), request=fix.request, by=fix.by)
    made = replace(made, fix_run=fix.id, epoch=fix.epoch, engine=ENGINE)

    def begun(known: Run) -> Run | None:
        over = known.state.final or known.epoch > fix.epoch
        return None if over else replace(known, fix_run=fix.id, epoch=fix.epoch, engine=ENGINE)

    if not await services.store.add_run(made):
        await services.store.change_run(made.id, begun)


async def ask_approval(services: Services, message: Ask) -> Asked:
    """Record that a fix waits for its plan to be approved."""
    standing = await stand(services, message)
    run = standing.run
    known = run.approval
    if known is None or known.expires is None or known.digest != message.digest:
        expires = datetime.now(UTC) + timedelta(hours=services.settings.approval_hours)
        known = Approval(manual=True, why=message.why, digest=message.digest, expires=expires)
    asked = known

    def waits(run: Run) -> Run | None:
        over = run.state.final or run.epoch != message.epoch
        return None if over else replace(run, state=RunState.AWAITING_APPROVAL, approval=asked)

    if await orders.decision(services.store, run.id, message.digest) is None:
        waiting = await services.store.change_run(run.id, waits)
        if waiting is not None:
            services.tell_run(waiting)
    assert asked.expires is not None  # set above
    return Asked(expires=asked.expires)


async def decision(services: Services, ref: Ref) -> Decided:
    """What was said to the plan of a run that waits."""
    standing = await stand(services, ref)
    run = standing.run
    if standing.over:
        return Decided(over=True)
    approval = run.approval or Approval()
    said = await orders.decision(services.store, run.id, approval.digest)
    if said is None and approval.expires is not None and approval.expires <= datetime.now(UTC):
        # A word as well: whoever approves in this moment was first, or hears that it is too late.
        await orders.decide(services.store, run.id, approval.digest, orders.Decision.EXPIRED)
        said = await orders.decision(services.store, run.id, approval.digest)
    refused = None if said is None else _REFUSED[said]
    if standing.cancelled:
        refused = "the run was cancelled"

    def goes_on(known: Run) -> Run | None:
        waits = known.state is RunState.AWAITING_APPROVAL and known.epoch == ref.epoch
        return replace(known, state=RunState.RUNNING) if waits else None

    if refused is not None and run.state is RunState.AWAITING_APPROVAL:
        await services.store.change_run(run.id, goes_on)
    return Decided(refused=refused)


async def listen(services: Services, ref: Ref) -> Word:
    """What was said to a run from outside."""
    standing = await stand(services, ref)
    return Word(over=standing.over, cancelled=standing.cancelled)


async def finish_step(services: Services, message: Finish) -> Finished:
    """Record a run's end; see `finish`."""
    standing = await stand(services, message)
    if standing.run.epoch != message.epoch:
        return Finished(state="")
    return Finished(state=(await finish(services, standing.run, message.end)).state)


async def finish(services: Services, run: Run, end: End, *, resumable: bool = False) -> Run:
    """Record the end of a run with its summary, counted over what is recorded; the one way in which a run ends.

    Every node that was found and is not done gets its finding first, but in a fix that is `resumable`. A run that has
    ended stays as it is, and so does one that was begun anew since `run` was read: it is not the caller's any more.
    """
    store, epoch = services.store, run.epoch
    recorded = await store.run(run.id)
    if recorded is not None and (recorded.state.final or recorded.epoch > epoch):
        return recorded
    run = recorded or run
    cancelled = await orders.cancelled(store, run)
    if run.kind is RunKind.FIX:
        await _finish_plan(services, run, end)
    if not (resumable and run.kind is RunKind.FIX) and (end.error or end.ended or cancelled):
        await leave_all(services, Standing(run, over=False, cancelled=cancelled), _why(run, end))
    counts = await store.count(run.id)
    so_far = sum_of(await store.progress(run.id))
    # What a lane that was not gone on with had found before counts too.
    found = max(so_far.found, end.nodes or 0)
    error = end.error
    if not error and not end.ended and counts.nodes < found:
        error = f"{found - counts.nodes} of {found} nodes have no finding: this is a fault of the app, report it"
    state = RunState.COMPLETED
    if error:
        state = RunState.FAILED
    elif end.ended or cancelled:
        state = RunState.CANCELLED
    if run.kind is RunKind.PLAN and state is RunState.COMPLETED:
        await fix_plan.index(services, run.id)
    summary = RunSummary(counts.statuses, counts.outcomes, found, so_far.azure_calls, so_far.throttled_seconds)
    finished, why = datetime.now(UTC), error or end.ended or end.missed

    def ended(known: Run) -> Run | None:
        if known.state.final or known.epoch > epoch:
            return None
        return replace(known, state=state, finished=finished, summary=summary, error=why)

    changed = await store.change_run(run.id, ended)
    if changed is None:  # another ended it or began it anew meanwhile, and says so
        return await store.run(run.id) or run
    if changed.error:
        log.warning("run %s: %s", changed.id, changed.error)
    services.tell_run(changed)
    return changed


def _why(run: Run, end: End) -> Problem:
    if end.error:
        return failed(end.error)
    if run.kind is RunKind.FIX:
        return Problem(Status.SKIPPED, "left", end.ended or CANCELLED.reason, "")
    return CANCELLED


async def _finish_plan(services: Services, fix: Run, end: End) -> None:
    """A fix that ends while its plan is being made ends that run as well."""
    plan = await services.store.run(fix.plan_run) if fix.plan_run else None
    if plan is not None and plan.fix_run == fix.id and not plan.state.final:
        await finish(services, plan, End(error=end.error, ended=end.ended or "the fix that it was made for ended"))
