"""The store for work that may wait: what fails for a while only is tried again, for minutes."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeVar

from shared.errors import CredentialError, StoreError
from shared.store.backend import Backend, Page, Row, Stored, Table, Where
from shared.store.store import Store

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 900.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 20.0

_T = TypeVar("_T")


def patient(store: Store, seconds: float = PATIENCE_SECONDS, *, pause: Callable[[int], float] | None = None) -> Store:
    """The same store, whose every read and write is tried again for `seconds` where it is away or busy.

    A write that was in although its answer was lost is met as our own. What a try says that more of them cannot mend
    (`StoreError.transient`) is raised at once. A credential counts as transient: it was good when the store was opened.
    `pause` gives the seconds before the nth further try (from 0).
    """
    return Store(_Patient(store.backend, seconds, pause or pause_before))


def pause_before(again: int) -> float:
    """Seconds before the nth further try (from 0): doubling from 0.5 to 20, less up to half of it by chance."""
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(again, 10)) * random.uniform(0.5, 1)  # noqa: S311 - no secret


class _Patient:
    """`Backend` over another one."""

    def __init__(self, backend: Backend, seconds: float, pause: Callable[[int], float]) -> None:
        self._backend = backend
        self._seconds = seconds
        self._pause = pause

    async def _tried(self, call: Callable[[], Awaitable[_T]]) -> _T:
        deadline, again = 0.0, 0
        while True:
            try:
                value = await call()
            except (StoreError, CredentialError) as error:
                if isinstance(error, StoreError) and not error.transient:
                    raise
                now = time.monotonic()
                if again == 0:
                    deadline = now + self._seconds
                    log.warning("the store is tried again for up to %.0f s: %s", self._seconds, error)
                pause = self._pause(again)
                if now + pause > deadline:
                    raise
                again += 1
            else:
                if again:
                    log.warning("the store is there again, after %d more tries", again)
                return value
            await asyncio.sleep(pause)

    async def put(self, table: Table, partition: str, rows: Mapping[str, Row]) -> None:
        return await self._tried(lambda: self._backend.put(table, partition, rows))

    async def insert(self, table: Table, partition: str, row: str, data: Row, writer: str) -> str | None:
        return await self._tried(lambda: self._backend.insert(table, partition, row, data, writer))

    async def replace(self, table: Table, partition: str, row: str, data: Row, etag: str, writer: str) -> str | None:
        return await self._tried(lambda: self._backend.replace(table, partition, row, data, etag, writer))

    async def get(self, table: Table, partition: str, row: str) -> Stored | None:
        return await self._tried(lambda: self._backend.get(table, partition, row))

    async def ranges(self, table: Table, partition: str, ranges: Sequence[tuple[str, str]]) -> tuple[Stored, ...]:
        return await self._tried(lambda: self._backend.ranges(table, partition, ranges))

    async def delete(self, table: Table, partition: str, rows: Collection[str], etag: str | None = None) -> None:
        return await self._tried(lambda: self._backend.delete(table, partition, rows, etag))

    async def query(
        self, table: Table, where: Where, limit: int, continuation: str | None = None, *, data: bool = True
    ) -> Page:
        return await self._tried(lambda: self._backend.query(table, where, limit, continuation, data=data))
