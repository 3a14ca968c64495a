"""Unit files: the settings that systemd reads in one, and where they are written (systemd.syntax(7))."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .text import WHITESPACE, Char, Lines, UnitError, plain, strip

_LINE = re.compile(r"([^\r\n]*)(\r\n|\n\r|\r|\n|\Z)")
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class Setting:
    """One `key=value` line, continuations joined. `value` is stripped."""

    section: str
    key: str
    value: tuple[Char, ...]
    path: str
    line: int
    """1-based, the one the key is on."""
    after_equals: int
    """Offset just behind the `=`."""


def settings(path: str, text: str) -> Iterator[Setting]:
    """All settings of a unit file in their order, those of sections that systemd does not know included.

    Raises UnitError where systemd gives up the file; what it yielded before that counts.
    """
    lines = Lines(text)
    section: str | None = None
    for line in _logical_lines(path, text):
        stripped = strip(line)
        if not stripped:
            continue
        if stripped[0].char == "[":
            if stripped[-1].char != "]":
                where = lines.at(stripped[0].start)
                raise UnitError(f"{path}:{where}: invalid section header; expected [NAME]")
            section = plain(stripped[1:-1])
            continue
        equals = next((i for i, char in enumerate(stripped) if char.char == "="), 0)
        if section is None or equals == 0:
            continue  # systemd ignores these with a warning
        yield Setting(
            section=section,
            key=plain(strip(stripped[:equals])),
            value=tuple(strip(stripped[equals + 1 :])),
            path=path,
            line=lines.at(stripped[0].start),
            after_equals=stripped[equals].end,
        )


def _logical_lines(path: str, text: str) -> list[list[Char]]:
    """Lines with their continuations joined; comment lines are left out, also those within a continuation."""
    lines: list[list[Char]] = []
    pending: list[Char] = []
    continued = False
    mark_seen = False
    for match in _LINE.finditer(text):
        line, start = match[1], match.start()
        if match.start() == len(text):
            break
        if line.lstrip(WHITESPACE).startswith(("#", ";")):
            continue
        if not mark_seen and line.startswith(_BYTE_ORDER_MARK):
            mark_seen = True
            line, start = line[1:], start + 1
        pending.extend(Char(char, path, start + i, start + i + 1) for i, char in enumerate(line))
        continued = _ends_escaped(pending)
        if continued:
            pending[-1] = pending[-1]._replace(char=" ")  # the backslash of a continuation counts as a blank
            continue
        lines.append(pending)
        pending = []
    if continued:
        lines.append(pending)
    return lines


def _ends_escaped(line: list[Char]) -> bool:
    backslashes = 0
    for char in reversed(line):
        if char.char != "\\":
            break
        backslashes += 1
    return backslashes % 2 == 1


def since_reset(service: Sequence[Setting], key: str) -> list[Setting]:
    """The settings with this key behind its last empty assignment, which resets a list."""
    kept: list[Setting] = []
    for setting in service:
        if setting.key != key:
            continue
        if setting.value:
            kept.append(setting)
        else:
            kept.clear()
    return kept
