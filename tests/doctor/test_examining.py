"""The doctor on a small Azure: whatever would keep a run from working shows in a row, and in that alone."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox import Fault
from shared.azure import Azure
from shared.doctor import Area, Check, Level, examining
from shared.doctor.examining import Asked, examine
from shared.errors import StoreError
from shared.models import Run, RunKind, RunState, Starter
from shared.report import exit_code_of_checks
from shared.runs.hosts.terminal import survey_here
from shared.runs.model.request import RunRequest
from shared.store import Hold, new_run_id
from tests.doctor.cases import CASES, GROUP, READS, RUN, SUBSCRIPTION, SWEEPS, Case, fleet, roles
from tests.support.bench import Bench, environment, serve_bench

pytestmark = pytest.mark.sandboxed


async def doctor(bench: Bench, **more: Any) -> list[Check]:
    services = bench.services
    location = services.settings.store.get_secret_value() or "runs.db"
    return await examine(services.settings, services.azure, services.store, location, os.environ, **more)


def of(checks: list[Check], area: str) -> list[Check]:
    return [check for check in checks if check.area == area]


async def test_a_well_estate(tmp_path: Path) -> None:
    async with serve_bench(fleet(), tmp_path / "runs.db", **SWEEPS) as bench:
        checks = await doctor(bench)
        assert [check for check in checks if check.status is not Level.OK] == []
        assert exit_code_of_checks(checks) == 0
        assert {check.area for check in checks} == set(Area)
        assert [check.area for check in checks] == sorted((check.area for check in checks), key=list(Area).index)
        assert len(of(checks, "rights")) == 10
        (identity,) = of(checks, "identity")
        assert "0d4f9a3e-58d4-4a57-8b1c-2f6e7c9d1a22" in identity.subject
        assert "sees 1 subscriptions" in identity.reason
        # It asks for nothing that runs, starts or changes anything.
        calls = bench.box.stats()["calls"]
        assert calls == {
            "token": 1,
            "unknown": 1,
            "subscriptions.list": calls["subscriptions.list"],
            "permissions.list": 1,
            "denies.list": 1,
            "locks.list": 1,
            "policies.list": 1,
            "clusters.list": 1,
        }
        assert await bench.services.store.latest_run() is None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_fault_has_its_row(case: Case, tmp_path: Path) -> None:
    async with serve_bench(case.fleet, tmp_path / "runs.db", **case.settings) as bench:
        if case.fault is not None:
            bench.box.inject(case.fault)
        with environment({**bench.box.environ, **case.environ}):
            checks = await doctor(bench)
    found = [
        check
        for check in of(checks, case.area)
        if check.status == case.status
        and all(part in f"{check.subject} {check.what} {check.reason}" for part in case.says)
    ]
    assert len(found) == 1, "\n".join(f"{c.area} {c.status} {c.subject}: {c.what}: {c.reason}" for c in checks)
    assert case.command in found[0].command
    if not case.command:
        assert found[0].command == ""
    expected = {"fail": 1, "unknown": 2}.get(case.status, 0) if case.code is None else case.code
    if case.status != "unknown":
        assert exit_code_of_checks(checks) == expected
    assert "s3cret" not in repr(checks)
    # The surroundings of a fault are well: what is not is of the same thing.
    if case.status in ("ok", "warn"):
        assert [check for check in checks if check.status in (Level.FAIL, Level.UNKNOWN)] == []


OF_RIGHTS = [
    case
    for case in CASES
    if case.area in ("rights", "denied") and case.status != "unknown" and not (case.fault or case.settings)
]


@pytest.mark.parametrize("case", OF_RIGHTS, ids=lambda case: case.name)
async def test_what_it_says_is_what_a_run_meets(case: Case, tmp_path: Path) -> None:
    """The sandbox enforces the roles and deny assignments that it tells of: where a row of them fails an audit of the
    same settings finds errors, and where none does it finds none."""
    async with serve_bench(case.fleet, tmp_path / "runs.db") as bench:
        checks = await doctor(bench)
        run = await survey_here(bench.services, RunKind.AUDIT, RunRequest())
        findings = await bench.findings(run.id)
    fails = any(check.status is Level.FAIL for check in of(checks, "rights") + of(checks, "denied"))
    assert fails == any(finding.status == "error" for finding in findings), findings


OF_CLUSTERS = [
    case for case in CASES if case.area == "cluster" and case.settings and not case.settings.get("sweep_way")
]


@pytest.mark.parametrize("case", OF_CLUSTERS, ids=lambda case: case.name)
async def test_what_it_says_of_clusters_is_what_an_audit_meets(case: Case, tmp_path: Path) -> None:
    """An audit judges a node whose one witness cannot be asked by the other."""
    async with serve_bench(case.fleet, tmp_path / "runs.db", **case.settings) as bench:
        checks = await doctor(bench)
        run = await survey_here(bench.services, RunKind.AUDIT, RunRequest())
        findings = await bench.findings(run.id)
    fails = any(check.status is Level.FAIL for check in of(checks, "cluster"))
    assert fails == any(finding.status == "error" for finding in findings), findings


@pytest.mark.parametrize(
    "denies",
    [
        '[{name: other, actions: ["*"], principals: [somebody]}]',
        '[{name: but me, actions: ["*"], excluded: [me]}]',
        '[{name: writes, actions: ["*/write", "*/delete"]}]',
        '[{name: elsewhere, actions: ["*"], group: rg-elsewhere}]',
        '[{name: reads, actions: ["*"], not_actions: ["*"]}]',
        f'[{{name: the group alone, actions: ["*/action"], group: {GROUP}, inherited: false}}]',
    ],
)
async def test_a_deny_assignment_that_stands_against_nothing(denies: str, tmp_path: Path) -> None:
    async with serve_bench(fleet(of_subscription=f"    denies: {denies}\n"), tmp_path / "runs.db") as bench:
        checks = await doctor(bench)
        run = await survey_here(bench.services, RunKind.AUDIT, RunRequest())
        findings = await bench.findings(run.id)
    assert [check.status for check in of(checks, "denied")] == [Level.OK] * 2
    assert "none of 1" in of(checks, "denied")[0].reason
    assert not any(finding.status == "error" for finding in findings)


@pytest.mark.parametrize("lock", ["group: rg-elsewhere", "level: CanNotDelete", "group: rg-test"])
async def test_a_lock_that_stands_against_nothing(lock: str, tmp_path: Path) -> None:
    async with serve_bench(fleet(of_subscription=f"    locks: [{{name: l, {lock}}}]\n"), tmp_path / "runs.db") as bench:
        checks = await doctor(bench)
        run = await survey_here(bench.services, RunKind.AUDIT, RunRequest())
        findings = await bench.findings(run.id)
    assert {check.status for check in of(checks, "denied")} == {Level.OK}
    assert not any(finding.status == "error" for finding in findings)


async def test_a_policy_that_stands_against_nothing(tmp_path: Path) -> None:
    images = "febd0533-8e55-448f-b837-bd0e06f16469"
    policies = f"""
      - {{name: a, definition: {images}, effect: Audit}}
      - {{name: b, definition: {images}, excluded_namespaces: [aks-command]}}
      - {{name: c, definition: {images}, enforced: false}}
      - {{name: d, definition: 1b708b0a-3380-40e9-8b79-821f9fa224cc, effect: Disabled}}
      - {{name: e, definition: 89f2d532-c53c-4f8f-9afa-4927b1114a0d}}
      - {{name: f, definition: 42b8ef37-b724-4e24-bbc8-7a7708edfe00, is_set: true}}
