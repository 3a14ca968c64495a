"""A store that goes and comes back: real connections that are refused, hang, or are cut when the request was taken."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import CredentialError, StoreError, UsageError
from shared.models import RunState
from shared.store import FindingQuery, Hold, Store, Work, open_store, patient, tables
from shared.store.backend import Backend, Row, Table
from shared.store.patient import pause_before
from shared.store.sqlite import open_sqlite
from shared.store.tables import open_tables_with_key
from tests.runs.simulated.store import away, memory_store
from tests.support.azurite import Azurite
from tests.support.faulty import FaultyProxy, faulty_proxy
from tests.support.records import NOON, RUN, finding, run

SOON: Callable[[int], float] = lambda _: 0.02  # noqa: E731 - a constant pause


@asynccontextmanager
async def _behind(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[FaultyProxy, Store]]:
    """A store behind a proxy, with the SDK's own timeouts and pauses made short."""
    for name, seconds in (("connection_timeout", 1), ("read_timeout", 0.3), ("retry_backoff_factor", 0.01)):
        monkeypatch.setitem(tables._TIMEOUTS, name, seconds)
    account = azurite.account()
    async with open_tables_with_key(account):
        pass
    async with (
        faulty_proxy(azurite.table) as proxy,
        open_store(account.replace(azurite.table, proxy.address)) as store,
    ):
        yield proxy, store


async def _everything(store: Store, n: int) -> None:
    """Every kind of write and read, each checked."""
    name = f"work/{n}"
    first = await store.put_work(RUN, name, "one", None)
    assert first is not None
    second = await store.put_work(RUN, name, "two", first)
    assert second is not None
    assert await store.work(RUN, name) == Work(name, "two", second)
    assert await store.put_work(RUN, name, "three", first) is None
    assert await store.claim(f"scope/{n}", "me", 60)
    assert await store.claim(f"scope/{n}", "me", 60)
    assert not await store.claim(f"scope/{n}", "another", 60)
    await store.save_findings([finding(n)])
    await store.save_run(run(state=RunState.COMPLETED))
    await store.save_document(RUN, f"plan {n}", "text")
    assert await store.document(RUN, f"plan {n}") == "text"
    await store.release(f"scope/{n}", "me")
    assert await store.holder(f"scope/{n}") is None
    assert [each.name async for each in store.works(RUN, name)] == [name]


async def _while_faulty(
    work: Awaitable[None], begin: Callable[[], Awaitable[None]], end: Callable[[], Awaitable[None]]
) -> None:
    """Let `work` go on for a while, have the fault begin and end some time after, and see that `work` ends well."""
    task = asyncio.ensure_future(work)
    for _ in range(3):
        await asyncio.sleep(0.05)
        await begin()
        await asyncio.sleep(0.5)
        await end()
    await task


async def _many(store: Store, start: int, rounds: int = 12) -> None:
    for n in range(start, start + rounds):
        await _everything(store, n)


