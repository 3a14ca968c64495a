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
import hashlib
import io
import logging
import os
import random
import re
import signal
import ssl
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sandbox
import sandbox.node
import sandbox.server
import shared.azure.pipeline
import shared.store
import shared.store.tables
from bench.clock import Clock
from bench.excuses import Excuses
from bench.flaky import Weather, flaky
from bench.lives import live
from bench.storms import POLL, Strike, fix_storm, outages, storm
from sandbox import arm, service
from sandbox.compute import Compute, Operation, Refused
from sandbox.fleet import Member
from sandbox.fleet import members as fleet_members
from sandbox.states import STATES, Command, Quirk
from shared import cli
from shared.models import Finding, Outcome, Run, RunKind, Status
from shared.store import FindingQuery, open_store
from tests.support import azurite

HOW = ("audit", "audit, store away", "audit, killed", "plan", "fix", "fix, store away", "fix, killed", "fix, one key")
HOW_APP = ("audit, app dies", "fix, app dies", "audit, app dies, store away", "fix, app dies, store away")
_WEIGHTS = (24, 13, 7, 6, 14, 9, 8, 4, 6, 4, 3, 2)

# States that wait for a deadline or a broken restart say nothing about faults and take long.
_LEFT_OUT = {Command.HANG, Command.BUSY_STUCK, Command.HOSTILE}
_STATES = tuple(
    name
    for name, state in STATES.items()
    if state.command not in _LEFT_OUT and state.kubelet.quirk is Quirk.NONE and name != "no_kubelet"
)
_COMMON = ("compliant_default", "compliant_file", "false_file", "false_flag", "compliant_flag", "false_dropin")
_STORM_SECONDS = 120.0
_FIX_STORM_SECONDS = 200.0
# Only a wave of a fix asks for one cluster.
_WAVE = "clusters.get"
_LEASE_SECONDS = 240
# GUARD_COMMAND_DEADLINE_SECONDS, less what a call may take.
_OLD = 570
_NONCE = re.compile(r"^nonce=([0-9a-f]{16})$", re.MULTILINE)

# Seconds of the nodes, which are the world's.
_SETTINGS = {"GUARD_SETTLE_SECONDS": "1", "GUARD_RESTART_SECONDS": "20"}


@dataclass
class Trial:
    """What a trial came to. `broken` are the promises that did not hold."""

    seed: int
    how: str
    nodes: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    broken: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class _World:
    """A sandbox with its watchers."""

    box: sandbox.Sandbox
    members: Sequence[Member]
    store: str
    trial: Trial
    clock: Clock
    excuses: Excuses
    nonces: Counter[tuple[str, str]] = field(default_factory=Counter)
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    in_the_way: list[str] = field(default_factory=list)
    fixed_at_once: list[str] = field(default_factory=list)
    away: list[tuple[float, sandbox.Fault]] = field(default_factory=list)
    status: int = 0


def trial(seed: int, clock: Clock) -> Trial:
    """Carry out the trial of this seed in this process, whose clocks are `clock` already (`bench.faster.hasten`)."""
    logging.disable(logging.CRITICAL)
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
    fixing = result.how.startswith("fix")
    began = time.monotonic()
    fleet = sandbox.parse(_fleet(chance, fixing=fixing))
    members = [member for member in fleet_members(fleet) if member.pool.os == "Linux"]
    result.nodes = len(members)
    with tempfile.TemporaryDirectory(prefix="kubelet-guard-soak-") as directory:
        async with sandbox.serve(fleet) as box:
            excuses = Excuses(lambda kind, path: _node_of(box, kind, path))
            world = _World(box, members, str(Path(directory) / "runs.db"), result, clock, excuses)
            _watch(world)
            before = {member.name: _digest(world, member) for member in members}
            well = {member.name: _well(world, member) for member in members}
            _enter(box.environ, seed)
            if result.how in HOW_APP:
                with azurite.running() as storage:
                    world.store = storage.account()
                    await _in_the_app(world)
                    await _check_store(world)
            else:
                await _carry_out(world, chance)
                await _check_store(world)
            _check_nodes(world, before, well)
    result.seconds = (time.monotonic() - began) / clock.scale
    return result


def _enter(variables: Mapping[str, str], seed: int) -> None:
    """This process's environment: the sandbox's, quick settings, and every so often another budget."""
    for name in [name for name in os.environ if name.startswith(("GUARD_", "AZURE_"))]:
        del os.environ[name]
    os.environ.update({**variables, **_SETTINGS})
    if seed % 3 == 0:
        os.environ["GUARD_BUDGET_PERCENT"] = "100"


