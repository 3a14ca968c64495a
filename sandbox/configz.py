"""What a kubelet of the sandbox answers when it is asked for its configuration: its process's, not the disk's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from shared.kubelet import resolve
from shared.kubelet.minors import minor_rules
from shared.kubelet.schema import split_path
from shared.kubelet.versions import nearest_minor

_NEVER_EMPTY = {"pointer", "duration", "log_duration", "struct"}


def configz(argv: tuple[str, ...], files: Mapping[str, str], version: str) -> dict[str, Any]:
    """The body of `/configz` for a process that was started with these arguments and read these files."""
    return {"kubeletconfig": dict(_effective(argv, tuple(files.items()), version))}


@lru_cache(maxsize=256)
def _effective(argv: tuple[str, ...], files: tuple[tuple[str, str], ...], version: str) -> dict[str, Any]:
    resolution = resolve(argv, dict(files), version=version)
    rules = minor_rules(nearest_minor(version)[0])
    found: dict[str, Any] = {}
    for path in resolution.settings():
        value = resolution.value(path)
        # As Go writes it: empty fields are left out, but for pointers and durations.
        if value is None or (not value and split_path(path, rules.configuration)[1].kind not in _NEVER_EMPTY):
            continue
        *above, name = path.split(".")
        place = found
        for part in above:
            place = place.setdefault(part, {})
        place[name] = value
    return found
