"""A terminal's store does not grow for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from shared.models import RunState
from shared.runs.hosts.tidying import tidy_here
from shared.settings import Settings
from shared.store import FindingQuery, new_run_id, open_store
from tests.support.records import finding, run


async def test_what_is_old_goes_once_a_day(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    old = now - timedelta(days=500)
    gone, kept = new_run_id(old), new_run_id(now)
    async with open_store(str(tmp_path / "guard.db")) as store:

        async def put(run_id: str) -> None:
            await store.save_run(run(run_id, state=RunState.COMPLETED))
            await store.save_findings([finding(n, run_id=run_id) for n in range(3)])

        async def found() -> set[str]:
            return {each.run_id async for each in store.all_findings(FindingQuery())}

        await put(gone)
        await put(kept)
        await tidy_here(store, Settings(), now)
        assert (await found(), await store.run(gone)) == ({kept}, None)
        await put(gone)
        await tidy_here(store, Settings(), now + timedelta(hours=1))
        assert await found() == {gone, kept}
