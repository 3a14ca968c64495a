"""What a backend is: rows in partitions of tables, with compare-and-swap.

Both backends keep the same promises, tested by the same tests: a row is written whole or not at all, a query's order is
stable (by encoded partition and row), and a continuation goes on after the last row that was given, whatever was
written or deleted in between.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from shared.errors import NotStorable, UsageError
from shared.store.keys import MAX_KEY, encode_key, utf16_units

# The text fields of a row that a query can compare; each has a column (SQLite) or property (Tables) of its own.
FIELDS = ("status", "subscription", "cluster", "node_pool", "node", "control", "kind", "outcome", "place", "day")
ROLE = "Storage Table Data Contributor"
"""What an identity needs on an account whose tables hold a store."""
# What is stored has this form; moving.py says what the forms are. A form that 0.1.0 could not read is a new number.
SCHEMA = 2
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
    DOCUMENTS = "documents"
    CLAIMS = "claims"
    PROGRESS = "progress"
    WORK = "work"
    # Where 0.1.0 kept what it had started on nodes. Nothing is written there; what is left goes with its run's work.
    COMMANDS = "commands"


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
    """What is read. `etag` changes with every write of the row.

    `fields` are those that the row has, and are read only where a query asks for them in the place of `data`.
    """

    partition: str
    row: str
    data: str
    etag: str
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in order, and where to go on; `continuation` is None on the last page."""

    rows: tuple[Stored, ...]
    continuation: str | None


@dataclass(frozen=True, slots=True)
class Where:
    """Which rows of a table; what is empty (or None) does not restrict, and the rest must all hold.

    `after` and `before` bound the partitions, both excluded. `first` to `last` are the rows from the key `first`
    through those whose key starts with `last`. `equals` and `smaller` compare fields (of `FIELDS`) as text; a
    row without the field is not meant.
    """

    partition: str | None = None
    after: str = ""
    before: str = ""
    first: str = ""
    last: str = ""
    equals: Mapping[str, str] = field(default_factory=dict)
    smaller: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> Where:
        """The same with encoded keys. Raises UsageError where a key cannot be one."""

        def key(text: str) -> str:
            return text and encode_key(text)

        at = None if self.partition is None else encode_key(self.partition)
        return replace(
            self,
            partition=at,
            after=key(self.after),
            before=key(self.before),
            first=key(self.first),
            last=key(self.last),
        )


class Backend(Protocol):
    """Every method raises StoreError (or CredentialError) where the store cannot be reached, read or written.

    Every write can be made again: `writer` is a word that nobody else uses, and a row that this writer wrote is its own
    success when it is met again.
    """

    async def put(self, table: Table, partition: str, rows: Mapping[str, Row]) -> None:
        """Write rows, replacing what is there. Cut in the middle, each row is there whole or not at all.

        Up to 100 rows (and 1 MB of them) of one call are written together or not at all.
        """

    async def insert(self, table: Table, partition: str, row: str, data: Row, writer: str) -> str | None:
        """Write a row that must not exist yet, and give its etag. None, with nothing written, where it does."""

    async def replace(self, table: Table, partition: str, row: str, data: Row, etag: str, writer: str) -> str | None:
        """Write a row that must still be the one read with `etag`, and give the new etag.

        None, with nothing written, where it is not.
        """

    async def get(self, table: Table, partition: str, row: str) -> Stored | None:
        """One row, or None."""

    async def ranges(self, table: Table, partition: str, ranges: Sequence[tuple[str, str]]) -> tuple[Stored, ...]:
        """All rows of a partition from the key `first` through those starting with `last`, range by range, in order."""

    async def delete(self, table: Table, partition: str, rows: Collection[str], etag: str | None = None) -> None:
        """Delete those rows that are there. With `etag`, of one row: where it is still that one."""

    async def query(
        self, table: Table, where: Where, limit: int, continuation: str | None = None, *, data: bool = True
    ) -> Page:
        """At most `limit` (1 to MAX_PAGE) rows, in order; without `data` their fields come in its place.

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
