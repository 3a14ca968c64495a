"""One run fixes a subscription at a time: how a fix in a terminal keeps to that, towards the app and other terminals.

The app goes by the records of runs, under the claim that starting.py takes for a start, and so does this. A terminal's
fix holds a lease besides, so that one whose process died is told from one that goes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NoReturn

from shared.errors import GuardError, StoreError, UsageError
from shared.models import Run, RunState
from shared.runs import starting
from shared.store import Store

log = logging.getLogger(__name__)

# How long a fix is believed to be going after its process last said so: well above the difference of two clocks.
_LEASE_SECONDS = 180.0
_RENEWALS = 6


async def alone(store: Store, run: Run, work: Callable[[], Awaitable[Run]]) -> Run:
    """Record the fix `run` as going, and give the result of `work`, with no other fix of its subscriptions meanwhile.

    Raises UsageError where another one is going (nothing is recorded then), CrowdedError where others are starting, and
    GuardError where the lease was lost.
    """
    owner = f"{socket.gethostname()}, process {os.getpid()} ({secrets.token_hex(3)})"
    lease = starting.lease(run.id)
    async with starting.turn(store, owner):
        for other in await starting.going(store):
            # No default: what an app that was asked for "all" looks into is not known here.
            if other.id != run.id and starting.same_scope(run, other, ()):
                await _step_over(store, other)
        if not await store.claim(lease, owner, _LEASE_SECONDS):
            raise UsageError(_going(run, await store.holder(lease)))
        await store.save_run(run)
    try:
        return await _while_renewed(store, lease, owner, work)
    finally:
        await store.release(lease, owner)


async def _step_over(store: Store, other: Run) -> None:
    """Record the end of a fix whose terminal is gone. Raises UsageError where it goes."""
    if "by" in other.request:
        raise UsageError(
            f"the fix {other.id} of the app is {other.state.replace('_', ' ')} on the same subscriptions;"
            f" wait for its end, or cancel it: POST /api/runs/{other.id}/cancel"
        )
    holder = await store.holder(starting.lease(other.id))
    if holder is not None:
        raise UsageError(_going(other, holder))
    error = "its terminal went away before it was over"
    await store.save_run(replace(other, state=RunState.FAILED, finished=datetime.now(UTC), error=error))


def _going(run: Run, holder: str | None) -> str:
    return (
        f"the fix {run.id} is going on the same subscriptions: {holder}; wait for its end, or stop it there with"
        f" Ctrl-C. Where that process is gone, try again in {_LEASE_SECONDS / 60:.0f} minutes"
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
    """Renew the lease until cancelled. Raises GuardError where it is lost."""
    renewed = time.monotonic()
    while True:
        await asyncio.sleep(_LEASE_SECONDS / _RENEWALS)
        try:
            held = await store.claim(lease, owner, _LEASE_SECONDS)
        except StoreError as error:
            if time.monotonic() - renewed > _LEASE_SECONDS * (_RENEWALS - 2) / _RENEWALS:
                raise
            log.warning("%s could not be renewed, and will be: %s", lease, error)
            continue
        if not held:
            raise GuardError(f"{lease} was taken over by {await store.holder(lease)}: this process slept too long")
        renewed = time.monotonic()
