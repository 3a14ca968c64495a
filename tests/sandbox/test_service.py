"""The service manager of a node, through the commands that a script calls."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox import node
from sandbox.fleet import members
from tests.support.fleets import fleet

CONFIG = "etc/default/kubeletconfig.json"
ENVIRONMENT = "etc/default/kubelet"
DROPINS = "etc/systemd/system/kubelet.service.d"


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Machine:
    """A node folder and a shell on it."""

    def __init__(self, folder: node.Folder) -> None:
        self.root = folder.root
        self._environment = dict(folder.environment())

    def sh(self, script: str) -> tuple[int, str, str]:
        """Exit status, stdout and stderr of a script."""
        done = subprocess.run(["/bin/sh", "-c", script], env=self._environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    def show(self, name: str) -> str:
        """One property of the kubelet's unit."""
        status, value, _ = self.sh(f"systemctl show kubelet -p {name} --value")
        assert status == 0
        return value.strip()

    def argv(self) -> list[str]:
        """The argument vector of the running kubelet."""
        return (self.root / f"proc/{self.show('MainPID')}/cmdline").read_text().split("\0")[:-1]

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text in a file, which must have it, by a rename."""
        file = self.root / path
        text = file.read_text()
        assert old in text
        beside = file.with_name("new")
        beside.write_text(text.replace(old, new))
        beside.replace(file)

    def healthz(self) -> str:
        """What the health endpoint answers once the kubelet has come up."""
        until(lambda: self.sh("curl -s -m 3 http://127.0.0.1:10248/healthz")[0] == 0)
        return self.sh("curl -s -m 3 http://127.0.0.1:10248/healthz")[1]


Make = Callable[[str], Machine]


@pytest.fixture
def machine(tmp_path: Path) -> Make:
    """Makes a node in a state."""

    def make(state: str) -> Machine:
        (folder,) = node.make(members(fleet(state)), tmp_path).values()
        return Machine(folder)

    return make


def test_a_restart_takes_what_the_files_say_now(machine: Make) -> None:
    on = machine("false_flag")
    before = on.show("MainPID")
    assert on.argv()[-1] == "--make-iptables-util-chains=false"
    on.edit(ENVIRONMENT, "chains=false", "chains=true")
    assert on.argv()[-1] == "--make-iptables-util-chains=false"
    assert on.sh("systemctl restart kubelet.service") == (0, "", "")
    after = on.show("MainPID")
    assert after != before
    assert not (on.root / f"proc/{before}").exists()
    assert on.argv()[-1] == "--make-iptables-util-chains=true"
    assert on.healthz() == "ok"


def test_unit_files_count_once_they_are_loaded(machine: Make) -> None:
    on = machine("compliant_default")
    (on.root / DROPINS / "99-late.conf").write_text('[Service]\nEnvironment="KUBELET_CGROUP_FLAGS=--v=4"\n')
    assert on.show("NeedDaemonReload") == "yes"
    assert "99-late.conf" not in on.show("DropInPaths")
    status, _, stderr = on.sh("systemctl restart kubelet")
    assert status == 0
    assert "daemon-reload" in stderr
    assert "--v=4" not in on.argv()
    assert on.sh("systemctl daemon-reload && systemctl restart kubelet") == (0, "", "")
    assert "--v=4" in on.argv()
    assert on.show("NeedDaemonReload") == "no"
    assert on.show("DropInPaths").endswith("/etc/systemd/system/kubelet.service.d/99-late.conf")
    on.edit(f"{DROPINS}/99-late.conf", "--v=4", "--v=4")
    assert on.show("NeedDaemonReload") == "yes"


def test_a_kubelet_that_refuses_its_config_crash_loops(machine: Make) -> None:
    on = machine("compliant_file")
    on.edit(CONFIG, '"makeIPTablesUtilChains": true', '"makeIPTablesUtilChains": "true"')
    assert on.sh("systemctl restart kubelet") == (0, "", "")
    assert [on.show(name) for name in ("ActiveState", "SubState", "MainPID")] == ["activating", "auto-restart", "0"]
    assert on.sh("systemctl is-active kubelet")[:2] == (3, "activating\n")
    status, _, stderr = on.sh("curl -fsS -m 3 http://127.0.0.1:10248/healthz")
    assert (status, stderr.startswith("curl: (7)")) == (7, True)
    until(lambda: int(on.show("NRestarts")) >= 1)
    on.edit(CONFIG, '"makeIPTablesUtilChains": "true"', '"makeIPTablesUtilChains": true')
    assert on.sh("systemctl restart kubelet") == (0, "", "")
    assert (on.healthz(), on.show("NRestarts")) == ("ok", "0")


def test_a_unit_that_systemd_refuses_leaves_the_process_alone(machine: Make) -> None:
    on = machine("compliant_default")
    pid = on.show("MainPID")
    on.edit("etc/systemd/system/kubelet.service", "ExecStart=/opt/bin/kubelet", "ExecStart=kubelet'")
    status, _, stderr = on.sh("systemctl daemon-reload; systemctl restart kubelet")
    assert (status, "bad unit file setting" in stderr) == (1, True)
    assert on.show("MainPID") == pid


def test_without_its_environment_file_the_kubelet_cannot_start(machine: Make) -> None:
    on = machine("compliant_default")
    (on.root / ENVIRONMENT).unlink()
    status, _, stderr = on.sh("systemctl restart kubelet")
    assert (status, "unavailable resources" in stderr) == (1, True)
    assert on.show("MainPID") == "0"


def test_stop_and_start(machine: Make) -> None:
    on = machine("compliant_default")
    assert on.sh("systemctl stop kubelet") == (0, "", "")
    assert [on.show(name) for name in ("ActiveState", "SubState", "MainPID")] == ["inactive", "dead", "0"]
    assert on.sh("systemctl start kubelet && systemctl is-active kubelet") == (0, "active\n", "")
    pid = on.show("MainPID")
    assert on.sh("systemctl start kubelet") == (0, "", "")
    assert on.show("MainPID") == pid


def test_a_kubelet_that_never_gets_healthy_when_it_is_fixed(machine: Make) -> None:
    on = machine("unhealthy_when_fixed")
    assert on.sh("curl -s http://127.0.0.1:10248/healthz")[1] == "ok"
    on.edit(CONFIG, '"makeIPTablesUtilChains": false', '"makeIPTablesUtilChains": true')
    on.sh("systemctl restart kubelet")
    assert "healthz check failed" in on.healthz()
    assert on.sh("curl -s -f http://127.0.0.1:10248/healthz")[0] == 22
    assert on.sh("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:10248/healthz")[1] == "500"
    on.edit(CONFIG, '"makeIPTablesUtilChains": true', '"makeIPTablesUtilChains": false')
    on.sh("systemctl restart kubelet")
    assert on.healthz() == "ok"


def test_a_kubelet_that_dies_when_it_is_fixed(machine: Make) -> None:
    on = machine("dies_when_fixed")
    on.edit(CONFIG, '"makeIPTablesUtilChains": false', '"makeIPTablesUtilChains": true')
    on.sh("systemctl restart kubelet")
    assert on.healthz() == "ok"
    until(lambda: on.sh("curl -s http://127.0.0.1:10248/healthz")[0] == 7)
    assert on.show("ActiveState") == "activating"
    on.edit(CONFIG, '"makeIPTablesUtilChains": true', '"makeIPTablesUtilChains": false')
    on.sh("systemctl restart kubelet")
    assert (on.healthz(), on.show("ActiveState")) == ("ok", "active")
    assert not (on.root / "run/sandbox/dies_at").exists()


def test_a_restart_that_fails_before_the_kubelet(machine: Make) -> None:
    on = machine("restart_fails")
    assert on.show("ActiveState") == "active"
    status, _, stderr = on.sh("systemctl restart kubelet")
    assert (status, "control process exited with error code" in stderr) == (1, True)
    assert on.show("MainPID") == "0"


def test_a_node_without_a_kubelet(machine: Make) -> None:
    on = machine("no_kubelet")
    assert on.show("LoadState") == "not-found"
    assert on.sh("systemctl restart kubelet")[0] == 5
    assert on.sh("systemctl show nonsense -p LoadState") == (0, "LoadState=not-found\n", "")


def test_show_answers_in_its_own_order_and_only_what_was_asked(machine: Make) -> None:
    on = machine("compliant_file")
    _, shown, _ = on.sh("systemctl show kubelet.service --property=FragmentPath,EnvironmentFiles -p MainPID --no-pager")
    assert [line.partition("=")[0] for line in shown.splitlines()] == ["MainPID", "EnvironmentFiles", "FragmentPath"]
    assert "EnvironmentFiles=/etc/default/kubelet (ignore_errors=no)\n" in shown
    _, whole, _ = on.sh("systemctl show kubelet")
    assert "NeedDaemonReload=no\n" in whole
    started = int(on.show("ExecMainStartTimestampMonotonic")) / 1e6
    ticks = (on.root / f"proc/{on.show('MainPID')}/stat").read_text().rsplit(") ", 1)[1].split()[19]
    assert started == pytest.approx(int(ticks) / 100, abs=0.02)
    assert on.sh("systemctl cat kubelet")[1].startswith("# /etc/systemd/system/kubelet.service\n[Unit]")


def test_iptables_has_the_kubelets_chain_once_it_was_made(machine: Make) -> None:
    on = machine("false_file")
    listing = "iptables -w -t mangle -S"
    assert "KUBE-KUBELET-CANARY" not in on.sh(listing)[1]
    assert on.sh("iptables -t mangle -nL KUBE-KUBELET-CANARY")[0] == 1
    on.edit(CONFIG, '"makeIPTablesUtilChains": false', '"makeIPTablesUtilChains": true')
    on.sh("systemctl restart kubelet")
    assert "-N KUBE-KUBELET-CANARY\n" in on.sh(listing)[1]
    on.edit(CONFIG, '"makeIPTablesUtilChains": true', '"makeIPTablesUtilChains": false')
    on.sh("systemctl restart kubelet")
    status, listed, _ = on.sh("iptables -t mangle -nL KUBE-KUBELET-CANARY")
    assert (status, listed.startswith("Chain KUBE-KUBELET-CANARY (0 references)")) == (0, True)


def test_the_kubelet_says_its_version(machine: Make) -> None:
    assert machine("compliant_default").sh("kubelet --version") == (0, "Kubernetes v1.33.2\n", "")


def test_a_queued_restart_does_not_tell_of_its_failure(machine: Make) -> None:
    on = machine("restart_fails")
    assert on.sh("systemctl restart --no-block kubelet") == (0, "", "")
    assert on.show("ActiveState") == "activating"
    assert on.sh("systemctl reset-failed kubelet") == (0, "", "")
    assert on.sh("systemctl --version")[1].startswith("systemd 255 ")


def test_a_transient_timer_runs_its_command_unless_it_is_stopped(machine: Make) -> None:
    on = machine("no_kubelet")
    run = "systemd-run --quiet --collect --on-active=1s --timer-property=AccuracySec=1s"
    for name in ("one", "two"):
        assert on.sh(f"{run} --unit={name} /bin/sh -c 'echo {name} >$KUBELET_GUARD_ROOT/{name}'") == (0, "", "")
    assert on.sh(f"{run} --unit=one /bin/true")[0] == 1
    assert on.sh("systemctl stop two.timer") == (0, "", "")
    assert on.sh("systemctl stop two.timer")[0] == 5
    until(lambda: (on.root / "one").exists() and (on.root / "one").read_text() == "one\n")
    assert not (on.root / "two").exists()
