"""The watchdog: records of runs held against what is going, from outside."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.errors import StoreError
from shared.models import Outcome, RunState, Starter, Status
from shared.runs.hosts import leases, starting, watchdog
from shared.runs.model import ENGINE
from shared.store import tables
from shared.store.tables import TablesBackend
from tests.support.azurite import Azurite
from tests.support.bench import one_pool
from tests.support.cloud import ALLOWED, Cloud, CloudFactory, awaiting, start
from tests.support.faulty import faulty_proxy
from tests.support.host import Host, in_episode
from tests.support.hub import Hub

pytestmark = pytest.mark.usefixtures("hurried")

SMALL = one_pool("compliant_default", "false_file")
FAILING = one_pool("false_file", "false_flag")
HELD = {"pause_seconds": 0}


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    """The events of this name that were told to telemetry."""
    lines = [json.loads(item.getMessage()) for item in caplog.records if item.name == "kubelet_guard.events"]
    return [line for line in lines if line["event"] == name]


async def until_over(c: Cloud, host: Host, run_id: str) -> None:
    """Tick until the run's record is final."""

    async def over() -> bool:
        await host.tick(name="watchdog")
        return (await c.run(run_id)).state.final

    await c.until(over)


async def statuses(c: Cloud, run_id: str) -> Counter[Status]:
    return Counter(finding.status for finding in await c.findings(run_id))


@pytest.mark.parametrize("name", [f"run_{ENGINE}", f"lane_{ENGINE}"])
async def test_an_orchestration_that_failed_for_good(name: str, cloud: CloudFactory) -> None:
    """The top instance is begun again from outside, a child by its parent; nothing is looked at twice."""
    async with cloud(SMALL) as c, c.host(gap=0) as host:
        host.kill_worker(in_episode(name, number=4))
        run_id = await start(host)
        await host.until(lambda: any(item.status == "Failed" for item in c.hub.instances.values()))
        await until_over(c, host, run_id)
        run = await c.run(run_id)
        assert (run.state, run.epoch) == (RunState.COMPLETED, 1 if name == f"run_{ENGINE}" else 0)
        assert await statuses(c, run_id) == {Status.PASS: 1, Status.FAIL: 1}
        assert set(c.box.stats()["commands"].values()) == {1}


async def test_a_run_that_goes_is_left_alone(cloud: CloudFactory) -> None:
    async with cloud(SMALL.replace("0.2, 0.2", "2, 2")) as c, c.host() as host:
        run_id = await start(host)
        await c.accepted(run_id, 2)
        before = host.calls["activityTrigger", "begin"]
        for _ in range(3):
            assert await host.tick(name="watchdog")
        await host.finish(run_id)
        assert (await c.run(run_id)).epoch == 0
        assert host.calls["activityTrigger", "begin"] == before == 1


