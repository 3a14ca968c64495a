"""The model of systemd and the edits, against a real systemd that starts the same units."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from shared.systemd import (
    CannotEdit,
    StartCommand,
    TooLarge,
    UnitError,
    UnknownToUs,
    append_argument,
    remove_argument,
    replace_argument,
    start_command,
)
from tests.support import nspawn
from tests.support.nspawn import Machine, NodeFile, install_aks_node, machine

__all__ = ["machine"]

SEED = 3026
CASES = 400
PROGRAMS = "/opt/dump"
OUTPUT = "/run/dump"

DUMP = f"""#!/bin/sh
for argument; do printf '%s\\0' "$argument"; done > {OUTPUT}/"${{0##*/}}.part"
mv {OUTPUT}/"${{0##*/}}.part" {OUTPUT}/"${{0##*/}}"
"""
"""Writes its arguments, each ended by a NUL, to a file with its own name."""

WORDS = [
    *("--a=1", "--make-iptables-util-chains=false", "-v", "2", "x", '""', "''", "--ä=€"),
    *('"--b=x y"', "'--c=x  y'", '--d="x y"', '--e="x\ty"z', "--f='it'\"s\"", '"--g=\\"q\\""', "'--h=\\'q\\''"),
    *("--i=\\x41\\x20b", "--j=\\101", "--k=\\u00e4", "--l=\\U0001f600", "--m=a\\sb", "--n=\\t|", "--o=a\\\\b"),
    *("--p=\\q", "\\", "--r=\\x4", "--s=\\400", "--t=\\000", "--u=\\u00", "'a\\q", '"open'),
    *("$A", "$B", "$C", "${A}", "${B}", "--x=${A}", "--x=${A}-${B}", '"--x=${A} $B"', "x${C}", "${C}"),
    *('"$A"', "'$B'", "$NONE", "${NONE}", "--x=${NONE}", "$$A", "$$", "a$$b", "--x=$A", "$A.b", "$A$B", "$", "a$"),
    *("${A", "${A:-b}", "${A:+$B} ${B}", "${}", "$(A)", "$${A}", "${A}$${B}", "\\$A", "\\x24A", "$1", "${1}"),
    *("%%", "%n", "%N", "--x=%p", "%i", "%j", "%t/x", "100%", "5%,6%", "%!", "%%n", "%%%N", "\\x25n", "$%p"),
    *("--w=M\\xfcller", "\\xc3\\xbc", "\\374\\303", "\\ud800", "\\ufffe"),
    *(";x", "x;", '";"', "\\;", "\\;x", "a\\;b", "#x", "x#y", "{", "}", "[x]", "=", "a=b", "`x`", "*", "~"),
]
ENVIRONMENT_WORDS = [
    *("A=1", "A=--b=2", "B=x", "C=", "A=\\x41\\x20c", "B=100%", "B=%n", "C=%%n", "C=a\\\\b", "A=a\\qb", "B=\\"),
    *('"A=--a=1 --b=2"', "'B=x y'", '"C=--x=\\"y z\\" w"', "'A=\"p q\" r'", 'B="x y"', "C=\"a\"b'c'", '"A=a"b'),
    *("\"A='one two' three\"", '"B=--a \\\\"', '"C=it\'s"', '"A=a\\tb\\nc"', '"B=$A ${A} $$"', '"C=\\u00e4 %p"'),
    *("A=M\\xfc", '"B=\\xc3\\xbc x"', "C=\\ud800", "A=\\ufffe"),
    *("1A=x", "A-B=x", "=x", "A", "%p=x", '"A =x"', '"open=', "A=#x", "A=;x", 'A=""', "A=''", '"A=  x  y  "'),
]
FILE_LINES = [
    *("A=1", "A=--a=1 --b=2", "B=x", "C=", "A=  --a=1   ", " B = x y\t", "C=a\\ b", "A=a\\\\b", "B=a\\", "C=\\"),
    *(
        'A="--a=1 --b=2"',
        "B='x y'",
        'C="a\\"b\\$c\\`d\\\\e\\f"',
        "A='a\\'",
        "B='it''s'",
        'C="a" "b" c',
        "A='a'\"b\"c'd'",
    ),
    *('A=--x="y z"', "B=--x='y z' w", 'C=a"b c', "A=it's", 'B="open', "C='open", "A=x # y", "# A=9", "; B=9", "#"),
    *('A="a\\', 'b"', "B=a \\", " --c", "export A=7", "A B=7", "1A=7", "=7", "novalue", "", "  ", "A=%n $B ${B} %%"),
    *("# M\udcfcller", "; \udcff \\", "no\udcfcvalue"),
    *(
        "A==x",
        "C=ä€",
        "B=$$",
        "A=a;b",
        "A=a\tb",
        'B=""',
        "B='' ",
        'A=" x "',
        'A= "x" ',
        "A=\\'x y\\'",
        "# c\\",
        "A=\\x41",
    ),
]
NEW_TEXTS = [
    *("--make-iptables-util-chains=true", "--x=true", "", "a b", '--q="x"', "it's", "$A", "${B}", "5%", "%n", "a\\b"),
    *(";", "#x", "\\", "--hard=memory.available<5%,x<$9", "ä", "\tx", "a  b ", "--x=\\x41"),
]
RARE_FILE_LINES = ["B=M\udcfcller", "A=1\0", "C='\uffff'", "B\udcfc=1"]
"""What makes systemd refuse the whole file."""
SOUP = "aA4x \"'\\${}%;#=\t"


@dataclass(frozen=True, slots=True)
class Case:
    """A unit with all the files it needs."""

    name: str
    fragment: str
    dropins: tuple[str, ...]
    files: Mapping[str, str] = field(repr=False)

    def command(self, systemd_version: int) -> StartCommand:
        return start_command(self.fragment, self.dropins, self.files, systemd_version=systemd_version)


HARMLESS_LINES = [
    *("# comment \\", "; comment", "", "X-Other=1", "# M\udcfc", "novalue", "[X-Other]\nA=B\n[Service]", " #"),
    *("=x", "ExecStop=-/bin/true '"),
]
REFUSED_LINES = [
    *("[Service", "ExecStartPre='", "ExecReload=bin/true"),
    *("User=a/b", "WorkingDirectory=x", "X-A=M\udcfc", "M\udcfc", "Environment=A=\udcfc"),
]


def soup(pick: random.Random) -> str:
    return "".join(pick.choices(SOUP, k=pick.randint(1, 10)))


def some(pick: random.Random, pool: Sequence[str], most: int) -> list[str]:
    return [soup(pick) if pick.random() < 0.15 else pick.choice(pool) for _ in range(pick.randint(0, most))]


def exec_start(pick: random.Random, name: str) -> str:
    program = f"{PROGRAMS}/{name}"
    odd_programs = [f"/{PROGRAMS}/./{name}", f'"{program}"', f"{PROGRAMS}/%N", f"{PROGRAMS}\\x2f{name}"]
    prefixes = ["-", ":", "+", "-!!", "!", "!+", "@", ":@-"]
    line = program
    if pick.random() < 0.4:
        prefix = pick.choice(prefixes)
        line = pick.choice([*odd_programs, prefix + program + (" zeroth" if "@" in prefix else "")])
    joints = [*([" "] * 6), "  ", "\t", " \\\n    ", "\\\n  ", " \\\n# c\n  ", " \\\n ; c \\\n\t", "\\\r\n "]
    for word in some(pick, WORDS, 7):
        line += pick.choice(joints) + word
    return line


def service_lines(pick: random.Random, name: str) -> Iterator[str]:
    for _ in range(pick.randint(0, 3)):
        key = pick.choice(["Environment=", "Environment = ", " Environment="])
        yield key + " ".join(some(pick, ENVIRONMENT_WORDS, 3))
    for _ in range(pick.randint(0, 2)):
        yield pick.choice(["EnvironmentFile=", "EnvironmentFile=-"]) + f"/etc/{name}/{pick.choice('ab')}"
    if pick.random() < 0.15:
        yield pick.choice(["UnsetEnvironment=A", "UnsetEnvironment=B=x C", "UnsetEnvironment=", "EnvironmentFile="])
    if pick.random() < 0.1:
        yield pick.choice(
            ["Environment=", "EnvironmentFile=//etc/./%N/a", "EnvironmentFile=a", "EnvironmentFile=-/none"]
        )
    if pick.random() < 0.3:
        yield pick.choice(HARMLESS_LINES)
    if pick.random() < 0.03:
        yield pick.choice(REFUSED_LINES)


def make_case(pick: random.Random, name: str) -> Case:
    fragment = f"/etc/systemd/system/{name}.service"
    start = f"ExecStart={exec_start(pick, name)}"
    lines = [*service_lines(pick, name), "Type=exec", start, *service_lines(pick, name)]
    texts = {fragment: ["[Unit]", "Description=x", "[Service]", *lines]}
    dropins = tuple(f"{fragment}.d/{number}.conf" for number in range(pick.choice([0, 0, 1, 2])))
    for dropin in dropins:
        texts[dropin] = ["[Service]", *service_lines(pick, name)]
        if pick.random() < 0.4:
            reset = ["ExecStart="] if pick.random() < 0.9 else []
            texts[dropin] += [*reset, f"ExecStart={exec_start(pick, name)}", *service_lines(pick, name)]
    for letter in "ab":
        texts[f"/etc/{name}/{letter}"] = some(pick, FILE_LINES, 6)
        if pick.random() < 0.05:
            texts[f"/etc/{name}/{letter}"].append(pick.choice(RARE_FILE_LINES))
    if pick.random() < 0.05:
        del texts[f"/etc/{name}/b"]
    files = {}
    for path, content in texts.items():
        end = pick.choice([*(["\n"] * 6), "\r\n", "\r"])
        files[path] = end.join(content) + pick.choice([end, end, "", " "])
    return Case(name, fragment, dropins, files)


def make_cases() -> list[Case]:
    pick = random.Random(SEED)
    return [make_case(pick, f"case-{number:04}") for number in range(CASES)]


def start_all(machine: Machine, cases: Sequence[Case]) -> dict[str, tuple[str, ...] | None]:
    """The arguments (without argument 0) with which systemd started each; None where it did not."""
    machine.check(f"rm -rf {OUTPUT} && mkdir -p {OUTPUT}")
    files = {path: NodeFile(text) for case in cases for path, text in case.files.items()}
    files |= {f"{PROGRAMS}/{case.name}": NodeFile(DUMP, 0o755) for case in cases}
    machine.write(files)
    machine.check(["systemctl", "daemon-reload"])
    machine.run(["systemctl", "start", *(f"{case.name}.service" for case in cases)], timeout=120)
    still_running = "systemctl list-units --plain --no-legend --state=active,activating 'case-*'"
    machine.check(f"while {still_running} | grep -q .; do sleep 0.1; done")
    started: dict[str, tuple[str, ...] | None] = {case.name: None for case in cases}
    for name, dump in machine.read_directory(OUTPUT).items():
        started[name] = tuple(dump.decode(errors="surrogateescape").split("\0")[:-1])
    return started


def shown(case: Case, expected: object, started: object) -> str:
    texts = "".join(f"\n  {path}: {text!r}" for path, text in case.files.items())
    return f"{case.name}:\n  expected: {expected!r}\n  systemd:  {started!r}{texts}"


def edited(pick: random.Random, case: Case, version: int) -> tuple[Case, tuple[str, ...]] | None:
    """The case after an edit, and the arguments that were wanted; None where the edit was refused."""
    command = case.command(version)
    wanted = [argument.text for argument in command.argv]
    new = pick.choice(NEW_TEXTS)
    index = pick.randrange(len(wanted))
    try:
        if index == 0:
            changed = append_argument(case.files, command, new)
            wanted.append(new)
        elif pick.random() < 0.3:
            changed = remove_argument(case.files, command, index)
            del wanted[index]
        else:
            changed = replace_argument(case.files, command, index, new)
            wanted[index] = new
    except CannotEdit:
        return None
    return replace(case, files={**case.files, **changed}), tuple(wanted[1:])


@pytest.fixture(scope="module")
def version(machine: Machine) -> int:
    return int(machine.check(["systemctl", "--version"]).split()[1])


def test_model_starts_what_systemd_starts(machine: Machine, version: int) -> None:
    cases = make_cases()
    started = start_all(machine, cases)
    mismatches = []
    refused = unknown = 0
    for case in cases:
        expected: tuple[str, ...] | None = None
        reason = ""
        try:
            expected = tuple(argument.text for argument in case.command(version).argv[1:])
        except UnknownToUs:
            unknown += 1
            continue
        except UnitError as error:
            refused += 1
            reason = str(error)
        if started[case.name] != expected:
            mismatches.append(shown(case, expected or reason, started[case.name]))
    assert not mismatches, f"{len(mismatches)} of {len(cases)}:\n" + "\n".join(mismatches)
    assert unknown <= CASES // 20
    assert CASES // 10 <= refused <= CASES // 2


def test_systemd_starts_edited_units_as_intended(machine: Machine, version: int) -> None:
    pick = random.Random(SEED + 1)
    edits = []
    possible = 0
    for case in make_cases():
        try:
            case.command(version)
        except UnitError:
            continue
        possible += 1
        if edit := edited(pick, case, version):
            edits.append(edit)
    started = start_all(machine, [case for case, _ in edits])
    mismatches = [shown(case, wanted, started[case.name]) for case, wanted in edits if started[case.name] != wanted]
    assert not mismatches, f"{len(mismatches)} of {len(edits)}:\n" + "\n".join(mismatches)
    assert len(edits) >= 150
    assert len(edits) >= possible * 0.8


STAND_IN = """#!/usr/bin/python3
import time
time.sleep(1000)
"""
GOOD = "--make-iptables-util-chains=true"
BAD = "--make-iptables-util-chains=false"


def running_arguments(machine: Machine, unit: str, skip: int) -> list[str]:
    """The arguments of the unit's main process, from its command line, without the first `skip`."""
    machine.check(["systemctl", "daemon-reload"])
    machine.check(["systemctl", "restart", unit])
    pid = machine.check(["systemctl", "show", "--property=MainPID", "--value", unit]).strip()
    # A simple service counts as started before its process has become the program.
    machine.check(f"while [ /proc/{pid}/exe -ef /proc/1/exe ]; do sleep 0.02; done", timeout=10)
    return machine.read_bytes(f"/proc/{pid}/cmdline").decode().split("\0")[skip:-1]


