"""The serverless app's side of runs: connections once a process, and steps carried out under their run's lease."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from shared import telemetry
from shared.errors import GuardError, SettingsError
from shared.runs.orchestrators.hand import first_line

if TYPE_CHECKING:
    from shared.runs.services import Services
    from shared.settings import Settings


log = logging.getLogger(__name__)


class Connections:
    """The process's one connection to Azure and to the store, and the catalogue that it judges by, each had when first
    asked for."""

    def __init__(self, settings: Settings, bad: SettingsError | None = None) -> None:
        self.settings = settings
        self.bad = bad
        self._reading = asyncio.Lock()
        self._read = False
        self._opening = asyncio.Lock()
        self._open = AsyncExitStack()
        self._services: Services | None = None

    async def catalogue(self) -> None:
        """See to it that this process judges by the catalogue that the settings name.

        Raises SettingsError where a setting is bad, the catalogue among them; CredentialError or BlobError where that
        cannot be had now. What is wrong with a catalogue is cured without a restart: ask again.
        """
        if self.bad is not None:
            raise SettingsError(str(self.bad))
        async with self._reading:
            if not self._read:
                from shared.runs.hosts.own_catalogue import install_own

                await install_own(self.settings)
                self._read = True

    async def services(self) -> Services:
        """The connections. Raises CredentialError or StoreError, and may then be asked again; and as `catalogue`."""
        await self.catalogue()
        async with self._opening:
            if self._services is None:
                from shared.azure import Azure
                from shared.runs.services import Services
                from shared.store import open_store

                telemetry.quiet_libraries()
                async with AsyncExitStack() as opened:
                    settings = self.settings
                    location = settings.store.get_secret_value()
                    store = await opened.enter_async_context(open_store(location, authority=settings.authority))
                    azure = await opened.enter_async_context(Azure(settings))
                    self._services = Services(
                        azure,
                        store,
                        settings,
                        on_findings=telemetry.tell_findings,
                        on_run=telemetry.tell_run,
                        on_refusal=telemetry.tell_refusal,
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

    if connections.bad is not None:
        log.error("run %s: %s: %s", job.get("run_id"), name, connections.bad)
        telemetry.tell_refusal(job.get("run_id") or "", connections.bad)
        return {"failed": first_line(connections.bad), "again": False}
    try:
        services = await connections.services()
        services = replace(services, store=patient(services.store))
        ours = await leases.renew(services.store, job["run_id"])
    except GuardError as error:
        if isinstance(error, SettingsError):
            log.error("run %s: %s: %s", job.get("run_id"), name, error)
        telemetry.tell_refusal(job.get("run_id") or "", error)
        return {"failed": first_line(error), "again": True}
    if not ours:
        return {"failed": f"the run {job['run_id']} is carried out by another one, not by the app", "again": True}
    answer = await carrying.carry_out(services, name, job)
    if name == "finish" and "failed" not in answer:
        await leases.release(services.store, job["run_id"])
    return answer
