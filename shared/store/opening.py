"""From where the store is said to be, to the store."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shared.errors import StoreError
from shared.store.backend import Backend
from shared.store.moving import settle
from shared.store.sqlite import open_sqlite
from shared.store.store import Store

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

# The settings of a storage account's connection string, any of which tells it from a path.
_CONNECTION_STRING = re.compile(
    r"(^|;)\s*(DefaultEndpointsProtocol|UseDevelopmentStorage|AccountName|AccountKey|TableEndpoint"
    r"|SharedAccessSignature|EndpointSuffix|BlobEndpoint)\s*=",
    re.IGNORECASE,
)
_OTHER_SERVICE = re.compile(r"\.(blob|queue|file|dfs|web)\.")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@asynccontextmanager
async def open_store(
    location: str, *, credential: AsyncTokenCredential | None = None, authority: str | None = None
) -> AsyncIterator[Store]:
    """Open the store at `location`, and close it at the end of the block. One of an older version is moved over first.

    `location` is the path of a SQLite file (made where missing), the URL of a storage account's table service
    (`https://ACCOUNT.table.core.windows.net`, signed in to with `credential` or azure-identity's default one at
    `authority`), or a storage account's connection string. `credential` stays the caller's to close.
    Raises StoreError where the location is not one of these, cannot be opened or is a newer version's, CredentialError
    where there is no credential; neither quotes a key or signature.
    """
    text = location.strip()
    if not text:
        raise StoreError(
            "the store's location is empty; give a file's path, a table service URL "
            "(https://ACCOUNT.table.core.windows.net) or a connection string"
        )
    if _CONNECTION_STRING.search(text):
        from shared.store.tables import open_tables_with_key  # the Azure SDK, which a local file does not need

        async with open_tables_with_key(text) as backend:
            yield await _settled(backend, backend.account)
    elif _SCHEME.match(text):
        account = _account_url(text)
        from shared.store.tables import open_tables

        async with open_tables(account, credential, authority) as backend:
            yield await _settled(backend, account)
    else:
        path = _file_path(text)
        async with open_sqlite(path) as backend:
            yield await _settled(backend, str(path))


async def _settled(backend: Backend, shown: str) -> Store:
    store = Store(backend)
    await settle(store, shown)
    return store


def _file_path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise StoreError(f"the store {text} cannot be found: {error}; give the path in full") from error


def _account_url(text: str) -> str:
    wants = "it wants https://ACCOUNT.table.core.windows.net"
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        raise StoreError(f"the store's URL is malformed; {wants}") from None
    # Rebuilt from its parts, so that no password or signature gets into a message.
    shown = f"{parts.scheme}://{host}{port}{parts.path}"
    if parts.scheme != "https" or not host:
        raise StoreError(f"the store's URL {shown} is not one of a table service; {wants}")
    if parts.query or parts.fragment or parts.username is not None:
        raise StoreError(
            f"the store's URL {shown} carries a query or a password, which are not taken; {wants}, and a shared access "
            "signature in a connection string (TableEndpoint=…;SharedAccessSignature=…)"
        )
    other = _OTHER_SERVICE.search(host)
    if other:
        table = host.replace(other[0], ".table.", 1)
        raise StoreError(f"the store's URL {shown} is the {other[1]} service's; use https://{table}")
    return f"https://{host}{port}{parts.path.rstrip('/')}"
