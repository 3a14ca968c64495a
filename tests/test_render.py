"""What people and programs read: the table, JSON, CSV and exit statuses."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import fields, replace

import pytest

from shared import render
from shared.models import Finding, Outcome, Status
from shared.runs.findings import plain
from shared.runs.plans import NodePlan
from tests.support.findings import finding, node

PASS, FAIL, ERROR, SKIPPED = Status.PASS, Status.FAIL, Status.ERROR, Status.SKIPPED


def table(*findings: Finding) -> str:
    out = io.StringIO()
    render.as_table(findings, out)
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
    assert render.exit_code([finding(status) for status in statuses]) == code


def test_json_has_the_promised_keys() -> None:
    out = io.StringIO()
    render.as_json([finding(FAIL, actual=False)], out)
    (row,) = json.loads(out.getvalue())
    place = "subscription resource_group cluster node_pool scale_set instance_id node"
    assert {*place.split(), *["control", "status", "actual", "expected", "source", "reason"]} <= set(row)
    assert (row["status"], row["actual"], row["expected"]) == ("fail", False, True)
    assert row["observed"].startswith("2026-11-01T00:00:00")


def test_csv_is_whole_and_harmless_in_a_spreadsheet() -> None:
    out = io.StringIO()
    render.as_csv([finding(FAIL, reason='=HYPERLINK("http://x")', node='a,"b"\nc')], out)
    header, row = list(csv.reader(io.StringIO(out.getvalue())))
    assert header == [field.name for field in fields(Finding)]
    assert row[header.index("reason")] == '\'=HYPERLINK("http://x")'
    assert row[header.index("node")] == 'a,"b"\nc'


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
    hostile = plain("\x1b[31mred\x07 [bold]markup[/bold] \u202e")
    shown = table(finding(FAIL, reason=hostile, node="[red]x[/red]"))
    assert "\x1b" not in shown
    assert "[bold]markup[/bold]" in shown
    assert "[red]x[/red]" in shown
    assert len(plain("x" * 10_000)) == 600


def test_sorting_is_by_place() -> None:
    first, second = finding(PASS, cluster="a", node="z"), finding(PASS, cluster="b", node="a")
    assert render.sorted_by_place([second, first]) == [first, second]
    assert render.sorted_by_place([replace(first, node="b"), first])[0].node == "b"


def test_the_diff_of_a_long_line_shows_what_changed() -> None:
    flags = " ".join(f"--flag-number-{number}=value" for number in range(40))
    before = f"KUBELET_FLAGS={flags} --make-iptables-util-chains=false {flags}"
    name = "/etc/default/kubelet"
    diff = f"--- {name}\n+++ {name}\n@@ -1 +1 @@\n-{before}\n+{before.replace('false', 'true')}\n"
    out = io.StringIO()
    render.plans_as_text([NodePlan(node=node(1), controls=("3.2.6",), diff=diff, steps=("restart the kubelet",))], out)
    lines = out.getvalue().splitlines()
    (removed,) = [line for line in lines if line.startswith("    -…")]
    (added,) = [line for line in lines if line.startswith("    +…")]
    assert "--make-iptables-util-chains=false --flag" in removed
    assert "--make-iptables-util-chains=true --flag" in added
    assert len(removed) < 120
    assert "1 nodes would be changed" in lines[-1]
