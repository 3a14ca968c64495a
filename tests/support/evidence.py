"""Evidence made by hand, for tests of what is thought about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from shared.controls.paths import absolute_directory, way
from shared.kubelet import config_paths
from shared.models import Evidence, File, Health, Link, Listing, Process
from shared.systemd import start_command

UNIT = "/etc/systemd/system/kubelet.service"
ENVIRONMENT = "/etc/default/kubelet"
CONFIG = "/etc/default/kubeletconfig.json"
CONFIG_DIR = "/etc/kubernetes/kubelet.conf.d"

SECOND = 1_000_000_000
STARTED = 1_800_000_000 * SECOND
"""When the kubelet was started; the node had booted 100 seconds before, and is looked at an hour later."""
BEFORE = STARTED - 60 * SECOND
AFTER = STARTED + 600 * SECOND

AKS_UNIT = (
    "[Service]\nEnvironmentFile=/etc/default/kubelet\n"
    'Environment="KUBELET_CONFIG_FILE_FLAGS=--config /etc/default/kubeletconfig.json"\n'
    "ExecStart=/opt/bin/kubelet --enable-server $KUBELET_CONFIG_FILE_FLAGS $KUBELET_FLAGS\n"
)
DROPIN_FLAGS = f"--config-dir={CONFIG_DIR}"


def file(path: str, text: str, changed: int = BEFORE) -> File:
    """A file as evidence has it, with nothing masked."""
    raw = text.encode("utf-8", "surrogateescape")
    return File(path, text, 0o600, 0, 0, len(raw), changed, hashlib.sha256(raw).hexdigest(), True)


def quoted(argument: str) -> str:
    """An argument as a systemd unit writes it, whatever is in it."""
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + escaped.replace("%", "%%").replace("$", "$$") + '"'


def config(**settings: object) -> str:
    """A kubelet config file in JSON."""
    head = {"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"}
    return json.dumps({**head, **settings}, indent=4)


def evidence(
    flags: str = "--v=2",
    config_text: str | None = None,
    unit: str = AKS_UNIT,
    files: Mapping[str, str] | None = None,
    argv: Sequence[str] | None = None,
    links: Mapping[str, str] | None = None,
    directory: str = "/",
) -> Evidence:
    """A running AKS node: its process is what its files say, unless `argv` says otherwise. `directory` is its own."""
    texts = {UNIT: unit, ENVIRONMENT: f"KUBELET_FLAGS={flags}\n", CONFIG: config_text or config(), **(files or {})}
    if argv is None:
        argv = [argument.text for argument in start_command(UNIT, (), texts).argv]
    made = Evidence(
        collected=STARTED + 3600 * SECOND,
        uptime=3700 * SECOND,
        process=Process(
            boot_id="5b4ad0a1-7d2b-4f2e-9f0d-3a2b1c0d9e8f",
            pid=4242,
            ticks=10_000,
            argv=tuple(argv),
            started=STARTED,
            started_monotonic=100 * SECOND,
            version="v1.36.3",
            executable="/opt/bin/kubelet",
            directory=directory,
        ),
        load_state="loaded",
        active_state="active",
        sub_state="running",
        restarts=0,
        health=(Health("127.0.0.1", 10248, "ok"),),
        units=(UNIT,),
        environments=(ENVIRONMENT,),
        files={path: file(path, text) for path, text in texts.items()},
        links={path: Link(target, BEFORE) for path, target in (links or {}).items()},
        listings=_listings(argv, texts, directory),
    )
    return replace(made, directories=dict.fromkeys(_directories(made), BEFORE))


def _listings(argv: Sequence[str], texts: Mapping[str, str], directory: str) -> dict[str, Listing | None]:
    named = config_paths(argv).config_dir
    if not named:
        return {}
    root = absolute_directory(named, directory)
    inside = sorted(path for path in texts if path.startswith(f"{root.rstrip('/')}/") and path.endswith(".conf"))
    return {root: Listing(tuple(inside), (root.rstrip("/"),))}


def _directories(seen: Evidence) -> set[str]:
    """Every directory on the way to the files."""
    walked = [f"{path}/" for listing in seen.listings.values() if listing for path in listing.directories]
    return {"/"}.union(*(way(path, seen.links).directories for path in (*seen.files, *walked)))


def edited(seen: Evidence, path: str, text: str) -> Evidence:
    """The same node after a file was written anew and nothing restarted."""
    return replace(seen, files={**seen.files, path: file(path, text, changed=AFTER)})


def touched(seen: Evidence, path: str, changed: int = AFTER) -> Evidence:
    """The same node after something else about the inode of a file, link or directory was changed."""
    if path in seen.links:
        return replace(seen, links={**seen.links, path: replace(seen.links[path], changed=changed)})
    if path in seen.files:
        return replace(seen, files={**seen.files, path: replace(seen.files[path], changed=changed)})
    assert path in seen.directories
    return replace(seen, directories={**seen.directories, path: changed})


def without(seen: Evidence, path: str, *, gone: bool = False) -> Evidence:
    """The same node, a file of which was not collected, or is gone."""
    left = {name: item for name, item in seen.files.items() if name != path}
    return replace(seen, files=left, gone=seen.gone | {path} if gone else seen.gone)


def process(seen: Evidence, **changes: Any) -> Evidence:
    """The same node with another process."""
    assert seen.process is not None
    return replace(seen, process=replace(seen.process, **changes))


def of_process(seen: Evidence) -> Process:
    """The kubelet's process."""
    assert seen.process is not None
    return seen.process
