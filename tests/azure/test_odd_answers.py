"""Whole audits of a small fleet, one odd answer of Azure each (`cases.yaml`): the sandbox's Resource Manager, the real
SDK clients, real scripts on the nodes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import sandbox
from shared.azure import runcommand
from shared.errors import GuardError
from shared.models import Finding, Outcome, RunKind, Status
from shared.runs.hosts import terminal as runs
from shared.runs.model.request import FixRequest
from tests.support.bench import Bench, one_pool, serve_bench
from tests.support.findings import AUDIT

pytestmark = pytest.mark.sandboxed

CASES: dict[str, dict[str, Any]] = {
    case["name"]: case for case in yaml.safe_load((Path(__file__).parent / "cases.yaml").read_text())["cases"]
}
SUBSCRIPTION = "5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1"
KINDS = {
    "subscriptions": "subscriptions.list",
    "clusters": "clusters.list",
    "scale_sets": "scaleSets.list",
    "instances": "instances.list",
    "start": "runCommand",
    "look": "operations.get",
}
# The same of single VMs, which one list gives.
OF_VMS = KINDS | {"scale_sets": "vms.list", "instances": "vms.list", "start": "vms.runCommand"}
# The oddity meets the first of each list, and calls for the first cluster; the other cluster is the good one.
FLEET = f"""
timing: {{latency: [0.2, 0.2], busy_seconds: 1}}
subscriptions:
  - id: {SUBSCRIPTION}
    name: Test
    clusters:
      - name: aks-odd
        resource_group: rg-odd
        location: westeurope
        version: 1.33.5
        pools: [{{name: np1, nodes: [{{state: compliant_default, count: 2}}]}}]
      - name: aks-good
        resource_group: rg-good
        location: westeurope
        version: 1.33.5
        pools: [{{name: np1, nodes: [{{state: compliant_default}}]}}]
"""
ODD_GROUP = "MC_rg-odd_aks-odd"
FOREVER = 10_000

PASS, ERROR, SKIPPED = Status.PASS, Status.ERROR, Status.SKIPPED
Judge = Callable[[list[Finding], str], None]
"""Looks at the odd cluster's findings, and at what was said on the terminal; raises AssertionError."""


def faults_of(case: Mapping[str, Any], kinds: Mapping[str, str] = KINDS) -> list[sandbox.Fault]:
    kind, count = kinds[case["at"]], case.get("times", FOREVER)
    # A list of clusters concerns the subscription; everything else is for the odd cluster alone.
    path = "" if case["at"] in {"clusters", "subscriptions", "look"} else ODD_GROUP
    made = [
        sandbox.Fault("clusters.list", count=FOREVER, fields={f"properties.{name}": value})
        for name, value in case.get("cluster", {}).items()
    ]
    if "field" in case:
        return [*made, sandbox.Fault(kind, count=count, path=path, fields={case["field"]: case["value"]})]
    if case["status"] == 200 and case["at"] == "start":
        assert "FRAME" in case["body"]["value"][0]["message"]
        return [*made, sandbox.Fault(kind, count=count, path=path, at_once=True)]
    return [
        *made,
        sandbox.Fault(
            kind, count=count, path=path, status=case["status"], body=case.get("body"), text=case.get("text")
        ),
    ]


def azures_text(case: Mapping[str, Any]) -> str:
    error = case["body"].get("error", case["body"])
    return str(error["message"] or error["details"][0]["message"])


def judged(found: list[Finding], _: str) -> None:
    assert [item.status for item in found] == [PASS, PASS]


def all_are(status: Status, code: str, words: str = "") -> Judge:
    def judge(found: list[Finding], _: str) -> None:
        assert [(item.status, item.code) for item in found] == [(status, code)] * 2
        assert all(words in item.reason for item in found), found[0].reason

    return judge


def one_for(place: Callable[[Finding], tuple[str, ...]], *where: str, status: Status, code: str) -> Judge:
    def judge(found: list[Finding], _: str) -> None:
        (item,) = found
        assert (item.status, item.code) == (status, code)
        assert place(item) == where

    return judge


def pool_of(item: Finding) -> tuple[str, ...]:
    return item.cluster, item.node_pool, item.node


