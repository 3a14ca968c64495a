"""What people and programs read: the table, JSON, CSV and exit statuses."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import report
from shared.controls import Control, Verdict, builtin
from shared.doctor import Area, Check, Level
from shared.models import Finding, History, Node, Outcome, Status
from shared.node.fixing import file_edit
from shared.report.order import spans
from shared.runs.model.findings import from_verdict
from shared.runs.model.plans import NodePlan, SeenFile
from tests.support.evidence import file
from tests.support.findings import NOW, finding, node

PASS, FAIL, ERROR, SKIPPED, NA = Status.PASS, Status.FAIL, Status.ERROR, Status.SKIPPED, Status.NOT_APPLICABLE


def table(*findings: Finding) -> str:
    out = io.StringIO()
    report.as_table(findings, out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([PASS], 0),
        ([PASS, SKIPPED, Status.NOT_APPLICABLE], 0),
        ([PASS, ERROR], 2),
        ([FAIL, ERROR, PASS], 1),
        ([], 2),
    ],
)
def test_exit_codes(statuses: list[Status], code: int) -> None:
    assert report.exit_code([finding(status) for status in statuses]) == code


def checks_table(*checks: Check) -> str:
    out = io.StringIO()
    report.checks_as_text(checks, out)
    return out.getvalue()


def test_what_is_well_of_many_is_counted_and_a_command_is_said_once_and_whole() -> None:
    command = "az deployment sub create " + "x" * 200
    ok = [Check(Area.RIGHTS, "Prod (1)", f"do {n}", Level.OK, "allowed") for n in range(7)]
    lacking = [Check(Area.RIGHTS, "Prod (1)", f"run {n}", Level.FAIL, "no role.", command) for n in range(2)]
    clusters = [Check(Area.CLUSTER, f"cluster {n}", "itself", Level.OK, "nothing") for n in range(1_234)]
    clock = Check(Area.CLOCK, "this machine", "the clock", Level.OK, "agrees")
    shown = checks_table(clock, *ok, *lacking, *clusters)
    lines = [line.rstrip() for line in shown.split("\n")]
    assert "ok   clock   this machine  the clock: agrees" in lines
    assert "ok   rights  Prod (1)  7 actions allowed" in lines
    assert "fail rights  Prod (1)  run 1" in lines
    assert "ok   cluster 1,234 clusters  nothing stands against a run" in lines
    assert lines.count(f"    → {command}") == 1
    assert lines[-2] == "1244 checks · 1242 ok · 2 fail"
    assert lines.index("What will not work") < lines.index("    run 0: no role.") < lines.index(f"    → {command}")


def test_what_is_well_of_many_subscriptions_is_one_line() -> None:
    def rows(number: int) -> list[Check]:
        subjects = [f"Prod ({n})" for n in range(number)]
        rights = [Check(Area.RIGHTS, each, f"do {n}", Level.OK, "allowed") for each in subjects for n in range(2)]
        locks = [Check(Area.DENIED, each, what, Level.OK, "there is none") for each in subjects for what in ("a", "b")]
        return [*rights, *locks]

    few = [line.rstrip() for line in checks_table(*rows(2)).split("\n")]
    assert few[1:5] == [
        "ok rights Prod (0)  2 actions allowed",
        "ok rights Prod (1)  2 actions allowed",
        "ok denied Prod (0)  a: there is none; b: there is none",
        "ok denied Prod (1)  a: there is none; b: there is none",
    ]
    many = [line.rstrip() for line in checks_table(*rows(500)).split("\n")]
    assert many[1:3] == [
        "ok rights 500 subscriptions  1,000 actions allowed",
        "ok denied 500 subscriptions  nothing stands against a run",
    ]


def test_what_is_not_well_is_shown_in_plain_characters() -> None:
    evil = "a\x1b[31m\u202e\nb"
    check = Check(Area.CLUSTER, evil, evil, Level.WARN, evil, evil)
    assert "\x1b[31m" not in checks_table(check)
    out = io.StringIO()
    report.checks_as_json([check], out)
    (row,) = json.loads(out.getvalue())
    assert row == {
        "area": "cluster",
        "status": "warn",
        **dict.fromkeys(("subject", "what", "reason", "command"), "a\\x1b[31m\\u202e\\x0ab"),
    }


@pytest.mark.parametrize(
    ("levels", "code"),
    [
        ([Level.OK, Level.WARN], 0),
        ([Level.OK, Level.UNKNOWN], 2),
        ([Level.UNKNOWN, Level.FAIL], 1),
        ([], 2),
    ],
)
def test_exit_codes_of_checks(levels: list[Level], code: int) -> None:
    assert report.exit_code_of_checks([Check(Area.CLOCK, "", "", level, "") for level in levels]) == code


def test_json_has_the_promised_keys() -> None:
    out = io.StringIO()
    report.as_json([finding(FAIL, actual=False)], out)
    (row,) = json.loads(out.getvalue())
    place = "subscription resource_group cluster node_pool scale_set instance_id node"
    assert {*place.split(), *["control", "status", "actual", "expected", "source", "reason"]} <= set(row)
    assert (row["status"], row["actual"], row["expected"]) == ("fail", False, True)
    assert row["observed"].startswith("2026-11-01T00:00:00")


def test_what_became_of_a_node_over_time_is_a_line_a_change() -> None:
    one, place = finding(PASS, node="[n]"), finding(ERROR, node="", instance_id="")
    fixed = datetime(2026, 10, 2, 3, 4, tzinfo=UTC)
    first = History("/key", one.control, FAIL, fixed - timedelta(days=1), None, None, None, None)
    changes = {one.key: [first, replace(first, status=PASS, seen=fixed, last_fixed=fixed)]}
    out = io.StringIO()
    report.changes_as_text([one, place], changes, out)
    assert out.getvalue() == (
        f"\n[n] over time  {one.control}\n  2026-10-01 03:04 UTC  Fail\n  2026-10-02 03:04 UTC  Pass  fixed\n"
    )
    out = io.StringIO()
    report.as_json([one], out, changes)
    assert json.loads(out.getvalue())[0]["changes"] == [
        {"at": "2026-10-01T03:04:00+00:00", "status": "fail", "what": ""},
        {"at": "2026-10-02T03:04:00+00:00", "status": "pass", "what": "fixed"},
    ]


def test_csv_is_whole_and_harmless_in_a_spreadsheet() -> None:
    out = io.StringIO()
    report.as_csv([finding(FAIL, reason='=HYPERLINK("http://x")', node='a,"b"\nc')], out)
    header, row = list(csv.reader(io.StringIO(out.getvalue())))
    assert header == [field.name for field in fields(Finding)]
    assert row[header.index("reason")] == '\'=HYPERLINK("http://x")'
    assert row[header.index("node")] == r'a,"b"\x0ac'


def test_the_table_groups_nodes_with_the_same_reason() -> None:
    shown = table(*(finding(FAIL, instance_id=str(number), node=f"n{number}", hint="do it") for number in range(5)))
    assert "n0, n1, n2 and 2 more" in shown
    assert shown.count("do it") == 1
    assert "5 nodes · 5 fail" in shown


def test_the_table_shows_scopes_without_nodes() -> None:
    shown = table(finding(ERROR, node="", cluster="", node_pool="", subscription="0000-1111", reason="forbidden"))
    assert "(subscription 0000-1111)" in shown
    assert "forbidden" in shown
    assert "0 nodes · 1 error" in shown


def test_the_table_shows_outcomes_and_regressions() -> None:
    shown = table(
        finding(PASS, outcome=Outcome.FIXED),
        finding(FAIL, node="m", instance_id="1", regressed=True, reimaged_since=True),
    )
    assert "1 fixed" in shown
    assert "regressed" in shown
    assert "reimaged since" in shown


def test_nothing_of_a_node_reaches_the_terminal_as_a_command() -> None:
    hostile = "\x1b[31mred\x07 [bold]markup[/bold] \u202e"
    shown = table(finding(FAIL, reason=hostile, node="[red]x[/red]"))
    assert "\x1b" not in shown
    assert r"\x1b[31mred\x07" in shown
    assert r"\u202e" in shown
    assert "[bold]markup[/bold]" in shown
    assert "[red]x[/red]" in shown


# Letters that do something to a screen or a reader, among harmless ones.
hostile_texts = st.text(
    st.sampled_from("\x00\x07\x08\t\n\r\x1b\x7f\x85\x9b\xa0\u061c\u200b\u200e\u2028\u202e\u2066\u3164\ufe0f\ufeff")
    | st.sampled_from("\udc80\udcff\ud800\U000e0041\U000e0100[]/=+-@:;'\"ax\u00e9\u4e2d")
    | st.characters(),
    min_size=1,
    max_size=20,
)
TEXTS = [
    field.name for field in fields(Finding) if field.type in ("str", "str | None") and field.name not in {"control"}
]


def harmless(text: str) -> bool:
    return all(char == "\n" or (char.isprintable() and char not in "\u3164\ufe0f\U000e0100") for char in text)


@given(st.dictionaries(st.sampled_from(TEXTS), hostile_texts), hostile_texts)
def test_no_format_lets_a_hostile_character_through(values: dict[str, str], actual: str) -> None:
    hostile = finding(FAIL, **values, actual=(actual, "x"))
    shown = table(hostile)
    assert harmless(shown)
    out = io.StringIO()
    report.as_csv([hostile], out)
    _, row = list(csv.reader(io.StringIO(out.getvalue(), newline="")))
    assert all(harmless(cell) and "\n" not in cell for cell in row)
    assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for cell in row)
    out = io.StringIO()
    report.as_json([hostile], out)
    (decoded,) = json.loads(out.getvalue())
    assert all(harmless(decoded[name]) and "\n" not in decoded[name] for name in TEXTS if decoded[name] is not None)
    assert all(harmless(text) for text in decoded["actual"])
    out.getvalue().encode("utf-8")


@given(hostile_texts, hostile_texts, hostile_texts)
def test_plans_are_shown_in_plain_characters(name: str, line: str, why: str) -> None:
    plan = planned(line, f"{line}x", steps=(line,), place=replace(node(1), name=name, cluster=why))
    out = io.StringIO()
    report.plans_as_text([plan, plan.model_copy(update={"refused": why})], out)
    assert harmless(out.getvalue())


@given(hostile_texts, hostile_texts)
def test_findings_hold_plain_characters(text: str, more: str) -> None:
    verdict = Verdict(FAIL, "wrong", (text, more), text, more, text)
    place = replace(node(1), name=text, cluster=more)
    made = from_verdict("r", NOW, place, "3.2.6", verdict)
    assert isinstance(made.actual, tuple)
    assert all(
        harmless(value) for value in (made.reason, made.hint, made.source, made.node, made.cluster, *made.actual)
    )
    assert from_verdict("r", NOW, replace(place, name=made.node, cluster=made.cluster), "3.2.6", verdict) == made


# What a text that was read from a file cannot have, but for bytes that are not UTF-8.
_NO_FILE_HAS = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")


def planned(
    before: str, after: str, steps: tuple[str, ...] = ("restart the kubelet",), place: Node | None = None
) -> NodePlan:
    """A plan that changes one file's text."""
    seen = file("/etc/default/kubelet", _NO_FILE_HAS.sub("", before))
    edit = file_edit(seen, _NO_FILE_HAS.sub("", after))
    text = seen.text.encode("utf-8", "surrogateescape")
    return NodePlan(
        node=place or node(1),
        controls=("3.2.6",),
        edits=(edit,),
        files=(SeenFile(seen.path, text, seen.digest),),
        steps=steps,
    )


