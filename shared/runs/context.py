"""What an orchestrator may do: the part of Durable Functions' orchestration context that ours use.

Orchestrators are generators that yield tasks. Durable Functions replays them (function_app.py); the terminal drives the
same generators in its own process (local.py). So they must be deterministic: no clock, no randomness and no I/O but
through the context.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import datetime
from typing import Any, Protocol

from shared.errors import GuardError

Json = Any
"""What travels between orchestrators and activities: only what JSON can say."""


class Task(Protocol):
    """Something that an orchestrator can wait for by yielding it; it begins when it is first yielded."""

    @property
    def result(self) -> Json:
        """The result, once completed."""


class Timer(Task, Protocol):
    """A task that is done when its time has come."""

    @property
    def is_completed(self) -> bool: ...

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

    def task_all(self, activities: list[Any]) -> Task: ...

    def task_any(self, activities: list[Any]) -> Task: ...

    def continue_as_new(self, input_: Json) -> None: ...


class EventContext(Context, Protocol):
    """A context whose orchestration can be woken from outside."""

    def wait_for_external_event(self, name: str) -> Task: ...


Orchestrator = Generator[Task, Any, Json]


def let_go(timer: Timer) -> None:
    """Cancel a timer, if it still runs: an orchestration is not over while its timers run."""
    if not timer.is_completed:
        timer.cancel()


def attempt(task: Task) -> Generator[Task, Any, Json]:
    """The task's result; `{"failed": why}` where it failed.

    What concerns the whole run and reaches a person as it is (GuardError) is raised: in this process, that is. Durable
    Functions brings any failure as a bare Exception.
    """
    try:
        result = yield task
    except GuardError:
        raise
    except Exception as error:
        return {"failed": first_line(error)}
    return result


def attempt_all(context: Context, tasks: Sequence[Task]) -> Generator[Task, Any, list[Json]]:
    """The results of all tasks as `attempt` gives them: one that fails leaves the others going."""
    if not tasks:  # Durable Functions' `task_all([])` gives None
        return []
    try:
        # A task starts when it is yielded: all at once. One failure ends this wait, not the other tasks.
        yield context.task_all(list(tasks))
    except GuardError:
        raise
    except Exception:  # noqa: S110 - each task's own failure is asked for below
        pass
    results = []
    for task in tasks:
        results.append((yield from attempt(task)))
    return results


def first_line(error: object) -> str:
    """What an exception says, short enough for a history."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
