"""A run's record in the store, from its beginning to its summary: activities that the app's `run` orchestrator calls.

Idempotent: a record that is final stays as it is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from shared import telemetry
from shared.models import Outcome, Run, RunKind, RunState, RunSummary, Status
from shared.runs import stopping
from shared.runs.context import Json
from shared.runs.progress import standing
from shared.runs.services import Services
from shared.store import FindingQuery


async def begin(services: Services, job: Json) -> Json:
    """Record that a run is going, where nothing is known of it yet."""
    if await services.store.run(job["run_id"]) is None:
        await services.store.save_run(
            Run(job["run_id"], RunKind(job["kind"]), RunState.RUNNING, datetime.now(UTC), request=job["record"])
        )
    return {}


async def ask_approval(services: Services, job: Json) -> Json:
    """Record that a fix waits for its plan (`job["digest"]`) to be approved. Gives until when, in ISO 8601."""
    run = await _run(services, job)
    if run.state is not RunState.AWAITING_APPROVAL and not run.state.final:
        expires = datetime.now(UTC) + timedelta(hours=services.settings.approval_hours)
        request = {**run.request, "digest": job["digest"], "approval_expires": expires.isoformat()}
        run = replace(run, state=RunState.AWAITING_APPROVAL, request=request)
        await services.store.save_run(run)
    return {"expires": run.request["approval_expires"]}


async def approval(services: Services, job: Json) -> Json:
    """What was said to the plan: `decision` is `approved`, `refused`, `cancelled` or empty (nothing yet)."""
    run_id = job["run_id"]
    said: str = await stopping.decision(services.store, run_id) or ""
    if await stopping.cancelled(services.store, run_id):
        said = "cancelled"
    run = await _run(services, job)
    if said and run.state is RunState.AWAITING_APPROVAL:
        await services.store.save_run(replace(run, state=RunState.RUNNING))
    return {"decision": said}


async def stopped(services: Services, job: Json) -> Json:
    """Whether the run was asked to stop."""
    return {"stopped": await stopping.cancelled(services.store, stopping.root(job))}


async def finish(services: Services, job: Json) -> Json:
    """Record the end of a run with its summary, counted over what is recorded.

    `job` has `nodes`, `plans`, and `error` (the run failed) or `ended` (it ended early, for this reason) where they
    hold. Gives the `state`.
    """
    run = await _run(services, job)
    if run.state.final:
        return {"state": run.state}
    state = RunState.COMPLETED
    if job.get("error"):
        state = RunState.FAILED
    elif job.get("ended") or await stopping.cancelled(services.store, stopping.root(job)):
        state = RunState.CANCELLED
    statuses: Counter[Status] = Counter()
    outcomes: Counter[Outcome] = Counter()
    async for finding in services.store.all_findings(FindingQuery(run_id=run.id)):
        statuses[finding.status] += 1
        if finding.outcome is not None:
            outcomes[finding.outcome] += 1
    so_far = standing(await services.store.progress(run.id))
    nodes = so_far.found if job.get("nodes") is None else int(job["nodes"])
    summary = RunSummary(statuses, outcomes, nodes, so_far.azure_calls, so_far.throttled_seconds)
    request = {**run.request, "batches": job["plans"]} if job.get("plans") is not None else run.request
    run = replace(
        run,
        state=state,
        finished=datetime.now(UTC),
        request=request,
        summary=summary,
        error=job.get("error") or job.get("ended") or "",
    )
    telemetry.tell_run(run)
    await services.store.save_run(run)
    return {"state": state}


async def _run(services: Services, job: Json) -> Run:
    run = await services.store.run(job["run_id"])
    if run is None:
        raise LookupError(f"the store has no run {job['run_id']}")
    return run
