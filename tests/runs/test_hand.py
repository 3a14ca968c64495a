"""The calls that an orchestrator has in hand: one that fails is made again, after a durable timer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from shared.runs.model.messages import Failed, Ref, Word
from shared.runs.orchestrators.context import Context, Orchestrator
from shared.runs.orchestrators.hand import TRIES, Call, Hand, versioned
from tests.runs.simulated.clock import now, virtually
from tests.runs.simulated.hub import Hub, Instance

REF = Ref(run_id="r")
GOOD = {"over": False, "cancelled": True}


def one_call(call: Call) -> Callable[[Context], Orchestrator]:
    """An orchestrator that makes one call and gives what came of it."""

    def orchestrator(context: Context) -> Orchestrator:
        hand = Hand(context)
        answer = yield from hand.call(call)
        hand.let_go()
        return [type(answer).__name__, answer.model_dump(mode="json"), hand.ended]

    return orchestrator


def carried_out(orchestrator: Callable[[Context], Orchestrator], answers: list[Any]) -> tuple[Instance, list[datetime]]:
    """The orchestration, and when its step was carried out; exceptions among the answers are the worker's death."""
    times: list[datetime] = []

    async def carry_out(name: str, job: Any) -> Any:
        times.append(now())
        answer = answers[min(len(times), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def work() -> Instance:
        hub = Hub({"top": orchestrator}, carry_out, random.Random(1))
        hub.start("top", "r", None)
        ended = await hub.until_over("r")
        await hub.until_quiet()
        return ended

    return virtually(work), times


DIED = RuntimeError("Activity function failed: python3 exited with code 137")


@pytest.mark.parametrize("failure", [DIED, {"failed": "the store is away", "again": True}])
def test_a_call_that_fails_is_made_again_after_a_durable_timer(failure: Any) -> None:
    instance, times = carried_out(one_call(Call("listen", REF, Word)), [failure, failure, failure, GOOD])
    assert instance.value == ["Word", GOOD, 4]
    pauses = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    assert [round(pause) // 2 * 2 for pause in pauses] == [2, 4, 8], "2, 4 and 8 seconds, and what the host takes"
    assert [asked.kind for asked in instance.asked] == ["activity", "timer"] * 3 + ["activity"]


@pytest.mark.parametrize(
    ("answer", "tries", "made"),
    [
        (DIED, TRIES, TRIES),
        (DIED, 2, TRIES),
        ({"failed": "no credential", "again": True}, TRIES, TRIES),
        ({"failed": "no credential", "again": True}, 2, 2),
        ({"failed": "a fault of the app", "again": False}, TRIES, 3),
        ({"failed": "a fault of the app", "again": False}, 2, 2),
        ({"what": "is this"}, TRIES, 3),
        ("text", TRIES, 3),
    ],
)
def test_how_often_a_call_is_made(answer: Any, tries: int, made: int) -> None:
    """What died with its worker is made as often as can be: that says nothing of the step itself."""
    instance, times = carried_out(one_call(Call("listen", REF, Word, tries=tries)), [answer])
    assert instance.value[0] == "Failed"
    assert len(times) == instance.value[2] == made
    assert (times[-1] - times[0]).total_seconds() < 900
    if made == TRIES:
        assert (times[-1] - times[0]).total_seconds() > 600, "an Azure that is away for ten minutes is outlasted"
    assert Failed.model_validate(instance.value[1]).failed


def test_the_last_try_is_told_that_it_is_the_last() -> None:
    told: list[str] = []

    async def carry_out(name: str, job: Any) -> Any:
        told.append(job["run_id"])
        return {"failed": "away", "again": True}

    async def work() -> Instance:
        call = Call("listen", REF, Word, tries=4, last=Ref(run_id="last"))
        hub = Hub({"top": one_call(call)}, carry_out, random.Random(1))
        hub.start("top", "r", None)
        return await hub.until_over("r")

    assert virtually(work).value[0] == "Failed"
    assert told == ["r", "r", "r", "last"]


def test_every_attempt_of_a_child_is_another_instance() -> None:
    """In the app a child that is started under an id that is there takes its place."""
    begun: list[str] = []

    def child(context: Context) -> Orchestrator:
        begun.append(context.instance_id)
        yield context.call_activity("listen", None)
        if context.instance_id != "r:0:sub:2":
            raise ValueError("python3 exited with code 137")
        return GOOD

    async def carry_out(name: str, job: Any) -> Any:
        return None

    async def work() -> Instance:
        top = one_call(Call("lane", REF, Word, child="0:sub"))
        hub = Hub({"top": top, versioned("lane"): child}, carry_out, random.Random(1))
        hub.start("top", "r", None)
        return await hub.until_over("r")

    assert virtually(work).value == ["Word", GOOD, 3]
    assert list(dict.fromkeys(begun)) == ["r:0:sub:0", "r:0:sub:1", "r:0:sub:2"]


def test_calls_go_side_by_side_and_none_waits_for_another_ones_pause() -> None:
    ended: list[tuple[str, float]] = []

    def top(context: Context) -> Orchestrator:
        hand = Hand(context)
        began = context.current_utc_datetime
        ended.clear()
        for key in ("bad", "good"):
            hand.begin(key, Call("listen", Ref(run_id=key), Word))
        while len(hand):
            one = yield from hand.wait()
            assert one is not None
            ended.append((one.key, (context.current_utc_datetime - began).total_seconds()))
        hand.let_go()
        return None

    tried: list[str] = []

    async def carry_out(name: str, job: Any) -> Any:
        tried.append(job["run_id"])
        return {"failed": "away", "again": True} if job["run_id"] == "bad" and len(tried) < 5 else GOOD

    async def work() -> Instance:
        hub = Hub({"top": top}, carry_out, random.Random(1))
        hub.start("top", "r", None)
        return await hub.until_over("r")

    virtually(work)
    assert [key for key, _ in ended] == ["good", "bad"]
    assert ended[0][1] < 2 < 12 < ended[1][1]


def test_a_wait_ends_at_its_time_and_leaves_no_timer() -> None:
    def top(context: Context) -> Orchestrator:
        hand = Hand(context)
        began = context.current_utc_datetime
        assert (yield from hand.wait()) is None, "with nothing in hand there is nothing to wait for"
        hand.begin("slow", Call("listen", REF, Word))
        none = yield from hand.wait(began.replace(second=30))
        at = (context.current_utc_datetime - began).total_seconds()
        one = yield from hand.wait(began.replace(minute=10))
        hand.let_go()
        return [none, round(at), one is not None and one.key]

    async def carry_out(name: str, job: Any) -> Any:
        await asyncio.sleep(100)
        return GOOD

    async def work() -> Instance:
        hub = Hub({"top": top}, carry_out, random.Random(1))
        hub.start("top", "r", None)
        ended = await hub.until_over("r")
        await hub.until_quiet()
        return ended

    value = virtually(work).value
    assert value[0] is None
    assert 30 <= value[1] <= 31
    assert value[2] == "slow"
