"""Text that remembers where it is written, and systemd's rules for words, escapes and specifiers.

A byte that is not valid UTF-8 is a lone surrogate (Python's `surrogateescape`), in files and in what comes of them.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

WHITESPACE = " \t\n\r"
"""What systemd strips and splits at (its WHITESPACE)."""

_BLANKS = re.compile(r"[ \t\n\r]*")

_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", '"': '"', "'": "'", "s": " ",
}  # fmt: skip
_NUMERIC_ESCAPES = (
    (re.compile(r"x([0-9a-fA-F]{2})"), 16),
    (re.compile(r"u([0-9a-fA-F]{4})"), 16),
    (re.compile(r"U([0-9a-fA-F]{8})"), 16),
    (re.compile(r"([0-7]{3})"), 8),
)

_LINE_END = re.compile(r"\r\n|\r|\n")
SPECIFIERS = frozenset("aAbBcCdDEfgGhHiIjJlLmMnNopPqrRsStTuUvVwWyY")
"""The letters that some version of systemd knows behind `%` (systemd.unit(5), "Specifiers")."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_ENDS_OF_PLANES = "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
_NO_CHARACTER = re.compile(f"[\ud800-\udfff\ufdd0-\ufdef{_ENDS_OF_PLANES}]")


class UnitError(ValueError):
    """systemd would not start this unit, or would not start it as written. The text says where and why."""


class MissingEnvironmentFile(UnitError):
    """A mandatory EnvironmentFile= (one without `-`) is not there, so that systemd would fail the start."""


class UnknownToUs(UnitError):
    """The command line depends on something that the given texts do not tell."""


class WordError(ValueError):
    """A word breaks systemd's quoting or escaping rules."""


def size(text: str) -> int:
    """Its bytes."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogateescape"))


def joined_bytes(text: str) -> str:
    """Bytes that escapes gave one by one, as the characters that they make together where they make any."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode(errors="surrogateescape").decode(errors="surrogateescape")


def is_utf8(text: str) -> bool:
    """Whether systemd takes it for valid UTF-8: it refuses U+FDD0 to U+FDEF and every U+…FFFE and U+…FFFF too."""
    return text.isascii() or not _NO_CHARACTER.search(joined_bytes(text))


@dataclass(frozen=True, slots=True)
class Written:
    """Characters, and the span of the file's text that writes each one (an escape is longer than one).

    `files[path][starts[i]:ends[i]]` writes `text[i]`; characters that one specifier makes have the same span.
    """

    text: str
    path: str
    starts: array[int]
    ends: array[int]
    variable: str | None = None
    """The environment variable whose value this belongs to."""

    def __len__(self) -> int:
        return len(self.text)

    def cut(self, start: int, stop: int) -> Written:
        """The characters from `start` up to `stop`."""
        if start == 0 and stop >= len(self.text):
            return self
        return Written(self.text[start:stop], self.path, self.starts[start:stop], self.ends[start:stop], self.variable)

    def strip(self) -> Written:
        """Without the white space around it."""
        start = skip_whitespace(self.text, 0)
        return self.cut(start, max(start, len(self.text.rstrip(WHITESPACE))))

    def of(self, variable: str) -> Written:
        """The same as the value of this variable."""
        return Written(self.text, self.path, self.starts, self.ends, variable)


def written_nowhere(text: str, variable: str) -> Written:
    """The value of a variable that no file defines."""
    nowhere = array("I", [0]) * len(text)
    return Written(text, "", nowhere, nowhere, variable)


_ASCENDING = array("I")


def _offsets(start: int, stop: int) -> array[int]:
    """The numbers from `start` up to `stop`: a copy from a table is many times faster than counting."""
    if stop > len(_ASCENDING):
        _ASCENDING.extend(range(len(_ASCENDING), 2 * stop))
    return _ASCENDING[start:stop]


