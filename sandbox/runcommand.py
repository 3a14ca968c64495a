"""Run command on a node: the extension's contract, carried out with a real `sh` on a node folder.

The script is kept as `script.sh` (0500) beside what it prints, `stdout` and `stderr` (0600), in a numbered folder;
CRLF becomes LF, a byte order mark goes; `/bin/sh -c` runs it by its path, so that a shebang counts; its exit status is
not reported; of each stream the last 4,096 bytes arrive. Source: the public run-command-extension-linux (cmds.go,
exec.go, files.go).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.node import Folder
from sandbox.states import Command

TAIL_BYTES = 4096
SCRIPT_LIMIT = 256 * 1024
_DROPPED_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Streams:
    """What arrives of a script's two streams."""

    stdout: str
    stderr: str


class Runner:
    """Runs scripts on node folders, at most `width` at once: more would only wait for the same few processors."""

    def __init__(self, width: int) -> None:
        self._places = asyncio.Semaphore(width)
        self._running: set[asyncio.subprocess.Process] = set()

    async def run(self, folder: Folder, lines: Sequence[str]) -> Streams:
        """Run a script (its lines) on a node, to its end. A script over the limit is not run and prints nothing."""
        script = "\n".join(lines).encode()
        if len(base64.b64encode(script)) > SCRIPT_LIMIT:
            return Streams("", "")
        async with self._places:
            directory = _prepare(folder, script)
            with (directory / "stdout").open("wb") as stdout, (directory / "stderr").open("wb") as stderr:
                process = await asyncio.create_subprocess_exec(
                    *("/bin/sh", "-c", str(directory / "script.sh")),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    cwd=directory,
                    env=dict(folder.environment()),
                    start_new_session=True,
                )
            self._running.add(process)
            try:
                await process.wait()
            finally:
                self._running.discard(process)
                if process.returncode is None:
                    _kill(process)
                    await process.wait()
            return Streams(_tail(directory / "stdout"), _tail(directory / "stderr"))

    async def close(self) -> None:
        """End every script that still runs, with its children."""
        for process in [*self._running]:
            _kill(process)
            await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended in between
        os.killpg(process.pid, signal.SIGKILL)


def _prepare(folder: Folder, script: bytes) -> Path:
    last = max((int(path.name) for path in folder.downloads.iterdir()), default=-1)
    directory = folder.downloads / str(last + 1)
    directory.mkdir(mode=0o700)
    path = directory / "script.sh"
    path.write_bytes(script.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n"))
    path.chmod(0o500)
    for name in ("stdout", "stderr"):
        (directory / name).touch(mode=0o600)
    return directory


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        return file.read(TAIL_BYTES).decode("utf-8", "replace")


def message(streams: Streams, command: Command) -> str:
    """The status message that reports a finished script, as the far side of a node in this state hands it on."""
    stdout, stderr = streams.stdout, streams.stderr
    match command:
        case Command.DID_NOT_FINISH:
            return "Enable succeeded: Last script execution didn't finish."
        case Command.NO_OUTPUT:
            stdout = stderr = ""
        case Command.TRUNCATED:
            stdout = stdout[:-_DROPPED_CHARACTERS]
        case Command.GARBLED:
            middle = len(stdout) // 2
            changed = "B" if stdout[middle : middle + 1] == "A" else "A"
            stdout = f"bash: warning: setlocale\n{stdout[:middle]}{changed}{stdout[middle + 1 :]}"
        case Command.HOSTILE:
            return _hostile(stdout, stderr)
        case _:
            pass
    return f"Enable succeeded: \n[stdout]\n{stdout}\n[stderr]\n{stderr}"


def _hostile(stdout: str, stderr: str) -> str:
    """Far more than 4,096 bytes, false stream markers, control characters, and the true output with digits changed."""
    forged = stdout.translate(str.maketrans("0123456789", "1234567890"))
    noise = "\x00\x1b[2J\x1b]0;owned\x07\u202e\ufffe<script>alert(1)</script>\r"
    flood = "A" * 2_000_000
    streams = (f"{flood}{noise}{forged}", stdout, f"{forged}{stderr}", "")
    marked = zip(("stdout", "stderr", "stdout", "stderr"), streams, strict=True)
    return "Enable succeeded: " + "".join(f"\n[{name}]\n{text}" for name, text in marked)
