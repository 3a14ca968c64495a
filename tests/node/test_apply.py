"""The apply script on a node that is a folder, under several shells: what it writes, refuses, undoes and reports."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.models import File, Metadata
from shared.node import fixing, frames
from shared.node.fixing import (
    ApplyOutcome,
    CannotApply,
    FileEdit,
    ModeEdit,
    Report,
    Splice,
    apply_script,
    file_edit,
    parse_report,
    undo_script,
)
from shared.node.frames import FrameError
from tests.support.disk import ext4
from tests.support.fixable_node import CONFIG, ENVIRONMENT, NONCE, STANDINS, STATE, WANTS, FixableNode
from tests.support.folder_node import PID, FolderNode
from tests.support.require import require

SHELLS = pytest.mark.parametrize("shell", ["dash", "bash", "busybox"], indirect=True)


@pytest.fixture
def node(folder_node: FolderNode) -> FixableNode:
    fixable = FixableNode(folder_node.root)
    fixable.prepare()
    return fixable


@SHELLS
def test_applies_verifies_and_keeps_the_rest(node: FixableNode, shell: tuple[tuple[str, ...], str]) -> None:
    node.write(CONFIG, '{\n  "makeIPTablesUtilChains": false,\n  "maxPods": 30\n}\n', 0o640)
    before = node.contents()
    done = node.apply(
        node.edit(CONFIG, "false", "true"),
        node.edit(ENVIRONMENT, "--v=2", "--v=4"),
        present=["--v=4"],
        absent=["--v=2", "--v"],
        shell=shell,
    )
    assert done.report.outcome == "applied", done.report
    assert done.report.reason == ""
    assert [step.name for step in done.report.steps] == [
        *("before", "backed-up", "staged", "staged", "timer", "replaced", "replaced", "verified"),
    ]
    after = node.contents()
    assert after.pop("etc/default/kubeletconfig.json") == (
        stat.S_IFREG | 0o640,
        b'{\n  "makeIPTablesUtilChains": true,\n  "maxPods": 30\n}\n',
    )
    assert after.pop("etc/default/kubelet") == (
        stat.S_IFREG | 0o600,
        b"KUBELET_FLAGS=--v=4\nKUBELET_NODE_LABELS=agentpool=np,team=payments\n",
    )
    assert {path: was for path, was in before.items() if path in after} == after, "nothing else, and no leftovers"
    assert done.argv == ("/opt/bin/kubelet", f"--config={CONFIG}", "--v=4")
    assert done.pid == 5000
    assert done.seen.files[CONFIG].text == (node.root / CONFIG[1:]).read_text()
    assert [call for call in node.calls("systemctl") if not call.startswith(("show", "--version"))] == [
        "daemon-reload",
        "reset-failed kubelet.service",
        "restart --no-block kubelet.service",
        f"stop kubelet-guard-{node.backups()[0].name}.timer",
        "daemon-reload",
    ]
    state = node.root / STATE
    assert state.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in state.iterdir()) == ["backups", "lock", "rollback.sh"]
    (backup,) = node.backups()
    assert (backup / "1").read_bytes() == before["etc/default/kubeletconfig.json"][1]
    assert (backup / "1").stat().st_mode & 0o777 == 0o640
    assert (backup / "2").read_bytes() == before["etc/default/kubelet"][1]


@SHELLS
def test_many_files_of_any_bytes_and_awkward_names(node: FixableNode, shell: tuple[tuple[str, ...], str]) -> None:
    pick = random.Random(7)
    pieces = [
        b"a",
        b"\n",
        b"\r\n",
        b"'",
        b'"',
        b"\\",
        b"$(reboot)",
        b"`",
        b"\xff\x80",
        "ä€".encode(),
        b" ",
        b"\x01",
        b"%s",
    ]
    names = ["a b", "it's", '"q"', "$(touch x)", "`y`", "*", "-n", "a,b:c", "ünï", "end ", "\\n", "x.conf", ";&|"]
    wanted: dict[str, bytes] = {}
    edits = []
    for name in names:
        path = f"/etc/odd {name[0]}/{name}"
        old = b"".join(pick.choices(pieces, k=pick.randint(0, 60)))
        new = bytearray(old)
        for _ in range(pick.randint(1, 4)):
            at = pick.randint(0, len(new))
            new[at : at + pick.randint(0, 5)] = b"".join(pick.choices(pieces, k=pick.randint(1, 4)))
        node.write(path, old, pick.choice([0o600, 0o644, 0o755]))
        wanted[path] = bytes(new)
        edits.append(file_edit(node.file(path), new.decode("utf-8", "surrogateescape")))
    modes = {path: (node.root / path[1:]).stat().st_mode for path in wanted}
    done = node.apply(*edits, shell=shell)
    assert done.report.outcome == "applied", done.report
    assert {path: (node.root / path[1:]).read_bytes() for path in wanted} == wanted
    assert {path: (node.root / path[1:]).stat().st_mode for path in wanted} == modes
    assert {path.name for path in (node.root / "etc").glob("odd */*")} | {
        path.name for path in (node.root / "etc").glob("odd */.*")
    } == set(names)


def test_files_are_changed_well_before_the_kubelet_starts(node: FixableNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both when a fix is applied and when it is rolled back: else their change times prove nothing."""
    slept = f'echo "sleep $*" >>"$KUBELET_GUARD_ROOT/systemctl-calls"; {STANDINS["sleep"]}'
    monkeypatch.setitem(STANDINS, "sleep", slept)
    assert node.apply(node.edit(CONFIG, "KubeletConfiguration", "REFUSE")).report.outcome == "rolled_back"
    calls = [call for call in node.calls("systemctl") if not call.startswith("show")]
    begun = [at for at, call in enumerate(calls) if call == "daemon-reload"][:2]
    assert [calls[at - 1 : at] for at in begun] == [["sleep 1"]] * 2
    assert [calls[at + 1 : at + 3] for at in begun] == [
        ["reset-failed kubelet.service", "restart --no-block kubelet.service"]
    ] * 2


def test_a_link_to_a_recovery_unit_that_is_gone_is_removed(node: FixableNode) -> None:
    link = node.root / WANTS / "kubelet-guard-recover.service"
    link.symlink_to("../kubelet-guard-recover.service")
    edit = node.edit(CONFIG, "v1beta1", "v1beta2")
    node.write(CONFIG, "{}")
    assert node.apply(edit).report.outcome == "changed_meanwhile"
    assert not link.is_symlink()


@SHELLS
def test_rolls_back_where_the_kubelet_refuses(node: FixableNode, shell: tuple[tuple[str, ...], str]) -> None:
    before = node.contents()
    done = node.apply(
        node.edit(CONFIG, "KubeletConfiguration", "REFUSE"), node.edit(ENVIRONMENT, "--v=2", "--v=4"), shell=shell
    )
    assert done.report.outcome == "rolled_back", done.report
    assert done.report.reason == "the restarted kubelet was not well: activating/auto-restart, restarted 5 times"
    assert [step.name for step in done.report.steps][-3:] == ["restored", "restored", "healthy"]
    assert node.contents() == before
    assert (node.restarts(), done.argv, done.pid) == (
        2,
        ("/opt/bin/kubelet", f"--config={CONFIG}", "--v=2"),
        5001,
    )
    assert sorted(path.name for path in (node.root / STATE).iterdir()) == ["backups", "lock", "rollback.sh"]
    assert node.backups() == []


# Modes and owners

KUBECONFIG = "/var/lib/kubelet/kubeconfig"
AZURE_JSON = "/etc/kubernetes/azure.json"
ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root gives a file away")


