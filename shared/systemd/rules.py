"""What a service unit says beside its command: when it may be started and stopped, as whom, and what it sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from shared.remembered import Remembered

from . import directives
from .exec_start import Reader
from .text import (
    WHITESPACE,
    BadSpecifier,
    Files,
    UnknownSpecifier,
    WordError,
    Written,
    first_word,
    joined_bytes,
    read_word,
)
from .unit import Key, Unit, key_of, read_unit
from .unitfile import Setting, since_reset

# Of systemd 249 to 257; it ignores others (systemd.unit(5), "Conditions and Asserts").
_PATH_TESTS = frozenset(
    (
        *("PathExists", "PathExistsGlob", "PathIsDirectory", "PathIsSymbolicLink", "PathIsMountPoint"),
        *("PathIsReadWrite", "PathIsEncrypted", "DirectoryNotEmpty", "FileNotEmpty", "FileIsExecutable"),
        "NeedsUpdate",
    )
)
_TESTS = _PATH_TESTS | frozenset(
    (
        *("Architecture", "Firmware", "Virtualization", "Host", "KernelCommandLine", "KernelVersion", "Credential"),
        *("Environment", "Security", "Capability", "ACPower", "FirstBoot", "User", "Group", "ControlGroupController"),
        *("Memory", "CPUs", "CPUFeature", "OSRelease", "MemoryPressure", "CPUPressure", "IOPressure"),
    )
)
_TRUE = frozenset(("1", "yes", "y", "true", "t", "on"))
_FALSE = frozenset(("0", "no", "n", "false", "f", "off"))

_PRIVATE = {
    "PrivateTmp": ("/tmp", "/var/tmp"),  # noqa: S108 - the directories that systemd mounts over
    "PrivateDevices": ("/dev",),
    "ProtectHome": ("/home", "/root", "/run/user"),
}
_IMPLIED_BY_DYNAMIC_USER = ("PrivateTmp", "ProtectHome")
_EXTENDED = ("/usr", "/opt", "/etc")
"""What ExtensionImages= and ExtensionDirectories= lay an overlay over."""


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """What a restart by hand and the process's view of files depend on."""

    exec_condition: bool
    """Whether there is an ExecCondition=: a command that may forbid a start."""
    refuse_manual_stop: bool
    refuse_manual_start: bool
    user: str
    """User=, or the unit's name for DynamicUser= without it; empty for root."""
    working_directory: str
    """`/` where there is none; `~` for the home directory of a user other than root."""
    root_directory: str
    root_image: str
    """Empty where there is none."""
    mounted: tuple[str, ...]
    """The paths that directives of the unit mount something over, as the process names them, sorted."""
    conditions: tuple[str, ...]
    """The `Condition…=` and `Assert…=` lines that count, as they are written."""


def service_rules(
    fragment: str,
    dropins: Sequence[str],
    files: Mapping[str, str],
    *,
    hostname: str | None = None,
    systemd_version: int | None = None,
) -> ServiceRules:
    """What the unit says of these, by the texts of its fragment and its drop-ins (as `start_command` takes them).

    Raises UnitError where systemd refuses the unit, of it TooLarge for a limit of ours, and UnknownToUs where a value
    depends on what these texts do not tell.
    """
    unit = Unit(fragment, tuple(dropins), {}, hostname, systemd_version)
    given = Files(files)
    key = key_of(unit, given)
    return _REMEMBERED.get(key, lambda: _rules(unit, given), lambda rules: _weight(key, rules))


_REMEMBERED: Remembered[Key, ServiceRules] = Remembered(entries=256, weight=8 * 1024 * 1024)


def _weight(key: Key, rules: ServiceRules) -> int:
    """Bytes, about."""
    return 1_000 + sum(100 + 4 * len(text) for text in (*key[2], *rules.mounted, *rules.conditions))


def _rules(unit: Unit, files: Files) -> ServiceRules:
    read, reader = read_unit(unit, files)
    of_unit, service = read.section("Unit"), read.section("Service")
    user = _user(service, reader)
    return ServiceRules(
        exec_condition=bool(read.commands["ExecCondition"]),
        refuse_manual_stop=_boolean(of_unit, "RefuseManualStop"),
        refuse_manual_start=_boolean(of_unit, "RefuseManualStart"),
        user=user,
        working_directory=_working_directory(service, user, reader),
        root_directory=_root(service, "RootDirectory", reader),
        root_image=_root(service, "RootImage", reader),
        mounted=tuple(sorted(set(_mounted(service, reader)))),
        conditions=(*_tests(of_unit, "Condition", reader), *_tests(of_unit, "Assert", reader)),
    )


def _boolean(settings: Sequence[Setting], key: str) -> bool:
    """The last value that is one; systemd ignores others, empty ones too."""
    value = False
    for setting in settings:
        text = setting.value.text.lower()
        if setting.key == key and text in _TRUE | _FALSE:
            value = text in _TRUE
    return value


