"""A real Azurite (Microsoft's storage emulator) for tests: blob, queue and table service on free ports, in memory.

Installed once with npm into $KUBELET_GUARD_CACHE (default: the user's cache folder). Every test that asks for an
account of its own gets an empty one.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.require import require

VERSION = "3.35.0"
START_SECONDS = 60
# The account and key that Microsoft publishes for the emulator.
DEVELOPMENT_ACCOUNT = "devstoreaccount1"
DEVELOPMENT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_ACCOUNTS = 500
_KEY = base64.b64encode(b"an account key that is nobody's secret").decode("ascii")
_LISTENING = re.compile(r"Azurite (Blob|Queue|Table) service is successfully listening at (https?://\S+)")


@dataclass(slots=True)
class Azurite:
    """A running Azurite: the base URLs of its services, such as `http://127.0.0.1:40001`."""

    blob: str
    queue: str
    table: str
    _unused: list[str] = field(default_factory=lambda: [f"guardtest{n:03d}" for n in reversed(range(_ACCOUNTS))])

    @property
    def connection_string(self) -> str:
        """For the published development account, which all tests of the session share."""
        return self._connection_string(DEVELOPMENT_ACCOUNT, DEVELOPMENT_KEY)

    def account(self) -> str:
        """The connection string of an empty account that nobody else uses."""
        return self._connection_string(self._unused.pop(), _KEY)

    def _connection_string(self, name: str, key: str) -> str:
        return (
            f"DefaultEndpointsProtocol={self.table.split(':')[0]};AccountName={name};AccountKey={key};"
            f"BlobEndpoint={self.blob}/{name};QueueEndpoint={self.queue}/{name};TableEndpoint={self.table}/{name};"
        )


def install() -> Path:
    """Azurite's entry point, installed with npm into the cache folder if it is not there yet."""
    node, npm = shutil.which("node"), shutil.which("npm")
    require(bool(node and npm), "Azurite needs node and npm on the PATH")
    cache = os.environ.get("KUBELET_GUARD_CACHE")
    base = (
        Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "aks-kubelet-guard"
    )
    home = base / f"azurite-{VERSION}"
    entry = home / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
    if entry.is_file():
        return entry
    base.mkdir(parents=True, exist_ok=True)
    # Beside it and renamed: a second test process, or a cut, never sees half an installation.
    with tempfile.TemporaryDirectory(dir=base, prefix="azurite-") as folder:
        made = Path(folder) / "made"
        npm_install = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(made), f"azurite@{VERSION}"],
            capture_output=True,
            text=True,
            timeout=600,
        )
        require(npm_install.returncode == 0, f"npm install azurite failed: {npm_install.stderr[-500:]}")
        try:
            made.rename(home)
        except OSError:
            assert entry.is_file(), f"{home} is in the way and is not an installed Azurite; delete it"
    return entry


@contextmanager
def running(*options: str) -> Iterator[Azurite]:
    """Start Azurite with further options of its own, and end exactly that process afterwards."""
    entry = install()
    accounts = ";".join(
        [f"{DEVELOPMENT_ACCOUNT}:{DEVELOPMENT_KEY}"] + [f"guardtest{n:03d}:{_KEY}" for n in range(_ACCOUNTS)]
    )
    command = ["node", str(entry), "--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    with tempfile.TemporaryDirectory(prefix="azurite-") as folder, (Path(folder) / "log").open("w+") as log:
        process = subprocess.Popen(
            [*command, "--blobPort", "0", "--queuePort", "0", "--tablePort", "0", *options],
            cwd=folder,
            env={**os.environ, "AZURITE_ACCOUNTS": accounts},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            endpoints = _endpoints(process, Path(folder) / "log")
            yield Azurite(endpoints["blob"], endpoints["queue"], endpoints["table"])
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _endpoints(process: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
    deadline = time.monotonic() + START_SECONDS
    while True:
        text = log.read_text()
        found = {name.lower(): url for name, url in _LISTENING.findall(text)}
        if len(found) == 3:
            return found
        ended = process.poll() is not None
        require(not ended and time.monotonic() < deadline, f"Azurite did not start: {text[-1000:]}")
        time.sleep(0.05)


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """A running Azurite for the whole session, or a skip with the reason."""
    with running() as started:
        yield started
