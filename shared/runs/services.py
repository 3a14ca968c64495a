"""What activities work with: the far sides (Azure, the store), the settings, and who wants to know of progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shared.azure import Azure
from shared.models import Finding
from shared.settings import Settings
from shared.store import Store


def _silent(*_: object) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Services:
    """One process's connections. `on_found` hears how many nodes were found, `on_findings` of each that is done."""

    azure: Azure
    store: Store
    settings: Settings
    on_found: Callable[[int], None] = _silent
    on_findings: Callable[[list[Finding]], None] = _silent
