"""A small Azure in this process, and what a run works with on it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench import DEMO, Bench, BenchFactory, serve_bench


@pytest.fixture
def bench(tmp_path: Path) -> BenchFactory:
    """`async with bench(fleet, **settings) as b`; the fleet is a file or YAML text. The store stays."""

    def make(fleet: Path | str = DEMO, **changes: Any) -> AbstractAsyncContextManager[Bench]:
        return serve_bench(fleet, tmp_path / "runs.db", **changes)

    return make
