"""Finding subscriptions, clusters, pools and nodes with as few calls as possible.

One paged list gives a subscription's clusters with all their pools; for each cluster one list gives the scale sets
of its node resource group, and one paged list each gives their instances with power state. Single VMs take one more
list a cluster, only where it may have such nodes (`single_vms`). What cannot be looked at becomes a ScopeProblem:
nothing is left out in silence. A node that runs and cannot be looked at is an error; `skipped` is what does not run.
Trouble that passes (no connection, no token, 429, 5xx) is told apart: it says nothing of what was asked for.

Sources: the REST operations "Managed Clusters - List", "Virtual Machine Scale Sets - List" and "Virtual Machine Scale
Set VMs - List" (`$expand=instanceView`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shared.azure import single_vms
from shared.azure.arm import Options, items_of
from shared.azure.fields import Shown, lowered, shown, text_of, under
from shared.azure.operations import (
    INSTANCES,
    READ_CLUSTER,
    READ_INSTANCE,
    READ_VM,
    SCALE_SETS,
    SUBSCRIPTIONS,
    VMS,
    Operation,
    checked,
)
from shared.azure.problems import Fault, SubscriptionError, Target, judge, passing, word
from shared.azure.replies import Body, Refusal, object_of, page_of
from shared.azure.single_vms import NAME, Single, holds_singles
from shared.azure.versions import Provider
from shared.errors import CredentialError, EndpointError
from shared.models import (
    Cluster,
    Node,
    NodePool,
    Problem,
    ScopeProblem,
    Status,
    Subscription,
    instance_resource_id,
)
from shared.plain import plain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Sequence

    from shared.azure.arm import Arm


log = logging.getLogger(__name__)

# Names for what is not a pool but has nodes; parentheses cannot occur in the name of a real pool.
VIRTUAL_NODES = "(virtual nodes)"
HOSTED_SYSTEM = "(hosted system nodes)"

# What is being created for longer is stuck.
_LONGEST_CREATION = timedelta(hours=1)

_INSTANCE_ID = re.compile(r"[0-9]{1,10}")
_NODE_GROUP = re.compile(r"[\w.()-]{0,89}[\w()-]")
_CLUSTER_ID = re.compile(r"/subscriptions/[^/]+/resourcegroups/([^/]+)/.+", re.IGNORECASE)


async def subscriptions(arm: Arm) -> list[Subscription]:
    """All subscriptions that the identity sees. Raises CredentialError or EndpointError."""
    listed = await _all(arm.pages(SUBSCRIPTIONS))
    if not isinstance(listed, Fault) and not all(text_of(item.get("subscriptionId")) for item in listed):
        listed = Fault(None, "malformed", "a subscription without its id")
    if isinstance(listed, Fault):
        target = Target("the list of subscriptions", SUBSCRIPTIONS.action, "a subscription")
        raise_for_run(arm, listed, target)
        raise EndpointError(judge(listed, target).reason)
    return [Subscription(text_of(item.get("subscriptionId")), text_of(item.get("displayName"))) for item in listed]


async def clusters(arm: Arm, subscription: str) -> list[Cluster]:
    """The AKS clusters of a subscription.

    Raises CredentialError or EndpointError for the whole run, SubscriptionError for this subscription alone.
    """
    target = Target(f"subscription {subscription}", READ_CLUSTER, f"/subscriptions/{subscription}")

    async def call(version: str, options: Options) -> list[Body] | Refusal:
        checked(subscription=subscription)
        return await items_of(arm.containers(subscription, version).managed_clusters.list(**options))

    listed = await arm.sdk(Provider.CONTAINERS, page_of, call)
    if not isinstance(listed, Refusal):
        older = arm.versions.older(Provider.CONTAINERS)
        return [cluster_of(subscription, item, older=older) for item in listed]
    # Where the provider is not registered, or cannot be, there can be no cluster.
    fault = listed.fault
    if word(fault) == "no_provider":
        log.info("%s has no AKS clusters (%s)", target.what, plain(fault.code))
        return []
    raise_for_run(arm, fault, target)
    raise SubscriptionError(subscription, judge(fault, target), passing=_passes(fault))


def raise_for_run(arm: Arm, fault: Fault, target: Target) -> None:
    """Raise where the fault would meet every other call as well."""
    problem = judge(fault, target)
    match word(fault):
        case "credential" | "unauthorized":
            raise CredentialError(f"{problem.reason} {problem.hint}")
        case "unreachable" | "untrusted" | "connection_lost":
            raise EndpointError(f"{arm.settings.arm_endpoint}: {problem.reason} {problem.hint}")


def raise_passing(arm: Arm, fault: Fault, target: Target) -> None:
    """Raise CredentialError or EndpointError where the same call may well be answered later."""
    if _passes(fault):
        raise_for_run(arm, fault, target)
        problem = judge(fault, target)
        raise EndpointError(f"{problem.reason} {problem.hint}")


def _passes(fault: Fault) -> bool:
    # A list or a GET that meets a 5xx says nothing of what it was for, whatever the code.
    return word(fault) in {"throttled", "server_error"} or (passing(fault) and word(fault) != "wrong_tenant")


async def cluster(arm: Arm, subscription: str, resource_group: str, name: str) -> Cluster | Problem:
    """A cluster as it is now, by one GET. One that is gone is a problem with the code `vanished`.

    Raises CredentialError or EndpointError for trouble that passes.
    """
    found, target = await _cluster(arm, subscription, resource_group, name)
    if isinstance(found, Fault):
        raise_passing(arm, found, target)
        return _gone(found, target)
    return found


async def _cluster(arm: Arm, subscription: str, resource_group: str, name: str) -> tuple[Cluster | Fault, Target]:
    scope = f"/subscriptions/{subscription}/resourceGroups/{resource_group}"
    target = Target(f"cluster {name}", READ_CLUSTER, scope)

    async def call(version: str, options: Options) -> Body:
        checked(subscription=subscription, group=resource_group, cluster=name)
        return await arm.containers(subscription, version).managed_clusters.get(resource_group, name, **options)

    found = await arm.sdk(Provider.CONTAINERS, object_of, call)
    if isinstance(found, Refusal):
        return found.fault, target
    return cluster_of(subscription, found, older=arm.versions.older(Provider.CONTAINERS)), target


async def node(arm: Arm, known: Node) -> Node | Problem:
    """A node as it is now, by one GET of its machine. One that is gone is a problem with the code `vanished`.

    Raises CredentialError or EndpointError for trouble that passes.
    """
    group, scale_set, machine = known.node_resource_group, known.scale_set, known.instance_id

    async def instance(version: str, options: Options) -> Body:
        checked(subscription=known.subscription, group=group, set=scale_set, instance=machine)
        return await arm.compute(known.subscription).virtual_machine_scale_set_vms.get(
            group, scale_set, machine, expand="instanceView", api_version=version, **options
        )

    async def vm(version: str, options: Options) -> Body:
        checked(subscription=known.subscription, group=group, machine=machine)
        return await arm.compute(known.subscription).virtual_machines.get(
            group, machine, expand="instanceView", api_version=version, **options
        )

    found = await arm.sdk(Provider.COMPUTE, object_of, vm if known.single else instance, known.location)
    target = Target("the node", READ_VM if known.single else READ_INSTANCE, known.id)
    if isinstance(found, Refusal):
        raise_passing(arm, found.fault, target)
        return _gone(found.fault, target)
    named = text_of(found.get("name" if known.single else "instanceId"))
    if named and named.lower() != machine.lower():
        return judge(Fault(None, "malformed", "an answer for another machine"), target)
    return replace(known, **shown(found, known.name, known.os, known.node_image_version))


def _gone(fault: Fault, target: Target) -> Problem:
    return judge(replace(fault, code="vanished") if word(fault) == "missing" else fault, target)


async def nodes(arm: Arm, cluster: Cluster, pools: Collection[str] | None) -> AsyncIterator[Node | ScopeProblem]:
    """The nodes of a cluster's pools (of those named in `pools`, or all), and what cannot be looked at.

    They come page by page, and no more than a page is held; of single VMs what counts of all of them. A list that
    breaks off gives a problem of its pool after the nodes that it had. The cluster may have been listed some time ago
    (Azure Resource Graph is always behind): where its scale sets and VMs are not those of its pools, it is read again,
    once. Raises nothing: a problem says whether it is `passing`.
    """
    wanted = None if pools is None else {name.lower() for name in pools}
    ready = _ready(cluster, wanted)
    held = await _held(arm, cluster, ready, _Held())
    if _unlike(cluster, wanted, ready, held):
        cluster = await _afresh(arm, cluster)
        ready = _ready(cluster, wanted)
        # It may have nodes of a kind by now that it did not have.
        held = await _held(arm, cluster, ready, held)
    for problem in (*ready.problems, *held.problems):
        yield problem
    if ready.sets and held.scale_sets is not None:
        async for found in _of_scale_sets(arm, cluster, wanted, ready, held.scale_sets):
            yield found
    if ready.may_have_singles and held.vms is not None:
        async for found in _singles(arm, cluster, wanted, ready, held.vms):
            yield found


@dataclass(frozen=True, slots=True)
class _Ready:
    """What of a cluster can be looked for: its pools of scale sets and of single VMs (by lower-case name), and whether
    there may be single VMs, of those or of node auto-provisioning; and what is to be said of the rest."""

    sets: Mapping[str, NodePool]
    singles: Mapping[str, NodePool]
    may_have_singles: bool
    problems: tuple[ScopeProblem, ...]


@dataclass(frozen=True, slots=True)
class _Held:
    """What a node resource group holds; None where it was not looked for, or a problem says why it is not known."""

    scale_sets: list[Body] | None = None
    vms: list[Body] | None = None
    problems: tuple[ScopeProblem, ...] = ()


def _ready(cluster: Cluster, wanted: Collection[str] | None) -> _Ready:
    if cluster.power.lower() == "stopped":
        return _Ready({}, {}, False, (_scope(cluster, "", CLUSTER_STOPPED),))
    ready: dict[str, NodePool] = {}
    problems = _outside_pools(cluster) if wanted is None else []
    for pool in cluster.pools:
        if wanted is None or pool.name.lower() in wanted:
            if (why := _pool_problem(pool)) is None:
                ready[pool.name.lower()] = pool
            else:
                problems.append(_scope(cluster, pool.name, why))
    if not cluster.pools and not cluster.hosted_system:
        problems.append(_scope(cluster, "", _changing(cluster) or NO_POOLS))
    singles = {key: pool for key, pool in ready.items() if holds_singles(pool)}
    sets = {key: pool for key, pool in ready.items() if key not in singles}
    # Where that is not known, they are looked for: no node is to be lost.
    return _Ready(sets, singles, bool(singles) or cluster.auto_provisioned is not False, tuple(problems))


async def _held(arm: Arm, cluster: Cluster, ready: _Ready, known: _Held) -> _Held:
    """The scale sets and VMs of a cluster's node resource group, as far as there may be nodes among them.

    What is `known` is not asked for again, and where that has a problem nothing is.
    """
    want_sets = bool(ready.sets) and known.scale_sets is None
    want_vms = ready.may_have_singles and known.vms is None
    if known.problems or not (want_sets or want_vms):
        return known
    if _NODE_GROUP.fullmatch(cluster.node_resource_group) is None:
        fault = Fault(None, "malformed", "its node resource group is not known")
        target = Target(f"cluster {cluster.name}", "", cluster.id)
        return _Held(problems=(_scope(cluster, "", _changing(cluster) or judge(fault, target)),))
    scale_sets = await _listed(arm, cluster, SCALE_SETS) if want_sets else known.scale_sets
    if isinstance(scale_sets, ScopeProblem):
        # What keeps one list of a resource group from being read keeps the other as well.
        return _Held(vms=known.vms, problems=(scale_sets,))
    vms = await _listed(arm, cluster, VMS) if want_vms else known.vms
    if isinstance(vms, ScopeProblem):
        return _Held(scale_sets, problems=(vms,))
    return _Held(scale_sets, vms)


async def _listed(arm: Arm, cluster: Cluster, operation: Operation) -> list[Body] | ScopeProblem:
    """What a node resource group has of a kind, or why that is not known."""
    place = {"subscription": cluster.subscription, "group": cluster.node_resource_group}
    items: list[Body] = []
    async for page in arm.pages(operation, cluster.location, **place):
        if isinstance(page, Refusal):
            return await _unlisted(arm, cluster, page.fault, operation)
        items += map(single_vms.essence, page) if operation is VMS else page
    return items


def _unlike(cluster: Cluster, wanted: Collection[str] | None, ready: _Ready, held: _Held) -> bool:
    """Whether there is a scale set or a VM of a pool that the cluster does not have, or a pool without its own."""
    if ready.sets and held.scale_sets is not None:
        matched, strays = match_pools(ready.sets, held.scale_sets)
        if any(key not in matched and _without_scale_set(cluster, pool) for key, pool in ready.sets.items()):
            return True
        if _unknown(cluster, wanted, strays):
            return True
    if ready.may_have_singles and held.vms is not None:
        found = _matched_vms(cluster, wanted, ready, held.vms)
        return bool(found.strays) or any(_without_vms(cluster, pool, count) for pool, count in found.lacking)
    return False


async def _of_scale_sets(
    arm: Arm, cluster: Cluster, wanted: Collection[str] | None, ready: _Ready, listed: Sequence[Body]
) -> AsyncIterator[Node | ScopeProblem]:
    matched, strays = match_pools(ready.sets, listed)
    for name, stray in _unknown(cluster, wanted, strays):
        yield _scope(cluster, name, _unknown_pool("scale set", text_of(stray.get("name")), goes=_goes(stray)))
    for key, pool in ready.sets.items():
        if key not in matched and (why := _without_scale_set(cluster, pool)) is not None:
            yield _scope(cluster, pool.name, why)
        for scale_set in matched.get(key, ()):
            async for found in _instances(arm, cluster, pool, scale_set):
                yield found


def _unknown(
    cluster: Cluster, wanted: Collection[str] | None, strays: Iterable[tuple[str, Body]]
) -> list[tuple[str, Body]]:
    """Of scale sets, as (pool, scale set), those of wanted pools that the cluster does not have."""
    known = {pool.name.lower() for pool in cluster.pools}
    meant = [each for each in strays if wanted is None or each[0].lower() in wanted]
    return [(name, stray) for name, stray in meant if name.lower() not in known]


def _goes(resource: Body) -> bool:
    """Whether a scale set or VM is on its way out."""
    return text_of(under(resource, "properties").get("provisioningState")).lower() == "deleting"


def _matched_vms(
    cluster: Cluster, wanted: Collection[str] | None, ready: _Ready, vms: Iterable[Body]
) -> single_vms.Matched:
    known = {pool.name.lower() for pool in cluster.pools}
    return single_vms.match(ready.singles, known, wanted, vms)


async def _singles(
    arm: Arm, cluster: Cluster, wanted: Collection[str] | None, ready: _Ready, vms: Sequence[Body]
) -> AsyncIterator[Node | ScopeProblem]:
    """The nodes among the VMs of a node resource group."""
    found = _matched_vms(cluster, wanted, ready, vms)
    for tagged, stray in found.strays:
        yield _scope(cluster, tagged, _unknown_pool("VM", text_of(stray.get("name")), goes=_goes(stray)))
    for pool, count in found.lacking:
        if (why := _without_vms(cluster, pool, count)) is not None:
            yield _scope(cluster, pool.name, why)
    if not found.singles:
        return
    states = await arm.power_states.of(arm, cluster.subscription)
    for single in found.singles:
        name = text_of(single.vm.get("name"))
        if NAME.fullmatch(name) is None:
            fault = Fault(None, "malformed", f"a VM's name is {name!r}")
            target = Target(f"node pool {single.pool}", VMS.action, cluster.id)
            yield _scope(cluster, single.pool, judge(fault, target))
            continue
        made = single_node_of(cluster, single)
        yield replace(made, power=states.get(made.key, ""))


async def _afresh(arm: Arm, listed: Cluster) -> Cluster:
    """The cluster as it is now, where it can be had."""
    now = await cluster(arm, listed.subscription, listed.resource_group, listed.name)
    return now if isinstance(now, Cluster) else listed


async def _unlisted(arm: Arm, listed: Cluster, fault: Fault, operation: Operation) -> ScopeProblem:
    """What it means that a cluster's scale sets or VMs cannot be listed."""
    group = f"/subscriptions/{listed.subscription}/resourceGroups/{listed.node_resource_group}"
    target = Target(f"node resource group {listed.node_resource_group}", operation.action, group)
    match word(fault):
        case "subscription_disabled":
            # It is one problem, not one of each cluster: it has the subscription's place.
            disabled = replace(target, what=f"subscription {listed.subscription}")
            return ScopeProblem(listed.subscription, "", "", "", judge(fault, disabled))
        case "missing":
            if (changing := _changing(listed)) is not None:
                return _scope(listed, "", changing)
            # A list may be behind (Azure Resource Graph's always is): perhaps the cluster is gone.
            now, of_cluster = await _cluster(arm, listed.subscription, listed.resource_group, listed.name)
            if isinstance(now, Fault) and (_passes(now) or word(now) == "missing"):
                return _scope(listed, "", _gone(now, of_cluster), passing=_passes(now))
            changing = _changing(now) if isinstance(now, Cluster) else None
            return _scope(listed, "", changing or judge(fault, target))
        case _:
            return _scope(listed, "", judge(fault, target), passing=_passes(fault))


