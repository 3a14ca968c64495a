"""A task hub in memory: what Durable Functions keeps in storage, and so what outlives a host that dies.

An instance's history grows by one message an episode, so that every episode is a replay of all before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

# History events (DurableTask.Core's EventType) and actions (the extension's AsyncActionType), by their numbers.
STARTED, SCHEDULED, COMPLETED, FAILED = 0, 4, 5, 6
CHILD_CREATED, CHILD_COMPLETED, CHILD_FAILED = 7, 8, 9
TIMER_CREATED, TIMER_FIRED, EPISODE, EPISODE_END, RAISED = 10, 11, 12, 13, 15
ACTIVITY, CHILD, AS_NEW, TIMER, WAIT = 0, 2, 4, 5, 6

Event = dict[str, Any]
Action = dict[str, Any]


class NonDeterministicError(Exception):
    """A replay asked for something else than the run before it did."""


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


@dataclass
class Instance:
    """One orchestration: its history, what it waits for, and how it ended."""

    id: str
    name: str
    input: str
    parent: tuple[str, int] | None = None
    status: str = "Pending"
    output: Any = None
    error: str = ""
    created: str = field(default_factory=now)
    history: list[Event] = field(default_factory=list)
    inbox: list[Event] = field(default_factory=list)
    open: dict[int, Action] = field(default_factory=dict)
    asked: list[tuple[int, str]] = field(default_factory=list)

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
                "parentInstanceId": self.parent[0] if self.parent else None,
                "input": self.input,
                "upperSchemaVersion": 2,
                "maximumShortTimerDuration": "6.00:00:00",
                "longRunningTimerIntervalDuration": "3.00:00:00",
            }
        )


class Hub:
    """All instances. `episodes` counts how often a history grew."""

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.episodes = 0

    def create(self, instance_id: str, name: str, input_: str, parent: tuple[str, int] | None = None) -> Instance:
        """A new instance, with the message that starts it."""
        made = Instance(instance_id, name, input_, parent)
        made.inbox.append(event(STARTED, Name=name, Input=input_, Version=""))
        self.instances[instance_id] = made
        return made

    def commit(self, instance: Instance, episode: list[Event], state: dict[str, Any]) -> list[int]:
        """Write an episode down: its start and the one message that it brought, and what came of it.

        Gives the ids of what is to be begun. Raises NonDeterministicError.
        """
        self.episodes += 1
        instance.status = "Running"
        instance.inbox.remove(episode[-1])
        instance.history += episode
        actions = [item for item in flat(state["actions"]) if item["actionType"] != WAIT]
        if actions and actions[-1]["actionType"] == AS_NEW:
            self._begin_anew(instance, actions[-1]["input"])
            return []
        asked = [(int(item["actionType"]), str(item.get("functionName") or item["fireAt"])) for item in actions]
        if asked[: len(instance.asked)] != instance.asked:
            raise NonDeterministicError(f"{instance.id}: {instance.asked} became {asked}")
        fresh = list(range(len(instance.asked), len(asked)))
        for number in fresh:
            instance.open[number] = actions[number]
            instance.history.append(_scheduled(number, actions[number], instance.id))
        for number, item in enumerate(actions):
            if item["actionType"] == TIMER and item["isCanceled"]:
                instance.open.pop(number, None)
        instance.asked = asked
        instance.history.append(event(EPISODE_END))
        if state["isDone"]:
            self._end(instance, "Completed", state.get("output"))
        return [number for number in fresh if number in instance.open]

    def _begin_anew(self, instance: Instance, input_: Any) -> None:
        assert not instance.open, f"{instance.id} went on anew with {instance.open} unfinished"
        instance.input = input_ if isinstance(input_, str) else json.dumps(input_)
        instance.history, instance.asked = [], []
        instance.inbox = [event(STARTED, Name=instance.name, Input=instance.input, Version="")]

    def fail(self, instance: Instance, error: str) -> None:
        """An instance whose orchestrator raised."""
        instance.error = error
        self._end(instance, "Failed", None)

    def _end(self, instance: Instance, status: str, output: Any) -> None:
        instance.status, instance.output = status, output
        instance.inbox.clear()
        if instance.parent is None:
            return
        parent, number = self.instances[instance.parent[0]], instance.parent[1]
        if status == "Completed":
            self.deliver(parent, number, event(CHILD_COMPLETED, TaskScheduledId=number, Result=json.dumps(output)))
        else:
            self.deliver(parent, number, event(CHILD_FAILED, TaskScheduledId=number, Reason=instance.error, Details=""))

    def deliver(self, instance: Instance, number: int, message: Event) -> None:
        """The end of something that an instance asked for; a second end of the same is dropped."""
        if instance.open.pop(number, None) is not None and not instance.over:
            instance.inbox.append(message)


def _scheduled(number: int, action: Action, instance_id: str) -> Event:
    kind = action["actionType"]
    if kind == ACTIVITY:
        return event(SCHEDULED, EventId=number, Name=action["functionName"], Input=action["input"])
    if kind == CHILD:
        child = action.get("instanceId") or f"{instance_id}:{number}"
        return event(CHILD_CREATED, EventId=number, Name=action["functionName"], InstanceId=child)
    assert kind == TIMER, f"the hub knows no action {kind}: {action}"
    return event(TIMER_CREATED, EventId=number, FireAt=action["fireAt"])
