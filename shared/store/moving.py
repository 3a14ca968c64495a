"""A store of an earlier version moves over when it is opened; one of a later version is refused.

Schema 1 is 0.1.0's (which wrote no number to Azure Tables). Schema 2 has history as what is so now and as changes, in
other rows; everything else is read as it was written.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections import Counter
from dataclasses import dataclass

from shared.errors import StoreError
from shared.store import histories
from shared.store.backend import MAX_PAGE, SCHEMA, Row, Table, Where
from shared.store.codec import decode, encode
from shared.store.store import META, Store

log = logging.getLogger(__name__)

_SCHEMA = "schema"
_CLAIM = "move"
_CLAIM_SECONDS = 120.0
_LOOK_SECONDS = 0.5
# How long one that is opened waits for another that moves the store over.
_WAIT_SECONDS = 900.0
# The keys of schema 1 begin with a hexadecimal digit, those of schema 2 with a later letter.
_FIRST_SCHEMA = Where(last="f")


@dataclass(frozen=True, slots=True)
class _Schema:
    schema: int


async def settle(store: Store, shown: str) -> None:
    """See that the store has this version's schema, moving it over where it has an earlier one.

    May be cut and made again. Of several that open a store at once one moves it, and the others wait. `shown` is where
    the store is, for people. Raises StoreError where its schema is newer, or where another did not end moving it.
    """
    owner = f"{socket.gethostname()}, process {os.getpid()} ({secrets.token_hex(3)})"
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        stored = await store.backend.get(Table.CLAIMS, META, _SCHEMA)
        number = 1 if stored is None else decode(_Schema, stored.data, "the schema's number").schema
        if number > SCHEMA:
            raise newer(shown, number)
        if number == SCHEMA:
            return
        if await store.claim(_CLAIM, owner, _CLAIM_SECONDS):
            break
        if time.monotonic() > deadline:
            raise StoreError(
                f"the store {shown} is being moved over by {await store.holder(_CLAIM)}; try again when it has ended",
                transient=True,
            )
        await asyncio.sleep(_LOOK_SECONDS)
    try:
        await _move_history(store, owner, shown)
        await store.backend.put(Table.CLAIMS, META, {_SCHEMA: Row(encode(_Schema(SCHEMA)))})
    finally:
        await store.release(_CLAIM, owner)


def newer(shown: str, number: int) -> StoreError:
    """What is said of a store of a later version."""
    return StoreError(
        f"the store {shown} has schema {number}, this version knows up to {SCHEMA}; update, or name another store"
    )


async def _move_history(store: Store, owner: str, shown: str) -> None:
    moved: Counter[str] = Counter()
    while True:
        page = await store.backend.query(Table.HISTORY, _FIRST_SCHEMA, MAX_PAGE)
        if not page.rows:
            break
        if not await store.claim(_CLAIM, owner, _CLAIM_SECONDS):
            raise StoreError(f"the store {shown} is being moved over by another process; try again", transient=True)
        await store.save_history([histories.read(stored.data, stored.row) for stored in page.rows])
        # Last: until here it can be made again.
        partitions: dict[str, list[str]] = {}
        for stored in page.rows:
            partitions.setdefault(stored.partition, []).append(stored.row)
        for partition, rows in partitions.items():
            await store.backend.delete(Table.HISTORY, partition, rows)
            moved[partition] += len(rows)
    if moved:
        log.warning("the store %s was moved over to schema %d: %d rows of history", shown, SCHEMA, moved.total())