async def _instances(arm: Arm, cluster: Cluster, pool: NodePool, scale_set: Body) -> AsyncIterator[Node | ScopeProblem]:
    name = text_of(scale_set.get("name"))
    group = f"/subscriptions/{cluster.subscription}/resourceGroups/{cluster.node_resource_group}"
    target = Target(f"scale set {name}", INSTANCES.action, group)
    if NAME.fullmatch(name) is None:
        fault = Fault(None, "malformed", f"a scale set's name is {name!r}")
        yield _scope(cluster, pool.name, judge(fault, target))
        return
    if text_of(under(scale_set, "properties").get("orchestrationMode")).lower() == "flexible":
        yield _scope(cluster, pool.name, FLEXIBLE)
        return
    place = {"subscription": cluster.subscription, "group": cluster.node_resource_group, "set": name}
    # By id: a list that changes between its pages can name an instance twice.
    seen: set[str] = set()
    strange: list[str] = []
    async for page in arm.pages(INSTANCES, cluster.location, **place):
        if isinstance(page, Refusal):
            changing = (_pool_changing(pool) or _changing(cluster)) if word(page.fault) == "missing" else None
            yield _scope(cluster, pool.name, changing or judge(page.fault, target), passing=_passes(page.fault))
            return
        for vm in page:
            given = text_of(vm.get("instanceId"))
            if given in seen:
                continue
            seen.add(given)
            if _INSTANCE_ID.fullmatch(given):
                yield node_of(cluster, pool, name, vm)
            else:
                strange.append(given or "(none)")
    if strange:
        fault = Fault(None, "malformed", f"instances with ids that are not numbers: {', '.join(strange)}")
        yield _scope(cluster, pool.name, judge(fault, target))
    elif not seen and pool.count:
        yield _scope(cluster, pool.name, _empty(pool))