@pytest.fixture
def lax(node: FixableNode) -> FixableNode:
    """A node with a kubeconfig and an azure.json that anybody may write."""
    node.write(KUBECONFIG, "users: []", 0o666)
    node.write(AZURE_JSON, "{}", 0o647)
    return node


@SHELLS
def test_modes_are_set_and_the_kubelet_is_let_be(lax: FixableNode, shell: tuple[tuple[str, ...], str]) -> None:
    """Neither restarted nor asked, with nothing left behind; and a second time nothing happens."""
    lax.write("/healthz-answers", "")
    edits = [lax.mode_edit(KUBECONFIG, 0o644), lax.mode_edit(AZURE_JSON, 0o600)]
    done = lax.apply(modes=edits, restart=False, shell=shell)
    assert done.report.outcome == "applied", done.report
    assert [(step.name, step.detail) for step in done.report.steps] == [
        ("mode", f"{KUBECONFIG} 666:{os.getuid()}:{os.getgid()} is now 644:{os.getuid()}:{os.getgid()}"),
        ("mode", f"{AZURE_JSON} 647:{os.getuid()}:{os.getgid()} is now 600:{os.getuid()}:{os.getgid()}"),
    ]
    assert (lax.mode(KUBECONFIG)[0], lax.mode(AZURE_JSON)[0]) == (0o644, 0o600)
    assert ((lax.root / KUBECONFIG[1:]).read_text(), (lax.root / AZURE_JSON[1:]).read_text()) == ("users: []", "{}")
    assert [call for call in lax.calls("systemctl") if not call.startswith(("show", "--version"))] == []
    assert done.pid == PID, "the process that ran before"
    assert done.seen.metadata[AZURE_JSON] == Metadata(AZURE_JSON, 0o600, os.getuid(), os.getgid())
    assert sorted(path.name for path in (lax.root / STATE).iterdir()) == ["lock"]
    before = lax.state()
    again = lax.apply(modes=edits, restart=False, shell=shell)
    assert (again.report.outcome, again.report.reason) == (
        "changed_meanwhile",
        f"the mode or owner of {KUBECONFIG} has changed",
    )
    assert lax.state() == before


@ROOT
@SHELLS
def test_an_owner_is_set_and_the_other_bits_stay(lax: FixableNode, shell: tuple[tuple[str, ...], str]) -> None:
    """A new owner takes a set-user-ID bit away, which is not ours to take."""
    os.chown(lax.root / KUBECONFIG[1:], 1234, 5678)
    (lax.root / KUBECONFIG[1:]).chmod(0o4755)
    done = lax.apply(modes=[lax.mode_edit(KUBECONFIG, 0o4755, 0, 0)], restart=False, shell=shell)
    assert (done.report.outcome, lax.mode(KUBECONFIG)) == ("applied", (0o4755, 0, 0))


@SHELLS
def test_a_mode_that_changed_meanwhile_keeps_all_as_they_are(
    lax: FixableNode, shell: tuple[tuple[str, ...], str]
) -> None:
    edits = [lax.mode_edit(KUBECONFIG, 0o644), lax.mode_edit(AZURE_JSON, 0o600)]
    (lax.root / AZURE_JSON[1:]).chmod(0o640)
    done = lax.apply(modes=edits, restart=False, shell=shell)
    assert (done.report.outcome, done.report.reason) == (
        "changed_meanwhile",
        f"the mode or owner of {AZURE_JSON} has changed",
    )
    assert (lax.mode(KUBECONFIG)[0], lax.mode(AZURE_JSON)[0]) == (0o666, 0o640)


@pytest.mark.parametrize("kind", ["gone", "dangling", "directory", "fifo", "loop"])
def test_what_is_no_file_any_more_gets_no_mode(lax: FixableNode, kind: str) -> None:
    edits = [lax.mode_edit(AZURE_JSON, 0o600), lax.mode_edit(KUBECONFIG, 0o644)]
    place = lax.root / KUBECONFIG[1:]
    place.unlink()
    match kind:
        case "dangling":
            place.symlink_to("/none")
        case "loop":
            place.symlink_to("kubeconfig")
        case "directory":
            place.mkdir(0o666)
        case "fifo":
            os.mkfifo(place)
            place.chmod(0o666)
    done = lax.apply(modes=edits, restart=False)
    assert (done.report.outcome, done.report.reason) == ("changed_meanwhile", f"{KUBECONFIG} is not there any more")
    assert lax.mode(AZURE_JSON)[0] == 0o647


def test_a_mode_is_that_of_the_file_behind_a_link(lax: FixableNode) -> None:
    lax.link(KUBECONFIG, "../../../opt/kube config")
    lax.write("/opt/kube config", "", 0o666)
    done = lax.apply(modes=[lax.mode_edit(KUBECONFIG, 0o644)], restart=False)
    assert (done.report.outcome, lax.mode("/opt/kube config")[0]) == ("applied", 0o644)
    assert (lax.root / KUBECONFIG[1:]).is_symlink()


@SHELLS
@pytest.mark.parametrize("name", ["a b", "it's", "$(touch x)", "`y`", "*", "-n", "a,b:c", "ünï", "\\n", ";&|"])
def test_a_hostile_name_is_a_name(lax: FixableNode, shell: tuple[tuple[str, ...], str], name: str) -> None:
    path = f"/etc/odd/{name}"
    lax.write(path, "", 0o666)
    done = lax.apply(modes=[lax.mode_edit(path, 0o644)], restart=False, shell=shell)
    assert (done.report.outcome, lax.mode(path)[0]) == ("applied", 0o644)
    assert [path.name for path in (lax.root / "etc/odd").iterdir()] == [name]


@pytest.mark.parametrize("attribute", ["a", "i"])
def test_an_attribute_that_forbids_a_mode_stops_before_the_first(
    lax: FixableNode, tmp_path: Path, attribute: str
) -> None:
    with ext4(tmp_path) as top:
        shutil.copytree(lax.root, top / "node", symlinks=True)
        there = FixableNode(top / "node")
        (top / "standins").mkdir()
        edits = [there.mode_edit(KUBECONFIG, 0o644), there.mode_edit(AZURE_JSON, 0o600)]
        subprocess.run(["chattr", f"+{attribute}", str(there.root / AZURE_JSON[1:])], check=True)
        try:
            done = there.apply(modes=edits, restart=False)
            texts = there.apply(there.edit(ENVIRONMENT, "--v=2", "--v=4"), modes=edits)
        finally:
            subprocess.run(["chattr", f"-{attribute}", str(there.root / AZURE_JSON[1:])], check=True)
        why = f"the mode or owner of {AZURE_JSON} cannot be set: immutable, append-only, or a read-only file system"
        assert [(one.report.outcome, one.report.reason) for one in (done, texts)] == [("failed", why)] * 2
        assert (there.mode(KUBECONFIG)[0], there.restarts()) == (0o666, 0)


@SHELLS
def test_a_mode_that_cannot_be_set_takes_the_others_back(
    lax: FixableNode, monkeypatch: pytest.MonkeyPatch, shell: tuple[tuple[str, ...], str]
) -> None:
    """A file system may refuse what nothing could be seen of before."""
    failing = f'case $* in *600*azure.json) exit 1 ;; esac; exec {shutil.which("chmod")} "$@"'
    monkeypatch.setitem(STANDINS, "chmod", failing)
    edits = [lax.mode_edit(KUBECONFIG, 0o644), lax.mode_edit(AZURE_JSON, 0o600)]
    before = lax.contents()
    done = lax.apply(modes=edits, restart=False, shell=shell)
    assert (done.report.outcome, done.report.reason) == ("failed", f"the mode or owner of {AZURE_JSON} cannot be set")
    assert (lax.mode(KUBECONFIG)[0], lax.mode(AZURE_JSON)[0]) == (0o666, 0o647)
    texts = lax.apply(lax.edit(ENVIRONMENT, "--v=2", "--v=4"), modes=edits, shell=shell)
    assert texts.report.outcome == "rolled_back"
    assert lax.contents() == before


