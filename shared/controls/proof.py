"""What the running kubelet is proved to have read (pure).

A kubelet reads its configuration once, when it starts. A file is what it read where nothing on the file's way has
changed since: neither the file's inode, nor a link, nor a directory, nor a mount. Change times (ctime) tell that; they
cannot be set back. They are by the wall clock and the start is not, so that a clock which was set since counts against
the proof. The kernel's coarse clock, from which change times come, is behind the fine one by a tick: 10 ms at 100 Hz,
doubled for good measure.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Collection, Iterator, Mapping

from shared.controls.inputs import Inputs
from shared.controls.paths import way
from shared.models import Evidence, Mount, Process
from shared.systemd import ServiceRules

_COARSE_CLOCK = 20_000_000
_SECOND = 1_000_000_000

# What node images mount by themselves: mount point, kinds of file system, and the part of it that is mounted. Sources:
# Azure/AgentBaker (bind-mount.sh, format-mount-nvme-root.sh), Flatcar and Azure Container Linux (/usr read-only, an
# overlay on /etc), systemd (the API file systems).
_DISKS = frozenset({"ext4", "xfs", "btrfs"})
_USUAL: Mapping[str, tuple[Collection[str], Collection[str]]] = {
    "/usr": (_DISKS | {"erofs", "squashfs"}, {"/"}),
    "/etc": ({"overlay"}, {"/"}),
    "/mnt": (_DISKS, {"/"}),
    "/mnt/aks": (_DISKS, {"/"}),
    "/var/lib/kubelet": (_DISKS, {"/", "/aks", "/aks/kubelet", "/kubelet"}),
    "/run": ({"tmpfs"}, {"/"}),
}

# What systemd-confext and systemd-sysext call the overlays that they lay over /etc and /usr, at any time.
_MERGED = ("confext", "sysext")


def clock_step(evidence: Evidence) -> int | None:
    """By how many nanoseconds the wall clock was set since the kubelet's start; None where that is not known."""
    process = evidence.process
    if process is None or process.started is None or process.started_monotonic is None or evidence.uptime <= 0:
        return None
    return (evidence.collected - evidence.uptime) - (process.started - process.started_monotonic)


def doubt(evidence: Evidence, process: Process, read: Inputs, rules: ServiceRules | None) -> str:
    """Why these files may not be what the process read; '' where they are proved to be.

    `rules` are those of the unit that started it (None: not known), whose own directives explain mounts.
    """
    if not read.paths and not read.directory:
        return ""
    step = clock_step(evidence)
    if step is None or process.started is None:
        return "when the kubelet was started is not known"
    limit = process.started - abs(step) - _COARSE_CLOCK
    since = "was changed after the kubelet started"
    if abs(step) > _SECOND:
        since = f"may have changed after the kubelet started (the clock was set by {abs(step) // _SECOND} s since)"
    return next(_doubts(evidence, read, rules, limit, since), "")


def _doubts(evidence: Evidence, read: Inputs, rules: ServiceRules | None, limit: int, since: str) -> Iterator[str]:
    for path in read.paths:
        if evidence.files[path].changed >= limit:
            yield f"{path} {since}"
        if rules is not None and has_own_root(rules) and evidence.files[path].hosted:
            yield f"the unit gives the kubelet a root directory of its own, and {path} is the host's"
        yield from _way_doubts(evidence, path, rules, limit, since)
    listing = evidence.listings[read.directory] if read.directory else None
    if listing is not None:
        for directory in listing.directories:
            place = way(f"{directory}/", evidence.links).end
            if place is None or evidence.directories.get(place, limit) >= limit:
                yield f"the directory {directory} {since}"
        for directory in (read.directory, *(f"{directory}/" for directory in listing.directories)):
            yield from _way_doubts(evidence, directory, rules, limit, since)


def has_own_root(rules: ServiceRules) -> bool:
    """Whether the unit starts its process in another root directory than the host's."""
    return rules.root_directory not in ("", "/") or bool(rules.root_image)


def _way_doubts(evidence: Evidence, path: str, rules: ServiceRules | None, limit: int, since: str) -> Iterator[str]:
    met = way(path, evidence.links)
    if met.end is None:
        yield f"{path} leads over more links than the kernel follows"
        return
    for link in met.links:
        if evidence.links[link].changed >= limit:
            yield f"the link {link} on the way to {path} {since}"
    for directory in met.directories:
        if replaced(evidence.directories, directory, limit):
            yield f"the directory {directory} on the way to {path} {since}"
    places = {*met.directories, met.end}
    meant = places & {way(point, evidence.links).end for point in (rules.mounted if rules is not None else ())}
    there = [mount for mount in evidence.mounts if mount.point in places]
    usual: set[str] = set()
    for mount in there:
        if mount.same or mount.point in meant:
            continue
        if not _usual(mount) or mount.point in usual:
            yield f"a mount at {mount.point} on the way to {path} is neither the unit's nor the image's"
        usual.add(mount.point)
    if max((len(point) for point in meant if point), default=0) > max((len(mount.point) for mount in there), default=0):
        yield f"the unit mounts something on the way to {path}, and the process has no such mount"


def replaced(directories: Mapping[str, int], directory: str, limit: int) -> bool:
    """Whether another directory may have been put here since: that changes its own time and its parent's.

    What is put into a directory changes its own time only. `/` has no parent, and is always the same.
    """
    parent = posixpath.dirname(directory)
    return directories.get(directory, limit) >= limit and directories.get(parent, limit) >= limit


def _usual(mount: Mount) -> bool:
    kinds, roots = _USUAL.get(mount.point, ((), ()))
    return mount.kind in kinds and mount.root in roots and mount.source not in _MERGED


def fingerprint(evidence: Evidence, process: Process, read: Inputs) -> str:
    """Names this process and the content of all that it would read now (SHA-256); '' where the process has no name.

    Where an earlier look proved that this process read this content, it still is what it has, whatever was done to the
    files' metadata since.
    """
    if not process.boot_id or process.pid <= 0 or process.ticks <= 0:
        return ""
    told = [
        [process.boot_id, process.pid, process.ticks, process.version],
        list(process.argv),
        [[path, evidence.files[path].digest] for path in read.paths],
        read.directory,
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
