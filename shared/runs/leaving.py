"""Recording the nodes that a run does not look at: it was cancelled, or what should have looked at them failed.

So a run's findings add up however it ends: a node that was found and has no finding yet gets one here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from shared.models import Finding, Node, Outcome, Problem, RunKind, ScopeProblem, Status
from shared.plain import plain
from shared.runs import documents, findings
from shared.runs.applying import LOOK
from shared.runs.context import Json
from shared.runs.plans import NodePlan
from shared.runs.request import FixRequest
from shared.runs.services import Services

CANCELLED = Problem(
    Status.SKIPPED, "cancelled", "the run was cancelled before this node's turn", "Start another run to look at it."
)


def failed(reason: str) -> Problem:
    """The problem of nodes whose part of the run failed as a whole."""
    return Problem(
        Status.ERROR,
        "batch_failed",
        f"the part of the run that this node belongs to failed: {plain(reason)}",
        "Run it again; if it fails again, look at the app's log.",
    )


async def leave_nodes(services: Services, job: Json, problem: Problem) -> Json:
    """Give `problem` to every node of a batch that has no finding in this run. Gives all its findings by status."""
    run_id, request = job["run_id"], FixRequest.model_validate(job["request"])
    place = f"{job['subscription']}/{job['batch']}"
    nodes = await documents.load(services.store, run_id, f"nodes/{place}", documents.NODES)
    now = datetime.now(UTC)
    made = [await _missing(services, run_id, node, request.control_ids, problem, now) for node in nodes]
    known = [finding for before, _ in made for finding in before]
    fresh = [finding for _, left in made for finding in left]
    await _save(services, known, fresh)
    plans = await services.store.document(run_id, f"plans/{place}")
    if job["kind"] != RunKind.AUDIT and plans is None:
        await documents.save(services.store, run_id, f"plans/{place}", documents.PLANS, [])
    return {"statuses": _by_status([*known, *fresh])}


async def fail_batch(services: Services, job: Json) -> Json:
    """Record a batch that failed for `job["reason"]`. Gives its findings by status."""
    return await leave_nodes(services, job, failed(job["reason"]))


async def fail_lane(services: Services, job: Json) -> Json:
    """Record a lane that failed for `job["reason"]`: all nodes of its `batches` batches, and the lane itself where it
    has none. Gives its findings by status."""
    run_id, subscription = job["run_id"], job["subscription"]
    problem = failed(job["reason"])
    statuses: Counter[str] = Counter()
    for batch in range(job["batches"]):
        statuses.update((await leave_nodes(services, {**job, "batch": batch}, problem))["statuses"])
    if job["batches"] == 0:
        request = FixRequest.model_validate(job["request"])
        lane = ScopeProblem(subscription, "", "", "", replace(problem, reason=_LANE + plain(job["reason"])))
        made = findings.from_scope(run_id, datetime.now(UTC), request.control_ids, lane)
        await _save(services, [], made)
        statuses.update(_by_status(made))
    return {"statuses": dict(statuses)}


_LANE = "looking into this subscription failed: "


async def fail_wave(services: Services, job: Json) -> Json:
    """Record `count` nodes of a pool from `first` on, whose wave failed for `job["reason"]`. Gives outcomes.

    A node to which the fix was sent counts as failed: what it did is not known.
    """
    run_id = job["run_id"]
    plans = await documents.load(services.store, run_id, f"pool/{job['pool']}", documents.PLANS)
    problem, now = failed(job["reason"]), datetime.now(UTC)
    outcomes: Counter[str] = Counter()
    for plan in plans[job["first"] : job["first"] + job["count"]]:
        known, left = await _missing(services, run_id, plan.node, plan.controls, problem, now)
        if left:
            left = await _with_outcome(services, run_id, plan, left)
        await _save(services, known, left)
        outcomes.update({str((known + left)[0].outcome): 1})
    return {"outcomes": dict(outcomes)}


async def _with_outcome(services: Services, run_id: str, plan: NodePlan, left: Sequence[Finding]) -> list[Finding]:
    if await services.store.command(run_id, plan.node.key, "fix") is None:
        return [replace(finding, status=Status.FAIL, outcome=Outcome.NOT_TRIED) for finding in left]
    unknown = f"{LOOK}: the fix was sent to the node; what it did is not known"
    return [replace(finding, outcome=Outcome.FAILED, reason=f"{unknown}: {finding.reason}") for finding in left]


async def _missing(
    services: Services, run_id: str, node: Node, control_ids: Sequence[str], problem: Problem, now: datetime
) -> tuple[list[Finding], list[Finding]]:
    """The findings that a node has in this run, and those made of `problem` for the controls without one."""
    keys = {findings.key_of(node, control_id): control_id for control_id in control_ids}
    known: Mapping[str, Finding] = await services.store.recorded(run_id, list(keys))
    without = [control_id for key, control_id in keys.items() if key not in known]
    return list(known.values()), findings.from_problem(run_id, now, node, without, problem)


async def _save(services: Services, known: list[Finding], fresh: list[Finding]) -> None:
    await services.store.save_findings(fresh)
    services.on_findings([*known, *fresh])


def _by_status(made: Sequence[Finding]) -> dict[str, int]:
    return dict(Counter(str(finding.status) for finding in made))
