"""The power fails while a node is fixed: what the node is after its next boot, without anybody's help.

Before each command by which the scripts change a disk or pass time, the disks are copied as a power cut would leave
them, and every copy is booted. In one half of the runs all that was written reaches the disk at once, in the other
nothing that no fsync asked for: a real power cut lies between these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.models import File
from shared.node.fixing import FileEdit, Report, Splice, apply_script, file_edit, parse_report
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


@dataclass(frozen=True, slots=True)
class Bed:
    """What every boot shows in the machine, and a place for disks."""

    directory: Path
    binds: Mapping[Path, str]

    @contextmanager
    def boot(self, disks: Disks) -> Iterator[Machine]:
        with boot(disks, self.binds) as machine:
            yield machine


@dataclass(slots=True)
class Counts:
    """Cuts made, of which different ones booted, nodes healthy after it, old and new ones, files lost."""

    cuts: int = 0
    booted: int = 0
    healthy: int = 0
    old: int = 0
    new: int = 0
    lost: int = 0


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    wrappers = tmp_path / "faults"
    wrappers.mkdir()
    for name in COMMANDS:
        (wrappers / name).write_text(WRAPPER)
        (wrappers / name).chmod(0o755)
    kubelet = tmp_path / "kubelet"
    kubelet.write_bytes(Path(kubelet_standin.__file__).read_bytes())
    kubelet.chmod(0o755)
    binds = {REPOSITORY: kubelet_standin.REPOSITORY, kubelet: KUBELET_PATH, wrappers: FAULTS}
    return Bed(tmp_path, binds)


def a_node(bed: Bed, layout: Mapping[str, Sequence[str]]) -> Disks:
    """The disks of a node with the old texts."""
    disks = make_disks(bed.directory / "node", layout)
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
    return apply_script(made, present=[], absent=[], settle_seconds=1, limit_seconds=15, nonce=NONCE)


def run(machine: Machine, script: str, *, path: str = "") -> Report:
    machine.write({"/run/script": script})
    done = machine.run(f"PATH={path}$PATH exec sh /run/script", timeout=100)
    return parse_report(done.stderr, NONCE)


def cut_all_along(machine: Machine, script: str, *, lazy: bool) -> Report:
    """Run the script, and cut the power before each of its steps, and after the last."""
    machine.check(f": >{CUTS}/calls; {'true' if not lazy else f': >{CUTS}/lazy'}")
    report = run(machine, script, path=f"{FAULTS}:")
    machine.check(f"{CUT_SCRIPT} cut 999; echo 999 >>{CUTS}/calls")
    return report


def well(machine: Machine) -> bool:
    """Whether the kubelet runs and says so, once systemd has nothing more to do for it."""
    waiting = """
        for attempt in $(seq 200); do
            case $(systemctl is-active kubelet) in active) ;; failed | inactive) exit 1 ;; esac
            [ "$(curl -s -m 2 http://127.0.0.1:10248/healthz)" = ok ] && exit 0
            sleep 0.1
        done
        exit 1"""
    return machine.run(waiting).rc == 0


def check_boot(bed: Bed, cut: Disks, called: str, old: Mapping[str, str], new: Mapping[str, str]) -> Counts:
    """Boot what a cut left, look at the node as it is then, and then at what a further fix finds."""
    counts = Counts(booted=1)
    with bed.boot(cut.copied(cut.directory.with_suffix(".booted"))) as machine:
        healthy = well(machine)
        console = machine.run(f"journalctl -b --no-pager -u kubelet -u {RECOVERY}; ls -lR {STATE}; cat {STATE}/journal")
        counts.healthy = healthy
        found = {path: machine.read(path) for path in old}
        counts.lost = sum(found[path] not in (old[path], new[path]) for path in old)
        counts.old, counts.new = found == old, found == new
        assert healthy, (called, console.stdout)
        assert found in (old, new), (called, console.stdout)
        argv = machine.read_bytes(f"/proc/{machine.check('systemctl show kubelet -p MainPID --value').strip()}/cmdline")
        assert (b"--v=4" in argv.split(b"\0")) == ("--v=4" in found[UNIT_PATH]), called
        assert (b"--max-pods=9" in argv.split(b"\0")) == ("--max-pods=9 " in found[ENVIRONMENT_PATH]), called
        left = machine.check(f"find /etc -name '*kubelet-guard*'; find {STATE} -name journal").splitlines()
        left += machine.check("systemctl -q list-units --all --plain 'kubelet-guard*'").splitlines()
        # A unit's text that nothing asks for is all that may stay, of a cut before anything was to be undone.
        assert left == [] or (left, found) == ([f"/etc/systemd/system/{RECOVERY}"], old), (called, console.stdout)
        stale = FileEdit(ENVIRONMENT_PATH, "0" * 64, (Splice(0, 0, b"", b"x"),))
        report = run(machine, script_of([stale]))
        assert (report.outcome, [step.name for step in report.steps]) == ("changed_meanwhile", ["before"]), called
        assert {path: machine.read(path) for path in old} == found, called
    return counts


def check_boots(bed: Bed, disks: Disks, old: Mapping[str, str], new: Mapping[str, str]) -> tuple[Counts, list[bool]]:
    """Boot what each cut left (what is the same only once). Also whether it came out new, cut by cut."""
    calls = dict(line.split(" ", 1) for line in (disks.directory / "calls").read_text().splitlines() if " " in line)
    different: dict[str, Path] = {}
    digests = [disks.at(cut).digest() for cut in disks.cuts()]
    for cut, digest in zip(disks.cuts(), digests, strict=True):
        different.setdefault(digest, cut)
    with ThreadPoolExecutor(2) as pool:
        names = [f"{cut.stem} {calls.get(cut.stem, 'the end')}" for cut in different.values()]
        found = pool.map(lambda cut, name: check_boot(bed, disks.at(cut), name, old, new), different.values(), names)
        by_digest = dict(zip(different, found, strict=True))
    total = Counts(*(sum(getattr(counts, name) for counts in by_digest.values()) for name in Counts.__slots__))
    total.cuts = len(digests)
    return total, [bool(by_digest[digest].new) for digest in digests]


MOMENTS = [("one disk", True), ("one disk", False), ("two disks", True)]


@pytest.mark.parametrize(("layout", "lazy"), MOMENTS)
@pytest.mark.parametrize("outcome", ["applied", "rolled_back"])
def test_a_fix(bed: Bed, outcome: str, layout: str, lazy: bool) -> None:
    new = GOOD if outcome == "applied" else REFUSED
    disks = a_node(bed, LAYOUTS[layout])
    with bed.boot(disks) as machine:
        assert well(machine)
        report = cut_all_along(machine, script_of(edits(OLD, new)), lazy=lazy)
    assert report.outcome == outcome, report
    counts, came_new = check_boots(bed, disks, OLD, new)
    print(f"{outcome}, {layout}, {'lazy' if lazy else 'synced'}: {counts}")
    assert (counts.healthy, counts.lost) == (counts.booted, 0)
    assert came_new == sorted(came_new), "once it is new it stays new"
    assert came_new[-1] == (outcome == "applied")
    assert counts.cuts > 50
