"""Unit files: the settings that systemd reads in one, and where they are written (systemd.syntax(7))."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .budget import Budget
from .text import WHITESPACE, Composer, Lines, UnitError, Written, is_utf8

# systemd's read_line(): a NUL ends a line too, and different ends that follow each other are one.
_LINE = re.compile(r"([^\r\n\0]*)(\r\n\0|\r\0\n|\n\r\0|\n\0\r|\0\r\n|\0\n\r|\r\n|\r\0|\n\r|\n\0|\0\r|\0\n|\r|\n|\0|\Z)")
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class Setting:
    """One `key=value` line, continuations joined. `value` is stripped."""

    section: str
    key: str
    value: Written
    path: str
    line: int
    """1-based, the one the key is on."""
    after_equals: int
    """Offset just behind the `=`."""


def settings(path: str, text: str, budget: Budget) -> Iterator[Setting]:
    """All settings of a unit file in their order, those of sections that systemd does not know included.

    Raises UnitError where systemd gives up the file; what it yielded before that counts. Raises TooLarge.
    """
    lines = Lines(text)
    section: str | None = None
    for line in _logical_lines(path, text):
        stripped = line.strip()
        if not stripped:
            continue
        budget.make(1, path)
        where = f"{path}:{lines.at(stripped.starts[0])}"
        if not is_utf8(stripped.text):
            raise UnitError(f"{where}: not valid UTF-8; systemd refuses such a line, unless it is a comment")
        if stripped.text[0] == "[":
            if stripped.text[-1] != "]":
                raise UnitError(f"{where}: invalid section header; expected [NAME]")
            section = stripped.text[1:-1]
            continue
        equals = stripped.text.find("=")
        if section is None or equals <= 0:
            continue  # systemd ignores these with a warning
        yield Setting(
            section=section,
            key=stripped.text[:equals].strip(WHITESPACE),
            value=stripped.cut(equals + 1, len(stripped)).strip(),
            path=path,
            line=lines.at(stripped.starts[0]),
            after_equals=stripped.ends[equals],
        )


def _logical_lines(path: str, text: str) -> Iterator[Written]:
    """Lines with their continuations joined; comment lines are left out, also those within a continuation."""
    pending: Composer | None = None
    mark_seen = False
    for match in _LINE.finditer(text):
        line, start = match[1], match.start()
        if start == len(text):
            break
        if line.lstrip(WHITESPACE).startswith(("#", ";")):
            continue
        if not mark_seen and line.startswith(_BYTE_ORDER_MARK):
            mark_seen = True
            line, start = line[1:], start + 1
        if pending is None and not line.strip(WHITESPACE):
            continue
        pending = pending or Composer(path)
        if (len(line) - len(line.rstrip("\\"))) % 2:
            # The backslash of a continuation counts as a blank.
            pending.plain(line[:-1] + " ", start)
            continue
        pending.plain(line, start)
        yield pending.done()
        pending = None
    if pending:
        yield pending.done()


def since_reset(service: Sequence[Setting], *keys: str) -> list[Setting]:
    """The settings with these keys behind the last empty assignment to one of them, which resets the list."""
    kept: list[Setting] = []
    for setting in service:
        if setting.key not in keys:
            continue
        if setting.value:
            kept.append(setting)
        else:
            kept.clear()
    return kept
