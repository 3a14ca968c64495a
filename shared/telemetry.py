"""What the serverless app says in its log: one JSON object a line for a finding and for a run's end.

The Functions host forwards the worker's log to Application Insights where its connection string is set; the alerts and
the workbook in infra/ read these lines.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
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
    """One line for a run that ended."""
    _tell("run", {"run_id": run.id, "kind": run.kind, "state": run.state, "error": run.error})


def _tell(event: str, fields: dict[str, Any]) -> None:
    log.info("%s", json.dumps({"event": event, **fields}))
