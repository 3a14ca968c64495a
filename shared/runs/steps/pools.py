"""A fix's pools: the plan taken over, and each wave made ready by looking at what it is about to touch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shared.models import Node, Problem, RunKind, RunState, ScopeProblem, Starter
from shared.runs import documents
from shared.runs.model import batch as batches
from shared.runs.model import findings, keys
from shared.runs.model.batch import BATCH, Batch, OpenNode, total
from shared.runs.model.messages import Gathered, OpenBatch, OpenWave, PlanIndex, PoolNow, Pools, Ref, WaveOpened
from shared.runs.model.plans import NodePlan, held_back, index_digest
from shared.runs.model.progress import Progress
from shared.runs.nodes.repairing import left_alone
from shared.runs.services import Services
from shared.runs.steps import leaving, pages
from shared.runs.steps.progress import save_counts, save_progress
from shared.runs.steps.recording import Judged, past, record
from shared.runs.steps.standing import stand

_LOOKS_AT_ALL = 10
"""How often a pool's nodes are all listed in a fix: at its first wave, and whenever another tenth of them is over."""


async def index(services: Services, run_id: str) -> PlanIndex:
    """Which documents the plans of a planning run are in, made once its lanes are over, and their digest."""
    store = services.store
    known = await documents.find(store, run_id, keys.INDEX, documents.INDEX)
    if known is not None:
        return known
    names: list[str] = []
    entries: list[tuple[str, str]] = []
    newly_failing = looked_at = 0
    for subscription in await documents.find(store, run_id, keys.SCOPE, documents.KEYS) or ():
        async for work in store.works(run_id, keys.lane(subscription)):
            batch = batches.from_text(work.text, work.name)
            names += [keys.plans(work.name, number) for number in range(len(batch.plans))]
            entries += [entry for document in batch.plans for entry in document]
            newly_failing += batch.newly_failing
            looked_at += batch.found
    made = PlanIndex(
        documents=tuple(names),
        digest=index_digest(entries),
        nodes=len(entries),
        newly_failing=newly_failing,
        looked_at=looked_at,
    )
    await documents.save(store, run_id, keys.INDEX, documents.INDEX, made)
    return made


async def gather(services: Services, ref: Ref) -> Gathered:
    """Take over the plan that a fix was to be made with. Nodes for which nothing could be planned get their outcome."""
    standing = await stand(services, ref)
    known = await documents.find(services.store, ref.run_id, keys.GATHERED, documents.GATHERED)
    if known is not None:
        return known
    planner = await services.store.run(standing.run.plan_run)
    if planner is not None and planner.state is RunState.CANCELLED:
        return Gathered(ended=leaving.CANCELLED_REASON)
    if planner is None or planner.kind is not RunKind.PLAN or planner.state is not RunState.COMPLETED:
        how = "is not there" if planner is None else f"is {planner.state.replace('_', ' ')}"
        why = f": {planner.error}" if planner is not None and planner.error else ""
        return Gathered(error=f"nothing was changed, for the plan {standing.run.plan_run} {how}{why}")
    plan = await index(services, planner.id)
    taking = _Taking(services, ref.run_id, retry=standing.request.retry_rolled_back)
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
    services: Services, run_id: str, plans: Sequence[NodePlan], digest: str, *, retry: bool
) -> Gathered:
    """Give a fix these plans; as `gather`."""
    taking = _Taking(services, run_id, retry=retry)
    await taking.take(plans)
    return await taking.keep(digest, "")


