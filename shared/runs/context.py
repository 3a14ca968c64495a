"""What an orchestrator may do: the part of Durable Functions' orchestration context that ours use.

Orchestrators are generators that yield tasks. Durable Functions replays them (function_app.py); the terminal drives the
same generators in its own process (local.py). So they must be deterministic: no clock, no randomness and no I/O but
through the context.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

Json = Any
"""What travels between orchestrators and activities: only what JSON can say."""


class Task(Protocol):
    """Something that an orchestrator can wait for by yielding it."""

    @property
    def result(self) -> Json:
        """The result, once completed."""


class Context(Protocol):
    """See `azure.durable_functions.DurableOrchestrationContext`, whose methods these are."""

    @property
    def instance_id(self) -> str: ...

    @property
    def current_utc_datetime(self) -> datetime: ...

    def get_input(self) -> Json: ...

    def call_activity(self, name: str, input_: Json = None) -> Task: ...

    def call_sub_orchestrator(self, name: str, input_: Json = None, instance_id: str | None = None) -> Task: ...

    def create_timer(self, fire_at: datetime) -> Task: ...

    def task_all(self, activities: list[Any]) -> Task: ...

    def task_any(self, activities: list[Any]) -> Task: ...

    def set_custom_status(self, status: Json) -> None: ...


Orchestrator = Generator[Task, Any, Json]


def wait_all(context: Context, tasks: Sequence[Task]) -> Generator[Task, Any, list[Json]]:
    """The results of all tasks, in order. (`task_all([])` would give None: FACTS, section 9.)"""
    if not tasks:
        return []
    results: list[Json] = yield context.task_all(list(tasks))
    return results


def activity(context: Context, name: str, input_: Mapping[str, Json]) -> Generator[Task, Any, Json]:
    """One activity's result."""
    result = yield context.call_activity(name, dict(input_))
    return result
