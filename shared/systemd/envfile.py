"""Environment files, as systemd reads them (systemd.exec(5), EnvironmentFile=). It is not a shell's syntax."""

from dataclasses import dataclass
from enum import Enum, auto

from .text import WHITESPACE, Char, Lines, check_text

COMMENTS_END_SINCE = 254
"""The first systemd in which a backslash at the end of a comment line means nothing."""

_NEWLINE = "\n\r"
_COMMENT = "#;"
_ESCAPABLE_IN_DOUBLE_QUOTES = '"\\`$'


@dataclass(frozen=True, slots=True)
class Assignment:
    """One `NAME=value`. The name need not be a valid one; systemd drops such a variable later."""

    name: str
    value: tuple[Char, ...]
    path: str
    line: int
    """1-based, the one the name is on."""
    after_equals: int
    """Offset just behind the `=`."""
    end: int
    """Offset behind the last character of the assignment, quotes and trailing blanks included."""


class _State(Enum):
    BEFORE_NAME = auto()
    NAME = auto()
    BEFORE_VALUE = auto()
    VALUE = auto()
    VALUE_ESCAPE = auto()
    SINGLE_QUOTES = auto()
    DOUBLE_QUOTES = auto()
    DOUBLE_QUOTES_ESCAPE = auto()
    COMMENT = auto()
    COMMENT_ESCAPE = auto()


def assignments(path: str, text: str, *, comments_continue: bool) -> tuple[Assignment, ...]:
    """All assignments of an environment file in their order.

    `comments_continue`: a backslash at the end of a comment line makes the next line a comment too. systemd did so
    up to version 253. Raises UnitError for what is not plain text.
    """
    check_text(path, text)
    lines = Lines(text)
    found: list[Assignment] = []
    state = _State.BEFORE_NAME
    name, name_at = "", 0
    value: list[Char] = []
    after_equals = 0
    blanks_from: int | None = None  # where the blanks at the value's end start

    def finish(end: int) -> None:
        kept = value[:blanks_from] if state is _State.VALUE and blanks_from is not None else value
        found.append(Assignment(name, tuple(kept), path, lines.at(name_at), after_equals, end))

    for offset, c in enumerate(text):
        here = Char(c, path, offset, offset + 1, name)
        match state:
            case _State.BEFORE_NAME:
                if c in _COMMENT:
                    state = _State.COMMENT
                elif c not in WHITESPACE:
                    state, name_at = _State.NAME, offset
            case _State.NAME:
                if c in _NEWLINE:
                    state = _State.BEFORE_NAME
                elif c == "=":
                    state, value, blanks_from, after_equals = _State.BEFORE_VALUE, [], None, offset + 1
                    name = text[name_at:offset].rstrip(WHITESPACE)
            case _State.BEFORE_VALUE | _State.VALUE if c in _NEWLINE:
                finish(offset)
                state = _State.BEFORE_NAME
            case _State.BEFORE_VALUE:
                if c == "'":
                    state = _State.SINGLE_QUOTES
                elif c == '"':
                    state = _State.DOUBLE_QUOTES
                elif c == "\\":
                    state = _State.VALUE_ESCAPE
                elif c not in WHITESPACE:
                    state = _State.VALUE
                    value.append(here)
            case _State.VALUE:
                if c == "\\":
                    state, blanks_from = _State.VALUE_ESCAPE, None
                else:
                    if c not in WHITESPACE:
                        blanks_from = None
                    elif blanks_from is None:
                        blanks_from = len(value)
                    value.append(here)
            case _State.VALUE_ESCAPE:
                state = _State.VALUE
                if c not in _NEWLINE:
                    value.append(here._replace(start=offset - 1))
            case _State.SINGLE_QUOTES:
                if c == "'":
                    state = _State.BEFORE_VALUE
                else:
                    value.append(here)
            case _State.DOUBLE_QUOTES:
                if c == '"':
                    state = _State.BEFORE_VALUE
                elif c == "\\":
                    state = _State.DOUBLE_QUOTES_ESCAPE
                else:
                    value.append(here)
            case _State.DOUBLE_QUOTES_ESCAPE:
                state = _State.DOUBLE_QUOTES
                if c in _ESCAPABLE_IN_DOUBLE_QUOTES:
                    value.append(here._replace(start=offset - 1))
                elif c != "\n":
                    value.append(Char("\\", path, offset - 1, offset, name))
                    value.append(here)
            case _State.COMMENT:
                if c == "\\":
                    state = _State.COMMENT_ESCAPE
                elif c in _NEWLINE:
                    state = _State.BEFORE_NAME
            case _State.COMMENT_ESCAPE:
                ends = c in _NEWLINE and not comments_continue
                state = _State.BEFORE_NAME if ends else _State.COMMENT
    if state not in (_State.BEFORE_NAME, _State.NAME, _State.COMMENT, _State.COMMENT_ESCAPE):
        finish(len(text))
    return tuple(found)
