"""Text of a node or of Azure, made fit for a screen, a file or a log: one function, used wherever such text comes in or
goes out.

Shown as escapes are control characters (C0, C1), everything that Unicode calls formatting (bidirectional overrides,
zero-width characters), separators of lines and paragraphs, private and unassigned code points, and the letters and
marks that are drawn as nothing (Unicode, DerivedCoreProperties: Default_Ignorable_Code_Point). A byte that is not
UTF-8, which Python keeps as a lone surrogate, is shown as that byte.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Record = TypeVar("Record", bound=DataclassInstance)

_LONGEST = 600

# Of Default_Ignorable_Code_Point those that Python calls printable.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")


def plain(text: str, longest: int | None = _LONGEST) -> str:
    """`text` in characters that are only ever shown, at most `longest` of them (None: however many).

    Applying it again changes nothing.
    """
    shown = text if text.isascii() and text.isprintable() else "".join(map(_shown, text))
    return shown if longest is None or len(shown) <= longest else shown[: longest - 1] + "…"


def _shown(char: str) -> str:
    if char.isprintable() and _INVISIBLE.match(char) is None:
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def plain_fields(record: Record) -> Record:
    """A dataclass with all its texts, and those in tuples, made plain."""
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    changed = {name: made for name, value in values.items() if (made := _plain_value(value)) != value}
    return dataclasses.replace(record, **changed) if changed else record


def _plain_value(value: object) -> object:
    if isinstance(value, str):
        return plain(value)
    return tuple(map(_plain_value, value)) if isinstance(value, tuple) else value


class PlainFormatter(logging.Formatter):
    """A log line (and each line of its traceback) in plain characters: an exception's text may quote a node."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(plain(line, None) for line in super().format(record).split("\n"))
