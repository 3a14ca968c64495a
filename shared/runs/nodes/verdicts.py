"""What was seen of a node, as verdicts and findings (pure but for the clock)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a node, its findings, and what was proved of the process, by control."""

    seen: Evidence | Problem
    findings: Sequence[Finding]
    proofs: Mapping[str, str]


def examine(run_id: str, node: Node, control_ids: tuple[str, ...], seen: Evidence | Problem) -> Look:
    """What was seen of a node, judged without what earlier looks proved (pure but for the clock)."""
    now = datetime.now(UTC)
    if isinstance(seen, Problem):
        return Look(seen, findings.from_problem(run_id, now, node, control_ids, seen), {})
    verdicts = judged(node, control_ids, seen, {})
    made = [findings.from_verdict(run_id, now, node, name, verdict) for name, verdict in verdicts.items()]
    return Look(seen, made, {name: verdict.proof for name, verdict in verdicts.items()})


def internal(error: Exception) -> Problem:
    """The problem that an unforeseen exception is."""
    return Problem(
        Status.ERROR,
        "internal",
        f"the run itself failed on this node: {type(error).__name__}",
        "Report this with the log of the run.",
    )
