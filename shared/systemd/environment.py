"""The environment that the unit gives its process (systemd.exec(5), "Environment")."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from shared.remembered import Remembered

from . import envfile
from .budget import Execve
from .directives import where, words
from .exec_start import Reader, simplified_path
from .text import (
    BadSpecifier,
    MissingEnvironmentFile,
    Origin,
    UnknownSpecifier,
    UnknownToUs,
    Word,
    Written,
    is_utf8,
    joined_bytes,
    written_nowhere,
)
from .unit import Key, Read, Unit, key_of
from .unitfile import Setting, since_reset

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


_SET_BY_SYSTEMD = frozenset(
    (
        *("PATH", "LANG", "USER", "LOGNAME", "HOME", "SHELL", "TERM", "INVOCATION_ID", "XDG_RUNTIME_DIR"),
        *("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "LOGS_DIRECTORY"),
        *("CONFIGURATION_DIRECTORY", "CREDENTIALS_DIRECTORY", "MAINPID", "MANAGERPID", "SYSTEMD_EXEC_PID"),
        *("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"),
        *("LOG_NAMESPACE", "JOURNAL_STREAM", "FDSTORE", "PIDFILE"),
    )
)
_SET_BY_SYSTEMD_PREFIXES = ("LC_", "MEMORY_PRESSURE_", "MONITOR_", "TRIGGER_")
"""What systemd sets by itself (systemd.exec(5), "Environment Variables Set or Propagated by the Service Manager")."""


@dataclass(frozen=True, slots=True)
class Variable:
    """The winning definition of an environment variable."""

    name: str
    value: str
    origin: Origin
    """From behind its `=` to its end, closing quote included."""
    written: Written = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Environment:
    """What is known of the process's environment."""

    variables: Mapping[str, Variable]
    """Those that the unit and its environment files define."""
    unknown: Mapping[str, str]
    """Names whose value these texts do not tell, and why."""
    base: Mapping[str, str]
    """The manager's own."""

    def value(self, name: str) -> Written | None:
        """The value, None where the variable is not set. Raises UnknownToUs."""
        if name in self.unknown:
            raise UnknownToUs(f"ExecStart= uses ${name}: {self.unknown[name]}")
        if variable := self.variables.get(name):
            return variable.written
        if name in self.base:
            return written_nowhere(self.base[name], name)
        if name in _SET_BY_SYSTEMD or name.startswith(_SET_BY_SYSTEMD_PREFIXES):
            raise UnknownToUs(f"ExecStart= uses ${name}, which systemd sets itself when it starts the service")
        return None

    def count(self, execve: Execve) -> None:
        """Count what the kernel counts of it. Raises TooLarge."""
        for name, value in self.base.items():
            if name not in self.variables:
                execve.add_variable(name, value)
        for variable in self.variables.values():
            execve.add_variable(variable.name, variable.value)


@dataclass(frozen=True, slots=True)
class _Own:
    """What the unit itself says of the environment, before its environment files; and what that cost."""

    variables: Mapping[str, Variable]
    unknown: Mapping[str, str]
    files: tuple[Setting, ...]
    unset: tuple[Setting, ...]
    spent: tuple[int, int]


_REMEMBERED: Remembered[tuple[Key, tuple[tuple[str, str], ...]], _Own] = Remembered(256, 16 * 1024 * 1024)


def service_environment(unit: Unit, read: Read, reader: Reader) -> Environment:
    """PassEnvironment=, over it Environment=, over it each EnvironmentFile= in order; then UnsetEnvironment=.

    `read` is what `read_unit` gives for this unit, and `reader` its reader as it comes from there.
    """
    base = unit.base_environment
    key = key_of(unit, reader.files), tuple(base.items())
    own = _REMEMBERED.get(key, lambda: _own(read.section("Service"), reader, base), lambda own: _weight(key, own))
    reader.budget.raise_to(own.spent)
    variables, unknown = dict(own.variables), dict(own.unknown)
    for setting in own.files:
        for variable in _read_environment_file(setting, reader):
            unknown.pop(variable.name, None)
            variables[variable.name] = variable
    if not own.unset:
        return Environment(variables, unknown, base)
    left = dict(base)
    for setting in own.unset:
        for word in words(setting, reader, c_escapes=True):
            try:
                expanded = reader.expand(word.written, where(setting))
            except BadSpecifier:
                continue  # systemd ignores the word
            name, equals, value = joined_bytes(expanded.text).partition("=")
            if not equals:
                unknown.pop(name, None)
            if name in variables and (not equals or variables[name].value == value):
                del variables[name]
            if name in left and (not equals or left[name] == value):
                del left[name]
    return Environment(variables, unknown, left)


