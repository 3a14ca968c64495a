"""A store is copied into another one, from each backend into each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from shared import cli
from shared.errors import UsageError
from shared.models import RunState
from shared.settings import Settings
from shared.store import FindingQuery, Hold, Store, copy, open_store
from shared.store.backend import Page, Table, Where
from tests.support.azurite import Azurite
from tests.support.records import NOON, RUN, finding, history, node, run

OVER = run(state=RunState.COMPLETED)


async def fill(store: Store) -> None:
    await store.save_run(OVER)
    await store.save_findings([finding(n) for n in range(250)])
    await store.save_history([history(n) for n in range(3)])
    await store.save_document(RUN, "plan", "ä" * 400_000)
    await store.set_hold(Hold(by="somebody", since=NOON, reason="a freeze"))


@pytest.fixture(params=["sqlite", "tables"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a second store is."""
    if request.param == "sqlite":
        return str(tmp_path / "other.db")
    started: Azurite = request.getfixturevalue("azurite")
    return started.account()


async def test_what_was_found_is_there_and_can_be_asked_for(store: Store, other: str) -> None:
    await fill(store)
    async with open_store(other) as target:
        for _ in range(2):  # made again, nothing is different
            copied = await copy(store, target)
            assert {table: copied[table] for table in (Table.FINDINGS, Table.RUNS)} == {
                Table.FINDINGS: 250,
                Table.RUNS: 1,
            }
            assert await target.run(RUN) == OVER
            for query in (FindingQuery(run_id=RUN), FindingQuery(run_id=RUN, status=finding(0).status)):
                there = [each async for each in target.all_findings(query)]
                assert there == [each async for each in store.all_findings(query)]
                assert there
            assert await target.count(RUN) == await store.count(RUN)
            assert await target.history([node(0), node(2)]) == await store.history([node(0), node(2)])
            assert await target.document(RUN, "plan") == "ä" * 400_000
            assert await target.hold() is None


async def test_nothing_is_copied_while_a_run_is_going(store: Store, other: str) -> None:
    await fill(store)
    await store.save_run(run(state=RunState.RUNNING))
    async with open_store(other) as target:
        with pytest.raises(UsageError, match=f"the run {RUN} is going"):
            await copy(store, target)
        assert (await target.runs()).runs == ()


def meanwhile(
    store: Store, table: Table, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Awaitable[None]]
) -> None:
    """Let something happen once, right after rows of a table were read for the first time."""
    query = store.backend.query
    over: list[bool] = []

    async def then(asked: Table, *rest: Any, **more: Any) -> Page:
        page = await query(asked, *rest, **more)
        if asked is table and not over:
            over.append(True)
            await happens()
        return page

    monkeypatch.setattr(store.backend, "query", then)


async def test_a_run_that_began_meanwhile_is_not_copied(
    store: Store, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app of the other store would begin it again."""
    await fill(store)
    meanwhile(store, Table.FINDINGS, monkeypatch, lambda: store.save_run(run(state=RunState.RUNNING)))
    async with open_store(other) as target:
        with pytest.raises(UsageError, match=f"the run {RUN} is going"):
            await copy(store, target)
        assert (await target.runs()).runs == ()


async def test_what_is_deleted_meanwhile_is_not_copied_in_half(
    store: Store, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store)
    page = await store.backend.query(Table.FINDINGS, Where(), 1)
    (first,) = page.rows

    async def delete() -> None:
        await store.backend.delete(Table.FINDINGS, first.partition, [first.row])

    meanwhile(store, Table.FINDINGS, monkeypatch, delete)
    async with open_store(other) as target:
        await copy(store, target)
        assert await target.backend.get(Table.FINDINGS, first.partition, first.row) is None
        assert await target.count(RUN) == await store.count(RUN)


async def test_by_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, there = str(tmp_path / "runs.db"), str(tmp_path / "kept.db")
    async with open_store(here) as store:
        await fill(store)
    arguments = cli._parser().parse_args(["copy-store", "--store", here, "--to", there])
    assert await cli.copy_command(arguments, Settings()) == 0
    assert f"copied into {there}: 250 rows of findings" in capsys.readouterr().err
    async with open_store(there) as store:
        assert await store.run(RUN) == OVER
    with pytest.raises(UsageError, match="the store itself"):
        await cli.copy_command(cli._parser().parse_args(["copy-store", "--store", here, "--to", here]), Settings())
