"""Names are within Azure's limits, also with the longest inputs: 40 characters of environment, the longest region."""

from __future__ import annotations

import re

import pytest

from tests.support.bicep import ACCESS, APPS, interface
from tools.bicep.combinations import LONGEST
from tools.bicep.snapshots import FOLDER, Resource

_GUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# In Network: "Start with alphanumeric. End alphanumeric or underscore."
_NETWORK = r"[A-Za-z0-9]([\w.-]*\w)?"
_WEB = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"

# Shortest, longest, and what it may be made of. Source: "Naming rules and restrictions for Azure resources". Roles,
# their assignments and workbooks, which that page does not have, are named by GUIDs; where one is made of an identity's
# id, only the deployment can make it.
LIMITS = {
    "Microsoft.Authorization/roleAssignments": (36, 36, _GUID),
    "Microsoft.Authorization/roleDefinitions": (36, 36, _GUID),
    "Microsoft.Insights/actionGroups": (1, 260, r"[^:<>+/&%\\?]*[^ .]"),
    "Microsoft.Insights/components": (1, 260, r"[^%&\\?/]*[^ .]"),
    "Microsoft.Insights/scheduledQueryRules": (1, 260, r"[^*<>%{}&:\\?/#]*[^ .]"),
    "Microsoft.Insights/workbooks": (36, 36, _GUID),
    "Microsoft.ManagedIdentity/userAssignedIdentities": (3, 128, r"[A-Za-z0-9][\w-]*"),
    "Microsoft.Network/natGateways": (1, 80, _NETWORK),
    "Microsoft.Network/networkSecurityGroups": (1, 80, _NETWORK),
    "Microsoft.Network/privateDnsZones": (1, 63, r"[\w-]+(\.[\w-]+){1,33}"),
    "Microsoft.Network/privateDnsZones/virtualNetworkLinks": (1, 80, _NETWORK),
    "Microsoft.Network/privateEndpoints": (2, 64, _NETWORK),
    "Microsoft.Network/privateEndpoints/privateDnsZoneGroups": (1, 80, _NETWORK),
    "Microsoft.Network/publicIPAddresses": (1, 80, _NETWORK),
    "Microsoft.Network/virtualNetworks": (2, 64, _NETWORK),
    "Microsoft.OperationalInsights/workspaces": (4, 63, _WEB),
    "Microsoft.Resources/resourceGroups": (1, 90, r"[\w().-]*[\w()-]"),
    "Microsoft.Storage/storageAccounts": (3, 24, r"[a-z0-9]+"),
    "Microsoft.Storage/storageAccounts/blobServices": (7, 7, r"default"),
    "Microsoft.Storage/storageAccounts/blobServices/containers": (3, 63, r"[a-z0-9]+(-[a-z0-9]+)*"),
    "Microsoft.Web/serverfarms": (1, 60, _WEB),
    "Microsoft.Web/sites": (2, 60, _WEB),
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies": (3, 3, r"ftp|scm"),
}


def wrong(id_: str) -> str | None:
    """What is wrong with the name in an id, or None."""
    resource = Resource(id_, {})
    if resource.type not in LIMITS:
        return f"{resource.type} is not in the table: look up its limits"
    shortest, longest, pattern = LIMITS[resource.type]
    name = resource.name
    if pattern == _GUID and re.fullmatch(r"{guid\(.*\)}", name):
        return None
    if not shortest <= len(name) <= longest or not re.fullmatch(pattern, name):
        return f"{id_}: {len(name)} characters, {shortest} to {longest} of {pattern} may be"
    return None


def test_names_are_within_the_limits() -> None:
    ids = {id_ for deployment in [*APPS, *ACCESS] for id_ in deployment.snapshot.resources}
    assert [said for id_ in sorted(ids) if (said := wrong(id_))] == []


def test_the_longest_inputs_give_names_within_the_limits() -> None:
    ids = (FOLDER / f"{LONGEST.name}.txt").read_text().splitlines()
    assert LONGEST.parameters is not None
    longest = interface()["parameters"]["environmentName"]["maxLength"]
    assert LONGEST.parameters["environmentName"] == "e" * longest
    assert any(f"rg-kubelet-guard-{'e' * longest}" in id_ for id_ in ids)
    assert [said for id_ in ids if (said := wrong(id_))] == []


@pytest.mark.parametrize(
    "id_",
    [
        "Microsoft.Storage/storageAccounts/stguard0123456789abcdefgh",
        "Microsoft.Storage/storageAccounts/st-guard",
        "Microsoft.Network/privateEndpoints/" + "p" * 65,
        "Microsoft.Network/virtualNetworks/vnet-",
        "Microsoft.Insights/actionGroups/a?b",
        "/subscriptions/x/providers/Microsoft.Resources/resourceGroups/" + "r" * 91,
        "Microsoft.Unheard/of/x",
    ],
)
def test_a_name_that_azure_would_refuse_is_found(id_: str) -> None:
    assert wrong(id_) is not None
