"""Rows of what no small Azure has: other Pythons, other stores, other people, clusters of other kinds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.exceptions import AzureError, HttpResponseError, ServiceRequestError

from shared.azure import SignedIn
from shared.doctor import Level, clusters, own
from shared.doctor.needs import wants
from shared.models import NodePool, Run, RunKind, RunState, Starter
from shared.settings import Settings
from shared.store import ROLE, new_run_id
from shared.store.tables import _explain
from tests.doctor.cases import OBJECT
from tests.doctor.test_rights import CLUSTER


@pytest.mark.parametrize(
    ("python", "status"),
    [((3, 10, 9), Level.FAIL), ((3, 11, 0), Level.OK), ((3, 13, 5), Level.OK), ((3, 14, 0), Level.FAIL)],
)
def test_python(python: tuple[int, ...], status: Level) -> None:
    (row,) = [row for row in own.versions(python=python) if row.subject == "Python"]
    assert row.status is status
    assert ".".join(map(str, python)) in row.reason


def test_a_deployment_that_is_not_whole() -> None:
    (row,) = [row for row in own.versions({"aiohttp": "", "pydantic": "2.1"}) if row.subject == "packages"]
    assert (row.status, row.command) == (Level.FAIL, "pip install -r requirements.txt")
    assert "aiohttp" in row.reason
    assert "pydantic" not in row.reason


@pytest.mark.parametrize(
    ("location", "who", "shown", "command"),
    [
        ("/srv/runs.db", SignedIn(object_id=OBJECT), "/srv/runs.db", ""),
        ("AccountName=acc;AccountKey=c2VjcmV0", SignedIn(object_id=OBJECT), "account acc", ""),
        ("https://c2VjcmV0@[::1", SignedIn(object_id=OBJECT), "an address that is none", ""),
        (
            "https://acc.table.core.windows.net",
            SignedIn(object_id=OBJECT, person=True),
            "https://acc.table.core.windows.net",
            f"--assignee-object-id {OBJECT} --assignee-principal-type User ",
        ),
        (
            "https://acc.table.core.windows.net",
            None,
            "https://acc.table.core.windows.net",
            "--assignee-object-id OBJECT-ID-OF-THE-IDENTITY ",
        ),
    ],
)
def test_a_store_that_fails(location: str, who: SignedIn | None, shown: str, command: str) -> None:
    row = own.store_fails(location, f"give the identity the role {ROLE} on the account", who)
    assert (row.subject, row.status) == (shown, Level.FAIL)
    assert command in row.command
    assert bool(row.command) == bool(command)
    assert "c2VjcmV0" not in repr(row)


@pytest.mark.parametrize(
    ("refusal", "helps"),
    [
        (HttpResponseError("no", SimpleNamespace(status_code=403, headers={}, reason="")), True),
        (HttpResponseError("no", SimpleNamespace(status_code=503, headers={}, reason="")), False),
        (ServiceRequestError("no route"), False),
    ],
)
def test_a_role_is_given_where_it_may_be_what_is_missing(refusal: AzureError, helps: bool) -> None:
    location = "https://acc.table.core.windows.net"
    why = str(_explain(location, refusal))
    assert ("az role assignment create" in own.store_fails(location, why, None).command) == helps
    newer = f"the store {location} has schema 3, this version knows up to 2; update, or name another one"
    assert own.store_fails(location, newer, None).command == ""


@pytest.mark.parametrize(
    ("who", "subject", "says"),
    [
        (SignedIn("client", OBJECT, "tenant"), "client client", f"object {OBJECT} of tenant tenant"),
        (SignedIn("client", OBJECT, "tenant", person=True), f"object {OBJECT}", "a person"),
        (SignedIn(), "unknown", "does not say as whom"),
    ],
)
def test_who_signs_in(who: SignedIn, subject: str, says: str) -> None:
    row = own.identity(who, 3)
    assert (row.subject, row.status) == (subject, Level.OK)
    assert says in row.reason
    assert "sees 3 subscriptions" in row.reason


NOW = datetime(2026, 3, 4, 12, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("started", "state", "now", "status"),
    [
        # Every hour; one that takes longer keeps the next ones away, and they are not made up for.
        (timedelta(hours=3, minutes=10), RunState.RUNNING, NOW + timedelta(minutes=40), Level.OK),
        (timedelta(hours=3, minutes=10), RunState.COMPLETED, NOW, Level.OK),
        (timedelta(hours=3, minutes=10), RunState.COMPLETED, NOW + timedelta(minutes=40), Level.FAIL),
        (timedelta(minutes=10, seconds=1), RunState.COMPLETED, NOW + timedelta(minutes=40), Level.OK),
    ],
)
def test_a_run_is_overdue_where_the_watchdog_says_so(
    started: timedelta, state: RunState, now: datetime, status: Level
) -> None:
    begun = NOW - started
    last = Run(new_run_id(begun), RunKind.AUDIT, state, begun, begun, by=Starter.TIMER)
    row = own.last_run(Settings(schedule="0 0 * * * *"), last, NOW - timedelta(days=30), now)
    assert row.status is status, row


def rows(settings: Settings, **changes: Any) -> dict[str, tuple[Level, str]]:
    found = clusters.rows(replace(CLUSTER, **changes), wants(settings), settings)
    return {row.what: (row.status, row.command) for row in found}


API = Settings(witness="both", sweep_way="api")


def test_a_lockdown_that_cannot_be_taken_away_has_no_command() -> None:
    what = "node resource group lockdown"
    assert rows(Settings(), locked=True)[what][1].endswith(" --nrg-lockdown-restriction-level Unrestricted")
    assert rows(Settings(), locked=True, hosted_system=True)[what] == (Level.FAIL, "")
    # Who asks the clusters alone does not care.
    assert what not in rows(Settings(witness="configz"), locked=True, entra=True)


def test_a_private_cluster_is_only_told_of_where_its_api_server_is_asked() -> None:
    assert rows(API, private=True, entra=True) == {"API server": (Level.WARN, "")}
    assert rows(Settings(witness="both"), private=True, entra=True) == {"what it says of itself": (Level.OK, "")}


def pool(count: int | None, **changes: Any) -> NodePool:
    made = NodePool("np", "VirtualMachineScaleSets", "Linux", "Running", "Succeeded", "1.33.5", None, count)
    return replace(made, **changes)


def test_how_long_a_run_takes() -> None:
    """Compute's published 1,500 at once and 500 a minute of a subscription and region, and Resource Manager's 200 and
    600: of 80 percent of them 2,000 nodes take (2,000 - 160) / 8 s."""
    large = replace(CLUSTER, pools=(pool(2_000), pool(500, os="Windows"), pool(500, power="Stopped"), pool(None)))
    others = [replace(large, subscription="b"), replace(large, power="Stopped"), replace(large, locked=True)]
    row = clusters.first_run([large, *others], Settings(budget_percent=80, command_seconds=20))
    assert row.reason == "some 4,000 nodes in 2 clusters: 0:04:20 (h:mm:ss) at the least, by Azure's limits"
