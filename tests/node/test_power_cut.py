"""The power fails while a node is fixed: what the node is after its next boot, without anybody's help.

Before each command by which the scripts change a disk or pass time, the disks are copied as a power cut would leave
them, and every copy is booted. In one half of the runs all that was written reaches the disk at once, in the other
nothing that no fsync asked for: a real power cut lies between these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.models import File
from shared.node.fixing import FileEdit, Report, Splice, apply_script, file_edit, parse_report, undo_script
from tests.support import kubelet_standin
from tests.support.disk import CUT_SCRIPT, CUTS, Disks, boot, make_disks, mounted
from tests.support.nspawn import (
    CONFIG,
    CONFIG_PATH,
    DROPIN_DIRECTORY,
    DROPINS,
    ENVIRONMENT,
    ENVIRONMENT_PATH,
    KUBELET_PATH,
    UNIT,
    UNIT_PATH,
    Machine,
)

pytestmark = [pytest.mark.slow, pytest.mark.real]

REPOSITORY = Path(__file__).parents[2]
STATE = "/var/lib/kubelet-guard"
RECOVERY = "kubelet-guard-recover.service"
NONCE = "0123456789abcdef"
FAULTS = "/opt/faults"
COMMANDS = ("mv", "cp", "ln", "rm", "mkdir", "rmdir", "chmod", "sync", "systemctl", "systemd-run", "sleep")
WRAPPER = f"""#!/bin/sh
name=${{0##*/}}
case $name.$1 in systemctl.show | systemctl.--version) exec /usr/bin/systemctl "$@" ;; esac
{CUT_SCRIPT}
number=$(printf %03d $(($(grep -c "" {CUTS}/calls) + 1)))
echo "$number $name $*" >>{CUTS}/calls
[ -e {CUTS}/lazy ] || /usr/bin/sync -f /etc /var/lib
cut "$number"
exec /usr/bin/$name "$@"
"""
LAYOUTS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "one disk": {"root": ("etc", "lib")},
    "two disks": {"root": ("etc",), "state": ("lib",)},
}
# It gives up after three starts in quick succession, and its unit asks for a start step that only a new text has.
OLD_UNIT = UNIT.replace("RestartSec=2", "RestartSec=100ms").replace("[Unit]", "[Unit]\nStartLimitBurst=3")
OLD = {UNIT_PATH: OLD_UNIT, ENVIRONMENT_PATH: ENVIRONMENT, CONFIG_PATH: CONFIG}
GOOD = {
    UNIT_PATH: OLD_UNIT.replace("--v=2", "--v=4"),
    ENVIRONMENT_PATH: ENVIRONMENT.replace("--max-pods=110", "--max-pods=9"),
    CONFIG_PATH: CONFIG.replace('"makeIPTablesUtilChains": true', '"makeIPTablesUtilChains": false'),
}
# Each of these texts alone keeps the kubelet from starting.
REFUSED = {
    UNIT_PATH: OLD_UNIT.replace("ExecStart=", "ExecStartPre=/bin/false\nExecStart=").replace("--v=2", "--v=4"),
    ENVIRONMENT_PATH: ENVIRONMENT.replace("--max-pods=110", "--max-pods=nine"),
    CONFIG_PATH: CONFIG.replace('"makeIPTablesUtilChains": true', '"makeIPTablesUtilChains": "maybe"'),
}


@pytest.fixture
def binds(tmp_path: Path) -> dict[Path, str]:
    """What every boot shows in the machine: the kubelet, and the commands that cut."""
    wrappers = tmp_path / "faults"
    wrappers.mkdir()
    for name in COMMANDS:
        (wrappers / name).write_text(WRAPPER)
        (wrappers / name).chmod(0o755)
    kubelet = tmp_path / "kubelet"
    kubelet.write_bytes(Path(kubelet_standin.__file__).read_bytes())
    kubelet.chmod(0o755)
    return {REPOSITORY: kubelet_standin.REPOSITORY, kubelet: KUBELET_PATH, wrappers: FAULTS}


def a_node(directory: Path, layout: str) -> Disks:
    """The disks of a node with the old texts."""
    disks = make_disks(directory, LAYOUTS[layout])
    with mounted(disks) as at:
        texts = OLD | {f"{DROPIN_DIRECTORY}/{name}": dropin.text for name, dropin in DROPINS.items()}
        for path, text in texts.items():
            target = at["etc"] / path.removeprefix("/etc/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        (at["etc"] / "systemd/system/multi-user.target.wants/kubelet.service").symlink_to(UNIT_PATH)
    return disks


def edits(old: Mapping[str, str], new: Mapping[str, str]) -> list[FileEdit]:
    made = []
    for path, text in old.items():
        digest = hashlib.sha256(text.encode()).hexdigest()
        made.append(file_edit(File(path, text, 0o600, 0, 0, len(text), 0, digest, True), new[path]))
    return made


def script_of(made: Sequence[FileEdit]) -> str:
    return apply_script(made, present=[], absent=[], settle_seconds=1, limit_seconds=90, nonce=NONCE)


def run(machine: Machine, script: str, *, path: str = "") -> Report:
    machine.write({"/run/script": script})
    done = machine.run(f"PATH={path}$PATH exec sh /run/script", timeout=600)
    return parse_report(done.stderr, NONCE)


def cut_all_along(machine: Machine, script: str, moment: str) -> Report:
    """Run the script, and cut the power before each of its steps, and after the last."""
    machine.check(f": >{CUTS}/calls; [ {moment} = synced ] || : >{CUTS}/lazy")
    report = run(machine, script, path=f"{FAULTS}:")
    machine.check(f"{CUT_SCRIPT} cut end")
    return report


def well(machine: Machine) -> bool:
    """Whether the kubelet runs and says so, once systemd has nothing more to do for it."""
    waiting = """
        for attempt in $(seq 600); do
            case $(systemctl is-active kubelet) in active) ;; failed | inactive) exit 1 ;; esac
            [ "$(curl -s -m 2 http://127.0.0.1:10248/healthz)" = ok ] && exit 0
            sleep 0.1
        done
        exit 1"""
    return machine.run(waiting, timeout=600).rc == 0


def comes_up_new(
    disks: Disks, binds: Mapping[Path, str], called: str, old: Mapping[str, str], new: Mapping[str, str]
) -> bool:
    """Boot what a cut left, look at the node as it is then, and then at what a further fix finds.

    It must be well, wholly old or wholly new, with nothing left of the fix. True where it is new.
    """
    with boot(disks.copied(disks.directory.with_suffix(".booted")), binds) as machine:
        healthy = well(machine)
        console = machine.run(f"journalctl -b --no-pager -u kubelet -u {RECOVERY}; ls -lR {STATE}; cat {STATE}/journal")
        where = (called, console.stdout)
        found = {path: machine.read(path) for path in old}
        assert healthy, where
        assert found in (old, new), where
        argv = machine.read_bytes(f"/proc/{machine.check('systemctl show kubelet -p MainPID --value').strip()}/cmdline")
        assert (b"--v=4" in argv.split(b"\0")) == ("--v=4" in found[UNIT_PATH]), where
        assert (b"--max-pods=9" in argv.split(b"\0")) == ("--max-pods=9 " in found[ENVIRONMENT_PATH]), where
        left = machine.check(f"find /etc -name '*kubelet-guard*'; find /var/lib -path {STATE}/journal").splitlines()
        left += machine.check("systemctl -q list-units --all --plain 'kubelet-guard*'").splitlines()
        # A unit's text that nothing asks for is all that may stay, of a cut before anything was to be undone.
        assert left == [] or (left, found) == ([f"/etc/systemd/system/{RECOVERY}"], old), where
        stale = FileEdit(ENVIRONMENT_PATH, "0" * 64, (Splice(0, 0, b"", b"x"),))
        report = run(machine, script_of([stale]))
        assert (report.outcome, [step.name for step in report.steps]) == ("changed_meanwhile", ["before"]), where
        assert {path: machine.read(path) for path in old} == found, where
    return found == new


def outcomes(disks: Disks, binds: Mapping[Path, str], old: Mapping[str, str], new: Mapping[str, str]) -> list[bool]:
    """For each cut in turn, whether it came up new; what is the same on all disks is booted once."""
    lines = (disks.directory / "calls").read_text().splitlines()
    calls = dict(line.split(" ", 1) for line in lines)
    digests = {cut: disks.at(cut).digest() for cut in disks.cuts()}
    different = {digest: cut for cut, digest in reversed(digests.items())}
    with ThreadPoolExecutor(2) as pool:
        booted = {
            digest: pool.submit(comes_up_new, disks.at(cut), binds, f"{cut.stem} {calls.get(cut.stem, '')}", old, new)
            for digest, cut in different.items()
        }
    came = [booted[digest].result() for digest in digests.values()]
    print(f"{len(came)} cuts, {len(booted)} different ones booted and well, {sum(came)} cuts came up new, none between")
    return came


EVERY_MOMENT = pytest.mark.parametrize(
    ("layout", "moment"), [("one disk", "lazy"), ("one disk", "synced"), ("two disks", "lazy")]
)


@EVERY_MOMENT
@pytest.mark.parametrize("outcome", ["applied", "rolled_back"])
def test_during_a_fix(tmp_path: Path, binds: dict[Path, str], outcome: str, layout: str, moment: str) -> None:
    new = GOOD if outcome == "applied" else REFUSED
    disks = a_node(tmp_path / "node", layout)
    with boot(disks, binds) as machine:
        assert well(machine)
        report = cut_all_along(machine, script_of(edits(OLD, new)), moment)
    assert report.outcome == outcome, report
    came_new = outcomes(disks, binds, OLD, new)
    assert len(came_new) > 50
    assert came_new == sorted(came_new), "once it is new it stays new"
    assert came_new[-1] == (outcome == "applied")


@pytest.mark.parametrize("moment", ["lazy", "synced"])
def test_during_an_undo(tmp_path: Path, binds: dict[Path, str], moment: str) -> None:
    disks = a_node(tmp_path / "node", "one disk")
    with boot(disks, binds) as machine:
        assert well(machine)
        fixed = run(machine, script_of(edits(OLD, GOOD)))
        machine.check("sync")
        script = undo_script(fixed.backup_id, settle_seconds=1, limit_seconds=90, nonce=NONCE)
        assert cut_all_along(machine, script, moment).outcome == "applied"
    came_back = outcomes(disks, binds, GOOD, OLD)
    assert came_back == sorted(came_back)
    assert (came_back[0], came_back[-1], len(came_back) > 50) == (False, True, True)


@EVERY_MOMENT
@pytest.mark.parametrize("verified", [False, True], ids=["undone", "finished"])
def test_during_the_boot_after_a_cut(
    tmp_path: Path, binds: dict[Path, str], verified: bool, layout: str, moment: str
) -> None:
    """The power fails again while the boot ends what the first cut left."""
    new = GOOD if verified else REFUSED
    disks = a_node(tmp_path / "node", layout)
    with boot(disks, binds) as machine:
        assert well(machine)
        cut_all_along(machine, script_of(edits(OLD, new)), "lazy")
    calls = [line.split(" ", 1) for line in (disks.directory / "calls").read_text().splitlines()]
    begins = f"rm -f {STATE}/journal" if verified else "systemctl restart --no-block kubelet.service"
    number = next(number for number, call in calls if call == begins)
    again = disks.at(disks.directory / f"{number}.cut").copied(tmp_path / "again")
    (again.directory / "calls").touch()
    if moment == "lazy":
        (again.directory / "lazy").touch()
    wrapped = tmp_path / "wrapped.conf"
    wrapped.write_text(f"[Service]\nEnvironment=PATH={FAULTS}:/usr/bin:/usr/sbin\n")
    with boot(again, binds | {wrapped: f"/run/systemd/system/{RECOVERY}.d/wrapped.conf"}) as machine:
        assert well(machine)
        machine.check(f"{CUT_SCRIPT} cut end")
    came_new = outcomes(again, binds, OLD, new)
    assert len(came_new) > (5 if verified else 12)
    assert set(came_new) == {verified}
