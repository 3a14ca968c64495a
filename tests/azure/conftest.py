"""A scripted Resource Manager, and a client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from shared.azure import Azure
from shared.models import Node
from shared.settings import Settings
from tests.support.arm import Arm, Token, a_node, serve


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
