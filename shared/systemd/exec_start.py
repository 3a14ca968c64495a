"""ExecStart=: the words of a command line, before variables are expanded (systemd.service(5), "Command lines")."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .text import (
    BadSpecifier,
    Char,
    Files,
    Origin,
    UnitError,
    UnknownSpecifier,
    Word,
    WordError,
    expand_specifiers,
    first_word,
    has_bytes,
    plain,
    skip_whitespace,
)
from .unitfile import Setting

_LONGEST_WORD = 4095
"""Bytes of one word. systemd 249 and 250 refused a longer one (systemd issue 22957), others do not."""

_SEPARATOR = re.compile(r";([ \t\n\r]|$)")
_ESCAPED_SEPARATOR = re.compile(r"\\;([ \t\n\r]|$)")


@dataclass(frozen=True, slots=True)
class ExecWord:
    """One word of ExecStart=, specifiers expanded, variables not."""

    chars: tuple[Char, ...]
    origin: Origin

    @property
    def variable(self) -> str | None:
        """NAME where the word is `$NAME` as a whole: systemd splits its value into words of their own."""
        text = plain(self.chars)
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


def exec_commands(setting: Setting, files: Files, specifiers: Mapping[str, str]) -> Iterator[ExecCommand]:
    """The commands of one ExecStart= line; more than one when `;` separates them.

    What systemd ignores with a warning is left out. Raises UnitError for what makes it refuse the unit.
    """
    value = setting.value
    where = f"{setting.path}:{setting.line}: ExecStart="
    pos = 0
    while pos < len(value):
        begin = pos
        try:
            first, pos = _word(value, pos)
        except WordError:
            return  # systemd ignores a line whose first word cannot be read
        if first is None:
            return
        if plain(first.chars) == ";":
            continue
        prefixes, path_chars = _prefixes(first)
        try:
            path_chars, unknown = _expanded(path_chars, specifiers, where)
            path = plain(path_chars)
            if problem := None if unknown else _executable_problem(path):
                raise UnitError(f"{where} {problem}")
            zeroth = [] if "@" in prefixes else [ExecWord(path_chars, _origin(first, files))]
            following, pos, separated, unknown_word = _arguments(value, pos, files, specifiers, where)
            if not (words := (*zeroth, *following)):
                raise UnitError(f"{where} has the prefix @ and no word for argument 0")
        except UnitError:
            if "-" in prefixes:
                return  # this prefix turns systemd's refusal into a warning, and the command is dropped
            raise
        yield ExecCommand(
            executable=simplified_path(path),
            words=words,
            expands=":" not in prefixes,
            origin=files.origin(setting.path, value[begin].start, value[pos - 1].end),
            unknown=unknown or unknown_word,
        )
        if not separated:
            return


def simplified_path(path: str) -> str:
    """Without doubled slashes and `.` components, as systemd simplifies paths; `..` stays."""
    components = [component for component in path.split("/") if component not in ("", ".")]
    return ("/" if path.startswith("/") else "") + "/".join(components)


def _word(value: Sequence[Char], pos: int) -> tuple[Word | None, int]:
    """Where an escape is unknown, systemd warns and keeps it as it is written."""
    try:
        return first_word(value, pos, c_escapes=True)
    except WordError:
        return first_word(value, pos, c_escapes=True, keep_bad_escapes=True)


def _origin(word: Word, files: Files) -> Origin:
    return files.origin(word.path, word.start, word.end)


def _expanded(
    chars: tuple[Char, ...], specifiers: Mapping[str, str], where: str
) -> tuple[tuple[Char, ...], str | None]:
    """A word with its specifiers replaced; or as it was, and why it is not known."""
    try:
        expanded = expand_specifiers(chars, specifiers)
    except BadSpecifier as error:
        raise UnitError(f"{where} has {error}") from None
    except UnknownSpecifier as error:
        return chars, f"{where} has {error}"
    if has_bytes(expanded):
        return expanded, f"{where} has escapes that make bytes beyond ASCII; only \\u and \\U make characters"
    if len(plain(expanded).encode()) > _LONGEST_WORD:
        return expanded, f"{where} has a word of more than {_LONGEST_WORD} bytes, which some versions of systemd refuse"
    return expanded, None


def _prefixes(word: Word) -> tuple[str, tuple[Char, ...]]:
    """Split off the special prefixes. Each counts once; of `+`, `!` and `!!` only one does."""
    seen = ""
    chars = word.chars
    while chars:
        here = chars[0].char
        privileges = "".join(prefix for prefix in seen if prefix in "+!")
        allowed = (
            (here in "-@:" and here not in seen)
            or (here == "+" and not privileges)
            or (here == "!" and privileges in ("", "!"))
        )
        if not allowed:
            break
        seen += here
        chars = chars[1:]
    return seen, chars


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


def _arguments(
    value: Sequence[Char],
    pos: int,
    files: Files,
    specifiers: Mapping[str, str],
    where: str,
) -> tuple[list[ExecWord], int, bool, str | None]:
    """The words behind the program, where they end, whether a lone `;` ends them, and why one is not known."""
    words: list[ExecWord] = []
    unknown: str | None = None
    while pos < len(value):
        ahead = plain(value[pos : pos + 3])
        if _SEPARATOR.match(ahead):
            return words, skip_whitespace(value, pos + 1), True, unknown
        if _ESCAPED_SEPARATOR.match(ahead):
            escaped = value[pos + 1]._replace(start=value[pos].start)
            words.append(ExecWord((escaped,), files.origin(escaped.path, escaped.start, escaped.end)))
            pos = skip_whitespace(value, pos + 2)
            continue
        try:
            word, pos = _word(value, pos)
        except WordError as error:
            raise UnitError(f"{where} has {error}") from None
        if word is not None:
            chars, why = _expanded(word.chars, specifiers, where)
            words.append(ExecWord(chars, _origin(word, files)))
            unknown = unknown or why
    return words, pos, False, unknown