def node_command(machine: Machine) -> tuple[dict[str, str], StartCommand]:
    """The node's files and command line, from the paths that systemd itself gives, in its order."""

    def shown_paths(name: str) -> list[str]:
        return machine.check(["systemctl", "show", f"--property={name}", "--value", "kubelet.service"]).split()

    fragment, *_ = shown_paths("FragmentPath")
    dropins = shown_paths("DropInPaths")
    environment_files = [path for path in shown_paths("EnvironmentFiles") if path.startswith("/")]
    files = {path: machine.read(path) for path in (fragment, *dropins, *environment_files)}
    return files, start_command(fragment, dropins, files)


@pytest.mark.parametrize(
    ("unit", "env", "dropins", "changed_path"),
    [
        pytest.param(
            nspawn.UNIT, nspawn.ENVIRONMENT.replace(GOOD, BAD), {}, nspawn.ENVIRONMENT_PATH, id="environment file"
        ),
        pytest.param(
            nspawn.UNIT,
            f"KUBELET_NODE_LABELS=a=b\r\nKUBELET_FLAGS='--v=3 {BAD}'\r\n",
            {},
            nspawn.ENVIRONMENT_PATH,
            id="quoted, CRLF",
        ),
        pytest.param(
            nspawn.UNIT,
            nspawn.ENVIRONMENT.replace(GOOD, ""),
            {"10-containerd-base-flag.conf": f'[Service]\nEnvironment="KUBELET_CONTAINERD_FLAGS={BAD} --x"\n'},
            f"{nspawn.DROPIN_DIRECTORY}/10-containerd-base-flag.conf",
            id="drop-in",
        ),
        pytest.param(
            nspawn.UNIT.replace("--v=2", BAD),
            nspawn.ENVIRONMENT.replace(GOOD, ""),
            {},
            nspawn.UNIT_PATH,
            id="unit",
        ),
        pytest.param(
            nspawn.UNIT,
            nspawn.ENVIRONMENT.replace(GOOD, ""),
            {
                "20-b.conf": f"[Service]\nExecStart=\nExecStart={nspawn.KUBELET_PATH} {BAD} \\\n  $KUBELET_FLAGS",
                "30-a.conf": '[Service]\nEnvironment="UNUSED=1"',
            },
            f"{nspawn.DROPIN_DIRECTORY}/20-b.conf",
            id="drop-in that replaces ExecStart",
        ),
    ],
)
def test_flag_is_corrected_where_it_is_written(
    machine: Machine, unit: str, env: str, dropins: Mapping[str, str], changed_path: str
) -> None:
    install_aks_node(machine, STAND_IN, unit=unit, env=env, dropins={**nspawn.DROPINS, **dropins})
    files, command = node_command(machine)
    arguments = [argument.text for argument in command.argv[1:]]
    assert running_arguments(machine, "kubelet.service", skip=2) == arguments

    index = arguments.index(BAD)
    corrected = replace_argument(files, command, index + 1, GOOD)
    assert corrected == {changed_path: files[changed_path].replace(BAD, GOOD)}
    machine.write(corrected)
    assert running_arguments(machine, "kubelet.service", skip=2) == [
        *arguments[:index],
        GOOD,
        *arguments[index + 1 :],
    ]


