"""Fixing nodes as planned, a wave at a time: what is asked of the node's state first, and what the outcome is."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from shared.azure import SubscriptionError
from shared.errors import NotStorable
from shared.models import Finding, Node, Outcome, Problem, Status
from shared.runs import documents, findings
from shared.runs.applying import fix_node, lost
from shared.runs.context import Json
from shared.runs.history import Past
from shared.runs.plans import NodePlan, digest, held_back
from shared.runs.recording import past, record
from shared.runs.request import FixRequest
from shared.runs.services import Services

log = logging.getLogger(__name__)

_FAILURES = (Outcome.FAILED, Outcome.ROLLED_BACK)


async def gather(services: Services, job: Json) -> Json:
    """Put a planning run's plans into the fixing run, by pool. Gives the number of nodes of each, and the digest.

    `job["plans"]` names the planning run and its batches by subscription. Nodes for which nothing could be planned
    get their outcome here.
    """
    source, batches = job["plans"]["run_id"], job["plans"]["batches"]
    plans = [
        plan
        for subscription, count in batches.items()
        for batch in range(count)
        for plan in await documents.load(services.store, source, f"plans/{subscription}/{batch}", documents.PLANS)
    ]
    return await put_plans(services, job["run_id"], plans, FixRequest.model_validate(job["request"]))


async def put_plans(services: Services, run_id: str, planned: list[NodePlan], request: FixRequest) -> Json:
    """Store plans by pool for a fixing run, and record the nodes that cannot be fixed.

    A fix may have been rolled back since the plan was made: such a node is left out, as it is when one is made.
    """
    known = await past(services, [plan.node for plan in planned])
    plans = [held_back(plan, known, retry=request.retry_rolled_back) for plan in planned]
    pools: dict[tuple[str, str, str], list[NodePlan]] = defaultdict(list)
    refused = [plan for plan in plans if plan.refused]
    for plan in plans:
        if not plan.refused:
            pools[
                plan.node.subscription, plan.node.resource_group + "/" + plan.node.cluster, plan.node.node_pool
            ].append(plan)
    for number, (_, members) in enumerate(sorted(pools.items())):
        members.sort(key=lambda plan: plan.node.key)
        await documents.save(services.store, run_id, f"pool/{number}", documents.PLANS, members)
    counts = await _leave(services, run_id, refused, "no_plan", "there is no safe plan for it", use_refusal=True)
    services.on_found(len(plans))
    return {
        "pools": [len(members) for _, members in sorted(pools.items())],
        "digest": digest(planned),
        "nodes": len(plans),
        "outcomes": counts,
    }


async def fix_wave(services: Services, job: Json) -> Json:
    """Fix the nodes `first` to `first + count` of a pool. Gives outcomes, and `stop`: why no further wave may come."""
    run_id = job["run_id"]
    name = f"pool/{job['pool']}"
    plans = await documents.load(services.store, run_id, name, documents.PLANS)
    wave = plans[job["first"] : job["first"] + job["count"]]
    if not services.settings.allow_fix:
        return {
            "outcomes": await _leave(services, run_id, wave, "not_allowed", "this deployment does not allow fixes"),
            "stop": "this deployment does not allow fixes (GUARD_ALLOW_FIX)",
        }
    now, trouble = await _look_at_pool(services, run_id, name, plans[0].node)
    if trouble:
        return {"outcomes": await _leave(services, run_id, wave, "left", trouble), "stop": trouble}
    known = await past(services, [plan.node for plan in wave])
    fixes = [_fix_node(services, run_id, plan, now.get(plan.node.key), known) for plan in wave]
    ended = await asyncio.gather(*fixes, return_exceptions=True)
    made = [found for found in ended if not isinstance(found, BaseException)]
    for error in ended:
        if isinstance(error, BaseException):
            raise error  # now that the others have their outcome
    outcomes = Counter(str(finding.outcome) for found in made for finding in found[:1])
    return {"outcomes": dict(outcomes), "stop": ""}


async def leave_wave(services: Services, job: Json) -> Json:
    """Record that all nodes of a pool from `first` on were left alone, and why."""
    plans = await documents.load(services.store, job["run_id"], f"pool/{job['pool']}", documents.PLANS)
    return {"outcomes": await _leave(services, job["run_id"], plans[job["first"] :], "left", job["reason"])}


async def _look_at_pool(services: Services, run_id: str, name: str, member: Node) -> tuple[Mapping[str, Node], str]:
    """The pool's nodes as they are now, and why no node of it may be touched (or '').

    Nodes that ran before the first wave and do not any more mean trouble.
    """
    try:
        clusters = await services.azure.clusters(member.subscription)
    except SubscriptionError as error:
        return {}, error.problem.reason
    wanted = (member.resource_group.lower(), member.cluster.lower())
    cluster = next((item for item in clusters if (item.resource_group.lower(), item.name.lower()) == wanted), None)
    if cluster is None:
        return {}, f"the cluster {member.cluster} is not there any more"
    pool = next((item for item in cluster.pools if item.name.lower() == member.node_pool.lower()), None)
    for noun, state in (("cluster", cluster.provisioning), ("node pool", pool.provisioning if pool else "gone")):
        if state.lower() != "succeeded":
            return {}, f"the {noun} is not in the state Succeeded but {state}: left for later"
    nodes, problems = await services.azure.list_nodes(cluster, [member.node_pool])
    if problems:
        return {}, problems[0].problem.reason
    now = {node.key: node for node in nodes}
    before = await services.store.document(run_id, f"{name}/running")
    running = sorted(node.key for node in nodes if _well(node))
    if before is None:
        await services.store.save_document(run_id, f"{name}/running", "\n".join(running))
        return now, ""
    unwell = sorted(set(before.split("\n")) - set(running) - {""})
    names = ", ".join(now[key].name if key in now else key.rsplit("/", 1)[-1] for key in unwell[:3])
    return now, f"nodes of the pool that ran before do not now ({names}): stopped" if unwell else ""


def _well(node: Node) -> bool:
    return node.power.lower() in ("running", "") and node.provisioning.lower() not in ("failed", "deleting")


async def _fix_node(
    services: Services, run_id: str, plan: NodePlan, current: Node | None, known: Past
) -> list[Finding]:
    done = await services.store.recorded(run_id, [findings.key_of(plan.node, item) for item in plan.controls])
    if len(done) == len(plan.controls):
        made = list(done.values())
        services.on_findings(made)
        return made
    made, proved = await fix_node(services, run_id, plan, current)
    try:
        return await record(services, plan.node, made, known, proved)
    except NotStorable as error:
        log.exception("recording %s failed", plan.node.id)
        return await record(services, plan.node, lost(run_id, plan, error), known)


async def _leave(
    services: Services, run_id: str, plans: list[NodePlan], code: str, reason: str, *, use_refusal: bool = False
) -> dict[str, int]:
    """Record nodes that were not tried; those that have an outcome in this run already keep it."""
    now = datetime.now(UTC)
    left = 0
    for plan in plans:
        keys = [findings.key_of(plan.node, item) for item in plan.controls]
        if await services.store.recorded(run_id, keys):
            continue
        why = plan.refused if use_refusal else reason
        problem = Problem(Status.SKIPPED, code, f"not fixed: {why}", "")
        made = [
            replace(finding, outcome=Outcome.NOT_TRIED, status=Status.FAIL)
            for finding in findings.from_problem(run_id, now, plan.node, plan.controls, problem)
        ]
        await services.store.save_findings(made)
        services.on_findings(made)
        left += 1
    return {str(Outcome.NOT_TRIED): left} if left else {}


def failures(outcomes: Mapping[str, int]) -> int:
    """How many of these outcomes count against `max_failures` (pure)."""
    return sum(outcomes.get(str(outcome), 0) for outcome in _FAILURES)
