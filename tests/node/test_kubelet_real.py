"""Verdicts on real kubelets, held against what each says of itself (configz): no pass and no fail may contradict it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.controls import Verdict, control, judge
from shared.models import Status
from shared.node import evidence, frames
from tests.support.kubelet import RealNode, State, kubelet_binaries, real_node, require_kubelet, version_of
from tests.support.node_cases import NodeCase, read_cases
from tests.support.nspawn import CONFIG_PATH, KUBELET_PATH

_HEAD = '{"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"'
RIGHT = f'{_HEAD}, "makeIPTablesUtilChains": true}}'
WRONG = f'{_HEAD}, "makeIPTablesUtilChains": false}}'
CONFIG_DIR = "/etc/kubernetes/kubelet.conf.d"
WITH_CONFIG_DIR = f"{KUBELET_PATH} --config={CONFIG_PATH} --config-dir={CONFIG_DIR} $KUBELET_FLAGS"
WRONG_FLAG = "--make-iptables-util-chains=false"
NONCE = "0123456789abcdef"
PASS, FAIL, ERROR = Status.PASS, Status.FAIL, Status.ERROR

# Those of a process (the rest is about files alone), whatever its release.
CASES = [
    case
    for case in read_cases(Path(__file__).with_name("nodes.yaml"))
    if not case.on_disk_only and not case.process_version
]

# State, what the process has in effect, and the statuses that a verdict on it may have.
STATES: dict[str, tuple[State, bool, set[Status]]] = {
    # The files are what the process read.
    "config-right": (State({CONFIG_PATH: RIGHT}), True, {PASS}),
    "config-wrong": (State({CONFIG_PATH: WRONG}), False, {FAIL}),
    "config-silent": (State({CONFIG_PATH: f"{_HEAD}}}"}), True, {PASS}),
    "flag-over-config": (
        State({CONFIG_PATH: WRONG}, environment="KUBELET_FLAGS=--make-iptables-util-chains=1\n"),
        True,
        {PASS},
    ),
    "wrong-flag-over-config": (State({CONFIG_PATH: RIGHT}, environment=f"KUBELET_FLAGS={WRONG_FLAG}\n"), False, {FAIL}),
    "last-flag-wins": (
        State({CONFIG_PATH: RIGHT}, environment=f"KUBELET_FLAGS={WRONG_FLAG} --make-iptables-util-chains\n"),
        True,
        {PASS},
    ),
    "drop-ins-in-order": (
        State(
            {CONFIG_PATH: RIGHT, f"{CONFIG_DIR}/10-a.conf": RIGHT, f"{CONFIG_DIR}/9-z.conf": WRONG},
            exec_start=WITH_CONFIG_DIR,
        ),
        False,
        {FAIL},
    ),
    "drop-in-of-another-name": (
        State({CONFIG_PATH: RIGHT, f"{CONFIG_DIR}/10-a.yaml": WRONG}, exec_start=WITH_CONFIG_DIR),
        True,
        {PASS},
    ),
    "config-dir-is-a-link": (
        State(
            {CONFIG_PATH: RIGHT, "/opt/conf.d/10-a.conf": WRONG},
            {CONFIG_DIR: "../../opt/conf.d"},
            exec_start=WITH_CONFIG_DIR,
        ),
        True,
        {PASS, ERROR},
    ),
    "protect-system": (State({CONFIG_PATH: RIGHT}, service_section="ProtectSystem=true"), True, {PASS}),
    "kubelet-with-its-version-in-its-name": (
        State(
            {CONFIG_PATH: WRONG},
            exec_start=f"{KUBELET_PATH}-1.33.5 --config={CONFIG_PATH}",
            before=(f"cp {KUBELET_PATH} {KUBELET_PATH}-1.33.5",),
        ),
        False,
        {FAIL},
    ),
    # What happened since the start is not what the process read.
    "changed-at-once": (
        State({CONFIG_PATH: WRONG}, after=(f"printf %s {RIGHT!r} > {CONFIG_PATH}",)),
        False,
        {FAIL, ERROR},
    ),
    "changed-to-wrong": (
        State({CONFIG_PATH: RIGHT}, after=(f"printf %s {WRONG!r} > {CONFIG_PATH}",)),
        True,
        {FAIL, ERROR, PASS},
    ),
}


def look_at(node: RealNode) -> tuple[Verdict, bytes]:
    """What the product says of the node, by the commands that it would send, and all that the node sent."""
    parts: list[frames.Frame] = []
    while not parts or len(parts) < parts[0].parts:
        done = node.machine.execute(["/bin/sh", "-c", frames.collect_script(len(parts) + 1, NONCE)])
        assert done.returncode == 0, done.stderr
        parts += frames.parse_streams(done.stdout.decode(), done.stderr.decode(), NONCE)
    sent = frames.unpack(parts)
    return judge(control("3.2.6"), evidence.read(sent, parts[0].wall, parts[0].uptime), node.version), sent


@pytest.fixture(params=kubelet_binaries() or [None], ids=lambda path: version_of(path) if path else "none")
def node(request: pytest.FixtureRequest) -> Iterator[RealNode]:
    require_kubelet()
    with real_node(request.param) as booted:
        yield booted


@pytest.mark.parametrize("name", STATES)
def test_a_verdict_is_what_the_kubelet_says_of_itself(node: RealNode, name: str) -> None:
    state, running, allowed = STATES[name]
    assert node.enter(state)["makeIPTablesUtilChains"] is running, "the state is not what the test takes it for"
    found, _ = look_at(node)
    assert found.status in allowed, found
    agrees(found, running)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_cases(node: RealNode, case: NodeCase) -> None:
    assert node.enter(case.state)["makeIPTablesUtilChains"] is case.running, "the case is not what it is taken for"
    found, sent = look_at(node)
    assert found.status in case.may, found
    agrees(found, case.running)
    assert not [words for words in case.must_not_say if words in found.reason], found
    assert not [secret for secret in case.must_not_leave if secret.encode() in sent]


def agrees(found: Verdict, running: bool) -> None:
    """No verdict contradicts the running process."""
    assert found.actual in (running, None), f"configz says {running}: {found}"
    if found.status is Status.PASS:
        assert running, found
    if found.status is Status.FAIL and running:
        assert found.code == "wrong_after_restart", found
