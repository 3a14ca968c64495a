"""systemd's rules for the kubelet unit, and edits of it. test_systemd_real.py asks a real systemd."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.systemd import (
    CannotEdit,
    MissingEnvironmentFile,
    StartCommand,
    TooLarge,
    UnitError,
    UnknownToUs,
    append_argument,
    envfile,
    remove_argument,
    replace_argument,
    start_command,
)
from shared.systemd.text import Lines, joined_bytes
from tests.support.nspawn import CONFIG_PATH, DROPIN_DIRECTORY, DROPINS, ENVIRONMENT, ENVIRONMENT_PATH, UNIT, UNIT_PATH

GOOD = "--make-iptables-util-chains=true"
BAD = "--make-iptables-util-chains=false"
FILE = "/etc/default/kubelet"


def unit(exec_start: str, *lines: str) -> str:
    return "\n".join(["[Service]", *lines, f"ExecStart=/opt/bin/kubelet {exec_start}", ""])


def arguments(command: StartCommand) -> list[str]:
    return [argument.text for argument in command.argv[1:]]


def started(
    files: dict[str, str],
    dropins: tuple[str, ...] = (),
    *,
    systemd_version: int | None = None,
    base_environment: dict[str, str] | None = None,
) -> StartCommand:
    return start_command(UNIT_PATH, dropins, files, systemd_version=systemd_version, base_environment=base_environment)


def aks_files() -> dict[str, str]:
    files = {UNIT_PATH: UNIT, ENVIRONMENT_PATH: ENVIRONMENT}
    return files | {
        f"{DROPIN_DIRECTORY}/{name}": dropin if isinstance(dropin, str) else dropin.text
        for name, dropin in DROPINS.items()
    }


def aks_dropins() -> tuple[str, ...]:
    return tuple(sorted(f"{DROPIN_DIRECTORY}/{name}" for name in DROPINS))


# The command line


def test_aks_node() -> None:
    files = aks_files()
    command = started(files, aks_dropins())
    assert command.executable == "/opt/bin/kubelet"
    assert arguments(command) == [
        "--enable-server",
        "--node-labels=agentpool=nodepool1,kubernetes.azure.com/mode=system",
        "--v=2",
        "--volume-plugin-dir=/etc/kubernetes/volumeplugins",
        "--kubeconfig",
        "/var/lib/kubelet/kubeconfig",
        "--config",
        CONFIG_PATH,
        "--runtime-request-timeout=15m",
        "--container-runtime-endpoint=unix:///run/containerd/containerd.sock",
        "--address=0.0.0.0",
        "--max-pods=110",
        GOOD,
        "--rotate-certificates",
    ]
    flag = command.argv[13]
    assert (flag.origin.path, flag.origin.line, flag.origin.variable) == (ENVIRONMENT_PATH, 1, "KUBELET_FLAGS")
    labels = command.argv[2]
    assert labels.origin.variable is None
    assert files[UNIT_PATH][labels.origin.start : labels.origin.end] == '--node-labels="${KUBELET_NODE_LABELS}"'
    assert [(part.text, part.origin.variable, part.origin.line) for part in labels.parts] == [
        ("--node-labels=", None, 14),
        ("agentpool=nodepool1,kubernetes.azure.com/mode=system", "KUBELET_NODE_LABELS", 4),
    ]
    assert command.variables["NETWORK_POLICY"].value == ""
    assert command.exec_start_origin.line == 12
    for argument in command.argv:
        if re.fullmatch(r"[\w./=:,-]+", argument.text) and len(argument.parts) == 1:
            origin = argument.origin
            assert files[origin.path][origin.start : origin.end] == argument.text


@pytest.mark.parametrize(
    ("exec_start", "expected"),
    [
        ("--a=1  --b=2\t--c", ["--a=1", "--b=2", "--c"]),
        ('"a b" \'c d\' e"f g"h', ["a b", "c d", "ef gh"]),
        ("\"\" ''", ["", ""]),
        (r"\x41\101\u00e4\tb\s", ["AAä\tb "]),
        (r"'\x41 \'q\''", ["A 'q'"]),
        (r"\q \x4 a\\;b", [r"\q", r"\x4", r"a\;b"]),
        ("a \\\n  b \\\n# comment \\\n  ; another\n  c", ["a", "b", "c"]),
        ("a\\\r\n b\r\n", ["a", "b"]),
        ('";" \\; ;x', [";", ";", ";x"]),
        (
            "%% %n %N %p %i. %j 5% %! %t",
            ["%", "kubelet.service", "kubelet", "kubelet", ".", "kubelet", "5%", "%!", "/run"],
        ),
        ("$A ${A} x$A x${A}", ["1", "2 3", "1 '2 3'", "x$A", "x1 '2 3'"]),
        ("$NONE ${NONE} x${NONE}", ["", "x"]),
        ("$$A $$ a$$b ${A:-x} ${A", ["$A", "$", "a$b", "${A:-x}", "${A"]),
        ("$A.b", []),
        ('"$A"', ["1", "2 3"]),
    ],
)
def test_words(exec_start: str, expected: list[str]) -> None:
    files = {UNIT_PATH: unit(exec_start, "Environment=\"A=1 '2 3'\"")}
    assert arguments(started(files)) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=--a=1 --b=2", "--a=1 --b=2"),
        ("A=  x y \t", "x y"),
        (" A = x", "x"),
        ("A='x \"y\" '", 'x "y" '),
        ('A="x \\"y\\" \\$ \\z"', 'x "y" $ \\z'),
        ('A="a" "b" c', "abc"),
        ("A='it'\"'\"'s'", "it's"),
        ('A=--x="y z"', '--x="y z"'),
        ("A=a\\ b\\\\c\\", "a b\\c"),
        ("A=--a \\\n--b", "--a --b"),
        ('A="--a \\\n--b"', "--a --b"),
        ("A='--a\n--b'", "--a\n--b"),
        ("A=1\nA=2", "2"),
        ("A=1\r\nB=2\r\n", "1"),
        ("A=--a \\\r\n--b", "--a "),
        ("#A=0\n;A=0\nA=1 # x", "1 # x"),
        ("export A=0\nA", None),
        ('A="open', "open"),
        ("A=", ""),
    ],
)
def test_environment_file(text: str, value: str | None) -> None:
    files = {UNIT_PATH: unit("x", f"EnvironmentFile={FILE}"), FILE: text}
    variables = started(files).variables
    assert (variables["A"].value if "A" in variables else None) == value


def test_environment_order() -> None:
    """Files win over Environment=, the later over the earlier, and UnsetEnvironment= over all."""
    lines = [
        *("Environment=A=unit B=unit C=unit D=unit", "EnvironmentFile=/one", "EnvironmentFile=-/missing"),
        *("EnvironmentFile=/two", "Environment=A=later B=later", "UnsetEnvironment=D C=other"),
    ]
    files = {UNIT_PATH: unit("x", *lines), "/one": "A=one\nB=one\n", "/two": "A=two\n"}
    variables = started(files).variables
    assert {name: variable.value for name, variable in variables.items()} == {"A": "two", "B": "one", "C": "unit"}
    assert variables["A"].origin.path == "/two"


def test_dropins_reset_and_replace() -> None:
    files = {
        UNIT_PATH: unit("--old $A", "Environment=A=1 B=1", "EnvironmentFile=/mandatory"),
        "/1.conf": "[Service]\nEnvironment=\nEnvironmentFile=\nEnvironment=B=2\n",
        "/2.conf": "[Service]\nExecStart=\nExecStart=-/usr/local/bin/kubelet --new $A $B\n[Unit]\nExecStart=/x",
    }
    command = started(files, ("/1.conf", "/2.conf"))
    assert (command.executable, arguments(command)) == ("/usr/local/bin/kubelet", ["--new", "2"])
    assert command.exec_start_origin.path == "/2.conf"


def test_bad_line_in_dropin_ends_that_file_only() -> None:
    files = {UNIT_PATH: unit("$A"), "/1.conf": "[Service]\nEnvironment=A=1\nExecStart=/x '\nEnvironment=A=2\n"}
    assert arguments(started(files, ("/1.conf",))) == ["1"]


def test_prefixes() -> None:
    files = {UNIT_PATH: "[Service]\nEnvironment=A=1\nExecStart=-:@/opt//bin/./kubelet zeroth $A $$ ${A}\n"}
    command = started(files)
    assert command.executable == "/opt/bin/kubelet"
    assert [argument.text for argument in command.argv] == ["zeroth", "$A", "$$", "${A}"]


def test_what_the_manager_knows_can_be_told() -> None:
    files = {UNIT_PATH: unit("%H %l $FROM_MANAGER ${PATH}", "PassEnvironment=FROM_MANAGER", "UnsetEnvironment=X")}
    with pytest.raises(UnknownToUs, match="%H"):
        started(files)
    with pytest.raises(UnknownToUs, match=r"FROM_MANAGER.*PassEnvironment="):
        start_command(UNIT_PATH, [], files, hostname="node.example")
    environment = {"FROM_MANAGER": "a b", "PATH": "/bin"}
    command = start_command(UNIT_PATH, [], files, hostname="node.example", base_environment=environment)
    assert arguments(command) == ["node.example", "node", "a", "b", "/bin"]


def test_backslash_at_the_end_of_a_comment_depends_on_the_version() -> None:
    files = {UNIT_PATH: unit("$A", f"EnvironmentFile={FILE}"), FILE: "A=1\n# comment \\\nA=2\n"}
    assert arguments(start_command(UNIT_PATH, [], files, systemd_version=249)) == ["1"]
    assert arguments(start_command(UNIT_PATH, [], files, systemd_version=255)) == ["2"]
    with pytest.raises(UnknownToUs, match="version"):
        started(files)
    harmless = {**files, FILE: "A=1\n# comment \\\n# more\nB=1\n"}
    assert arguments(started(harmless)) == ["1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[Service]\nExecStart=/a\nExecStart=/b\n", "has 2 ExecStart= commands"),
        ("[Service]\nExecStart=/a ; /b\n", "has 2 ExecStart= commands"),
        ("[Service]\nType=simple\n", "has 0 ExecStart= commands"),
        ("[Service]\nExecStart=bin/kubelet\n", r"kubelet.service:2: ExecStart= names a program by a relative path"),
        ("[Service]\nExecStart=/opt/bin/\n", "names a directory"),
        ("[Service]\nExecStart=@/opt/bin/kubelet\n", "no word for argument 0"),
        ("[Service]\nExecStart=/opt/bin/kubelet 'a\n", "a quote that is never closed: '"),
        ("[Service]\nExecStartPre=/bin/x 'a\nExecStart=/opt/bin/kubelet\n", "a quote that is never closed: '"),
        ("[Service]\nExecStart=/opt/bin/kubelet %x\n", "the specifier %x, which systemd does not know"),
        ("[Service\nExecStart=/opt/bin/kubelet\n", "1: invalid section header"),
        ("[Service]\nExecStart=/opt/bin/kubelet \udcff\n", ":2: not valid UTF-8"),
        ("[Service]\nExecStart=/opt/bin/kubelet\n[Unit]\nDescription=M\udcfcller\n", ":4: not valid UTF-8"),
        ("[Service]\nExecStart=/opt/bin/kubelet \\\n# c\n \ufffe\n", ":2: not valid UTF-8"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(UnitError, match=message) as refused:
        started({UNIT_PATH: text})
    assert not isinstance(refused.value, UnknownToUs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (unit("%m"), "the specifier %m, whose value is not known here"),
        (unit("$A", "Environment=A=%b"), r"\$A: its definition in /etc/systemd/system/kubelet.service has .* %b"),
        (unit("${MAINPID}"), r"\$MAINPID, which systemd sets itself"),
        (unit("$LC_ALL"), r"\$LC_ALL, which systemd sets itself"),
        (unit("x", "EnvironmentFile=/etc/default/*.env"), "by a pattern"),
        (unit("x" * 4096), "more than 4095 bytes"),
    ],
)
def test_unknown(text: str, message: str) -> None:
    with pytest.raises(UnknownToUs, match=message):
        started({UNIT_PATH: text})


# Bytes that are not UTF-8 (lone surrogates here)


def test_what_is_not_utf8_does_not_matter_in_a_comment() -> None:
    text = f"# M\udcfcller\n[Service]\nEnvironmentFile={FILE}\nExecStart=/a $A \\\n; \udcff\n b\n"
    files = {UNIT_PATH: text, FILE: "; M\udcfcller\nno assignment \udcfc\nA=1\n#\udcff"}
    assert arguments(started(files)) == ["1", "b"]


def test_a_dropin_is_read_up_to_a_line_that_is_not_utf8() -> None:
    files = {UNIT_PATH: unit("$A $B"), "/1.conf": "[Service]\nEnvironment=A=1\nEnvironment=B=\udcfc\nEnvironment=B=2\n"}
    assert arguments(started(files, ("/1.conf",))) == ["1"]


@pytest.mark.parametrize("line", ["B=M\udcfcller", "B\udcfc=1", "B='\udcfc", "B=\uffff", "B=\0"])
def test_an_environment_file_with_such_an_assignment_is_not_read_at_all(line: str) -> None:
    files = {UNIT_PATH: unit("$A $B", f"EnvironmentFile={FILE}"), FILE: f"A=1\n{line}\nB=2\n"}
    with pytest.raises(UnitError, match=rf"{FILE}:2: ") as refused:
        started(files)
    assert not isinstance(refused.value, UnknownToUs)
    optional = {**files, UNIT_PATH: unit("$A $B", f"EnvironmentFile=-{FILE}", "Environment=A=0")}
    assert arguments(started(optional)) == ["0"]


@pytest.mark.parametrize(
    ("exec_start", "expected"),
    [
        (r"M\xfcller \374", ["M\udcfcller", "\udcfc"]),
        (r"\xc3\xbc x\303\274y", ["ü", "xüy"]),
        (r"\ud800", ["\udced\udca0\udc80"]),
        (r"\ufdd0 \ufffe", ["\ufdd0", "\ufffe"]),
    ],
)
def test_escapes_make_bytes_of_an_argument(exec_start: str, expected: list[str]) -> None:
    assert arguments(started({UNIT_PATH: unit(exec_start)})) == expected


def test_a_variable_is_dropped_whose_value_escapes_make_no_utf8() -> None:
    lines = (r'Environment=A=1 B=2 "C=\xc3\xbc"', r"Environment=A=M\xfc B=\ud800 B=\ufffe D=\303\274")
    assert arguments(started({UNIT_PATH: unit("$A $B $C $D", *lines)})) == ["1", "2", "ü", "ü"]


def test_a_nul_ends_a_line_of_a_unit_file() -> None:
    files = {UNIT_PATH: "[Service]\0\nEnvironment=A=1\0junk\nExecStart=/a $A $B\0Environment=B=2\0\r\n"}
    assert arguments(started(files)) == ["1", "2"]


# Limits: what the kernel takes is taken, and nothing is made of what it does not


@pytest.mark.parametrize(
    ("lines", "exec_start", "taken"),
    [
        ((), "x" * 131071, True),
        ((), "x" * 131072, False),
        ((), "\u00e4" * 65536, False),
        (("Environment=A=" + "x" * 131069,), "a", True),
        (("Environment=A=" + "x" * 131070,), "a", False),
        (("Environment=A=" + "x" * 131000,), "${A} " * 15, True),
        (("Environment=A=" + "x" * 131000,), "${A} " * 16, False),
        (("Environment=A=" + "x" * 100000,), "x${A}${A}", False),
    ],
)
def test_the_kernels_limits(lines: tuple[str, ...], exec_start: str, taken: bool) -> None:
    files = {UNIT_PATH: unit(exec_start, *lines)}
    if taken:
        started(files, systemd_version=252)
    else:
        with pytest.raises(TooLarge, match="the kernel's limit"):
            started(files, systemd_version=252)


def test_the_kernels_limits_hold_for_environment_files_and_the_managers_environment() -> None:
    files = {UNIT_PATH: unit("a", f"EnvironmentFile={FILE}"), FILE: "A=" + "x" * 131070}
    with pytest.raises(TooLarge, match=r"variable A is longer than .* the kernel's limit"):
        started(files)
    with pytest.raises(TooLarge, match="the kernel's limit"):
        started({UNIT_PATH: unit("a")}, base_environment={"B": "x" * 131070})


MANY = 20_001


@pytest.mark.parametrize(
    "text",
    [
        unit("$A " * 3000, 'Environment="A=' + "x " * 4500 + '"'),  # 18 KB that would make 13 million arguments
        unit("a " * MANY),
        unit("${A}" * MANY),
        unit("a", *["Environment=A=1"] * MANY),
        unit("a", "Environment=" + "A=1 " * MANY),
        unit("a", "PassEnvironment=" + "A " * MANY),
        unit("a", *["EnvironmentFile=/e"] * 1000),
        "[Service]\n" * MANY,
        "junk\n" * MANY,
        unit("a") + "\n" * 600_000,
        unit("%n%n%n%n" * 10_000),
    ],
)
def test_limits_of_ours_say_so(text: str) -> None:
    files = {UNIT_PATH: text, "/e": "A=1\n" * 100}
    with pytest.raises(TooLarge, match="our limit"):
        started(files, systemd_version=252)


def test_a_limit_is_one_in_a_dropin_and_with_the_prefix_that_forgives_too() -> None:
    dropin = "[Service]\nEnvironment=" + "A=1 " * 100 + "\nExecStart=-/a " + "a " * MANY
    with pytest.raises(TooLarge):
        started({UNIT_PATH: unit("a"), "/1.conf": dropin}, ("/1.conf",))


def test_what_is_used_often_is_made_once() -> None:
    files = {UNIT_PATH: unit("$A " * 100, 'Environment="A=' + "x " * 100 + '"')}
    command = started(files)
    assert len(command.argv) == 10_001
    assert len({id(argument) for argument in command.argv[1:]}) == 100


def test_long_words_by_the_version() -> None:
    files = {UNIT_PATH: unit("x" * 4096)}
    assert arguments(started(files, systemd_version=251)) == ["x" * 4096]
    with pytest.raises(UnknownToUs, match="more than 4095 bytes"):
        started(files, systemd_version=250)


def test_unknown_value_that_is_not_used_does_not_matter() -> None:
    lines = ("Environment=A=%b", "PassEnvironment=B", "Environment=C=%b", "Environment=C=1")
    assert arguments(started({UNIT_PATH: unit("$C", *lines)})) == ["1"]


def test_missing_environment_file() -> None:
    with pytest.raises(MissingEnvironmentFile, match="EnvironmentFile= names /etc/default/kubelet, which is missing"):
        started({UNIT_PATH: unit("x", f"EnvironmentFile={FILE}")})


def test_missing_unit_file() -> None:
    with pytest.raises(UnitError, match=r"/1.conf: this file of the unit is not among the given texts"):
        started({UNIT_PATH: unit("x")}, ("/1.conf",))


def test_messages_hold_no_values() -> None:
    files = {UNIT_PATH: unit("%m --token=secret $A", 'Environment="A=secret %m"')}
    with pytest.raises(UnknownToUs) as refused:
        started(files)
    assert "secret" not in str(refused.value)


# Edits


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"KUBELET_FLAGS=--a {BAD} --b  # x\n", f"KUBELET_FLAGS=--a {GOOD} --b  # x\n"),
        (f'# c\r\nKUBELET_FLAGS="--a {BAD}"\r\nB=1', f'# c\r\nKUBELET_FLAGS="--a {GOOD}"\r\nB=1'),
        (f"KUBELET_FLAGS='{BAD}'", f"KUBELET_FLAGS='{GOOD}'"),
        (f"KUBELET_FLAGS=--a \\\n  {BAD} \\\n  --b\n", f"KUBELET_FLAGS=--a \\\n  {GOOD} \\\n  --b\n"),
        (f"KUBELET_FLAGS={BAD}\nKUBELET_FLAGS={BAD} --b\n", f"KUBELET_FLAGS={BAD}\nKUBELET_FLAGS={GOOD} --b\n"),
        (f'KUBELET_FLAGS=--a "{BAD}" --b', f'KUBELET_FLAGS=--a "{GOOD}" --b'),
        ('KUBELET_FLAGS=--make-iptables-util-chains="fal"se', "KUBELET_FLAGS=--make-iptables-util-chains=true"),
    ],
)
def test_replace_in_environment_file(before: str, after: str) -> None:
    files = {UNIT_PATH: unit("$KUBELET_FLAGS", f"EnvironmentFile={FILE}"), FILE: before}
    command = started(files)
    assert replace_argument(files, command, arguments(command).index(BAD) + 1, GOOD) == {FILE: after}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (unit(f"--a {BAD} \\\n  # {BAD}\n  --b"), unit(f"--a {GOOD} \\\n  # {BAD}\n  --b")),
        (unit(f'"{BAD}"'), unit(f'"{GOOD}"')),
        (unit("$F", f'Environment="F=--a {BAD}" X=1'), unit("$F", f'Environment="F=--a {GOOD}" X=1')),
        (unit("$F", f"Environment=F={BAD}"), unit("$F", f"Environment=F={GOOD}")),
        (
            unit("--make-iptables-util-chains=${M}", "Environment=M=false"),
            unit("--make-iptables-util-chains=${M}", "Environment=M=true"),
        ),
        (
            unit("--make-iptables-util-chains=${M} --x=${M}", "Environment=M=false"),
            unit(f"{GOOD} --x=${{M}}", "Environment=M=false"),
        ),
        (unit(r"--make-iptables-util-chains=\x66alse"), unit(GOOD)),
    ],
)
def test_replace_in_unit(before: str, after: str) -> None:
    files = {UNIT_PATH: before}
    command = started(files)
    assert replace_argument(files, command, arguments(command).index(BAD) + 1, GOOD) == {UNIT_PATH: after}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (unit("--a --gone --b"), unit("--a --b")),
        (unit("--a \\\n  --gone \\\n  --b"), unit("--a \\\n  --b")),
        (unit("--a \\\n  # c\n  --gone \\\n  --b"), unit("--a \\\n  # c\n  --b")),
        (unit("--a \\\r\n  --gone"), unit("--a")),
        (unit("--a \\\n# c \\\n  --gone"), unit("--a \\\n# c \\\n")),
        (unit("--a $F", 'Environment="F=--gone --b"'), unit("--a $F", 'Environment="F=--b"')),
        (unit("--a $F --b", 'Environment="F=--gone"'), unit("--a $F --b", 'Environment="F="')),
    ],
)
def test_remove(before: str, after: str) -> None:
    files = {UNIT_PATH: before}
    command = started(files)
    assert remove_argument(files, command, arguments(command).index("--gone") + 1) == {UNIT_PATH: after}


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("F=--a\nG=", "F=--a --new\nG="),
        ("F=\n", "F=--new\n"),
        ('F=""\r\n', 'F="--new"\r\n'),
        ("F='--a '", "F='--a --new'"),
        ("F=--a  # x \n", "F=--a  # x --new \n"),
        ("F=--a\nF=--b", "F=--a\nF=--b --new"),
    ],
)
def test_append_to_the_last_variable(text: str, after: str) -> None:
    files = {UNIT_PATH: unit("$F $UNDEFINED", f"EnvironmentFile={FILE}"), FILE: text}
    assert append_argument(files, started(files), "--new") == {FILE: after}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (unit("--a"), unit("--a --new")),
        (unit("$F --a", "Environment=F=1"), unit("$F --a --new", "Environment=F=1")),
        (unit("$F"), unit("$F --new")),
        (unit("--a \\\n  --b \\\n  # c\n"), unit("--a \\\n  --b --new \\\n  # c\n")),
        (unit("$F $F", "Environment=F=1"), unit("$F $F --new", "Environment=F=1")),
    ],
)
def test_append_to_the_unit_itself(before: str, after: str) -> None:
    files = {UNIT_PATH: before}
    assert append_argument(files, started(files), "--new") == {UNIT_PATH: after}


def test_append_where_the_environment_is_the_managers() -> None:
    files = {UNIT_PATH: unit("$F")}
    command = start_command(UNIT_PATH, [], files, base_environment={"F": f"--a {BAD}"})
    assert append_argument(files, command, "--new") == {UNIT_PATH: unit("$F --new")}
    with pytest.raises(CannotEdit):
        replace_argument(files, command, 2, GOOD)


def test_cannot_edit_what_is_used_twice() -> None:
    files = {UNIT_PATH: unit("$F $F", f"Environment=F={BAD}")}
    with pytest.raises(CannotEdit, match="its definition may be used more than once"):
        replace_argument(files, started(files), 1, GOOD)


def test_cannot_edit_the_program_or_beyond_the_end() -> None:
    files = {UNIT_PATH: unit("--a")}
    command = started(files)
    with pytest.raises(CannotEdit, match="argument 0 is the program's name"):
        remove_argument(files, command, 0)
    with pytest.raises(IndexError, match="no argument 2; the command line has 2"):
        replace_argument(files, command, 2, "x")


def test_cannot_edit_other_files_than_the_command_was_made_from() -> None:
    files = {UNIT_PATH: unit("--a --b")}
    with pytest.raises(CannotEdit, match="was not made from these files"):
        replace_argument({UNIT_PATH: unit("--c --b")}, started(files), 1, "x")


def test_same_argument_changes_nothing() -> None:
    files = {UNIT_PATH: unit("--a")}
    assert replace_argument(files, started(files), 1, "--a") == {}


# Properties

PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NASTY = st.text("ab \t'\"\\$%{};#=é\n\r", max_size=12)
ARGUMENT = st.one_of(PLAIN, NASTY)
DEFINITIONS = [
    "F=\n# c\nG=1\n",
    'F=""\r\nG=1',
    "F=''\n",
    " F = --x \nG=\n",
    'F="--x"\nG=1\n',
    "F='--x'",
    "F=--x \\\n--y\n",
]


@settings(deadline=None)
@given(
    new=st.lists(ARGUMENT, max_size=4),
    text=st.sampled_from(DEFINITIONS),
    in_unit=st.booleans(),
)
def test_any_arguments_can_be_appended(new: list[str], text: str, in_unit: bool) -> None:
    """One after the other, into any kind of definition, each exactly as it is."""
    if in_unit:
        files = {UNIT_PATH: unit("--first $F", 'Environment="F=--x" "G=1"', "Environment=H=1")}
    else:
        files = {UNIT_PATH: unit("--first $F", f"EnvironmentFile={FILE}"), FILE: text}
    before = started(files)
    for argument in new:
        changed = append_argument(files, started(files), argument)
        assert len(changed) == 1
        files |= changed
    after = started(files)
    assert arguments(after) == [*arguments(before), *new]
    assert after.variables.keys() == before.variables.keys()


@settings(deadline=None)
@given(
    old=st.lists(st.sampled_from(["--a=1", BAD, '"b c"', "d\\ e", "${G}", "x${G}y", "'f'"]), min_size=1, max_size=4),
    place=st.sampled_from(["exec", "dropin", "file", "quoted file"]),
    new=st.one_of(ARGUMENT, st.just(GOOD)),
    end=st.sampled_from(["\n", "\r\n"]),
    data=st.data(),
)
def test_replacing_changes_one_line_and_can_be_undone(
    old: list[str], place: str, new: str, end: str, data: st.DataObject
) -> None:
    words = " ".join(old)
    lines = ["# c", "[Service]", f"EnvironmentFile={FILE}", 'Environment="G=g" "H=%n"  ; d']
    texts = {FILE: ["# c", "H=1", "G=h i", ""], "/1.conf": ["; c", "[Service]", 'Environment="H=h"', ""]}
    if place == "exec":
        lines.append(f"ExecStart=/opt/bin/kubelet --first {words} --last")
    else:
        lines.append("ExecStart=/opt/bin/kubelet --first $F --last")
    if place == "dropin":
        escaped = words.replace("\\", "\\\\").replace('"', '\\"')
        texts["/1.conf"].insert(2, f'Environment="F={escaped}" "Z=z"')
    elif place == "file":
        texts[FILE].insert(1, "F=--x " + words.replace("\\", "\\\\"))
    elif place == "quoted file":
        escaped = re.sub(r'(["\\`$])', r"\\\1", words)
        texts[FILE].insert(1, f'F=--x "{escaped}"')
    files = {UNIT_PATH: end.join([*lines, "# end"]), **{path: end.join(text) for path, text in texts.items()}}
    command = started(files, ("/1.conf",))
    wanted = arguments(command)
    index = data.draw(st.integers(0, len(wanted) - 1))
    try:
        changed = replace_argument(files, command, index + 1, new)
    except CannotEdit:
        # A line end cannot be written in every kind of quotes, and G may be used more than once.
        assert re.search(r"[\r\n\t]", new) or "G" in words
        return
    previous = wanted[index]
    wanted[index] = new
    after = {**files, **changed}
    command = started(after, ("/1.conf",))
    assert arguments(command) == wanted
    for path, text in changed.items():
        before_lines, after_lines = files[path].split(end), text.split(end)
        if len(before_lines) == len(after_lines):
            assert sum(one != other for one, other in zip(before_lines, after_lines, strict=True)) == 1
        else:
            assert "\n" in new or "\r" in new
    if re.fullmatch(r"[\w=.-]+", new) and re.fullmatch(r"[\w=.-]+", previous) and previous in words:
        assert {**after, **replace_argument(after, command, index + 1, previous)} == files


@settings(deadline=None)
@given(
    fragment=st.text("[Service]ExctarEnvironmetFl=/$%{}\"'\\;# \t\r\nab1", max_size=80),
    dropin=NASTY,
    file=st.one_of(NASTY, PLAIN),
    exec_start=NASTY,
)
def test_any_text_is_read_or_refused(fragment: str, dropin: str, file: str, exec_start: str) -> None:
    texts = f"[Service]\nEnvironmentFile={FILE}\nEnvironment={dropin}\nExecStart=/a {exec_start} $A ${{A}}\n{fragment}"
    files = {UNIT_PATH: texts, FILE: f"A={file}\n{dropin}", "/1.conf": f"[Service]\nEnvironment={file}\n{dropin}"}
    try:
        command = started(files, ("/1.conf",))
    except UnitError:
        return
    for argument in command.argv:
        assert argument.text == "".join(part.text for part in argument.parts)
        assert 0 <= argument.origin.start < argument.origin.end <= len(files[argument.origin.path])


_VALUES = st.text(alphabet="ab -=$\"'\\\t\n\r#;%.é\x85\x0b\x1f\xa0{}", max_size=30)


@given(_VALUES, _VALUES)
def test_the_arguments_are_those_whose_places_are_told(value: str, word: str) -> None:
    """Where they are written is made later, and by another way."""
    text = f'[Service]\nEnvironmentFile=/e\nEnvironment="B=x y"\nExecStart=/k $A ${{A}} -{word} $B$A $B\n'
    try:
        command = start_command("/u", (), {"/u": text, "/e": f"A={value}\n"}, systemd_version=255)
    except UnitError:
        return
    assert tuple(argument.text for argument in command.argv) == command.texts
    for argument in command.argv:
        assert joined_bytes("".join(piece.text for piece in argument.pieces)) == argument.text


@given(st.lists(st.sampled_from("ab=_ \t\n\r\"'\\#;é\x0b\udc80"), max_size=60).map("".join), st.booleans())
def test_a_plain_line_of_an_environment_file_is_read_as_any_other(text: str, comments_continue: bool) -> None:
    def read() -> list[envfile.Assignment] | str:
        try:
            return list(envfile.assignments("/e", text, comments_continue=comments_continue))
        except UnitError as error:
            return str(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envfile, "_plain_line", lambda *_: None)
        slowly = read()
    assert read() == slowly


@given(st.text(alphabet="a\n\r", max_size=20), st.integers(0, 25))
def test_lines_end_as_they_end(text: str, offset: int) -> None:
    ends = [match.end() for match in re.finditer(r"\r\n|\r|\n", text)]
    assert Lines(text).at(offset) == 1 + sum(end <= offset for end in ends)
