"""Which nodes are fixed next (pure): one function of the pools, the limits and the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Limits:
    """What a fix may do at once; see `FixRequest`. `max_unavailable` is a number, or a share such as `10%`."""

    max_unavailable: str
    max_failures: int
    canary: bool


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool in a fix: of `nodes` nodes `done` are over, and `wave` more are in hand now.

    `failures` fixes failed or were rolled back; `stop` says why no more may come; the next wave may come at
    `not_before`, and none while it `waits` for something else.
    """

    nodes: int
    done: int = 0
    wave: int = 0
    failures: int = 0
    stop: str = ""
    not_before: datetime | None = None
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Wave:
    """The next wave of the pool with this number: `count` nodes from the number `first` on."""

    pool: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Leaving:
    """The pool with this number is left alone from the node number `first` on, and why."""

    pool: int
    first: int
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done now, and when to decide again (None: when something that is in hand is over). `ask` are the pools
    whose next wave could begin, but for what they wait for."""

    waves: tuple[Wave, ...] = ()
    ask: tuple[int, ...] = ()
    leave: tuple[Leaving, ...] = ()
    again: datetime | None = None


def decide(pools: Sequence[Pool], limits: Limits, now: datetime) -> Decision:
    """The waves that begin now, and the pools that are left: all pools go side by side, each a wave at a time.

    A pool's first wave is one node where there is a canary. It is left at the first sign of trouble: its `stop`, or
    more failures than are allowed.
    """
    begin: list[Wave] = []
    ask: list[int] = []
    leave: list[Leaving] = []
    again: datetime | None = None
    for number, pool in enumerate(pools):
        if pool.wave or pool.done >= pool.nodes:
            continue
        stop = pool.stop or _too_many(pool.failures, limits)
        if stop:
            leave.append(Leaving(number, pool.done, stop))
        elif pool.not_before is not None and pool.not_before > now:
            again = pool.not_before if again is None else min(again, pool.not_before)
        elif pool.waits:
            ask.append(number)
        else:
            count = 1 if limits.canary and pool.done == 0 else at_once(pool.nodes, limits.max_unavailable)
            begin.append(Wave(number, pool.done, min(count, pool.nodes - pool.done)))
    return Decision(tuple(begin), tuple(ask), tuple(leave), again)


def _too_many(failures: int, limits: Limits) -> str:
    if failures <= limits.max_failures:
        return ""
    return f"{failures} fixes of this pool failed or were rolled back, more than the {limits.max_failures} allowed"


def at_once(nodes: int, max_unavailable: str) -> int:
    """How many of a pool's nodes may be in hand; of a share the whole part counts, at least one."""
    text = max_unavailable.removesuffix("%")
    return int(text) if text == max_unavailable else max(1, nodes * int(text) // 100)


def waves_left(nodes: int, done: int, limits: Limits) -> int:
    """How many waves a pool takes from here on, if nothing fails."""
    left = nodes - done
    canary = 1 if limits.canary and done == 0 and left > 0 else 0
    return canary + -(-max(0, left - canary) // at_once(nodes, limits.max_unavailable))
