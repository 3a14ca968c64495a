"""What the tests of the deployment read: the predicted resources that are kept (infra/snapshots), and the files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.require import require
from tools.bicep.combinations import COMBINATIONS, INFRA, Combination
from tools.bicep.snapshots import FOLDER, Snapshot, kept

__all__ = ["ACCESS", "APPS", "INFRA", "Deployment", "bicep", "files", "given", "interface"]

# What azd sets by itself.
_ENVIRONMENT = {"AZURE_ENV_NAME": "prod", "AZURE_LOCATION": "westeurope"}


@dataclass(frozen=True)
class Deployment:
    """A combination of parameters with what it deploys."""

    combination: Combination
    snapshot: Snapshot

    @property
    def network(self) -> str:
        """public, private-storage or private."""
        return str(self.given("network", "public"))

    def given(self, parameter: str, default: Any) -> Any:
        """A parameter of the combination's own, or the template's default."""
        return (self.combination.parameters or {}).get(parameter, default)


def _deployments(*templates: str) -> list[Deployment]:
    return [Deployment(each, kept(each.name)) for each in COMBINATIONS if each.template in templates]


APPS = _deployments("main")
"""Every deployment of the app."""

ACCESS = _deployments("access-subscription", "access-management-group")
"""Every deployment that gives access, and nothing else."""


def files() -> list[Path]:
    """Every Bicep file of the project."""
    return sorted(INFRA.rglob("*.bicep"))


@cache
def interface(template: str = "main.bicep") -> dict[str, Any]:
    """What whoever deploys a template gives and gets: `{parameters, outputs}` as ARM JSON has them."""
    content: dict[str, Any] = json.loads((FOLDER / "interface.json").read_text())[template]
    return content


def bicep(*arguments: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """The compiler with these variables, as azd calls it with those of its environment."""
    require(shutil.which("bicep") is not None, "bicep is not on PATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE_", "GUARD_"))}
    kept.setdefault("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1")
    return subprocess.run(
        ["bicep", *arguments], env={**kept, **_ENVIRONMENT, **environ}, capture_output=True, text=True
    )


def given(environ: Mapping[str, str]) -> dict[str, Any]:
    """The parameters that a deployment with these variables has."""
    done = bicep("build-params", str(INFRA / "main.bicepparam"), "--stdout", environ=environ)
    assert done.returncode == 0, done.stderr
    parameters = json.loads(json.loads(done.stdout)["parametersJson"])["parameters"]
    return {name: parameter["value"] for name, parameter in parameters.items()}
