"""States of a node written down as YAML (tests/node/nodes.yaml), for booted nodes.

A case names the files, links and the unit that are there when the kubelet starts, what happens afterwards without a
restart (`after_start`), what the process has in effect (`running`) and what a verdict may say. A text that begins with
`bytes:`, and the key `bytes`, hold `\\xNN` escapes of bytes that are not UTF-8.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.kubelet import State
from tests.support.nspawn import KUBELET_PATH


@dataclass(frozen=True, slots=True)
class NodeCase:
    """A state, and what is right to say of it.

    `running` is the setting in effect, `may` the statuses that a verdict may have; `planned` says whether edits must be
    planned (True), may not be (False), or either. `process_version` is set where the kubelet is of a certain release,
    `pool_version` where its pool is said to be. `on_disk_only`: judged as a next start would read the files.
    """

    name: str
    state: State
    running: bool
    may: frozenset[str]
    planned: bool | None
    must_not_say: tuple[str, ...]
    must_not_leave: tuple[str, ...]
    process_version: str
    pool_version: str
    on_disk_only: bool


def read_cases(path: Path) -> list[NodeCase]:
    """The cases of a file."""
    content = yaml.safe_load(path.read_text("utf-8"))
    return [_case(case, content["defaults"]) for case in content["cases"]]


def _case(case: Mapping[str, Any], defaults: Mapping[str, Any]) -> NodeCase:
    version = case.get("version", {})
    return NodeCase(
        name=case["name"],
        state=_state(case, defaults),
        running=case["running"],
        may=frozenset(case["may"]),
        planned={"none": False, "edit": True}.get(case.get("plan", "")),
        must_not_say=tuple(case.get("must_not_say", ())),
        must_not_leave=tuple(case.get("must_not_leave", ())),
        process_version=version.get("process", ""),
        pool_version=version.get("pool", ""),
        on_disk_only=case.get("on_disk_only", False),
    )


def _state(case: Mapping[str, Any], defaults: Mapping[str, Any]) -> State:
    def named(path: str) -> str:
        return str(defaults["config"]) if path == "config" else path

    def text(value: str) -> str:
        return _bytes(str(defaults.get(value, value)))

    files = {named(path): text(value) for path, value in case.get("files", {}).items()}
    environment = case.get("environment", defaults["environment"])
    unit_section = case.get("unit_extra_unit", "")
    # What a condition wants has to be there for the start, and is not there any more when the verdict is made.
    wanted = re.findall(r"^(?:Condition|Assert)PathExists=(/\S+)$", unit_section, re.MULTILINE)
    given = environment if isinstance(environment, Mapping) else {}
    return State(
        files=files,
        links={named(path): target for path, target in case.get("links", {}).items()},
        exec_start=case.get("exec_start", defaults["exec_start"]),
        unit_section=unit_section,
        service_section=case.get("unit_extra", ""),
        environment=_bytes(f"bytes:{given['bytes']}" if "bytes" in given else given["text"]) if given else None,
        environment_path=given.get("path", defaults["environment"]["path"]),
        manager_environment=case.get("manager_environment", {}),
        start_only=tuple(path for path in wanted if path not in files and path != KUBELET_PATH),
        missing_tools=tuple(case.get("missing_tools", ())),
        before=tuple(f"cp {shlex.quote(of)} {shlex.quote(to)}" for to, of in case.get("copies", {}).items()),
        after=tuple(_command(step, named, text) for step in case.get("after_start", ())),
    )


def _bytes(text: str) -> str:
    r"""A text, its `\xNN` escapes as surrogates where it begins with `bytes:`."""
    if not text.startswith("bytes:"):
        return text
    raw = re.sub(rb"\\x([0-9a-fA-F]{2})", lambda found: bytes.fromhex(found[1].decode()), text[6:].encode())
    return raw.decode(errors="surrogateescape")


def _command(step: Mapping[str, Any], named: Any, text: Any) -> str:
    """A step of `after_start` as a shell command."""
    (kind, subject), *_ = step.items()
    path, to = shlex.quote(named(str(subject))), shlex.quote(named(str(step.get("to", ""))))
    match kind:
        case "wait":
            return f"sleep {float(subject)}"
        case "write":
            # In octal escapes: printf of any shell writes every byte so.
            octal = "".join(f"\\{byte:03o}" for byte in text(step["text"]).encode(errors="surrogateescape"))
            return f"mkdir -p -- $(dirname -- {path}) && printf '{octal}' > {path}"
        case "link":
            return f"ln -sfn -- {to} {path}"
        case "rename":
            return f"mv -T -- {path} {to}"
        case "remove":
            return f"rm -rf -- {path}"
        case "bind_mount":
            return f"mount --bind {path} {to}"
        case "hard_link":
            return f"ln -- {path} {to}"
        case "chmod":
            return f"chmod {step['mode']} {path}"
        case "touch":
            return f"touch -- {path}"
        case "signal":
            return f"kill -{subject} $PID"
    raise ValueError(f"a case has an unknown step: {step}")
