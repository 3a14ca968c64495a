"""The same store tests over both backends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from shared.store import Store, open_store
from shared.store.backend import Backend
from shared.store.sqlite import open_sqlite
from tests.support.azurite import Azurite
from tests.support.azurite import azurite as azurite


@pytest.fixture(params=["sqlite", "tables"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new, empty store is."""
    if request.param == "sqlite":
        return str(tmp_path / "guard.db")
    started: Azurite = request.getfixturevalue("azurite")
    return started.account()


@pytest_asyncio.fixture
async def store(location: str) -> AsyncIterator[Store]:
    async with open_store(location) as opened:
        yield opened


@pytest_asyncio.fixture
async def backend(location: str) -> AsyncIterator[Backend]:
    if location.startswith("DefaultEndpointsProtocol"):
        from shared.store.tables import open_tables_with_key

        async with open_tables_with_key(location) as tables:
            yield tables
    else:
        async with open_sqlite(Path(location)) as sqlite:
            yield sqlite
