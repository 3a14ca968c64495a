"""Writing down how far a run is: a small row for each part of it."""

from __future__ import annotations

from datetime import datetime

from shared.runs.model.batch import Batch, Costs
from shared.runs.model.progress import PROGRESS, Progress
from shared.runs.services import Services


async def save_progress(services: Services, run_id: str, name: str, batch: Batch) -> None:
    """How far a batch is."""
    row = Progress(
        done=batch.found - len(batch.nodes),
        waves=int(bool(batch.outcomes) and not batch.nodes),
        statuses=dict(batch.statuses),
        outcomes=dict(batch.outcomes),
        azure_calls=batch.costs.calls,
        throttle_waits=batch.costs.waits,
        throttled_seconds=batch.costs.seconds,
    )
    await _save(services, run_id, name, row)


async def save_found(services: Services, run_id: str, name: str, found: int, costs: Costs, until: datetime) -> None:
    """How many nodes were found in a part, and when the last of them is expected to be done."""
    row = Progress(
        found=found,
        until=until,
        azure_calls=costs.calls,
        throttle_waits=costs.waits,
        throttled_seconds=costs.seconds,
    )
    await _save(services, run_id, name, row)


async def save_counts(services: Services, run_id: str, name: str, row: Progress) -> None:
    """What was recorded at once, and not in a batch."""
    await _save(services, run_id, name, row)


async def _save(services: Services, run_id: str, name: str, row: Progress) -> None:
    await services.store.save_progress(run_id, name, PROGRESS.dump_python(row, mode="json"))
