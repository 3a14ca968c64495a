"""Addresses are really tried: closed ports, silence, untrusted certificates, names that are none, proxies."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from pydantic import SecretStr

from shared.doctor.addresses import Address, Reached, addresses, api_servers, clock, rows
from shared.doctor.checks import Level
from shared.doctor.reaching import reach
from shared.settings import Settings
from tests.doctor.test_rights import CLUSTER


@asynccontextmanager
async def server(authority: trustme.CA | None) -> AsyncIterator[int]:
    """One that refuses whoever comes, as Azure does without a token."""
    app = web.Application()

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=401)

    app.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = None
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def tried(address: Address, seconds: float = 3.0) -> Reached:
    (found,) = await reach([address], seconds)
    return found


async def test_any_answer_is_an_answer(trusted: trustme.CA) -> None:
    async with server(trusted) as port:
        found = await tried(Address("x", "localhost", port))
        assert (found.trouble, found.proxy) == ("", "")
        assert "127.0.0.1" in found.found
        assert found.date is not None
        assert abs((found.date - datetime.now(UTC)).total_seconds()) < 5
        (row,) = rows([found])
        assert (row.status, "127.0.0.1 (this machine)" in row.reason) == (Level.OK, True)


async def test_plain_http_as_of_a_storage_emulator() -> None:
    async with server(None) as port:
        assert (await tried(Address("x", "127.0.0.1", port, tls=False))).trouble == ""


@pytest.mark.parametrize("date", ["", "noon", "Mon, 01 Jan 2020 00:00:00 +99999999999999"])
async def test_an_answer_whose_date_is_none(date: str) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 401 No\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    far = await asyncio.start_server(answer, "127.0.0.1", 0)
    found = await tried(Address("x", "127.0.0.1", far.sockets[0].getsockname()[1], tls=False))
    far.close()
    assert (found.trouble, found.date) == ("", None)


async def test_an_untrusted_certificate(trusted: trustme.CA) -> None:
    async with server(trustme.CA()) as port:
        found = await tried(Address("x", "localhost", port))
        assert "certificate is not trusted here" in found.trouble
        assert "SSL_CERT_FILE" in found.trouble
        # An API server's is of its own cluster's authority: that is looked at when it is asked something.
        assert (await tried(Address("x", "localhost", port, known_to_all=False, by_proxy=False))).trouble == ""


async def test_what_does_not_answer(trusted: trustme.CA) -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)
        writer.close()

    def rude(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    for handler, says in ((silent, "no answer within 1 s"), (rude, "connect")):
        far = await asyncio.start_server(handler, "127.0.0.1", 0)
        port = far.sockets[0].getsockname()[1]
        for address in (
            Address("x", "localhost", port),
            Address("x", "localhost", port, known_to_all=False, by_proxy=False),
        ):
            assert says in (await tried(address, 1.0)).trouble, (handler, address)
        far.close()
    closed = await tried(Address("x", "localhost", port))
    assert "cannot be connected to" in closed.trouble


async def test_a_name_that_is_none() -> None:
    found = await tried(Address("x", "no-such-host.invalid"))
    assert "cannot be resolved" in found.trouble
    (row,) = rows([found])
    assert row.status is Level.FAIL


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "two..dots.example"])
async def test_a_name_that_cannot_be_one_keeps_no_other_from_being_tried(host: str) -> None:
    async with server(None) as port:
        found, other = await reach([Address("x", host), Address("x", "127.0.0.1", port, tls=False)], 3.0)
    assert found.trouble == "no name can be so: see where it is set"
    assert other.trouble == ""


@pytest.mark.parametrize("proxy", ["proxy:3128", "http://user:s3cret@[::1", "http://user:s3cret@proxy:99999"])
async def test_a_proxy_that_is_no_address(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    (row,) = rows([await tried(Address("x", "localhost", 9))])
    assert row.status is Level.FAIL
    assert "the environment names a proxy that is no address" in row.reason
    assert "s3cret" not in repr(row)


async def test_a_proxy_is_used_and_told_without_its_password(
    trusted: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[str] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        met.append(head)
        place = head.split()[1]
        if "refused" in place:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", int(place.rpartition(":")[2]))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                target.write(data)
            target.close()

        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer), return_exceptions=True)

    between = await asyncio.start_server(proxy, "127.0.0.1", 0)
    at = between.sockets[0].getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:s3cret@127.0.0.1:{at}")
    monkeypatch.setenv("NO_PROXY", "direct.example")
    async with server(trusted) as port:
        found = await tried(Address("x", "localhost", port))
        assert (found.trouble, found.proxy, found.found) == ("", f"127.0.0.1:{at}", ())
        assert met[0].startswith(f"CONNECT localhost:{port} ")
        (row,) = rows([found])
        assert f"by the proxy 127.0.0.1:{at}" in row.reason
        assert "s3cret" not in repr(row)
        # An API server is asked past all proxies.
        met.clear()
        assert (await tried(Address("x", "localhost", port, known_to_all=False, by_proxy=False))).trouble == ""
        assert met == []
    refused = await tried(Address("x", "refused.example"))
    assert "the proxy refuses (HTTP 407)" in refused.trouble
    between.close()
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    gone = await tried(Address("x", "localhost", port))
    assert "cannot be connected to" in gone.trouble
    assert rows([gone])[0].reason.endswith("by the proxy 127.0.0.1:9")


APP = {
    "IDENTITY_ENDPOINT": "http://localhost/msi/token",
    "AzureWebJobsStorage__blobServiceUri": "https://acc.blob.core.windows.net",
    "AzureWebJobsStorage__queueServiceUri": "https://acc.queue.core.windows.net",
    "AzureWebJobsStorage__tableServiceUri": "https://acc.table.core.windows.net",
    "APPLICATIONINSIGHTS_CONNECTION_STRING": "InstrumentationKey=00;IngestionEndpoint=https://weu.in.example.com/;X=1",
}


def hosts(settings: Settings, store: str, environ: dict[str, str]) -> list[str]:
    return [address.shown for address in addresses(settings, store, environ)]


def test_the_addresses_of_the_app() -> None:
    store = "https://acc.table.core.windows.net"
    assert hosts(Settings(), store, APP) == [
        "management.azure.com:443",
        "acc.table.core.windows.net:443",
        "acc.blob.core.windows.net:443",
        "acc.queue.core.windows.net:443",
        "weu.in.example.com:443",
    ]
    assert [address.what for address in addresses(Settings(), store, APP) if not address.needed] == [
        "Application Insights"
    ]


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ("runs.db", []),
        ("AccountName=acc;AccountKey=YQ==", ["acc.table.core.windows.net:443"]),
        (
            "AccountName=acc;AccountKey=YQ==;EndpointSuffix=core.chinacloudapi.cn",
            ["acc.table.core.chinacloudapi.cn:443"],
        ),
        ("AccountName=a;AccountKey=YQ==;TableEndpoint=http://127.0.0.1:10002/a;", ["127.0.0.1:10002"]),
        ("https://acc.table.core.windows.net/", ["acc.table.core.windows.net:443"]),
    ],
)
def test_the_addresses_of_a_terminal(store: str, expected: list[str]) -> None:
    # Whatever GUARD_STORE says, where a command names another one.
    found = hosts(Settings(store=SecretStr("https://other.table.core.windows.net")), store, {})
    assert found == ["management.azure.com:443", "login.microsoftonline.com:443", *expected]


def test_what_is_no_address_is_left_out() -> None:
    odd = {"AzureWebJobsStorage__blobServiceUri": "https://[::1", "APPLICATIONINSIGHTS_CONNECTION_STRING": "x"}
    assert hosts(Settings(arm_endpoint="https://localhost:9"), "https://[::1", odd) == ["localhost:9"]


@pytest.mark.parametrize(
    ("ahead", "status"),
    [(0.0, Level.OK), (59.0, Level.OK), (-61.0, Level.WARN), (301.0, Level.FAIL), (-9e4, Level.FAIL)],
)
def test_the_clock(ahead: float, status: Level) -> None:
    now = datetime.now(UTC)
    (address, *_) = addresses(Settings(), "", {})
    assert clock([Reached(address, date=now - timedelta(seconds=ahead), at=now)]).status is status
    assert clock([Reached(address, trouble="no answer")]).status is Level.UNKNOWN


@pytest.mark.parametrize(
    ("how", "expected"),
    [({}, ["public.example"]), ({"private": True}, ["private.example"]), ({"power": "Stopped"}, [])],
)
def test_a_private_cluster_is_reached_by_its_private_name(how: dict[str, Any], expected: list[str]) -> None:
    cluster = replace(CLUSTER, api_servers=("public.example", "private.example"), **how)
    assert [address.host for address in api_servers([cluster])] == expected
