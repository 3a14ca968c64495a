"""The tests' own Functions host: that it is as unkind as the real one (measured with the extension 3.19.0).

Small apps stand in for the product, so that what is shown here is the host's.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import aiohttp
import azure.durable_functions as df
import azure.functions as func
import pytest

from tests.support.host import END, EXITED, NO_WORKER, Host, Loader, in_activity, in_episode, in_http, in_timer, running
from tests.support.hub import Hub, Instance


def app(*functions: Callable[..., Any]) -> Loader:
    """Activities are coroutine functions, orchestrators generators; imported anew for each worker."""

    def load() -> tuple[Any, dict[str, Any]]:
        made = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)
        for function in functions:
            if asyncio.iscoroutinefunction(function):
                made.activity_trigger(input_name="job")(function)
            else:
                made.orchestration_trigger(context_name="context")(function)
        return SimpleNamespace(), {item.get_function_name(): item for item in made.get_functions()}

    return load


async def echo(job: str) -> Any:
    """An activity that is done at once."""
    return job


def trying(context: Any) -> Any:
    """Calls one activity, and says how that ended."""
    try:
        result = yield context.call_activity("work", context.get_input())
    except Exception as error:
        return f"caught: {error}"
    return result


def plain(context: Any) -> Any:
    """Calls one activity."""
    return (yield context.call_activity("work", context.get_input()))


def twice(context: Any) -> Any:
    """Calls an activity, and again."""
    first = yield context.call_activity("echo", 1)
    second = yield context.call_activity("echo", 2)
    return [first, second]


async def finish(host: Host, name: str, input_: Any = None, instance_id: str = "one") -> Instance:
    """Start an orchestrator, and wait for its end."""
    await host.client.start_new(name, instance_id, input_)
    return await host.finish(instance_id, 10)


# Workers


@pytest.mark.parametrize("at", [0, 1, 3, END])
async def test_a_worker_killed_in_an_activity(at: int | None) -> None:
    """The orchestrator gets a failure, nothing is delivered again, and not even a `finally` is carried out."""
    begun, finally_ = [], []

    async def work(job: str) -> str:
        begun.append(job)
        try:
            for _ in range(2):
                await asyncio.sleep(0.01)
            await asyncio.gather(asyncio.sleep(0.01), asyncio.sleep(0.01))
        finally:
            finally_.append(job)
        return job

    async with running(Hub(), load=app(trying, work), gap=0) as host:
        host.kill_worker(in_activity("work", at=at))
        killed = await finish(host, "trying", "a")
        assert killed.output.startswith(f"caught: Activity function 'work' failed: {EXITED}")
        assert host.activities == ["work"]
        assert begun == ([] if at == 0 else ["a"])
        assert finally_ == (["a"] if at is END else [])
        assert (await finish(host, "trying", "b", "two")).output == "b"
        assert len(host.deaths) == 1


async def test_all_that_the_worker_had_in_hand_is_lost() -> None:
    async def work(job: int) -> None:
        await asyncio.Event().wait()

    async with running(Hub(), load=app(trying, work), gap=0) as host:
        for number in range(3):
            await host.client.start_new("trying", str(number), number)
        await host.until(lambda: len(host.activities) == 3)
        host.kill_worker()
        outputs = [(await host.finish(str(number), 10)).output for number in range(3)]
        assert all(output.startswith("caught: ") and EXITED in output for output in outputs)
        assert host.activities == ["work"] * 3


async def test_a_new_worker_knows_nothing_of_the_last() -> None:
    def load() -> tuple[Any, dict[str, Any]]:
        seen: list[str] = []  # what a module of the app would keep

        async def work(job: str) -> int:
            seen.append(job)
            return len(seen)

        return app(plain, work)()

    async with running(Hub(), load=load, gap=0) as host:
        assert [(await finish(host, "plain", "a", name)).output for name in "ab"] == [1, 2]
        host.kill_worker()
        assert (await finish(host, "plain", "a", "c")).output == 1


async def test_killed_in_an_episode() -> None:
    """The instance has failed for good, with what the extension makes of it; and so its parent is told."""

    def above(context: Any) -> Any:
        try:
            return (yield context.call_sub_orchestrator("twice"))
        except Exception as error:
            return f"caught: {error}"

    async with running(Hub(), load=app(above, twice, echo), gap=0) as host:
        host.kill_worker(in_episode("twice", number=1))
        assert EXITED in (await finish(host, "above")).output
        host.kill_worker(in_episode("twice", number=2))
        failed = await finish(host, "twice", instance_id="two")
        assert (failed.status, failed.output) == ("Failed", failed.error)
        assert "Non-Deterministic workflow detected: A previous execution" in failed.output
        assert "scheduled an activity task with sequence ID 0 and name 'echo'" in failed.output
        assert host.activities == ["echo"]
        status = await host.client.get_status("two")
        assert (status.runtime_status, status.output) == (df.OrchestrationRuntimeStatus.Failed, failed.output)


async def test_called_in_the_gap() -> None:
    """Its activity comes back at once, when there is no worker to call the orchestrator."""
    async with running(Hub(), load=app(trying, twice, echo, slow_then(echo)), gap=1) as host:
        host.kill_worker(in_activity("work"))
        failed = await finish(host, "trying")
        assert (failed.status, "Non-Deterministic" in failed.output) == ("Failed", True)
        failed = await finish(host, "twice", instance_id="two")
        assert failed.output == f"Orchestrator function 'twice' failed: {NO_WORKER}"
        await host.until(lambda: host.worker)
        assert (await finish(host, "twice", instance_id="three")).output == [1, 2]


async def test_an_activity_in_the_gap() -> None:
    async with running(Hub(), load=app(trying, slow_then(echo)), gap=1) as host:
        host.going.clear()
        await host.client.start_new("trying", "one")
        await host.until(lambda: host.room() == 7)
        host.kill_worker()
        host.going.set()
        failed = await host.finish("one", 10)
        assert failed.history[-1]["Reason"] == f"Activity function 'work' failed: {NO_WORKER}"


async def work_slowly(job: Any) -> Any:
    """An activity that takes a while."""
    await asyncio.sleep(0.3)
    return job


async def test_http_calls_in_hand_and_in_the_gap() -> None:
    def load() -> tuple[Any, dict[str, Any]]:
        made = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)

        async def hello(req: func.HttpRequest) -> func.HttpResponse:
            await asyncio.sleep(0.01)
            return func.HttpResponse(req.route_params["name"])

        async def late(timer: func.TimerRequest) -> None:
            await asyncio.sleep(0.01)

        made.route("hello/{name}", methods=["GET"])(hello)
        made.timer_trigger(schedule="0 0 2 * * *", arg_name="timer")(late)
        return SimpleNamespace(), {item.get_function_name(): item for item in made.get_functions()}

    async with running(Hub(), load=load, gap=0.5) as host:
        host.kill_worker(in_http("hello", at=1))
        reply = await host.http("GET", "/api/hello/you")
        assert (reply.status, reply.body) == (500, b"")
        assert (await host.http("GET", "/api/hello/you")).status == 500
        assert not await host.tick(name="late")
        await host.until(lambda: host.worker)
        assert (await host.http("GET", "/api/hello/you")).body == b"you"
        assert (await host.http("GET", "/api/nobody")).status == 404
        host.kill_worker(in_timer("late", at=END))
        assert not await host.tick(name="late")
        await host.until(lambda: host.worker)
        assert await host.tick(name="late")
        wrong = await host.http("GET", "/api/hello/you", key="guessed")
        assert (wrong.status, wrong.body) == (401, b"")


async def test_an_activity_that_takes_too_long_ends_the_worker() -> None:
    async with running(Hub(), load=app(trying, plain, slow_then(echo)), gap=0) as host:
        host.timing_out["work"] = 1
        ended = await finish(host, "trying", "a")
        assert "Timeout value of 02:00:00 was exceeded by function: Functions.work" in ended.output
        assert len(host.deaths) == 1


def slow_then(function: Callable[..., Any]) -> Callable[..., Any]:
    """An activity called work, which does what the other does."""

    async def work(job: Any) -> Any:
        return await function(job)

    return work


async def test_the_third_death_ends_the_host() -> None:
    hub = Hub()
    async with running(hub, load=app(trying, slow_then(echo)), gap=0, visibility=0.1) as host:
        for _ in range(3):
            assert not host.dead.is_set()
            host.kill_worker()
        assert host.dead.is_set()
        assert (await host.http("GET", "/api/hello")).status == 503
    async with running(hub, load=app(trying, slow_then(echo))) as host:
        assert (await finish(host, "trying", "a")).output == "a"


# Hosts


@pytest.mark.parametrize("at", [0, 1, END])
async def test_a_host_killed_in_an_activity(at: int | None) -> None:
    """The activity is delivered again, and not before its message is visible again."""
    hub = Hub()
    async with running(hub, load=app(plain, slow_then(work_slowly)), visibility=0.5) as host:
        host.kill(in_activity("work", at=at))
        died = time.monotonic()
        await finish(host, "plain", "a")
        assert (host.dead.is_set(), hub.instances["one"].status) == (True, "Running")
    async with running(hub, load=app(plain, slow_then(echo))) as host:
        await host.until(lambda: host.activities)
        assert time.monotonic() - died >= 0.5
        assert (await host.finish("one", 10)).output == "a"


async def test_a_host_killed_in_an_episode() -> None:
    """The episode is done again; where its messages had been sent, what it asked for is done twice."""
    for at, times in ((0, 1), (END, 2)):
        hub = Hub()
        async with running(hub, load=app(plain, slow_then(echo)), visibility=0.1) as host:
            host.kill(in_episode(at=at))
            await finish(host, "plain", "a")
        async with running(hub, load=app(plain, slow_then(echo))) as host:
            assert (await host.finish("one", 10)).output == "a"
            await host.until(lambda: host.room() == 8)
            assert host.activities == ["work"] * times
            assert hub.dropped == times - 1


async def test_a_host_that_is_stopped() -> None:
    """What it has in hand is done, and the rest is the next host's, at once."""
    hub, load = Hub(), app(plain, slow_then(work_slowly))
    async with running(hub, load=load, visibility=60) as host:
        await host.client.start_new("plain", "one", "a")
        await host.until(lambda: host.activities)
        await host.stop()
        assert (host.dead.is_set(), hub.instances["one"].over) == (True, False)
    async with running(hub, load=load) as host:
        assert (await host.finish("one", 10)).output == "a"
        assert (host.activities, hub.going()) == ([], [])


