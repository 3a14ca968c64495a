from __future__ import annotations

import asyncio
import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
from azure.core.credentials import AzureNamedKeyCredential
from azure.data.tables import AccountSasPermissions, ResourceTypes, generate_account_sas
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import CredentialError, StoreError
from shared.store import FindingQuery, open_store
from shared.store.backend import Row, Table, Where
from shared.store.tables import PREFIX, TRANSACTION_BYTES, batches, open_tables, open_tables_with_key
from tests.support.azurite import Azurite, running
from tests.support.records import RUN, finding


@given(st.lists(st.integers(0, 400_000), max_size=250))
def test_batches_keep_the_order_and_the_limits(sizes: list[int]) -> None:
    entities = [{"PartitionKey": "p", "RowKey": str(n), "data00": "x" * size} for n, size in enumerate(sizes)]
    made = list(batches(entities))
    assert [entity for batch in made for entity in batch] == entities
    assert all(1 <= len(batch) <= 100 for batch in made)
    assert all(sum(len(json.dumps(entity)) for entity in batch) <= TRANSACTION_BYTES for batch in made)
    # None is cut where it need not be: at a hundred rows, or where the next would be too much.
    done = 0
    for one, two in itertools.pairwise(made):
        done += len(one)
        joined = sum(len(json.dumps(entity)) + 2_000 for entity in [*one, two[0]])
        assert done % 100 == 0 or joined > TRANSACTION_BYTES


@asynccontextmanager
async def _losing_answers(upstream: str, method: str, answer: bytes | None) -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy to Azurite that once, for a request of `method`, gives `answer` (None: hangs up) for Azurite's answer.

    Yields the proxy's address and the methods of the requests so far.
    """
    seen: list[str] = []
    serving: set[asyncio.Task[None]] = set()
    parts = urlsplit(upstream)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        lost = head.startswith(method.encode()) and method not in seen
        seen.append(head.split()[0].decode())
        to_reader, to_writer = await asyncio.open_connection(parts.hostname, parts.port)
        to_writer.write(re.sub(rb"(?i)\r\nconnection: [^\r]*", b"", head)[:-2] + b"Connection: close\r\n\r\n" + body)
        reply = await to_reader.read(-1)
        to_writer.close()
        writer.write((answer or b"") if lost else reply)
        await writer.drain()

    async def serve_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client, or the test, hung up
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(serve_and_close(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}", seen
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)


WRITER = "the writer"
BUSY = b"HTTP/1.1 503 Server Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def _made(azurite: Azurite) -> str:
    account = azurite.account()
    async with open_store(account):
        return account


async def test_a_cancelled_save_leaves_whole_findings_and_again_completes_it(azurite: Azurite) -> None:
    saved = {each.key: each for each in (finding(n, reason="x" * 2000) for n in range(1000))}
    account = await _made(azurite)
    async with (
        _losing_answers(azurite.table, "NONE", None) as (address, seen),
        open_store(account.replace(azurite.table, address)) as store,
    ):
        for transaction in (1, 3, 4):
            before = seen.count("POST")
            task = asyncio.create_task(store.save_findings(list(saved.values())))
            while seen.count("POST") < before + transaction:  # noqa: ASYNC110 - the proxy only counts
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        there = [each async for each in store.all_findings(FindingQuery(run_id=RUN))]
        assert 300 <= len(there) < 1000
        assert all(saved[each.key] == each for each in there)
        await store.save_findings(list(saved.values()))
        assert {each.key: each async for each in store.all_findings(FindingQuery(run_id=RUN))} == saved


async def test_a_new_account_is_opened_although_an_answer_was_lost(azurite: Azurite) -> None:
    account = azurite.account()
    async with (
        _losing_answers(azurite.table, "POST", None) as (address, seen),
        open_tables_with_key(account.replace(azurite.table, address)) as backend,
    ):
        assert await backend.get(Table.RUNS, "all", "none") is None
    assert seen.count("POST") == len(Table) + 1


@pytest.mark.parametrize("answer", [BUSY, None])
async def test_an_insert_whose_answer_was_lost_is_still_ours(azurite: Azurite, answer: bytes | None) -> None:
    """The retry meets the row that the first try wrote: that is a claim won, not lost."""
    account = await _made(azurite)
    async with (
        _losing_answers(azurite.table, "POST", answer) as (address, seen),
        open_tables_with_key(account.replace(azurite.table, address)) as backend,
    ):
        assert await backend.insert(Table.CLAIMS, "p", "r", Row("ours"), WRITER)
        assert seen.count("POST") == 2
        assert not await backend.insert(Table.CLAIMS, "p", "r", Row("ours"), "another")


async def test_a_replacement_whose_answer_was_lost_is_still_ours(azurite: Azurite) -> None:
    account = await _made(azurite)
    async with (
        _losing_answers(azurite.table, "PUT", None) as (address, seen),
        open_tables_with_key(account.replace(azurite.table, address)) as backend,
    ):
        await backend.insert(Table.CLAIMS, "p", "r", Row("one"), "first")
        stored = await backend.get(Table.CLAIMS, "p", "r")
        assert stored is not None
        assert await backend.replace(Table.CLAIMS, "p", "r", Row("two"), stored.etag, WRITER)
        assert seen.count("PUT") == 2
        assert not await backend.replace(Table.CLAIMS, "p", "r", Row("two"), stored.etag, "another")


async def test_a_batch_whose_connection_broke_is_sent_again(azurite: Azurite) -> None:
    account = await _made(azurite)
    async with (
        _losing_answers(azurite.table, "POST", None) as (address, seen),
        open_tables_with_key(account.replace(azurite.table, address)) as backend,
    ):
        await backend.put(Table.RUNS, "p", {str(n): Row(str(n)) for n in range(10)})
        assert seen.count("POST") == 2
        assert len((await backend.query(Table.RUNS, Where("p"), 100)).rows) == 10


async def test_opening_again_costs_two_reads(azurite: Azurite) -> None:
    account = await _made(azurite)
    async with (
        _losing_answers(azurite.table, "NONE", None) as (address, seen),
        open_store(account.replace(azurite.table, address)),
    ):
        assert seen == ["GET", "GET"]


async def _refusal(location: str) -> str:
    with pytest.raises(StoreError) as raised:
        async with open_store(location):
            pass
    # The traceback that a log would show must not hold what the message must not.
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    return str(raised.value)


async def test_a_wrong_key_is_said(azurite: Azurite) -> None:
    account = azurite.account()
    key = "bm90IHRoZSBrZXk="
    says = await _refusal(re.sub("AccountKey=[^;]*", f"AccountKey={key}", account))
    assert re.search(r"answered 403 \(Auth\w+\): ", says)
    assert azurite.table in says
    assert key not in says


async def test_a_key_that_is_no_key_is_said(azurite: Azurite) -> None:
    says = await _refusal(re.sub("AccountKey=[^;]*", "AccountKey=S3CRET!", azurite.account()))
    assert "the AccountKey in its connection string is not base64" in says
    assert "S3CRET" not in says


async def test_a_signature_that_allows_too_little_names_the_role(azurite: Azurite) -> None:
    account = dict(part.split("=", 1) for part in azurite.account().strip(";").split(";"))
    signature = generate_account_sas(
        AzureNamedKeyCredential(account["AccountName"], account["AccountKey"]),
        ResourceTypes(service=True, container=True, object=True),
        AccountSasPermissions(read=True, list=True),
        datetime.now(UTC) + timedelta(hours=1),
    )
    says = await _refusal(f"TableEndpoint={account['TableEndpoint']};SharedAccessSignature={signature}")
    assert re.search(
        r"answered 403 \(AuthorizationPermissionMismatch\): .*the role Storage Table Data Contributor", says
    )
    assert "sig=" not in says


async def test_an_account_that_cannot_be_reached_is_said_soon() -> None:
    start = time.monotonic()
    says = await _refusal("AccountName=a;AccountKey=a2V5;TableEndpoint=http://127.0.0.1:9/a")
    assert "the store http://127.0.0.1:9/a cannot be reached" in says
    assert time.monotonic() - start < 30


async def test_no_credential_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nobody:
        async def get_token(self, *scopes: str, **options: object) -> object:
            from azure.identity import CredentialUnavailableError

            raise CredentialUnavailableError("no secret to be had")

    with pytest.raises(
        CredentialError, match=r"no Azure credential for the store https://a\.table\.core\.windows\.net: sign"
    ):
        async with open_tables("https://a.table.core.windows.net", Nobody()):  # type: ignore[arg-type]
            pass


SIGNED_IN = """
import asyncio, base64, json, sys, time
from azure.core.credentials import AccessToken
from shared.errors import StoreError
from shared.store import FindingQuery, open_store
from tests.support.records import RUN, finding

