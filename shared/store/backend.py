"""What a backend is: rows in partitions of tables, with compare-and-swap.

Both backends keep the same promises, tested by the same tests: a row is written whole or not at all, a query's order is
stable (by encoded partition and row), and a continuation goes on after the last row that was given, whatever was
written or deleted in between.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from shared.errors import NotStorable, UsageError
from shared.store.keys import MAX_KEY, utf16_units

# The text fields of a row that a query can compare; each has a column (SQLite) or property (Tables) of its own.
FIELDS = ("status", "subscription", "cluster", "node_pool", "node", "control", "kind")
MAX_PAGE = 1000
# An entity holds 1 MiB, two bytes a UTF-16 code unit, some of it for keys and fields. The emulator (Azurite) counts the
# entity as it is sent instead, in JSON with what is not ASCII as `\uXXXX`: a row fits both.
MAX_ROW_UNITS = 480_000
MAX_ROW_SENT = 950_000
# This much of any text fits, whatever its characters.
ALWAYS_FITS_UNITS = 150_000


class Table(StrEnum):
    """The tables. The value is part of the table's name in Azure and must stay as it is."""

    RUNS = "runs"
    FINDINGS = "findings"
    HISTORY = "history"
    COMMANDS = "commands"
    DOCUMENTS = "documents"
    CLAIMS = "claims"
    PROGRESS = "progress"


@dataclass(frozen=True, slots=True)
class Row:
    """What is written: `data` is text, `fields` the values (of `FIELDS`) that a query can compare.

    Raises NotStorable where `data` is more than a row can hold.
    """

    data: str
    fields: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # No code point takes more than twelve characters as sent.
        if len(self.data) <= MAX_ROW_SENT // 12:
            return
        if utf16_units(self.data) > MAX_ROW_UNITS or len(json.dumps(self.data)) > MAX_ROW_SENT:
            raise NotStorable(
                f"a row of {len(self.data)} characters is too long for the store; {ALWAYS_FITS_UNITS} always fit, and "
                f"{MAX_ROW_UNITS} of plain text"
            )


@dataclass(frozen=True, slots=True)
class Stored:
    """What is read. `etag` changes with every write of the row."""

    partition: str
    row: str
    data: str
    etag: str


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in order, and where to go on; `continuation` is None on the last page."""

    rows: tuple[Stored, ...]
    continuation: str | None


class Backend(Protocol):
    """Every method raises StoreError (or CredentialError) where the store cannot be reached, read or written."""

    async def put(self, table: Table, partition: str, rows: Mapping[str, Row]) -> None:
        """Write rows, replacing what is there. Cut in the middle, each row is there whole or not at all."""

    async def insert(self, table: Table, partition: str, row: str, data: Row) -> bool:
        """Write a row that must not exist yet. False, with nothing written, where it does."""

    async def replace(self, table: Table, partition: str, row: str, data: Row, etag: str) -> bool:
        """Write a row that must still be the one read with `etag`. False, with nothing written, where it is not."""

    async def get(self, table: Table, partition: str, row: str) -> Stored | None:
        """One row, or None."""

    async def starting(self, table: Table, partition: str, prefixes: Sequence[str]) -> tuple[Stored, ...]:
        """All rows of a partition whose key starts with one of `prefixes`, prefix by prefix, in the keys' order."""

    async def delete(self, table: Table, partition: str, row: str, etag: str | None = None) -> None:
        """Delete a row where it is, and is still that one if `etag` is given."""

    async def query(
        self,
        table: Table,
        partition: str | None,
        equals: Mapping[str, str],
        limit: int,
        continuation: str | None,
    ) -> Page:
        """At most `limit` (1 to MAX_PAGE) rows of a partition, or of all, whose fields equal `equals`.

        Raises UsageError for a limit or continuation that cannot be.
        """


def page_of(rows: Sequence[tuple[str, str, Stored]], limit: int) -> Page:
    """A page from up to `limit` + 1 rows, each with its encoded keys; one too many says that there is more."""
    more = len(rows) > limit
    kept = rows[:limit]
    continuation = encode_continuation(kept[-1][0], kept[-1][1]) if more else None
    return Page(tuple(stored for _, _, stored in kept), continuation)


def encode_continuation(partition: str, row: str) -> str:
    """Where a page ended (encoded keys), as url-safe text."""
    raw = json.dumps([partition, row], separators=(",", ":")).encode("ascii")
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def decode_continuation(text: str | None, partition: str | None) -> tuple[str, str] | None:
    """The encoded partition and row that a page ended with.

    `text` comes from outside: raises UsageError where it is not one that this query gave.
    `partition` is the encoded partition that the query asks for, if it asks for one.
    """
    if text is None:
        return None
    wrong = UsageError(f"{text[:60]!r} is not a continuation of this query; pass the one that its last page gave")
    if len(text) > 4 * MAX_KEY:
        raise wrong
    try:
        value = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise wrong from None
    match value:
        case [str(at), str(row)] if at and row and (partition is None or at == partition):
            return at, row
    raise wrong


def check_limit(limit: int) -> None:
    """Raises UsageError where a page cannot have `limit` rows."""
    if not 1 <= limit <= MAX_PAGE:
        raise UsageError(f"a page of {limit} rows cannot be had; ask for 1 to {MAX_PAGE}")
