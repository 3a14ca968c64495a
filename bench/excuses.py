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
    elsewhere: int = 0
    door: int = 0

    def room(self, kind: str, path: str) -> bool:
        """Whether one more fault may strike this call: on a node there are not so many that it is given up for them."""
        return kind not in _MOST or self.calls[self.node_of(kind, path), kind] < _MOST[kind]

    def heed(self, kind: str, path: str, fault: Fault, *, old: bool) -> None:
        """A fault has struck a call; `old`: one about a command that is over its time."""
        node = self.node_of(kind, path)
        what = _harm(kind, fault)
        if kind not in (POLL, START):
            self.elsewhere += 1
            self.door += kind == "subscriptions.list"
            return
        self.calls[node, kind] += 1
        if what == "going":
            what = "stale" if old else ""
        if what:
            self.struck[node, what] += 1

    def doubtful(self, node: str) -> bool:
        """Whether a command may have been taken without a word: then a look may be sent again while it goes."""
        return self.struck[node, "doubtful"] > 0

    def verdict(self, node: str) -> bool:
        """Whether a look at the node may end without a verdict."""
        count = {what: number for (name, what), number in self.struck.items() if name == node}
        return (
            "gone" in count
            or "nothing" in count
            or "stale" in count
            or count.get("half", 0) > 1
            or count.get("missed", 0) >= _MISSES
            or count.get("refused", 0) >= _REFUSALS
        )

    def fix(self, node: str) -> bool:
        """Whether a fix of the node may end otherwise than well: what changes a node is sent once."""
        return self.verdict(node) or self.doubtful(node) or self.struck[node, "half"] > 0


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
