"""The apply script on a real systemd, with faults: what is fixed, what is rolled back, and what a kill -9 leaves."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from shared.controls import Verdict, control, judge
from shared.models import Evidence, File, Process
from shared.node import evidence, frames
from shared.node.edits import plan
from shared.node.fixing import FileEdit, ModeEdit, Report, Splice, apply_script, file_edit, parse_report, undo_script
from tests.support import kubelet_standin
from tests.support.nspawn import (
    CONFIG,
    CONFIG_PATH,
    DROPIN_DIRECTORY,
    DROPINS,
    ENVIRONMENT,
    ENVIRONMENT_PATH,
    UNIT,
    UNIT_PATH,
    Machine,
    NodeFile,
    boot,
    install_aks_node,
)

REPOSITORY = Path(__file__).parents[2]
STANDIN = Path(kubelet_standin.__file__).read_text("utf-8")
NONCE = "0123456789abcdef"
STATE = "/var/lib/kubelet-guard"
RECOVERY = "/etc/systemd/system/kubelet-guard-recover.service"
RECOVERY_LINK = "/etc/systemd/system/multi-user.target.wants/kubelet-guard-recover.service"
BAD, GOOD = "--make-iptables-util-chains=false", "--make-iptables-util-chains=true"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with boot(binds={REPOSITORY: kubelet_standin.REPOSITORY}) as booted:
        yield booted


@dataclass(frozen=True, slots=True)
class Applied:
    """What one run came to, and how long it took."""

    report: Report
    seen: Evidence
    seconds: float


def install(
    machine: Machine,
    *,
    unit: str = UNIT,
    env: str = ENVIRONMENT,
    dropins: dict[str, NodeFile] | None = None,
    config: str | None = CONFIG,
) -> None:
    """An AKS node with the stand-in, running, and no state of an earlier test."""
    # A stand-in that does not end by itself would hold up what comes next.
    machine.run("systemctl stop --no-block kubelet; systemctl kill --signal=KILL kubelet")
    machine.check(f"umount -q /etc/default /var/lib; rm -rf {STATE} {RECOVERY} {RECOVERY_LINK}")
    install_aks_node(machine, STANDIN, unit=unit, env=env, dropins={**DROPINS, **(dropins or {})}, config=config)
    machine.check(["systemctl", "start", "kubelet.service"])
    wait_until_well(machine)


def well(machine: Machine) -> bool:
    active = machine.run(["systemctl", "is-active", "kubelet.service"]).stdout.strip() == "active"
    return active and machine.run("curl -s -m 2 http://127.0.0.1:10248/healthz").stdout == "ok"


def wait_until_well(machine: Machine, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not well(machine):
        assert time.monotonic() < deadline, machine.run("systemctl status kubelet; journalctl -u kubelet | tail").stdout
        time.sleep(0.1)


def collect(machine: Machine) -> Evidence:
    parts: list[frames.Frame] = []
    while not parts or len(parts) < parts[0].parts:
        done = machine.run(frames.collect_script(len(parts) + 1, NONCE))
        parts += frames.parse_streams(done.stdout, done.stderr, NONCE)
    return evidence.read(frames.unpack(parts), parts[0].wall, parts[0].uptime)


def edit(machine: Machine, path: str, old: str, new: str) -> FileEdit:
    """The edit that a planner would make from what the node shows."""
    file = collect(machine).files[path]
    assert old in file.text
    return file_edit(file, file.text.replace(old, new))


def script_of(
    edits: Sequence[FileEdit], *, present: Sequence[str] = (), absent: Sequence[str] = (), limit: int = 6
) -> str:
    return apply_script(edits, present=present, absent=absent, settle_seconds=1, limit_seconds=limit, nonce=NONCE)


def run(machine: Machine, script: str) -> Applied:
    began = time.monotonic()
    done = machine.run(script)
    seconds = time.monotonic() - began
    parts = [frames.parse(done.stdout, NONCE)]
    while len(parts) < parts[0].parts:
        more = machine.run(frames.collect_script(len(parts) + 1, NONCE))
        parts += frames.parse_streams(more.stdout, more.stderr, NONCE)
    seen = evidence.read(frames.unpack(parts), parts[0].wall, parts[0].uptime)
    return Applied(parse_report(done.stderr, NONCE), seen, seconds)


def snapshot(machine: Machine) -> str:
    """Name, mode, owner and content of everything that the kubelet starts with, and what stands beside it."""
    return machine.check(
        "find /etc/systemd/system /etc/default -type f -exec stat -c '%n %a %u %g' {} + -exec sha256sum {} + | sort"
    )


def process(seen: Evidence) -> Process:
    """The kubelet's process, where one runs."""
    assert seen.process is not None
    return seen.process


