"""A run, from request to summary: orchestrators (the order), activities (the work), and driving both in-process."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from shared.errors import UsageError
from shared.models import Outcome, Run, RunKind, RunState, RunSummary, Status
from shared.runs import documents
from shared.runs.activities import ACTIVITIES
from shared.runs.context import Json
from shared.runs.fixing import put_plans
from shared.runs.local import LocalHost
from shared.runs.orchestrators import ORCHESTRATORS
from shared.runs.plans import NodePlan
from shared.runs.request import FixRequest, RunRequest
from shared.runs.services import Services
from shared.store import FindingQuery, new_run_id

__all__ = ["FixRequest", "NodePlan", "RunRequest", "Services", "fix_here", "plans_of", "resume_fix_here", "survey_here"]


async def survey_here(services: Services, kind: RunKind, request: RunRequest) -> Run:
    """An audit, or an audit with plans (`kind` plan), in this process, as the terminal does it.

    Raises UsageError where the request names what is not there (nothing is recorded then), and what concerns the whole
    run: CredentialError, EndpointError, StoreError.
    """
    run = _new(kind, request)
    result = await _drive(services, "survey", run, {})
    if "error" in result:
        raise UsageError(result["error"])
    summary = RunSummary(statuses=_statuses(result["statuses"]), nodes=result["nodes"])
    batches = {**run.request, "batches": result["plans"]}
    return await _complete(services, replace(run, request=batches), summary)


async def plans_of(services: Services, run: Run) -> list[NodePlan]:
    """The plans that a run of the kind `plan` made."""
    batches = run.request["batches"]
    assert isinstance(batches, Mapping)  # survey_here put it there
    return [
        plan
        for subscription, count in batches.items()
        for batch in range(count)
        for plan in await documents.load(services.store, run.id, f"plans/{subscription}/{batch}", documents.PLANS)
    ]


async def fix_here(services: Services, request: FixRequest, plans: Sequence[NodePlan]) -> Run:
    """Carry out exactly these plans, in waves. One run fixes at a time; raises UsageError where another one does."""
    run = _new(RunKind.FIX, request)
    await services.store.save_run(run)
    pools = await put_plans(services, run.id, list(plans))
    await services.store.save_document(run.id, "pools", json.dumps(pools))
    return await _fix(services, run, pools)


async def resume_fix_here(services: Services, run_id: str) -> Run:
    """Go on with a fix that was broken off: nodes that have their outcome are left, commands in hand are waited for."""
    run = await services.store.run(run_id)
    pools = await services.store.document(run_id, "pools") if run is not None else None
    if run is None or pools is None or run.kind is not RunKind.FIX:
        raise UsageError(f"there is no fix {run_id} in this store to go on with")
    if run.state is RunState.COMPLETED:
        raise UsageError(f"the fix {run_id} is complete; there is nothing to go on with")
    found = json.loads(pools)
    services.on_found(found["nodes"])
    return await _fix(services, run, found)


async def _fix(services: Services, run: Run, pools: Json) -> Run:
    await _drive(services, "fix", run, {"pools": pools["pools"]})
    outcomes: dict[Outcome, int] = {}
    statuses: dict[Status, int] = {}
    async for finding in services.store.all_findings(FindingQuery(run_id=run.id)):
        statuses[finding.status] = statuses.get(finding.status, 0) + 1
        if finding.outcome is not None:
            outcomes[finding.outcome] = outcomes.get(finding.outcome, 0) + 1
    return await _complete(services, run, RunSummary(statuses=statuses, outcomes=outcomes, nodes=pools["nodes"]))


def _new(kind: RunKind, request: RunRequest) -> Run:
    started = datetime.now(UTC)
    return Run(new_run_id(started), kind, RunState.RUNNING, started, request=request.model_dump(mode="json"))


async def _drive(services: Services, orchestrator: str, run: Run, extra: Mapping[str, Json]) -> Json:
    work: dict[str, Callable[[Json], Awaitable[Json]]] = {
        name: partial(activity, services) for name, activity in ACTIVITIES.items()
    }
    job = {"run_id": run.id, "kind": run.kind.value, "request": run.request, **extra}
    try:
        return await LocalHost(ORCHESTRATORS, work).run(orchestrator, job, run.id)
    except Exception as error:
        failed = replace(
            run, state=RunState.FAILED, finished=datetime.now(UTC), error=f"{type(error).__name__}: {error}"
        )
        if run.kind is RunKind.FIX:
            await services.store.save_run(failed)
        raise


async def _complete(services: Services, run: Run, summary: RunSummary) -> Run:
    stats = services.azure.stats
    summary = replace(summary, azure_calls=sum(stats.calls.values()), throttled_seconds=stats.wait_seconds)
    run = replace(run, state=RunState.COMPLETED, finished=datetime.now(UTC), summary=summary)
    await services.store.save_run(run)
    return run


def _statuses(counts: Mapping[str, int]) -> dict[Status, int]:
    return {Status(name): count for name, count in counts.items()}
