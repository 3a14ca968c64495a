"""Judging a control by what a node showed (pure).

Two things are looked at: what the running kubelet has in effect, and what it would have after a restart with what is on
disk now. A pass is proved for the running process, and never given where a restart would fail or break it; where the
units alone cannot tell what a restart would run, the pass says so (DESIGN, promises 1 and 2).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

from shared.controls.benchmark import Control
from shared.kubelet import Resolution, config_paths, resolve
from shared.models import Evidence, Status
from shared.systemd import StartCommand, UnitError, UnknownToUs, start_command

# A file that was changed more than this many seconds after the process started is not what the process read: change
# times and the boot time are whole seconds, and a kubelet reads its configuration at once.
_READ_WITHIN = 1

_ENVIRONMENT_FILE = re.compile(r"(?m)^[ \t]*EnvironmentFile[ \t]*=[ \t]*-?(/[^\s*?\[%\\]+)[ \t]*\r?$")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One control's verdict on one node's evidence: the finding without its place.

    `actual` is the running kubelet's value, None where it cannot be known; `source` says where that value comes from;
    `reason` is a sentence for a person, `hint` what to do, `code` a short word for machines.
    """

    status: Status
    code: str
    actual: bool | int | str | tuple[str, ...] | None
    source: str
    reason: str
    hint: str
    restart_pending: bool = False


@dataclass(frozen=True, slots=True)
class OnDisk:
    """What a restart would run: the command line that systemd would start and what the kubelet would make of it.

    `resolution` is None where there is none; `problem` then says why, and `fails` whether the start would fail for
    certain (else it is only not known here).
    """

    command: StartCommand | None
    resolution: Resolution | None
    problem: str
    fails: bool = False


def on_disk(evidence: Evidence, version: str | None) -> OnDisk:
    """What a restart with the files as they are now (after a daemon-reload) would run."""
    if not evidence.units:
        return OnDisk(None, None, "systemd names no unit file for the kubelet")
    fragment, *dropins = evidence.units
    missing = [path for path in evidence.units if path not in evidence.files]
    missing += [path for path in _environment_files(evidence) if path not in {*evidence.files, *evidence.gone}]
    if missing:
        return OnDisk(None, None, f"{missing[0]} was not collected")
    try:
        command = start_command(fragment, dropins, evidence.texts, systemd_version=evidence.systemd_version)
    except UnknownToUs as error:
        return OnDisk(None, None, str(error))
    except UnitError as error:
        return OnDisk(None, None, str(error), fails=True)
    argv = [argument.text for argument in command.argv]
    incomplete, gone = _incomplete(evidence, argv)
    if incomplete:
        return OnDisk(command, None, incomplete, fails=gone)
    return OnDisk(command, resolved(argv, evidence, version), "")


def resolved(argv: Sequence[str], evidence: Evidence, version: str | None) -> Resolution:
    """What a kubelet makes of this command line and the evidence's files.

    Label values are masked in evidence, and a masked one stands for a valid one: the kubelet runs with it.
    """
    arguments = list(argv)
    for index, argument in enumerate(arguments):
        name, has_value, _ = argument.partition("=")
        if name.replace("_", "-") == "--node-labels":
            at = index if has_value else index + 1
            arguments[at : at + 1] = [value.replace("*", "x") for value in arguments[at : at + 1]]
    return resolve(arguments, evidence.texts, version=version)


def _environment_files(evidence: Evidence) -> set[str]:
    """The plain paths that the units name as environment files; a superset of what systemd reads does no harm."""
    texts = [evidence.files[path].text for path in evidence.units if path in evidence.files]
    return {path for text in texts for path in _ENVIRONMENT_FILE.findall(text)}


