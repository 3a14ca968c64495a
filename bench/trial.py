"""One trial of the soak: a fleet, a run of the product's terminal command, faults, and what must hold afterwards.

Everything follows from the seed but for what the machine's speed decides. The product runs as people run it, by its
command line, in a thread or in a process that is killed, or as the app in a host that dies; with its own settings, on
a clock that is faster than the world's (`bench.faster`), so that its long waits are short. Only nodes, whose scripts
are real processes, live on the world's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import io
import logging
import os
import random
import signal
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sandbox
import sandbox.node
import sandbox.server
import shared.azure.pipeline
import shared.store
import shared.store.tables
from bench.checks import COMMON, UNWELL, check_nodes, check_runs, read
from bench.clock import Clock
from bench.excuses import Excuses
from bench.flaky import Weather, flaky
from bench.lives import live
from bench.storms import Strike, fix_storm, outages, storm
from bench.world import ONE_KEY, Trial, World, look, node_of, watch
from sandbox.fleet import members as fleet_members
from sandbox.states import STATES, Command, Quirk
from shared import cli
from shared.models import RunKind
from shared.store import open_store
from tests.support import azurite

HOW = ("audit", "audit, store away", "audit, killed", "plan", "fix", "fix, store away", "fix, killed", ONE_KEY)
HOW_APP = ("audit, app dies", "fix, app dies", "audit, app dies, store away", "fix, app dies, store away")
_WEIGHTS = (24, 13, 7, 6, 14, 9, 8, 4, 6, 4, 3, 2)

# States that wait for a deadline say nothing about faults and take long. Those whose kubelet does not bear a restart
# are for fixes only (UNWELL), but for the one that a fix cannot leave well.
_LEFT_OUT = {Command.HANG, Command.BUSY_STUCK, Command.HOSTILE}
_STATES = tuple(
    name
    for name, state in STATES.items()
    if state.command not in _LEFT_OUT and state.kubelet.quirk is Quirk.NONE and name != "no_kubelet"
)
_STORM_SECONDS = 120.0
_FIX_STORM_SECONDS = 200.0
# Only a wave of a fix asks for one cluster.
_WAVE = "clusters.get"
_LEASE_SECONDS = 240

# Seconds of the nodes, which are the world's. Longer than a kubelet lives that dies, and a roll back takes its time:
# by the run's clock a fix then takes many minutes.
_SETTINGS = {"GUARD_SETTLE_SECONDS": "1", "GUARD_RESTART_SECONDS": "20"}
_UNWELL = {"GUARD_SETTLE_SECONDS": "5", "GUARD_RESTART_SECONDS": "15"}
_DEADLINE, _UNWELL_DEADLINE = 600, 3600


def trial(seed: int, clock: Clock) -> Trial:
    """Carry out the trial of this seed in this process, whose clocks are `clock` already (`bench.faster.hasten`)."""
    logging.disable(logging.CRITICAL)
    # What the product draws, such as its pauses.
    random.seed(f"world {seed}")
    _on_time(clock)
    return asyncio.run(_trial(seed, clock))


def _on_time(clock: Clock) -> None:
    """What is of the world keeps the world's time."""

    def sleep(seconds: float) -> None:
        time.sleep(seconds * clock.scale)

    world = SimpleNamespace(time=lambda: time.clock_gettime(time.CLOCK_REALTIME), sleep=sleep)
    vars(sandbox.node)["time"] = world
    make_context = sandbox.server._tls

    def context(box: sandbox.Sandbox) -> ssl.SSLContext:
        # The cryptography library looks at what it is given more closely than `isinstance`.
        fast = datetime.datetime
        vars(datetime)["datetime"] = fast.__mro__[1] if clock.scale != 1 else fast
        try:
            return make_context(box)
        finally:
            vars(datetime)["datetime"] = fast

    sandbox.server._tls = context
    azurite.START_SECONDS *= clock.scale  # type: ignore[assignment]
    # Nothing hangs here; on a busy machine all that is not to last longer would.
    shared.azure.pipeline._CONNECT_SECONDS = shared.azure.pipeline._READ_SECONDS = 3600
    shared.azure.pipeline.WHOLE_SECONDS = 3600.0
    shared.store.tables._TIMEOUTS = {"connection_timeout": 3600, "read_timeout": 3600}


