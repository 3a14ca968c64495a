"""Recording the nodes that a run does not look at or fix: it was cancelled, or what should have done so failed.

So a run's findings add up however it ends: a node that was found and has no finding yet gets one here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from shared.models import Finding, Outcome, Problem, RunKind, ScopeProblem, Status
from shared.plain import plain
from shared.runs import documents
from shared.runs.model import batch as batches
from shared.runs.model import findings, keys
from shared.runs.model.batch import BATCH, Batch, total
from shared.runs.model.messages import Leave, LeavePool, Left, Tally
from shared.runs.model.plans import NodePlan
from shared.runs.model.progress import Progress
from shared.runs.nodes.repairing import LOOK, LOOK_CODE, left, lost
from shared.runs.services import Services
from shared.runs.steps import plan_pages
from shared.runs.steps.node_record import Judged, as_internal, from_problem, past, record
from shared.runs.steps.progress_rows import save_counts, save_progress
from shared.runs.steps.standing import Standing, stand
from shared.store import Work

CANCELLED_REASON = "the run was cancelled"

CANCELLED = Problem(
    Status.ERROR, "cancelled", "the run was cancelled before this node was judged", "Start another run to look at it."
)


def failed(reason: str) -> Problem:
    """The problem of nodes whose part of the run failed as a whole."""
    return Problem(
        Status.ERROR,
        "batch_failed",
        f"the part of the run that this node belongs to failed: {plain(reason)}",
        "Run it again; if it fails again, look at the app's log.",
    )


async def leave(services: Services, message: Leave) -> Left:
    """Record what a lane does not look at: open nodes of batches, and clusters that were not looked into."""
    standing = await stand(services, message)
    if standing.over:
        return Left(over=True)
    problem = CANCELLED if message.cancelled else failed(message.reason)
    tallies = [await leave_batch(services, standing, name, problem) for name in message.batches]
    if message.chunks_from is not None:
        chunks = slice(message.chunks_from, message.chunks_to)
        tallies.append(await leave_chunks(services, standing, message.subscription, chunks, problem))
    return Left(tally=total(tallies))


async def leave_batch(services: Services, standing: Standing, name: str, problem: Problem) -> Tally:
    """Give `problem` to every open node of a batch, and close it. Gives what the batch came to in all."""
    store, run_id = services.store, standing.run.id
    while True:
        work = await store.work(run_id, name)
        if work is None:
            return Tally()
        batch = batches.from_text(work.text, name)
        if not batch.nodes:
            return batch.tally
        left = [from_problem(run_id, node.node, standing.request.control_ids, problem) for node in batch.nodes]
        fresh, before = await _unrecorded(services, run_id, left)
        known = await past(services, [one.node for one in fresh])
        closed = _closed(batch, [*before, *await record(services, fresh, known, as_internal(run_id), standing.request)])
        if await store.put_work(run_id, name, batches.to_text(closed), work.etag) is not None:
            await save_progress(services, run_id, name, closed)
            return closed.tally


def _closed(batch: Batch, made: Sequence[Judged]) -> Batch:
    nodes: dict[str, list[Finding]] = {}
    for one in made:
        nodes.setdefault(one.node.key, []).extend(one.findings)
    for found in nodes.values():
        batch = batch.counted(found)
    return replace(batch, nodes=())


async def leave_chunks(
    services: Services, standing: Standing, subscription: str, chunks: slice, problem: Problem
) -> Tally:
    """Give `problem` to all that is open in these chunks: the nodes of one that was looked into, the clusters of
    another; or to the subscription where its clusters are not known. Gives what the chunks came to in all."""
    run_id, store = standing.run.id, services.store
    known = await documents.find(store, run_id, keys.clusters(subscription), documents.CHUNKS)
    if known is None:
        place = ScopeProblem(subscription, "", "", "", _of("subscription", problem))
        return await record_places(services, standing, [place])
    tallies = []
    for number in range(len(known))[chunks]:
        found = await documents.find(store, run_id, keys.chunk(subscription, number), documents.FOUND)
        if found is None:
            places = [
                ScopeProblem(cluster.subscription, cluster.resource_group, cluster.name, "", _of("cluster", problem))
                for cluster in known[number]
            ]
            tallies.append(await record_places(services, standing, places))
        else:
            tallies.append(found.tally)
            tallies += [await leave_batch(services, standing, batch.name, problem) for batch in found.batches]
    return total(tallies)


def _of(noun: str, problem: Problem) -> Problem:
    return replace(problem, reason=f"the {noun} was not looked into: {problem.reason}")


async def record_places(services: Services, standing: Standing, places: Sequence[ScopeProblem]) -> Tally:
    """One finding a control for each subscription, cluster or pool that cannot be looked at."""
    now = datetime.now(UTC)
    made = [
        findings.reported_by(finding, standing.request.benchmark)
        for place in dict.fromkeys(places)
        for finding in findings.from_scope(standing.run.id, now, standing.request.control_ids, place)
    ]
    if not made:
        return Tally()
    await services.store.save_findings(made)
    services.tell_findings(made)
    tally = batches.Batch("", 0, ()).counted(made).tally
    for place in places[:1]:
        name = keys.places(place.subscription, place.cluster, place.node_pool, len(made))
        await save_counts(services, standing.run.id, name, Progress(statuses=dict(tally.statuses)))
    return tally


# Fixes


async def leave_pool(services: Services, message: LeavePool) -> Left:
    """Record nodes of a pool that were not fixed; of a wave that was lost, what it may have done to them."""
    standing = await stand(services, message)
    return Left(over=True) if standing.over else await _leave_pool(services, standing, message)


async def _leave_pool(services: Services, standing: Standing, message: LeavePool) -> Left:
    numbers = range(message.first, message.first + message.count)
    rows = [row async for row in _rows(services, standing.run.id, message.pool) if row.first in numbers]
    tallies = [await _leave_row(services, standing, message, row) for row in rows if row.batch.nodes]
    inside = {number for row in rows for number in range(row.first, row.first + row.batch.found)}
    rest = [number for number in numbers if number not in inside]
    for at in range(0, len(rest), BATCH):
        group = rest[at : at + BATCH]
        plans = await plan_pages.load(services.store, standing.run.id, message.pool, group)
        left = [left_alone(standing.run.id, plan, "left", message.reason) for plan in plans.values()]
        name = keys.fix_batch(message.pool, group[0])
        empty = Batch(region="", found=len(group), nodes=())
        tally = await _close(services, standing, _Row(name, group[0], empty, None), left)
        if tally is None:  # its wave was opened meanwhile
            tally = await _leave_row(services, standing, message, await _row(services, standing.run.id, name))
        tallies.append(tally)
    return Left(tally=total(tallies))


@dataclass(frozen=True, slots=True)
class _Row:
    """A batch of a wave as it was read (`etag` None: there is none)."""

    name: str
    first: int
    batch: Batch
    etag: str | None


def _read(work: Work) -> _Row:
    return _Row(work.name, keys.first_of(work.name), batches.from_text(work.text, work.name), work.etag)


async def _rows(services: Services, run_id: str, pool: int) -> AsyncIterator[_Row]:
    async for work in services.store.works(run_id, keys.pool_batches(pool)):
        yield _read(work)


async def _row(services: Services, run_id: str, name: str) -> _Row:
    work = await services.store.work(run_id, name)
    if work is None:
        raise LookupError(f"run {run_id} has no batch {name}")
    return _read(work)


async def _leave_row(services: Services, standing: Standing, message: LeavePool, row: _Row) -> Tally:
    run_id = standing.run.id
    while row.batch.nodes:
        plans = await plan_pages.load(services.store, run_id, message.pool, [node.plan for node in row.batch.nodes])
        left = [
            sent_and_lost(run_id, plans[node.plan], message.reason)
            if message.lost and node.begun
            else left_alone(run_id, plans[node.plan], "left", message.reason)
            for node in row.batch.nodes
        ]
        tally = await _close(services, standing, row, left)
        if tally is not None:
            return tally
        row = await _row(services, run_id, row.name)
    return row.batch.tally  # another one has closed it


async def _close(services: Services, standing: Standing, row: _Row, left: Sequence[Judged]) -> Tally | None:
    """Record what is left of a batch, and close it; None where another one has written it meanwhile.

    What was recorded before stays.
    """
    run_id = standing.run.id
    fresh, before = await _unrecorded(services, run_id, left)
    known = await past(services, [one.node for one in fresh])
    closed = _closed(row.batch, [*before, *await record(services, fresh, known, unrecorded(run_id), standing.request)])
    if await services.store.put_work(run_id, row.name, batches.to_text(closed), row.etag) is None:
        return None
    await save_progress(services, run_id, row.name, closed)
    return closed.tally


async def _unrecorded(services: Services, run_id: str, left: Sequence[Judged]) -> tuple[list[Judged], list[Judged]]:
    """What of these nodes is not recorded yet, and what is, as it is recorded.

    A step that was cut short has recorded nodes that its batch still has as open, the last of them in part.
    """
    recorded = await services.store.recorded(run_id, sorted({finding.key for one in left for finding in one.findings}))
    fresh = [Judged(one.node, [finding for finding in one.findings if finding.key not in recorded]) for one in left]
    before = [
        Judged(one.node, [recorded[finding.key] for finding in one.findings if finding.key in recorded]) for one in left
    ]
    return [one for one in fresh if one.findings], [one for one in before if one.findings]


def left_alone(run_id: str, plan: NodePlan, code: str, reason: str) -> Judged:
    """A node that was planned and is not tried."""
    problem = Problem(Status.SKIPPED, code, f"not fixed: {reason}", "")
    return _with_outcome(run_id, plan, problem, Status.FAIL, Outcome.NOT_TRIED)


def sent_and_lost(run_id: str, plan: NodePlan, reason: str) -> Judged:
    """A node to which a fix was sent, or may have been, without a word of what became of it."""
    problem = failed(reason)
    unknown = f"{LOOK}: the fix was sent to the node; what it did is not known: {problem.reason}"
    return _with_outcome(run_id, plan, replace(problem, code=LOOK_CODE, reason=unknown), problem.status, Outcome.FAILED)


def _with_outcome(run_id: str, plan: NodePlan, problem: Problem, status: Status, outcome: Outcome) -> Judged:
    made: list[Finding] = findings.from_problem(run_id, datetime.now(UTC), plan.node, plan.controls, problem)
    return Judged(
        plan.node, [replace(finding, status=status, outcome=outcome) for finding in made] + left(run_id, plan)
    )


def unrecorded(run_id: str) -> Callable[[Judged, Exception], Judged]:
    """`mend` of a fix: what was done to the node could not be recorded."""

    def mend(judged: Judged, error: Exception) -> Judged:
        plan = NodePlan(node=judged.node, controls=tuple(finding.control for finding in judged.findings))
        return Judged(judged.node, lost(run_id, plan, error))

    return mend


async def leave_all(services: Services, standing: Standing, problem: Problem) -> None:
    """Give every node of a run that is not done its finding, and every cluster that was not looked into.

    For the end of a run whose lanes did not come to theirs. A fix's nodes are those of its plan.
    """
    if standing.run.kind is RunKind.FIX:
        await _leave_fix(services, standing, problem.reason)
        return
    scope = await documents.find(services.store, standing.run.id, keys.SCOPE, documents.KEYS)
    for subscription in scope or ():
        await leave_chunks(services, standing, subscription, slice(None), problem)


async def _leave_fix(services: Services, standing: Standing, reason: str) -> None:
    gathered = await documents.find(services.store, standing.run.id, keys.GATHERED, documents.GATHERED)
    for pool, nodes in enumerate(gathered.pools if gathered is not None else ()):
        ref = {"run_id": standing.run.id, "epoch": standing.run.epoch}
        whole = LeavePool.model_validate(
            {**ref, "pool": pool, "first": 0, "count": nodes, "reason": reason, "lost": True}
        )
        await _leave_pool(services, standing, whole)