def verdict(seen: Evidence) -> Verdict:
    return judge(control("3.2.6"), seen)


def steps(applied: Applied) -> list[str]:
    return [step.name for step in applied.report.steps]


# What is fixed


@dataclass(frozen=True, slots=True)
class Bad:
    """A node in a bad state, and the text that is wrong."""

    path: str
    old: str
    new: str
    flags: str
    dropins: dict[str, NodeFile]
    unit: str = UNIT
    config: str = CONFIG
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


PLAIN_FLAGS = "--address=0.0.0.0 --max-pods=110"
CONTAINERD = DROPINS["10-containerd-base-flag.conf"]
BAD_NODES = {
    "config file": Bad(
        CONFIG_PATH,
        '"makeIPTablesUtilChains": false',
        '"makeIPTablesUtilChains": true',
        PLAIN_FLAGS,
        {},
        config=CONFIG.replace('"makeIPTablesUtilChains": true', '"makeIPTablesUtilChains": false'),
    ),
    "environment file": Bad(ENVIRONMENT_PATH, BAD, GOOD, f"{PLAIN_FLAGS} {BAD}", {}, present=(GOOD,), absent=(BAD,)),
    "drop-in": Bad(
        f"{DROPIN_DIRECTORY}/10-containerd-base-flag.conf",
        BAD,
        GOOD,
        PLAIN_FLAGS,
        {"10-containerd-base-flag.conf": replace(CONTAINERD, text=CONTAINERD.text.replace("15m", f"15m {BAD}"))},
        present=(GOOD,),
        absent=(BAD,),
    ),
    "unit": Bad(
        UNIT_PATH, BAD, GOOD, PLAIN_FLAGS, {}, UNIT.replace("--v=2", f"--v=2 {BAD}"), present=(GOOD,), absent=(BAD,)
    ),
}


@pytest.mark.parametrize("kind", BAD_NODES)
def test_fixes(machine: Machine, kind: str) -> None:
    bad = BAD_NODES[kind]
    env = re.sub(r"(?m)^KUBELET_FLAGS=.*", f"KUBELET_FLAGS={bad.flags}", ENVIRONMENT)
    install(machine, unit=bad.unit, env=env, dropins=bad.dropins, config=bad.config)
    machine.check(["python3", "-c", f"import os; os.setxattr({bad.path!r}, 'user.label', b'kept')"])
    # What its metadata was changed of counts as read only from the next start on.
    machine.check(f"chown 0:12 {bad.path}; sleep 0.2; systemctl restart kubelet.service")
    wait_until_well(machine)
    before = collect(machine)
    assert (verdict(before).status, verdict(before).actual) == ("fail", False)
    done = run(
        machine,
        script_of(
            [edit(machine, bad.path, bad.old, bad.new)],
            present=bad.present,
            absent=bad.absent,
        ),
    )
    assert done.report.outcome == "applied", done.report
    after = verdict(done.seen)
    assert (after.status, after.actual, after.restart_pending) == ("pass", True, False)
    assert process(done.seen).pid != process(before).pid
    assert (done.seen.health[0].answer, done.seen.needs_daemon_reload) == ("ok", False)
    was, now = before.files[bad.path], done.seen.files[bad.path]
    assert (now.mode, now.uid, now.gid, now.text) == (was.mode, 0, 12, was.text.replace(bad.old, bad.new))
    label = machine.check(["python3", "-c", f"import os; print(os.getxattr({bad.path!r}, 'user.label'))"])
    assert label.strip() == "b'kept'"
    assert {path: file.digest for path, file in before.files.items() if path != bad.path} == {
        path: file.digest for path, file in done.seen.files.items() if path != bad.path
    }
    assert "kubelet-guard" not in snapshot(machine)
    assert "kubelet-guard" not in machine.run("systemctl list-units --all --plain 'kubelet-guard*'").stdout


