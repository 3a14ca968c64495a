"""The command line that systemd would start for a service unit now, and where each argument is written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby

from .budget import Budget, Execve
from .environment import Environment, Variable, service_environment
from .exec_start import ExecCommand, ExecWord, Reader
from .text import Files, Origin, UnitError, UnknownToUs, Written, first_word, joined_bytes
from .unit import Unit, read_unit

_EXPANSION = re.compile(r"\$\$|\$\{([^:}]*)\}|\$\{[^:}]*(?::|\Z)")
"""`$$`, `${NAME}`, and what systemd leaves alone: a `${` that is never closed, or a shell's `${NAME:...}`."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an argument that one definition gives, as in `--labels=${LABELS}`."""

    text: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of the command line. Bytes that are not valid UTF-8 are surrogates."""

    text: str
    origin: Origin
    """The word that it is: in the variable's definition for `$VARIABLE`, else in ExecStart= itself."""
    parts: tuple[Part, ...]
    """Its text by definition; none for an empty argument."""
    pieces: tuple[Written, ...] = field(repr=False, compare=False)
    """The same, character by character."""


@dataclass(frozen=True)
class StartCommand:
    """The command line, and what it is made of."""

    executable: str
    """The program's path, simplified as systemd does; a bare name is for systemd to look up."""
    texts: tuple[str, ...]
    """All arguments, argument 0 included: the program as written, or the word behind it with the prefix `@`."""
    variables: Mapping[str, Variable]
    """The variables that the unit and its environment files define."""
    exec_start_origin: Origin
    """The value of the ExecStart= that counts."""
    words: tuple[ExecWord, ...] = field(repr=False)
    """The words of ExecStart= that `argv` comes from."""
    unit: Unit = field(repr=False)
    _command: ExecCommand = field(repr=False, compare=False)
    _environment: Environment = field(repr=False, compare=False)
    _reader: Reader = field(repr=False, compare=False)

    @cached_property
    def argv(self) -> tuple[Argument, ...]:
        """The arguments with where they are written; made when asked for, since only an edit wants to know."""
        reader = replace(self._reader, budget=Budget())
        made = tuple(_arguments(self._command, self._environment, reader))
        assert tuple(argument.text for argument in made) == self.texts
        return made


def start_command(
    fragment: str,
    dropins: Sequence[str],
    files: Mapping[str, str],
    *,
    base_environment: Mapping[str, str] | None = None,
    hostname: str | None = None,
    systemd_version: int | None = None,
) -> StartCommand:
    """What systemd would start for this unit if it read these files now.

    `fragment` and `dropins` are paths, the drop-ins in the order in which systemd applies them (one that is masked by
    a link to /dev/null has no text: ""); `files` maps each of them, and of the environment files, to its text with its
    line ends as they are. `base_environment` is the manager's own environment (`systemctl show-environment`),
    `hostname` the node's name (for %H and %l), `systemd_version` the major version; where one of them is needed and
    not given, UnknownToUs is raised.

    Raises UnitError where systemd would not start it, of it MissingEnvironmentFile for that reason and TooLarge for a
    limit (the kernel's or one of ours), and UnknownToUs where the answer depends on what these texts do not tell.
    Messages name places and variables, never values.
    """
    unit = Unit(fragment, tuple(dropins), dict(base_environment or {}), hostname, systemd_version)
    read, reader = read_unit(unit, Files(files))
    commands = read.commands["ExecStart"]
    if len(commands) != 1:
        raise UnitError(
            f"{fragment}: the unit has {len(commands)} ExecStart= commands; a service that keeps running has exactly "
            "one (a drop-in that replaces it resets it first with an empty ExecStart=)"
        )
    command = commands[0]
    if command.unknown:
        raise UnknownToUs(command.unknown)
    environment = service_environment(unit, read, reader)
    execve = Execve()
    environment.count(execve)
    texts = tuple(_texts(command, environment, reader, execve))
    if not texts:
        raise UnitError(f"{fragment}: nothing is left of ExecStart= once its variables are expanded")
    return StartCommand(
        executable=command.executable,
        texts=texts,
        variables=environment.variables,
        exec_start_origin=command.origin,
        words=command.words,
        unit=unit,
        _command=command,
        _environment=environment,
        _reader=reader,
    )


