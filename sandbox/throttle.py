"""Azure's rate limits, enforced: token buckets of Azure Resource Manager and of Compute, with Azure's figures.

Resource Manager's are per subscription and principal; the sandbox has one principal. Compute's are per subscription
and region, and per resource within. A call takes a token from every bucket that covers it, or from none where one is
empty. Lists of scale sets within a resource group are in no Compute policy (the published "high-cost get" names lists
at subscription level only); lists of single VMs are all taken as high-cost. The policies' names in
`x-ms-ratelimit-remaining-resource` are the sandbox's own: Azure publishes the header's form and the figures, not the
new names.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """A token bucket's figures: `capacity` tokens at most, `refill` more a second."""

    capacity: int
    refill: float


@dataclass(frozen=True, slots=True)
class Policy:
    """A Compute policy: what holds for one resource (None: nothing) and for all of a subscription in a region."""

    name: str
    resource: Limit | None
    subscription: Limit


ARM_READS = Limit(250, 25)
ARM_WRITES = Limit(200, 10)

UPDATE_VM = Policy("UpdateVMScaleSetVM", Limit(12, 4 / 60), Limit(1500, 500 / 60))
GET_VM = Policy("GetVMScaleSetVM", Limit(36, 12 / 60), Limit(6000, 2000 / 60))
GET_OPERATION = Policy("GetOperation", Limit(45, 15 / 60), Limit(15000, 5000 / 60))
GRAPH_QUERIES, GRAPH_SECONDS = 15, 5.0
UPDATE_SINGLE_VM = Policy("UpdateVM", Limit(12, 4 / 60), Limit(1500, 500 / 60))
GET_SINGLE_VM = Policy("LowCostGetVM", Limit(36, 12 / 60), Limit(24000, 8000 / 60))
LIST_SINGLE_VMS = Policy("HighCostGetVM", None, Limit(900, 300 / 60))
GET_SCALE_SET = Policy("LowCostGetVMScaleSet", Limit(36, 12 / 60), Limit(2400, 800 / 60))


@dataclass(frozen=True, slots=True)
class Call:
    """What a request is to the limits. `scope` is its subscription, empty for calls of the whole tenant.

    `graph`: a query of Resource Graph, which has a quota of its own and no other limit here.
    """

    scope: str
    write: bool
    region: str = ""
    resource: str = ""
    policy: Policy | None = None
    graph: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call past a limit: which one, and after how many seconds it would pass."""

    limit: str
    retry_after: int


@dataclass(slots=True)
class _Bucket:
    limit: Limit
    tokens: float
    at: float

    def fill(self, now: float) -> None:
        self.tokens = min(self.limit.capacity, self.tokens + (now - self.at) * self.limit.refill)
        self.at = now


class Throttle:
    """The state of every bucket. `enforced` False counts nothing down and refuses nothing."""

    def __init__(self, enforced: bool) -> None:
        self._enforced = enforced
        self._buckets: dict[tuple[str, ...], _Bucket] = {}
        self._window, self._queries = 0.0, 0
        self.refused: Counter[str] = Counter()

    def take(self, call: Call, now: float) -> Refusal | None:
        """Take the call's tokens at `now` (seconds, monotonic); a Refusal where a bucket is empty."""
        if call.graph:
            return self._take_query(now)
        buckets = self._covering(call, now)
        empty = next(((name, bucket) for name, bucket in buckets if bucket.tokens < 1), None)
        if empty is not None and self._enforced:
            name, bucket = empty
            self.refused[name] += 1
            return Refusal(name, max(1, math.ceil((1 - bucket.tokens) / bucket.limit.refill)))
        for _, bucket in buckets if self._enforced else ():
            bucket.tokens -= 1
        return None

    def headers(self, call: Call, now: float) -> dict[str, str]:
        """The remaining calls, as Azure says them with every answer."""
        if call.graph:
            left = math.ceil(max(0.0, self._window + GRAPH_SECONDS - now))
            return {
                "x-ms-user-quota-remaining": str(GRAPH_QUERIES - self._queries),
                "x-ms-user-quota-resets-after": f"00:00:{left:02d}",
            }
        remaining = [(name, int(bucket.tokens)) for name, bucket in self._covering(call, now)]
        arm, compute = remaining[0], remaining[1:]
        level = "subscription" if call.scope else "tenant"
        found = {f"x-ms-ratelimit-remaining-{level}-{'writes' if call.write else 'reads'}": str(arm[1])}
        if compute:
            found["x-ms-ratelimit-remaining-resource"] = ",".join(f"{name};{left}" for name, left in compute)
        return found

    def _take_query(self, now: float) -> Refusal | None:
        """Resource Graph counts windows: the first query opens one, and its quota is whole again when it is over."""
        if not self._enforced:
            return None
        if now >= self._window + GRAPH_SECONDS:
            self._window, self._queries = now, 0
        if self._queries >= GRAPH_QUERIES:
            self.refused["graph-queries"] += 1
            return Refusal("graph-queries", max(1, math.ceil(self._window + GRAPH_SECONDS - now)))
        self._queries += 1
        return None

    def _covering(self, call: Call, now: float) -> Sequence[tuple[str, _Bucket]]:
        kind = "writes" if call.write else "reads"
        found = [(f"arm-{kind}", self._bucket((kind, call.scope), ARM_WRITES if call.write else ARM_READS, now))]
        if call.policy is not None:
            name = f"Microsoft.Compute/{call.policy.name}"
            place = (call.policy.name, call.scope, call.region)
            if call.policy.resource is not None:
                found.append((f"{name}Resource", self._bucket((*place, call.resource), call.policy.resource, now)))
            found.append((f"{name}Subscription", self._bucket(place, call.policy.subscription, now)))
        return found

    def _bucket(self, key: tuple[str, ...], limit: Limit, now: float) -> _Bucket:
        bucket = self._buckets.setdefault(key, _Bucket(limit, limit.capacity, now))
        bucket.fill(now)
        return bucket
