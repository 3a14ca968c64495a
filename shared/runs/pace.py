"""When a lane's batches may start so that Azure's published limits hold (pure; FACTS, section 4).

A node's audit is one write to Azure Resource Manager and one update of an instance to Compute. The lane alone decides
when a batch starts, so the limits hold however many machines do the work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

# A tenth is left to whoever else works in the subscription.
_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Budget:
    """A token bucket: how many nodes may start at once, and how many more a second."""

    capacity: float
    per_second: float

    def wait(self, nodes: int) -> float:
        """Seconds from the lane's start until `nodes` nodes may have been started in all."""
        return max(0.0, (nodes - self.capacity * _SHARE) / (self.per_second * _SHARE))


ARM_WRITES = Budget(capacity=200, per_second=10)
"""Azure Resource Manager, per subscription and principal."""

COMPUTE_UPDATES = Budget(capacity=1500, per_second=500 / 60)
"""Compute's "Update scale set VMs", per subscription and region."""


def starts(batches: Sequence[tuple[str, int]]) -> list[float]:
    """For each batch, given as (region, number of nodes), its start in seconds after the lane's start.

    A batch starts when the buckets have refilled enough for all of its nodes; a batch larger than a bucket's capacity
    waits for the difference, and the throttle inside the process spreads it.
    """
    total = 0
    by_region: dict[str, int] = defaultdict(int)
    offsets = []
    for region, nodes in batches:
        total += nodes
        by_region[region] += nodes
        offsets.append(max(ARM_WRITES.wait(total), COMPUTE_UPDATES.wait(by_region[region])))
    return offsets
