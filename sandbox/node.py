"""Node folders: the files of a node in a given state, with its service manager and the commands it stands in for."""

from __future__ import annotations

import os
import shutil
import sys
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from sandbox import aks, service
from sandbox.fleet import Member
from sandbox.states import STATES

_DIRECTORIES = ("etc/kubernetes/manifests", "run/lock", "tmp", "var/lib/kubelet", "var/log", "opt/bin")
_DOWNLOADS = "var/lib/waagent/run-command/download"
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Folder:
    """Where a node is on this disk, and the commands that stand in for the node's own."""

    root: Path
    commands: Path

    @property
    def downloads(self) -> Path:
        """Where the run command extension keeps each script and what it printed."""
        return self.root / _DOWNLOADS

    def stop_timers(self) -> None:
        """Take back what the node's systemd-run stand-in has scheduled."""
        shutil.rmtree(self.root / "run/sandbox/timers", ignore_errors=True)

    def environment(self) -> Mapping[str, str]:
        """What a script on this node finds in its environment."""
        path = f"{self.commands}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {"KUBELET_GUARD_ROOT": str(self.root), "PATH": path}


def _install_commands(directory: Path) -> Path:
    """Write the stand-ins for systemctl, curl, stat and the like into `directory`/bin; returns that folder."""
    commands = directory / "bin"
    commands.mkdir(parents=True)
    source = Path(__file__).resolve().parent.parent
    for template in files("sandbox").joinpath("standins").iterdir():
        text = template.read_text("utf-8").replace("@python@", sys.executable).replace("@source@", str(source))
        _write(commands / template.name.removesuffix(".sh"), f"#!/bin/sh\n{text}", 0o755)
    return commands


def make(members: Iterable[Member], directory: Path) -> dict[str, Folder]:
    """A folder for each Linux node, by node name, its kubelet started; below `directory`, with the stand-ins.

    The files are really written before the process starts, or really after it: their times tell, and the pauses are
    longer than the kernel's coarse clock, from which they come, is behind.
    """
    commands = _install_commands(directory)
    nodes = [member for member in members if member.pool.os == "Linux"]
    folders = {member.name: Folder(directory / "nodes" / member.name, commands) for member in nodes}
    for member in nodes:
        _write_files(member, folders[member.name].root)
    time.sleep(_PAUSE_SECONDS)
    for member in nodes:
        service.start_first(folders[member.name].root, time.time())
    later = [m for m in nodes if _changes_after_start(m) or STATES[m.state].kubelet.then_gone]
    if later:
        time.sleep(_PAUSE_SECONDS)
        for member in later:
            for path, file in _changes_after_start(member).items():
                _write(folders[member.name].root / path[1:], file.text, file.mode)
            for path in STATES[member.state].kubelet.then_gone:
                (folders[member.name].root / path[1:]).unlink()
    return folders


def _write_files(member: Member, root: Path) -> None:
    kubelet = STATES[member.state].kubelet
    for name in _DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / _DOWNLOADS).mkdir(parents=True, mode=0o700)
    written = aks.files(kubelet, _labels(member), _version(member))
    for path, file in written.items():
        _write(root / path[1:], file.text, file.mode)
    _write(root / "etc/hostname", f"{member.name}\n", 0o644)
    number = zlib.crc32(member.name.encode())
    facts = service.Facts(_version(member), kubelet.quirk, time.time() - service.uptime())
    service.install(root, facts, first_pid=1900 + number % 900)
    # Only root could give files away: who they belong to on this node, its stat and chown know from here.
    owners = "".join(f"{file.owner} {path}\n" for path, file in written.items() if file.owner != "0:0")
    _write(root / "run/sandbox/owners", owners, 0o600)
    if kubelet.installed:
        _write(root / aks.KUBELET[1:], '#!/bin/sh\nexec kubelet "$@"\n', 0o755)


def _changes_after_start(member: Member) -> dict[str, aks.File]:
    kubelet = STATES[member.state].kubelet
    changed: dict[str, aks.File] = {}
    path = aks.config_path(kubelet)
    if kubelet.then_chains is not None and path is not None:
        changed[path] = aks.File(aks.config_text(kubelet, kubelet.then_chains, _version(member)), 0o600)
    if kubelet.then_flags:
        then = replace(kubelet, flags=kubelet.then_flags)
        changed[aks.ENVIRONMENT] = aks.files(then, _labels(member), _version(member))[aks.ENVIRONMENT]
    if kubelet.then_systemd_flags:
        path, file = aks.systemd_dropin(kubelet.then_systemd_flags)
        changed[path] = file
    return changed


def _version(member: Member) -> str:
    return member.pool.version or member.cluster.version


def _labels(member: Member) -> list[str]:
    pool = member.pool
    labels = {
        "agentpool": pool.name,
        "kubernetes.azure.com/agentpool": pool.name,
        "kubernetes.azure.com/cluster": member.cluster.node_group,
        "kubernetes.azure.com/consolidated-additional-properties": "5d1ef1a4-63c7-11f0-9a5e-5e5f2fb2c8d1",
        "kubernetes.azure.com/kubelet-identity-client-id": "6b0a4f0e-3d1c-4f9b-8a54-0a4b31cf7e11",
        "kubernetes.azure.com/mode": pool.mode.lower(),
        "kubernetes.azure.com/node-image-version": pool.image,
        "kubernetes.azure.com/os-sku": "Ubuntu",
        "kubernetes.azure.com/role": "agent",
        "kubernetes.azure.com/storageprofile": "managed",
    }
    if pool.spot:
        labels["kubernetes.azure.com/scalesetpriority"] = "spot"
    return [f"{name}={value}" for name, value in labels.items()]


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    path.chmod(mode)