async def test_two_hosts_share_a_hub() -> None:
    def fan(context: Any) -> Any:
        return (yield context.task_all([context.call_activity("work_slowly", number) for number in range(6)]))

    hub, load = Hub(), app(fan, work_slowly)
    async with running(hub, load=load) as host, running(hub, load=load, visibility=0.2) as other:
        ids = [f"run-{number}" for number in range(8)]
        for instance_id in ids:
            await host.client.start_new("fan", instance_id)
        await host.until(lambda: len(other.activities) >= 6)
        assert {hub.owner(instance_id) for instance_id in ids} == {host, other}
        assert all(item.calls["orchestrationTrigger", "fan"] for item in (host, other))
        assert other.room() >= 0
        other.kill()
        assert {hub.owner(instance_id) for instance_id in ids} == {host, None}
        for instance_id in ids:
            assert (await host.finish(instance_id, 10)).output == list(range(6))
        assert len(host.activities) + len(other.activities) > 48, "what the dead one had in hand was done again"


# What clients may do


async def test_terminating_and_purging_leave_children_alone() -> None:
    def above(context: Any) -> Any:
        return (yield context.call_sub_orchestrator("below", None, "child"))

    def below(context: Any) -> Any:
        return (yield context.wait_for_external_event("go"))

    async with running(Hub(), load=app(above, below)) as host:
        await host.client.start_new("above", "one")
        await host.until(lambda: "child" in host.hub.instances)
        await host.client.terminate("one", "enough")
        await host.finish("one", 10)
        status = await host.client.get_status("one")
        assert (status.runtime_status.name, status.output) == ("Terminated", "enough")
        await host.client.terminate("one", "again, which is nothing new")
        assert (await host.client.purge_instance_history("one")).instances_deleted == 1
        assert (await host.client.purge_instance_history("one")).instances_deleted == 0
        assert not await host.client.get_status("one")
        assert host.hub.instances["child"].status == "Running"
        await host.client.raise_event("child", "go", {"by": "hand"})
        assert (await host.finish("child", 10)).output == '{"by": "hand"}', "the client encodes twice"
        with pytest.raises(Exception, match="is gone"):
            await host.client.raise_event("child", "go")
        with pytest.raises(Exception, match="No instance"):
            await host.client.raise_event("one", "go")
        with pytest.raises(Exception, match="No instance"):
            await host.client.terminate("one", "again")


