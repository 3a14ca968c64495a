"""Deleting what is old: by the app's watchdog, and by the terminal, for there may be no app that does."""

from __future__ import annotations

from datetime import datetime, timedelta

from shared.settings import Settings
from shared.store import Store

# A claim of its own: the app's says that Durable Functions was tidied too.
_CLAIM = "tidy/terminal"
_EVERY = 20 * 3600.0
# More than a fleet of 100,000 nodes leaves in a day.
_PURGES = 50


async def tidy_here(store: Store, settings: Settings, now: datetime) -> None:
    """Once a day delete from the store what is older than it is kept for. Raises StoreError."""
    if not await store.claim(_CLAIM, now.isoformat(), _EVERY):
        return
    await purge(store, settings, now)


async def purge(store: Store, settings: Settings, now: datetime) -> None:
    """Delete from the store what is older than it is kept for. Raises StoreError."""
    keep, keep_work = timedelta(days=settings.keep_days), timedelta(days=settings.keep_work_days)
    for _ in range(_PURGES):
        if not (await store.purge(keep, keep_work, now)).more:
            return