async def _all(pages: AsyncIterator[list[Body] | Refusal]) -> list[Body] | Fault:
    """All items of a list that is short, or what went wrong."""
    items: list[Body] = []
    async for page in pages:
        if isinstance(page, Refusal):
            return page.fault
        items += page
    return items


def cluster_of(subscription: str, item: Body, *, older: bool = False) -> Cluster:
    """A cluster as the list gives it. What an `older` API version does not tell is None."""
    properties = under(item, "properties")
    resource_id = text_of(item.get("id"))
    parts = _CLUSTER_ID.fullmatch(resource_id)
    pools = properties.get("agentPoolProfiles")
    addons = lowered(under(properties, "addonProfiles"))

    def told(name: str, field: str, value: str) -> bool | None:
        if older and properties.get(name) is None:
            return None
        return text_of(under(properties, name).get(field)).lower() == value

    return Cluster(
        id=resource_id,
        subscription=subscription,
        resource_group=parts[1] if parts is not None else "",
        name=text_of(item.get("name")),
        location=text_of(item.get("location")),
        power=text_of(under(properties, "powerState").get("code")) or "Running",
        provisioning=text_of(properties.get("provisioningState")),
        node_resource_group=text_of(properties.get("nodeResourceGroup")),
        locked=told("nodeResourceGroupProfile", "restrictionLevel", "readonly"),
        kubernetes_version=_either(properties, "currentKubernetesVersion", "kubernetesVersion"),
        pools=tuple(pool_of(pool if isinstance(pool, Mapping) else {}) for pool in pools)
        if isinstance(pools, list)
        else (),
        auto_provisioned=told("nodeProvisioningProfile", "mode", "auto"),
        virtual_nodes=text_of(under(addons, "aciconnectorlinux").get("enabled")).lower() == "true",
        hosted_system=told("hostedSystemProfile", "enabled", "true"),
        entra=bool(under(properties, "aadProfile")),
        invoke_disabled=_said(properties, "apiServerAccessProfile", "disableRunCommand"),
        private=_said(properties, "apiServerAccessProfile", "enablePrivateCluster"),
        api_servers=tuple(host.lower() for name in ("fqdn", "privateFQDN") if (host := text_of(properties.get(name)))),
    )


