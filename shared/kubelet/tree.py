"""A parsed document: JSON's kinds of value, each with its place in the text it came from.

A value that YAML's aliases share is one `Node`, and a document may be nested 10,000 deep, so whoever walks through one
does it by `bottom_up`, or else without recursion.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from shared.kubelet.source import Source

Kind = Literal["null", "bool", "number", "string", "array", "object"]
Made = TypeVar("Made")

# The kubelet's own bound (Go's encoding/json, and go-yaml): 10,000 levels are taken.
MAX_DEPTH: Final = 10_000


class DocumentError(ValueError):
    """A document that cannot be read; the message is close to the kubelet's own words."""


class LimitError(DocumentError):
    """A document that a kubelet may well take, and that is beyond what we read."""


class Budget:
    """What we read of one kubelet's command line and of all its config files; a real one has 4 KB of each.

    Counted, not timed: the worst that is within it costs 2 s and 100 MB at most.
    """

    ARGUMENTS: Final = 128 * 1024
    TEXT: Final = 256 * 1024
    VALUES: Final = 40_000

    def __init__(self) -> None:
        self._text = 0
        self._values = 0

    @property
    def counted(self) -> int:
        """The values so far."""
        return self._values

    @classmethod
    def arguments(cls, argv: Sequence[str]) -> None:
        """Raises LimitError where the command line is too long."""
        if sum(map(len, argv)) + len(argv) > cls.ARGUMENTS:
            raise LimitError(f"the command line has more than {cls.ARGUMENTS} characters, which is a limit of ours")

    def text(self, text: str) -> None:
        """Counts a file's text. Raises LimitError."""
        self._text += len(text)
        if self._text > self.TEXT:
            raise LimitError(f"the config files have more than {self.TEXT} characters, which is a limit of ours")

    def values(self, more: int = 1) -> None:
        """Counts values, those behind an alias each time they count. Raises LimitError."""
        self._values += more
        if self._values > self.VALUES:
            raise LimitError(f"the config files have more than {self.VALUES} values, which is a limit of ours")


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One value. `text` holds a number's digits or a string; `span` is None for values that no file holds."""

    kind: Kind
    source: Source
    span: tuple[int, int] | None = None
    text: str = ""
    truth: bool = False
    items: tuple[Node, ...] = ()
    members: tuple[tuple[str, Node], ...] = ()

    @property
    def children(self) -> tuple[Node, ...]:
        return self.items or tuple(value for _, value in self.members)


def bottom_up(root: Node, make: Callable[[Node, tuple[Made, ...]], Made]) -> Made:
    """What `make` makes of the root, given what it made of its children; a shared node is made once."""
    made: dict[int, Made] = {}
    open_nodes = [root]
    while open_nodes:
        node = open_nodes[-1]
        if id(node) in made:
            open_nodes.pop()
            continue
        children = node.children
        waiting = [child for child in children if id(child) not in made]
        if waiting:
            open_nodes.extend(reversed(waiting))
            continue
        made[id(node)] = make(node, tuple(made[id(child)] for child in children))
        open_nodes.pop()
    return made[id(root)]


def with_children(node: Node, children: tuple[Node, ...]) -> Node:
    """The node with other children in the places of its own."""
    if node.items:
        return Node("array", node.source, node.span, items=children)
    members = tuple((name, child) for (name, _), child in zip(node.members, children, strict=True))
    return Node("object", node.source, node.span, members=members)


class Lines:
    """The line of a character index (1-based), for one text."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._starts = [0]
        self._sources: dict[int, Source] = {}
        at = text.find("\n")
        while at >= 0:
            self._starts.append(at + 1)
            at = text.find("\n", at + 1)

    def source(self, index: int) -> Source:
        line = bisect_right(self._starts, index)
        found = self._sources.get(line)
        if found is None:
            found = self._sources[line] = Source("file", path=self._path, line=line)
        return found


def last_member(node: Node, key: str) -> Node | None:
    """The value of `key` in an object, the last where the key is doubled; None where there is none."""
    found = None
    for name, value in node.members:
        if name == key:
            found = value
    return found
