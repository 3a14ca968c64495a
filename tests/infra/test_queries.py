"""Kusto's own parser reads the queries as the service would, over the tables of events (scripts/kusto)."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.bicep import INFRA
from tests.support.require import require

CHECK = INFRA.parent / "scripts" / "kusto" / "check.sh"
QUERIES = sorted((INFRA / "queries").glob("*.kql"))
WORKBOOK = INFRA / "workbook.json"
ROW = '\n| project run, cluster = "-", node = "-", what = "-"'


def check(*files: Path) -> subprocess.CompletedProcess[str]:
    """Run the check over files. One at a time: the first installs the parser."""
    require(bool(shutil.which("node") and shutil.which("npm")), "Kusto's parser needs node and npm")
    with CHECK.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return subprocess.run(["sh", CHECK, *files], capture_output=True, text=True, check=False)


def test_the_service_takes_every_query() -> None:
    done = check(*QUERIES, WORKBOOK)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_is_found_in_a_workbook_in_items_and_in_parameters(tmp_path: Path) -> None:
    bad = tmp_path / "workbook.json"
    bad.write_text(WORKBOOK.read_text().replace("pool = node_pool", "kind = node_pool").replace("seen", "last"))
    done = check(bad)
    assert done.returncode == 1
    assert f"{bad}: failing:3: KS" in done.stderr
    assert f"{bad}: choice/run:2: KS" in done.stderr


BAD = [
    ("RunEvents | project run, kind = run_kind", "['kind']"),
    ("RunEvents | project run, last = run_kind", "['last']"),
    ("RunEvent | take 1", "The name 'RunEvent' does not refer to any known"),
    ("RunEvents | where run_id == 'x'", "The name 'run_id' does not refer to any known"),
    ("RunEvents | where why == 'x'", "The name 'why' does not refer to any known"),
    ("RunEvents | where error =", "KS"),
    ("RunEvents | summarize nodes = sum(error) by run", "must be summable"),
    ("RunEvents | where nodes > 'many'", "not defined for the operand types long and string"),
    ("RunEvents | where nodes == 'many'", "a long is compared with a string"),
    ("RunEvents | where error != 0", "a string is compared with a long"),
    ("RunEvents | where timestamp in ('today')", "a datetime is compared with a string"),
    ("FindingEvents | where regressed == 'yes'", "a bool is compared with a string"),
    ("FindingEvents | where regressed and reason", "not defined for the operand types bool and string"),
    ("LateEvents | where done > expected_end", "not defined for the operand types long and datetime"),
    ("FindingEvents | where status == 'failing'", "status is never 'failing', but pass, fail, error"),
    ("FindingEvents | where outcome in ('fixed', 'undone')", "outcome is never 'undone', but fixed,"),
    ("RefusalEvents | extend s = iff(side == 'azur', 1, 0)", "side is never 'azur', but store, azure"),
]
# What Azure Monitor takes in a query, but in no rule's.
UNFIT = [
    ("RunEvents | union LateEvents", "no union"),
    ("union RunEvents, LateEvents", "no union"),
    ("search 'x' | extend run = ''", "no search"),
    ("RunEvents | extend bag = bag_pack('a', 1) | evaluate bag_unpack(bag)", "no bag_unpack()"),
    ("RunEvents | evaluate pivot(state, count(), run)", "no pivot()"),
    ("RunEvents | where timestamp > ago(1h + 1m)", "ago() of a literal only"),
    ("let Span = 1h; RunEvents | where timestamp > ago(Span)", "ago() of a literal only"),
    ("RunEvents | summarize AggregatedValue = count() by run", "AggregatedValue is a word of the service's own"),
]
BAD += UNFIT
WRONG_COLUMNS = ["run, cluster, node", "run, cluster = 1, node = '-', what = '-'"]


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the check says of each of these queries, which it must not take: all at once, for it is slow to begin."""
    folder = tmp_path_factory.mktemp("bad")
    queries = [
        *(query + ROW for query, _ in BAD),
        *(f'NodeEvents | where status == "fail" | project {columns}' for columns in WRONG_COLUMNS),
    ]
    paths = {folder / f"{number}.kql": query for number, query in enumerate(queries)}
    for path, query in paths.items():
        path.write_text(query)
    done = check(*paths)
    assert done.returncode == 1
    said = re.split(rf"^{re.escape(str(folder))}/", done.stderr, flags=re.MULTILINE)[1:]
    found: dict[str, str] = {}
    for text in said:
        query = paths[folder / text.partition(":")[0]]
        found[query] = found.get(query, "") + text.replace('"', "'")
    return found


@pytest.mark.parametrize(("query", "said"), BAD)
def test_what_the_language_or_the_events_do_not_have_is_found(query: str, said: str, refusals: dict[str, str]) -> None:
    assert said in refusals[query + ROW]
    assert re.match(r"\d+\.kql:1: ", refusals[query + ROW])
    assert f"\n    {query}\n" in refusals[query + ROW].replace('"', "'")


