"""What the serverless app says in its log: one JSON object a line for a finding, a run's end, a fix that waits for its
approval, and a scheduled run that is overdue.

The Functions host forwards the worker's log to Application Insights where its connection string is set; the alerts and
the workbook in infra/ read these lines.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from shared.models import Finding, Run

log = logging.getLogger("kubelet_guard.events")

# The SDK logs every request with its address at INFO, and azure-identity every source of a token.
_NOISY = ("azure", "aiohttp", "urllib3", "msal")


def quiet_libraries() -> None:
    """Let libraries speak of warnings and errors only."""
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class RunEvent:
    """A run that ended. `error` is empty where it ended as it should."""

    run_id: str
    kind: str
    state: str
    by: str
    error: str
    nodes: int


@dataclass(frozen=True, slots=True)
class ApprovalEvent:
    """A fix that waits for a person. `why` is why it waits although none was to be asked, or empty."""

    run_id: str
    digest: str
    expires: str
    why: str


@dataclass(frozen=True, slots=True)
class OverdueEvent:
    """A scheduled run that did not happen, or found nothing. `last_error` is the last attempt's."""

    due: str
    last_error: str


@cache
def _adapter() -> TypeAdapter[Finding]:
    from pydantic import TypeAdapter

    from shared.models import Finding

    return TypeAdapter(Finding)


def tell_findings(findings: Iterable[Finding]) -> None:
    """One line a finding. A part of a run that is repeated after a crash says its findings again."""
    for finding in findings:
        _tell("finding", _adapter().dump_python(finding, mode="json"))


def tell_run(run: Run) -> None:
    """One line for a run that ended, or waits for its approval."""
    if run.state.final:
        nodes = run.summary.nodes if run.summary is not None else 0
        _tell("run", asdict(RunEvent(run.id, run.kind, run.state, run.by, run.error, nodes)))
    elif run.approval is not None and run.approval.expires is not None:
        asked = run.approval
        expires = run.approval.expires.isoformat()
        _tell("approval", asdict(ApprovalEvent(run.id, asked.digest, expires, asked.why)))


def tell_overdue(due: datetime, last_error: str) -> None:
    """One line for a scheduled run that is overdue."""
    _tell("overdue", asdict(OverdueEvent(due.isoformat(), last_error)))


def _tell(event: str, fields: Mapping[str, Any]) -> None:
    log.info("%s", json.dumps({"event": event, **fields}))
