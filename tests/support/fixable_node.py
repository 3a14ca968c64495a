"""A node as a folder whose kubelet can be restarted, for the scripts that change a node."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.models import Evidence, File
from shared.node import evidence, frames
from shared.node.fixing import FileEdit, ModeEdit, Report, apply_script, file_edit, parse_report, undo_script
from tests.support.folder_node import FolderNode

CONFIG = "/etc/default/kubeletconfig.json"
ENVIRONMENT = "/etc/default/kubelet"
STATE = "var/lib/kubelet-guard"
WANTS = "etc/systemd/system/multi-user.target.wants"
NONCE = "0123456789abcdef"

# A kubelet that starts with the words of KUBELET_FLAGS, and with no text in /etc/default that says REFUSE.
SYSTEMCTL = """
cd "$KUBELET_GUARD_ROOT" || exit
echo "$*" >>systemctl-calls
show() { printf 'ActiveState=%s\\nSubState=%s\\nMainPID=%s\\nNRestarts=%s\\nLoadState=loaded\\n' "$@"; cat where; }
case $* in
show-environment) ;;
show*)
    cat systemctl-show
    if grep -q SubState=auto-restart systemctl-show; then # once more with every look
        restarts=$(sed -n 's/^NRestarts=//p' systemctl-show)
        show activating auto-restart 0 $((restarts + 1)) >systemctl-show
    fi ;;
restart*)
    if [ -e die-at-restart ]; then rm die-at-restart; kill -9 "-$(cut -d ' ' -f 6 /proc/self/stat)"; exit; fi
    read -r pid <next-pid; echo $((pid + 1)) >next-pid
    if grep -rqs REFUSE etc/default; then show activating auto-restart 0 0 >systemctl-show; exit; fi
    if [ -e starts-no-more ]; then show failed failed 0 0 >systemctl-show; exit; fi
    mkdir -p "proc/$pid"
    cp proc/4242/stat "proc/$pid/stat"
    flags=$(sed -n 's/^KUBELET_FLAGS=//p' etc/default/kubelet)
    for word in /opt/bin/kubelet --config=/etc/default/kubeletconfig.json $flags; do
        printf '%s\\0' "$word"
    done >"proc/$pid/cmdline"
    show active running "$pid" 0 >systemctl-show ;;
esac
"""
STANDINS = {
    "systemctl": SYSTEMCTL,
    "curl": "printf ok",
    "journalctl": 'cat "$KUBELET_GUARD_ROOT/log" 2>/dev/null',
    "systemd-run": 'echo "$*" >>"$KUBELET_GUARD_ROOT/systemd-run-calls"',
    "sleep": f"exec {shutil.which('sleep')} 0.1",
}


@dataclass
class Applied:
    """What one run of the script came to."""

    report: Report
    seen: Evidence
    returned: subprocess.CompletedProcess[bytes]

    @property
    def pid(self) -> int:
        """The kubelet's process afterwards; 0 where there is none."""
        return self.seen.process.pid if self.seen.process else 0

    @property
    def argv(self) -> tuple[str, ...]:
        """Its arguments."""
        return self.seen.process.argv if self.seen.process else ()