def _fleet(chance: random.Random, *, fixing: bool) -> str:
    """A fleet of one or two subscriptions, each with one or two clusters of one or two pools."""
    owners = []
    for owner in range(chance.randint(1, 2)):
        clusters = []
        for number in range(chance.randint(1, 2)):
            pools = []
            for pool in range(chance.randint(1, 2)):
                most = 2 if fixing else 3
                states = chance.choices(_COMMON, k=chance.randint(1, most))
                if chance.random() < 0.5:
                    states.append(chance.choice(_STATES))
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


def _watch(world: _World) -> None:
    """See every command that is accepted, and every fault that strikes."""
    faults = world.box.faults
    run_command, take = Compute.run_command, faults.take
    in_hand: defaultdict[str, list[Operation]] = defaultdict(list)

    def watched(compute: Compute, key: str, body: Any, now: float) -> Operation:
        instance = compute.instances[key]
        name, was_busy = instance.member.name, instance.busy
        try:
            operation = run_command(compute, key, body, now)
        except Refused:
            if was_busy and not world.excuses.doubtful(name):
                world.in_the_way.append(name)
            raise
        found = _NONCE.search("\n".join(body.get("script", ())))
        if _changes(body):
            pool = instance.member.scale_set
            in_hand[pool] = [other for other in in_hand[pool] if other.ended is None] + [operation]
            if len(in_hand[pool]) > 1:
                world.fixed_at_once.append(pool)
            world.changes[name, found[1] if found else ""] += 1
        elif found:
            world.nonces[name, found[1]] += 1
        return operation

    def taken(kind: str, path: str) -> sandbox.Fault | None:
        now = time.monotonic()
        world.away = [(until, fault) for until, fault in world.away if until > now]
        room = world.excuses.room(kind, path)
        fault = world.away[0][1] if world.away else take(kind, path) if room else None
        if fault is not None:
            world.trial.faults[_name(kind, fault)] += 1
            world.excuses.heed(kind, path, fault, old=_is_old(world.box, kind, path))
        return fault

    Compute.run_command = watched  # type: ignore[method-assign, assignment] # a trial has a process of its own
    faults.take = taken  # type: ignore[method-assign]


def _is_old(box: sandbox.Sandbox, kind: str, path: str) -> bool:
    """Whether a look that finds a command still going is the last."""
    operation = box.compute.operations.get(path.rstrip("/").rpartition("/")[2].lower()) if kind == POLL else None
    return operation is not None and (datetime.datetime.now(datetime.UTC) - operation.started).total_seconds() > _OLD


def _node_of(box: sandbox.Sandbox, kind: str, path: str) -> str:
    """The node that a call is about."""
    if kind == POLL:
        operation = box.compute.operations.get(path.rstrip("/").rpartition("/")[2].lower())
        return "" if operation is None else operation.member.name
    instance = box.compute.instances.get(path.rpartition("/runCommand")[0].lower())
    return "" if instance is None else instance.member.name


def _changes(body: Any) -> bool:
    """Whether a script changes the node: then it says how long the kubelet has to settle."""
    return any(line.startswith("settle=") for line in "\n".join(body.get("script", ())).split("\n"))


def _name(kind: str, fault: sandbox.Fault) -> str:
    place = kind if kind in (POLL, "runCommand") else "others"
    if fault.drop:
        return f"{place} cut {fault.drop}"
    return f"{place} {fault.status or ('late' if fault.delay else 'half')}"


async def _carry_out(world: _World, chance: random.Random) -> None:
    how, seed = world.trial.how, world.trial.seed
    fixing = how.startswith("fix")
    if fixing and how != "fix, one key":
        os.environ["GUARD_ALLOW_FIX"] = "true"
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
            # Whoever comes back finds the dead process's lease run out.
            status = await (await _process(world, await _again(world, command), _LEASE_SECONDS)).wait()
        else:
            status = await asyncio.to_thread(_here, command, weather)
    if weather.refused:
        world.trial.faults["store away"] += weather.refused
    world.status = status
    allowed = (64,) if how == "fix, one key" else (0, 1, 2)
    if status not in allowed:
        world.trial.broken.append(f"{command[0]} ended with the exit status {status}")