def test_sorting_is_by_place() -> None:
    first, second = finding(PASS, cluster="a", node="z"), finding(PASS, cluster="b", node="a")
    assert report.sorted_by_place([second, first]) == [first, second]
    assert report.sorted_by_place([replace(first, node="b"), first])[0].node == "b"


def test_the_diff_of_several_long_lines_shows_each() -> None:
    """Whoever approves a plan has to see every line that it changes."""
    flags = " ".join(f"--flag-number-{number}=value" for number in range(40))
    before = f"A={flags} --make-iptables-util-chains=false\nB={flags} --make-iptables-util-chains=0 {flags}\n"
    out = io.StringIO()
    report.plans_as_text([planned(before, before.replace("false", "true").replace("chains=0", "chains=1"))], out)
    removed = [line for line in out.getvalue().splitlines() if line.startswith("    -…")]
    added = [line for line in out.getvalue().splitlines() if line.startswith("    +…")]
    assert ["chains=false" in line for line in removed] == [True, False]
    assert ["chains=0 --" in line for line in removed] == [False, True]
    assert ["chains=true" in line for line in added] == [True, False]
    assert ["chains=1 --" in line for line in added] == [False, True]


def test_the_diff_of_long_lines_that_go_shows_them() -> None:
    gone = [f"A={'x' * 200}\n", f"B={'y' * 200}\n"]
    out = io.StringIO()
    report.plans_as_text([planned("".join(["C=1\n", *gone]), "C=1\n")], out)
    for line in gone:
        assert f"    -{line}" in out.getvalue()