async def test_a_child_that_is_terminated_fails_for_its_parent() -> None:
    def above(context: Any) -> Any:
        try:
            yield context.call_sub_orchestrator("below", None, "child")
        except Exception as error:
            return str(error)

    def below(context: Any) -> Any:
        yield context.wait_for_external_event("go")

    async with running(Hub(), load=app(above, below)) as host:
        await host.client.start_new("above", "one")
        await host.until(lambda: "child" in host.hub.instances)
        await host.client.terminate("child", "enough")
        assert "enough" in (await host.finish("one", 10)).output


async def test_starting_under_an_id_that_is_taken() -> None:
    """Going: an error. Over: it begins anew, and what the last one still has under way is for nobody."""

    def quick(context: Any) -> Any:
        if context.get_input() == "fail":
            raise RuntimeError("out of luck")
        return (yield context.call_activity("work_slowly", context.get_input()))

    async with running(Hub(), load=app(quick, work_slowly)) as host:
        await host.client.start_new("quick", "one", "first")
        await host.until(lambda: host.activities)
        with pytest.raises(Exception, match="already exists"):
            await host.client.start_new("quick", "one", "second")
        first = host.hub.instances["one"]
        await host.client.terminate("one", "enough")
        await host.finish("one", 10)
        await host.client.start_new("quick", "one", "second")
        assert (await host.finish("one", 10)).output == "second"
        assert (first.status, host.hub.instances["one"].execution != first.execution) == ("Terminated", True)
        assert host.hub.dropped == 1
        failed = await finish(host, "quick", "fail", "two")
        assert failed.output == "Orchestrator function 'quick' failed: out of luck"
        with pytest.raises(Exception, match="'nothing' doesn't exist"):
            await host.client.start_new("nothing", "three")


