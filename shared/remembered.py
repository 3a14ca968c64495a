"""A bounded memory of what pure functions gave: equal inputs are thought about once.

A key is the whole of what decides, compared as it is: nothing that a node sends can stand for anything else. What is
remembered is bounded in number and in weight, so that memory does not grow with the fleet, whatever the nodes send.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Made = TypeVar("Made")

_MEMORIES: list[Remembered[Any, Any]] = []


def forget() -> None:
    """Forget everything that this process remembers."""
    for memory in _MEMORIES:
        memory.clear()


def remembered_weight() -> int:
    """What all that this process remembers weighs together, about in bytes."""
    return sum(memory.weight for memory in _MEMORIES)


class Remembered(Generic[Key, Made]):
    """The answers to the last questions, at most `entries` of them and of `weight` together (about bytes).

    Made once, for a module. An answer that weighs more than a sixteenth of `weight` is not kept, so that one node
    cannot drive out all others' answers. What raises is not remembered. May be asked by several threads, which then may
    make an answer twice.
    """

    def __init__(self, entries: int, weight: int) -> None:
        self._entries = entries
        self._most = weight
        self._kept: OrderedDict[Key, tuple[Made, int]] = OrderedDict()
        self._lock = Lock()
        self.weight = 0
        """Of all that is kept now."""
        _MEMORIES.append(self)

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key, make: Callable[[], Made], weigh: Callable[[Made], int]) -> Made:
        """What `make` gives for this key, made now or before. `weigh` tells what it weighs, its key included."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found[0]
        made = make()
        weight = weigh(made)
        if weight > self._most // 16:
            return made
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made, weight
                self.weight += weight
            while len(self._kept) > self._entries or self.weight > self._most:
                _, (_, gone) = self._kept.popitem(last=False)
                self.weight -= gone
        return made

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self.weight = 0
