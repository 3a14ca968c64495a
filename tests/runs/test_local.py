"""The terminal's driver of orchestrators: it keeps what matters of Durable Functions."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from shared.runs.hosts import terminal
from shared.runs.hosts.local import LocalHost
from shared.runs.orchestrators.context import Context, Orchestrator


async def test_the_local_driver_keeps_durable_semantics() -> None:
    """JSON all the way, the finished task from task_any, exceptions where they are waited for."""
    calls: list[Any] = []

    async def double(value: Any) -> Any:
        calls.append(value)
        if value == "bad":
            raise ValueError("no")
        return {"twice": (value, value)}

    def parent(context: Context) -> Orchestrator:
        both = [context.call_activity("double", item) for item in (1, 2)]
        first = yield context.task_any(both)
        timer = context.create_timer(context.current_utc_datetime)
        yield timer
        try:
            yield context.call_activity("double", "bad")
        except ValueError as error:
            caught = str(error)
        inner = yield context.call_sub_orchestrator("child", {"x": (1,)}, "mine")
        return [first.result, both[1].is_completed, caught, inner, context.instance_id]

    def child(context: Context) -> Orchestrator:
        value = context.get_input()
        if value["x"] == [1]:
            context.continue_as_new({"x": (2,)})
            return None
        yield context.call_activity("double", 0)
        return [value, context.instance_id]

    host = LocalHost({"parent": parent, "child": child}, {"double": double})
    assert await host.run("parent", None, "top") == [{"twice": [1, 1]}, True, "no", [{"x": [2]}, "mine"], "top"]
    assert calls == [1, 2, "bad", 0]


async def test_an_event_wakes_whoever_waits_for_it() -> None:
    def waiting(context: Context) -> Orchestrator:
        woken = context.wait_for_external_event("wake")
        first = yield context.task_any([woken])
        return first is woken

    host = LocalHost({"waiting": waiting}, {})
    host.events["wake"].set()
    assert await host.run("waiting", None, "top") is True
    assert not host.events["wake"].is_set()


async def test_nothing_goes_on_behind_a_run_that_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a child that sleeps, nor one that waits for an activity and would call another one."""
    done: list[str] = []

    def parent(context: Context) -> Orchestrator:
        yield context.task_any([context.call_sub_orchestrator(name) for name in ("sleeps", "waits")])

    def sleeps(context: Context) -> Orchestrator:
        yield context.create_timer(context.current_utc_datetime + timedelta(seconds=0.1))
        yield context.call_activity("sleep", 0)

    def waits(context: Context) -> Orchestrator:
        yield context.task_any([context.call_activity("sleep", 0.1)])
        yield context.call_activity("sleep", 0)

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)
        done.append("an activity was carried out")

    orchestrators = {"parent": parent, "sleeps": sleeps, "waits": waits}
    monkeypatch.setattr(terminal, "ORCHESTRATORS", orchestrators)
    monkeypatch.setattr(terminal, "RUN", "parent")
    before = asyncio.all_tasks()
    driving = asyncio.create_task(terminal._drive({"sleep": sleep}, None, "top"))
    await asyncio.sleep(0.02)
    driving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await driving
    await asyncio.sleep(0.2)
    assert done == []
    assert asyncio.all_tasks() == before, "nor does anything sleep on"
