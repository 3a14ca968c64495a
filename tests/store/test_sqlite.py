from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from shared.errors import StoreError
from shared.store import FindingQuery, open_store
from shared.store.backend import SCHEMA, Row, Table, Where
from shared.store.sqlite import open_sqlite
from tests.support.records import RUN, finding, run

ROWS = 20_000


async def test_the_file_and_its_folder_are_made_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "guard.db"
    umask = os.umask(0)
    try:
        async with open_store(str(path)) as store:
            await store.save_run(run())
            files = sorted(each.name for each in path.parent.iterdir())
            modes = {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    finally:
        os.umask(umask)
    assert files == ["guard.db", "guard.db-shm", "guard.db-wal"]
    assert modes == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def _other_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")


def _newer(path: Path) -> None:
    asyncio.run(_make(path))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")


async def _make(path: Path) -> None:
    async with open_store(str(path)):
        pass


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Path.mkdir, r"is a directory; name a file, such as .*/guard\.db/guard\.db"),
        (lambda path: path.write_text("this is a shopping list, not a database at all"), "it is not a database"),
        (_other_program, "is another program's database"),
        (_newer, f"has schema {SCHEMA + 1}, this version knows up to {SCHEMA}; update"),
        (lambda path: path.symlink_to("/proc/nothing/here"), "cannot be opened for writing: No such file or directory"),
    ],
)
def test_a_path_that_cannot_be_a_store_says_why(tmp_path: Path, make: object, says: str) -> None:
    path = tmp_path / "guard.db"
    assert callable(make)
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StoreError, match=says) as raised:
        asyncio.run(_make(path))
    assert str(path) in str(raised.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_folder_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be opened for writing: (Not a directory|File exists)"):
        asyncio.run(_make(tmp_path / "file" / "guard.db"))


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    """What a kill right after the file was made leaves."""
    (tmp_path / "guard.db").touch()
    asyncio.run(_make(tmp_path / "guard.db"))
    asyncio.run(_make(tmp_path / "guard.db"))


async def test_a_full_disk_is_said_and_leaves_what_was(tmp_path: Path) -> None:
    path = tmp_path / "guard.db"
    async with open_sqlite(path) as backend:
        await backend.put(Table.RUNS, "p", {"r": Row("before")})
        pages = await backend._run(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
        await backend._run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        with pytest.raises(StoreError, match=r"database or disk is full; free some space"):
            await backend.put(Table.RUNS, "p", {str(n): Row("x" * 4000) for n in range(10)})
        found = await backend.query(Table.RUNS, Where("p"), 10)
    assert [stored.data for stored in found.rows] == ["before"]


async def test_a_store_that_another_process_holds_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.store.sqlite.BUSY_SECONDS", 0.2)
    path = tmp_path / "guard.db"
    async with open_store(str(path)) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"database is locked; another process has held it for 0\.2 s"):
            await store.save_run(run())
        other.execute("ROLLBACK")
        other.close()
        await store.save_run(run())


async def test_a_cancelled_write_is_whole_or_not_and_the_store_goes_on(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "guard.db") as backend:
        rows = {f"{n:06d}": Row("x" * 200) for n in range(5000)}
        for attempt in range(10):
            task = asyncio.create_task(backend.put(Table.RUNS, str(attempt), rows))
            await asyncio.sleep(0.002 * attempt)
            in_time = task.cancel()  # a fast machine has written everything by then
            with pytest.raises(asyncio.CancelledError) if in_time else nullcontext():
                await task
            # In order, after whatever the cancelled one still does.
            await backend.put(Table.RUNS, "after", {str(attempt): Row("")})
        counts = await backend._run(
            lambda connection: dict(connection.execute("SELECT partition, count(*) FROM rows GROUP BY partition"))
        )
    assert counts.pop("after") == 10
    assert set(counts.values()) <= {5000}


WRITER = """
import asyncio, sys
from pathlib import Path
from shared.store.backend import SCHEMA, Row, Table, Where
from shared.store.sqlite import open_sqlite

async def main(path, name, rows):
    async with open_sqlite(Path(path)) as backend:
        data = {f"{n:06d}": Row(f"{n:06d}" * 50) for n in range(rows)}
        print("ready", flush=True)
        sys.stdin.readline()
        await backend.put(Table.FINDINGS, name, data)
        print("done", flush=True)
        sys.stdin.readline()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def _python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _killed_after(path: Path, name: str, seconds: float) -> bool:
    """Kill a process `seconds` after it began to write; whether it was still writing."""
    with _python(WRITER, str(path), name, str(ROWS)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        return process.stdout.read() == ""


async def test_a_process_killed_while_writing_leaves_all_of_a_batch_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "guard.db"
    cut = [_killed_after(path, f"{n}", seconds) for n, seconds in enumerate((0.01, 0.03, 0.06, 0.1))]
    assert any(cut)
    async with open_sqlite(path) as backend:
        assert await backend._run(lambda connection: connection.execute("PRAGMA integrity_check").fetchone()) == ("ok",)
        counts = await backend._run(
            lambda connection: dict(connection.execute("SELECT partition, count(*) FROM rows GROUP BY partition"))
        )
        assert set(counts.values()) <= {ROWS}
        for n, was_cut in enumerate(cut):
            if not was_cut:
                assert counts[f"{n}"] == ROWS
        # Again makes it complete.
        await backend.put(Table.FINDINGS, "0", {f"{n:06d}": Row("") for n in range(ROWS)})
        assert await backend._run(
            lambda connection: connection.execute("SELECT count(*) FROM rows WHERE partition = '0'").fetchone()
        ) == (ROWS,)


CLAIMER = """
import asyncio, sys
from shared.store import open_store

async def main(path, owner):
    print("ready", flush=True)
    sys.stdin.readline()
    async with open_store(path) as store:
        won = [await store.put_work("run", f"batch {n:03d}", owner, None) is not None for n in range(100)]
        print("".join("1" if each else "0" for each in won), await store.claim("scope", owner, 60), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_of_two_processes_one_wins_each_claim(tmp_path: Path) -> None:
    """Both start on a file that does not exist: making it must not fail either."""
    path = tmp_path / "guard.db"
    owners = ("one", "two")
    processes = [_python(CLAIMER, str(path), owner) for owner in owners]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outputs = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        outputs.append(out.split())
    won = [[mark == "1" for mark in marks] for marks, _ in outputs]
    assert all(one != two for one, two in zip(*won, strict=True))
    assert sorted(held for _, held in outputs) == ["False", "True"]
    async with open_store(str(path)) as store:
        stored = {work.name: work.text async for work in store.works("run")}
        assert await store.holder("scope") == owners[[held for _, held in outputs].index("True")]
    assert stored == {f"batch {n:03d}": owners[0] if won[0][n] else owners[1] for n in range(100)}


async def test_many_tasks_share_a_store(tmp_path: Path) -> None:
    async with open_store(str(tmp_path / "guard.db")) as store:
        await asyncio.gather(*(store.save_findings([finding(n)]) for n in range(100)))
        assert len((await store.findings(FindingQuery(run_id=RUN), limit=1000)).findings) == 100
