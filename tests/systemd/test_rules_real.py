"""The model of what a unit says beside its command, against a real systemd that loads the same units."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from shared.systemd import ServiceRules, UnitError, UnknownToUs, service_rules
from tests.support.nspawn import Machine, machine

__all__ = ["machine"]

SEED = 1052
CASES = 150

PATHS = [
    *(
        "/a",
        "/b//c/./d",
        "/%N/x",
        "rel",
        "/../a",
        "/a/..",
        "/%x",
        "/e%%",
        "/%!",
        "'/f g'",
        '"/h\\i"',
        "/j\\ k",
        "",
        "/",
    ),
    *("-/l", "+/m", "-+/n", "+-/o", "/p\udcfc"),
]
TAILS = ["", "", ":/q", ":/q/%N", ":rel", ":", "::", ":/r:norbind", ":/r:rbind", ":/s:bad", ":/t::", ":/u:rbind /v"]
UNIT_LINES = [
    *("ConditionPathExists=/a", "ConditionPathExists=!/b", "ConditionPathExists=|!/%N", "ConditionPathExists=rel"),
    *("ConditionPathExists=", "ConditionFileNotEmpty=/x/../y", "ConditionPathExists=/%x", "ConditionHost=!x"),
    *("ConditionHost=| ! y", "ConditionMemory=>1G", "ConditionFoo=x", "ConditionFoo=", "AssertPathExists=/a"),
    *("AssertHost=", "AssertHost=|z", "AssertPathIsDirectory=|/d", "ConditionUser=root", "ConditionNeedsUpdate=/etc"),
    *("RefuseManualStop=yes", "RefuseManualStop=0", "RefuseManualStop=", "RefuseManualStop=maybe"),
    *("RefuseManualStart=TRUE", "RefuseManualStart=off", "RefuseManualStart=y"),
]
SERVICE_LINES = [
    *(
        "User=daemon",
        "User=",
        "User=root",
        "User=0",
        "User=%N",
        "User=a b",
        "User=-a",
        "DynamicUser=yes",
        "DynamicUser=no",
    ),
    *(
        "WorkingDirectory=/w/%N/./",
        "WorkingDirectory=~",
        "WorkingDirectory=-~",
        "WorkingDirectory=",
        "WorkingDirectory=-x",
    ),
    *("RootDirectory=/r//s", "RootDirectory=", "RootDirectory=/", "RootImage=/i.img", "RootImage="),
    *("PrivateTmp=yes", "PrivateTmp=no", "ProtectHome=tmpfs", "ProtectHome=no", "PrivateDevices=true"),
    *("ExecCondition=/bin/true", "ExecCondition=", "ExecCondition=-/bin/x 'y", "# \udcfc", "ExtensionImages=/e.img"),
    *("BindPaths=", "BindReadOnlyPaths=", "TemporaryFileSystem=", "InaccessiblePaths=", "MountImages="),
]
REFUSED_LINES = [
    *("User=a/b", "User=a:b", "User=%x", "User=65535", "User=4294967295", "Group=..", "WorkingDirectory=x"),
    *("WorkingDirectory=/a/../b", "WorkingDirectory=/%x", "RootDirectory=x", "RootDirectory=/%x", "RootImage=/.."),
    *("X-A=\udcfc", "BindPaths=/\uffff", "[Service"),
]
LISTS = ["BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem", "InaccessiblePaths", "MountImages"]

UNIT_PROPERTIES = ["LoadState", "RefuseManualStop", "RefuseManualStart", "Conditions", "Asserts"]
SERVICE_PROPERTIES = [
    *("User", "DynamicUser", "WorkingDirectory", "RootDirectory", "RootImage", "ExecCondition", "BindPaths"),
    *("BindReadOnlyPaths", "TemporaryFileSystem", "InaccessiblePaths", "MountImages", "ExtensionImages", "PrivateTmp"),
    *("PrivateDevices", "ProtectHome"),
]


@dataclass(frozen=True, slots=True)
class Case:
    """A unit and its drop-in."""

    name: str
    files: dict[str, str]

    def rules(self, systemd_version: int) -> ServiceRules:
        fragment, *dropins = self.files
        return service_rules(fragment, dropins, self.files, systemd_version=systemd_version)


def make_case(pick: random.Random, name: str) -> Case:
    fragment = f"/etc/systemd/system/{name}.service"
    files = {}
    for path in (fragment, f"{fragment}.d/1.conf"):
        unit = pick.choices(UNIT_LINES, k=pick.randint(0, 5))
        service = pick.choices(SERVICE_LINES, k=pick.randint(0, 5))
        for _ in range(pick.randint(0, 3)):
            items = (pick.choice(PATHS) + pick.choice(TAILS) for _ in range(pick.randint(1, 4)))
            value = " ".join(item for item in items if "\udcfc" not in item or pick.random() < 0.1)
            service.append(f"{pick.choice(LISTS)}={value}")
        pick.shuffle(service)
        if pick.random() < 0.1:
            service.insert(pick.randint(0, len(service)), pick.choice(REFUSED_LINES))
        start = ["ExecStart=/bin/true"] if path == fragment else []
        files[path] = "\n".join(["[Unit]", *unit, "[Service]", *start, *service, ""])
    return Case(name, files)


def properties(machine: Machine, name: str) -> dict[str, object]:
    """What systemd's own interface says of the unit."""
    path = f"/org/freedesktop/systemd1/unit/{name.replace('-', '_2d')}_2eservice"
    found: dict[str, object] = {}
    for interface, names in (("Unit", UNIT_PROPERTIES), ("Service", SERVICE_PROPERTIES)):
        asked = ["org.freedesktop.systemd1", path, f"org.freedesktop.systemd1.{interface}", *names]
        lines = machine.check(["busctl", "--json=short", "get-property", *asked]).splitlines()
        found |= {key: json.loads(line)["data"] for key, line in zip(names, lines, strict=True)}
    return found