@SHELLS
def test_texts_and_modes_together_and_undone_together(lax: FixableNode, shell: tuple[tuple[str, ...], str]) -> None:
    """Also of one file."""
    lax.write(CONFIG, '{"maxPods": 30}', 0o666)
    modes = [lax.mode_edit(CONFIG, 0o644), lax.mode_edit(KUBECONFIG, 0o644)]
    before = lax.contents(), lax.mode(KUBECONFIG)
    done = lax.apply(lax.edit(CONFIG, "30", "31"), modes=modes, shell=shell)
    assert done.report.outcome == "applied", done.report
    assert [step.name for step in done.report.steps][-3:] == ["verified", "mode", "mode"], "last, when all is well"
    assert (lax.mode(CONFIG)[0], lax.mode(KUBECONFIG)[0]) == (0o644, 0o644)
    assert (lax.root / CONFIG[1:]).read_text() == '{"maxPods": 31}'
    undone = lax.undo(done.report.backup_id, shell, modes)
    assert undone.report.outcome == "applied", undone.report
    assert (lax.contents(), lax.mode(KUBECONFIG)) == before


def test_where_the_kubelet_refuses_no_mode_is_touched(lax: FixableNode) -> None:
    before = lax.contents(), lax.mode(KUBECONFIG)
    done = lax.apply(lax.edit(CONFIG, "KubeletConfiguration", "REFUSE"), modes=[lax.mode_edit(KUBECONFIG, 0o644)])
    assert done.report.outcome == "rolled_back"
    assert (lax.contents(), lax.mode(KUBECONFIG)) == before


