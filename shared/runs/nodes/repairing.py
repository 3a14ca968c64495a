"""Fixing one node as planned: applied, judged afresh, rolled back where it is not right; and what the outcome is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from shared.azure import precheck
from shared.models import Evidence, Finding, Node, Outcome, Problem, Status
from shared.node.evidence import EvidenceError, read
from shared.node.fixing import ApplyOutcome, CannotApply, Report, apply_script, parse_report, undo_script
from shared.node.frames import FrameError, MissingTools, parse, request_nonce, unpack
from shared.plain import plain
from shared.runs.model import findings
from shared.runs.model.plans import NodePlan
from shared.runs.nodes.looking import collect
from shared.runs.nodes.program import Program, Send
from shared.runs.nodes.verdicts import Look, examine, internal

LOOK = "LOOK AT THIS NODE"
"""Stands first where a person has to, as it does in what a node reports."""

LOOK_CODE = "look_at_node"
"""The code of a finding whose reason begins so: the alert on nodes that may be left broken goes by it."""

_FIX, _UNDO = "fix", "undo"
"""The steps that change a node."""

_OUTCOMES = {
    ApplyOutcome.APPLIED: Outcome.FIXED,
    ApplyOutcome.CHANGED_MEANWHILE: Outcome.CHANGED_MEANWHILE,
    ApplyOutcome.ROLLED_BACK: Outcome.ROLLED_BACK,
    ApplyOutcome.FAILED: Outcome.FAILED,
    ApplyOutcome.BUSY: Outcome.NOT_TRIED,
    ApplyOutcome.NOT_READY: Outcome.NOT_TRIED,
}

_LOOK_HINT = (
    "Look at `systemctl status kubelet` and `journalctl -u kubelet` on the node; reimage it where its kubelet does not"
    " get well. Then audit it again."
)
_NEXT = {
    Outcome.ROLLED_BACK: (
        "The node is as it was before. Look at `journalctl -u kubelet` on it, and correct what the reason names; the"
        " next fix leaves this node out unless it is asked for with --retry-rolled-back (retry_rolled_back over HTTP)."
    ),
    Outcome.FAILED: "The node's files are as they were before. Correct what the reason names, then fix it again.",
}


@dataclass(frozen=True, slots=True)
class _End:
    """What became of a node: the outcome, why it is not fixed (empty where it is), and the last look at it."""

    outcome: Outcome
    reason: str
    look: Look


@dataclass(frozen=True, slots=True)
class _Sent:
    """What came back of a script that changes the node: its report, None where `reason` says why there is none, and
    what was seen after it. `ran` is false where it is certain that nothing was carried out."""

    report: Report | None
    look: Look
    reason: str
    ran: bool = True
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class RestartLimits:
    """How long a restarted kubelet has to become healthy, and how long it must then stay so, in seconds."""

    restart_seconds: int
    settle_seconds: int


@dataclass(frozen=True, slots=True)
class Repaired:
    """A node's findings with their outcome, and what the last look at it proved, by control."""

    findings: list[Finding]
    proofs: Mapping[str, str]


def repair(run_id: str, plan: NodePlan, limits: RestartLimits) -> Program[Repaired]:
    """Carry a plan out on its node."""
    end = yield from _carry_out(run_id, plan, limits)
    return _repaired(run_id, plan, end)


def barred(run_id: str, plan: NodePlan, current: Node | Problem) -> Repaired | None:
    """What a node's findings are that may not be touched as it is now (`current`, or why that is not known); None where
    it may."""
    bar = _bar(plan, current)
    if bar is None:
        return None
    outcome, problem = bar
    return _repaired(run_id, plan, _End(outcome, problem.reason, examine(run_id, plan.node, plan.controls, problem)))


def _repaired(run_id: str, plan: NodePlan, end: _End) -> Repaired:
    made = [_marked(finding, end) for finding in end.look.findings]
    return Repaired([*made, *_left_now(run_id, plan, end.look.seen)], end.look.proofs)


def left(run_id: str, plan: NodePlan) -> list[Finding]:
    """The findings of the controls for which there is no plan, of a node that was not looked at since: they fail."""
    now = datetime.now(UTC)
    made = []
    for control_id, why in plan.left.items():
        problem = Problem(Status.SKIPPED, "no_plan", f"not fixed: {why}", "")
        made += findings.from_problem(run_id, now, plan.node, (control_id,), problem)
    return [replace(finding, status=Status.FAIL, outcome=Outcome.NOT_TRIED) for finding in made]


def _left_now(run_id: str, plan: NodePlan, seen: Evidence | Problem) -> list[Finding]:
    """The same of a node that was looked at since: what a restart alone cures is right by now, and a node that is gone
    fails no more."""
    made = []
    for finding in examine(run_id, plan.node, tuple(plan.left), seen).findings:
        why = "" if finding.status is Status.PASS else f"; not fixed: {plan.left[finding.control]}"
        code = "no_plan" if finding.status is Status.FAIL else finding.code
        reason = plain(f"{finding.reason.rstrip('.')}{why}")
        made.append(replace(finding, code=code, reason=reason, outcome=Outcome.NOT_TRIED))
    return made


