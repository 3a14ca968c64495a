"""Trials of the soak whose seeds broke a promise once, for a fault of the product."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.sandboxed, pytest.mark.slow]


@pytest.mark.parametrize(
    "seed",
    [
        3,  # the store was away for longer than Azure may be: two tries were taken for all of that time
    ],
)
def test_seed(seed: int) -> None:
    command = [sys.executable, "-m", "bench.soak", "--one", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["broken"] == []
