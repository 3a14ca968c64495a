"""Whether the app can run on a Python with the packages that it has, and what it is where it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.runtime import NEWEST, OLDEST, wrong
from tools.package import pythons

ROOT = Path(__file__).parents[1]
SUFFIXES = (".cpython-312-x86_64-linux-gnu.so", ".abi3.so", ".so")


def packages(folder: Path, *files: str) -> list[str]:
    """A folder of packages with one pydantic_core, of which these files are there."""
    made = folder / "pydantic_core"
    made.mkdir()
    for name in ("__init__.py", "_pydantic_core.pyi", *files):
        (made / name).touch()
    return [str(folder)]


def test_this_python_can_run_it() -> None:
    assert wrong() == ""


def test_the_pythons_are_those_that_the_project_takes() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert f'requires-python = ">={OLDEST[0]}.{OLDEST[1]},<{NEWEST[0]}.{NEWEST[1] + 1}"' in text
    assert pythons()[1] == tuple(f"3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1))


@pytest.mark.parametrize("version", [(3, 10), (3, 14), (4, 0)])
def test_a_python_that_is_none_of_them(version: tuple[int, int], tmp_path: Path) -> None:
    path = packages(tmp_path, "_pydantic_core.so")
    assert f"runs on Python {version[0]}.{version[1]}, and is made for Python 3.11 to 3.13" in wrong(
        version, SUFFIXES, path
    )


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["_pydantic_core.cpython-312-x86_64-linux-gnu.so"], None),
        (["_pydantic_core.cpython-311-x86_64-linux-gnu.so", "_pydantic_core.cpython-312-x86_64-linux-gnu.so"], None),
        (["_pydantic_core.abi3.so"], None),
        (["_pydantic_core.cpython-311-x86_64-linux-gnu.so"], "were built for Python 3.11 (x86_64-linux-gnu)"),
        (["_pydantic_core.cpython-312-aarch64-linux-gnu.so"], "were built for Python 3.12 (aarch64-linux-gnu)"),
        (["_pydantic_core.cp313-win_amd64.pyd"], "were built for Python 3.13 (win_amd64)"),
        (["_pydantic_core.strange.so"], "were built for _pydantic_core.strange.so"),
        ([], "were built for no Python"),
    ],
)
def test_what_packages_were_built_for(files: list[str], said: str | None, tmp_path: Path) -> None:
    why = wrong((3, 12), SUFFIXES, packages(tmp_path, *files))
    if said is None:
        assert why == ""
    else:
        assert why.startswith("the app runs on Python 3.12, and its packages ")
        assert said in why
        assert "build them for Python 3.12" in why


def test_packages_that_are_not_there(tmp_path: Path) -> None:
    assert "packages are not there (pydantic_core" in wrong((3, 12), SUFFIXES, [str(tmp_path)])


def test_an_app_that_cannot_be_imported_says_why(tmp_path: Path) -> None:
    """Two functions are there, and no more is imported than what they need."""
    broken = tmp_path / "pydantic"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('libfancy.so.1: no such file')\n")
    code = (
        "import function_app, json, sys\n"
        "shown = {}\n"
        "for f in function_app.app.get_functions():\n"
        "    a, level = f.get_user_function()(None), f.get_trigger().auth_level.name\n"
        "    shown[f.get_function_name()] = [a.status_code, a.mimetype, json.loads(a.get_body()), level]\n"
        "print(json.dumps([shown, [name for name in sys.modules if name.startswith('shared')]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    answers, imported = json.loads(done.stdout)
    for name, level in (("health", "FUNCTION"), ("live", "ANONYMOUS")):
        status, kind, problem, asked = answers.pop(name)
        assert (status, kind, asked) == (503, "application/problem+json", level)
        assert problem["type"] == "urn:kubelet-guard:problem:bad-package"
        assert problem["detail"] == "the app cannot be imported: libfancy.so.1: no such file"
    assert answers == {}
    assert "shared.api.refused" in imported
    assert "nothing works until the app is deployed anew: the app cannot be imported: libfancy" in done.stderr
    assert "Traceback" in done.stderr, "where it failed is said too"
