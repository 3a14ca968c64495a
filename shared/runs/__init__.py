"""A run, from request to summary: orchestrators (the order), activities (the work), and driving both in-process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from shared.errors import GuardError, UsageError
from shared.models import Outcome, Run, RunKind, RunState, RunSummary, Status
from shared.plain import plain
from shared.runs import documents, findings, stopping
from shared.runs.activities import ACTIVITIES
from shared.runs.context import Json
from shared.runs.exclusive import alone
from shared.runs.fixing import put_plans
from shared.runs.local import LocalHost
from shared.runs.orchestrators import ORCHESTRATORS
from shared.runs.plans import NodePlan, PlanFile, digest, fault, held_back, same
from shared.runs.recording import past
from shared.runs.request import FixRequest, RunRequest, parse_request
from shared.runs.services import Services
from shared.store import FindingQuery, Store, new_run_id

__all__ = [
    "FixRequest",
    "NodePlan",
    "OnBegun",
    "RunRequest",
    "Services",
    "fix_here",
    "left_to_fix",
    "plans_in_file",
    "plans_of",
    "resume_fix_here",
    "survey_here",
]

OnBegun = Callable[[Run], None]
"""Hears of a run as soon as it is recorded: from then on it can be found, and a fix be gone on with."""

# The activities that come before a survey's request is known to name only what is there.
_CHECKS = ("scope", "discover")


def _unheard(_: Run) -> None:
    """Nobody wants to know."""


async def survey_here(services: Services, kind: RunKind, request: RunRequest, on_begun: OnBegun = _unheard) -> Run:
    """An audit, or an audit with plans (`kind` plan), in this process, as the terminal does it.

    Raises UsageError where the request names what is not there, CredentialError and EndpointError where Azure cannot be
    asked at all (nothing is recorded then), and GuardError where the run failed, which is recorded.
    """
    run = _new(kind, request.model_dump(mode="json"))
    scoped: Json = None
    begun = False

    async def carry_out(name: str, job: Json) -> Json:
        nonlocal scoped, begun
        if not begun and name not in _CHECKS:
            begun = True
            await services.store.save_run(run)
            on_begun(run)
        result = await _carry_out(services, name, job)
        if name == "scope":
            scoped = result
        return result

    async with _recorded_end(services.store, run):
        result = await _drive("survey", run, {}, carry_out)
        # Before anything is looked at, only a name can be wrong; unless the scope itself could not be asked for.
        if "error" in result and not begun and scoped is not None and (request.subscriptions or "error" not in scoped):
            raise UsageError(result["error"])
        done = replace(run, request={**run.request, "batches": result.get("plans", {})})
        summary = RunSummary(statuses=_statuses(result.get("statuses", {})), nodes=result.get("nodes", 0))
        return await _finish(services, done, summary, result.get("error", ""))


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


async def plans_in_file(
    services: Services, plan_file: PlanFile, request: FixRequest, on_begun: OnBegun = _unheard
) -> tuple[list[NodePlan], Run | None]:
    """What a plan file names, as it was planned: its planning run in the store is the truth, not the file.

    Where the store has no such run, the pools are looked at again, by a run that is given too; nodes whose plan is
    another one now are refused, and nodes that need none any more left out. A node whose last fix was rolled back is
    refused, unless `request` says otherwise.
    Raises UsageError where the file is not what its run planned, and as `survey_here`.
    """
    run = await services.store.run(plan_file.run_id)
    if run is None:
        plans, run = await _looked_at_again(services, plan_file, on_begun)
    else:
        plans, run = await _as_planned(services, plan_file, run), None
    known = await past(services, [plan.node for plan in plans])
    return [held_back(plan, known, retry=request.retry_rolled_back) for plan in plans], run


async def _as_planned(services: Services, plan_file: PlanFile, run: Run) -> list[NodePlan]:
    if run.kind is not RunKind.PLAN or "batches" not in run.request:
        raise UsageError(f"the plan file is of the run {run.id}, which planned nothing ({run.kind}, {run.state})")
    plans = await plans_of(services, run)
    if digest(plans) == plan_file.digest:
        return plans
    made = {plan.node.key: plan for plan in plans}
    other = [plan.node.name for plan in plan_file.nodes if made.get(plan.node.key) != plan] or ["nodes are missing"]
    raise UsageError(
        f"the plan file is not what the run {run.id} planned ({plain(other[0])}), so nothing was sent. Make a new plan"
    )


async def _looked_at_again(
    services: Services, plan_file: PlanFile, on_begun: OnBegun
) -> tuple[list[NodePlan], Run | None]:
    places = [plan.node for plan in plan_file.nodes]
    if not places:
        return [], None
    request = parse_request(
        FixRequest,
        {
            "subscriptions": [node.subscription for node in places],
            "clusters": [node.cluster for node in places],
            "node_pools": [node.node_pool for node in places],
            "controls": plan_file.controls,
            "method": plan_file.method,
            # Whether it may be tried again is asked afterwards.
            "retry_rolled_back": True,
        },
    )
    run = await survey_here(services, RunKind.PLAN, request, on_begun)
    fresh = {plan.node.key: plan for plan in await plans_of(services, run)}
    other = "the node was looked at again, and its plan is another one now: make a new plan"
    plans = [
        now if same(plan, now) else NodePlan(node=now.node, controls=now.controls, refused=now.refused or other)
        for plan in plan_file.nodes
        if (now := fresh.get(plan.node.key)) is not None
    ]
    return plans, run


async def fix_here(
    services: Services, request: FixRequest, plans: Sequence[NodePlan], on_begun: OnBegun = _unheard
) -> Run:
    """Carry out exactly these plans, in waves; the run's record names their subscriptions.

    Of a subscription one run fixes at a time: raises UsageError where another one does, or a plan is none that this
    version makes, and GuardError where the run failed, which is recorded.
    """
    for plan in plans:
        if why := fault(plan):
            raise UsageError(f"the plan of {plain(plan.node.name)} is refused: {plain(why)}")
    subscriptions = sorted({plan.node.subscription for plan in plans})
    run = _new(RunKind.FIX, {**request.model_dump(mode="json"), "subscriptions": subscriptions})

    async def work() -> Run:
        async with _recorded_end(services.store, run):
            pools = await put_plans(services, run.id, list(plans), request)
            await services.store.save_document(run.id, "pools", json.dumps(pools))
            on_begun(run)
            return await _fix(services, run, pools)

    return await alone(services.store, run, work)


async def left_to_fix(services: Services, run_id: str) -> list[NodePlan]:
    """The plans of a fix that was broken off whose nodes have no outcome yet.

    Raises UsageError where there is no such fix, or it is complete.
    """
    _, pools = await _broken_off(services, run_id)
    done = {finding.key async for finding in services.store.all_findings(FindingQuery(run_id=run_id))}
    return [
        plan
        for number in range(len(pools["pools"]))
        for plan in await documents.load(services.store, run_id, f"pool/{number}", documents.PLANS)
        if not done.issuperset(findings.key_of(plan.node, control_id) for control_id in plan.controls)
    ]


async def resume_fix_here(services: Services, run_id: str, on_begun: OnBegun = _unheard) -> Run:
    """Go on with a fix that was broken off: nodes that have their outcome are left, commands in hand are waited for.

    Raises as `left_to_fix` and `fix_here` do.
    """
    before, pools = await _broken_off(services, run_id)
    run = replace(before, state=RunState.RUNNING, finished=None, summary=None, error="")

    async def work() -> Run:
        async with _recorded_end(services.store, run):
            on_begun(run)
            services.on_found(pools["nodes"])
            return await _fix(services, run, pools)

    return await alone(services.store, run, work)


async def _broken_off(services: Services, run_id: str) -> tuple[Run, Json]:
    run = await services.store.run(run_id)
    pools = await services.store.document(run_id, "pools") if run is not None else None
    if run is None or pools is None or run.kind is not RunKind.FIX:
        raise UsageError(f"there is no fix {run_id} in this store to go on with")
    if run.state is RunState.COMPLETED:
        raise UsageError(f"the fix {run_id} is complete; there is nothing to go on with")
    return run, json.loads(pools)


async def _fix(services: Services, run: Run, pools: Json) -> Run:
    result = await _drive("fix", run, {"pools": pools["pools"]}, partial(_carry_out, services))
    outcomes: dict[Outcome, int] = {}
    statuses: dict[Status, int] = {}
    async for finding in services.store.all_findings(FindingQuery(run_id=run.id)):
        statuses[finding.status] = statuses.get(finding.status, 0) + 1
        if finding.outcome is not None:
            outcomes[finding.outcome] = outcomes.get(finding.outcome, 0) + 1
    summary = RunSummary(statuses=statuses, outcomes=outcomes, nodes=pools["nodes"])
    return await _finish(services, run, summary, result.get("error", ""))


def _new(kind: RunKind, request: Mapping[str, object]) -> Run:
    started = datetime.now(UTC)
    return Run(new_run_id(started), kind, RunState.RUNNING, started, request=request)


async def _carry_out(services: Services, name: str, job: Json) -> Json:
    return await ACTIVITIES[name](services, job)


async def _drive(
    orchestrator: str, run: Run, extra: Mapping[str, Json], carry_out: Callable[[str, Json], Awaitable[Json]]
) -> Json:
    """The orchestrator's result. Where it is broken off, no activity that is in hand goes on behind it."""
    in_hand: set[asyncio.Task[Json]] = set()

    async def activity(name: str, job: Json) -> Json:
        task = asyncio.ensure_future(carry_out(name, job))
        in_hand.add(task)
        task.add_done_callback(in_hand.discard)
        return await task

    host = LocalHost(ORCHESTRATORS, {name: partial(activity, name) for name in ACTIVITIES})
    try:
        return await host.run(
            orchestrator, {"run_id": run.id, "kind": run.kind.value, "request": run.request, **extra}, run.id
        )
    finally:
        left = list(in_hand)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