def _own(service: Sequence[Setting], reader: Reader, base: Mapping[str, str]) -> _Own:
    variables: dict[str, Variable] = {}
    unknown: dict[str, str] = {}
    for setting in since_reset(service, "PassEnvironment"):
        for word in words(setting, reader, c_escapes=False):
            name = word.written.text
            if _NAME.fullmatch(name) and name not in base:
                unknown[name] = f"PassEnvironment= at {setting.path}:{setting.line} takes it from the manager"
    for setting in since_reset(service, "Environment"):
        for word in words(setting, reader, c_escapes=True):
            _define(word, setting, reader, variables, unknown)
    return _Own(
        variables,
        unknown,
        tuple(since_reset(service, "EnvironmentFile")),
        tuple(since_reset(service, "UnsetEnvironment")),
        reader.budget.spent,
    )


def _weight(key: tuple[Key, tuple[tuple[str, str], ...]], own: _Own) -> int:
    """Bytes, about; `spent` has counted the unit's texts as well."""
    characters, things = own.spent
    return 4_000 + 16 * characters + 600 * things + sum(200 + 4 * len(name + value) for name, value in key[1])


def _define(
    word: Word,
    setting: Setting,
    reader: Reader,
    variables: dict[str, Variable],
    unknown: dict[str, str],
) -> None:
    """Take one word of Environment= in. What is no assignment is ignored, as systemd does."""
    try:
        expanded = reader.expand(word.written, where(setting))
    except BadSpecifier:
        return
    except UnknownSpecifier as error:
        name = word.written.text.partition("=")[0]
        if "%" in name:
            raise
        variables.pop(name, None)
        unknown[name] = f"its definition in {setting.path} has {error}"
        return
    name, equals, value = expanded.text.partition("=")
    if not equals or not _NAME.fullmatch(name) or not is_utf8(value):
        return
    unknown.pop(name, None)
    at = len(name)
    origin = reader.files.origin(setting.path, expanded.ends[at], word.end, name)
    written = expanded.cut(at + 1, len(expanded)).of(name)
    variables[name] = Variable(name, joined_bytes(value), origin, written)


def _read_environment_file(setting: Setting, reader: Reader) -> list[Variable]:
    place = where(setting)
    try:
        named = joined_bytes(reader.expand(setting.value, place).text)
    except BadSpecifier:
        return []  # systemd ignores the setting
    path = simplified_path(named.removeprefix("-"))
    if not path.startswith("/"):
        return []  # systemd ignores a path that is not absolute
    if re.search(r"[*?\[\\]", path):
        raise UnknownToUs(f"{place} names files by a pattern, {path}; only plain paths are modelled")
    if path not in reader.files.texts:
        if named.startswith("-"):
            return []
        raise MissingEnvironmentFile(f"{place} names {path}, which is missing; systemd fails the start")
    reader.budget.read(len(reader.files.texts[path]), path)
    try:
        return list(_variables(path, reader))
    except envfile.UnreadableFile:
        if named.startswith("-"):
            return []
        raise


def _variables(path: str, reader: Reader) -> Iterator[Variable]:
    for assignment in _assignments(path, reader):
        if _NAME.fullmatch(assignment.name):
            yield Variable(
                name=assignment.name,
                value=assignment.value.text,
                origin=reader.files.origin(path, assignment.after_equals, assignment.end, assignment.name),
                written=assignment.value,
            )


def _assignments(path: str, reader: Reader) -> list[envfile.Assignment]:
    text, version = reader.files.texts[path], reader.systemd_version

    def read(*, comments_continue: bool) -> list[envfile.Assignment]:
        found = []
        for assignment in envfile.assignments(path, text, comments_continue=comments_continue):
            reader.budget.make(1, path)
            found.append(assignment)
        return found

    if version is not None:
        return read(comments_continue=version < envfile.COMMENTS_END_SINCE)
    if not re.search(r"\\[\r\n]", text):
        return read(comments_continue=False)
    newer: list[envfile.Assignment] | None = None
    try:
        newer = read(comments_continue=False)
        same = newer == read(comments_continue=True)
    except envfile.UnreadableFile:
        same = False
    if newer is None or not same:
        raise UnknownToUs(
            f"{path}: a comment line ends with a backslash; the line after it is a comment for systemd before "
            f"{envfile.COMMENTS_END_SINCE} and counts from then on, and the node's systemd version is not known"
        )
    return newer
