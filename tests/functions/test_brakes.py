"""The two brakes on fixes that nobody watches: how many nodes, and the switch that holds them."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.models import Outcome, RunState
from shared.store import Hold
from tests.support.bench import one_pool
from tests.support.cloud import ALLOWED, CloudFactory, awaiting, start

# The package gives the function by this name.
FIX = importlib.import_module("shared.runs.orchestrators.fix")
FAILING = one_pool("false_file", "false_flag", "compliant_default")
SCHEDULED = {**ALLOWED, "GUARD_MODE": "fix"}


async def scheduled_fix(host: Any) -> str:
    """Fire the schedule; the id of the fix."""
    assert await host.tick()
    (run,) = (await host.http("GET", "/api/runs?kind=fix")).json()["runs"]
    assert run["by"] == "timer"
    return str(run["id"])


def approvals(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    lines = [json.loads(item.getMessage()) for item in caplog.records if item.name == "kubelet_guard.events"]
    return [line for line in lines if line["event"] == "approval"]


async def test_a_scheduled_fix_of_many_nodes_waits_for_a_person(
    cloud: CloudFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with cloud(FAILING, **SCHEDULED, GUARD_FIX_MOST="1") as c, c.host() as host:
        run_id = await scheduled_fix(host)
        shown = await awaiting(host, run_id)
        assert shown["state"] == "awaiting_approval"
        assert shown["approval"]["why"] == "it would change 2 nodes, more than the 1 of GUARD_FIX_MOST"
        assert sum(c.box.stats()["commands"].values()) == 3, "looked at, and nothing else"
        (told,) = approvals(caplog)
        assert (told["run"], told["digest"]) == (run_id, shown["approval"]["digest"])
        await host.http("POST", shown["links"]["approve"], {"digest": shown["approval"]["digest"]})
        await host.finish(run_id)
        assert Counter(item.outcome for item in await c.findings(run_id)) == {Outcome.FIXED: 2}


async def test_a_scheduled_fix_of_few_nodes_does_not(cloud: CloudFactory, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with cloud(FAILING, **SCHEDULED, GUARD_FIX_MOST="2") as c, c.host() as host:
        run_id = await scheduled_fix(host)
        await host.finish(run_id)
        assert Counter(item.outcome for item in await c.findings(run_id)) == {Outcome.FIXED: 2}
        assert approvals(caplog) == []


async def test_a_rule_that_newly_fails_a_large_part_of_a_fleet_waits(cloud: CloudFactory) -> None:
    """Right yesterday, wrong today, and nobody knows why."""
    async with cloud(one_pool("compliant_default", "compliant_default"), **SCHEDULED) as c, c.host() as host:
        audit = await start(host)
        await host.finish(audit)
        name = sorted(c.box.stats()["commands"])[0]
        default = c.box.node_dir(name) / "etc/default/kubelet"
        assert "KUBELET_FLAGS=" in default.read_text()
        default.write_text(
            default.read_text().replace("KUBELET_FLAGS=", "KUBELET_FLAGS=--make-iptables-util-chains=false ")
        )
        # Starts are known to a hundredth of a second: one in the same as the change would prove nothing.
        await asyncio.sleep(0.1)
        await c.box.compute.runner.run(c.box.folders[name], ["#!/bin/sh", "systemctl restart kubelet"])
        run_id = await scheduled_fix(host)
        shown = await awaiting(host, run_id)
        assert shown["state"] == "awaiting_approval", shown
        assert shown["approval"]["why"].startswith("1 of 2 nodes newly fail, more than the 5% of GUARD_FIX_NEW_PERCENT")
        await host.http("POST", shown["links"]["cancel"])
        await host.finish(run_id)


async def hold(c: Any) -> None:
    await c.store.set_hold(Hold("somebody", datetime.now(UTC), "the new rule looks wrong"))


async def test_a_hold_stops_every_start(cloud: CloudFactory) -> None:
    async with cloud(FAILING, **SCHEDULED) as c, c.host() as host:
        await hold(c)
        answer = await host.http("POST", "/api/fixes", {"approval": "auto"})
        assert (answer.status, answer.json()["type"]) == (409, "urn:kubelet-guard:problem:held")
        assert "somebody: the new rule looks wrong" in answer.json()["detail"]
        assert await host.tick(), "the schedule says so in the log, and is no failed function"
        assert (await host.http("GET", "/api/runs?kind=fix")).json()["runs"] == []
        await host.finish(await start(host))  # audits go on
        await c.store.release_hold()
        assert (await host.http("POST", "/api/fixes", {"approval": "auto"})).status == 202


async def test_a_hold_stops_the_next_wave(cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in hand is finished; what comes next waits, and goes on where the hold is released."""
    monkeypatch.setattr(FIX, "_HELD", timedelta(seconds=0.5))
    async with cloud(FAILING, **ALLOWED) as c, c.host() as host:
        run_id = await start(host, {"pause_seconds": 0}, "/api/fixes")
        shown = await awaiting(host, run_id)
        await host.http("POST", shown["links"]["approve"], {"digest": shown["approval"]["digest"]})
        await c.accepted(run_id, 1)
        await hold(c)
        await host.until(lambda: host.activities.count("open_wave") >= 4)
        assert Counter(item.outcome for item in await c.findings(run_id)) == {Outcome.FIXED: 1}
        assert (await c.run(run_id)).state is RunState.RUNNING
        await c.store.release_hold()
        await host.finish(run_id)
        assert Counter(item.outcome for item in await c.findings(run_id)) == {Outcome.FIXED: 2}
        assert (await c.run(run_id)).state is RunState.COMPLETED


async def test_a_hold_that_is_not_released_ends_the_fix(cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FIX, "_HELD", timedelta(seconds=0.5))
    async with cloud(FAILING, **ALLOWED, GUARD_APPROVAL_HOURS="0.001") as c, c.host() as host:
        run_id = await start(host, {"pause_seconds": 0, "approval": "auto"}, "/api/fixes")
        await hold(c)
        await host.finish(run_id)
        assert Counter(item.outcome for item in await c.findings(run_id)) == {Outcome.NOT_TRIED: 2}
        assert {item.reason for item in await c.findings(run_id)} >= {"not fixed: fixes were held for too long"}
