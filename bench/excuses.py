"""What struck each node, and which of it may leave the node without a verdict (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.storms import POLL, START
from sandbox import Fault

# So many of a kind on a node are too many: answers of no use in a row, looks that find nothing.
_REFUSALS, _MISSES = 3, 2
# What is given up after long enough is not struck for so long.
_MOST = {START: 12, POLL: 16}


@dataclass
class Excuses:
    """`node_of` gives the name of the node that a call is about, by the call's kind and path ('' for none)."""

    node_of: Callable[[str, str], str]
    struck: Counter[tuple[str, str]] = field(default_factory=Counter)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    surveyed: Counter[tuple[str, str]] | None = None
    elsewhere: int = 0
    in_waves: int = 0
    door: int = 0

    def begin_waves(self) -> None:
        """The survey is over: what struck it excuses no fix, and does not use up what a node bears."""
        self.surveyed = Counter(self.struck)
        self.struck.clear()
        self.calls.clear()

    def room(self, kind: str, path: str) -> bool:
        """Whether one more fault may strike this call: on a node there are not so many that it is given up for them."""
        return kind not in _MOST or self.calls[self.node_of(kind, path), kind] < _MOST[kind]

    def heed(self, kind: str, path: str, fault: Fault, *, old: bool) -> None:
        """A fault has struck a call; `old`: one about a command that is over its time."""
        node = self.node_of(kind, path)
        what = _harm(kind, fault)
        if kind not in (POLL, START):
            self.elsewhere += 1
            self.in_waves += self.surveyed is not None
            self.door += kind == "subscriptions.list"
            return
        self.calls[node, kind] += 1
        if what == "going":
            what = "stale" if old else ""
        if what:
            self.struck[node, what] += 1

    def doubtful(self, node: str) -> bool:
        """Whether a command may have been taken without a word: then a look may be sent again while it goes."""
        return any(struck[node, "doubtful"] for struck in (self.struck, self.surveyed) if struck is not None)

    def verdict(self, node: str) -> bool:
        """Whether the survey may end without a verdict on the node."""
        return _no_verdict(self.surveyed if self.surveyed is not None else self.struck, node)

    def fix(self, node: str) -> bool:
        """Whether a fix of the node may end otherwise than well: what changes a node is sent once."""
        return _no_verdict(self.struck, node) or self.struck[node, "doubtful"] > 0 or self.struck[node, "half"] > 0


def _no_verdict(struck: Counter[tuple[str, str]], node: str) -> bool:
    return (
        struck[node, "gone"] > 0
        or struck[node, "nothing"] > 0
        or struck[node, "stale"] > 0
        or struck[node, "half"] > 1
        or struck[node, "missed"] >= _MISSES
        or struck[node, "refused"] >= _REFUSALS
    )


def _harm(kind: str, fault: Fault) -> str:
    status = fault.status or 0
    if status == 401:
        return "refused"
    if kind == START:
        if status == 404:
            return "gone"
        return "doubtful" if fault.drop is not None or status >= 500 else ""
    if status == 404:
        return "missed"
    if fault.fields:
        return "half"
    if status in (200, 202):
        return "nothing" if fault.body == {} else "going"
    return ""
