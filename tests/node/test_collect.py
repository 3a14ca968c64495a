"""The collect script under several shells and tool sets: what it reads, how it follows paths, what it leaves alone."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from sandbox import node
from sandbox.fleet import members
from shared.controls import absolute, builtin, control, judge, read
from shared.kubelet import named_by
from shared.models import Condition, Health, Link, Listing, Metadata
from shared.node import frames
from shared.node.frames import MissingTools
from tests.support.fleets import fleet
from tests.support.folder_node import BOOT_ID, HEALTHZ, NONCE, PID, FolderNode
from tests.support.require import require

Shell = tuple[tuple[str, ...], str]

CONFIG = "/etc/default/kubeletconfig.json"
CONFIG_DIR = "/etc/kubernetes/kubelet.conf.d"
UNIT = "/etc/systemd/system/kubelet.service"
DROPIN = "/etc/systemd/system/kubelet.service.d/10-componentconfig.conf"
FALSE = '{"kind":"KubeletConfiguration","apiVersion":"kubelet.config.k8s.io/v1beta1","makeIPTablesUtilChains":false}'


def test_reads_what_the_kubelet_runs_with(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    seen = folder_node.collect(*command, path=path)
    process = seen.process
    assert process is not None
    assert process.argv == (
        "/opt/bin/kubelet",
        "--node-labels=agentpool=xx,team=xxxxxxxx",
        "--config",
        CONFIG,
        "--v=2",
    )
    assert (process.boot_id, process.pid, process.state, process.directory) == (BOOT_ID, PID, "S", "/")
    assert (seen.active_state, seen.sub_state, seen.restarts) == ("active", "running", 0)
    assert seen.health == (Health("127.0.0.1", 10248, "ok"),)
    assert seen.units == (UNIT, DROPIN)
    assert seen.environments == ("/etc/default/kubelet",)
    assert set(seen.files) == {*seen.units, *seen.environments, CONFIG}
    config = seen.files[CONFIG]
    real = folder_node.at(CONFIG)
    assert config.text == real.read_text()
    assert (config.mode, config.uid, config.size, config.whole) == (0o600, os.getuid(), real.stat().st_size, True)
    assert config.changed == real.stat().st_ctime_ns
    assert seen.directories["/etc/default"] == real.parent.stat().st_ctime_ns
    assert not seen.gone
    assert not seen.overflow


def test_the_times_of_a_process(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    seen = folder_node.collect(*command, path=path)
    process = seen.process
    assert process is not None
    assert process.started is not None
    assert process.started_monotonic is not None
    assert process.ticks == process.started_monotonic // 10_000_000
    assert seen.files[CONFIG].changed < process.started < time.time_ns()
    if seen.uptime:  # busybox's date has no fraction: then the clocks cannot be compared
        assert abs((seen.collected - seen.uptime) - (process.started - process.started_monotonic)) < 15_000_000
    else:
        assert command[0].endswith("busybox")


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
def test_carries_every_text_exactly(folder_node: FolderNode, shell: Shell, content: bytes) -> None:
    command, path = shell
    folder_node.write(CONFIG, content)
    seen = folder_node.collect(*command, path=path).files[CONFIG]
    assert seen.text.encode("utf-8", "surrogateescape") == content
    assert seen.whole
    assert seen.digest == hashlib.sha256(content).hexdigest()


def test_nul_bytes_and_size_make_a_file_not_whole(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    folder_node.write(CONFIG, b"a\0b")
    folder_node.write("/etc/default/kubelet", b"KUBELET_FLAGS=" + b"x" * 70_000)
    files = folder_node.collect(*command, path=path).files
    assert not files[CONFIG].whole
    assert not files["/etc/default/kubelet"].whole
    assert files["/etc/default/kubelet"].size == 70_014


def test_no_process(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    folder_node.unit(pid=0, ActiveState="activating", SubState="auto-restart", NRestarts="17")
    seen = folder_node.collect(*command, path=path)
    assert seen.process is None
    assert (seen.active_state, seen.sub_state, seen.restarts) == ("activating", "auto-restart", 17)
    assert UNIT in seen.files
    assert seen.health == ()


def test_too_many_files_says_so(folder_node: FolderNode) -> None:
    folder_node.process("kubelet", "--config-dir=/etc/kubernetes/kubelet.conf.d")
    for number in range(80):
        folder_node.write(f"/etc/kubernetes/kubelet.conf.d/{number:02}.conf", "a: 1\n")
    assert folder_node.collect().overflow


def test_a_large_node_is_fetched_in_parts(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    # Hexadecimal digits of a digest chain hardly compress: about 13 kB packed.
    text = "".join(hashlib.sha256(str(number).encode()).hexdigest() for number in range(360))
    folder_node.write(CONFIG, text)
    first = folder_node.run(frames.collect_script(1, NONCE), *command, path=path)
    assert frames.parse(first.stdout.decode(), NONCE).parts > 4
    assert len(first.stdout) <= 4096
    assert len(first.stderr) <= 4096
    assert folder_node.collect(*command, path=path).files[CONFIG].text == text


@pytest.mark.parametrize("state", ["compliant_default", "compliant_file", "false_dropin", "large"])
def test_a_node_of_real_size_takes_one_call(tmp_path: Path, state: str) -> None:
    folder, *_ = node.make([*members(fleet(state))], tmp_path).values()
    script = frames.collect_script(1, NONCE)
    done = subprocess.run(["sh", "-c", script], env=dict(folder.environment()), capture_output=True, check=True)
    parts = frames.parse_streams(done.stdout.decode(), done.stderr.decode(), NONCE)
    assert parts[0].parts == 1, "one frame holds a usual node"
    assert sum(len(part.text) for part in parts) == parts[0].length


def test_leaves_nothing_behind(folder_node: FolderNode, tmp_path: Path) -> None:
    def state() -> dict[str, tuple[int, int, bytes]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in sorted(folder_node.root.rglob("*"))
            if not path.is_symlink()
        }

    before = state()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    folder_node.run(f"export TMPDIR={temporary}\n" + frames.collect_script(1, NONCE))
    assert state() == before
    assert not list(temporary.iterdir())


def test_is_clean_posix_sh(tmp_path: Path) -> None:
    checker = shutil.which("shellcheck")
    require(checker is not None, "shellcheck is not installed")
    script = tmp_path / "collect.sh"
    script.write_text(frames.collect_script(1, NONCE))
    done = subprocess.run([str(checker), "-s", "sh", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# --- the way to a file


def test_links_are_followed_inside_the_node(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    folder_node.write("/opt/v2/etc/k.json", "a: 1\n")
    folder_node.link("/opt/current", "v2")
    folder_node.link("/opt/cfg", "/opt/current/etc")  # absolute: from the node's root, not this machine's
    folder_node.link(CONFIG, "../../opt/cfg/k.json")
    seen = folder_node.collect(*command, path=path)
    assert seen.files[CONFIG].text == "a: 1\n"
    assert {path: link.target for path, link in seen.links.items()} == {
        CONFIG: "../../opt/cfg/k.json",
        "/opt/cfg": "/opt/current/etc",
        "/opt/current": "v2",
    }
    assert seen.links["/opt/current"] == Link("v2", folder_node.at("/opt/current").lstat().st_ctime_ns)
    assert {"/opt", "/opt/v2", "/opt/v2/etc"} <= set(seen.directories)


@pytest.mark.parametrize("target", ["kubeletconfig.json", "/etc/passwd", "/nowhere", "/etc/default", "../../../../.."])
def test_links_that_lead_nowhere(folder_node: FolderNode, target: str) -> None:
    folder_node.link(CONFIG, target)
    seen = folder_node.collect()
    assert seen.gone == {CONFIG}
    assert CONFIG not in seen.files
    assert seen.links[CONFIG].target == target


def test_a_relative_path_is_of_the_working_directory(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    folder_node.write("/kubeletconfig.json", "decoy: 1\n")
    folder_node.process("/opt/bin/kubelet", "--config=./kubeletconfig.json", cwd="/etc/default")
    seen = folder_node.collect(*command, path=path)
    assert seen.process is not None
    assert seen.process.directory == "/etc/default"
    assert CONFIG in seen.files
    assert "/kubeletconfig.json" not in seen.files


def test_a_process_with_a_root_of_its_own(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    folder_node.write(f"/opt/root{CONFIG}", FALSE)
    folder_node.link("/opt/root/etc/k.json", CONFIG)
    folder_node.process("/opt/bin/kubelet", "--config=k.json", cwd=str(folder_node.at("/opt/root/etc")))
    folder_node.root_of_process("/opt/root")
    seen = folder_node.collect(*command, path=path)
    assert seen.process is not None
    assert (seen.process.root, seen.process.directory) == (str(folder_node.at("/opt/root")), "/etc")
    config = seen.files["/etc/k.json"]
    assert (config.text, config.hosted) == (FALSE, False)
    assert seen.files[UNIT].hosted


def test_a_masked_dropin_is_empty_and_hides_others(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    folder_node.link(f"{UNIT}.d/90-team.conf", "/dev/null")
    folder_node.write("/usr/lib/systemd/system/kubelet.service.d/90-team.conf", "[Service]\n")
    folder_node.unit(f"{DROPIN} {UNIT}.d/90-team.conf", NeedDaemonReload="yes")
    seen = folder_node.collect(*command, path=path)
    assert seen.units == (UNIT, DROPIN, f"{UNIT}.d/90-team.conf")
    assert (seen.files[f"{UNIT}.d/90-team.conf"].text, seen.files[f"{UNIT}.d/90-team.conf"].whole) == ("", True)
    assert not seen.gone


@pytest.mark.parametrize("how", ["written", "linked", "masked"])
def test_a_unit_file_before_the_loaded_one(folder_node: FolderNode, shell: Shell, how: str) -> None:
    command, path = shell
    loaded, now = "/usr/lib/systemd/system/kubelet.service", "/etc/systemd/system/kubelet.service"
    folder_node.write(loaded, "[Service]\nExecStart=/bin/kubelet\n")
    folder_node.at(now).unlink()
    folder_node.unit(FragmentPath=loaded)
    if how == "written":
        folder_node.write(now, "[Service]\nExecStart=/bin/kubelet --v=2\n")
    else:
        folder_node.link(now, "/dev/null" if how == "masked" else str(folder_node.at(loaded)))
    seen = folder_node.collect(*command, path=path)
    assert seen.units == ((loaded,) if how == "linked" else (now, DROPIN))
    assert seen.needs_daemon_reload is (how != "linked")


# --- configuration directories


def test_a_configuration_directory_is_walked_as_the_kubelet_does(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    for name in ("10-a.conf", "sub/20 b.conf", "10-a.conf.bak", "README", ".conf", "-x.conf", "dir.conf/in.conf", "z"):
        folder_node.write(f"{CONFIG_DIR}/{name}", "a: 1\n")
    folder_node.write("/opt/elsewhere/no.conf", "a: 1\n")
    folder_node.link(f"{CONFIG_DIR}/linked-directory", "/opt/elsewhere")
    folder_node.link(f"{CONFIG_DIR}/linked.conf", "/opt/elsewhere/no.conf")
    folder_node.link(f"{CONFIG_DIR}/gone.conf", "/opt/elsewhere/nothing")
    folder_node.link(f"{CONFIG_DIR}/to-directory.conf", "/opt/elsewhere")
    folder_node.process("kubelet", f"--config-dir={CONFIG_DIR}", "--config", "/missing.yaml", "a\nb")
    seen = folder_node.collect(*command, path=path)
    assert seen.process is not None
    assert seen.process.argv[-1] == "a\nb"
    names = (
        *("-x.conf", ".conf", "10-a.conf", "dir.conf/in.conf"),
        *("gone.conf", "linked.conf", "sub/20 b.conf", "to-directory.conf"),
    )
    directories = (CONFIG_DIR, f"{CONFIG_DIR}/dir.conf", f"{CONFIG_DIR}/sub")
    assert seen.listings == {CONFIG_DIR: Listing(tuple(f"{CONFIG_DIR}/{name}" for name in names), directories)}
    assert seen.gone == {"/missing.yaml", f"{CONFIG_DIR}/gone.conf", f"{CONFIG_DIR}/to-directory.conf"}
    assert {path for path in seen.files if path.startswith(CONFIG_DIR)} == {
        f"{CONFIG_DIR}/{name}" for name in names if name not in ("gone.conf", "to-directory.conf")
    }
    assert set(directories) <= set(seen.directories)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_configuration_directory_that_is_a_link(folder_node: FolderNode, shell: Shell, slash: str) -> None:
    command, path = shell
    folder_node.write("/opt/conf.d/10-a.conf", "a: 1\n")
    folder_node.link(CONFIG_DIR, "../../opt/conf.d")
    folder_node.process("kubelet", f"--config-dir={CONFIG_DIR}{slash}")
    seen = folder_node.collect(*command, path=path)
    walked = Listing((f"{CONFIG_DIR}/10-a.conf",), (CONFIG_DIR,)) if slash else Listing((), ())
    assert seen.listings == {f"{CONFIG_DIR}{slash}": walked}
    assert (f"{CONFIG_DIR}/10-a.conf" in seen.files) is bool(slash)
    assert seen.links[CONFIG_DIR].target == "../../opt/conf.d"
    assert not seen.gone


def test_a_directory_with_very_many_names_is_not_known(folder_node: FolderNode) -> None:
    for number in range(1001):
        folder_node.write(f"{CONFIG_DIR}/{number}", "")
    folder_node.process("kubelet", f"--config-dir={CONFIG_DIR}")
    assert folder_node.collect().listings == {CONFIG_DIR: None}


def test_a_link_that_is_named_like_a_dropin_is_one(folder_node: FolderNode) -> None:
    folder_node.write("/opt/a.conf", "a: 1\n")
    folder_node.link("/etc/k.conf", "/opt/a.conf")
    folder_node.process("kubelet", "--config-dir=/etc/k.conf")
    seen = folder_node.collect()
    assert seen.listings == {"/etc/k.conf": Listing(("/etc/k.conf",), ())}
    assert seen.files["/etc/k.conf"].text == "a: 1\n"


def test_a_configuration_directory_that_is_not_there(folder_node: FolderNode) -> None:
    folder_node.process("kubelet", "--config-dir=/etc/none.d/")
    seen = folder_node.collect()
    assert seen.listings == {"/etc/none.d/": None}
    assert seen.gone == {"/etc/none.d"}


@pytest.mark.parametrize("name", ["a\nb.conf", "\x1b[31m.conf", "caf\xe9.conf", "\udcff.conf"])
def test_a_name_that_cannot_be_told_makes_the_listing_unknown(folder_node: FolderNode, shell: Shell, name: str) -> None:
    command, path = shell
    folder_node.write(f"{CONFIG_DIR}/10-a.conf", "a: 1\n")
    folder_node.write(f"{CONFIG_DIR}/{name}", "a: 1\n")
    folder_node.process("kubelet", f"--config-dir={CONFIG_DIR}")
    assert folder_node.collect(*command, path=path).listings == {CONFIG_DIR: None}


@pytest.mark.parametrize("name", ["a\nb", "LIESMICH-f\xfcr-alle", "\udcff", "\x1b[31m"])
def test_a_name_that_does_not_count_may_be_anything(folder_node: FolderNode, shell: Shell, name: str) -> None:
    command, path = shell
    folder_node.write(f"{CONFIG_DIR}/10-a.conf", "a: 1\n")
    folder_node.write(f"{CONFIG_DIR}/{name}", "a: 1\n")
    folder_node.process("kubelet", f"--config-dir={CONFIG_DIR}")
    known = Listing((f"{CONFIG_DIR}/10-a.conf",), (CONFIG_DIR,))
    assert folder_node.collect(*command, path=path).listings == {CONFIG_DIR: known}


@pytest.mark.parametrize("name", ["a\nb", "f\xfcr", "\udcff"])
def test_a_directory_whose_name_cannot_be_told(folder_node: FolderNode, shell: Shell, name: str) -> None:
    command, path = shell
    folder_node.write(f"{CONFIG_DIR}/{name}/10-a.conf", "a: 1\n")
    folder_node.process("kubelet", f"--config-dir={CONFIG_DIR}")
    assert folder_node.collect(*command, path=path).listings == {CONFIG_DIR: None}


@pytest.mark.parametrize(
    ("mounts", "points"),
    [
        (["/etc/kubernetes"], ["/etc/kubernetes"]),  # over the directory of the link
        (["/srv", "/opt"], ["/opt"]),
        (["/opt", "/opt/real"], ["/opt", "/opt/real"]),
        (["/opt", "/opt"], ["/opt", "/opt"]),
    ],
)
def test_every_mount_on_the_way(folder_node: FolderNode, shell: Shell, mounts: list[str], points: list[str]) -> None:
    command, path = shell
    folder_node.write("/opt/real/kubelet.yaml", "a: 1\n")
    folder_node.link("/etc/kubernetes/kubelet.yaml", "/opt/real/kubelet.yaml")
    folder_node.process("kubelet", "--config=/etc/kubernetes/kubelet.yaml")
    lines = ["1 0 8:1 / / rw - ext4 /dev/sda1 rw"]
    lines += [f"{number} 1 8:2 /x {point} rw - ext4 /dev/sdb rw" for number, point in enumerate(mounts, 2)]
    folder_node.write(f"/proc/{PID}/mountinfo", "\n".join(lines) + "\n")
    seen = folder_node.collect(*command, path=path)
    assert [mount.point for mount in seen.mounts] == points


def test_a_mount_of_its_own_root_over_itself_shows_the_same(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    lines = [
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw",
        "2 1 0:9 / /etc rw - overlay o rw",
        "3 2 0:9 / /etc ro - overlay o rw",
    ]
    folder_node.write(f"/proc/{PID}/mountinfo", "\n".join(lines) + "\n")
    seen = folder_node.collect(*command, path=path)
    assert [mount.same for mount in seen.mounts] == [False, True]


@pytest.mark.parametrize(
    "given", ["/etc/kubernetes/kubelet.d/", "//etc//kubernetes/./kubelet.d", "etc/kubernetes/kubelet.d", "/etc/my dir"]
)
@pytest.mark.parametrize("words", [1, 2])
def test_directories_in_every_spelling(folder_node: FolderNode, given: str, words: int) -> None:
    plain = "/etc/my dir" if " " in given else "/etc/kubernetes/kubelet.d"
    folder_node.write(f"{plain}/10.conf", FALSE)
    flag = [f"--config-dir={given}"] if words == 1 else ["--config-dir", given]
    folder_node.process("/opt/bin/kubelet", "--config", CONFIG, *flag, version="v1.36.3")
    seen = folder_node.collect()
    assert plain in seen.directories
    verdict = judge(control("3.2.6"), seen)
    assert (verdict.status, verdict.actual) == ("fail", False), verdict


def test_a_directory_that_leads_upwards_is_said_to_be_missing(folder_node: FolderNode) -> None:
    folder_node.process("/opt/bin/kubelet", "--config-dir=/etc/../etc/k.d")
    assert judge(control("3.2.6"), folder_node.collect()).status == "error"


def test_environment_files_that_wait_for_daemon_reload_are_read(folder_node: FolderNode) -> None:
    folder_node.write("/etc/default/extra", "KUBELET_FLAGS=--make-iptables-util-chains=false\n")
    folder_node.write(f"{UNIT}.d/20-e.conf", "[Service]\nEnvironmentFile=-/etc/default/extra\n")
    folder_node.unit(DROPIN, NeedDaemonReload="yes")
    seen = folder_node.collect()
    assert "/etc/default/extra" in seen.files
    assert f"{UNIT}.d/20-e.conf" in seen.units


# --- the process, its health, its log


@pytest.mark.parametrize(("letter", "state"), [("S", "S"), ("R", "S"), ("T", "T"), ("D", "D"), ("Z", "Z")])
def test_the_process_state(folder_node: FolderNode, letter: str, state: str) -> None:
    folder_node.process("kubelet", state=letter)
    seen = folder_node.collect()
    assert seen.process is not None
    assert seen.process.state == state


def test_the_version_is_the_executables_own(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    folder_node.process("/opt/bin/kubelet-1.34.2", version="v1.34.2")
    seen = folder_node.collect(*command, path=path)
    assert seen.process is not None
    assert seen.process.version == "v1.34.2"


def test_no_other_program_is_asked_for_its_version(folder_node: FolderNode) -> None:
    folder_node.process("/opt/bin/start-kubelet.sh")
    folder_node.write(f"/proc/{PID}/exe", f"#!/bin/sh\ntouch {folder_node.root}/was-run\n", 0o755)
    seen = folder_node.collect()
    assert seen.process is not None
    assert seen.process.version == ""
    assert not folder_node.at("/was-run").exists()


def test_an_endless_version_is_cut(folder_node: FolderNode) -> None:
    folder_node.process("/opt/bin/kubelet", version="$(yes | head -c 100000)")
    seen = folder_node.collect()
    assert seen.process is not None
    assert seen.process.version == ""


def test_healthz_is_asked_where_a_dropin_puts_it(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    folder_node.write(f"{CONFIG_DIR}/10-health.conf", "healthzPort: 10300\n")
    folder_node.process("kubelet", f"--config-dir={CONFIG_DIR}")
    folder_node.health({"http://127.0.0.1:10300/healthz": "ok"})
    asked = folder_node.collect(*command, path=path).health
    assert asked == (Health("127.0.0.1", 10248, ""), Health("127.0.0.1", 10300, "ok"))


def test_healthz_is_asked_where_the_configuration_puts_it(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    folder_node.write(CONFIG, '{"healthzPort": 10300, "healthzBindAddress": "::", "x": "healthzPort: $(reboot)"}')
    folder_node.process(
        *("kubelet", "--config", CONFIG, "--healthz-port", "99999", "--healthz_bind_address=0.0.0.0;reboot")
    )
    folder_node.health({HEALTHZ: "not yet", "http://[::1]:10300/healthz": "ok\x1b[31m"})
    seen = folder_node.collect(*command, path=path)
    assert {(health.address, health.port): health.answer for health in seen.health} == {
        ("127.0.0.1", 10248): "not yet",
        ("127.0.0.1", 10300): "",
        ("::1", 10248): "",
        ("::1", 10300): "ok31m",
    }


def test_conditions_are_looked_at(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    folder_node.write("/etc/a b", "")
    folder_node.write(
        UNIT,
        "[Unit]\nConditionPathExists=/dropped\nConditionPathExists=\nAssertPathExists = /etc/a b\n"
        "ConditionPathExists=|!/etc/a b\nConditionFileNotEmpty=/etc/a b\nConditionPathExistsGlob=/etc/a*\n"
        "ConditionPathIsDirectory=! \\\n /etc\nConditionDirectoryNotEmpty=/etc\nConditionPathExists=%t/x\n"
        "# ConditionPathExists=/comment\nConditionVirtualization=no; $(reboot)\n"
        "[Service]\nConditionPathExists=/elsewhere\nExecStart=/opt/bin/kubelet\n",
    )
    seen = folder_node.collect(*command, path=path)
    assert seen.conditions == (
        Condition("AssertPathExists=/etc/a b", holds=True),
        Condition("ConditionPathExists=|!/etc/a b", holds=False),
        Condition("ConditionFileNotEmpty=/etc/a b", holds=False),
        Condition("ConditionPathExistsGlob=/etc/a*", holds=True),
        Condition("ConditionPathIsDirectory=!   /etc", holds=False),
        Condition("ConditionDirectoryNotEmpty=/etc", holds=True),
        Condition("ConditionPathExists=%t/x", holds=None),
        Condition("ConditionVirtualization=no; $(reboot)", holds=None),
    )


def test_the_managers_variables_that_the_unit_uses(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    folder_node.manager_environment("LANG=C.UTF-8", "KUBELET_FLAGS=$'--v=4 \\'x\\''", "TOKEN=s3cret")
    seen = folder_node.collect(*command, path=path)
    assert seen.manager_environment == {"KUBELET_FLAGS": "--v=4 'x'"}


EFFECTIVE = (
    'I1127 11:09:16.092407   29191 server.go:257] "Effective KubeletConfiguration" config=<\n'
    "\tapiVersion: kubelet.config.k8s.io/v1beta1\n\tauthentication:\n\t  anonymous:\n\t    makeIPTablesUtilChains: x\n"
    "\tkind: KubeletConfiguration\n\tmakeIPTablesUtilChains: false\n\tstaticPodURL: https://h/x?sig=s3cret\n >\n"
)


def test_the_kubelets_own_log(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    folder_node.journal("I1127 first line s3cret\n" + EFFECTIVE + EFFECTIVE.replace("false", "true"))
    assert folder_node.collect(*command, path=path).log == {"makeIPTablesUtilChains": "false"}


def test_the_kubelets_own_log_in_json(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    text = "apiVersion: kubelet.config.k8s.io/v1beta1\\nkind: KubeletConfiguration\\nmakeIPTablesUtilChains: true\\n"
    line = f'{{"ts":1.5,"caller":"s.go:257","msg":"Effective KubeletConfiguration","v":0,"config":"{text}"}}\n'
    folder_node.journal(line)
    assert folder_node.collect(*command, path=path).log == {"makeIPTablesUtilChains": "true"}


def test_a_line_within_a_value_of_the_log_is_no_setting(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    text = "apiVersion: kubelet.config.k8s.io/v1beta1\\nkind: KubeletConfiguration\\nmakeIPTablesUtilChains: false\\n"
    value = 'providerID: \\"x\\\\nmakeIPTablesUtilChains: true\\\\ny\\"\\n'
    folder_node.journal(f'{{"ts":1.5,"msg":"Effective KubeletConfiguration","v":0,"config":"{text}{value}"}}\n')
    assert folder_node.collect(*command, path=path).log == {"makeIPTablesUtilChains": "false"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        EFFECTIVE.replace("\n >\n", "\n"),  # cut off
        EFFECTIVE.replace("\tkind: KubeletConfiguration\n", ""),
        EFFECTIVE.replace("\t", ""),
        EFFECTIVE.replace("\tkind", "I1127 another line\n\tkind"),
        '{"msg":"Effective KubeletConfiguration","config":"apiVersion: kubelet.config.k8s.io/v1beta1\\nkind: Kube\n',
    ],
)
def test_a_log_that_is_not_whole_is_none(folder_node: FolderNode, text: str) -> None:
    folder_node.journal(text)
    assert folder_node.collect().log is None


def test_every_setting_that_counts_and_the_groups_of_a_gate(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    more = (
        "\tauthorization:\n\t  mode: Webhook\n\t  webhook:\n\t    cacheAuthorizedTTL: 0s\n\teventRecordQPS: 0\n"
        "\tfeatureGates:\n\t  AllBeta: false\n\t  Other: true\n\t  RotateKubeletServerCertificate: true\n"
        "\tstreamingConnectionIdleTimeout: 4h0m0s\n"
    )
    folder_node.journal(EFFECTIVE.replace("\tkind: KubeletConfiguration\n", f"{more}\tkind: KubeletConfiguration\n"))
    assert folder_node.collect(*command, path=path).log == {
        "authorization.mode": "Webhook",
        "eventRecordQPS": "0",
        "featureGates.AllBeta": "false",
        "featureGates.RotateKubeletServerCertificate": "true",
        "makeIPTablesUtilChains": "false",
        "streamingConnectionIdleTimeout": "4h0m0s",
    }


def test_a_setting_that_the_log_lacks(folder_node: FolderNode) -> None:
    folder_node.journal(EFFECTIVE.replace("\tmakeIPTablesUtilChains: false\n", ""))
    assert folder_node.collect().log == {}


def test_a_client_ca_file_that_is_named(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    folder_node.write("/etc/ca.crt", "")
    folder_node.write(CONFIG, "authentication:\n  x509:\n    clientCAFile: '/etc/none.crt' # s3cret\n")
    folder_node.process("kubelet", "--config", CONFIG, "--client-ca-file=../etc/ca.crt", cwd="/opt")
    assert folder_node.collect(*command, path=path).exists == {"/etc/ca.crt": True, "/etc/none.crt": False}


def test_a_client_ca_file_from_the_directory_of_the_config_file(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    folder_node.write("/etc/pki/ca.crt", "")
    folder_node.write("/etc/k/config.yaml", "authentication:\n  x509:\n    clientCAFile: ../pki/ca.crt\n")
    folder_node.process("kubelet", "--config=/etc/k/config.yaml", cwd="/opt")
    assert folder_node.collect(*command, path=path).exists == {"/etc/pki/ca.crt": True, "/pki/ca.crt": False}


def test_a_client_ca_file_in_a_comment_is_none(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    folder_node.write(CONFIG, "# clientCAFile: s3cret\nmaxPods: 7\n")
    folder_node.process("kubelet", "--config", CONFIG)
    assert folder_node.collect(*command, path=path).exists == {}


@pytest.mark.parametrize(("frozen", "state"), [(1, "F"), (0, "S")])
def test_a_frozen_control_group(folder_node: FolderNode, shell: Shell, frozen: int, state: str) -> None:
    command, path = shell
    folder_node.write(f"/proc/{PID}/cgroup", "1:name=x:/\n0::/system.slice/kubelet.service\n")
    folder_node.write("/sys/fs/cgroup/system.slice/kubelet.service/cgroup.events", f"populated 1\nfrozen {frozen}\n")
    process = folder_node.collect(*command, path=path).process
    assert process is not None
    assert process.state == state


def test_a_fix_that_was_not_ended(folder_node: FolderNode) -> None:
    folder_node.write("/var/lib/kubelet-guard/journal", "KGJ1\nreplacing\n20261127T110000Z-77\nmore $(reboot)\n")
    assert folder_node.collect().unfinished == "replacing 20261127T110000Z-77"


# --- tools


@pytest.mark.parametrize("tool", ["gzip", "sha256sum", "awk", "stat"])
def test_a_missing_tool_is_named(folder_node: FolderNode, tool: str) -> None:
    folder_node.missing_tools = [tool]
    with pytest.raises(MissingTools, match=tool):
        folder_node.collect()


@pytest.mark.parametrize("tool", ["find", "timeout", "journalctl", "systemd-analyze", "grep"])
def test_what_the_script_can_do_without(folder_node: FolderNode, tool: str) -> None:
    folder_node.write(f"{CONFIG_DIR}/10.conf", FALSE)
    folder_node.process("/opt/bin/kubelet", f"--config-dir={CONFIG_DIR}")
    folder_node.missing_tools = [tool]
    seen = folder_node.collect()
    assert seen.listings == {CONFIG_DIR: Listing((f"{CONFIG_DIR}/10.conf",), (CONFIG_DIR,))}
    assert seen.missing_tools == ()


@pytest.mark.parametrize("tool", ["curl", "systemctl"])
def test_a_tool_that_is_missed_is_in_the_evidence(folder_node: FolderNode, tool: str) -> None:
    folder_node.missing_tools = [tool]
    assert folder_node.collect().missing_tools == (tool,)


# --- files of which only the mode and owner count

KUBECONFIG = "/var/lib/kubelet/kubeconfig"
AZURE_JSON = "/etc/kubernetes/azure.json"
CANARY = "c4n4ry-t0ken"


def a_file(node: FolderNode, path: str, mode: int = 0o644, *, regular: bool = True, hosted: bool = True) -> Metadata:
    """What is to be said of a file; it belongs to whoever runs the tests."""
    return Metadata(path, mode, os.getuid(), os.getgid(), regular, hosted)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ([f"--kubeconfig={KUBECONFIG}"], KUBECONFIG),
        (["--kubeconfig", KUBECONFIG], KUBECONFIG),
        ([f"--kubeconfig={KUBECONFIG}", "--kubeconfig", "/etc/second"], "/etc/second"),
        (["--kubeconfig", "/etc/first", f"--kubeconfig={KUBECONFIG}"], KUBECONFIG),
        (["--kubeconfig=../lib/kubelet/kubeconfig"], None),  # the kernel goes up from where a link may have led
        (["--kubeconfig=kubelet/kubeconfig"], KUBECONFIG),
        (["--kubeconfig=.//kubelet/kubeconfig"], KUBECONFIG),
        ([f"--v=2=--kubeconfig={KUBECONFIG}"], None),
        (["--", f"--kubeconfig={KUBECONFIG}"], None),
        ([f"--kubeconfig={KUBECONFIG}", "--kubeconfig="], None),
        (["--kubeconfig"], None),
        (["--root-dir=/x", f"--kubeconfig={KUBECONFIG}", "--v", "2", "--", "x"], KUBECONFIG),
    ],
)
def test_which_file_a_flag_names(folder_node: FolderNode, arguments: list[str], path: str | None) -> None:
    for name in (KUBECONFIG, "/etc/first", "/etc/second"):
        folder_node.write(name, CANARY, 0o640)
    folder_node.process("/opt/bin/kubelet", *arguments, cwd="/var/lib")
    seen = folder_node.collect()
    assert {name: file for name, file in seen.metadata.items() if name != AZURE_JSON} == (
        {path: a_file(folder_node, path, 0o640)} if path else {}
    )
    assert seen.process is not None
    named = named_by(seen.process.argv, "--kubeconfig")
    assert ".." in named or (absolute(named, "/var/lib") if named else None) == path, "the judge asks for the same"


def test_an_underscore_in_a_flag_is_a_dash(folder_node: FolderNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of --kubeconfig there is no other spelling; of a flag that a catalogue of one's own may name there is."""
    text = (
        "controls: [{id: own, title: t, severity: low, file: {flag: --bootstrap-kubeconfig},"
        " rule: {owner: 'root:root'}, rationale: r, fix: f}]"
    )
    monkeypatch.setattr(frames, "catalogue", lambda: read(text, "own.yaml", builtin()))
    folder_node.write("/etc/boot", CANARY, 0o604)
    folder_node.process("/opt/bin/kubelet", "--bootstrap_kubeconfig", "/etc/boot", "--kubeconfig=/none")
    assert folder_node.collect().metadata == {
        "/etc/boot": a_file(folder_node, "/etc/boot", 0o604),
        "/none": None,
        AZURE_JSON: None,
    }