async def _in_the_app(world: _World) -> None:
    """The run in the app, whose workers and hosts die meanwhile."""
    os.environ["AzureWebJobsStorage"] = world.store  # noqa: SIM112 - the host's own name
    os.environ["GUARD_SCHEDULE"] = "0 0 2 * * *"
    seed, path, body = world.trial.seed, "/api/audits", {}
    if world.trial.how.startswith("fix"):
        os.environ["GUARD_ALLOW_FIX"] = "true"
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


def _paths(world: _World) -> list[str]:
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


async def _killed(world: _World, command: Sequence[str], calls: int) -> None:
    """The command line, killed with the call of Azure of this number, where it makes so many."""
    process = await _process(world, command, 0)
    while process.returncode is None:
        if sum(world.box.calls.values()) >= calls:
            process.send_signal(signal.SIGKILL)
            world.trial.faults["terminal killed"] += 1
            await process.wait()
        await asyncio.sleep(0.2)


async def _process(world: _World, command: Sequence[str], ahead: float) -> asyncio.subprocess.Process:
    """The command line in a process of its own, on this clock or so many seconds ahead of it."""
    speed = f"{world.clock.scale}+{ahead}" if ahead else str(world.clock.scale)
    line = [sys.executable, "-m", "bench.faster", speed, repr(world.clock.epoch), "shared", *command]
    return await asyncio.create_subprocess_exec(
        *line, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )


async def _again(world: _World, command: Sequence[str]) -> Sequence[str]:
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
async def _striking(world: _World) -> AsyncIterator[None]:
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


# What must hold.


def _check_nodes(world: _World, before: Mapping[str, str], well: Mapping[str, bool]) -> None:
    broken = world.trial.broken
    if world.fixed_at_once:
        broken.append(f"more than one node of a pool was changed at once: {sorted(set(world.fixed_at_once))}")
    if "killed" not in world.trial.how and "dies" not in world.trial.how:
        if world.in_the_way:
            broken.append(f"a command was sent while one went on {sorted(set(world.in_the_way))}")
        if twice := _twice(world.changes):
            broken.append(f"the same change was sent twice to {sorted(twice)}")
        if twice := {node for node in _twice(world.nonces) if not world.excuses.doubtful(node)}:
            broken.append(f"the same request was sent twice to {sorted(twice)}")
    fixing = world.trial.how.startswith("fix") and world.trial.how != "fix, one key"
    for member in world.members:
        changed = _digest(world, member) != before[member.name]
        if changed and not fixing:
            broken.append(f"{member.name} ({member.state}) was changed without both keys")
        if changed and STATES[member.state].expected == "pass":
            broken.append(f"{member.name} ({member.state}) was changed although it is right")
        if well[member.name] and not _well(world, member):
            broken.append(f"{member.name} ({member.state}) is not well any more")


def _twice(sent: Mapping[tuple[str, str], int]) -> set[str]:
    return {node for (node, _), count in sent.items() if count > 1}


async def _check_store(world: _World) -> None:
    how, broken = world.trial.how, world.trial.broken
    if how == "fix, one key":
        return
    async with open_store(world.store) as store:
        runs = [run async for run in _all_runs(store)]
        going = [run for run in runs if not run.state.final]
        # The run of a process that was killed is told as going until somebody else looks (a day for audits).
        if going and "killed" not in how:
            broken.append(f"not over: {[(run.kind.value, run.state.value) for run in going]}")
        survey = next((run for run in runs if run.kind is not RunKind.FIX), None)
        if survey is None:
            # Where the store could not even be opened there is nothing to record it in; the exit status says so.
            if world.status != 2 or not world.trial.faults["store away"]:
                broken.append("no survey was recorded")
            return
        fix = next((run for run in runs if run.kind is RunKind.FIX), None)
        surveyed = [item async for item in store.all_findings(FindingQuery(run_id=survey.id))]
        fixed = [] if fix is None else [item async for item in store.all_findings(FindingQuery(run_id=fix.id))]
    _check_complete(world, survey, surveyed)
    _check_verdicts(world, surveyed)
    if fix is not None:
        _check_fixed(world, fix, fixed, {item.node for item in surveyed if item.status is Status.FAIL})
        _check_all_fixed(world, fixed)
    world.trial.statuses.update(item.status.value for item in surveyed)


async def _all_runs(store: shared.store.Store) -> AsyncIterator[Run]:
    for run in (await store.runs(1000)).runs:
        yield run


