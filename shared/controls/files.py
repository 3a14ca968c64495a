"""Judging a control about a file of the node: its mode or its owner, by its metadata alone (pure)."""

from __future__ import annotations

from shlex import quote

from shared.controls.catalogue import Control
from shared.controls.codes import Code
from shared.controls.inputs import named
from shared.controls.paths import absolute
from shared.controls.rules import FileRule, ModeAtMost
from shared.controls.verdict import Trouble, Verdict
from shared.models import Evidence, Metadata, Status


def file_of(control: Control, evidence: Evidence) -> str:
    """The path of the file that a control is about on this node, absolute; '' where the kubelet is told of none, or no
    kubelet runs."""
    place, process = control.file, evidence.process
    assert place is not None
    if place.path:
        return place.path
    if process is None:
        return ""
    path = named(process.argv, place.flag)
    return absolute(path, process.directory) if path else ""


def judge_file(control: Control, evidence: Evidence) -> Verdict:
    """The verdict on the file's mode or owner, as it is now: neither needs a restart to count.

    Where a flag names the file, `evidence` must be of a running kubelet.
    """
    assert isinstance(control.rule, FileRule)
    path = file_of(control, evidence)
    if not path:
        assert control.file is not None
        hint = "Look at the kubelet's command line (`systemctl cat kubelet`): AKS gives it one."
        return Trouble(Code.NO_SUCH_FILE, f"the kubelet runs without {control.file.flag}", hint).verdict
    file = evidence.metadata.get(path)
    if file is None:
        return _not_seen(control, path, gone=path in evidence.metadata)
    if not file.regular:
        hint = "Look at it on the node: it should be a file."
        return Trouble(Code.NOT_UNDERSTOOD, f"{path} is there, and is not a regular file", hint).verdict
    seen = control.rule.seen(file)
    what = f"the mode of {path} is {seen}" if isinstance(control.rule, ModeAtMost) else f"{path} belongs to {seen}"
    if control.rule.holds(file):
        return Verdict(Status.PASS, Code.RIGHT, seen, path, what, "")
    hint = f"{remedy(control, file)}; no restart is needed. `kubelet-guard plan` shows it."
    return Verdict(Status.FAIL, Code.WRONG, seen, path, f"{what}, must {control.must}", hint)


def _not_seen(control: Control, path: str, *, gone: bool) -> Verdict:
    assert control.file is not None
    if not gone:
        hint = "Report this case, with the kubelet's command line."
        return Trouble(Code.UNPROVED, f"{path} was not looked at", hint).verdict
    if control.file.flag:
        hint = f"Look at the node: the kubelet runs with {control.file.flag}={path}."
        return Trouble(Code.FILE_MISSING, f"{path}, which the kubelet is told to use, is not there", hint).verdict
    return Verdict(Status.NOT_APPLICABLE, Code.FILE_MISSING, None, "", f"{path} is not there", "Nothing to do.")


def remedy(control: Control, file: Metadata) -> str:
    """What to do to a file that is not right, as a command. No full stop at the end."""
    assert isinstance(control.rule, FileRule)
    right = control.rule.mended(file)
    if isinstance(control.rule, ModeAtMost):
        return f"Run `chmod {right.mode:03o} {quote(file.path)}` on the node"
    return f"Run `chown {right.uid}:{right.gid} {quote(file.path)}` on the node"
