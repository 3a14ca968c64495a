"""A task hub in memory: what Durable Functions keeps in storage, and so what outlives workers and hosts.

It does what the extension with Azure Storage does (DurableTask.Core's and DurableTask.AzureStorage's source, and the
measurements of a real host), above all where that is unkind: messages of an older execution are dropped, a child that
is started under the id of an instance takes its place, an instance that has returned runs on until all it asked for
has ended, terminating or purging an instance leaves its children alone.

By default an instance's history grows by one message an episode, so that every episode is a replay of all before it.
"""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import uuid4

# History events (DurableTask.Core's EventType) and actions (the extension's AsyncActionType), by their numbers.
STARTED, TERMINATED, SCHEDULED, COMPLETED, FAILED = 0, 3, 4, 5, 6
CHILD_CREATED, CHILD_COMPLETED, CHILD_FAILED = 7, 8, 9
TIMER_CREATED, TIMER_FIRED, EPISODE, EPISODE_END, RAISED = 10, 11, 12, 13, 15
ACTIVITY, CHILD, AS_NEW, TIMER, WAIT = 0, 2, 4, 5, 6

PARTITIONS = 4  # as in host.json
STATUS_BYTES = 16 * 1024  # most of a custom status, in UTF-16

Event = dict[str, Any]
Action = dict[str, Any]


def now() -> str:
    """The time as the extension writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def event(kind: int, **fields: Any) -> Event:
    """A history event."""
    return {"EventType": kind, "EventId": -1, "IsPlayed": False, "Timestamp": now(), **fields}


def flat(actions: list[Any]) -> Iterator[Action]:
    """The single actions of a replay in the order in which they were asked for."""
    for action in actions:
        if isinstance(action, list):
            yield from flat(action)
        elif "compoundActions" in action:
            yield from flat(action["compoundActions"])
        else:
            yield action


@dataclass(frozen=True, slots=True)
class Message:
    """A message to an instance. Without an execution it is for whichever is going (an event, a termination)."""

    event: Event
    execution: str = ""


def new_episode(messages: Sequence[Message]) -> list[Event]:
    """What an episode adds to a history: its start, whose time is the orchestrator's, and what these messages bring."""
    return [event(EPISODE), *(message.event for message in messages)]


@dataclass(frozen=True, slots=True)
class Parent:
    """Who waits for a child: the instance, its execution, and the number of what it asked for."""

    id: str
    execution: str
    number: int


@dataclass(frozen=True, slots=True)
class Work:
    """An activity that somebody is to carry out."""

    instance: str
    execution: str
    number: int
    name: str
    input: str


@dataclass
class Instance:
    """One orchestration: its history, what it waits for, and how it ended.

    `execution` is new whenever the instance begins anew (`anew` times so far). `output` of a failed one is the text of
    what failed. `peak` is the largest that its history has been, in characters of JSON.
    """

    id: str
    name: str
    input: str
    parent: Parent | None = None
    execution: str = field(default_factory=lambda: uuid4().hex)
    status: str = "Pending"
    output: Any = None
    error: str = ""
    custom_status: Any = None
    created: str = field(default_factory=now)
    updated: str = field(default_factory=now)
    history: list[Event] = field(default_factory=list)
    inbox: list[Message] = field(default_factory=list)
    open: dict[int, Action] = field(default_factory=dict)
    asked: list[tuple[int, str]] = field(default_factory=list)
    episodes: int = 0
    anew: int = 0
    peak: int = 0

    @property
    def over(self) -> bool:
        return self.status in ("Completed", "Failed", "Terminated")

    def context(self, episode: list[Event]) -> str:
        """What the extension sends the worker for an episode."""
        return json.dumps(
            {
                "history": [*self.history, *episode],
                "instanceId": self.id,
                "isReplaying": False,
                "parentInstanceId": self.parent.id if self.parent else None,
                "input": self.input,
                "upperSchemaVersion": 2,
                "maximumShortTimerDuration": "6.00:00:00",
                "longRunningTimerIntervalDuration": "3.00:00:00",
            }
        )


