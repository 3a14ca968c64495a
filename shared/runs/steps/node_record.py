"""Recording what was found: findings with what earlier runs knew of them, and for what later ones will ask."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shared.errors import NotStorable
from shared.models import Finding, Node, Problem, Status
from shared.runs.model import findings, history
from shared.runs.model.history import Past
from shared.runs.model.request import RunRequest
from shared.runs.nodes.verdicts import inapplicable, internal
from shared.runs.services import Services

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Judged:
    """A node that is done: its findings, and what was proved of it, by control."""

    node: Node
    findings: Sequence[Finding]
    proofs: Mapping[str, str] = field(default_factory=dict)


async def past(services: Services, nodes: Sequence[Node]) -> Past:
    """What earlier runs knew of these nodes."""
    return await services.store.history(nodes) if nodes else {}


async def record(
    services: Services,
    judged: Sequence[Judged],
    known: Past,
    mend: Callable[[Judged, Exception], Judged],
    request: RunRequest,
) -> list[Judged]:
    """Save what was found of nodes and what it teaches; gives them as saved, as the version of the
    benchmark has them that `request` reports by.

    A node whose findings cannot be stored gets those that `mend` makes of it, and keeps no other from being recorded.
    """
    if not judged:
        return []
    marked = [_marked(one, known, request.benchmark) for one in judged]
    try:
        await _save(services, marked, known, looks=request.witness == "smart")
    except NotStorable:
        marked = [await _save_alone(services, one, known, mend, request) for one in marked]
    services.tell_findings([finding for one in marked for finding in one.findings])
    return marked


async def _save_alone(
    services: Services, judged: Judged, known: Past, mend: Callable[[Judged, Exception], Judged], request: RunRequest
) -> Judged:
    try:
        await _save(services, [judged], known, looks=request.witness == "smart")
        return judged
    except NotStorable as error:
        log.exception("recording %s failed", judged.node.id)
        mended = _marked(mend(judged, error), known, request.benchmark)
        await _save(services, [mended], known, looks=False)
        return mended


def _marked(judged: Judged, known: Past, benchmark: str) -> Judged:
    made = [
        findings.reported_by(history.with_history(finding, known.get((judged.node.key, finding.control))), benchmark)
        for finding in judged.findings
    ]
    return Judged(judged.node, made, judged.proofs)


async def _save(services: Services, marked: Sequence[Judged], known: Past, *, looks: bool) -> None:
    lessons = [
        lesson
        for one in marked
        for finding in one.findings
        if (
            lesson := history.after(
                finding,
                one.node.key,
                known.get((one.node.key, finding.control)),
                one.proofs.get(finding.control, ""),
                looks=looks,
            )
        )
        is not None
    ]
    # In this order: a node with findings is done, and would not be remembered after an interruption between the two.
    await services.store.save_history(lessons)
    await services.store.save_findings([finding for one in marked for finding in one.findings])


def as_internal(run_id: str) -> Callable[[Judged, Exception], Judged]:
    """`mend` of an audit: the node's findings are that the run failed on it."""

    def mend(judged: Judged, error: Exception) -> Judged:
        controls = [finding.control for finding in judged.findings]
        return from_problem(run_id, judged.node, controls, internal(error))

    return mend


def from_problem(run_id: str, node: Node, controls: Sequence[str], problem: Problem) -> Judged:
    """A node that could not be looked at."""
    made = findings.from_problem(run_id, datetime.now(UTC), node, controls, problem, inapplicable(node, controls))
    return Judged(node, made)


def without_control(run_id: str, node: Node, controls: Sequence[str]) -> Judged | None:
    """The findings of a node to which none of the controls applies; None where one does."""
    unfit = inapplicable(node, controls)
    if len(unfit) < len(set(controls)):
        return None
    now = datetime.now(UTC)
    return Judged(node, [findings.from_verdict(run_id, now, node, name, verdict) for name, verdict in unfit.items()])


def failing_since(judged: Judged, known: Past) -> datetime | None:
    """When a control began to fail on the node that was right there once; None where none does. Of several the last.

    `known` may have it already: of an earlier run, or of this one where the node is recorded a second time.
    """
    times = []
    for finding in judged.findings:
        before = known.get((judged.node.key, finding.control))
        if finding.status is Status.FAIL and before is not None and before.last_right is not None:
            # Where 0.1.0 did not know it: at the latest when it was last written down.
            times.append((before.since or before.seen) if before.status is Status.FAIL else finding.observed)
    return max(times, default=None)