async def test_a_store_that_refuses_and_comes_back_costs_nothing(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _behind(azurite, monkeypatch) as (proxy, store):
        held = patient(store, 30, pause=SOON)
        await _while_faulty(_many(held, 0), proxy.gone, proxy.there)
        assert len((await held.findings(FindingQuery(run_id=RUN))).findings) == 12


async def test_a_store_that_hangs_and_comes_back_costs_nothing(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _behind(azurite, monkeypatch) as (proxy, store):

        async def begin() -> None:
            proxy.hanging = True

        async def end() -> None:
            proxy.hanging = False

        await _while_faulty(_many(patient(store, 30, pause=SOON), 0), begin, end)


@pytest.mark.parametrize("cuts", [1, 5])
async def test_a_write_that_was_in_when_the_connection_was_cut_is_ours(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch, cuts: int
) -> None:
    """One cut is met by the SDK's next try; five by ours, after the SDK has given up."""
    async with _behind(azurite, monkeypatch) as (proxy, store):
        held = patient(store, 30, pause=SOON)

        async def cut(call: Awaitable[object]) -> object:
            proxy.cuts = cuts
            given = await call
            assert proxy.cuts == 0
            return given

        etag = await cut(held.put_work(RUN, "a", "the same text", None))
        assert isinstance(etag, str)
        assert await store.put_work(RUN, "a", "the same text", None) is None
        after = await cut(held.put_work(RUN, "a", "again the same", etag))
        assert await store.work(RUN, "a") == Work("a", "again the same", str(after))
        assert await store.put_work(RUN, "a", "again the same", etag) is None
        assert await cut(held.claim("scope", "me", 60)) is True
        assert await cut(held.claim("scope", "me", 60)) is True
        await cut(held.save_findings([finding(n) for n in range(50)]))
        await cut(held.set_hold(Hold("me", NOON, "to see")))
        assert await store.hold() is not None
        await cut(held.release_hold())
        await cut(held.release("scope", "me"))
        assert await store.hold() is None
        assert await store.holder("scope") is None
        assert len((await store.findings(FindingQuery(run_id=RUN))).findings) == 50


@pytest.mark.parametrize("lost", range(1, 5))
async def test_a_change_of_a_run_is_made_once_whichever_answer_is_lost(lost: int) -> None:
    store, backend = memory_store()
    await store.save_run(run())
    calls = iter(range(1, 100))

    def trouble() -> None:
        if next(calls) == lost:
            away()

    backend.trouble = trouble
    held = patient(store, 30, pause=SOON)
    assert await held.change_run(RUN, lambda known: replace(known, epoch=known.epoch + 1)) == run(epoch=1)
    assert await store.run(RUN) == run(epoch=1)


async def test_without_patience_it_is_said_and_called_transient(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _behind(azurite, monkeypatch) as (proxy, store):
        await proxy.gone()
        for each in (store, patient(store, 0.1, pause=SOON)):
            with pytest.raises(StoreError, match="cannot be reached") as raised:
                await each.save_run(run())
            assert raised.value.transient
        await proxy.there()
        proxy.hanging = True
        with pytest.raises(StoreError, match=r"the connection to the store .* broke") as raised:
            await store.save_run(run())
        assert raised.value.transient


async def test_a_sqlite_file_that_another_process_holds_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.store.sqlite.BUSY_SECONDS", 0.05)
    path = tmp_path / "guard.db"
    async with open_store(str(path)) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="database is locked") as raised:
            await store.put_work(RUN, "a", "x", None)
        assert raised.value.transient
        task = asyncio.create_task(_many(patient(store, 30, pause=SOON), 0, 2))
        await asyncio.sleep(0.3)
        assert not task.done()
        other.execute("ROLLBACK")
        other.close()
        await task


async def test_what_more_tries_cannot_mend_is_raised_at_once(tmp_path: Path) -> None:
    async with open_store(str(tmp_path / "guard.db")) as store:
        held = patient(store, 900)
        start = time.monotonic()
        with pytest.raises(StoreError, match="too long for the store"):
            await held.put_work(RUN, "a", "x" * 500_000, None)
        with pytest.raises(UsageError, match="is not a run id"):
            await held.run("latest")
        await store.backend.put(Table.RUNS, "all", {"x": Row("{")})
        with pytest.raises(StoreError, match="is not a Run") as raised:
            await held.runs()
        assert not raised.value.transient
        assert time.monotonic() - start < 5


async def test_a_credential_that_is_away_for_a_while_is_waited_for(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "guard.db") as sqlite:
        store = Store(_Unsigned(sqlite, 3))  # type: ignore[arg-type]
        with pytest.raises(CredentialError):
            await store.run(RUN)
        assert await patient(store, 30, pause=SOON).run(RUN) is None


class _Unsigned:
    """A backend whose credential is not to be had for the first `times` reads."""

    def __init__(self, backend: Backend, times: int) -> None:
        self._backend, self._times = backend, times

    async def get(self, *arguments: str) -> object:
        self._times -= 1
        if self._times >= 0:
            raise CredentialError("no Azure credential for the store")
        return await self._backend.get(*arguments)  # type: ignore[arg-type]


async def test_a_lease_renewed_late_counts_from_when_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store was away for longer than the lease: what is written then must not have run out already."""
    monkeypatch.setattr("shared.store.sqlite.BUSY_SECONDS", 0.05)
    path = tmp_path / "guard.db"
    async with open_store(str(path)) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(patient(store, 30, pause=SOON).claim("lease", "me", 0.5))
        await asyncio.sleep(0.8)
        other.execute("ROLLBACK")
        other.close()
        assert await task
        assert await store.holder("lease") == "me"


@given(st.integers(0, 10_000))
def test_pauses_grow_to_twenty_seconds(again: int) -> None:
    assert 0.25 <= pause_before(again) <= 20
    assert again < 6 or pause_before(again) >= 10