def test_a_run_that_is_killed_between_two_modes_does_no_harm(lax: FixableNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """No journal is left to be followed: each file is as before or as planned, and planning again ends it."""
    end = 'kill -9 "-$(cut -d " " -f 6 /proc/self/stat)"'
    killing = f'case $* in *azure.json) {end} ;; esac; exec {shutil.which("chmod")} "$@"'
    with monkeypatch.context() as patched:
        patched.setitem(STANDINS, "chmod", killing)
        modes = [lax.mode_edit(KUBECONFIG, 0o644), lax.mode_edit(AZURE_JSON, 0o600)]
        script = apply_script(
            [], modes=modes, restart=False, present=[], absent=[], settle_seconds=1, limit_seconds=3, nonce=NONCE
        )
        assert lax.run(script, check=False).returncode == -signal.SIGKILL
    (lax.root.parent / "standins" / "chmod").unlink()
    assert (lax.mode(KUBECONFIG)[0], lax.mode(AZURE_JSON)[0]) == (0o644, 0o647)
    assert sorted(path.name for path in (lax.root / STATE).iterdir()) == ["lock"]
    assert lax.apply(modes=modes, restart=False).report.outcome == "changed_meanwhile"
    assert lax.apply(modes=modes[1:], restart=False).report.outcome == "applied"


@pytest.mark.parametrize(
    ("modes", "says"),
    [
        ([ModeEdit("/x", 0o666, 0, 0, 0o666, 0, 0)], "changes nothing"),
        ([ModeEdit("/x", 0o666, 0, 0, 0o10644, 0, 0)], "not a mode"),
        ([ModeEdit("/x", 0o666, -1, 0, 0o644, 0, 0)], "not a mode"),
        ([ModeEdit("/x", 0o666, 0, 0, 0o644, 2**32, 0)], "not a mode"),
        ([ModeEdit("x", 0o666, 0, 0, 0o644, 0, 0)], "not a plain absolute path"),
        ([ModeEdit("/x", 0o666, 0, 0, 0o644, 0, 0), ModeEdit("/x", 0o644, 1, 0, 0o644, 0, 0)], "more than one edit"),
        ([ModeEdit(f"/{n}", 0o666, 0, 0, 0o644, 0, 0) for n in range(33)], "more than the 32"),
    ],
)
def test_malformed_modes_are_refused(modes: list[ModeEdit], says: str) -> None:
    with pytest.raises(CannotApply, match=says):
        apply_script(
            [], modes=modes, restart=False, present=[], absent=[], settle_seconds=1, limit_seconds=3, nonce=NONCE
        )


# What is undone


@SHELLS
def test_an_applied_fix_is_undone_and_done_again(node: FixableNode, shell: tuple[tuple[str, ...], str]) -> None:
    before = node.contents()
    fixed = node.apply(
        node.edit(CONFIG, "v1beta1", "v1beta2"), node.edit(ENVIRONMENT, "--v=2", "--v=4"), present=["--v=4"]
    )
    after = node.contents()
    undone = node.undo(fixed.report.backup_id, shell)
    assert undone.report.outcome == "applied", undone.report
    assert (node.contents(), undone.argv[-1]) == (before, "--v=2")
    assert [step.name for step in undone.report.steps] == [step.name for step in fixed.report.steps]
    again = node.undo(fixed.report.backup_id, shell)
    assert (again.report.outcome, again.report.reason) == ("changed_meanwhile", f"{CONFIG} has changed")
    assert (node.contents(), node.restarts()) == (before, 2)
    assert node.undo(undone.report.backup_id, shell).report.outcome == "applied"
    assert node.contents() == after
    assert len(node.backups()) == 3


def test_an_undo_that_the_kubelet_refuses_is_rolled_back(node: FixableNode) -> None:
    node.write(ENVIRONMENT, "KUBELET_FLAGS=--v=2\n# REFUSE\n", 0o600)
    fixed = node.apply(node.edit(ENVIRONMENT, "REFUSE", "taken"))
    after = node.contents()
    undone = node.undo(fixed.report.backup_id)
    assert (undone.report.outcome, undone.report.backup_id) == ("rolled_back", "")
    assert node.contents() == after
    assert [path.name for path in node.backups()] == [fixed.report.backup_id], "that of the undo is of no use"


def test_only_what_a_fix_left_is_undone(node: FixableNode) -> None:
    fixed = node.apply(node.edit(CONFIG, "v1beta1", "v1beta2"), node.edit(ENVIRONMENT, "--v=2", "--v=4"))
    node.write(ENVIRONMENT, "KUBELET_FLAGS=--v=6\n", 0o600)
    before, restarts = node.state(), node.restarts()
    done = node.undo(fixed.report.backup_id)
    assert (done.report.outcome, done.report.reason) == ("changed_meanwhile", f"{ENVIRONMENT} has changed")
    assert (node.state(), node.restarts()) == (before, restarts)


def test_without_its_backup_nothing_is_undone(node: FixableNode) -> None:
    fixed = node.apply(node.edit(CONFIG, "v1beta1", "v1beta2"))
    before, restarts = node.state(), node.restarts()
    other = node.undo("20200101T000000Z-1")
    assert (other.report.outcome, other.report.reason) == (
        "failed",
        "the backup 20200101T000000Z-1 is not on this node",
    )
    (node.backups()[0] / "1").write_text("something else")
    spoilt = node.undo(fixed.report.backup_id)
    assert (spoilt.report.outcome, "does not give the text" in spoilt.report.reason) == ("failed", True)
    assert ([], restarts) == ([path for path in node.state() if "guard" in path], node.restarts())
    assert node.contents() == {path: (mode, content) for path, (mode, _, content) in before.items()}


@pytest.mark.parametrize("backup", ["", "../20200101T000000Z-1", "20200101T000000Z-1'; reboot", "x"])
def test_what_is_no_backup_is_refused(backup: str) -> None:
    with pytest.raises(CannotApply, match="not the name of a backup"):
        undo_script(backup, settle_seconds=1, limit_seconds=3, nonce=NONCE)


# What is cut off


@pytest.mark.parametrize("way", ["next run", "timer", "boot"])
def test_what_was_verified_stays(node: FixableNode, way: str) -> None:
    killed_at_restart(node, node.edit(CONFIG, "v1beta1", "v1beta2"))
    journal = node.root / STATE / "journal"
    journal.write_text(journal.read_text().replace("replacing", "verified"))
    restarts = node.restarts()
    if way == "next run":
        done = node.apply(node.edit(ENVIRONMENT, "--v=2", "--v=4"))
        assert done.report.outcome == "applied"
        assert [step.name for step in done.report.steps][:2] == ["unfinished", "finished"]
    else:
        ended = node.run(f"sh {node.root / STATE}/rollback.sh {'boot' if way == 'boot' else ''}")
        assert ended.stdout.decode().startswith("finished the change was verified, and stays")
        assert node.restarts() == restarts
    assert b"v1beta2" in (node.root / CONFIG[1:]).read_bytes()
    assert not journal.exists()
    assert not [path for path in node.state() if "kubelet-guard" in path]


def test_the_boot_undoes_and_does_not_wait(node: FixableNode) -> None:
    before = node.contents()
    killed_at_restart(node, node.edit(CONFIG, "v1beta1", "v1beta2"), node.edit(ENVIRONMENT, "--v=2", "--v=4"))
    node.write("/starts-no-more", "")
    asked = len(node.calls("systemctl"))
    ended = node.run(f"sh {node.root / STATE}/rollback.sh boot")
    assert [line.split()[0] for line in ended.stdout.decode().splitlines()] == ["restored", "restored"]
    assert node.contents() == before
    calls = node.calls("systemctl")[asked:]
    assert calls[:2] == ["daemon-reload", "restart --no-block kubelet.service"]
    assert not any(call.startswith("show") for call in calls), "the kubelet waits for this script"


def test_a_unit_of_the_boot_leaves_a_run_alone(node: FixableNode) -> None:
    killed_at_restart(node, node.edit(CONFIG, "v1beta1", "v1beta2"))
    before = node.state()
    with (node.root / STATE / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert node.run(f"sh {node.root / STATE}/rollback.sh boot").stdout == b""
    assert node.state() == before


FAILING_SYNC = """
case "$* $(sed -n 2p "$KUBELET_GUARD_ROOT/var/lib/kubelet-guard/journal" 2>/dev/null)" in {pattern}) exit 1 ;; esac
exec {sync} "$@"
"""


@pytest.mark.parametrize(
    ("pattern", "outcome", "step"),
    [
        ("*/kubelet-guard' '", "applied", "journal-left"),  # the journal is gone, for now
        ("*/kubelet-guard' 'verified", "applied", "verified"),
        ("*/journal.new' 'replacing", "rolled_back", "healthy"),
        ("*/kubelet-guard' 'replacing", "rolled_back", "healthy"),
    ],
)
def test_a_disk_that_fails_at_the_end(
    node: FixableNode, monkeypatch: pytest.MonkeyPatch, pattern: str, outcome: str, step: str
) -> None:
    pattern = pattern.replace("' '", "\\ ").replace("'", "")
    monkeypatch.setitem(STANDINS, "sync", FAILING_SYNC.format(pattern=pattern, sync=shutil.which("sync")))
    before = node.contents()
    done = node.apply(node.edit(CONFIG, "v1beta1", "v1beta2"))
    assert (done.report.outcome, step in [step.name for step in done.report.steps]) == (outcome, True), done.report
    assert (node.contents() == before) == (outcome == "rolled_back")
    assert not (node.root / STATE / "journal").exists()
    monkeypatch.delitem(STANDINS, "sync")
    (node.root.parent / "standins/sync").unlink()
    kept = node.contents()
    assert node.apply(node.edit(ENVIRONMENT, "--v=2", "--v=4")).report.outcome == "applied"
    assert node.contents()["etc/default/kubeletconfig.json"] == kept["etc/default/kubeletconfig.json"]
    assert not [path for path in node.state() if "kubelet-guard" in path]


# What a report says


def test_the_reason_has_the_kubelets_own_last_error(node: FixableNode) -> None:
    node.log(
        "I0722 10:00:00.000000       1 server.go:1] starting",
        'E0722 10:00:01.000000       1 run.go:72] "command failed" err="no such field"',
        "I0722 10:00:02.000000       1 server.go:1] goodbye\x07",
    )
    done = node.apply(node.edit(CONFIG, "KubeletConfiguration", "REFUSE"))
    assert done.report.outcome == "rolled_back"
    assert done.report.reason == (
        "the restarted kubelet was not well: activating/auto-restart, restarted 5 times; its last log line: "
        'run.go:72] "command failed" err="no such field"'
    )


@pytest.mark.parametrize(
    ("messages", "shown"),
    [
        (["E0722 old", *(f"line {number}" for number in range(20))], "line 19"),
        (
            ["panic: it broke", "goroutine 1 [running]:", *(f"main.go:{number}" for number in range(40))],
            "panic: it broke",
        ),
    ],
)
def test_which_log_line_is_shown(node: FixableNode, messages: list[str], shown: str) -> None:
    node.log(*messages)
    node.unit(pid=0, ActiveState="failed", SubState="failed")
    assert node.apply().report.reason.endswith(f"; its last log line: {shown}")


def test_a_start_step_that_failed_is_named(node: FixableNode) -> None:
    node.log("kubelet.service: Control process exited, code=exited, status=1/FAILURE", pid=1)
    node.unit(pid=0, ActiveState="activating", SubState="auto-restart")
    assert node.apply().report.reason.endswith(
        "; its last log line: kubelet.service: Control process exited, code=exited, status=1/FAILURE"
    )


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("run: it is \x1b[31mred\u202e and ünï", "run: it is ?[31mred??? and ??n??"),
        (f"{'x' * 400} and what is wrong", f"{'x' * 60}...{'x' * 119} and what is wrong"),
        ("Object 'Kind' is missing in '{staticPodURL: canary}'", "Object 'Kind' is missing"),
        ("invalid: port, path: &TypeMeta{Kind:,}, &{canary", "invalid: port"),
        ("cannot unmarshal !!str `canary` into bool", "cannot unmarshal !!str `***` into bool"),
        ("get http://me:canary@host/a b@c failed", "get http://***@c failed"),
        ('Get "https://host/a?sig=canary&x=1": timeout', 'Get "https://host/a?*** timeout'),
        ('invalid argument "canary" for "--manifest-url-header" flag', "*** (one that may quote a secret"),
        ("Authorization: Bearer canary", "*** (one that may quote a secret"),
        ("the PASSWORD is canary", "*** (one that may quote a secret"),
        ("unknown flag: --authentication-token-webhook-x", "unknown flag: --authentication-token-webhook-x"),
        ("read 0123456789abcdefcanary0123 of it", "read *** of it"),
        ("field makeIPTablesUtilChainsAreNotKnownHere", "field makeIPTablesUtilChainsAreNotKnownHere"),
    ],
)
@SHELLS
def test_what_a_log_line_shows(node: FixableNode, shell: tuple[tuple[str, ...], str], message: str, shown: str) -> None:
    node.log(message)
    node.unit(pid=0, ActiveState="failed", SubState="failed")
    done = node.apply(node.edit(CONFIG, "v1beta1", "v1beta2"), shell=shell)
    assert done.report.outcome == "not_ready"
    assert done.report.reason.startswith(
        f"the kubelet was not well before, so nothing was touched: failed/failed, restarted 0 times;"
        f" its last log line: {shown}"
    ), done.report.reason
    assert b"canary" not in done.returned.stderr


