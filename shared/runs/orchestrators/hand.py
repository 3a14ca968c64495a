"""The calls that an orchestrator has in hand: they go side by side, and one that fails is made again.

In the Functions host a call fails when the worker that carried it out dies, and nothing delivers it a second time
(FACTS, section 9); a step that cannot be done now says so as data (`Failed`). Either way a durable timer is waited for,
and the call made anew: activities pick up where they were, and a child begins again from the store.
(`call_activity_with_retry` is not used: tasks that `task_any` has begun hang for good beside it.)
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from shared.runs.model import ENGINE
from shared.runs.model.messages import Failed, Message
from shared.runs.orchestrators.context import Context, Task, Timer

M = TypeVar("M", bound=Message)

STRETCH = 120
"""Calls after which an orchestration goes on with an empty history: replaying a long one is slow."""

WINDOW = 24
"""Calls of a lane or a fix in hand at once."""

TRIES = 16
"""How often a call is made in all: with its pauses eleven minutes, besides the patience that each has of its own.

One that died with its worker is made so often whatever its own number of `tries`: that says nothing of the step."""

_FEW_TRIES = 3
_LONGEST_PAUSE = 60.0


@dataclass(frozen=True, slots=True)
class Call:
    """A call of an activity, or of a child orchestrator (`child` is the end of its instance's id).

    `last` is what is said in place of the message when no other try comes after this one.
    """

    name: str
    message: Message
    answer: type[Message]
    child: str = ""
    tries: int = TRIES
    last: Message | None = None
    made: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """A call that is over, by the key that it was begun with."""

    key: str
    answer: Any


class Hand:
    """The calls in hand of one orchestration. `ended` counts those that are over, the ones made again too."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._open: dict[str, tuple[Call, Task]] = {}
        self._again: dict[str, tuple[Call, datetime]] = {}
        self._timer: tuple[datetime, Timer] | None = None
        self.ended = 0

    def __len__(self) -> int:
        return len(self._open) + len(self._again)

    def __contains__(self, key: str) -> bool:
        return key in self._open or key in self._again

    def begin(self, key: str, call: Call) -> None:
        """Make a call; it goes on from the next `wait` on."""
        message = call.message.model_dump(mode="json")
        if call.child:
            child = f"{self._context.instance_id}:{call.child}:{call.made}"
            task = self._context.call_sub_orchestrator(versioned(call.name), message, child)
        else:
            task = self._context.call_activity(call.name, message)
        self._open[key] = replace(call, made=call.made + 1), task

    def wait(self, until: datetime | None = None) -> Generator[Task, Any, Ended | None]:
        """The next call that is over, or None at the time `until`. With nothing in hand and no time: None at once."""
        while True:
            now = self._context.current_utc_datetime
            for key, (call, at) in list(self._again.items()):
                if at <= now:
                    del self._again[key]
                    self.begin(key, call)
            times = [at for _, at in self._again.values()] + ([until] if until is not None else [])
            moment = min(times, default=None)
            if until is not None and until <= now:
                return None
            if moment is None and not self._open:
                return None
            self._set_timer(moment)
            timers = [self._timer[1]] if self._timer is not None else []
            first = yield self._context.task_any([*(task for _, task in self._open.values()), *timers])
            if self._timer is not None and first is self._timer[1]:
                self._timer = None
                continue
            key = next(key for key, (_, task) in self._open.items() if task is first)
            call, task = self._open.pop(key)
            self.ended += 1
            answer, died = yield from _answer(call, task)
            if isinstance(answer, Failed) and call.made < (tries := _tries(call, answer, died=died)):
                pause = min(2.0**call.made, _LONGEST_PAUSE)
                if call.last is not None and call.made + 1 == tries:
                    call = replace(call, message=call.last)
                self._again[key] = call, self._context.current_utc_datetime + timedelta(seconds=pause)
                continue
            return Ended(key, answer)

    def call(self, call: Call) -> Generator[Task, Any, Any]:
        """One call's answer, `Failed` where all its tries failed. Nothing else may be in hand."""
        self.begin(call.name, call)
        ended = yield from self.wait()
        assert ended is not None  # it is in hand
        return ended.answer

    def let_go(self) -> None:
        """Cancel the timer: an orchestration is not over while its timers run."""
        self._set_timer(None)

    def _set_timer(self, moment: datetime | None) -> None:
        if self._timer is not None:
            at, timer = self._timer
            if at == moment:
                return
            if not timer.is_completed:
                timer.cancel()
            self._timer = None
        if moment is not None:
            self._timer = moment, self._context.create_timer(moment)


class Walk(Protocol):
    """An orchestration that goes on call by call: all it does but waiting."""

    hand: Hand
    over: bool

    def begin(self, now: datetime) -> datetime | None:
        """Begin what may begin now; gives the time at which more may, None where nothing waits for one."""

    def heed(self, ended: Ended, now: datetime) -> None:
        """Take note of a call that is over."""


def drive(context: Context, walk: Walk) -> Generator[Task, Any, bool]:
    """Walk until nothing is left to do (False), or to where it should go on with an empty history (True)."""
    while not walk.over:
        rests = walk.hand.ended >= STRETCH
        until = None if rests else walk.begin(context.current_utc_datetime)
        if until is None and not len(walk.hand):
            walk.hand.let_go()
            return rests
        ended = yield from walk.hand.wait(until)
        if ended is not None:
            walk.heed(ended, context.current_utc_datetime)
    walk.hand.let_go()
    return False


def _tries(call: Call, failed: Failed, *, died: bool) -> int:
    if died:
        return TRIES
    return call.tries if failed.again else min(_FEW_TRIES, call.tries)


def _answer(call: Call, task: Task) -> Generator[Task, Any, tuple[Message, bool]]:
    """What was answered, and whether the call died with its worker."""
    try:
        result = yield task
    except Exception as error:
        return Failed(failed=first_line(error)), True
    if isinstance(result, dict) and "failed" in result:
        return Failed.model_validate(result), False
    try:
        return call.answer.model_validate(result), False
    except ValidationError as error:
        why = f"{call.name} answered what is not its answer: {first_line(error)}"
        return Failed(failed=why, again=False), False


def versioned(orchestrator: str) -> str:
    """The name under which an orchestrator is registered: one that another version began does not go on with this."""
    return f"{orchestrator}_{ENGINE}"


def first_line(error: object) -> str:
    """What an exception says, short enough for a history."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
