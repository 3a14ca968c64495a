"""What was seen of a node, as verdicts and findings (pure but for the clock)."""

from __future__ import annotations

from datetime import UTC, datetime

from shared.controls import Verdict, control, judge
from shared.models import Evidence, Finding, Node, Problem, Status
from shared.runs.model import findings
from shared.runs.model.history import Past


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
