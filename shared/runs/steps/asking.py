"""Asking a pool's cluster, before each wave of a fix, how the nodes are that the waves before have changed.

Where it could not be asked before the first wave, it is not asked again: the fix then rests on what Azure and the nodes
themselves say. The commands change nothing, so that one which is sent twice does no harm.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from shared.azure import Pending
from shared.cluster import Sweep, node_name
from shared.models import Cluster, Problem
from shared.node.frames import request_nonce
from shared.runs import documents
from shared.runs.model import keys, rows, sweeps
from shared.runs.model.messages import AskPool, PoolAsked
from shared.runs.model.plans import NodePlan
from shared.runs.model.sweeps import NodeWell, PoolQuestion
from shared.runs.services import Services
from shared.runs.steps import plan_pages
from shared.runs.steps.advancing import OvertakenError
from shared.runs.steps.in_cluster import ask
from shared.runs.steps.standing import stand

log = logging.getLogger(__name__)

# A node that was restarted a moment ago may be Ready a moment later.
_TRIES = 3
_PAUSE = timedelta(seconds=20)
# Of a large pool the nodes that the last waves changed, and those that the next ones do: how they are before that.
_BEHIND, _MOST_NODES = 200, 400
# What every kubelet has: only how the nodes are is wanted.
_SETTING = "healthzPort"


async def ask_pool(services: Services, message: AskPool) -> PoolAsked:
    """Do what is due; gives when to come again, or why the pool is left. Raises StoreError; then it may be done again.

    A node is as well as before its fix where it is Ready if it was, and no more of its pods are not well.
    """
    standing = await stand(services, message)
    if standing.over or standing.cancelled:
        return PoolAsked(over=standing.over, stop="the run was cancelled" if standing.cancelled else "")
    store, run_id = services.store, standing.run.id
    first = await documents.find(store, run_id, keys.pool_well(message.pool, 0), documents.WELL)
    if message.done and not first:
        return PoolAsked()
    if await documents.find(store, run_id, keys.pool_well(message.pool, message.done), documents.WELL) is not None:
        return PoolAsked()
    numbers = await _numbers(services, message)
    plans = await plan_pages.load(store, run_id, message.pool, numbers)
    names = {number: plan.node.name.lower() for number, plan in plans.items()}
    nodes = {name: plans[number] for number, name in names.items() if node_name(name)}
    if not nodes:
        return PoolAsked()
    before = await documents.find(store, run_id, keys.pool_well(message.pool, message.since), documents.WELL)
    before = first if before is None else before
    changed = [name for number, name in names.items() if number < message.done]
    name = keys.pool_asked(message.pool, message.done)
    work = await store.work(run_id, name)
    question = PoolQuestion() if work is None else rows.from_text(sweeps.QUESTION, work.text, f"the question {name}")
    nonce = request_nonce(run_id, name, str(question.tries))
    outcome = await _outcome(services, nodes, question.command, nonce)
    now = datetime.now(UTC)
    if isinstance(outcome, Pending):
        question = replace(question, command=outcome)
        trouble = ""
    else:
        trouble = _trouble(outcome, changed, before or {}, message)
        if not trouble:
            told = {} if isinstance(outcome, Problem) else _told(outcome)
            # Of each node how it was before its fix.
            well = {**(before or {}), **{name: how for name, how in told.items() if name not in changed}}
            await documents.save(store, run_id, keys.pool_well(message.pool, message.done), documents.WELL, well)
            return PoolAsked()
        question = PoolQuestion(tries=question.tries + 1)
    if trouble and question.tries >= _TRIES:
        return PoolAsked(stop=f"after the last wave {trouble}")
    due = outcome.due if isinstance(outcome, Pending) else now + _PAUSE
    etag = await store.put_work(
        run_id, name, rows.to_text(sweeps.QUESTION, question), work.etag if work is not None else None
    )
    if etag is None:
        raise OvertakenError(f"the question {name} was gone on with by another one meanwhile")
    return PoolAsked(due=due)


async def _numbers(services: Services, message: AskPool) -> range:
    """The nodes that are asked for."""
    gathered = await documents.load(services.store, message.run_id, keys.GATHERED, documents.GATHERED)
    first = max(0, message.done - _BEHIND)
    return range(first, min(gathered.pools[message.pool], first + _MOST_NODES))


async def _outcome(
    services: Services, nodes: dict[str, NodePlan], command: Pending | None, nonce: str
) -> Pending | Sweep | Problem:
    member = next(iter(nodes.values())).node
    cluster = await services.azure.cluster(member.subscription, member.resource_group, member.cluster)
    if not isinstance(cluster, Cluster):
        return cluster
    # By the API server nobody but that is asked.
    names = () if services.settings.sweep_way == "api" else (_SETTING,)
    return await ask(services, cluster, names, command, nonce, nodes=sorted(nodes), pods=True)


def _told(sweep: Sweep) -> dict[str, NodeWell]:
    """How the nodes are of which that is known."""
    told = {name: NodeWell(node.ready, node.failing) for name, node in sweep.nodes.items()}
    return {name: how for name, how in told.items() if how != NodeWell(None, None)}


def _trouble(outcome: Sweep | Problem, changed: list[str], before: dict[str, NodeWell], message: AskPool) -> str:
    """Why the pool is left, '' where nothing is worse than before (pure)."""
    if not message.done:
        problem = outcome if isinstance(outcome, Problem) else outcome.problem
        if problem is not None:
            log.warning("how the nodes of pool %s are cannot be asked: %s", message.pool, problem.reason)
        return ""
    if isinstance(outcome, Problem):
        return f"the cluster could not be asked how its nodes are: {outcome.reason}"
    if all(node.ready is None for node in outcome.nodes.values()):
        why = outcome.problem.reason if outcome.problem is not None else "it told of none"
        return f"the cluster did not say how its nodes are: {why}"
    now = _told(outcome)
    return next((why for name in changed if (why := sweeps.worse(name, before.get(name), now.get(name)))), "")