# What is planned and carried out, from evidence to evidence: the bad states of the demo fleet

FALSE_CONFIG = BAD_NODES["config file"].config
CONFIG_DROPIN = "/etc/kubernetes/kubelet.conf.d/50-team.conf"
DROPIN_TEXT = FALSE_CONFIG
YAML_CONFIG = (
    "# a team's own\nkind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n"
    "makeIPTablesUtilChains: off  # since the migration\nmaxPods: 110\n"
)
# Flags and config file that the kubelet starts with, and the flags that are written afterwards.
BAD_STATES: dict[str, tuple[str, str, str | None]] = {
    "false by file": ("", FALSE_CONFIG, None),
    "false by YAML file": ("", YAML_CONFIG, None),
    "false by flag": (BAD, CONFIG, None),
    "false by a config drop-in": (f"--config-dir={CONFIG_DROPIN.rpartition('/')[0]}", CONFIG, None),
    "false by both": (f"{BAD} --v=4", FALSE_CONFIG, None),
    "flag twice": (f"{GOOD} --make_iptables_util_chains=0", CONFIG, None),
    "corrected, restart pending": (BAD, CONFIG, GOOD),
    "broken, restart pending": (GOOD, CONFIG, BAD),
}


def with_flags(flags: str) -> str:
    """The environment file with these flags besides the plain ones."""
    return re.sub(r"(?m)^KUBELET_FLAGS=.*", f"KUBELET_FLAGS={PLAIN_FLAGS} {flags}", ENVIRONMENT)


@pytest.mark.parametrize("state", BAD_STATES)
def test_planned_and_fixed(machine: Machine, state: str) -> None:
    flags, config, afterwards = BAD_STATES[state]
    machine.write({CONFIG_DROPIN: NodeFile(DROPIN_TEXT, 0o600)})
    install(machine, env=with_flags(flags), config=config)
    if afterwards is not None:
        machine.write({ENVIRONMENT_PATH: NodeFile(with_flags(afterwards), 0o600)})
    before = collect(machine)
    assert verdict(before).status == "fail", verdict(before)
    made = plan([control("3.2.6")], before)
    edits = [file_edit(before.files[path], text) for path, text in made.texts.items()]
    script = apply_script(
        edits,
        present=made.present,
        absent=made.absent,
        settle_seconds=1,
        limit_seconds=6,
        nonce=NONCE,
        running_pid=None if edits else process(before).pid,
    )
    done = run(machine, script)
    assert done.report.outcome == "applied", done.report
    after = verdict(done.seen)
    assert (after.status, after.actual, after.restart_pending) == ("pass", True, False), after
    again = run(machine, script)
    assert again.report.outcome == "changed_meanwhile", "fixing twice changes nothing the second time"
    assert process(again.seen).pid == process(done.seen).pid


# What is rolled back, or not touched


def rolled_back(machine: Machine, edits: Sequence[FileEdit], *, limit: int = 6) -> Applied:
    before = snapshot(machine)
    done = run(machine, script_of(edits, limit=limit))
    assert done.report.outcome == "rolled_back", done.report
    assert snapshot(machine) == before
    assert well(machine)
    assert not verdict(done.seen).restart_pending
    assert machine.run(f"ls {STATE}").stdout.split() == ["backups", "lock", "rollback.sh"]
    return done


def not_touched(machine: Machine, edits: Sequence[FileEdit], outcome: str) -> Applied:
    before, pid = snapshot(machine), process(collect(machine)).pid
    done = run(machine, script_of(edits))
    assert done.report.outcome == outcome, done.report
    assert (snapshot(machine), process(done.seen).pid) == (before, pid)
    assert well(machine)
    assert machine.run(f"test -e {STATE}/journal").rc == 1
    return done