async def _trial(seed: int, clock: Clock) -> Trial:
    chance = random.Random(f"trial {seed}")
    result = Trial(seed, chance.choices((*HOW, *HOW_APP), _WEIGHTS)[0])
    began = time.monotonic()
    unwell = random.Random(f"unwell {seed}").choice((*UNWELL, "", "", "")) if result.both_keys else ""
    fleet = sandbox.parse(_fleet(chance, fixing=result.how.startswith("fix"), unwell=unwell))
    members = [member for member in fleet_members(fleet) if member.pool.os == "Linux"]
    result.nodes = len(members)
    with tempfile.TemporaryDirectory(prefix="kubelet-guard-soak-") as directory:
        async with sandbox.serve(fleet) as box:
            box.compute.seed = f"world {seed}"
            excuses = Excuses(lambda kind, path: node_of(box, kind, path))
            deadline = _UNWELL_DEADLINE if unwell else _DEADLINE
            world = World(box, members, str(Path(directory) / "runs.db"), result, clock, excuses, deadline)
            watch(world)
            before = {member.name: look(box.node_dir(member.name), member) for member in members}
            _enter(world, {**box.environ, **(_UNWELL if unwell else _SETTINGS)})
            if result.how in HOW_APP:
                with azurite.running() as storage:
                    world.store = storage.account()
                    await _in_the_app(world)
                    await _over(world)
                    stored = await read(world.store)
            else:
                await _carry_out(world, chance)
                await _over(world)
                stored = await read(world.store)
            after = {member.name: look(box.node_dir(member.name), member) for member in members}
            check_runs(world, stored)
            check_nodes(world, before, after, stored.planned)
    result.seconds = (time.monotonic() - began) / clock.scale
    return result


async def _over(world: World) -> None:
    """Until every command is over, whether anybody still waits for it or not."""
    while world.box.compute.tasks:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(1)


def _enter(world: World, variables: Mapping[str, str]) -> None:
    """This process's environment: the sandbox's, quick settings, and every so often another budget.

    A fix has the deployment's key but where one is missing, and so does every other audit and plan, for which it is to
    change nothing.
    """
    trial = world.trial
    for name in [name for name in os.environ if name.startswith(("GUARD_", "AZURE_"))]:
        del os.environ[name]
    os.environ.update({**variables, "GUARD_COMMAND_DEADLINE_SECONDS": f"{world.deadline:g}"})
    if trial.seed % 3 == 0:
        os.environ["GUARD_BUDGET_PERCENT"] = "100"
    if trial.both_keys or (trial.how != ONE_KEY and random.Random(f"key {trial.seed}").random() < 0.5):
        os.environ["GUARD_ALLOW_FIX"] = "true"


