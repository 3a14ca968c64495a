"""Finding subscriptions, clusters, pools and nodes with as few calls as possible.

One paged list gives a subscription's clusters with all their pools; for each cluster one list gives the scale sets
of its node resource group, and one paged list each gives their instances with power state. What cannot be looked at
becomes a ScopeProblem: nothing is left out in silence.

Sources: the REST operations "Managed Clusters - List", "Virtual Machine Scale Sets - List" and "Virtual Machine Scale
Set VMs - List" (`$expand=instanceView`).
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, TypeVar

from shared.azure.problems import Fault, SubscriptionError, Target, fault_of, judge, word
from shared.errors import CredentialError, EndpointError
from shared.models import Cluster, Node, NodePool, Problem, ScopeProblem, Status, Subscription

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Collection, Iterable

    from azure.mgmt.compute.models import VirtualMachineScaleSet, VirtualMachineScaleSetVM
    from azure.mgmt.containerservice.models import ManagedCluster, ManagedClusterAgentPoolProfile

    from shared.azure.client import Azure

Item = TypeVar("Item")

# AKS tags a pool's scale set with the pool's name; older clusters have the second tag only (the Kubernetes cluster
# autoscaler's Azure provider knows both). Tag names are case-insensitive.
_POOL_TAGS = ("aks-managed-poolname", "poolname")

# Names for what is not a pool but has nodes; parentheses cannot occur in the name of a real pool.
AUTO_PROVISIONED = "(node auto-provisioning)"
VIRTUAL_NODES = "(virtual nodes)"
HOSTED_SYSTEM = "(hosted system nodes)"

_INSTANCE_ID = re.compile(r"[0-9]{1,10}")
_SCALE_SET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_CLUSTER_ID = re.compile(r"/subscriptions/[^/]+/resourcegroups/([^/]+)/.+", re.IGNORECASE)
_GALLERY_IMAGE = re.compile(r".*/galleries/([^/]+)/images/([^/]+)/versions/([^/]+)", re.IGNORECASE)


async def subscriptions(azure: Azure) -> list[Subscription]:
    """All subscriptions that the identity sees. Raises CredentialError or EndpointError."""
    listed = await _all(azure.tenant().subscriptions.list())
    if isinstance(listed, Fault):
        target = Target("the list of subscriptions", "Microsoft.Resources/subscriptions/read", "a subscription")
        _raise_for_run(azure, listed, target)
        raise EndpointError(judge(listed, target).reason)
    return [Subscription(item.subscription_id or "", item.display_name or "") for item in listed]


async def clusters(azure: Azure, subscription: str) -> list[Cluster]:
    """The AKS clusters of a subscription.

    Raises CredentialError or EndpointError for the whole run, SubscriptionError for this subscription alone.
    """
    target = Target(
        f"subscription {subscription}",
        "Microsoft.ContainerService/managedClusters/read",
        f"/subscriptions/{subscription}",
    )
    listed = await _all(azure.containers(subscription).managed_clusters.list())
    if not isinstance(listed, Fault):
        return [cluster_of(subscription, item) for item in listed]
    # Where nobody ever registered the provider there can be no cluster.
    if listed.code == "MissingSubscriptionRegistration":
        return []
    _raise_for_run(azure, listed, target)
    raise SubscriptionError(subscription, judge(listed, target))


def _raise_for_run(azure: Azure, fault: Fault, target: Target) -> None:
    """Raise where the fault would meet every other call as well."""
    problem = judge(fault, target)
    match word(fault):
        case "credential" | "unauthorized":
            raise CredentialError(f"{problem.reason} {problem.hint}")
        case "unreachable" | "untrusted" | "connection_lost":
            raise EndpointError(f"{azure.settings.arm_endpoint}: {problem.reason} {problem.hint}")


async def nodes(azure: Azure, cluster: Cluster, pools: Collection[str] | None) -> tuple[list[Node], list[ScopeProblem]]:
    """The nodes of a cluster's pools (of those named in `pools`, or all), and what cannot be looked at."""
    wanted = None if pools is None else {name.lower() for name in pools}
    problems = [] if wanted is not None else _outside_pools(cluster)
    if cluster.power.lower() == "stopped":
        return [], [_scope(cluster, "", CLUSTER_STOPPED)]
    ready: dict[str, NodePool] = {}
    for pool in cluster.pools:
        if wanted is None or pool.name.lower() in wanted:
            problem = _pool_problem(pool)
            if problem is None:
                ready[pool.name.lower()] = pool
            else:
                problems.append(_scope(cluster, pool.name, problem))
    if not ready:
        return [], problems

    listed = await _all(
        azure.compute(cluster.subscription).virtual_machine_scale_sets.list(
            cluster.node_resource_group, throttle_region=cluster.location
        )
    )
    if isinstance(listed, Fault):
        group = f"/subscriptions/{cluster.subscription}/resourceGroups/{cluster.node_resource_group}"
        target = Target(
            f"node resource group {cluster.node_resource_group}",
            "Microsoft.Compute/virtualMachineScaleSets/read",
            group,
        )
        return [], [*problems, _scope(cluster, "", judge(listed, target))]

    matched, strays = match_pools(ready, listed)
    problems += [
        _scope(cluster, name, _unknown_pool(stray))
        for name, stray in strays
        if wanted is None and name.lower() not in {pool.name.lower() for pool in cluster.pools}
    ]
    problems += [
        _scope(cluster, pool.name, problem)
        for key, pool in ready.items()
        if key not in matched and (problem := _without_scale_set(pool)) is not None
    ]
    pairs = [(ready[key], scale_set) for key, scale_sets in matched.items() for scale_set in scale_sets]
    found = await asyncio.gather(*(_instances(azure, cluster, pool, scale_set) for pool, scale_set in pairs))
    instances = [node for group_nodes, _ in found for node in group_nodes]
    return instances, [*problems, *(problem for _, group_problems in found for problem in group_problems)]


