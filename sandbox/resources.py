"""What the sandbox answers to Resource Manager's calls: the routes, and what each looks up.

Nothing here speaks HTTP; `sandbox.server` does.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sandbox import apiserver, arm, compute, graph, invoke, node, rights
from sandbox.arm import Body
from sandbox.compute import Compute, Instance, Operation, Refused
from sandbox.faults import Fault, Faults
from sandbox.fleet import LISTENING, Cluster, Fleet, Pool, Subscription, members, scale_set_name
from sandbox.identity import Identity
from sandbox.runcommand import Runner
from sandbox.throttle import (
    GET_OPERATION,
    GET_SCALE_SET,
    GET_SINGLE_VM,
    GET_VM,
    LIST_SINGLE_VMS,
    UPDATE_SINGLE_VM,
    UPDATE_VM,
    Call,
    Policy,
    Throttle,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, JSON body (None: empty; anything but an object comes of a fault) and headers."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """A Resource Manager call: the parts of its path by name, its query (names in lower case) and body."""

    path: str
    parts: Mapping[str, str]
    query: Mapping[str, str]
    body: Body


@dataclass(frozen=True, slots=True)
class Route:
    """A call that the sandbox answers; `kind` names it in stats and faults, `action` is what a role must allow."""

    method: str
    kind: str
    path: re.Pattern[str]
    answer: Callable[[Sandbox, Request], Answer]
    policy: Policy | None = None
    action: str = ""


class Sandbox:
    """A running sandbox: what it plays, and what a test may look at and ask for."""

    def __init__(self, fleet: Fleet, directory: Path, folders: Mapping[str, node.Folder]) -> None:
        self.fleet = fleet
        self.began = time.monotonic()
        self.directory = directory
        self.identity = Identity()
        self.throttle = Throttle(fleet.throttle)
        self.faults = Faults()
        self.calls: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        runner = Runner(width=max(16, 8 * (os.cpu_count() or 1)))
        self.compute = Compute(fleet.timing, runner, compute.instances(members(fleet), folders))
        self.invocations = invoke.Invocations(fleet, self.identity, folders)
        self.api_servers = {
            arm.cluster_id(owner, item): apiserver.ApiServer(fleet, self.identity, folders, owner, item)
            for owner in fleet.subscriptions
            for item in owner.clusters
            if item.api_server in LISTENING
        }
        self.endpoint = ""
        self.identity_endpoint = ""
        self.folders = folders

    @property
    def ca_file(self) -> Path:
        """The certificate of the sandbox's own authority."""
        return self.directory / "ca.pem"

    @property
    def trust_file(self) -> Path:
        """The sandbox's own authority, and those that this machine trusts anyway."""
        return self.directory / "trust.pem"

    @property
    def environ(self) -> dict[str, str]:
        """The four variables that turn the product towards this sandbox."""
        return {
            "GUARD_ARM_ENDPOINT": self.endpoint,
            "IDENTITY_ENDPOINT": self.identity_endpoint,
            "IDENTITY_HEADER": self.identity.header,
            "SSL_CERT_FILE": str(self.trust_file),
        }

    def node_dir(self, name: str) -> Path:
        """The folder of a Linux node. Raises KeyError."""
        return self.folders[name].root

    def inject(self, fault: Fault) -> None:
        """Ask for a fault."""
        self.faults.add(fault)

    def stats(self) -> dict[str, Any]:
        """Counts so far: calls by kind, answers by status, refusals by limit, accepted commands by node, and by
        cluster."""
        return {
            "calls": dict(self.calls),
            "statuses": dict(self.statuses),
            "throttled": dict(self.throttle.refused),
            "commands": dict(self.compute.commands),
            "invoked": Counter(made.cluster.name for made in self.invocations.found.values()),
            "most_commands_at_once": self.compute.most_at_once,
        }

    def subscription(self, request: Request) -> Subscription:
        """The subscription that a path names. Raises Refused."""
        wanted = request.parts["subscription"].lower()
        found = next((item for item in self.fleet.subscriptions if item.id == wanted), None)
        if found is None:
            text = f"The subscription '{request.parts['subscription']}' could not be found."
            raise Refused(404, "SubscriptionNotFound", text)
        if found.forbidden:
            action = "Microsoft.ContainerService/managedClusters/read"
            raise compute.forbidden(action, f"/subscriptions/{found.id}")
        return found

    def by_node_group(self, request: Request) -> tuple[Subscription, Cluster]:
        """The cluster whose node resource group a path names. Raises Refused."""
        owner, group = self.subscription(request), request.parts["group"]
        for item in owner.clusters:
            if item.node_group.lower() == group.lower():
                return owner, item
        raise Refused(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")

    def by_scale_set(self, request: Request) -> tuple[Subscription, Cluster, Pool]:
        """The pool whose scale set a path names. Raises Refused."""
        owner, item = self.by_node_group(request)
        name = request.parts["set"]
        for pool in _pools(item):
            if scale_set_name(owner, item, pool).lower() == name.lower():
                return owner, item, pool
        raise compute.not_found(f"Microsoft.Compute/virtualMachineScaleSets/{name}", item.node_group)

    def instance(self, request: Request) -> tuple[str, Instance]:
        """The instance or VM that a path names, by its key. Raises Refused."""
        if "vm" in request.parts:
            owner, item = self.by_node_group(request)
            return self._machine(owner, item, f"virtualMachines/{request.parts['vm']}")
        owner, item, pool = self.by_scale_set(request)
        name = scale_set_name(owner, item, pool)
        return self._machine(owner, item, f"virtualMachineScaleSets/{name}/virtualMachines/{request.parts['instance']}")

    def _machine(self, owner: Subscription, item: Cluster, resource: str) -> tuple[str, Instance]:
        key = f"{arm.compute_scope(owner, item)}/{resource}".lower()
        found = self.compute.instances.get(key)
        if found is None:
            raise compute.not_found(f"Microsoft.Compute/{resource}", item.node_group)
        return key, found

    def page(self, request: Request, items: Sequence[Body], **more: object) -> Answer:
        """One page of a list, with a link to the next."""
        start = int(request.query.get("$skiptoken", "0"))
        end = start + self.fleet.page_size
        link = None
        if end < len(items):
            kept = {name: value for name, value in request.query.items() if name != "$skiptoken"} | {
                "$skiptoken": str(end)
            }
            link = f"{self.endpoint}{request.path}?" + "&".join(f"{quote(n)}={quote(v)}" for n, v in kept.items())
        return Answer(200, arm.page(items[start:end], link, **more))


def _list_subscriptions(box: Sandbox, request: Request) -> Answer:
    return box.page(request, [arm.subscription(item) for item in box.fleet.subscriptions], **arm.whole(box.fleet))


def _get_subscription(box: Sandbox, request: Request) -> Answer:
    return Answer(200, arm.subscription(box.subscription(request)))


def _list_clusters(box: Sandbox, request: Request) -> Answer:
    owner = box.subscription(request)
    return box.page(request, [arm.cluster(owner, item) for item in owner.clusters])


def _get_cluster(box: Sandbox, request: Request) -> Answer:
    return Answer(200, arm.cluster(*_cluster(box, request)))


def _cluster(box: Sandbox, request: Request) -> tuple[Subscription, Cluster]:
    """The cluster that a path names. Raises Refused."""
    owner = box.subscription(request)
    group, name = request.parts["group"], request.parts["cluster"]
    in_group = [item for item in owner.clusters if item.resource_group.lower() == group.lower()]
    if not in_group:
        raise Refused(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")
    found = next((item for item in in_group if item.name.lower() == name.lower()), None)
    if found is None:
        raise compute.not_found(f"Microsoft.ContainerService/managedClusters/{name}", group)
    return owner, found


def _invoke(box: Sandbox, request: Request) -> Answer:
    owner, found = _cluster(box, request)
    made = box.invocations.start(owner, found, request.body)
    place = f"{arm.cluster_id(owner, found)}/commandResults/{made.id}"
    location = f"{box.endpoint}{place}?api-version={request.query['api-version']}"
    return Answer(202, None, {"Location": location} | _retry_after(box))


def _list_credentials(box: Sandbox, request: Request) -> Answer:
    owner, found = _cluster(box, request)
    return Answer(200, apiserver.credentials(box.api_servers.get(arm.cluster_id(owner, found)), owner, found))


def _get_command_result(box: Sandbox, request: Request) -> Answer:
    owner, item = _cluster(box, request)
    found = box.invocations.found.get(request.parts["command"].lower())
    if found is None or found.cluster != item:
        raise Refused(404, "NotFound", f"command {request.parts['command']} was not found.")
    if item.command_invoke == "result_forbidden":
        raise compute.forbidden(invoke.RESULT_ACTION, arm.cluster_id(owner, item))
    if found.error is not None:
        # Published is the bare words alone, in the place of a result.
        if not found.error.code:
            return Answer(found.error.status, None)
        raise found.error
    if found.body is None:
        location = f"{box.endpoint}{request.path}?api-version={request.query['api-version']}"
        return Answer(202, None, {"Location": location} | _retry_after(box))
    return Answer(200, found.body)


def _list_scale_sets(box: Sandbox, request: Request) -> Answer:
    owner, item = box.by_node_group(request)
    return box.page(request, [arm.scale_set(owner, item, pool) for pool in _pools(item)])


def _get_scale_set(box: Sandbox, request: Request) -> Answer:
    return Answer(200, arm.scale_set(*box.by_scale_set(request)))


def _list_instances(box: Sandbox, request: Request) -> Answer:
    owner, item, pool = box.by_scale_set(request)
    prefix = f"{arm.compute_scope(owner, item)}/virtualMachineScaleSets/{scale_set_name(owner, item, pool)}/".lower()
    found = [instance.member for key, instance in box.compute.instances.items() if key.startswith(prefix)]
    view = request.query.get("$expand", "").lower() == "instanceview"
    return box.page(request, [arm.instance(member, view) for member in found])


def _vms(box: Sandbox, owner: Subscription, item: Cluster) -> list[Body]:
    """The VMs of a node resource group: nodes, and those of other people."""
    prefix = f"{arm.compute_scope(owner, item)}/virtualMachines/".lower()
    found = [instance.member for key, instance in box.compute.instances.items() if key.startswith(prefix)]
    return [
        *(arm.vm(member, view=False) for member in found),
        *(arm.other_vm(owner, item, name) for name in item.other_vms),
    ]


def _list_vms(box: Sandbox, request: Request) -> Answer:
    owner, item = box.by_node_group(request)
    if "$expand" in request.query:
        # It is taken only together with a $filter on a scale set, and of those no VM here is part.
        raise Refused(400, "BadRequest", "The query parameter $expand is not supported for this list of VMs.")
    return box.page(request, _vms(box, owner, item))


def _list_all_vms(box: Sandbox, request: Request) -> Answer:
    owner = box.subscription(request)
    if "$expand" in request.query:
        raise Refused(400, "BadRequest", "The query parameter $expand is not supported for this list of VMs.")
    found = [vm for item in owner.clusters for vm in _vms(box, owner, item)]
    if request.query.get("statusonly", "").lower() != "true":
        return box.page(request, found)
    return box.page(request, [arm.vm_status(vm, _power(box, vm)) for vm in found])


def _power(box: Sandbox, listed: Body) -> str:
    instance = box.compute.instances.get(listed["id"].lower())
    return "running" if instance is None else arm.power_state(instance.member)


def _get_vm(box: Sandbox, request: Request) -> Answer:
    owner, item = box.by_node_group(request)
    other = next((name for name in item.other_vms if name.lower() == request.parts["vm"].lower()), None)
    if other is not None:
        return Answer(200, arm.other_vm(owner, item, other))
    member = _present(box, request).member
    return Answer(200, arm.vm(member, view=request.query.get("$expand", "").lower() == "instanceview"))


def _get_instance(box: Sandbox, request: Request) -> Answer:
    member = _present(box, request).member
    return Answer(200, arm.instance(member, request.query.get("$expand", "").lower() == "instanceview"))


def _get_instance_view(box: Sandbox, request: Request) -> Answer:
    return Answer(200, arm.instance_view(_present(box, request).member))


def _present(box: Sandbox, request: Request) -> Instance:
    _, found = box.instance(request)
    if found.member.state.startswith("vanished"):
        raise compute.vanished(found.member)
    return found


def _run_command(box: Sandbox, request: Request) -> Answer:
    key, _ = box.instance(request)
    operation = box.compute.run_command(key, request.body, time.monotonic())
    version = request.query["api-version"]
    headers = {
        "Location": _operation_url(box, operation, version, monitor=True),
        "Azure-AsyncOperation": _operation_url(box, operation, version, monitor=False),
    }
    return Answer(202, None, headers | _retry_after(box))


async def run_at_once(box: Sandbox, request: Request) -> Answer:
    """Run command with its result in the first answer, as the specification allows. Raises Refused."""
    key, _ = box.instance(request)
    operation = box.compute.run_command(key, request.body, time.monotonic())
    await operation.over.wait()
    if operation.error is not None:
        raise Refused(409, *operation.error)
    return Answer(200, {"value": [*(operation.value or ())]})


def _get_operation(box: Sandbox, request: Request) -> Answer:
    box.subscription(request)
    operation = box.compute.operations.get(request.parts["operation"].lower())
    if operation is None:
        text = f"The entity was not found: operation '{request.parts['operation']}'."
        raise Refused(404, "NotFound", text)
    if request.query.get("s") != operation.signature:
        raise Refused(403, "AuthorizationFailed", "The signature of this operation's address is missing or wrong.")
    if "monitor" not in request.query:
        pending = _retry_after(box) if operation.ended is None else {}
        return Answer(200, compute.operation_body(operation), pending)
    if operation.ended is None:
        location = _operation_url(box, operation, request.query["api-version"], monitor=True)
        return Answer(202, None, {"Location": location} | _retry_after(box))
    if operation.error is not None:
        # Published is that a failed operation's Location answers with the error; the status is taken from its body.
        raise Refused(409, *operation.error)
    return Answer(200, {"value": [*(operation.value or ())]})


def _operation_url(box: Sandbox, operation: Operation, version: str, *, monitor: bool) -> str:
    member = operation.member
    place = f"/subscriptions/{member.subscription.id}/providers/Microsoft.Compute/locations/{member.cluster.location}"
    signed = f"t={int(operation.started.timestamp())}&c=MIIHpTCCBo2gAwIBAgITOg&s={operation.signature}&h=Qm9vc3Q"
    form = "&monitor=true" if monitor else ""
    results = "operationResults" if box.fleet.operation_results else "operations"
    return f"{box.endpoint}{place}/{results}/{operation.id}?p={operation.id}{form}&api-version={version}&{signed}"


def _query_graph(box: Sandbox, request: Request) -> Answer:
    return Answer(200, graph.answer(box.fleet, request.body, time.monotonic() - box.began))


def _list_descendants(box: Sandbox, request: Request) -> Answer:
    wanted = request.parts["management_group"].lower()
    found = next((item for item in box.fleet.management_groups if item.id.lower() == wanted), None)
    scope = f"/providers/Microsoft.Management/managementGroups/{request.parts['management_group']}"
    # Azure does not tell a group that is not there from one that may not be read.
    if found is None or found.forbidden:
        raise compute.forbidden("Microsoft.Management/managementGroups/descendants/read", scope)
    return box.page(request, graph.descendants(box.fleet, found))


def _list_permissions(box: Sandbox, request: Request) -> Answer:
    owner = box.subscription(request)
    return box.page(request, rights.permissions(owner, request.parts.get("group", "")))


def _list_deny_assignments(box: Sandbox, request: Request) -> Answer:
    return box.page(request, rights.deny_assignments(box.subscription(request)))


def _list_locks(box: Sandbox, request: Request) -> Answer:
    return box.page(request, rights.locks(box.subscription(request)))


def _list_policy_assignments(box: Sandbox, request: Request) -> Answer:
    return box.page(request, rights.policy_assignments(box.subscription(request)))


def _retry_after(box: Sandbox) -> dict[str, str]:
    seconds = box.fleet.timing.retry_after
    return {} if seconds is None else {"Retry-After": str(seconds)}


def _pools(item: Cluster) -> list[Pool]:
    return [pool for pool in item.pools if pool.kind == "VirtualMachineScaleSets"]


def _route(
    method: str, kind: str, path: str, answer: Callable[[Sandbox, Request], Answer], policy: Policy | None = None
) -> Route:
    # Resource Manager's paths are case-insensitive.
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)
    action = rights.action_of(method, _POLLS.get(path, path))
    return Route(method, kind, re.compile(f"{pattern}/?", re.IGNORECASE), answer, policy, action)


_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}/providers"
_SETS = f"{_GROUP}/Microsoft.Compute/virtualMachineScaleSets"
_CLUSTERS = "Microsoft.ContainerService/managedClusters"
_VMS = f"{_GROUP}/Microsoft.Compute/virtualMachines"
_ALL_VMS = "/subscriptions/{subscription}/providers/Microsoft.Compute/virtualMachines"
_OPERATIONS = "/subscriptions/{subscription}/providers/Microsoft.Compute/locations/{region}/operations"
_RESULTS = "/subscriptions/{subscription}/providers/Microsoft.Compute/locations/{region}/operationResults"
# The older form of an address of operations is read with the right to the newer one.
_POLLS = {f"{_RESULTS}/{{operation}}": f"{_OPERATIONS}/{{operation}}"}
_RIGHTS = "providers/Microsoft.Authorization"
_MANAGEMENT = "/providers/Microsoft.Management/managementGroups"
_INSTANCE = f"{_SETS}/{{set}}/virtualMachines/{{instance}}"
ROUTES = (
    _route("GET", "subscriptions.list", "/subscriptions", _list_subscriptions),
    _route("GET", "subscriptions.get", "/subscriptions/{subscription}", _get_subscription),
    _route("GET", "clusters.list", f"/subscriptions/{{subscription}}/providers/{_CLUSTERS}", _list_clusters),
    _route("GET", "clusters.get", f"{_GROUP}/{_CLUSTERS}/{{cluster}}", _get_cluster),
    _route("POST", "invoke", f"{_GROUP}/{_CLUSTERS}/{{cluster}}/runCommand", _invoke),
    _route("POST", "credentials", f"{_GROUP}/{_CLUSTERS}/{{cluster}}/listClusterUserCredential", _list_credentials),
    _route("GET", "invoke.get", f"{_GROUP}/{_CLUSTERS}/{{cluster}}/commandResults/{{command}}", _get_command_result),
    _route("GET", "scaleSets.list", _SETS, _list_scale_sets),
    _route("GET", "scaleSets.get", f"{_SETS}/{{set}}", _get_scale_set, GET_SCALE_SET),
    _route("GET", "instances.list", f"{_SETS}/{{set}}/virtualMachines", _list_instances),
    _route("GET", "instances.get", _INSTANCE, _get_instance, GET_VM),
    _route("GET", "instances.view", f"{_INSTANCE}/instanceView", _get_instance_view, GET_VM),
    _route("POST", "runCommand", f"{_INSTANCE}/runCommand", _run_command, UPDATE_VM),
    _route("GET", "vms.list", _VMS, _list_vms, LIST_SINGLE_VMS),
    _route("GET", "vms.listAll", _ALL_VMS, _list_all_vms, LIST_SINGLE_VMS),
    _route("GET", "vms.get", f"{_VMS}/{{vm}}", _get_vm, GET_SINGLE_VM),
    _route("GET", "vms.view", f"{_VMS}/{{vm}}/instanceView", _get_instance_view, GET_SINGLE_VM),
    _route("POST", "vms.runCommand", f"{_VMS}/{{vm}}/runCommand", _run_command, UPDATE_SINGLE_VM),
    _route("GET", "operations.get", f"{_OPERATIONS}/{{operation}}", _get_operation, GET_OPERATION),
    _route("GET", "operations.get", f"{_RESULTS}/{{operation}}", _get_operation, GET_OPERATION),
    _route("POST", "graph.query", "/providers/Microsoft.ResourceGraph/resources", _query_graph),
    _route("GET", "permissions.list", f"/subscriptions/{{subscription}}/{_RIGHTS}/permissions", _list_permissions),
    _route("GET", "permissions.list", f"{_GROUP.removesuffix('/providers')}/{_RIGHTS}/permissions", _list_permissions),
    _route("GET", "permissions.list", f"{_GROUP}/{_CLUSTERS}/{{cluster}}/{_RIGHTS}/permissions", _list_permissions),
    _route("GET", "locks.list", f"/subscriptions/{{subscription}}/{_RIGHTS}/locks", _list_locks),
    _route("GET", "denies.list", f"/subscriptions/{{subscription}}/{_RIGHTS}/denyAssignments", _list_deny_assignments),
    _route(
        "GET", "policies.list", f"/subscriptions/{{subscription}}/{_RIGHTS}/policyAssignments", _list_policy_assignments
    ),
    _route("GET", "descendants.list", f"{_MANAGEMENT}/{{management_group}}/descendants", _list_descendants),
)


def call(box: Sandbox, route: Route, request: Request) -> Call:
    """What the request is to the rate limits."""
    region = request.parts.get("region", "").lower()
    group = request.parts.get("group", "").lower()
    operation = box.compute.operations.get(request.parts.get("operation", "").lower())
    resource = operation.member.name if operation else "/".join(request.parts.values()).lower()
    if not region:
        clusters = (item for owner in box.fleet.subscriptions for item in owner.clusters)
        region = next((item.location for item in clusters if item.node_group.lower() == group), "")
    scope = request.parts.get("subscription", "").lower()
    return Call(scope, route.method != "GET", region, resource, route.policy, route.kind == "graph.query")
