"""A fix's plan: put together when its planning run is over, and taken over into the fix, pool by pool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shared.models import Run, RunKind, RunState, Starter
from shared.runs import documents
from shared.runs.model import batch as batches
from shared.runs.model import keys
from shared.runs.model.batch import Batch
from shared.runs.model.messages import Gathered, PlanIndex, Ref
from shared.runs.model.plans import NodePlan, held_back, index_digest
from shared.runs.model.progress import Progress
from shared.runs.model.request import SCOPE, FixRequest, named
from shared.runs.services import Services
from shared.runs.steps import left_undone, plan_pages
from shared.runs.steps.node_record import past, record
from shared.runs.steps.progress_rows import save_counts
from shared.runs.steps.standing import stand
from shared.store import Store


async def index(services: Services, run_id: str) -> PlanIndex:
    """Which documents the plans of a planning run are in, made once its lanes are over, and their digest."""
    store = services.store
    known = await documents.find(store, run_id, keys.INDEX, documents.INDEX)
    if known is not None:
        return known
    names: list[str] = []
    entries: list[tuple[str, str]] = []
    newly_failing = looked_at = 0
    last_fix = await _last_fix(store, run_id)
    async for name, batch in _batches(store, run_id):
        names += [keys.plans(name, number) for number in range(len(batch.plans))]
        entries += [entry for document in batch.plans for entry in document]
        newly_failing += sum(last_fix is None or since >= last_fix for since in batch.failing_since)
        looked_at += batch.judged
    made = PlanIndex(
        documents=tuple(names),
        digest=index_digest(entries),
        nodes=len(entries),
        newly_failing=newly_failing,
        looked_at=looked_at,
    )
    await documents.save(store, run_id, keys.INDEX, documents.INDEX, made)
    return made


async def _batches(store: Store, run_id: str) -> AsyncIterator[tuple[str, Batch]]:
    """The batches of a planning run, by name, without those of attempts at a chunk that died."""
    for subscription in await documents.find(store, run_id, keys.SCOPE, documents.KEYS) or ():
        chunks = await documents.find(store, run_id, keys.clusters(subscription), documents.CHUNKS)
        named: set[str] = set()
        for number in range(len(chunks or ())):
            found = await documents.find(store, run_id, keys.chunk(subscription, number), documents.FOUND)
            named |= {batch.name for batch in found.batches} if found is not None else set()
        async for work in store.works(run_id, keys.lane(subscription)):
            if work.name in named:
                yield work.name, batches.from_text(work.text, work.name)


async def _last_fix(store: Store, run_id: str) -> datetime | None:
    """When the newest completed fix was started that was of all that a planning run is of; None: there is none.

    What fails for longer was left as it is by then; the rest is news, however often it was looked at since.
    """
    plan = await store.run(run_id)
    continuation: str | None = None
    while plan is not None:
        page = await store.runs(100, continuation, kind=RunKind.FIX, state=RunState.COMPLETED)
        started = next((fix.started for fix in page.runs if _covers(fix, plan)), None)
        continuation = page.continuation
        if started is not None or continuation is None:
            return started
    return None


def _covers(fix: Run, plan: Run) -> bool:
    """Whether a fix was of all that a plan is of, as their requests say (pure)."""
    for name in SCOPE:
        wide, narrow = named(fix, name), named(plan, name)
        if wide and not (narrow and narrow <= wide):
            return False
    return True


async def gather(services: Services, ref: Ref) -> Gathered:
    """Take over the plan that a fix was to be made with. Nodes for which nothing could be planned get their outcome."""
    standing = await stand(services, ref)
    if standing.over:
        return Gathered(over=True)
    known = await documents.find(services.store, ref.run_id, keys.GATHERED, documents.GATHERED)
    if known is not None:
        return known
    planner = await services.store.run(standing.run.plan_run)
    if planner is not None and planner.state is RunState.CANCELLED:
        return Gathered(ended=left_undone.CANCELLED_REASON)
    if planner is None or planner.kind is not RunKind.PLAN or planner.state is not RunState.COMPLETED:
        how = "is not there" if planner is None else f"is {planner.state.replace('_', ' ')}"
        why = f": {planner.error}" if planner is not None and planner.error else ""
        return Gathered(error=f"nothing was changed, for the plan {standing.run.plan_run} {how}{why}")
    plan = await index(services, planner.id)
    taking = _Taking(services, ref.run_id, standing.request)
    for name in plan.documents:
        plans = await documents.load(services.store, planner.id, name, documents.PLANS)
        await taking.take(plans)
    ask = ""
    if standing.run.by is Starter.TIMER:
        ask = _too_much(services, sum(taking.counts), plan)
    return await taking.keep(plan.digest, ask)


def _too_much(services: Services, nodes: int, plan: PlanIndex) -> str:
    """Why a fix that nobody watches waits for a person; '' where it does not."""
    settings = services.settings
    if nodes > settings.fix_most:
        return f"it would change {nodes} nodes, more than the {settings.fix_most} of GUARD_FIX_MOST"
    if plan.looked_at and 100 * plan.newly_failing / plan.looked_at > settings.fix_new_percent:
        return (
            f"{plan.newly_failing} of {plan.looked_at} nodes newly fail, more than the {settings.fix_new_percent:g}%"
            " of GUARD_FIX_NEW_PERCENT: the rule, and not the nodes, may be wrong"
        )
    return ""


async def put_plans(
    services: Services, run_id: str, plans: Sequence[NodePlan], digest: str, request: FixRequest
) -> Gathered:
    """Give a fix these plans; as `gather`."""
    taking = _Taking(services, run_id, request)
    await taking.take(plans)
    return await taking.keep(digest, "")


@dataclass
class _Taking:
    """Plans on their way into a fix: by pool, a page of each held."""

    services: Services
    run_id: str
    request: FixRequest
    counts: list[int] = field(default_factory=list)
    _pools: dict[tuple[str, str, str, str], int] = field(default_factory=dict)
    _pages: dict[int, list[NodePlan]] = field(default_factory=dict)
    _nodes: int = 0
    _left: Batch = field(default_factory=lambda: Batch("", 0, ()))

    async def take(self, planned: Sequence[NodePlan]) -> None:
        """Take plans in. A fix may have been rolled back since one was made: its node is left out, as when made."""
        known = await past(self.services, [plan.node for plan in planned])
        plans = [held_back(plan, known, retry=self.request.retry_rolled_back) for plan in planned]
        self._nodes += len(plans)
        for plan in plans:
            if not plan.refused:
                await self._add(plan)
        refused = [left_undone.left_alone(self.run_id, plan, "no_plan", plan.refused) for plan in plans if plan.refused]
        mend = left_undone.unrecorded(self.run_id)
        for one in await record(self.services, refused, known, mend, self.request):
            self._left = self._left.counted(one.findings)

    async def _add(self, plan: NodePlan) -> None:
        node = plan.node
        place = (node.subscription, node.resource_group.lower(), node.cluster.lower(), node.node_pool.lower())
        pool = self._pools.setdefault(place, len(self._pools))
        if pool == len(self.counts):
            self.counts.append(0)
        page = self._pages.setdefault(pool, [])
        page.append(plan)
        self.counts[pool] += 1
        if len(page) == plan_pages.PAGE:
            await self._put(pool)

    async def _put(self, pool: int) -> None:
        page = self._pages.pop(pool)
        await plan_pages.save(self.services.store, self.run_id, pool, (self.counts[pool] - 1) // plan_pages.PAGE, page)

    async def keep(self, digest: str, ask: str) -> Gathered:
        """Write down what was taken in."""
        for pool in list(self._pages):
            await self._put(pool)
        tally = self._left.tally
        made = Gathered(pools=tuple(self.counts), digest=digest, nodes=self._nodes, tally=tally, ask=ask)
        await documents.save(self.services.store, self.run_id, keys.GATHERED, documents.GATHERED, made)
        self.services.tell_found(self._nodes)
        left = sum(tally.outcomes.values())
        row = Progress(found=self._nodes, done=left, statuses=dict(tally.statuses), outcomes=dict(tally.outcomes))
        await save_counts(self.services, self.run_id, keys.GATHERED, row)
        return made
