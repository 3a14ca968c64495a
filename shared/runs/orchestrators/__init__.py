"""The order of a run: run → lanes (subscriptions) → batches of nodes; a fix besides: → pools → waves."""

from __future__ import annotations

from collections.abc import Callable

from shared.runs.orchestrators.context import Context, Orchestrator
from shared.runs.orchestrators.fix import fix
from shared.runs.orchestrators.hand import versioned
from shared.runs.orchestrators.lane import lane
from shared.runs.orchestrators.run import WAKE, run

__all__ = ["ORCHESTRATORS", "RUN", "WAKE"]

RUN = versioned("run")
"""The name of the orchestrator that a host starts."""

ORCHESTRATORS: dict[str, Callable[[Context], Orchestrator]] = {
    RUN: run,
    versioned("lane"): lane,
    versioned("fix"): fix,
}
"""What a host drives, by name."""
