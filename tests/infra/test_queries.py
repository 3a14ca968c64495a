"""Kusto's own parser reads the queries as the service would (scripts/kusto)."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.bicep import INFRA
from tests.support.require import require

CHECK = INFRA.parent / "scripts" / "kusto" / "check.sh"
QUERIES = sorted((INFRA / "queries").glob("*.kql"))
WORKBOOK = INFRA / "workbook.json"


def check(*files: Path) -> subprocess.CompletedProcess[str]:
    """Run the check over files. One at a time: the first installs the parser."""
    require(bool(shutil.which("node") and shutil.which("npm")), "Kusto's parser needs node and npm")
    with CHECK.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return subprocess.run(["sh", CHECK, *files], capture_output=True, text=True, check=False)


def test_the_service_takes_every_query() -> None:
    done = check(*QUERIES, WORKBOOK)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["kind", "last"])
def test_a_word_of_the_language_as_a_bare_name_is_found_in_a_query(name: str, tmp_path: Path) -> None:
    bad = tmp_path / "run-failed.kql"
    bad.write_text((INFRA / "queries" / "run-failed.kql").read_text().replace("run_kind", name))
    done = check(QUERIES[0], bad)
    assert done.returncode == 1
    assert f"{bad}:5: KS" in done.stderr
    assert f"['{name}']" in done.stderr
    assert f"\n    | project timestamp, run = tostring(e.run_id), {name} = tostring(e.kind)" in done.stderr


def test_it_is_found_in_a_workbook_in_items_and_in_parameters(tmp_path: Path) -> None:
    bad = tmp_path / "workbook.json"
    bad.write_text(WORKBOOK.read_text().replace("run_kind", "kind").replace("seen", "last"))
    done = check(bad)
    assert done.returncode == 1
    assert f"{bad}: runs:5: KS" in done.stderr
    assert f"{bad}: choice/run:5: KS" in done.stderr


@pytest.mark.parametrize("query", ["trace | take 1", "traces | where text == ''", "traces | where message ="])
def test_unknown_tables_and_columns_and_broken_syntax_are_found(query: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.kql"
    bad.write_text(query)
    assert check(bad).returncode == 1


def test_a_parameter_that_the_workbook_does_not_have_is_found(tmp_path: Path) -> None:
    bad = tmp_path / "workbook.json"
    bad.write_text(WORKBOOK.read_text().replace(r"tostring(e.run_id) == \"{run}\"", "tostring(e.run_id) == {other}"))
    assert check(bad).returncode == 1


@pytest.mark.parametrize("required", [False, True])
def test_without_node_it_skips_with_the_reason_or_fails(required: bool, tmp_path: Path) -> None:
    (tmp_path / "dirname").symlink_to(shutil.which("dirname") or "")
    environment = {"PATH": str(tmp_path)} | ({"REQUIRE_ALL": "1"} if required else {})
    sh = os.path.realpath(shutil.which("sh") or "")
    done = subprocess.run([sh, CHECK, *QUERIES], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "node and npm are not on PATH: the queries are not read by Kusto's parser\n"
    assert (done.returncode == 1) == required
