"""The catalogue: every kind of rule, both versions of the benchmark, and what a file of one's own may get wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from shared.controls import Catalogue, Control, builtin, catalogue, install, read
from shared.controls.rules import KINDS, AnyRule, FileRule, ModeAtMost, Owner
from shared.errors import SettingsError, UsageError
from shared.kubelet import knows, usual
from shared.kubelet.minors import minor_rules
from shared.models import Metadata
from shared.runs.hosts.own_catalogue import install_own
from shared.runs.model.findings import reported_by
from shared.runs.model.request import RunRequest, parse_request
from shared.settings import Settings
from tests.support.findings import node
from tests.support.records import finding

ROOT = Path(__file__).parents[2]
RULE: TypeAdapter[Any] = TypeAdapter(AnyRule)

ENTRY = """controls:
  - id: ORG-1
    title: t
    severity: low
    setting: makeIPTablesUtilChains
    flag: --make-iptables-util-chains
    rule: {equals: true}
    rationale: r
    fix: f
"""
TIMEOUT = ENTRY.replace(
    "makeIPTablesUtilChains\n    flag: --make-iptables-util-chains\n    rule: {equals: true}",
    "streamingConnectionIdleTimeout\n    rule: {none_of: [1s]}\n    write: 4h0m0s",
)
FILE = ENTRY.replace("setting: makeIPTablesUtilChains\n    flag: --make-iptables-util-chains", "file: {path: /etc/x}")
BENCHMARK = """benchmarks:
  - version: org
    name: Ours
    entries:
      - {control: 3.2.6, level: 1}
