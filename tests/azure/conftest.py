"""A scripted Resource Manager, and a client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from shared.azure import Azure
from shared.models import Node
from shared.settings import Settings
from tests.azure.arm import GROUP, SCALE_SET, SUBSCRIPTION, Arm, Token, serve


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def arm(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Arm]:
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(pem))
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    async with serve(authority) as server:
        yield server


@pytest.fixture
def settings(arm: Arm) -> Settings:
    return Settings(arm_endpoint=arm.base, command_seconds=0.2, command_deadline_seconds=1.5, busy_wait_seconds=0.6)


@pytest.fixture
def token() -> Token:
    return Token()


@pytest.fixture
async def azure(settings: Settings, token: Token) -> AsyncIterator[Azure]:
    async with Azure(settings, token) as client:
        yield client


@pytest.fixture
def node() -> Node:
    return a_node()


def a_node(**changes: Any) -> Node:
    base = Node(
        subscription=SUBSCRIPTION,
        resource_group="rg-shop",
        cluster="shop",
        location="westeurope",
        node_pool="pool1",
        node_resource_group=GROUP,
        scale_set=SCALE_SET,
        instance_id="0",
        name=f"{SCALE_SET}000000",
        os="Linux",
        power="running",
        provisioning="Succeeded",
        kubernetes_version="1.33.3",
        node_image_version=None,
        created=None,
        cluster_provisioning="Succeeded",
        pool_provisioning="Succeeded",
        locked=False,
    )
    return replace(base, **changes)
