"""Every state of the catalogue is what it says, on disk and in its process, and is judged so for every control."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox import node, service
from sandbox.fleet import members
from sandbox.states import STATES, Command
from shared.controls import Verdict, catalogue, judge_all
from shared.models import Evidence, Status
from shared.node import evidence, frames
from shared.node.fixing import ModeEdit, apply_script, parse_report
from tests.support.fleets import fleet

_VERSION = "1.33.2"
_NONCE = "0123456789abcdef"
_IN_REACH = [name for name, state in STATES.items() if state.command is Command.WORKS and state.power == "running"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, node.Folder]:
    """A node folder for each state."""
    made = [*members(fleet(*STATES))]
    folders = node.make(made, tmp_path_factory.mktemp("nodes"))
    return {member.state: folders[member.name] for member in made}


@pytest.fixture(scope="module")
def nodes(folders: Mapping[str, node.Folder]) -> Mapping[str, Path]:
    """The root of each."""
    return {state: folder.root for state, folder in folders.items()}


def run(folder: node.Folder, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script on a node as its run command does."""
    return subprocess.run(
        ["/bin/sh", "-c", script], env=dict(folder.environment()), capture_output=True, text=True, check=True
    )


def look(folder: node.Folder) -> Evidence:
    """What a node shows, by the very script that runs on nodes."""
    parts: list[frames.Frame] = []
    while not parts or len(parts) < parts[0].parts:
        done = run(folder, frames.collect_script(len(parts) + 1, _NONCE))
        parts += frames.parse_streams(done.stdout, done.stderr, _NONCE)
    return evidence.read(frames.unpack(parts), parts[0].wall, parts[0].uptime)


def verdicts(folder: node.Folder) -> Mapping[str, Verdict]:
    """Of every control."""
    return judge_all([*catalogue().controls.values()], look(folder), _VERSION)


def shown(root: Path, name: str) -> str:
    """A property as the node's systemd shows it."""
    lines = (root / "run/sandbox/properties").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{name}=")).partition("=")[2]


def process_id(root: Path) -> int:
    return int(shown(root, "MainPID"))


def started(root: Path) -> float:
    """When the kubelet was started, in seconds since the epoch."""
    stamp = datetime.strptime(shown(root, "ExecMainStartTimestamp"), "%a %Y-%m-%d %H:%M:%S.%f UTC")
    return stamp.replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize("name", STATES)
def test_the_truth_about_a_state_is_the_expected_one(name: str, nodes: Mapping[str, Path]) -> None:
    state, now = STATES[name], service.effective(nodes[name])
    if name in ("refuses_start", "no_kubelet"):
        assert (now, process_id(nodes[name])) == (None, 0)
        return
    assert now is not None
    for control in catalogue().controls.values():
        expected = state.expects(control.id)
        if state.command is not Command.WORKS or state.power != "running":
            expected = "pass"  # the trouble is to be outside the node
        if control.file is None and expected in ("pass", "fail") and name != "client_ca_gone":
            assert control.complies(now.effective(control.setting)) is (expected == "pass"), control.id


@pytest.mark.parametrize("name", _IN_REACH)
def test_every_control_is_judged_as_expected(name: str, folders: Mapping[str, node.Folder]) -> None:
    for control, verdict in verdicts(folders[name]).items():
        expected = STATES[name].expects(control)
        if expected == "pending":
            assert verdict.restart_pending, control
        else:
            assert verdict.status == ("error" if expected == "unknown" else expected), (control, verdict)


def test_every_control_fails_somewhere_by_every_way() -> None:
    failing = {control for state in STATES.values() for control, said in state.others.items() if said == "fail"}
    assert {*failing, "3.2.6"} == set(catalogue().controls)
    ways = {name.rsplit("_", 1)[0] for name in STATES if name.endswith("_flag")}
    assert ways - {"compliant"} == {name.rsplit("_", 1)[0] for name in STATES if name.endswith("_file")} - {"compliant"}