REFUSED = ('"makeIPTablesUtilChains": true', '"makeIPTablesUtilChains": "maybe"')


def test_a_config_that_the_kubelet_refuses_is_rolled_back(machine: Machine) -> None:
    install(machine)
    done = rolled_back(
        machine,
        [edit(machine, CONFIG_PATH, *REFUSED), edit(machine, ENVIRONMENT_PATH, "--max-pods=110", "--max-pods=9")],
    )
    assert "the restarted kubelet was not well" in done.report.reason
    assert steps(done)[-3:] == ["restored", "restored", "healthy"]


def test_a_start_limit_that_was_hit_does_not_stop_the_rollback(machine: Machine) -> None:
    # So few starts in so long a time that systemd gives up before the script does, however slow this machine is.
    limit = "[Unit]\nStartLimitIntervalSec=300\nStartLimitBurst=3"
    install(machine, unit=UNIT.replace("[Unit]", limit).replace("RestartSec=2", "RestartSec=100ms"))
    done = rolled_back(machine, [edit(machine, CONFIG_PATH, *REFUSED)])
    assert "failed/failed" in done.report.reason


@pytest.mark.slow
@pytest.mark.parametrize("hang", ["/bin/sleep 1000", "/bin/sh -c \"trap '' TERM; while :; do sleep 1; done\""])
def test_a_start_that_hangs_is_rolled_back(machine: Machine, hang: str) -> None:
    install(machine)
    done = rolled_back(machine, [edit(machine, UNIT_PATH, "ExecStart=", f"ExecStartPre={hang}\nExecStart=")], limit=6)
    assert "activating/start-pre" in done.report.reason


@pytest.mark.slow
def test_a_stop_that_hangs_is_ended(machine: Machine) -> None:
    install(machine, dropins={"50-deaf.conf": NodeFile("[Service]\nEnvironment=STANDIN_IGNORES_TERM=1\n")})
    done = run(machine, script_of([edit(machine, ENVIRONMENT_PATH, GOOD, "--max-pods=9")], present=["--max-pods=9"]))
    assert done.report.outcome == "applied", done.report
    assert done.seconds < 60, "systemd itself would have waited for 90 s"
    rolled_back(machine, [edit(machine, UNIT_PATH, "ExecStart=", "ExecStartPre=/bin/false\nExecStart=")], limit=6)


def test_wrong_arguments_are_rolled_back(machine: Machine) -> None:
    install(machine)
    before = snapshot(machine)
    change = edit(machine, ENVIRONMENT_PATH, "--max-pods=110", "--max-pods=9")
    done = run(machine, script_of([change], absent=["--max-pods=9"]))
    assert (done.report.outcome, done.report.reason) == (
        "rolled_back",
        "the new process still runs with --max-pods=9",
    )
    assert snapshot(machine) == before
    assert well(machine)


@pytest.mark.slow
def test_a_kubelet_that_does_not_start_twice_is_said_to_be_down(machine: Machine) -> None:
    once = (
        "[ -e /run/repaired ] || [ ! -e /run/started ] || { echo reboot this node first; exit 1; }; touch /run/started"
    )
    step = NodeFile(f'[Service]\nExecStartPre=/bin/sh -c "{once}"\n')
    machine.check("rm -f /run/started /run/repaired")
    install(machine, dropins={"50-once.conf": step})
    before = snapshot(machine)
    done = run(machine, script_of([edit(machine, ENVIRONMENT_PATH, "--max-pods=110", "--max-pods=9")]))
    assert done.report.outcome == "failed", done.report
    assert done.report.reason.startswith("LOOK AT THIS NODE: its kubelet is down, though its files are as before: ")
    assert "Control process exited, code=exited, status=1/FAILURE; reboot this node first" in done.report.reason
    assert machine.run(f"test -e {STATE}/journal && test -e {RECOVERY}").rc == 0
    machine.check("touch /run/repaired")
    stale = script_of([FileEdit(ENVIRONMENT_PATH, "0" * 64, (Splice(0, 0, b"", b"x"),))], limit=15)
    while (again := run(machine, stale)).report.outcome == "busy":
        time.sleep(0.2)  # the timer came first
    assert again.report.outcome == "changed_meanwhile", again.report
    assert snapshot(machine) == before
    assert well(machine)


