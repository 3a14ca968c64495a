"""A small Azure in this process, and what a run works with on it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import sandbox
from shared import settings
from shared.azure import Azure
from shared.models import Finding
from shared.runs.services import Services
from shared.store import FindingQuery, open_store

DEMO = Path(__file__).parent.parent.parent / "fleets" / "demo.yaml"

_QUICK = {"command_seconds": 0.3, "busy_wait_seconds": 8.0, "command_deadline_seconds": 20.0, "settle_seconds": 1}


@dataclass
class Bench:
    """A sandbox, services on it with a store of their own, and what they told of the progress."""

    box: sandbox.Sandbox
    services: Services
    found: list[int] = field(default_factory=list)
    heard: list[Finding] = field(default_factory=list)

    async def findings(self, run_id: str) -> list[Finding]:
        return [item async for item in self.services.store.all_findings(FindingQuery(run_id=run_id))]


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The process's environment with these variables, and nothing of a real Azure in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GUARD_", "AZURE_"))}
    with patch.dict(os.environ, {**kept, **variables}, clear=True):
        yield


@asynccontextmanager
async def serve_bench(fleet: Path | str, store: Path, **changes: Any) -> AsyncIterator[Bench]:
    opened_fleet = fleet if isinstance(fleet, Path) else sandbox.parse(fleet)
    async with sandbox.serve(opened_fleet) as box:
        with environment(box.environ):
            chosen = settings.load(os.environ).model_copy(update={**_QUICK, **changes})
            async with open_store(str(store)) as opened, Azure(chosen) as azure:
                found: list[int] = []
                heard: list[Finding] = []
                services = Services(azure, opened, chosen, found.append, heard.extend)
                yield Bench(box, services, found, heard)


BenchFactory = Callable[..., AbstractAsyncContextManager[Bench]]


def one_pool(*states: str, subscription: str = "5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1", **cluster: str) -> str:
    """A fleet in YAML: one cluster with one pool of nodes in these states; run commands take 0.2 s."""
    nodes = "\n".join(f"              - {{state: {state}}}" for state in states)
    extra = "".join(f"        {name}: {value}\n" for name, value in cluster.items())
    return f"""
timing: {{latency: [0.2, 0.2], busy_seconds: 2}}
subscriptions:
  - id: {subscription}
    name: Test
    clusters:
      - name: aks-test
        resource_group: rg-test
        location: westeurope
        version: 1.33.5
{extra}        pools:
          - name: np1
            nodes:
{nodes}
"""