class FixableNode(FolderNode):
    """A folder node whose kubelet can be restarted."""

    def prepare(self) -> None:
        shown = (self.root / "systemctl-show").read_text()
        self.write("/where", "".join(re.findall(r"(?m)^(?:FragmentPath|DropInPaths|EnvironmentFiles)=.*\n", shown)))
        self.write("/next-pid", "5000\n")
        self.write("/etc/systemd/system/unrelated.service", "[Service]\n")
        wants = self.root / WANTS
        wants.mkdir()
        (wants / "kubelet.service").symlink_to("../kubelet.service")

    def run(
        self, script: str, *shell: str, path: str = os.environ["PATH"], check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        process = self.start(script, *shell, path=path)
        stdout, stderr = process.communicate(timeout=60)
        if check:
            assert process.returncode == 0, stderr
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def start(self, script: str, *shell: str, path: str = os.environ["PATH"]) -> subprocess.Popen[bytes]:
        standins = self.root.parent / "standins"
        standins.mkdir(exist_ok=True)
        for name, body in STANDINS.items():
            (standins / name).write_text(f"#!/bin/sh\n{body}\n")
            (standins / name).chmod(0o755)
        if not shutil.which("flock", path=path):
            (standins / "flock").unlink(missing_ok=True)
            (standins / "flock").symlink_to(str(shutil.which("flock")))
        return subprocess.Popen(
            [*(shell or ("sh",)), "-c", script],
            env={"KUBELET_GUARD_ROOT": str(self.root), "PATH": f"{standins}:{path}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def file(self, path: str) -> File:
        """A file as evidence shows it, where nothing is masked."""
        raw = (self.root / path.lstrip("/")).read_bytes()
        text = raw.decode("utf-8", "surrogateescape")
        return File(path, text, 0o600, 0, 0, len(raw), 0, hashlib.sha256(raw).hexdigest(), True)

    def edit(self, path: str, old: str, new: str) -> FileEdit:
        file = self.file(path)
        assert old in file.text
        return file_edit(file, file.text.replace(old, new))

    def apply(
        self,
        *edits: FileEdit,
        modes: Sequence[ModeEdit] = (),
        restart: bool = True,
        present: Sequence[str] = (),
        absent: Sequence[str] = (),
        shell: tuple[tuple[str, ...], str] = (("sh",), os.environ["PATH"]),
    ) -> Applied:
        script = apply_script(
            edits,
            modes=modes,
            restart=restart,
            present=present,
            absent=absent,
            settle_seconds=1,
            limit_seconds=3,
            nonce=NONCE,
        )
        return self.applied(script, shell)

    def undo(
        self,
        backup: str,
        shell: tuple[tuple[str, ...], str] = (("sh",), os.environ["PATH"]),
        modes: Sequence[ModeEdit] = (),
    ) -> Applied:
        return self.applied(undo_script(backup, modes=modes, settle_seconds=1, limit_seconds=3, nonce=NONCE), shell)

    def mode(self, path: str) -> tuple[int, int, int]:
        """A file's mode, user and group, links followed."""
        told = (self.root / path.lstrip("/")).stat()
        return stat.S_IMODE(told.st_mode), told.st_uid, told.st_gid

    def mode_edit(self, path: str, mode: int, uid: int | None = None, gid: int | None = None) -> ModeEdit:
        """The edit that gives a file this mode, and this owner where one is given."""
        was = self.mode(path)
        return ModeEdit(path, *was, mode, was[1] if uid is None else uid, was[2] if gid is None else gid)

    def applied(self, script: str, shell: tuple[tuple[str, ...], str]) -> Applied:
        returned = self.run(script, *shell[0], path=shell[1])
        assert len(returned.stderr) < 4096
        assert len(returned.stdout) < 4096
        parsed = frames.parse(returned.stdout.decode(), NONCE)
        parts = [parsed]
        while len(parts) < parsed.parts:
            done = self.run(frames.collect_script(len(parts) + 1, NONCE), *shell[0], path=shell[1])
            parts += frames.parse_streams(done.stdout.decode(), done.stderr.decode(), NONCE)
        seen = evidence.read(frames.unpack(parts), parsed.wall, parsed.uptime)
        return Applied(parse_report(returned.stderr.decode(), NONCE), seen, returned)

    def state(self) -> dict[str, tuple[int, int, bytes]]:
        """Everything under /etc: mode, inode's change time and content."""
        return {
            str(path.relative_to(self.root)): (
                path.lstat().st_mode,
                path.lstat().st_ctime_ns if path.is_file() else 0,
                path.read_bytes() if path.is_file() else b"",
            )
            for path in sorted((self.root / "etc").rglob("*"))
        }

    def contents(self) -> dict[str, tuple[int, bytes]]:
        return {path: (mode, content) for path, (mode, _, content) in self.state().items()}

    def calls(self, name: str) -> list[str]:
        path = self.root / f"{name}-calls"
        return path.read_text().splitlines() if path.exists() else []

    def restarts(self) -> int:
        return sum(call.startswith("restart ") for call in self.calls("systemctl"))

    def log(self, *messages: str, pid: int = 777) -> None:
        """What journalctl shows from now on, written by the kubelet's process."""
        now = f"{time.time() + 3600:.6f}"
        self.write("/log", "".join(f"{now} aks-node kubelet[{pid}]: {message}\n" for message in messages))

    def backups(self) -> list[Path]:
        return sorted((self.root / STATE / "backups").glob("*"))
