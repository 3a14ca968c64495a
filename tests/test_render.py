"""What people and programs read: the table, JSON, CSV and exit statuses."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import report
from shared.controls import Verdict
from shared.models import Finding, History, Node, Outcome, Status
from shared.node.fixing import file_edit
from shared.runs.model.findings import from_verdict
from shared.runs.model.plans import NodePlan, SeenFile
from tests.support.evidence import file
from tests.support.findings import NOW, finding, node

PASS, FAIL, ERROR, SKIPPED = Status.PASS, Status.FAIL, Status.ERROR, Status.SKIPPED


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