@pytest.mark.parametrize("columns", WRONG_COLUMNS)
def test_a_rule_that_does_not_name_run_cluster_and_node_is_found(columns: str, refusals: dict[str, str]) -> None:
    said = refusals[f'NodeEvents | where status == "fail" | project {columns}']
    assert said.endswith(", not (run: string, cluster: string, node: string, what: string)\n")


def test_a_parameter_that_the_workbook_does_not_have_is_found(tmp_path: Path) -> None:
    bad = tmp_path / "workbook.json"
    bad.write_text(WORKBOOK.read_text().replace(r"run == \"{run}\"", "run == {other}"))
    assert check(bad).returncode == 1


@pytest.mark.parametrize("required", [False, True])
def test_without_node_it_skips_with_the_reason_or_fails(required: bool, tmp_path: Path) -> None:
    (tmp_path / "dirname").symlink_to(shutil.which("dirname") or "")
    environment = {"PATH": str(tmp_path)} | ({"REQUIRE_ALL": "1"} if required else {})
    sh = os.path.realpath(shutil.which("sh") or "")
    done = subprocess.run([sh, CHECK, *QUERIES], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "node and npm are not on PATH: the queries are not read by Kusto's parser\n"
    assert (done.returncode == 1) == required


# As they are deployed: what the compiler predicts


PARAMETERS = """using './main.bicep'
param environmentName = 'prod'
param location = 'westeurope'
param alertEmails = ['ops@example.com']
param undeterminedPercent = 7
param alertsOff = {off}
"""


def snapshot(folder: Path, off: str) -> subprocess.CompletedProcess[str]:
    """Let the compiler predict the resources of a deployment with these rules switched off (Bicep's array)."""
    require(bool(shutil.which("bicep")), "the Bicep compiler is needed to predict resources")
    (folder / "infra" / "predicted.bicepparam").write_text(PARAMETERS.format(off=off))
    subscription = "11111111-1111-1111-1111-111111111111"
    command = ["bicep", "snapshot", str(folder / "infra" / "predicted.bicepparam"), "--mode", "overwrite"]
    options = ["--subscription-id", subscription, "--location", "westeurope"]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("deployed")
    shutil.copytree(INFRA, made / "infra")
    return made


@pytest.fixture(scope="module")
def deployed(folder: Path) -> list[dict[str, Any]]:
    done = snapshot(folder, "['refused', 'run-late']")
    assert done.returncode == 0, done.stderr
    resources: list[dict[str, Any]] = json.loads((folder / "infra" / "predicted.snapshot.json").read_text())[
        "predictedResources"
    ]
    return resources


def rules(deployed: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rules by their name in Azure."""
    return {item["name"]: item["properties"] for item in deployed if item["type"].endswith("/scheduledQueryRules")}


def test_the_service_takes_what_is_deployed(deployed: list[dict[str, Any]], tmp_path: Path) -> None:
    paths = []
    for name, rule in rules(deployed).items():
        (condition,) = rule["criteria"]["allOf"]
        assert condition["query"].startswith("let NodeEvents = traces | ")
        assert {item["name"] for item in condition["dimensions"]} == {"run", "cluster", "node", "what"}
        paths.append(tmp_path / f"{name}.kql")
        paths[-1].write_text(condition["query"])
    (book,) = (item for item in deployed if item["type"].endswith("/workbooks"))
    content = book["properties"]["serializedData"]
    assert json.loads(content)["fallbackResourceIds"] == [book["properties"]["sourceId"]]
    paths.append(tmp_path / "workbook.json")
    paths[-1].write_text(content)
    assert len(paths) == len(QUERIES) + 1
    done = check(*paths)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (undetermined,) = (path.read_text() for path in paths if "undetermined" in path.name)
    assert "> 7;" in undetermined
    # A rule's properties may have 64 KB in all.
    assert max(len(json.dumps(rule)) for rule in rules(deployed).values()) < 16_000


def test_rules_are_switched_off_by_name(deployed: list[dict[str, Any]]) -> None:
    off = [name for name, rule in rules(deployed).items() if not rule["enabled"]]
    assert [name.rpartition("-")[0] for name in off] == ["kubelet-guard-refused", "kubelet-guard-run-late"]


def test_a_name_that_is_none_is_refused(folder: Path) -> None:
    done = snapshot(folder, "['run-missed']")
    assert done.returncode != 0
    assert "run-missed" in done.stderr
    assert "run-overdue" in done.stderr


def test_two_installations_in_one_group_share_no_names(deployed: list[dict[str, Any]]) -> None:
    (app,) = (item["name"] for item in deployed if item["type"] == "Microsoft.Web/sites")
    token = app.rpartition("-")[2]
    (group,) = (item for item in deployed if item["type"].endswith("/actionGroups"))
    assert len(token) == 13
    assert all(name.endswith(f"-{token}") for name in [*rules(deployed), group["name"]])
    assert group["properties"]["groupShortName"] == f"guard-{token[:6]}"
    assert all("prod" in rule["displayName"] for rule in rules(deployed).values())
