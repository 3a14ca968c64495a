"""Nodes that went wrong in public reports and in attacks (cases.yaml): what a verdict and a plan may say of each.

Each case is a state of a booted node with a real kubelet, whose own word (configz) says what is right.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.controls import Verdict, control, judge
from shared.models import Evidence, Node, Status
from shared.node import frames
from shared.runs.plans import NodePlan, plan_node
from tests.support.findings import node as an_azure_node
from tests.support.kubelet import RealNode, State, collect, kubelet_binaries, real_node, require_kubelet, version_of

CASES_FILE = Path(__file__).with_name("cases.yaml")
_LOADED = yaml.safe_load(CASES_FILE.read_text("utf-8"))
DEFAULTS: dict[str, Any] = _LOADED["defaults"]
CASES: dict[str, dict[str, Any]] = {case["name"]: case for case in _LOADED["cases"]}


def place(name: str) -> str:
    """A path, which a case may name by its role."""
    return str(DEFAULTS[name]) if name in ("config", "unit") else name


def text(written: str) -> str:
    """A file's text: by its name under `defaults`, as escapes of bytes, or as it is."""
    if written in DEFAULTS:
        return str(DEFAULTS[written])
    return unescaped(written.removeprefix("bytes:")) if written.startswith("bytes:") else written


def unescaped(written: str) -> str:
    """A text with `\\xNN` for bytes that are not UTF-8."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(0xDC00 + int(found[1], 16)), written)


def command(step: Mapping[str, Any]) -> str:
    """The shell command for one thing that happens after the start."""
    to = shlex.quote(place(step["to"])) if "to" in step else ""
    match next(iter(step)):
        case "wait":
            return f"sleep {float(step['wait'])}"
        case "write":
            return f"printf %s {shlex.quote(text(step['text']))} > {shlex.quote(place(step['write']))}"
        case "link":
            return f"ln -sfn {shlex.quote(step['to'])} {shlex.quote(place(step['link']))}"
        case "rename":
            return f"mv {shlex.quote(place(step['rename']))} {to}"
        case "remove":
            return f"rm {shlex.quote(place(step['remove']))}"
        case "chmod":
            return f"chmod {step['mode']} {shlex.quote(place(step['chmod']))}"
        case "touch":
            return f"touch {shlex.quote(place(step['touch']))}"
        case "hard_link":
            return f"ln {shlex.quote(place(step['hard_link']))} {to}"
        case "bind_mount":
            return f"mount --bind {shlex.quote(step['bind_mount'])} {to}"
        case "signal":
            return f"kill -{step['signal']} $PID"
        case unknown:
            raise ValueError(f"the case does something unknown: {unknown}")


def state_of(case: Mapping[str, Any]) -> State:
    """A case as a state of a booted node."""
    environment = case.get("environment", DEFAULTS["environment"])
    named = isinstance(environment, dict)
    missing = re.findall(r"^Condition\w+=!?(\S+not-there)$", case.get("unit_extra_unit", ""), re.MULTILINE)
    missing += re.findall(r"^Assert\w+=!?(\S+not-there)$", case.get("unit_extra_unit", ""), re.MULTILINE)
    negated = "=!" in case.get("unit_extra_unit", "")
    return State(
        files={place(path): text(written) for path, written in case.get("files", {}).items()},
        links={place(path): target for path, target in case.get("links", {}).items()},
        exec_start=case.get("exec_start", DEFAULTS["exec_start"]),
        unit_section=case.get("unit_extra_unit", ""),
        service_section=case.get("unit_extra", ""),
        environment=unescaped(environment.get("bytes") or environment["text"]) if named else None,
        environment_path=environment["path"] if named else DEFAULTS["environment"]["path"],
        manager_environment=case.get("manager_environment", {}),
        # A unit whose condition is false now was started when it was true.
        start_only=() if negated else tuple(missing),
        missing_tools=tuple(case.get("missing_tools", ())),
        before=tuple(f"cp {shlex.quote(of)} {shlex.quote(to)}" for to, of in case.get("copies", {}).items()),
        after=tuple(command(step) for step in case.get("after_start", ())),
    )


def wanted_binaries(case: Mapping[str, Any]) -> list[Path]:
    """The kubelets that a case is run on: the newest that knows its flags."""
    found = sorted(kubelet_binaries(), key=lambda path: [int(part) for part in version_of(path).split(".")])
    older = [path for path in found if int(version_of(path).split(".")[1]) < 35]
    return older[-1:] if "--pod-infra-container-image" in str(case.get("exec_start")) else found[-2:]


@pytest.fixture
def booted(request: pytest.FixtureRequest) -> Iterator[RealNode]:
    require_kubelet()
    with real_node(request.param) as found:
        yield found


RUNS = [
    pytest.param(binary, name, id=f"{name}-{version_of(binary)}")
    for name, case in CASES.items()
    for binary in wanted_binaries(case)
] or [pytest.param(None, name, id=name) for name in CASES]


@pytest.mark.parametrize(("booted", "name"), RUNS, indirect=["booted"])
def test_case(booted: RealNode, name: str) -> None:
    case = CASES[name]
    state = state_of(case)
    if case.get("on_disk_only"):
        booted.lay_out(state)
    else:
        effective = booted.enter(state)
        assert effective["makeIPTablesUtilChains"] is case["running"], "the node is not in the state of the case"
    seen, sent = collect(booted)
    found = judge(control("3.2.6"), seen, case.get("version", {}).get("pool"))
    assert found.status in {Status(status) for status in case["may"]}, found
    if found.status is Status.PASS:
        assert case["running"], found
    for words in case.get("must_not_say", ()):
        assert words not in found.reason.lower()
    planned = planned_for(seen, found)
    if case.get("plan") == "none":
        assert planned is None or planned.refused, planned
    elif case.get("plan") == "edit":
        assert planned is not None
        assert planned.edits, planned
    told = [sent, repr(found), repr(planned), repr(seen)]
    for secret in case.get("must_not_leave", ()):
        assert not any(secret in words for words in told), secret


def planned_for(seen: Evidence, found: Verdict) -> NodePlan | None:
    """The plan that a run would make of it: only what fails is planned."""
    if found.status is not Status.FAIL:
        return None
    node: Node = an_azure_node(1)
    return plan_node(node, ("3.2.6",), seen, "auto")
