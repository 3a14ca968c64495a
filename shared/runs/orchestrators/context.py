"""What an orchestrator may do: the part of Durable Functions' orchestration context that ours use.

Orchestrators are generators that yield tasks. Durable Functions replays them (function_app.py); the terminal drives the
same generators in its own process (hosts/local.py). So they must be deterministic: no clock, no randomness and no I/O
but through the context.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime
from typing import Any, Protocol

Json = Any
"""What travels between a host and its orchestrators and activities: only what JSON can say."""


class Task(Protocol):
    """Something that an orchestrator can wait for by yielding it; it begins when it is first yielded."""

    @property
    def result(self) -> Json:
        """The result, once completed."""

    @property
    def is_completed(self) -> bool: ...


class Timer(Task, Protocol):
    """A task that is done when its time has come."""

    def cancel(self) -> None: ...


class Context(Protocol):
    """See `azure.durable_functions.DurableOrchestrationContext`, whose methods these are."""

    @property
    def instance_id(self) -> str: ...

    @property
    def current_utc_datetime(self) -> datetime: ...

    def get_input(self) -> Json: ...

    def call_activity(self, name: str, input_: Json = None) -> Task: ...

    def call_sub_orchestrator(self, name: str, input_: Json = None, instance_id: str | None = None) -> Task: ...

    def create_timer(self, fire_at: datetime) -> Timer: ...

    def task_any(self, activities: list[Any]) -> Task: ...

    def continue_as_new(self, input_: Json) -> None: ...

    def wait_for_external_event(self, name: str) -> Task: ...


Orchestrator = Generator[Task, Any, Json]
