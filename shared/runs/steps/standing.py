"""Where a run stands, which every step asks first: what an earlier beginning of a run left going ends here."""

from __future__ import annotations

from dataclasses import dataclass

from shared.models import Run
from shared.runs import orders
from shared.runs.model.messages import Ref
from shared.runs.model.request import STORED, FixRequest
from shared.runs.services import Services


@dataclass(frozen=True, slots=True)
class Standing:
    """A run's record. `over`: it has ended, or was begun anew; `cancelled`: it was asked to stop."""

    run: Run
    over: bool
    cancelled: bool

    @property
    def request(self) -> FixRequest:
        """What was asked for."""
        return FixRequest.model_validate(self.run.request, context=STORED)


async def stand(services: Services, ref: Ref) -> Standing:
    """Where a run stands. Raises LookupError where the store does not know it."""
    run = await services.store.run(ref.run_id)
    if run is None:
        raise LookupError(f"the store has no run {ref.run_id}")
    root = await services.store.run(run.fix_run) if run.fix_run else run
    cancelled = await orders.cancelled(services.store, run)
    over = run.state.final or run.epoch != ref.epoch or root is None or root.state.final or root.epoch != ref.epoch
    return Standing(run, over, cancelled)
