"""What is said to a run from outside while it goes: stop, and yes or no to its plan.

Kept in the store; the first word wins.
"""

from __future__ import annotations

from enum import StrEnum

from shared.runs.context import Json
from shared.store import Store

# Claims end some day; these are to outlast every run.
_FOR_GOOD = 10 * 365 * 86_400.0


class Decision(StrEnum):
    """What was said to a plan."""

    APPROVED = "approved"
    REFUSED = "refused"


def root(job: Json) -> str:
    """The run that was asked for: a fix's planning run is stopped with the fix."""
    asked: str = job.get("root") or job["run_id"]
    return asked


async def cancel(store: Store, run_id: str) -> None:
    """Ask a run to stop: nodes in hand are finished, no other is begun."""
    await store.claim(f"cancel/{run_id}", "cancelled", _FOR_GOOD)


async def cancelled(store: Store, run_id: str) -> bool:
    """Whether a run was asked to stop."""
    return await store.holder(f"cancel/{run_id}") is not None


async def decide(store: Store, run_id: str, decision: Decision) -> bool:
    """Record what was said to a run's plan. False where the opposite was said before."""
    return await store.claim(f"decision/{run_id}", decision.value, _FOR_GOOD)


async def decision(store: Store, run_id: str) -> Decision | None:
    """What was said to a run's plan, if anything."""
    said = await store.holder(f"decision/{run_id}")
    return None if said is None else Decision(said)
