"""Fixtures and marks for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

_REAL_FIXTURES = {"azurite", "machine"}
_SANDBOX_FIXTURES = {"bench", "terminal"}
_SCRIPTS = {"test_apply.py", "test_collect.py"}
_SANDBOX = Path(__file__).parent / "sandbox"


# No test may depend on the machine's speed: an example may take as long as it takes.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real: boots a node or starts a storage service")
    config.addinivalue_line("markers", "sandboxed: whole runs, or single calls, on the small Azure of sandbox/")
    config.addinivalue_line("markers", "scripts: runs the scripts of a node, on a folder, under real shells")
    config.addinivalue_line("markers", "slow: kill sweeps, power cuts, fuzz, checkov and more: for `make test-slow`")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what boots a node, starts a storage service or serves a small Azure, so that quick runs leave it out."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
        if fixtures & _REAL_FIXTURES or "tables" in parameters or item.path.stem.endswith("_real"):
            item.add_marker(pytest.mark.real)
        if item.path.name in _SCRIPTS:
            item.add_marker(pytest.mark.scripts)
        if fixtures & _SANDBOX_FIXTURES or _SANDBOX in item.path.parents:
            item.add_marker(pytest.mark.sandboxed)