def test_mode_and_owner_and_nothing_else(folder_node: FolderNode, shell: Shell) -> None:
    """Not a byte of the files leaves the node, in whatever shell."""
    command, path = shell
    folder_node.write(KUBECONFIG, f"users: [{{user: {{token: {CANARY}}}}}]", 0o4666)
    folder_node.write(AZURE_JSON, f'{{"aadClientSecret": "{CANARY}"}}', 0o600)
    if os.getuid() == 0:
        os.chown(folder_node.at(KUBECONFIG), 1234, 5678)
        folder_node.at(KUBECONFIG).chmod(0o4666)
    folder_node.process("/opt/bin/kubelet", "--kubeconfig", KUBECONFIG)
    owner = (1234, 5678) if os.getuid() == 0 else (os.getuid(), os.getgid())
    seen = folder_node.collect(*command, path=path)
    assert seen.metadata == {
        KUBECONFIG: Metadata(KUBECONFIG, 0o4666, *owner),
        AZURE_JSON: a_file(folder_node, AZURE_JSON, 0o600),
    }
    done = folder_node.run(frames.collect_script(1, NONCE), *command, path=path)
    sent = frames.unpack(frames.parse_streams(done.stdout.decode(), done.stderr.decode(), NONCE))
    assert CANARY.encode() not in sent
    assert not {KUBECONFIG, AZURE_JSON} & set(seen.files)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/opt/real", "file"),
        ("../../../opt/real", "file"),
        ("/opt/current/real", "file"),
        ("/opt/none", "absent"),
        ("/opt/real/below", "absent"),
        ("kubeconfig", "absent"),  # itself
        ("/dev/null", "unknown"),
        ("odd\nname", "unknown"),
        ("/opt", "directory"),
        ("/opt/pipe", "directory"),
    ],
)
def test_links_to_it_are_followed_inside_the_node(folder_node: FolderNode, target: str, expected: str) -> None:
    folder_node.write("/opt/real", CANARY, 0o606)
    folder_node.link("/opt/current", "/opt")
    os.mkfifo(folder_node.at("/opt/pipe"))
    folder_node.at("/opt/pipe").chmod(0o755)
    folder_node.at("/opt").chmod(0o755)
    folder_node.link(KUBECONFIG, target)
    folder_node.write("/var/lib/kubelet/odd\nname", "", 0o666)
    folder_node.process("/opt/bin/kubelet", f"--kubeconfig={KUBECONFIG}")
    seen = folder_node.collect().metadata
    assert (KUBECONFIG in seen) is (expected != "unknown"), "what is there and not known is not said to be absent"
    assert (
        seen.get(KUBECONFIG)
        == {
            "file": a_file(folder_node, KUBECONFIG, 0o606),
            "directory": a_file(folder_node, KUBECONFIG, 0o755, regular=False),
            "absent": None,
            "unknown": None,
        }[expected]
    )