def _said(properties: Body, name: str, field: str) -> bool:
    return text_of(under(properties, name).get(field)).lower() == "true"


def pool_of(item: Body) -> NodePool:
    """A pool as the cluster's `agentPoolProfiles` gives it."""
    return NodePool(
        name=text_of(item.get("name")),
        kind=text_of(item.get("type")),
        os=text_of(item.get("osType")) or "Linux",
        power=text_of(under(item, "powerState").get("code")) or "Running",
        provisioning=text_of(item.get("provisioningState")),
        kubernetes_version=_either(item, "currentOrchestratorVersion", "orchestratorVersion"),
        node_image_version=text_of(item.get("nodeImageVersion")) or None,
        count=_count(item),
        mode=text_of(item.get("mode")),
    )


def _count(pool: Body) -> int | None:
    """How many nodes a pool has; one of single VMs says it for each size, and not in `count`."""
    if isinstance(count := pool.get("count"), int):
        return count
    sizes = pool.get("virtualMachineNodesStatus")
    if not isinstance(sizes, list):
        return None
    counts = [size.get("count") for size in sizes if isinstance(size, Mapping)]
    return sum(number for number in counts if isinstance(number, int))


def match_pools(
    pools: Collection[str], scale_sets: Iterable[Body]
) -> tuple[dict[str, list[Body]], list[tuple[str, Body]]]:
    """Scale sets by pool (lower-case names), and those that are tagged with another pool, as (pool, scale set).

    A scale set without the tag belongs to no pool: somebody else put it into the node resource group.
    """
    matched: dict[str, list[Body]] = {}
    strays: list[tuple[str, Body]] = []
    for scale_set in scale_sets:
        tags = lowered(under(scale_set, "tags"))
        name = single_vms.pool_name(tags)
        if name is None:
            continue
        if name.lower() in pools:
            matched.setdefault(name.lower(), []).append(scale_set)
        else:
            strays.append((name, scale_set))
    return matched, strays


