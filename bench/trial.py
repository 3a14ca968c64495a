"""One trial of the soak: a fleet, a run of the product's terminal command, faults, and what must hold afterwards.

Everything follows from the seed but for what the machine's speed decides. The product runs as people run it, by its
command line, in a thread or in a process that is killed, or as the app in a host that dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import logging
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sandbox
import shared.store
from bench.flaky import Weather, flaky
from bench.lives import live
from bench.storms import Strike, outages, storm
from sandbox import arm, service
from sandbox.compute import Compute, Operation
from sandbox.fleet import Member
from sandbox.fleet import members as fleet_members
from sandbox.states import STATES, Command, Quirk
from shared import cli
from shared.models import Finding, Outcome, Run, RunKind, Status
from shared.store import FindingQuery, open_store
from tests.support import azurite

HOW = ("audit", "audit, store away", "audit, killed", "plan", "fix", "fix, store away", "fix, killed", "fix, one key")
HOW_APP = ("audit, app dies", "fix, app dies")
_WEIGHTS = (26, 13, 7, 6, 14, 7, 7, 4, 10, 6)

# States that wait for a deadline or a broken restart say nothing about faults and take long.
_LEFT_OUT = {Command.HANG, Command.BUSY_STUCK, Command.HOSTILE}
_STATES = tuple(
    name
    for name, state in STATES.items()
    if state.command not in _LEFT_OUT and state.kubelet.quirk is Quirk.NONE and name != "no_kubelet"
)
_COMMON = ("compliant_default", "compliant_file", "false_file", "false_flag", "compliant_flag", "false_dropin")
_STORM_SECONDS = 4.0
_LEASE_SECONDS = 240
_NONCE = re.compile(r"^nonce=([0-9a-f]{16})$", re.MULTILINE)

_SETTINGS = {
    "GUARD_COMMAND_SECONDS": "0.4",
    "GUARD_BUSY_WAIT_SECONDS": "10",
    "GUARD_COMMAND_DEADLINE_SECONDS": "25",
    "GUARD_SETTLE_SECONDS": "1",
    "GUARD_RESTART_SECONDS": "20",
}


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
    excused: Counter[str] = field(default_factory=Counter)
    nonces: Counter[tuple[str, str]] = field(default_factory=Counter)
    at_once: list[str] = field(default_factory=list)
    fixed_at_once: list[str] = field(default_factory=list)
    status: int = 0


def trial(seed: int) -> Trial:
    """Carry out the trial of this seed."""
    logging.disable(logging.CRITICAL)
    return asyncio.run(_trial(seed))


async def _trial(seed: int) -> Trial:
    chance = random.Random(f"trial {seed}")
    result = Trial(seed, chance.choices((*HOW, *HOW_APP), _WEIGHTS)[0])
    began = time.monotonic()
    fleet = sandbox.parse(_fleet(chance, fixing=result.how.startswith("fix")))
    members = [member for member in fleet_members(fleet) if member.pool.os == "Linux"]
    result.nodes = len(members)
    with tempfile.TemporaryDirectory(prefix="kubelet-guard-soak-") as directory:
        async with sandbox.serve(fleet) as box:
            world = _World(box, members, str(Path(directory) / "runs.db"), result)
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
    result.seconds = time.monotonic() - began
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
                most = 2 if fixing else 4
                states = chance.choices(_COMMON, k=chance.randint(1, most))
                if chance.random() < 0.5:
                    states.append(chance.choice(_STATES))
                listed = ", ".join(f"{{state: {state}}}" for state in states)
                pools.append(f"{{name: np{pool}, nodes: [{listed}]}}")
            place = f"name: aks-{owner}-{number}, resource_group: rg-{owner}, location: westeurope, version: 1.33.5"
            clusters.append(f"{{{place}, pools: [{', '.join(pools)}]}}")
        identity = f"id: 00000000-0000-4000-8000-00000000000{owner}, name: Soak {owner}"
        owners.append(f"{{{identity}, clusters: [{', '.join(clusters)}]}}")
    low = chance.uniform(0.1, 0.6)
    timing = f"{{latency: [{low:.2f}, {low + chance.uniform(0, 0.6):.2f}], busy_seconds: 2, slow_seconds: 2}}"
    page = chance.choice((1, 2, 50))
    return f"timing: {timing}\npage_size: {page}\nsubscriptions: [{', '.join(owners)}]\n"


def _watch(world: _World) -> None:
    """See every command that is accepted, and every fault that strikes."""
    faults = world.box.faults
    run_command, take = Compute.run_command, faults.take

    in_hand: defaultdict[str, list[Operation]] = defaultdict(list)

    def watched(compute: Compute, key: str, body: Any, now: float) -> Operation:
        instance = compute.instances[key]
        was_busy = instance.busy
        operation = run_command(compute, key, body, now)
        if _changes(body):
            pool = instance.member.scale_set
            in_hand[pool] = [other for other in in_hand[pool] if other.ended is None] + [operation]
            if len(in_hand[pool]) > 1:
                world.fixed_at_once.append(pool)
        if was_busy:
            world.at_once.append(instance.member.name)
        found = _NONCE.search("\n".join(body.get("script", ())))
        if found:
            world.nonces[instance.member.name, found[1]] += 1
        return operation

    def taken(kind: str, path: str) -> sandbox.Fault | None:
        fault = take(kind, path)
        if fault is not None:
            world.trial.faults[_name(fault)] += 1
            if _may_cost_a_verdict(kind, fault):
                world.excused[_node_of(world, kind, path)] += 1
        return fault

    Compute.run_command = watched  # type: ignore[method-assign, assignment] # a trial has a process of its own
    faults.take = taken  # type: ignore[method-assign]


def _may_cost_a_verdict(kind: str, fault: sandbox.Fault) -> bool:
    """Whether a fault may leave its node without a verdict: where Azure may have taken a command without saying so, or
    says that it, or the node, is not there, or brings something else than its result. All others only delay."""
    status = fault.status or 0
    if kind == "runCommand":
        return fault.drop is not None or status >= 500 or status in (401, 404)
    return kind == "operations.get" and (bool(fault.fields) or status in (200, 401, 404))


def _node_of(world: _World, kind: str, path: str) -> str:
    """The node that a call is about."""
    if kind == "operations.get":
        operation = world.box.compute.operations.get(path.rstrip("/").rpartition("/")[2].lower())
        return "" if operation is None else operation.member.name
    named = path.rpartition("/runCommand")[0].lower()
    instance = world.box.compute.instances.get(named)
    return "" if instance is None else instance.member.name


def _changes(body: Any) -> bool:
    """Whether a script changes the node: then it says how long the kubelet has to settle."""
    return any(line.startswith("settle=") for line in "\n".join(body.get("script", ())).split("\n"))


def _name(fault: sandbox.Fault) -> str:
    return f"{fault.kind} {fault.drop or fault.status or ('late' if fault.delay else 'edited')}"


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
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_striking(world, storm(seed, _STORM_SECONDS, _paths(world))))
        if "killed" in how:
            await _killed(world, command, chance.uniform(1.2, 6.0))
            # Whoever comes back finds the dead process's lease run out.
            status = await _process(await _again(world, command), None)
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
    async with _striking(world, storm(seed, _STORM_SECONDS, _paths(world))):
        try:
            await live(seed, path, body, world.trial.faults)
        except (TimeoutError, RuntimeError) as error:
            world.trial.broken.append(f"{type(error).__name__}: {error or 'the run was not over in time'}")


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


async def _killed(world: _World, command: Sequence[str], after: float) -> None:
    await _process(command, after)
    world.trial.faults["host killed"] += 1


async def _process(command: Sequence[str], after: float | None) -> int:
    """The command line in a process of its own, killed `after` so many seconds. Later ones live later."""
    ahead = "1" if after is not None else f"1+{_LEASE_SECONDS}"
    line = [sys.executable, "-m", "bench.faster", ahead, repr(time.time()), "shared", *command]
    process = await asyncio.create_subprocess_exec(
        *line, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        return await asyncio.wait_for(process.wait(), after)
    except TimeoutError:
        process.send_signal(signal.SIGKILL)
        return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


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
async def _striking(world: _World, strikes: Sequence[Strike]) -> AsyncIterator[None]:
    async def strike() -> None:
        at = 0.0
        for item in strikes:
            await asyncio.sleep(item.after - at)
            at = item.after
            # A run whose first calls all fail is over before it began: what may strike any call waits until it has.
            while item.fault.kind == "*" and not world.box.compute.commands:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.05)
            world.box.inject(item.fault)

    async with _beside(strike):
        yield
    world.box.faults.clear()


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
    if world.at_once:
        broken.append(f"two commands at once on {sorted(set(world.at_once))}")
    if world.fixed_at_once:
        broken.append(f"more than one node of a pool was changed at once: {sorted(set(world.fixed_at_once))}")
    if "killed" not in world.trial.how and "dies" not in world.trial.how:
        twice = sorted({node for (node, _), count in world.nonces.items() if count > 1})
        if twice:
            broken.append(f"the same request was sent twice to {twice}")
    fixing = world.trial.how.startswith("fix") and world.trial.how != "fix, one key"
    for member in world.members:
        changed = _digest(world, member) != before[member.name]
        if changed and not fixing:
            broken.append(f"{member.name} ({member.state}) was changed without both keys")
        if changed and STATES[member.state].expected == "pass":
            broken.append(f"{member.name} ({member.state}) was changed although it is right")
        if well[member.name] and not _well(world, member):
            broken.append(f"{member.name} ({member.state}) is not well any more")


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
            # Azure could not be asked for its subscriptions: then nothing is recorded, and the exit status says it.
            if world.status != 2 or "store away" in world.trial.faults:
                broken.append("no survey was recorded")
            return
        fix = next((run for run in runs if run.kind is RunKind.FIX), None)
        surveyed = [item async for item in store.all_findings(FindingQuery(run_id=survey.id))]
        fixed = [] if fix is None else [item async for item in store.all_findings(FindingQuery(run_id=fix.id))]
    _check_complete(world, survey, surveyed)
    _check_verdicts(world, surveyed)
    if fix is not None:
        _check_fixed(world, fix, fixed, {item.node for item in surveyed if item.status is Status.FAIL})
    world.trial.statuses.update(item.status.value for item in surveyed)


async def _all_runs(store: shared.store.Store) -> AsyncIterator[Run]:
    for run in (await store.runs(1000)).runs:
        yield run


def _check_complete(world: _World, run: Run, findings: Sequence[Finding]) -> None:
    """Found = recorded: every node once, or with all of a pool, cluster or subscription that could not be listed."""
    if run.state.value != "completed":
        world.trial.broken.append(f"the {run.kind} ended {run.state}: {run.error}")
        return
    nodes = Counter(item.node for item in findings if item.node)
    scopes = {(item.subscription, item.cluster, item.node_pool) for item in findings if not item.node}
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
            if not world.excused[member.name]:
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