def test_a_flags_file_is_the_processs_and_a_path_the_hosts(folder_node: FolderNode, shell: Shell) -> None:
    command, path = shell
    folder_node.write(KUBECONFIG, "", 0o600)
    folder_node.write(AZURE_JSON, "", 0o600)
    folder_node.write(f"/srv/root{KUBECONFIG}", "", 0o666)
    folder_node.write(f"/srv/root{AZURE_JSON}", "", 0o666)
    folder_node.process("/opt/bin/kubelet", f"--kubeconfig={KUBECONFIG}")
    folder_node.root_of_process("/srv/root")
    assert folder_node.collect(*command, path=path).metadata == {
        KUBECONFIG: a_file(folder_node, KUBECONFIG, 0o666, hosted=False),
        AZURE_JSON: a_file(folder_node, AZURE_JSON, 0o600),
    }


def test_without_a_process_a_path_is_looked_at(folder_node: FolderNode) -> None:
    folder_node.write(AZURE_JSON, "", 0o640)
    folder_node.unit(pid=0, ActiveState="failed")
    assert folder_node.collect().metadata == {AZURE_JSON: a_file(folder_node, AZURE_JSON, 0o640)}


# --- hostile nodes


@pytest.mark.parametrize(
    "path",
    [
        "/etc/$(touch owned).conf",
        "/etc/`touch owned`",
        "/etc/;touch owned",
        "/etc/'\"$IFS&|>owned",
        "/etc/%s%n\\n",
        "/etc/*",
        "/etc/-rf",
        "/etc/[a-z]?{a,b}~!",
    ],
)
def test_a_hostile_path_is_a_path(folder_node: FolderNode, shell: Shell, path: str) -> None:
    command, tools = shell
    dropin = f"{CONFIG_DIR}/{path.rpartition('/')[2]}.conf"
    folder_node.write(path, FALSE)
    folder_node.write(dropin, FALSE)
    folder_node.process(
        *("kubelet", "--config", path, f"--config-dir={CONFIG_DIR}/", "--client-ca-file", path, "--kubeconfig", path)
    )
    seen = folder_node.collect(*command, path=tools)
    assert seen.files[path].text == FALSE
    assert seen.exists == {path: True}
    assert seen.metadata == {path: a_file(folder_node, path), AZURE_JSON: None}
    assert seen.listings == {f"{CONFIG_DIR}/": Listing((dropin,), (CONFIG_DIR,))}
    assert not list(folder_node.root.rglob("owned"))
    assert not Path("owned").exists()
