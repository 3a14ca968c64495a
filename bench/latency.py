"""How long a run command takes (about 20 s at least), by a seed, a node and how often it was asked (pure)."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds: never under `least`; half are under `least + middle`; a lognormal tail up to `most`.

    One node in `dead_every` has a dead agent: its command stays in progress for `dead_seconds`, then fails.
    """

    least: float = 20.0
    middle: float = 5.0
    spread: float = 0.6
    most: float = 60.0
    dead_every: int = 200
    dead_seconds: float = 900.0
    seed: int = 11

    def dead(self, node: int) -> bool:
        """Whether the node with this number has a dead agent."""
        return self.dead_every > 0 and node % self.dead_every == self.dead_every // 2

    def seconds(self, node: int, time: int) -> float:
        """How long this node's command number `time` takes."""
        if self.dead(node):
            return self.dead_seconds
        chance = random.Random(f"{self.seed}/{node}/{time}")
        tail = self.middle * chance.lognormvariate(0.0, self.spread)
        return min(self.most, self.least + tail)