async def _instances(
    azure: Azure, cluster: Cluster, pool: NodePool, scale_set: VirtualMachineScaleSet
) -> tuple[list[Node], list[ScopeProblem]]:
    name = str(scale_set.name or "")
    target = Target(
        f"scale set {name}",
        "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/read",
        f"/subscriptions/{cluster.subscription}/resourceGroups/{cluster.node_resource_group}",
    )
    if _SCALE_SET.fullmatch(name) is None:
        fault = Fault(None, "malformed", f"a scale set's name is {name!r}")
        return [], [_scope(cluster, pool.name, judge(fault, target))]
    if _text(scale_set.orchestration_mode).lower() == "flexible":
        return [], [_scope(cluster, pool.name, FLEXIBLE)]
    listed = await _all(
        azure.compute(cluster.subscription).virtual_machine_scale_set_vms.list(
            cluster.node_resource_group, name, expand="instanceView", throttle_region=cluster.location
        )
    )
    if isinstance(listed, Fault):
        return [], [_scope(cluster, pool.name, judge(listed, target))]
    strange = [str(vm.instance_id) for vm in listed if _INSTANCE_ID.fullmatch(str(vm.instance_id)) is None]
    found = [node_of(cluster, pool, name, vm) for vm in listed if str(vm.instance_id) not in strange]
    problems = []
    if strange:
        fault = Fault(None, "malformed", f"instances with ids that are not numbers: {', '.join(strange)}")
        problems.append(_scope(cluster, pool.name, judge(fault, target)))
    elif not found and pool.count:
        problems.append(_scope(cluster, pool.name, _empty(pool)))
    return found, problems


async def _all(pages: AsyncIterable[Item]) -> list[Item] | Fault:
    """All items of a paged list, or what went wrong."""
    from azure.core.exceptions import AzureError

    try:
        return [item async for item in pages]
    except AzureError as error:
        return fault_of(error)
    except (ValueError, AttributeError, TypeError) as error:
        # What the SDK raises when a page is not JSON, or JSON of another shape.
        return Fault(None, "malformed", str(error))


