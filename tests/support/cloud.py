"""The serverless app on a small Azure, an Azurite and a host, all of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sandbox
from shared.models import Finding, Run
from shared.runs.model.batch import Batch, from_text
from shared.store import FindingQuery, Store
from tests.support.findings import CHAINS
from tests.support.host import Host, running
from tests.support.hub import Hub

QUICK = {
    "GUARD_COMMAND_SECONDS": "0.5",
    "GUARD_BUSY_WAIT_SECONDS": "20",
    "GUARD_COMMAND_DEADLINE_SECONDS": "60",
    "GUARD_SETTLE_SECONDS": "1",
    "GUARD_SCHEDULE": "0 0 2 * * *",
}
ALLOWED = {"GUARD_ALLOW_FIX": "true", "GUARD_RESTART_SECONDS": "20"}


@dataclass
class Cloud:
    """A sandbox, a storage account of its own (and a connection to it), and a task hub: what outlives hosts."""

    box: sandbox.Sandbox
    account: str
    store: Store
    hub: Hub = field(default_factory=Hub)

    def host(self, **options: Any) -> AbstractAsyncContextManager[Host]:
        """`async with cloud.host() as host`: one life of the app's host."""
        return running(self.hub, **options)

    async def run(self, run_id: str) -> Run:
        """A run as the store has it."""
        found = await self.store.run(run_id)
        assert found is not None
        return found

    async def batches(self, run_id: str) -> dict[str, Batch]:
        """The batches of a run as the store has them, by name."""
        return {
            work.name: from_text(work.text, work.name)
            async for work in self.store.works(run_id)
            if not work.name.startswith("answers/")
        }

    async def until(self, holds: Callable[[], Awaitable[Any]], seconds: float = 60) -> None:
        """Wait until something in the store holds: another connection writes it, there is no event to wait for."""
        async with asyncio.timeout(seconds):
            while not await holds():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def accepted(self, run_id: str, count: int) -> None:
        """Wait until a run keeps this many commands with the place where to ask for their results."""

        async def enough() -> bool:
            nodes = [node for batch in (await self.batches(run_id)).values() for node in batch.nodes]
            return sum(node.command is not None and bool(node.command.url) for node in nodes) >= count

        await self.until(enough)

    async def findings(self, run_id: str, control: str | None = CHAINS) -> list[Finding]:
        """The findings of a run on one control (None: on all), by node."""
        query = FindingQuery(run_id=run_id, control=control)
        found = [item async for item in self.store.all_findings(query)]
        return sorted(found, key=lambda finding: finding.key)

    async def see_to_its_end(
        self,
        begin: Callable[[Host], Awaitable[str]],
        arm: Callable[[Host, int], None] = lambda host, life: None,
        seconds: float = 120,
        **options: Any,
    ) -> str:
        """Begin a run and see it to its end, over as many hosts as it takes, with a watchdog that ticks now and then.

        `arm` is told of each host, and the how manieth (from 0) it is, before the host has anything to do. Gives the
        run's id once its record is final and nothing is going in the hub.
        """
        run_id, life = "", 0
        async with asyncio.timeout(seconds):
            while True:
                async with self.host(**options) as host:
                    arm(host, life)
                    life += 1
                    while not host.dead.is_set():
                        run_id = run_id or await begin(host)
                        if run_id and (await self.run(run_id)).state.final and not self.hub.going():
                            return run_id
                        await host.tick(name="watchdog")
                        await asyncio.sleep(0.1)

    def together(self, since: datetime, until: datetime | None = None) -> int:
        """How many commands began in that time on a node while one was going on another node of its pool."""
        begun = sorted(self.box.compute.operations.values(), key=lambda item: item.started)
        late = [item for item in begun if item.started >= since and (until is None or item.started < until)]
        return sum(
            any(
                other.member.scale_set == item.member.scale_set and (other.ended is None or other.ended > item.started)
                for other in late[:at]
                if other.member.name != item.member.name
            )
            for at, item in enumerate(late)
        )


CloudFactory = Callable[..., AbstractAsyncContextManager[Cloud]]


async def start(host: Host, body: Any = None, path: str = "/api/audits") -> str:
    """Start a run; its id."""
    answer = await host.http("POST", path, body or {})
    assert answer.status == 202, answer.body
    return str(answer.json()["id"])


async def ask_until_started(host: Host, body: Any = None, path: str = "/api/audits") -> str:
    """Start a run as a patient caller does: its id, also where it was started and the answer got lost; '' for now."""
    answer = await host.http("POST", path, body or {})
    if answer.status == 202:
        return str(answer.json()["id"])
    return str(answer.json()["run"]["id"]) if answer.status == 409 else ""


async def awaiting(host: Host, run_id: str) -> Any:
    """The run, once it waits for its approval."""
    async with asyncio.timeout(60):
        while True:
            shown = (await host.http("GET", f"/api/runs/{run_id}")).json()
            if shown["state"] != "running":
                return shown
            await asyncio.sleep(0.05)
