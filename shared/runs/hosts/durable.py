"""The serverless app's side of runs: connections once a process, and a step carried out with its run's lease renewed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from shared import telemetry
from shared.errors import GuardError
from shared.runs.orchestrators.hand import first_line

if TYPE_CHECKING:
    from shared.runs.services import Services
    from shared.settings import Settings


class Connections:
    """The process's one connection to Azure and to the store, opened when first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._opening = asyncio.Lock()
        self._open = AsyncExitStack()
        self._services: Services | None = None

    async def services(self) -> Services:
        """The connections. Raises CredentialError or StoreError, and may then be asked again."""
        async with self._opening:
            if self._services is None:
                from shared.azure import Azure
                from shared.runs.services import Services
                from shared.store import open_store

                telemetry.quiet_libraries()
                async with AsyncExitStack() as opened:
                    settings = self.settings
                    store = await opened.enter_async_context(open_store(settings.store, authority=settings.authority))
                    azure = await opened.enter_async_context(Azure(settings))
                    self._services = Services(
                        azure, store, settings, on_findings=telemetry.tell_findings, on_run=telemetry.tell_run
                    )
                    self._open = opened.pop_all()
            return self._services

    async def close(self) -> None:
        """Close what is open."""
        self._services = None
        await self._open.aclose()


async def carry_out(connections: Connections, name: str, job: Any) -> Any:
    """Carry out a step: its answer, or a Failed; the run's lease is renewed when it is time to."""
    from dataclasses import replace

    from shared.runs.hosts import carrying, leases
    from shared.store import patient

    try:
        services = await connections.services()
        services = replace(services, store=patient(services.store))
        await leases.renew(services.store, job["run_id"])
    except GuardError as error:
        return {"failed": first_line(error), "again": True}
    answer = await carrying.carry_out(services, name, job)
    if name == "finish" and "failed" not in answer:
        await leases.release(services.store, job["run_id"])
    return answer