def expected(of_systemd: dict[str, object], name: str) -> ServiceRules:
    """The same in our terms."""

    def column(key: str, index: int) -> list[str]:
        value = of_systemd[key]
        assert isinstance(value, list)
        return [row[index] for row in value]

    inaccessible = of_systemd["InaccessiblePaths"]
    assert isinstance(inaccessible, list)
    mounted = {*column("BindPaths", 1), *column("BindReadOnlyPaths", 1), *column("TemporaryFileSystem", 0)}
    mounted |= {*column("MountImages", 1), *(path.removeprefix("-").removeprefix("+") for path in inaccessible)}
    if of_systemd["ExtensionImages"]:
        mounted |= {"/usr", "/opt", "/etc"}
    if of_systemd["PrivateTmp"]:
        mounted |= {"/tmp", "/var/tmp"}
    if of_systemd["PrivateDevices"]:
        mounted |= {"/dev"}
    if of_systemd["ProtectHome"] != "no":
        mounted |= {"/home", "/root", "/run/user"}
    user = str(of_systemd["User"]) or (name if of_systemd["DynamicUser"] else "")
    user = "" if user in ("root", "0") else user
    directory = str(of_systemd["WorkingDirectory"]).removeprefix("!")
    return ServiceRules(
        exec_condition=bool(of_systemd["ExecCondition"]),
        refuse_manual_stop=bool(of_systemd["RefuseManualStop"]),
        refuse_manual_start=bool(of_systemd["RefuseManualStart"]),
        user=user,
        working_directory="/root" if directory == "~" and not user else directory or "/",
        root_directory=str(of_systemd["RootDirectory"]).removesuffix("/"),
        root_image=str(of_systemd["RootImage"]),
        mounted=tuple(sorted(mounted)),
        conditions=tuple(sorted(conditions_of(of_systemd))),
    )


def conditions_of(of_systemd: dict[str, object]) -> Sequence[str]:
    """Conditions and asserts as lines of a unit."""
    conditions, asserts = of_systemd["Conditions"], of_systemd["Asserts"]
    assert isinstance(conditions, list)
    assert isinstance(asserts, list)
    rows = [*conditions, *asserts]
    return [f"{key}={'|' * trigger}{'!' * negate}{parameter}" for key, trigger, negate, parameter, _ in rows]


def test_model_says_what_systemd_says(machine: Machine) -> None:
    version = int(machine.check(["systemctl", "--version"]).split()[1])
    pick = random.Random(SEED)
    cases = [make_case(pick, f"rules-{number:04}") for number in range(CASES)]
    machine.write({path: text for case in cases for path, text in case.files.items()})
    machine.check(["systemctl", "daemon-reload"])
    machine.check(["systemctl", "show", "--property=LoadState", *(f"{case.name}.service" for case in cases)])
    mismatches = []
    refused = 0
    for case in cases:
        of_systemd = properties(machine, case.name)
        try:
            found = case.rules(version)
        except UnknownToUs:
            raise
        except UnitError as error:
            refused += 1
            if of_systemd["LoadState"] == "loaded":
                mismatches.append(f"{case}:\n  refused: {error}")
            continue
        lines = (line.replace("%N", case.name).replace("| ! ", "|!") for line in found.conditions)
        conditions = tuple(sorted(lines))
        ours = replace(found, conditions=conditions)
        theirs = expected(of_systemd, case.name)
        if of_systemd["LoadState"] != "loaded" or ours != theirs:
            mismatches.append(f"{case}:\n  ours:   {ours}\n  theirs: {theirs} {of_systemd['LoadState']}")
    assert not mismatches, f"{len(mismatches)} of {CASES}:\n" + "\n".join(mismatches)
    assert CASES // 20 <= refused <= CASES // 3