def cluster_of(subscription: str, item: ManagedCluster) -> Cluster:
    """A cluster as the list gives it."""
    resource_id = str(item.id or "")
    parts = _CLUSTER_ID.fullmatch(resource_id)
    profile = item.node_resource_group_profile
    addons = {name.lower(): addon for name, addon in (item.addon_profiles or {}).items()}
    connector = addons.get("aciconnectorlinux")
    provisioning = item.node_provisioning_profile
    hosted = item.hosted_system_profile
    return Cluster(
        id=resource_id,
        subscription=subscription,
        resource_group=parts[1] if parts is not None else "",
        name=str(item.name or ""),
        location=str(item.location or ""),
        power=_text(item.power_state.code if item.power_state else None) or "Running",
        provisioning=_text(item.provisioning_state),
        node_resource_group=_text(item.node_resource_group),
        locked=profile is not None and _text(profile.restriction_level).lower() == "readonly",
        kubernetes_version=item.current_kubernetes_version or item.kubernetes_version or None,
        pools=tuple(pool_of(pool) for pool in item.agent_pool_profiles or []),
        auto_provisioned=provisioning is not None and _text(provisioning.mode).lower() == "auto",
        virtual_nodes=connector is not None and bool(connector.enabled),
        hosted_system=hosted is not None and bool(hosted.enabled),
    )


def pool_of(item: ManagedClusterAgentPoolProfile) -> NodePool:
    """A pool as the cluster's `agentPoolProfiles` gives it."""
    return NodePool(
        name=str(item.name),
        kind=_text(item.type),
        os=_text(item.os_type) or "Linux",
        power=_text(item.power_state.code if item.power_state else None) or "Running",
        provisioning=_text(item.provisioning_state),
        kubernetes_version=item.current_orchestrator_version or item.orchestrator_version or None,
        node_image_version=item.node_image_version or None,
        count=item.count,
    )


def match_pools(
    pools: Collection[str], scale_sets: Iterable[VirtualMachineScaleSet]
) -> tuple[dict[str, list[VirtualMachineScaleSet]], list[tuple[str, str]]]:
    """Scale sets by pool (lower-case names), and those that are tagged with another pool, as (pool, scale set).

    A scale set without the tag belongs to no pool: somebody else put it into the node resource group.
    """
    matched: dict[str, list[VirtualMachineScaleSet]] = {}
    strays: list[tuple[str, str]] = []
    for scale_set in scale_sets:
        tags = {key.lower(): value for key, value in (scale_set.tags or {}).items()}
        name = next((str(tags[tag]) for tag in _POOL_TAGS if tag in tags), None)
        if name is None:
            continue
        if name.lower() in pools:
            matched.setdefault(name.lower(), []).append(scale_set)
        else:
            strays.append((name, str(scale_set.name)))
    return matched, strays


def node_of(cluster: Cluster, pool: NodePool, scale_set: str, vm: VirtualMachineScaleSetVM) -> Node:
    """A node as the list of a scale set's instances gives it (with `$expand=instanceView`)."""
    profile = vm.os_profile
    storage = vm.storage_profile
    disk = storage.os_disk if storage else None
    statuses = (vm.instance_view.statuses if vm.instance_view else None) or []
    codes = [str(status.code or "") for status in statuses]
    return Node(
        subscription=cluster.subscription,
        resource_group=cluster.resource_group,
        cluster=cluster.name,
        location=cluster.location,
        node_pool=pool.name,
        node_resource_group=cluster.node_resource_group,
        scale_set=scale_set,
        instance_id=str(vm.instance_id),
        name=(profile.computer_name if profile else None) or str(vm.name),
        os=_text(disk.os_type if disk else None) or pool.os,
        power=next((code[len("PowerState/") :] for code in codes if code.lower().startswith("powerstate/")), ""),
        provisioning=_text(vm.provisioning_state),
        kubernetes_version=pool.kubernetes_version,
        node_image_version=_image_version(storage.image_reference if storage else None) or pool.node_image_version,
        created=vm.time_created,
        cluster_provisioning=cluster.provisioning,
        pool_provisioning=pool.provisioning,
        locked=cluster.locked,
    )


def _image_version(reference: Any) -> str | None:
    """An instance's own image as AKS writes image versions (gallery-image-version): its pool may be newer already."""
    found = _GALLERY_IMAGE.fullmatch(str(reference.id or "")) if reference is not None else None
    return "-".join(found.groups()) if found is not None else None


def _text(value: object) -> str:
    """An enumeration's text, whether the SDK knows the value or not; empty for None."""
    return "" if value is None else str(getattr(value, "value", value))


