"""A node whose /etc and /var/lib are on ext4, and what is on its disks after a power cut.

The disks are files, mounted by loop devices. A power cut is a copy of these files at one moment: what the file system
had written out by then, and nothing of what was still in memory. The next boot replays the file system's journal, as
on a machine.

The machine itself makes the copies (`CUT_SCRIPT`), over again until one equals the disk: then no write fell in between.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import nspawn
from tests.support.nspawn import Machine
from tests.support.require import require

MOUNTED = {"etc": "/etc", "lib": "/var/lib"}
"""Directory on a disk, and where the machine has it."""
SIZE = 24 * 1024 * 1024
CUTS = "/run/cuts"
"""Where the machine sees the directory with the disks' files, and may write copies of them."""

CUT_SCRIPT = f"""
cut() {{ # cut NAME: the disks as they would be after a power cut now
    /usr/bin/mkdir -p "{CUTS}/$1.cut"
    for disk in "{CUTS}"/*.disk; do
        copy=$disk
        copy="{CUTS}/$1.cut/${{copy##*/}}"
        /usr/bin/cp --sparse=always "$disk" "$copy"
        until /usr/bin/cmp -s "$disk" "$copy"; do /usr/bin/cp --sparse=always "$disk" "$copy"; done
    done
}}
"""
_MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
    *("getty.target", "systemd-logind.service", "e2scrub_reap.service", "systemd-random-seed.service"),
    *("systemd-update-utmp.service", "systemd-journal-catalog-update.service", "systemd-hwdb-update.service"),
)


@dataclass(frozen=True, slots=True)
class Disks:
    """Disk files (`NAME.disk`) in one directory. `layout` says which directories of MOUNTED each one holds."""

    directory: Path
    layout: Mapping[str, Sequence[str]]

    def cuts(self) -> list[Path]:
        """The copies so far, by name: directories of disk files."""
        return sorted(self.directory.glob("*.cut"))

    def at(self, cut: Path) -> Disks:
        """The disks as a cut left them."""
        return Disks(cut, self.layout)

    def digest(self) -> str:
        """Equal where all disks are, byte for byte."""
        digest = hashlib.sha256()
        for name in self.layout:
            with (self.directory / f"{name}.disk").open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def copied(self, directory: Path) -> Disks:
        """A copy of its own, to be written to."""
        directory.mkdir(parents=True)
        for name in self.layout:
            source, target = self.directory / f"{name}.disk", directory / f"{name}.disk"
            subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)
        return Disks(directory, self.layout)


def make_disks(directory: Path, layout: Mapping[str, Sequence[str]]) -> Disks:
    """New disks with what the cached root file system has in these directories."""
    for tool in ("mkfs.ext4", "losetup", "mount"):
        require(shutil.which(tool) is not None, f"the power cuts need {tool}")
    root = nspawn.root_filesystem()
    directory.mkdir(parents=True, exist_ok=True)
    for name in layout:
        _format(directory / f"{name}.disk")
    disks = Disks(directory, layout)
    with mounted(disks) as at:
        for parts in layout.values():
            for part in parts:
                source = root / MOUNTED[part].lstrip("/")
                at[part].mkdir()
                exclude = [f"--exclude=./{name}" for name in ("dpkg", "apt", "systemd/catalog", "ssl/certs")]
                pack = subprocess.Popen(["tar", "-c", *exclude, "-C", str(source), "."], stdout=subprocess.PIPE)
                subprocess.run(["tar", "-x", "-C", str(at[part])], stdin=pack.stdout, check=True)
                assert pack.wait() == 0
        (at["etc"] / "machine-id").write_text(f"{uuid.UUID(int=1).hex}\n")  # else each boot is a first boot
        units = at["etc"] / "systemd/system"
        for unit in _MASKED:
            (units / unit).unlink(missing_ok=True)
            (units / unit).symlink_to("/dev/null")
    return disks


@contextmanager
def ext4(directory: Path) -> Iterator[Path]:
    """A directory on a small ext4 of its own, in a file beside it."""
    require(shutil.which("mkfs.ext4") is not None and os.geteuid() == 0, "an ext4 of its own needs mkfs.ext4 and root")
    image, top = directory / "ext4.disk", directory / "ext4"
    _format(image)
    top.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(top)], check=True)
    try:
        yield top
    finally:
        _unmount(top)


@contextmanager
def mounted(disks: Disks) -> Iterator[dict[str, Path]]:
    """The disks mounted on this machine; where each directory of MOUNTED is.

    commit=300: nothing is written out but what is asked for, or the machine would have some luck every 5 s.
    """
    with ExitStack() as cleanup:
        found: dict[str, Path] = {}
        for name, parts in disks.layout.items():
            top = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="kubelet-guard-disk-")))
            options = "loop,noatime,data=ordered,commit=300"
            subprocess.run(["mount", "-o", options, str(disks.directory / f"{name}.disk"), str(top)], check=True)
            cleanup.callback(_unmount, top)
            found |= {part: top / part for part in parts}
        yield found


@contextmanager
def boot(disks: Disks, files: Mapping[Path, str]) -> Iterator[Machine]:
    """Boot a machine from these disks, and stop it as a power cut does. `files`: shown in it read-only.

    All else of its file system is the cached root, and forgotten.
    """
    with mounted(disks) as at:
        options = ["--timezone=off", "--resolv-conf=off", "--link-journal=no", f"--bind={disks.directory}:{CUTS}"]
        options += [f"--bind={at[part]}:{there}" for part, there in MOUNTED.items()]
        with nspawn.boot(hostname="node", binds=files, options=options) as machine:
            yield machine


def _format(image: Path) -> None:
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0", str(image)], check=True)


def _unmount(top: Path) -> None:
    deadline = time.monotonic() + 10
    while subprocess.run(["umount", str(top)], check=False, capture_output=True).returncode != 0:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{top} cannot be unmounted")
        time.sleep(0.05)  # the machine's last processes are still ending
