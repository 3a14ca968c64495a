"""Text that remembers where it is written, and systemd's rules for words, escapes and specifiers."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

WHITESPACE = " \t\n\r"
"""What systemd strips and splits at (its WHITESPACE)."""

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
_LONGEST_NUMERIC_ESCAPE = len("U0010ffff")

_LINE_END = re.compile(r"\r\n|\r|\n")
SPECIFIERS = frozenset("aAbBcCdDEfgGhHiIjJlLmMnNopPqrRsStTuUvVwWyY")
"""The letters that some version of systemd knows behind `%` (systemd.unit(5), "Specifiers")."""


class UnitError(ValueError):
    """systemd would not start this unit, or would not start it as written. The text says where and why."""


class MissingEnvironmentFile(UnitError):
    """A mandatory EnvironmentFile= (one without `-`) is not there, so that systemd would fail the start."""


class UnknownToUs(UnitError):
    """The command line depends on something that the given texts do not tell."""


class WordError(ValueError):
    """A word breaks systemd's quoting or escaping rules."""


class Char(NamedTuple):
    """One character of a value, and the span of the file's text that writes it (an escape is longer than one)."""

    char: str
    path: str
    start: int
    end: int
    variable: str | None = None
    """The environment variable whose value this belongs to."""


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

    chars: tuple[Char, ...]
    path: str
    start: int
    end: int


def plain(chars: Iterable[Char]) -> str:
    """The characters as a string."""
    return "".join(char.char for char in chars)


def strip(chars: Sequence[Char]) -> Sequence[Char]:
    """Without the white space around it."""
    start, end = 0, len(chars)
    while start < end and chars[start].char in WHITESPACE:
        start += 1
    while end > start and chars[end - 1].char in WHITESPACE:
        end -= 1
    return chars[start:end]


def has_bytes(chars: Iterable[Char]) -> bool:
    """Whether escapes made bytes beyond ASCII of it (they show as lone surrogates, for they may not be valid UTF-8)."""
    return any("\ud800" <= char.char <= "\udfff" for char in chars)


class Lines:
    """Which line an offset of a text is on, without reading the text again each time."""

    __slots__ = ("_starts",)

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in _LINE_END.finditer(text))]

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


def check_text(path: str, text: str) -> None:
    """Refuse what systemd reads in ways of its own, and no sane file holds.

    Raises UnitError for a NUL and for what is not valid UTF-8 (it shows as a lone surrogate).
    """
    if bad := re.search("[\0\ud800-\udfff]", text):
        what = "a NUL byte" if bad[0] == "\0" else "a byte that is not valid UTF-8"
        raise UnitError(f"{path}:{Lines(text).at(bad.start())}: holds {what}; expected plain text")


def skip_whitespace(chars: Sequence[Char], pos: int) -> int:
    """The position of the next character that is not white space."""
    while pos < len(chars) and chars[pos].char in WHITESPACE:
        pos += 1
    return pos


def first_word(
    chars: Sequence[Char],
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
    begin = pos = skip_whitespace(chars, pos)
    end = len(chars)
    if begin == end:
        return None, end
    out: list[Char] = []
    quote = ""
    while pos < end:
        here = chars[pos]
        if here.char == "\\":
            if pos + 1 == end:
                if keep_bad_escapes and (not quote or keep_open_quotes):
                    out.append(here)
                elif not keep_open_quotes:
                    raise WordError("a backslash with nothing after it")
                pos = end
                break
            if c_escapes:
                decoded = _c_escape(chars, pos + 1)
                if decoded is not None:
                    text, length = decoded
                    out.append(here._replace(char=text, end=chars[pos + length].end))
                    pos += 1 + length
                    continue
                if not keep_bad_escapes:
                    raise WordError(f"an unknown escape: \\{chars[pos + 1].char}")
                out.append(here)
                out.append(chars[pos + 1])
            else:
                out.append(chars[pos + 1]._replace(start=here.start))
            pos += 2
            continue
        if quote:
            if here.char == quote:
                quote = ""
            else:
                out.append(here)
        elif here.char in "'\"":
            quote = here.char
        elif here.char in WHITESPACE:
            break
        else:
            out.append(here)
        pos += 1
    if quote and not keep_open_quotes:
        raise WordError(f"a quote that is never closed: {quote}")
    word = Word(tuple(out), chars[begin].path, chars[begin].start, chars[pos - 1].end)
    return word, skip_whitespace(chars, pos)


def _c_escape(chars: Sequence[Char], pos: int) -> tuple[str, int] | None:
    """The character that the escape at `pos` (behind the backslash) means, and its length; None for no valid one."""
    if simple := _ESCAPES.get(chars[pos].char):
        return simple, 1
    ahead = plain(chars[pos : pos + _LONGEST_NUMERIC_ESCAPE])
    for pattern, base in _NUMERIC_ESCAPES:
        if match := pattern.match(ahead):
            code = int(match[1], base)
            kind = ahead[0]
            if code == 0 or (base == 8 and code > 0xFF) or (kind == "U" and not _is_unichar(code)):
                return None
            if kind not in "uU" and code > 0x7F:
                # A single byte of some longer character, which a string can only hold as a lone surrogate.
                return chr(0xDC00 + code), match.end()
            return chr(code), match.end()
    return None


def _is_unichar(code: int) -> bool:
    return code < 0x110000 and not 0xD800 <= code <= 0xDFFF and not 0xFDD0 <= code <= 0xFDEF and code & 0xFFFE != 0xFFFE


class BadSpecifier(ValueError):
    """A %-specifier that systemd does not know."""


class UnknownSpecifier(UnknownToUs):
    """A %-specifier that systemd knows, and whose value these texts do not tell."""


def expand_specifiers(chars: Sequence[Char], values: Mapping[str, str]) -> tuple[Char, ...]:
    """Replace %-specifiers (systemd.unit(5), "Specifiers"); `values` maps a specifier's letter to its value.

    `%` before anything but a letter or digit, and at the end, stays. Raises BadSpecifier, else UnknownSpecifier.
    """
    out: list[Char] = []
    unknown = ""
    pos = 0
    while pos < len(chars):
        here = chars[pos]
        if here.char != "%" or pos + 1 == len(chars):
            out.append(here)
            pos += 1
            continue
        letter = chars[pos + 1]
        if letter.char == "%":
            out.append(here._replace(end=letter.end))
        elif letter.char in values:
            out.extend(here._replace(char=char, end=letter.end) for char in values[letter.char])
        elif letter.char in SPECIFIERS:
            unknown = unknown or letter.char
        elif letter.char.isascii() and letter.char.isalnum():
            raise BadSpecifier(f"the specifier %{letter.char}, which systemd does not know (a plain % is written %%)")
        else:
            out.extend((here, letter))
        pos += 2
    if unknown:
        raise UnknownSpecifier(f"the specifier %{unknown}, whose value is not known here")
    return tuple(out)