async def test_a_child_under_the_id_of_one_that_is_going_takes_its_place() -> None:
    """Its first parent waits for ever. DurableTask.AzureStorage has no protection against a second start of a child."""

    def above(context: Any) -> Any:
        return (yield context.call_sub_orchestrator("below", context.get_input(), "child"))

    def below(context: Any) -> Any:
        yield context.call_activity("echo", 1)
        yield context.wait_for_external_event("go")
        return context.get_input()

    async with running(Hub(), load=app(above, below, echo)) as host:
        await host.client.start_new("above", "one", "a")
        await host.until(lambda: host.activities)
        await host.client.start_new("above", "two", "b")
        await host.until(lambda: len(host.activities) == 2)
        await host.client.raise_event("child", "go")
        assert (await host.finish("two", 10)).output == "b"
        assert host.hub.instances["one"].status == "Running"


async def test_lists_and_purges_of_many() -> None:
    async with running(Hub(), load=app(plain, slow_then(echo))) as host:
        began = datetime.now(UTC) - timedelta(seconds=1)
        for number in range(101):
            host.hub.create(f"run-{number:03}", "plain", json.dumps(json.dumps("a")))
        await host.until(lambda: all(instance.over for instance in host.hub.instances.values()))
        completed = [df.OrchestrationRuntimeStatus.Completed]
        found = await host.client.get_status_by(began, datetime.now(UTC), completed)
        assert len(found) == 100, "the SDK's client reads no second page"
        assert not await host.client.get_status_by(began, None, [df.OrchestrationRuntimeStatus.Failed])
        purged = await host.client.purge_instance_history_by(began, None, completed)
        assert (purged.instances_deleted, host.hub.instances) == (101, {})
        assert (await host.client.purge_instance_history_by(began)).instances_deleted == 0


async def test_an_app_that_cannot_be_indexed() -> None:
    def load() -> tuple[Any, dict[str, Any]]:
        raise ValueError("GUARD_MODE='destroy'")

    async with running(Hub(), load=load) as host:
        assert (host.functions, host.dead.is_set()) == ({}, False)
        assert (await host.http("GET", "/api/health")).status == 404


# Orchestrators


async def test_an_unknown_activity_hangs_its_instance() -> None:
    async with running(Hub(), load=app(plain)) as host:
        await host.client.start_new("plain", "one")
        await host.until(lambda: host.hub.instances["one"].episodes)
        status = await host.client.get_status("one")
        assert (status.runtime_status.name, host.errors) == ("Running", [])


async def test_going_on_anew_drops_events_that_were_not_read() -> None:
    def loop(context: Any) -> Any:
        if context.get_input() == "first":
            yield context.wait_for_external_event("go")
            context.continue_as_new("second")
            return None
        return (yield context.wait_for_external_event("other"))

    async with running(Hub(), load=app(loop)) as host:
        await host.client.start_new("loop", "one", "first")
        for name, value in (("other", "early"), ("go", None)):
            await host.client.raise_event("one", name, value)
        await host.until(lambda: host.hub.instances["one"].episodes == 4)
        assert not host.hub.instances["one"].over
        await host.client.raise_event("one", "other", "late")
        assert (await host.finish("one", 10)).output == '"late"'


async def test_going_on_anew_waits_for_what_is_open() -> None:
    def loop(context: Any) -> Any:
        if context.get_input() == "second":
            return (yield context.call_activity("echo", "done"))
        timer, left = context.create_timer(soon(context, 60)), context.call_activity("work_slowly", "late")
        yield context.task_any([left, context.create_timer(soon(context, 0.01)), timer])
        timer.cancel()
        context.continue_as_new("second")
        return None

    async with running(Hub(), load=app(loop, echo, work_slowly)) as host:
        before = time.monotonic()
        assert (await finish(host, "loop", "first")).output == "done"
        assert time.monotonic() - before >= 0.3
        assert host.hub.instances["one"].history[1]["Input"] == json.dumps("second")


