"""The bench measures the product's own command; some of the soak's trials hold on it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench import report
from bench.measure import Case, measure

pytestmark = pytest.mark.sandboxed


@pytest.mark.parametrize(
    ("who", "control", "controls", "starts"),
    [("us", "", 13, 24), ("us", "3.2.6", 1, 24), ("fix", "", 1, 48), ("all at once", "", 1, 24)],
)
def test_a_measurement(who: str, control: str, controls: int, starts: int) -> None:
    result = measure(Case(who, 24, 2, scale=20, dead_every=0, control=control))
    assert result.wrong == 0
    assert result.starts == starts
    assert result.busy == 0
    assert result.refused == 0
    assert sum(result.looks.values()) == starts
    assert result.end > 20
    assert result.cpu > 0
    assert result.peak_mb > 10
    assert len(result.curve) == starts
    assert report.row(result).startswith(f"| {who} | 24 | 2 | {controls} | ×20 | 0 |")


@pytest.mark.slow
def test_a_short_soak() -> None:
    command = [sys.executable, "-m", "bench.soak", "--runs", "8", "--seed", "22"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
