"""A simulated world: an Azure, a store, the app's hub and its watchdog; and what must hold of a run that is over."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, cast

from shared import settings
from shared.models import Finding, Run, RunKind, Starter
from shared.runs.hosts import durable, starting, watchdog
from shared.runs.hosts.durable import Connections
from shared.runs.model.messages import Ref
from shared.runs.model.request import FixRequest, RunRequest
from shared.runs.orchestrators import ORCHESTRATORS, RUN, WAKE
from shared.runs.services import Services
from shared.store import FindingQuery, Store
from tests.runs.simulated.azure import Member, SmallAzure
from tests.runs.simulated.clock import now
from tests.runs.simulated.hub import Chances, Hub, Instance
from tests.runs.simulated.store import Memory, memory_store
from tests.support.findings import AUDIT

Json = Any
SETTINGS = {
    "GUARD_ALLOW_FIX": "true",
    "GUARD_COMMAND_SECONDS": "30",
    "GUARD_SETTLE_SECONDS": "5",
    "GUARD_RESTART_SECONDS": "60",
    "GUARD_BUDGET_PERCENT": "100",
}


@dataclass
class Rig:
    """Made by `rig`. `told` are the findings that the app's log has got, `runs` the ends of runs."""

    azure: SmallAzure
    store: Store
    backend: Memory
    services: Services
    hub: Hub
    source: random.Random
    told: list[Finding] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    async def start(self, kind: RunKind, request: RunRequest | None = None, *, manual: bool = False) -> Run:
        """Start a run as the app does, of one control where the request does not say it."""
        asked = request or (AUDIT if kind is RunKind.AUDIT else FixRequest(pause_seconds=0))
        return await starting.start(self.services, App(self.hub), kind, asked, by=Starter.HTTP, manual=manual)

    async def ended(self, run_id: str, hours: float = 6) -> Run:
        """The run when it has ended; the watchdog looks after it every minute."""
        for _ in range(int(hours * 60)):
            run = await self.run(run_id)
            if run.state.final:
                await self.hub.until_quiet()
                return run
            await asyncio.sleep(60)
            if self.hub.fault is not None:
                raise self.hub.fault
            await watchdog.watch(self.services, App(self.hub), now())
        left = [
            f"{i.id}: {i.asked[-3:]}, {i.history[-3:]}, {i.inbox}" for i in self.hub.instances.values() if not i.over
        ]
        raise AssertionError(f"the run {run_id} did not end: {await self.run(run_id)}; open: {left}")

    async def run(self, run_id: str) -> Run:
        """The run's record."""
        run = await self.store.run(run_id)
        assert run is not None
        return run

    async def findings(self, run_id: str) -> dict[str, Finding]:
        """The findings by the name of their node; those of places by the place's."""
        found: dict[str, Finding] = {}
        async for finding in self.store.all_findings(FindingQuery(run_id=run_id)):
            name = finding.node or f"{finding.subscription}/{finding.cluster}"
            assert name not in found
            found[name] = finding
        return found

    async def complete(self, run: Run, members: Collection[Member]) -> dict[str, Finding]:
        """The findings of a run that is over: one for each node, and the summary adds up."""
        found = await self.findings(run.id)
        assert {member.node.name for member in members} == {name for name in found if "/" not in name}
        assert run.summary is not None
        assert run.summary.statuses == Counter(finding.status for finding in found.values())
        assert run.summary.nodes == len(members)
        return found


class App:
    """`Orchestrations` of a simulated hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def start(self, run_id: str, ref: Ref) -> None:
        self._hub.start(RUN, run_id, ref.model_dump(mode="json"))

    async def wake(self, run_id: str) -> None:
        self._hub.wake(run_id, WAKE)

    async def going(self, run_id: str) -> bool:
        return run_id in self._hub.instances and not self._hub.instances[run_id].over

    async def end(self, run_id: str, why: str) -> None:
        instance: Instance | None = self._hub.instances.get(run_id)
        if instance is not None and not instance.over:
            self._hub.end(instance, failed=why)

    async def forget(self, before: datetime) -> int:
        return 0


def rig(seed: int, chances: Chances | None = None, **changes: Any) -> Rig:
    """A world without a cluster as yet; `changes` are of its settings."""
    source = random.Random(seed)
    store, backend = memory_store()
    chosen = settings.load(SETTINGS).model_copy(update=changes)
    azure = SmallAzure(source)
    services = Services(cast("Any", azure), store, chosen)
    connections = Connections(chosen)
    connections._services = services

    async def carry_out(name: str, job: Json) -> Json:
        return await durable.carry_out(connections, name, job)

    made = Rig(azure, store, backend, services, Hub(ORCHESTRATORS, carry_out, source, chances), source)
    made.services = replace(services, on_findings=made.told.extend, on_run=made.runs.append)
    connections._services = made.services
    return made
