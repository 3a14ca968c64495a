"""Finding subscriptions, clusters, pools and nodes with as few calls as possible.

One paged list gives a subscription's clusters with all their pools; for each cluster one list gives the scale sets
of its node resource group, and one paged list each gives their instances with power state. What cannot be looked at
becomes a ScopeProblem: nothing is left out in silence. Trouble that passes (no connection, no token, 429, 5xx) is told
apart: it says nothing of what was asked for.

Sources: the REST operations "Managed Clusters - List", "Virtual Machine Scale Sets - List" and "Virtual Machine Scale
Set VMs - List" (`$expand=instanceView`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypedDict

from shared.azure.arm import Options, items_of
from shared.azure.operations import INSTANCES, READ_CLUSTER, READ_INSTANCE, SCALE_SETS, SUBSCRIPTIONS, checked
from shared.azure.problems import Fault, SubscriptionError, Target, judge, passing, word
from shared.azure.replies import Body, Refusal, object_of, page_of
from shared.azure.versions import Provider
from shared.errors import CredentialError, EndpointError
from shared.models import Cluster, Node, NodePool, Problem, ScopeProblem, Status, Subscription
from shared.plain import plain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable

    from shared.azure.arm import Arm


log = logging.getLogger(__name__)

# AKS tags a pool's scale set with the pool's name; older clusters have the second tag only (the Kubernetes cluster
# autoscaler's Azure provider knows both). Tag names are case-insensitive.
_POOL_TAGS = ("aks-managed-poolname", "poolname")

# Names for what is not a pool but has nodes; parentheses cannot occur in the name of a real pool.
AUTO_PROVISIONED = "(node auto-provisioning)"
VIRTUAL_NODES = "(virtual nodes)"
HOSTED_SYSTEM = "(hosted system nodes)"

# Before it there was no Azure: a time that is not known is sent as the year 1.
_FIRST_YEAR = 2008

_INSTANCE_ID = re.compile(r"[0-9]{1,10}")
_NODE_GROUP = re.compile(r"[\w.()-]{0,89}[\w()-]")
_SCALE_SET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_CLUSTER_ID = re.compile(r"/subscriptions/[^/]+/resourcegroups/([^/]+)/.+", re.IGNORECASE)
_GALLERY_IMAGE = re.compile(r".*/galleries/([^/]+)/images/([^/]+)/versions/([^/]+)", re.IGNORECASE)


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
    """A node as it is now, by one GET of its instance. One that is gone is a problem with the code `vanished`.

    Raises CredentialError or EndpointError for trouble that passes.
    """

    async def call(version: str, options: Options) -> Body:
        group, scale_set, instance = known.node_resource_group, known.scale_set, known.instance_id
        checked(subscription=known.subscription, group=group, set=scale_set, instance=instance)
        return await arm.compute(known.subscription).virtual_machine_scale_set_vms.get(
            group, scale_set, instance, expand="instanceView", api_version=version, **options
        )

    found = await arm.sdk(Provider.COMPUTE, object_of, call, known.location)
    target = Target("the node", READ_INSTANCE, known.id)
    if isinstance(found, Refusal):
        raise_passing(arm, found.fault, target)
        return _gone(found.fault, target)
    if text_of(found.get("instanceId")) not in {"", known.instance_id}:
        return judge(Fault(None, "malformed", "an answer for another instance"), target)
    return replace(known, **_seen(found, known.name, known.os, known.node_image_version))


def _gone(fault: Fault, target: Target) -> Problem:
    return judge(replace(fault, code="vanished") if word(fault) == "missing" else fault, target)


async def nodes(arm: Arm, cluster: Cluster, pools: Collection[str] | None) -> AsyncIterator[Node | ScopeProblem]:
    """The nodes of a cluster's pools (of those named in `pools`, or all), and what cannot be looked at.

    They come page by page, and no more than a page is held. A list that breaks off gives a problem of its pool after
    the nodes that it had. The cluster may have been listed some time ago (Azure Resource Graph is always behind): where
    its scale sets are not those of its pools, it is read again, once. Raises nothing: a problem says whether it is
    `passing`.
    """
    wanted = None if pools is None else {name.lower() for name in pools}
    ready, problems = _ready(cluster, wanted)
    listed = await _scale_sets(arm, cluster) if ready else []
    if isinstance(listed, ScopeProblem):
        problems, ready, listed = [*problems, listed], {}, []
    if _unlike(cluster, wanted, ready, listed):
        cluster = await _afresh(arm, cluster)
        ready, problems = _ready(cluster, wanted)
    for problem in problems:
        yield problem
    if not ready:
        return
    matched, strays = match_pools(ready, listed)
    for name, stray in _unknown(cluster, wanted, strays):
        yield _scope(cluster, name, _unknown_pool(stray))
    for key, pool in ready.items():
        if key not in matched and (why := _without_scale_set(cluster, pool)) is not None:
            yield _scope(cluster, pool.name, why)
        for scale_set in matched.get(key, ()):
            async for found in _instances(arm, cluster, pool, scale_set):
                yield found


def _ready(cluster: Cluster, wanted: Collection[str] | None) -> tuple[dict[str, NodePool], list[ScopeProblem]]:
    """The wanted pools whose scale sets can be looked for (by lower-case name), and what is to be said of the rest."""
    if cluster.power.lower() == "stopped":
        return {}, [_scope(cluster, "", CLUSTER_STOPPED)]
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
    return ready, problems


async def _scale_sets(arm: Arm, cluster: Cluster) -> list[Body] | ScopeProblem:
    """The scale sets of a cluster's node resource group, or why they are not known."""
    if _NODE_GROUP.fullmatch(cluster.node_resource_group) is None:
        fault = Fault(None, "malformed", "its node resource group is not known")
        target = Target(f"cluster {cluster.name}", "", cluster.id)
        return _scope(cluster, "", _changing(cluster) or judge(fault, target))
    place = {"subscription": cluster.subscription, "group": cluster.node_resource_group}
    listed = await _all(arm.pages(SCALE_SETS, cluster.location, **place))
    return await _unlisted(arm, cluster, listed) if isinstance(listed, Fault) else listed


