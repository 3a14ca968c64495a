"""Evidence made by hand, for tests of what is thought about it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from shared.controls import plain_path
from shared.kubelet import config_paths
from shared.models import Evidence, File
from shared.systemd import start_command

UNIT = "/etc/systemd/system/kubelet.service"
ENVIRONMENT = "/etc/default/kubelet"
CONFIG = "/etc/default/kubeletconfig.json"
STARTED = 1_000_000.0

AKS_UNIT = (
    "[Service]\nEnvironmentFile=/etc/default/kubelet\n"
    'Environment="KUBELET_CONFIG_FILE_FLAGS=--config /etc/default/kubeletconfig.json"\n'
    "ExecStart=/opt/bin/kubelet --enable-server $KUBELET_CONFIG_FILE_FLAGS $KUBELET_FLAGS\n"
)


def file(path: str, text: str, changed: int = 0) -> File:
    """A file as evidence has it, with nothing masked."""
    raw = text.encode("utf-8", "surrogateescape")
    return File(path, text, 0o600, 0, 0, len(raw), changed, hashlib.sha256(raw).hexdigest(), True)


def quoted(argument: str) -> str:
    """An argument as a systemd unit writes it, whatever is in it."""
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + escaped.replace("%", "%%").replace("$", "$$") + '"'


def config(**settings: object) -> str:
    """A kubelet config file in JSON."""
    import json

    head = {"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"}
    return json.dumps({**head, **settings}, indent=4)


def evidence(
    flags: str = "--v=2",
    config_text: str | None = None,
    unit: str = AKS_UNIT,
    files: Mapping[str, str] | None = None,
    argv: Sequence[str] | None = None,
) -> Evidence:
    """A running AKS node: its process is what its files say, unless `argv` says otherwise."""
    texts = {UNIT: unit, ENVIRONMENT: f"KUBELET_FLAGS={flags}\n", CONFIG: config_text or config(), **(files or {})}
    if argv is None:
        argv = [argument.text for argument in start_command(UNIT, (), texts).argv]
    return Evidence(
        collected=int(STARTED) + 3600,
        pid=4242,
        argv=tuple(argv),
        started=STARTED,
        load_state="loaded",
        active_state="active",
        sub_state="running",
        restarts=0,
        healthz="ok",
        units=(UNIT,),
        environments=(ENVIRONMENT,),
        files={path: file(path, text) for path, text in texts.items()},
        directories=dict.fromkeys(_directories(argv), 0),
    )


def _directories(argv: Sequence[str]) -> list[str]:
    named = config_paths(argv).config_dir
    return [plain_path(named)] if named else []


def edited(seen: Evidence, path: str, text: str) -> Evidence:
    """The same node after a file was changed and nothing restarted."""
    return replace(seen, files={**seen.files, path: file(path, text, changed=int(STARTED) + 600)})