def test_the_diff_of_a_long_line_shows_what_changed() -> None:
    flags = " ".join(f"--flag-number-{number}=value" for number in range(40))
    before = f"KUBELET_FLAGS={flags} --make-iptables-util-chains=false {flags}\n"
    out = io.StringIO()
    report.plans_as_text([planned(before, before.replace("false", "true"))], out)
    lines = out.getvalue().splitlines()
    (removed,) = [line for line in lines if line.startswith("    -…")]
    (added,) = [line for line in lines if line.startswith("    +…")]
    assert "--make-iptables-util-chains=false --flag" in removed
    assert "--make-iptables-util-chains=true --flag" in added
    assert len(removed) < 120
    assert "1 nodes would be changed" in lines[-1]


def node_of(number: int, statuses: dict[str, Status], **changes: Any) -> list[Finding]:
    """A node's findings by control."""
    place = {"instance_id": str(number), "node": f"n{number}", **changes}
    return [
        finding(status, control=control, reason=f"{control} is so", **place) for control, status in statuses.items()
    ]


def rows(shown: str) -> list[list[str]]:
    """The cells of the table by pool, without empty ones."""
    lines = shown.split("Node pool", 1)[1].splitlines()
    return [re.split(r" {2,}", line.strip()) for line in lines[1 : lines.index("")]]