def may_have_run(found: list[Finding], said: str) -> None:
    all_are(ERROR, "server_error", "may have been started")(found, said)
    assert "Service Unavailable" in found[0].reason


def said_the_version(found: list[Finding], said: str) -> None:
    judged(found, said)
    assert said.count("does not know version 2026-08-01 of Microsoft.ContainerService") == 1
    assert "2026-02-01" in said


RIGHT: dict[str, Judge] = {
    "time-created-year-one": judged,
    "time-created-empty": judged,
    "time-created-without-zone": judged,
    "no-pools": one_for(pool_of, "aks-odd", "", "", status=ERROR, code="no_pools"),
    "list-without-value": one_for(pool_of, "", "", "", status=ERROR, code="malformed"),
    "instances-without-value": one_for(pool_of, "aks-odd", "np1", "", status=ERROR, code="malformed"),
    "another-operation": judged,
    "must-be-running": all_are(SKIPPED, "OperationNotAllowed"),
    "marked-for-deletion": all_are(SKIPPED, "OperationNotAllowed"),
    "platform-update": judged,
    "flat-error": judged,
    "details-only": all_are(ERROR, "VMExtensionProvisioningError"),
    "token-refused-once": judged,
    "not-there-for-a-moment": judged,
    "html-503": may_have_run,
    "post-answers-200-with-result": judged,
    "unavailable-command-404": all_are(ERROR, "NotFound"),
    "proxy-404-page": all_are(ERROR, "not_found"),
    "node-gone": all_are(SKIPPED, "vanished"),
    "not-deallocated": all_are(ERROR, "OperationNotAllowed"),
    "starting-up": judged,
    "no-aks-here-policy": lambda found, _: None,
    "no-aks-here-provider": lambda found, _: None,
    "api-version-unknown-here": said_the_version,
    "cluster-being-created": one_for(pool_of, "aks-odd", "", "", status=SKIPPED, code="cluster_changing"),
    "busy-is-no-rate-limit": judged,
}
RIGHT_OF_VMS = RIGHT | {
    "instances-without-value": one_for(pool_of, "aks-odd", "", "", status=ERROR, code="malformed"),
}
# The whole subscription is met, the good cluster with it.
WHOLE = {"list-without-value", "no-aks-here-policy", "no-aks-here-provider", "details-only"}


async def audit(bench: Bench) -> list[Finding]:
    run = await runs.survey_here(bench.services, RunKind.AUDIT, AUDIT)
    found = sorted(await bench.findings(run.id), key=lambda item: item.key)
    assert run.summary is not None
    assert run.summary.statuses == Counter(item.status for item in found)
    return found


def test_every_case_has_its_judge() -> None:
    assert set(RIGHT) == set(CASES)


@pytest.mark.parametrize(
    ("name", "machines"),
    [
        *((name, "instances") for name in CASES),
        *((name, "vms") for name, case in CASES.items() if KINDS[case["at"]] != OF_VMS[case["at"]]),
    ],
)
async def test_an_odd_answer(
    name: str, machines: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runcommand, "AWAY_SECONDS", 5.0)
    case = CASES[name]
    right, kinds = (RIGHT, KINDS) if machines == "instances" else (RIGHT_OF_VMS, OF_VMS)
    fleet = FLEET if machines == "instances" else FLEET.replace("{name: np1,", "{name: np1, kind: VirtualMachines,")
    async with serve_bench(fleet, tmp_path / "runs.db") as bench:
        for fault in faults_of(case, kinds):
            bench.box.inject(fault)
        found = await audit(bench)
        throttled = bench.services.azure.stats.refused
    odd = [item for item in found if item.cluster != "aks-good"]
    said = "\n".join(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)
    right[name](odd, said)
    if name.startswith("no-aks-here"):
        assert found == []
    elif name not in WHOLE:
        assert [item.status for item in found if item.cluster == "aks-good"] == [PASS]
    if case.get("status", 200) != 200 and "times" not in case and "body" in case and found:
        assert all(azures_text(case) in item.reason or item.status is SKIPPED for item in odd)
    assert throttled == 0
    assert not any(record.exc_info for record in caplog.records)
    assert all(item.reason and (item.hint or item.status is PASS) for item in found)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            {"code": "Conflict", "message": "Run command extension execution is in progress."},
            "execution is in progress",
        ),
        (CASES["another-operation"]["body"], "another operation is in progress"),
        (CASES["platform-update"]["body"], "ongoing platform update"),
        (CASES["busy-is-no-rate-limit"]["body"], "temporarily blocked"),
    ],
)
async def test_what_stays_is_an_error_with_azures_text(body: Any, text: str, tmp_path: Path) -> None:
    async with serve_bench(FLEET, tmp_path / "runs.db", busy_wait_seconds=0.5) as bench:
        bench.box.inject(sandbox.Fault("runCommand", count=FOREVER, path=ODD_GROUP, status=409, body=body))
        found = await audit(bench)
    assert [item.status for item in found] == [PASS, ERROR, ERROR]
    assert all(text in item.reason for item in found if item.status is ERROR)


