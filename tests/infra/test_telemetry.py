"""Alerts and workbook read what the app writes: one JSON object a line, with `event` and the fields of it."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest

from shared import telemetry
from shared.models import Finding
from tests.support.bicep import INFRA

FIELDS = {
    "finding": {field.name for field in dataclasses.fields(Finding)},
    "run": {field.name for field in dataclasses.fields(telemetry.RunEvent)},
    "approval": {field.name for field in dataclasses.fields(telemetry.ApprovalEvent)},
    "overdue": {field.name for field in dataclasses.fields(telemetry.OverdueEvent)},
}
QUERIES = {path.name: path.read_text() for path in sorted((INFRA / "queries").glob("*.kql"))}


def workbook() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((INFRA / "workbook.json").read_text())
    return content


def workbook_queries() -> dict[str, str]:
    found = {}
    for item in workbook()["items"]:
        for part in [item["content"], *item["content"].get("parameters", [])]:
            if "query" in part:
                found[f"{item['name']}/{part.get('name', '')}"] = part["query"]
    return found


@pytest.mark.parametrize("name", [*QUERIES, *workbook_queries()])
def test_a_query_reads_fields_that_are_written(name: str) -> None:
    query = {**QUERIES, **workbook_queries()}[name]
    assert query.startswith('traces\n| where message startswith "{" and message has "event"\n')
    (chosen,) = re.findall(r'where tostring\(e\.event\) (?:== ("\w+")|in \(([^)]*)\))', query)
    events = re.findall(r'"(\w+)"', "".join(chosen))
    assert set(re.findall(r"\be\.(\w+)", query)) - {"event"} <= set().union(*(FIELDS[event] for event in events))


def test_every_event_is_read_by_an_alert() -> None:
    read_by_alerts = "".join(QUERIES.values())
    assert [event for event in FIELDS if f'"{event}"' not in read_by_alerts] == []


def test_statuses_and_states_that_are_asked_for_exist() -> None:
    text = "\n".join([*QUERIES.values(), *workbook_queries().values()])
    assert set(re.findall(r'e\.status\) == "(\w+)"', text)) <= {"pass", "fail", "error", "skipped", "not_applicable"}
    assert set(re.findall(r'e\.state\) == "(\w+)"', text)) <= {"running", "completed", "failed", "cancelled"}


def test_every_query_file_has_its_alert_and_its_placeholder() -> None:
    alerts = (INFRA / "modules" / "alerts.bicep").read_text()
    assert set(re.findall(r"queries/([\w-]+\.kql)", alerts)) == set(QUERIES)
    assert [name for name, query in QUERIES.items() if "UNDETERMINED_PERCENT" in query] == ["undetermined.kql"]
    assert "replace(loadTextContent('../queries/undetermined.kql'), 'UNDETERMINED_PERCENT'" in alerts


def test_the_windows_of_the_alerts_are_ones_that_azure_takes() -> None:
    # Log search alert rules: window and frequency are of a fixed list, a window of two days at most.
    alerts = (INFRA / "modules" / "alerts.bicep").read_text()
    windows = set(re.findall(r"window: '(\w+)'", alerts))
    frequencies = set(re.findall(r"frequency: '(\w+)'", alerts))
    assert windows <= {"PT15M", "PT30M", "PT1H", "PT2H", "PT3H", "PT6H", "P1D", "P2D"}
    assert frequencies <= {"PT5M", "PT10M", "PT15M", "PT30M", "PT1H"}


def test_the_workbook_is_bound_to_the_application_insights_of_the_deployment() -> None:
    assert workbook()["fallbackResourceIds"] == ["APPLICATION_INSIGHTS_ID"]
    names = [item["name"] for item in workbook()["items"]]
    assert len(names) == len(set(names))
    bicep = (INFRA / "modules" / "workbook.bicep").read_text()
    assert "replace(loadTextContent('../workbook.json'), 'APPLICATION_INSIGHTS_ID', applicationInsightsId)" in bicep
