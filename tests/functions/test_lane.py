"""A lane of many batches: short histories, nobody held back, more in flight than there are slots."""

from __future__ import annotations

import importlib
import json
from collections import Counter

import pytest

from shared.models import RunState, Status
from shared.runs.model import ENGINE
from shared.runs.orchestrators import hand
from shared.runs.steps import discovering
from tests.support.bench import one_pool
from tests.support.cloud import CloudFactory, start

# The package gives the function by this name.
LANE = importlib.import_module("shared.runs.orchestrators.lane")


async def test_a_long_lane_goes_on_with_a_new_history(cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many batches there are, what is replayed is no longer than one stretch, and nothing gets lost between."""
    monkeypatch.setattr(discovering, "BATCH", 1)
    monkeypatch.setattr(hand, "STRETCH", 6)
    for name, value in (("WINDOW", 2), ("_TOGETHER", 1)):
        monkeypatch.setattr(LANE, name, value)
    nodes = 12
    async with cloud(one_pool(*["compliant_default"] * nodes)) as c, c.host() as host:
        run_id = await start(host)
        await host.finish(run_id, 120)
        run = await c.run(run_id)
        assert run.summary is not None
        assert (run.state, run.summary.statuses) == (RunState.COMPLETED, {Status.PASS: nodes * 13})
        assert set(c.box.stats()["commands"].values()) == {1}
        (lane,) = [item for item in c.hub.instances.values() if item.name == f"lane_{ENGINE}"]
        calls = host.calls["activityTrigger", "advance"]
        assert lane.anew >= calls // (6 + 2) >= 3, (lane.anew, calls)
        assert lane.peak < (6 + 2) * 2_000 < calls * 1_000, (lane.peak, calls)
        assert len(lane.input) < 8_000


async def test_slow_nodes_hold_nobody_back(cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of each batch does not answer: all others have their findings long before it does, or its deadline."""
    monkeypatch.setattr(discovering, "BATCH", 4)
    states = ["hang", "compliant_default", "compliant_default", "compliant_default"] * 5
    async with cloud(one_pool(*states), GUARD_COMMAND_DEADLINE_SECONDS="600") as c, c.host(slots=2) as host:
        run_id = await start(host)

        async def others_are_done() -> bool:
            batches = (await c.batches(run_id)).values()
            return len(batches) == 5 and all(len(batch.nodes) == 1 for batch in batches)

        await c.until(others_are_done, 300)
        assert not c.hub.instances[run_id].over
        assert Counter(item.status for item in await c.findings(run_id)) == {Status.PASS: 15}


async def test_more_nodes_are_in_flight_than_activities_fit(
    cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No activity waits for a command: one slot keeps all nodes going, and is free meanwhile."""
    monkeypatch.setattr(discovering, "BATCH", 2)
    fleet = one_pool(*["compliant_default"] * 12).replace("0.2, 0.2", "600, 600")
    async with cloud(fleet) as c, c.host(slots=1) as host:
        run_id = await start(host)
        await c.accepted(run_id, 12)
        assert c.box.stats()["most_commands_at_once"] == 12
        await host.until(lambda: host.room() == 1)
        assert not c.hub.instances[run_id].over


async def test_what_a_call_leaves_in_a_history(cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No message grows with the nodes: they are in the store."""
    monkeypatch.setattr(discovering, "BATCH", 6)
    async with cloud(one_pool(*["compliant_default"] * 24)) as c, c.host() as host:
        run_id = await start(host)
        await host.finish(run_id)
        for instance in c.hub.instances.values():
            largest = max(len(json.dumps(item)) for item in instance.history)
            assert largest < 2_000, (instance.name, largest)
