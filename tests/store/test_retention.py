"""What is kept, for how long, over both backends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from shared.models import RunState, Status
from shared.runs.model.history import SEEN_AGAIN
from shared.store import Purged, Store, new_run_id
from shared.store.backend import Backend, Row, Table, Where
from shared.store.retention import HISTORY_AT_LEAST
from tests.support.records import NOON, finding, history, node, node_key, run

DAY = timedelta(days=1)
KEEP, KEEP_WORK = 400 * DAY, 14 * DAY


async def _whole_run(store: Store, age: timedelta, state: RunState, findings: int = 3) -> str:
    """A run begun `age` before noon, with something in every table."""
    run_id = new_run_id(NOON - age)
    await store.save_run(run(run_id, started=NOON - age, state=state))
    await store.save_findings([finding(n, run_id=run_id) for n in range(findings)])
    await store.save_document(run_id, "plan", "x" * 400_000)
    await store.save_progress(run_id, "lane", {"done": 1})
    await store.backend.put(Table.COMMANDS, run_id, {"0.1.0's": Row("{}")})
    await store.put_work(run_id, "batch/1", "text", None)
    return run_id


async def _left(backend: Backend, run_id: str) -> set[Table]:
    tables = (Table.FINDINGS, Table.DOCUMENTS, Table.PROGRESS, Table.COMMANDS, Table.WORK)
    return {table for table in tables if (await backend.query(table, Where(run_id), 1)).rows}


async def test_a_run_goes_as_a_whole_and_its_work_before_it(store: Store, backend: Backend) -> None:
    ages = [DAY, 13 * DAY, 15 * DAY, 399 * DAY, 401 * DAY, 900 * DAY]
    ended = [await _whole_run(store, age, RunState.COMPLETED) for age in ages]
    going = [
        await _whole_run(store, 500 * DAY, RunState.RUNNING),
        await _whole_run(store, 402 * DAY, RunState.AWAITING_APPROVAL),
        await _whole_run(store, 20 * DAY, RunState.RUNNING),
    ]
    purged = await store.purge(KEEP, KEEP_WORK, NOON)
    assert purged == Purged(
        {"runs": 2, "findings": 6, "documents": 8, "work": 4, "commands": 4, "progress": 4}, more=False
    )
    everything = {Table.FINDINGS, Table.DOCUMENTS, Table.PROGRESS, Table.COMMANDS, Table.WORK}
    expected = [everything, everything, *[{Table.FINDINGS, Table.DOCUMENTS}] * 2, set(), set()]
    assert [await _left(backend, run_id) for run_id in ended] == expected
    assert [await _left(backend, run_id) for run_id in going] == [everything] * 3
    assert {each.id for each in (await store.runs(100)).runs} == {*ended[:4], *going}
    assert await store.purge(KEEP, KEEP_WORK, NOON) == Purged({}, more=False)


async def test_a_call_does_a_bounded_part_and_the_next_goes_on(
    store: Store, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.store.retention.PURGE_ROWS", 1000)
    old = await _whole_run(store, 500 * DAY, RunState.COMPLETED, findings=2500)
    calls: list[Purged] = []
    while not calls or calls[-1].more:
        calls.append(await store.purge(KEEP, KEEP_WORK, NOON))
    assert all(sum(call.rows.values()) <= 1000 for call in calls)
    assert sum(call.rows["findings"] for call in calls if "findings" in call.rows) == 2500
    assert len(calls) == 3
    assert await _left(backend, old) == set()


async def test_history_keeps_what_is_so_now_while_the_node_is_seen(store: Store) -> None:
    old, late = NOON - 500 * DAY, NOON - 10 * DAY
    await store.save_history([history(n, seen=old, since=old) for n in range(3)])
    await store.save_history([history(0, seen=late, since=old), history(1, status=Status.FAIL, seen=late, since=late)])
    purged = await store.purge(KEEP, KEEP_WORK, NOON)
    assert purged.rows == {"history": 3 + 1}
    assert set(await store.history([node(n) for n in range(3)])) == {(node_key(0), "3.2.6"), (node_key(1), "3.2.6")}
    assert await store.changes(node(0).key) == ()
    assert [entry.status for entry in await store.changes(node(1).key)] == [Status.FAIL]


async def test_history_outlives_the_time_in_which_it_is_not_written_again(store: Store) -> None:
    assert HISTORY_AT_LEAST >= 2 * SEEN_AGAIN
    await store.save_history([history(0, seen=NOON - SEEN_AGAIN, since=NOON - SEEN_AGAIN)])
    assert (await store.purge(DAY, DAY, NOON)).rows == {}


async def test_old_claims_go(store: Store) -> None:
    await store.claim("cancel/run", "cancelled", 10_000_000)
    assert (await store.purge(KEEP, KEEP_WORK, NOON)).rows == {}
    # Claims are written with the real clock.
    assert (await store.purge(KEEP, KEEP_WORK, datetime.now(UTC) + 402 * DAY)).rows == {"claims": 1}
