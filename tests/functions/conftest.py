"""The serverless app on a small Azure, an Azurite and a host, all of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

import sandbox
from shared.store import open_store
from tests.support.azurite import Azurite, azurite
from tests.support.bench import environment
from tests.support.cloud import QUICK, Cloud, CloudFactory

__all__ = ["azurite"]


@pytest.fixture
def cloud(azurite: Azurite) -> CloudFactory:
    """`async with cloud(fleet, GUARD_…="…") as c`; the fleet is a file or YAML text."""

    @asynccontextmanager
    async def make(fleet: Path | str, **settings: str) -> AsyncIterator[Cloud]:
        account = settings.pop("AzureWebJobsStorage", "") or azurite.account()
        parsed = fleet if isinstance(fleet, Path) else sandbox.parse(fleet)
        async with sandbox.serve(parsed) as box:
            with environment({**box.environ, **QUICK, "AzureWebJobsStorage": account, **settings}):
                async with open_store(account) as store:
                    yield Cloud(box, account, store)

    return make


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a crash costs, in tenths of seconds where it is minutes."""
    monkeypatch.setattr("shared.runs.orchestrators.hand._LONGEST_PAUSE", 0.1)
    monkeypatch.setattr("shared.runs.model.batch.SENDING", timedelta(seconds=1.5))
    monkeypatch.setattr("shared.runs.hosts.starting.BIRTH", timedelta(0))
    monkeypatch.setattr("shared.runs.hosts.leases.LEASE_SECONDS", 6.0)
    monkeypatch.setattr("shared.runs.hosts.leases._RENEW_SECONDS", 0.3)