def judge(control: Control, evidence: Evidence, version: str | None = None) -> Verdict:
    """The control's verdict. `version` is the node's Kubernetes version (None: the newest one modelled)."""
    if evidence.overflow:
        return _error("too_many_files", "the kubelet's configuration has more files than are collected", "")
    disk = on_disk(evidence, version)
    if not evidence.argv or evidence.started is None:
        return _not_running(evidence, disk)
    if posixpath.basename(evidence.argv[0]) not in ("kubelet", "hyperkube"):
        return _error(
            "not_a_kubelet",
            f"the unit's main process is {evidence.argv[0]!r}, not a kubelet",
            "Look at the unit with `systemctl cat kubelet`: what it starts must be the kubelet itself.",
        )
    incomplete, _ = _incomplete(evidence, evidence.argv)
    if incomplete:
        return _error("config_unreadable", incomplete, "A restart would fail or differ. Restore the file.")
    running = resolved(evidence.argv, evidence, version)
    changed = _changed_since_start(evidence, running, evidence.started)
    if not running.accepted:
        return _error(
            "config_refused" if changed else "not_understood",
            f"{changed} was changed after the kubelet started, and a kubelet refuses it now: {running.error}"
            if changed
            else f"the kubelet runs with what this version's rules refuse: {running.error}",
            "Correct the file before anything restarts the kubelet."
            if changed
            else "Compare the node's kubelet version with its pool's, and report this case.",
        )
    value = running.value(control.setting)
    source = running.source(control.setting)
    if changed and source.kind != "flag":
        return _unproved(control, changed, disk)
    return _proved(control, evidence, value, str(source), disk)


def _proved(control: Control, evidence: Evidence, value: object, source: str, disk: OnDisk) -> Verdict:
    """The running kubelet's value is certain; what remains is what a restart would make of it."""
    right = control.complies(value)
    actual = value if isinstance(value, bool | int | str) else None
    setting = f"{control.setting} is {_show(value)} ({source})"
    if disk.resolution is None and disk.fails:
        return Verdict(
            Status.ERROR,
            "next_start_refused",
            actual,
            source,
            f"{setting} now, but the kubelet could not be started again: {disk.problem}",
            "Correct what is on disk before anything restarts the kubelet.",
            restart_pending=True,
        )
    if disk.resolution is None:
        note = f"; what a restart would run cannot be told: {disk.problem}" if disk.problem else ""
        if right:
            return Verdict(Status.PASS, "right", actual, source, f"{setting}{note}", "")
        return Verdict(
            Status.FAIL,
            "wrong",
            actual,
            source,
            f"{setting}, must be {_show(control.expected)}{note}",
            _remedy(control, disk),
        )
    if not disk.resolution.accepted:
        return Verdict(
            Status.ERROR,
            "next_start_refused",
            actual,
            source,
            f"{setting} now, but the kubelet would refuse to start again: {disk.resolution.error}",
            "Correct what is on disk before anything restarts the kubelet.",
            restart_pending=True,
        )
    after = disk.resolution.value(control.setting)
    after_source = str(disk.resolution.source(control.setting))
    if right and control.complies(after):
        return Verdict(Status.PASS, "right", actual, source, setting, "")
    if right:
        return Verdict(
            Status.FAIL,
            "wrong_after_restart",
            actual,
            source,
            f"{setting} in the running kubelet, but a restart is pending and would make it {_show(after)}"
            f" ({after_source})",
            _remedy(control, disk),
            restart_pending=True,
        )
    if control.complies(after):
        reload = "systemctl daemon-reload && " if evidence.needs_daemon_reload else ""
        return Verdict(
            Status.FAIL,
            "restart_pending",
            actual,
            source,
            f"{setting} in the running kubelet; what is on disk is right ({after_source}), and a restart is pending",
            f"Restart the kubelet: {reload}systemctl restart kubelet",
            restart_pending=True,
        )
    return Verdict(
        Status.FAIL, "wrong", actual, source, f"{setting}, must be {_show(control.expected)}", _remedy(control, disk)
    )


def _remedy(control: Control, disk: OnDisk) -> str:
    """What to do about a setting that is wrong on disk: every place that writes a wrong value, named."""
    written = disk.resolution.assignments(control.setting) if disk.resolution is not None else ()
    right = _show(control.expected)
    places = []
    for assignment in written:
        source = assignment.source
        if control.complies(assignment.value):
            continue
        if source.kind == "file":
            places.append(f"set {control.setting}: {right} in {source.path}, line {source.line}")
        else:
            places.append(f"change {source.text} to {control.flag}={right} where the kubelet's arguments are written")
    if not places:
        return control.fix
    steps = "; ".join(places)
    return f"{steps[0].upper()}{steps[1:]}; then restart the kubelet. `kubelet-guard plan` shows the edits."


