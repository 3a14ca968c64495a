"""Runs that ask clusters too, in the app: over HTTP, driven by Durable Functions."""

from __future__ import annotations

import shutil

import pytest

from shared.models import RunState, Status
from tests.support.bench import one_pool
from tests.support.cloud import ALLOWED, CloudFactory, start
from tests.support.require import require

FLEET = one_pool("compliant_file", "false_file", "false_flag")


@pytest.fixture(autouse=True)
def _jq() -> None:
    """AKS's command invoke has it."""
    require(shutil.which("jq") is not None, "jq is not installed")


async def test_an_audit_by_configz_sends_no_node_a_command(cloud: CloudFactory) -> None:
    async with cloud(FLEET) as c, c.host() as host:
        run_id = await start(host, {"witness": "configz", "controls": ["3.2.6"]})
        await host.finish(run_id, 120)
        run = await c.run(run_id)
        assert run.summary is not None
        assert (run.state, run.summary.statuses) == (RunState.COMPLETED, {Status.PASS: 1, Status.FAIL: 2})
        assert not c.box.stats()["commands"]
        assert sum(c.box.stats()["invoked"].values()) == 1
        refused = await host.http("POST", "/api/fixes", {"witness": "configz"})
        assert refused.status in (400, 403)


async def test_a_fix_asks_before_each_wave(cloud: CloudFactory) -> None:
    async with cloud(FLEET, **ALLOWED) as c, c.host() as host:
        body = {"witness": "both", "pause_seconds": 0, "approval": "auto"}
        run_id = await start(host, body, "/api/fixes")
        await host.finish(run_id, 240)
        run = await c.run(run_id)
        assert run.summary is not None
        assert (run.state, run.summary.statuses) == (RunState.COMPLETED, {Status.PASS: 2})
        # Once for the plan, before the first wave, and before the second.
        assert sum(c.box.stats()["invoked"].values()) == 3
