"""Judging a control by what a node showed (pure).

Two things are looked at: what the running kubelet has in effect, and what it would have after a restart with what is on
disk now. A pass is proved for the running process, and never given where a restart would fail or break it; where it is
not known what a restart would run, the verdict is the running value's and says so (DESIGN, promises 1 and 2).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from shared.controls.catalogue import Control
from shared.controls.codes import Code
from shared.controls.files import judge_file
from shared.controls.health import is_off, not_answering
from shared.controls.inputs import placed, runs_kubelet
from shared.controls.paths import absolute
from shared.controls.restart import OnDisk, next_start, started_by
from shared.controls.rules import Present, show
from shared.controls.running import OTHER_VERSION, Look, Running, look, running, unknown_version
from shared.controls.verdict import Trouble, Verdict
from shared.kubelet import Source, has_setting, modelled
from shared.models import Evidence, Process, Status


def judge(control: Control, evidence: Evidence, version: str | None = None, proof: str = "") -> Verdict:
    """The verdict on one control; see `judge_all`."""
    return judge_all((control,), evidence, version, (proof,))[control.id]


def judge_all(
    controls: Sequence[Control], evidence: Evidence, version: str | None = None, proofs: Collection[str] = ()
) -> dict[str, Verdict]:
    """The verdicts on several controls, by their ids.

    `version` is the node's Kubernetes version, which counts where the process does not tell its own; `proofs` are those
    of the last verdicts on this node that had one.
    """
    if trouble := _unusable(evidence):
        return {control.id: trouble.verdict for control in controls}
    process = evidence.process
    if process is None:
        without = _not_running(evidence, next_start(evidence, version))
    elif not runs_kubelet(process):
        without = _not_a_kubelet(process).verdict
    else:
        settings = [control for control in controls if control.file is None]
        verdicts = _of_settings(settings, evidence, process, version, proofs) if settings else {}
        return {control.id: verdicts.get(control.id) or judge_file(control, evidence) for control in controls}
    return {
        control.id: judge_file(control, evidence) if control.file is not None and control.file.path else without
        for control in controls
    }


def _of_settings(
    controls: Sequence[Control], evidence: Evidence, process: Process, version: str | None, proofs: Collection[str]
) -> dict[str, Verdict]:
    version = process.version or version
    seen = look(evidence, process, version, proofs, started_by(evidence))
    after = next_start(evidence, version)
    silent = not_answering(evidence, seen)
    return {
        control.id: replace(_of_setting(control, evidence, seen, after, silent), proof=seen.proof)
        for control in controls
    }


def _of_setting(
    control: Control, evidence: Evidence, seen: Look, after: OnDisk | Trouble, silent: Trouble | None
) -> Verdict:
    if not has_setting(control.setting, seen.version):
        return _without_setting(control, seen.version)
    found = silent or running(control, evidence, seen)
    if isinstance(found, Trouble):
        return found.verdict
    if is_off(seen):
        found = replace(found, note=_joined(found.note, "healthz is off: the process's state and systemd say it runs"))
    if isinstance(control.rule, Present) and control.complies(found.value):
        path = absolute(str(found.value), seen.process.directory)
        there = evidence.exists.get(path)
        if there is None:
            return Trouble(
                Code.UNPROVED, f"whether {path}, which {control.setting} names, is there is not known"
            ).verdict
        if not there:
            reason = f"{control.setting} is {path} ({found.source}), which is not there"
            return Verdict(Status.FAIL, Code.FILE_MISSING, path, found.source, reason, control.by_hand or control.fix)
    return _judged(control, evidence, found, after)


def _without_setting(control: Control, version: str | None) -> Verdict:
    if not modelled(version):
        return Trouble(Code.VERSION_UNKNOWN, unknown_version(version), OTHER_VERSION).verdict
    reason = f"the kubelet of Kubernetes {version} has no {control.setting}"
    return Verdict(Status.NOT_APPLICABLE, Code.NOT_FOR_THIS_NODE, None, "", reason, "Nothing to do.")


def _unusable(evidence: Evidence) -> Trouble | None:
    """What makes all else that the node showed unfit for a verdict, or None."""
    if evidence.unfinished:
        return Trouble(
            Code.UNFINISHED_FIX,
            f"a fix was begun on this node and has not ended ({evidence.unfinished})",
            "It ends itself, at the latest when the node boots. Where it stays, look at /var/lib/kubelet-guard there.",
        )
    if evidence.missing_tools:
        return Trouble(
            Code.MISSING_TOOL,
            f"the node lacks {', '.join(evidence.missing_tools)}, which the look at it needs",
            "Install it, or reimage the node.",
        )
    if evidence.overflow:
        return Trouble(
            Code.TOO_LARGE,
            "the kubelet's configuration has more files than are read, which is a limit of this tool",
            "Put the drop-ins together into fewer files.",
        )
    return None


def _not_a_kubelet(process: Process) -> Trouble:
    program = process.argv[0] if process.argv else process.executable
    return Trouble(
        Code.NOT_A_KUBELET,
        f"the unit's main process is {program!r}, not a kubelet",
        "Look at the unit with `systemctl cat kubelet`: what it starts must become the kubelet itself (exec).",
    )


def _judged(control: Control, evidence: Evidence, found: Running, after: OnDisk | Trouble) -> Verdict:
    """The running kubelet's value is certain; what remains is what a restart would make of it."""
    right = control.complies(found.value)
    actual = found.value if isinstance(found.value, bool | int | str) else None
    setting = f"{control.setting} is {show(found.value)} ({found.source})"
    note = f"; {found.note}" if found.note else ""

    def verdict(status: Status, code: Code, reason: str, hint: str, *, pending: bool = False) -> Verdict:
        return Verdict(status, code, actual, found.source, f"{reason}{note}", hint, restart_pending=pending)

    if isinstance(after, Trouble) and not after.fails and after.code is not Code.TOO_LARGE:
        unknown = f"what a restart would run is not known: {after.reason}"
        if right:
            return verdict(Status.PASS, Code.RIGHT, f"{setting}; {unknown}", "")
        reason = f"{setting}, must {control.must}; {unknown}"
        return verdict(Status.FAIL, Code.WRONG, reason, _remedy(control, found.written, _BY_HAND))
    if isinstance(after, Trouble) and after.code is Code.TOO_LARGE:
        return verdict(Status.ERROR, after.code, f"{setting} now; of a restart: {after.reason}", after.hint)
    problem = after.reason if isinstance(after, Trouble) else after.resolution.error
    if problem is not None:
        return verdict(
            Status.ERROR,
            Code.NEXT_START_REFUSED,
            f"{'the kubelet runs' if right else f'{setting} now'}, but it could not be started again: {problem}",
            "Correct what is on disk before anything restarts the kubelet.",
            pending=True,
        )
    assert isinstance(after, OnDisk)  # its resolution is accepted
    then = after.resolution.effective(control.setting)
    then_source = str(placed(after.resolution.decided_by(control.setting), after.directory))
    remedy = _remedy(control, _wrong(control, after), _PLANNED)
    if right and control.complies(then):
        return verdict(Status.PASS, Code.RIGHT, setting, "")
    if right:
        pending = f"but a restart is pending and would make it {show(then)} ({then_source})"
        reason = f"{setting} in the running kubelet, {pending}"
        return verdict(Status.FAIL, Code.WRONG_AFTER_RESTART, reason, remedy, pending=True)
    if control.complies(then):
        reload = "systemctl daemon-reload && " if evidence.needs_daemon_reload else ""
        pending = f"what is on disk is right ({then_source}), and a restart is pending"
        reason = f"{setting} in the running kubelet; {pending}"
        hint = f"Restart the kubelet: {reload}systemctl restart kubelet"
        return verdict(Status.FAIL, Code.RESTART_PENDING, reason, hint, pending=True)
    return verdict(Status.FAIL, Code.WRONG, f"{setting}, must {control.must}", remedy)