def _fleet(chance: random.Random, *, fixing: bool, unwell: str = "") -> str:
    """A fleet of one or two subscriptions, each with one or two clusters of one or two pools; in one of those a node in
    the state `unwell`."""
    owners = []
    for owner in range(chance.randint(1, 2)):
        clusters = []
        for number in range(chance.randint(1, 2)):
            pools = []
            for pool in range(chance.randint(1, 2)):
                most = 2 if fixing else 3
                states = chance.choices(COMMON, k=chance.randint(1, most))
                if chance.random() < 0.5:
                    states.append(chance.choice(_STATES))
                if unwell and not (owner or number or pool):
                    states.insert(len(states) // 2, unwell)
                listed = ", ".join(f"{{state: {state}}}" for state in states)
                pools.append(f"{{name: np{pool}, nodes: [{listed}]}}")
            place = f"name: aks-{owner}-{number}, resource_group: rg-{owner}, location: westeurope, version: 1.33.5"
            clusters.append(f"{{{place}, pools: [{', '.join(pools)}]}}")
        identity = f"id: 00000000-0000-4000-8000-00000000000{owner}, name: Soak {owner}"
        owners.append(f"{{{identity}, clusters: [{', '.join(clusters)}]}}")
    low = chance.uniform(10, 25)
    timing = f"{{latency: [{low:.0f}, {low + chance.uniform(0, 30):.0f}], busy_seconds: 40, slow_seconds: 60}}"
    page = chance.choice((1, 2, 50))
    return f"timing: {timing}\npage_size: {page}\nsubscriptions: [{', '.join(owners)}]\n"


async def _carry_out(world: World, chance: random.Random) -> None:
    how, seed = world.trial.how, world.trial.seed
    words: dict[str, list[str]] = {
        "audit": ["audit", "--output", "json"],
        "plan": ["plan", "--out", str(Path(world.store).with_name("plan.json"))],
    }
    command = words.get(how.partition(",")[0], ["fix", "--yes", "--pause", "0", "--output", "json"])
    command = [*command, "--store", world.store]
    weather = Weather(seed, outages(seed) if "store away" in how else {})
    async with _striking(world):
        if "killed" in how:
            await _killed(world, command, chance.randint(6, 60))
            status = await (await _process(world, await _again(world, command), _LEASE_SECONDS)).wait()
        else:
            status = await asyncio.to_thread(_here, command, weather)
    if weather.refused:
        world.trial.faults["store away"] += weather.refused
    world.status = status
    allowed = (64,) if how == ONE_KEY else (0, 1, 2)
    if status not in allowed:
        world.trial.broken.append(f"{command[0]} ended with the exit status {status}")


async def _in_the_app(world: World) -> None:
    """The run in the app, whose workers and hosts die meanwhile."""
    os.environ["AzureWebJobsStorage"] = world.store  # noqa: SIM112 - the host's own name
    os.environ["GUARD_SCHEDULE"] = "0 0 2 * * *"
    seed, path, body = world.trial.seed, "/api/audits", {}
    if world.trial.both_keys:
        path, body = "/api/fixes", {"approval": "auto", "pause_seconds": 0}
    weather = Weather(seed, outages(seed) if "store away" in world.trial.how else {}, up=False)
    real = shared.store.open_store
    shared.store.open_store = flaky(real, weather)  # type: ignore[assignment]
    async with _striking(world):
        try:
            await live(seed, path, body, world.trial.faults, weather)
        except (TimeoutError, RuntimeError) as error:
            world.trial.broken.append(f"{type(error).__name__}: {error or 'the run was not over in time'}")
        finally:
            shared.store.open_store = real
    if weather.refused:
        world.trial.faults["store away"] += weather.refused


def _paths(world: World) -> list[str]:
    return [f"/{member.scale_set}/virtualMachines/{member.instance_id}/" for member in world.members]


def _here(command: Sequence[str], weather: Weather) -> int:
    """The command line in this thread, with its own event loop; what it prints is not looked at."""
    real = shared.store.open_store
    shared.store.open_store = flaky(real, weather)  # type: ignore[assignment]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return cli.main(list(command))
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        shared.store.open_store = real


async def _killed(world: World, command: Sequence[str], calls: int) -> None:
    """The command line, killed with the call of Azure of this number, where it makes so many."""
    process = await _process(world, command, 0)
    while process.returncode is None:
        if sum(world.box.calls.values()) >= calls:
            process.send_signal(signal.SIGKILL)
            world.killed = time.time()
            # Whoever comes back finds the dead process's lease run out, and the commands older.
            world.deadline -= _LEASE_SECONDS
            world.trial.faults["terminal killed"] += 1
            await process.wait()
        await asyncio.sleep(0.2)


async def _process(world: World, command: Sequence[str], ahead: float) -> asyncio.subprocess.Process:
    """The command line in a process of its own, on this clock or so many seconds ahead of it."""
    speed = f"{world.clock.scale}+{ahead}" if ahead else str(world.clock.scale)
    line = [sys.executable, "-m", "bench.faster", speed, repr(world.clock.epoch), "shared", *command]
    return await asyncio.create_subprocess_exec(
        *line, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )


async def _again(world: World, command: Sequence[str]) -> Sequence[str]:
    """What a person types after a process died: a fix that was recorded is gone on with, all else is begun anew."""
    if command[0] != "fix":
        return command
    async with open_store(world.store) as store:
        runs = (await store.runs(10)).runs
    for run in runs:
        if run.kind is RunKind.FIX and not run.state.final:
            return ["fix", "--resume", run.id, "--yes", "--output", "json", "--store", world.store]
    return command


@contextlib.asynccontextmanager
async def _striking(world: World) -> AsyncIterator[None]:
    seed, paths = world.trial.seed, _paths(world)
    box = world.box

    async def fall(strikes: Sequence[Strike]) -> None:
        at = 0.0
        for item in strikes:
            await asyncio.sleep(item.after - at)
            at = item.after
            # A run whose first calls all fail is over before it began: what may strike any call waits until it has.
            while item.fault.kind == "*" and not world.box.compute.commands:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(1)
            if item.lasting:
                world.away.append((time.monotonic() + item.lasting, item.fault))
            else:
                world.box.inject(item.fault)

    async def strike() -> None:
        async with _beside(lambda: fall(storm(seed, _STORM_SECONDS, paths))):
            while not box.calls[_WAVE]:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(1)
        box.faults.clear()
        world.excuses.begin_waves()
        await fall(fix_storm(seed, _FIX_STORM_SECONDS, paths))

    async with _beside(strike):
        yield
    world.box.faults.clear()
    world.away.clear()


@contextlib.asynccontextmanager
async def _beside(work: Callable[[], Any]) -> AsyncIterator[None]:
    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
