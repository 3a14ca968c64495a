"""Runs in this process, as the terminal drives them: the same orchestrators, the same steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from shared.errors import GuardError, UsageError
from shared.models import Run, RunKind, RunState, Starter
from shared.plain import plain
from shared.runs import documents, orders
from shared.runs.hosts.carrying import carry_out
from shared.runs.hosts.local import LocalHost
from shared.runs.hosts.terminal_lease import alone, state_words
from shared.runs.model import ENGINE, keys
from shared.runs.model.findings import key_of
from shared.runs.model.messages import End, Finished, Ref
from shared.runs.model.plans import NodePlan, PlanFile, digest, fault, held_back, outdated, refused, same
from shared.runs.model.request import FixRequest, RunRequest, parse_request, refuse_others, settled
from shared.runs.orchestrators import ORCHESTRATORS, RUN
from shared.runs.services import Services
from shared.runs.steps import STEPS, plan_pages
from shared.runs.steps.fix_plan import index, put_plans
from shared.runs.steps.node_record import past
from shared.runs.steps.run_record import finish
from shared.store import new_run_id, patient

OnBegun = Callable[[Run], None]
"""Hears of a run as soon as its nodes are looked for: from then on a fix can be gone on with."""


def _unheard(_: Run) -> None:
    """Nobody wants to know."""


async def survey_here(services: Services, kind: RunKind, request: RunRequest, on_begun: OnBegun = _unheard) -> Run:
    """An audit, or an audit with plans (`kind` plan), in this process, as the terminal does it.

    Raises UsageError where the request names what is not there, and GuardError where the run failed; both are recorded.
    """
    services = _patient(services)
    run = _new(kind, settled(kind, request, services.settings))
    await services.store.save_run(run)
    return await _driven(services, run, on_begun)


async def plans_of(services: Services, run: Run) -> list[NodePlan]:
    """The plans that a run of the kind `plan` made."""
    return [plan async for plan in _plans(services, run.id)]


async def _plans(services: Services, run_id: str) -> AsyncIterator[NodePlan]:
    for name in (await index(services, run_id)).documents:
        for plan in await documents.load(services.store, run_id, name, documents.PLANS):
            yield plan


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
    if run.kind is not RunKind.PLAN or run.state is not RunState.COMPLETED:
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
        now if now.refused or same(plan, now) else refused(now, other)
        for plan in plan_file.nodes
        if (now := fresh.get(plan.node.key)) is not None
    ]
    return plans, run


async def fix_here(
    services: Services, request: FixRequest, plans: Sequence[NodePlan], on_begun: OnBegun = _unheard
) -> Run:
    """Carry out exactly these plans, in waves; the run's record names their subscriptions.

    Of a subscription one run fixes at a time: raises UsageError where another one does, fixes are held, or a plan is
    none that this version makes or this deployment carries out, and GuardError where the run failed, which is recorded.
    """
    services = _patient(services)
    request = settled(RunKind.FIX, request, services.settings)
    for plan in plans:
        if why := fault(plan):
            raise UsageError(f"the plan of {plain(plan.node.name)} is refused: {plain(why)}")
        refuse_others(() if plan.refused else plan.controls, services.settings.fix_controls)
        if not plan.refused and (why := outdated(plan)):
            raise UsageError(f"nothing was changed: {why}")
    subscriptions = tuple(sorted({plan.node.subscription for plan in plans}))
    run = _new(RunKind.FIX, request.model_copy(update={"subscriptions": subscriptions}))

    async def work() -> Run:
        await put_plans(services, run.id, plans, digest(plans), request)
        return await _driven(services, run, on_begun)

    return await alone(services, run, work)


async def left_to_fix(services: Services, run_id: str) -> list[NodePlan]:
    """The plans of a fix that was broken off whose nodes have no outcome yet.

    Raises UsageError where there is no such fix, it is complete, its plan was refused, or it is the app's and not over.
    """
    return (await _broken_off(services, run_id)).plans


async def resume_fix_here(services: Services, run_id: str, on_begun: OnBegun = _unheard) -> Run:
    """Go on with a fix that was broken off: nodes that have their outcome are left, commands in hand are waited for.

    Raises as `left_to_fix` and `fix_here` do.
    """
    services = _patient(services)
    left = await _broken_off(services, run_id)
    before = left.run
    run = replace(
        before,
        state=RunState.RUNNING,
        finished=None,
        summary=None,
        error="",
        by=Starter.TERMINAL,
        epoch=before.epoch + 1,
        engine=ENGINE,
    )

    async def work() -> Run:
        await orders.go_on(services.store, run)
        services.tell_found(left.nodes)
        return await _driven(services, run, on_begun)

    return await alone(services, run, work)


@dataclass(frozen=True, slots=True)
class _Left:
    run: Run
    nodes: int
    plans: list[NodePlan]


async def _broken_off(services: Services, run_id: str) -> _Left:
    store = services.store
    run = await store.run(run_id)
    gathered = await documents.find(store, run_id, keys.GATHERED, documents.GATHERED)
    if run is None or gathered is None or run.kind is not RunKind.FIX:
        raise UsageError(f"there is no fix {run_id} in this store to go on with")
    if run.state is RunState.COMPLETED:
        raise UsageError(f"the fix {run_id} is complete; there is nothing to go on with")
    if run.by is not Starter.TERMINAL and not run.state.final:
        raise UsageError(
            f"the fix {run_id} of the app is {state_words(run)}; cancel it there first: POST /api/runs/{run_id}/cancel"
        )
    said = None if run.approval is None else await orders.decision(store, run_id, run.approval.digest)
    if said is orders.Decision.REFUSED:
        raise UsageError(f"the plan of the fix {run_id} was refused; make a new one with: kubelet-guard plan")
    plans: list[NodePlan] = []
    for pool, nodes in enumerate(gathered.pools):
        for at in range(0, nodes, plan_pages.PAGE):
            numbers = range(at, min(at + plan_pages.PAGE, nodes))
            page = (await plan_pages.load(store, run_id, pool, numbers)).values()
            wanted = {key_of(plan.node, control): plan for plan in page for control in plan.controls}
            done = await store.recorded(run_id, list(wanted))
            open_ = {plan.node.key: plan for key, plan in wanted.items() if key not in done}
            plans += open_.values()
    return _Left(run, gathered.nodes, plans)


def _new(kind: RunKind, request: RunRequest) -> Run:
    started = datetime.now(UTC)
    asked = request.model_dump(mode="json")
    return Run(new_run_id(started), kind, RunState.RUNNING, started, request=asked, by=Starter.TERMINAL, engine=ENGINE)


def _patient(services: Services) -> Services:
    return replace(services, store=patient(services.store))


async def _driven(services: Services, run: Run, on_begun: OnBegun) -> Run:
    """Drive a run that is recorded to its end. Raises UsageError or GuardError where it failed."""
    begun = False

    async def activity(name: str, job: Any) -> Any:
        nonlocal begun
        if not begun and name in ("open_lane", "open_fix"):
            begun = True
            on_begun(run)
        return await carry_out(services, name, job)

    usage = False

    async def finishing(job: Any) -> Any:
        nonlocal usage
        usage = job["end"]["usage"]
        return await activity("finish", job)

    try:
        async with _recorded_end(services, run):
            activities = {name: partial(activity, name) for name in STEPS}
            ref = Ref(run_id=run.id, epoch=run.epoch).model_dump(mode="json")
            Finished.model_validate(await _drive({**activities, "finish": finishing}, ref, run.id))
    except GuardError as error:
        raise _failed(run, str(error)) from None
    ended = await services.store.run(run.id)
    assert ended is not None  # its end was recorded just now
    if ended.state is RunState.FAILED:
        raise UsageError(ended.error) if usage else _failed(run, ended.error)
    return ended


def _failed(run: Run, why: str) -> GuardError:
    more = f"; go on with: kubelet-guard fix --resume {run.id}" if run.kind is RunKind.FIX else ""
    return GuardError(f"the {run.kind} {run.id} failed: {why}{more}")


async def _drive(activities: dict[str, Callable[[Any], Any]], ref: Any, run_id: str) -> Any:
    """The orchestrator's result. Where it is broken off, nothing that is in hand goes on behind it."""
    host = LocalHost(ORCHESTRATORS, activities)
    try:
        return await host.run(RUN, ref, run_id)
    finally:
        await host.stop()


@asynccontextmanager
async def _recorded_end(services: Services, run: Run) -> AsyncIterator[None]:
    """Whatever ends the body: a run that is recorded and does not go on must not look as if it did."""
    try:
        yield
    except asyncio.CancelledError:
        await finish(services, run, End(ended="it was interrupted"), resumable=True)
        raise
    except Exception as error:
        why = str(error) if isinstance(error, GuardError) else f"{type(error).__name__}: {error}"
        await finish(services, run, End(error=why), resumable=True)
        raise