def test_a_node_that_does_not_come_back_is_said_to_be_down(node: FixableNode) -> None:
    before = node.contents()
    node.write("/starts-no-more", "")
    node.log("run: the socket is gone")
    done = node.apply(node.edit(CONFIG, "v1beta1", "v1beta2"))
    assert done.report.outcome == "failed"
    assert done.report.reason == (
        "LOOK AT THIS NODE: its kubelet is down, though its files are as before: failed/failed, restarted 0 times;"
        " its last log line: run: the socket is gone. Undone: the restarted kubelet was not well: failed/failed,"
        " restarted 0 times; its last log line: run: the socket is gone"
    )
    found = node.contents()
    assert {path: found[path] for path in before} == before
    assert (node.root / STATE / "journal").exists(), "the next run or boot tries again"


def test_health_is_asked_where_it_is_served(node: FixableNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STANDINS, "curl", 'case "$*" in *" http://[::1]:9999/healthz") printf ok ;; esac')
    change = [node.edit(CONFIG, "v1beta1", "v1beta2")]

    def outcome(healthz: str) -> str:
        script = apply_script(
            change, present=(), absent=(), settle_seconds=1, limit_seconds=3, nonce=NONCE, healthz=healthz
        )
        return parse_report(node.run(script).stderr.decode(), NONCE).outcome

    assert outcome("127.0.0.1:10248") == "not_ready"
    assert outcome("[0::1]:9999") == "applied"
    change = [node.edit(CONFIG, "v1beta2", "v1beta1")]
    assert outcome("-") == "applied"


def test_a_stopped_process_is_not_well(node: FixableNode) -> None:
    stat = node.root / f"proc/{PID}/stat"
    stat.write_text(stat.read_text().replace(") S ", ") T "))
    done = node.apply(node.edit(CONFIG, "v1beta1", "v1beta2"))
    assert (done.report.outcome, "stopped by a signal" in done.report.reason) == ("not_ready", True)


@pytest.mark.parametrize(
    "healthz", ["", "10248", "localhost:10248", "127.0.0.1:0", "127.0.0.1:99999", "$(id):1", "fe80::1%eth0:1", "::1:x"]
)
def test_what_is_no_address_is_refused(healthz: str) -> None:
    with pytest.raises(CannotApply, match="not an address and a port"):
        apply_script([], present=(), absent=(), settle_seconds=1, limit_seconds=3, nonce=NONCE, healthz=healthz)


@SHELLS
def test_a_killed_run_is_finished_by_the_next(node: FixableNode, shell: tuple[tuple[str, ...], str]) -> None:
    before = node.contents()
    edits = [node.edit(CONFIG, "v1beta1", "v1beta2"), node.edit(ENVIRONMENT, "--v=2", "--v=4")]
    node.write("/die-at-restart", "")
    script = apply_script(edits, present=[], absent=[], settle_seconds=1, limit_seconds=3, nonce=NONCE)
    killed = node.run(script, *shell[0], path=shell[1], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert node.contents() != before
    with pytest.raises(FrameError):
        parse_report(killed.stderr.decode(), NONCE)
    done = node.apply(*edits, present=["--v=4"], shell=shell)
    assert done.report.outcome == "applied", done.report
    assert [step.name for step in done.report.steps][:4] == ["unfinished", "restored", "restored", "healthy"]
    assert b"v1beta2" in (node.root / CONFIG[1:]).read_bytes()
    assert len(node.backups()) == 1


def killed_at_restart(node: FixableNode, *edits: FileEdit) -> None:
    node.write("/die-at-restart", "")
    script = apply_script(edits, present=[], absent=[], settle_seconds=1, limit_seconds=3, nonce=NONCE)
    assert node.run(script, check=False).returncode == -signal.SIGKILL
    assert (node.root / STATE / "journal").exists()


def test_the_rollback_alone_finishes_a_killed_run(node: FixableNode) -> None:
    before = node.contents()
    killed_at_restart(node, node.edit(CONFIG, "v1beta1", "v1beta2"))
    (timer,) = node.calls("systemd-run")
    assert timer.endswith(f"--on-active=3s --timer-property=AccuracySec=1s /bin/sh {node.root / STATE}/rollback.sh")
    rollback = (node.root / STATE / "rollback.sh").read_text()
    first, again = node.run(rollback), node.run(rollback)
    assert first.stdout.decode().splitlines() == [
        f"restored {node.root}{CONFIG}",
        "healthy pid 5000, was restarted",
    ]
    assert again.stdout == b"", "nothing is left to undo"
    assert node.contents() == before
    assert node.restarts() == 2


def test_what_somebody_wrote_after_a_killed_run_is_kept(node: FixableNode) -> None:
    killed_at_restart(node, node.edit(CONFIG, "v1beta1", "v1beta2"), node.edit(ENVIRONMENT, "--v=2", "--v=4"))
    node.write(CONFIG, "{}", 0o600)
    done = node.apply()
    assert [step.name for step in done.report.steps][:3] == ["unfinished", "kept", "restored"]
    assert (node.root / CONFIG[1:]).read_bytes() == b"{}"
    assert b"--v=2" in (node.root / ENVIRONMENT[1:]).read_bytes()
    assert len(node.backups()) == 1, "the original of the kept file is only there"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is not one of ours"),
        ("KGJ1\nreplacing\n../../etc\n", "is not one of ours"),
        ("KGJ2\nreplacing\n20260101T000000Z-1\n", "is not one of ours"),
        ("KGJ1\nreplacing\n20260101T000000Z-1\n", "manifest is gone"),
    ],
)
def test_a_journal_that_cannot_be_followed_stops_everything(node: FixableNode, content: str, says: str) -> None:
    edit = node.edit(CONFIG, "v1beta1", "v1beta2")
    node.write(f"/{STATE}/journal", content)
    before = node.state()
    done = node.apply(edit)
    assert (done.report.outcome, node.restarts()) == ("failed", 0)
    assert says in done.report.reason
    assert node.state() == before


def test_lost_backup_is_said_plainly(node: FixableNode) -> None:
    killed_at_restart(node, node.edit(CONFIG, "v1beta1", "v1beta2"))
    (backup,) = node.backups()
    (backup / "1").write_text("something else")
    done = node.apply()
    assert done.report.outcome == "failed"
    assert done.report.reason.startswith("LOOK AT THIS NODE: an earlier run was cut off and cannot be rolled back: ")
    assert any(step.name == "not-restored" for step in done.report.steps)
    assert (node.root / STATE / "journal").exists()


@pytest.mark.parametrize(
    "wish", [{"present": ["--v=9"]}, {"absent": ["--v=4"]}, {"present": ["-"]}, {"present": ["/opt/bin"]}]
)
def test_rolls_back_where_the_process_has_other_arguments(node: FixableNode, wish: dict[str, list[str]]) -> None:
    before = node.contents()
    done = node.apply(node.edit(ENVIRONMENT, "--v=2", "--v=4"), **wish)  # type: ignore[arg-type]
    assert done.report.outcome == "rolled_back"
    assert re.match(r"the new process (runs without|still runs with) ", done.report.reason)
    assert node.contents() == before