async def test_a_fix_whose_result_comes_at_once(tmp_path: Path) -> None:
    fleet = one_pool("false_file", "false_flag")
    async with serve_bench(fleet, tmp_path / "runs.db", allow_fix=True, restart_seconds=8) as bench:
        bench.box.inject(sandbox.Fault("runCommand", count=FOREVER, at_once=True))
        survey = await runs.survey_here(bench.services, RunKind.PLAN, FixRequest())
        plans = await runs.plans_of(bench.services, survey)
        fixed = await runs.fix_here(bench.services, FixRequest(pause_seconds=0), plans)
        found = await bench.findings(fixed.id)
        assert "operations.get" not in bench.box.stats()["calls"]
    assert [(item.status, item.outcome) for item in found] == [(PASS, Outcome.FIXED)] * 2


async def test_a_disabled_subscription_is_said_once(tmp_path: Path) -> None:
    async with serve_bench(FLEET, tmp_path / "runs.db") as bench:
        disabled = {"error": {"code": "ReadOnlyDisabledSubscription", "message": "The subscription is disabled."}}
        bench.box.inject(sandbox.Fault("scaleSets.list", count=FOREVER, status=409, body=disabled))
        (found,) = await audit(bench)
    assert (found.status, found.code, found.cluster) == (ERROR, "ReadOnlyDisabledSubscription", "")


@pytest.mark.parametrize("field", ["properties", "properties.nodeResourceGroup", "name", "id", "location"])
@pytest.mark.parametrize("value", [None, 7, [], {"x": None}])
async def test_no_field_of_a_cluster_loses_the_others(field: str, value: object, tmp_path: Path) -> None:
    async with serve_bench(FLEET, tmp_path / "runs.db") as bench:
        bench.box.inject(sandbox.Fault("clusters.list", count=FOREVER, fields={field: value}))
        found = await audit(bench)
    assert [item.status for item in found if item.cluster == "aks-good"] == [PASS]
    assert [item for item in found if item.cluster != "aks-good"], "the odd cluster is never nothing"


@pytest.mark.parametrize(
    ("field", "statuses"),
    [
        ("properties", [PASS, PASS]),
        ("properties.instanceView", [PASS, PASS]),
        ("properties.storageProfile", [PASS, PASS]),
        ("properties.osProfile", [PASS, PASS]),
        ("instanceId", [ERROR, PASS]),
    ],
)
async def test_no_field_of_an_instance_loses_the_others(field: str, statuses: list[Status], tmp_path: Path) -> None:
    async with serve_bench(FLEET, tmp_path / "runs.db") as bench:
        bench.box.inject(sandbox.Fault("instances.list", count=FOREVER, path=ODD_GROUP, fields={field: None}))
        found = await audit(bench)
    assert sorted(item.status for item in found if item.cluster == "aks-odd") == statuses


async def test_a_refusal_of_the_whole_tenant_ends_the_run(tmp_path: Path) -> None:
    async with serve_bench(FLEET, tmp_path / "runs.db") as bench:
        bench.box.inject(sandbox.Fault("subscriptions.list", count=FOREVER, status=200, body={}))
        with pytest.raises(GuardError, match="could not be read"):
            await audit(bench)