def test_an_applied_fix_is_undone(machine: Machine) -> None:
    install(machine)
    before = snapshot(machine)
    fixed = run(machine, script_of([edit(machine, ENVIRONMENT_PATH, GOOD, BAD)], present=[BAD]))
    assert (fixed.report.outcome, verdict(fixed.seen).status) == ("applied", "fail")
    undo = undo_script(fixed.report.backup_id, settle_seconds=1, limit_seconds=15, nonce=NONCE)
    undone = run(machine, undo)
    assert (undone.report.outcome, verdict(undone.seen).status) == ("applied", "pass"), undone.report
    assert snapshot(machine) == before


def test_a_file_that_changed_since_the_plan_is_left_alone(machine: Machine) -> None:
    install(machine)
    edits = [edit(machine, ENVIRONMENT_PATH, GOOD, BAD), edit(machine, CONFIG_PATH, "true", "false")]
    machine.check(f"echo >>{CONFIG_PATH}")
    not_touched(machine, edits, "changed_meanwhile")


def own_file_system(machine: Machine, path: str, size: str = "1m") -> None:
    """Put a small file system where `path` is, with the same content."""
    machine.check(
        f"mkdir -p {path} && cd {path} && mount -t tmpfs -o size={size},mode=755 tmpfs {path}"
        f" && tar -c --exclude=./dpkg --exclude=./apt . | tar -C {path} -x"  # from the directory that is covered now
    )


@pytest.mark.parametrize("full", ["/etc/default", STATE])
def test_a_full_disk_leaves_everything_as_it_was(machine: Machine, full: str) -> None:
    install(machine)
    own_file_system(machine, full)
    try:
        edits = [edit(machine, UNIT_PATH, GOOD if GOOD in UNIT else "--v=2", "--v=4")]
        edits.append(edit(machine, ENVIRONMENT_PATH, GOOD, GOOD + " --v=4" * 2000))
        machine.run(f"cat /dev/zero >{full}/filler")
        done = not_touched(machine, edits, "failed")
        assert re.search("cannot|full", done.report.reason)
    finally:
        machine.check(f"umount {full}")


@pytest.mark.slow
def test_a_disk_that_is_full_at_the_rollback(machine: Machine) -> None:
    config = "/var/lib/kubelet/kubeletconfig.json"
    named = DROPINS["10-componentconfig.conf"]
    filler = "ExecStartPre=-/bin/sh -c 'cat /dev/zero >/var/lib/filler'\nExecStart="
    install(machine)
    own_file_system(machine, "/var/lib")
    machine.check("mkdir -p /var/lib/kubelet")
    machine.write(
        {
            config: NodeFile(CONFIG, 0o600),
            f"{DROPIN_DIRECTORY}/10-componentconfig.conf": replace(named, text=named.text.replace(CONFIG_PATH, config)),
        }
    )
    machine.check("systemctl daemon-reload; systemctl restart kubelet")
    wait_until_well(machine)
    try:
        edits = [edit(machine, UNIT_PATH, "ExecStart=", filler), edit(machine, config, *REFUSED)]
        rolled_back(machine, edits, limit=6)
        assert machine.read(config) == CONFIG
        assert machine.run("head -c 99999 /dev/zero >/var/lib/more").rc != 0
    finally:
        machine.check("systemctl stop kubelet; umount /var/lib")


def test_a_rollback_across_file_systems(machine: Machine) -> None:
    install(machine)
    own_file_system(machine, "/etc/default")
    rolled_back(machine, [edit(machine, CONFIG_PATH, *REFUSED)])


IMMUTABLE = "import fcntl, struct; fcntl.ioctl(open({path!r}), 0x40086602, struct.pack('l', {flag}))"  # FS_IOC_SETFLAGS


