"""Copying a store into another one: to another account (a move to another region), or into a file (to keep it)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import groupby

from shared.errors import UsageError
from shared.models import RunState
from shared.store.backend import Backend, Row, Table, Where
from shared.store.store import Store

# What a store is for; the rest holds only while a run goes. A run comes after all that belongs to it.
_KEPT = (Table.FINDINGS, Table.DOCUMENTS, Table.HISTORY, Table.RUNS)
# A page of a document's parts may take 100 MB at most.
_PAGE = 100


async def copy(source: Store, target: Store) -> Mapping[Table, int]:
    """Copy all runs, findings, documents and histories, and give the rows of each; the same row there is written over.

    May be cut and made again. A hold is not copied. Raises UsageError where a run of the source is going, with nothing
    written, or began meanwhile, with no run written: what it writes could be missed, and it would go on twice.
    """
    await _refuse_going(source)
    copied: Counter[Table] = Counter()
    for table in _KEPT:
        if table is Table.RUNS:
            await _refuse_going(source)
        copied[table] = await _copy_table(table, source.backend, target.backend)
    return copied


async def _refuse_going(source: Store) -> None:
    for state in (state for state in RunState if not state.final):
        if going := (await source.runs(1, state=state)).runs:
            raise UsageError(f"the run {going[0].id} is going; let it end, or cancel it, then copy")


async def _copy_table(table: Table, source: Backend, target: Backend) -> int:
    copied = 0
    continuation: str | None = None
    while True:
        # A query gives a row's text or its fields.
        texts = await source.query(table, Where(), _PAGE, continuation)
        marked = await source.query(table, Where(), _PAGE, continuation, data=False)
        fields = {(stored.partition, stored.row): stored.fields for stored in marked.rows}
        # What is old may be deleted between the two.
        there = [stored for stored in texts.rows if (stored.partition, stored.row) in fields]
        for partition, rows in groupby(there, key=lambda stored: stored.partition):
            written = {stored.row: Row(stored.data, fields[partition, stored.row]) for stored in rows}
            await target.put(table, partition, written)
            copied += len(written)
        continuation = texts.continuation
        if continuation is None:
            return copied
