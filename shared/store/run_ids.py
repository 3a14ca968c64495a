"""Run ids: sortable by time, short enough to type, and unique enough without asking anybody."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

from shared.errors import UsageError

_RUN_ID = re.compile(r"(\d{8}T\d{6}Z)-([0-9a-f]{6})")
_INVERTED = str.maketrans("0123456789", "9876543210")


def new_run_id(started: datetime) -> str:
    """An id for a run begun at `started` (timezone-aware): `YYYYMMDDTHHMMSSZ-xxxxxx`, the last part random."""
    return f"{started.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def newest_first_key(run_id: str) -> str:
    """A row key that sorts a newer run before an older one. Raises UsageError where `run_id` is no run id."""
    match = _RUN_ID.fullmatch(run_id)
    if not match or not run_id.isascii():
        raise UsageError(f"{run_id[:60]!r} is not a run id (such as 20260131T020000Z-a1b2c3)")
    return f"{match[1].translate(_INVERTED)}-{match[2]}"
