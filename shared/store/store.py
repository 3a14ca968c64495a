"""The store: runs, findings and everything else that must survive, over either backend.

Layout (table: partition / row): runs: one partition / newest first; findings: run / see `keys.finding_row`; history:
subscription / see histories.py; documents: run / digest of the name, then a head or the parts of one version; progress:
run / part; work: run / name; claims: one partition / digest of the name, and one for the hold and the schema's number.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from shared.errors import StoreError, UsageError
from shared.models import Finding, History, Node, Outcome, Run, RunKind, RunState, Starter, Status, outcome_of
from shared.store import histories
from shared.store.backend import ALWAYS_FITS_UNITS, MAX_PAGE, Backend, Row, Stored, Table, Where
from shared.store.codec import decode, encode
from shared.store.keys import digest, finding_row, split_text
from shared.store.retention import Purged, purge
from shared.store.run_ids import newest_first_key

_ALL = "all"
_HEAD = "head"
# The partition of the claims' table for what there is one of in a store.
META = "meta"
_HOLD = "hold"
# What a request names where it does not mean everything.
_SCOPE = ("management_group", "subscriptions", "clusters", "node_pools", "controls")
_DOCUMENT_READS = 3
# Table Storage gives at most 4 MiB a page anyway.
_WORK_PAGE = 10


@dataclass(frozen=True, slots=True)
class FindingQuery:
    """Which findings; None takes any. Names are compared without regard to case, as Azure's are."""

    run_id: str | None = None
    control: str | None = None
    status: Status | None = None
    subscription: str | None = None
    cluster: str | None = None
    node_pool: str | None = None
    node: str | None = None


@dataclass(frozen=True, slots=True)
class FindingPage:
    """Findings in a stable order; `continuation` (url-safe text) is None on the last page."""

    findings: tuple[Finding, ...]
    continuation: str | None


