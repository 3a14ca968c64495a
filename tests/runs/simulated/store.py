"""A store in memory, in the loop's own thread; and one that goes away for a while."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from shared.errors import StoreError
from shared.store import Store
from shared.store.sqlite import SqliteBackend, _prepare


class _Inline(Executor):
    """Runs what it is given at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class Memory(SqliteBackend):
    """`trouble` is told the name of every call, before it and after it, and may raise; calls take `seconds`."""

    def __init__(self) -> None:
        path = Path(":memory:")
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        _prepare(connection, path)
        super().__init__(path, connection, _Inline())  # type: ignore[arg-type]
        self.trouble: Callable[[], None] = lambda: None
        self.seconds: Callable[[], float] = lambda: 0.0
        self.calls = 0

    async def _run(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        self.calls += 1
        await asyncio.sleep(self.seconds())
        self.trouble()
        answer = await super()._run(work)
        # It may go wrong after it was done, too: the answer is lost then.
        self.trouble()
        return answer


def memory_store() -> tuple[Store, Memory]:
    """A store, and its backend."""
    backend = Memory()
    return Store(backend), backend


def away() -> None:
    """The trouble of a store that is not there."""
    raise StoreError("the store is not there", transient=True)
