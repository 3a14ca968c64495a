"""Kubernetes versions, as far as the kubelet's configuration depends on them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

# What a version that is not known is taken for.
USUAL_MINOR: Final = 36
DATA: Final = Path(__file__).with_name("data")

_VERSION: Final = re.compile(r"v?1\.([0-9]{1,3})(?![0-9])")


@cache
def modelled_minors() -> tuple[int, ...]:
    """The minors that have data, the oldest first."""
    return tuple(sorted(int(file.stem.removeprefix("1.")) for file in DATA.glob("1.*.json")))


def minor_of(version: str | None) -> int | None:
    """The minor of a Kubernetes version ("1.33.2", "v1.33.2"); None where it is none."""
    match = _VERSION.match(version or "")
    return None if match is None else int(match.group(1))


def nearest_minor(version: str | None) -> tuple[int, bool]:
    """The modelled minor nearest to a Kubernetes version ("1.33.2", "v1.33.2"), and whether it is the version's own.

    None, or a text that is no version, has the rules of 1.36, which then are not its own.
    """
    minor = minor_of(version)
    if minor is None:
        return USUAL_MINOR, False
    return min(modelled_minors(), key=lambda known: abs(known - minor)), minor in modelled_minors()


def modelled(version: str | None) -> bool:
    """Whether there are rules of this version's own."""
    return nearest_minor(version)[1]
