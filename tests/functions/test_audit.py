"""Audits in the app: over HTTP and on the timer, whole, cut short, and killed at every turn."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox import Fault
from shared.controls import catalogue
from shared.errors import StoreError
from shared.models import Finding, RunState, Status
from shared.runs.orchestrators import hand
from shared.runs.steps import STEPS, Step, discovering
from tests.support.bench import one_pool
from tests.support.cloud import Cloud, CloudFactory, ask_until_started, start
from tests.support.hub import Hub

# The package gives the function by this name.
LANE = importlib.import_module("shared.runs.orchestrators.lane")
DEMO = Path(__file__).parents[2] / "fleets" / "demo.yaml"
ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
SMALL = one_pool("compliant_default", "false_file")


def two_subscriptions() -> str:
    """Two subscriptions with a cluster of two nodes each."""
    first, second = (
        one_pool("compliant_default", "false_flag", subscription=ONE),
        one_pool("compliant_default", "false_flag", subscription=TWO),
    )
    return first + second.partition("subscriptions:\n")[2].replace("rg-test", "rg-two").replace("aks-test", "aks-two")


def told(findings: list[Finding]) -> list[tuple[str, Status, str]]:
    """What a run came to, without what differs from run to run."""
    return sorted((finding.node or finding.cluster, finding.status, finding.code) for finding in findings)


async def adds_up(c: Cloud, run_id: str) -> None:
    """Every node and place that was found has exactly one finding for each control, and the summary says so."""
    run, findings = await c.run(run_id), await c.findings(run_id, None)
    assert run.summary is not None
    assert Counter(finding.status for finding in findings) == Counter(run.summary.statuses)
    assert run.summary.nodes == len({finding.place for finding in findings if finding.instance_id})
    controls = Counter(finding.control for finding in findings)
    assert set(controls) in (set(), set(catalogue().of()))
    assert len(set(controls.values())) <= 1


async def test_a_whole_audit_over_http(cloud: CloudFactory) -> None:
    async with cloud(DEMO) as c, c.host() as host:
        answer = await host.http("POST", "/api/audits", {})
        assert answer.status == 202, answer.body
        run_id = answer.json()["id"]
        assert answer.headers["location"] == f"/api/runs/{run_id}"
        assert answer.headers["retry-after"] == "10"
        instance = await host.finish(run_id)
        assert (instance.status, instance.output) == ("Completed", {"state": "completed"}), instance.error
        run = await c.run(run_id)
        assert run.state is RunState.COMPLETED
        assert run.summary is not None
        assert run.summary.nodes == 24
        assert run.summary.azure_calls > 0
        await adds_up(c, run_id)
        shown = (await host.http("GET", f"/api/runs/{run_id}")).json()
        assert shown["progress"]["nodes_found"] == shown["progress"]["nodes_done"] == 24
        assert shown["progress"]["statuses"] == {str(key): value for key, value in run.summary.statuses.items()}
        assert set(c.box.stats()["commands"].values()) == {1}


async def test_the_history_stays_small(cloud: CloudFactory) -> None:
    async with cloud(two_subscriptions()) as c, c.host() as host:
        run_id = await start(host)
        await host.finish(run_id)
        sizes = {instance.id: instance.peak for instance in c.hub.instances.values()}
        assert len(sizes) == 3, "the run and two lanes"
        assert max(sizes.values()) < 25_000, sizes


async def test_killed_while_commands_are_in_hand(cloud: CloudFactory) -> None:
    async with cloud(SMALL.replace("0.2, 0.2", "4, 4")) as c:
        async with c.host(visibility=0.2) as host:
            run_id = await start(host)
            await c.accepted(run_id, 2)
        async with c.host() as host:
            await host.finish(run_id)
            assert "advance" in host.activities
            assert not {"scope", "find_nodes"} & set(host.activities)
        assert set(c.box.stats()["commands"].values()) == {1}
        assert [status for _, status, _ in told(await c.findings(run_id))] == ["pass", "fail"]


async def test_cancelled_in_the_middle(cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovering, "BATCH", 1)
    monkeypatch.setattr(LANE, "WINDOW", 1)
    async with cloud(one_pool(*["compliant_default"] * 12)) as c, c.host() as host:
        run_id = await start(host)
        await host.until(lambda: len(c.box.stats()["commands"]) >= 2)
        answer = await host.http("POST", f"/api/runs/{run_id}/cancel")
        assert answer.status == 202
        await host.finish(run_id)
        run, findings = await c.run(run_id), await c.findings(run_id)
        assert run.state is RunState.CANCELLED
        statuses = Counter(finding.status for finding in findings)
        assert statuses[Status.PASS] == len(c.box.stats()["commands"]) < 12, "those in hand are finished"
        assert statuses[Status.ERROR] == 12 - statuses[Status.PASS]
        assert {finding.code for finding in findings if finding.status is Status.ERROR} == {"cancelled"}
        await adds_up(c, run_id)
        again = await host.http("POST", f"/api/runs/{run_id}/cancel")
        assert (again.status, again.json()["title"]) == (409, "The run is over")


def breaking(step: Step, holds: Callable[[Any], bool], *, again: bool = False) -> Step:
    """A step that cannot be done for some messages; `again`: the store is said to be away."""

    async def broken(services: Any, message: Any) -> Any:
        if holds(message):
            raise StoreError("out of luck", transient=True) if again else RuntimeError("out of luck")
        return await step.carry_out(services, message)

    return Step(step.message, broken)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(("name", "places"), [("advance", 2), ("find_nodes", 1), ("open_lane", 1)])
async def test_a_lane_that_fails(
    name: str, places: int, again: bool, cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again, for minutes where that may help; then what it could not look at gets findings that say so."""

    def in_one(message: Any) -> bool:
        return ONE in (
            getattr(message, "subscription", ""),
            *(n.split("/")[1] for n in getattr(message, "batches", ())),
        )

    monkeypatch.setitem(STEPS, name, breaking(STEPS[name], in_one, again=again))
    async with cloud(two_subscriptions()) as c, c.host() as host:
        run_id = await start(host)
        await host.finish(run_id)
        assert (await c.run(run_id)).state is RunState.COMPLETED
        findings = await c.findings(run_id)
        failed = [finding for finding in findings if finding.subscription == ONE]
        assert [finding.code for finding in failed] == ["batch_failed"] * places
        assert "out of luck" in failed[0].reason
        others = [finding.status for finding in findings if finding.subscription == TWO]
        assert sorted(others) == [Status.FAIL, Status.PASS]
        await adds_up(c, run_id)
        whole = {"advance": 1, "find_nodes": 1, "open_lane": 1}[name]
        tried = host.activities.count(name) - whole
        assert tried >= (hand.TRIES if again else 3)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("name", ["advance", "find_nodes", "begin", "finish"])
