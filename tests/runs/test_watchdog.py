"""The watchdog's schedule: what is due, what is tried again, and what is overdue."""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import telemetry
from shared.errors import SettingsError
from shared.models import Run, RunKind, RunState, RunSummary, Starter
from shared.runs.hosts import leases, starting, watchdog
from shared.runs.hosts.durable import Connections
from shared.runs.hosts.watchdog import Seen, last_due
from shared.runs.model import ENGINE
from shared.runs.model.messages import Ref
from shared.schedule import next_after
from shared.store import open_store
from tests import store as stored
from tests.runs.simulated.rig import Rig, rig

NIGHTLY = "0 0 2 * * *"


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-07-{text}+00:00")


@dataclass
class Orchestrations:
    """Of nobody: what was started is kept."""

    started: list[str] = field(default_factory=list)

    async def start(self, run_id: str, ref: Ref) -> None:
        self.started.append(run_id)

    async def wake(self, run_id: str) -> None:
        raise AssertionError(run_id)

    async def going(self, run_id: str) -> bool:
        return run_id in self.started

    async def end(self, run_id: str, why: str) -> None:
        """There is none to end."""

    async def forget(self, before: datetime) -> int:
        return 0


async def looks(world: Rig, *times: str) -> list[Seen]:
    """The watchdog's looks at these times, each as if nothing had come of the one before."""
    seen = []
    for time in times:
        seen.append(await watchdog.watch(world.services, Orchestrations(), at(time)))
    return seen


async def tried(world: Rig, started: datetime, state: RunState, nodes: int = 0, by: Starter = Starter.TIMER) -> None:
    """A run that ended, a scheduled one if nothing is said."""
    run_id = f"{started:%Y%m%dT%H%M%SZ}-abcdef"
    summary = RunSummary({}, {}, nodes, 0, 0.0)
    run = Run(run_id, RunKind.AUDIT, state, started, by=by, finished=started, summary=summary)
    await world.store.save_run(run)


@pytest.mark.parametrize(
    ("schedule", "now", "due"),
    [
        (NIGHTLY, "01T02:00:00", "01T02:00:00"),
        (NIGHTLY, "01T07:59:59", "01T02:00:00"),
        (NIGHTLY, "02T01:59:59", "01T02:00:00"),
        ("0 */15 * * * *", "01T09:44:59", "01T09:30:00"),
        ("* * * * * *", "01T09:44:59", "01T09:44:59"),
        ("0 30 2 * * MON", "06T03:00:00", "06T02:30:00"),
        ("0 30 2 * * MON", "13T02:29:59", "06T02:30:00"),
        ("0 0 0 29 2 *", "01T00:00:00", None),
    ],
)
def test_when_it_was_due_last(schedule: str, now: str, due: str | None) -> None:
    assert last_due(schedule, at(now)) == (at(due) if due else None)


@given(st.integers(0, 7 * 86_400), st.sampled_from([NIGHTLY, "0 */7 * * * *", "30 0 */3 * * *", "0 0 0 * * SUN"]))
def test_nothing_lies_between_the_last_due_and_now(seconds: int, schedule: str) -> None:
    now = at("01T00:00:00") + timedelta(seconds=seconds)
    due = last_due(schedule, now)
    assert due is not None
    assert due <= now < next_after(schedule, due)


async def test_a_first_deployment_some_hours_after_the_schedules_time_has_missed_nothing() -> None:
    world = rig(1, schedule=NIGHTLY)
    assert await looks(world, "01T05:00:00", "01T05:15:00", "01T07:45:00") == [Seen()] * 3


async def test_the_next_night_counts() -> None:
    world = rig(1, schedule=NIGHTLY)
    first, early, late = await looks(world, "01T05:00:00", "02T02:04:00", "02T02:06:00")
    assert (first, early) == (Seen(), Seen()), "it may be about to start"
    assert late.started
    assert not late.overdue
    run = await world.store.run(late.started)
    assert run is not None
    assert (run.by, run.state) == (Starter.TIMER, RunState.RUNNING)


async def test_another_schedule_has_missed_nothing_either() -> None:
    world = rig(1, schedule=NIGHTLY)
    await looks(world, "01T05:00:00")
    settings = world.services.settings.model_copy(update={"schedule": "0 0 4 * * *"})
    world.services = replace(world.services, settings=settings)
    assert await looks(world, "02T06:00:00") == [Seen()]
    (seen,) = await looks(world, "03T04:10:00")
    assert seen.started


@pytest.mark.parametrize(
    ("state", "nodes", "again"),
    [
        (RunState.FAILED, 0, True),
        (RunState.FAILED, 3, False),
        (RunState.COMPLETED, 0, False),
        (RunState.CANCELLED, 0, False),
    ],
)
async def test_only_one_that_failed_with_nothing_found_is_tried_again(state: RunState, nodes: int, again: bool) -> None:
    world = rig(1, schedule=NIGHTLY)
    await looks(world, "01T05:00:00")
    await tried(world, at("02T02:00:01"), state, nodes)
    (seen,) = await looks(world, "02T02:30:00")
    assert bool(seen.started) is again
    assert seen.overdue is again


async def test_it_is_given_up_after_some_tries() -> None:
    world = rig(1, schedule=NIGHTLY)
    await looks(world, "01T05:00:00")
    for number in range(6):
        await tried(world, at(f"02T02:0{number}:01"), RunState.FAILED)
    (seen,) = await looks(world, "02T03:00:00")
    assert (seen.started, seen.overdue) == ("", True)


