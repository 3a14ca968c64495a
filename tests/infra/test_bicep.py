"""The Bicep files as a whole: they parse, nothing is left unused or undescribed, and modules fit their callers."""

from __future__ import annotations

import re
from pathlib import Path

import pycep
import pytest

from tests.support.bicep import INFRA, File, files, keys, literal, read

FILES = files()
MODULES = sorted((INFRA / "modules").glob("*.bicep"))


def _id(path: Path) -> str:
    return str(path.relative_to(INFRA))


@pytest.fixture(params=FILES, ids=_id)
def file(request: pytest.FixtureRequest) -> File:
    path: Path = request.param
    return read(path)


def test_all_files_are_known() -> None:
    names = {_id(path) for path in FILES}
    assert {"main.bicep", "access-subscription.bicep", "access-management-group.bicep"} <= names
    called = {(path.parent / block.target).resolve() for path in FILES for block in read(path).modules if block.target}
    assert called == set(MODULES), "a module that nobody calls, or a call of one that is not there"


def test_parses(file: File) -> None:
    assert file.problems == ()
    # That a parameter's type may be an object's is news to the second grammar.
    text = re.sub(r"(?<=param settings )\{[^{}]*\}", "object", file.path.read_text())
    assert pycep.BicepParser().parse(text=text), "a second, independent grammar"


def test_the_example_of_parameters_parses_and_fits() -> None:
    example, main = read(INFRA / "main.bicepparam"), read(INFRA / "main.bicep")
    assert example.problems == ()
    assert (INFRA / "main.bicepparam").read_text().startswith("using './main.bicep'\n")
    assert example.variables <= {parameter.name for parameter in main.parameters}
    assert {parameter.name for parameter in main.parameters if not parameter.optional} <= example.variables


def test_every_parameter_and_output_is_described(file: File) -> None:
    undescribed = {parameter.name for parameter in file.parameters if "description" not in parameter.decorators}
    undescribed |= {name for name, decorators in file.outputs.items() if "description" not in decorators}
    assert undescribed == set()


def test_everything_declared_is_used(file: File) -> None:
    declared = {parameter.name for parameter in file.parameters} | file.variables
    declared |= {block.name for block in file.resources if block.existing and "subnets" not in block.target}
    assert declared - file.uses == set()


@pytest.mark.parametrize("path", FILES, ids=_id)
def test_modules_get_their_parameters_and_no_others(path: Path) -> None:
    for block in read(path).modules:
        module = read((path.parent / block.target).resolve())
        given = set(keys(keys(block.body)["params"]))
        known = {parameter.name for parameter in module.parameters}
        assert given == known, f"{block.name}: unknown {given - known}, missing {known - given}"
        assert "name" in keys(block.body), f"{block.name} needs a name: before Bicep 0.34 it is required"


@pytest.mark.parametrize("path", FILES, ids=_id)
def test_module_outputs_that_are_read_exist(path: Path) -> None:
    file = read(path)
    offered = {
        (block.name, output)
        for block in file.modules
        for output in read((path.parent / block.target).resolve()).outputs
    }
    assert file.outputs_used - offered == set()


def test_every_module_output_is_read() -> None:
    for path in MODULES:
        callers = [
            (caller, block.name)
            for caller in map(read, FILES)
            for block in caller.modules
            if (caller.path.parent / block.target).resolve() == path
        ]
        read_by_callers = {
            output for caller, name in callers for module, output in caller.outputs_used if module == name
        }
        assert set(read(path).outputs) == read_by_callers, path.name


@pytest.mark.parametrize("path", FILES, ids=_id)
def test_modules_run_at_the_scope_that_they_are_written_for(path: Path) -> None:
    file = read(path)
    for block in file.modules:
        module = read((path.parent / block.target).resolve())
        scope = literal(keys(block.body)["scope"]) if "scope" in keys(block.body) else file.scope
        at = {"group": "resourceGroup", "subscription(id)": "subscription"}.get(scope, scope)
        assert at == module.scope, f"{block.name} runs at {at}, its file is written for {module.scope}"


def test_tags_are_passed_to_everything_that_takes_them() -> None:
    untaggable = {
        "Microsoft.Authorization/roleAssignments",
        "Microsoft.Authorization/roleDefinitions",
        "Microsoft.Storage/storageAccounts/blobServices",
        "Microsoft.Storage/storageAccounts/blobServices/containers",
        "basicPublishingCredentialsPolicies",
        "privateDnsZoneGroups",
    }
    for file in map(read, FILES):
        for block in file.resources:
            if not block.existing and block.target.split("@")[0] not in untaggable:
                assert "tags" in keys(block.body), f"{file.path.name}: {block.name}"


def test_one_version_of_an_api_is_used_everywhere() -> None:
    versions: dict[str, set[str]] = {}
    for file in map(read, FILES):
        for block in file.resources:
            if "@" in block.target:
                name, _, version = block.target.partition("@")
                versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
    assert not [name for name, found in versions.items() if any("preview" in version for version in found)]
