"""The command line that systemd would start for a service unit now, and where each argument is written."""

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from .environment import Environment, Variable, service_environment
from .exec_start import ExecCommand, ExecWord, exec_commands
from .text import Char, Files, Origin, UnitError, UnknownToUs, check_text, first_word, plain
from .unitfile import Setting, settings

_COMMAND_SETTINGS = frozenset(
    ("ExecCondition", "ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload", "ExecStop", "ExecStopPost")
)
_BRACED = re.compile(r"\$\{([^:}]*)\}")
_LEFT_ALONE = re.compile(r"\$\{[^:}]*(:|\Z)")
"""A `${` that is never closed, or a shell's `${NAME:...}`."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an argument that one definition gives, as in `--labels=${LABELS}`."""

    text: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of the command line."""

    text: str
    origin: Origin
    """The word that it is: in the variable's definition for `$VARIABLE`, else in ExecStart= itself."""
    parts: tuple[Part, ...]
    """Its text by definition; none for an empty argument."""
    chars: tuple[Char, ...] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Unit:
    """What `start_command` was asked, so that it can be asked again with other texts."""

    fragment: str
    dropins: tuple[str, ...]
    base_environment: Mapping[str, str]
    hostname: str | None
    systemd_version: int | None


@dataclass(frozen=True, slots=True)
class StartCommand:
    """The command line, and what it is made of."""

    executable: str
    """The program's path, simplified as systemd does; a bare name is for systemd to look up."""
    argv: tuple[Argument, ...]
    """All arguments, argument 0 included: the program as written, or the word behind it with the prefix `@`."""
    variables: Mapping[str, Variable]
    """The variables that the unit and its environment files define."""
    exec_start_origin: Origin
    """The value of the ExecStart= that counts."""
    words: tuple[ExecWord, ...] = field(repr=False)
    """The words of ExecStart= that `argv` comes from."""
    unit: Unit = field(repr=False)


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

    `fragment` and `dropins` are paths, the drop-ins in the order in which systemd applies them; `files` maps each of
    them, and of the environment files, to its text with its line ends as they are. `base_environment` is the
    manager's own environment (`systemctl show-environment`), `hostname` the node's name (for %H and %l),
    `systemd_version` the major version; where one of them is needed and not given, UnknownToUs is raised.

    Raises UnitError where systemd would not start it, of it MissingEnvironmentFile for that reason, and UnknownToUs
    where the answer depends on what these texts do not tell. Messages name places and variables, never values.
    """
    unit = Unit(fragment, tuple(dropins), dict(base_environment or {}), hostname, systemd_version)
    read = Files(files)
    specifiers = _specifiers(unit)
    service, commands = _read_service(unit, read, specifiers)
    if len(commands) != 1:
        raise UnitError(
            f"{fragment}: the unit has {len(commands)} ExecStart= commands; a service that keeps running has exactly "
            "one (a drop-in that replaces it resets it first with an empty ExecStart=)"
        )
    command = commands[0]
    if command.unknown:
        raise UnknownToUs(command.unknown)
    environment = service_environment(service, read, specifiers, unit.base_environment, systemd_version)
    argv = tuple(_arguments(command, environment, read))
    if not argv:
        raise UnitError(f"{fragment}: nothing is left of ExecStart= once its variables are expanded")
    return StartCommand(
        executable=command.executable,
        argv=argv,
        variables=environment.variables,
        exec_start_origin=command.origin,
        words=command.words,
        unit=unit,
    )


def _read_service(unit: Unit, files: Files, specifiers: Mapping[str, str]) -> tuple[list[Setting], list[ExecCommand]]:
    """The [Service] settings of fragment and drop-ins in order, and the commands that ExecStart= comes to.

    What systemd refuses in the fragment, it refuses the unit for; in a drop-in, it logs it and reads no further in
    that file.
    """
    service: list[Setting] = []
    commands: list[ExecCommand] = []
    for path in (unit.fragment, *unit.dropins):
        if path not in files.texts:
            raise UnitError(f"{path}: this file of the unit is not among the given texts")
        check_text(path, files.texts[path])
        try:
            for setting in settings(path, files.texts[path]):
                if setting.section != "Service":
                    continue
                service.append(setting)
                if setting.key not in _COMMAND_SETTINGS:
                    continue
                # An unreadable ExecStartPre= makes systemd refuse the unit as an unreadable ExecStart= does.
                kept = commands if setting.key == "ExecStart" else []
                if not setting.value:
                    kept.clear()
                for command in exec_commands(setting, files, specifiers):
                    kept.append(command)  # those before a bad one count
        except UnitError:
            if path == unit.fragment:
                raise
    return service, commands


def _specifiers(unit: Unit) -> dict[str, str]:
    """The specifiers whose value is certain for a unit of the system manager (systemd.unit(5), "Specifiers")."""
    values = {"t": "/run", "S": "/var/lib", "C": "/var/cache", "L": "/var/log", "E": "/etc"}
    values |= {"h": "/root", "u": "root", "U": "0", "g": "root", "G": "0"}
    if unit.hostname is not None:
        values |= {"H": unit.hostname, "l": unit.hostname.partition(".")[0]}
    name = posixpath.basename(unit.fragment)
    if "@." in name:
        return values  # a template's fragment does not tell the instance
    prefix_and_instance = name.rpartition(".")[0]
    prefix, _, instance = prefix_and_instance.partition("@")
    values |= {"n": name, "N": prefix_and_instance, "p": prefix, "i": instance, "j": prefix.rpartition("-")[2]}
    for letter in "pij":
        # The unescaped form differs only where there is something to unescape.
        if not re.search(r"[-\\]", values[letter]):
            values[letter.upper()] = values[letter]
    return values


def _arguments(command: ExecCommand, environment: Environment, files: Files) -> Iterator[Argument]:
    for word in command.words:
        if not command.expands:
            yield _argument(word.chars, word.origin, files)
        elif word.variable is not None:
            yield from _split(environment.value(word.variable) or (), files)
        else:
            yield _argument(tuple(_substituted(word.chars, environment)), word.origin, files)


def _split(value: Sequence[Char], files: Files) -> Iterator[Argument]:
    """The arguments that `$VARIABLE` gives: words with quotes, but without C-style escapes."""
    pos = 0
    while True:
        word, pos = first_word(value, pos, c_escapes=False, keep_open_quotes=True)
        if word is None:
            return
        written = files.origin(word.path, word.start, word.end, value[0].variable)
        yield _argument(word.chars, written, files)


def _substituted(chars: Sequence[Char], environment: Environment) -> Iterator[Char]:
    """`${NAME}` becomes its value as it is, `$$` becomes `$`; everything else that starts with `$` stays."""
    text = plain(chars)
    pos = 0
    while pos < len(chars):
        if text.startswith("$$", pos):
            yield chars[pos]._replace(end=chars[pos + 1].end)
            pos += 2
        elif braced := _BRACED.match(text, pos):
            yield from environment.value(braced[1]) or ()
            pos = braced.end()
        else:
            left_alone = _LEFT_ALONE.match(text, pos)
            end = left_alone.end() if left_alone else pos + 1
            yield from chars[pos:end]
            pos = end


def _argument(chars: tuple[Char, ...], written: Origin, files: Files) -> Argument:
    parts = []
    for (path, variable), group in groupby(chars, key=lambda char: (char.path, char.variable)):
        piece = tuple(group)
        parts.append(Part(plain(piece), files.origin(path, piece[0].start, piece[-1].end, variable)))
    return Argument(plain(chars), written, tuple(parts), chars)
