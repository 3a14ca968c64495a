"""What this product asks of Azure Resource Manager, and what a role must allow for it: nothing else is ever asked for.

Calls by hand are whole, as data; paths are those of Azure's REST reference (the tests hold them against the SDK's). Of
the calls that the SDK's clients make there is the action alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, urlencode

from shared.azure.versions import Provider


@dataclass(frozen=True, slots=True)
class Operation:
    """One call. `path` has its parts in braces, `action` is what a role must allow for it."""

    method: Literal["GET", "POST"]
    provider: Provider
    path: str
    action: str
    query: tuple[tuple[str, str], ...] = ()

    def url(self, endpoint: str, version: str, **parts: str) -> str:
        """The address. Raises ValueError as `checked`."""
        checked(**parts)
        path = re.sub(r"\{(\w+)\}", lambda part: quote(parts[part[1]], safe=""), self.path)
        return f"{endpoint}{path}?{urlencode((('api-version', version), *self.query), safe='$')}"


def checked(**parts: str) -> None:
    """Raises ValueError for a part of an address that is no name: it would lead somewhere else."""
    for name, value in parts.items():
        if not value or value.strip(".") == "":
            raise ValueError(f"{value!r} cannot be the {name} in an address")


_COMPUTE = "Microsoft.Compute/virtualMachineScaleSets"
READ_CLUSTER = "Microsoft.ContainerService/managedClusters/read"
_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}/providers"
_SETS = f"{_GROUP}/{_COMPUTE}"

SUBSCRIPTIONS = Operation("GET", Provider.RESOURCES, "/subscriptions", "Microsoft.Resources/subscriptions/read")
SCALE_SETS = Operation("GET", Provider.COMPUTE, _SETS, f"{_COMPUTE}/read")
# By hand for speed: the SDK's models of a page cost up to 1.7 ms of CPU a node, its JSON alone 0.04. What is given up
# is their reading of the answer; the few fields that are used are checked where they are read.
INSTANCES = Operation(
    "GET",
    Provider.COMPUTE,
    f"{_SETS}/{{set}}/virtualMachines",
    f"{_COMPUTE}/virtualMachines/read",
    (("$expand", "instanceView"),),
)
_VMS = "Microsoft.Compute/virtualMachines"
VMS = Operation("GET", Provider.COMPUTE, f"{_GROUP}/{_VMS}", f"{_VMS}/read")
# One list for the power states of all VMs of a subscription: the list of a resource group has none.
VM_STATES = Operation(
    "GET",
    Provider.COMPUTE,
    f"/subscriptions/{{subscription}}/providers/{_VMS}",
    f"{_VMS}/read",
    (("statusOnly", "true"),),
)
QUERY = Operation(
    "POST",
    Provider.GRAPH,
    "/providers/Microsoft.ResourceGraph/resources",
    # It needs none for itself, and shows what the identity may read.
    READ_CLUSTER,
)
# By hand: the pipeline's checks do not see the body of a POST that the SDK makes. On a cluster with Entra ID there is
# no secret in it, in either of its formats.
CREDENTIALS = Operation(
    "POST",
    Provider.CONTAINERS,
    f"{_GROUP}/Microsoft.ContainerService/managedClusters/{{cluster}}/listClusterUserCredential",
    "Microsoft.ContainerService/managedClusters/listClusterUserCredential/action",
    (("format", "exec"),),
)
DESCENDANTS = Operation(
    "GET",
    Provider.MANAGEMENT,
    "/providers/Microsoft.Management/managementGroups/{group}/descendants",
    "Microsoft.Management/managementGroups/descendants/read",
)

# What the identity may do, and what may stop it: a run needs none of these, whoever looks beforehand whether one will
# work does (shared.doctor). Permissions are those of whoever asks, of all its roles at a scope and above it.
_CLUSTER = f"{_GROUP}/Microsoft.ContainerService/managedClusters/{{cluster}}"
_RIGHTS = "providers/Microsoft.Authorization"
READ_PERMISSIONS = "Microsoft.Authorization/permissions/read"
PERMISSIONS = Operation(
    "GET", Provider.AUTHORIZATION, f"/subscriptions/{{subscription}}/{_RIGHTS}/permissions", READ_PERMISSIONS
)
GROUP_PERMISSIONS = Operation(
    "GET",
    Provider.AUTHORIZATION,
    f"/subscriptions/{{subscription}}/resourceGroups/{{group}}/{_RIGHTS}/permissions",
    READ_PERMISSIONS,
)
CLUSTER_PERMISSIONS = Operation("GET", Provider.AUTHORIZATION, f"{_CLUSTER}/{_RIGHTS}/permissions", READ_PERMISSIONS)
DENY_ASSIGNMENTS = Operation(
    "GET",
    Provider.AUTHORIZATION,
    f"/subscriptions/{{subscription}}/{_RIGHTS}/denyAssignments",
    "Microsoft.Authorization/denyAssignments/read",
)
LOCKS = Operation(
    "GET",
    Provider.LOCKS,
    f"/subscriptions/{{subscription}}/{_RIGHTS}/locks",
    "Microsoft.Authorization/locks/read",
)
POLICY_ASSIGNMENTS = Operation(
    "GET",
    Provider.POLICY,
    f"/subscriptions/{{subscription}}/{_RIGHTS}/policyAssignments",
    "Microsoft.Authorization/policyAssignments/read",
)

READ_INSTANCE = INSTANCES.action
READ_VM = VMS.action
RUN_COMMAND = f"{_COMPUTE}/virtualMachines/runCommand/action"
RUN_VM_COMMAND = f"{_VMS}/runCommand/action"

INVOKE = "Microsoft.ContainerService/managedClusters/runCommand/action"
INVOKE_RESULT = "Microsoft.ContainerService/managedClusters/commandResults/read"
"""What the sweep's own role must allow: a command in a cluster, and its result at the address that is given."""

POLL_ACTION = "Microsoft.Compute/locations/operations/read"
"""What a role must allow for the address that a run command's answer gives."""
