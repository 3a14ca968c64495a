"""One measurement: a server, a client in a process of its own, and what both say of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.clock import Clock
from bench.fleets import bound, fleet
from bench.latency import Latency
from sandbox.fleet import members as fleet_members
from sandbox.states import CHAINS, STATES, State
from shared.controls import catalogue

# What a client may take after the last command that can end (real seconds), before it is taken for hung.
_PATIENCE = 600.0
_OURS = ("us", "fix", "app")


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured: `who` is `us`, `fix`, `app`, `one by one` or `all at once`; `only` stand for all.

    `control` is judged alone (an audit judges all of the benchmark where it is empty, a fix 3.2.6).
    """

    who: str
    nodes: int
    subscriptions: int = 1
    scale: float = 1.0
    only: int | None = None
    dead_every: int = Latency().dead_every
    deadline: float = 600.0
    control: str = ""

    @property
    def controls(self) -> Sequence[str]:
        """What is judged."""
        return [self.control] if self.control else [CHAINS] if self.who == "fix" else catalogue().of()

    @property
    def state(self) -> str:
        """The state that every node is in; empty for a mixture."""
        return "false_file" if self.who == "fix" else ""


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table. Times are in seconds of the case's clock, processor time in real seconds.

    `statuses` counts the nodes by what was said of 3.2.6 (or of the only control), `wrong` those with no or a wrong
    verdict on any control; `controls` is how many were judged.
    """

    who: str
    nodes: int
    subscriptions: int
    scale: float
    extrapolated: bool
    bound: float
    last_start: float
    end: float
    slowest: float
    calls: int
    calls_by_kind: Mapping[str, int]
    refused: int
    busy: int
    starts: int
    looks: Mapping[str, int]
    seconds_unseen: float
    cpu: float
    server_cpu: float
    peak_mb: float
    real_seconds: float
    statuses: Mapping[str, int]
    wrong: int
    curve: Sequence[float] = field(default_factory=tuple)
    dead_every: int = 0
    load: float = 0.0
    waited: float = 0.0
    measured: str = ""
    app: Mapping[str, Any] = field(default_factory=dict)
    controls: int = 1

    @property
    def allowed(self) -> float:
        """When the last node has to be started at the latest: 1.1 times the bound; under a minute, or 10 s after it."""
        return max(1.1 * self.bound, self.bound + 10) if self.bound < 60 else 1.1 * self.bound

    @property
    def lag(self) -> float:
        """How long after the bound and the slowest command the run ended."""
        return self.end - self.bound - self.slowest

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of processor time a node, what the process takes to start included."""
        return 1000 * self.cpu / self.nodes

    @property
    def looks_each(self) -> float:
        """Looks at a command's result, on average."""
        total = sum(self.looks.values())
        return sum(int(count) * number for count, number in self.looks.items()) / total if total else 0.0


