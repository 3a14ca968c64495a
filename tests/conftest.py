"""Fixtures and marks for all tests."""

from __future__ import annotations

import pytest

_REAL_FIXTURES = {"azurite", "machine"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real: boots a node or starts a storage service")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a booted node or a storage service is marked, so that a quick run can leave it out."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
        if fixtures & _REAL_FIXTURES or "tables" in parameters or item.path.stem.endswith("_real"):
            item.add_marker(pytest.mark.real)
