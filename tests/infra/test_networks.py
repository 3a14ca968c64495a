"""Private networks and clouds, as the kept predictions have them; and what cannot be meant is refused in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.clouds import CLOUDS, PUBLIC, Cloud, cloud_of
from shared.settings import load
from tests.support.bicep import given
from tests.support.require import require
from tools.bicep import combinations
from tools.bicep.combinations import INFRA, SUBNETS, ZONES, Combination, predicted
from tools.bicep.compiler import Compiler, CompilerError, compiler
from tools.bicep.snapshots import Snapshot, kept

ENDPOINT = "Microsoft.Network/privateEndpoints"
GROUP = "Microsoft.Network/privateEndpoints/privateDnsZoneGroups"
ZONE = "Microsoft.Network/privateDnsZones"
LINK = "Microsoft.Network/privateDnsZones/virtualNetworkLinks"
SITE = "Microsoft.Web/sites"
SERVICES = {"blob", "queue", "table", "sites"}

# The snapshot of the private network in each cloud, and App Service's zone there ("Azure Private Endpoint private DNS
# zone values").
IN_CLOUD = {
    "AzureCloud": ("private", "privatelink.azurewebsites.net"),
    "AzureUSGovernment": ("us-government", "privatelink.azurewebsites.us"),
    "AzureChinaCloud": ("china", "privatelink.chinacloudsites.cn"),
}


def subnets(snapshot: Snapshot) -> set[str]:
    """Those that the private endpoints are in."""
    return {endpoint.at("properties.subnet.id") for endpoint in snapshot.of(ENDPOINT)}


def services(snapshot: Snapshot) -> set[str]:
    """Those that private endpoints lead to."""
    return {
        service
        for endpoint in snapshot.of(ENDPOINT)
        for connection in endpoint.at("properties.privateLinkServiceConnections")
        for service in connection["properties"]["groupIds"]
    }


def records(snapshot: Snapshot) -> dict[str, str]:
    """The zone that each service's record goes into, by service."""
    return {
        config["name"]: config["properties"]["privateDnsZoneId"]
        for group in snapshot.of(GROUP)
        for config in group.at("properties.privateDnsZoneConfigs")
    }


def made_of_a_network(snapshot: Snapshot) -> list[str]:
    """What is made of `Microsoft.Network`, without endpoints and zones."""
    return [
        resource.id
        for resource in snapshot.all()
        if resource.type.startswith("Microsoft.Network/") and resource.type not in {ENDPOINT, GROUP, ZONE, LINK}
    ]


def test_a_network_that_is_made_has_a_way_out_and_zones() -> None:
    snapshot = kept("private")
    assert {name.split("/")[1] for name in made_of_a_network(snapshot)} == {
        "natGateways",
        "networkSecurityGroups",
        "publicIPAddresses",
        "virtualNetworks",
    }
    network = snapshot.only("Microsoft.Network/virtualNetworks")
    assert {link.at("properties.virtualNetwork.id") for link in snapshot.of(LINK)} == {network.id}
    assert subnets(snapshot) == {f"{network.id}/subnets/private-endpoints"}
    assert services(snapshot) == set(records(snapshot)) == SERVICES
    assert set(records(snapshot).values()) == {zone.id for zone in snapshot.of(ZONE)}


@pytest.mark.parametrize("name", ["private-subnets", "private-subnets-zones", "private-subnets-no-zones"])
def test_with_subnets_that_are_there_no_network_gateway_or_address_is_made(name: str) -> None:
    snapshot = kept(name)
    assert made_of_a_network(snapshot) == []
    assert snapshot.only(SITE).at("properties.virtualNetworkSubnetId") == SUBNETS["app"]
    assert subnets(snapshot) == {SUBNETS["endpoints"]}
    assert services(snapshot) == SERVICES


def test_zones_that_are_made_are_linked_to_the_network_that_is_there() -> None:
    links = kept("private-subnets").of(LINK)
    assert {link.at("properties.virtualNetwork.id") for link in links} == {SUBNETS["app"].split("/subnets/")[0]}
    assert len(links) == len(SERVICES)


