"""Audits in the app: over HTTP and on the timer, whole, cut short, and killed at every turn."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox import Fault
from shared.models import Finding, RunState, Status
from shared.runs import orchestrators
from tests.support.bench import one_pool
from tests.support.cloud import Cloud, CloudFactory, start
from tests.support.hub import Hub

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
    """Every node that was found has exactly one finding, and the summary says so."""
    run, findings = await c.run(run_id), await c.findings(run_id)
    assert run.summary is not None
    assert Counter(finding.status for finding in findings) == Counter(run.summary.statuses)
    assert run.summary.nodes == sum(1 for finding in findings if finding.instance_id)


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
        assert run.summary.nodes == 19
        assert run.summary.azure_calls > 0
        await adds_up(c, run_id)
        shown = (await host.http("GET", f"/api/runs/{run_id}")).json()
        assert shown["progress"]["nodes_found"] == shown["progress"]["nodes_done"] == 19
        assert shown["progress"]["statuses"] == {str(key): value for key, value in run.summary.statuses.items()}
        assert set(c.box.stats()["commands"].values()) == {1}


async def test_the_history_stays_small(cloud: CloudFactory) -> None:
    async with cloud(two_subscriptions()) as c, c.host() as host:
        run_id = await start(host)
        await host.finish(run_id)
        sizes = {instance.id: len(json.dumps(instance.history)) for instance in c.hub.instances.values()}
        assert len(sizes) == 4, "run, survey and two lanes"
        assert max(sizes.values()) < 12_000, sizes


@pytest.mark.slow
async def test_killed_after_every_single_event(cloud: CloudFactory) -> None:
    """Die after the first event, the second, …: always the same findings, and no command is sent twice."""
    async with cloud(SMALL) as c:
        expected, at, episodes, sent = None, 0, 1, 0
        while at <= episodes:
            c.hub = Hub()
            async with c.host(die_after=at or None) as host:
                run_id = await start(host)
                await host.finish(run_id)
            async with c.host() as host:
                instance = await host.finish(run_id)
                assert instance.output == {"state": "completed"}, instance.error
            findings = told(await c.findings(run_id))
            await adds_up(c, run_id)
            expected = expected or findings
            episodes = max(episodes, c.hub.episodes)
            assert findings == expected, f"killed after event {at}"
            sent += 2
            assert sum(c.box.stats()["commands"].values()) == sent, f"killed after event {at}"
            at += 1
        assert at > 10


@pytest.mark.slow
async def test_killed_after_every_activity_before_its_result_was_kept(cloud: CloudFactory) -> None:
    """So that each activity is delivered again although it had been carried out."""
    async with cloud(SMALL) as c:
        lost, sent = 1, 0
        while True:
            c.hub = Hub()
            async with c.host(lose_result=lost) as host:
                run_id = await start(host)
                await host.finish(run_id)
                died = host.dead.is_set()
            async with c.host() as host:
                await host.finish(run_id)
            assert [status for _, status, _ in told(await c.findings(run_id))] == ["pass", "fail"]
            await adds_up(c, run_id)
            sent += 2
            assert sum(c.box.stats()["commands"].values()) == sent, f"the result of activity {lost} was lost"
            if not died:
                break
            lost += 1
        assert lost > 5


async def test_killed_while_commands_are_in_hand(cloud: CloudFactory) -> None:
    async with cloud(SMALL.replace("0.2, 0.2", "4, 4")) as c:
        async with c.host() as host:
            run_id = await start(host)
            await c.accepted(run_id, 2)
        async with c.host() as host:
            await host.finish(run_id)
            assert "audit_batch" in host.activities
            assert "discover" not in host.activities
        assert set(c.box.stats()["commands"].values()) == {1}
        assert [status for _, status, _ in told(await c.findings(run_id))] == ["pass", "fail"]


async def test_cancelled_in_the_middle(cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activities, "BATCH", 1)
    monkeypatch.setattr(orchestrators, "WINDOW", 1)
    async with cloud(one_pool(*["compliant_default"] * 6)) as c, c.host() as host:
        run_id = await start(host)
        await host.until(lambda: len(c.box.stats()["commands"]) >= 2)
        answer = await host.http("POST", f"/api/runs/{run_id}/cancel")
        assert answer.status == 202
        await host.finish(run_id)
        run, findings = await c.run(run_id), await c.findings(run_id)
        assert run.state is RunState.CANCELLED
        statuses = Counter(finding.status for finding in findings)
        assert 2 <= statuses[Status.PASS] <= 3, "those in hand are finished"
        assert statuses[Status.SKIPPED] == 6 - statuses[Status.PASS]
        assert {finding.code for finding in findings if finding.status is Status.SKIPPED} == {"cancelled"}
        await adds_up(c, run_id)
        again = await host.http("POST", f"/api/runs/{run_id}/cancel")
        assert (again.status, again.json()["title"]) == (409, "The run is over")


@pytest.mark.slow
async def test_a_cancelled_run_does_not_sit_out_its_pacing(
    cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activities, "BATCH", 1)
    monkeypatch.setattr("shared.runs.pace.starts", lambda batches: [30.0 * at for at in range(len(batches))])
    async with cloud(one_pool(*["compliant_default"] * 40)) as c, c.host() as host:
        run_id = await start(host)
        await host.until(lambda: c.box.stats()["commands"])
        await host.http("POST", f"/api/runs/{run_id}/cancel")
        await host.finish(run_id)
        assert (await c.run(run_id)).state is RunState.CANCELLED
        await adds_up(c, run_id)


async def test_a_long_lane_goes_on_with_a_new_history(cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activities, "BATCH", 1)
    monkeypatch.setattr(orchestrators, "STRETCH", 2)
    monkeypatch.setattr("shared.runs.pace.starts", lambda batches: [0.1 * at for at in range(len(batches))])
    async with cloud(one_pool(*["compliant_default"] * 5)) as c, c.host() as host:
        run_id = await start(host)
        await host.finish(run_id)
        await adds_up(c, run_id)
        (lane,) = [instance for instance in c.hub.instances.values() if instance.name == "lane"]
        assert json.loads(lane.input)["first"] == 4
        assert set(c.box.stats()["commands"].values()) == {1}
        run = await c.run(run_id)
        assert run.summary is not None
        assert run.summary.statuses == {Status.PASS: 5}


def breaking(name: str, subscription: str) -> Callable[[Any, Any], Awaitable[Any]]:
    """An activity of the registry that cannot do its work in one subscription."""
    whole = activities.ACTIVITIES[name]

    async def broken(services: Any, job: Any) -> Any:
        if job["subscription"] == subscription:
            raise RuntimeError("out of luck")
        return await whole(services, job)

    return broken


@pytest.mark.parametrize(("name", "places"), [("audit_batch", 2), ("discover", 1)])
async def test_a_lane_that_fails(name: str, places: int, cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "_BACK_OFF_SECONDS", 0.01)
    async with cloud(two_subscriptions()) as c, c.host() as host:
        monkeypatch.setitem(activities.ACTIVITIES, name, breaking(name, ONE))
        run_id = await start(host)
        await host.finish(run_id)
        assert (await c.run(run_id)).state is RunState.COMPLETED
        findings = await c.findings(run_id)
        failed = [finding for finding in findings if finding.subscription == ONE]
        assert [finding.code for finding in failed] == ["batch_failed"] * places
        assert "out of luck" in failed[0].reason
        others = [finding.status for finding in findings if finding.subscription == TWO]
        assert sorted(others) == [Status.FAIL, Status.PASS]
        assert host.activities.count(name) == 2, "the attempts are inside one activity"
        await adds_up(c, run_id)


@pytest.mark.parametrize(("name", "codes"), [("audit_batch", {"batch_failed"}), ("discover", {"batch_failed"})])
async def test_an_activity_that_takes_too_long(name: str, codes: set[str], cloud: CloudFactory) -> None:
    """The host ends it, and the orchestrator gets an exception."""
    async with cloud(SMALL) as c, c.host() as host:
        host.timing_out[name] = 1
        run_id = await start(host)
        await host.finish(run_id)
        assert (await c.run(run_id)).state is RunState.COMPLETED
        assert {finding.code for finding in await c.findings(run_id)} == codes
        await adds_up(c, run_id)


async def test_a_run_that_cannot_record_everything_has_failed(cloud: CloudFactory) -> None:
    async with cloud(SMALL) as c, c.host() as host:
        host.timing_out.update({"audit_batch": 1, "fail_batch": 1})
        run_id = await start(host)
        await host.finish(run_id)
        run = await c.run(run_id)
        assert run.state is RunState.FAILED
        assert "not everything could be recorded: TimeoutError" in run.error


async def test_a_batch_that_fails_while_the_next_is_waited_for(
    cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activities, "BATCH", 1)
    monkeypatch.setattr("shared.runs.pace.starts", lambda batches: [0.5 * at for at in range(len(batches))])
    async with cloud(SMALL) as c, c.host() as host:
        host.timing_out["audit_batch"] = 1
        run_id = await start(host)
        await host.finish(run_id)
        assert sorted(finding.code for finding in await c.findings(run_id)) == ["batch_failed", "wrong"]
        await adds_up(c, run_id)


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
        assert (run["kind"], run["request"]["by"]) == ("audit", "timer")
        assert "was not started" in caplog.text
        await host.until(lambda: c.hub.instances[run["id"]].over)


async def test_a_lost_run_does_not_block_the_next(cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.runs.starting._BIRTH", timedelta(0))
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
    assert sorted(event["status"] for event in events if event["event"] == "finding") == ["fail", "pass"]
    assert all(event["run_id"] == run_id for event in events)
    assert events[-1] == {"event": "run", "run_id": run_id, "kind": "audit", "state": "completed", "error": ""}
    quiet = [
        record for record in caplog.records if record.name.startswith("azure") and record.levelno < logging.WARNING
    ]
    assert quiet == []
    assert "AccountKey" not in caplog.text
