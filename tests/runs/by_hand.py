"""A run whose steps are done by hand, without an orchestrator."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from shared.models import Run, RunKind, RunState
from shared.runs.model import ENGINE
from shared.runs.model.messages import Advance, Advanced, FindNodes, OpenLane, OpenWave, Ref
from shared.runs.model.plans import NodePlan, digest
from shared.runs.model.request import FixRequest, RunRequest
from shared.runs.services import Services
from shared.runs.steps import advancing, discovering, fix_plan, fix_waves, scope
from shared.store import new_run_id
from tests.support.findings import FIX


async def recorded(services: Services, kind: RunKind, request: RunRequest | None = None) -> Run:
    """A run that is recorded as going."""
    asked = (request or FIX).model_dump(mode="json")
    started = datetime.now(UTC)
    run = Run(new_run_id(started), kind, RunState.RUNNING, started, request=asked, engine=ENGINE)
    await services.store.save_run(run)
    return run


async def found(services: Services, run: Run) -> tuple[str, ...]:
    """The batches of a survey, none of them begun."""
    ref = Ref(run_id=run.id, epoch=run.epoch)
    names: list[str] = []
    for subscription in (await scope.scope(services, ref)).subscriptions:
        lane = await scope.open_lane(services, OpenLane(**dict(ref), subscription=subscription))
        for chunk in range(lane.chunks):
            made = await discovering.find_nodes(
                services, FindNodes(**dict(ref), subscription=subscription, chunk=chunk)
            )
            names += [batch.name for batch in made.batches]
    return tuple(names)


async def gathered(services: Services, run: Run, plans: Sequence[NodePlan]) -> None:
    """Give a fix its plans."""
    await fix_plan.put_plans(services, run.id, plans, digest(plans), FixRequest.model_validate(run.request))


async def opened(services: Services, run: Run, first: int, count: int, pool: int = 0) -> tuple[str, ...]:
    """The batches of a wave."""
    wave = OpenWave(run_id=run.id, epoch=run.epoch, pool=pool, first=first, count=count)
    made = await fix_waves.open_wave(services, wave)
    assert made.stop == ""
    return made.batches


async def advanced(services: Services, run: Run, names: Sequence[str], first_look: float = 0.0) -> Advanced:
    """One step of these batches."""
    message = Advance(run_id=run.id, epoch=run.epoch, batches=tuple(names), first_look=first_look)
    return await advancing.advance(services, message)