_PLANNED = "; then restart the kubelet. `kubelet-guard plan` shows the edits."
_BY_HAND = (
    ". Then restart the kubelet by hand, when it suits: no plan is made where it is not known what that would run."
)


def _wrong(control: Control, after: OnDisk) -> list[Source]:
    """The places that would write a wrong value at a restart."""
    written = after.resolution.assignments(control.setting)
    return [placed(item.source, after.directory) for item in written if not control.complies(item.value)]


def _remedy(control: Control, wrong: Sequence[Source], then: str) -> str:
    """What to do about a wrong setting: the places that write a wrong value, named, and what comes `then`."""
    if control.right is None:
        return control.by_hand
    right = show(control.right)
    places = []
    for source in wrong:
        if source.kind == "file":
            places.append(f"set {control.setting}: {right} in {source.path}, line {source.line}")
        else:
            places.append(f"change {source.text} to {control.argument} where the kubelet's arguments are written")
    steps = "; ".join(places) or f"set {control.setting} to {right} where the kubelet's configuration is written"
    return f"{steps[0].upper()}{steps[1:]}{then}"


def _not_running(evidence: Evidence, after: OnDisk | Trouble) -> Verdict:
    if evidence.load_state not in ("", "loaded"):
        reason = f"systemd knows no kubelet.service (LoadState {evidence.load_state})"
        return Trouble(Code.NO_KUBELET, reason, "Is this an AKS node?").verdict
    state = "/".join(filter(None, (evidence.active_state, evidence.sub_state))) or "unknown"
    why = ""
    if isinstance(after, Trouble):
        why = f"; {after.reason}"
    elif not after.resolution.accepted:
        why = f"; with what is on disk it refuses to start: {after.resolution.error}"
    return Trouble(
        Code.KUBELET_NOT_RUNNING,
        f"no kubelet process runs (unit {state}{why})",
        "Look at `journalctl -u kubelet` on the node; reimage it where it does not recover.",
    ).verdict


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
