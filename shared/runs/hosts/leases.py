"""Who carries out a run: a lease that is renewed while it goes, so that one whose process died is told from one that
goes, and what a stopped one has left going is waited for."""

from __future__ import annotations

import time

from shared.store import Store

LEASE_SECONDS = 180.0
"""How long a run is believed to be going after it last said so: well above the difference of two clocks."""

APP = "the app"
"""The holder of the leases of the app's runs, whichever of its processes carries a step out."""

_RENEW_SECONDS = 45.0
_renewed: dict[str, float] = {}


def name(run_id: str) -> str:
    """The claim's name."""
    return f"lease/{run_id}"


async def holder(store: Store, run_id: str) -> str | None:
    """Who carries the run out now, as far as is known."""
    return await store.holder(name(run_id))


async def renew(store: Store, run_id: str) -> bool:
    """Say that the app carries this run out; said again only when it is time to. False where another one does."""
    now = time.monotonic()
    if now - _renewed.get(run_id, -_RENEW_SECONDS) < _RENEW_SECONDS:
        return True
    if not await store.claim(name(run_id), APP, LEASE_SECONDS) and await holder(store, run_id) != APP:
        return False
    # Behind the claim: one that could not be made is made again by the next step.
    if len(_renewed) > 1000:
        _renewed.clear()
    _renewed[run_id] = now
    return True


async def release(store: Store, run_id: str) -> None:
    """Say that a run of the app has come to its end, and left nothing going."""
    _renewed.pop(run_id, None)
    await store.release(name(run_id), APP)