def lost(run_id: str, plan: NodePlan, error: Exception) -> list[Finding]:
    """The findings of a node whose fix ran into something unforeseen."""
    problem = internal(error)
    end = _End(Outcome.FAILED, f"{LOOK}: {problem.reason}", examine(run_id, plan.node, plan.controls, problem))
    return _repaired(run_id, plan, end).findings


def _carry_out(run_id: str, plan: NodePlan, limits: RestartLimits) -> Program[_End]:
    try:
        script = apply_script(
            plan.edits,
            modes=plan.modes,
            restart=plan.restart,
            present=plan.present,
            absent=plan.absent,
            settle_seconds=limits.settle_seconds,
            limit_seconds=limits.restart_seconds,
            nonce=request_nonce(run_id, plan.node.key, _FIX),
            healthz=plan.healthz,
            running_pid=None if plan.edits or not plan.restart else plan.running_pid,
        )
    except CannotApply as error:
        problem = Problem(Status.ERROR, "cannot_apply", f"the plan cannot be sent: {error}", "Plan again.")
        return _End(Outcome.NOT_TRIED, problem.reason, examine(run_id, plan.node, plan.controls, problem))
    sent = yield from _send(run_id, plan, _FIX, script)
    if sent.report is None:
        return _End(Outcome.FAILED if sent.ran else Outcome.NOT_TRIED, sent.reason, sent.look)
    outcome = _OUTCOMES[sent.report.outcome]
    # Whoever sent it before may have had it carried out, and could not note it.
    twice = sent.doubtful and outcome is Outcome.CHANGED_MEANWHILE and _as_planned(plan, sent.look.seen)
    if outcome is Outcome.FIXED or twice:
        return (yield from _verified(run_id, limits, plan, sent.report, sent))
    if outcome is Outcome.CHANGED_MEANWHILE and _all_pass(sent.look):
        return _End(Outcome.ALREADY_RIGHT, "", sent.look)
    return _End(outcome, sent.report.reason, sent.look)


def _bar(plan: NodePlan, current: Node | Problem) -> tuple[Outcome, Problem] | None:
    """Why a node is not touched, if it is not (pure)."""
    if isinstance(current, Problem):
        return Outcome.NOT_TRIED, current
    if (current.created, current.node_image_version) != (plan.node.created, plan.node.node_image_version):
        why = "the node was replaced or reimaged since it was planned"
        return Outcome.CHANGED_MEANWHILE, Problem(Status.ERROR, "reimaged", why, "Plan again.")
    problem = precheck(current)
    if problem is None and current.provisioning.lower() not in ("succeeded", ""):
        # It could be reached, but something else is being done to it.
        why = f"the machine is in the state {current.provisioning}: left for later"
        problem = Problem(Status.ERROR, "not_ready", why, "Fix it again later.")
    return None if problem is None else (Outcome.NOT_TRIED, problem)


def _send(run_id: str, plan: NodePlan, step: str, script: str) -> Program[_Sent]:
    """Run a script that changes the node, once, and look at the node after it."""
    answer = yield Send(script)
    result = answer.result
    if isinstance(result, Problem):
        why = f"{LOOK}: what the {step} did is not known: {result.reason}" if result.may_have_run else result.reason
        # A node on which something may have been changed is not one that could be left out.
        problem = replace(result, status=Status.ERROR) if result.may_have_run else result
        look = examine(run_id, plan.node, plan.controls, problem)
        return _Sent(None, look, why, ran=result.may_have_run)
    report, unknown = None, ""
    nonce = request_nonce(run_id, plan.node.key, step)
    try:
        report = parse_report(result.stderr, nonce)
    except FrameError as error:
        unknown = f"{LOOK}: what the {step} did is not known: {error}"
    seen = _evidence(result.stdout, nonce) or (yield from collect(run_id, plan.node.key, f"{step}.look"))
    look = examine(run_id, plan.node, plan.controls, seen)
    return _Sent(report, look, unknown, doubtful=answer.doubtful)


def _evidence(stdout: str, nonce: str) -> Evidence | None:
    """The evidence that a script's output ends in; None where it is not whole: then it is to be asked for."""
    try:
        frame = parse(stdout, nonce)
        return read(unpack([frame]), frame.wall, frame.uptime)
    except (FrameError, MissingTools, EvidenceError):
        return None


