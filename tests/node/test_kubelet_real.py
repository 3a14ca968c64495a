"""Verdicts on real kubelets, held against what each says of itself (configz): no pass and no fail may contradict it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.controls import Verdict, control, judge
from shared.models import Status
from tests.support.kubelet import RealNode, State, collect, kubelet_binaries, real_node, require_kubelet, version_of
from tests.support.nspawn import CONFIG_PATH, DROPIN_DIRECTORY, KUBELET_PATH

_HEAD = '{"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"'
RIGHT = f'{_HEAD}, "makeIPTablesUtilChains": true}}'
WRONG = f'{_HEAD}, "makeIPTablesUtilChains": false}}'
CONFIG_DIR = "/etc/kubernetes/kubelet.conf.d"
WITH_CONFIG_DIR = f"{KUBELET_PATH} --config={CONFIG_PATH} --config-dir={CONFIG_DIR} $KUBELET_FLAGS"
WRONG_FLAG = "--make-iptables-util-chains=false"
PASS, FAIL, ERROR = Status.PASS, Status.FAIL, Status.ERROR

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
    "config-dir-is-a-link-with-a-slash": (
        State(
            {CONFIG_PATH: RIGHT, "/opt/conf.d/10-a.conf": WRONG},
            {CONFIG_DIR: "../../opt/conf.d"},
            exec_start=WITH_CONFIG_DIR.replace(CONFIG_DIR, f"{CONFIG_DIR}/"),
        ),
        False,
        {FAIL},
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
    "no-find-on-the-node": (
        State(
            {CONFIG_PATH: RIGHT, f"{CONFIG_DIR}/10-a.conf": WRONG},
            exec_start=WITH_CONFIG_DIR,
            missing_tools=("find",),
        ),
        False,
        {FAIL, ERROR},
    ),
    "working-directory-and-a-decoy": (
        State(
            {CONFIG_PATH: WRONG, "/kubeletconfig.json": RIGHT},
            exec_start=f"{KUBELET_PATH} --config=kubeletconfig.json",
            service_section="WorkingDirectory=/etc/default",
        ),
        False,
        {FAIL, ERROR},
    ),
    "bind-read-only-path": (
        State(
            {CONFIG_PATH: RIGHT, "/opt/real.json": WRONG},
            service_section=f"BindReadOnlyPaths=/opt/real.json:{CONFIG_PATH}",
        ),
        False,
        {FAIL, ERROR},
    ),
    "root-directory": (
        State(
            {CONFIG_PATH: RIGHT, f"/opt/root{CONFIG_PATH}": WRONG},
            service_section="RootDirectory=/opt/root",
        ),
        False,
        {FAIL, ERROR},
    ),
    "protect-system": (State({CONFIG_PATH: RIGHT}, service_section="ProtectSystem=true"), True, {PASS}),
    "wrapper-script": (
        State(
            {
                CONFIG_PATH: RIGHT,
                "/opt/bin/start-kubelet.sh": f"#!/bin/sh\nexec {KUBELET_PATH} --config={CONFIG_PATH}\n",
            },
            exec_start="/opt/bin/start-kubelet.sh",
        ),
        True,
        {PASS},
    ),
    "wrapper-script-adds-the-wrong-flag": (
        State(
            {
                CONFIG_PATH: RIGHT,
                "/opt/bin/start-kubelet.sh": f"#!/bin/sh\nexec {KUBELET_PATH} --config={CONFIG_PATH} {WRONG_FLAG}\n",
            },
            exec_start="/opt/bin/start-kubelet.sh",
        ),
        False,
        {FAIL},
    ),
    "nice-before-the-kubelet": (
        State({CONFIG_PATH: RIGHT}, exec_start=f"/usr/bin/nice -n -5 {KUBELET_PATH} --config={CONFIG_PATH}"),
        True,
        {PASS},
    ),
    "manager-environment": (
        State(
            {CONFIG_PATH: WRONG},
            environment=None,
            manager_environment={"KUBELET_FLAGS": "--make-iptables-util-chains=true"},
        ),
        True,
        {PASS, ERROR},
    ),
    "kubelet-with-its-version-in-its-name": (
        State(
            {CONFIG_PATH: WRONG},
            exec_start=f"{KUBELET_PATH}-1.33.5 --config={CONFIG_PATH}",
            before=(f"cp {KUBELET_PATH} {KUBELET_PATH}-1.33.5",),
        ),
        False,
        {FAIL},
    ),
    "latin-1-comment-in-the-environment-file": (
        State({CONFIG_PATH: RIGHT}, environment="# M\udcfcller\nKUBELET_FLAGS=--v=2\n"),
        True,
        {PASS},
    ),
    "latin-1-value-in-the-config": (
        State({CONFIG_PATH: f'{_HEAD}, "providerID": "M\udcfcller", "makeIPTablesUtilChains": false}}'}),
        False,
        {FAIL},
    ),
    "masked-drop-in-of-the-unit": (
        State(
            {
                CONFIG_PATH: RIGHT,
                "/usr/lib/systemd/system/kubelet.service.d/90-team.conf": (
                    f"[Service]\nEnvironment=KUBELET_FLAGS={WRONG_FLAG}\n"
                ),
            },
            {f"{DROPIN_DIRECTORY}/90-team.conf": "/dev/null"},
        ),
        True,
        {PASS},
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
    "link-moved": (
        State(
            {"/opt/cfg/a.json": WRONG, "/opt/cfg/b.json": RIGHT},
            {CONFIG_PATH: "../../opt/cfg/a.json"},
            after=(f"ln -sfn ../../opt/cfg/b.json {CONFIG_PATH}",),
        ),
        False,
        {FAIL, ERROR},
    ),
    "directory-link-moved": (
        State(
            {"/opt/v1/kubeletconfig.json": WRONG, "/opt/v2/kubeletconfig.json": RIGHT},
            {"/opt/current": "v1", CONFIG_PATH: "../../opt/current/kubeletconfig.json"},
            after=("ln -sfn v2 /opt/current",),
        ),
        False,
        {FAIL, ERROR},
    ),
    "directory-replaced": (
        State(
            {CONFIG_PATH: WRONG, "/etc/default.new/kubeletconfig.json": RIGHT},
            before=("cp /etc/default/kubelet /etc/default.new/kubelet",),
            after=("mv /etc/default /etc/default.old", "mv /etc/default.new /etc/default"),
        ),
        False,
        {FAIL, ERROR},
    ),
    "drop-in-target-removed": (
        State(
            {CONFIG_PATH: RIGHT, "/opt/x.conf": WRONG},
            {f"{CONFIG_DIR}/10-a.conf": "../../../opt/x.conf"},
            exec_start=WITH_CONFIG_DIR,
            after=("rm /opt/x.conf",),
        ),
        False,
        {FAIL, ERROR},
    ),
    "mounted-over": (
        State({CONFIG_PATH: WRONG, "/opt/old.json": RIGHT}, after=(f"mount --bind /opt/old.json {CONFIG_PATH}",)),
        False,
        {FAIL, ERROR},
    ),
    "mode-changed": (State({CONFIG_PATH: RIGHT}, after=(f"chmod 600 {CONFIG_PATH}",)), True, {PASS, ERROR}),
    "hard-link-made": (
        State({CONFIG_PATH: RIGHT}, after=(f"ln {CONFIG_PATH} /etc/default/backup.json",)),
        True,
        {PASS, ERROR},
    ),
    "readme-put-into-the-config-dir": (
        State(
            {CONFIG_PATH: RIGHT, f"{CONFIG_DIR}/10-a.conf": RIGHT},
            exec_start=WITH_CONFIG_DIR,
            after=(f"echo see the wiki > {CONFIG_DIR}/README",),
        ),
        True,
        {PASS, ERROR},
    ),
    "frozen": (State({CONFIG_PATH: RIGHT}, after=("kill -STOP $PID",)), True, {ERROR}),
    "condition-false-since-the-start": (
        State(
            {CONFIG_PATH: WRONG},
            unit_section="ConditionPathExists=/etc/default/there",
            start_only=("/etc/default/there",),
        ),
        False,
        {FAIL},
    ),
    "refuses-to-be-stopped": (State({CONFIG_PATH: WRONG}, unit_section="RefuseManualStop=yes"), False, {FAIL}),
}


def verdict_on(node: RealNode) -> Verdict:
    """What the product says of the node, by the commands that it would send."""
    seen, _ = collect(node)
    return judge(control("3.2.6"), seen)


@pytest.fixture(params=kubelet_binaries() or [None], ids=lambda path: version_of(path) if path else "none")
def node(request: pytest.FixtureRequest) -> Iterator[RealNode]:
    require_kubelet()
    with real_node(request.param) as booted:
        yield booted


@pytest.mark.parametrize("name", STATES)
def test_a_verdict_is_what_the_kubelet_says_of_itself(node: RealNode, name: str) -> None:
    state, running, allowed = STATES[name]
    effective = node.enter(state)
    # Of a field that is false the answer says so; the field is never left out.
    assert effective["makeIPTablesUtilChains"] is running, "the state is not what the test takes it for"
    found = verdict_on(node)
    assert found.status in allowed, found
    assert found.actual in (running, None), f"configz says {running}: {found}"
    if found.status is Status.PASS:
        assert running, found
    if found.status is Status.FAIL and running:
        assert found.code == "wrong_after_restart", found