def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

class Credential:
    def __init__(self, audience):
        self.audience, self.scopes = audience, set()
    async def get_token(self, *scopes, **options):
        self.scopes.update(scopes)
        now = int(time.time())
        claims = {"aud": self.audience, "iss": "https://sts.windows.net/tenant/"}
        claims |= {"iat": now, "nbf": now, "exp": now + 3600}
        return AccessToken(f"{part({'alg': 'none'})}.{part(claims)}.x", now + 3600)

async def main(url):
    credential = Credential("https://storage.azure.com")
    async with open_store(url, credential=credential) as store:
        await store.save_findings([finding(n) for n in range(150)])
        print(len([each async for each in store.all_findings(FindingQuery(run_id=RUN))]), credential.scopes)
    try:
        async with open_store(url, credential=Credential("https://elsewhere.example")):
            pass
    except StoreError as error:
        print(error)

asyncio.run(main(sys.argv[1]))
"""


def test_an_identity_is_signed_in_with_a_token_for_storage(tmp_path: Path) -> None:
    """Azurite with HTTPS checks a token's audience, issuer and times (not its signature, nor roles)."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    options = ("--oauth", "basic", "--cert", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem"))
    with running(*options) as azurite:
        url = f"{azurite.table}/devstoreaccount1"
        # aiohttp reads the trusted certificates when it is imported: a process of its own.
        ended = subprocess.run(
            [sys.executable, "-c", SIGNED_IN, url],
            env={"SSL_CERT_FILE": str(tmp_path / "ca.pem"), "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert ended.returncode == 0, ended.stderr
    first, second = ended.stdout.splitlines()
    assert first == "150 {'https://storage.azure.com/.default'}"
    assert second.startswith(
        f"the store {url} answered 403 (AuthenticationFailed): the key, signature or token was not"
    )


async def test_the_tables_have_the_names_that_are_documented(azurite: Azurite) -> None:
    from azure.data.tables.aio import TableServiceClient

    account = await _made(azurite)
    async with TableServiceClient.from_connection_string(account) as service:
        names = {table.name async for table in service.list_tables()}
    assert names == {
        PREFIX + name for name in ("runs", "findings", "history", "commands", "documents", "progress", "claims", "work")
    }