class Composer:
    """Puts a `Written` together from pieces of one file."""

    __slots__ = ("_ends", "_path", "_starts", "_texts", "_variable")

    def __init__(self, path: str, variable: str | None = None) -> None:
        self._path = path
        self._variable = variable
        self._texts: list[str] = []
        self._starts = array("I")
        self._ends = array("I")

    def plain(self, text: str, start: int) -> None:
        """Text that is written as it is, from this offset of the file on."""
        self._texts.append(text)
        self._starts.extend(_offsets(start, start + len(text)))
        self._ends.extend(_offsets(start + 1, start + len(text) + 1))

    def made(self, text: str, start: int, end: int) -> None:
        """Text that this span of the file makes together."""
        self._texts.append(text)
        self._starts.extend(array("I", [start]) * len(text))
        self._ends.extend(array("I", [end]) * len(text))

    def piece(self, source: Written, start: int, stop: int) -> None:
        """Characters of another one."""
        self._texts.append(source.text[start:stop])
        self._starts.extend(source.starts[start:stop])
        self._ends.extend(source.ends[start:stop])

    def length(self) -> int:
        """The characters so far."""
        return len(self._starts)

    def done(self, length: int | None = None) -> Written:
        """What was put together; of it only the first `length` characters."""
        whole = Written("".join(self._texts), self._path, self._starts, self._ends, self._variable)
        return whole if length is None else whole.cut(0, length)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where something is written: `files[path][start:end]` is its written form, quotes and escapes included.

    What comes from the manager's own environment is in no file: its path is empty.
    """

    path: str
    line: int
    """1-based, the one on which it starts."""
    start: int
    end: int
    variable: str | None
    """The environment variable whose definition this is in; None in ExecStart= itself."""


class Word(NamedTuple):
    """A word without its quotes, and the span of its written form (with its quotes)."""

    written: Written
    start: int
    end: int


class Lines:
    """Which line an offset of a text is on, without reading the text again each time."""

    __slots__ = ("_starts",)

    def __init__(self, text: str) -> None:
        self._starts = [0]
        if "\r" in text:
            self._starts += (match.end() for match in _LINE_END.finditer(text))
            return
        at = text.find("\n")
        while at >= 0:
            self._starts.append(at + 1)
            at = text.find("\n", at + 1)

    def at(self, offset: int) -> int:
        """The 1-based line."""
        return bisect_right(self._starts, offset)


class Files:
    """The given files: path to text, and where in them something is."""

    __slots__ = ("_lines", "texts")

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts
        self._lines: dict[str, Lines] = {}

    def origin(self, path: str, start: int, end: int, variable: str | None = None) -> Origin:
        """The Origin of this span of a file."""
        if path not in self._lines:
            self._lines[path] = Lines(self.texts.get(path, ""))
        return Origin(path, self._lines[path].at(start), start, end, variable)


def skip_whitespace(text: str, pos: int) -> int:
    """The position of the next character that is not white space."""
    match = _BLANKS.match(text, pos)
    assert match  # it matches nothing, too
    return match.end()


_PLAIN_IN = {'"': re.compile(r'[^\\"]+'), "'": re.compile(r"[^\\']+")}


@cache
def _plain_until(separators: str) -> re.Pattern[str]:
    return re.compile(rf"""[^\\"'{re.escape(separators)}]+""")


def first_word(
    source: Written,
    pos: int,
    *,
    c_escapes: bool,
    keep_bad_escapes: bool = False,
    keep_open_quotes: bool = False,
) -> tuple[Word | None, int]:
    """The next word from `pos` on, and where the one after it starts; (None, end) when there is none.

    `c_escapes`: a backslash starts a C-style escape, else it makes the next character plain.
    `keep_bad_escapes`: an unknown escape stays as it is, and `keep_open_quotes`: a quote may stay open at the end;
    without these, WordError. (systemd's extract_first_word() with EXTRACT_UNQUOTE.)
    """
    begin = skip_whitespace(source.text, pos)
    if begin == len(source):
        return None, begin
    written, end = read_word(
        source, begin, c_escapes=c_escapes, keep_bad_escapes=keep_bad_escapes, keep_open_quotes=keep_open_quotes
    )
    return Word(written, source.starts[begin], source.ends[end - 1]), skip_whitespace(source.text, end)