async def test_a_weekly_one_is_overdue_until_the_next_is_due_and_tried_for_six_hours() -> None:
    world = rig(1, schedule="0 0 2 * * MON")
    await looks(world, "05T05:00:00")
    for number in range(6):
        await tried(world, at(f"06T02:0{number}:01"), RunState.FAILED)
    seen = await looks(world, "06T02:15:00", "06T02:30:00", "06T23:00:00", "10T12:00:00", "13T01:59:00", "13T02:04:00")
    assert [(look.started, look.overdue) for look in seen] == [
        ("", word) for word in (False, True, True, True, True, False)
    ]
    await tried(world, at("13T02:00:01"), RunState.COMPLETED, 3)
    assert await looks(world, "14T02:30:00", "19T02:30:00") == [Seen(), Seen()]


async def test_after_six_hours_it_is_not_tried_any_more() -> None:
    world = rig(1, schedule=NIGHTLY)
    await looks(world, "01T05:00:00")
    early, after = await looks(world, "02T08:00:01", "02T07:59:00")
    assert (early.started, early.overdue) == ("", True)
    assert after.started


async def test_one_that_goes_longer_than_the_schedules_gap_keeps_none_overdue() -> None:
    world = rig(1, schedule="0 0 * * * *")
    await looks(world, "01T05:00:00")
    run = Run(
        "20260702T020001Z-abcdef", RunKind.AUDIT, RunState.RUNNING, at("02T02:00:01"), by=Starter.TIMER, engine=ENGINE
    )
    await world.store.save_run(run)
    (seen,) = await looks(world, "02T03:30:00")
    assert not seen.overdue


async def test_bad_settings_are_said_and_raised(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    connections = Connections(rig(1).services.settings, SettingsError("GUARD_MODE='x': must be audit, plan or fix"))
    with pytest.raises(SettingsError):
        await watchdog.tick(connections.services, Orchestrations(), at("01T05:00:30"))
    (line,) = (json.loads(item.getMessage()) for item in caplog.records if item.name == telemetry.log.name)
    assert (line["event"], line["side"], line["run"]) == ("refusal", "settings", "")
    assert "GUARD_MODE" in line["reason"]


@pytest.mark.parametrize(
    ("minutes", "after", "is_late"),
    [
        (60, 29, False),
        (60, 30, False),
        (60, 31, True),
        (10, 14, False),
        (10, 16, True),
        (600, 120, False),
        (600, 121, True),
    ],
)
def test_when_a_run_is_late(minutes: int, after: int, is_late: bool) -> None:
    started, expected = at("01T02:00:00"), at("01T02:00:00") + timedelta(minutes=minutes)
    assert watchdog.late(started, expected, expected + timedelta(minutes=after)) is is_late


async def test_the_scheduled_run_is_found_behind_however_many_others() -> None:
    world = rig(1, schedule=NIGHTLY)
    await looks(world, "01T05:00:00")
    await tried(world, at("02T02:00:01"), RunState.COMPLETED, 3)
    for number in range(120):
        await tried(world, at("02T02:10:00") + timedelta(minutes=number), RunState.COMPLETED, by=Starter.HTTP)
    assert await looks(world, "02T05:00:00") == [Seen()]


# Runs of terminals, and of the first version


@pytest.mark.parametrize("kind", RunKind)
async def test_a_run_whose_terminal_is_gone_is_ended_once_it_had_time_to_come_back(kind: RunKind) -> None:
    world = rig(1)
    run = Run("20260701T020000Z-abcdef", kind, RunState.RUNNING, at("01T02:00:00"), engine=ENGINE)
    await world.store.save_run(run)
    seen = await looks(world, "02T03:00:30", "02T03:02:30", "02T03:04:30", "02T03:05:30")
    assert [each.ended for each in seen] == [(), (), (run.id,), ()]
    ended = await world.run(run.id)
    assert (ended.state, ended.error) == (RunState.FAILED, "its terminal went away before it was over")
    assert await watchdog.idle(world.services, at("02T03:06:30"))


async def test_a_terminal_that_renews_its_lease_after_an_outage_goes_on() -> None:
    world = rig(1)
    run = Run("20260701T020000Z-abcdef", RunKind.FIX, RunState.RUNNING, at("01T02:00:00"), engine=ENGINE)
    await world.store.save_run(run)
    assert await looks(world, "01T03:00:30") == [Seen(going=1)]
    assert await world.store.claim(leases.name(run.id), "the terminal", 180)
    assert await looks(world, "01T03:04:30") == [Seen(going=1)]
    assert await world.run(run.id) == run


async def test_what_the_first_version_left_waiting_for_an_approval_is_ended_in_words(tmp_path: Path) -> None:
    path = tmp_path / "guard.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(stored.__file__).parent / "data/0.1.0.sql").read_text(encoding="utf-8"))
    async with open_store(str(path)) as store:
        (waiting,) = await starting.going(store)
        services = replace(rig(1).services, store=store)
        assert (await watchdog.watch(services, Orchestrations(), at("01T03:00:30"))).ended == (waiting.id,)
        ended = await store.run(waiting.id)
    assert ended is not None
    assert (ended.state, ended.by) == (RunState.FAILED, Starter.HTTP)
    assert ended.error == "the app was updated while this run was going: start it again"


async def test_what_is_old_goes_at_once_however_much_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.store.retention.PURGE_ROWS", 10)
    world = rig(1, schedule=NIGHTLY)
    await tried(world, at("01T02:00:00") - timedelta(days=500), RunState.COMPLETED)
    (old,) = (await world.store.runs()).runs
    for number in range(35):
        await world.store.save_progress(old.id, f"part/{number}", {})
    await looks(world, "01T05:00:00")
    assert await world.store.progress(old.id) == {}
    assert (await world.store.runs()).runs == ()