def _texts(command: ExecCommand, environment: Environment, reader: Reader, execve: Execve) -> list[str]:
    """The arguments, counted."""
    texts: list[str] = []
    split: dict[str, list[str]] = {}  # what each $NAME gives
    for word in command.words:
        where = f"{word.origin.path}:{word.origin.line}: ExecStart="
        name = word.variable if command.expands else None
        if name is not None:
            if name not in split:
                split[name] = _split_texts(environment.value(name), reader, where)
            given = split[name]
            reader.budget.make(len(given), where)
        elif command.expands and "$" in word.written.text:
            given = [joined_bytes("".join(piece.text for piece in _substituted(word.written, environment, reader)))]
        else:
            given = [joined_bytes(word.written.text)]
        execve.add_all(given, where)
        texts += given
    return texts


def _split_texts(value: Written | None, reader: Reader, where: str) -> list[str]:
    text = "" if value is None else value.text
    if text.isascii() and not any(character in text for character in "\\\"'\t\n\r"):
        words = [word for word in text.split(" ") if word]
        reader.budget.make(len(words), where)
        return words
    return [argument.text for argument in _split(value, reader, where)]


def _arguments(command: ExecCommand, environment: Environment, reader: Reader) -> Iterator[Argument]:
    """The same arguments, and where they are written."""
    split: dict[str, list[Argument]] = {}
    for word in command.words:
        if command.expands and word.variable is not None:
            if word.variable not in split:
                where = f"{word.origin.path}:{word.origin.line}: ExecStart="
                split[word.variable] = list(_split(environment.value(word.variable), reader, where))
            yield from split[word.variable]
            continue
        pieces = tuple(_substituted(word.written, environment, reader)) if command.expands else (word.written,)
        yield _argument(pieces, word.origin, reader.files)


def _split(value: Written | None, reader: Reader, where: str) -> Iterator[Argument]:
    """The arguments that `$VARIABLE` gives: words with quotes, but without C-style escapes."""
    pos = 0
    while value is not None:
        word, pos = first_word(value, pos, c_escapes=False, keep_open_quotes=True)
        if word is None:
            return
        reader.budget.make(1, where)
        written = reader.files.origin(value.path, word.start, word.end, value.variable)
        yield _argument((word.written,), written, reader.files)


def _substituted(word: Written, environment: Environment, reader: Reader) -> Iterator[Written]:
    """`${NAME}` becomes its value as it is, `$$` becomes `$`; everything else that starts with `$` stays."""
    pos = 0
    for match in _EXPANSION.finditer(word.text):
        reader.budget.make(1, word.path)
        start, end = match.span()
        if match[0] == "$$":
            yield word.cut(pos, start)
            yield Written("$", word.path, word.starts[start : start + 1], word.ends[end - 1 : end])
        elif match[1] is not None:
            yield word.cut(pos, start)
            if value := environment.value(match[1]):
                yield value
        else:
            yield word.cut(pos, end)
        pos = end
    yield word.cut(pos, len(word))


def _argument(pieces: Sequence[Written], written: Origin, files: Files) -> Argument:
    pieces = tuple(piece for piece in pieces if piece)
    parts = []
    for (path, variable), group in groupby(pieces, key=lambda piece: (piece.path, piece.variable)):
        together = list(group)
        text = joined_bytes("".join(piece.text for piece in together))
        parts.append(Part(text, files.origin(path, together[0].starts[0], together[-1].ends[-1], variable)))
    return Argument(joined_bytes("".join(piece.text for piece in pieces)), written, tuple(parts), pieces)