def node_of(cluster: Cluster, pool: NodePool, scale_set: str, vm: Body) -> Node:
    """A node as the list of a scale set's instances gives it (with `$expand=instanceView`)."""
    return _node(
        cluster,
        pool.name,
        pool,
        scale_set,
        text_of(vm.get("instanceId")),
        shown(vm, text_of(vm.get("name")), pool.os, pool.node_image_version),
    )


def single_node_of(cluster: Cluster, single: Single) -> Node:
    """A node as the list of a resource group's VMs gives it, which has no power state.

    The version of a machine that Karpenter made is not its cluster's: it may be behind until it is replaced.
    """
    name = text_of(single.vm.get("name"))
    pool = single.of if single.of is not None and single.of.mode.lower() != "machines" else None
    system, image = (pool.os, pool.node_image_version) if pool is not None else ("Linux", None)
    return _node(cluster, single.pool, pool, "", name, shown(single.vm, name, system, image))


def _node(
    cluster: Cluster, pool_name: str, pool: NodePool | None, scale_set: str, instance_id: str, seen: Shown
) -> Node:
    return Node(
        subscription=cluster.subscription,
        resource_group=cluster.resource_group,
        cluster=cluster.name,
        location=cluster.location,
        node_pool=pool_name,
        node_resource_group=cluster.node_resource_group,
        scale_set=scale_set,
        instance_id=instance_id,
        kubernetes_version=pool.kubernetes_version if pool is not None else None,
        cluster_provisioning=cluster.provisioning,
        pool_provisioning=pool.provisioning if pool is not None else cluster.provisioning,
        locked=cluster.locked,
        # Made of what Azure returned, and spelt the same by every call: its own lists spell one id in several ways.
        id=instance_resource_id(cluster.subscription, cluster.node_resource_group, scale_set, instance_id),
        **seen,
    )