def test_arguments_with_line_ends_and_patterns() -> None:
    script = apply_script([], present=["a\nb", "[x]*"], absent=[], settle_seconds=1, limit_seconds=2, nonce=NONCE)
    words = re.search(r"present='(.*)'", script)
    assert words is not None
    assert [base64.b64decode(word) for word in words[1].split()] == [b"a\x01b", b"[x]*"]


def untouched(node: FixableNode, before: dict[str, tuple[int, int, bytes]]) -> bool:
    return node.state() == before and node.restarts() == 0 and not (node.root / STATE / "journal").exists()


@SHELLS
def test_a_changed_file_stops_everything(node: FixableNode, shell: tuple[tuple[str, ...], str]) -> None:
    edits = [node.edit(ENVIRONMENT, "--v=2", "--v=4"), node.edit(CONFIG, "v1beta1", "v1beta2")]
    node.write(CONFIG, (node.root / CONFIG[1:]).read_bytes() + b" ", 0o600)
    before = node.state()
    done = node.apply(*edits, shell=shell)
    assert (done.report.outcome, done.report.reason) == ("changed_meanwhile", f"{CONFIG} has changed")
    assert untouched(node, before)
    assert done.pid == 4242, "the evidence comes all the same"


def test_a_file_that_changes_during_the_run_is_left_alone(node: FixableNode, monkeypatch: pytest.MonkeyPatch) -> None:
    write = 'case $* in *kubelet-guard/journal) echo >>"$KUBELET_GUARD_ROOT/etc/default/kubeletconfig.json" ;; esac'
    monkeypatch.setitem(STANDINS, "mv", f'{write}; exec {shutil.which("mv")} "$@"')
    edits = [node.edit(ENVIRONMENT, "--v=2", "--v=4"), node.edit(CONFIG, "v1beta1", "v1beta2")]
    before = node.contents()
    done = node.apply(*edits)
    assert (done.report.outcome, done.report.reason) == ("changed_meanwhile", f"{CONFIG} has changed")
    after = node.contents()
    assert after["etc/default/kubeletconfig.json"][1] == before["etc/default/kubeletconfig.json"][1] + b"\n"
    assert {**after, "etc/default/kubeletconfig.json": before["etc/default/kubeletconfig.json"]} == before
    assert (node.restarts(), node.backups(), (node.root / STATE / "journal").exists()) == (0, [], False)


def broken(node: FixableNode, kind: str) -> None:
    target = node.root / CONFIG[1:]
    text = target.read_bytes()
    target.unlink()
    if kind == "directory":
        target.mkdir()
    elif kind == "dangling":
        target.symlink_to("nowhere")
    elif kind == "fifo":
        os.mkfifo(target)
    elif kind == "same":
        (target.parent / "kubelet").unlink()
        target.write_bytes(text)
        (target.parent / "kubelet").symlink_to("kubeletconfig.json")


@pytest.mark.parametrize(
    ("kind", "outcome", "reason"),
    [
        ("gone", "changed_meanwhile", "is not there any more"),
        ("dangling", "changed_meanwhile", "is not there any more"),
        ("directory", "failed", "is not a regular file"),
        ("fifo", "failed", "is not a regular file"),
        ("same", "failed", "is the same file as another path"),
    ],
)
def test_what_is_no_file_of_its_own_is_not_touched(node: FixableNode, kind: str, outcome: str, reason: str) -> None:
    edit = node.edit(CONFIG, "v1beta1", "v1beta2")
    other = FileEdit(ENVIRONMENT, edit.digest, edit.splices, edit.new_digest)
    broken(node, kind)
    before = node.state() if kind != "fifo" else {}
    done = node.apply(edit, *([other] if kind == "same" else []))
    assert (done.report.outcome, reason in done.report.reason) == (outcome, True), done.report
    assert kind == "fifo" or untouched(node, before)


def test_a_hard_link_is_not_parted(node: FixableNode) -> None:
    (node.root / "etc/default/second name").hardlink_to(node.root / CONFIG[1:])
    before = node.state()
    done = node.apply(node.edit(ENVIRONMENT, "--v=2", "--v=4"), node.edit(CONFIG, "v1beta1", "v1beta2"))
    assert (done.report.outcome, untouched(node, before)) == ("failed", True)
    assert done.report.reason == f"{CONFIG} has a second name (a hard link), which would keep the old text"


@pytest.mark.parametrize("attribute", ["a", "i"])
@pytest.mark.parametrize("path", ["etc/default/kubeletconfig.json", "etc/default", "etc/systemd/system"])
def test_attributes_that_forbid_a_change(node: FixableNode, tmp_path: Path, path: str, attribute: str) -> None:
    with ext4(tmp_path) as top:
        shutil.copytree(node.root, top / "node", symlinks=True)
        there = FixableNode(top / "node")
        (top / "standins").mkdir()
        edits = [there.edit(ENVIRONMENT, "--v=2", "--v=4"), there.edit(CONFIG, "v1beta1", "v1beta2")]
        before = there.contents()
        subprocess.run(["chattr", f"+{attribute}", str(there.root / path)], check=True)
        try:
            done = there.apply(*edits)
        finally:
            subprocess.run(["chattr", f"-{attribute}", str(there.root / path)], check=True)
        assert done.report.outcome == "failed"
        assert (there.contents(), there.restarts()) == (before, 0)
        assert there.apply(*edits).report.outcome == "applied"


def test_a_link_stays_a_link(node: FixableNode) -> None:
    target = node.root / CONFIG[1:]
    target.rename(target.with_name("real.json"))
    target.symlink_to("real.json")
    done = node.apply(node.edit(CONFIG, "v1beta1", "v1beta2"))
    assert done.report.outcome == "applied"
    assert target.is_symlink()
    assert b"v1beta2" in target.with_name("real.json").read_bytes()


def test_an_edit_that_does_not_fit_is_not_made(node: FixableNode) -> None:
    file = node.file(CONFIG)
    before = node.state()
    wrong_old = FileEdit(CONFIG, file.digest, (Splice(1, 3, b"abc", b"x"),), None)
    wrong_new = FileEdit(CONFIG, file.digest, (Splice(1, 0, b"", b" "),), "0" * 64)
    for edit, says in ((wrong_old, "does not fit its text"), (wrong_new, "does not give the text that was planned")):
        done = node.apply(edit)
        assert (done.report.outcome, says in done.report.reason) == ("failed", True)
        assert untouched(node, before)
        assert node.backups() == []


def test_a_kubelet_that_was_not_well_before_is_left_alone(node: FixableNode) -> None:
    edit = node.edit(CONFIG, "v1beta1", "v1beta2")
    node.unit(pid=0, ActiveState="failed", SubState="failed")
    before = node.state()
    done = node.apply(edit)
    assert (done.report.outcome, untouched(node, before)) == ("not_ready", True)
    assert done.report.reason == (
        "the kubelet was not well before, so nothing was touched: failed/failed, restarted 0 times"
    )


def test_only_one_at_a_time(node: FixableNode) -> None:
    edit = node.edit(CONFIG, "v1beta1", "v1beta2")
    lock = node.write(f"/{STATE}/lock", "")
    before = node.state()
    with lock.open("a") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        done = node.apply(edit)
    assert (done.report.outcome, done.report.reason) == ("busy", "another run is changing this node")
    assert untouched(node, before)
    assert node.apply(edit).report.outcome == "applied"


