"""Where a value comes from: a built-in default, a flag, or a place in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Source:
    """One origin of a value.

    kind "default": nothing else is set. kind "flag": `text` is the flag as it was given (two arguments joined by a
    space), `position` the index of its first argument in argv, `words` how many arguments it takes (1 or 2).
    kind "file": `path` and the 1-based `line` where the value starts.
    """

    kind: Literal["default", "flag", "file"]
    text: str = ""
    position: int = -1
    words: int = 0
    path: str = ""
    line: int = 0

    def __str__(self) -> str:
        if self.kind == "flag":
            return f"flag {self.text} (argument {self.position})"
        if self.kind == "file":
            return f"{self.path}:{self.line}"
        return "default"


DEFAULT = Source("default")


@dataclass(frozen=True, slots=True)
class Assignment:
    """One place that writes a setting.

    `span` is where the value stands in the file's text, (start, end) in characters; None for a flag. It is empty, right
    after the colon, where YAML leaves the value out. Of `&anchor value` it is the value, of `*alias` the alias.
    """

    source: Source
    value: object
    span: tuple[int, int] | None = None
