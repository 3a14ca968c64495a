"""A node as a folder, with stand-ins for what a folder cannot have (systemctl, curl), for the collect script."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from shared.models import Evidence
from shared.node import evidence, frames

PID = 4242
BOOT = 1_700_000_000


@dataclass
class FolderNode:
    """A node's root folder. Paths are the node's own, such as `/etc/default/kubelet`."""

    root: Path

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> Path:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
        target.chmod(mode)
        return target

    def process(self, *argv: str) -> None:
        """A running kubelet with this argument vector, started now."""
        self.write(f"/proc/{PID}/cmdline", b"".join(arg.encode() + b"\0" for arg in argv))
        fields = " ".join(str(number) for number in range(3, 22))
        self.write(f"/proc/{PID}/stat", f"{PID} (kube) let) S {fields.replace('3 ', '', 1)} 12345 0 0\n")
        self.write("/proc/stat", f"cpu 1 2 3\nbtime {BOOT}\nprocesses 9\n")

    def unit(self, *dropins: str, environments: str = "/etc/default/kubelet", pid: int = PID, **facts: str) -> None:
        """What systemd says of kubelet.service."""
        shown = {
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
        lines = [f"{name}={value}" for name, value in shown.items()]
        lines += [f"EnvironmentFiles={path} (ignore_errors=no)" for path in environments.split()]
        self.write("/systemctl-show", "\n".join(lines) + "\n")

    def run(self, script: str, *shell: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[bytes]:
        """Run a script on this node under a shell, as run command would."""
        standins = self.root.parent / "standins"
        standins.mkdir(exist_ok=True)
        for name, body in (("systemctl", 'cat "$KUBELET_GUARD_ROOT/systemctl-show"'), ("curl", "printf ok")):
            (standins / name).write_text(f"#!/bin/sh\n{body}\n")
            (standins / name).chmod(0o755)
        return subprocess.run(
            [*(shell or ("sh",)), "-c", script],
            env={"KUBELET_GUARD_ROOT": str(self.root), "PATH": f"{standins}:{path}"},
            capture_output=True,
            timeout=60,
            check=True,
        )

    def collect(self, *shell: str, path: str = os.environ["PATH"]) -> Evidence:
        """The evidence that the collect script gives, in as many calls as it takes."""
        parts: list[frames.Frame] = []
        while not parts or len(parts) < parts[0].parts:
            done = self.run(frames.collect_script(len(parts) + 1), *shell, path=path)
            parts += frames.parse_streams(done.stdout.decode(), done.stderr.decode())
        return evidence.read(frames.unpack(parts), parts[0].now)
