"""Every state of the catalogue is what it says, on disk and in its process."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox import node, service
from sandbox.fleet import members
from sandbox.states import STATES, Command
from tests.support.fleets import fleet


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A node folder for each state."""
    made = [*members(fleet(*STATES))]
    folders = node.make(made, tmp_path_factory.mktemp("nodes"))
    return {member.state: folders[member.name].root for member in made}


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
    state = STATES[name]
    chains = service.effective_chains(nodes[name])
    if state.expected in ("pass", "fail"):
        assert chains is (state.expected == "pass")
    if name in ("refuses_start", "no_kubelet"):
        assert (chains, process_id(nodes[name])) == (None, 0)
    elif state.command is not Command.WORKS or state.power != "running":
        assert chains is True, "the trouble is to be outside the node"


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