def _either(body: Body, first: str, second: str) -> str | None:
    return text_of(body.get(first)) or text_of(body.get(second)) or None


def precheck(node: Node) -> Problem | None:
    """What is known of a node without asking it; None where its run command is worth trying.

    A locked node is an error and not skipped: it runs, it should have been judged, and nobody chose to leave it out.
    """
    power, provisioning = node.power.lower(), node.provisioning.lower()
    if "deleting" in (provisioning, node.pool_provisioning.lower(), node.cluster_provisioning.lower()):
        return Problem(
            Status.SKIPPED,
            "deleting",
            "the node is being deleted.",
            "Nothing to do: the next run sees the nodes that are there then.",
        )
    if power in {"stopped", "stopping", "deallocated", "deallocating"}:
        return Problem(
            Status.SKIPPED,
            power,
            f"the node is not running (power state {node.power}).",
            "Nothing to do while it is stopped; it is looked at by the next run after it has started.",
        )
    if power == "starting" or provisioning == "creating":
        if power == "running" and node.created is not None and datetime.now(UTC) - node.created > _LONGEST_CREATION:
            return Problem(
                Status.ERROR,
                "still_creating",
                f"the node runs, and Azure has been creating it since {node.created:%Y-%m-%d %H:%M} UTC: no command is "
                "sent into that.",
                "Look at the machine's provisioning in Azure; reimage or delete it.",
            )
        return Problem(
            Status.SKIPPED,
            "starting",
            f"the node is not up yet (power state {node.power or 'unknown'}, {node.provisioning}).",
            "Run again in some minutes.",
        )
    if node.os.lower() == "windows":
        return Problem(
            Status.ERROR,
            "windows",
            "the node runs Windows, which this version cannot look at.",
            "Leave out the controls that apply to Windows nodes, in the catalogue or the request.",
        )
    if node.locked:
        return judge(Fault(None, "locked", "restrictionLevel is ReadOnly"), Target("the node", "", node.id))
    return None


