"""What was seen of a node, as verdicts and findings (pure but for the clock)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from shared.controls import Code, Verdict, catalogue, control, judge_all, of_process
from shared.models import Evidence, Finding, Node, Problem, Status, Told
from shared.runs.model import findings
from shared.runs.model.history import Past


def judged(
    node: Node, control_ids: tuple[str, ...], seen: Evidence, known: Past, told: Told | None = None
) -> dict[str, Verdict]:
    """The verdicts on what was seen of a node, by control; `told` is what its kubelet told its cluster before."""
    proofs = {before.proof for (key, _), before in known.items() if key == node.key and before.proof}
    unfit = inapplicable(node, control_ids)
    asked = [control(name) for name in control_ids if name not in unfit]
    same = told is not None and of_process(told, seen, datetime.now(UTC))
    configz = told.values if told is not None and same else None
    made = judge_all(asked, seen, node.kubernetes_version, proofs, configz) if asked else {}
    return {name: unfit[name] if name in unfit else made[name] for name in control_ids}


def inapplicable(node: Node, control_ids: Sequence[str]) -> dict[str, Verdict]:
    """The verdicts on the controls that do not apply to a node, which is known without looking at it, or that are not
    there any more (pure)."""
    known = catalogue().controls
    why = {name: known[name].inapplicable(node) for name in control_ids if name in known}
    unfit = {
        name: Verdict(Status.NOT_APPLICABLE, Code.NOT_FOR_THIS_NODE, None, "", f"{reason}.", "Nothing to do.")
        for name, reason in why.items()
        if reason
    }
    return {**unfit, **{name: _GONE for name in control_ids if name not in known}}


_GONE = Verdict(
    Status.ERROR,
    Code.NO_CONTROL,
    None,
    "",
    "the catalogue (GUARD_CONTROLS_FILE) has no such control any more: it was changed while the run was going",
    "Start the run again.",
    witness="",
)


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
        unfit = inapplicable(node, control_ids)
        return Look(seen, findings.from_problem(run_id, now, node, control_ids, seen, unfit), {})
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
