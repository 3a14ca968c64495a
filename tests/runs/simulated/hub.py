"""Durable Functions in virtual time: orchestrations that are replayed from their histories, and workers that die.

Every episode runs the generator anew, from the beginning, and holds it to what it asked for before: one that is not
deterministic fails the test. What the real host does unkindly is done here too (FACTS, section 9): a worker that dies
takes its activities along, which come back as exceptions and are not delivered again; an orchestration that is in an
episode then has failed for good; its children go on; `continue_as_new` drops what was not read.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.runs.orchestrators.context import Context, Orchestrator
from tests.runs.simulated.clock import now
from tests.support.mortal import Life

Json = Any


class Fault(AssertionError):
    """The orchestration did what no host would bear."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What an orchestration asks for: an activity, a child, a timer or an event."""

    kind: str
    name: str
    input: Json = None
    child: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the thing with this number; `failed` is the text of an exception."""

    number: int
    value: Json = None
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Chances:
    """How often what goes wrong: of activities that die with their worker in the middle, that the host fails before
    they begin, or whose answer is lost; and of episodes in which an orchestration dies for good."""

    dies: float = 0.0
    fails: float = 0.0
    answer_lost: float = 0.0
    orchestration_dies: float = 0.0


@dataclass
class Instance:
    """An orchestration. `asked` and `history` are of its present execution."""

    id: str
    name: str
    input: Json
    parent: tuple[Instance, int, int] | None = None
    execution: int = 0
    asked: list[Asked] = field(default_factory=list)
    history: list[tuple[datetime, list[Outcome | str]]] = field(default_factory=list)
    inbox: list[Outcome | str] = field(default_factory=list)
    timers: dict[int, asyncio.TimerHandle] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)
    due: bool = False
    over: bool = False
    value: Json = None
    failed: str = ""
    longest: int = 0


class Hub:
    """Carries orchestrations out. `deaths` counts activities and orchestrations that died."""

    def __init__(
        self,
        orchestrators: Mapping[str, Callable[[Context], Orchestrator]],
        carry_out: Callable[[str, Json], Awaitable[Json]],
        source: random.Random,
        chances: Chances | None = None,
    ) -> None:
        self.orchestrators = orchestrators
        self.carry_out = carry_out
        self.source = source
        self.chances = chances or Chances()
        self.instances: dict[str, Instance] = {}
        self.executions: list[tuple[str, int]] = []
        self.deaths = 0
        self.in_hand = 0
        self.fault: Fault | None = None

    def start(self, name: str, instance_id: str, input_: Json, parent: tuple[Instance, int, int] | None = None) -> None:
        """Begin an orchestration; one that is there under this id is replaced."""
        before = self.instances.get(instance_id)
        if before is not None:
            before.over = True
        instance = self.instances[instance_id] = Instance(instance_id, name, _json(input_), parent)
        self._begin(instance)

    async def until_over(self, instance_id: str) -> Instance:
        """Wait until an orchestration has ended, and give it."""
        while not self.instances[instance_id].over:
            await asyncio.sleep(1)
            if self.fault is not None:
                raise self.fault
        return self.instances[instance_id]

    async def until_quiet(self) -> None:
        """Wait until nothing goes any more, children that nobody waits for included."""
        while self.in_hand or any(not instance.over for instance in self.instances.values()):
            await asyncio.sleep(1)
            if self.fault is not None:
                raise self.fault

    def wake(self, instance_id: str, event: str) -> None:
        """Raise an event for an orchestration."""
        instance = self.instances[instance_id]
        self._deliver(instance, instance.execution, event)

    def end(self, instance: Instance, *, value: Json = None, failed: str = "") -> None:
        """An orchestration is over; its children are not."""
        instance.over, instance.value, instance.failed = True, value, failed
        for timer in instance.timers.values():
            timer.cancel()
        if instance.parent is not None:
            parent, execution, number = instance.parent
            self._deliver(parent, execution, Outcome(number, value, failed))

    def _begin(self, instance: Instance) -> None:
        instance.execution += 1
        instance.asked, instance.history, instance.inbox, instance.timers = [], [], [], {}
        instance.answered = set()
        self.executions.append((instance.id, instance.execution))
        self._soon(instance)

    def _deliver(self, instance: Instance, execution: int, outcome: Outcome | str) -> None:
        if instance.over or instance.execution != execution:
            return
        instance.inbox.append(outcome)
        self._soon(instance)

    def _soon(self, instance: Instance) -> None:
        if not instance.due:
            instance.due = True
            asyncio.get_running_loop().call_later(self.source.uniform(0.01, 0.5), self._episode, instance)

    def _episode(self, instance: Instance) -> None:
        instance.due = False
        if instance.over:
            return
        if self.source.random() < self.chances.orchestration_dies:
            self.deaths += 1
            self.end(instance, failed="Orchestrator function failed: python3 exited with code 137")
            return
        instance.history.append((now(), instance.inbox))
        instance.inbox = []
        instance.longest = max(instance.longest, len(instance.asked))
        known = len(instance.asked)
        try:
            replay = Replay(self.orchestrators[instance.name], instance)
            replay.run()
        except Fault as fault:
            self.fault = self.fault or fault
            return
        for number in replay.cancelled & instance.timers.keys():
            instance.timers.pop(number).cancel()
        if replay.failed is not None:
            self.end(instance, failed=replay.failed)
        elif replay.over and replay.next_input is not None:
            if replay.open():
                self.fault = Fault(f"{instance.id} goes on anew with {replay.open()} open")
            instance.input = replay.next_input
            self._begin(instance)
        elif replay.over:
            if any(asked.kind == "timer" for asked in replay.open()):
                self.fault = Fault(f"{instance.id} is over, and has timers that run on")
            self.end(instance, value=replay.value)
        else:
            for number in range(known, len(instance.asked)):
                if number not in replay.cancelled:
                    self._carry_out(instance, number)

    def _carry_out(self, instance: Instance, number: int) -> None:
        asked, execution = instance.asked[number], instance.execution
        match asked.kind:
            case "activity":
                self.in_hand += 1
                task = asyncio.ensure_future(self._activity(instance, execution, number, asked))
                task.add_done_callback(self._activity_over)
            case "child":
                self.start(asked.name, asked.child, asked.input, (instance, execution, number))
            case "timer":
                assert asked.at is not None
                seconds = max(0.0, (asked.at - now()).total_seconds())
                instance.timers[number] = asyncio.get_running_loop().call_later(
                    seconds, self._deliver, instance, execution, Outcome(number)
                )

    def _activity_over(self, task: asyncio.Task[None]) -> None:
        self.in_hand -= 1
        if not task.cancelled() and task.exception() is not None:
            self.fault = self.fault or Fault(f"the host itself failed: {task.exception()!r}")

    async def _activity(self, instance: Instance, execution: int, number: int, asked: Asked) -> None:
        chances, source = self.chances, self.source
        died = "Activity function failed: python3 exited with code 137"
        await asyncio.sleep(source.uniform(0.005, 0.1))
        outcome = Outcome(number, failed=died)
        if source.random() < chances.fails:
            self.deaths += 1
            await asyncio.sleep(source.uniform(2, 7))
        else:
            task, life = self._spawned(asked, dies=source.random() < chances.dies)
            await asyncio.wait([task])
            if life.dead:
                self.deaths += 1
                await asyncio.sleep(source.uniform(2, 7))
            elif source.random() < chances.answer_lost:
                self.deaths += 1
            else:
                outcome = _outcome(number, task)
        self._deliver(instance, execution, outcome)

    def _spawned(self, asked: Asked, *, dies: bool) -> tuple[asyncio.Task[Json], Life]:
        """An activity in a worker of its own, which dies between two of its steps or at some time."""
        life, source = Life(), self.source
        at = int(2 ** source.uniform(0, 9)) if dies and source.random() < 0.5 else 0

        def suspended(count: int) -> None:
            if count == at:
                life.kill()

        task = life.spawn(self._carried(asked), suspended)
        if dies and not at:
            killing = asyncio.get_running_loop().call_later(source.uniform(0, 1.2), life.kill)
            task.add_done_callback(lambda _: killing.cancel())
        return task, life

    async def _carried(self, asked: Asked) -> Json:
        return await self.carry_out(asked.name, asked.input)


def _outcome(number: int, task: asyncio.Task[Any]) -> Outcome:
    error = task.exception()
    return Outcome(number, _json(task.result())) if error is None else Outcome(number, failed=str(error) or "failed")


def _json(value: Json) -> Json:
    return json.loads(json.dumps(value))


class ReplayTask:
    """A task of one replay. It has a number from when it is first yielded on."""

    def __init__(self, replay: Replay, asked: Asked) -> None:
        self._replay = replay
        self.asked = asked
        self.number = -1
        self.outcome: Outcome | None = None

    @property
    def is_completed(self) -> bool:
        return self.outcome is not None

    @property
    def result(self) -> Json:
        assert self.outcome is not None
        return self.outcome.value

    def cancel(self) -> None:
        if self.is_completed:
            raise Fault("a timer that has fired cannot be cancelled")
        if self.number < 0:
            raise Fault("a timer that was never waited for is cancelled")
        self._replay.cancelled.add(self.number)


class AnyTask:
    """The first of some tasks to be completed."""

    def __init__(self, tasks: list[ReplayTask]) -> None:
        self.tasks = tasks

    @property
    def is_completed(self) -> bool:
        return any(task.is_completed for task in self.tasks)


class Replay:
    """One run of an orchestrator over its history; it is the orchestrator's `Context`, too."""

    def __init__(self, orchestrator: Callable[[Context], Orchestrator], instance: Instance) -> None:
        self._instance = instance
        self._generator = orchestrator(self)  # type: ignore[arg-type]
        self._tasks: list[ReplayTask] = []
        self._events: list[str] = []
        self._time = instance.history[0][0]
        self._awaited: ReplayTask | AnyTask | None = None
        self._order: list[int] = []
        self.cancelled: set[int] = set()
        self.over = False
        self.value: Json = None
        self.failed: str | None = None
        self.next_input: Json = None

    def run(self) -> None:
        """As far as the history goes."""
        for episode, (time, outcomes) in enumerate(self._instance.history):
            self._time = time
            if episode == 0:
                self._step(lambda: next(self._generator))
                self._go_on()
            for outcome in outcomes:
                if self.over:
                    break
                self._arrive(outcome)
                self._go_on()
        if not self.over and len(self._tasks) < len(self._instance.asked):
            raise Fault(f"{self._instance.id} does not ask again for {self._instance.asked[len(self._tasks)]}")

    def open(self) -> list[Asked]:
        """What it asked for that is not over."""
        return [
            task.asked
            for task in self._tasks
            if not task.is_completed and task.number not in self.cancelled and task.asked.kind != "event"
        ]

    def _arrive(self, outcome: Outcome | str) -> None:
        if isinstance(outcome, str):
            waiting = [task for task in self._tasks if task.asked == Asked("event", outcome) and not task.is_completed]
            if waiting:
                waiting[0].outcome = Outcome(waiting[0].number)
                self._order.append(waiting[0].number)
            else:
                self._events.append(outcome)
            return
        if outcome.number >= len(self._tasks):
            raise Fault(f"{self._instance.id} has not asked for number {outcome.number}, which came")
        if outcome.number not in self.cancelled:
            self._tasks[outcome.number].outcome = outcome
            self._order.append(outcome.number)

    def _go_on(self) -> None:
        while not self.over and self._awaited is not None and self._awaited.is_completed:
            awaited = self._awaited
            if isinstance(awaited, AnyTask):
                done = [task for task in awaited.tasks if task.is_completed]
                first = min(done, key=lambda task: self._order.index(task.number))
                self._step(lambda first=first: self._generator.send(first))  # type: ignore[misc]
                continue
            outcome = awaited.outcome
            assert outcome is not None
            if outcome.failed:
                self._step(lambda outcome=outcome: self._generator.throw(Exception(outcome.failed)))  # type: ignore[misc]
            else:
                self._step(lambda outcome=outcome: self._generator.send(outcome.value))  # type: ignore[misc]

    def _step(self, go: Callable[[], Any]) -> None:
        try:
            yielded = go()
        except StopIteration as stop:
            self.over, self.value, self._awaited = True, _json(stop.value), None
            return
        except Fault:
            raise
        except Exception as error:
            self.over, self.failed, self._awaited = True, f"{type(error).__name__}: {error}", None
            return
        for task in yielded.tasks if isinstance(yielded, AnyTask) else [yielded]:
            self._ask(task)
        self._awaited = yielded

    def _ask(self, task: ReplayTask) -> None:
        if task.number in self.cancelled:
            raise Fault("a cancelled timer is waited for")
        if task.number >= 0:
            return
        task.number = len(self._tasks)
        self._tasks.append(task)
        asked = self._instance.asked
        if task.number < len(asked):
            if asked[task.number] != task.asked:
                raise Fault(f"{self._instance.id} is not deterministic: {task.asked}, and {asked[task.number]} before")
        else:
            asked.append(task.asked)
        if task.asked.kind == "event" and task.asked.name in self._events:
            self._events.remove(task.asked.name)
            task.outcome = Outcome(task.number)
            self._order.append(task.number)

    # The orchestrator's context

    @property
    def instance_id(self) -> str:
        return self._instance.id

    @property
    def current_utc_datetime(self) -> datetime:
        return self._time

    def get_input(self) -> Json:
        return _json(self._instance.input)

    def call_activity(self, name: str, input_: Json = None) -> ReplayTask:
        return ReplayTask(self, Asked("activity", name, _json(input_)))

    def call_sub_orchestrator(self, name: str, input_: Json = None, instance_id: str | None = None) -> ReplayTask:
        assert instance_id, "a child's id carries its attempt"
        return ReplayTask(self, Asked("child", name, _json(input_), instance_id))

    def create_timer(self, fire_at: datetime) -> ReplayTask:
        return ReplayTask(self, Asked("timer", "", at=fire_at))

    def task_any(self, activities: list[ReplayTask]) -> AnyTask:
        assert activities
        return AnyTask(activities)

    def continue_as_new(self, input_: Json) -> None:
        self.next_input = _json(input_)

    def wait_for_external_event(self, name: str) -> ReplayTask:
        return ReplayTask(self, Asked("event", name))
