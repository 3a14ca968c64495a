"""Fleets of any size in the sandbox's terms, and the least time that Azure's limits allow for one (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from sandbox.fleet import Cluster, Fleet, Member, Nodes, Pool, Subscription
from sandbox.throttle import ARM_WRITES, UPDATE_VM

REGION = "westeurope"
VERSION = "1.33.5"

# What nodes are like; a pool's nodes are alike, but for a drift here and there.
_KINDS = ("compliant_default", "compliant_file", "compliant_file_default", "false_file", "compliant_flag")
_DRIFTED = "false_flag"
_DRIFT_EVERY = 60
# What a node is like once a fix was carried out on it.
FIXED = "compliant_file"
_CLUSTER_NODES = 1000
_POOLS = 4


def fleet(nodes: int, subscriptions: int, state: str = "") -> Fleet:
    """`nodes` nodes, evenly in `subscriptions` subscriptions, all in one region (the narrowest case): clusters of at
    most 1,000 nodes with four pools each. With `state`, every node is in that one."""
    owners = []
    for number in range(subscriptions):
        left = nodes // subscriptions + (number < nodes % subscriptions)
        clusters: list[Cluster] = []
        while left > 0:
            size = min(left, _CLUSTER_NODES)
            clusters.append(_cluster(number, len(clusters), size, state))
            left -= size
        owners.append(Subscription(str(UUID(int=(0xBE << 120) + number)), f"Bench {number}", tuple(clusters)))
    return Fleet(tuple(owners))


def _cluster(owner: int, number: int, size: int, state: str) -> Cluster:
    sizes = [size // _POOLS + (pool < size % _POOLS) for pool in range(_POOLS)]
    pools = tuple(
        _pool(pool, count, state or _KINDS[(owner + number + pool) % len(_KINDS)], mixed=not state)
        for pool, count in enumerate(sizes)
        if count
    )
    return Cluster(f"aks-{owner:02d}-{number:03d}", f"rg-{owner:02d}-{number:03d}", REGION, VERSION, pools)


def _pool(number: int, count: int, kind: str, *, mixed: bool) -> Pool:
    drifted = count // _DRIFT_EVERY if mixed else 0
    runs = [Nodes(kind, count - drifted), *([Nodes(_DRIFTED, drifted)] if drifted else [])]
    return Pool(f"np{number}", tuple(runs), mode="User" if number else "System")


def bound(members: Sequence[Member]) -> float:
    """The seconds before which the last of these nodes cannot be started, however many machines ask (FACTS, 4).

    Every node is one write to Resource Manager and one update to Compute, whichever takes longer; the reads of a run
    take less as long as a node costs two of them. Subscriptions go side by side.
    """
    owners = Counter(member.subscription.id for member in members)
    places = Counter((member.subscription.id, member.cluster.location) for member in members)
    return bound_of(max(owners.values(), default=0), max(places.values(), default=0))


def bound_of(subscription: int, region: int) -> float:
    """The bound for so many nodes in the fullest subscription, and so many in the fullest region of one."""
    updates = UPDATE_VM.subscription
    arm = (subscription - ARM_WRITES.capacity) / ARM_WRITES.refill
    return max(0.0, arm, (region - updates.capacity) / updates.refill)
