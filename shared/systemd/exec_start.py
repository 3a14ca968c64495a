"""ExecStart=: the words of a command line, before variables are expanded (systemd.service(5), "Command lines")."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .budget import Budget, TooLarge
from .text import (
    BadSpecifier,
    Files,
    Origin,
    UnitError,
    UnknownSpecifier,
    Word,
    WordError,
    Written,
    expand_specifiers,
    first_word,
    joined_bytes,
    size,
    skip_whitespace,
)
from .unitfile import Setting

_LONGEST_WORD = 4095
"""Bytes of one word. Some builds of systemd 249 and 250 refuse a longer one (systemd issue 22957), others do not."""
_REFUSING = (249, 250)

_SEPARATOR = re.compile(r";([ \t\n\r]|\Z)")
_ESCAPED_SEPARATOR = re.compile(r"\\;([ \t\n\r]|\Z)")


@dataclass(frozen=True, slots=True)
class ExecWord:
    """One word of ExecStart=, specifiers expanded, variables not."""

    written: Written
    origin: Origin

    @property
    def variable(self) -> str | None:
        """NAME where the word is `$NAME` as a whole: systemd splits its value into words of their own."""
        text = self.written.text
        return text[1:] if text.startswith("$") and text[1:2] not in ("{", "$") else None


@dataclass(frozen=True, slots=True)
class ExecCommand:
    """One command of an ExecStart= line."""

    executable: str
    words: tuple[ExecWord, ...]
    """Argument 0 first."""
    expands: bool
    """False with the `:` prefix: `$` is an ordinary character."""
    origin: Origin
    unknown: str | None
    """Why these texts do not tell the command line, if they do not."""


@dataclass(frozen=True, slots=True)
class Reader:
    """What is needed to read the values of a unit's settings."""

    files: Files
    specifiers: Mapping[str, str]
    systemd_version: int | None
    budget: Budget

    def expand(self, written: Written, where: str) -> Written:
        """The text with its specifiers replaced. Raises BadSpecifier, UnknownSpecifier and TooLarge."""
        return expand_specifiers(written, self.specifiers, lambda characters: self.budget.read(characters, where))


def exec_commands(setting: Setting, reader: Reader) -> Iterator[ExecCommand]:
    """The commands of one ExecStart= line; more than one when `;` separates them.

    What systemd ignores with a warning is left out. Raises UnitError for what makes it refuse the unit.
    """
    value, text = setting.value, setting.value.text
    where = f"{setting.path}:{setting.line}: ExecStart="
    pos = 0
    while pos < len(text):
        begin = pos
        try:
            first, pos = _word(value, pos)
        except WordError:
            return  # systemd ignores a line whose first word cannot be read
        if first is None:
            return
        if first.written.text == ";":
            continue
        reader.budget.make(1, where)
        prefixes = _prefixes(first.written.text)
        written = first.written.cut(len(prefixes), len(first.written))
        try:
            written, unknown = _expanded(written, reader, where)
            path = joined_bytes(written.text)
            if problem := None if unknown else _executable_problem(path):
                raise UnitError(f"{where} {problem}")
            zeroth = [] if "@" in prefixes else [ExecWord(written, _origin(first, reader.files))]
            following, pos, separated, unknown_word = _arguments(value, pos, reader, where)
            if not (words := (*zeroth, *following)):
                raise UnitError(f"{where} has the prefix @ and no word for argument 0")
        except TooLarge:
            raise
        except UnitError:
            if "-" in prefixes:
                return  # this prefix turns systemd's refusal into a warning, and the command is dropped
            raise
        yield ExecCommand(
            executable=simplified_path(path),
            words=words,
            expands=":" not in prefixes,
            origin=reader.files.origin(setting.path, value.starts[begin], value.ends[pos - 1]),
            unknown=unknown or unknown_word,
        )
        if not separated:
            return


def simplified_path(path: str) -> str:
    """Without doubled slashes and `.` components, as systemd simplifies paths; `..` stays."""
    components = [component for component in path.split("/") if component not in ("", ".")]
    return ("/" if path.startswith("/") else "") + "/".join(components)


def _word(value: Written, pos: int) -> tuple[Word | None, int]:
    """Where an escape is unknown, systemd warns and keeps it as it is written."""
    try:
        return first_word(value, pos, c_escapes=True)
    except WordError:
        return first_word(value, pos, c_escapes=True, keep_bad_escapes=True)


def _origin(word: Word, files: Files) -> Origin:
    return files.origin(word.written.path, word.start, word.end)


def _expanded(written: Written, reader: Reader, where: str) -> tuple[Written, str | None]:
    """A word with its specifiers replaced; or as it was, and why it is not known."""
    try:
        expanded = reader.expand(written, where)
    except BadSpecifier as error:
        raise UnitError(f"{where} has {error}") from None
    except UnknownSpecifier as error:
        return written, f"{where} has {error}"
    version = reader.systemd_version
    if size(expanded.text) > _LONGEST_WORD and (version is None or version in _REFUSING):
        return expanded, f"{where} has a word of more than {_LONGEST_WORD} bytes, which some versions of systemd refuse"
    return expanded, None


def _prefixes(word: str) -> str:
    """The special prefixes that it starts with. Each counts once; of `+`, `!` and `!!` only one does."""
    seen = ""
    for here in word:
        privileges = "".join(prefix for prefix in seen if prefix in "+!")
        allowed = (
            (here in "-@:" and here not in seen)
            or (here == "+" and not privileges)
            or (here == "!" and privileges in ("", "!"))
        )
        if not allowed:
            break
        seen += here
    return seen


def _executable_problem(path: str) -> str | None:
    if not path:
        return "names no program"
    if re.search("[\x01-\x1f\x7f\"'\\\\]", path):
        return "names a program with a control character, a quote or a backslash"
    if path.endswith("/"):
        return "names a directory; expected a program"
    if not path.startswith("/") and ("/" in path or path in (".", "..")):
        return "names a program by a relative path; expected an absolute path or a bare name"
    return None


def _arguments(value: Written, pos: int, reader: Reader, where: str) -> tuple[list[ExecWord], int, bool, str | None]:
    """The words behind the program, where they end, whether a lone `;` ends them, and why one is not known."""
    text = value.text
    words: list[ExecWord] = []
    unknown: str | None = None
    while pos < len(text):
        if _SEPARATOR.match(text, pos):
            return words, skip_whitespace(text, pos + 1), True, unknown
        reader.budget.make(1, where)
        if _ESCAPED_SEPARATOR.match(text, pos):
            written = Written(";", value.path, value.starts[pos : pos + 1], value.ends[pos + 1 : pos + 2])
            words.append(ExecWord(written, reader.files.origin(value.path, value.starts[pos], value.ends[pos + 1])))
            pos = skip_whitespace(text, pos + 2)
            continue
        try:
            word, pos = _word(value, pos)
        except WordError as error:
            raise UnitError(f"{where} has {error}") from None
        if word is not None:
            written, why = _expanded(word.written, reader, where)
            words.append(ExecWord(written, _origin(word, reader.files)))
            unknown = unknown or why
    return words, pos, False, unknown
