"""The serverless app on a small Azure, an Azurite and a host, all of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import sandbox
from shared.models import Finding, Run
from shared.store import FindingQuery, open_store
from tests.azurite import Azurite, azurite
from tests.functions.host import Host, running
from tests.functions.hub import Hub
from tests.runs.conftest import environment

__all__ = ["azurite"]

QUICK = {
    "GUARD_COMMAND_SECONDS": "0.1",
    "GUARD_BUSY_WAIT_SECONDS": "5",
    "GUARD_COMMAND_DEADLINE_SECONDS": "20",
    "GUARD_SETTLE_SECONDS": "1",
    "GUARD_SCHEDULE": "0 0 2 * * *",
}


@dataclass
class Cloud:
    """A sandbox, a storage account of its own, and a task hub: what outlives hosts."""

    box: sandbox.Sandbox
    account: str
    hub: Hub = field(default_factory=Hub)

    def host(self, **options: Any) -> AbstractAsyncContextManager[Host]:
        """`async with cloud.host() as host`: one life of the app's host."""
        return running(self.hub, **options)

    async def run(self, run_id: str) -> Run:
        """A run as the store has it."""
        async with open_store(self.account) as store:
            found = await store.run(run_id)
        assert found is not None
        return found

    async def findings(self, run_id: str) -> list[Finding]:
        """The findings of a run, by node."""
        async with open_store(self.account) as store:
            found = [item async for item in store.all_findings(FindingQuery(run_id=run_id))]
        return sorted(found, key=lambda finding: finding.key)


CloudFactory = Callable[..., AbstractAsyncContextManager[Cloud]]


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
