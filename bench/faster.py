"""`python -m bench.faster SCALE[+AHEAD] EPOCH MODULE ARGUMENT…` runs a module whose clock goes SCALE times as fast,
and is AHEAD seconds ahead.

Waiting is what a run does most, so 10,000 nodes need not take the 17 minutes that Azure's limits ask for: the server's
buckets refill and its commands end faster by the same factor. What is measured in processor time stays as it is, so the
scale must leave the processor idle enough: a run that is bound by it shows in the table's column `busy`.

Replaced are Python's own clocks and how long an event loop sleeps, before anything else is imported; the module that
runs is untouched and knows nothing of it.
"""

from __future__ import annotations

import datetime
import runpy
import selectors
import sys
import time
from typing import Any

_real_datetime = datetime.datetime


class _Kind(type(_real_datetime)):  # type: ignore[misc]
    """A real datetime counts as one of the replacement."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _real_datetime)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _real_datetime)


def hasten(scale: float, epoch: float, ahead: float = 0.0) -> None:
    """Let this process's clocks go `scale` times as fast since `epoch` (seconds since 1970), `ahead` seconds ahead."""
    real_time, real_monotonic, real_sleep = time.time, time.monotonic, time.sleep
    offset = real_monotonic() - real_time()
    start = epoch + offset
    epoll = selectors.EpollSelector
    real_select = epoll.select

    def wall() -> float:
        return epoch + (real_time() - epoch) * scale + ahead

    def monotonic() -> float:
        return start + (real_monotonic() - start) * scale

    class Faster(_real_datetime, metaclass=_Kind):
        """`now` is the fast clock's; everything it makes is a plain datetime."""

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            return _real_datetime.__new__(_real_datetime if cls is Faster else cls, *args, **kwargs)

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return _real_datetime.fromtimestamp(wall(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return _real_datetime.fromtimestamp(wall(), datetime.UTC).replace(tzinfo=None)

    def select(self: selectors.EpollSelector, timeout: float | None = None) -> Any:
        return real_select(self, timeout if timeout is None else timeout / scale)

    time.time, time.monotonic = wall, monotonic
    time.sleep = lambda seconds: real_sleep(float(seconds) / scale)
    datetime.datetime = Faster  # type: ignore[misc]
    epoll.select = select  # type: ignore[method-assign, assignment]


def main() -> None:
    """Set the clocks, then run the module as `python -m` would."""
    speed, epoch, module, *arguments = sys.argv[1:]
    scale, _, ahead = speed.partition("+")
    if float(scale) != 1 or ahead:
        hasten(float(scale), float(epoch), float(ahead or 0))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
