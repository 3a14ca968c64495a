"""A clock that goes faster than the world's, the same in every process that knows its scale and its beginning."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """`scale` seconds pass for each real one since `epoch` (real seconds since 1970)."""

    scale: float = 1.0
    epoch: float = 0.0

    @classmethod
    def from_now(cls, scale: float) -> Clock:
        """A clock that is right now and fast from here on."""
        return cls(scale, time.time())

    def wall(self, real: float | None = None) -> float:
        """Seconds since 1970 by this clock, now or when the real clock shows `real`."""
        now = time.time() if real is None else real
        return self.epoch + (now - self.epoch) * self.scale

    def since(self) -> float:
        """Seconds by this clock since its beginning."""
        return self.wall() - self.epoch