CLUSTER_STOPPED = Problem(
    Status.SKIPPED,
    "cluster_stopped",
    "the cluster is stopped.",
    "Nothing to do while it is stopped; it is looked at by the next run after it has started.",
)
NO_POOLS = Problem(
    Status.ERROR,
    "no_pools",
    "Azure lists no node pool of the cluster, so that none of its nodes can be found.",
    "Run again; look at the cluster's state in Azure.",
)
FLEXIBLE = Problem(
    Status.ERROR,
    "flexible_scale_set",
    "the pool's scale set has flexible orchestration, which AKS does not have: what its machines are is not known.",
    "Look at who made the scale set, and at its tag aks-managed-poolName.",
)


HOSTED = Problem(
    Status.NOT_APPLICABLE,
    "hosted_system",
    "the cluster's system nodes are hosted by Microsoft, outside of the subscription.",
    "Nothing to do: Microsoft answers for their settings.",
)


def leaves_out(cluster: Cluster) -> bool:
    """Whether nodes are left out for what the cluster says of itself or of a pool, which may be another thing now."""
    parts: tuple[Cluster | NodePool, ...] = (cluster, *cluster.pools)
    changing = any(part.power.lower() == "stopped" or _comes_or_goes(part) for part in parts)
    return changing or bool(cluster.locked) or not cluster.pools


def _comes_or_goes(part: Cluster | NodePool) -> bool:
    return part.provisioning.lower() in {"creating", "deleting"}


