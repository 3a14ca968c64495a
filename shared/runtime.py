"""Whether the app can run on this Python with these packages, told before any package is imported.

Packages with compiled parts are made for one minor of Python. A build for another one than the app runs on ends in an
ImportError that names neither; and an app that cannot be imported has no functions, and says nowhere why. Nothing but
the standard library is imported here, and nothing is written that only newer Pythons can read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 13)
"""The minors that the app is made for: `requires-python` in pyproject.toml, `pythonVersion` in infra/main.bicep."""

# What nothing here works without, and what is compiled for each minor and platform anew.
_PACKAGE, _COMPILED = "pydantic_core", "_pydantic_core"
_HOW = "docs/deploying.md has both ways to build"


def wrong(
    version: tuple[int, int] = sys.version_info[:2],
    suffixes: Sequence[str] = tuple(EXTENSION_SUFFIXES),
    path: Sequence[str] | None = None,
) -> str:
    """What keeps the app from running here, in words for who deploys it; empty where nothing does.

    `version` is a major and a minor, `suffixes` what this Python's compiled modules end with, `path` where packages are
    looked for (None: as for any import).
    """
    here = _named(version)
    if not OLDEST <= version <= NEWEST:
        return (
            f"the app runs on {here}, and is made for {_named(OLDEST)} to {NEWEST[0]}.{NEWEST[1]}:"
            " deploy it with another pythonVersion (infra/main.bicep)"
        )
    found = PathFinder.find_spec(_PACKAGE, path)
    if found is None or found.origin is None:
        return f"the app's packages are not there ({_PACKAGE} is in no folder of its path): deploy it with them; {_HOW}"
    built = sorted(item.name for item in Path(found.origin).parent.glob(f"{_COMPILED}.*") if item.suffix != ".pyi")
    if any(_COMPILED + suffix in built for suffix in suffixes):
        return ""
    made_for = " and ".join(_made_for(name) for name in built) or "no Python"
    return (
        f"the app runs on {here}, and its packages were built for {made_for}: build them for {here} and deploy again"
        f" ({_HOW}), or deploy it with the pythonVersion that they were built for (infra/main.bicep)"
    )


def _named(version: tuple[int, int]) -> str:
    return f"Python {version[0]}.{version[1]}"


def _made_for(name: str) -> str:
    """What the name of a compiled module says, such as `_x.cpython-312-x86_64-linux-gnu.so`."""
    tagged = re.fullmatch(r"[^.]+\.(?:cpython-|cp)3(\d+)-([\w-]+)\.\w+", name)
    return f"Python 3.{tagged[1]} ({tagged[2]})" if tagged else name