"""
    async with serve_bench(fleet(of_subscription=f"    policies:{policies}"), tmp_path / "runs.db", **SWEEPS) as bench:
        (row,) = of(await doctor(bench), "policy")
    assert row.status is Level.OK
    assert "none of 5" in row.reason
    assert "1 assigned sets of policies was not looked at" in row.reason


async def test_one_bad_subscription_of_many(tmp_path: Path) -> None:
    bad = SUBSCRIPTION.replace("5f1d", "0bad")
    text = fleet() + f"  - {{id: {bad}, name: Bad, forbidden: true}}\n"
    async with serve_bench(text, tmp_path / "runs.db") as bench:
        checks = await doctor(bench)
        assert {check.status for check in checks if SUBSCRIPTION in check.subject} == {Level.OK}
        assert {check.status for check in checks if bad in check.subject} == {Level.FAIL, Level.UNKNOWN}
        only = await doctor(bench, asked=Asked((SUBSCRIPTION,)))
        assert not any(bad in check.subject for check in only)
        assert exit_code_of_checks(only) == 0


async def test_a_management_group_s_subscriptions(tmp_path: Path) -> None:
    text = fleet(of_subscription=roles(READS)) + f"management_groups: [{{id: prod, subscriptions: [{SUBSCRIPTION}]}}]\n"
    async with serve_bench(text, tmp_path / "runs.db") as bench:
        checks = await doctor(bench, asked=Asked(management_group="prod"))
    failing = [check for check in checks if check.status is Level.FAIL]
    assert {check.area for check in failing} == {Area.RIGHTS}
    assert all("az deployment mg create --management-group-id prod " in check.command for check in failing)
    assert all("infra/access-management-group.bicep" in check.command for check in failing)


async def test_nobody_is_signed_in(tmp_path: Path) -> None:
    async with serve_bench(fleet(), tmp_path / "runs.db") as bench:
        with environment({**bench.box.environ, "IDENTITY_HEADER": "wrong"}):
            async with Azure(bench.services.settings) as azure:
                checks = await examine(bench.services.settings, azure, bench.services.store, "runs.db", os.environ)
    (identity,) = of(checks, "identity")
    assert identity.status is Level.FAIL
    assert "az login" in identity.reason
    (rights,) = of(checks, "rights")
    assert rights.status is Level.UNKNOWN
    assert {check.status for check in of(checks, "outbound") + of(checks, "store")} == {Level.OK}


async def test_azure_cannot_be_reached(tmp_path: Path) -> None:
    async with serve_bench(fleet(), tmp_path / "runs.db") as bench:
        settings = bench.services.settings.model_copy(update={"arm_endpoint": "https://localhost:9"})
        async with Azure(settings) as azure:
            checks = await examine(settings, azure, bench.services.store, "runs.db", os.environ, seconds=20)
    by_area = {area: {check.status for check in of(checks, area)} for area in Area}
    assert by_area[Area.OUTBOUND] == {Level.FAIL}
    assert by_area[Area.CLOCK] == {Level.UNKNOWN}
    assert by_area[Area.IDENTITY] == {Level.FAIL}
    assert by_area[Area.STORE] == {Level.OK}
    assert exit_code_of_checks(checks) == 1


async def test_what_is_not_reached_in_time_is_unknown(tmp_path: Path) -> None:
    slow = SUBSCRIPTION.replace("5f1d", "510e")
    text = fleet() + f"  - {{id: {slow}, name: Slow}}\n"
    async with serve_bench(text, tmp_path / "runs.db") as bench:
        bench.box.inject(Fault("permissions.list", path=slow, delay=60))
        begun = time.monotonic()
        checks = await doctor(bench, seconds=4)
        assert time.monotonic() - begun < 15
    (late,) = [check for check in checks if slow in check.subject]
    assert (late.area, late.status) == (Area.RIGHTS, Level.UNKNOWN)
    assert "the time was over" in late.reason
    assert [check.status for check in of(checks, "rights") if SUBSCRIPTION in check.subject] == [Level.OK] * 8
    assert exit_code_of_checks(checks) == 2


async def test_calls_do_not_grow_with_the_clusters_where_the_subscription_has_the_rights(tmp_path: Path) -> None:
    clusters = "".join(
        f"      - {{name: aks-{n}, resource_group: rg-{n}, location: westeurope, version: 1.33.5, pools:"
        " [{name: np1, nodes: [{state: compliant_default}]}]}\n"
        for n in range(60)
    )
    of_all = fleet(clusters=False) + f"    clusters:\n{clusters}"
    async with serve_bench(of_all, tmp_path / "a.db") as bench:
        await doctor(bench)
        assert bench.box.stats()["calls"]["permissions.list"] == 1
    lacking = fleet(of_subscription=roles(READS), clusters=False) + f"    clusters:\n{clusters}"
    async with serve_bench(lacking, tmp_path / "b.db") as bench:
        checks = await doctor(bench)
        # One more for each of the clusters that are asked one by one, and no more than so many of them.
        assert bench.box.stats()["calls"]["permissions.list"] == 1 + 50
    (row,) = [check for check in of(checks, "rights") if check.what == "run a command on a node"]
    assert row.status is Level.FAIL


async def test_clusters_beyond_those_that_are_asked_are_unknown(tmp_path: Path) -> None:
    clusters = "".join(
        f"      - {{name: aks-{n}, resource_group: rg-{n}, location: westeurope, version: 1.33.5,"
        f" node_resource_group: nodes-{n}, pools: [{{name: np1, nodes: [{{state: compliant_default}}]}}]}}\n"
        for n in range(52)
    )
    given = "".join(f"      - actions:{RUN}\n        group: nodes-{n}\n" for n in range(52))
    text = fleet(of_subscription=roles(READS) + given, clusters=False) + f"    clusters:\n{clusters}"
    async with serve_bench(text, tmp_path / "runs.db") as bench:
        checks = await doctor(bench)
    (row,) = [check for check in of(checks, "rights") if check.what == "run a command on a node"]
    assert row.status is Level.UNKNOWN
    assert "aks-50, aks-51" in row.reason or "aks-51, aks-50" in row.reason


# --- the store --------------------------------------------------------------------------------------------------------


async def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    async with serve_bench(fleet(), tmp_path / "runs.db") as bench:
        location = "https://account.table.core.windows.net"
        services = bench.services
        broken = StoreError("the store answered 403: give the identity the role Storage Table Data Contributor")
        checks = await examine(services.settings, services.azure, broken, location, os.environ)
    (row,) = of(checks, "store")
    assert (row.status, row.reason) == (Level.FAIL, str(broken))
    assert "--role 'Storage Table Data Contributor'" in row.command
    assert "--assignee-object-id c2a7e1b4-93f5-4f0e-a6d1-7b8c9d0e1f23" in row.command
    assert "--name account " in row.command
    assert {check.status for check in of(checks, "rights")} == {Level.OK}, "the rest is looked at all the same"
    assert [check.what for check in of(checks, "schedule")] == ["the next runs", "how long it takes"]


async def test_a_store_that_breaks(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with serve_bench(fleet(), path) as bench:
        with sqlite3.connect(path) as database:
            database.execute("DROP TABLE rows")
        checks = await doctor(bench)
    (row,) = of(checks, "store")
    assert row.status is Level.FAIL
    assert "no such table" in row.reason
    assert {check.status for check in of(checks, "rights")} == {Level.OK}


async def test_a_store_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "_STORE_SECONDS", 1.0)
    monkeypatch.setattr(examining, "_TIDY_SECONDS", 1.0)

    async def silent(*_: object, **__: object) -> None:
        await asyncio.sleep(60)

    async with serve_bench(fleet(), tmp_path / "runs.db") as bench:
        for name in ("get", "insert", "replace", "delete"):
            monkeypatch.setattr(bench.services.store.backend, name, silent)
        checks = await doctor(bench, seconds=15)
    (row,) = of(checks, "store")
    assert (row.status, row.reason) == (Level.FAIL, "no answer within 1 s")
    assert {check.status for check in of(checks, "settings")} == {Level.OK}


async def test_the_store_keeps_no_trace(tmp_path: Path) -> None:
    async with serve_bench(fleet(), tmp_path / "runs.db") as bench:
        await doctor(bench)
        before = await _rows(bench)
        await doctor(bench)
        assert await _rows(bench) == before


async def _rows(bench: Bench) -> set[str]:
    from shared.store.backend import Table, Where

    backend = bench.services.store.backend
    found = set()
    for table in Table:
        page = await backend.query(table, Where(), 1000)
        found |= {f"{table} {row.partition} {row.row}" for row in page.rows}
    return found


# --- the schedule -----------------------------------------------------------------------------------------------------


def timer_run(ago: timedelta, state: RunState = RunState.COMPLETED, error: str = "") -> Run:
    started = datetime.now(UTC) - ago
    return Run(new_run_id(started), RunKind.AUDIT, state, started, started, by=Starter.TIMER, error=error)


@pytest.mark.parametrize(
    ("schedule", "run", "status", "says"),
    [
        ("0 0 2 * * *", timer_run(timedelta(hours=1)), Level.OK, "is completed"),
        ("0 0 2 * * *", timer_run(timedelta(days=3)), Level.FAIL, "did not start"),
        # What comes once a year, around New Year, is not overdue after three days.
        ("0 0 2 1 1 *", timer_run(timedelta(days=3)), Level.OK, "is completed"),
        ("0 0 2 * * *", timer_run(timedelta(minutes=1), RunState.FAILED, "no token"), Level.WARN, "no token"),
    ],
)
async def test_the_last_scheduled_run(schedule: str, run: Run, status: Level, says: str, tmp_path: Path) -> None:
    async with serve_bench(fleet(), tmp_path / "runs.db", schedule=schedule) as bench:
        await bench.services.store.save_run(run)
        await bench.services.store.claim(f"schedule since/{schedule}", run.started.isoformat(), 86_400)
        checks = await doctor(bench)
    (row,) = [check for check in of(checks, "schedule") if check.what == "the last run"]
    assert (row.status, says in row.reason) == (status, True), row


async def test_a_run_of_an_app_with_another_schedule_says_nothing_of_this_one(tmp_path: Path) -> None:
    """A terminal's GUARD_SCHEDULE is rarely that of the app whose store it looks into."""
    async with serve_bench(fleet(), tmp_path / "runs.db", schedule="0 0 2 * * *") as bench:
        await bench.services.store.save_run(timer_run(timedelta(days=3)))
        await bench.services.store.claim("schedule since/0 0 2 * * SUN", "2026-01-01T00:00:00+00:00", 86_400)
        checks = await doctor(bench)
    (row,) = [check for check in of(checks, "schedule") if check.what == "the last run"]
    assert (row.status, "no app with this schedule has used this store" in row.reason) == (Level.OK, True), row


