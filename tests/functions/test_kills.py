"""Workers and hosts killed at every turn: no finding is lost, every run ends, no node is worked on twice at once.

A worker that dies is not redelivered to, as in the real host (FACTS, section 9); a watchdog ticks now and then. A kill is
tried at a point of a call: before its first line, each time it is suspended, and when it is done and its result is not
kept yet. The sweeps over all points are slow; a sample of each runs with the other tests.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from shared.models import Outcome, RunState, Status
from tests.support.bench import one_pool
from tests.support.cloud import ALLOWED, Cloud, CloudFactory, ask_until_started
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
    assert (run.summary.nodes, run.summary.statuses) == (2, {Status.PASS: 1, Status.FAIL: 1})
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
    """A run for each point of this part, killed there: it comes to the same all the same."""
    fleet, settings = FLEETS[see]
    async with cloud(fleet, **settings) as c:
        found = await points(c, see)
        account = c.account
    random.Random(0).shuffle(found)
    for when in found[part::parts]:
        async with cloud(fleet, **settings, AzureWebJobsStorage=account) as c:
            try:
                await see(c, once(kill, when))
            except BaseException:
                print("killed", when)
                raise


FLEETS: dict[See, tuple[str, dict[str, str]]] = {
    audited: (one_pool("compliant_default", "false_file").replace("0.2, 0.2", "0.05, 0.05"), {}),
    # Few looks: most commands have ended when they are looked at first.
    fixed: (one_pool("false_file", "false_flag"), {**ALLOWED, "GUARD_COMMAND_SECONDS": "2"}),
}


@pytest.mark.parametrize("kill", [worker, whole_host])
@pytest.mark.parametrize("see", [audited, fixed])
async def test_killed_somewhere(see: See, kill: Kill, cloud: CloudFactory) -> None:
    await sweep(cloud, see, kill, 0, 120 if see is audited else 400)


PARTS = 16


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kill", [worker, whole_host])
async def test_an_audit_killed_everywhere(kill: Kill, part: int, cloud: CloudFactory) -> None:
    await sweep(cloud, audited, kill, part, PARTS)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kill", [worker, whole_host])
async def test_a_fix_killed_at_many_points(kill: Kill, part: int, cloud: CloudFactory) -> None:
    """At each eighth point: a fix takes its time."""
    await sweep(cloud, fixed, kill, part, 8 * PARTS)
