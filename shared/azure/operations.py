"""Every call of Azure Resource Manager that this product makes, as data: nothing else is ever asked for.

Paths are those of Azure's REST reference (the tests hold them against the SDK's). They are made here and not by the
SDK's clients: a run command costs half the time without their models, and a list of nodes needs none of them.
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
        """The address. Raises ValueError for a part that is no name: it would lead somewhere else."""
        for name, value in parts.items():
            if not value or value.strip(".") == "":
                raise ValueError(f"{value!r} cannot be the {name} in an address")
        path = re.sub(r"\{(\w+)\}", lambda part: quote(parts[part[1]], safe=""), self.path)
        return f"{endpoint}{path}?{urlencode((('api-version', version), *self.query), safe='$')}"


_COMPUTE = "Microsoft.Compute/virtualMachineScaleSets"
_CLUSTERS = "Microsoft.ContainerService/managedClusters"
_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}/providers"
_SETS = f"{_GROUP}/{_COMPUTE}"
_MACHINES = f"{_SETS}/{{set}}/virtualMachines"
_VIEW = (("$expand", "instanceView"),)

SUBSCRIPTIONS = Operation("GET", Provider.RESOURCES, "/subscriptions", "Microsoft.Resources/subscriptions/read")
CLUSTERS = Operation(
    "GET",
    Provider.CONTAINERS,
    f"/subscriptions/{{subscription}}/providers/{_CLUSTERS}",
    f"{_CLUSTERS}/read",
)
CLUSTER = Operation("GET", Provider.CONTAINERS, f"{_GROUP}/{_CLUSTERS}/{{cluster}}", f"{_CLUSTERS}/read")
SCALE_SETS = Operation("GET", Provider.COMPUTE, _SETS, f"{_COMPUTE}/read")
INSTANCES = Operation("GET", Provider.COMPUTE, _MACHINES, f"{_COMPUTE}/virtualMachines/read", _VIEW)
INSTANCE = Operation("GET", Provider.COMPUTE, f"{_MACHINES}/{{instance}}", f"{_COMPUTE}/virtualMachines/read", _VIEW)
RUN_COMMAND = Operation(
    "POST",
    Provider.COMPUTE,
    f"{_MACHINES}/{{instance}}/runCommand",
    f"{_COMPUTE}/virtualMachines/runCommand/action",
)
QUERY = Operation(
    "POST",
    Provider.GRAPH,
    "/providers/Microsoft.ResourceGraph/resources",
    # It needs none for itself, and shows what the identity may read.
    f"{_CLUSTERS}/read",
)
DESCENDANTS = Operation(
    "GET",
    Provider.MANAGEMENT,
    "/providers/Microsoft.Management/managementGroups/{group}/descendants",
    "Microsoft.Management/managementGroups/descendants/read",
)

POLL_ACTION = "Microsoft.Compute/locations/operations/read"
"""What a role must allow for the address that a run command's answer gives."""
