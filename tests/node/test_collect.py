"""The collect script under several shells and tool sets: what it reads, what it masks, and that it leaves nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from shared.controls import control, judge
from shared.node import frames
from tests.support.folder_node import BOOT, FolderNode
from tests.support.require import require


def test_reads_what_the_kubelet_runs_with(folder_node: FolderNode, shell: tuple[tuple[str, ...], str]) -> None:
    command, path = shell
    seen = folder_node.collect(*command, path=path)
    assert seen.argv == (
        "/opt/bin/kubelet",
        "--node-labels=agentpool=**,team=********",
        "--config",
        "/etc/default/kubeletconfig.json",
        "--v=2",
    )
    assert seen.started == BOOT + 123.45
    assert (seen.active_state, seen.sub_state, seen.restarts, seen.healthz) == ("active", "running", 0, "ok")
    assert seen.units == (
        "/etc/systemd/system/kubelet.service",
        "/etc/systemd/system/kubelet.service.d/10-componentconfig.conf",
    )
    assert seen.environments == ("/etc/default/kubelet",)
    assert set(seen.files) == {*seen.units, *seen.environments, "/etc/default/kubeletconfig.json"}
    config = seen.files["/etc/default/kubeletconfig.json"]
    real = folder_node.root / "etc/default/kubeletconfig.json"
    assert config.text == real.read_text()
    assert (config.mode, config.uid, config.size, config.whole) == (0o600, os.getuid(), real.stat().st_size, True)
    assert config.changed == int(real.stat().st_ctime)
    assert not seen.gone
    assert not seen.overflow


def test_masks_what_no_control_needs(folder_node: FolderNode, shell: tuple[tuple[str, ...], str]) -> None:
    command, path = shell
    environment = (
        "# a comment\nKUBELET_FLAGS=--v=2 \\\n  --registry=https://me:pass@registry\n"
        'TOKEN="s3cret \\\n more" \nMULTI="a\nhidden line"\n; other\n'
        "KUBELET_NODE_LABELS=agentpool=np,team=payments"
    )
    real = folder_node.write("/etc/default/kubelet", environment, 0o600)
    seen = folder_node.collect(*command, path=path).files["/etc/default/kubelet"]
    assert len(seen.text) == len(environment), "masking must keep every offset"
    assert seen.text == (
        "# a comment\nKUBELET_FLAGS=--v=2 \\\n  --registry=https://*******@registry\n"
        'TOKEN="****** \\\n ****" \nMULTI="*\n****** ****"\n; other\n'
        "KUBELET_NODE_LABELS=agentpool=**,team=********"
    )
    assert seen.digest == hashlib.sha256(real.read_bytes()).hexdigest()
    assert seen.whole


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\n\n\n",
        b"a",
        b"a\n",
        b"a\r\nb\r\n",
        b"caf\xc3\xa9\n",
        b"\xff\xfe broken \x80\n",
        b"% $x `y` 'z' \\n\n",
    ],
)
def test_carries_every_text_exactly(
    folder_node: FolderNode, shell: tuple[tuple[str, ...], str], content: bytes
) -> None:
    command, path = shell
    folder_node.write("/etc/default/kubeletconfig.json", content)
    seen = folder_node.collect(*command, path=path).files["/etc/default/kubeletconfig.json"]
    assert seen.text.encode("utf-8", "surrogateescape") == content
    assert seen.whole
    assert seen.digest == hashlib.sha256(content).hexdigest()


def test_nul_bytes_and_size_make_a_file_not_whole(folder_node: FolderNode, shell: tuple[tuple[str, ...], str]) -> None:
    command, path = shell
    folder_node.write("/etc/default/kubeletconfig.json", b"a\0b")
    folder_node.write("/etc/default/kubelet", b"KUBELET_FLAGS=" + b"x" * 70_000)
    files = folder_node.collect(*command, path=path).files
    assert not files["/etc/default/kubeletconfig.json"].whole
    assert not files["/etc/default/kubelet"].whole
    assert files["/etc/default/kubelet"].size == 70_014


def test_reads_configuration_directories(folder_node: FolderNode, shell: tuple[tuple[str, ...], str]) -> None:
    command, path = shell
    folder_node.process("kubelet", "--config-dir=/etc/kubernetes/kubelet.conf.d", "--config", "/missing.yaml", "a\nb")
    folder_node.write("/etc/kubernetes/kubelet.conf.d/10-a.conf", "a: 1\n")
    folder_node.write("/etc/kubernetes/kubelet.conf.d/sub/20 b.conf", "b: 2\n")
    folder_node.write("/etc/kubernetes/kubelet.conf.d/10-a.conf.bak", "no\n")
    seen = folder_node.collect(*command, path=path)
    assert seen.argv[-1] == "a\nb"
    assert seen.files["/etc/kubernetes/kubelet.conf.d/10-a.conf"].text == "a: 1\n"
    assert seen.files["/etc/kubernetes/kubelet.conf.d/sub/20 b.conf"].text == "b: 2\n"
    assert set(seen.directories) == {"/etc/kubernetes/kubelet.conf.d", "/etc/kubernetes/kubelet.conf.d/sub"}
    assert seen.gone == {"/missing.yaml"}
    assert "/etc/kubernetes/kubelet.conf.d/10-a.conf.bak" not in seen.files


def test_no_process(folder_node: FolderNode, shell: tuple[tuple[str, ...], str]) -> None:
    command, path = shell
    folder_node.unit(pid=0, ActiveState="activating", SubState="auto-restart", NRestarts="17")
    seen = folder_node.collect(*command, path=path)
    assert (seen.pid, seen.argv, seen.started) == (0, (), None)
    assert (seen.active_state, seen.sub_state, seen.restarts) == ("activating", "auto-restart", 17)
    assert "/etc/systemd/system/kubelet.service" in seen.files


def test_too_many_files_says_so(folder_node: FolderNode) -> None:
    folder_node.process("kubelet", "--config-dir=/etc/kubernetes/kubelet.conf.d")
    for number in range(80):
        folder_node.write(f"/etc/kubernetes/kubelet.conf.d/{number:02}.conf", "a: 1\n")
    assert folder_node.collect().overflow


def test_a_large_node_is_fetched_in_parts(folder_node: FolderNode, shell: tuple[tuple[str, ...], str]) -> None:
    command, path = shell
    # Hexadecimal digits of a digest chain hardly compress: about 30 kB packed.
    text = "".join(hashlib.sha256(str(number).encode()).hexdigest() for number in range(900))
    folder_node.write("/etc/default/kubeletconfig.json", text)
    first = folder_node.run(frames.collect_script(1), *command, path=path)
    assert frames.parse(first.stdout.decode()).parts > 4
    assert len(first.stdout) <= 4096
    assert len(first.stderr) <= 4096
    assert folder_node.collect(*command, path=path).files["/etc/default/kubeletconfig.json"].text == text


def test_leaves_nothing_behind(folder_node: FolderNode, tmp_path: Path) -> None:
    def state() -> dict[str, tuple[int, int, bytes]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in sorted(folder_node.root.rglob("*"))
        }

    before = state()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    folder_node.run(f"export TMPDIR={temporary}\n" + frames.collect_script())
    assert state() == before
    assert not list(temporary.iterdir())


def test_is_clean_posix_sh(tmp_path: Path) -> None:
    checker = shutil.which("shellcheck")
    require(checker is not None, "shellcheck is not installed")
    script = tmp_path / "collect.sh"
    script.write_text(frames.collect_script())
    done = subprocess.run([str(checker), "-s", "sh", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_secrets_stay_on_the_node(folder_node: FolderNode, shell: tuple[tuple[str, ...], str]) -> None:
    command, path = shell
    dropin = "/etc/systemd/system/kubelet.service.d/20-x.conf"
    text = (
        '[Service]\nEnvironment="API_TOKEN=SECRET1" KUBELET_FLAGS=--kept=1\r\n'
        "Environment=HTTP_PROXY=http://user:pa@SECRET2@proxy:1\nEnvironment=P2=http://user:pa/SECRET3@proxy:1\n"
        "Environment='A=one SECRET4' \\\n  \"B=SECRET5\"\n"
    )
    folder_node.write(dropin, text)
    folder_node.unit(f"/etc/systemd/system/kubelet.service.d/10-componentconfig.conf {dropin}")
    environment = 'KUBELET_FLAGS=--v=2\nPEM="-----BEGIN\nSECRET6=abc\n#SECRET7\n"\nAFTER=SECRET8\n'
    folder_node.write("/etc/default/kubelet", environment)
    folder_node.process("kubelet", "--manifest-url-header=Authorization:SECRET9", "--manifest-url-header", "A:SECRET10")
    config = '{\n  "staticPodURLHeader": {\n    "Authorization": ["SECRET11"]\n  },\n  "maxPods": 110\n}'
    folder_node.write("/etc/default/kubeletconfig.json", config)
    folder_node.write("/etc/k.d/1.conf", "staticPodURLHeader:\n  Authorization: [SECRET12]\nmaxPods: 5\n")
    folder_node.process(
        *("kubelet", "--config=/etc/default/kubeletconfig.json", "--config-dir=/etc/k.d"),
        *("--manifest-url-header=Authorization:SECRET9", "--manifest-url-header", "A:SECRET10"),
    )
    seen = folder_node.collect(*command, path=path)
    everything = repr(seen.argv) + "".join(file.text for file in seen.files.values())
    assert "SECRET" not in everything
    assert "KUBELET_FLAGS=--kept=1\r\n" in seen.files[dropin].text
    assert len(seen.files[dropin].text) == len(text)
    assert json.loads(seen.files["/etc/default/kubeletconfig.json"].text)["maxPods"] == 110
    assert seen.files["/etc/k.d/1.conf"].text.endswith("maxPods: 5\n")
    assert len(seen.files["/etc/default/kubelet"].text) == len(environment)


@pytest.mark.parametrize(
    "given", ["/etc/kubernetes/kubelet.d/", "//etc//kubernetes/./kubelet.d", "etc/kubernetes/kubelet.d", "/etc/my dir"]
)
@pytest.mark.parametrize("words", [1, 2])
def test_directories_in_every_spelling(folder_node: FolderNode, given: str, words: int) -> None:
    plain = "/etc/my dir" if " " in given else "/etc/kubernetes/kubelet.d"
    text = '{"kind":"KubeletConfiguration","apiVersion":"kubelet.config.k8s.io/v1beta1","makeIPTablesUtilChains":false}'
    folder_node.write(f"{plain}/10.conf", text)
    flag = [f"--config-dir={given}"] if words == 1 else ["--config-dir", given]
    folder_node.process("/opt/bin/kubelet", "--config", "/etc/default/kubeletconfig.json", *flag)
    seen = replace(folder_node.collect(), started=2e10)
    assert plain in seen.directories
    verdict = judge(control("3.2.6"), seen)
    assert (verdict.status, verdict.actual) == ("fail", False), verdict


def test_a_directory_that_leads_upwards_is_said_to_be_missing(folder_node: FolderNode) -> None:
    folder_node.process("/opt/bin/kubelet", "--config-dir=/etc/../etc/k.d")
    verdict = judge(control("3.2.6"), folder_node.collect())
    assert (verdict.status, verdict.code) == ("error", "config_unreadable")


def test_environment_files_that_wait_for_daemon_reload_are_read(folder_node: FolderNode) -> None:
    folder_node.write("/etc/default/extra", "KUBELET_FLAGS=--make-iptables-util-chains=false\n")
    folder_node.write(
        "/etc/systemd/system/kubelet.service.d/20-e.conf", "[Service]\nEnvironmentFile=-/etc/default/extra\n"
    )
    folder_node.unit("/etc/systemd/system/kubelet.service.d/10-componentconfig.conf", NeedDaemonReload="yes")
    seen = replace(folder_node.collect(), started=2e10)
    assert "/etc/default/extra" in seen.files
    verdict = judge(control("3.2.6"), seen)
    assert (verdict.status, verdict.code) == ("fail", "wrong_after_restart"), verdict
