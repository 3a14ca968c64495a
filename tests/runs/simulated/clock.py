"""Virtual time: an event loop whose clock jumps to the next timer as soon as nothing is left to do."""

from __future__ import annotations

import asyncio
import selectors
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest.mock import patch

from tests.support.findings import NOW

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """It never sleeps: what would be waited for has passed."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if ready or timeout is None or timeout <= 0:
            if not ready and timeout is None:
                raise RuntimeError("nothing will ever happen again: something waits for good")
            return ready
        self.passed += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its `time` begins at 0."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.passed


def now() -> datetime:
    """The virtual time, in a virtual loop."""
    return NOW + timedelta(seconds=asyncio.get_running_loop().time())


class _Clock(datetime):
    """What modules have in the place of `datetime`; only `now` is another."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        assert tz is UTC
        return now()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Callable[[Any], Any]) -> Any:
        # The store makes its schemas when they are first asked for: they are to be of real times.
        return handler(datetime)


@contextmanager
def _patched(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    with ExitStack() as patches:
        for name, module in list(sys.modules.items()):
            if name.startswith(("shared.runs.", "shared.store.")):
                if getattr(module, "datetime", None) is datetime and not name.endswith(".codec"):
                    patches.enter_context(patch.object(module, "datetime", _Clock))
                if hasattr(module, "time") and hasattr(module.time, "monotonic"):
                    patches.enter_context(patch.object(module, "time", SimpleNamespace(monotonic=loop.time)))
        yield


def virtually(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of `work`, which takes no real time to wait."""
    loop = VirtualLoop()
    try:
        with _patched(loop):
            return loop.run_until_complete(work())
    finally:
        loop.run_until_complete(_end_tasks())
        loop.close()


async def _end_tasks() -> None:
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
