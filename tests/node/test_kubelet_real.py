"""Verdicts on real kubelets, held against what each says of itself (configz): no pass and no fail may contradict it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from pathlib import Path

import pytest

from shared.controls import Verdict, control, judge
from shared.models import Status
from shared.node.fixing import ApplyOutcome, Report, apply_script, file_edit, parse_report, undo_script
from shared.runs.model.plans import plan_node
from tests.support.findings import node as an_azure_node
from tests.support.kubelet import RealNode, RealNodes, State, collect, kubelet_binaries, require_kubelet, version_of
from tests.support.node_cases import read_cases
from tests.support.nspawn import CONFIG_PATH, KUBELET_PATH

_HEAD = '{"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"'
RIGHT = f'{_HEAD}, "makeIPTablesUtilChains": true}}'
WRONG = f'{_HEAD}, "makeIPTablesUtilChains": false}}'
CONFIG_DIR = "/etc/kubernetes/kubelet.conf.d"
WITH_CONFIG_DIR = f"{KUBELET_PATH} --config={CONFIG_PATH} --config-dir={CONFIG_DIR} $KUBELET_FLAGS"
NONCE = "0123456789abcdef"
WRONG_FLAG = "--make-iptables-util-chains=false"
PASS, FAIL, ERROR = Status.PASS, Status.FAIL, Status.ERROR

RULE = control("3.2.6")
CASES = {case.name: case for case in read_cases(Path(__file__).with_name("nodes.yaml"))}

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


# On kubelets between the newest, which logs what it runs with, and the oldest, which does not.
FEW = ("config-wrong", "wrong-flag-over-config", "drop-ins-in-order", "changed-at-once", "changed-to-wrong")


def _on_kubelets(names: Iterable[str], *, few: Container[str] = ()) -> pytest.MarkDecorator:
    """A test of these names: on the newest kubelet always, on the oldest when slow, on others `few` of them."""
    found = sorted(kubelet_binaries(), key=lambda path: [int(part) for part in version_of(path).split(".")])
    pairs: list[object] = [
        pytest.param(path, name, id=f"{version_of(path)}-{name}", marks=[] if path == found[-1] else [pytest.mark.slow])
        for path in reversed(found)
        for name in names
        if path in (found[-1], found[0]) or name in few
    ]
    pairs = pairs or [pytest.param(None, name, id=f"none-{name}") for name in names]
    return pytest.mark.parametrize(("node", "name"), pairs, indirect=["node"])


@pytest.fixture(scope="module")
def nodes() -> Iterator[RealNodes]:
    booted = RealNodes()
    yield booted
    booted.close()


@pytest.fixture
def node(nodes: RealNodes, request: pytest.FixtureRequest) -> RealNode:
    require_kubelet()
    return nodes.fresh(request.param)


@_on_kubelets(STATES, few=FEW)
def test_a_verdict_is_what_the_kubelet_says_of_itself(node: RealNode, name: str) -> None:
    state, running, allowed = STATES[name]
    assert node.enter(state)["makeIPTablesUtilChains"] is running, "the state is not what the test takes it for"
    seen, _ = collect(node)
    found = judge(RULE, seen)
    assert found.status in allowed, found
    agrees(found, running)


@_on_kubelets(CASES)
def test_the_cases(node: RealNode, name: str) -> None:
    case = CASES[name]
    if case.process_version and node.version.rpartition(".")[0] not in ("1.33", "1.34"):
        pytest.skip("the flag is one of older kubelets")
    if case.on_disk_only:
        node.lay_out(case.state)
    else:
        assert node.enter(case.state)["makeIPTablesUtilChains"] is case.running, "the case is not what it is taken for"
    seen, sent = collect(node)
    found = judge(RULE, seen, case.pool_version or None)
    assert found.status in case.may, found
    agrees(found, case.running)
    plan = plan_node(an_azure_node(1), (RULE.id,), seen, "auto") if found.status is Status.FAIL else None
    if case.planned is not None:
        assert bool(plan and not plan.refused) is case.planned, plan
    told = f"{sent}{seen}{found}{plan}"
    assert not [words for words in case.must_not_say if words in found.reason], found
    assert not [secret for secret in case.must_not_leave if secret in told]


def agrees(found: Verdict, running: bool) -> None:
    """No verdict contradicts the running process."""
    assert found.actual in (running, None), f"configz says {running}: {found}"
    if found.status is Status.PASS:
        assert running, found
    if found.status is Status.FAIL and running:
        assert found.code == "wrong_after_restart", found


FIXED = {
    "config file": State({CONFIG_PATH: WRONG}),
    "flag": State({CONFIG_PATH: RIGHT}, environment=f"KUBELET_FLAGS={WRONG_FLAG}\n"),
    "drop-in": State({CONFIG_PATH: RIGHT, f"{CONFIG_DIR}/10-a.conf": WRONG}, exec_start=WITH_CONFIG_DIR),
}


@_on_kubelets(FIXED, few=FIXED)
def test_a_fix_and_its_undoing(node: RealNode, name: str) -> None:
    """From evidence to evidence: what is planned is applied, proved by a fresh look, said by configz; and undone."""
    node.enter(FIXED[name])
    plan = plan_node(an_azure_node(1), (RULE.id,), collect(node)[0], "auto")
    script = apply_script(
        plan.edits,
        present=plan.present,
        absent=plan.absent,
        settle_seconds=1,
        limit_seconds=30,
        nonce=NONCE,
        healthz=plan.healthz,
    )
    applied = apply(node, script)
    assert applied.outcome is ApplyOutcome.APPLIED, applied
    node.wait_until_well()
    found = judge(RULE, collect(node)[0])
    assert (found.status, node.configz()["makeIPTablesUtilChains"]) == (Status.PASS, True), found

    again = apply(node, script)
    assert again.outcome is ApplyOutcome.CHANGED_MEANWHILE, "fixing twice changes nothing the second time"

    undone = apply(node, undo_script(applied.backup_id, settle_seconds=1, limit_seconds=30, nonce=NONCE))
    assert undone.outcome is ApplyOutcome.APPLIED, undone
    node.wait_until_well()
    found = judge(RULE, collect(node)[0])
    assert (found.status, node.configz()["makeIPTablesUtilChains"]) == (Status.FAIL, False), found


@_on_kubelets(["refused"], few=["refused"])
def test_a_change_that_the_kubelet_refuses_is_rolled_back(node: RealNode, name: str) -> None:
    node.enter(State({CONFIG_PATH: RIGHT}))
    seen, _ = collect(node)
    edit = file_edit(seen.files[CONFIG_PATH], RIGHT.replace("true", '"true"'))
    report = apply(node, apply_script([edit], present=[], absent=[], settle_seconds=1, limit_seconds=30, nonce=NONCE))
    assert report.outcome is ApplyOutcome.ROLLED_BACK, report
    assert "cannot unmarshal string" in report.reason, "the kubelet's own last word"
    node.wait_until_well()
    found = judge(RULE, collect(node)[0])
    assert (found.status, node.configz()["makeIPTablesUtilChains"]) == (Status.PASS, True), found


def apply(node: RealNode, script: str) -> Report:
    """Run a script that changes the node; what it says that it did."""
    done = node.machine.execute(["/bin/sh", "-s"], stdin=script.encode(), timeout=280)
    return parse_report(done.stderr.decode(), NONCE)
