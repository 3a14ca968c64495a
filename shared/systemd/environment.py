"""The environment that the unit gives its process (systemd.exec(5), "Environment")."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from . import envfile
from .exec_start import simplified_path
from .text import (
    BadSpecifier,
    Char,
    Files,
    MissingEnvironmentFile,
    Origin,
    UnknownSpecifier,
    UnknownToUs,
    Word,
    WordError,
    expand_specifiers,
    first_word,
    has_bytes,
    plain,
)
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
    chars: tuple[Char, ...] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Environment:
    """What is known of the process's environment."""

    variables: Mapping[str, Variable]
    """Those that the unit and its environment files define."""
    unknown: Mapping[str, str]
    """Names whose value these texts do not tell, and why."""
    base: Mapping[str, str]
    """The manager's own."""

    def value(self, name: str) -> tuple[Char, ...] | None:
        """The value, None where the variable is not set. Raises UnknownToUs."""
        if name in self.unknown:
            raise UnknownToUs(f"ExecStart= uses ${name}: {self.unknown[name]}")
        if variable := self.variables.get(name):
            return variable.chars
        if name in self.base:
            return tuple(Char(char, "", 0, 0, name) for char in self.base[name])
        if name in _SET_BY_SYSTEMD or name.startswith(_SET_BY_SYSTEMD_PREFIXES):
            raise UnknownToUs(f"ExecStart= uses ${name}, which systemd sets itself when it starts the service")
        return None


def service_environment(
    service: Sequence[Setting],
    files: Files,
    specifiers: Mapping[str, str],
    base: Mapping[str, str],
    systemd_version: int | None,
) -> Environment:
    """PassEnvironment=, over it Environment=, over it each EnvironmentFile= in order; then UnsetEnvironment=.

    `service` is the [Service] settings of fragment and drop-ins in order.
    """
    variables: dict[str, Variable] = {}
    unknown: dict[str, str] = {}
    for setting in since_reset(service, "PassEnvironment"):
        for word in _words(setting, c_escapes=False):
            name = plain(word.chars)
            if _NAME.fullmatch(name) and name not in base:
                unknown[name] = f"PassEnvironment= at {setting.path}:{setting.line} takes it from the manager"
    for setting in since_reset(service, "Environment"):
        for word in _words(setting, c_escapes=True):
            _define(word, files, specifiers, variables, unknown)
    for setting in since_reset(service, "EnvironmentFile"):
        for variable in _read_environment_file(setting, files, specifiers, systemd_version):
            unknown.pop(variable.name, None)
            variables[variable.name] = variable
    left = dict(base)
    for setting in since_reset(service, "UnsetEnvironment"):
        for word in _words(setting, c_escapes=True):
            try:
                name, equals, value = plain(expand_specifiers(word.chars, specifiers)).partition("=")
            except BadSpecifier:
                continue  # systemd ignores the word
            if not equals:
                unknown.pop(name, None)
            if name in variables and (not equals or variables[name].value == value):
                del variables[name]
            if name in left and (not equals or left[name] == value):
                del left[name]
    return Environment(variables, unknown, left)


def _words(setting: Setting, *, c_escapes: bool) -> Iterator[Word]:
    """The words of a list, up to the first that cannot be read: systemd ignores that one and what follows."""
    pos = 0
    while True:
        try:
            word, pos = first_word(setting.value, pos, c_escapes=c_escapes)
        except WordError:
            return
        if word is None:
            return
        yield word


def _define(
    word: Word,
    files: Files,
    specifiers: Mapping[str, str],
    variables: dict[str, Variable],
    unknown: dict[str, str],
) -> None:
    """Take one word of Environment= in. What is no assignment is ignored, as systemd does."""
    try:
        chars = expand_specifiers(word.chars, specifiers)
    except BadSpecifier:
        return
    except UnknownSpecifier as error:
        name = plain(word.chars).partition("=")[0]
        if "%" in name:
            raise
        variables.pop(name, None)
        unknown[name] = f"its definition in {word.path} has {error}"
        return
    name, equals, value = plain(chars).partition("=")
    if not equals or not _NAME.fullmatch(name):
        return
    if has_bytes(chars):
        variables.pop(name, None)
        unknown[name] = f"its definition in {word.path} has escapes that make bytes beyond ASCII"
        return
    unknown.pop(name, None)
    at = len(name)
    named = tuple(char._replace(variable=name) for char in chars[at + 1 :])
    variables[name] = Variable(name, value, files.origin(word.path, chars[at].end, word.end, name), named)


def _read_environment_file(
    setting: Setting,
    files: Files,
    specifiers: Mapping[str, str],
    systemd_version: int | None,
) -> Iterator[Variable]:
    where = f"{setting.path}:{setting.line}: EnvironmentFile="
    try:
        written = plain(expand_specifiers(setting.value, specifiers))
    except BadSpecifier:
        return  # systemd ignores the setting
    path = simplified_path(written.removeprefix("-"))
    if not path.startswith("/"):
        return  # systemd ignores a path that is not absolute
    if re.search(r"[*?\[\\]", path):
        raise UnknownToUs(f"{where} names files by a pattern, {path}; only plain paths are modelled")
    if path not in files.texts:
        if written.startswith("-"):
            return
        raise MissingEnvironmentFile(f"{where} names {path}, which is missing; systemd fails the start")
    for assignment in _assignments(path, files.texts[path], systemd_version):
        if _NAME.fullmatch(assignment.name):
            yield Variable(
                name=assignment.name,
                value=plain(assignment.value),
                origin=files.origin(path, assignment.after_equals, assignment.end, assignment.name),
                chars=assignment.value,
            )


def _assignments(path: str, text: str, systemd_version: int | None) -> tuple[envfile.Assignment, ...]:
    if systemd_version is not None:
        return envfile.assignments(path, text, comments_continue=systemd_version < envfile.COMMENTS_END_SINCE)
    if not re.search(r"\\[\r\n]", text):
        return envfile.assignments(path, text, comments_continue=False)
    older = envfile.assignments(path, text, comments_continue=True)
    newer = envfile.assignments(path, text, comments_continue=False)
    if older != newer:
        raise UnknownToUs(
            f"{path}: a comment line ends with a backslash; the line after it is a comment for systemd before "
            f"{envfile.COMMENTS_END_SINCE} and counts from then on, and the node's systemd version is not known"
        )
    return newer