@SHELLS
def test_the_lock_ends_with_the_script_and_not_with_its_children(
    node: FixableNode, shell: tuple[tuple[str, ...], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STANDINS, "sleep", f'echo $$ >"$KUBELET_GUARD_ROOT/asleep"; exec {shutil.which("sleep")} 30')
    edits = [node.edit(CONFIG, "KubeletConfiguration", "REFUSE")]
    script = apply_script(edits, present=[], absent=[], settle_seconds=1, limit_seconds=40, nonce=NONCE)
    process = node.start(script, *shell[0], path=shell[1])
    asleep = node.root / "asleep"
    deadline = time.monotonic() + 20
    while not (asleep.exists() and asleep.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with (node.root / STATE / "lock").open() as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process.kill()
        process.wait(10)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.kill(int(asleep.read_text()), signal.SIGKILL)  # it was still there
    process.communicate()


def test_the_timer_waits_while_the_script_lives(node: FixableNode) -> None:
    killed_at_restart(node, node.edit(CONFIG, "v1beta1", "v1beta2"))
    before = node.state()
    recovery = {path for path in before if "kubelet-guard" in path}
    assert len(recovery) == 2
    with (node.root / STATE / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        timer = node.start((node.root / STATE / "rollback.sh").read_text())
        with pytest.raises(subprocess.TimeoutExpired):
            timer.wait(0.7)
        assert node.state() == before
        (node.root / STATE / "journal").rename(node.root / "journal")  # as the script does when it is done
    assert timer.communicate(timeout=10)[0] == b""
    assert timer.returncode == 0
    changed = {"etc/systemd/system", WANTS}
    assert dict(node.state().items() ^ before.items()).keys() - changed == recovery, "nothing to undo, only to tidy up"


def test_restart_only_of_the_process_that_was_looked_at(node: FixableNode) -> None:
    script = apply_script([], present=(), absent=(), settle_seconds=1, limit_seconds=3, running_pid=PID, nonce=NONCE)
    first, second = (parse_report(node.run(script).stderr.decode(), NONCE) for _ in range(2))
    assert (first.outcome, node.restarts()) == ("applied", 1)
    assert (second.outcome, second.reason) == (
        "changed_meanwhile",
        "the kubelet was restarted since it was looked at",
    )
    assert node.restarts() == 1


def test_restart_only(node: FixableNode) -> None:
    node.write(ENVIRONMENT, "KUBELET_FLAGS=--v=7\n", 0o600)
    before = node.state()
    done = node.apply(present=["--v=7"])
    assert done.report.outcome == "applied"
    assert (node.restarts(), node.state() == before, node.backups()) == (1, True, [])
    assert node.apply(present=["--v=8"]).report.outcome == "failed"


def test_the_five_newest_backups_are_kept(node: FixableNode) -> None:
    for number in range(8):
        node.write(f"/{STATE}/backups/2020010{number}T000000Z-1/1", str(number))
    done = node.apply(node.edit(CONFIG, "v1beta1", "v1beta2"))
    assert done.report.outcome == "applied"
    kept = [path.name for path in node.backups()]
    assert kept[:4] == [f"2020010{number}T000000Z-1" for number in (4, 5, 6, 7)]
    assert len(kept) == 5


def test_without_a_timer_it_says_so(node: FixableNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STANDINS, "systemd-run", "exit 1")
    done = node.apply(node.edit(CONFIG, "v1beta1", "v1beta2"))
    assert done.report.outcome == "applied"
    assert any(step.name == "timer" and step.detail.startswith("none: ") for step in done.report.steps)


@pytest.mark.parametrize("blocked", ["var/lib/kubelet-guard", "var/lib/kubelet-guard/backups"])
def test_where_state_cannot_be_kept_nothing_is_touched(node: FixableNode, blocked: str) -> None:
    node.write(f"/{blocked}", "a file where a directory belongs")
    before = node.state()
    done = node.apply(node.edit(CONFIG, "v1beta1", "v1beta2"))
    assert (done.report.outcome, untouched(node, before)) == ("failed", True)
    assert "cannot write" in done.report.reason


def test_the_report_stays_small(node: FixableNode) -> None:
    paths = [f"/etc/{'long' * 40}{number:02}" for number in range(30)]
    for path in paths:
        node.write(path, "old")
    done = node.apply(*(node.edit(path, "old", "new") for path in paths))
    assert done.report.outcome == "applied"
    assert len(done.returned.stderr) < 3500


@pytest.mark.parametrize("unfinished", [False, True])
def test_is_clean_posix_sh(node: FixableNode, tmp_path: Path, unfinished: bool) -> None:
    checker = shutil.which("shellcheck")
    require(checker is not None, "shellcheck is not installed")
    edit, mode = node.edit(CONFIG, "v1beta1", "v1beta2"), node.mode_edit(CONFIG, 0o400)
    script = apply_script(
        [edit], modes=[mode], present=["a"], absent=["b"], settle_seconds=1, limit_seconds=9, nonce=NONCE
    )
    if unfinished:
        (encoded,) = re.findall(r"(?m)^rollback='(.*)'$", script)
        script = base64.b64decode(encoded).decode()
    (tmp_path / "script.sh").write_text(script)
    done = subprocess.run(
        [str(checker), "-s", "sh", str(tmp_path / "script.sh")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


# The edits, without a node


def shown(text: bytes, masked: bytes | None = None, *, whole: bool = True) -> File:
    visible = (text if masked is None else masked).decode("utf-8", "surrogateescape")
    return File("/etc/x", visible, 0o600, 0, 0, len(text), 0, hashlib.sha256(text).hexdigest(), whole)


def spliced(text: bytes, edit: FileEdit) -> bytes:
    for splice in reversed(edit.splices):
        assert text[splice.start : splice.start + splice.length] == splice.old
        text = text[: splice.start] + splice.new + text[splice.start + splice.length :]
    return text


words = st.lists(st.sampled_from([b"a", b"bb", b" ", b"\n", b"\r\n", b"\xc3", b"\xa4", b"=", b'"', b"x1"])).map(
    b"".join
)


@given(words, words)
@example(b"a\n" * 2500 + b"x", b"y" + b"a\n" * 2500)
@example(b"a " * 2500 + b"x", b"y" + b"a " * 2500)
def test_splices_make_the_new_text(old: bytes, new: bytes) -> None:
    if old == new:
        with pytest.raises(CannotApply, match="nothing would change"):
            file_edit(shown(old), new.decode("utf-8", "surrogateescape"))
        return
    edit = file_edit(shown(old), new.decode("utf-8", "surrogateescape"))
    assert spliced(old, edit) == new
    assert edit.new_digest == hashlib.sha256(new).hexdigest()
    end = -1
    for splice in edit.splices:
        assert splice.start > end, "ascending, and something unchanged between two"
        end = splice.start + splice.length
        assert splice.old[:1] != splice.new[:1] or not splice.old[:1]
        assert splice.old[-1:] != splice.new[-1:] or not splice.old[-1:]


def test_far_changes_are_splices_of_their_own() -> None:
    middle = ",".join(f'"key{number}":{number}' for number in range(300))
    old = f'{{"a":false,{middle},"b":false}}'.encode()
    edit = file_edit(shown(old), old.decode().replace("false", "true"))
    assert [(s.old, s.new) for s in edit.splices] == [(b"fals", b"tru"), (b"fals", b"tru")]


MASKED = b"KUBELET_FLAGS=--a=false --url=https://me:pass@host --b=false\nTOKEN=secret\n"
SEEN = b"KUBELET_FLAGS=--a=false --url=https://*******@host --b=false\nTOKEN=******\n"


def test_masked_values_are_never_touched() -> None:
    file = shown(MASKED, SEEN)
    edit = file_edit(file, SEEN.decode().replace("=false", "=true"))
    assert spliced(MASKED, edit) == MASKED.replace(b"=false", b"=true")
    assert edit.new_digest is None
    assert b"*" not in b"".join(s.old + s.new for s in edit.splices)
    refused = [
        SEEN.replace(b"TOKEN=******", b"TOKEN=x"),
        SEEN.replace(b"TOKEN=******", b"TOKEN=***x***"),
        SEEN.replace(b"TOKEN=******", b"TOKEN=*******"),
        SEEN.replace(b"TOKEN=******\n", b""),
        SEEN.replace(b"--a=false", b"--a=true --url=https://*******@host"),
        SEEN[:20],
    ]
    for new in refused:
        with pytest.raises(CannotApply, match="masked"):
            file_edit(file, new.decode())
    assert file_edit(shown(b"a*b"), "a*c").new_digest is not None, "a star of the file's own is a star"


def test_what_cannot_be_edited_says_why() -> None:
    with pytest.raises(CannotApply, match="not read whole"):
        file_edit(shown(b"a", whole=False), "b")
    with pytest.raises(CannotApply, match="NUL"):
        file_edit(shown(b"a"), "b\0")
    with pytest.raises(CannotApply, match="65,537 bytes"):
        file_edit(shown(b"a"), "b" * 65_537)
    with pytest.raises(CannotApply, match="not Unicode"):
        file_edit(shown(b"a"), "\ud800")


GOOD = FileEdit("/etc/x", "0" * 64, (Splice(0, 1, b"a", b"b"),))


@pytest.mark.parametrize(
    ("edits", "says"),
    [
        ([FileEdit("etc/x", "0" * 64, GOOD.splices)], "plain absolute path"),
        ([FileEdit("/etc/../x", "0" * 64, GOOD.splices)], "plain absolute path"),
        ([FileEdit("/etc/x\ny", "0" * 64, GOOD.splices)], "plain absolute path"),
        ([FileEdit("/etc/x", "0'; reboot; '", GOOD.splices)], "not a SHA-256"),
        ([FileEdit("/etc/x", "0" * 64, GOOD.splices, "$(reboot)")], "not a SHA-256"),
        ([FileEdit("/etc/x", "0" * 64, ())], "changes nothing"),
        ([FileEdit("/etc/x", "0" * 64, (Splice(0, 2, b"a", b"b"),))], "overlaps"),
        ([FileEdit("/etc/x", "0" * 64, (Splice(3, 1, b"a", b"b"), Splice(3, 1, b"a", b"b")))], "overlaps"),
        ([GOOD, GOOD], "more than one edit"),
        ([FileEdit(f"/etc/{number}", "0" * 64, GOOD.splices) for number in range(33)], "more than the 32"),
        ([FileEdit("/etc/x", "0" * 64, (Splice(0, 0, b"", b"b" * 150_000),))], "run command takes"),
    ],
)
def test_malformed_edits_are_refused(edits: list[FileEdit], says: str) -> None:
    with pytest.raises(CannotApply, match=says):
        apply_script(edits, present=[], absent=[], settle_seconds=1, limit_seconds=9, nonce=NONCE)


@pytest.mark.parametrize(("settle", "limit"), [(0, 9), (9, 9), (5, 101), (-1, 5)])
def test_times_that_cannot_be_kept_are_refused(settle: int, limit: int) -> None:
    with pytest.raises(CannotApply, match="is what can be kept"):
        apply_script([GOOD], present=[], absent=[], settle_seconds=settle, limit_seconds=limit, nonce=NONCE)


@pytest.mark.parametrize("argument", ["", "a\0b"])
def test_impossible_arguments_are_refused(argument: str) -> None:
    with pytest.raises(CannotApply, match="not an argument"):
        apply_script([GOOD], present=[argument], absent=[], settle_seconds=1, limit_seconds=9, nonce=NONCE)


@given(st.text(), st.binary(min_size=1), st.text(min_size=1).filter(lambda text: "\0" not in text))
def test_nothing_reaches_the_shell_but_base64(name: str, new: bytes, argument: str) -> None:
    edit = FileEdit("/etc/" + json.dumps(name).replace("/", "") + "x", "0" * 64, (Splice(0, 0, b"", new),))
    try:
        script = apply_script(
            [edit], present=[argument], absent=[argument], settle_seconds=1, limit_seconds=9, nonce=NONCE
        )
    except (CannotApply, UnicodeEncodeError):
        return
    values = re.findall(r"(?m)^(?:edits|present|absent|rollback)='(.*)'$", script)
    assert len(values) == 4
    assert all(re.fullmatch(r"[A-Za-z0-9+/=,: -]*", value) for value in values)


# The report


def report(body: str, outcome: str = "applied", digest: str = "", length: int | None = None, nonce: str = NONCE) -> str:
    digest = digest or hashlib.sha256(body.encode()).hexdigest()
    return f"{body}KGR2 {outcome} {len(body) if length is None else length} {nonce} {digest}\n"


def test_a_report_is_read_behind_noise() -> None:
    body = "step replaced /etc/a b\nstep timer\nreason it was not well\n"
    for noise in ("", "sh: warning\n", "step replaced /forged\n"):
        read = parse_report(noise + report(body, "rolled_back"), NONCE)
        assert read.outcome is ApplyOutcome.ROLLED_BACK
        assert read.reason == "it was not well"
        assert [(step.name, step.detail) for step in read.steps] == [("replaced", "/etc/a b"), ("timer", "")]
    assert parse_report(report(""), NONCE) == Report(ApplyOutcome.APPLIED, "", ())


@pytest.mark.parametrize(
    ("stderr", "says"),
    [
        ("", "does not end in its report"),
        ("step a b\n", "does not end in its report"),
        (report("step a b\n")[:-9], "does not end in its report"),
        (report("step a b\n") + "more\n", "does not end in its report"),
        (report("step a b\n")[5:], "truncated"),
        (report("step a b\n", length=3), "digest does not match"),
        (report("step a b\n", digest="0" * 64), "digest does not match"),
        (report("step a b\n").replace("step a", "step c"), "digest does not match"),
        (report("step a b\n", nonce="f" * 16), "answers another request"),
        (report("step a b\n").replace(f" {NONCE} ", " "), "does not end in its report"),
        (report("step a b\n", "splendid"), "unknown outcome"),
        (report("surprise\n"), "unknown line"),
        (report("reason a\nreason b\n"), "unknown line"),
    ],
)
def test_broken_reports(stderr: str, says: str) -> None:
    with pytest.raises(FrameError, match=says):
        parse_report(stderr, NONCE)


@given(st.text(max_size=500), st.text(alphabet="KGR2 step\nreason0af", max_size=200))
def test_arbitrary_output_is_refused_and_never_crashes(noise: str, body: str) -> None:
    with pytest.raises(FrameError):
        parse_report(noise, NONCE)
    try:
        read = parse_report(report(body, "failed"), NONCE)
    except FrameError:
        return
    assert read.outcome is ApplyOutcome.FAILED


def test_bounds_agree_with_the_collect_script() -> None:
    assert f"max_bytes={fixing.MAX_FILE_BYTES} " in frames.collect_source()
