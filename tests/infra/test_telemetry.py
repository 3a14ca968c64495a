"""The tables that alerts and workbook read are made of what the app writes, and every alert has its page."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from shared import telemetry
from shared.errors import CredentialError, EndpointError, GuardError, NotStorable, SettingsError, StoreError
from shared.models import History, Outcome, Status
from shared.runs.hosts.starting import GoingError
from shared.runs.model.history import with_history
from shared.runs.nodes.repairing import LOOK_CODE
from shared.runs.steps.left_undone import CANCELLED
from tests.support.bicep import INFRA
from tests.support.records import finding
from tools import event_tables
from tools.event_tables import Column, columns, events, table_of

QUERIES = {path.stem: path.read_text() for path in sorted((INFRA / "queries").glob("*.kql"))}
ALERTS = (INFRA / "modules" / "alerts.bicep").read_text()
RULES = re.findall(r"^    name: '([\w-]+)'$", ALERTS, re.MULTILINE)
PAGE = (INFRA.parent / "docs" / "alerts.md").read_text()

NIGHT = datetime(2026, 7, 1, 2, tzinfo=UTC)
SAMPLES: dict[str, Any] = {"string": "a text", "long": 3, "real": 1.5, "bool": True, "datetime": NIGHT}
KINDS: dict[str, tuple[type, ...]] = {"string": (str,), "long": (int,), "real": (int, float), "bool": (bool,)}


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What was told, line by line."""
    return [json.loads(item.getMessage()) for item in caplog.records if item.name == telemetry.log.name]


# The tables


def test_the_files_are_made_of_the_classes() -> None:
    remedy = "run: python -m tools.event_tables"
    assert event_tables.TABLES.read_text() == event_tables.as_tables(), remedy
    assert event_tables.SCHEMA.read_text() == event_tables.as_schema(), remedy


def test_the_tables_fit_into_a_workbooks_queries() -> None:
    assert set('"\\{}') & set(event_tables.as_tables()) == set()


def test_a_column_has_the_same_words_in_every_table() -> None:
    words: dict[str, set[tuple[str, ...]]] = {}
    for event in events():
        for column in columns(event):
            words.setdefault(column.name, set()).add(column.words)
    assert {name for name, found in words.items() if len(found) > 1} == set()
    assert {name for name, found in words.items() if found != {()}} == {
        *("status", "outcome", "run_kind", "state", "starter", "side")
    }


def test_the_types_of_columns() -> None:
    made = {column.name: column for column in columns(telemetry.RunEvent)}
    assert made["nodes"] == Column("nodes", "long")
    assert made["throttled_seconds"] == Column("throttled_seconds", "real")
    assert made["state"].words == ("running", "awaiting_approval", "completed", "failed", "cancelled")
    assert Column("expires", "datetime") in columns(telemetry.ApprovalEvent)
    assert Column("regressed", "bool") in columns(telemetry.FindingEvent)
    with pytest.raises(TypeError, match="there is no column for"):
        event_tables._column("places", list[str])


