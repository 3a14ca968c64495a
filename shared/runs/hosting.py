"""What the serverless host needs around activities: connections once a process, progress, and failures as data."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shared import telemetry
from shared.errors import GuardError, SettingsError, UsageError
from shared.runs import pace
from shared.runs.context import Json, first_line
from shared.runs.progress import PROGRESS, Progress
from shared.runs.waves import waves

if TYPE_CHECKING:
    from shared.azure import Stats
    from shared.models import Finding
    from shared.runs.services import Services
    from shared.settings import Settings

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often an activity is tried before it counts as failed; it picks up where it was, for it is idempotent."""

_BACK_OFF_SECONDS = 2.0
_SAVE_EVERY_SECONDS = 5.0


class Connections:
    """The process's one connection to Azure and to the store, opened when first asked for."""

    def __init__(self, settings: Settings, bad: SettingsError | None = None) -> None:
        self.settings = settings
        self.bad = bad
        self._opening = asyncio.Lock()
        self._open = AsyncExitStack()
        self._services: Services | None = None
        self._told: Stats | None = None

    async def services(self) -> Services:
        """The connections. Raises CredentialError or StoreError, and may then be asked again.

        Raises SettingsError where a setting is bad.
        """
        if self.bad is not None:
            raise SettingsError(str(self.bad))
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
                    self._services = Services(azure, store, settings)
                    self._open = opened.pop_all()
            return self._services

    async def close(self) -> None:
        """Close what is open."""
        self._services = None
        await self._open.aclose()

    def cost(self) -> tuple[int, int, float]:
        """Azure calls, waits for rate limits and seconds of waiting since this was last asked.

        Whoever asks takes them all: of two runs at once the sum is right, the share of each is not exact.
        """
        if self._services is None:
            return 0, 0, 0.0
        now, before = self._services.azure.stats, self._told
        self._told = now
        if before is None:
            return sum(now.calls.values()), now.waits, now.wait_seconds
        return (
            sum(now.calls.values()) - sum(before.calls.values()),
            now.waits - before.waits,
            now.wait_seconds - before.wait_seconds,
        )


async def carry_out(connections: Connections, name: str, job: Json) -> Json:
    """Carry out an activity of the registry: its result, or `{"failed": why}` after several attempts.

    So that an orchestrator deals with one failed part and goes on with the others.
    """
    from shared.runs.activities import ACTIVITIES

    if connections.bad is not None:
        log.error("run %s: %s: %s", job.get("run_id"), name, connections.bad)
        return {"failed": first_line(connections.bad)}
    failed = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(_BACK_OFF_SECONDS * 2 ** (attempt - 1))
        try:
            services = await connections.services()
            async with _reporting(connections, services, name, job) as (heard, tally):
                result = await ACTIVITIES[name](heard, job)
                tally.on_result(services.settings, name, job, result)
            return result
        except UsageError as error:
            return {"failed": first_line(error)}
        except Exception as error:
            # Bounded: an orchestrator keeps it in its history.
            failed = f"{type(error).__name__}: {first_line(error)}"
            log.exception("run %s: %s failed (attempt %d of %d)", job.get("run_id"), name, attempt + 1, ATTEMPTS)
    return {"failed": failed}


@dataclass(slots=True)
class _Tally:
    """What an activity's callbacks told, and when what it began is expected to be over."""

    found: int = 0
    done: int = 0
    waves: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    until: datetime | None = None

    def on_found(self, nodes: int) -> None:
        self.found += nodes

    def on_findings(self, findings: list[Finding]) -> None:
        telemetry.tell_findings(findings)
        self.statuses.update(str(finding.status) for finding in findings)
        self.outcomes.update(str(finding.outcome) for finding in findings if finding.outcome is not None)
        self.done += len({(finding.scale_set, finding.instance_id) for finding in findings if finding.instance_id})

    def on_result(self, settings: Settings, name: str, job: Json, result: Json) -> None:
        if name == "discover" and result["batches"]:
            seconds = pace.starts(result["batches"])[-1] + settings.command_seconds * 1.5
            self.until = datetime.now(UTC) + timedelta(seconds=seconds)
        elif name == "fix_wave":
            self.waves = 1
            request, left = job["request"], job["nodes"] - job["first"] - job["count"]
            ahead = 0 if result["stop"] else len(waves(left, request["max_unavailable"], canary=False))
            each = request["pause_seconds"] + settings.settle_seconds + settings.command_seconds * 1.5
            self.until = datetime.now(UTC) + timedelta(seconds=ahead * each)


@contextlib.asynccontextmanager
async def _reporting(
    connections: Connections, services: Services, name: str, job: Json
) -> AsyncIterator[tuple[Services, _Tally]]:
    """Services whose callbacks keep the progress row of this part of the run up to date."""
    tally, part = _Tally(), _part(name, job)
    calls, waits, seconds = 0, 0, 0.0

    async def save() -> None:
        nonlocal calls, waits, seconds
        # Nothing to tell: a part that is repeated, and has nothing left to do, must not wipe out what it told before.
        if not (tally.found or tally.done or tally.statuses):
            return
        more = connections.cost()
        calls, waits, seconds = calls + more[0], waits + more[1], seconds + more[2]
        row = Progress(
            tally.found,
            tally.done,
            tally.waves,
            dict(tally.statuses),
            dict(tally.outcomes),
            tally.until,
            calls,
            waits,
            seconds,
        )
        await services.store.save_progress(job["run_id"], part, PROGRESS.dump_python(row, mode="json"))

    async def save_now_and_then() -> None:
        while True:
            await asyncio.sleep(_SAVE_EVERY_SECONDS)
            try:
                await save()
            except GuardError as error:
                log.warning("progress was not saved, and will be later: %s", error)

    saving = asyncio.create_task(save_now_and_then())
    try:
        yield replace(services, on_found=tally.on_found, on_findings=tally.on_findings), tally
    finally:
        saving.cancel()
        await asyncio.wait([saving])
    await save()


def _part(name: str, job: Json) -> str:
    where = [str(job[key]) for key in ("subscription", "batch", "pool", "first") if key in job]
    return "/".join([name, *where])
