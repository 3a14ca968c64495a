"""A fix's waves: how its pools stand, and each wave made ready by looking at what it is about to touch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from shared.errors import EndpointError
from shared.models import Node, Problem, ScopeProblem, Status
from shared.runs import documents
from shared.runs.model import batch as batches
from shared.runs.model import findings, keys
from shared.runs.model.batch import BATCH, Batch, OpenNode, total
from shared.runs.model.messages import OpenBatch, OpenWave, PoolNow, Pools, Ref, WaveOpened
from shared.runs.model.plans import NodePlan, not_now
from shared.runs.model.progress import Progress
from shared.runs.model.request import FixRequest
from shared.runs.model.waves import Limits, waves_left
from shared.runs.nodes.repairing import barred
from shared.runs.services import Services
from shared.runs.steps import left_undone, plan_pages
from shared.runs.steps.node_record import Judged, past, record
from shared.runs.steps.progress_rows import save_counts, save_progress
from shared.runs.steps.standing import stand

_LOOKS_AT_ALL = 10
"""How often a pool's nodes are all listed in a fix: at its first wave, and whenever another tenth of them is over."""

_ASKING = 30
"""About how many seconds it takes to ask a cluster how its nodes are."""

_GONE = Problem(Status.SKIPPED, "vanished", "the node is not there any more", "Run the audit again.")


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
        return WaveOpened(stop=left_undone.CANCELLED_REASON)
    numbers = range(message.first, message.first + message.count)
    before = range(max(0, message.first - message.count), message.first)
    plans = await plan_pages.load(store, run_id, message.pool, [*before, *numbers])
    wave = [plans[number] for number in numbers]
    if stop := next((why for plan in wave if (why := not_now(plan, services.settings))), ""):
        return WaveOpened(stop=stop)
    if await store.hold() is not None:
        return WaveOpened(held=True)
    now, trouble = await _look_at_pool(services, message, [plans[n] for n in before], wave)
    if trouble:
        return WaveOpened(stop=trouble)
    recorded = await _recorded(services, run_id, wave) if message.epoch else set()
    names = []
    for at in range(0, len(wave), BATCH):
        name = keys.fix_batch(message.pool, message.first + at)
        some = {message.first + at + n: plan for n, plan in enumerate(wave[at : at + BATCH])}
        await _open_batch(services, run_id, name, some, now, recorded, standing.request)
        names.append(name)
    await _expect(services, standing.request, message)
    return WaveOpened(batches=tuple(names))


async def _expect(services: Services, request: FixRequest, wave: OpenWave) -> None:
    """Write down when the pool is expected to be done, if nothing fails."""
    gathered = await documents.load(services.store, wave.run_id, keys.GATHERED, documents.GATHERED)
    limits = Limits(request.max_unavailable, request.max_failures, request.canary)
    waves = waves_left(gathered.pools[wave.pool], wave.first, limits)
    settings = services.settings
    each = request.pause_seconds + settings.settle_seconds + settings.command_seconds * 1.5
    each += _ASKING if request.sweeps else 0
    row = Progress(until=datetime.now(UTC) + timedelta(seconds=waves * each))
    await save_counts(services, wave.run_id, keys.pool_until(wave.pool), row)


async def _recorded(services: Services, run_id: str, wave: Sequence[NodePlan]) -> set[str]:
    """The nodes that have their outcome already: a fix that is gone on with had left them."""
    wanted = {plan.node.key: {findings.key_of(plan.node, item) for item in plan.controls} for plan in wave}
    there = set(await services.store.recorded(run_id, sorted(set().union(*wanted.values()))))
    return {node for node, of_node in wanted.items() if of_node <= there}


