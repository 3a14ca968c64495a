"""Judging a node by what its kubelet told its cluster alone: the running value is certain, its place and the disk are
not seen (pure)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from shared.controls.catalogue import Control
from shared.controls.codes import Code
from shared.controls.rules import Present, show
from shared.controls.running import CONFIGZ, Word, value_told, without_setting
from shared.controls.verdict import Trouble, Verdict
from shared.kubelet import has_setting
from shared.models import Evidence, Status, Told

# A kubelet that was told of one of these and did not find it has not started (cmd/kubelet/app/server.go, auth.go).
_THERE_AT_START = {"authentication.x509.clientCAFile", "tlsCertFile", "tlsPrivateKeyFile"}

_UNSEEN = "what is on disk, and so what a restart would give, was not looked at"
_LOOK = "Look at the node itself (--witness both), which shows where it is written."


def judge_told(control: Control, told: Told, version: str | None, why: str = "") -> Verdict:
    """The verdict on one control by what a kubelet that was heard told. `why` says why the node was not looked at."""
    unseen = f"{_UNSEEN}{f': {why}' if why else ''}"
    if control.file is not None:
        reason = f"{control.subject} shows on the node only; {unseen}"
        return _of(Trouble(Code.NEEDS_NODE, reason, _LOOK).verdict)
    version = told.version or version
    if not has_setting(control.setting, version):
        return _of(without_setting(control, version).verdict)
    value = value_told(control, Word(CONFIGZ, told.values), version)
    if isinstance(value, Trouble):
        return _of(value.verdict)
    setting = f"{control.setting} is {show(value)} ({CONFIGZ})"
    actual = value if isinstance(value, bool | int | str) else None
    if not control.complies(value):
        hint = control.by_hand or _LOOK
        reason = f"{setting}, must {control.must}; {unseen}"
        return _of(Verdict(Status.FAIL, Code.WRONG, actual, CONFIGZ, reason, hint))
    if isinstance(control.rule, Present) and control.setting not in _THERE_AT_START:
        reason = f"{setting}; whether that is there shows on the node only"
        return _of(Trouble(Code.NEEDS_NODE, reason, _LOOK).verdict)
    return _of(Verdict(Status.PASS, Code.RIGHT, actual, CONFIGZ, f"{setting}; {unseen}", ""))


def _of(verdict: Verdict) -> Verdict:
    return replace(verdict, witness=CONFIGZ)


def of_process(told: Told, evidence: Evidence, now: datetime) -> bool:
    """Whether the process that a node showed, not before `now`'s look, is certainly the one that told.

    It is where it was there already when the cluster was asked: it is older than that is ago.
    """
    process = evidence.process
    if process is None or process.started_monotonic is None or evidence.uptime <= 0 or told.trouble is not None:
        return False
    age = timedelta(microseconds=(evidence.uptime - process.started_monotonic) // 1000)
    return process.boot_id == told.boot_id and age > now.astimezone(UTC) - told.asked
