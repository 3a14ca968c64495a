"""What is said to a run from outside while it goes: stop, and yes or no to its plan.

Kept in the store; the first word wins.
"""

from __future__ import annotations

from enum import StrEnum

from shared.models import Run
from shared.store import Store

FOR_GOOD = 10 * 365 * 86_400.0
"""Seconds: claims end some day; these are to outlast every run."""

_STOP = "cancelled"


class Decision(StrEnum):
    """What was said to a plan, by a person or by the time."""

    APPROVED = "approved"
    REFUSED = "refused"
    EXPIRED = "expired"


def root(run: Run) -> str:
    """The run that was asked for: a fix's planning run is stopped with the fix."""
    return run.fix_run or run.id


async def cancel(store: Store, run: Run) -> None:
    """Ask a run to stop: nodes in hand are finished, no other is begun."""
    await store.claim(_stop(run), _STOP, FOR_GOOD)


async def cancelled(store: Store, run: Run) -> bool:
    """Whether a run was asked to stop."""
    return await store.holder(_stop(run)) is not None


async def go_on(store: Store, run: Run) -> None:
    """Take back that a run was asked to stop, for it is gone on with."""
    await store.release(_stop(run), _STOP)


def _stop(run: Run) -> str:
    return f"cancel/{root(run)}"


async def decide(store: Store, run_id: str, digest: str, decision: Decision) -> bool:
    """Record what was said to a plan of a run. False where something else was said before."""
    return await store.claim(_plan(run_id, digest), decision.value, FOR_GOOD)


async def decision(store: Store, run_id: str, digest: str) -> Decision | None:
    """What was said to a plan of a run, if anything."""
    said = await store.holder(_plan(run_id, digest))
    return None if said is None else Decision(said)


def _plan(run_id: str, digest: str) -> str:
    return f"decision/{run_id}/{digest}"