async def _open_batch(
    services: Services,
    run_id: str,
    name: str,
    plans: Mapping[int, NodePlan],
    now: Mapping[str, Node | Problem],
    recorded: set[str],
    request: FixRequest,
) -> None:
    if await services.store.work(run_id, name) is not None:
        return
    alone: list[Judged] = []
    nodes: list[OpenNode] = []
    for number, plan in plans.items():
        if plan.node.key in recorded:
            continue
        left = barred(run_id, plan, now.get(plan.node.key, _GONE))
        if left is None:
            nodes.append(OpenNode(plan.node, plan=number))
        else:
            alone.append(Judged(plan.node, left.findings, left.proofs))
    known = await past(services, [one.node for one in alone])
    batch = Batch(next(iter(plans.values())).node.location, len(plans), tuple(nodes))
    for one in await record(services, alone, known, left_undone.unrecorded(run_id), request):
        batch = batch.counted(one.findings)
    await services.store.put_work(run_id, name, batches.to_text(batch), None)
    if alone:
        await save_progress(services, run_id, name, batch)


async def _look_at_pool(
    services: Services, wave: OpenWave, before: Sequence[NodePlan], plans: Sequence[NodePlan]
) -> tuple[Mapping[str, Node | Problem], str]:
    """The wave's nodes as they are now, and why no node of the pool may be touched (or '').

    Nodes that ran before the first wave and do not any more mean trouble. The whole pool is listed now and then, and
    otherwise only the nodes of this wave and of the one before asked for, so that the calls grow with the nodes. Raises
    CredentialError or EndpointError where Azure cannot be asked now: that says nothing of the pool.
    """
    member = plans[0].node
    cluster = await services.azure.cluster(member.subscription, member.resource_group, member.cluster)
    if isinstance(cluster, Problem):
        return {}, cluster.reason if _is_gone(cluster) else _unseen(f"cluster {member.cluster}", cluster)
    pool = next((item for item in cluster.pools if item.name.lower() == member.node_pool.lower()), None)
    states = [("cluster", cluster.provisioning)]
    # A pool of node auto-provisioning is none of the cluster's: only its nodes show it.
    if pool is not None or not (member.single and cluster.auto_provisioned):
        states.append(("node pool", pool.provisioning if pool is not None else "gone"))
    for noun, state in states:
        if state.lower() != "succeeded":
            return {}, f"the {noun} is not in the state Succeeded but {state}: left for later"
    store, name = services.store, keys.pool_running(wave.pool)
    ran = await documents.find(store, wave.run_id, name, documents.KEYS)
    nodes: dict[str, Node | Problem] = {}
    if ran is None or await _another_tenth(services, wave):
        async for item in services.azure.nodes(cluster, [member.node_pool]):
            if isinstance(item, ScopeProblem):
                if item.passing:
                    raise EndpointError(f"node pool {member.node_pool}: {item.problem.reason}")
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
    for key in unwell:
        if isinstance(met := nodes.get(key), Problem) and not _is_gone(met):
            return nodes, _unseen(_name(key, met), met)
    names = ", ".join(_name(key, nodes.get(key)) for key in unwell[:3])
    return nodes, f"nodes of the pool that ran before do not now ({names}): stopped" if unwell else ""


async def _another_tenth(services: Services, wave: OpenWave) -> bool:
    gathered = await documents.load(services.store, wave.run_id, keys.GATHERED, documents.GATHERED)
    nodes = gathered.pools[wave.pool]
    return wave.first * _LOOKS_AT_ALL // nodes < (wave.first + wave.count) * _LOOKS_AT_ALL // nodes


def _is_gone(problem: Problem) -> bool:
    return problem.code == _GONE.code


def _unseen(what: str, problem: Problem) -> str:
    return f"{what} could not be looked at: {problem.reason}"


def _name(key: str, node: Node | Problem | None) -> str:
    return node.name if isinstance(node, Node) else key.rsplit("/", 1)[-1]


def _well(node: Node | Problem | None) -> bool:
    if not isinstance(node, Node):
        return False
    return node.power.lower() in ("running", "") and node.provisioning.lower() not in ("failed", "deleting")
