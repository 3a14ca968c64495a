"""checkov's rules for Bicep, in its own virtual environment (it pins half of PyPI): CHECKOV, .venv-checkov or PATH."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.bicep import INFRA, files
from tests.support.require import require

pytestmark = pytest.mark.slow

# checkov reads Bicep with an older grammar than the language has. What that does not know is written in an older form
# first: an equivalent one, or one that its rules, which look at properties of resources, do not look at.
OLDER = (
    (re.compile(r"\bstring\[\]"), "array"),
    (re.compile(r"(?<=\w)!\."), "."),
    (re.compile(r"\b(objectKeys|cidrSubnet|items)\("), "concat("),
    (re.compile(r"@sealed\(\)\n"), ""),
    (re.compile(r"(?<=param settings )\{[^{}]*\}"), "object"),
)


def checkov() -> str | None:
    own = INFRA.parent / ".venv-checkov" / "bin" / "checkov"
    return os.environ.get("CHECKOV") or (str(own) if own.exists() else shutil.which("checkov"))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    command = checkov()
    require(command is not None, "checkov is not installed (python -m venv .venv-checkov, then pip install checkov)")
    assert command is not None
    copy = tmp_path_factory.mktemp("checkov") / "infra"
    shutil.copytree(INFRA, copy)
    for path in files():
        text = path.read_text()
        for pattern, older in OLDER:
            text = pattern.sub(older, text)
        (copy / path.relative_to(INFRA)).write_text(text)
    done = subprocess.run(
        [command, "--directory", str(copy), "--framework", "bicep", "--skip-download", "--output", "json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_file_was_read(report: dict[str, Any]) -> None:
    assert report["results"]["parsing_errors"] == []
    assert report["summary"]["resource_count"] >= 20


def test_no_rule_fails(report: dict[str, Any]) -> None:
    failed = [
        f"{check['check_id']} {check['check_name']}: {check['resource']} in {check['file_path']}"
        for check in report["results"]["failed_checks"]
    ]
    assert failed == []
    assert len(report["results"]["passed_checks"]) >= 10


def test_every_suppression_has_a_reason(report: dict[str, Any]) -> None:
    skipped = {
        check["check_id"]: check["check_result"]["suppress_comment"] for check in report["results"]["skipped_checks"]
    }
    written = {rule for path in files() for rule in re.findall(r"checkov:skip=(\w+):\S", Path(path).read_text())}
    assert set(skipped) == written
    assert all(len(reason) > 20 for reason in skipped.values())
