"""The promises of the deployment, in every combination of parameters that is predicted: no secrets, nothing open that
need not be, least roles. Where the compiler is, test_predicted.py holds the predictions against the templates."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from tests.support.bicep import ACCESS, APPS, INFRA, Deployment
from tools.bicep.snapshots import Resource

# Ids of Azure's built-in roles (Azure built-in roles reference), each with the type that it is given on: what the
# Functions host and Durable Functions document for identity-based connections, and what Application Insights asks for.
BUILT_IN = {
    ("Microsoft.Storage/storageAccounts", "b7e6dc6d-f1e8-4753-8033-0f276bb0955b"): "Storage Blob Data Owner",
    ("Microsoft.Storage/storageAccounts", "974c5e8b-45b9-4653-ba55-5f855dd0fb88"): "Storage Queue Data Contributor",
    ("Microsoft.Storage/storageAccounts", "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3"): "Storage Table Data Contributor",
    ("Microsoft.Insights/components", "3913510d-42f4-4e42-8a64-420c390055eb"): "Monitoring Metrics Publisher",
}
ASSIGNMENT, DEFINITION = "Microsoft.Authorization/roleAssignments", "Microsoft.Authorization/roleDefinitions"


def name_of(deployment: Deployment) -> str:
    return deployment.combination.name


@pytest.fixture(params=APPS, ids=name_of)
def app(request: pytest.FixtureRequest) -> Deployment:
    found: Deployment = request.param
    return found


def site(app: Deployment) -> Resource:
    return app.snapshot.only("Microsoft.Web/sites")


def settings(app: Deployment) -> dict[str, str]:
    found: dict[str, str] = dict(site(app).at("properties.siteConfig.appSettings"))
    return found


def test_storage_is_reached_by_identity_by_addresses_that_hold_in_every_cloud_and_by_name(app: Deployment) -> None:
    found = settings(app)
    account = app.snapshot.only("Microsoft.Storage/storageAccounts")
    identity = app.snapshot.only("Microsoft.ManagedIdentity/userAssignedIdentities")
    assert found["AZURE_CLIENT_ID"] == f"{{{identity.id}.clientId}}"
    assert {name: value for name, value in found.items() if name.startswith("AzureWebJobsStorage")} == {
        "AzureWebJobsStorage__accountName": account.name,
        "AzureWebJobsStorage__clientId": found["AZURE_CLIENT_ID"],
        "AzureWebJobsStorage__credential": "managedidentity",
        **{
            f"AzureWebJobsStorage__{service}ServiceUri": f"{{{account.id}.primaryEndpoints.{service}}}"
            for service in ("blob", "queue", "table")
        },
    }


def test_no_setting_that_flex_consumption_does_not_take(app: Deployment) -> None:
    # Functions app settings reference, "Flex Consumption plan deprecations", and the considerations of the plan's page.
    refused = {
        "ENABLE_ORYX_BUILD",
        "FUNCTIONS_EXTENSION_VERSION",
        "FUNCTIONS_WORKER_PROCESS_COUNT",
        "FUNCTIONS_WORKER_RUNTIME",
        "FUNCTIONS_WORKER_RUNTIME_VERSION",
        "SCM_DO_BUILD_DURING_DEPLOYMENT",
        "TZ",
        "WEBSITE_CONTENTAZUREFILECONNECTIONSTRING",
        "WEBSITE_CONTENTSHARE",
        "WEBSITE_RUN_FROM_PACKAGE",
        "WEBSITE_TIME_ZONE",
        "WEBSITE_VNET_ROUTE_ALL",
    }
    assert refused & set(settings(app)) == set()
    assert {"linuxFxVersion", "alwaysOn", "pythonVersion", "vnetRouteAllEnabled"} & set(
        site(app).at("properties.siteConfig")
    ) == set()


# --- secrets ----------------------------------------------------------------------------------------------------------


# What the templates read of resources that they make. None of it is a secret.
READ = re.compile(
    r"[\w./-]+\.(principalId|clientId|defaultHostName|ConnectionString|primaryEndpoints\.(blob|queue|table))"
)


def left_open(value: Any) -> Iterator[str]:
    """What only the deployment knows, in words, wherever it stands."""
    if isinstance(value, str):
        yield from re.findall(r"{([^{}]*)}", value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from left_open(key)
            yield from left_open(item)
    elif isinstance(value, list):
        for item in value:
            yield from left_open(item)


@pytest.mark.parametrize("deployment", [*APPS, *ACCESS], ids=name_of)
def test_nothing_is_read_from_any_resource_that_could_be_a_secret(deployment: Deployment) -> None:
    opened = set(left_open(deployment.snapshot.data()))
    assert {words for words in opened if not READ.fullmatch(words) and not re.match(r"guid\(", words)} <= {"unknown()"}
    assert "unknown()" not in set(left_open(deployment.snapshot.outputs)), "what is given as a secret stays one"


def test_the_only_connection_string_is_the_one_of_telemetry_and_no_output_has_it(app: Deployment) -> None:
    # It holds a key that is no secret where local authentication is off: it says where to, and not who.
    text = json.dumps(app.snapshot.data())
    telemetry = settings(app)["APPLICATIONINSIGHTS_CONNECTION_STRING"]
    assert text.count("ConnectionString") == text.count(telemetry) == 1


def test_outputs_are_names_and_addresses(app: Deployment) -> None:
    address = r"[\w-]+|{[\w./-]+\.(principalId|defaultHostName|primaryEndpoints\.\w+)}\w*"
    assert {name: value for name, value in app.snapshot.outputs.items() if not re.fullmatch(address, value)} == {}


# --- what is open and what is not -------------------------------------------------------------------------------------


def test_the_storage_account_takes_identities_only(app: Deployment) -> None:
    properties = app.snapshot.only("Microsoft.Storage/storageAccounts").at("properties")
    promised = {
        "allowSharedKeyAccess": False,
        "allowBlobPublicAccess": False,
        "allowCrossTenantReplication": False,
        "isLocalUserEnabled": False,
        "supportsHttpsTrafficOnly": True,
        "minimumTlsVersion": "TLS1_2",
    }
    assert {name: properties[name] for name in promised} == promised
    containers = app.snapshot.of("Microsoft.Storage/storageAccounts/blobServices/containers")
    assert {each.at("properties.publicAccess") for each in containers} == {"None"}


def test_the_storage_account_is_on_the_internet_with_the_public_network_only(app: Deployment) -> None:
    account = app.snapshot.only("Microsoft.Storage/storageAccounts")
    public = app.network == "public"
    assert account.at("properties.publicNetworkAccess") == ("Enabled" if public else "Disabled")
    assert account.at("properties.networkAcls") == {
        "bypass": "None",
        "defaultAction": "Allow" if public else "Deny",
    }


def test_what_is_deleted_can_be_had_back_for_a_week(app: Deployment) -> None:
    service = app.snapshot.only("Microsoft.Storage/storageAccounts/blobServices")
    for policy in ("deleteRetentionPolicy", "containerDeleteRetentionPolicy"):
        assert service.at(f"properties.{policy}") == {"enabled": True, "days": 7}


def test_telemetry_takes_identities_only(app: Deployment) -> None:
    workspace = app.snapshot.only("Microsoft.OperationalInsights/workspaces")
    assert workspace.at("properties.features.disableLocalAuth") is True
    if app.combination.cloud == "AzureCloud":
        assert app.snapshot.only("Microsoft.Insights/components").at("properties.DisableLocalAuth") is True
        authentication = settings(app)["APPLICATIONINSIGHTS_AUTHENTICATION_STRING"]
        assert authentication == f"ClientId={settings(app)['AZURE_CLIENT_ID']};Authorization=AAD"


def test_the_app_is_a_flex_consumption_app_that_scales_to_nothing(app: Deployment) -> None:
    assert app.snapshot.only("Microsoft.Web/serverfarms").at("sku.name") == "FC1"
    config = site(app).at("properties.functionAppConfig")
    assert config["scaleAndConcurrency"]["alwaysReady"] == []
    assert config["runtime"]["name"] == "python"
    identity = app.snapshot.only("Microsoft.ManagedIdentity/userAssignedIdentities")
    assert config["deployment"]["storage"]["authentication"] == {
        "type": "UserAssignedIdentity",
        "userAssignedIdentityResourceId": identity.id,
    }
    assert list(site(app).at("identity.userAssignedIdentities")) == [identity.id]


def test_the_app_takes_https_of_today_and_no_publishing_password(app: Deployment) -> None:
    assert site(app).at("properties.httpsOnly") is True
    config = site(app).at("properties.siteConfig")
    assert (config["minTlsVersion"], config["ftpsState"]) == ("1.2", "Disabled")
    policies = app.snapshot.of("Microsoft.Web/sites/basicPublishingCredentialsPolicies")
    assert {each.name: each.at("properties.allow") for each in policies} == {"ftp": False, "scm": False}


def test_the_app_is_on_the_internet_unless_the_network_is_private(app: Deployment) -> None:
    assert site(app).at("properties.publicNetworkAccess") == ("Disabled" if app.network == "private" else "Enabled")


# --- networks ---------------------------------------------------------------------------------------------------------


def test_a_public_network_is_no_network_at_all(app: Deployment) -> None:
    if app.network == "public":
        assert not [each.id for each in app.snapshot.all() if each.type.startswith("Microsoft.Network/")]
        assert "virtualNetworkSubnetId" not in site(app).at("properties")


def test_a_private_network_has_an_endpoint_for_each_service(app: Deployment) -> None:
    account, own = app.snapshot.only("Microsoft.Storage/storageAccounts"), site(app)
    expected = {} if app.network == "public" else dict.fromkeys(("blob", "queue", "table"), account.id)
    expected |= {"sites": own.id} if app.network == "private" else {}
    found: dict[str, str] = {}
    for endpoint in app.snapshot.of("Microsoft.Network/privateEndpoints"):
        (connection,) = endpoint.at("properties.privateLinkServiceConnections")
        (service,) = connection["properties"]["groupIds"]
        assert service not in found
        found[service] = connection["properties"]["privateLinkServiceId"]
    assert found == expected


def test_subnets_that_are_made_leave_through_the_gateway_and_by_nothing_else(app: Deployment) -> None:
    for network in app.snapshot.of("Microsoft.Network/virtualNetworks"):
        subnets = {subnet["name"]: subnet["properties"] for subnet in network.at("properties.subnets")}
        assert site(app).at("properties.virtualNetworkSubnetId") == f"{network.id}/subnets/app"
        (delegation,) = subnets["app"]["delegations"]
        assert delegation["properties"] == {"serviceName": "Microsoft.App/environments"}
        assert subnets["app"]["natGateway"] == {"id": app.snapshot.only("Microsoft.Network/natGateways").id}
        guarded = {"id": app.snapshot.only("Microsoft.Network/networkSecurityGroups").id}
        for subnet in subnets.values():
            assert subnet["defaultOutboundAccess"] is False
            assert subnet["networkSecurityGroup"] == guarded


# --- roles ------------------------------------------------------------------------------------------------------------


def test_the_identity_gets_exactly_the_roles_that_it_needs(app: Deployment) -> None:
    identity = app.snapshot.only("Microsoft.ManagedIdentity/userAssignedIdentities")
    custom = {each.id for each in app.snapshot.of(DEFINITION)}
    found: list[tuple[str, str]] = []
    for assignment in app.snapshot.of(ASSIGNMENT):
        assert assignment.at("properties.principalId") == f"{{{identity.id}.principalId}}"
        assert assignment.at("properties.principalType") == "ServicePrincipal"
        role = assignment.at("properties.roleDefinitionId")
        if role in custom:
            assert role.startswith(f"{assignment.scope}/providers/"), "a role of one subscription, given in that one"
            found.append(("subscription", assignment.scope.removeprefix("/subscriptions/")))
        else:
            scope = app.snapshot.resources[assignment.scope]
            found.append((Resource(assignment.scope, scope).type, role.rsplit("/", 1)[1]))
    # Both roles are given where both are asked for.
    each = 1 + bool(app.given("grantSweep", False) or app.given("grantSweepApi", False))
    granted = [("subscription", id_) for id_ in app.given("grantAccessTo", [])] * each
    # Outside the public cloud telemetry is sent with its key (docs/networking.md).
    key = "" if app.combination.cloud == "AzureCloud" else "Microsoft.Insights/components"
    assert sorted(found) == sorted([*(role for role in BUILT_IN if role[0] != key), *granted])


# --- tags, versions, alerts -------------------------------------------------------------------------------------------

# Types that take no tags (Azure Resource Manager's "Tag support for resources").
UNTAGGABLE = {
    ASSIGNMENT,
    DEFINITION,
    "Microsoft.Network/privateEndpoints/privateDnsZoneGroups",
    "Microsoft.Storage/storageAccounts/blobServices",
    "Microsoft.Storage/storageAccounts/blobServices/containers",
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies",
}


def test_everything_that_takes_tags_has_those_of_the_deployment(app: Deployment) -> None:
    tags = {"application": "aks-kubelet-guard", "azd-env-name": "prod"}
    for resource in app.snapshot.all():
        if resource.type not in UNTAGGABLE:
            own = {"azd-service-name": "guard"} if resource.type == "Microsoft.Web/sites" else {}
            assert resource.at("tags") == {**tags, **own}, resource.id


def test_azd_finds_the_app_by_the_service_that_the_tag_names(app: Deployment) -> None:
    project = yaml.safe_load((INFRA.parent / "azure.yaml").read_text())
    service = site(app).at("tags.azd-service-name")
    assert project["services"] == {
        service: {"project": ".", "language": "python", "host": "function", "remoteBuild": True}
    }


def test_one_stable_version_of_an_api_is_used_everywhere() -> None:
    versions: dict[str, set[str]] = {}
    for deployment in [*APPS, *ACCESS]:
        for resource in deployment.snapshot.all():
            versions.setdefault(resource.type, set()).add(resource.at("apiVersion"))
    assert {type_: found for type_, found in versions.items() if len(found) > 1} == {}
    assert not [type_ for type_, found in versions.items() if "preview" in "".join(found)]


def test_alerts_are_told_to_those_who_are_named(app: Deployment) -> None:
    groups = app.snapshot.of("Microsoft.Insights/actionGroups")
    receivers = [each["emailAddress"] for group in groups for each in group.at("properties.emailReceivers")]
    assert receivers == app.given("alertEmails", [])
    alerts = app.snapshot.of("Microsoft.Insights/scheduledQueryRules")
    assert alerts
    for alert in alerts:
        assert alert.at("properties.actions.actionGroups") == [group.id for group in groups], alert.id
