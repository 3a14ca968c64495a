"""Single settings: their words, and whose bad value makes systemd refuse the unit (systemd.exec(5); its
config_parse_…() functions).

Each of these gives None where systemd ignores the assignment, and raises UnitError where it refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .exec_start import Reader, simplified_path
from .text import BadSpecifier, UnitError, UnknownSpecifier, Word, WordError, first_word, joined_bytes
from .unitfile import Setting

_LARGEST_ID = 2**32 - 2
_NO_ID = 2**16 - 1  # -1 where an id has 16 bits

HOME = "~"
"""WorkingDirectory=~: the home directory of the user that the service runs as."""


def absolute_path(path: str) -> str | None:
    """The path, simplified; None where systemd does not take it: it must be absolute and have no `..`."""
    if not path.startswith("/") or ".." in path.split("/"):
        return None
    return simplified_path(path)


def where(setting: Setting) -> str:
    """Its place and key, for messages."""
    return f"{setting.path}:{setting.line}: {setting.key}="


def words(setting: Setting, reader: Reader, *, c_escapes: bool) -> Iterator[Word]:
    """The words of a list, up to the first that cannot be read: systemd ignores that one and what follows."""
    pos = 0
    while True:
        try:
            word, pos = first_word(setting.value, pos, c_escapes=c_escapes)
        except WordError:
            return
        if word is None:
            return
        reader.budget.make(1, where(setting))
        yield word


def check(setting: Setting, reader: Reader) -> None:
    """Raise UnitError where systemd refuses this [Service] setting; what depends on more than these texts passes."""
    try:
        if setting.key == "WorkingDirectory":
            working_directory(setting, reader)
        elif setting.key in ("RootDirectory", "RootImage"):
            root(setting, reader)
        elif setting.key in ("User", "Group"):
            user(setting, reader)
    except UnknownSpecifier:
        return


def working_directory(setting: Setting, reader: Reader) -> str | None:
    """The directory of WorkingDirectory=: a path, `~`, or nothing (empty). With `-`, a bad one is ignored."""
    text = setting.value.text
    if not text or text.removeprefix("-") == HOME:
        return text.removeprefix("-")
    try:
        path = absolute_path(_expanded(setting, reader).removeprefix("-"))
    except BadSpecifier:
        path = None
    if path is None and not text.startswith("-"):
        raise UnitError(f"{where(setting)} is no absolute path; systemd refuses it")
    return path


def root(setting: Setting, reader: Reader) -> str:
    """The path of RootDirectory= or RootImage=; empty for nothing."""
    if not setting.value:
        return ""
    try:
        path = absolute_path(_expanded(setting, reader))
    except BadSpecifier:
        path = None
    if path is None:
        raise UnitError(f"{where(setting)} is no absolute path; systemd refuses it")
    return path


def user(setting: Setting, reader: Reader) -> str:
    """The name or number of User= or Group=; empty for nothing."""
    if not setting.value:
        return ""
    try:
        name = _expanded(setting, reader)
    except BadSpecifier:
        raise UnitError(f"{where(setting)} has a specifier that systemd does not know") from None
    number = int(name[:11]) if re.fullmatch(r"[0-9]+", name) else 0
    bad_number = number > _LARGEST_ID or number == _NO_ID
    if bad_number or name in ("", ".", "..") or re.search(r"[:/\x00-\x1f\x7f]|^ | $", name):
        raise UnitError(f"{where(setting)} is no name or number of a user or group; systemd refuses it")
    return name


def _expanded(setting: Setting, reader: Reader) -> str:
    return joined_bytes(reader.expand(setting.value, where(setting)).text)