@contextmanager
def serving(case: Case, clock: Clock, directory: Path) -> Iterator[dict[str, str]]:
    """A bench server for as long as the block lasts; gives the variables that turn a client to it."""
    command = [sys.executable, "-m", "bench.server", "--nodes", str(case.nodes)]
    command += ["--subscriptions", str(case.subscriptions), "--scale", str(case.scale), "--epoch", repr(clock.epoch)]
    command += ["--dead-every", str(case.dead_every), "--state", case.state, "--dir", str(directory)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            raise RuntimeError(f"the bench's server did not start (exit status {server.wait()})")
        yield json.loads(line)
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def log_of(variables: Mapping[str, str]) -> dict[str, Any]:
    """What the server noted."""
    context = ssl.create_default_context(cafile=variables["SSL_CERT_FILE"])
    with urllib.request.urlopen(f"{variables['GUARD_ARM_ENDPOINT']}/bench/log", context=context) as answer:
        return dict(json.load(answer))


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that is over: its exit status, processor seconds, peak memory (MB), real seconds, and for how many of
    those it could have gone on, but other processes had the processors."""

    status: int
    cpu: float
    peak_mb: float
    seconds: float
    waited: float


def run(command: Sequence[str], environment: Mapping[str, str], out: Path, patience: float) -> Ended:
    """Run a command to its end, its stdout into a file. Raises TimeoutError where it hangs; it is killed then."""
    began, waited = time.monotonic(), 0.0
    with out.open("wb") as stdout, out.with_suffix(".err").open("wb") as stderr:
        process = subprocess.Popen(command, env=dict(environment), stdout=stdout, stderr=stderr)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            waited = _waited(process.pid, waited)
            if time.monotonic() - began > patience:
                process.kill()
                os.wait4(process.pid, 0)
                raise TimeoutError(f"{command} took longer than {patience:.0f} s")
            time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(
        process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, time.monotonic() - began, waited
    )


def _waited(pid: int, known: float) -> float:
    """Seconds that a process's first thread has waited for a processor; `known` where it is over or nothing tells."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return known


def environment(variables: Mapping[str, str], case: Case) -> dict[str, str]:
    """A client's environment: the server's variables, a full budget, nothing of a real Azure."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GUARD_", "AZURE_"))}
    ours = {
        "GUARD_BUDGET_PERCENT": "100",
        "GUARD_ALLOW_FIX": "true",
        "GUARD_COMMAND_DEADLINE_SECONDS": f"{case.deadline:g}",
    }
    return {**kept, **variables, **ours}


def measure(case: Case) -> Result:
    """Carry a case out. Raises RuntimeError where the client fails, TimeoutError where it hangs."""
    directory = Path(tempfile.mkdtemp(prefix="kubelet-guard-bench-"))
    try:
        return _measure(case, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _measure(case: Case, directory: Path) -> Result:
    members = list(fleet_members(fleet(case.nodes, case.subscriptions, case.state)))
    clock = Clock.from_now(case.scale)
    with serving(case, clock, directory) as variables:
        given = environment(variables, case)
        fast = [sys.executable, "-m", "bench.faster", repr(case.scale), repr(clock.epoch)]
        # A hung command ends by the client's own deadline; beyond that, a client has this long.
        patience = _PATIENCE + (8 * bound(members) + case.deadline + 300) / case.scale
        ended = run([*fast, *_command(case, directory)], given, directory / "out", patience)
        over = clock.since()
        log = log_of(variables)
    text = (directory / "out").read_text("utf-8")
    if not text or ended.status not in (0, 1, 2):
        errors = (directory / "out.err").read_text("utf-8", "replace")[-2000:]
        raise RuntimeError(f"{case.who} ended with {ended.status}: {errors}")
    statuses, wrong = _judged(case, text, [STATES[member.state] for member in members])
    starts = sorted(log["starts"])
    # Azure's limits count from the first call. What the process does after its last one is computing, not waiting.
    zero = log["first"]
    end = log["last"] - zero + (over - log["last"]) / case.scale
    asked = case.only or case.nodes
    factor = case.nodes / asked
    cpu = ended.cpu
    if case.only:
        first = float(json.loads(text)["cpu_first"])
        cpu = first + (ended.cpu - first) / (case.only - 1) * (case.nodes - 1)
    dead = any(Latency(dead_every=case.dead_every).dead(number) for number in range(asked))
    return Result(
        who=case.who,
        nodes=case.nodes,
        subscriptions=case.subscriptions,
        scale=case.scale,
        extrapolated=case.only is not None,
        bound=bound(members),
        last_start=(starts[-1] - zero) * (case.nodes - 1) / (asked - 1) if starts else 0.0,
        end=end * factor,
        slowest=max(log["slowest"], case.deadline if dead and case.who in _OURS else 0.0),
        calls=int(sum(log["calls"].values()) * factor),
        calls_by_kind={kind: int(count * factor) for kind, count in log["calls"].items()},
        refused=int(sum(log["refused"].values()) * factor),
        busy=log["busy"],
        starts=int(len(starts) * factor),
        looks=log["looks"],
        seconds_unseen=log["longest_unseen"],
        cpu=cpu,
        server_cpu=log["server_cpu_seconds"],
        peak_mb=ended.peak_mb,
        real_seconds=ended.seconds,
        statuses=statuses,
        wrong=wrong,
        curve=_curve([start - zero for start in starts]),
        dead_every=case.dead_every,
        app=_of_the_app(text) if case.who == "app" else {},
        load=round(os.getloadavg()[0], 2),
        waited=round(ended.waited / ended.seconds, 3),
        measured=datetime.now(UTC).date().isoformat(),
        controls=len(case.controls) if case.who in _OURS else 1,
    )


def _command(case: Case, directory: Path) -> list[str]:
    if case.who == "app":
        return ["bench.app", *(["--control", case.control] if case.control else [])]
    if case.who == "fix":
        how = ["--yes", "--pause", "0", "--max-unavailable", "10%"]
        return ["shared", "fix", *how, "--store", str(directory / "runs.db"), "--output", "json"]
    if case.who == "us":
        only = ["--control", case.control] if case.control else []
        return ["shared", "audit", *only, "--store", str(directory / "runs.db"), "--output", "json"]
    ways = {"one by one": "sequential", "all at once": "gather"}
    more = ["--only", str(case.only)] if case.only else []
    return ["bench.peers", ways[case.who], *more]


def _judged(case: Case, text: str, states: Sequence[State]) -> tuple[dict[str, int], int]:
    """The nodes by status, how many of them have no verdict or another than the fleet's."""
    found = json.loads(text)
    if case.who == "app":
        found = found["findings"]
    elif case.who not in _OURS:
        wrong = (case.only or case.nodes) - found["answered"]
        return {"answered": found["answered"], **found["errors"]}, wrong
    wrong = [0]
    latency = Latency(dead_every=case.dead_every)
    for control in case.controls:
        of_control = [finding for finding in found if finding["control"] == control]
        statuses = Counter(finding["status"] for finding in of_control)
        expected = ["pass" if case.who == "fix" else state.expects(control) for state in states]
        wanted = Counter("error" if latency.dead(number) else word for number, word in enumerate(expected))
        wrong.append(sum(abs(statuses[name] - wanted[name]) for name in statuses.keys() | wanted.keys()) // 2)
        nodes = Counter(finding["node"] for finding in of_control)
        wrong += [len(states) - len(nodes), sum(count > 1 for count in nodes.values())]
    if {finding["control"] for finding in found} - {*case.controls}:
        raise RuntimeError(f"{case.who} judged other controls than {', '.join(case.controls)}")
    shown = CHAINS if CHAINS in case.controls else case.controls[0]
    return dict(Counter(finding["status"] for finding in found if finding["control"] == shown)), max(wrong)


def _of_the_app(text: str) -> dict[str, Any]:
    """What only the app's host can tell."""
    return {name: value for name, value in json.loads(text).items() if name != "findings"}


def _curve(starts: Sequence[float], points: int = 200) -> list[float]:
    """When the 1st, … and the last of the starts was, for a plot: at most `points` of them, evenly."""
    if len(starts) <= points:
        return [round(start, 2) for start in starts]
    step = (len(starts) - 1) / (points - 1)
    return [round(starts[round(number * step)], 2) for number in range(points)]