async def test_a_run_that_ends_while_the_watchdog_looks(cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was listed as going, and is over when its orchestration is asked for."""
    async with cloud(SMALL) as c, c.host() as host:
        run_id = await start(host)
        listed = starting.going

        async def slow(store: Any) -> Any:
            found = await listed(store)
            await host.finish(run_id)
            return found

        monkeypatch.setattr(starting, "going", slow)
        assert await host.tick(name="watchdog")
        run = await c.run(run_id)
        assert (run.state, run.epoch) == (RunState.COMPLETED, 0)
        assert not c.hub.going()


async def test_a_run_that_is_lost_again_and_again(
    cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is ended, with every node recorded, and its event is told."""
    monkeypatch.setattr(watchdog, "BEGINNINGS", 3)
    caplog.set_level(logging.INFO)
    async with cloud(SMALL.replace("0.2, 0.2", "3, 3")) as c:
        async with c.host() as host:
            run_id = await start(host)
            await c.accepted(run_id, 2)
        seen = []
        for _ in range(3):
            c.hub = Hub()  # its orchestration is gone, and nothing of it is left
            async with c.host() as host:
                host.going.clear()
                assert await host.tick(name="watchdog")
                run = await c.run(run_id)
                seen.append((run.state, run.epoch))
        assert seen == [(RunState.RUNNING, 1), (RunState.RUNNING, 2), (RunState.FAILED, 2)]
        assert run.error == "the app lost this run: its orchestration is not there any more, after 3 beginnings"
        assert {finding.code for finding in await c.findings(run_id)} == {"batch_failed"}
        assert run.summary is not None
        assert (run.summary.nodes, run.summary.statuses) == (2, {Status.ERROR: 2 * 13})
        (told,) = events(caplog, "run")
        assert (told["run"], told["state"]) == (run_id, "failed")


async def test_one_run_that_cannot_be_begun_does_not_keep_the_others_from_it(
    cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cloud(SMALL) as c:
        async with c.host() as host:
            host.going.clear()
            one, two = await start(host), await start(host, {"clusters": ["aks-test"]})
        c.hub = Hub()
        async with c.host() as host:
            whole = host.client.start_new
            refused = max(one, two)

            async def start_new(client: Any, name: str, instance_id: str, input_: Any) -> Any:
                if instance_id == refused:
                    raise Exception("The operation failed with an unexpected status code: 500")
                return await whole(name, instance_id, input_)

            monkeypatch.setattr("azure.durable_functions.DurableOrchestrationClient.start_new", start_new)
            await host.tick(name="watchdog")
            assert [item.id for item in c.hub.going(f"run_{ENGINE}")] == [min(one, two)]
            monkeypatch.undo()


async def test_an_approval_whose_fix_is_dead(cloud: CloudFactory) -> None:
    async with cloud(FAILING, **ALLOWED) as c:
        async with c.host() as host:
            run_id = await start(host, HELD, "/api/fixes")
            shown = await awaiting(host, run_id)
        c.hub = Hub()
        await c.until(lambda: _released(c, run_id))
        async with c.host() as host:
            body = {"digest": shown["approval"]["digest"]}
            answer = await host.http("POST", shown["links"]["approve"], body)
            assert answer.status == 409, answer.body
            assert "lost" in answer.json()["detail"]
            assert (await host.http("GET", f"/api/runs/{run_id}")).json()["lost"]
            assert await host.tick(name="watchdog")  # begins it again, with the same plan
            shown = await awaiting(host, run_id)
            again = await host.http("POST", shown["links"]["approve"], body)
            assert again.status == 202, again.body
            await host.finish(run_id)
            assert Counter(item.outcome for item in await c.findings(run_id)) == {Outcome.FIXED: 2}
            assert sorted(c.box.stats()["commands"].values()) == [2, 2]


async def _released(c: Cloud, run_id: str) -> bool:
    return await leases.holder(c.store, run_id) is None


@pytest.mark.parametrize("word", ["approve", "cancel"])
async def test_a_lost_wake_up_costs_a_tick(word: str, cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(*_: Any) -> None:
        """The event goes astray."""

    async with cloud(FAILING, **ALLOWED) as c, c.host() as host:
        run_id = await start(host, HELD, "/api/fixes")
        shown = await awaiting(host, run_id)
        with monkeypatch.context() as patched:
            patched.setattr("azure.durable_functions.DurableOrchestrationClient.raise_event", lost)
            body = {"digest": shown["approval"]["digest"]} if word == "approve" else None
            assert (await host.http("POST", shown["links"][word], body)).status == 202
        assert (await c.run(run_id)).state is RunState.AWAITING_APPROVAL
        assert await host.tick(name="watchdog")
        await host.finish(run_id)
        wanted = RunState.COMPLETED if word == "approve" else RunState.CANCELLED
        assert (await c.run(run_id)).state is wanted


async def test_a_run_of_another_version_is_ended_in_words(cloud: CloudFactory) -> None:
    async with cloud(SMALL.replace("0.2, 0.2", "3, 3")) as c:
        async with c.host() as host:
            run_id = await start(host)
            await c.accepted(run_id, 2)
        await c.store.save_run(replace(await c.run(run_id), engine=ENGINE - 1))
        async with c.host() as host:
            host.going.clear()
            assert await host.tick(name="watchdog")
            run = await c.run(run_id)
            assert run.state is RunState.FAILED
            assert run.error == "the app was updated while this run was going: start it again"
            assert {finding.code for finding in await c.findings(run_id)} == {"batch_failed"}
            host.going.set()
            await host.until(lambda: not c.hub.going())


async def test_the_plan_of_a_fix_that_is_over_is_ended(cloud: CloudFactory) -> None:
    async with cloud(FAILING, **ALLOWED) as c, c.host() as host:
        run_id = await start(host, {**HELD, "approval": "auto"}, "/api/fixes")
        await host.finish(run_id)
        plan = await c.run((await c.run(run_id)).plan_run)
        # Whoever recorded it was overtaken by the end of the fix.
        await c.store.save_run(replace(plan, state=RunState.RUNNING, finished=None, summary=None))
        assert await host.tick(name="watchdog")
        assert (await c.run(plan.id)).state.final


# The schedule


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-07-01T{text}+00:00")


async def watched(c: Cloud, host: Host, now: datetime) -> watchdog.Seen:
    """One look of the watchdog at this time."""
    assert host.worker is not None
    module = host.worker.module
    return await watchdog.watch(await module.connections.services(), module._Durable(host.client), now)


async def test_a_scheduled_run_that_could_not_start_is_tried_again(
    cloud: CloudFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with cloud(SMALL) as c, c.host() as host:
        assert (await watched(c, host, at("01:59:30"))).started == ""
        assert (await watched(c, host, at("02:03:30"))).started == "", "it may be about to start"
        seen = await watched(c, host, at("02:06:30"))
        assert seen.started
        assert (await c.run(seen.started)).by is Starter.TIMER
        assert events(caplog, "overdue") == []


async def test_a_scheduled_run_that_is_overdue_is_said_each_quarter_of_an_hour(
    cloud: CloudFactory, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any, **__: Any) -> Any:
        raise starting.CrowdedError("others are starting")

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(starting, "start", refuse)
    async with cloud(SMALL) as c, c.host() as host:
        for time in ("01:45:30", "02:10:30", "02:15:30"):
            assert not (await watched(c, host, at(time))).overdue
        for minute in range(21, 30):
            assert (await watched(c, host, at(f"02:{minute}:30"))).overdue
        assert events(caplog, "overdue") == []
        for time in ("02:30:30", "02:31:30", "02:45:30", "09:00:30"):
            assert (await watched(c, host, at(time))).overdue
        assert [told["due"] for told in events(caplog, "overdue")] == ["2026-07-01T02:00:00+00:00"] * 3


# What lasts, and what refuses


async def ticked(c: Cloud, host: Host, now: datetime) -> None:
    """The watchdog's whole minute at this time."""
    assert host.worker is not None
    module = host.worker.module
    await watchdog.tick(module.connections.services, module._Durable(host.client), now)


async def test_its_heart_beats_each_quarter_of_an_hour(cloud: CloudFactory, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with cloud(SMALL.replace("0.2, 0.2", "3, 3")) as c, c.host() as host:
        await ticked(c, host, at("00:00:30"))
        run_id = await start(host)
        for minute in range(1, 31):
            await ticked(c, host, at(f"00:{minute:02}:30"))
        assert [told["going"] for told in events(caplog, "heartbeat")] == [0, 1, 1]
        await host.finish(run_id)


async def test_a_fix_that_waits_is_said_for_as_long_as_it_waits(
    cloud: CloudFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with cloud(FAILING, **ALLOWED) as c, c.host() as host:
        run_id = await start(host, HELD, "/api/fixes")
        shown = await awaiting(host, run_id)
        for time in ("03:00:30", "03:01:30", "03:15:30"):
            await ticked(c, host, at(time))
        told = events(caplog, "approval")
        assert [item["run"] for item in told] == [run_id] * 3, "when it began to wait, and twice since"
        assert {item["digest"] for item in told} == {shown["approval"]["digest"]}
        await host.http("POST", shown["links"]["approve"], {"digest": shown["approval"]["digest"]})
        await host.finish(run_id)
        await ticked(c, host, at("03:30:30"))
        assert len(events(caplog, "approval")) == 3


async def test_a_run_that_takes_too_long_is_said_until_it_ends(
    cloud: CloudFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with cloud(SMALL.replace("0.2, 0.2", "3, 3")) as c, c.host() as host:
        run_id = await start(host)
        await c.accepted(run_id, 2)
        now = datetime.now(UTC).replace(minute=0, second=30)
        await ticked(c, host, now)
        assert events(caplog, "late") == [], "it is well in its time"
        for minutes in (120, 121, 135):
            await ticked(c, host, now + timedelta(minutes=minutes))
        told = events(caplog, "late")
        assert [(item["run"], item["run_kind"], item["found"]) for item in told] == [(run_id, "audit", 2)] * 2
        await host.finish(run_id)
        await ticked(c, host, now + timedelta(minutes=150))
        assert len(events(caplog, "late")) == 2


async def test_a_hold_is_said_while_it_is_on(cloud: CloudFactory, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with cloud(SMALL) as c, c.host() as host:
        await ticked(c, host, at("03:00:30"))
        assert (await host.http("POST", "/api/hold", {"reason": "a freeze"})).status == 200
        for time in ("03:10:30", "03:15:30", "03:30:30"):
            await ticked(c, host, at(time))
        told = events(caplog, "hold")
        assert [(item["holder"], item["reason"]) for item in told] == [("the API", "a freeze")] * 2
        await host.http("DELETE", "/api/hold")
        await ticked(c, host, at("03:45:30"))
        assert len(events(caplog, "hold")) == 2


async def test_a_store_that_is_away_is_said_without_it(
    cloud: CloudFactory, azurite: Azurite, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every minute, whatever goes; and there is no heartbeat."""
    caplog.set_level(logging.INFO)
    monkeypatch.setitem(tables._TIMEOUTS, "retry_backoff_factor", 0.01)
    async with faulty_proxy(azurite.table) as proxy:
        account = azurite.account().replace(azurite.table, proxy.address)
        async with cloud(SMALL, AzureWebJobsStorage=account) as c, c.host() as host:
            await ticked(c, host, at("03:00:30"))
            await proxy.gone()
            for time in ("03:01:30", "03:15:30"):
                with pytest.raises(StoreError):
                    await ticked(c, host, at(time))
            await proxy.there()
            await ticked(c, host, at("03:30:30"))
    told = events(caplog, "refusal")
    assert [(item["run"], item["side"]) for item in told] == [("", "store")] * 2
    assert all(item["reason"] for item in told)
    assert len(events(caplog, "heartbeat")) == 2


async def test_an_azure_that_is_away_is_said_with_the_run_that_met_it(
    cloud: CloudFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with cloud(SMALL, GUARD_ARM_ENDPOINT="https://127.0.0.1:9") as c, c.host() as host:
        run_id = await start(host)

        async def told() -> bool:
            return bool(events(caplog, "refusal"))

        await c.until(told)
    assert {(item["run"], item["side"]) for item in events(caplog, "refusal")} == {(run_id, "azure")}


async def test_what_idle_ticks_cost(cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two queries every minute; every quarter of an hour a look at the schedule besides."""
    async with cloud(SMALL) as c, c.host() as host:
        run_id = await start(host)
        await host.finish(run_id)
        assert host.worker is not None
        services = await host.worker.module.connections.services()
        with counted() as calls:
            assert await watchdog.idle(services, at("09:01:30"))
        assert sum(calls.values()) <= 2, calls
        await watched(c, host, at("09:15:30"))  # tidies up, once a day
        with counted() as calls:
            assert not await watchdog.idle(services, at("09:30:30"))
            await watched(c, host, at("09:30:30"))
        assert sum(calls.values()) <= 6, calls


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """How often the store asks its tables, by what it asks."""
    calls: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patched:
        for name in ("put", "insert", "replace", "get", "ranges", "delete", "query"):
            whole = getattr(TablesBackend, name)

            def count(self: Any, *args: Any, name: str = name, whole: Any = whole, **options: Any) -> Any:
                calls[name] += 1
                return whole(self, *args, **options)

            patched.setattr(TablesBackend, name, count)
        yield calls