@dataclass
class _Taking:
    """Plans on their way into a fix: by pool, a page of each held."""

    services: Services
    run_id: str
    retry: bool
    counts: list[int] = field(default_factory=list)
    _pools: dict[tuple[str, str, str, str], int] = field(default_factory=dict)
    _pages: dict[int, list[NodePlan]] = field(default_factory=dict)
    _nodes: int = 0
    _left: Batch = field(default_factory=lambda: Batch("", 0, ()))

    async def take(self, planned: Sequence[NodePlan]) -> None:
        """Take plans in. A fix may have been rolled back since one was made: its node is left out, as when made."""
        known = await past(self.services, [plan.node for plan in planned])
        plans = [held_back(plan, known, retry=self.retry) for plan in planned]
        self._nodes += len(plans)
        for plan in plans:
            if not plan.refused:
                await self._add(plan)
        refused = [leaving.left_alone(self.run_id, plan, "no_plan", plan.refused) for plan in plans if plan.refused]
        for one in await record(self.services, refused, known, leaving.unrecorded(self.run_id)):
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
        if len(page) == pages.PAGE:
            await self._put(pool)

    async def _put(self, pool: int) -> None:
        page = self._pages.pop(pool)
        await pages.save(self.services.store, self.run_id, pool, (self.counts[pool] - 1) // pages.PAGE, page)

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


async def open_fix(services: Services, ref: Ref) -> Pools:
    """How the pools of a fix stand: where an earlier beginning of it got to."""
    gathered = await documents.load(services.store, ref.run_id, keys.GATHERED, documents.GATHERED)
    pools = [PoolNow(nodes=nodes) for nodes in gathered.pools]
    async for work in services.store.works(ref.run_id, keys.FIX):
        batch, number = batches.from_text(work.text, work.name), keys.pool_of(work.name)
        pools[number] = _with_row(pools[number], work.name, batch, datetime.now(UTC))
    return Pools(pools=tuple(pools))


def _with_row(pool: PoolNow, name: str, batch: Batch, now: datetime) -> PoolNow:
    if batch.nodes:
        row = OpenBatch(name=name, open=len(batch.nodes), due=batch.due(now) or now)
        return pool.model_copy(update={"wave": pool.wave + batch.found, "batches": (*pool.batches, row)})
    tally = total([pool.tally, batch.tally])
    if pool.wave:  # of the wave that is in hand, and over
        return pool.model_copy(update={"wave": pool.wave + batch.found, "tally": tally})
    return pool.model_copy(update={"done": pool.done + batch.found, "tally": tally})


async def open_wave(services: Services, message: OpenWave) -> WaveOpened:
    """Make a wave ready: look whether its pool may be touched, and at each of its nodes; nothing is changed yet."""
    standing = await stand(services, message)
    run_id, store = message.run_id, services.store
    if standing.over:
        return WaveOpened(over=True)
    if standing.cancelled:
        return WaveOpened(stop=leaving.CANCELLED_REASON)
    if not services.settings.allow_fix:
        return WaveOpened(stop="this deployment does not allow fixes (GUARD_ALLOW_FIX)")
    if await store.hold() is not None:
        return WaveOpened(held=True)
    numbers = range(message.first, message.first + message.count)
    before = range(max(0, message.first - message.count), message.first)
    plans = await pages.load(store, run_id, message.pool, [*before, *numbers])
    wave = [plans[number] for number in numbers]
    now, trouble = await _look_at_pool(services, message, [plans[n] for n in before], wave)
    if trouble:
        return WaveOpened(stop=trouble)
    recorded = await _recorded(services, run_id, wave) if message.epoch else set()
    names = []
    for at in range(0, len(wave), BATCH):
        name = keys.fix_batch(message.pool, message.first + at)
        some = {message.first + at + n: plan for n, plan in enumerate(wave[at : at + BATCH])}
        await _open_batch(services, run_id, name, some, now, recorded)
        names.append(name)
    return WaveOpened(batches=tuple(names))


async def _recorded(services: Services, run_id: str, wave: Sequence[NodePlan]) -> set[str]:
    """The nodes that have their outcome already: a fix that is gone on with had left them."""
    keys_of = {findings.key_of(plan.node, item): plan.node.key for plan in wave for item in plan.controls}
    return {keys_of[key] for key in await services.store.recorded(run_id, list(keys_of))}


async def _open_batch(
    services: Services,
    run_id: str,
    name: str,
    plans: Mapping[int, NodePlan],
    now: Mapping[str, Node | Problem],
    recorded: set[str],
) -> None:
    if await services.store.work(run_id, name) is not None:
        return
    alone: list[Judged] = []
    nodes: list[OpenNode] = []
    for number, plan in plans.items():
        if plan.node.key in recorded:
            continue
        current = now.get(plan.node.key)
        left = left_alone(run_id, plan, current if isinstance(current, Node) else None)
        if left is None:
            nodes.append(OpenNode(plan.node, plan=number))
        else:
            alone.append(Judged(plan.node, left.findings, left.proofs))
    known = await past(services, [one.node for one in alone])
    batch = Batch(next(iter(plans.values())).node.location, len(plans), tuple(nodes))
    for one in await record(services, alone, known, leaving.unrecorded(run_id)):
        batch = batch.counted(one.findings)
    await services.store.put_work(run_id, name, batches.to_text(batch), None)
    if alone:
        await save_progress(services, run_id, name, batch)


async def _look_at_pool(
    services: Services, wave: OpenWave, before: Sequence[NodePlan], plans: Sequence[NodePlan]
) -> tuple[Mapping[str, Node | Problem], str]:
    """The wave's nodes as they are now, and why no node of the pool may be touched (or '').

    Nodes that ran before the first wave and do not any more mean trouble. The whole pool is listed now and then, and
    otherwise only the nodes of this wave and of the one before asked for, so that the calls grow with the nodes.
    """
    member = plans[0].node
    cluster = await services.azure.cluster(member.subscription, member.resource_group, member.cluster)
    if isinstance(cluster, Problem):
        return {}, cluster.reason
    pool = next((item for item in cluster.pools if item.name.lower() == member.node_pool.lower()), None)
    for noun, state in (("cluster", cluster.provisioning), ("node pool", pool.provisioning if pool else "gone")):
        if state.lower() != "succeeded":
            return {}, f"the {noun} is not in the state Succeeded but {state}: left for later"
    store, name = services.store, keys.pool_running(wave.pool)
    ran = await documents.find(store, wave.run_id, name, documents.KEYS)
    nodes: dict[str, Node | Problem] = {}
    if ran is None or await _another_tenth(services, wave):
        async for item in services.azure.nodes(cluster, [member.node_pool]):
            if isinstance(item, ScopeProblem):
                return {}, item.problem.reason
            nodes[item.key] = item
        looked_at = set(ran or ())
    else:
        asked = [plan.node for plan in (*before, *plans)]
        found = await asyncio.gather(*(services.azure.node(node) for node in asked))
        nodes = {node.key: now for node, now in zip(asked, found, strict=True)}
        looked_at = {node.key for node in asked} & set(ran)
    if ran is None:
        await documents.save(store, wave.run_id, name, documents.KEYS, sorted(k for k, n in nodes.items() if _well(n)))
        return nodes, ""
    unwell = sorted(key for key in looked_at if not _well(nodes.get(key)))
    names = ", ".join(_name(key, nodes.get(key)) for key in unwell[:3])
    return nodes, f"nodes of the pool that ran before do not now ({names}): stopped" if unwell else ""


async def _another_tenth(services: Services, wave: OpenWave) -> bool:
    gathered = await documents.load(services.store, wave.run_id, keys.GATHERED, documents.GATHERED)
    nodes = gathered.pools[wave.pool]
    return wave.first * _LOOKS_AT_ALL // nodes < (wave.first + wave.count) * _LOOKS_AT_ALL // nodes


def _name(key: str, node: Node | Problem | None) -> str:
    return node.name if isinstance(node, Node) else key.rsplit("/", 1)[-1]


def _well(node: Node | Problem | None) -> bool:
    if not isinstance(node, Node):
        return False
    return node.power.lower() in ("running", "") and node.provisioning.lower() not in ("failed", "deleting")
