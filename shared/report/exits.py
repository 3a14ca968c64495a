"""The exit status that findings, and what the doctor found, stand for."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from shared.doctor import Check, Level, verdict
from shared.models import Finding, Status


def exit_code(findings: Iterable[Finding]) -> int:
    """See `exit_code_of`."""
    return exit_code_of({finding.status for finding in findings})


def exit_code_of(statuses: Collection[Status]) -> int:
    """0: every node judged passes; 1: some fail; 2: none fails, but some could not be determined (or none was found).

    Skipped and not applicable nodes (stopped, Windows) have no running kubelet to judge, and do not count.
    """
    if Status.FAIL in statuses:
        return 1
    return 2 if Status.ERROR in statuses or not statuses else 0


def exit_code_of_checks(checks: Iterable[Check]) -> int:
    """0: everything will work; 1: something will not; 2: nothing is known not to, but something could not be told."""
    return {Level.FAIL: 1, Level.UNKNOWN: 2}.get(verdict(checks), 0)
