"""A store that goes and comes back: a backend whose calls fail for some seconds, some of them after they were done."""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from shared.errors import StoreError
from shared.store import Store


class Weather:
    """Whether the store answers: with each call whose number is in `outages` it goes, for so many seconds.

    Calls count while it is `up` only. `refused` counts the calls that it did not answer.
    """

    def __init__(self, seed: int, outages: Mapping[int, float], *, up: bool = True) -> None:
        self.refused = 0
        self.up = up
        self._chance = random.Random(seed)
        self._outages = outages
        self._calls = 0
        self._back = 0.0

    def strikes(self) -> bool:
        """Whether this call fails. A call that fails does not count."""
        if not self.up:
            return False
        now = time.monotonic()
        if now >= self._back:
            self._calls += 1
            self._back = now + self._outages.get(self._calls, 0.0)
        if now >= self._back:
            return False
        self.refused += 1
        return True

    def too_late(self) -> bool:
        """Whether a call that fails was carried out before."""
        return self._chance.random() < 0.25


class Flaky:
    """A backend before which the weather stands. What it does not fail, it hands on."""

    def __init__(self, backend: Any, weather: Weather) -> None:
        self._backend = backend
        self._weather = weather

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._backend, name)
        if not inspect.iscoroutinefunction(real):
            return real

        async def call(*args: Any, **kwargs: Any) -> Any:
            if not self._weather.strikes():
                return await real(*args, **kwargs)
            if self._weather.too_late():
                await real(*args, **kwargs)  # it is done, but nobody hears of it
            error = StoreError("the soak's store is away")
            error.transient = True
            raise error

        return call


def flaky(
    real: Callable[..., AbstractAsyncContextManager[Store]], weather: Weather
) -> Callable[..., AbstractAsyncContextManager[Store]]:
    """`open_store` with the weather before what it opens."""

    @asynccontextmanager
    async def opened(*args: Any, **kwargs: Any) -> AsyncIterator[Store]:
        async with real(*args, **kwargs) as store:
            yield type(store)(Flaky(store.backend, weather))

    return opened
