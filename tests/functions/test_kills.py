"""Workers and hosts killed at every turn: no finding is lost, every run ends, no node is worked on twice at once.

What a worker had in hand when it died is not delivered again, as in the real host (FACTS, section 9); a watchdog ticks
now and then. A kill is tried at a point of a call: before its first line, each time it is suspended, and when it is
done and its result is not kept yet. The sweeps over all points are slow; a sample of each runs with the other tests.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from shared.models import Outcome, RunState, Status
from shared.runs.hosts import leases, watchdog
from shared.runs.model import ENGINE
from shared.runs.steps import discovering
from tests.support.bench import one_pool
from tests.support.cloud import ALLOWED, Cloud, CloudFactory, ask_until_started, awaiting, start
from tests.support.host import END, Host, Point, in_activity, in_episode, in_http, in_timer

pytestmark = pytest.mark.usefixtures("hurried")

AUTO: dict[str, Any] = {"approval": "auto", "pause_seconds": 0}
BARE = {"gap": 0.0, "visibility": 0.2}

Kill = Callable[[Host, Point], None]
See = Callable[..., Awaitable[Host]]


def worker(host: Host, when: Point) -> None:
    """Kill the worker then."""
    host.kill_worker(when)


def whole_host(host: Host, when: Point) -> None:
    """Kill the host then."""
    host.kill(when)


@dataclass
class Tally:
    """What sweeps came to: for the note that closes the work."""

    kills: int = 0
    lost: int = 0
    twice: int = 0
    runs: Counter[RunState] = field(default_factory=Counter)

    def __str__(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in self.runs.items())
        return f"{self.kills} kills, {self.lost} findings lost, {self.twice} commands sent once more; runs: {states}"


TALLY = Tally()


@pytest.fixture(autouse=True)
def told(request: pytest.FixtureRequest) -> Iterator[None]:
    """Say after each test what its kills came to (pytest -s, or the test's report)."""
    TALLY.__init__()  # type: ignore[misc]
    yield
    print(f"{request.node.name}: {TALLY}")


async def audited(c: Cloud, arm: Callable[[Host, int], None], **options: Any) -> Host:
    """An audit of two nodes is seen to its end, and comes to what it always comes to."""
    sent = Counter(c.box.stats()["commands"])
    hosts: list[Host] = []

    def armed(host: Host, life: int) -> None:
        hosts.append(host)
        arm(host, life)

    run_id = await c.see_to_its_end(ask_until_started, armed, **(BARE | options))
    run, findings = await c.run(run_id), await c.findings(run_id)
    lost = 2 - sum(finding.status in (Status.PASS, Status.FAIL) for finding in findings)
    again = Counter(c.box.stats()["commands"]) - sent
    count(hosts, lost, sum(again.values()) - 2, run.state)
    assert run.state is RunState.COMPLETED, run.error
    assert [finding.status for finding in findings] == [Status.PASS, Status.FAIL], [f.reason for f in findings]
    assert run.summary is not None
    assert (run.summary.nodes, run.summary.statuses) == (2, {Status.PASS: 25, Status.FAIL: 1})
    assert max(again.values()) <= 2, "once more where the sender died, and never again"
    return hosts[0]


def count(hosts: list[Host], lost: int, twice: int, state: RunState) -> None:
    """Add a run to the tally."""
    TALLY.kills += sum(host.struck for host in hosts)
    TALLY.lost += lost
    TALLY.twice += twice
    TALLY.runs[state] += 1


async def fixed(c: Cloud, arm: Callable[[Host, int], None], **options: Any) -> Host:
    """A fix of two nodes is seen to its end: both nodes are right, and never was one begun beside the other."""
    sent = Counter(c.box.stats()["commands"])
    hosts: list[Host] = []

    def armed(host: Host, life: int) -> None:
        hosts.append(host)
        arm(host, life)

    begin = partial(ask_until_started, body=AUTO, path="/api/fixes")
    run_id = await c.see_to_its_end(begin, armed, **(BARE | options))
    run, findings = await c.run(run_id), await c.findings(run_id)
    lost = 2 - sum(finding.outcome in (Outcome.FIXED, Outcome.ALREADY_RIGHT) for finding in findings)
    again = Counter(c.box.stats()["commands"]) - sent
    count(hosts, lost, sum(again.values()) - 4, run.state)
    assert run.state is RunState.COMPLETED, run.error
    assert Counter(finding.outcome for finding in findings) == {Outcome.FIXED: 2}, [f.reason for f in findings]
    assert run.summary is not None
    assert (run.summary.nodes, run.summary.outcomes) == (2, {Outcome.FIXED: 2})
    planned = (await c.run(run.plan_run)).finished
    assert planned is not None
    assert c.together(planned) == 0, "waves of a pool come one after another"
    return hosts[0]


async def points(c: Cloud, see: See) -> list[Point]:
    """Every point at which a call may be killed in a run that nothing befalls."""
    host = await see(c, lambda host, life: None)
    make = {
        "activityTrigger": in_activity,
        "orchestrationTrigger": in_episode,
        "timerTrigger": in_timer,
        "httpTrigger": in_http,
    }
    return [
        make[kind](name, number + 1, at)
        for (kind, name), calls in sorted(host.calls.items())
        if name and name != "get_run"
        for number in range(1 if kind == "timerTrigger" else calls)
        for at in [*range(host.suspensions[kind, name] + 1), END]
    ]


def once(kill: Kill, when: Point) -> Callable[[Host, int], None]:
    """Kill at that point of the first host's life."""

    def arm(host: Host, life: int) -> None:
        if life == 0:
            kill(host, when)

    return arm


async def sweep(cloud: CloudFactory, see: See, kill: Kill, part: int, parts: int) -> None:
    """A run for each point of this part, killed there: it comes to the same all the same.

    Runs differ a little: a call that the first run made may not come in another, and then nobody dies. Most must."""
    fleet, settings = FLEETS[see]
    before = TALLY.kills
    async with cloud(fleet, **settings) as c:
        found = await points(c, see)
        account = c.account
    random.Random(0).shuffle(found)
    tried = found[part::parts]
    for when in tried:
        async with cloud(fleet, **settings, AzureWebJobsStorage=account) as c:
            try:
                await see(c, once(kill, when))
            except BaseException:
                print("killed", when)
                raise
    assert tried
    assert 2 * (TALLY.kills - before) >= len(tried), f"{TALLY.kills - before} of {len(tried)} points were reached"


FLEETS: dict[See, tuple[str, dict[str, str]]] = {
    audited: (one_pool("compliant_default", "false_file").replace("0.2, 0.2", "0.05, 0.05"), {}),
    # Few looks: most commands have ended when they are looked at first.
    fixed: (one_pool("false_file", "false_flag"), {**ALLOWED, "GUARD_COMMAND_SECONDS": "2"}),
}


@pytest.mark.parametrize("kill", [worker, whole_host])
async def test_an_audit_killed_somewhere(kill: Kill, cloud: CloudFactory) -> None:
    await sweep(cloud, audited, kill, 0, 200)


# All points take hours; `make test-kills` asks for them, in parts. Otherwise a part of them, and less of a fix.
_ALL = os.environ.get("KILLS") == "all"
PARTS = 16 if _ALL else 40
_PARTS = range(PARTS) if _ALL else range(1)


@pytest.mark.slow
@pytest.mark.parametrize("part", _PARTS)
@pytest.mark.parametrize("kill", [worker, whole_host])
async def test_an_audit_killed_everywhere(kill: Kill, part: int, cloud: CloudFactory) -> None:
    await sweep(cloud, audited, kill, part, PARTS)


@pytest.mark.slow
@pytest.mark.parametrize("part", _PARTS)
@pytest.mark.parametrize("kill", [worker, whole_host])
async def test_a_fix_killed_at_many_points(kill: Kill, part: int, cloud: CloudFactory) -> None:
    """At each eighth point: a fix takes its time."""
    await sweep(cloud, fixed, kill, part, (8 if _ALL else 20) * PARTS)


@pytest.mark.parametrize("see", [audited, pytest.param(fixed, marks=pytest.mark.slow)])
async def test_killed_and_called_in_the_gap(see: See, cloud: CloudFactory) -> None:
    """The activity comes back as failed when there is no worker: its orchestrator and those above fail for good."""
    fleet, settings = FLEETS[see]
    async with cloud(fleet, **settings) as c:
        name, number = ("advance", 2) if see is audited else ("open_wave", 1)
        await see(c, once(worker, in_activity(name, number, at=3)), gap=1.0)
        assert TALLY.kills == 1
        run = next(item for item in c.hub.instances.values() if item.parent is None)
        assert json.loads(run.input)["epoch"] == 1, "begun again from outside"


@pytest.mark.parametrize("see", [audited, pytest.param(fixed, marks=pytest.mark.slow)])
async def test_the_third_death_ends_the_host_and_the_next_goes_on(see: See, cloud: CloudFactory) -> None:
    fleet, settings = FLEETS[see]
    lives = []

    def arm(host: Host, life: int) -> None:
        lives.append(host)
        if life == 0:
            for name in ("open_lane", "find_nodes", "advance"):
                host.kill_worker(in_activity(name, at=2))

    async with cloud(fleet, **settings) as c:
        await see(c, arm)
        assert [len(host.deaths) for host in lives] == [3, 0]


async def test_two_hosts_one_of_which_dies(cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the dead one had in hand is delivered to the other, after what the dead one may have done with it."""
    monkeypatch.setattr(discovering, "BATCH", 1)
    fleet, _ = FLEETS[audited]
    for at in (0, 9, END):
        async with cloud(fleet) as c, c.host(slots=1) as other:
            await audited(c, once(whole_host, in_activity(at=at)), visibility=0.3)
            assert not other.dead.is_set()
    assert TALLY.kills == 3


# A run in one hand, and many deaths


async def stormy(cloud: CloudFactory, seed: int, see: See, deaths: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers and hosts die one after another, each a random while after it began."""
    monkeypatch.setattr(discovering, "BATCH", 1)
    monkeypatch.setattr(watchdog, "BEGINNINGS", 1_000)
    chance = random.Random(seed)
    left = deaths

    def arm(host: Host, life: int) -> None:
        nonlocal left
        for _ in range(min(left, chance.randint(1, 3))):
            left -= 1
            when = in_activity(number=chance.randint(1, 6), at=chance.choice([0, 1, 5, 10, 20, 30, 40, END]))
            if chance.random() < 0.3:
                when = in_episode(number=chance.randint(1, 6), at=chance.choice([0, END]))
            chance.choice([worker, worker, whole_host])(host, when)

    fleet, settings = FLEETS[see]
    async with cloud(fleet, **settings) as c:
        await see(c, arm, gap=chance.choice([0.0, 0.3]), visibility=0.2, seconds=300)


@pytest.mark.parametrize("see", [audited, pytest.param(fixed, marks=pytest.mark.slow)])
async def test_a_storm_of_deaths(see: See, cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    await stormy(cloud, 1, see, 6, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 22) if _ALL else range(2, 4))
@pytest.mark.parametrize("see", [audited, pytest.param(fixed, marks=pytest.mark.slow)])
async def test_storms_of_deaths(see: See, seed: int, cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    await stormy(cloud, seed, see, 20, monkeypatch)


# Terminated


async def terminate(host: Host, run_id: str) -> None:
    """As an operator does, by hand."""
    await host.client.terminate(run_id, "somebody thought that would stop it")
    await host.finish(run_id)


async def test_a_second_fix_is_refused_while_anything_of_the_first_lives(
    cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its instance is terminated: its waves go on, and are seen to an end before another may touch the pool."""
    # Well above what a step takes on a machine that has much else to do.
    monkeypatch.setattr(leases, "LEASE_SECONDS", 15.0)
    async with cloud(one_pool("false_file", "false_flag"), **ALLOWED) as c, c.host() as host:
        first = await start(host, {"pause_seconds": 0}, "/api/fixes")
        shown = await awaiting(host, first)
        await host.http("POST", shown["links"]["approve"], {"digest": shown["approval"]["digest"]})
        await c.accepted(first, 1)
        since = datetime.now(UTC)
        await terminate(host, first)
        refused = 0
        while not (second := await ask_again(host)):
            refused += 1
            await asyncio.sleep(0.1)
        assert refused >= 1
        for batch in (await c.batches(first)).values():
            assert not batch.nodes, "nothing of the first is open"
        await host.finish(second)
        await host.until(lambda: not c.hub.going())
        assert (await c.run(first)).state.final
        last = await c.run(second)
        plan = await c.run(last.plan_run)
        assert plan.finished is not None
        assert c.together(since, last.started) == c.together(plan.finished) == 0
        for run in (await c.run(first), last):
            counted = Counter(item.outcome for item in await c.findings(run.id))
            assert run.summary is not None
            assert counted == Counter(run.summary.outcomes)


async def ask_again(host: Host) -> str:
    """Ask for a fix of the same pool; '' where it is refused."""
    answer = await host.http("POST", "/api/fixes", AUTO)
    assert answer.status in (202, 409), answer.body
    return str(answer.json()["id"]) if answer.status == 202 else ""


async def test_the_children_of_a_terminated_run_that_is_ended_end_by_themselves(cloud: CloudFactory) -> None:
    fleet = one_pool(*["compliant_default"] * 3).replace("0.2, 0.2", "4, 4")
    async with cloud(fleet) as c, c.host() as host:
        run_id = await start(host)
        await c.accepted(run_id, 3)
        await terminate(host, run_id)
        assert c.hub.going(f"lane_{ENGINE}"), "terminating leaves children alone"
        await c.until(lambda: _released(c, run_id))
        answer = await host.http("POST", f"/api/runs/{run_id}/cancel")
        assert answer.status in (202, 409)
        await host.tick(name="watchdog")
        await host.until(lambda: not c.hub.going())
        run = await c.run(run_id)
        assert run.state.final
        assert len(await c.findings(run_id)) == 3


async def _released(c: Cloud, run_id: str) -> bool:
    return await leases.holder(c.store, run_id) is None