def test_flag_is_appended_and_removed(machine: Machine) -> None:
    install_aks_node(machine, STAND_IN)
    files, command = node_command(machine)
    arguments = [argument.text for argument in command.argv[1:]]
    appended = append_argument(files, command, "--protect-kernel-defaults=true")
    assert list(appended) == [nspawn.ENVIRONMENT_PATH]
    machine.write(appended)
    assert running_arguments(machine, "kubelet.service", skip=2) == [*arguments, "--protect-kernel-defaults=true"]

    files, command = node_command(machine)
    machine.write(remove_argument(files, command, len(command.argv) - 1))
    assert machine.read(nspawn.ENVIRONMENT_PATH) == nspawn.ENVIRONMENT
    assert running_arguments(machine, "kubelet.service", skip=2) == arguments


def test_a_masked_dropin_is_one_without_text(machine: Machine) -> None:
    """systemd names the link among the drop-ins, in the place of the one that it masks."""
    install_aks_node(machine, STAND_IN)
    masked = "/usr/lib/systemd/system/kubelet.service.d"
    machine.write({f"{masked}/99-team.conf": "[Service]\nEnvironment=UNUSED=1 KUBELET_CGROUP_FLAGS=--masked\n"})
    machine.check(["ln", "-s", "/dev/null", f"{nspawn.DROPIN_DIRECTORY}/99-team.conf"])
    machine.check(["systemctl", "daemon-reload"])
    files, command = node_command(machine)
    assert files[f"{nspawn.DROPIN_DIRECTORY}/99-team.conf"] == ""
    arguments = [argument.text for argument in command.argv[1:]]
    assert "--masked" not in arguments
    assert running_arguments(machine, "kubelet.service", skip=2) == arguments
    machine.check(["rm", "-r", masked])