@pytest.mark.parametrize("name", ["private-zones", "private-subnets-zones"])
def test_records_go_into_the_zones_that_are_there_and_none_is_made_or_linked(name: str) -> None:
    snapshot = kept(name)
    assert snapshot.of(ZONE) == snapshot.of(LINK) == []
    assert records(snapshot) == {service: ZONES[service] for service in SERVICES}


def test_without_zones_somebody_else_makes_the_records() -> None:
    snapshot = kept("private-subnets-no-zones")
    assert snapshot.of(ZONE) == snapshot.of(LINK) == snapshot.of(GROUP) == []


def test_what_a_cloud_is_called_and_stores_in_is_one_thing_in_templates_and_code() -> None:
    known = {name: (values["resourceManager"], values["suffixes"]) for name, values in combinations.CLOUDS.items()}
    assert set(known) == set(IN_CLOUD)
    for cloud in CLOUDS:
        endpoint, suffixes = known[cloud.name]
        assert cloud_of(endpoint) == cloud
        assert suffixes == {"storage": cloud.storage}


@pytest.mark.parametrize("cloud", CLOUDS, ids=lambda cloud: cloud.name)
def test_zones_endpoint_and_telemetry_are_the_clouds(cloud: Cloud) -> None:
    name, site = IN_CLOUD[cloud.name]
    snapshot = kept(name)
    zones = {service: f"privatelink.{service}.{cloud.storage}" for service in SERVICES - {"sites"}} | {"sites": site}
    assert {zone.name for zone in snapshot.of(ZONE)} == set(zones.values())
    assert {service: zone.rpartition("/")[2] for service, zone in records(snapshot).items()} == zones

    settings = snapshot.only(SITE).at("properties.siteConfig.appSettings")
    assert load({"GUARD_ARM_ENDPOINT": settings["GUARD_ARM_ENDPOINT"]}).cloud == cloud
    # The host's tokens for telemetry are for the public cloud alone: elsewhere it would be lost, were no key taken.
    by_token = cloud == PUBLIC
    assert ("APPLICATIONINSIGHTS_AUTHENTICATION_STRING" in settings) == by_token
    component = snapshot.only("Microsoft.Insights/components")
    assert component.at("properties.DisableLocalAuth") == by_token
    publishers = [role for role in snapshot.of("Microsoft.Authorization/roleAssignments") if role.scope == component.id]
    assert len(publishers) == by_token


@pytest.mark.parametrize("cloud", [cloud for cloud in CLOUDS if cloud != PUBLIC], ids=lambda cloud: cloud.name)
def test_nothing_of_the_public_cloud_is_in_another_one(cloud: Cloud) -> None:
    text = json.dumps(kept(IN_CLOUD[cloud.name][0]).data())
    for name in (PUBLIC.storage, PUBLIC.resource_manager, "azurewebsites.net", "microsoftonline.com"):
        assert name not in text


def test_the_page_has_the_names_of_each_cloud() -> None:
    page = (INFRA.parent / "docs" / "networking.md").read_text().partition("\n## Clouds\n")[2]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    names = dict(zip(rows[0][1:], zip(*(row[1:] for row in rows[2:]), strict=True), strict=True))
    assert list(names) == [cloud.name for cloud in CLOUDS]
    for cloud in CLOUDS:
        assert names[cloud.name][:4] == (cloud.resource_manager, cloud.audience, cloud.authority, cloud.storage)
        assert names[cloud.name][4].startswith(f"privatelink.blob.{cloud.storage}`")
        assert names[cloud.name][5] == IN_CLOUD[cloud.name][1]


# --- what the compiler says -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Compiler]:
    require(shutil.which("bicep") is not None, "bicep is not on PATH")
    with compiler(folder) as found:
        yield found


