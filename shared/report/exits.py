"""The exit status that findings stand for."""

from __future__ import annotations

from collections.abc import Collection, Iterable

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