async def test_an_activity_that_takes_too_long(name: str, cloud: CloudFactory) -> None:
    """The host ends its worker, the orchestrator gets an exception, and makes the call anew."""
    async with cloud(SMALL) as c, c.host(gap=0) as host:
        host.timing_out[name] = 1
        run_id = ""
        while not run_id:  # the answer to the first one may die with the worker
            run_id = await ask_until_started(host)
        await host.finish(run_id)
        assert (await c.run(run_id)).state is RunState.COMPLETED
        assert [status for _, status, _ in told(await c.findings(run_id))] == ["pass", "fail"]
        await adds_up(c, run_id)


@pytest.mark.usefixtures("hurried")
async def test_a_run_that_cannot_record_everything_has_failed(
    cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("advance", "leave"):
        monkeypatch.setitem(STEPS, name, breaking(STEPS[name], lambda message: True))
    async with cloud(SMALL) as c, c.host() as host:
        run_id = await start(host)
        await host.finish(run_id)
        run = await c.run(run_id)
        assert run.state is RunState.FAILED
        assert "not everything could be recorded: RuntimeError: out of luck" in run.error
        await adds_up(c, run_id)
        assert {finding.code for finding in await c.findings(run_id)} == {"batch_failed"}, "the end recorded them"


async def test_a_subscription_that_may_not_be_read(cloud: CloudFactory) -> None:
    async with cloud(two_subscriptions() + "    forbidden: true\n") as c, c.host() as host:
        run_id = await start(host)
        await host.finish(run_id)
        findings = await c.findings(run_id)
        assert [finding.status for finding in findings if finding.subscription == TWO] == [Status.ERROR]
        await adds_up(c, run_id)


async def test_a_request_that_fits_nothing_fails_and_says_so(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        run_id = await start(host, {"clusters": ["aks-nowhere"]})
        await host.finish(run_id)
        run = await c.run(run_id)
        assert run.state is RunState.FAILED
        assert "aks-nowhere" in run.error
        assert "aks-test" in run.error


async def test_one_run_at_a_time_on_the_same_scope(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        host.going.clear()
        run_id = await start(host)
        again = await host.http("POST", "/api/audits", {"subscriptions": []})
        assert again.status == 409
        assert again.headers["location"] == again.json()["run"]["links"]["self"] == f"/api/runs/{run_id}"
        other = await start(host, {"clusters": ["aks-test"]})
        host.going.set()
        await host.finish(run_id)
        await host.finish(other)
        assert await start(host) not in (run_id, other)


async def test_many_starts_at_once_make_one_run(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        host.going.clear()  # the one run lasts until all have asked
        answers = await asyncio.gather(*(host.http("POST", "/api/audits", {}) for _ in range(6)))
        assert sorted(answer.status for answer in answers) == [202] + [409] * 5
        host.going.set()
        await host.finish(next(answer.json()["id"] for answer in answers if answer.status == 202))


async def test_two_timers_at_once_start_one_run(cloud: CloudFactory, caplog: pytest.LogCaptureFixture) -> None:
    async with cloud(SMALL) as c, c.host() as host, c.host() as other:
        host.going.clear()
        other.going.clear()
        with caplog.at_level(logging.INFO):
            await asyncio.gather(host.tick(), other.tick(past_due=True))
        host.going.set()
        other.going.set()
        (run,) = (await host.http("GET", "/api/runs")).json()["runs"]
        assert (run["kind"], run["by"]) == ("audit", "timer")
        assert "was not started" in caplog.text
        await host.until(lambda: c.hub.instances[run["id"]].over)


@pytest.mark.usefixtures("hurried")
async def test_a_lost_run_does_not_block_the_next(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c:
        async with c.host(die_after=1) as host:
            lost = await start(host)
            await host.finish(lost)
        c.hub = Hub()  # the task hub was deleted
        async with c.host() as host:
            run_id = await start(host)
            await host.finish(run_id)
        assert (await c.run(lost)).state is RunState.FAILED
        assert "lost this run" in (await c.run(lost)).error


async def test_azure_that_fails_now_and_then(cloud: CloudFactory) -> None:
    async with cloud(two_subscriptions()) as c, c.host() as host:
        c.box.inject(Fault("operations.get", count=3, status=503))
        c.box.inject(Fault("instances.list", count=1, drop="before"))
        run_id = await start(host)
        await host.finish(run_id)
        assert Counter(finding.status for finding in await c.findings(run_id)) == {Status.PASS: 2, Status.FAIL: 2}


async def test_what_the_log_says(cloud: CloudFactory, caplog: pytest.LogCaptureFixture) -> None:
    """The lines that the alerts and the workbook read, and nothing secret beside them."""
    with caplog.at_level(logging.DEBUG):
        async with cloud(SMALL) as c, c.host() as host:
            run_id = await start(host)
            await host.finish(run_id)
    lines = [record.getMessage() for record in caplog.records if record.name == "kubelet_guard.events"]
    events = [json.loads(line) for line in lines]
    nodes = [event for event in events if event["event"] == "node"]
    assert sorted(event["status"] for event in nodes) == ["fail", "pass"]
    assert sorted((event["passed"], event["failed"]) for event in nodes) == [(12, 1), (13, 0)]
    (told,) = (event for event in events if event["event"] == "finding")
    assert (told["control"], told["status"], told["outcome"]) == ("3.2.6", "fail", None)
    assert told["place"] in [event["place"] for event in nodes]
    assert all(event["run"] == run_id for event in events)
    (ended,) = (event for event in events if event["event"] == "run")
    assert ended == events[-1]
    assert ended.pop("azure_calls") > 0
    assert ended == {
        "event": "run",
        "run": run_id,
        "run_kind": "audit",
        "state": "completed",
        "starter": "http",
        "fix_run": "",
        "error": "",
        "nodes": 2,
        "throttled_seconds": 0.0,
    }
    quiet = [
        record for record in caplog.records if record.name.startswith("azure") and record.levelno < logging.WARNING
    ]
    assert quiet == []
    assert "AccountKey" not in caplog.text