def predict(running: Compiler, folder: Path, parameters: Mapping[str, Any], cloud: str = "AzureCloud") -> Snapshot:
    given = {"environmentName": "prod", "location": "westeurope", **parameters}
    return predicted(running, Combination("asked", parameters=given, cloud=cloud), folder)


SOMEWHERE = "/subscriptions/00000000-0000-0000-0000-000000000002/resourceGroups/rg/providers/Microsoft.Network"
WITHOUT_SITES = {name: value for name, value in ZONES.items() if name != "sites"}


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"subnets": SUBNETS}, "subnets and dns are for a private network"),
        ({"dns": {"zones": "none"}}, "subnets and dns are for a private network"),
        ({"network": "private", "dns": WITHOUT_SITES}, "dns wants sites besides.*privatelink.azurewebsites.net"),
        (
            {"network": "private-storage", "subnets": {"app": "guard", "endpoints": "endpoints"}},
            "subnets wants the ids of two subnets",
        ),
        (
            {"network": "private-storage", "subnets": {**SUBNETS, "endpoints": SUBNETS["app"].upper()}},
            "subnets names one subnet twice",
        ),
        (
            {
                "network": "private",
                "subnets": {**SUBNETS, "endpoints": f"{SOMEWHERE}/virtualNetworks/other/subnets/endpoints"},
            },
            "subnets are of two networks",
        ),
        ({"network": "private", "dns": {"zones": "existing", "blob": "id"}}, 'missing.*"queue", "table"'),
        ({"network": "private", "dns": {"zones": "made"}}, "'create' | 'existing' | 'none'"),
        ({"network": "private", "dns": {"zones": "none", "blob": "id"}}, '"blob" is not allowed'),
        ({"network": "private", "subnets": {"app": SUBNETS["app"]}}, 'missing.*"endpoints"'),
    ],
)
def test_what_cannot_be_meant_is_refused(
    running: Compiler, folder: Path, parameters: Mapping[str, Any], words: str
) -> None:
    with pytest.raises(CompilerError, match=words):
        predict(running, folder, parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        # Whose zones they are, they are linked to both.
        {
            "network": "private",
            "subnets": {**SUBNETS, "endpoints": f"{SOMEWHERE}/virtualNetworks/other/subnets/endpoints"},
            "dns": ZONES,
        },
        {"network": "private-storage", "dns": WITHOUT_SITES},
        # Ids are the same in any case.
        {
            "network": "private-storage",
            "subnets": {**SUBNETS, "endpoints": SUBNETS["endpoints"].upper()},
        },
    ],
    ids=["two networks", "no zone for the app", "case"],
)
def test_what_can_be_meant_is_not(running: Compiler, folder: Path, parameters: Mapping[str, Any]) -> None:
    snapshot = predict(running, folder, parameters)
    assert len(snapshot.of(GROUP)) == len(snapshot.of(ENDPOINT)) >= len(SERVICES) - 1


def test_a_cloud_that_is_not_known_gets_the_app_but_no_zone_of_a_name_that_is_made_up(
    running: Compiler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {
        "name": "Elsewhere",
        "resourceManager": "https://management.example.org",
        "suffixes": {"storage": "core.example.org"},
    }
    monkeypatch.setattr(combinations, "CLOUDS", {"Elsewhere": elsewhere})
    assert predict(running, folder, {}, "Elsewhere").only(SITE)
    with pytest.raises(CompilerError, match="names of function apps in this cloud are not known"):
        predict(running, folder, {"network": "private"}, "Elsewhere")
    assert set(records(predict(running, folder, {"network": "private", "dns": ZONES}, "Elsewhere"))) == SERVICES


def test_they_are_read_from_the_environment_as_json() -> None:
    parameters = given(
        {"GUARD_NETWORK": "private", "GUARD_SUBNETS": json.dumps(SUBNETS), "GUARD_DNS": json.dumps(ZONES)}
    )
    assert {name: parameters[name] for name in ("network", "subnets", "dns")} == {
        "network": "private",
        "subnets": SUBNETS,
        "dns": ZONES,
    }
