"""The fleet file: which subscriptions, clusters, pools and nodes the sandbox plays, read from YAML and checked.

`load` raises FleetError naming every wrong place at once. The node states are those of `sandbox.states`.
"""

from __future__ import annotations

import difflib
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sandbox.states import STATES

_STRICT = ConfigDict(extra="forbid", strict=False)


class FleetError(ValueError):
    """The fleet file is not one. The text names the file, every wrong place in it and what would be right."""


def _state(name: str) -> str:
    if name not in STATES:
        near = difflib.get_close_matches(name, STATES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; `python -m sandbox states` lists them"
        raise ValueError(f"{name!r} is not a node state{hint}")
    return name


def _guid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise ValueError(f"{text!r} is not a subscription id (a GUID)") from None


def _matching(pattern: str, what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{text!r} is not {what}")
        return text

    return AfterValidator(check)


Seconds = Annotated[float, Field(ge=0, le=3600)]
Age = Annotated[float, Field(ge=0)]
StateName = Annotated[str, AfterValidator(_state)]
Guid = Annotated[str, AfterValidator(_guid)]
GroupName = Annotated[str, _matching(r"[-\w.()]{1,89}[-\w()]", "a resource group's name")]
ClusterName = Annotated[str, _matching(r"[a-zA-Z0-9]([-_a-zA-Z0-9]{0,61}[a-zA-Z0-9])?", "a cluster's name")]
PoolName = Annotated[
    str, _matching(r"[a-z][a-z0-9]{0,11}", "a pool's name (lower case letters and digits, at most 12)")
]
ObjectName = Annotated[
    str, _matching(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", "the name of a node pool of node auto-provisioning")
]
VmName = Annotated[str, _matching(r"[a-zA-Z0-9]([-a-zA-Z0-9.]{0,62}[a-zA-Z0-9])?", "a VM's name")]
Region = Annotated[str, _matching(r"[a-z0-9]+", "a region such as westeurope")]
Version = Annotated[str, _matching(r"1\.\d+\.\d+", "a Kubernetes version such as 1.33.2")]
Power = Literal["Running", "Stopped"]
CommandInvoke = Literal[
    "ok",
    "disabled",  # apiServerAccessProfile.disableRunCommand
    "forbidden",  # 403 for the action
    "result_forbidden",  # 403 for the result alone
    "policy",  # an admission webhook denies the pod
    "no_capacity",  # the pod does not start within 30 s
    "not_found",  # the same, in its other form: a bare 404 in the place of the result
    "worse_later",  # it works, and from the third command on the pods of all nodes are not ready
    "image",  # the pod's image cannot be pulled
    "hang",  # no result ever
    "truncated",  # a part of the logs is missing
    "no_rights",  # the cluster refuses the identity what it wants, as one that authorizes by Azure RBAC may
    "no_account",  # the cluster lacks the service account of infra/sweep-rbac.yaml
]
ApiServer = Literal[
    "none",  # nobody listens at its address
    "ok",  # the sandbox has one, on this machine
    "no_list",  # the same, and it refuses the identity the list of nodes
    "no_proxy",  # and it refuses nodes/proxy
    "foreign",  # the credentials name another host than the list of clusters
    "forbidden",  # 403 for the action that gives the credentials
]
LISTENING = ("ok", "no_list", "no_proxy")
GroupId = Annotated[str, _matching(r"[-\w.()]{0,89}[-\w()]", "a management group's id")]


@dataclass(frozen=True, slots=True, config=_STRICT)
class Nodes:
    """`count` nodes in one state of the catalogue."""

    state: StateName
    count: Annotated[int, Field(ge=1, le=5000)] = 1


@dataclass(frozen=True, slots=True, config=_STRICT)
class Pool:
    """A node pool; the field names follow the API's agent pool profile. `version` defaults to the cluster's.

    `age` and `switched` are as of a cluster.
    """

    name: PoolName
    nodes: tuple[Nodes, ...] = ()
    mode: Literal["System", "User"] = "User"
    kind: Literal["VirtualMachineScaleSets", "VirtualMachines", "AvailabilitySet"] = "VirtualMachineScaleSets"
    os: Literal["Linux", "Windows"] = "Linux"
    size: str = "Standard_D4ds_v5"
    image: str = "AKSUbuntu-2204gen2containerd-202510.19.1"
    version: Version | None = None
    power: Power = "Running"
    provisioning: str = "Succeeded"
    spot: bool = False
    age: Age = 86400.0
    switched: Age = 86400.0

    @property
    def count(self) -> int:
        """How many nodes the pool has."""
        return sum(nodes.count for nodes in self.nodes)


@dataclass(frozen=True, slots=True, config=_STRICT)
class AutoPool:
    """A node pool of node auto-provisioning (Karpenter): an object in the cluster, in Azure a tag on its VMs."""

    name: ObjectName
    nodes: tuple[Nodes, ...]
    size: str = "Standard_D4ps_v6"
    image: str = "AKSUbuntu-2204gen2arm64containerd-202510.19.1"
    version: Version | None = None
    spot: bool = False
    mode: Literal["User"] = "User"
    os: Literal["Linux"] = "Linux"
    power: Literal["Running"] = "Running"


@dataclass(frozen=True, slots=True, config=_STRICT)
class Cluster:
    """A managed cluster. `lockdown` sets the node resource group's restrictionLevel to ReadOnly.

    `entra`: its users are Entra ID's. `command_invoke` is what comes of a command that is invoked in it: it runs
    (`ok`), or one of AKS's ways to fail. `kubeconfig` and `kubectl` name the credentials and a folder with a kubectl of
    a real cluster that such a command is to ask; without them a stand-in answers from the sandbox's nodes.
    `api_server` is what comes of asking its API server from outside, `fqdn` the name of a real cluster's.
    `auto_pools` are those of node auto-provisioning; where it is on without any, the list is empty and not left out.
    `other_vms` are VMs that somebody put into the node resource group, and that are no nodes (a bastion).

    `age` is how many seconds old it is when the sandbox starts, which Resource Graph's lag counts against, `switched`
    how many seconds ago `power` became what it is.
    """

    name: ClusterName
    resource_group: GroupName
    location: Region
    version: Version
    pools: tuple[Pool, ...]
    node_resource_group: GroupName | None = None
    power: Power = "Running"
    provisioning: str = "Succeeded"
    lockdown: bool = False
    entra: bool = True
    command_invoke: CommandInvoke = "ok"
    kubeconfig: str = ""
    kubectl: str = ""
    api_server: ApiServer = "none"
    fqdn: str = ""
    auto_pools: tuple[AutoPool, ...] | None = None
    other_vms: tuple[VmName, ...] = ()
    age: Age = 86400.0
    switched: Age = 86400.0

    @property
    def node_group(self) -> str:
        """The node resource group: the given one, or AKS's default name (at most 80 characters)."""
        return self.node_resource_group or f"MC_{self.resource_group}_{self.name}_{self.location}"[:80]


@dataclass(frozen=True, slots=True, config=_STRICT)
class Role:
    """What a role allows the identity, in the whole subscription or in one resource `group`: patterns of actions,
    without those of `not_actions`."""

    actions: tuple[str, ...]
    not_actions: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True, slots=True, config=_STRICT)
class Deny:
    """A deny assignment, on the whole subscription or on one resource `group`.

    Principals are `everybody`, `me` (the sandbox's identity), `group NAME`, or any other name for somebody else.
    `inherited` false: it does not hold for what is below its scope.
    """

    name: str
    actions: tuple[str, ...]
    not_actions: tuple[str, ...] = ()
    group: str = ""
    principals: tuple[str, ...] = ("everybody",)
    excluded: tuple[str, ...] = ()
    inherited: bool = True


@dataclass(frozen=True, slots=True, config=_STRICT)
class Lock:
    """A management lock on the whole subscription or on one resource `group`."""

    name: str
    group: str = ""
    level: Literal["ReadOnly", "CanNotDelete"] = "ReadOnly"


@dataclass(frozen=True, slots=True, config=_STRICT)
class Policy:
    """An assignment of a built-in policy, or of a set of them, by its definition's GUID. What is not set is the
    definition's default."""

    name: str
    definition: Guid
    effect: str = ""
    enforced: bool = True
    is_set: bool = False
    excluded_namespaces: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, config=_STRICT)
class Subscription:
    """A subscription. `forbidden`: it is listed, but the identity may read nothing in it.

    `in_graph` false: Resource Graph leaves it out, in silence, although the identity may read it. `roles` are what the
    identity was given in it (left out: everything).
    """

    id: Guid
    name: str
    clusters: tuple[Cluster, ...] = ()
    forbidden: bool = False
    in_graph: bool = True
    roles: tuple[Role, ...] | None = None
    denies: tuple[Deny, ...] = ()
    locks: tuple[Lock, ...] = ()
    policies: tuple[Policy, ...] = ()


@dataclass(frozen=True, slots=True, config=_STRICT)
class ManagementGroup:
    """A management group with the ids of the subscriptions below it. `forbidden`: the identity may not read it."""

    id: GroupId
    subscriptions: tuple[Guid, ...] = ()
    forbidden: bool = False


@dataclass(frozen=True, slots=True, config=_STRICT)
class Timing:
    """How long things take, in seconds. A run command takes between the two ends of `latency`.

    A cluster or pool that is younger than `graph_lag` is not in Resource Graph yet, and one that was started or stopped
    within that time is there as it was before. `clock_ahead` is how far Azure's clock is ahead of this machine's.
    """

    latency: tuple[Seconds, Seconds] = (2.0, 2.0)
    busy_seconds: Seconds = 6.0
    slow_seconds: Seconds = 8.0
    retry_after: Annotated[int, Field(ge=1, le=600)] | None = None
    graph_lag: Seconds = 0.0
    clock_ahead: Annotated[float, Field(ge=-86400, le=86400)] = 0.0


@dataclass(frozen=True, slots=True, config=_STRICT)
class Fleet:
    """Everything that the sandbox plays. `page_size` is how many entries one page of any list holds.

    `operation_results` gives out addresses of operations in their other form, `…/operationResults/ID`.
    """

    subscriptions: tuple[Subscription, ...]
    management_groups: tuple[ManagementGroup, ...] = ()
    operation_results: bool = False
    timing: Timing = Timing()
    throttle: bool = True
    page_size: Annotated[int, Field(ge=1, le=1000)] = 50


@dataclass(frozen=True, slots=True)
class Member:
    """One node with the place it has in the fleet. A single VM has no `scale_set`, and its name as `instance_id`."""

    subscription: Subscription
    cluster: Cluster
    pool: Pool | AutoPool
    scale_set: str
    instance_id: str
    name: str
    state: str

    @property
    def resource(self) -> str:
        """Its resource below the provider Microsoft.Compute, as in its id."""
        of_set = f"virtualMachineScaleSets/{self.scale_set}/" if self.scale_set else ""
        return f"{of_set}virtualMachines/{self.instance_id}"


def scale_set_name(subscription: Subscription, cluster: Cluster, pool: Pool) -> str:
    """AKS's name for a pool's scale set: `aks-POOL-NNNNNNNN-vmss`, `aksPOOL` for Windows."""
    number = _number(subscription, cluster)
    return f"aks{pool.name}" if pool.os == "Windows" else f"aks-{pool.name}-{number:08d}-vmss"


def _number(subscription: Subscription, cluster: Cluster) -> int:
    return zlib.crc32(f"{subscription.id}/{cluster.resource_group}/{cluster.name}".encode()) % 10**8


def members(fleet: Fleet) -> Iterator[Member]:
    """Every node; those of availability sets have no place in the sandbox's Compute."""
    for subscription in fleet.subscriptions:
        for cluster in subscription.clusters:
            for pool in cluster.pools:
                if pool.kind == "VirtualMachines":
                    prefix = f"aks-{pool.name}-{_number(subscription, cluster):08d}-vms"
                    for number, state in enumerate(_states(pool)):
                        name = f"{prefix}{number + 1}"
                        yield Member(subscription, cluster, pool, "", name, name, state)
                elif pool.kind == "VirtualMachineScaleSets":
                    scale_set = scale_set_name(subscription, cluster, pool)
                    for number, state in enumerate(_states(pool)):
                        name = f"{scale_set}{_base36(number):0>6}"
                        yield Member(subscription, cluster, pool, scale_set, str(number), name, state)
            for auto in cluster.auto_pools or ():
                for number, state in enumerate(_states(auto)):
                    place = f"{subscription.id}/{cluster.resource_group}/{cluster.name}/{auto.name}/{number}"
                    name = f"aks-{auto.name}-{_base36(zlib.crc32(place.encode()) % 36**5):0>5}"
                    yield Member(subscription, cluster, auto, "", name, name, state)


def _states(pool: Pool | AutoPool) -> list[str]:
    return [nodes.state for nodes in pool.nodes for _ in range(nodes.count)]


def _base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return digits[number] if number < 36 else _base36(number // 36) + digits[number % 36]


def load(path: Path) -> Fleet:
    """The fleet in a YAML file. Raises FleetError."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise FleetError(f"{path}: {error.strerror}") from None
    return parse(text, str(path))


def parse(text: str, name: str = "fleet") -> Fleet:
    """The fleet in a YAML text; `name` is what error texts call it. Raises FleetError."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise FleetError(f"{name}: not YAML: {error}") from None
    if not isinstance(data, dict):
        raise FleetError(f"{name}: a mapping with `subscriptions` belongs here, not {type(data).__name__}")
    try:
        fleet = TypeAdapter(Fleet).validate_python(data)
    except ValidationError as error:
        lines = (f"  {_place(item['loc'])}: {item['msg'].removeprefix('Value error, ')}" for item in error.errors())
        raise FleetError("\n".join((f"{name}: not a fleet:", *lines))) from None
    wrong = [*_doubled(fleet)]
    if wrong:
        raise FleetError("\n".join((f"{name}: not a fleet:", *(f"  {line}" for line in wrong))))
    return fleet


def _place(location: tuple[str | int, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".") or "the top level"


def _doubled(fleet: Fleet) -> Iterator[str]:
    """What the fleet has twice and Azure could not have twice."""
    seen: set[str] = set()

    def twice(what: str, key: str) -> Iterator[str]:
        if key.lower() in seen:
            yield f"{what} is there twice"
        seen.add(key.lower())

    for subscription in fleet.subscriptions:
        yield from twice(f"subscription {subscription.id}", subscription.id)
        for cluster in subscription.clusters:
            group = f"{subscription.id}/{cluster.resource_group}"
            yield from twice(f"cluster {cluster.name!r} of {cluster.resource_group!r}", f"{group}/{cluster.name}")
            yield from twice(f"node resource group {cluster.node_group!r}", f"{subscription.id}//{cluster.node_group}")
            for pool in cluster.pools:
                yield from twice(f"pool {pool.name!r} of {cluster.name!r}", f"{group}/{cluster.name}/{pool.name}")
            for auto in cluster.auto_pools or ():
                yield from twice(f"pool {auto.name!r} of {cluster.name!r}", f"{group}/{cluster.name}/{auto.name}")
    for member in members(fleet):
        if member.pool.os == "Windows":  # their names hold no cluster number; only Linux nodes have a folder
            continue
        yield from twice(f"node name {member.name!r}", f"node/{member.name}")
