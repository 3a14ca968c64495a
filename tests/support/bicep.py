"""What the tests of the deployment read: the predicted resources that are kept (infra/snapshots), and the files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tools.bicep.combinations import COMBINATIONS, INFRA, Combination
from tools.bicep.snapshots import FOLDER, Snapshot, kept

__all__ = ["ACCESS", "APPS", "INFRA", "Deployment", "files", "interface"]


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
