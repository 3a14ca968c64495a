"""The bench's parts, each by itself."""

from __future__ import annotations

import subprocess
import sys
import time
from xml.etree import ElementTree

import pytest

from bench.clock import Clock
from bench.evidence import Template, collected, frame
from bench.excuses import Excuses
from bench.fleets import bound, fleet
from bench.latency import Latency
from bench.plot import chart
from bench.storms import outages, storm
from sandbox import Fault
from sandbox.fleet import members
from shared.models import Evidence
from shared.node import evidence, frames

NONCE = "00112233445566ff"
EPOCH = 1_800_000_000.0


@pytest.fixture(scope="module")
def templates() -> dict[str, Template]:
    return dict(collected(["compliant_file", "false_flag"]))


def read(template: Template, number: int, at: float = EPOCH + 60) -> Evidence:
    payload, up_since = template.payload(number, EPOCH)
    stdout, stderr = frame(payload, NONCE, 1, at, up_since)
    parts = frames.parse_streams(stdout, stderr, NONCE)
    return evidence.read(frames.unpack(parts), parts[0].wall, parts[0].uptime)


def test_a_node_answers_as_a_real_one_and_as_no_other(templates: dict[str, Template]) -> None:
    one, other = (read(templates["compliant_file"], number) for number in (1, 2))
    assert one.process is not None
    assert other.process is not None
    assert one.process.argv == other.process.argv
    assert {path: file.digest for path, file in one.files.items()} == {
        path: file.digest for path, file in other.files.items()
    }
    assert one.process.boot_id != other.process.boot_id
    assert one.process.started != other.process.started
    assert one.directories != other.directories
    assert one.process.executable == "/opt/bin/kubelet", "nothing of this machine is in it"
    for found in (one, other):
        assert found.process is not None
        assert found.process.started is not None
        assert max(found.directories.values()) < found.process.started < EPOCH * 1e9, (
            "written, then started, then asked"
        )


def test_a_node_is_the_same_whenever_it_is_asked(templates: dict[str, Template]) -> None:
    first, second = (read(templates["false_flag"], 7, EPOCH + seconds) for seconds in (60, 600))
    assert first.process == second.process
    assert first.files == second.files
    assert second.collected - first.collected == 540 * 10**9
    assert second.uptime - first.uptime == 540 * 10**9


def test_a_long_answer_comes_in_parts() -> None:
    payload = bytes(range(256)) * 40
    noise = b"".join(bytes([value ^ (number * 37 % 251)]) for number, value in enumerate(payload))
    streams = [frame(noise, NONCE, part, EPOCH, 0) for part in (1, 3)]
    parts = [part for stdout, stderr in streams if stdout for part in frames.parse_streams(stdout, stderr, NONCE)]
    assert frames.unpack(parts) == noise


@pytest.mark.parametrize(
    ("nodes", "subscriptions", "seconds"),
    [(100, 1, 0), (1000, 1, 80), (1000, 4, 5), (1000, 20, 0), (10_000, 1, 1020), (50_000, 20, 230)],
)
def test_bound(nodes: int, subscriptions: int, seconds: float) -> None:
    found = list(members(fleet(nodes, subscriptions)))
    assert len(found) == nodes
    assert len({member.name for member in found}) == nodes
    assert bound(found) == pytest.approx(seconds)


def test_latency_has_a_least_a_tail_and_dead_agents() -> None:
    latency = Latency()
    seconds = sorted(latency.seconds(number, 0) for number in range(10_000) if not latency.dead(number))
    assert seconds[0] >= 20
    assert 22 < seconds[5_000] < 28
    assert seconds[9_500] < 40
    assert 45 < seconds[-1] <= 60
    assert sum(latency.dead(number) for number in range(10_000)) == 50
    assert latency.seconds(3, 0) == latency.seconds(3, 0) != latency.seconds(3, 1)


def test_clock() -> None:
    clock = Clock(20.0, EPOCH)
    assert clock.wall(EPOCH) == EPOCH
    assert clock.wall(EPOCH + 3) == EPOCH + 60


def test_a_faster_program_knows_only_its_own_time() -> None:
    code = """
import asyncio, datetime, time
from datetime import datetime as imported, UTC
from pydantic import TypeAdapter
async def main():
    began, moment = time.monotonic(), imported.now(UTC)
    await asyncio.sleep(60)
    assert 60 <= time.monotonic() - began < 600
    assert 60 <= (imported.now(UTC) - moment).total_seconds() < 600
    read = TypeAdapter(imported).validate_python("2030-01-01T00:00:00Z")
    assert isinstance(read, imported) and read > moment
asyncio.run(main())
"""
    began = time.monotonic()
    script = f"import sys; from bench.faster import hasten; hasten(200, {time.time()!r})\n{code}"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert time.monotonic() - began < 59


def test_chart_is_an_image() -> None:
    text = chart("a < b", "minutes", [("one & two", [(0, 0), (3, 10)]), ("other", [(0, 5)])])
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert len(root.findall(".//{*}polyline")) == 2


def test_a_seed_is_a_storm() -> None:
    assert storm(5, 6, ["/a"]) == storm(5, 6, ["/a"]) != storm(6, 6, ["/a"])
    assert outages(5) == outages(5)


def test_what_only_delays_excuses_nothing() -> None:
    excuses = Excuses(lambda kind, path: path)
    for strike in storm(5, 120, ["/a"]):
        if strike.fault.kind != "*" and strike.name in ("429 storm", "5xx", "cut before", "cut after", "slow answer"):
            excuses.heed(strike.fault.kind, "a", strike.fault, old=False)
    assert excuses.calls["a", "operations.get"]
    assert not excuses.verdict("a")


@pytest.mark.parametrize(
    ("fault", "times", "excused"),
    [
        (Fault(kind="operations.get", status=200, body={}), 1, True),
        (Fault(kind="operations.get", status=200, body={"status": "InProgress"}), 9, False),
        (Fault(kind="operations.get", status=404), 1, False),
        (Fault(kind="operations.get", status=404), 2, True),
        (Fault(kind="operations.get", fields={"message": "half"}), 1, False),
        (Fault(kind="operations.get", fields={"message": "half"}), 2, True),
        (Fault(kind="operations.get", status=401), 2, False),
        (Fault(kind="runCommand", status=404), 1, True),
        (Fault(kind="runCommand", status=500), 9, False),
        (Fault(kind="runCommand", drop="after"), 9, False),
    ],
)
def test_what_may_cost_a_verdict(fault: Fault, times: int, excused: bool) -> None:
    excuses = Excuses(lambda kind, path: path)
    for _ in range(times):
        excuses.heed(fault.kind, "a", fault, old=False)
    assert excuses.verdict("a") is excused
    assert not excuses.verdict("b")


def test_a_node_is_not_struck_for_ever() -> None:
    excuses = Excuses(lambda kind, path: path)
    while excuses.room("runCommand", "a"):
        excuses.heed("runCommand", "a", Fault(kind="runCommand", status=429), old=False)
    assert sum(excuses.calls.values()) == 12
    assert excuses.room("runCommand", "b")