"""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    install(builtin())


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "right", "wrong", "must", "writes"),
    [
        ({"equals": True}, [True], [False, None, 1, "true"], "be true", True),
        ({"equals": 0}, [0], [10255, False, None, "0"], "be 0", 0),
        ({"one_of": [110, 250]}, [110, 250], [111, None, "110"], "be 110 or 250", 110),
        ({"none_of": ["AlwaysAllow"]}, ["Webhook", ""], ["AlwaysAllow", None], "not be AlwaysAllow", None),
        (
            {"non_zero_duration": True},
            ["4h0m0s", "1ns", "10s", "0.5s"],
            ["0s", "0", "0h0m0s", "", None, 0, 5],
            "not be 0",
            None,
        ),
        ({"at_least": 5}, [5, 50], [4, 0, -1, None, True, "5"], "be 5 or more", 5),
        ({"at_least": 5, "or_zero": True}, [0, 5, 50], [1, 4, -1, None, False], "be 0, or 5 or more", 5),
        ({"present": "file"}, ["/etc/ca.crt"], ["", None, True], "name a file that is there", None),
    ],
)
def test_a_rule_of_a_setting(
    rule: dict[str, object], right: list[object], wrong: list[object], must: str, writes: object
) -> None:
    made = RULE.validate_python(rule)
    assert [value for value in right if not made.complies(value)] == []
    assert [value for value in wrong if made.complies(value)] == []
    assert (made.must, made.right) == (must, writes)
    assert type(made.right) is type(writes)
    assert made.kind in rule


def test_a_rule_of_a_files_mode() -> None:
    rule = RULE.validate_python({"mode_at_most": "644"})
    assert isinstance(rule, ModeAtMost)
    file = Metadata("/x", 0o100600, 0, 0)
    for mode, holds, after in ((0o644, True, 0o644), (0o600, True, 0o600), (0o444, True, 0o444), (0, True, 0)):
        assert (rule.holds(replace(file, mode=mode)), rule.mended(replace(file, mode=mode)).mode) == (holds, after)
    for mode, after in ((0o664, 0o644), (0o666, 0o644), (0o755, 0o644), (0o4644, 0o644), (0o620, 0o600)):
        bad = replace(file, mode=mode)
        assert not rule.holds(bad)
        assert rule.mended(bad) == replace(bad, mode=after), "what is too much goes, nothing is added"
    assert (rule.must, rule.seen(replace(file, mode=0o4755))) == ("be 644 or stricter", "4755")


def test_a_rule_of_a_files_owner() -> None:
    rule = RULE.validate_python({"owner": "root:42"})
    assert isinstance(rule, Owner)
    file = Metadata("/x", 0o600, 0, 42)
    assert rule.holds(file)
    for uid, gid in ((0, 0), (42, 42), (1000, 1000)):
        assert not rule.holds(replace(file, uid=uid, gid=gid))
        assert rule.mended(replace(file, uid=uid, gid=gid)) == file
    assert (rule.must, rule.seen(file)) == ("be root:42", "root:42")


def test_every_kind_of_rule_is_tried_and_stands_in_the_page() -> None:
    page = (ROOT / "docs/adding-a-control.md").read_text()
    table = re.findall(r"^\| `\{(\w+):", page, re.MULTILINE)
    assert sorted(table) == sorted(KINDS)


def test_every_entry_of_the_page_can_be_added() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/adding-a-control.md").read_text(), re.DOTALL)
    made = builtin()
    for block in blocks:
        made = read(block, "the page", made)
    kinds = {control.rule.kind for name, control in made.controls.items() if name.startswith("ORG-")}
    assert kinds == set(KINDS)
    assert (made.default, made.of()[0]) == ("org-2026", "3.2.6")


# --- this version's ---------------------------------------------------------------------------------------------------


def test_both_versions_have_the_thirteen_recommendations_of_the_node_section() -> None:
    wanted = [*(f"3.1.{n}" for n in range(1, 5)), *(f"3.2.{n}" for n in range(1, 10))]
    known = builtin()
    assert list(known.controls) == wanted
    assert set(known.benchmarks) == {"v1.7", "v1.8"}
    assert known.default == "v1.8"
    for version, benchmark in known.benchmarks.items():
        assert list(known.of(version)) == wanted
        assert benchmark.name == f"CIS AKS Benchmark {version}"
        levels = {entry.control: entry.level for entry in benchmark.entries}
        assert {name: level for name, level in levels.items() if level != 1} == {"3.2.7": 2, "3.2.8": None}


@pytest.mark.parametrize("control", builtin().controls.values(), ids=lambda control: str(control.id))
def test_an_entry_is_whole_and_true_of_a_kubelet(control: Control) -> None:
    assert control.rationale
    assert control.fix
    assert all(url.startswith("https://") for url in control.references)
    assert control.references
    if control.setting:
        assert knows(control.setting, control.flag) == ""
        assert bool(control.by_hand) == (control.right is None)
        assert control.right is None or control.complies(control.right)
    else:
        assert isinstance(control.rule, FileRule)


def test_this_versions_own_entries_bear_being_checked_as_a_file_of_ones_own_is() -> None:
    text = (ROOT / "shared/controls/catalogue.yaml").read_text()
    assert read(text, "itself", builtin()).controls == builtin().controls


@pytest.mark.parametrize(
    ("setting", "with_file", "alone"),
    [
        ("authentication.anonymous.enabled", False, True),
        ("authorization.mode", "Webhook", "AlwaysAllow"),
        ("readOnlyPort", 0, 10255),
        ("streamingConnectionIdleTimeout", "4h0m0s", "4h0m0s"),
        ("makeIPTablesUtilChains", True, True),
        ("eventRecordQPS", 50, 50),
        ("rotateCertificates", False, False),
        ("featureGates.RotateKubeletServerCertificate", True, True),
    ],
)
def test_the_kubelets_own_defaults(setting: str, with_file: object, alone: object) -> None:
    assert [(each.first, each.last, each.with_file, each.arguments_alone) for each in usual(setting)] == [
        (31, 37, with_file, alone)
    ]


def test_what_only_some_minors_have() -> None:
    found = usual("featureGates.KubeletPSI")
    assert (found[0].known, found[-1].known) == (False, True)
    assert (found[0].first, found[-1].last) == (31, 37)
    assert all(one.last + 1 == other.first for one, other in pairwise(found))


# --- one's own --------------------------------------------------------------------------------------------------------


def test_a_file_adds_and_overrides_and_leaves_its_digest() -> None:
    text = ENTRY + ENTRY.removeprefix("controls:\n").replace("ORG-1", "3.2.6") + BENCHMARK + "default: org\n"
    made = read(text, "ours.yaml", builtin())
    assert made.digest == sha256(text.encode()).hexdigest()
    assert made.controls["3.2.6"].title == "t"
    assert made.controls["3.2.5"] == builtin().controls["3.2.5"]
    assert made.of() == ("3.2.6", "ORG-1"), "what is in no benchmark is judged by whatever version"
    assert made.of("v1.7")[-1] == "ORG-1"
    assert builtin().digest == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ENTRY + "    colour: red\n", "line 10: colour: is not known here"),
        (ENTRY.replace("title: t", "title: [1]"), "line 3: title: must be text"),
        (ENTRY.replace("title: t", "title: 2001-01-01"), "line 3: title: must be text, in quotes"),
        (ENTRY.replace("severity: low", "severity: worst"), "line 4: severity: must be 'low', 'medium' or 'high'"),
        (ENTRY.replace("    fix: f\n", ""), "line 2: fix: is missing"),
        (ENTRY.replace("ORG-1", '"../x"'), "line 2: id: '../x' is not possible here"),
        (FILE.replace("{equals: true}", "{mode_at_most: 0644}"), "line 6: rule.mode_at_most: must be text, in quotes"),
        (FILE.replace("{equals: true}", '{mode_at_most: "9"}'), "line 6: rule.mode_at_most: '9' is not possible here"),
        (FILE.replace("{equals: true}", '{owner: "root"}'), "line 6: rule.owner: 'root' is not possible here"),
        (FILE, "line 2: mode_at_most and owner are rules of a file, all others of a setting"),
        (ENTRY.replace("{equals: true}", '{owner: "0:0"}'), "line 2: mode_at_most and owner are rules of a file"),
        (
            ENTRY.replace("{equals: true}", "{equals: true, at_least: 3}"),
            "line 7: rule: must have one kind of rule: eq",
        ),
        (ENTRY.replace("{equals: true}", "{equal: true}"), "line 7: rule: must have one kind of rule: equals, one_of"),
        (ENTRY.replace("{equals: true}", "[1]"), "line 7: rule: must have one kind of rule: equals, one_of"),
        (ENTRY.replace("{equals: true}", "{equals: true, or: 1}"), "line 7: rule.equals.or: is not known here"),
        (ENTRY.replace("{equals: true}", "{one_of: []}"), "line 7: rule.one_of: must not be empty"),
        (ENTRY.replace("equals: true", 'equals: "yes"'), "makeIPTablesUtilChains is true or false, and 'yes' is not"),
        (ENTRY.replace("equals: true", "at_least: 5"), "makeIPTablesUtilChains is true or false, and 5 is not"),
        (
            ENTRY.replace("makeIPTablesUtilChains", "staticPodURL").replace(
                "--make-iptables-util-chains", "--manifest-url"
            ),
            "staticPodURL holds secrets, and nothing of it leaves a node",
        ),
        (ENTRY.replace("equals: true", "present: file"), "makeIPTablesUtilChains names no file, but is true or false"),
        (ENTRY.replace("equals: true", "non_zero_duration: true"), "makeIPTablesUtilChains is no duration, but true"),
        (FILE.replace("/etc/x", "/etc/../x"), "line 5: file: must be a path without . and .., and '/etc/../x' is not"),
        (
            FILE.replace("{path: /etc/x}", "{flag: --v}").replace("{equals: true}", '{mode_at_most: "600"}'),
            "line 2: no flag --v of a kubelet names a file",
        ),
        (
            ENTRY.replace("makeIPTablesUtilChains\n    flag: --make-iptables-util-chains", "staticPodURL"),
            "line 2: staticPodURL holds secrets, and nothing of it leaves a node",
        ),
        (
            TIMEOUT.replace("1s", "60s"),
            "line 2: streamingConnectionIdleTimeout is a duration, of which '60s' is written 1m0s",
        ),
        (TIMEOUT.replace("1s", "one hour"), "streamingConnectionIdleTimeout is a duration such as 4h0m0s, and 'one h"),
        (TIMEOUT.replace("4h0m0s", "4h"), "is a duration, of which '4h' is written 4h0m0s"),
        (
            ENTRY.replace("equals: true", "none_of: [false]"),
            "line 2: must have `write` (what a fix writes) or `by_hand`",
        ),
        (ENTRY + "    write: false\n", "line 2: a fix would write false, which must be true"),
        (ENTRY.replace("setting: make", "setting: fake"), "line 2: no kubelet has the setting fakeIPTablesUtilChains"),
        (ENTRY.replace("--make-iptables-util-chains", "--event-qps"), "line 2: the flag --event-qps does not set make"),
        (
            ENTRY.replace("makeIPTablesUtilChains\n    flag: --make-iptables-util-chains", "tlsCipherSuites"),
            "line 2: tlsCipherSuites is no single value (a slice)",
        ),
        (ENTRY + ENTRY.removeprefix("controls:\n"), "line 10: the id ORG-1 is there twice"),
        (ENTRY + ENTRY.removeprefix("controls:\n").replace("ORG", "org"), "line 10: the id org-1 is there twice"),
        (
            "controls:\n"
            + "".join(
                ENTRY.removeprefix("controls:\n")
                .replace("ORG-1", f"G{number}")
                .replace("makeIPTablesUtilChains", f"featureGates.{gate}")
                .replace("make-iptables-util-chains", "feature-gates")
                for number, gate in enumerate(list(minor_rules(36).gates)[:95])
            ),
            "line 1: its controls are about 104 settings; 98 can be asked for",
        ),
        (ENTRY + "    fix: g\n", "the key 'fix' is there twice in \"<unicode string>\", line 10"),
        (
            ENTRY + "    applies: {kubernetes: {from: 1.33}}\n",
            "line 10: applies.kubernetes.from: must be text, in quotes",
        ),
        (ENTRY + "    applies: {os: [beos]}\n", "line 10: applies.os: must be 'linux' or 'windows'"),
        (BENCHMARK.replace("3.2.6", "9.9.9"), "line 5: Ours names the control '9.9.9', which is not there"),
        (BENCHMARK.replace("level: 1", "level: 3"), "line 5: level: must be 1 or 2"),
        (BENCHMARK + "      - {control: 3.2.6}\n", "line 6: Ours has the control 3.2.6 twice"),
        (BENCHMARK + BENCHMARK.removeprefix("benchmarks:\n"), "line 6: the version org is there twice"),
        (BENCHMARK + "default: orgs\n", "line 6: the default benchmark 'orgs' is not there"),
        ("a: &a [1, 1]\nb: &b [*a, *a]\n", 'aliases (*name) are not taken here in "<unicode string>", line 2'),
        ("controls: !!python/object/apply:os.system [ls]", "cannot be read as YAML: could not determine a constructor"),
        ("controls: [", "cannot be read as YAML: while parsing a flow node"),
        ("controls: [3]", "line 1: must be a mapping of names to values"),
        ("[" * 100_000, "cannot be read as YAML: "),
        ("#" * 300_000, "has more than 262,144 characters"),
        ("", "must be a mapping with controls, or benchmarks, or both"),
        ("hello", "must be a mapping with controls, or benchmarks, or both"),
        ('controls: "\0"', "cannot be read as YAML: "),
    ],
)
def test_what_is_wrong_is_named_by_its_line(text: str, says: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        read(text, "ours.yaml", builtin())
    assert str(wrong.value).startswith("the catalogue ours.yaml")
    assert says in str(wrong.value)
    assert len(str(wrong.value)) < 700
    assert catalogue() is builtin()


def test_a_few_of_many_wrong_things_are_said() -> None:
    text = ENTRY + "".join(f"    wrong{number}: 1\n" for number in range(20))
    with pytest.raises(SettingsError, match=r"line 10: wrong0: is not known here; .*; and 15 more$"):
        read(text, "ours.yaml", builtin())


async def test_the_setting_names_a_file(tmp_path: Path) -> None:
    path = tmp_path / "ours.yaml"
    for content, says in (
        (None, "GUARD_CONTROLS_FILE: the catalogue .* cannot be read: No such file or directory"),
        (b"\xff\xfe", "GUARD_CONTROLS_FILE: the catalogue is not UTF-8: invalid start byte at byte 0"),
        (b"#" * 1_048_577, "GUARD_CONTROLS_FILE: the catalogue .* has more than 1,048,576 bytes"),
        (b"controls: 3", "GUARD_CONTROLS_FILE: the catalogue .*ours.yaml: line 1: must be a list"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SettingsError, match=f"^bad setting: {says}"):
            await install_own(Settings(controls_file=str(path)))
    path.write_text("\ufeff" + ENTRY)
    with pytest.raises(SettingsError, match="GUARD_FIX_CONTROLS: no control 'ORG-2'; there is: ORG-1"):
        await install_own(Settings(controls_file=str(path), fix_controls=("ORG-2",)))
    assert catalogue() is builtin()
    await install_own(Settings(controls_file=str(path), fix_controls=("ORG-1",)))
    assert catalogue().controls["ORG-1"].title == "t"
    assert parse_request(RunRequest, {"controls": ["ORG-1"]}).control_ids == ("ORG-1",)
    await install_own(Settings())
    assert catalogue() == builtin()
    with pytest.raises(UsageError, match="no control 'ORG-1'"):
        parse_request(RunRequest, {"controls": ["ORG-1"]})


def test_a_finding_is_reported_by_a_version() -> None:
    text = BENCHMARK.replace("level: 1", "number: '4.1', title: Our title")
    install(read(text, "ours.yaml", builtin()))
    made = finding(control="3.2.6")
    assert (reported_by(made, "org").benchmark, reported_by(made, "org").title) == ("Ours", "Our title")
    assert (reported_by(made, "").benchmark, reported_by(made, "").title) == ("CIS AKS Benchmark v1.8", made.title)
    other = finding(control="3.2.1")
    assert reported_by(other, "org").benchmark == "", "it is none of this version's"


@pytest.mark.parametrize(
    ("applies", "why"),
    [
        ("{}", ""),
        ("{os: [windows]}", "the control is about windows nodes, and this one runs Linux"),
        ("{os: [windows, linux]}", ""),
        ('{kubernetes: {from: "1.34"}}', "the control is about Kubernetes 1.34 and later; this node has 1.33.5"),
        (
            '{kubernetes: {from: "1.31", to: "1.32"}}',
            "the control is about Kubernetes 1.31 to 1.32; this node has 1.33.5",
        ),
        ('{kubernetes: {from: "1.33", to: "1.33"}}', ""),
        ("{machines: [virtual_machine]}", "the control is not about nodes of this kind (scale set)"),
    ],
)
def test_to_which_nodes_a_control_applies(applies: str, why: str) -> None:
    made: Catalogue = read(f"{ENTRY}    applies: {applies}\n", "ours.yaml", builtin())
    assert made.controls["ORG-1"].inapplicable(node(1)) == why


def test_yaml_and_json_are_the_same() -> None:
    assert read(json.dumps(yaml.safe_load(ENTRY)), "x", builtin()).controls == read(ENTRY, "x", builtin()).controls
