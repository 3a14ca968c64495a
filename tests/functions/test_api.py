"""What the HTTP functions take and refuse, and the document that says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from shared import __version__
from shared.api import problems
from shared.api.openapi import as_text, document
from shared.models import RunState
from shared.runs import orders
from shared.runs.hosts import leases
from shared.runs.model.progress import PROGRESS, Progress
from tests.support.bench import one_pool
from tests.support.cloud import ALLOWED, CloudFactory, awaiting, start
from tests.support.host import KEY, ROOT, Host

SMALL = one_pool("compliant_default", "false_file", "false_flag")
RUN = "20260101T000000Z-000000"


async def test_every_wrong_field_is_named(cloud: CloudFactory) -> None:
    body = {
        "subscriptions": ["prod"],
        "clusters": ["-x"],
        "node_pools": ["np_1"],
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


async def test_a_body_that_is_none(cloud: CloudFactory) -> None:
    cases: tuple[tuple[dict[str, Any], int, str], ...] = (
        ({"raw": b"{"}, 400, "not JSON"),
        ({"raw": b"[" * 100_000}, 400, "not JSON"),
        ({"raw": b'{"clusters": "\xff"}'}, 400, "not JSON"),
        ({"raw": b"[]"}, 400, "body"),
        ({"raw": b"a=b", "content_type": "application/x-www-form-urlencoded"}, 415, "Content-Type: application/json"),
        ({"raw": b" " * (1 << 18) + b"{}"}, 413, "at most 262,144"),
        ({"raw": b'{"clusters": "\\ud800"}'}, 400, "not JSON"),
        ({"raw": b'{"\\u202e": 1}'}, 400, "\\u202e: is not known here"),
    )
    async with cloud(SMALL) as c, c.host() as host:
        for sent, status, detail in cases:
            answer = await host.http("POST", "/api/audits", **sent)
            shown = (str(sent)[:80], answer.body)
            assert (answer.status, detail in answer.json()["detail"]) == (status, True), shown


async def test_addresses(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        for method, address, status in (
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
            ("GET", "/api/findings?limit=many", 400),
            ("GET", "/api/runs?code=a-function-key", 200),
        ):
            answer = await host.http(method, address)
            assert answer.status == status, (method, address, answer.body)


async def test_pages(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        run_id = await start(host, {"controls": ["3.2.6"]})
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
        assert shown["settings"]["command_seconds"] == 0.5
        assert shown["settings"]["store"].startswith("account guardtest")
        assert "AccountKey" not in answer.body.decode()
        for _ in range(5):
            c.box.inject(sandbox_fault())
        assert (await host.http("GET", "/api/health")).status == 503


async def test_deep_health_has_the_doctor_s_rows(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        plain = (await host.http("GET", "/api/health")).json()
        assert plain["checks"] is None
        answer = await host.http("GET", "/api/health?deep=true")
        shown = answer.json()
        assert (answer.status, shown["ok"]) == (200, True), shown
        assert answer.headers["cache-control"] == "no-store"
        assert {**shown, "checks": None} == plain
        rows = {(row["area"], row["what"]): row for row in shown["checks"]}
        assert {row["status"] for row in rows.values()} == {"ok"}, shown["checks"]
        assert rows["store", "opens, is written and read"]["subject"].startswith("account guardtest")
        assert rows["outbound", "the store"]["subject"].startswith("127.0.0.1:")
        assert "AccountKey" not in answer.body.decode()
        assert c.hub.instances == {}
        assert "runCommand" not in c.box.stats()["calls"]
        assert (await host.http("GET", "/api/health?deep=perhaps")).status == 400


async def test_deep_health_is_not_well_where_a_run_will_not_work(cloud: CloudFactory) -> None:
    async with cloud(one_pool("compliant_default", lockdown="true")) as c, c.host() as host:
        assert (await host.http("GET", "/api/health")).status == 200
        answer = await host.http("GET", "/api/health?deep=true")
        assert (answer.status, answer.json()["ok"]) == (503, False)
        (failing,) = [row for row in answer.json()["checks"] if row["status"] == "fail"]
        assert failing["what"] == "node resource group lockdown"
        assert failing["command"].startswith("az aks update --subscription ")


def sandbox_fault() -> Any:
    """Resource Manager refuses to say which subscriptions there are."""
    from sandbox import Fault

    return Fault("subscriptions.list", status=403, code="AuthorizationFailed", message="no")


async def test_what_is_wrong_is_said_in_words(cloud: CloudFactory) -> None:
    cases: tuple[tuple[Any, str], ...] = (
        ({"canary": "off"}, "canary: must be true or false, without quotes"),
        ({"canary": 1}, "canary: must be true or false, without quotes"),
        ({"max_failures": True}, "max_failures: must be a whole number, without quotes"),
        ({"max_failures": "5"}, "max_failures: must be a whole number, without quotes"),
        ({"max_failures": 1.5}, "max_failures: must be a whole number, without quotes"),
        ({"max_failures": 1001}, "max_failures: must be at most 1000"),
        ({"max_unavailable": 1}, "max_unavailable: must be text"),
        ({"max_unavailable": "none"}, 'max_unavailable: must be a number of nodes such as "1"'),
        ({"clusters": "a"}, "clusters: must be a list"),
        ({"clusters": [1]}, "clusters.0: must be text"),
        ({"clusters": ["a b"]}, "clusters.0: 'a b' is not a possible name"),
        ({"controls": ["9.9.9"]}, "controls.0: no control '9.9.9'; there is: 3.1.1, "),
        ({"method": "by hand"}, "method: must be 'auto', 'config' or 'flags'"),
        ({"colour": "red"}, "colour: is not known here"),
        ([], "body: must be a JSON object, such as {}"),
    )
    async with cloud(SMALL, **ALLOWED) as c, c.host() as host:
        for body, said in cases:
            answer = await host.http("POST", "/api/fixes", body)
            shown = (body, answer.body)
            assert (answer.status, answer.json()["type"]) == (400, "urn:kubelet-guard:problem:bad-request"), shown
            assert said in answer.json()["detail"], shown
        assert c.hub.instances == {}


async def test_an_answer_is_short_whatever_was_sent(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        for names, said in (
            (["-"] * 20_000, "clusters: has 20,000 names, and 1,000 are the most"),
            (["-"] * 1_000, "; and 995 more"),
            (["x" * 200_000], "is not a possible name"),
        ):
            answer = await host.http("POST", "/api/audits", {"clusters": names})
            assert (answer.status, said in answer.json()["detail"]) == (400, True), (said, answer.body[:5_000])
            assert len(answer.json()["errors"]) <= 20, said
            assert len(answer.body) < 5_000, said


async def test_the_longest_request_is_taken_and_names_are_compared_without_case(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        host.going.clear()
        scope = {
            "subscriptions": [f"00000000-0000-0000-0000-{number:012x}" for number in range(1_000)],
            "clusters": [f"{'c' * 59}{number:04}" for number in range(1_000)],
            "node_pools": [f"pool{number:08}" for number in range(1_000)],
        }
        run_id = await start(host, scope)
        upper = {name: [item.upper() for item in reversed(values)] for name, values in scope.items()}
        again = await host.http("POST", "/api/audits", upper)
        assert (again.status, again.json()["type"]) == (409, "urn:kubelet-guard:problem:going")
        assert again.json()["run"]["id"] == run_id
        assert len((await host.http("GET", "/api/runs?limit=200")).body) < 2_000, "a list does not repeat requests"
        twice = await start(host, {"clusters": ["aks-Test", "AKS-TEST", "other"], "node_pools": ["NP1"]})
        shown = (await host.http("GET", f"/api/runs/{twice}")).json()
        assert shown["request"]["clusters"] == ["aks-Test", "other"]
        assert shown["request"]["node_pools"] == ["NP1"]


async def test_a_hold_wants_a_reason(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        for body, said in (({}, "reason: is missing"), ({"reason": ""}, "reason: must not be empty")):
            answer = await host.http("POST", "/api/hold", body)
            assert (answer.status, answer.json()["detail"]) == (400, said)


async def test_an_approval_comes_too_late(cloud: CloudFactory) -> None:
    async with cloud(SMALL, **ALLOWED) as c, c.host() as host:
        run_id = await start(host, {}, "/api/fixes")
        digest = (await awaiting(host, run_id))["approval"]["digest"]
        host.going.clear()
        run = await c.run(run_id)
        assert run.approval is not None
        gone = replace(run.approval, expires=datetime(2026, 1, 1, tzinfo=UTC))
        await c.store.save_run(replace(run, approval=gone))
        answer = await host.http("POST", f"/api/runs/{run_id}/approve", {"digest": digest})
        assert (answer.status, answer.json()["type"]) == (409, "urn:kubelet-guard:problem:approval-expired")
        assert "expired at 2026-01-01 00:00:00 UTC" in answer.json()["detail"]
        await c.store.save_run(run)
        await orders.cancel(c.store, run)
        answer = await host.http("POST", f"/api/runs/{run_id}/approve", {"digest": digest})
        assert (answer.status, answer.json()["type"]) == (409, "urn:kubelet-guard:problem:cancelled")
        assert await orders.decision(c.store, run_id, digest) is None


async def test_an_expected_end_is_ahead_or_unknown(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        host.going.clear()
        run_id = await start(host)
        for until, shown in ((datetime(2026, 1, 1, tzinfo=UTC), False), (datetime(9999, 1, 1, tzinfo=UTC), True)):
            row = PROGRESS.dump_python(Progress(found=1, until=until), mode="json")
            await c.store.save_progress(run_id, "discover", row)
            progress = (await host.http("GET", f"/api/runs/{run_id}")).json()["progress"]
            assert (progress["expected_end"] is not None) == shown


async def test_findings_without_a_run_are_of_the_latest_audit_of_everything(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        none = (await host.http("GET", "/api/findings")).json()
        assert none == {"run": None, "scope": None, "findings": [], "continuation": None}
        narrow = await start(host, {"clusters": ["aks-test"]})
        await host.finish(narrow)
        page = (await host.http("GET", "/api/findings")).json()
        names: dict[str, list[str]] = {"subscriptions": [], "clusters": [], "node_pools": [], "controls": []}
        everything = {"management_group": "", **names}
        assert (page["run"], page["scope"]) == (narrow, {**everything, "clusters": ["aks-test"]})
        whole = await start(host)
        await host.finish(whole)
        await host.finish(await start(host, {"node_pools": ["np1"]}))
        page = (await host.http("GET", "/api/findings")).json()
        assert (page["run"], page["scope"]) == (whole, everything)
        assert {finding["run_id"] for finding in page["findings"]} == {whole}
        named = (await host.http("GET", f"/api/findings?run_id={narrow}")).json()
        assert (named["run"], named["scope"]["clusters"]) == (narrow, ["aks-test"])


async def test_alive_is_said_without_a_key_and_without_asking_anybody(cloud: CloudFactory) -> None:
    gone = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;TableEndpoint=http://127.0.0.1:9/a;"
    async with cloud(SMALL, GUARD_STORE=gone) as c, c.host() as host:
        answer = await host.http("GET", "/api/live", key="")
        assert (answer.status, answer.json()) == (200, {"status": "alive", "version": __version__})
        assert host.worker is not None
        assert host.worker.module.connections._services is None


async def test_no_answer_is_to_be_kept(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        for method, address in (
            ("GET", "/api/runs"),
            ("GET", "/api/runs?limit=0"),
            ("GET", "/api/health"),
            ("GET", "/api/live"),
            ("POST", "/api/fixes"),
        ):
            assert (await host.http(method, address)).headers["cache-control"] == "no-store", address


def test_the_docs_have_every_kind_of_problem() -> None:
    assert problems.as_markdown() in (ROOT / "docs" / "api.md").read_text("utf-8")


async def test_durable_functions_that_fails_is_said_and_no_run_is_taken_for_lost(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        host.going.clear()
        going = await start(host)
        run = await c.run(going)
        await c.store.save_run(replace(run, started=run.started - timedelta(minutes=5)))
        await c.store.release(leases.name(going), leases.APP)
        c.hub.broken = True
        for method, address in (("POST", f"/api/runs/{going}/cancel"), ("POST", "/api/audits")):
            answer = await host.http(method, address, {"clusters": ["other"]} if "audits" in address else None)
            assert (answer.status, answer.json()["type"]) == (503, "urn:kubelet-guard:problem:unavailable")
            assert answer.json()["detail"].startswith("Durable Functions does not answer: ")
            assert answer.headers["cache-control"] == "no-store"
        await host.tick(name="watchdog")
        states = {item.id: item.state for item in (await c.store.runs(10)).runs}
        assert states.pop(going) is RunState.RUNNING
        assert list(states.values()) == [RunState.FAILED], "the one that could not be started"


async def test_storage_that_is_not_there(cloud: CloudFactory) -> None:
    gone = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;TableEndpoint=http://127.0.0.1:9/a;"
    async with cloud(SMALL, GUARD_STORE=gone) as c, c.host() as host:
        answer = await host.http("GET", "/api/health")
        assert answer.status == 503
        assert "http://127.0.0.1:9/a cannot be reached" in answer.json()["detail"]
        assert "YQ==" not in answer.body.decode()


def test_a_body_is_required_where_a_field_of_it_is() -> None:
    bodies = {
        path: operation["post"]["requestBody"]["required"]
        for path, operation in document()["paths"].items()
        if "requestBody" in operation.get("post", {})
    }
    assert bodies == {
        "/api/audits": False,
        "/api/fixes": False,
        "/api/runs/{run_id}/approve": True,
        "/api/hold": True,
    }


def test_the_document_in_the_repository_is_the_document() -> None:
    assert (ROOT / "openapi.json").read_text("utf-8") == as_text(), "run: python -m shared.api.openapi > openapi.json"


async def test_the_document_is_served(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        answer = await host.http("GET", "/api/openapi.json")
        assert (answer.headers["content-type"], answer.json()) == ("application/json", document())
        assert "cache-control" not in answer.headers
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
        if mode is GenerationMode.NEGATIVE and operation.definition.raw.get("security") == []:
            checked.add(operation.label)  # it takes nothing, so nothing can be wrong
            continue

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
    assert len(checked) == sum(len(methods) for methods in json.loads(as_text())["paths"].values())