class Member(Protocol):
    """A host, as the hub sees it."""

    def serve(self, instance: Instance) -> None:
        """An instance of its own may have messages, or may have asked for a timer."""

    def carry_out(self, work: Work) -> None:
        """Begin an activity."""

    def room(self) -> int:
        """How many more activities it would carry out now."""


class Hub:
    """All instances, the activities that wait, and which host serves what.

    `episodes` counts how often a history grew, `dropped` the messages that came for something that is not waited for.
    While it is `broken`, the extension fails whatever clients ask of it.
    """

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.work: deque[Work] = deque()
        self.episodes = 0
        self.dropped = 0
        self.broken = False
        self._hosts: list[Member] = []
        self._owners: dict[int, Member] = {}
        self._locked: dict[int, float] = {}
        self._invisible: list[tuple[float, Work]] = []

    def going(self, name: str = "") -> list[Instance]:
        """The instances that are not over: of this orchestrator, or all."""
        return [item for item in self.instances.values() if not item.over and name in ("", item.name)]

    # Hosts

    def join(self, host: Member) -> None:
        """A host more: partitions are shared anew."""
        self._hosts.append(host)
        self._settle()

    def leave(self, host: Member, in_hand: Sequence[Work], seconds: float) -> None:
        """A host that died: what it had in hand, and its partitions, are out of reach for so long."""
        if host not in self._hosts:
            return
        self._hosts.remove(host)
        until = time.monotonic() + seconds
        self._invisible += [(until, work) for work in in_hand]
        for partition, owner in list(self._owners.items()):
            if owner is host:
                del self._owners[partition]
                self._locked[partition] = until
        self._settle()

    def owner(self, instance_id: str) -> Member | None:
        """The host that serves an instance."""
        return self._owners.get(zlib.crc32(instance_id.encode()) % PARTITIONS)

    def _settle(self) -> None:
        """Share the partitions among the hosts, bring back what has become visible, and look again when more does."""
        if not self._hosts:
            return
        at = time.monotonic()
        self._locked = {partition: until for partition, until in self._locked.items() if until > at}
        for partition in range(PARTITIONS):
            if partition not in self._locked:
                self._owners[partition] = self._hosts[partition % len(self._hosts)]
        self.work += [work for until, work in self._invisible if until <= at]
        self._invisible = [(until, work) for until, work in self._invisible if until > at]
        later = [*self._locked.values(), *(until for until, _ in self._invisible)]
        if later:
            asyncio.get_running_loop().call_later(min(later) - at + 0.001, self._settle)
        for instance in list(self.instances.values()):
            self._wake(instance)
        self.dispatch()

    def _wake(self, instance: Instance) -> None:
        if (owner := self.owner(instance.id)) is not None:
            owner.serve(instance)

    def dispatch(self) -> None:
        """Give the activities that wait to hosts that have room, whichever they are."""
        while self.work and self._hosts:
            host = max(self._hosts, key=lambda host: host.room())
            if host.room() <= 0:
                return
            host.carry_out(self.work.popleft())

    # Instances

    def create(self, instance_id: str, name: str, input_: str, parent: Parent | None = None) -> Instance:
        """A new instance, with the message that starts it.

        It takes the place of one with the same id, whose results are of no interest any more, be it over or going:
        only clients are refused to start what is going, parents are not.
        """
        made = Instance(instance_id, name, input_, parent)
        made.inbox.append(Message(event(STARTED, Name=name, Input=input_, Version=""), made.execution))
        self.instances[instance_id] = made
        self._wake(made)
        return made

    def send(self, instance: Instance, message: Message) -> None:
        """A message for an instance."""
        instance.inbox.append(message)
        self._wake(instance)

    def deliver(self, instance_id: str, execution: str, number: int, message: Event) -> None:
        """The end of something that an instance asked for. Dropped where nobody waits for it (any more)."""
        instance = self.instances.get(instance_id)
        if instance is None or instance.over or instance.execution != execution or number not in instance.open:
            self.dropped += 1
            return
        del instance.open[number]
        self.send(instance, Message(message, execution))

    def due(self, instance: Instance, most: int) -> list[Message]:
        """The next messages that an episode is to bring; those of older executions are dropped."""
        fits = [message for message in instance.inbox if message.execution in ("", instance.execution)]
        self.dropped += len(instance.inbox) - len(fits)
        instance.inbox = fits
        return fits[:most]

    def commit(
        self,
        instance: Instance,
        episode: list[Event],
        messages: Sequence[Message],
        state: dict[str, Any],
        activities: Collection[str],
    ) -> None:
        """Write an episode down: what the worker got of it, the messages that this was, and what came of it.

        `activities` are the names that the app has: an unknown one is waited for, for ever, and nothing says so.
        """
        self._begin_episode(instance, episode, messages)
        status = json.dumps(state.get("customStatus"))
        if (size := len(status.encode("utf-16-le"))) > STATUS_BYTES:
            kib = size // 1024
            self.break_off(
                instance,
                f"The UTF-16 size of the JSON-serialized payload must not exceed 16 KB. The payload has {kib} KB.",
            )
            return
        instance.custom_status = state.get("customStatus") or instance.custom_status
        actions = [item for item in flat(state["actions"]) if item["actionType"] != WAIT]
        anew = next((item for item in actions if item["actionType"] == AS_NEW), None)
        actions = [item for item in actions if item["actionType"] != AS_NEW]
        asked = [(int(item["actionType"]), str(item.get("functionName") or item["fireAt"])) for item in actions]
        if asked[: len(instance.asked)] != instance.asked:
            self._fail(instance, _non_deterministic(instance, asked))
            return
        fresh = range(len(instance.asked), len(asked))
        instance.asked = asked
        for number in fresh:
            instance.open[number] = actions[number]
            if actions[number]["actionType"] != ACTIVITY or actions[number]["functionName"] in activities:
                instance.history.append(_scheduled(number, actions[number], instance))
        for number, item in enumerate(actions):
            if item["actionType"] == TIMER and item["isCanceled"]:
                instance.open.pop(number, None)
        instance.history.append(event(EPISODE_END))
        instance.peak = max(instance.peak, len(json.dumps(instance.history)))
        self._ask(instance, fresh, actions, activities)
        # An orchestrator that returned, or raised, stays until all that it asked for has ended.
        if (state["isDone"] or state.get("error")) and not self._waits(instance):
            if anew is not None:
                self._begin_anew(instance, anew.get("input"))
            elif state.get("error"):
                self._fail(instance, f"Orchestrator function '{instance.name}' failed: {state['error']}")
            else:
                self._end(instance, "Completed", state.get("output"))
        else:
            self._wake(instance)

    def ask_only(self, instance: Instance, state: dict[str, Any], activities: Collection[str]) -> None:
        """What is left of an episode whose host died after its messages were sent and before its history was written.

        The next host does the episode again, so that all that it asks for is asked for twice.
        """
        actions = [item for item in flat(state["actions"]) if item["actionType"] not in (WAIT, AS_NEW)]
        self._ask(instance, range(len(instance.asked), len(actions)), actions, activities)

    def _ask(self, instance: Instance, numbers: range, actions: list[Action], activities: Collection[str]) -> None:
        for number in numbers:
            action = actions[number]
            if action["actionType"] == ACTIVITY:
                if action["functionName"] in activities:
                    name, input_ = action["functionName"], action["input"]
                    self.work.append(Work(instance.id, instance.execution, number, name, input_))
            elif action["actionType"] == CHILD:
                parent = Parent(instance.id, instance.execution, number)
                self.create(_child_id(number, action, instance), action["functionName"], action["input"], parent)
        self.dispatch()

    def _waits(self, instance: Instance) -> bool:
        return bool(instance.open) or any(message.execution for message in instance.inbox)

    def _begin_episode(self, instance: Instance, episode: list[Event], messages: Sequence[Message]) -> None:
        self.episodes += 1
        instance.episodes += 1
        instance.status = "Running"
        instance.updated = now()
        for message in messages:
            instance.inbox.remove(message)
        instance.history += episode

    def _begin_anew(self, instance: Instance, input_: Any) -> None:
        """With the messages that are still under way to it, and without the events that it had got and not read."""
        instance.execution = uuid4().hex
        instance.anew += 1
        instance.input = input_ if isinstance(input_, str) else json.dumps(input_)
        instance.history, instance.asked = [], []
        started = event(STARTED, Name=instance.name, Input=instance.input, Version="")
        instance.inbox.insert(0, Message(started, instance.execution))
        self._wake(instance)

    def lose_episode(self, instance: Instance, messages: Sequence[Message], why: str) -> None:
        """An episode for which there was no worker, or whose worker died: the instance has failed for good."""
        self._begin_episode(instance, new_episode(messages), messages)
        self.break_off(instance, why)

    def break_off(self, instance: Instance, why: str) -> None:
        """An episode that asked for nothing again of what the history says was asked for, because of this failure."""
        if instance.asked:
            self._fail(instance, _non_deterministic(instance, []))
        else:
            self._fail(instance, f"Orchestrator function '{instance.name}' failed: {why}")

    def terminate(self, instance: Instance, reason: str) -> None:
        """End an instance. Its activities and its children go on."""
        self.episodes += 1
        instance.episodes += 1
        self._end(instance, "Terminated", reason)

    def purge(self, instance_id: str) -> None:
        """Forget an instance. Its children stay."""
        del self.instances[instance_id]

    def _fail(self, instance: Instance, error: str) -> None:
        instance.error = error
        self._end(instance, "Failed", error)

    def _end(self, instance: Instance, status: str, output: Any) -> None:
        instance.status, instance.output, instance.updated = status, output, now()
        instance.inbox.clear()
        if (parent := instance.parent) is None:
            return
        if status == "Completed":
            ended = event(CHILD_COMPLETED, TaskScheduledId=parent.number, Result=json.dumps(output))
        else:
            ended = event(CHILD_FAILED, TaskScheduledId=parent.number, Reason=str(output), Details="")
        self.deliver(parent.id, parent.execution, parent.number, ended)


