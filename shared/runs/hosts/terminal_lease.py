"""One run fixes a subscription at a time: how a fix in a terminal keeps to that, towards the app and other terminals.

The app goes by the records of runs, under the claim that starting.py takes for a start, and so does this. A terminal's
fix holds a lease besides, so that one whose process died is told from one that goes.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NoReturn

from shared.errors import GuardError, UsageError
from shared.models import Run, RunState, Starter
from shared.runs.hosts import leases, starting
from shared.runs.services import Services
from shared.store import Store

_RENEWALS = 6


async def alone(services: Services, run: Run, work: Callable[[], Awaitable[Run]]) -> Run:
    """Record the fix `run` as going, and give the result of `work`, with no other fix of its subscriptions meanwhile.

    Raises UsageError where another one is going or fixes are held (nothing is recorded then), CrowdedError where others
    are starting, and GuardError where the lease was lost.
    """
    store = services.store
    held = await store.hold()
    if held is not None:
        raise UsageError(f"{starting.held_words(held)}. Release them with: kubelet-guard hold --release")
    owner = f"{socket.gethostname()}, process {os.getpid()} ({secrets.token_hex(3)})"
    lease = leases.name(run.id)

    async def look() -> list[Run]:
        return await _in_the_way(store, run)

    async def record() -> None:
        if not await store.claim(lease, owner, leases.LEASE_SECONDS):
            raise UsageError(_going(run, await store.holder(lease)))
        if not await _recorded(store, run):
            raise UsageError(f"the fix {run.id} was gone on with elsewhere in this moment; look again")

    try:
        await starting.record_alone(services, owner, look, record)
        return await _while_renewed(store, lease, owner, work)
    finally:
        await store.release(lease, owner)


async def _recorded(store: Store, run: Run) -> bool:
    """Record a new run, or that one is gone on with that nobody has begun anew meanwhile."""
    if run.epoch == 0:
        await store.save_run(run)
        return True

    def gone_on_with(known: Run) -> Run | None:
        return run if known.epoch == run.epoch - 1 and known.state is not RunState.COMPLETED else None

    return await store.change_run(run.id, gone_on_with) is not None


async def _in_the_way(store: Store, run: Run) -> list[Run]:
    """Fixes of the same subscriptions whose terminal is gone. Raises UsageError where one goes, or what it has left."""
    lost: list[Run] = []
    # No default: what an app that was asked for "all" looks into is not known here.
    for other in await starting.going(store):
        if other.id == run.id or not starting.same_scope(run, other, ()):
            continue
        if other.by is not Starter.TERMINAL:
            raise UsageError(
                f"the fix {other.id} of the app is {state_words(other)} on the same subscriptions;"
                f" wait for its end, or cancel it: POST /api/runs/{other.id}/cancel"
            )
        holder = await leases.holder(store, other.id)
        if holder is not None:
            raise UsageError(_going(other, holder))
        lost.append(other)
    left = await starting.left_going(store, run, (), datetime.now(UTC))
    if left is not None:
        raise UsageError(
            f"the fix {left.id} on the same subscriptions has ended, and what it had begun may still go on; try again"
            f" in {leases.LEASE_SECONDS / 60:.0f} minutes"
        )
    return lost


def state_words(run: Run) -> str:
    """A run's state, as it stands in a sentence."""
    return run.state.replace("_", " ")


def _going(run: Run, holder: str | None) -> str:
    return (
        f"the fix {run.id} is going on the same subscriptions: {holder}; wait for its end, or stop it there with"
        f" Ctrl-C. Where that process is gone, try again in {leases.LEASE_SECONDS / 60:.0f} minutes"
    )


async def _while_renewed(store: Store, lease: str, owner: str, work: Callable[[], Awaitable[Run]]) -> Run:
    working = asyncio.ensure_future(work())
    renewing = asyncio.create_task(_renew(store, lease, owner))
    tasks: tuple[asyncio.Future[Any], ...] = (working, renewing)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            renewing.result()  # the lease is lost
        return working.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _renew(store: Store, lease: str, owner: str) -> NoReturn:
    """Renew the lease until cancelled. Raises GuardError where it is lost.

    While the store is away nobody can take it over there, and no command is sent without a word to the store.
    """
    while True:
        await asyncio.sleep(leases.LEASE_SECONDS / _RENEWALS)
        if not await store.claim(lease, owner, leases.LEASE_SECONDS):
            raise GuardError(f"{lease} was taken over by {await store.holder(lease)}: this process slept too long")
