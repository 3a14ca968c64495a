"""What the HTTP functions take and refuse, and the document that says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from shared.api.openapi import as_text, document
from tests.support.bench import one_pool
from tests.support.cloud import ALLOWED, CloudFactory, awaiting, start
from tests.support.host import KEY, ROOT, Host

SMALL = one_pool("compliant_default", "false_file", "false_flag")
RUN = "20260101T000000Z-000000"


async def test_every_wrong_field_is_named(cloud: CloudFactory) -> None:
    body = {
        "subscriptions": ["prod"],
        "clusters": ["-x"],
        "node_pools": ["UPPER"],
        "controls": ["9.9.9"],
        "method": "by hand",
        "max_unavailable": "0",
        "max_failures": -1,
        "canary": "perhaps",
        "retry_rolled_back": "yes",
        "approval": "maybe",
        "colour": "red",
    }
    async with cloud(SMALL, **ALLOWED) as c, c.host() as host:
        answer = await host.http("POST", "/api/fixes", body)
        assert answer.status == 400
        assert answer.headers["content-type"] == "application/problem+json"
        named = {item["field"].split(".")[0] for item in answer.json()["errors"]}
        assert named == set(body)
        assert "'prod' is not a subscription id" in answer.json()["detail"]
        assert c.hub.instances == {}


@pytest.mark.parametrize(
    ("sent", "status", "detail"),
    [
        ({"raw": b"{"}, 400, "not JSON"),
        ({"raw": b"[" * 100_000}, 400, "not JSON"),
        ({"raw": b'{"clusters": "\xff"}'}, 400, "not JSON"),
        ({"raw": b"[]"}, 400, "body"),
        ({"raw": b"a=b", "content_type": "application/x-www-form-urlencoded"}, 415, "Content-Type: application/json"),
        ({"raw": b" " * (1 << 20) + b"{}"}, 413, "at most 1048576"),
    ],
)
async def test_a_body_that_is_none(sent: dict[str, Any], status: int, detail: str, cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        answer = await host.http("POST", "/api/audits", **sent)
        assert (answer.status, detail in answer.json()["detail"]) == (status, True), answer.body


@pytest.mark.parametrize(
    ("method", "address", "status"),
    [
        ("GET", "/api/runs?limit=0", 400),
        ("GET", "/api/runs?state=gone", 400),
        ("GET", "/api/runs?colour=red", 400),
        ("GET", "/api/runs?continuation=nonsense", 400),
        ("GET", f"/api/runs/{RUN}", 404),
        ("GET", "/api/runs/..%2F..", 404),
        ("POST", f"/api/runs/{RUN}/cancel", 404),
        ("POST", f"/api/runs/{RUN}/approve", 400),
        ("GET", f"/api/runs/{RUN}/plan", 404),
        ("GET", f"/api/findings?run_id={RUN}", 404),
        ("GET", "/api/findings?status=bad", 400),
        ("GET", "/api/findings", 200),
        ("GET", "/api/runs?code=a-function-key", 200),
    ],
)
async def test_addresses(method: str, address: str, status: int, cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        answer = await host.http(method, address)
        assert answer.status == status, answer.body


async def test_pages(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        run_id = await start(host)
        await host.finish(run_id)
        seen, address = [], f"/api/findings?run_id={run_id}&limit=2"
        while True:
            page = (await host.http("GET", address)).json()
            seen += page["findings"]
            if page["continuation"] is None:
                break
            address = f"/api/findings?run_id={run_id}&limit=2&continuation={page['continuation']}"
        assert len({finding["node"] for finding in seen}) == len(seen) == 3
        failing = (await host.http("GET", "/api/findings?status=fail&cluster=AKS-TEST")).json()["findings"]
        assert {finding["status"] for finding in failing} == {"fail"}
        assert len(failing) == 2


async def test_health(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        answer = await host.http("GET", "/api/health")
        assert answer.status == 200
        shown = answer.json()
        assert shown["ok"]
        assert shown["identity"] == {"ok": True, "detail": "the identity sees 1 subscriptions"}
        assert shown["settings"]["command_seconds"] == 0.1
        assert shown["settings"]["store"].startswith("account guardtest")
        assert "AccountKey" not in answer.body.decode()
        for _ in range(5):
            c.box.inject(sandbox_fault())
        assert (await host.http("GET", "/api/health")).status == 503


def sandbox_fault() -> Any:
    """Resource Manager refuses to say which subscriptions there are."""
    from sandbox import Fault

    return Fault("subscriptions.list", status=403, code="AuthorizationFailed", message="no")


async def test_storage_that_is_not_there(cloud: CloudFactory) -> None:
    gone = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;TableEndpoint=http://127.0.0.1:9/a;"
    async with cloud(SMALL, GUARD_STORE=gone) as c, c.host() as host:
        answer = await host.http("GET", "/api/health")
        assert answer.status == 503
        assert "http://127.0.0.1:9/a cannot be reached" in answer.json()["detail"]
        assert "YQ==" not in answer.body.decode()


def test_the_document_in_the_repository_is_the_document() -> None:
    assert (ROOT / "openapi.json").read_text("utf-8") == as_text(), "run: python -m shared.api.openapi > openapi.json"


async def test_the_document_is_served(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        answer = await host.http("GET", "/api/openapi.json")
        assert (answer.headers["content-type"], answer.json()) == ("application/json", document())
        assert (await host.http("GET", "/api/openapi.json", key="")).status == 401
        described = {(method.upper(), path) for path, methods in answer.json()["paths"].items() for method in methods}
        routed = {
            (str(trigger.methods[0].value), f"/api/{trigger.route}")
            for trigger in (function.get_trigger() for function in host.functions.values())
            if trigger.type == "httpTrigger"
        }
        assert described == routed - {("GET", "/api/openapi.json")}


def wsgi(host: Host, loop: asyncio.AbstractEventLoop) -> Callable[..., Iterable[bytes]]:
    """The host's HTTP functions as a WSGI application; its calls are made on the host's own loop."""

    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
        length = int(environ.get("CONTENT_LENGTH") or 0)
        call = host.http(
            environ["REQUEST_METHOD"],
            path + ("?" + environ["QUERY_STRING"] if environ.get("QUERY_STRING") else ""),
            raw=environ["wsgi.input"].read(length),
            content_type=environ.get("CONTENT_TYPE", ""),
            key=environ.get("HTTP_X_FUNCTIONS_KEY", ""),
        )
        reply = asyncio.run_coroutine_threadsafe(call, loop).result(60)
        start_response(f"{reply.status} -", [(name, value) for name, value in reply.headers.items()])
        return [reply.body]

    return application


@pytest.mark.parametrize("mode", list(GenerationMode))
async def test_the_functions_do_as_the_document_says(mode: GenerationMode, cloud: CloudFactory) -> None:
    """schemathesis makes requests from the document, right and wrong ones, and compares the answers with it."""
    async with cloud(SMALL, **ALLOWED) as c, c.host() as host:
        audit = await start(host)
        await host.finish(audit)
        fix = await start(host, {}, "/api/fixes")
        await awaiting(host, fix)
        application = wsgi(host, asyncio.get_running_loop())
        await asyncio.to_thread(check_all, application, mode, [audit, fix])


def check_all(application: Callable[..., Iterable[bytes]], mode: GenerationMode, runs: list[str]) -> None:
    """Ask every operation for a handful of things."""
    schema = schemathesis.openapi.from_wsgi("/api/openapi.json", application, headers={"x-functions-key": KEY})
    checked = set()
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()

        @hypothesis.settings(
            max_examples=12,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate],
        )
        @hypothesis.given(
            case=operation.as_strategy(generation_mode=mode), run=hypothesis.strategies.sampled_from(runs)
        )
        def check(case: Any, run: str) -> None:
            if "run_id" in (case.path_parameters or {}) and mode is GenerationMode.POSITIVE:
                case.path_parameters["run_id"] = run
            if mode is GenerationMode.POSITIVE and isinstance((case.query or {}).get("continuation"), str):
                del case.query["continuation"]  # only a page can say one
            checked.add(case.operation.label)
            case.call_and_validate(headers={"x-functions-key": KEY})

        check()
    assert len(checked) == len(json.loads(as_text())["paths"])