def soon(context: Any, seconds: float) -> datetime:
    """A time to come, as an orchestrator may ask for it."""
    at: datetime = context.current_utc_datetime + timedelta(seconds=seconds)
    return at


@pytest.mark.parametrize(
    ("what", "seconds"), [("activity", 0.3), ("timer", 0.3), ("cancelled", 0.0), ("cancelled long", None)]
)
async def test_returning_does_not_end_what_is_open(what: str, seconds: float | None) -> None:
    """It stays Running until its activities and timers end. A cancelled timer holds it only if it is very long."""

    def leaving(context: Any) -> Any:
        first = context.call_activity("echo", 1)
        left: Any = {
            "activity": lambda: context.call_activity("work_slowly", 1),
            "timer": lambda: context.create_timer(soon(context, 0.3)),
            "cancelled": lambda: context.create_timer(soon(context, 60)),
            "cancelled long": lambda: context.create_timer(soon(context, 7 * 86400)),
        }[what]()
        yield context.task_any([first, left])
        if what.startswith("cancelled"):
            left.cancel()
        return "left"

    async with running(Hub(), load=app(leaving, echo, work_slowly)) as host:
        before = time.monotonic()
        await host.client.start_new("leaving", "one")
        if seconds is None:
            await host.until(lambda: host.hub.instances["one"].episodes == 2)
            assert not host.hub.instances["one"].over
        else:
            assert (await host.finish("one", 10)).output == "left"
            assert time.monotonic() - before >= seconds - 0.05


@pytest.mark.parametrize(("length", "status"), [(8000, "Completed"), (8200, "Failed")])
async def test_a_custom_status_has_a_limit(length: int, status: str) -> None:
    def telling(context: Any) -> Any:
        context.set_custom_status("x" * length)
        return 1
        yield

    async with running(Hub(), load=app(telling)) as host:
        ended = await finish(host, "telling")
        assert ended.status == status
        if status == "Failed":
            assert "must not exceed 16 KB" in ended.output
        else:
            assert (await host.client.get_status("one")).custom_status == "x" * length


@pytest.mark.parametrize("together", [1, 32])
async def test_two_events_of_a_name_before_they_are_waited_for(together: int) -> None:
    """The first is lost, and the second comes twice."""

    def reading(context: Any) -> Any:
        yield context.call_activity("work_slowly")
        first = yield context.wait_for_external_event("go")
        second = yield context.wait_for_external_event("go")
        return [first, second]

    async with running(Hub(), load=app(reading, work_slowly), together=together) as host:
        await host.client.start_new("reading", "one")
        await host.until(lambda: host.activities)
        for number in (1, 2):
            await host.client.raise_event("one", "go", number)
        assert (await host.finish("one", 10)).output == ["2", "2"]


async def test_what_passes_is_json() -> None:
    async def work(job: Any) -> Any:
        return {1, 2} if job == "set" else {"tuple": (1, 2), 3: job}

    async with running(Hub(), load=app(trying, work)) as host:
        assert (await finish(host, "trying", {"a": (1,)})).output == {"tuple": [1, 2], "3": {"a": [1]}}
        assert "TypeError" in (await finish(host, "trying", "set", "two")).output


async def test_an_event_over_the_webhook_is_an_object() -> None:
    def reading(context: Any) -> Any:
        return (yield context.wait_for_external_event("go"))

    async with running(Hub(), load=app(reading)) as host:
        await host.client.start_new("reading", "one")
        base = json.loads(host.binding)["rpcBaseUrl"]
        async with aiohttp.ClientSession() as session:
            await session.post(f"{base}instances/one/raiseEvent/go", json={"by": "hand"})
        assert (await host.finish("one", 10)).output == {"by": "hand"}


async def test_what_is_counted() -> None:
    def slowly(context: Any) -> Any:
        yield context.call_activity("work_slowly")

    async with running(Hub(), load=app(twice, echo, slowly, work_slowly)) as host:
        instance = await finish(host, "twice")
        assert instance.episodes == host.calls["orchestrationTrigger", "twice"] == host.hub.episodes == 3
        assert host.calls["activityTrigger", ""] == 2
        await finish(host, "slowly", instance_id="two")
        assert (host.suspensions["activityTrigger", "echo"], host.suspensions["activityTrigger", "work_slowly"]) == (
            0,
            1,
        )
        assert instance.peak > len(json.dumps(instance.history[:4]))