def test_of_several_controls_a_pool_is_one_row_that_counts_nodes() -> None:
    shown = table(
        *node_of(1, {"3.2.1": FAIL, "3.2.6": FAIL, "3.2.10": PASS}),
        *node_of(2, {"3.2.1": PASS, "3.2.6": FAIL, "3.2.10": ERROR}),
        *node_of(3, {"3.2.1": PASS, "3.2.6": PASS, "3.2.10": ERROR}),
        *node_of(4, {"3.2.1": PASS, "3.2.6": PASS, "3.2.10": NA}),
        *node_of(5, {"3.2.1": SKIPPED, "3.2.6": NA, "3.2.10": NA}, node_pool="other"),
        *node_of(6, {"3.2.1": NA, "3.2.6": NA, "3.2.10": NA}, node_pool="other"),
    )
    assert "3 controls\n" in shown
    assert rows(shown) == [
        ["aks", "np1", "4", "1", "2", "1", "3.2.6\u00a0×2, 3.2.1"],
        ["other", "2", "1", "1"],
    ]
    assert shown.splitlines()[-1] == "6 nodes, 3 controls · 1 pass · 2 fail · 1 error · 1 skipped · 1 n/a"
    assert re.findall(r"^(3\.2\.\d+) t$", shown, re.MULTILINE) == ["3.2.1", "3.2.6", "3.2.10"], "by number"


def test_of_several_controls_what_all_say_of_a_node_is_said_once() -> None:
    locked = {"reason": "it is locked", "hint": "unlock it"}
    controls = ("3.1.1", "3.1.2", "3.1.3", "3.2.6")
    shown = table(
        *(finding(ERROR, control=control, instance_id="1", node="n1", **locked) for control in controls),
        *(finding(ERROR, control=control, instance_id="2", node="n2", **locked) for control in controls),
        *(
            finding(ERROR, control=control, instance_id="", node="", scale_set="", cluster="gone")
            for control in controls
        ),
        *(finding(ERROR, control=control, instance_id="3", node="n3", reason="no process") for control in controls[:3]),
        finding(FAIL, control="3.2.6", instance_id="3", node="n3", reason="it is wrong"),
        *(finding(PASS, control=control, instance_id="4", node="n4") for control in controls),
    )
    assert shown.count("it is locked") == shown.count("→ unlock it") == shown.count("no process") == 1
    assert "  aks / np1  n1, n2\n    it is locked" in shown
    assert "  aks / np1  n3  3.1.1 to 3.1.3\n    no process" in shown
    assert "  gone / np1\n    why" in shown
    assert re.findall(r"^(3\.\d\.\d) t$", shown, re.MULTILINE) == ["3.2.6"], "only it has something of its own"
    assert shown.index("it is locked") < shown.index("3.2.6 t") < shown.index("it is wrong")
    assert shown.splitlines()[-1] == "4 nodes, 4 controls · 1 pass · 1 fail · 3 error"


def test_one_control_has_its_page() -> None:
    benchmark = "CIS AKS Benchmark v1.8"
    shown = table(finding(FAIL, benchmark=benchmark), finding(PASS, instance_id="1", node="m", benchmark=benchmark))
    assert shown.splitlines()[:6] == [
        "",
        "3.2.6 t",
        "CIS AKS Benchmark v1.8, Level 1, severity medium",
        "",
        "Cluster  Node pool  Nodes  Pass  Fail  Error  Skipped  N/A",
        "aks      np1            2     1     1                     ",
    ]
    assert shown.splitlines()[-1] == "2 nodes · 1 pass · 1 fail"
    unknown = table(finding(PASS, control="3.2.8", benchmark=benchmark))
    assert f"{benchmark}, severity medium" in unknown, "a level that is not known is not said"
    assert "\nseverity medium\n" in table(finding(PASS))


