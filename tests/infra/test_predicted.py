"""What infra/snapshots holds is what the templates deploy by the real compiler's prediction; and how it is written."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bicep import INFRA
from tests.support.require import require
from tools.bicep.__main__ import outdated, problems, snapshots, write
from tools.bicep.combinations import COMBINATIONS, literal
from tools.bicep.compiler import CompilerError, compiler
from tools.bicep.expressions import ExpressionError, worked_out
from tools.bicep.snapshots import FOLDER, Snapshot, difference, kept, merged, short, text

GROUP = "/subscriptions/s/resourceGroups/g"


def require_bicep() -> None:
    require(shutil.which("bicep") is not None, "bicep is not on PATH")


# --- with the compiler ------------------------------------------------------------------------------------------------


def test_the_kept_snapshots_are_what_the_templates_deploy() -> None:
    require_bicep()
    made = snapshots()
    there = {path.name: path.read_text() for path in FOLDER.iterdir()}
    differences = [
        line
        for name in sorted(made.keys() | there.keys())
        for line in difflib.unified_diff(
            there.get(name, "").splitlines(), made.get(name, "").splitlines(), f"kept/{name}", f"predicted/{name}", n=4
        )
    ]
    assert not differences, "\n".join([*differences[:200], "make snapshots writes them anew"])


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    require_bicep()
    found = tmp_path / "infra"
    shutil.copytree(INFRA, found)
    return found


def replaced(path: Path, old: str, new: str) -> int:
    """Replaces one text of a file, and gives the line that it is on."""
    before, found, after = path.read_text().partition(old)
    assert found
    path.write_text(f"{before}{new}{after}")
    return before.count("\n") + 1


def test_warnings_another_format_and_old_versions_are_found(copy: Path) -> None:
    identity, app = copy / "modules" / "identity.bicep", copy / "modules" / "app.bicep"
    concatenated = replaced(identity, "= identity.id", "= concat(identity.id, name)")
    replaced(copy / "main.bicep", "targetScope = ", "targetScope   = ")
    old = replaced(app, "Microsoft.Web/serverfarms@2025-03-01", "Microsoft.Web/serverfarms@2024-04-01")
    warning, unformatted = problems(copy)
    assert warning.startswith(f"{identity}:{concatenated}: Warning prefer-interpolation: ")
    assert unformatted == f"{copy / 'main.bicep'}: not as bicep formats: bicep format {copy / 'main.bicep'}"
    (line,) = outdated(copy)
    assert line.startswith(f"infra/modules/app.bicep:{old}: Microsoft.Web/serverfarms 2024-04-01 -> ")


def test_a_mistake_is_told_with_its_place(tmp_path: Path) -> None:
    require_bicep()
    bad = tmp_path / "bad.bicep"
    bad.write_text("param a string\n\noutput b int = a\n")
    with compiler(tmp_path) as running, pytest.raises(CompilerError, match=rf"{bad}:3: Error BCP033: .*int"):
        running.compile(bad)


@pytest.mark.parametrize("required", [False, True])
def test_without_the_compiler_the_check_says_so_or_fails(required: bool) -> None:
    require(bool(shutil.which("node") and shutil.which("npm")), "Kusto's parser needs node and npm")
    path = os.pathsep.join(
        place for place in os.environ["PATH"].split(os.pathsep) if not (Path(place) / "bicep").exists()
    )
    environment = {name: value for name, value in os.environ.items() if name != "REQUIRE_ALL"} | {"PATH": path}
    environment |= {"REQUIRE_ALL": "1"} if required else {}
    done = subprocess.run(
        ["sh", INFRA / "check.sh"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "bicep is not on PATH: the templates are not compiled\n"
    assert (done.returncode == 1) == required


# --- how it is written down -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("[createArray(1, 'it''s', true(), null())]", [1, "it's", True, None]),
        ("[createObject('a', createArray(), 'b', -2)]", {"a": [], "b": -2}),
        ("[concat(createArray(1), createArray(2, 3))]", [1, 2, 3]),
        ("[concat('a', 'b')]", "ab"),
        ("[format('{1}-{0}', 'a', reference('id', '2020-01-01').x.y)]", "{id.x.y}-a"),
        ("[reference('a/b', '2020-01-01', 'full').list[0].name]", "{a/b.list.0.name}"),
        ("[createObject('a', 'x', 'b', 'y')['b']]", "y"),
        ("[createObject('a', 'x').?a]", "x"),
        ("[guid('/x/one', reference('/x/two', '2020-01-01').id)]", "{guid(one, two.id)}"),
        ("[concat(createArray(1), unknown())]", [1, "{unknown()}"]),
        ("[extensionResourceId('/s', 'A/b', guid('c'))]", "/s/providers/A/b/{guid(c)}"),
        ("[listKeys('/x/account', '2020-01-01').keys[0].value]", "{listKeys(account, 2020-01-01).keys.0.value}"),
    ],
)
def test_an_expression_is_worked_out_as_far_as_it_goes(expression: str, value: object) -> None:
    assert worked_out(expression) == value


@pytest.mark.parametrize("expression", ["[f(]", "[f('a') 'b']", "[f]", "['a'.]", "[f(1 2)]", "[f('a)]", "[$]", "[]"])
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ExpressionError):
        worked_out(expression)


def predicted(*resources: dict[str, Any], outputs: dict[str, Any] | None = None) -> dict[str, Any]:
    group = {"id": GROUP, "type": "Microsoft.Resources/resourceGroups", "name": "g"}
    return {"predictedResources": [group, *resources], "outputs": outputs or {}}


def test_a_prediction_is_shortened() -> None:
    account = {
        "id": f"{GROUP}/providers/A.B/accounts/x",
        "type": "A.B/accounts",
        "name": "x",
        "apiVersion": "2020-01-01",
        "properties": {
            "none": None,
            "query": "a\nb",
            "long": "l" * 401,
            "other": f"/subscriptions/t{GROUP}",
            "settings": [{"name": "a", "value": "1"}, "[unknown()]"],
            f"{GROUP}/providers/A.B/accounts/y": {},
        },
    }
    found = short(predicted(account, outputs={"o": f"[reference('{GROUP}/providers/A.B/accounts/x', 'v').url]"}))
    assert found.outputs == {"o": "{A.B/accounts/x.url}"}
    resource = found.only("A.B/accounts")
    assert (resource.id, resource.name, resource.at("apiVersion")) == ("A.B/accounts/x", "x", "2020-01-01")
    assert resource.at("properties") == {
        "query": "(3 characters, sha256 7e18f737311b2dc3)",
        "long": "(401 characters, sha256 27a835192dfe39b0)",
        "other": f"/subscriptions/t{GROUP}",
        "settings": {"a": "1", "{unknown()}": "…"},
        "A.B/accounts/y": {},
    }
    with pytest.raises(KeyError, match=r"A\.B/accounts/x has no properties\.away: away is missing"):
        resource.at("properties.away")


def test_an_extension_resource_is_of_its_own_type_and_on_a_scope() -> None:
    scope = f"{GROUP}/providers/A.B/accounts/x"
    expression = f"[extensionResourceId('{scope}', 'C.D/roles', guid('{scope}'))]"
    role = {"id": expression, "type": "C.D/roles", "name": f"[guid('{scope}')]"}
    (found,) = short(predicted(role)).of("C.D/roles")
    assert (found.id, found.scope) == ("A.B/accounts/x/providers/C.D/roles/{guid(x)}", "A.B/accounts/x")


def test_two_resources_of_one_id_are_refused() -> None:
    one = {"id": f"{GROUP}/providers/A.B/c/x", "type": "A.B/c", "name": "x"}
    with pytest.raises(ValueError, match=r"two resources are A\.B/c/x"):
        short(predicted(one, one))


JSON = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=3), JSON, max_size=5)


@given(OBJECTS, OBJECTS)
def test_a_difference_makes_the_one_of_the_other(base: dict[str, Any], other: dict[str, Any]) -> None:
    assert merged(base, difference(base, other)) == other
    assert difference(base, base) == {}


def test_files_are_read_back_with_those_that_they_build_on(tmp_path: Path) -> None:
    first = Snapshot({"A.B/c/x": {"a": 1, "b": {"c": 2}}, "A.B/c/y": {}}, {"o": "x"})
    second = Snapshot({"A.B/c/x": {"a": 1, "b": {"d": 3}}}, {"o": "x"})
    made = {"one.json": text(first, None, None), "two.json": text(second, "one", first)}
    (tmp_path / "old.json").write_text("")
    assert write(made, tmp_path) == ["old.json", "one.json", "two.json"]
    assert write(made, tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.json", "two.json"]
    assert (kept("one", tmp_path), kept("two", tmp_path)) == (first, second)


def test_names_of_combinations_are_distinct_and_each_builds_on_an_earlier_one() -> None:
    earlier: set[str | None] = {None}
    for combination in COMBINATIONS:
        assert combination.base in earlier
        assert combination.name not in earlier
        earlier.add(combination.name)


def test_values_are_written_as_bicep_reads_them() -> None:
    assert literal({"a-b": ["it's", "${x} $y", "\\", True, 7]}) == r"{'a-b': ['it\'s', '\${x} $y', '\\', true, 7]}"
    with pytest.raises(TypeError):
        literal(1.5)
