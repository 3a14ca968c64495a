"""Driving the orchestrators in this process, as the terminal does: the same generators, the same activities.

The parts of Durable Functions that matter to an orchestrator are kept: inputs and results pass through JSON,
`task_any` gives the finished task, a failed activity raises where it was waited for.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any

from shared.runs.orchestrators.context import Context, Json, Orchestrator

Activity = Callable[[Json], Awaitable[Json]]


def _json(value: Json) -> Json:
    return json.loads(json.dumps(value))


class LocalTask:
    """A task whose work runs on the event loop from the moment it is made."""

    def __init__(self, work: Coroutine[Any, Any, Json]) -> None:
        self.future: asyncio.Future[Json] = asyncio.ensure_future(work)

    @property
    def is_completed(self) -> bool:
        return self.future.done()

    @property
    def result(self) -> Json:
        return self.future.result()

    def cancel(self) -> None:
        self.future.cancel()


def _kept(tasks: set[asyncio.Future[Json]], task: LocalTask) -> LocalTask:
    tasks.add(task.future)
    task.future.add_done_callback(tasks.discard)
    return task


class LocalContext:
    """An orchestration's context in this process."""

    def __init__(self, host: LocalHost, instance_id: str, input_: Json) -> None:
        self._host = host
        self._input = _json(input_)
        self.instance_id = instance_id
        self.next_input: Json = None
        self._children = 0

    @property
    def current_utc_datetime(self) -> datetime:
        return datetime.now(UTC)

    def get_input(self) -> Json:
        return self._input

    def continue_as_new(self, input_: Json) -> None:
        self.next_input = _json(input_)

    def call_activity(self, name: str, input_: Json = None) -> LocalTask:
        async def work() -> Json:
            return _json(await self._host.activities[name](_json(input_)))

        return _kept(self._host.in_hand, LocalTask(work()))

    def call_sub_orchestrator(self, name: str, input_: Json = None, instance_id: str | None = None) -> LocalTask:
        self._children += 1
        child = self._host.run(name, input_, instance_id or f"{self.instance_id}:{self._children}")
        return _kept(self._host.children, LocalTask(child))

    def create_timer(self, fire_at: datetime) -> LocalTask:
        return LocalTask(asyncio.sleep(max(0.0, (fire_at - self.current_utc_datetime).total_seconds())))

    def task_any(self, activities: list[LocalTask]) -> LocalTask:
        async def work() -> Json:
            await asyncio.wait([task.future for task in activities], return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in activities if task.is_completed)

        return LocalTask(work())

    def wait_for_external_event(self, name: str) -> LocalTask:
        async def work() -> Json:
            await self._host.events[name].wait()
            self._host.events[name].clear()

        return LocalTask(work())


class LocalHost:
    """Orchestrators and activities by name, and the loop that carries an orchestrator from task to task.

    `children` are the orchestrations under the one that is run, `in_hand` their activities.
    """

    def __init__(
        self, orchestrators: Mapping[str, Callable[[Context], Orchestrator]], activities: Mapping[str, Activity]
    ) -> None:
        self.orchestrators = orchestrators
        self.activities = activities
        self.events: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.children: set[asyncio.Future[Json]] = set()
        self.in_hand: set[asyncio.Future[Json]] = set()

    async def stop(self) -> None:
        """Cancel what is in hand, and wait until it is: orchestrations first, or they would go on to something else."""
        for tasks in (self.children, self.in_hand):
            left = list(tasks)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def run(self, name: str, input_: Json, instance_id: str) -> Json:
        """The orchestrator's result. Raises what it raises."""
        context = LocalContext(self, instance_id, input_)
        generator = self.orchestrators[name](context)
        value: Any = None
        failure: Exception | None = None
        while True:
            try:
                task = generator.send(value) if failure is None else generator.throw(failure)
            except StopIteration as stop:
                if context.next_input is None:
                    return _json(stop.value)
                context = LocalContext(self, instance_id, context.next_input)
                generator, value, failure = self.orchestrators[name](context), None, None
                continue
            assert isinstance(task, LocalTask)  # our own context made it
            value = failure = None
            try:
                value = await task.future
            except Exception as error:
                failure = error
