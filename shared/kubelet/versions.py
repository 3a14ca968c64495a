"""Kubernetes versions, as far as the kubelet's configuration depends on them."""

from __future__ import annotations

import re
from typing import Final

# The minor version whose behaviour was measured; also what an unknown version is taken for.
MEASURED_MINOR: Final = 36

_VERSION: Final = re.compile(r"v?1\.([0-9]{1,3})(?![0-9])")


def minor_version(version: str | None) -> int:
    """The minor of a node's Kubernetes version: 33 of "1.33.2" or "v1.33.2"; None or another text: 36."""
    match = _VERSION.match(version or "")
    return int(match.group(1)) if match else MEASURED_MINOR