def precheck(node: Node) -> Problem | None:
    """What is known of a node without asking it; None where its run command is worth trying.

    A locked node is an error and not skipped: it runs, it should have been judged, and nobody chose to leave it out.
    """
    power, provisioning = node.power.lower(), node.provisioning.lower()
    if node.os.lower() == "windows":
        return Problem(
            Status.NOT_APPLICABLE,
            "windows",
            "the node runs Windows: its kubelet manages no iptables.",
            "Nothing to do.",
        )
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
        return Problem(
            Status.SKIPPED,
            "starting",
            f"the node is not up yet (power state {node.power or 'unknown'}, {node.provisioning}).",
            "Run again in some minutes.",
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
FLEXIBLE = Problem(
    Status.SKIPPED,
    "flexible_scale_set",
    "the pool's scale set has flexible orchestration: its nodes are single VMs.",
    "Single VMs are not supported yet.",
)


def _outside_pools(cluster: Cluster) -> list[ScopeProblem]:
    """Nodes that are in none of the pools."""
    problems = []
    if cluster.auto_provisioned:
        problem = Problem(
            Status.SKIPPED,
            "node_auto_provisioning",
            "the cluster makes nodes by node auto-provisioning; these are single VMs outside of its node pools.",
            "Single VMs are not supported yet.",
        )
        problems.append(_scope(cluster, AUTO_PROVISIONED, problem))
    if cluster.virtual_nodes:
        problem = Problem(
            Status.NOT_APPLICABLE,
            "virtual_nodes",
            "the cluster has virtual nodes (container instances): they have no VM and no kubelet of their own.",
            "Nothing to do.",
        )
        problems.append(_scope(cluster, VIRTUAL_NODES, problem))
    if cluster.hosted_system:
        problem = Problem(
            Status.NOT_APPLICABLE,
            "hosted_system",
            "the cluster's system nodes are hosted by Microsoft, outside of the subscription.",
            "Nothing to do: Microsoft answers for their settings.",
        )
        problems.append(_scope(cluster, HOSTED_SYSTEM, problem))
    return problems


def _pool_problem(pool: NodePool) -> Problem | None:
    """Why a pool has no instances to list, as far as the cluster's own description tells."""
    if pool.power.lower() == "stopped":
        return Problem(
            Status.SKIPPED,
            "pool_stopped",
            f"node pool {pool.name} is stopped.",
            "Nothing to do while it is stopped; it is looked at by the next run after it has started.",
        )
    match pool.kind.lower():
        case "virtualmachines":
            return Problem(
                Status.SKIPPED,
                "virtual_machines_pool",
                f"node pool {pool.name} is of type VirtualMachines: its nodes are single VMs.",
                "Pools of single VMs are not supported yet.",
            )
        case "availabilityset":
            return Problem(
                Status.SKIPPED,
                "availability_set_pool",
                f"node pool {pool.name} is of type AvailabilitySet: its nodes are single VMs.",
                "Pools of single VMs are not supported; AKS has retired this type: move to a scale set pool.",
            )
    return None


def _without_scale_set(pool: NodePool) -> Problem | None:
    if pool.count == 0:
        return None
    if pool.provisioning.lower() in {"creating", "deleting"}:
        return Problem(
            Status.SKIPPED,
            "pool_changing",
            f"node pool {pool.name} has no scale set now: it is {pool.provisioning.lower()}.",
            "Run again when that has ended.",
        )
    return Problem(
        Status.ERROR,
        "scale_set_missing",
        f"node pool {pool.name} has no scale set tagged with its name in the node resource group.",
        "Look at the pool's state in Azure; the tag aks-managed-poolName must not be removed from its scale set.",
    )


def _unknown_pool(scale_set: str) -> Problem:
    return Problem(
        Status.SKIPPED,
        "pool_unknown",
        f"scale set {scale_set} is tagged with a pool that the cluster does not list: one being added or removed.",
        "Run again when that has ended.",
    )


def _empty(pool: NodePool) -> Problem:
    return Problem(
        Status.SKIPPED,
        "pool_empty",
        f"node pool {pool.name} is asked to have {pool.count} nodes and has none now.",
        "Look at the pool's state in Azure: its nodes may have been evicted, or cannot be had.",
    )


def _scope(cluster: Cluster, pool: str, problem: Problem) -> ScopeProblem:
    return ScopeProblem(cluster.subscription, cluster.resource_group, cluster.name, pool, problem)
