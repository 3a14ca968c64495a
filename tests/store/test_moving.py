"""A store that 0.1.0 wrote: `data/` has what its code (c08b9a4) really wrote, into a file and into Azurite."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from azure.data.tables.aio import TableServiceClient

from shared.errors import StoreError
from shared.models import Outcome, RunKind, RunState, RunSummary, Starter, Status
from shared.store import Counts, FindingQuery, Store, open_store
from shared.store.backend import SCHEMA, Backend, Row, Table, Where
from shared.store.codec import encode
from shared.store.moving import settle
from shared.store.store import META
from tests.support.azurite import Azurite
from tests.support.records import NOON, RUN, SUBSCRIPTION, finding, history, node, node_key, run

DATA = Path(__file__).parent / "data"
OTHER = "99999999-2222-3333-4444-555555555555"
FIXED = NOON - timedelta(days=30)
HISTORY = {
    (node_key(0), "3.2.6"): history(0, since=None),
    (node_key(1), "3.2.6"): history(
        1, status=Status.FAIL, last_fixed=FIXED, last_right=FIXED, proof="ab" * 32, since=None
    ),
    (node_key(12), "3.2.7"): history(12, control="3.2.7", last_rolled_back=FIXED, since=None),
    (node_key(0, OTHER), "3.2.6"): history(0, node_key=node_key(0, OTHER), since=None),
}
NODES = [node(0), node(1), node(12), node(0, subscription=OTHER)]


@pytest.fixture(params=["sqlite", "tables"])
def first(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store is that 0.1.0 wrote."""
    if request.param == "sqlite":
        with closing(sqlite3.connect(tmp_path / "guard.db")) as connection:
            connection.executescript((DATA / "0.1.0.sql").read_text(encoding="utf-8"))
        return str(tmp_path / "guard.db")
    started: Azurite = request.getfixturevalue("azurite")
    account = started.account()
    asyncio.run(_fill(account, json.loads((DATA / "0.1.0.tables.json").read_text(encoding="utf-8"))))
    return account


async def _fill(account: str, tables: Mapping[str, list[dict[str, str]]]) -> None:
    async with TableServiceClient.from_connection_string(account) as service:
        for name, entities in tables.items():
            table = await service.create_table(name)
            for entity in entities:
                await table.create_entity(entity)


async def test_a_store_of_the_first_version_is_read(first: str) -> None:
    summary = RunSummary({Status.PASS: 2, Status.FAIL: 1, Status.ERROR: 1}, {Outcome.FIXED: 1}, 3, 17, 2.5)
    everything = {"subscriptions": [], "clusters": [], "node_pools": [], "controls": [], "by": "timer"}
    ended = run(state=RunState.COMPLETED, finished=NOON + timedelta(minutes=3), request=everything, summary=summary)
    ended = replace(ended, by=Starter.TIMER)
    for _ in range(2):
        async with open_store(first) as store:
            assert await store.run(RUN) == ended
            assert await store.latest_audit() == ended
            (waiting,) = (await store.runs(kind=RunKind.FIX)).runs
            assert (waiting.state, waiting.request["plan_run"]) == (RunState.AWAITING_APPROVAL, RUN)
            assert waiting.by is Starter.HTTP
            found = sorted([each async for each in store.all_findings(FindingQuery(run_id=RUN))], key=lambda x: x.key)
            assert sorted([each.status for each in found]) == ["error", "fail", "pass", "pass"]
            fixed = finding(
                2, outcome=Outcome.FIXED, actual=("a", "b"), node_created=NOON, node_image_version="image 漢"
            )
            assert fixed in found
            assert await store.count(RUN) == Counts(summary.statuses, summary.outcomes, 3)
            assert await store.document(RUN, "plans/0") == "x" * 2000 + "漢"
            assert await store.progress(RUN) == {"lane": {"done": 3}}
            assert len((await store.backend.query(Table.COMMANDS, Where(RUN), 10)).rows) == 1, "for purge"
            assert await store.holder(f"cancel/{RUN}") == "cancelled"
            assert await store.history(NODES) == HISTORY


async def test_history_is_moved_over_once_and_none_is_left(first: str) -> None:
    async with open_store(first) as store:
        assert await _keys(store.backend) == await _keys(store.backend, "now.")
        later = history(0, status=Status.FAIL, seen=NOON + timedelta(days=1))
        await store.save_history([later])
    async with open_store(first) as store:
        assert await store.history([node(0)]) == {(node_key(0), "3.2.6"): later}


async def test_a_move_that_was_cut_is_made_again(first: str) -> None:
    async with open_store(first) as store:
        pass
    async with open_store(first) as store:
        # As if cut when one row had been written and was not deleted yet.
        await store.backend.delete(Table.CLAIMS, META, ["schema"])
        entry = history(77, since=None)
        await store.backend.put(Table.HISTORY, SUBSCRIPTION, {"ab" * 16 + ".3.2.6": Row(encode(entry))})
    async with open_store(first) as store:
        assert await store.history([*NODES, node(77)]) == {**HISTORY, (node_key(77), "3.2.6"): entry}
        assert await _keys(store.backend) == await _keys(store.backend, "now.")


async def test_many_that_open_at_once_move_it_once(first: str, caplog: pytest.LogCaptureFixture) -> None:
    async def opened() -> None:
        async with open_store(first) as store:
            assert await store.history(NODES) == HISTORY

    await asyncio.gather(*(opened() for _ in range(6)))
    assert len([each for each in caplog.messages if "was moved over to schema" in each]) == 1


async def test_a_newer_schema_is_refused_in_words(location: str) -> None:
    async with open_store(location) as store:
        await store.backend.put(Table.CLAIMS, META, {"schema": Row(json.dumps({"schema": SCHEMA + 1}))})
        with pytest.raises(
            StoreError, match=f"the store here has schema {SCHEMA + 1}, this version knows up to {SCHEMA}"
        ):
            await settle(store, "here")
    with pytest.raises(
        StoreError, match=f"has schema {SCHEMA + 1}, this version knows up to {SCHEMA}; update"
    ) as raised:
        async with open_store(location):
            pass
    assert "AccountKey" not in str(raised.value)


async def test_a_new_store_has_the_number(store: Store) -> None:
    stored = await store.backend.get(Table.CLAIMS, META, "schema")
    assert stored is not None
    assert json.loads(stored.data) == {"schema": SCHEMA}


async def _keys(backend: Backend, prefix: str = "") -> list[str]:
    return [each.row for each in (await backend.query(Table.HISTORY, Where(first=prefix, last=prefix), 100)).rows]
