"""A node as a folder, with stand-ins for what a folder cannot have (systemctl, curl, journalctl), for the scripts.

The files are real and so are their times; a process is written down as started when `process` is called, by the real
clocks, and what is written before is older than that.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shared.models import Evidence
from shared.node import evidence, frames

PID = 4242
NONCE = "0123456789abcdef"
BOOT_ID = "5d1ef1a4-63c7-41f0-9a5e-5e5f2fb2c8d1"
HEALTHZ = "http://127.0.0.1:10248/healthz"

# Longer than the kernel's coarse clock is behind, doubled as the proof does: what was written before is older.
_SETTLED = 0.05

_STANDINS = {
    "systemctl": """case "$*" in
*--version*) echo 'systemd 252 (252.39-1)' ;;
show-environment) cat "$KUBELET_GUARD_ROOT/manager-environment" 2>/dev/null ;;
*) cat "$KUBELET_GUARD_ROOT/systemctl-show" ;;
esac""",
    "curl": """for url; do :; done
while read -r at answer; do
    [ "$at" != "$url" ] || printf '%s' "$answer"
done <"$KUBELET_GUARD_ROOT/healthz-answers\"""",
    "journalctl": """cat "$KUBELET_GUARD_ROOT/journal" 2>/dev/null""",
    "systemd-analyze": """cat "$KUBELET_GUARD_ROOT/conditions" 2>/dev/null""",
}


@dataclass
class FolderNode:
    """A node's root folder. Paths are the node's own, such as `/etc/default/kubelet`.

    `missing_tools` are commands that the node does not have.
    """

    root: Path
    missing_tools: Sequence[str] = ()
    _shown: dict[str, str] = field(default_factory=dict)
    _environments: list[str] = field(default_factory=list)

    def at(self, path: str) -> Path:
        """Where one of the node's paths is on this disk."""
        return self.root / path.lstrip("/")

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> Path:
        target = self.at(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
        target.chmod(mode)
        return target

    def link(self, path: str, to: str) -> None:
        """A symbolic link, in the place of one that is there."""
        place = self.at(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(to)

    def process(self, *argv: str, cwd: str = "/", version: str = "", state: str = "S") -> None:
        """A running kubelet with this argument vector, started now; `version` is what its executable answers."""
        self._show()
        if not self.at("/healthz-answers").exists():
            self.health({HEALTHZ: "ok"})
        time.sleep(_SETTLED)
        started, monotonic = time.time_ns() // 1000, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
        stamp = time.strftime("%a %Y-%m-%d %H:%M:%S", time.gmtime(started // 1_000_000))
        self._shown |= {
            "ExecMainStartTimestamp": f"{stamp}.{started % 1_000_000:06d} UTC",
            "ExecMainStartTimestampMonotonic": str(monotonic),
            "InvocationID": "0" * 31 + "1",
        }
        self.write(f"/proc/{PID}/cmdline", b"".join(os.fsencode(arg) + b"\0" for arg in argv))
        self.link(f"/proc/{PID}/cwd", cwd)
        fields = " ".join(str(number) for number in range(4, 22))
        self.write(f"/proc/{PID}/stat", f"{PID} (kube) let) {state} {fields} {monotonic // 10_000} 0 0\n")
        self.write("/proc/sys/kernel/random/boot_id", f"{BOOT_ID}\n")
        self.at(f"/proc/{PID}/exe").unlink(missing_ok=True)
        if version:
            self.write(f"/proc/{PID}/exe", f"#!/bin/sh\necho Kubernetes {version}\n", 0o755)
        self._show()

    def root_of_process(self, path: str) -> None:
        """Give the process this directory for its root. Its working directory is then given as a path of this disk."""
        self.at(f"/proc/{PID}/root").symlink_to(self.at(path))

    def unit(self, *dropins: str, environments: str = "/etc/default/kubelet", pid: int = PID, **facts: str) -> None:
        """What systemd says of kubelet.service."""
        self._shown |= {
            "MainPID": str(pid),
            "NRestarts": "0",
            "LoadState": "loaded",
            "ActiveState": "active",
            "SubState": "running",
            "FragmentPath": "/etc/systemd/system/kubelet.service",
            "DropInPaths": " ".join(dropins),
            "NeedDaemonReload": "no",
            **facts,
        }
        self._environments = environments.split()
        self._show()

    def manager_environment(self, *lines: str) -> None:
        """What `systemctl show-environment` prints."""
        self.write("/manager-environment", "".join(f"{line}\n" for line in lines))

    def journal(self, text: str) -> None:
        """What the kubelet's process has logged."""
        self.write("/journal", text)

    def health(self, answers: dict[str, str]) -> None:
        """What is answered at which address; nowhere else anything answers."""
        self.write("/healthz-answers", "".join(f"{url} {answer}\n" for url, answer in answers.items()))

    def _show(self) -> None:
        lines = [f"{name}={value}" for name, value in self._shown.items()]
        lines += [f"EnvironmentFiles={path} (ignore_errors=no)" for path in self._environments]
        self.write("/systemctl-show", "\n".join(lines) + "\n")

    def run(self, script: str, *shell: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[bytes]:
        """Run a script on this node under a shell, as run command would."""
        standins = self.root.parent / "standins"
        standins.mkdir(exist_ok=True)
        for name, body in _STANDINS.items():
            place = standins / name
            place.unlink(missing_ok=True)
            if name not in self.missing_tools:
                place.write_text(f"#!{shutil.which('sh')}\nPATH={shlex.quote(os.environ['PATH'])}\n{body}\n")
                place.chmod(0o755)
        if not self.at("/healthz-answers").exists():
            self.health({HEALTHZ: "ok"})
        return subprocess.run(
            [*([str(shutil.which(shell[0]) or shell[0]), *shell[1:]] if shell else ("/bin/sh",)), "-c", script],
            env={"KUBELET_GUARD_ROOT": str(self.root), "PATH": f"{standins}:{self._without(path)}"},
            capture_output=True,
            timeout=60,
            check=True,
        )

    def _without(self, path: str) -> str:
        """A PATH that lacks the missing tools and has all else of this one."""
        if not self.missing_tools:
            return path
        tools = self.root.parent / "tools"
        shutil.rmtree(tools, ignore_errors=True)
        tools.mkdir()
        for directory in path.split(os.pathsep):
            for tool in Path(directory).iterdir() if Path(directory).is_dir() else ():
                if tool.name not in self.missing_tools and not (tools / tool.name).is_symlink():
                    (tools / tool.name).symlink_to(tool)
        return str(tools)

    def collect(self, *shell: str, path: str = os.environ["PATH"]) -> Evidence:
        """The evidence that the collect script gives, in as many calls as it takes."""
        parts: list[frames.Frame] = []
        while not parts or len(parts) < parts[0].parts:
            done = self.run(frames.collect_script(len(parts) + 1, NONCE), *shell, path=path)
            parts += frames.parse_streams(done.stdout.decode(), done.stderr.decode(), NONCE)
        return evidence.read(frames.unpack(parts), parts[0].wall, parts[0].uptime)
