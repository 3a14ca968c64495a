"""A service unit as systemd puts it together: the settings of its fragment and its drop-ins."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass

from shared.remembered import Remembered

from . import directives
from .budget import Budget, TooLarge
from .exec_start import ExecCommand, Reader, exec_commands
from .text import Files, UnitError
from .unitfile import Setting, settings

_COMMAND_SETTINGS = frozenset(
    ("ExecCondition", "ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload", "ExecStop", "ExecStopPost")
)


@dataclass(frozen=True, slots=True)
class Unit:
    """What a question about a unit is asked of, so that it can be asked again with other texts.

    `fragment` and `dropins` are paths, the drop-ins in the order in which systemd applies them.
    """

    fragment: str
    dropins: tuple[str, ...]
    base_environment: Mapping[str, str]
    hostname: str | None
    systemd_version: int | None

    def specifiers(self) -> dict[str, str]:
        """Those whose value is certain for a unit of the system manager (systemd.unit(5), "Specifiers")."""
        values = {"t": "/run", "S": "/var/lib", "C": "/var/cache", "L": "/var/log", "E": "/etc"}
        values |= {"h": "/root", "u": "root", "U": "0", "g": "root", "G": "0"}
        if self.hostname is not None:
            values |= {"H": self.hostname, "l": self.hostname.partition(".")[0]}
        name = posixpath.basename(self.fragment)
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


@dataclass(frozen=True, slots=True)
class Read:
    """The settings that count, and the commands that each of ExecStart= and its like comes to (key to commands)."""

    settings: tuple[Setting, ...]
    commands: Mapping[str, tuple[ExecCommand, ...]]

    def section(self, name: str) -> list[Setting]:
        """The settings of one section, in their order."""
        return [setting for setting in self.settings if setting.section == name]


Key = tuple[str, tuple[str, ...], tuple[str, ...], str | None, int | None]


@dataclass(frozen=True, slots=True)
class _Made:
    """What a unit's files come to, with the characters and the things that it cost."""

    read: Read
    specifiers: Mapping[str, str]
    spent: tuple[int, int]

    @property
    def weight(self) -> int:
        """Bytes, about: measured are 11 for a character and 500 for a thing."""
        characters, things = self.spent
        return 4_000 + 16 * characters + 600 * things


_REMEMBERED: Remembered[Key, _Made] = Remembered(entries=256, weight=16 * 1024 * 1024)


def key_of(unit: Unit, files: Files) -> Key:
    """All that decides what is read: no environment, which no specifier tells. Raises UnitError for a missing text."""
    texts = []
    for path in (unit.fragment, *unit.dropins):
        if path not in files.texts:
            raise UnitError(f"{path}: this file of the unit is not among the given texts")
        texts.append(files.texts[path])
    return unit.fragment, unit.dropins, tuple(texts), unit.hostname, unit.systemd_version


def read_unit(unit: Unit, files: Files) -> tuple[Read, Reader]:
    """Fragment and drop-ins in order, and the reader for their values, which has counted what they cost.

    What systemd refuses in the fragment, it refuses the unit for; in a drop-in, it logs it and reads no further in
    that file. Raises UnitError.
    """

    def make() -> _Made:
        reader = Reader(files, unit.specifiers(), unit.systemd_version, Budget())
        return _Made(_read(unit, reader), reader.specifiers, reader.budget.spent)

    made = _REMEMBERED.get(key_of(unit, files), make, lambda made: made.weight)
    return made.read, Reader(files, made.specifiers, unit.systemd_version, Budget(made.spent))


def _read(unit: Unit, reader: Reader) -> Read:
    found: list[Setting] = []
    commands: dict[str, list[ExecCommand]] = {key: [] for key in _COMMAND_SETTINGS}
    for path in (unit.fragment, *unit.dropins):
        text = reader.files.texts[path]
        reader.budget.read(len(text), path)
        try:
            for setting in settings(path, text, reader.budget):
                if setting.section == "Service":
                    directives.check(setting, reader)
                found.append(setting)
                if setting.section != "Service" or setting.key not in commands:
                    continue
                if not setting.value:
                    commands[setting.key].clear()
                for command in exec_commands(setting, reader):
                    commands[setting.key].append(command)  # those before a bad one count
        except TooLarge:
            raise
        except UnitError:
            if path == unit.fragment:
                raise
    return Read(tuple(found), {key: tuple(kept) for key, kept in commands.items()})
