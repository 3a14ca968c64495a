"""A cluster's API server, asked from here: a scripted Resource Manager, and a scripted API server over real TLS."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme
import yaml
from aiohttp import web

from shared.azure import AWAY_SECONDS, Azure, Pending, apiserver
from shared.azure.discovery import cluster_of
from shared.clouds import CLUSTER_SCOPE
from shared.cluster import Sweep
from shared.models import Cluster, Problem
from tests.support.arm import SUBSCRIPTION, Answer, Arm, Token, error
from tests.support.arm import cluster as cluster_body

POST = "/shop/listclusterusercredential"
SETTINGS = ("makeIPTablesUtilChains", "authentication.anonymous.enabled", "featureGates")
CONFIG = {
    "makeIPTablesUtilChains": True,
    "authentication": {"anonymous": {"enabled": False}},
    "staticPodURL": "http://x/?sig=CANARY-URL",
    "staticPodURLHeader": {"Authorization": ["CANARY-HEADER"]},
}
MACHINE = "azure:///subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/mc_rg/providers"
MACHINE = f"{MACHINE}/Microsoft.Compute/virtualMachineScaleSets/set/virtualMachines"

PACKED = {"Content-Encoding": "gzip"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def node(name: str, number: int) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"providerID": f"{MACHINE}/{number}"},
        "status": {
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-20T08:15:00Z"}],
            "nodeInfo": {"kubeletVersion": "v1.33.5", "bootID": "b", "operatingSystem": "linux"},
        },
    }


@dataclass
class Kube:
    """The API server: its nodes, what each kubelet answers, and what it was asked."""

    authority: trustme.CA
    url: str = ""
    nodes: list[str] = field(default_factory=lambda: ["a", "b"])
    kubelets: dict[str, Handler] = field(default_factory=dict)
    lists: list[Handler] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.path_qs, request.headers.get("Authorization", "")))
        if request.path == "/api/v1/nodes":
            return await self.lists.pop(0)(request) if self.lists else self.page(request)
        name = request.path.split("/")[4]
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if name in self.kubelets:
                return await self.kubelets[name](request)
            await asyncio.sleep(0.01)
            return web.json_response({"kubeletconfig": CONFIG})
        finally:
            self.at_once -= 1

    def page(self, request: web.Request) -> web.Response:
        start, most = int(request.query.get("continue") or "0"), int(request.query["limit"])
        items = [node(name, number) for number, name in enumerate(self.nodes)][start : start + most]
        following = str(start + most) if start + most < len(self.nodes) else ""
        return web.json_response({"items": items, "metadata": {"continue": following}})

    def kubeconfig(self, **cluster: Any) -> dict[str, Any]:
        authority = base64.b64encode(self.authority.cert_pem.bytes()).decode()
        given = {"server": self.url, "certificate-authority-data": authority} | cluster
        return {
            "clusters": [{"name": "shop", "cluster": given}],
            "users": [{"name": "u", "user": {"token": "CANARY-TOKEN", "client-key-data": "CANARY-KEY"}}],
        }


@pytest.fixture
async def kube() -> AsyncIterator[Kube]:
    made = Kube(trustme.CA())
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.handle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.authority.issue_cert("localhost").configure_cert(context)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    made.url = f"https://localhost:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


def credentials(config: object) -> Answer:
    text = config if isinstance(config, str) else yaml.safe_dump(config)
    return Answer(200, {"kubeconfigs": [{"name": "clusterUser", "value": base64.b64encode(text.encode()).decode()}]})


def shop(**changes: Any) -> Cluster:
    body = cluster_body("shop", fqdn="LOCALHOST", aadProfile={"managed": True})
    return replace(cluster_of(SUBSCRIPTION, body), **changes)


async def ask(azure: Azure, cluster: Cluster | None = None, **more: Any) -> Sweep | Problem | Pending:
    return await azure.ask_api_server(cluster or shop(), SETTINGS, None, **more)


async def sweep(azure: Azure, **more: Any) -> Sweep:
    found = await ask(azure, **more)
    assert isinstance(found, Sweep), found
    return found


def codes(found: Sweep) -> dict[str, str]:
    return {name: node.trouble.code if node.trouble else "" for name, node in found.nodes.items()}


def answer(status: int, body: object, **headers: str) -> Handler:
    async def give(_: web.Request) -> web.StreamResponse:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return web.Response(status=status, body=content, headers=headers)

    return give


async def test_the_settings_and_nothing_else(
    arm: Arm, azure: Azure, kube: Kube, token: Token, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    arm.on("POST", POST, credentials(kube.kubeconfig()))
    found = await sweep(azure)
    assert (found.listed, found.left, found.problem) == (2, 0, None)
    first = found.nodes["a"]
    assert first.values == {"makeIPTablesUtilChains": True, "authentication.anonymous.enabled": False}
    assert first.resource_id == f"{MACHINE}/0".removeprefix("azure://").lower()
    assert (first.version, first.boot_id, first.os, first.ready) == ("v1.33.5", "b", "linux", True)
    assert first.since == datetime(2026, 1, 20, 8, 15, tzinfo=UTC)
    assert arm.seen[0].query["format"] == "exec"
    assert arm.seen[0].body is None
    assert token.asked[-1] == (CLUSTER_SCOPE,)
    assert {said for _, said in kube.seen} == {"Bearer t0ken"}
    assert "CANARY" not in f"{found} {caplog.text}"
    assert "t0ken" not in f"{found} {caplog.text}"


async def test_pages_and_parts(arm: Arm, azure: Azure, kube: Kube) -> None:
    arm.on("POST", POST, credentials(kube.kubeconfig()))
    # Names in an order that is not that of the list.
    kube.nodes = [f"n{number * 7 % 450:03}" for number in range(450)]
    first = await sweep(azure)
    assert (len(first.nodes), first.listed, first.left) == (200, 450, 250)
    assert sorted(path for path, _ in kube.seen if "configz" not in path) == [
        "/api/v1/nodes?limit=100",
        *(f"/api/v1/nodes?limit=100&continue={start}" for start in (100, 200, 300, 400)),
    ]
    assert 1 < kube.most_at_once <= 16
    second = await sweep(azure, after=first.last)
    third = await sweep(azure, after=second.last)
    assert (second.left, third.left) == (50, 0)
    assert sorted({*first.nodes, *second.nodes, *third.nodes}) == sorted(kube.nodes)


async def test_frozen_kubelets_hold_up_nobody(
    arm: Arm, azure: Azure, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apiserver, "NODE_SECONDS", 1.5)
    arm.on("POST", POST, credentials(kube.kubeconfig()))
    kube.nodes = [f"n{number:02}" for number in range(40)]

    async def frozen(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError

    async def drips(request: web.Request) -> web.StreamResponse:
        slow = web.StreamResponse()
        await slow.prepare(request)
        while True:
            await slow.write(b" ")
            await asyncio.sleep(0.02)

    kube.kubelets = dict.fromkeys(kube.nodes[:12], frozen) | {"n12": drips}
    # One after another they would take 20 s.
    async with asyncio.timeout(12):
        found = await sweep(azure)
    assert [*codes(found).values()] == ["configz_timeout"] * 13 + [""] * 27


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (answer(403, {"message": 'nodes "a" is forbidden', "reason": "Forbidden"}), "configz_forbidden"),
        (answer(401, {}), "configz_unauthorized"),
        (answer(404, {"message": 'nodes "a" not found'}), "configz_not_found"),
        (answer(429, {}), "configz_not_asked"),
        (answer(503, {"message": "dial tcp 10.2.2.2:10250: connect: connection refused"}), "configz_refused"),
        (answer(503, {"message": "dial tcp 10.2.2.2:10250: i/o timeout"}), "configz_timeout"),
        (answer(502, b"<html>"), "configz_unreachable"),
        (answer(500, {"message": "x509: certificate signed by unknown authority"}), "configz_certificate"),
        (answer(302, b"", Location="/elsewhere"), "configz_malformed"),
        (answer(200, b""), "configz_malformed"),
        (answer(200, b"[" * 200_000), "configz_malformed"),
        (answer(200, b'{"kubeletconfig":{"staticPodURL":"CANARY' + b"A" * 300_000 + b'"}}'), "configz_malformed"),
        (answer(200, {"kubeletconfig": []}), "configz_malformed"),
        (answer(200, {"kubeletconfig": {"makeIPTablesUtilChains": "CANARY" * 1000}}), "configz_too_long"),
        (answer(200, gzip.compress(json.dumps({"kubeletconfig": CONFIG}).encode()), **PACKED), "configz_malformed"),
        (answer(200, {"kubeletconfig": {"authentication": "CANARY"}}), ""),
    ],
)
async def test_what_a_kubelet_may_answer(arm: Arm, azure: Azure, kube: Kube, given: Handler, code: str) -> None:
    arm.on("POST", POST, credentials(kube.kubeconfig()))
    kube.kubelets["a"] = given
    found = await sweep(azure)
    assert codes(found) == {"a": code, "b": ""}
    assert "CANARY" not in str(found)
    assert not [path for path, _ in kube.seen if "elsewhere" in path]


async def test_a_connection_that_breaks_off(arm: Arm, azure: Azure, kube: Kube) -> None:
    async def drop(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    arm.on("POST", POST, credentials(kube.kubeconfig()))
    kube.kubelets["a"] = drop
    assert codes(await sweep(azure)) == {"a": "configz_unreachable", "b": ""}


async def test_nodes_that_name_no_machine_or_one_of_anothers(arm: Arm, azure: Azure, kube: Kube) -> None:
    arm.on("POST", POST, credentials(kube.kubeconfig()))
    listed = [node("a", 1), node("b", 1), node("c", 2), {"metadata": {"name": "virtual"}}]
    kube.lists.append(answer(200, {"items": listed, "metadata": {}}))
    found = await sweep(azure)
    assert codes(found) == {"a": "configz_doubled_id", "b": "configz_doubled_id", "c": "", "virtual": "configz_no_id"}


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (answer(403, {"reason": "Forbidden"}), "sweep_list_forbidden"),
        (answer(401, {}), "sweep_list_unauthorized"),
        (answer(404, {}), "sweep_failed"),
        (answer(302, b"", Location="https://evil.example/"), "sweep_failed"),
        (answer(200, b"<html>"), "sweep_list_malformed"),
        (answer(200, {"items": [{"metadata": {"name": "../../x"}}], "metadata": {}}), "sweep_list_malformed"),
        (answer(200, {"items": [], "metadata": {"continue": "&limit=1"}}), "sweep_list_malformed"),
    ],
)
async def test_a_list_that_is_refused_or_none(arm: Arm, azure: Azure, kube: Kube, first: Handler, code: str) -> None:
    arm.on("POST", POST, credentials(kube.kubeconfig()))
    kube.lists.append(first)
    found = await ask(azure)
    assert isinstance(found, Problem)
    assert found.code == code
    assert len(kube.seen) == 1


async def test_a_list_that_fails_for_a_moment_is_asked_for_again(
    arm: Arm, azure: Azure, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apiserver, "_PAUSE", 0.01)
    arm.on("POST", POST, credentials(kube.kubeconfig()))
    for status in (429, 503):
        kube.lists.append(answer(status, {}, **{"Retry-After": "0"}))
        assert codes(await sweep(azure)) == {"a": "", "b": ""}
    kube.lists += [answer(503, {}), answer(503, {})]
    found = await ask(azure)
    assert isinstance(found, Problem)
    assert (found.code, "HTTP 503" in found.reason) == ("sweep_failed", True)


@pytest.mark.parametrize(
    "config",
    [
        {"server": "https://evil.example:443"},
        {"server": "https://localhost.evil.example"},
        {"server": "https://localhost@evil.example"},
        {"server": "http://localhost:80"},
        {"server": "https://user@localhost"},
        {"server": "https://localhost/elsewhere"},
        {"server": "https://127.0.0.1"},
    ],
)
async def test_a_token_goes_nowhere_else(
    arm: Arm, azure: Azure, kube: Kube, token: Token, config: dict[str, str]
) -> None:
    arm.on("POST", POST, credentials(kube.kubeconfig(**config)))
    found = await ask(azure)
    assert isinstance(found, Problem)
    assert found.code == "sweep_foreign_server"
    assert (CLUSTER_SCOPE,) not in token.asked
    assert not kube.seen


async def test_a_certificate_of_another_authority(arm: Arm, azure: Azure, kube: Kube, authority: trustme.CA) -> None:
    # One that this process trusts for Resource Manager counts for nothing here.
    kube.authority = authority
    arm.on("POST", POST, credentials(kube.kubeconfig()))
    found = await ask(azure)
    assert isinstance(found, Problem)
    assert found.code == "sweep_certificate"
    assert not kube.seen


async def test_a_proxy_of_the_environment_is_not_used(
    arm: Arm, azure: Azure, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm.on("POST", POST, credentials(kube.kubeconfig()))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert codes(await sweep(azure)) == {"a": "", "b": ""}


@pytest.mark.parametrize(
    "config",
    [
        "clusters: [",
        "just words",
        "clusters: []",
        {"clusters": [{"cluster": {"server": "https://localhost"}}]},
        {"clusters": [{"cluster": {"server": "https://localhost", "certificate-authority-data": "bm9uZQ=="}}]},
        {"clusters": [{"cluster": {"server": "https://localhost:x", "certificate-authority-data": "bm9uZQ=="}}]},
        "!!python/object/apply:os.system [id]",
        "a" * 200_000,
    ],
)
async def test_credentials_that_cannot_be_read(arm: Arm, azure: Azure, kube: Kube, config: object) -> None:
    arm.on("POST", POST, credentials(config))
    found = await ask(azure)
    assert isinstance(found, Problem)
    assert found.code == "sweep_no_server"
    arm.on("POST", POST, Answer(200, {"kubeconfigs": [{"value": "\u00e9"}]}))
    found = await ask(azure)
    assert isinstance(found, Problem)
    assert found.code == "sweep_no_server"


async def test_an_api_server_that_cannot_be_reached(
    arm: Arm, azure: Azure, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apiserver, "_PAUSE", 0.01)
    arm.on("POST", POST, credentials(kube.kubeconfig(server="https://localhost:9")))
    public, private = await ask(azure), await ask(azure, shop(private=True))
    assert isinstance(public, Problem)
    assert isinstance(private, Problem)
    assert public.code == private.code == "sweep_unreachable"
    assert "authorizedIPRanges" in public.hint
    assert "private" in private.reason


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (Answer(403, error("AuthorizationFailed", "no")), "AuthorizationFailed"),
        (Answer(404, error("ResourceNotFound")), "ResourceNotFound"),
    ],
)
async def test_what_azure_refuses(arm: Arm, azure: Azure, given: Answer, code: str) -> None:
    arm.on("POST", POST, given)
    found = await ask(azure)
    assert isinstance(found, Problem)
    assert found.code == code
    assert arm.count("POST") == 1


async def test_azure_that_is_away_and_a_token_that_is_not_there(
    arm: Arm, azure: Azure, kube: Kube, token: Token
) -> None:
    from azure.core.exceptions import ClientAuthenticationError

    arm.on("POST", POST, Answer(503, text="away"), credentials(kube.kubeconfig()))
    first = await ask(azure)
    assert isinstance(first, Pending)
    good = token.get_token

    async def refused(*scopes: str, **more: Any) -> Any:
        if scopes == (CLUSTER_SCOPE,):
            raise ClientAuthenticationError("AADSTS: no")
        return await good(*scopes, **more)

    token.get_token = refused  # type: ignore[method-assign]
    second = await azure.ask_api_server(shop(), SETTINGS, first)
    assert isinstance(second, Pending)
    long_ago = replace(second, away_since=datetime.now(UTC) - timedelta(seconds=AWAY_SECONDS))
    found = await azure.ask_api_server(shop(), SETTINGS, long_ago)
    assert isinstance(found, Problem)
    assert found.code == "credential"
    assert not kube.seen


async def test_what_may_not_be_asked_for(arm: Arm, azure: Azure) -> None:
    for setting in ("staticPodURL", "staticPodURLHeader", "a b"):
        with pytest.raises(ValueError, match="may be asked for"):
            await azure.ask_api_server(shop(), (setting,), None)
    plain = await ask(azure, shop(entra=False))
    assert isinstance(plain, Problem)
    assert plain.code == "sweep_not_entra"
    assert not arm.seen


def test_the_names_of_an_api_server() -> None:
    body = cluster_body("shop", fqdn="Shop-1.hcp.westeurope.azmk8s.io", privateFQDN="shop-2.privatelink.x")
    assert cluster_of(SUBSCRIPTION, body).api_servers == ("shop-1.hcp.westeurope.azmk8s.io", "shop-2.privatelink.x")
    assert cluster_of(SUBSCRIPTION, cluster_body("shop", fqdn=None)).api_servers == ()