def _unlike(
    cluster: Cluster, wanted: Collection[str] | None, ready: Mapping[str, NodePool], listed: Iterable[Body]
) -> bool:
    """Whether there is a scale set of a pool that the cluster does not have, or a pool without its scale set."""
    matched, strays = match_pools(ready, listed)
    lost = any(key not in matched and _without_scale_set(cluster, pool) is not None for key, pool in ready.items())
    return bool(ready) and (lost or bool(_unknown(cluster, wanted, strays)))


def _unknown(
    cluster: Cluster, wanted: Collection[str] | None, strays: Iterable[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Of scale sets, as (pool, scale set), those of wanted pools that the cluster does not have."""
    known = {pool.name.lower() for pool in cluster.pools}
    meant = [each for each in strays if wanted is None or each[0].lower() in wanted]
    return [(name, stray) for name, stray in meant if name.lower() not in known]


async def _afresh(arm: Arm, listed: Cluster) -> Cluster:
    """The cluster as it is now, where it can be had."""
    now = await cluster(arm, listed.subscription, listed.resource_group, listed.name)
    return now if isinstance(now, Cluster) else listed


async def _unlisted(arm: Arm, listed: Cluster, fault: Fault) -> ScopeProblem:
    """What it means that a cluster's scale sets cannot be listed."""
    group = f"/subscriptions/{listed.subscription}/resourceGroups/{listed.node_resource_group}"
    target = Target(f"node resource group {listed.node_resource_group}", SCALE_SETS.action, group)
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
    if _SCALE_SET.fullmatch(name) is None:
        fault = Fault(None, "malformed", f"a scale set's name is {name!r}")
        yield _scope(cluster, pool.name, judge(fault, target))
        return
    if text_of(_under(scale_set, "properties").get("orchestrationMode")).lower() == "flexible":
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
    properties = _under(item, "properties")
    resource_id = text_of(item.get("id"))
    parts = _CLUSTER_ID.fullmatch(resource_id)
    pools = properties.get("agentPoolProfiles")
    addons = _lowered(_under(properties, "addonProfiles"))

    def told(name: str, field: str, value: str) -> bool | None:
        if older and properties.get(name) is None:
            return None
        return text_of(_under(properties, name).get(field)).lower() == value

    return Cluster(
        id=resource_id,
        subscription=subscription,
        resource_group=parts[1] if parts is not None else "",
        name=text_of(item.get("name")),
        location=text_of(item.get("location")),
        power=text_of(_under(properties, "powerState").get("code")) or "Running",
        provisioning=text_of(properties.get("provisioningState")),
        node_resource_group=text_of(properties.get("nodeResourceGroup")),
        locked=told("nodeResourceGroupProfile", "restrictionLevel", "readonly"),
        kubernetes_version=_either(properties, "currentKubernetesVersion", "kubernetesVersion"),
        pools=tuple(pool_of(pool if isinstance(pool, Mapping) else {}) for pool in pools)
        if isinstance(pools, list)
        else (),
        auto_provisioned=told("nodeProvisioningProfile", "mode", "auto"),
        virtual_nodes=text_of(_under(addons, "aciconnectorlinux").get("enabled")).lower() == "true",
        hosted_system=told("hostedSystemProfile", "enabled", "true"),
    )


def pool_of(item: Body) -> NodePool:
    """A pool as the cluster's `agentPoolProfiles` gives it."""
    count = item.get("count")
    return NodePool(
        name=text_of(item.get("name")),
        kind=text_of(item.get("type")),
        os=text_of(item.get("osType")) or "Linux",
        power=text_of(_under(item, "powerState").get("code")) or "Running",
        provisioning=text_of(item.get("provisioningState")),
        kubernetes_version=_either(item, "currentOrchestratorVersion", "orchestratorVersion"),
        node_image_version=text_of(item.get("nodeImageVersion")) or None,
        count=count if isinstance(count, int) else None,
        mode=text_of(item.get("mode")),
    )


def match_pools(
    pools: Collection[str], scale_sets: Iterable[Body]
) -> tuple[dict[str, list[Body]], list[tuple[str, str]]]:
    """Scale sets by pool (lower-case names), and those that are tagged with another pool, as (pool, scale set).

    A scale set without the tag belongs to no pool: somebody else put it into the node resource group.
    """
    matched: dict[str, list[Body]] = {}
    strays: list[tuple[str, str]] = []
    for scale_set in scale_sets:
        tags = _lowered(_under(scale_set, "tags"))
        name = next((text_of(tags[tag]) for tag in _POOL_TAGS if tag in tags), None)
        if name is None:
            continue
        if name.lower() in pools:
            matched.setdefault(name.lower(), []).append(scale_set)
        else:
            strays.append((name, text_of(scale_set.get("name"))))
    return matched, strays


def node_of(cluster: Cluster, pool: NodePool, scale_set: str, vm: Body) -> Node:
    """A node as the list of a scale set's instances gives it (with `$expand=instanceView`)."""
    return Node(
        subscription=cluster.subscription,
        resource_group=cluster.resource_group,
        cluster=cluster.name,
        location=cluster.location,
        node_pool=pool.name,
        node_resource_group=cluster.node_resource_group,
        scale_set=scale_set,
        instance_id=text_of(vm.get("instanceId")),
        kubernetes_version=pool.kubernetes_version,
        cluster_provisioning=cluster.provisioning,
        pool_provisioning=pool.provisioning,
        locked=cluster.locked,
        **_seen(vm, text_of(vm.get("name")), pool.os, pool.node_image_version),
    )


class _Seen(TypedDict):
    """What an instance itself shows of a node."""

    name: str
    os: str
    power: str
    provisioning: str
    node_image_version: str | None
    created: datetime | None


def _seen(vm: Body, name: str, system: str, image: str | None) -> _Seen:
    """What an instance shows; the last three are for what it does not say."""
    properties = _under(vm, "properties")
    storage = _under(properties, "storageProfile")
    statuses = _under(properties, "instanceView").get("statuses")
    codes = [
        text_of(status.get("code"))
        for status in (statuses if isinstance(statuses, list) else [])
        if isinstance(status, Mapping)
    ]
    return {
        "name": text_of(_under(properties, "osProfile").get("computerName")) or name,
        "os": text_of(_under(storage, "osDisk").get("osType")) or system,
        "power": next((code[len("PowerState/") :] for code in codes if code.lower().startswith("powerstate/")), ""),
        "provisioning": text_of(properties.get("provisioningState")),
        "node_image_version": _image_version(_under(storage, "imageReference")) or image,
        "created": moment(properties.get("timeCreated")),
    }


def _image_version(reference: Body) -> str | None:
    """An instance's own image as AKS writes image versions (gallery-image-version): its pool may be newer already."""
    found = _GALLERY_IMAGE.fullmatch(text_of(reference.get("id")))
    return "-".join(found.groups()) if found is not None else None


def moment(value: object) -> datetime | None:
    """A time as Azure writes it (UTC where it names no zone), or None where it is none or stands for "not known"."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
        if time is None or time.year < _FIRST_YEAR:
            return None
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def text_of(value: object) -> str:
    """A text, number or truth value of Azure's as text that can be shown; empty for anything else."""
    return plain(str(value)) if isinstance(value, str | int | float) else ""


def _under(body: Body, name: str) -> Body:
    """The object in a field; empty where there is none."""
    value = body.get(name)
    return value if isinstance(value, Mapping) else {}


def _lowered(body: Body) -> Body:
    """The same with names in lower case: those of tags and add-ons are case-insensitive."""
    return {str(name).lower(): value for name, value in body.items()}


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
    Status.SKIPPED,
    "flexible_scale_set",
    "the pool's scale set has flexible orchestration: its nodes are single VMs.",
    "Single VMs are not supported yet.",
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
    if pool.mode.lower() == "machines":
        return Problem(
            Status.SKIPPED,
            "machines_pool",
            f"node pool {pool.name} is of mode Machines: its nodes are single VMs.",
            "Pools of single VMs are not supported yet.",
        )
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
        f"node pool {pool.name} has no scale set now: it is {pool.provisioning.lower()}.",
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


def _scope(cluster: Cluster, pool: str, problem: Problem, *, passing: bool = False) -> ScopeProblem:
    return ScopeProblem(cluster.subscription, cluster.resource_group, cluster.name, pool, problem, passing)
