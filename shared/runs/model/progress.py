"""How far a run is: a small row for each part of it, written by whoever does the part, and their sum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class Progress:
    """What one part of a run (a lane's discovery, a batch, a wave), or all of it, came to so far.

    `found` nodes were found in it and `done` nodes have their findings; `waves` fix waves are over. `until` is when the
    last of what was found is expected to be done. The last three are what it cost (see `shared.azure.Stats`).
    """

    found: int = 0
    done: int = 0
    waves: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, int] = field(default_factory=dict)
    until: datetime | None = None
    azure_calls: int = 0
    throttle_waits: int = 0
    throttled_seconds: float = 0.0


PROGRESS: TypeAdapter[Progress] = TypeAdapter(Progress)


def sum_of(rows: Mapping[str, Mapping[str, object]]) -> Progress:
    """The sum of the parts that `Store.progress` gave (pure)."""
    parts = [PROGRESS.validate_python(row) for row in rows.values()]
    statuses: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for part in parts:
        statuses.update(part.statuses)
        outcomes.update(part.outcomes)
    return Progress(
        found=sum(part.found for part in parts),
        done=sum(part.done for part in parts),
        waves=sum(part.waves for part in parts),
        statuses=dict(statuses),
        outcomes=dict(outcomes),
        until=max((part.until for part in parts if part.until is not None), default=None),
        azure_calls=sum(part.azure_calls for part in parts),
        throttle_waits=sum(part.throttle_waits for part in parts),
        throttled_seconds=round(sum(part.throttled_seconds for part in parts), 3),
    )
