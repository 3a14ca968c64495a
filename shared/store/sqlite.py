"""The store in one SQLite file: for the terminal, for tests and for a machine without Azure Storage.

Several processes may use the file at once (write-ahead log, each write an immediate transaction). It must be on a
local disk: SQLite's write-ahead log does not work over a network file system (sqlite.org/wal.html).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from shared.errors import StoreError
from shared.store.backend import (
    FIELDS,
    SCHEMA,
    Page,
    Row,
    Stored,
    Table,
    Where,
    check_limit,
    decode_continuation,
    page_of,
)
from shared.store.keys import decode_key, encode_key, prefix_end

# "kgrd": says that a database is ours and not another program's (sqlite.org, PRAGMA application_id).
APPLICATION_ID = 0x6B677264
BUSY_SECONDS = 30.0

_T = TypeVar("_T")

_CREATE = f"""
CREATE TABLE rows (
    family TEXT NOT NULL, partition TEXT NOT NULL, row TEXT NOT NULL, etag TEXT NOT NULL, data TEXT NOT NULL,
    {", ".join(f"{name} TEXT" for name in FIELDS)},
    PRIMARY KEY (family, partition, row)
)
"""
# The fields that schema 1 did not have.
_SINCE_2 = ("outcome", "place", "day")
_COLUMNS = ("family", "partition", "row", "etag", "data", *FIELDS)
_INSERT = f"INTO rows ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_SELECT = "SELECT partition, row, data, etag FROM rows WHERE family = ?"


@asynccontextmanager
async def open_sqlite(path: Path) -> AsyncIterator[SqliteBackend]:
    """Open the file at `path`, creating it (0600) and its parent folder (0700) where missing.

    Raises StoreError where the path is a directory, cannot be written, is no database, is another program's, or was
    written by a newer version. The columns of an older version's file are added; what its rows hold is moving.py's.
    """
    # One thread for one connection: a cancelled caller's transaction still ends before the next one begins.
    with ThreadPoolExecutor(1, thread_name_prefix="store") as thread:
        loop = asyncio.get_running_loop()
        connection = await loop.run_in_executor(thread, _connect, path)
        try:
            yield SqliteBackend(path, connection, thread)
        finally:
            await asyncio.shield(loop.run_in_executor(thread, connection.close))


def _connect(path: Path) -> sqlite3.Connection:
    if path.is_dir():
        raise StoreError(f"the store {path} is a directory; name a file, such as {path / 'guard.db'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SQLite gives its journal files the mode of the database file.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(
            f"the store {path} cannot be opened for writing: {error.strerror}; name a file in a folder you can write to"
        ) from error
    with _explained(path):
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    # One transaction, lest it is seen half made by another process.
    with _transaction(connection, "DEFERRED"):
        application, version, tables = _identity(connection)
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreError(f"the store {path} is another program's database; name a file that does not exist yet")
    if version > SCHEMA:
        raise StoreError(
            f"the store {path} has schema {version}, this version knows up to {SCHEMA}; update, or name another file"
        )
    _use_write_ahead_log(connection)
    connection.execute("PRAGMA synchronous = FULL")
    if version < SCHEMA:
        with _transaction(connection):
            # Another process may have created it since.
            version = _identity(connection)[1]
            if version == 0:
                connection.execute(_CREATE)
            elif version == 1:
                for name in _SINCE_2:
                    connection.execute(f"ALTER TABLE rows ADD COLUMN {name} TEXT")
            if version < SCHEMA:
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _identity(connection: sqlite3.Connection) -> tuple[int, int, int]:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return application, version, tables


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch a new file's journal (an old one has it). SQLite does not wait here for another process, so we do."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


@contextmanager
def _transaction(connection: sqlite3.Connection, mode: str = "IMMEDIATE") -> Iterator[None]:
    connection.execute(f"BEGIN {mode}")
    try:
        yield
    except BaseException:
        # Some errors, such as a full disk, have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        busy = name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
        match name:
            case "SQLITE_NOTADB":
                remedy = "it is not a database: name a file that does not exist yet"
            case "SQLITE_CORRUPT":
                remedy = "restore it from a backup, or name a new file"
            case "SQLITE_FULL":
                remedy = "free some space on the disk"
            case _ if busy:
                remedy = f"another process has held it for {BUSY_SECONDS:g} s: end that one, or use another file"
            case _:
                remedy = "see that the file and its folder are on a local disk and can be written"
        raise StoreError(f"the store {path} cannot be used: {error}; {remedy}", transient=busy) from error


class SqliteBackend:
    """`Backend` over one connection, used by one thread. Made by `open_sqlite`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._path = path
        self._connection = connection
        self._thread = thread

    async def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        def explained() -> _T:
            with _explained(self._path):
                return work(self._connection)

        return await asyncio.get_running_loop().run_in_executor(self._thread, explained)

    async def put(self, table: Table, partition: str, rows: Mapping[str, Row]) -> None:
        """Write rows in one transaction: all of them or none."""
        at, etag = encode_key(partition), uuid4().hex
        values = [_values(table, at, encode_key(row), etag, data) for row, data in rows.items()]

        def work(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                connection.executemany(f"INSERT OR REPLACE {_INSERT}", values)

        await self._run(work)

    async def insert(self, table: Table, partition: str, row: str, data: Row, writer: str) -> str | None:
        """See `Backend.insert`. The writer's word is the row's etag."""
        at, key = encode_key(partition), encode_key(row)
        values = _values(table, at, key, writer, data)

        def work(connection: sqlite3.Connection) -> str | None:
            with _transaction(connection):
                if connection.execute(f"INSERT OR IGNORE {_INSERT}", values).rowcount == 1:
                    return writer
                return _ours(connection, table, at, key, writer)

        return await self._run(work)

    async def replace(self, table: Table, partition: str, row: str, data: Row, etag: str, writer: str) -> str | None:
        """See `Backend.replace`."""
        at, key = encode_key(partition), encode_key(row)
        sets = ", ".join(f"{column} = ?" for column in _COLUMNS[3:])
        values = (*_values(table, at, key, writer, data)[3:], table, at, key, etag)
        statement = f"UPDATE rows SET {sets} WHERE family = ? AND partition = ? AND row = ? AND etag = ?"  # noqa: S608 - our names

        def work(connection: sqlite3.Connection) -> str | None:
            with _transaction(connection):
                if connection.execute(statement, values).rowcount == 1:
                    return writer
                return _ours(connection, table, at, key, writer)

        return await self._run(work)

    async def get(self, table: Table, partition: str, row: str) -> Stored | None:
        """See `Backend.get`."""
        values = (table, encode_key(partition), encode_key(row))
        found = await self._run(
            lambda connection: connection.execute(f"{_SELECT} AND partition = ? AND row = ?", values).fetchone()
        )
        return _stored(found) if found else None

    async def ranges(self, table: Table, partition: str, ranges: Sequence[tuple[str, str]]) -> tuple[Stored, ...]:
        """See `Backend.ranges`."""
        at = encode_key(partition)
        bounds = [(encode_key(first), prefix_end(encode_key(last))) for first, last in ranges]
        statement = f"{_SELECT} AND partition = ? AND row >= ? AND row < ? ORDER BY row"

        def work(connection: sqlite3.Connection) -> tuple[Stored, ...]:
            return tuple(
                _stored(found)
                for first, end in bounds
                for found in connection.execute(statement, (table, at, first, end))
            )

        return await self._run(work)

    async def delete(self, table: Table, partition: str, rows: Collection[str], etag: str | None = None) -> None:
        """See `Backend.delete`."""
        at = encode_key(partition)
        statement = "DELETE FROM rows WHERE family = ? AND partition = ? AND row = ?"
        values: list[tuple[str, ...]] = [(str(table), at, encode_key(row)) for row in rows]
        if etag is not None:
            statement += " AND etag = ?"
            values = [(*keys, etag) for keys in values]

        def work(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                connection.executemany(statement, values)

        await self._run(work)

    async def query(
        self, table: Table, where: Where, limit: int, continuation: str | None = None, *, data: bool = True
    ) -> Page:
        """See `Backend.query`."""
        check_limit(limit)
        where = where.encoded()
        after = decode_continuation(continuation, where.partition)
        terms, values = ["family = ?"], [str(table)]

        def term(text: str, *wanted: str) -> None:
            terms.append(text)
            values.extend(wanted)

        if where.partition is not None:
            term("partition = ?", where.partition)
        if after is not None:
            term("(partition, row) > (?, ?)", *after)
        if where.after:
            term("partition > ?", where.after)
        if where.before:
            term("partition < ?", where.before)
        if where.first:
            term("row >= ?", where.first)
        if where.last:
            term("row < ?", prefix_end(where.last))
        for name, value in where.equals.items():
            term(f"{FIELDS[FIELDS.index(name)]} = ?", value)
        for name, value in where.smaller.items():
            term(f"{FIELDS[FIELDS.index(name)]} < ?", value)
        columns = "partition, row, data, etag" if data else f"partition, row, '', etag, {', '.join(FIELDS)}"
        statement = (
            f"SELECT {columns} FROM rows WHERE {' AND '.join(terms)} ORDER BY partition, row LIMIT {limit + 1:d}"  # noqa: S608 - our names
        )
        found = await self._run(lambda connection: connection.execute(statement, values).fetchall())
        return page_of([(row[0], row[1], _stored(row)) for row in found], limit)


def _values(table: Table, partition: str, row: str, etag: str, data: Row) -> tuple[str | None, ...]:
    return (str(table), partition, row, etag, data.data, *(data.fields.get(name) for name in FIELDS))


def _ours(connection: sqlite3.Connection, table: Table, partition: str, row: str, writer: str) -> str | None:
    statement = "SELECT etag FROM rows WHERE family = ? AND partition = ? AND row = ? AND etag = ?"
    return writer if connection.execute(statement, (table, partition, row, writer)).fetchone() else None


def _stored(found: Sequence[str]) -> Stored:
    partition, row, data, etag, *fields = found
    there = {name: value for name, value in zip(FIELDS, fields, strict=False) if value is not None}
    return Stored(decode_key(partition), decode_key(row), data, etag, there)