def test_what_belongs_to_whoever_runs_the_sandbox_is_root_s_and_can_be_given_away(tmp_path: Path) -> None:
    (folder,) = node.make(members(fleet("azure_json_owner")), tmp_path).values()
    path = "/etc/kubernetes/azure.json"
    real = folder.root / path[1:]
    assert (real.stat().st_uid, real.stat().st_gid) == (os.getuid(), os.getgid())
    shown = 'stat -c \'%a %u:%g\' "$KUBELET_GUARD_ROOT/{0}" && stat -L -c %u:%g "$KUBELET_GUARD_ROOT/{1}"'
    assert run(folder, shown.format(path, "etc/hostname")).stdout == "600 1000:0\n0:0\n"
    (folder.root / "etc/azure").symlink_to("kubernetes/azure.json")
    assert run(folder, shown.format("etc/azure", "etc/azure")).stdout.split()[1:] == ["0:0", "1000:0"]

    edit = ModeEdit(path, 0o600, 1000, 0, 0o600, 0, 0)
    script = apply_script(
        [], modes=[edit], restart=False, present=(), absent=(), settle_seconds=1, limit_seconds=20, nonce=_NONCE
    )
    assert parse_report(run(folder, script).stderr, _NONCE).outcome == "applied"
    assert verdicts(folder)["3.1.4"].status is Status.PASS


def test_a_kubelet_without_its_client_ca_does_not_start(tmp_path: Path) -> None:
    (folder,) = node.make(members(fleet("client_ca_gone")), tmp_path).values()
    run(folder, "systemctl restart kubelet")
    assert shown(folder.root, "SubState") == "auto-restart"


def test_aks_leaves_the_idle_timeout_out_where_it_does_nothing(tmp_path: Path) -> None:
    for version, given in (("1.33.5", True), ("1.34.0", False)):
        made = [*members(fleet("compliant_default", "compliant_file", pool=f"version: {version},"))]
        found = node.make(made, tmp_path / version)
        flags, config = ((found[member.name].root) for member in made)
        assert ("streaming" in (flags / "etc/default/kubelet").read_text()) is given
        assert ("streaming" in (config / "etc/default/kubeletconfig.json").read_text()) is given


@pytest.mark.parametrize("name", sorted(STATES.keys() - {"refuses_start", "no_kubelet"}))
def test_a_node_has_the_files_of_aks(name: str, nodes: Mapping[str, Path]) -> None:
    root = nodes[name]
    assert stat.S_IMODE((root / "etc/default/kubelet").stat().st_mode) == 0o600
    tls = root / "etc/systemd/system/kubelet.service.d/10-tlsbootstrap.conf"
    assert stat.S_IMODE(tls.stat().st_mode) == 0o600
    pid = process_id(root)
    argv = (root / f"proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert argv[:2] == [b"/opt/bin/kubelet", b"--enable-server"]
    assert argv[-1] == b""
    assert b"--v=2" in argv
    fields = (root / f"proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    assert len(fields) == 50
    before = [*(root / "etc/systemd/system").glob("kubelet.service")]
    if not STATES[name].kubelet.then_flags:
        before.append(root / "etc/default/kubelet")
    assert all(path.stat().st_ctime < started(root) for path in before)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("restart_pending_fixed", "etc/default/kubelet"),
        ("restart_pending_broken", "etc/default/kubelet"),
        ("changed_since_start", "etc/default/kubeletconfig.json"),
        ("daemon_reload_pending", "etc/systemd/system/kubelet.service.d/20-team.conf"),
    ],
)
def test_what_is_pending_was_written_after_the_start(name: str, path: str, nodes: Mapping[str, Path]) -> None:
    root = nodes[name]
    assert (root / path).stat().st_ctime > started(root)


def test_pools_without_a_config_file_have_about_forty_flags(nodes: Mapping[str, Path]) -> None:
    root = nodes["compliant_default"]
    argv = (root / f"proc/{process_id(root)}/cmdline").read_bytes().decode().split("\0")
    assert 38 <= sum(word.startswith("--") for word in argv) <= 46
    assert not (root / "etc/default/kubeletconfig.json").exists()


def test_a_config_file_takes_the_place_of_flags(nodes: Mapping[str, Path]) -> None:
    root = nodes["compliant_file"]
    config = json.loads((root / "etc/default/kubeletconfig.json").read_text())
    assert config["makeIPTablesUtilChains"] is True
    argv = (root / f"proc/{process_id(root)}/cmdline").read_bytes().decode().split("\0")
    assert argv[argv.index("--config") + 1] == "/etc/default/kubeletconfig.json"
    assert not any(word.startswith("--tls-cipher-suites") for word in argv)


def test_every_state_has_a_line_that_says_what_it_is() -> None:
    assert all(len(state.description) < 120 and "\n" not in state.description for state in STATES.values())
