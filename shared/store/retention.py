"""Forgetting what is older than it is kept for, a bounded part at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from shared.store.backend import MAX_PAGE, Backend, Stored, Table, Where
from shared.store.histories import day
from shared.store.run_ids import first_run_id, newest_first_key

# What one call deletes at most: in Azure some 100 transactions, which take seconds.
PURGE_ROWS = 10_000
# What is known of a node that stays as it is, is written again only once in 30 days: below this it would be forgotten
# while the node is there.
HISTORY_AT_LEAST = timedelta(days=90)

_KEPT = (Table.FINDINGS, Table.DOCUMENTS)
_WORKED_WITH = (Table.WORK, Table.COMMANDS, Table.PROGRESS)


@dataclass(frozen=True, slots=True)
class Purged:
    """Rows deleted, by table, and whether more is due: then call again."""

    rows: Mapping[str, int]
    more: bool


async def purge(
    backend: Backend, runs: str, going: Collection[str], keep: timedelta, keep_work: timedelta, now: datetime
) -> Purged:
    """Delete at most PURGE_ROWS rows of what is too old, but nothing of the runs that are `going` (their ids).

    By a run's start: its record, findings and documents go after `keep`, its work, commands and progress after
    `keep_work`. By the time of the change, or when a node was last seen: history, after `keep`; and claims. `runs` is
    the partition of the runs' records. What a run has left is found without its record, so a cut loses nothing.
    """
    old, worked = first_run_id(now - keep), first_run_id(now - keep_work)
    last_day = day(now - keep)
    due: list[tuple[Table, Where]] = [(Table.RUNS, Where(runs, first=newest_first_key(old)))]
    due += [(table, where) for table in _KEPT for where in _between(going, old)]
    due += [(table, where) for table in _WORKED_WITH for where in _between(going, worked)]
    due.append((Table.HISTORY, Where(smaller={"day": min(last_day, day(now - HISTORY_AT_LEAST))})))
    due.append((Table.CLAIMS, Where(smaller={"day": last_day})))
    kept = {newest_first_key(run_id) for run_id in going}
    deleted: Counter[str] = Counter()
    for table, where in due:
        async for page in _pages(backend, table, where):
            rows = [stored for stored in page if table is not Table.RUNS or stored.row not in kept]
            rows = rows[: PURGE_ROWS - deleted.total()]
            for partition, of_it in groupby(rows, key=lambda stored: stored.partition):
                keys = [stored.row for stored in of_it]
                await backend.delete(table, partition, keys)
                deleted[table.value] += len(keys)
            if deleted.total() >= PURGE_ROWS:
                return Purged(dict(deleted), more=True)
    return Purged(dict(deleted), more=False)


def _between(going: Collection[str], before: str) -> list[Where]:
    """The partitions of runs older than `before`, without those that are going."""
    edges = ["", *sorted(run_id for run_id in going if run_id < before)]
    ends = [*edges[1:], before]
    return [Where(after=after, before=end) for after, end in zip(edges, ends, strict=True)]


async def _pages(backend: Backend, table: Table, where: Where) -> AsyncIterator[tuple[Stored, ...]]:
    continuation: str | None = None
    while True:
        page = await backend.query(table, where, MAX_PAGE, continuation, data=False)
        yield page.rows
        continuation = page.continuation
        if continuation is None:
            return
