"""The clouds are those that the SDK knows, and its clients ask for tokens of the right audience in each."""

from __future__ import annotations

from typing import Any

import pytest
from azure.core import AzureClouds
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import AzureAuthorityHosts
from azure.mgmt.core.tools import get_arm_endpoints

from shared.azure import Azure
from shared.azure.blobs import read_blob
from shared.clouds import CHINA, CLOUDS, PUBLIC, STORAGE_SCOPE, US_GOVERNMENT, Cloud, cloud_of
from shared.errors import CredentialError
from shared.settings import Settings
from shared.store.opening import open_store

SDK = (
    (PUBLIC, AzureClouds.AZURE_PUBLIC_CLOUD, AzureAuthorityHosts.AZURE_PUBLIC_CLOUD),
    (US_GOVERNMENT, AzureClouds.AZURE_US_GOVERNMENT, AzureAuthorityHosts.AZURE_GOVERNMENT),
    (CHINA, AzureClouds.AZURE_CHINA_CLOUD, AzureAuthorityHosts.AZURE_CHINA),
)


class Nobody:
    """A credential that keeps what it was asked for, and gives nothing: no request leaves this machine."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        self.asked.append(scopes)
        raise ClientAuthenticationError("nobody")

    async def close(self) -> None: ...

    async def __aenter__(self) -> Nobody:
        return self

    async def __aexit__(self, *exc: object) -> None: ...


@pytest.mark.parametrize(("cloud", "setting", "host"), SDK, ids=[cloud.name for cloud, *_ in SDK])
def test_endpoint_audience_and_authority_are_the_sdks(cloud: Cloud, setting: AzureClouds, host: str) -> None:
    assert get_arm_endpoints(setting) == {
        "resource_manager": f"https://{cloud.resource_manager}/",
        "credential_scopes": [f"{cloud.audience}/.default"],
    }
    assert cloud.authority == f"https://{host}"


def test_every_cloud_is_held_against_the_sdk() -> None:
    assert [cloud for cloud, *_ in SDK] == list(CLOUDS)


@pytest.mark.parametrize("cloud", CLOUDS, ids=lambda cloud: cloud.name)
def test_a_cloud_is_known_by_its_resource_manager(cloud: Cloud) -> None:
    settings = Settings(arm_endpoint=f"https://{cloud.resource_manager}")
    assert cloud_of(f"https://{cloud.resource_manager}:443/") == settings.cloud == cloud
    assert (settings.arm_scope, settings.authority) == (f"{cloud.audience}/.default", cloud.authority)


def test_other_endpoints_are_of_no_cloud() -> None:
    assert cloud_of("https://management.azure.com.example.org") is cloud_of("https://localhost:8443") is None


@pytest.mark.parametrize("cloud", CLOUDS, ids=lambda cloud: cloud.name)
async def test_resource_manager_is_asked_with_a_token_for_its_audience(cloud: Cloud) -> None:
    nobody = Nobody()
    async with Azure(Settings(arm_endpoint=f"https://{cloud.resource_manager}"), nobody) as azure:
        with pytest.raises(CredentialError):
            await azure.subscriptions()
    assert nobody.asked == [(f"{cloud.audience}/.default",)]


@pytest.mark.parametrize("cloud", CLOUDS, ids=lambda cloud: cloud.name)
async def test_store_and_blobs_are_asked_with_the_one_audience_of_storage(cloud: Cloud) -> None:
    nobody = Nobody()
    with pytest.raises(CredentialError):
        async with open_store(cloud.table_service("account"), credential=nobody):
            pass
    with pytest.raises(CredentialError):
        await read_blob(f"https://account.blob.{cloud.storage}/controls/own.yaml", 100, nobody)
    assert nobody.asked == [(STORAGE_SCOPE,)] * 2