def _check_complete(world: _World, run: Run, findings: Sequence[Finding]) -> None:
    """Found = recorded: every node once, or with all of a pool, cluster or subscription that could not be listed."""
    if run.state.value == "failed" and world.excuses.door and "list of subscriptions" in run.error:
        return  # Azure was away when it was to begin, and it says so
    if run.state.value != "completed":
        world.trial.broken.append(f"the {run.kind} ended {run.state}: {run.error}")
        return
    nodes = Counter(item.node for item in findings if item.node)
    told = run.summary
    if told is None or told.nodes != len(nodes) or sum(told.statuses.values()) != len(findings):
        world.trial.broken.append(f"the summary says {told}, and there are {len(findings)} findings")
    scopes = {(item.subscription, item.cluster, item.node_pool) for item in findings if not item.node}
    if scopes and not world.excuses.elsewhere:
        world.trial.broken.append(f"could not be listed, and nothing struck a list: {sorted(scopes)}")
    for member in world.members:
        place = (member.subscription.id, member.cluster.name, member.pool.name)
        covered = any(place[: len(scope)] == scope for scope in (tuple(filter(None, scope)) for scope in scopes))
        if nodes[member.name] != (0 if covered else 1) and not (covered and nodes[member.name] == 1):
            world.trial.broken.append(f"{member.name} ({member.state}) has {nodes[member.name]} findings")


def _check_verdicts(world: _World, findings: Sequence[Finding]) -> None:
    """No verdict is a guess; and how many nodes have none that would have had one."""
    by_name = {member.name: member for member in world.members}
    for item in findings:
        member = by_name.get(item.node)
        if member is None:
            continue
        expected = STATES[member.state].expected
        if {item.status, expected} == {Status.PASS, "fail"} or {item.status, expected} == {Status.FAIL, "pass"}:
            world.trial.broken.append(f"{member.name} ({member.state}) is said to {item.status}")
        if item.status is Status.ERROR and expected in ("pass", "fail"):
            world.trial.lost += 1
            if not world.excuses.verdict(member.name):
                text = f"{member.name} ({member.state}) lost its verdict to nothing that may cost it"
                world.trial.broken.append(f"{text}: {item.code}: {item.reason}")


def _check_fixed(world: _World, run: Run, findings: Sequence[Finding], failing: set[str]) -> None:
    """What is said of the fix is what the nodes are; every failing node has an outcome; trouble ends a pool."""
    broken = world.trial.broken
    by_name = {member.name: member for member in world.members}
    for item in findings:
        member = by_name.get(item.node)
        if member is None or item.status not in (Status.PASS, Status.FAIL):
            continue
        holds = service.effective_chains(world.box.node_dir(member.name))
        if (item.outcome is Outcome.FIXED or item.status is Status.PASS) and holds is not True:
            broken.append(f"{member.name} ({member.state}) is said to be right ({item.outcome}), and is not")
    told = Counter(item.node for item in findings if item.node)
    # Common states can be fixed, so they are planned and not refused.
    wanted = {name for name in failing if by_name[name].state in _COMMON}
    missing = sorted(name for name in wanted if told[name] != 1)
    if missing and run.state.value == "completed":
        broken.append(f"of the fix there is nothing of {missing}")
    trouble = Counter(item.scale_set for item in findings if item.outcome in (Outcome.FAILED, Outcome.ROLLED_BACK))
    if most := [pool for pool, count in trouble.items() if count > 1]:
        broken.append(f"pools went on after trouble: {most}")


def _check_all_fixed(world: _World, findings: Sequence[Finding]) -> None:
    """Where nothing struck a pool that may cost it a fix, every node of it is fixed that can be."""
    if world.excuses.in_waves or "killed" in world.trial.how or "dies" in world.trial.how:
        return
    by_name = {member.name: member for member in world.members}
    bad = {
        member.scale_set for member in world.members if world.excuses.fix(member.name) or member.state not in _COMMON
    }
    for item in findings:
        good = item.outcome in (Outcome.FIXED, Outcome.ALREADY_RIGHT)
        if item.node in by_name and by_name[item.node].scale_set not in bad and not good:
            what = f"{item.node} ({by_name[item.node].state}) is {item.outcome}"
            world.trial.broken.append(f"{what} although nothing hindered it: {item.reason}")


def _digest(world: _World, member: Member) -> str:
    """What a node's files say: a change of its configuration changes it."""
    root = world.box.node_dir(member.name)
    digest = hashlib.sha256()
    for path in sorted((root / "etc").rglob("*")):
        if path.is_file() and not path.is_symlink():
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _well(world: _World, member: Member) -> bool:
    """Whether the kubelet runs, and says that it is healthy."""
    root = world.box.node_dir(member.name)
    if arm.power_state(member) != "running":
        return True
    return service.effective_chains(root) is not None