SIZES = {
    "word-longest": ("x" * 131071, "", True),
    "word-too-long": ("x" * 131072, "", False),
    "variable-longest": ("a", "Environment=A=" + "x" * 131069, True),
    "variable-too-long": ("a", "Environment=A=" + "x" * 131070, False),
    "all-fits": ("${A} " * 14, "Environment=A=" + "x" * 131000, True),
    "all-too-long": ("${A} " * 16, "Environment=A=" + "x" * 131000, False),
}


def test_what_the_kernel_takes_is_what_is_taken(machine: Machine, version: int) -> None:
    cases = [
        Case(f"case-{name}", fragment, (), {fragment: f"[Service]\n{line}\nExecStart={PROGRAMS}/case-{name} {words}\n"})
        for name, (words, line, _) in SIZES.items()
        for fragment in [f"/etc/systemd/system/case-{name}.service"]
    ]
    started = start_all(machine, cases)
    for case, (_, _, taken) in zip(cases, SIZES.values(), strict=True):
        assert (started[case.name] is not None) == taken, case.name
        if taken:
            assert started[case.name] == tuple(argument.text for argument in case.command(version).argv[1:])
        else:
            with pytest.raises(TooLarge, match="the kernel's limit"):
                case.command(version)


MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")


def started_simply(machine: Machine, exec_start: str) -> tuple[list[str], list[str]]:
    """The whole command line that the model gives for a unit with this ExecStart=, and that of its process."""
    path = "/etc/systemd/system/simple.service"
    text = f"[Service]\nExecStart={exec_start}\n"
    machine.write({path: text})
    shown_environment = machine.check(["busctl", "--json=short", "get-property", *MANAGER, "Environment"])
    environment = dict(assignment.split("=", 1) for assignment in json.loads(shown_environment)["data"])
    hostname = machine.check("cat /proc/sys/kernel/hostname").strip()
    command = start_command(path, [], {path: text}, base_environment=environment, hostname=hostname)
    return [argument.text for argument in command.argv], running_arguments(machine, "simple.service", skip=0)


def test_prefix_gives_argument_0(machine: Machine) -> None:
    expected, running = started_simply(machine, "@/usr/bin/sleep zeroth 1000")
    assert expected == running == ["zeroth", "1000"]


def test_manager_environment_and_hostname(machine: Machine) -> None:
    machine.check(["systemctl", "set-environment", "FROM_MANAGER=1000 2000"])
    expected, running = started_simply(machine, "@/usr/bin/sleep %H-%l-${PATH} $FROM_MANAGER")
    assert expected == running
    assert running[1:] == ["1000", "2000"]
