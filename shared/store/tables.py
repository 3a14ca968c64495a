"""The store in Azure Table Storage.

Sources: Azure Storage REST documentation ("Understanding the Table service data model", "Performing entity group
transactions", "Query timeout and pagination") and the azure-data-tables SDK, whose retries are the only ones.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

from azure.core import MatchConditions
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
    ServiceRequestError,
)
from azure.data.tables import TableEntity, TransactionOperation, UpdateMode
from azure.data.tables.aio import TableClient, TableServiceClient

from shared.errors import CredentialError, GuardError, StoreError
from shared.store.backend import (
    FIELDS,
    MAX_PAGE,
    MAX_ROW_UNITS,
    ROLE,
    Page,
    Row,
    Stored,
    Table,
    Where,
    check_limit,
    decode_continuation,
    page_of,
)
from shared.store.keys import decode_key, encode_key, prefix_end, split_text

PREFIX = "guard"
# A property holds 64 KiB of UTF-16; a transaction 100 entities and 4 MiB. We stay under 1 MiB, above which aiohttp
# warns that sending holds up the event loop.
PROPERTY_UNITS = 32_000
TRANSACTION_ROWS = 100
TRANSACTION_BYTES = 1_000_000
# What a transaction's part takes besides its entity: its own headers, and an address with both keys.
_PART_BYTES = 2_000
_DATA = tuple(f"data{n:02d}" for n in range(MAX_ROW_UNITS // (PROPERTY_UNITS - 1) + 1))
# Which write an entity comes from: tells our own write from another's where a retry met what its first try had done.
_WRITER = "writer"
_PARALLEL_READS = 16
# Every write of ours can be made again, so a POST whose connection broke is sent again as well.
_AGAIN: dict[str, Any] = {"retry_on_methods": ["POST"]}
# The SDK's defaults (300 s each) would leave a caller hanging on a firewall that drops packets. The service gives up a
# request after 30 s.
_TIMEOUTS: dict[str, Any] = {"connection_timeout": 10, "read_timeout": 35}


@asynccontextmanager
async def open_tables(
    account: str, credential: AsyncTokenCredential | None = None, authority: str | None = None
) -> AsyncIterator[TablesBackend]:
    """Open the account at a table service URL, creating missing tables.

    `credential` stays the caller's to close; without one, azure-identity's default credential is used, at `authority`
    (None: the public cloud's). Raises StoreError, or CredentialError where there is no credential that Azure accepts.
    """
    async with AsyncExitStack() as stack:
        if credential is None:
            from azure.identity.aio import DefaultAzureCredential  # heavy, and not needed with a key

            options = {} if authority is None else {"authority": authority}
            credential = await stack.enter_async_context(DefaultAzureCredential(**options))
        service = await stack.enter_async_context(TableServiceClient(account, credential=credential, **_TIMEOUTS))
        yield await _ready(service)


@asynccontextmanager
async def open_tables_with_key(connection_string: str) -> AsyncIterator[TablesBackend]:
    """Open the account of a connection string (account key or shared access signature), creating missing tables.

    Raises StoreError; no part of the connection string is in its text.
    """
    text = connection_string.strip().rstrip(";")
    try:
        client = TableServiceClient.from_connection_string(text, **_TIMEOUTS)
    except (ValueError, AttributeError):
        raise StoreError(
            "the store's connection string is not valid: it wants AccountName and AccountKey (or TableEndpoint and "
            "SharedAccessSignature), as `az storage account show-connection-string` prints it"
        ) from None
    async with client as service:
        yield await _ready(service)


async def _ready(service: TableServiceClient) -> TablesBackend:
    account = service.url.split("?")[0]
    with _explained(account):
        missing = {PREFIX + table for table in Table}
        async for table in service.list_tables():
            missing.discard(table.name)
        for name in sorted(missing):
            await service.create_table_if_not_exists(name, **_AGAIN)
    return TablesBackend(account, {table: service.get_table_client(PREFIX + table) for table in Table})


@contextmanager
def _explained(account: str) -> Iterator[None]:
    try:
        yield
    except AzureError as error:
        # Not chained: the service's text can quote the signed request.
        raise _explain(account, error) from None


def _explain(account: str, error: AzureError) -> GuardError:
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        return _refused(account, error, error.status_code)
    if isinstance(error, ClientAuthenticationError):
        if type(error).__module__.startswith("azure.data.tables"):
            return StoreError(
                f"the store {account} cannot be signed in to: the AccountKey in its connection string is not base64"
            )
        return CredentialError(
            f"no Azure credential for the store {account}: sign in with `az login`, or give the app a managed identity"
        )
    host = urlsplit(account).hostname
    if isinstance(error, ServiceRequestError):
        return StoreError(
            f"the store {account} cannot be reached: see that the account exists, that {host} resolves here, and that "
            f"its firewall or private endpoint lets this machine in ({type(error.inner_exception).__name__})",
            transient=True,
        )
    return StoreError(
        f"the connection to the store {account} broke ({type(error).__name__}); run it again", transient=True
    )


def _refused(account: str, error: HttpResponseError, status: int) -> StoreError:
    headers: Mapping[str, str] = getattr(error.response, "headers", {})
    code = getattr(error, "error_code", None) or headers.get("x-ms-error-code")
    code = str(getattr(code, "value", code) or "no error code")
    match status, code:
        case 403, "KeyBasedAuthenticationNotPermitted":
            remedy = "the account takes no keys: give its table URL instead, and the identity the role " + ROLE
        case ((401 | 403), "AuthenticationFailed" | "InvalidAuthenticationInfo" | "NoAuthenticationInformation"):
            remedy = (
                "the key, signature or token was not accepted: see that it belongs to this account, tenant and cloud"
            )
        case 403, "AuthorizationFailure":
            remedy = f"the account's firewall refused this network, or the role {ROLE} on the account is missing"
        case ((401 | 403), _):
            remedy = f"give the identity the role {ROLE} on the account (a new assignment takes some minutes)"
        case 404, _:
            remedy = "a table was deleted meanwhile, or this is not a table service URL: see the URL, then run it again"
        case ((408 | 429 | 500 | 502 | 503 | 504), _):
            remedy = "the account is busy; run it again later"
        case _:
            remedy = "see that this is a storage account's table service URL (https://ACCOUNT.table.core.windows.net)"
    transient = status in (408, 429) or status >= 500
    return StoreError(f"the store {account} answered {status} ({code}): {remedy}", transient=transient)


class TablesBackend:
    """`Backend` over the tables of `account` (its URL). Made by `open_tables` and `open_tables_with_key`."""

    def __init__(self, account: str, clients: Mapping[Table, TableClient]) -> None:
        self.account = account
        self._clients = clients

    async def put(self, table: Table, partition: str, rows: Mapping[str, Row]) -> None:
        """See `Backend.put`. Rows go in transactions of up to 100: a cut leaves whole ones out."""
        at = encode_key(partition)
        entities = [_entity(at, encode_key(row), data) for row, data in rows.items()]
        with _explained(self.account):
            if len(entities) == 1:
                # A transaction of one costs three times as much to send and to read.
                await self._clients[table].upsert_entity(entities[0], UpdateMode.REPLACE)
                return
            for batch in batches(entities):
                await self._clients[table].submit_transaction(
                    [(TransactionOperation.UPSERT, entity, {"mode": UpdateMode.REPLACE}) for entity in batch],
                    **_AGAIN,
                )

    async def insert(self, table: Table, partition: str, row: str, data: Row, writer: str) -> str | None:
        """See `Backend.insert`."""
        entity = _entity(encode_key(partition), encode_key(row), data, writer)
        with _explained(self.account):
            try:
                return str((await self._clients[table].create_entity(entity, **_AGAIN))["etag"])
            except ResourceExistsError:
                return await self._ours(table, entity)

    async def replace(self, table: Table, partition: str, row: str, data: Row, etag: str, writer: str) -> str | None:
        """See `Backend.replace`."""
        entity = _entity(encode_key(partition), encode_key(row), data, writer)
        with _explained(self.account):
            try:
                written = await self._clients[table].update_entity(
                    entity, UpdateMode.REPLACE, etag=etag, match_condition=MatchConditions.IfNotModified
                )
                return str(written["etag"])
            except ResourceModifiedError:
                return await self._ours(table, entity)
            except ResourceNotFoundError:
                return None

    async def _ours(self, table: Table, entity: Mapping[str, str]) -> str | None:
        found = await self._entity(table, entity["PartitionKey"], entity["RowKey"])
        return None if found is None or found.get(_WRITER) != entity[_WRITER] else str(found.metadata["etag"])

    async def _entity(self, table: Table, partition: str, row: str) -> TableEntity | None:
        try:
            return await self._clients[table].get_entity(partition, row)
        except ResourceNotFoundError:
            return None

    async def get(self, table: Table, partition: str, row: str) -> Stored | None:
        """See `Backend.get`."""
        with _explained(self.account):
            found = await self._entity(table, encode_key(partition), encode_key(row))
        return None if found is None else _stored(found)

    async def ranges(self, table: Table, partition: str, ranges: Sequence[tuple[str, str]]) -> tuple[Stored, ...]:
        """See `Backend.ranges`: one query a range, a few at a time."""
        at, gate = encode_key(partition), asyncio.Semaphore(_PARALLEL_READS)

        async def read(first: str, last: str) -> list[Stored]:
            query = "PartitionKey eq @partition and RowKey ge @first and RowKey lt @end"
            parameters = {"partition": at, "first": encode_key(first), "end": prefix_end(encode_key(last))}
            async with gate:
                return [
                    _stored(found) async for found in self._clients[table].query_entities(query, parameters=parameters)
                ]

        with _explained(self.account):
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(read(*each)) for each in ranges]
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from None
        return tuple(stored for task in tasks for stored in task.result())

    async def delete(self, table: Table, partition: str, rows: Collection[str], etag: str | None = None) -> None:
        """See `Backend.delete`. Several go in transactions of up to 100."""
        at, keys = encode_key(partition), [encode_key(row) for row in rows]
        with _explained(self.account):
            if len(keys) == 1 or etag is not None:
                for key in keys:
                    await self._delete(table, at, key, etag)
                return
            for start in range(0, len(keys), TRANSACTION_ROWS):
                batch = keys[start : start + TRANSACTION_ROWS]
                operations = [(TransactionOperation.DELETE, {"PartitionKey": at, "RowKey": key}) for key in batch]
                try:
                    await self._clients[table].submit_transaction(operations, **_AGAIN)
                except HttpResponseError as error:
                    if error.status_code != 404:
                        raise
                    # One that is not there (its deletion's answer may have been lost) fails them all.
                    for key in batch:
                        await self._delete(table, at, key, None)

    async def _delete(self, table: Table, partition: str, row: str, etag: str | None) -> None:
        condition = MatchConditions.Unconditionally if etag is None else MatchConditions.IfNotModified
        try:
            await self._clients[table].delete_entity(partition, row, etag=etag, match_condition=condition)
        except ResourceModifiedError:
            return

    async def query(
        self, table: Table, where: Where, limit: int, continuation: str | None = None, *, data: bool = True
    ) -> Page:
        """See `Backend.query`. The service filters; over all partitions it reads the whole table for it."""
        check_limit(limit)
        where = where.encoded()
        after = decode_continuation(continuation, where.partition)
        wanted = {} if data else {"select": ["PartitionKey", "RowKey", *FIELDS]}
        rows: list[tuple[str, str, Stored]] = []
        with _explained(self.account):
            for query, parameters in _filters(where, after):
                found = self._clients[table].query_entities(
                    query, parameters=parameters, results_per_page=min(limit + 1, MAX_PAGE), **wanted
                )
                async for entity in found:
                    rows.append((entity["PartitionKey"], entity["RowKey"], _stored(entity, fields=not data)))
                    if len(rows) > limit:
                        return page_of(rows, limit)
        return page_of(rows, limit)


def _filters(where: Where, after: tuple[str, str] | None) -> Iterator[tuple[str, dict[str, str]]]:
    """The queries that together read on after `after`; two where the first finishes a partition and the second goes on.

    The SDK quotes the parameters' values. Keys are encoded.
    """
    terms: list[str] = []
    values: dict[str, str] = {}

    def term(left: str, compared: str, value: str) -> None:
        name = f"value{len(values)}"
        terms.append(f"{left} {compared} @{name}")
        values[name] = value

    if where.before:
        term("PartitionKey", "lt", where.before)
    if where.first:
        term("RowKey", "ge", where.first)
    if where.last:
        term("RowKey", "lt", prefix_end(where.last))
    for name, value in where.equals.items():
        term(FIELDS[FIELDS.index(name)], "eq", value)
    for name, value in where.smaller.items():
        term(FIELDS[FIELDS.index(name)], "lt", value)
    if after is not None:
        yield (
            " and ".join(["PartitionKey eq @partition", "RowKey gt @row", *terms]),
            {"partition": after[0], "row": after[1], **values},
        )
    if where.partition is not None and after is None:
        yield " and ".join(["PartitionKey eq @partition", *terms]), {"partition": where.partition, **values}
    elif where.partition is None:
        # Every key is greater than the empty text.
        start = after[0] if after else where.after
        yield " and ".join(["PartitionKey gt @partition", *terms]), {"partition": start, **values}


def _entity(partition: str, row: str, data: Row, writer: str = "") -> dict[str, str]:
    entity = {"PartitionKey": partition, "RowKey": row, **data.fields}
    entity.update(zip(_DATA, split_text(data.data, PROPERTY_UNITS), strict=False))
    if writer:
        entity[_WRITER] = writer
    return entity


def _stored(entity: TableEntity, *, fields: bool = False) -> Stored:
    data = "".join(str(entity[name]) for name in _DATA if name in entity)
    there = {name: str(entity[name]) for name in FIELDS if entity.get(name) is not None} if fields else {}
    etag: Any = entity.metadata["etag"]
    return Stored(decode_key(str(entity["PartitionKey"])), decode_key(str(entity["RowKey"])), data, str(etag), there)


def batches(entities: Sequence[Mapping[str, str]]) -> Iterator[Sequence[Mapping[str, str]]]:
    """`entities` in order, in batches that a transaction can hold: by number, and by what is sent (ASCII JSON)."""
    for at in range(0, len(entities), TRANSACTION_ROWS):
        some = entities[at : at + TRANSACTION_ROWS]
        if sum(map(_at_most, some)) <= TRANSACTION_BYTES:
            yield some
        else:
            yield from _measured(some)


def _at_most(entity: Mapping[str, str]) -> int:
    """More than what a part takes, without writing it: no character takes more than 6 bytes (12 beyond ASCII)."""
    texts = (*entity.keys(), *entity.values())
    return _PART_BYTES + sum(6 + (6 if text.isascii() else 12) * len(text) for text in texts)


def _measured(entities: Sequence[Mapping[str, str]]) -> Iterator[Sequence[Mapping[str, str]]]:
    start, total = 0, 0
    for at, entity in enumerate(entities):
        size = len(json.dumps(dict(entity))) + _PART_BYTES
        if at > start and total + size > TRANSACTION_BYTES:
            yield entities[start:at]
            start, total = at, 0
        total += size
    yield entities[start:]