def _child_id(number: int, action: Action, instance: Instance) -> str:
    return str(action.get("instanceId") or f"{instance.execution}:{number}")


def _scheduled(number: int, action: Action, instance: Instance) -> Event:
    kind = action["actionType"]
    if kind == ACTIVITY:
        return event(SCHEDULED, EventId=number, Name=action["functionName"], Input=action["input"])
    if kind == CHILD:
        child = _child_id(number, action, instance)
        return event(CHILD_CREATED, EventId=number, Name=action["functionName"], InstanceId=child)
    assert kind == TIMER, f"the hub knows no action {kind}: {action}"
    return event(TIMER_CREATED, EventId=number, FireAt=action["fireAt"])


_TASKS = {ACTIVITY: "an activity task", CHILD: "a sub-orchestration task", TIMER: "a timer task"}


def _non_deterministic(instance: Instance, asked: list[tuple[int, str]]) -> str:
    """What the extension says of the first thing that a replay did not ask for again."""
    number = next(at for at, before in enumerate(instance.asked) if asked[at : at + 1] != [before])
    kind, name = instance.asked[number]
    named = "" if kind == TIMER else f" and name '{name}'"
    return (
        "Non-Deterministic workflow detected: A previous execution of this orchestration scheduled "
        f"{_TASKS[kind]} with sequence ID {number}{named}, but the current replay execution hasn't (yet?) scheduled "
        "this task. Was a change made to the orchestrator code after this instance had already started running?"
    )
