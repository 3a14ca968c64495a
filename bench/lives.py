"""A run of the serverless app through several lives of its host: workers and hosts are killed at moments of a seed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

from bench.flaky import Weather
from tests.support.host import Host, running
from tests.support.hub import Hub

_OVER = ("completed", "failed", "cancelled")
_SCHEDULED = "scheduled_run"
# As in the real host: the next worker is up after some seconds, what a dead host had in hand is there after a minute.
_GAP, _VISIBILITY = (2.5, 6.5), 60.0
_PATIENCE = 5400.0
# What a run that has ended may have left going is over by then, with a host that died and came back.
_AFTERMATH = 600.0
_TICK, _ASK = 60.0, 10.0


async def live(seed: int, path: str, body: dict[str, Any], faults: Counter[str], weather: Weather) -> str:
    """Start a run over HTTP and see it through, with all that it began; gives its id. `faults` counts the kills; the
    weather begins with the run.

    Raises TimeoutError where it is not over in time, RuntimeError where it cannot be started or leaves something going.
    """
    chance = random.Random(f"lives {seed}")
    kills = sorted((chance.uniform(0, 150), chance.random() < 0.7) for _ in range(chance.randint(1, 5)))
    loop = asyncio.get_running_loop()
    hub, run_id, began, ticked = Hub(), "", loop.time(), loop.time()
    over: float | None = None
    async with asyncio.timeout(_PATIENCE):
        while True:
            async with running(hub, gap=chance.uniform(*_GAP), visibility=_VISIBILITY) as host:
                while not host.dead.is_set():
                    now = loop.time()
                    if not run_id:
                        run_id, began = await _start(host, path, body), now
                        weather.up = bool(run_id)
                    elif over is None and await _state(host, run_id) in _OVER:
                        weather.up, over = False, now
                    if over is not None:
                        if not (left := _left(hub, host)):
                            return run_id
                        if now - over > _AFTERMATH:
                            raise RuntimeError(f"the run is over, and there still goes: {', '.join(left)}")
                    elif run_id and kills and now - began >= kills[0][0]:
                        _, only_worker = kills.pop(0)
                        faults["worker killed" if only_worker else "host killed"] += 1
                        (host.kill_worker if only_worker else host.kill)()
                    if now - ticked >= _TICK:
                        ticked = now
                        await _tick(host)
                    await asyncio.sleep(_ASK)


def _left(hub: Hub, host: Host) -> list[str]:
    """What goes on or waits to: orchestrations, and activities."""
    activities = len(hub.work) + host.slots - host.room()
    return [*(f"{item.name} {item.id}" for item in hub.going()), *([f"{activities} activities"] if activities else [])]


async def _start(host: Host, path: str, body: dict[str, Any]) -> str:
    """The id of the run, empty where the host could not answer."""
    answer = await host.http("POST", path, body)
    if answer.status >= 500:
        return ""
    if answer.status != 202:
        raise RuntimeError(f"the run was not started: {answer.status} {answer.body[:300]!r}")
    return str(answer.json()["id"])


async def _state(host: Host, run_id: str) -> str:
    """The run's state; empty where the host could not answer."""
    answer = await host.http("GET", f"/api/runs/{run_id}")
    return str(answer.json()["state"]) if answer.status == 200 else ""


async def _tick(host: Host) -> None:
    """Fire the timers that look after runs."""
    for name, function in list(host.functions.items()):
        if function.get_trigger().type == "timerTrigger" and name != _SCHEDULED:
            await host.tick(name=name)
