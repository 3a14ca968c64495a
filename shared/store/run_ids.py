"""Run ids: sortable by time, short enough to type, and unique enough without asking anybody."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

from shared.errors import UsageError

_RUN_ID = re.compile(r"(\d{8}T\d{6}Z)-([0-9a-f]{6})")
_INVERTED = str.maketrans("0123456789abcdef", "fedcba9876543210")


def new_run_id(started: datetime) -> str:
    """An id for a run begun at `started` (timezone-aware): `YYYYMMDDTHHMMSSZ-xxxxxx`.

    The last part is the milliseconds and a random number of twelve bits, so that ids sort by time.
    """
    milliseconds = started.microsecond // 1000
    return f"{started.astimezone(UTC):%Y%m%dT%H%M%SZ}-{milliseconds:03x}{secrets.randbelow(1 << 12):03x}"


def first_run_id(started: datetime) -> str:
    """The smallest id that a run begun at `started` (timezone-aware, cut to seconds) can have."""
    return f"{started.astimezone(UTC):%Y%m%dT%H%M%SZ}-000000"


def newest_first_key(run_id: str) -> str:
    """A row key that sorts a newer run before an older one. Raises UsageError where `run_id` is no run id."""
    match = _RUN_ID.fullmatch(run_id)
    if not match or not run_id.isascii():
        raise UsageError(f"{run_id[:60]!r} is not a run id (such as 20260131T020000Z-a1b2c3)")
    return f"{match[1].translate(_INVERTED)}-{match[2].translate(_INVERTED)}"
