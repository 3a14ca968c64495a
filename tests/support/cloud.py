"""The serverless app on a small Azure, an Azurite and a host, all of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import sandbox
from shared.models import Finding, Run
from shared.store import FindingQuery, open_store
from tests.support.host import Host, running
from tests.support.hub import Hub

QUICK = {
    "GUARD_COMMAND_SECONDS": "0.1",
    "GUARD_BUSY_WAIT_SECONDS": "5",
    "GUARD_COMMAND_DEADLINE_SECONDS": "20",
    "GUARD_SETTLE_SECONDS": "1",
    "GUARD_SCHEDULE": "0 0 2 * * *",
}
ALLOWED = {"GUARD_ALLOW_FIX": "true", "GUARD_RESTART_SECONDS": "20"}


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

    async def accepted(self, run_id: str, count: int) -> None:
        """Wait until a run keeps this many commands with the place where to ask for their results."""
        async with asyncio.timeout(60), open_store(self.account) as store:
            # Another connection of the app writes it: there is no event to wait for.
            while sum(bool(command.data) for command in await store.commands(run_id)) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def findings(self, run_id: str) -> list[Finding]:
        """The findings of a run, by node."""
        async with open_store(self.account) as store:
            found = [item async for item in store.all_findings(FindingQuery(run_id=run_id))]
        return sorted(found, key=lambda finding: finding.key)


CloudFactory = Callable[..., AbstractAsyncContextManager[Cloud]]


async def start(host: Host, body: Any = None, path: str = "/api/audits") -> str:
    """Start a run; its id."""
    answer = await host.http("POST", path, body or {})
    assert answer.status == 202, answer.body
    return str(answer.json()["id"])


async def awaiting(host: Host, run_id: str) -> Any:
    """The run, once it waits for its approval."""
    async with asyncio.timeout(30):
        while True:
            shown = (await host.http("GET", f"/api/runs/{run_id}")).json()
            if shown["state"] != "running":
                return shown
            await asyncio.sleep(0.05)
