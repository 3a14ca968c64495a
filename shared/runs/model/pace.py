"""When a lane's batches may start so that Azure's limits hold (pure; FACTS, section 4).

A node's audit is one write to Azure Resource Manager and one update of an instance or a single VM to Compute, which
counts the two apart in each region, by the same figures: what is called a region here is a region of either kind
(`shared.azure.update_bucket`). The lane alone decides when a batch starts, so the limits hold however many machines do
the work; what others take shows in Azure's answers (`Pace.told`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

WRITES = ""
"""The name of Azure Resource Manager's bucket among the regions': a subscription's and a principal's writes."""

# Capacity, and tokens a second.
_RATES = {WRITES: (200.0, 10.0)}
_REGION = (1500.0, 500 / 60)


class Pace(BaseModel):
    """Token buckets as a lane knows them: the levels at the time `at`. `share` (0 to 1) of each limit is used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: datetime
    share: float
    levels: Mapping[str, float] = {}

    def wait(self, region: str, nodes: int, now: datetime) -> float:
        """Seconds from `now` until a batch of `nodes` nodes of a region may start.

        A batch that is larger than a bucket waits until that is full.
        """
        seconds = 0.0
        for name in (WRITES, region):
            capacity, rate = self._rate(name)
            missing = min(float(nodes), capacity) - self._level(name, now)
            # A hair counts as nothing: sums of floats must not leave waits too small to move the clock.
            seconds = max(seconds, missing / rate if missing > 1e-6 else 0.0)
        return seconds

    def took(self, region: str, nodes: int, now: datetime) -> Pace:
        """The pace after a batch has started."""
        return self._changed(now, {name: self._level(name, now) - nodes for name in (WRITES, region)})

    def told(self, levels: Mapping[str, float], now: datetime) -> Pace:
        """The pace after Azure said that it allows no more than `levels`: others use the same limits."""
        lower = {name: min(level, self._level(name, now)) for name, level in levels.items()}
        return self._changed(now, lower)

    def _rate(self, name: str) -> tuple[float, float]:
        capacity, rate = _RATES.get(name, _REGION)
        return max(1.0, capacity * self.share), rate * self.share

    def _level(self, name: str, now: datetime) -> float:
        capacity, rate = self._rate(name)
        level = self.levels.get(name)
        if level is None:
            return capacity
        return min(capacity, level + max(0.0, (now - self.at).total_seconds()) * rate)

    def _changed(self, now: datetime, new: Mapping[str, float]) -> Pace:
        levels = {name: self._level(name, now) for name in sorted({*self.levels, *new})}
        return Pace(at=max(now, self.at), share=self.share, levels={**levels, **new})


def last_start(nodes_by_region: Mapping[str, int], share: float) -> float:
    """Seconds from a lane's beginning until its last node may start, of full buckets."""
    total = sum(nodes_by_region.values())
    waits = [(total, *_RATES[WRITES])] + [(nodes, *_REGION) for nodes in nodes_by_region.values()]
    return max(max(0.0, (nodes - capacity * share) / (rate * share)) for nodes, capacity, rate in waits)


def next_first_look(seconds: float, looked: int, ended: int, waited: float, *, least: float, most: float) -> float:
    """After how many seconds a command is first looked at from now on, learned from the last first looks.

    `looked` first looks, which came `waited` seconds after their commands' starts, found `ended` of these ended. It
    settles where nine of ten have: a look that comes too early costs a second one, and one that comes late costs time.
    What many looks of one time say counts once: those that are in hand had come too early or too late already.
    """
    if not looked:
        return seconds
    missed = 1 - ended / looked
    # Few looks teach little.
    weight = min(1.0, looked / 20)
    better = waited * (1 + weight * (0.6 * missed - 0.06 * (1 - missed)))
    chosen = max(seconds, better) if better > waited else min(seconds, better)
    return min(most, max(least, chosen))


def after(moment: datetime, seconds: float) -> datetime:
    """The time `seconds` later."""
    return moment + timedelta(seconds=seconds)