def test_a_fix_is_counted_once_a_node() -> None:
    shown = table(
        *(finding(PASS, control=control, outcome=Outcome.FIXED) for control in ("3.2.1", "3.2.6")),
        finding(PASS, control="3.2.4"),
    )
    assert shown.splitlines()[-1] == "1 nodes, 3 controls · 1 pass   fix: 1 fixed"


def test_a_plan_says_what_it_leaves() -> None:
    made = planned("a=0\n", "a=1\n").model_copy(
        update={"left": {"3.2.3": "reimage the node"}, "also": ("3.2.1", "3.2.4")}
    )
    modes = NodePlan(node=node(2), controls=("3.1.3",), restart=False, steps=("set the mode of /x from 666 to 644",))
    out = io.StringIO()
    report.plans_as_text([made, modes], out)
    first, second = out.getvalue().split("\naks / np1 / node000002")
    assert "  not planned for 3.2.3: reimage the node\n" in first
    assert "  also fails: 3.2.1, 3.2.4; not asked for\n" in first
    assert "restart the kubelet" in first
    assert second.startswith("  3.1.3\n  - set the mode of /x from 666 to 644\n")
    assert "restart" not in second
    assert "2 nodes would be changed, 0 cannot be planned" in second


@pytest.mark.parametrize(
    ("names", "said"),
    [("a", "a"), ("ab", "a, b"), ("abc", "a to c"), ("cab", "a to c"), ("abde", "a, b, d, e"), ("acdef", "a, c to f")],
)
def test_names_in_a_row(names: str, said: str) -> None:
    assert spans(names, list("abcdef")) == said


def test_the_catalogue_in_short() -> None:
    known = builtin()
    out = io.StringIO()
    report.controls_as_text(known, known.of(), out)
    shown = out.getvalue()
    assert re.findall(r"^(3\.\d\.\d)  Ensure", shown, re.MULTILINE) == list(known.controls)
    assert "       makeIPTablesUtilChains must be true\n" in shown
    assert "       severity medium · fixed with a restart · v1.7, v1.8 (Level 1)\n" in shown
    assert "       the owner of /etc/kubernetes/azure.json must be root:root\n" in shown
    assert "severity high · by hand · " in shown
    out = io.StringIO()
    report.controls_as_json(known, known.of(), out)
    rows = {row["id"]: row for row in json.loads(out.getvalue())}
    assert list(rows) == list(known.controls)
    assert rows["3.2.4"]["rule"] == {"equals": 0}
    assert {rows[name]["fixed"] for name in ("3.1.1", "3.2.1", "3.2.3")} == {
        "without_restart",
        "with_restart",
        "by_hand",
    }


@pytest.mark.parametrize("control", builtin().controls.values(), ids=lambda control: str(control.id))
def test_everything_about_a_control(control: Control) -> None:
    out = io.StringIO()
    report.explained_as_text(builtin(), control, False, out)
    shown = " ".join(out.getvalue().split())
    for text in (
        control.title,
        f"must {control.must}",
        control.rationale,
        control.impact,
        control.fix,
        control.by_hand,
    ):
        assert text in shown
    assert all(f" {url}" in shown for url in control.references)
    assert f"CIS AKS Benchmark v1.7: {control.id}" in shown
    assert ("GUARD_FIX_CONTROLS" in shown) == (not control.by_hand)
    assert ("(1.31 to 1.37)" in shown) == bool(control.setting)
    assert max(map(len, out.getvalue().splitlines())) <= 80 or any(len(url) > 64 for url in control.references)


def test_the_default_of_a_setting_is_said_by_minor() -> None:
    out = io.StringIO()
    report.explained_as_text(builtin(), builtin().controls["3.2.4"], True, out)
    assert "Default         0; 10255 without a config file (1.31 to 1.37)\n" in out.getvalue()
    assert "Fixed here      yes\n" in out.getvalue()
    out = io.StringIO()
    report.explained_as_json(builtin(), builtin().controls["3.2.4"], out)
    assert json.loads(out.getvalue())["defaults"] == [
        {"first": "1.31", "last": "1.37", "with_file": 0, "arguments_alone": 10255, "known": True}
    ]
