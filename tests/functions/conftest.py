"""The serverless app on a small Azure, an Azurite and a host, all of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import sandbox
from tests.support.azurite import Azurite, azurite
from tests.support.bench import environment
from tests.support.cloud import QUICK, Cloud, CloudFactory

__all__ = ["azurite"]


@pytest.fixture
def cloud(azurite: Azurite) -> CloudFactory:
    """`async with cloud(fleet, GUARD_…="…") as c`; the fleet is a file or YAML text."""

    @asynccontextmanager
    async def make(fleet: Path | str, **settings: str) -> AsyncIterator[Cloud]:
        account = azurite.account()
        parsed = fleet if isinstance(fleet, Path) else sandbox.parse(fleet)
        async with sandbox.serve(parsed) as box:
            with environment({**box.environ, **QUICK, "AzureWebJobsStorage": account, **settings}):
                yield Cloud(box, account)

    return make
