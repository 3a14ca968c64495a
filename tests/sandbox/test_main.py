"""The sandbox from a terminal."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox.__main__ import main
from sandbox.states import STATES

ROOT = Path(__file__).parents[2]


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """`python -m sandbox serve`, and the variables that it printed."""
    command = [sys.executable, "-m", "sandbox", "serve", "--fleet", "fleets/demo.yaml", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(4)]
            assert all(line.startswith("export ") for line in lines), lines
            yield process, dict(line.removeprefix("export ").strip().split("=", 1) for line in lines)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop_and_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    file = tmp_path / "env"
    with running("--env-file", str(file)) as (process, environ):
        assert list(environ) == ["GUARD_ARM_ENDPOINT", "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "SSL_CERT_FILE"]
        assert f"export GUARD_ARM_ENDPOINT={environ['GUARD_ARM_ENDPOINT']}\n" in file.read_text()
        assert file.stat().st_mode & 0o777 == 0o600
        context = ssl.create_default_context(cafile=environ["SSL_CERT_FILE"])
        with urllib.request.urlopen(f"{environ['GUARD_ARM_ENDPOINT']}/sandbox/stats", context=context) as answer:
            assert json.load(answer)["calls"] == {}
        directory = Path(environ["SSL_CERT_FILE"]).parent
        assert (directory / "nodes").is_dir()
        process.send_signal(number)
        assert process.wait(10) == 0
        assert not directory.exists()


def test_a_given_folder_stays_and_must_be_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "kept"
    with running("--dir", str(directory)) as (process, _):
        process.terminate()
        assert process.wait(10) == 0
    assert len(os.listdir(directory / "nodes")) == 24
    assert main(["serve", "--fleet", str(ROOT / "fleets/demo.yaml"), "--dir", str(directory)]) == 1
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--fleet", "none.yaml"], "none.yaml: No such file"),
        (["--fleet", "fleets/demo.yaml", "--latency", "soon"], "give seconds such as 2"),
        (["--fleet", "fleets/demo.yaml", "--latency", "9-3"], "give seconds such as 2"),
    ],
)
def test_mistakes_are_said(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *arguments]) == 1
    assert expected in capsys.readouterr().err


def test_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["states"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(STATES)
