"""Nodes that are VMs of their own: those of `VirtualMachines` pools, and of node auto-provisioning (Karpenter).

They are found by one paged list of the node resource group, and their tags. AKS's own list of a pool's machines
(`agentPools/POOL/machines`) would be one more call a pool and one more action to grant, shows neither image nor age,
and does not have the VMs that Karpenter makes by itself. The list of a resource group has no power states; one list of
the whole subscription (`statusOnly=true`) has those of all its VMs.

Sources: the Kubernetes cluster autoscaler's Azure provider (the tags of AKS), karpenter-provider-azure (its tags; it
takes a VM for its own where that of the node pool is there), and the REST operations "Virtual Machines - List" and
"Virtual Machines - List All".
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.azure.fields import lowered, power_of, text_of, under
from shared.azure.operations import VM_STATES
from shared.azure.problems import tidy
from shared.azure.replies import Body, Refusal
from shared.models import NodePool

if TYPE_CHECKING:
    from shared.azure.arm import Arm

log = logging.getLogger(__name__)

POOL_TAGS = ("aks-managed-poolname", "poolname")
"""AKS tags a pool's scale set, or its VMs, with the pool's name; older clusters have the second tag only (the
Kubernetes cluster autoscaler's Azure provider knows both). Tag names are case-insensitive."""

_KARPENTER_POOL = "karpenter.sh_nodepool"
_TAGS = {*POOL_TAGS, _KARPENTER_POOL}

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
"""What a VM or scale set may be called."""

# For so many seconds the states of a subscription's VMs are not asked for again: the clusters of a chunk are listed
# side by side, and a command for a VM that was stopped since says so itself.
_KNOWN_FOR = 30.0


def holds_singles(pool: NodePool) -> bool:
    """Whether a pool's nodes are VMs of their own."""
    return pool.kind.lower() == "virtualmachines" or pool.mode.lower() == "machines"


def pool_name(tags: Body) -> str | None:
    """The name of the AKS pool in tags with lower-case names; None where no tag names one."""
    return next((text_of(tags[tag]) for tag in POOL_TAGS if tag in tags), None)


def essence(vm: Body) -> Body:
    """What of a VM counts here: a resource group may have thousands, each a page of JSON."""
    properties = under(vm, "properties")
    storage = under(properties, "storageProfile")
    return {
        "name": vm.get("name"),
        "tags": {name: value for name, value in lowered(under(vm, "tags")).items() if name in _TAGS},
        "properties": {
            "provisioningState": properties.get("provisioningState"),
            "timeCreated": properties.get("timeCreated"),
            "osProfile": {"computerName": under(properties, "osProfile").get("computerName")},
            "storageProfile": {
                "imageReference": under(storage, "imageReference"),
                "osDisk": {"osType": under(storage, "osDisk").get("osType")},
            },
        },
    }


@dataclass(frozen=True, slots=True)
class Single:
    """A VM that is a node: `pool` is what its pool is called, `of` that AKS pool where it is one."""

    vm: Body
    pool: str
    of: NodePool | None


@dataclass(frozen=True, slots=True)
class Matched:
    """The nodes among VMs; `lacking` are the AKS pools with fewer of them than they have by AKS's own count, with that
    number; `strays` are (pool, VM) for those that are tagged with a pool that the cluster does not have."""

    singles: tuple[Single, ...]
    lacking: tuple[tuple[NodePool, int], ...]
    strays: tuple[tuple[str, Body], ...]


def match(
    pools: Mapping[str, NodePool], known: Collection[str], wanted: Collection[str] | None, vms: Iterable[Body]
) -> Matched:
    """Match the VMs of a node resource group to the `pools` of single VMs (by lower-case name) and to Karpenter's.

    `known` are the names of all pools of the cluster, `wanted` those that were asked for (both lower case; None: all).
    A VM without a tag that names a pool is nobody's node: somebody else put it there.
    """
    singles: list[Single] = []
    strays: list[tuple[str, Body]] = []
    found = dict.fromkeys(pools, 0)
    some_of_karpenters = False
    # By name: a list that changes between its pages can name a VM twice.
    for vm in {text_of(vm.get("name")).lower(): vm for vm in vms}.values():
        tags = lowered(under(vm, "tags"))
        aks, karpenter = pool_name(tags), text_of(tags.get(_KARPENTER_POOL))
        of = pools.get((aks or "").lower())
        if of is not None:
            found[of.name.lower()] += 1
        if karpenter:
            some_of_karpenters = True
            if wanted is None or karpenter.lower() in wanted or of is not None:
                singles.append(Single(vm, karpenter, of))
        elif of is not None:
            singles.append(Single(vm, of.name, of))
        elif aks is not None and aks.lower() not in known and (wanted is None or aks.lower() in wanted):
            strays.append((aks, vm))
    # Karpenter's VMs may be machines of such a pool without AKS's own tag: then how many those are is not known.
    lacking = tuple(
        (pool, found[key])
        for key, pool in pools.items()
        if found[key] < (pool.count or 0) and not (pool.mode.lower() == "machines" and some_of_karpenters)
    )
    return Matched(tuple(singles), lacking, tuple(strays))


@dataclass
class PowerStates:
    """The power states of VMs, asked once a subscription for all who want them at about the same time."""

    _known: dict[str, tuple[float, Mapping[str, str]]] = field(default_factory=dict)
    _turns: dict[str, asyncio.Lock] = field(default_factory=dict)

    async def of(self, arm: Arm, subscription: str) -> Mapping[str, str]:
        """The power state of every VM of a subscription, by resource id in lower case.

        One that is not there, and all where they cannot be had, are unknown: then run command itself tells.
        """
        async with self._turns.setdefault(subscription, asyncio.Lock()):
            known = self._known.get(subscription)
            if known is None or time.monotonic() - known[0] > _KNOWN_FOR:
                states, now = await _states(arm, subscription), time.monotonic()
                self._known = {name: one for name, one in self._known.items() if now - one[0] <= _KNOWN_FOR}
                known = self._known[subscription] = (now, states)
            return known[1]


async def _states(arm: Arm, subscription: str) -> Mapping[str, str]:
    states: dict[str, str] = {}
    async for page in arm.pages(VM_STATES, subscription=subscription):
        if isinstance(page, Refusal):
            why = f"{page.fault.code or page.fault.status}: {tidy(page.fault.message)}"
            log.info("which VMs of subscription %s run is not known (%s)", subscription, why)
            break
        for vm in page:
            states[text_of(vm.get("id")).lower()] = power_of(vm)
    return states