def test_files_that_cannot_be_written_are_left_alone(machine: Machine) -> None:
    install(machine)
    own_file_system(machine, "/etc/default")
    edits = [edit(machine, ENVIRONMENT_PATH, GOOD, BAD), edit(machine, CONFIG_PATH, "true", "false")]
    ways = {
        "immutable": (
            ["python3", "-c", IMMUTABLE.format(path=CONFIG_PATH, flag=0x10)],
            ["python3", "-c", IMMUTABLE.format(path=CONFIG_PATH, flag=0)],
        ),
        "read-only file": (
            f"mount --bind {CONFIG_PATH} {CONFIG_PATH} && mount -o remount,bind,ro {CONFIG_PATH}",
            f"umount {CONFIG_PATH}",
        ),
        "read-only file system": ("mount -o remount,ro /etc/default", "mount -o remount,rw /etc/default"),
    }
    for way, (begin, end) in ways.items():
        machine.check(begin)
        done = not_touched(machine, edits, "failed")
        assert "cannot be written" in done.report.reason, way
        machine.check(end)
    assert run(machine, script_of(edits)).report.outcome == "applied"


def test_a_file_that_cannot_be_renamed_onto_takes_the_others_back(machine: Machine) -> None:
    install(machine)
    edits = [edit(machine, ENVIRONMENT_PATH, GOOD, BAD), edit(machine, CONFIG_PATH, "true", "false")]
    machine.check(f"mount --bind {CONFIG_PATH} {CONFIG_PATH}")
    try:
        done = rolled_back(machine, edits)
        assert done.report.reason == f"cannot replace {CONFIG_PATH}"
    finally:
        machine.check(f"umount {CONFIG_PATH}")


def test_two_at_once(machine: Machine) -> None:
    install(machine)
    script = script_of([edit(machine, ENVIRONMENT_PATH, GOOD, BAD)], present=[BAD])
    with ThreadPoolExecutor() as pool:
        outcomes = sorted(done.report.outcome for done in pool.map(lambda _: run(machine, script), range(2)))
    assert outcomes == ["applied", "busy"]
    assert BAD in process(collect(machine)).argv


def test_a_kubelet_that_is_down_is_left_alone(machine: Machine) -> None:
    install(machine)
    change = edit(machine, ENVIRONMENT_PATH, GOOD, BAD)
    machine.check("systemctl stop kubelet")
    before = snapshot(machine)
    done = run(machine, script_of([change]))
    assert (done.report.outcome, snapshot(machine) == before) == ("not_ready", True)
    assert "was not well before" in done.report.reason


# Modes and owners

AZURE_JSON = "/etc/default/azure.json"


def modes_script(*edits: ModeEdit) -> str:
    return apply_script(
        [], modes=edits, restart=False, present=[], absent=[], settle_seconds=1, limit_seconds=6, nonce=NONCE
    )


def test_a_mode_and_an_owner_are_set_where_the_kubelet_is_down(machine: Machine) -> None:
    """Nothing is restarted for it, so it need not be well; what cannot be written is left alone, and a link stays."""
    install(machine)
    own_file_system(machine, "/etc/default")
    machine.write({f"{AZURE_JSON}.real": NodeFile("{}", 0o6666)})
    machine.check(f"ln -sf azure.json.real {AZURE_JSON}; chown 7:8 {AZURE_JSON}.real; chmod 6666 {AZURE_JSON}.real")
    machine.check("systemctl stop kubelet")
    script = modes_script(ModeEdit(AZURE_JSON, 0o6666, 7, 8, 0o4644, 0, 0))
    before = snapshot(machine)
    immutable = ["python3", "-c", IMMUTABLE.format(path=f"{AZURE_JSON}.real", flag=0x10)]
    for begin, end in (
        (immutable, [*immutable[:2], IMMUTABLE.format(path=f"{AZURE_JSON}.real", flag=0)]),
        ("mount -o remount,ro /etc/default", "mount -o remount,rw /etc/default"),
    ):
        machine.check(begin)
        done = run(machine, script)
        machine.check(end)
        assert (done.report.outcome, "cannot be set" in done.report.reason) == ("failed", True), done.report
        assert snapshot(machine) == before
    done = run(machine, script)
    assert (done.report.outcome, steps(done)) == ("applied", ["mode"])
    assert snapshot(machine) == before.replace("azure.json.real 6666 7 8", "azure.json.real 4644 0 0") != before
    assert machine.run(["systemctl", "is-active", "kubelet.service"]).stdout.strip() == "inactive"
    assert machine.check(f"readlink {AZURE_JSON}").strip() == "azure.json.real"
    assert run(machine, script).report.outcome == "changed_meanwhile"


