"""What a run's steps do: each takes and gives a message, may be done again, and waits for nothing.

What is large (nodes, evidence, findings) goes through the store; what is given back is small. One bad node, cluster or
subscription becomes findings; what is raised is for the whole step: no credential, no store, or unforeseen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from shared.runs.model import messages
from shared.runs.services import Services
from shared.runs.steps import (
    advancing,
    asking,
    discovering,
    fix_plan,
    fix_waves,
    left_undone,
    run_record,
    scope,
    sweeping,
)


@dataclass(frozen=True, slots=True)
class Step:
    """A step: what it is told, and what carries it out."""

    message: type[messages.Message]
    carry_out: Callable[[Services, Any], Awaitable[messages.Message]]


STEPS: dict[str, Step] = {
    "begin": Step(messages.Ref, run_record.begin),
    "scope": Step(messages.Ref, scope.scope),
    "open_lane": Step(messages.OpenLane, scope.open_lane),
    "sweep": Step(messages.SweepChunk, sweeping.sweep),
    "find_nodes": Step(messages.FindNodes, discovering.find_nodes),
    "advance": Step(messages.Advance, advancing.advance),
    "leave": Step(messages.Leave, left_undone.leave),
    "gather": Step(messages.Ref, fix_plan.gather),
    "ask_approval": Step(messages.Ask, run_record.ask_approval),
    "decision": Step(messages.Ref, run_record.decision),
    "open_fix": Step(messages.Ref, fix_waves.open_fix),
    "ask_pool": Step(messages.AskPool, asking.ask_pool),
    "open_wave": Step(messages.OpenWave, fix_waves.open_wave),
    "leave_pool": Step(messages.LeavePool, left_undone.leave_pool),
    "listen": Step(messages.Ref, run_record.listen),
    "finish": Step(messages.Finish, run_record.finish_step),
}
"""What orchestrators may call, by name."""