@asynccontextmanager
async def _recorded_end(store: Store, run: Run) -> AsyncIterator[None]:
    """Whatever ends the body: a run that is recorded and does not go on must not look as if it did."""
    try:
        yield
    except asyncio.CancelledError:
        await _give_up(store, run, RunState.CANCELLED, "")
        raise
    except Exception as error:
        await _give_up(store, run, RunState.FAILED, f"{type(error).__name__}: {error}")
        raise


async def _give_up(store: Store, run: Run, state: RunState, error: str) -> None:
    recorded = await store.run(run.id)
    if recorded is not None and not recorded.state.final:
        await store.save_run(replace(recorded, state=state, finished=datetime.now(UTC), error=error))


async def _finish(services: Services, run: Run, summary: RunSummary, error: str) -> Run:
    """Record a run's end. Raises GuardError where it ended with an error."""
    stats = services.azure.stats
    summary = replace(summary, azure_calls=sum(stats.calls.values()), throttled_seconds=stats.wait_seconds)
    state = RunState.FAILED if error else RunState.COMPLETED
    if not error and await stopping.cancelled(services.store, run.id):
        state = RunState.CANCELLED
    run = replace(run, state=state, finished=datetime.now(UTC), summary=summary, error=error)
    await services.store.save_run(run)
    if error:
        more = f"; go on with: kubelet-guard fix --resume {run.id}" if run.kind is RunKind.FIX else ""
        raise GuardError(f"the {run.kind} {run.id} failed: {error}{more}")
    return run


def _statuses(counts: Mapping[str, int]) -> dict[Status, int]:
    return {Status(name): count for name, count in counts.items()}