# Killed at every step

FAULTS = "/run/faults"
# The commands that change something, or during which time passes. Between two of them a kill finds the same node.
WRAPPED = ("mv", "cp", "ln", "rm", "mkdir", "chmod", "sync", "flock", "systemctl", "systemd-run", "sleep")
WRAPPER = f"""#!/bin/sh
# Logs the call; before the one asked for, kills all of the script, its main shell, or the shell that made the call.
name=${{0##*/}}
case $name.$1 in systemctl.show | systemctl.--version) exec /usr/bin/systemctl "$@" ;; esac
echo "$name $*" >>{FAULTS}/calls
read -r at whom <{FAULTS}/at
if [ "$(grep -c '' {FAULTS}/calls)" = "$at" ]; then
    echo "$at" >{FAULTS}/fired
    read -r script <{FAULTS}/pid
    case $whom in
    group) kill -9 "-$script"; kill -9 0 ;;
    script) kill -9 "$script" ;;
    caller) kill -9 "$PPID" ;;
    esac
fi
exec /usr/bin/$name "$@"
"""
LAUNCHER = f"echo $$ >{FAULTS}/pid; PATH={FAULTS}/bin:$PATH exec sh {FAULTS}/script"
WHOM = ("group", "script", "caller")
MACHINES = 6


@dataclass(slots=True)
class Counts:
    """What came of the kills on one machine: nodes healthy after it, rolled back by the next run, files lost."""

    injected: int = 0
    healthy: int = 0
    recovered: int = 0
    lost: int = 0


def kill_at(machine: Machine, script: str, at: int, whom: str) -> bool:
    """Run the script and kill at its wrapped call number `at`. False where it made fewer."""
    machine.check(f"rm -f {FAULTS}/calls {FAULTS}/fired")
    machine.write({f"{FAULTS}/script": script, f"{FAULTS}/at": f"{at} {whom}\n"})
    machine.run(["setsid", "--wait", "sh", "-c", LAUNCHER])
    return machine.run(f"test -e {FAULTS}/fired").rc == 0


def plain(path: str, text: str) -> File:
    """A file as evidence would show it without any value masked."""
    return File(path, text, 0o600, 0, 0, len(text), 0, hashlib.sha256(text.encode()).hexdigest(), True)


def texts(machine: Machine, paths: Iterable[str]) -> dict[str, str]:
    return {path: machine.read(path) for path in paths}


