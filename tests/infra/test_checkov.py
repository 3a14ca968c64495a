"""checkov's rules over the compiled ARM JSON, in its own virtual environment (it pins half of PyPI): CHECKOV,
.venv-checkov or PATH.

What it reads is what the compiler predicts for a deployment: every resource of every module, with values in the place
of parameters. (A template by itself tells it little: it looks into no nested one, and takes a parameter for a value.
Over Bicep it has the same rules, but not the language of today.) A rule that does not fit is skipped by a comment at
the resource, which holds its reason, and which checkov itself knows where somebody runs it over the Bicep files.
"""

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
from tests.support.once import once
from tests.support.require import require
from tools.bicep.combinations import COMBINATIONS, deployed
from tools.bicep.compiler import compiler
from tools.bicep.snapshots import kept

pytestmark = pytest.mark.slow

# Between them they have every kind of resource there is.
CHECKED = ("public-access-email", "private-storage-access-email", "private-access-email", "management-group")
# What only the public network needs to be forgiven, because it has no network to keep anybody out with.
PUBLIC_ONLY = {"CKV_AZURE_35", "CKV_AZURE_59"}


def checkov() -> str | None:
    own = INFRA.parent / ".venv-checkov" / "bin" / "checkov"
    return os.environ.get("CHECKOV") or (str(own) if own.exists() else shutil.which("checkov"))


def skips() -> dict[str, str]:
    """Rules that are skipped, with the reason that stands at a resource."""
    found = [each for path in files() for each in re.findall(r"// checkov:skip=(\w+):(.*)", path.read_text())]
    assert len(found) == len(dict(found)), "a rule is skipped twice"
    return dict(found)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return once(tmp_path_factory, "checkov", checked)


def checked(folder: Path) -> dict[str, Any]:
    """What checkov says of what is deployed."""
    command = checkov()
    require(command is not None, "checkov is not installed (make .venv-checkov)")
    require(shutil.which("bicep") is not None, "bicep is not on PATH")
    assert command is not None
    templates = folder / "templates"
    templates.mkdir()
    with compiler(folder) as running:
        for combination in COMBINATIONS:
            if combination.name in CHECKED:
                resources = deployed(running, combination, folder / "copies")["predictedResources"]
                template = {
                    "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
                    "contentVersion": "1.0.0.0",
                    "resources": [{key: each[key] for key in each if key != "id"} for each in resources],
                }
                (templates / f"{combination.name}.json").write_text(json.dumps(template, indent=1))
    done = subprocess.run(
        [command, "--directory", str(templates), "--framework", "arm", "--skip-download", "--output", "json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def failed(report: dict[str, Any]) -> dict[str, set[str]]:
    """The combinations that each rule fails in."""
    found: dict[str, set[str]] = {}
    for check in report["results"]["failed_checks"]:
        found.setdefault(check["check_id"], set()).add(Path(check["file_path"]).stem)
    return found


def test_every_resource_was_read(report: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    summary, rules = report["summary"], failed(report)
    with capsys.disabled():
        print(
            f"\ncheckov {summary['checkov_version']}, {summary['resource_count']} resources of {len(CHECKED)} cases:",
            f"{summary['passed']} checks pass, {summary['failed']} fail, of {len(rules)} rules skipped with a reason",
        )
    assert report["results"]["parsing_errors"] == []
    kinds = {name: {each.type for each in kept(name).all()} for name in [each.name for each in COMBINATIONS]}
    assert set().union(*kinds.values()) == set().union(*(kinds[name] for name in CHECKED)), "a kind that is not checked"
    assert summary["resource_count"] >= 100
    assert len({check["check_id"] for check in report["results"]["passed_checks"]}) >= 25


def test_no_rule_fails_that_is_not_skipped_with_a_reason(report: dict[str, Any]) -> None:
    unexplained = [
        f"{check['check_id']} {check['check_name']}: {check['resource']} in {check['file_path']}"
        for check in report["results"]["failed_checks"]
        if check["check_id"] not in skips()
    ]
    assert unexplained == []


def test_every_skip_is_needed_and_has_a_reason(report: dict[str, Any]) -> None:
    assert set(skips()) == set(failed(report)), "a skip that nothing needs hides what comes later"
    assert all(len(reason) > 20 for reason in skips().values())


def test_the_private_networks_need_no_forgiveness_for_what_is_open(report: dict[str, Any]) -> None:
    rules = failed(report)
    for rule in PUBLIC_ONLY:
        assert rules[rule] == {"public-access-email"}
    assert rules["CKV_AZURE_222"] == {"public-access-email", "private-storage-access-email"}, (
        "the app is on the internet"
    )
