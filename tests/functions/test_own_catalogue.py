"""A catalogue of one's own in the app: requests are validated by it, nodes judged, and a wrong one refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.controls import builtin, install
from tests.support.bench import one_pool
from tests.support.cloud import CloudFactory

ENTRY = """controls:
  - id: ORG-1
    title: Ensure that a node keeps a bounded number of pods
    severity: low
    setting: maxPods
    flag: --max-pods
    rule: {one_of: [110]}
    rationale: Our networks have no addresses for more.
    fix: Set maxPods to 110.
"""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    install(builtin())


async def test_the_app_judges_by_it_from_the_first_request_on(cloud: CloudFactory, tmp_path: Path) -> None:
    file = tmp_path / "ours.yaml"
    file.write_text(ENTRY.replace("severity: low", "severity: none"))
    async with (
        cloud(one_pool("compliant_default", "false_file"), GUARD_CONTROLS_FILE=str(file)) as c,
        c.host() as host,
    ):
        wrong = await host.http("POST", "/api/audits", {"controls": ["ORG-1"]})
        assert (wrong.status, wrong.json()["type"]) == (503, "urn:kubelet-guard:problem:bad-settings")
        assert f"GUARD_CONTROLS_FILE: the catalogue {file}: line 4: severity: must be" in wrong.json()["detail"]
        assert (await host.http("GET", "/api/health")).status == 503
        assert not await host.tick(name="watchdog")

        file.write_text(ENTRY)
        answer = await host.http("POST", "/api/audits", {"controls": ["ORG-1"]})
        assert answer.status == 202, answer.body
        run_id = answer.json()["id"]
        await host.finish(run_id)
        found = await c.findings(run_id, None)
        assert [(item.control, item.status, item.actual, len(item.catalogue)) for item in found] == [
            ("ORG-1", "pass", 110, 64)
        ] * 2
        assert (await host.http("GET", "/api/health")).status == 200
        file.unlink()
        again = await host.http("POST", "/api/audits", {"controls": ["ORG-2"]})
        assert (again.status, "no control 'ORG-2'" in again.json()["detail"]) == (400, True), "it is read once"