async def test_an_app_whose_schedule_never_started_a_run(tmp_path: Path) -> None:
    async with serve_bench(fleet(), tmp_path / "runs.db") as bench:
        since = (datetime.now(UTC) - timedelta(days=3)).isoformat()
        await bench.services.store.claim(f"schedule since/{bench.services.settings.schedule}", since, 86_400)
        checks = await doctor(bench)
    (row,) = [check for check in of(checks, "schedule") if check.what == "the last run"]
    assert (row.status, "none yet; one was due" in row.reason) == (Level.FAIL, True), row


async def test_held_fixes_are_told_where_fixes_are_allowed(tmp_path: Path) -> None:
    async with serve_bench(fleet(), tmp_path / "runs.db", allow_fix=True) as bench:
        await bench.services.store.set_hold(Hold("Ann", datetime.now(UTC), "change freeze"))
        checks = await doctor(bench)
    assert [check for check in of(checks, "settings") if check.status is Level.WARN and "change freeze" in check.reason]


async def test_many_subscriptions_take_five_calls_each(tmp_path: Path) -> None:
    ids = [f"00000000-0000-0000-0000-{number:012x}" for number in range(1, 501)]
    text = "subscriptions:\n" + "".join(f"  - {{id: {each}, name: s}}\n" for each in ids)
    async with serve_bench(text, tmp_path / "runs.db", **SWEEPS) as bench:
        checks = await asyncio.wait_for(doctor(bench), 100)
        calls = bench.box.stats()["calls"]
    assert [calls[f"{kind}.list"] for kind in ("permissions", "denies", "locks", "policies", "clusters")] == [500] * 5
    assert len(of(checks, "rights")) == 5000
    assert exit_code_of_checks(checks) == 0
