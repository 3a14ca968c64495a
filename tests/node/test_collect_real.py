"""The collect script and the verdict on a real systemd: AKS's unit, drop-ins and environment file, a real /proc."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.controls import Verdict, control, judge
from shared.models import Condition, Evidence, Health, Status
from shared.node import evidence, frames
from tests.support import kubelet_standin
from tests.support.nspawn import (
    CONFIG,
    CONFIG_PATH,
    DROPIN_DIRECTORY,
    DROPINS,
    ENVIRONMENT,
    ENVIRONMENT_PATH,
    KUBELET_PATH,
    UNIT_PATH,
    Machine,
    NodeFile,
    boot,
    install_aks_node,
)

NONCE = "0123456789abcdef"
STANDIN = Path(kubelet_standin.__file__).read_text()
REPOSITORY = Path(__file__).parent.parent.parent
PLAIN = ENVIRONMENT.replace(" --make-iptables-util-chains=true", "")


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with boot(binds={REPOSITORY: kubelet_standin.REPOSITORY}) as booted:
        yield booted


def start(
    machine: Machine,
    env: str = PLAIN,
    config: str = CONFIG,
    dropins: dict[str, NodeFile] | None = None,
    *,
    log: str = "",
    starts: bool = True,
) -> None:
    """Lay out the node anew and, unless it is not to start, wait for its kubelet. `log` is what that logs first."""
    install_aks_node(machine, STANDIN, env=env, config=config, dropins={**DROPINS, **(dropins or {})})
    machine.write({"/opt/log": log})
    if not starts:
        return
    machine.check(["systemctl", "start", "kubelet.service"])
    for _ in range(600):
        if machine.run("curl -s -m 1 http://127.0.0.1:10248/healthz").stdout == "ok":
            return
        time.sleep(0.1)
    pytest.fail(machine.run("systemctl status kubelet").stdout)


def collect(machine: Machine) -> Evidence:
    parts: list[frames.Frame] = []
    while not parts or len(parts) < parts[0].parts:
        done = machine.run(frames.collect_script(len(parts) + 1, NONCE))
        assert len(done.stdout) <= 4096
        assert len(done.stderr) <= 4096
        parts += frames.parse_streams(done.stdout, done.stderr, NONCE)
    return evidence.read(frames.unpack(parts), parts[0].wall, parts[0].uptime)


def verdict(machine: Machine) -> Verdict:
    return judge(control("3.2.6"), collect(machine))


def test_what_a_real_node_shows(machine: Machine) -> None:
    start(machine)
    seen = collect(machine)
    assert seen.units[0] == UNIT_PATH
    assert [path.rsplit("/", 1)[1] for path in seen.units[1:]] == sorted(DROPINS)
    assert seen.environments == (ENVIRONMENT_PATH,)
    assert set(seen.files) == {*seen.units, ENVIRONMENT_PATH, CONFIG_PATH}
    assert (seen.load_state, seen.active_state, seen.sub_state) == ("loaded", "active", "running")
    assert (seen.restarts, seen.needs_daemon_reload, seen.refuses_manual) == (0, False, False)
    assert seen.health == (Health("127.0.0.1", 10248, "ok"),)
    assert seen.conditions == (Condition(f"ConditionPathExists={KUBELET_PATH}", holds=True),)
    assert seen.systemd_version is not None
    assert seen.systemd_version >= 252
    process = seen.process
    assert process is not None
    assert process.started is not None
    assert process.started_monotonic is not None
    assert abs(seen.collected - seen.uptime - process.started + process.started_monotonic) < 50_000_000
    assert process.started_monotonic < seen.uptime < process.started_monotonic + 30 * 10**9
    assert (process.version, process.state) == (f"v{kubelet_standin.VERSION}", "S")
    assert (process.root, process.directory, process.uid) == ("/", "/", 0)
    assert process.boot_id == machine.read("/proc/sys/kernel/random/boot_id").strip()
    assert abs(process.ticks / 100 - process.started_monotonic / 1e9) < 5
    real = machine.read_bytes(f"/proc/{process.pid}/cmdline").decode().split("\0")[:-1]
    assert [item for item in process.argv if "labels" not in item] == [item for item in real if "labels" not in item]
    assert {"/", "/etc", "/etc/default"} <= set(seen.directories)
    assert max(seen.directories[path] for path in ("/etc", "/etc/default")) < process.started
    assert seen.files[ENVIRONMENT_PATH].mode == 0o600
    found = verdict(machine)
    assert (found.status, found.actual, found.source) == (Status.PASS, True, f"{CONFIG_PATH}:9")


@pytest.mark.parametrize(
    ("env", "config", "dropins", "source"),
    [
        (PLAIN.replace("--max-pods", "--make-iptables-util-chains=0 --max-pods"), CONFIG, {}, "flag "),
        (PLAIN, CONFIG.replace('Chains": true', 'Chains": false'), {}, f"{CONFIG_PATH}:9"),
        (
            PLAIN,
            CONFIG,
            {
                "zz-team.conf": NodeFile(
                    '[Service]\nEnvironment="KUBELET_CGROUP_FLAGS=--make-iptables-util-chains=false"\n', 0o600
                )
            },
            "flag ",
        ),
    ],
)
def test_a_failing_node(machine: Machine, env: str, config: str, dropins: dict[str, NodeFile], source: str) -> None:
    start(machine, env, config, dropins)
    found = verdict(machine)
    assert (found.status, found.actual, found.restart_pending) == (Status.FAIL, False, False), found
    assert found.source.startswith(source)


def test_a_file_changed_since_the_start_proves_nothing(machine: Machine) -> None:
    start(machine, config=CONFIG.replace('Chains": true', 'Chains": false'))
    machine.write({CONFIG_PATH: NodeFile(CONFIG, 0o600)})
    found = verdict(machine)
    assert (found.status, found.code, found.actual) == (Status.ERROR, "unproved", None), found
    machine.check(["systemctl", "restart", "kubelet.service"])
    time.sleep(0.5)
    assert verdict(machine).status is Status.PASS


def test_a_dropin_that_waits_for_daemon_reload(machine: Machine) -> None:
    start(machine)
    time.sleep(1.1)
    text = '[Service]\nEnvironment="KUBELET_CGROUP_FLAGS=--make-iptables-util-chains=false"\n'
    machine.write({f"{DROPIN_DIRECTORY}/15-drift.conf": text})
    seen = collect(machine)
    assert seen.needs_daemon_reload
    assert f"{DROPIN_DIRECTORY}/15-drift.conf" in seen.units
    found = judge(control("3.2.6"), seen)
    assert (found.status, found.code, found.actual) == (Status.FAIL, "wrong_after_restart", True)


def test_a_kubelet_that_refuses_its_config(machine: Machine) -> None:
    broken = CONFIG.replace('Chains": true', 'Chains": 1')
    install_aks_node(machine, STANDIN, env=PLAIN, config=broken, dropins=DROPINS)
    machine.check(["systemctl", "start", "kubelet.service"])
    time.sleep(1.5)
    found = judge(control("3.2.6"), collect(machine), kubelet_standin.VERSION)
    assert (found.status, found.code) == (Status.ERROR, "kubelet_not_running")
    assert "refuses to start" in found.reason


def test_the_script_leaves_nothing_behind(machine: Machine) -> None:
    start(machine)
    listing = (
        "find / -xdev -newer /etc/default/kubelet ! -path '/proc/*' ! -path '/sys/*' ! -path '/run/*' -type f | sort"
    )
    before = machine.run(listing).stdout
    collect(machine)
    assert machine.run(listing).stdout == before


def with_lines(lines: str) -> dict[str, NodeFile]:
    return {"50-test.conf": NodeFile(f"[Service]\n{lines}\n")}


OTHER = CONFIG.replace('Chains": true', 'Chains": false')


def test_a_bind_mount_of_the_unit(machine: Machine) -> None:
    machine.write({"/opt/real.json": OTHER})
    start(machine, dropins=with_lines(f"BindReadOnlyPaths=/opt/real.json:{CONFIG_PATH}"))
    seen = collect(machine)
    file = seen.files[CONFIG_PATH]
    assert (file.text, file.hosted) == (OTHER, False)
    (mount,) = [mount for mount in seen.mounts if mount.point == CONFIG_PATH]
    assert (mount.root.endswith("/opt/real.json"), mount.same) == (True, False)


def test_a_bind_mount_after_the_start(machine: Machine) -> None:
    start(machine)
    machine.write({"/opt/old.json": OTHER})
    machine.check(["mount", "--bind", "/opt/old.json", CONFIG_PATH])
    try:
        seen = collect(machine)
    finally:
        machine.check(["umount", CONFIG_PATH])
    assert [mount.same for mount in seen.mounts if mount.point == CONFIG_PATH] == [False]


def test_a_directory_mounted_onto_itself_shows_the_same(machine: Machine) -> None:
    start(machine, dropins=with_lines("ReadOnlyPaths=/etc/default"))
    seen = collect(machine)
    assert [(mount.point, mount.same) for mount in seen.mounts] == [("/etc/default", True)]
    assert seen.files[CONFIG_PATH].hosted


def test_a_working_directory(machine: Machine) -> None:
    dropins = {
        **with_lines("WorkingDirectory=/etc/default"),
        "10-componentconfig.conf": NodeFile(
            '[Service]\nEnvironment="KUBELET_CONFIG_FILE_FLAGS=--config kubeletconfig.json"\n', 0o600
        ),
    }
    start(machine, dropins=dropins)
    seen = collect(machine)
    assert seen.process is not None
    assert seen.process.directory == "/etc/default"
    assert seen.files[CONFIG_PATH].text == CONFIG


def test_a_frozen_process(machine: Machine) -> None:
    start(machine)
    machine.check(["systemctl", "kill", "--signal=STOP", "kubelet.service"])
    try:
        seen = collect(machine)
    finally:
        machine.check(["systemctl", "kill", "--signal=CONT", "kubelet.service"])
    assert seen.process is not None
    assert (seen.process.state, seen.process.version) == ("T", f"v{kubelet_standin.VERSION}")
    assert seen.health == (Health("127.0.0.1", 10248, ""),)


def test_the_kubelets_own_log_in_the_journal(machine: Machine) -> None:
    lines = (
        'I1127 11:09:16.09 1 server.go:257] "Effective KubeletConfiguration" config=<',
        "\tapiVersion: kubelet.config.k8s.io/v1beta1",
        "\tkind: KubeletConfiguration",
        "\tmakeIPTablesUtilChains: true",
        "\tstaticPodURL: https://h/x?sig=s3cret",
        " >",
    )
    start(machine, dropins=with_lines("Environment=STANDIN_LOG=/opt/log"), log="\n".join(lines) + "\n")
    assert collect(machine).log == {"makeIPTablesUtilChains": "true"}
    start(machine, dropins=with_lines("Environment=STANDIN_LOG=/opt/log"), log="another process\n")
    assert collect(machine).log is None


def test_the_managers_environment(machine: Machine) -> None:
    machine.check(["systemctl", "set-environment", "KUBELET_CGROUP_FLAGS=--v=4 --max-pods='5'", "OTHER=s3cret"])
    try:
        start(machine)
        seen = collect(machine)
    finally:
        machine.check(["systemctl", "unset-environment", "KUBELET_CGROUP_FLAGS", "OTHER"])
    assert seen.manager_environment == {"KUBELET_CGROUP_FLAGS": "--v=4 --max-pods='5'"}


def test_conditions_that_systemd_looks_at(machine: Machine) -> None:
    dropins = {"50-c.conf": NodeFile("[Unit]\nConditionVirtualization=!vm\nAssertUser=root\nConditionUser=nobody\n")}
    start(machine, dropins=dropins, starts=False)
    held = {condition.text: condition.holds for condition in collect(machine).conditions}
    assert held["AssertUser=root"] is True
    assert held["ConditionUser=nobody"] is False
    assert held["ConditionVirtualization=!vm"] is True
