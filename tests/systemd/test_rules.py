"""What a unit says beside its command. test_rules_real.py asks a real systemd."""

from __future__ import annotations

import pytest

from shared.systemd import ServiceRules, TooLarge, UnitError, UnknownToUs, service_rules
from tests.support.nspawn import DROPIN_DIRECTORY, DROPINS, UNIT, UNIT_PATH


def rules(service: str = "", unit: str = "", dropin: str | None = None) -> ServiceRules:
    files = {UNIT_PATH: f"[Unit]\n{unit}\n[Service]\nExecStart=/opt/bin/kubelet\n{service}\n"}
    if dropin is None:
        return service_rules(UNIT_PATH, (), files)
    return service_rules(UNIT_PATH, ("/1.conf",), {**files, "/1.conf": dropin})


def test_aks_node() -> None:
    dropins = {f"{DROPIN_DIRECTORY}/{name}": file.text for name, file in DROPINS.items()}
    assert service_rules(UNIT_PATH, sorted(dropins), {UNIT_PATH: UNIT, **dropins}) == ServiceRules(
        exec_condition=False,
        refuse_manual_stop=False,
        refuse_manual_start=False,
        user="",
        working_directory="/",
        root_directory="",
        root_image="",
        mounted=(),
        conditions=("ConditionPathExists=/opt/bin/kubelet",),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RefuseManualStop=yes", True),
        ("RefuseManualStop=ON", True),
        ("RefuseManualStop=1\nRefuseManualStop=maybe\nRefuseManualStop=", True),
        ("RefuseManualStop=yes\nRefuseManualStop=f", False),
        ("[Service]\nRefuseManualStop=yes", False),
    ],
)
def test_the_last_boolean_that_is_one_counts(text: str, expected: bool) -> None:
    assert rules(unit=text).refuse_manual_stop is expected
    assert rules(unit=text.replace("Stop", "Start")).refuse_manual_start is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ConditionPathExists=/a\nAssertPathExists=/b", ["ConditionPathExists=/a", "AssertPathExists=/b"]),
        ("ConditionPathExists=/a\nConditionMemory=\nConditionHost=|!x", ["ConditionHost=|!x"]),
        ("ConditionPathExists=/a\nAssertHost=", ["ConditionPathExists=/a"]),
        ("ConditionPathExists=rel\nConditionPathExists=/%x\nConditionPathExists=/../a", []),
        (
            "ConditionPathExists=|!/%N/./a\nConditionPathExists=/%b",
            ["ConditionPathExists=|!/%N/./a", "ConditionPathExists=/%b"],
        ),
        ("ConditionFoo=1\nConditionFoo=\nConditionpathExists=/x", []),
        ("[Service]\nConditionPathExists=/a", []),
    ],
)
def test_conditions_that_count(text: str, expected: list[str]) -> None:
    assert list(rules(unit=text).conditions) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ExecCondition=/bin/false", True),
        ("ExecCondition=/bin/false\nExecCondition=", False),
        ("ExecCondition=-/bin/x 'y", False),
    ],
)
def test_exec_condition(text: str, expected: bool) -> None:
    assert rules(text).exec_condition is expected


@pytest.mark.parametrize(
    ("text", "user", "directory"),
    [
        ("User=root", "", "/"),
        ("User=0\nWorkingDirectory=~", "", "/root"),
        ("User=%N%%", "kubelet%", "/"),
        ("User=daemon\nWorkingDirectory=-~", "daemon", "~"),
        ("User=daemon\nUser=\nWorkingDirectory=/x\nWorkingDirectory=", "", "/"),
        ("DynamicUser=yes", "kubelet", "/"),
        ("User=a b\nWorkingDirectory=-/tmp//%N/./y/", "a b", "/tmp/kubelet/y"),
        ("WorkingDirectory=/x\nWorkingDirectory=-rel\nWorkingDirectory=-/%x\nWorkingDirectory=-", "", "/x"),
    ],
)
def test_user_and_working_directory(text: str, user: str, directory: str) -> None:
    found = rules(text)
    assert (found.user, found.working_directory) == (user, directory)


