"""What neither the compiler nor a prediction says of the Bicep files: nothing is left over, all is described."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.bicep import INFRA, files

FILES = files()
MODULES = sorted((INFRA / "modules").glob("*.bicep"))


def calls(path: Path) -> dict[str, Path]:
    """The modules that a file calls: symbolic name to file."""
    found = re.findall(r"^module (\w+) '(.+)' =", path.read_text(), re.MULTILINE)
    return {name: (path.parent / target).resolve() for name, target in found}


def test_every_module_is_called_by_a_file() -> None:
    entries = {"main.bicep", "access-subscription.bicep", "access-management-group.bicep"}
    assert {path.name for path in INFRA.glob("*.bicep")} == entries
    assert {module for path in FILES for module in calls(path).values()} == set(MODULES)


def test_every_output_of_a_module_is_read_by_a_caller() -> None:
    read = {
        (module, output)
        for path in FILES
        for name, module in calls(path).items()
        for output in re.findall(rf"\b{name}(?:\[\w+\])?[!?]?\.outputs\.(\w+)", path.read_text())
    }
    offered = {
        (module, output)
        for module in MODULES
        for output in re.findall(r"^output (\w+) ", module.read_text(), re.MULTILINE)
    }
    assert offered - read == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_parameters_and_outputs_are_described(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("metadata description = '")
    # Decorators stand above what they are of, and the compiler's format has an empty line before them.
    paragraphs = re.split(r"\n\n", text)
    undescribed = [
        found[1]
        for paragraph in paragraphs
        if (found := re.search(r"^(?:param|output) (\w+) ", paragraph, re.MULTILINE))
        and not paragraph.startswith("@description('")
    ]
    assert undescribed == []


def test_a_part_in_a_subscription_has_a_name_for_each_region() -> None:
    """Azure refuses a deployment whose name a subscription has of another region (InvalidDeploymentLocation)."""
    named = [
        name
        for path in FILES
        for name in re.findall(r"^ +name: '(.+)'\n +scope: subscription\(", path.read_text(), re.MULTILINE)
    ]
    assert len(named) == 2
    # `token` is made of the region; the name of a deployment in a subscription is of one region.
    assert all(re.search(r"uniqueString\(id, .*(token|deployment\(\)\.name)\)", name) for name in named), named
