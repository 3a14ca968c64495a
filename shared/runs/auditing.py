"""Auditing the nodes of one batch: evidence, verdicts, findings, and in a run that plans, the plan for what fails."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import UTC, datetime

from shared.azure import precheck
from shared.controls import Verdict, control, judge
from shared.errors import NotStorable, StoreError
from shared.models import Evidence, Finding, Node, Problem, RunKind, Status
from shared.runs import documents, findings
from shared.runs.collecting import collect
from shared.runs.context import Json
from shared.runs.history import Past
from shared.runs.plans import NodePlan, held_back, plan_node
from shared.runs.recording import past, record
from shared.runs.request import FixRequest
from shared.runs.services import Services

log = logging.getLogger(__name__)


async def audit_batch(services: Services, job: Json) -> Json:
    """Audit the nodes of one batch; gives the number of findings by status.

    Nodes that are done are not done again, unless the run plans: a plan needs the evidence once more.
    """
    run_id, request = job["run_id"], FixRequest.model_validate(job["request"])
    place = f"{job['subscription']}/{job['batch']}"
    nodes = await documents.load(services.store, run_id, f"nodes/{place}", documents.NODES)
    known = await past(services, nodes)
    results = await asyncio.gather(*(_audit_node(services, job, node, request, known) for node in nodes))
    if job["kind"] != RunKind.AUDIT:
        plans = [planned for _, planned in results if planned is not None]
        await documents.save(services.store, run_id, f"plans/{place}", documents.PLANS, plans)
    return dict(Counter(str(finding.status) for made, _ in results for finding in made))


async def _audit_node(
    services: Services, job: Json, node: Node, request: FixRequest, known: Past
) -> tuple[list[Finding], NodePlan | None]:
    run_id, plans = job["run_id"], job["kind"] != RunKind.AUDIT
    keys = [findings.key_of(node, control_id) for control_id in request.control_ids]
    done = await services.store.recorded(run_id, keys)
    if len(done) == len(keys) and not plans:
        made = list(done.values())
        services.on_findings(made)
        return made, None
    made, planned, proofs = await _look(services, job, node, request, known)
    try:
        return await record(services, node, made, known, proofs), planned
    except Exception as error:
        if isinstance(error, StoreError) and not isinstance(error, NotStorable):
            raise  # the store's trouble, and not this node's: the batch is done again
        log.exception("recording %s failed", node.id)
        made = examine(run_id, node, request.control_ids, internal(error))
        return await record(services, node, made, known), None


async def _look(
    services: Services, job: Json, node: Node, request: FixRequest, known: Past
) -> tuple[list[Finding], NodePlan | None, dict[str, str]]:
    """One node's findings, its plan where there is to be one, and what was proved, by control."""
    run_id, plans = job["run_id"], job["kind"] != RunKind.AUDIT
    try:
        seen = precheck(node) or await collect(services, run_id, node)
        if isinstance(seen, Problem):
            return examine(run_id, node, request.control_ids, seen), None, {}
        verdicts = judged(node, request.control_ids, seen, known)
        now = datetime.now(UTC)
        made = [findings.from_verdict(run_id, now, node, name, verdict) for name, verdict in verdicts.items()]
        failing = tuple(finding.control for finding in made if finding.status is Status.FAIL)
        planned = None
        if plans and failing:
            planned = held_back(plan_node(node, failing, seen, request.method), known, retry=request.retry_rolled_back)
            documents.PLANS.dump_json([planned])  # what could not be stored would take the batch along
        return made, planned, {name: verdict.proof for name, verdict in verdicts.items()}
    except Exception as error:
        # Nothing that one node does may stop the others; what happened is in the finding and the log.
        log.exception("auditing %s failed", node.id)
        return examine(run_id, node, request.control_ids, internal(error)), None, {}


def judged(node: Node, control_ids: tuple[str, ...], seen: Evidence, known: Past) -> dict[str, Verdict]:
    """The verdicts on what was seen of a node, by control (pure)."""
    verdicts = {}
    for name in control_ids:
        before = known.get((node.key, name))
        verdicts[name] = judge(control(name), seen, node.kubernetes_version, before.proof if before else "")
    return verdicts


def examine(run_id: str, node: Node, control_ids: tuple[str, ...], seen: Evidence | Problem) -> list[Finding]:
    """The findings of what was seen of a node, without what earlier looks proved (pure but for the clock)."""
    now = datetime.now(UTC)
    if isinstance(seen, Problem):
        return findings.from_problem(run_id, now, node, control_ids, seen)
    verdicts = judged(node, control_ids, seen, {})
    return [findings.from_verdict(run_id, now, node, name, verdict) for name, verdict in verdicts.items()]


def proofs(node: Node, control_ids: tuple[str, ...], seen: Evidence | Problem) -> dict[str, str]:
    """What a look proved of the process that it saw, by control (pure)."""
    if isinstance(seen, Problem):
        return {}
    return {name: verdict.proof for name, verdict in judged(node, control_ids, seen, {}).items()}


def internal(error: Exception) -> Problem:
    """The problem that an unforeseen exception is."""
    return Problem(
        Status.ERROR,
        "internal",
        f"the run itself failed on this node: {type(error).__name__}",
        "Report this with the log of the run.",
    )