def test_root_directory_and_image() -> None:
    found = rules("RootDirectory=/r//./%N/\nRootImage=/i%%")
    assert (found.root_directory, found.root_image) == ("/r/kubelet", "/i%")
    assert rules("RootDirectory=/r\nRootDirectory=/").root_directory == ""
    assert rules("RootDirectory=/r\nRootDirectory=").root_directory == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('BindPaths=/a:/b -/c "/d e:/f g" /g:/h:norbind /i:/j:rbind', ["/b", "/c", "/d e:/f g", "/h", "/j"]),
        ("BindReadOnlyPaths=/%N/x /a//b/.:/c/./d", ["/c/d", "/kubelet/x"]),
        ("BindReadOnlyPaths=rel:/x /q:rel /y /z/../k", ["/x", "/y"]),
        (r"BindPaths=/a:: /b:/c:bad /k::rbind /p:/q:rbind:z /o\:o:/w  /s", ["/s", "/w"]),
        ("BindPaths=/a:/b%x /c%x /e%!:/f /g:", ["/f"]),
        ("BindPaths='/open\nBindPaths=/s:/t '/open", ["/t"]),
        ("BindPaths=/a\nBindReadOnlyPaths=/b\nBindPaths=\nBindReadOnlyPaths=/c", ["/c"]),
        ("TemporaryFileSystem=/t1:ro /t2 '/t 3':ro rel /a/../b /d%N:ro:x /g%x", ["/dkubelet", "/t 3", "/t1", "/t2"]),
        ("TemporaryFileSystem=/a\nTemporaryFileSystem=", []),
        ("MountImages=/i.img /j:rel /k.img:/u/../v -/l%N:/w%N:root:ro rel:/x", ["/wkubelet"]),
        ("InaccessiblePaths=/a%N -+/b +-/c rel /d/../e '/f g'", ["/akubelet", "/b", "/f g"]),
        ("ExtensionImages=/e.img", ["/etc", "/opt", "/usr"]),
        ("ExtensionDirectories=/e\nExtensionDirectories=", []),
        (
            "PrivateTmp=yes\nProtectHome=read-only\nPrivateDevices=no",
            ["/home", "/root", "/run/user", "/tmp", "/var/tmp"],
        ),
    ],
)
def test_what_directives_mount_over(text: str, expected: list[str]) -> None:
    assert list(rules(text).mounted) == expected


REFUSED = [
    *("WorkingDirectory=rel", "WorkingDirectory=/a/../b", "WorkingDirectory=/%x", 'WorkingDirectory="/tmp"'),
    *("RootDirectory=rel", "RootDirectory=/q/../z", "RootDirectory=/%x", "RootImage=rel"),
    *("User=a/b", "User=a:b", "User=..", "User=%x", "User=4294967295", "User=65535", "Group=x/y"),
]


@pytest.mark.parametrize("text", REFUSED)
def test_a_unit_that_systemd_refuses(text: str) -> None:
    with pytest.raises(UnitError, match=rf"kubelet.service:5: {text.partition('=')[0]}=") as refused:
        rules(text)
    assert not isinstance(refused.value, UnknownToUs)
    # In a drop-in, it ends the reading of that file.
    found = rules("User=a", dropin=f"[Service]\nUser=b\n{text}\nUser=c\n[Unit]\nRefuseManualStop=yes\n")
    assert (found.user, found.refuse_manual_stop) == ("b", False)


def test_what_these_texts_do_not_tell() -> None:
    for text in ("WorkingDirectory=/%b", "User=%m", "RootDirectory=/%b"):
        with pytest.raises(UnknownToUs):
            rules(text)
    assert rules("BindPaths=/a:/%b").mounted == ()


def test_limits() -> None:
    for text in ("BindPaths=" + "/a " * 20_001, "InaccessiblePaths=" + "/a " * 20_001, "User=" + "%n" * 100_000):
        with pytest.raises(TooLarge, match="our limit"):
            rules(text)
