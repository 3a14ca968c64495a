"""A trial's world: the sandbox, and what was seen of it while a run went over it."""

from __future__ import annotations

import datetime
import hashlib
import re
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sandbox
from bench.clock import Clock
from bench.excuses import Excuses
from bench.storms import POLL
from sandbox import arm, service
from sandbox.compute import Compute, Operation, Refused
from sandbox.fleet import Member

ONE_KEY = "fix, one key"
_KILLS = ("terminal killed", "worker killed", "host killed")
_NONCE = re.compile(r"^nonce=([0-9a-f]{16})$", re.MULTILINE)
# The processes' own, scratch, and what run command keeps of each script.
_PASSING = ("/run/", "/proc/", "/tmp/", "/var/lib/waagent/")


@dataclass
class Trial:
    """What a trial came to. `broken` are the promises that did not hold."""

    seed: int
    how: str
    nodes: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    broken: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def both_keys(self) -> bool:
        """Whether the deployment allows fixes and a fix is asked for."""
        return self.how.startswith("fix") and self.how != ONE_KEY

    @property
    def kills(self) -> int:
        """How many processes were killed."""
        return sum(self.faults[name] for name in _KILLS)


@dataclass
class World:
    """A sandbox with its watchers.

    By node: `nonces` are requests that only look, `changes` those that change it, both by their own word, as often as
    they were accepted; `in_the_way` the commands that were going when another was sent. `changers` are the nodes to
    which a script that changes them was sent, taken or not. `killed` is when the terminal was (seconds since 1970).
    """

    box: sandbox.Sandbox
    members: Sequence[Member]
    store: str
    trial: Trial
    clock: Clock
    excuses: Excuses
    deadline: float = 600.0
    nonces: Counter[tuple[str, str]] = field(default_factory=Counter)
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    changers: set[str] = field(default_factory=set)
    in_the_way: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    fixed_at_once: set[str] = field(default_factory=set)
    away: list[tuple[float, sandbox.Fault]] = field(default_factory=list)
    killed: float | None = None
    status: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """A node's files (path → SHA-256), but for what is there for a moment, and whether its kubelet is well."""

    files: Mapping[str, str]
    well: bool


def look(root: Path, member: Member) -> Look:
    """The node whose folder is `root`, as it is now. One that is switched off is as well as it can be."""
    files = {}
    for path in sorted(root.rglob("*")):
        inside = f"/{path.relative_to(root)}"
        if not inside.startswith(_PASSING) and path.is_file() and not path.is_symlink():
            files[inside] = hashlib.sha256(path.read_bytes()).hexdigest()
    # Nodes live on the world's time.
    now = time.clock_gettime(time.CLOCK_REALTIME)
    return Look(files, arm.power_state(member) != "running" or service.healthy(root, now))


def watch(world: World) -> None:
    """See every command that is sent, and every fault that strikes. Once in a process: the sandbox is replaced."""
    faults = world.box.faults
    run_command, take = Compute.run_command, faults.take
    in_hand: defaultdict[str, list[Operation]] = defaultdict(list)
    going: dict[str, Operation] = {}

    def watched(compute: Compute, key: str, body: Any, now: float) -> Operation:
        instance = compute.instances[key]
        name, was_busy = instance.member.name, instance.busy
        if changing := _changes(body):
            world.changers.add(name)
        try:
            operation = run_command(compute, key, body, now)
        except Refused:
            if was_busy:
                world.in_the_way[name].add(going[name].id)
            raise
        going[name] = operation
        found = _NONCE.search("\n".join(body.get("script", ())))
        if changing:
            pool = instance.member.scale_set
            in_hand[pool] = [other for other in in_hand[pool] if other.ended is None] + [operation]
            if len(in_hand[pool]) > 1:
                world.fixed_at_once.add(pool)
            world.changes[name, found[1] if found else ""] += 1
        elif found:
            world.nonces[name, found[1]] += 1
        return operation

    def taken(kind: str, path: str) -> sandbox.Fault | None:
        now = time.monotonic()
        world.away = [(until, fault) for until, fault in world.away if until > now]
        room = world.excuses.room(kind, path)
        fault = world.away[0][1] if world.away else take(kind, path) if room else None
        if fault is None:
            world.excuses.passed(kind, path)
        else:
            world.trial.faults[_name(kind, fault)] += 1
            world.excuses.heed(kind, path, fault, old=_is_old(world, kind, path))
        return fault

    Compute.run_command = watched  # type: ignore[method-assign, assignment] # a trial has a process of its own
    faults.take = taken  # type: ignore[method-assign]


def _is_old(world: World, kind: str, path: str) -> bool:
    """Whether a look that finds a command still going is the last."""
    operation = _operation(world.box, path) if kind == POLL else None
    if operation is None:
        return False
    return (datetime.datetime.now(datetime.UTC) - operation.started).total_seconds() > world.deadline - 30


def node_of(box: sandbox.Sandbox, kind: str, path: str) -> str:
    """The node that a call is about, by the call's kind and path ('' for none)."""
    if kind == POLL:
        operation = _operation(box, path)
        return "" if operation is None else operation.member.name
    instance = box.compute.instances.get(path.rpartition("/runCommand")[0].lower())
    return "" if instance is None else instance.member.name


def _operation(box: sandbox.Sandbox, path: str) -> Operation | None:
    return box.compute.operations.get(path.rstrip("/").rpartition("/")[2].lower())


def _changes(body: Any) -> bool:
    """Whether a script changes the node: then it says how long the kubelet has to settle."""
    return any(line.startswith("settle=") for line in "\n".join(body.get("script", ())).split("\n"))


def _name(kind: str, fault: sandbox.Fault) -> str:
    place = kind if kind in (POLL, "runCommand") else "others"
    if fault.drop:
        return f"{place} cut {fault.drop}"
    return f"{place} {fault.status or ('late' if fault.delay else 'half')}"