@pytest.mark.parametrize("event", events(), ids=table_of)
def test_a_line_has_the_columns_of_its_table(event: type[telemetry.Event], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    telemetry._tell(event(**{column.name: SAMPLES[column.type] for column in columns(event)}))
    (line,) = lines(caplog)
    assert line.pop("event") == telemetry.name_of(event)
    assert set(line) == {column.name for column in columns(event)}
    for column in columns(event):
        if column.type == "datetime":
            assert datetime.fromisoformat(line[column.name]) == NIGHT
        else:
            assert isinstance(line[column.name], KINDS[column.type])


# What is told


def test_one_line_a_node_and_one_for_what_somebody_may_have_to_act_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    one = replace(finding(1), outcome=None, regressed=False)
    telemetry.tell_findings(
        [
            replace(one, control="3.2.1", status=Status.PASS),
            replace(one, control="3.2.2", status=Status.FAIL),
            replace(one, control="3.2.3", status=Status.ERROR),
            replace(one, control="3.2.4", status=Status.NOT_APPLICABLE),
            replace(one, control="3.2.5", status=Status.PASS, outcome=Outcome.FIXED),
            replace(one, control="3.2.6", status=Status.PASS, regressed=True),
            replace(one, control="3.2.7", status=Status.PASS, outcome=Outcome.ROLLED_BACK),
            replace(finding(2), status=Status.PASS, outcome=None, regressed=False),
        ]
    )
    told = lines(caplog)
    nodes = [line for line in told if line["event"] == "node"]
    counts = [[line[name] for name in ("passed", "failed", "undetermined", "not_applicable")] for line in nodes]
    assert counts == [[4, 1, 1, 1], [1, 0, 0, 0]]
    assert [(line["status"], line["outcome"]) for line in nodes] == [("fail", "rolled_back"), ("pass", None)]
    assert [line["control"] for line in told if line["event"] == "finding"] == ["3.2.2", "3.2.3", "3.2.6", "3.2.7"]


@pytest.mark.parametrize(
    ("before", "newly"),
    [
        (None, False),
        (History("node", "3.2.6", Status.FAIL, NIGHT, None, None, None, None), False),
        (History("node", "3.2.6", Status.PASS, NIGHT, NIGHT, None, None, None), True),
        (History("node", "3.2.6", Status.PASS, NIGHT, NIGHT, NIGHT, None, None), True),
    ],
    ids=["never seen", "failed", "complied", "fixed"],
)
def test_a_node_that_was_right_before_newly_fails(
    before: History | None, newly: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    telemetry.tell_findings([with_history(finding(1, status=Status.FAIL), before)])
    assert [line["newly"] for line in lines(caplog) if line["event"] == "finding"] == [newly]


@pytest.mark.parametrize(
    ("error", "side"),
    [
        (StoreError("the store is away\nand more"), "store"),
        (EndpointError("x"), "azure"),
        (CredentialError("x"), "sign_in"),
        (SettingsError("x"), "settings"),
        (NotStorable("one value cannot be stored"), None),
        (GuardError("the run goes"), None),
    ],
)
def test_who_refuses(error: GuardError, side: str | None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    telemetry.tell_refusal("a run", error)
    assert [(line["side"], line["run"]) for line in lines(caplog)] == ([(side, "a run")] if side else [])
    assert not issubclass(GoingError, tuple(kind for kind, _ in telemetry._SIDES))


def test_of_a_refusal_the_first_line_is_told_and_not_too_much(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    telemetry.tell_refusal("", StoreError("the store is away\nand more"))
    telemetry.tell_refusal("", StoreError("x" * 5000))
    assert [line["reason"] for line in lines(caplog)] == ["the store is away", "x" * 500]


# Rules


def test_every_event_is_read_by_a_rule() -> None:
    read = "".join(QUERIES.values())
    assert [table_of(event) for event in events() if table_of(event) not in read] == []


def test_every_rule_has_its_query_its_switch_and_its_paragraph() -> None:
    assert len(set(RULES)) == len(RULES)
    assert sorted(RULES) == sorted(QUERIES)
    assert re.findall(r"queries/([\w-]+)\.kql", ALERTS) == RULES
    (allowed,) = re.findall(r"@allowed\(\[\n([^\]]*)\]\)\nparam alertsOff ", (INFRA / "main.bicep").read_text())
    assert re.findall(r"'([\w-]+)'", allowed) == RULES
    assert re.findall(r"^## ([\w-]+)$", PAGE, re.MULTILINE) == RULES
    severities = dict(zip(RULES, re.findall(r"^    severity: (\d)$", ALERTS, re.MULTILINE), strict=True))
    assert dict(re.findall(r"^\| \[`([\w-]+)`\]\(#\1\) \| (\d) \|", PAGE, re.MULTILINE)) == severities
    for paragraph in PAGE.split("\n## ")[1:]:
        assert "`" in paragraph, f"no command in: {paragraph[:40]}"


def test_the_rules_on_broken_nodes_go_by_the_code() -> None:
    assert f'code == "{LOOK_CODE}"' in QUERIES["node-broken"]
    assert f'code != "{LOOK_CODE}"' in QUERIES["fix-failed"]


def test_what_somebody_cancelled_refuses_nothing() -> None:
    assert f'code != "{CANCELLED.code}"' in QUERIES["refused"]


def test_the_windows_are_ones_that_azure_takes() -> None:
    # Minutes: 5, 10, 15, 30, 45, 60, 120 to 360, a day, two (Azure/azure-rest-api-specs, issue 21258).
    windows = re.findall(r"^    window: '(\w+)'$", ALERTS, re.MULTILINE)
    assert len(windows) == len(RULES)
    assert set(windows) <= {"PT15M", "PT30M", "PT45M", "PT1H", "PT2H", "PT3H", "PT4H", "PT5H", "PT6H", "P1D", "P2D"}
    # What a query looks back for itself lies within the window.
    hours = {"PT1H": 1, "P1D": 24, "P2D": 48}
    tail = (INFRA / "queries" / "parts" / "by-cluster.kql").read_text()
    for name, window in zip(RULES, windows, strict=True):
        query = QUERIES[name].replace("BY_CLUSTER\n", tail)
        assert max([0, *map(int, re.findall(r"ago\((\d+)h\)", query))]) < hours[window]
        assert ("ago(25h)" in query) == (window == "P2D"), name
