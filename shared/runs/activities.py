"""The work of a run, in pieces that a host may repeat: each takes and gives JSON, and is idempotent.

What is large (nodes, evidence, findings) goes through the store; what is returned is small. One bad node, cluster or
subscription becomes findings; what is raised is for the whole run (no credential, no store), or unforeseen.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import groupby

from shared.azure import SubscriptionError
from shared.models import Cluster, Finding, Node, ScopeProblem
from shared.runs import documents, findings, lifecycle, names, stopping
from shared.runs.auditing import audit_batch
from shared.runs.context import Json
from shared.runs.fixing import fix_wave, gather, leave_wave
from shared.runs.leaving import CANCELLED, fail_batch, fail_lane, fail_wave, leave_nodes
from shared.runs.request import FixRequest
from shared.runs.services import Services

BATCH = 50
"""Nodes a batch: small enough to be repeated after a crash, large enough to keep histories short."""


async def scope(services: Services, job: Json) -> Json:
    """The `subscriptions` to look at, one lane each; or `error`: the request names one that cannot be seen."""
    request = FixRequest.model_validate(job["request"])
    if not request.subscriptions and services.settings.subscriptions:
        return {"subscriptions": list(services.settings.subscriptions)}
    visible = {subscription.id for subscription in await services.azure.subscriptions()}
    unknown = names.unknown(request.subscriptions, visible)
    if unknown:
        return {
            "error": f"no subscription {', '.join(unknown)} among the {len(visible)} that this identity can see;"
            f" {names.there_is(unknown, visible)}. Correct the id, or give the identity a role there"
            " (docs/deploying.md)"
        }
    if not visible:
        return {
            "error": "this identity can see no subscription: give it a role on one (docs/deploying.md), or sign in"
            " with another (az login)"
        }
    return {"subscriptions": list(request.subscriptions) or sorted(visible)}


async def discover(services: Services, job: Json) -> Json:
    """Find a subscription's clusters and nodes, and put them into the store as batches.

    Gives the batches (region and number of nodes), and the names of all clusters and pools in scope; `unseen` where
    the subscription could not be looked at, so that there may be others.
    """
    request = FixRequest.model_validate(job["request"])
    subscription = job["subscription"]
    try:
        clusters = await services.azure.clusters(subscription)
    except SubscriptionError as error:
        problems = [ScopeProblem(subscription, "", "", "", error.problem)]
        await documents.save(
            services.store, job["run_id"], f"problems/{subscription}", documents.SCOPE_PROBLEMS, problems
        )
        return {"batches": [], "clusters": [], "pools": [], "problems": 1, "unseen": True}
    wanted = {name.lower() for name in request.clusters}
    chosen = [cluster for cluster in clusters if not wanted or cluster.name.lower() in wanted]
    looked = await asyncio.gather(*(_nodes(services, cluster, request) for cluster in chosen))
    nodes = [node for found, _ in looked for node in found]
    # One that concerns the whole subscription is met at every cluster, and said once.
    problems = list(dict.fromkeys(problem for _, found in looked for problem in found))
    batches = make_batches(nodes)
    for number, batch in enumerate(batches):
        await documents.save(services.store, job["run_id"], f"nodes/{subscription}/{number}", documents.NODES, batch)
    await documents.save(services.store, job["run_id"], f"problems/{subscription}", documents.SCOPE_PROBLEMS, problems)
    services.on_found(len(nodes))
    return {
        "batches": [[batch[0].location, len(batch)] for batch in batches],
        "clusters": sorted({cluster.name.lower() for cluster in clusters}),
        "pools": sorted({pool.name.lower() for cluster in chosen for pool in cluster.pools}),
        "problems": len(problems),
    }


async def _nodes(services: Services, cluster: Cluster, request: FixRequest) -> tuple[list[Node], list[ScopeProblem]]:
    return await services.azure.list_nodes(cluster, request.node_pools or None)


def make_batches(nodes: list[Node]) -> list[list[Node]]:
    """Batches of at most BATCH nodes of one region, the regions taking turns (pure)."""
    by_region = groupby(sorted(nodes, key=lambda node: (node.location, node.key)), key=lambda node: node.location)
    queues = []
    for _, group in by_region:
        members = list(group)
        queues.append([members[at : at + BATCH] for at in range(0, len(members), BATCH)])
    turns = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(turns) for queue in queues if turn < len(queue)]


async def record_problems(services: Services, job: Json) -> Json:
    """Record what could not be listed in a lane: a finding for each subscription, cluster or pool."""
    request = FixRequest.model_validate(job["request"])
    problems = await documents.load(
        services.store, job["run_id"], f"problems/{job['subscription']}", documents.SCOPE_PROBLEMS
    )
    now = datetime.now(UTC)
    made = [
        finding
        for problem in problems
        for finding in findings.from_scope(job["run_id"], now, request.control_ids, problem)
    ]
    await services.store.save_findings(made)
    services.on_findings(made)
    return {"statuses": _count(made)}


def _count(made: list[Finding]) -> dict[str, int]:
    return dict(Counter(str(finding.status) for finding in made))


async def audit_or_leave(services: Services, job: Json) -> Json:
    """Audit a batch, or leave its nodes where the run was cancelled. Gives findings by status, and `cancelled`."""
    if await stopping.cancelled(services.store, stopping.root(job)):
        return {**await leave_nodes(services, job, CANCELLED), "cancelled": True}
    return {"statuses": await audit_batch(services, job), "cancelled": False}


async def fix_or_leave(services: Services, job: Json) -> Json:
    """Fix a wave, or leave its nodes where the run was cancelled. See `fix_wave`."""
    if await stopping.cancelled(services.store, stopping.root(job)):
        reason = "the run was cancelled"
        return {**await leave_wave(services, {**job, "reason": reason}), "stop": reason}
    return await fix_wave(services, job)


ACTIVITIES: dict[str, Callable[[Services, Json], Awaitable[Json]]] = {
    "scope": scope,
    "discover": discover,
    "record_problems": record_problems,
    "audit_batch": audit_or_leave,
    "fail_batch": fail_batch,
    "fail_lane": fail_lane,
    "gather": gather,
    "fix_wave": fix_or_leave,
    "leave_wave": leave_wave,
    "fail_wave": fail_wave,
    "begin": lifecycle.begin,
    "ask_approval": lifecycle.ask_approval,
    "approval": lifecycle.approval,
    "stopped": lifecycle.stopped,
    "finish": lifecycle.finish,
}