def _user(service: Sequence[Setting], reader: Reader) -> str:
    name = ""
    for setting in service:
        if setting.key == "User":
            name = directives.user(setting, reader)
    if not name and _boolean(service, "DynamicUser"):
        name = reader.specifiers.get("p", "DynamicUser")
    return "" if name in ("root", "0") else name


def _working_directory(service: Sequence[Setting], user: str, reader: Reader) -> str:
    directory = ""
    for setting in service:
        if setting.key == "WorkingDirectory" and (found := directives.working_directory(setting, reader)) is not None:
            directory = found
    if directory == directives.HOME and not user:
        return "/root"
    return directory or "/"


def _root(service: Sequence[Setting], key: str, reader: Reader) -> str:
    path = ""
    for setting in service:
        if setting.key == key:
            path = directives.root(setting, reader)
    return "" if path == "/" else path


def _tests(settings: Sequence[Setting], kind: str, reader: Reader) -> Iterator[str]:
    """The conditions, or the asserts. An empty assignment to any of them drops all before it."""
    for setting in since_reset(settings, *(kind + name for name in _TESTS)):
        if setting.key.removeprefix(kind) not in _PATH_TESTS or _tests_a_path(setting, reader):
            yield f"{setting.key}={setting.value.text}"


def _tests_a_path(setting: Setting, reader: Reader) -> bool:
    """Whether systemd takes the path, or these texts do not tell."""
    try:
        text = joined_bytes(reader.expand(setting.value, directives.where(setting)).text)
    except BadSpecifier:
        return False
    except UnknownSpecifier:
        return True
    return directives.absolute_path(text.removeprefix("|").removeprefix("!")) is not None


def _mounted(service: Sequence[Setting], reader: Reader) -> Iterator[str]:
    """What systemd ignores is left out, and so is what these texts do not tell."""
    for setting in since_reset(service, "BindPaths", "BindReadOnlyPaths"):
        yield from _bind_destinations(setting, reader)
    for setting in since_reset(service, "TemporaryFileSystem"):
        for word in _words(setting, reader):
            yield from _path(word.cut(0, _colon(word, 0)), setting, reader)
    for setting in since_reset(service, "InaccessiblePaths"):
        for word in _words(setting, reader):
            yield from _path(_without(_without(word, "-"), "+"), setting, reader)
    for setting in since_reset(service, "MountImages"):
        for word in _words(setting, reader):
            if any(end - start > 1 for start, end in zip(word.starts, word.ends, strict=True)):
                break  # a C-style escape, which is not modelled; a bad one ends the line
            start = _colon(word, 0) + 1
            if list(_path(_without(word.cut(0, start - 1), "-"), setting, reader)):
                yield from _path(word.cut(start, _colon(word, start)), setting, reader)
    if since_reset(service, "ExtensionImages") or since_reset(service, "ExtensionDirectories"):
        yield from _EXTENDED
    dynamic = _boolean(service, "DynamicUser")
    for key, paths in _PRIVATE.items():
        last = [setting.value.text.lower() for setting in service if setting.key == key and setting.value][-1:]
        if (last and last[0] not in _FALSE) or (dynamic and key in _IMPLIED_BY_DYNAMIC_USER):
            yield from paths


def _path(written: Written, setting: Setting, reader: Reader) -> Iterator[str]:
    """The path, if it is one that systemd takes."""
    try:
        path = directives.absolute_path(joined_bytes(reader.expand(written, directives.where(setting)).text))
    except (BadSpecifier, UnknownSpecifier):
        return
    if path is not None:
        yield path


def _without(word: Written, prefix: str) -> Written:
    return word.cut(1, len(word)) if word.text.startswith(prefix) else word


def _colon(word: Written, start: int) -> int:
    """Where the part that begins at `start` ends."""
    found = word.text.find(":", start)
    return len(word) if found < 0 else found


def _bind_destinations(setting: Setting, reader: Reader) -> Iterator[str]:
    """Of SOURCE[:DESTINATION[:OPTIONS]]. Where a part is bad, systemd goes on with the next one as a source."""
    pos = 0
    try:
        while pos < len(setting.value):
            reader.budget.make(1, directives.where(setting))
            source, pos, more = _part(setting.value, pos)
            destinations = list(_path(_without(source, "-"), setting, reader))
            if destinations and more:
                destination, pos, more = _part(setting.value, pos)
                destinations = list(_path(destination, setting, reader))
                if destinations and more:
                    options, pos = first_word(setting.value, pos, c_escapes=False)
                    if options and options.written.text not in ("rbind", "norbind"):
                        continue
            yield from destinations
    except WordError:
        return


def _part(value: Written, pos: int) -> tuple[Written, int, bool]:
    """The part that starts at `pos`, where the next one starts, and whether a colon stands between them."""
    written, end = read_word(value, pos, c_escapes=False, separators=":" + WHITESPACE)
    return written, min(end + 1, len(value)), value.text[end : end + 1] == ":"


def _words(setting: Setting, reader: Reader) -> Iterator[Written]:
    return (word.written for word in directives.words(setting, reader, c_escapes=False))
