"""The way to Azure: proxies of the environment, and answers that do not come to an end."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from shared.azure import Azure, Pending
from shared.clouds import CLOUDS, Cloud
from shared.models import Node, Problem
from shared.settings import Settings, load
from tests.support.arm import SUBSCRIPTION, Answer, Arm, Token, accepted

CLUSTERS = "/managedclusters"


class Proxy:
    """A forward proxy that lets TLS through (CONNECT) and remembers what it was asked. `to` is the host and port that
    all of it is led to instead."""

    def __init__(self, to: str = "") -> None:
        self.asked: list[str] = []
        self.address = ""
        self._to = to

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        host, _, port = (self._to or head.split()[1]).rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
        sink.close()


async def test_the_proxy_of_the_environment_is_used_with_its_credentials(
    arm: Arm, settings: Settings, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm.on("GET", CLUSTERS, Answer(200, {"value": []}))
    async with Proxy() as proxy:
        monkeypatch.setenv("https_proxy", f"http://user:pw@{proxy.address}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with Azure(settings, token) as azure:
            assert await azure.clusters(SUBSCRIPTION) == []
    assert proxy.asked[0].startswith(f"CONNECT {urlsplit(arm.base).netloc} ")
    assert "Proxy-Authorization: Basic dXNlcjpwdw==" in proxy.asked[0]


@pytest.mark.parametrize("cloud", CLOUDS, ids=lambda cloud: cloud.name)
async def test_each_clouds_resource_manager_is_asked_with_the_identitys_token_for_it(
    arm: Arm, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{arm.base}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "secret-header")
    given = {"access_token": "t", "expires_on": "4102444800", "token_type": "Bearer", "resource": cloud.audience}
    arm.on("GET", "/msi/token", Answer(200, given))
    arm.on("GET", CLUSTERS, Answer(200, {"value": []}))
    async with Proxy(to=urlsplit(arm.base).netloc) as proxy:
        monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
        monkeypatch.setenv("no_proxy", "localhost")
        async with Azure(load({"GUARD_ARM_ENDPOINT": f"https://{cloud.resource_manager}/"})) as azure:
            assert await azure.clusters(SUBSCRIPTION) == []
    assert {head.split()[1] for head in proxy.asked} == {f"{cloud.resource_manager}:443"}
    (token,) = [seen.query["resource"] for seen in arm.seen if "msi" in seen.path]
    assert token == cloud.audience


async def test_no_proxy_holds(arm: Arm, settings: Settings, token: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    arm.on("GET", CLUSTERS, Answer(200, {"value": []}))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "localhost")
    async with Azure(settings, token) as azure:
        assert await azure.clusters(SUBSCRIPTION) == []


async def test_an_answer_that_drips_is_given_up(
    arm: Arm, azure: Azure, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.azure.pipeline.WHOLE_SECONDS", 0.3)
    monkeypatch.setattr("shared.azure.runcommand.MOST_WAIT", 0.3)
    arm.on("POST", "/runcommand", Answer(202, drip=0.05), accepted())
    outcome = await azure.start(node, "true", None, 0)
    assert isinstance(outcome, Problem)
    assert outcome.may_have_run
    assert "not whole" in outcome.reason
    started = await azure.start(node, "true", None, 0)
    assert isinstance(started, Pending)
    arm.on("GET", "", Answer(200, drip=0.05))
    looked = await azure.look(node, started)
    assert isinstance(looked, Pending)
    assert looked.away_since is not None


async def test_an_answer_that_breaks_off_is_a_broken_connection(arm: Arm, azure: Azure, node: Node) -> None:
    arm.on("POST", "/runcommand", Answer(200, cut=True), accepted())
    outcome = await azure.start(node, "true", None, 0)
    assert isinstance(outcome, Problem)
    assert (outcome.code, outcome.may_have_run, arm.count("POST")) == ("connection_lost", True, 1)
    started = await azure.start(node, "true", None, 0)
    assert isinstance(started, Pending)
    arm.on("GET", "", Answer(200, cut=True))
    looked = await azure.look(node, started)
    assert isinstance(looked, Pending)
    assert looked.away_since is not None
