"""The promises of the deployment: no secrets, nothing open that need not be, and the settings that the code knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from tree_sitter import Node

import shared.settings
from tests.support.bicep import INFRA, at, files, keys, literal, objects, read, text_of, variable

APP = read(INFRA / "modules" / "app.bicep")
STORAGE = read(INFRA / "modules" / "storage.bicep")
MONITORING = read(INFRA / "modules" / "monitoring.bicep")
NETWORK = read(INFRA / "modules" / "network.bicep")

MAIN = (INFRA / "main.bicep").read_text()


def known_to_the_code() -> frozenset[str]:
    return frozenset(shared.settings.NAMES)


def app_settings() -> dict[str, Node]:
    entries = objects(variable(APP.path, "ownSettings"))
    return {literal(keys(entry)["name"]): keys(entry)["value"] for entry in entries}


def further_settings() -> set[str]:
    """Those that the parameter `settings` may have."""
    found = re.search(r"@sealed\(\)\n@secure\(\)\nparam settings \{([^{}]*)\} = \{\}\n", MAIN)
    assert found is not None
    assert set(re.findall(r": (\S+)", found[1])) == {"string?"}
    return set(re.findall(r"(\w+):", found[1]))


def test_every_setting_has_a_parameter_and_only_those_have() -> None:
    ours = {name for name in app_settings() if name.startswith("GUARD_")}
    assert ours & further_settings() == set(), "one name, one place"
    assert ours | further_settings() == known_to_the_code(), "whatever is missing is wiped by the next deployment"


def test_what_is_set_is_added_to_what_the_app_needs() -> None:
    assert text_of(at(APP.resource("app").body, "properties.siteConfig.appSettings")) == (
        "concat(ownSettings, furtherSettings)"
    )
    assert "for entry in items(settings)" in text_of(variable(APP.path, "furtherSettings"))


def test_the_parameters_have_the_defaults_of_the_code() -> None:
    for parameter, field in (("schedule", "schedule"), ("mode", "mode")):
        assert f"param {parameter} string = '{shared.settings.default_of(field)}'\n" in MAIN
    assert f"param allowFix bool = {shared.settings.default_of('allow_fix')}\n" in MAIN


def test_what_the_example_of_parameters_reads_is_a_setting_or_known_as_none() -> None:
    read_by_it = set(re.findall(r"'(GUARD_\w+)'", (INFRA / "main.bicepparam").read_text()))
    assert read_by_it - known_to_the_code() == set(shared.settings.DEPLOYMENT_NAMES)


def test_the_defaults_of_the_deployment_are_values_that_the_code_accepts() -> None:
    loaded = shared.settings.load(
        {
            "GUARD_ALLOW_FIX": "false",
            "GUARD_ARM_ENDPOINT": "https://management.usgovcloudapi.net/",
            "GUARD_MODE": "audit",
            "GUARD_SCHEDULE": "0 0 2 * * *",
            "GUARD_SUBSCRIPTIONS": "",
        }
    )
    assert loaded.allow_fix is False
    assert loaded.subscriptions == ()
    assert loaded.arm_endpoint == "https://management.usgovcloudapi.net"


def test_storage_is_reached_by_identity_and_by_addresses_that_hold_in_every_cloud() -> None:
    settings = {name: text_of(value) for name, value in app_settings().items()}
    assert settings["AzureWebJobsStorage__credential"] == "'managedidentity'"
    assert settings["AzureWebJobsStorage__clientId"] == settings["AZURE_CLIENT_ID"] == "identityClientId"
    for service in ("blob", "queue", "table"):
        assert settings[f"AzureWebJobsStorage__{service}ServiceUri"] == f"storage.properties.primaryEndpoints.{service}"
    assert "AzureWebJobsStorage" not in settings
    assert "AzureWebJobsStorage__accountName" not in settings


def test_no_setting_that_flex_consumption_does_not_take() -> None:
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
    assert refused & set(app_settings()) == set()
    site = set(keys(at(APP.resource("app").body, "properties.siteConfig")))
    assert {"linuxFxVersion", "alwaysOn", "pythonVersion", "vnetRouteAllEnabled"} & site == set()


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_no_secret_is_ever_read(path: Path) -> None:
    text = path.read_text()
    for word in ("listKeys", "listAccountSas", "AccountKey", "SharedAccessSignature", "connectionString:"):
        assert word not in text


def test_the_storage_account_takes_identities_only() -> None:
    properties = at(STORAGE.resource("account").body, "properties")
    expected = {
        "allowSharedKeyAccess": "false",
        "allowBlobPublicAccess": "false",
        "allowCrossTenantReplication": "false",
        "isLocalUserEnabled": "false",
        "supportsHttpsTrafficOnly": "true",
        "minimumTlsVersion": "TLS1_2",
    }
    assert {name: literal(keys(properties)[name]) for name in expected} == expected
    assert text_of(at(properties, "publicNetworkAccess")) == "publicAccess ? 'Enabled' : 'Disabled'"
    assert text_of(at(properties, "networkAcls.defaultAction")) == "publicAccess ? 'Allow' : 'Deny'"


def test_the_identity_gets_exactly_the_data_roles() -> None:
    # Ids of Azure's built-in roles (Azure built-in roles reference).
    text = STORAGE.path.read_text()
    assert "'Storage Blob Data Owner': 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'" in text
    assert "'Storage Queue Data Contributor': '974c5e8b-45b9-4653-ba55-5f855dd0fb88'" in text
    assert "'Storage Table Data Contributor': '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3'" in text
    assert "metricsPublisher = '3913510d-42f4-4e42-8a64-420c390055eb'" in MONITORING.path.read_text()
    assignments = [
        (file.path.name, block)
        for file in map(read, files())
        for block in file.resources
        if block.target.startswith("Microsoft.Authorization/roleAssignments")
    ]
    assert sorted(name for name, _ in assignments) == [
        *["access-management-group.bicep"] * 2,
        *["access.bicep"] * 2,
        "monitoring.bicep",
        "storage.bicep",
    ]
    for name, block in assignments:
        assert literal(at(block.body, "properties.principalType")) == "ServicePrincipal", name
        expected = {"storage.bicep": "account", "monitoring.bicep": "applicationInsights"}.get(name)
        assert (literal(keys(block.body)["scope"]) if "scope" in keys(block.body) else None) == expected


def test_telemetry_takes_identities_only() -> None:
    assert literal(at(MONITORING.resource("applicationInsights").body, "properties.DisableLocalAuth")) == "true"
    assert literal(at(MONITORING.resource("workspace").body, "properties.features.disableLocalAuth")) == "true"
    assert "Authorization=AAD" in text_of(app_settings()["APPLICATIONINSIGHTS_AUTHENTICATION_STRING"])


def test_the_app_is_a_flex_consumption_app_that_scales_to_nothing() -> None:
    assert literal(at(APP.resource("plan").body, "sku.name")) == "FC1"
    config = at(APP.resource("app").body, "properties.functionAppConfig")
    assert text_of(at(config, "scaleAndConcurrency.alwaysReady")) == "[]"
    assert literal(at(config, "deployment.storage.authentication.type")) == "UserAssignedIdentity"
    assert literal(at(config, "runtime.name")) == "python"
    properties = keys(at(APP.resource("app").body, "properties"))
    assert literal(properties["httpsOnly"]) == "true"
    for policy in ("ftpCredentials", "scmCredentials"):
        assert literal(at(APP.resource(policy).body, "properties.allow")) == "false"


def test_the_subnet_is_delegated_to_flex_consumption_and_leaves_through_the_gateway() -> None:
    subnet = objects(at(NETWORK.resource("network").body, "properties.subnets"))[0]
    delegation = objects(at(subnet, "properties.delegations"))[0]
    assert literal(at(delegation, "properties.serviceName")) == "Microsoft.App/environments"
    assert text_of(at(subnet, "properties.natGateway.id")) == "gateway.id"


def test_azd_finds_the_app_by_the_service_that_the_tag_names() -> None:
    project = yaml.safe_load((INFRA.parent / "azure.yaml").read_text())
    (service,) = project["services"]
    assert f"serviceName = '{service}'" in APP.path.read_text()
    assert project["services"][service] == {
        "project": ".",
        "language": "python",
        "host": "function",
        "remoteBuild": True,
    }
