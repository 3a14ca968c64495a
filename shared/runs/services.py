"""What steps work with: the far sides (Azure, the store), the settings, and who wants to know of progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from shared.azure import Azure, Stats
from shared.models import Finding, Run
from shared.runs.model.batch import Costs
from shared.settings import Settings
from shared.store import Store


def _silent(*_: object) -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class Meter:
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
    waits for an approval.
    """

    azure: Azure
    store: Store
    settings: Settings
    on_found: Callable[[int], None] = _silent
    on_findings: Callable[[list[Finding]], None] = _silent
    on_run: Callable[[Run], None] = _silent
    meter: Meter = field(default_factory=Meter)

    def costs(self) -> Costs:
        """What Azure has cost since this was last asked."""
        return self.meter.since(self.azure.stats)