def _outside_pools(cluster: Cluster) -> list[ScopeProblem]:
    """Nodes that are in none of the pools."""
    problems = []
    if cluster.virtual_nodes:
        problem = Problem(
            Status.NOT_APPLICABLE,
            "virtual_nodes",
            "the cluster has virtual nodes (container instances): they have no VM and no kubelet of their own.",
            "Nothing to do.",
        )
        problems.append(_scope(cluster, VIRTUAL_NODES, problem))
    # Where such a pool is listed, it speaks for itself.
    if cluster.hosted_system and not any(_hosted(pool) for pool in cluster.pools):
        problems.append(_scope(cluster, HOSTED_SYSTEM, HOSTED))
    return problems


def _hosted(pool: NodePool) -> bool:
    return pool.mode.lower() == "managedsystem"


def _pool_problem(pool: NodePool) -> Problem | None:
    """Why a pool has no instances to list, as far as the cluster's own description tells."""
    if _hosted(pool):
        return HOSTED
    if pool.power.lower() == "stopped":
        return Problem(
            Status.SKIPPED,
            "pool_stopped",
            f"node pool {pool.name} is stopped.",
            "Nothing to do while it is stopped; it is looked at by the next run after it has started.",
        )
    if pool.kind.lower() == "availabilityset":
        return Problem(
            Status.ERROR,
            "availability_set_pool",
            f"node pool {pool.name} is of type AvailabilitySet: its nodes were not looked at.",
            "AKS has retired this type: move to a pool of another type.",
        )
    return None


def _changing(cluster: Cluster) -> Problem | None:
    """Why it is no wonder that something of the cluster is not there."""
    if not _comes_or_goes(cluster):
        return None
    state = cluster.provisioning.lower()
    return Problem(
        Status.SKIPPED,
        "cluster_changing",
        f"the cluster is being {'created' if state == 'creating' else 'deleted'}.",
        "Run again when that has ended.",
    )


def _pool_changing(pool: NodePool) -> Problem | None:
    if not _comes_or_goes(pool):
        return None
    return Problem(
        Status.SKIPPED,
        "pool_changing",
        f"node pool {pool.name} has no machines now: it is {pool.provisioning.lower()}.",
        "Run again when that has ended.",
    )


def _without_scale_set(cluster: Cluster, pool: NodePool) -> Problem | None:
    if pool.count == 0:
        return None
    if (changing := _pool_changing(pool) or _changing(cluster)) is not None:
        return changing
    return Problem(
        Status.ERROR,
        "scale_set_missing",
        f"node pool {pool.name} has no scale set tagged with its name in the node resource group.",
        "Look at the pool's state in Azure; the tag aks-managed-poolName must not be removed from its scale set.",
    )


def _without_vms(cluster: Cluster, pool: NodePool, found: int) -> Problem | None:
    """What it means that a pool has fewer VMs than nodes. Nothing while it is changing: its count is then another."""
    if (changing := _pool_changing(pool) or _changing(cluster)) is not None:
        return changing if found == 0 else None
    if pool.provisioning.lower() != "succeeded" and found:
        return None
    there = f"only {found} VMs" if found else "no VM"
    return Problem(
        Status.ERROR,
        "vms_missing",
        f"node pool {pool.name} has {pool.count} nodes, and {there} tagged with its name in the node resource group.",
        "Look at the pool's state in Azure; the tag aks-managed-poolName must not be removed from its VMs.",
    )


def _unknown_pool(what: str, name: str, *, goes: bool) -> Problem:
    tagged = f"{what} {name} is tagged with a pool that the cluster does not list"
    if goes:
        return Problem(
            Status.SKIPPED, "pool_unknown", f"{tagged}, and is being deleted.", "Run again when that has ended."
        )
    return Problem(
        Status.ERROR,
        "pool_unknown",
        f"{tagged}: one being added or removed, or left over. What runs there was not looked at.",
        "Run again when that has ended; delete what was left over.",
    )


def _empty(pool: NodePool) -> Problem:
    return Problem(
        Status.SKIPPED,
        "pool_empty",
        f"node pool {pool.name} is asked to have {pool.count} nodes and has none now.",
        "Look at the pool's state in Azure: its nodes may have been evicted, or cannot be had.",
    )


def _scope(cluster: Cluster, pool: str, problem: Problem, *, passing: bool = False) -> ScopeProblem:
    return ScopeProblem(cluster.subscription, cluster.resource_group, cluster.name, pool, problem, passing)