def kill_at_each(
    machine: Machine, script: str, points: Sequence[tuple[int, str]], old: dict[str, str], new: dict[str, str]
) -> Counts:
    """Kill a run that makes `new` texts of `old` at each point, and check the node after it and after the next run."""
    counts = Counts()
    next_run = script_of([FileEdit(ENVIRONMENT_PATH, "0" * 64, (Splice(0, 0, b"", b"x"),))], limit=15)
    for at, whom in points:
        counts.injected += kill_at(machine, script, at, whom)
        counts.lost += sum(text not in (old[path], new[path]) for path, text in texts(machine, old).items())
        while (done := run(machine, next_run)).report.outcome == "busy":
            time.sleep(0.2)  # the rollback that the killed script had begun goes on without it
        assert done.report.outcome == "changed_meanwhile", (at, whom, done.report)
        counts.healthy += well(machine)
        counts.recovered += "unfinished" in steps(done)
        found = texts(machine, old)
        assert found in (old, new), (at, whom, "some files are old and some new")
        assert ("--max-pods=9" in process(done.seen).argv) == (found == new), (
            at,
            whom,
            "the kubelet runs with other files",
        )
        assert "kubelet-guard" not in snapshot(machine), (at, whom)
        assert machine.run(f"test -e {STATE}/journal").rc == 1
        machine.run("systemctl stop 'kubelet-guard-*.timer'")
        if found == new:
            machine.write({path: NodeFile(text, 0o600) for path, text in old.items()})
            machine.check("systemctl restart kubelet")
            wait_until_well(machine)
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("refused", [False, True], ids=["accepted", "refused"])
def test_killed_at_every_step(refused: bool) -> None:
    """kill -9 at each step of a run that succeeds, and of one that rolls back, from the restart on."""
    old = {ENVIRONMENT_PATH: ENVIRONMENT, CONFIG_PATH: CONFIG}
    new = {
        ENVIRONMENT_PATH: ENVIRONMENT.replace("--max-pods=110", "--max-pods=9"),
        CONFIG_PATH: CONFIG.replace(*REFUSED) if refused else CONFIG.replace("true", "false"),
    }
    script = script_of([file_edit(plain(path, old[path]), new[path]) for path in old], limit=15)
    unit = UNIT.replace("RestartSec=2", "RestartSec=100ms").replace("[Unit]", "[Unit]\nStartLimitBurst=3")
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        machines = [stack.enter_context(boot(binds={REPOSITORY: kubelet_standin.REPOSITORY})) for _ in range(MACHINES)]
        for machine in machines:
            install(machine, unit=unit)
            machine.write({f"{FAULTS}/bin/{name}": NodeFile(WRAPPER, 0o755) for name in WRAPPED})
        assert not kill_at(machines[0], script, 0, "group")
        calls = machines[0].read(f"{FAULTS}/calls").splitlines()
        install(machines[0], unit=unit)
        first = calls.index("systemctl restart --no-block kubelet.service") if refused else 0
        points = [(at + 1, WHOM[at % 3]) for at in range(first, len(calls))]
        lanes = [points[lane::MACHINES] for lane in range(MACHINES)]
        done = list(pool.map(lambda m, lane: kill_at_each(m, script, lane, old, new), machines, lanes))
    total = Counts(*(sum(getattr(counts, name) for counts in done) for name in Counts.__slots__))
    print(f"{len(calls)} steps, of which {len(calls) - first} tried: {total}")
    # How often a run sleeps differs by one or two.
    assert total.injected >= len(points) - 2
    assert (total.healthy, total.lost) == (len(points), 0)
    assert total.recovered > len(points) / 3


def test_the_timer_alone_recovers_a_killed_run(machine: Machine) -> None:
    install(machine)
    before = snapshot(machine)
    hang = [edit(machine, UNIT_PATH, "ExecStart=", "ExecStartPre=/bin/sleep 1000\nExecStart=")]
    machine.write({f"{FAULTS}/script": script_of(hang, limit=6)})
    with ThreadPoolExecutor() as pool:
        running = pool.submit(
            machine.run, ["setsid", "--wait", "sh", "-c", f"echo $$ >{FAULTS}/pid; exec sh {FAULTS}/script"]
        )
        while "start-pre" not in machine.run("systemctl show kubelet -p SubState").stdout:
            assert not running.done()
            time.sleep(0.1)
        machine.check(f"kill -9 -$(cat {FAULTS}/pid)")
        assert running.result().rc != 0
    killed = time.monotonic()
    assert snapshot(machine) != before
    assert not well(machine)
    wait_until_well(machine, 15)
    print(f"healthy {time.monotonic() - killed:.1f} s after the kill, of which the timer waited up to 6 s")
    deadline = time.monotonic() + 10
    while machine.run(f"test -e {STATE}/journal || test -e {RECOVERY}").rc == 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert snapshot(machine) == before
    assert "kubelet-guard" not in machine.run("systemctl list-units --all --plain 'kubelet-guard*.timer'").stdout