def _unproved(control: Control, changed: str, disk: OnDisk) -> Verdict:
    """A file that decides the value was changed after the kubelet had read it: what it read is gone."""
    then = f"{changed} was changed after the kubelet started, so the running value cannot be proved"
    if disk.resolution is None or not disk.resolution.accepted:
        why = disk.problem if disk.resolution is None else disk.resolution.error
        return _error(
            "next_start_refused", f"{then}, and a restart would fail: {why}", "Correct what is on disk first."
        )
    after = disk.resolution.value(control.setting)
    source = str(disk.resolution.source(control.setting))
    if control.complies(after):
        return Verdict(
            Status.FAIL,
            "restart_pending",
            None,
            source,
            f"{then}; a restart is pending and would make {control.setting} {_show(after)} ({source})",
            "Restart the kubelet: systemctl restart kubelet",
            restart_pending=True,
        )
    return Verdict(
        Status.FAIL,
        "wrong_after_restart",
        None,
        source,
        f"{then}; a restart is pending and would make {control.setting} {_show(after)} ({source}),"
        f" must be {_show(control.expected)}",
        _remedy(control, disk),
        restart_pending=True,
    )


def _not_running(evidence: Evidence, disk: OnDisk) -> Verdict:
    if evidence.load_state not in ("", "loaded"):
        return _error(
            "no_kubelet", f"systemd knows no kubelet.service (LoadState {evidence.load_state})", "Is this an AKS node?"
        )
    state = "/".join(filter(None, (evidence.active_state, evidence.sub_state))) or "unknown"
    why = ""
    if disk.resolution is not None and not disk.resolution.accepted:
        why = f"; with what is on disk it refuses to start: {disk.resolution.error}"
    elif disk.problem:
        why = f"; {disk.problem}"
    return _error(
        "kubelet_not_running",
        f"no kubelet process runs (unit {state}{why})",
        "Look at `journalctl -u kubelet` on the node; reimage it where it does not recover.",
    )


def _incomplete(evidence: Evidence, argv: Sequence[str]) -> tuple[str, bool]:
    """Why the files that this command line names are not all there in whole ('' where they are), and whether one of
    them is known to be gone, so that a start would fail."""
    named = config_paths(argv)
    for noun, path, there in (
        ("config file", named.config, evidence.files.keys()),
        ("directory", named.config_dir, evidence.directories.keys()),
    ):
        if path and plain_path(path) not in there:
            gone = plain_path(path) in evidence.gone
            why = "is not there, or cannot be read" if gone else "was not collected"
            return f"the {noun} {path} that the command line names {why}", gone
    for path, file in evidence.files.items():
        inside = named.config_dir and path.startswith(plain_path(named.config_dir) + "/")
        if (path == plain_path(named.config or "") or inside) and not file.whole:
            return f"{path} is too large to collect ({file.size:,} bytes), or not text", False
    return "", False


def plain_path(path: str) -> str:
    """A path in the form in which evidence has it: absolute (the kubelet starts in `/`), without doubled slashes."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _changed_since_start(evidence: Evidence, resolution: Resolution, started: float) -> str:
    """The first configuration file or directory that was changed after the process had read it, or ''."""
    limit = started + _READ_WITHIN
    for path in resolution.files_read:
        if evidence.files[plain_path(path)].changed > limit:
            return path
    # A file that was removed from a configuration directory shows only in the directory itself.
    directory = config_paths(evidence.argv).config_dir
    root = plain_path(directory) if directory else ""
    for path, changed in evidence.directories.items():
        if root and (path == root or path.startswith(root + "/")) and changed > limit:
            return path
    return ""


def _error(code: str, reason: str, hint: str) -> Verdict:
    return Verdict(Status.ERROR, code, None, "", reason, hint)


def _show(value: object) -> str:
    return (
        {True: "true", False: "false", None: "not set"}.get(value, str(value))
        if isinstance(value, bool | None)
        else str(value)
    )