@dataclass(frozen=True, slots=True)
class RunPage:
    """Runs, newest first; `continuation` (url-safe text) is None on the last page."""

    runs: tuple[Run, ...]
    continuation: str | None


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of a run's open work, as it was read. `etag` is what `put_work` wants of whoever goes on from it.

    `text` may hold signed addresses: a secret.
    """

    name: str
    text: str = field(repr=False)
    etag: str


@dataclass(frozen=True, slots=True)
class Counts:
    """A run's findings by status, its nodes by outcome (those that have one), and how many nodes there are."""

    statuses: Mapping[Status, int]
    outcomes: Mapping[Outcome, int]
    nodes: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing is started and no next wave begins: who said so (`by`), since when, and why."""

    by: str
    since: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class _Head:
    name: str
    sha256: str
    parts: int


@dataclass(frozen=True, slots=True)
class _Claim:
    name: str
    owner: str
    expires: datetime


class Store:
    """Everything that must survive a restart. Made by `open_store`; may be used by many tasks at once.

    Every method raises StoreError (or CredentialError) where the store cannot be reached, read or written. Every write
    can be made again with the same result.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def backend(self) -> Backend:
        """What it is kept in."""
        return self._backend

    # Findings

    async def save_findings(self, findings: Sequence[Finding]) -> None:
        """Save findings, of one run or several; a later one of the same run and `key` replaces the earlier."""
        runs: dict[str, dict[str, Row]] = {}
        for finding in findings:
            promoted = {
                "status": finding.status.value,
                "control": finding.control.lower(),
                "subscription": finding.subscription.lower(),
                "cluster": finding.cluster.lower(),
                "node_pool": finding.node_pool.lower(),
                "node": finding.node.lower(),
                "outcome": finding.outcome.value if finding.outcome is not None else "",
                "place": digest(finding.place) if finding.node else "",
            }
            runs.setdefault(finding.run_id, {})[finding_row(finding.key)] = Row(encode(finding), promoted)
        for run_id, rows in runs.items():
            await self._backend.put(Table.FINDINGS, run_id, rows)

    async def findings(self, query: FindingQuery, limit: int = 100, continuation: str | None = None) -> FindingPage:
        """A page of at most `limit` (1 to 1,000) findings. Without `run_id` every run's are searched, which is slow.

        Raises UsageError for a limit or continuation that cannot be.
        """
        page = await self._backend.query(Table.FINDINGS, _where(query), limit, continuation)
        return FindingPage(tuple(_finding(stored) for stored in page.rows), page.continuation)

    async def recorded(self, run_id: str, keys: Sequence[str]) -> Mapping[str, Finding]:
        """Those findings of a run whose `Finding.key` is among `keys`, by that key."""
        rows = await asyncio.gather(*(self._backend.get(Table.FINDINGS, run_id, finding_row(key)) for key in keys))
        return {key: _finding(stored) for key, stored in zip(keys, rows, strict=True) if stored is not None}

    async def all_findings(self, query: FindingQuery) -> AsyncIterator[Finding]:
        """All the findings of a query, a page at a time in memory."""
        async for stored in self._scan(Table.FINDINGS, _where(query)):
            yield _finding(stored)

    async def count(self, run_id: str) -> Counts:
        """What a run has recorded so far, counted without reading the findings themselves."""
        statuses: Counter[Status] = Counter()
        nodes: dict[str, Outcome | None] = {}
        async for stored in self._scan(Table.FINDINGS, Where(run_id), data=False):
            if "place" not in stored.fields:
                return await self._count_read(run_id)
            statuses[Status(stored.fields["status"])] += 1
            place, outcome = stored.fields["place"], stored.fields["outcome"]
            if place:
                nodes[place] = outcome_of((nodes.get(place), Outcome(outcome) if outcome else None))
        return _counts(statuses, nodes)

    async def _count_read(self, run_id: str) -> Counts:
        """The same of a run that 0.1.0 began: its findings lack the fields."""
        statuses: Counter[Status] = Counter()
        nodes: dict[str, Outcome | None] = {}
        async for finding in self.all_findings(FindingQuery(run_id=run_id)):
            statuses[finding.status] += 1
            if finding.node:
                nodes[finding.place] = outcome_of((nodes.get(finding.place), finding.outcome))
        return _counts(statuses, nodes)

    # Runs

    async def save_run(self, run: Run) -> None:
        """Save a run, replacing what is known of it. Raises UsageError where its id is no run id.

        For one that nobody else can know of yet; one that is recorded is changed with `change_run`.
        """
        await self._backend.put(Table.RUNS, _ALL, {newest_first_key(run.id): _run_row(run)})

    async def add_run(self, run: Run) -> bool:
        """Save a run that is not recorded yet; False, with nothing written, where it is."""
        return await self._insert(Table.RUNS, _ALL, newest_first_key(run.id), _run_row(run)) is not None

    async def change_run(self, run_id: str, change: Callable[[Run], Run | None]) -> Run | None:
        """Change what is recorded of a run, and lose nothing that others write meanwhile; gives what is recorded now.

        `change` is given the record and gives what is to be in its place; where another was faster it is asked again.
        None, with nothing written, where it gives None. Raises LookupError where there is no such run.
        """
        key = newest_first_key(run_id)
        while True:
            stored = await self._backend.get(Table.RUNS, _ALL, key)
            if stored is None:
                raise LookupError(f"the store has no run {run_id}")
            known = _run(stored)
            changed = change(known)
            if changed is None or changed == known:
                return changed
            if await self._replace(Table.RUNS, _ALL, key, _run_row(changed), stored.etag) is not None:
                return changed

    async def run(self, run_id: str) -> Run | None:
        """One run. Raises UsageError where `run_id` is no run id."""
        stored = await self._backend.get(Table.RUNS, _ALL, newest_first_key(run_id))
        return None if stored is None else _run(stored)

    async def runs(
        self,
        limit: int = 20,
        continuation: str | None = None,
        *,
        kind: RunKind | None = None,
        state: RunState | None = None,
    ) -> RunPage:
        """A page of at most `limit` (1 to 1,000) runs, newest first, of a kind and in a state if given.

        Raises UsageError for a limit or continuation that cannot be.
        """
        equals: dict[str, str] = {}
        if kind is not None:
            equals["kind"] = kind.value
        if state is not None:
            equals["status"] = state.value
        page = await self._backend.query(Table.RUNS, Where(_ALL, equals=equals), limit, continuation)
        return RunPage(tuple(_run(stored) for stored in page.rows), page.continuation)

    async def latest_run(self, kind: RunKind | None = None, state: RunState | None = None) -> Run | None:
        """The newest run, of a kind and in a state if given."""
        runs = (await self.runs(1, kind=kind, state=state)).runs
        return runs[0] if runs else None

    async def latest_audit(self) -> Run | None:
        """The newest completed audit of everything (nothing is named in its request), else the newest completed one."""
        newest: Run | None = None
        continuation: str | None = None
        while True:
            page = await self.runs(100, continuation, kind=RunKind.AUDIT, state=RunState.COMPLETED)
            for run in page.runs:
                newest = newest or run
                if not any(run.request.get(name) for name in _SCOPE):
                    return run
            continuation = page.continuation
            if continuation is None:
                return newest

    # History

    async def save_history(self, history: Sequence[History]) -> None:
        """Save what is known of controls on nodes from now on, and that it changed, where `seen` is when it did.

        Up to 50 entries of a subscription are one transaction. Raises UsageError where a `node_key` is no node's key.
        """
        subscriptions: dict[str, dict[str, Row]] = {}
        for entry in history:
            subscription, made = histories.rows(entry)
            subscriptions.setdefault(subscription, {}).update(made)
        for subscription, rows in subscriptions.items():
            await self._backend.put(Table.HISTORY, subscription, rows)

    async def history(self, nodes: Sequence[Node]) -> Mapping[tuple[str, str], History]:
        """What is known of these nodes, by `Node.key` and control; unknown ones are absent.

        Nodes of a scale set that are near each other are read at once.
        """
        wanted = {node.key for node in nodes}
        found: dict[tuple[str, str], History] = {}
        for subscription, ranges in histories.ranges(wanted).items():
            for stored in await self._backend.ranges(Table.HISTORY, subscription, ranges):
                entry = histories.read(stored.data, stored.row)
                if entry.node_key in wanted:
                    found[entry.node_key, entry.control] = entry
        return found

    async def changes(self, node_key: str) -> tuple[History, ...]:
        """What was known of a node (`Node.key`) after each change that is still kept, by control and then by time.

        Raises UsageError where that is no node's key.
        """
        subscription, where = histories.changes(node_key)
        rows = await self._backend.ranges(Table.HISTORY, subscription, [where])
        entries = [histories.read(stored.data, stored.row) for stored in rows]
        return tuple(entry for entry in entries if entry.node_key == node_key)

    # Documents

    async def save_document(self, run_id: str, name: str, text: str) -> None:
        """Save a text of up to several MB under a name. Until all of it is written, the one before it is what is read.

        Raises UsageError where `text` is not valid Unicode.
        """
        try:
            sha256 = hashlib.sha256(text.encode("utf-8")).hexdigest()
        except UnicodeEncodeError as error:
            raise UsageError(f"the document {name!r} is not valid Unicode at character {error.start}") from None
        key = digest(name)
        before = await self._document_head(run_id, name)
        parts = split_text(text, ALWAYS_FITS_UNITS)
        rows = {f"{_version(key, sha256)}{n:06d}": Row(part) for n, part in enumerate(parts)}
        await self._backend.put(Table.DOCUMENTS, run_id, rows)
        # Last: what it names is complete by now.
        head = Row(encode(_Head(name, sha256, len(parts))))
        await self._backend.put(Table.DOCUMENTS, run_id, {f"{key}.{_HEAD}": head})
        if before is not None and before.sha256 != sha256:
            old = [f"{_version(key, before.sha256)}{n:06d}" for n in range(before.parts)]
            await self._backend.delete(Table.DOCUMENTS, run_id, old)

    async def document(self, run_id: str, name: str) -> str | None:
        """A document's text, checked against its digest, or None where none was ever saved whole."""
        for _ in range(_DOCUMENT_READS):
            head = await self._document_head(run_id, name)
            if head is None:
                return None
            prefix = _version(digest(name), head.sha256)
            text = "".join(
                part.data for part in await self._backend.ranges(Table.DOCUMENTS, run_id, [(prefix, prefix)])
            )
            if hashlib.sha256(text.encode("utf-8")).hexdigest() == head.sha256:
                return text
            # Replaced between the two reads: the new head names the new parts.
        raise StoreError(f"the document {name!r} of run {run_id} has lost parts in the store; make it again")

    async def _document_head(self, run_id: str, name: str) -> _Head | None:
        stored = await self._backend.get(Table.DOCUMENTS, run_id, f"{digest(name)}.{_HEAD}")
        return None if stored is None else decode(_Head, stored.data, f"the document {name!r}")

    # Progress

    async def save_progress(self, run_id: str, part: str, data: Mapping[str, object]) -> None:
        """Save how far a part of a run (a lane, a batch, a wave) is, replacing what was said of that part before."""
        await self._backend.put(Table.PROGRESS, run_id, {part: Row(encode(dict(data)))})

    async def progress(self, run_id: str) -> Mapping[str, Mapping[str, object]]:
        """What the parts of a run said last, by part."""
        return {
            stored.row: decode(dict[str, object], stored.data, f"the progress {stored.row}")
            async for stored in self._scan(Table.PROGRESS, Where(run_id))
        }

    # Work

    async def work(self, run_id: str, name: str) -> Work | None:
        """A piece of a run's open work, or None."""
        stored = await self._backend.get(Table.WORK, run_id, name)
        return None if stored is None else Work(name, stored.data, stored.etag)

    async def put_work(self, run_id: str, name: str, text: str, etag: str | None) -> str | None:
        """Write a piece of a run's work that is still the one read with `etag` (None: that must not exist).

        Gives the new etag; None, with nothing written, where another was there or faster. Raises NotStorable where
        `text` is longer than a row (480,000 characters of plain text; a quote counts twice towards 950,000).
        """
        row = Row(text)
        if etag is None:
            return await self._insert(Table.WORK, run_id, name, row)
        return await self._replace(Table.WORK, run_id, name, row, etag)

    async def works(self, run_id: str, prefix: str = "") -> AsyncIterator[Work]:
        """All the work of a run whose name starts with `prefix`, by name, some 10 rows in memory."""
        where = Where(run_id, first=prefix, last=prefix)
        async for stored in self._scan(Table.WORK, where, page=_WORK_PAGE):
            yield Work(stored.row, stored.data, stored.etag)

    # Claims

    async def claim(self, name: str, owner: str, seconds: float) -> bool:
        """Claim `name` for `owner` until `seconds` from now, or renew the claim; False where another holds it.

        Expiry is judged by the clock of whoever asks: choose `seconds` well above the difference of the clocks.
        """
        begun = datetime.now(UTC)
        if not await self._claimed(name, owner, begun + timedelta(seconds=seconds)):
            return False
        if datetime.now(UTC) - begun <= timedelta(seconds=seconds / 2):
            return True
        # The store was away meanwhile, and much of the time is over: renewed. No time at all cannot be.
        return seconds <= 0 or await self.claim(name, owner, seconds)

    async def _claimed(self, name: str, owner: str, expires: datetime) -> bool:
        wanted = Row(encode(_Claim(name, owner, expires)), {"day": histories.day(datetime.now(UTC))})
        key = digest(name)
        while True:
            stored = await self._backend.get(Table.CLAIMS, _ALL, key)
            if stored is None:
                if await self._insert(Table.CLAIMS, _ALL, key, wanted) is not None:
                    return True
            else:
                held = _claim(stored)
                if held.owner != owner and held.expires > datetime.now(UTC):
                    return False
                if await self._replace(Table.CLAIMS, _ALL, key, wanted, stored.etag) is not None:
                    return True
            # Somebody was faster: another, or this owner's own second call, which is no reason to refuse.

    async def holder(self, name: str) -> str | None:
        """Who holds the claim on `name` now, or None."""
        stored = await self._backend.get(Table.CLAIMS, _ALL, digest(name))
        if stored is None:
            return None
        held = _claim(stored)
        return held.owner if held.expires > datetime.now(UTC) else None

    async def release(self, name: str, owner: str) -> None:
        """Give up `owner`'s claim on `name`; another's is left alone."""
        key = digest(name)
        stored = await self._backend.get(Table.CLAIMS, _ALL, key)
        if stored is not None and _claim(stored).owner == owner:
            await self._backend.delete(Table.CLAIMS, _ALL, [key], stored.etag)

    # The hold

    async def hold(self) -> Hold | None:
        """The hold that is on, or None."""
        stored = await self._backend.get(Table.CLAIMS, META, _HOLD)
        return None if stored is None else decode(Hold, stored.data, "the hold")

    async def set_hold(self, hold: Hold) -> None:
        """Hold every start and every next wave, replacing a hold that is on."""
        await self._backend.put(Table.CLAIMS, META, {_HOLD: Row(encode(hold))})

    async def release_hold(self) -> None:
        """End the hold; it is no error where none is on."""
        await self._backend.delete(Table.CLAIMS, META, [_HOLD])

    # Retention

    async def purge(self, keep: timedelta, keep_work: timedelta, now: datetime) -> Purged:
        """Delete a bounded part of what is older: see `retention.purge`. Nothing of a run that is not over goes."""
        going: list[str] = []
        for state in (state for state in RunState if not state.final):
            where = Where(_ALL, equals={"status": state.value})
            going += [_run(stored).id async for stored in self._scan(Table.RUNS, where)]
        return await purge(self._backend, _ALL, going, keep, keep_work, now)

    # What both claims and work are written with

    async def _insert(self, table: Table, partition: str, row: str, data: Row) -> str | None:
        return await self._backend.insert(table, partition, row, data, uuid4().hex)

    async def _replace(self, table: Table, partition: str, row: str, data: Row, etag: str) -> str | None:
        return await self._backend.replace(table, partition, row, data, etag, uuid4().hex)

    async def _scan(
        self, table: Table, where: Where, *, page: int = MAX_PAGE, data: bool = True
    ) -> AsyncIterator[Stored]:
        continuation: str | None = None
        while True:
            found = await self._backend.query(table, where, page, continuation, data=data)
            for stored in found.rows:
                yield stored
            continuation = found.continuation
            if continuation is None:
                return


def _where(query: FindingQuery) -> Where:
    values = {field.name: getattr(query, field.name) for field in fields(query) if field.name != "run_id"}
    return Where(query.run_id, equals={name: str(value).lower() for name, value in values.items() if value is not None})


def _counts(statuses: Mapping[Status, int], nodes: Mapping[str, Outcome | None]) -> Counts:
    return Counts(dict(statuses), Counter(each for each in nodes.values() if each is not None), len(nodes))


def _finding(stored: Stored) -> Finding:
    return decode(Finding, stored.data, f"the finding {stored.row} of run {stored.partition}")


def _run_row(run: Run) -> Row:
    return Row(encode(run), {"kind": run.kind.value, "status": run.state.value})


def _run(stored: Stored) -> Run:
    run = decode(Run, stored.data, f"the run {stored.row}")
    if run.engine == 0:
        # 0.1.0 kept there who started it, where that was not a terminal.
        by = run.request.get("by", run.by)
        return replace(run, by=next((starter for starter in Starter if starter == by), run.by))
    return run


def _claim(stored: Stored) -> _Claim:
    return decode(_Claim, stored.data, f"the claim {stored.row}")


def _version(key: str, sha256: str) -> str:
    return f"{key}.{sha256}."
