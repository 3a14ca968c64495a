"""What is found: rows, each of one thing that a run needs (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from shared.models import Problem


class Level(StrEnum):
    """What a row comes to. `warn`: a run will work, and a person should know; `unknown`: it could not be told."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


class Area(StrEnum):
    """What a row is about, in the order in which they are shown."""

    IDENTITY = "identity"
    OUTBOUND = "outbound"
    CLOCK = "clock"
    STORE = "store"
    SETTINGS = "settings"
    SCHEDULE = "schedule"
    VERSIONS = "versions"
    RIGHTS = "rights"
    DENIED = "denied"
    POLICY = "policy"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Check:
    """One row.

    `subject` is what it is of (a subscription, a cluster, an address), `what` the thing that was looked at, `reason`
    what was found, in words, and `command` what sets it right, to be copied as it is (empty: nothing to do, or nothing
    that one command does).
    """

    area: Area
    subject: str
    what: str
    status: Level
    reason: str
    command: str = ""


_WORST_FIRST = (Level.FAIL, Level.UNKNOWN, Level.WARN, Level.OK)


def verdict(checks: Iterable[Check]) -> Level:
    """The worst of the rows; `unknown` where there is none."""
    return min((check.status for check in checks), key=_WORST_FIRST.index, default=Level.UNKNOWN)


def said(problem: Problem) -> str:
    """What a problem says, and what can be done about it."""
    return f"{problem.reason} {problem.hint}"
