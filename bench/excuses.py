"""What struck each node, and which of it may leave the node without a verdict (pure)."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.storms import POLL, START
from sandbox import Fault

# So many of a kind on a node are too many: answers of no use in a row, looks that find nothing.
_REFUSALS, _MISSES = 3, 2
# A list, or a look at one resource, is given up after so many faults in a row, or two refused tokens. Two callers may
# ask for the same side by side, so what counts is how many there were among the last calls.
_FAULTS, _TOKENS, _CALLS = 4, 2, 8
# What is given up after long enough is not struck for so long.
_MOST = {START: 12, POLL: 16}


@dataclass
class Excuses:
    """`node_of` gives the name of the node that a call is about, by the call's kind and path ('' for none).

    `given_up` are the paths of lists and other reads that may well have come to nothing. When the waves of a fix begin,
    `struck` and `given_up` begin anew, and `surveyed` and `unlisted` are what they were.
    """

    node_of: Callable[[str, str], str]
    struck: Counter[tuple[str, str]] = field(default_factory=Counter)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    given_up: set[str] = field(default_factory=set)
    surveyed: Counter[tuple[str, str]] | None = None
    unlisted: set[str] | None = None
    _others: defaultdict[str, deque[str]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=_CALLS)))

    def begin_waves(self) -> None:
        """The survey is over: what struck it excuses no fix, and does not use up what a node bears."""
        self.surveyed, self.unlisted = Counter(self.struck), set(self.given_up)
        self.struck.clear()
        self.calls.clear()
        self.given_up.clear()
        self._others.clear()

    def room(self, kind: str, path: str) -> bool:
        """Whether one more fault may strike this call: on a node there are not so many that it is given up for them."""
        return kind not in _MOST or self.calls[self.node_of(kind, path), kind] < _MOST[kind]

    def passed(self, kind: str, path: str) -> None:
        """No fault has struck a call."""
        if kind not in (POLL, START):
            self._others[path.lower()].append("")

    def heed(self, kind: str, path: str, fault: Fault, *, old: bool) -> None:
        """A fault has struck a call; `old`: one about a command that is over its time."""
        if kind not in (POLL, START):
            self._heed_other(path.lower(), fault)
            return
        node = self.node_of(kind, path)
        what = _harm(kind, fault)
        self.calls[node, kind] += 1
        if what == "going":
            what = "stale" if old else ""
        if what:
            self.struck[node, what] += 1

    def _heed_other(self, path: str, fault: Fault) -> None:
        status = fault.status or 0
        harmless = fault.drop is None and not status
        last = self._others[path]
        last.append("" if harmless else "token" if status == 401 else "fault")
        nothing = 200 <= status < 300
        if nothing or len([what for what in last if what]) >= _FAULTS or last.count("token") >= _TOKENS:
            self.given_up.add(path)

    def doubts(self, node: str) -> int:
        """How often a command may have been taken without a word: then a look may be sent again while it goes."""
        return sum(struck[node, "doubtful"] for struck in (self.struck, self.surveyed) if struck is not None)

    def verdict(self, node: str, *, late: bool = False) -> bool:
        """Whether the survey (a `late` one: made after the waves of a fix) may end without a verdict on the node."""
        if self.surveyed is None or late:
            return _no_verdict(self.struck, node)
        return _no_verdict(self.surveyed, node)

    def listing(self, *words: str, late: bool = False) -> bool:
        """Whether the survey may not have listed what these words are all in the path of."""
        paths = self.given_up if self.unlisted is None or late else self.unlisted
        return any(all(word.lower() in path for word in words) for path in paths)

    def fix(self, node: str) -> bool:
        """Whether a fix of the node may end otherwise than well: what changes a node is sent once."""
        return _no_verdict(self.struck, node) or self.struck[node, "doubtful"] > 0 or self.struck[node, "half"] > 0

    def wave(self, *places: str) -> bool:
        """Whether a wave may not have seen what one of these words is in the path of."""
        return any(place.lower() in path for place in places for path in self.given_up)


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