def read_word(
    source: Written,
    pos: int,
    *,
    c_escapes: bool,
    separators: str = WHITESPACE,
    keep_bad_escapes: bool = False,
    keep_open_quotes: bool = False,
) -> tuple[Written, int]:
    """The word that starts at `pos`, and where it ends; `first_word` tells of the rest."""
    text = source.text
    end = len(text)
    plain = _plain_until(separators)
    if (match := plain.match(text, pos)) and (match.end() == end or text[match.end()] in separators):
        return source.cut(pos, match.end()), match.end()  # no quotes and no escapes, as nearly every word
    out = Composer(source.path, source.variable)
    quote = ""
    while pos < end:
        if match := (_PLAIN_IN[quote] if quote else plain).match(text, pos):
            out.piece(source, pos, match.end())
            pos = match.end()
            continue
        here = text[pos]
        if here == "\\":
            if pos + 1 == end:
                if keep_bad_escapes and (not quote or keep_open_quotes):
                    out.piece(source, pos, end)
                elif not keep_open_quotes:
                    raise WordError("a backslash with nothing after it")
                pos = end
                break
            start = source.starts[pos]
            if not c_escapes:
                out.made(text[pos + 1], start, source.ends[pos + 1])
            elif decoded := _c_escape(text, pos + 1):
                char, length = decoded
                out.made(char, start, source.ends[pos + length])
                pos += length - 1
            elif keep_bad_escapes:
                out.piece(source, pos, pos + 2)
            else:
                raise WordError(f"an unknown escape: \\{text[pos + 1]}")
            pos += 2
        elif quote:
            quote = ""
            pos += 1
        elif here in "'\"":
            quote = here
            pos += 1
        else:
            break  # a separator
    if quote and not keep_open_quotes:
        raise WordError(f"a quote that is never closed: {quote}")
    return out.done(), pos


def _c_escape(text: str, pos: int) -> tuple[str, int] | None:
    """The text that the escape at `pos` (behind the backslash) means, and its length; None for no valid one."""
    if simple := _ESCAPES.get(text[pos]):
        return simple, 1
    for pattern, base in _NUMERIC_ESCAPES:
        if match := pattern.match(text, pos):
            code = int(match[1], base)
            kind = text[pos]
            if code == 0 or (base == 8 and code > 0xFF) or (kind == "U" and not _is_unichar(code)):
                return None
            if kind not in "uU" and code > 0x7F:
                # A single byte of some longer character.
                return chr(0xDC00 + code), match.end() - pos
            return _encodable(chr(code)), match.end() - pos
    return None


def _encodable(char: str) -> str:
    """A surrogate, which `\\u` may give, as the bytes that systemd writes for it."""
    return char.encode(errors="surrogatepass").decode(errors="surrogateescape")


def _is_unichar(code: int) -> bool:
    return code < 0x110000 and is_utf8(_encodable(chr(code)))


class BadSpecifier(ValueError):
    """A %-specifier that systemd does not know."""


class UnknownSpecifier(UnknownToUs):
    """A %-specifier that systemd knows, and whose value these texts do not tell."""


def expand_specifiers(source: Written, values: Mapping[str, str], count: Callable[[int], None]) -> Written:
    """Replace %-specifiers (systemd.unit(5), "Specifiers"); `values` maps a specifier's letter to its value.

    `count` is told how many characters a specifier makes, before it does. `%` before anything but a letter or digit,
    and at the end, stays. Raises BadSpecifier, else UnknownSpecifier, and what `count` raises.
    """
    text = source.text
    if "%" not in text:
        return source
    out = Composer(source.path, source.variable)
    unknown = ""
    pos = 0
    while (found := text.find("%", pos, len(text) - 1)) >= 0:
        out.piece(source, pos, found)
        letter, start, end = text[found + 1], source.starts[found], source.ends[found + 1]
        if letter == "%":
            out.made("%", start, end)
        elif letter in values:
            count(len(values[letter]))
            out.made(values[letter], start, end)
        elif letter in SPECIFIERS:
            unknown = unknown or letter
        elif letter.isascii() and letter.isalnum():
            raise BadSpecifier(f"the specifier %{letter}, which systemd does not know (a plain % is written %%)")
        else:
            out.piece(source, found, found + 2)
        pos = found + 2
    out.piece(source, pos, len(text))
    if unknown:
        raise UnknownSpecifier(f"the specifier %{unknown}, whose value is not known here")
    return out.done()
