"""What steps work with: the far sides (Azure, the store), the settings, and who wants to know of progress."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.azure import Azure, Stats
from shared.errors import GuardError
from shared.models import Finding, Run
from shared.runs.model.batch import Costs
from shared.settings import Settings
from shared.store import Store

log = logging.getLogger(__name__)


def _silent(*_: object) -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class Bill:
    """What Azure has cost since it was last asked.

    Whoever asks takes all: of two runs at once in one process the sum is right, the share of each is not exact.
    """

    told: Costs = field(default_factory=Costs)

    def since(self, stats: Stats) -> Costs:
        """What was not told yet."""
        now = Costs(sum(stats.calls.values()), stats.waits, stats.wait_seconds)
        before, self.told = self.told, now
        return Costs(now.calls - before.calls, now.waits - before.waits, now.seconds - before.seconds)


@dataclass(frozen=True, slots=True)
class Services:
    """One process's connections.

    `on_found` hears how many nodes were found, `on_findings` of each that is done, `on_run` of a run that ended or
    waits for an approval, `on_refusal` of what refuses or is away, with the id of the run that met it. What goes wrong
    with whoever hears of it is logged, and does not concern the run.
    """

    azure: Azure
    store: Store
    settings: Settings
    on_found: Callable[[int], None] = _silent
    on_findings: Callable[[list[Finding]], None] = _silent
    on_run: Callable[[Run], None] = _silent
    on_refusal: Callable[[str, GuardError], None] = _silent
    bill: Bill = field(default_factory=Bill)

    def costs(self) -> Costs:
        """What Azure has cost since this was last asked."""
        return self.bill.since(self.azure.stats)

    def tell_found(self, nodes: int) -> None:
        """Say that so many nodes were found."""
        _tell(self.on_found, nodes)

    def tell_findings(self, findings: Sequence[Finding]) -> None:
        """Say that these were recorded."""
        if findings:
            _tell(self.on_findings, list(findings))

    def tell_run(self, run: Run) -> None:
        """Say that a run has ended, or waits for an approval."""
        _tell(self.on_run, run)

    def tell_refusal(self, run_id: str, error: GuardError) -> None:
        """Say that something that a run cannot do without refuses or is away."""
        _tell(self.on_refusal, run_id, error)


def _tell(listener: Callable[..., None], *what: Any) -> None:
    try:
        listener(*what)
    except Exception:
        log.exception("what was recorded could not be told")
