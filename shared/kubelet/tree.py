"""A parsed document: JSON's kinds of value, each with its place in the text it came from."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Final, Literal

from shared.kubelet.source import Source

Kind = Literal["null", "bool", "number", "string", "array", "object"]

# Bounds on what a node may send; a real kubelet config has some hundred values, three levels deep, in 4 KB.
MAX_TEXT: Final = 256 * 1024
MAX_DEPTH: Final = 64
MAX_NODES: Final = 100_000


class DocumentError(ValueError):
    """A document that cannot be read; the message is close to the kubelet's own words."""


@dataclass(frozen=True, slots=True)
class Node:
    """One value. `text` holds a number's digits or a string; `span` is None for values that no file holds."""

    kind: Kind
    source: Source
    span: tuple[int, int] | None = None
    text: str = ""
    truth: bool = False
    items: tuple[Node, ...] = ()
    members: tuple[tuple[str, Node], ...] = ()


class Lines:
    """The line of a character index (1-based), for one text."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._starts = [0]
        at = text.find("\n")
        while at >= 0:
            self._starts.append(at + 1)
            at = text.find("\n", at + 1)

    def source(self, index: int) -> Source:
        return Source("file", path=self._path, line=bisect_right(self._starts, index))


def check_size(text: str) -> None:
    """Raises DocumentError where the text is larger than any kubelet config."""
    if len(text) > MAX_TEXT:
        raise DocumentError(f"the file has {len(text)} characters; a kubelet config has at most {MAX_TEXT}")


def last_member(node: Node, key: str) -> Node | None:
    """The value of `key` in an object, the last where the key is doubled; None where there is none."""
    found = None
    for name, value in node.members:
        if name == key:
            found = value
    return found