def _verified(run_id: str, limits: RestartLimits, plan: NodePlan, report: Report, sent: _Sent) -> Program[_End]:
    """The end of a fix that is applied, by the node's word: fixed only where a fresh look is judged pass.

    Where it is judged fail, the fix is rolled back. Where there is no verdict, one more look has to give one; else the
    node is left as it is, for every restart is a risk.
    """
    look = sent.look
    if not _all_pass(look) and not _wrong(look):
        seen = yield from collect(run_id, plan.node.key, "again")
        look = examine(run_id, plan.node, plan.controls, seen)
    if _all_pass(look):
        return _End(Outcome.FIXED, "", look)
    if _wrong(look):
        return (yield from _undone(run_id, limits, plan, report, look))
    why = next(finding.reason for finding in look.findings if finding.status is not Status.PASS)
    return _End(Outcome.FAILED, f"{LOOK}: the fix is applied, but two looks gave no verdict: {why}", look)


def _undone(run_id: str, limits: RestartLimits, plan: NodePlan, report: Report, look: Look) -> Program[_End]:
    """Roll back a fix that is applied and did not make the node right."""
    if not plan.restart:
        why = f"modes and owners were set, and changed again at once: {_wrong(look)}"
        return _End(Outcome.CHANGED_MEANWHILE, why, look)
    why = f"the kubelet is well with the fix, but the node is not right: {_wrong(look)}"
    if not plan.edits:
        return _End(Outcome.FAILED, f"{why}; it was only restarted, there is nothing to roll back", look)
    if not report.backup_id:
        unknown = "it is not rolled back, since the name of its backup did not arrive (/var/lib/kubelet-guard/backups)"
        return _End(Outcome.FAILED, f"{LOOK}: {why}; {unknown}", look)
    try:
        script = undo_script(
            report.backup_id,
            modes=plan.modes,
            settle_seconds=limits.settle_seconds,
            limit_seconds=limits.restart_seconds,
            nonce=request_nonce(run_id, plan.node.key, _UNDO),
            healthz=plan.healthz,
        )
    except CannotApply as error:
        return _End(Outcome.FAILED, f"{LOOK}: {why}; it cannot be rolled back: {error}", look)
    sent = yield from _send(run_id, plan, _UNDO, script)
    said = None if sent.report is None else sent.report.outcome
    # Where it was sent twice (see `run_script`), the second one finds it done.
    twice = said is ApplyOutcome.CHANGED_MEANWHILE and _as_before(plan, sent.look.seen)
    if said is ApplyOutcome.APPLIED or twice:
        return _End(Outcome.ROLLED_BACK, why, sent.look)
    failure = sent.reason if sent.report is None else sent.report.reason
    reason = f"{LOOK}: {why}; rolling it back failed: {_bare(failure)}"
    return _End(Outcome.FAILED, reason, sent.look)


def _as_before(plan: NodePlan, seen: Evidence | Problem) -> bool:
    """Whether every file that a plan edits has the text again that it had before, and the mode and owner."""
    return (
        isinstance(seen, Evidence)
        and all(edit.path in seen.files and seen.files[edit.path].digest == edit.digest for edit in plan.edits)
        and all(_mode_seen(edit.path, seen) == (edit.mode, edit.uid, edit.gid) for edit in plan.modes)
    )


def _as_planned(plan: NodePlan, seen: Evidence | Problem) -> bool:
    """Whether every file that a plan edits has the text that the plan gives it, as far as that is known, and the mode
    and owner."""
    return (
        isinstance(seen, Evidence)
        and all(
            edit.path in seen.files and edit.new_digest in (None, seen.files[edit.path].digest) for edit in plan.edits
        )
        and all(_mode_seen(edit.path, seen) == (edit.new_mode, edit.new_uid, edit.new_gid) for edit in plan.modes)
    )


def _mode_seen(path: str, seen: Evidence) -> tuple[int, int, int] | None:
    """A file's mode, user and group; None where it was not seen."""
    file = seen.metadata.get(path)
    return None if file is None else (file.mode, file.uid, file.gid)


def _all_pass(look: Look) -> bool:
    return all(finding.status is Status.PASS for finding in look.findings)


def _wrong(look: Look) -> str:
    """The reason of the first finding that fails, '' where none does."""
    return next((finding.reason for finding in look.findings if finding.status is Status.FAIL), "")


def _bare(reason: str) -> str:
    return reason.removeprefix(LOOK).lstrip(":, ")


def _marked(finding: Finding, end: _End) -> Finding:
    """A finding with the outcome: what failed, and what to do next."""
    if end.outcome in (Outcome.FIXED, Outcome.ALREADY_RIGHT):
        return replace(finding, outcome=end.outcome)
    look = end.reason.startswith(LOOK)
    words = f"{end.outcome.replace('_', ' ')}: {_bare(end.reason)}"
    hint = _LOOK_HINT if look else _NEXT.get(end.outcome, finding.hint)
    code, reason = (LOOK_CODE, f"{LOOK}: {words}") if look else (finding.code, words)
    return replace(finding, outcome=end.outcome, code=code, reason=plain(reason), hint=hint)
