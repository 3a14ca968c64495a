"""Environment files, as systemd reads them (systemd.exec(5), EnvironmentFile=). It is not a shell's syntax."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from .text import WHITESPACE, Composer, Lines, UnitError, Written, is_utf8

COMMENTS_END_SINCE = 254
"""The first systemd in which a backslash at the end of a comment line means nothing."""

_NEWLINE = "\n\r"
_COMMENT = "#;"
_ESCAPABLE_IN_DOUBLE_QUOTES = '"\\`$'


@dataclass(frozen=True, slots=True)
class Assignment:
    """One `NAME=value`. The name need not be a valid one; systemd drops such a variable later."""

    name: str
    value: Written
    path: str
    line: int
    """1-based, the one the name is on."""
    after_equals: int
    """Offset just behind the `=`."""
    end: int
    """Offset behind the last character of the assignment, quotes and trailing blanks included."""


class UnreadableFile(UnitError):
    """systemd cannot read this environment file: without `-` it fails the start, else it reads nothing of the file."""


class _State(Enum):
    BEFORE_NAME = auto()
    NAME = auto()
    BEFORE_VALUE = auto()
    VALUE = auto()
    SINGLE_QUOTES = auto()
    DOUBLE_QUOTES = auto()
    COMMENT = auto()


# As much as a state takes without leaving it.
_STAYS = {
    _State.BEFORE_NAME: re.compile(r"[ \t\n\r]+"),
    _State.NAME: re.compile(r"[^=\n\r]+"),
    _State.BEFORE_VALUE: re.compile(r"[ \t]+"),
    _State.VALUE: re.compile(r"[^\\\n\r]+"),
    _State.SINGLE_QUOTES: re.compile(r"[^']+"),
    _State.DOUBLE_QUOTES: re.compile(r'[^\\"]+'),
    _State.COMMENT: re.compile(r"[^\\\n\r]+"),
}


def _plain_line(text: str, pos: int, end: int) -> tuple[str, int, int] | None:
    """Name, start of the value and its end where this line is one assignment without quotes around its value and
    without a backslash, as nearly all are; None where it may be something else."""
    if text[pos] in _COMMENT or text[pos] in WHITESPACE or text.find("\\", pos, end) >= 0:
        return None
    equals = text.find("=", pos, end)
    if equals <= pos:
        return None
    value = text[equals + 1 : end]
    start = end - len(value.lstrip(" \t"))
    if value.lstrip(" \t")[:1] in ("'", '"'):
        return None
    return text[pos:equals].rstrip(WHITESPACE), start, max(start, equals + 1 + len(value.rstrip(WHITESPACE)))


def assignments(path: str, text: str, *, comments_continue: bool) -> Iterator[Assignment]:
    """All assignments of an environment file in their order.

    `comments_continue`: a backslash at the end of a comment line makes the next line a comment too. systemd did so
    up to version 253. Raises UnreadableFile for what systemd refuses: a NUL, and a name or a value that is not valid
    UTF-8 (what is in no assignment, as a comment, does not matter).
    """
    lines = Lines(text)
    if "\0" in text:
        where = f"{path}:{lines.at(text.index(chr(0)))}"
        raise UnreadableFile(f"{where}: holds a NUL byte; systemd reads no such file")
    state = _State.BEFORE_NAME
    name, name_at, after_equals = "", 0, 0
    value = Composer(path)
    kept = 0  # the value's length without the blanks at its end

    def finished(end: int) -> Assignment:
        line = lines.at(name_at)
        found = value.done(kept if state is _State.VALUE else None)
        if not (is_utf8(name) and is_utf8(found.text)):
            raise UnreadableFile(
                f"{path}:{line}: not valid UTF-8; systemd does not read a file with such an assignment"
            )
        return Assignment(name, found, path, line, after_equals, end)

    simple = "\r" not in text
    pos = 0
    while pos < len(text):
        if simple and state is _State.BEFORE_NAME:
            end = text.find("\n", pos) if text.find("\n", pos) >= 0 else len(text)
            if end > pos and (line := _plain_line(text, pos, end)):
                name, start, stop = line
                name_at, after_equals = pos, text.index("=", pos) + 1
                value = Composer(path, name)
                value.plain(text[start:stop], start)
                yield finished(end)
                pos = end + 1
                continue
        if stays := _STAYS[state].match(text, pos):
            match state:
                case _State.VALUE:
                    kept = value.length() + len(stays[0].rstrip(WHITESPACE))
                    value.plain(stays[0], pos)
                case _State.SINGLE_QUOTES | _State.DOUBLE_QUOTES:
                    value.plain(stays[0], pos)
            pos = stays.end()
            continue
        c, behind = text[pos], text[pos + 1 : pos + 2]
        length = 1
        match state:
            case _State.BEFORE_NAME:
                state, name_at = (_State.COMMENT if c in _COMMENT else _State.NAME), pos
            case _State.NAME if c == "=":
                state, after_equals, kept = _State.BEFORE_VALUE, pos + 1, 0
                name = text[name_at:pos].rstrip(WHITESPACE)
                value = Composer(path, name)
            case _State.NAME:
                state = _State.BEFORE_NAME
            case _State.BEFORE_VALUE | _State.VALUE if c in _NEWLINE:
                yield finished(pos)
                state = _State.BEFORE_NAME
            case _State.BEFORE_VALUE | _State.VALUE if c == "\\":
                if behind and behind not in _NEWLINE:
                    value.made(behind, pos, pos + 2)
                state, kept, length = _State.VALUE, value.length(), 2
            case _State.BEFORE_VALUE:
                if c == "'":
                    state = _State.SINGLE_QUOTES
                elif c == '"':
                    state = _State.DOUBLE_QUOTES
                else:
                    state, length = _State.VALUE, 0
            case _State.SINGLE_QUOTES:
                state = _State.BEFORE_VALUE
            case _State.DOUBLE_QUOTES if c == "\\":
                if behind and behind in _ESCAPABLE_IN_DOUBLE_QUOTES:
                    value.made(behind, pos, pos + 2)
                elif behind and behind != "\n":
                    value.plain(c + behind, pos)
                length = 2
            case _State.DOUBLE_QUOTES:
                state = _State.BEFORE_VALUE
            case _State.COMMENT if c == "\\":
                length = 2
                if behind and behind in _NEWLINE and not comments_continue:
                    state = _State.BEFORE_NAME
            case _State.COMMENT:
                state = _State.BEFORE_NAME
        pos += length
    if state not in (_State.BEFORE_NAME, _State.NAME, _State.COMMENT):
        yield finished(len(text))
