"""Where a policy is assigned, and what it leaves out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.azure import PolicyAssignment
from shared.doctor import Level, policies
from shared.models import Problem, Status
from tests.doctor.cases import SUBSCRIPTION
from tests.doctor.test_rights import CLUSTER, known

_SUBSCRIPTION = f"/subscriptions/{SUBSCRIPTION}"
_ABOVE = "/providers/Microsoft.Management/managementGroups/prod"
INVOKE = PolicyAssignment("No invoke", _ABOVE, "1b708b0a-3380-40e9-8b79-821f9fa224cc", False, "", True, None, ())


@pytest.mark.parametrize(
    ("scope", "left_out", "expected"),
    [
        (_ABOVE, (), Level.WARN),
        (_SUBSCRIPTION.upper(), (), Level.WARN),
        (f"{_SUBSCRIPTION}/resourceGroups/RG-TEST", (), Level.WARN),
        (CLUSTER.id, (), Level.WARN),
        (f"{_SUBSCRIPTION}/resourceGroups/rg-tes", (), Level.OK),
        (_ABOVE, (_SUBSCRIPTION,), Level.OK),
        (_ABOVE, (f"{_SUBSCRIPTION}/resourceGroups/RG-test/",), Level.OK),
        (_ABOVE, (f"{_SUBSCRIPTION}/resourceGroups/other", "/subscriptions/other"), Level.WARN),
    ],
)
def test_where_a_policy_is(scope: str, left_out: tuple[str, ...], expected: Level) -> None:
    each = replace(INVOKE, scope=scope, not_scopes=left_out)
    (row,) = policies.rows(known(), [each], "")
    assert row.status is expected, row


@pytest.mark.parametrize("clusters", [(), Problem(Status.ERROR, "unreachable", "No answer.", "Wait.")])
def test_a_policy_of_a_part_of_a_subscription_whose_clusters_are_not_known(clusters: tuple[()] | Problem) -> None:
    of = replace(known(), clusters=clusters)
    (row,) = policies.rows(of, [replace(INVOKE, scope=f"{_SUBSCRIPTION}/resourceGroups/rg")], "")
    assert row.status is Level.WARN
    (row,) = policies.rows(of, [replace(INVOKE, not_scopes=(_SUBSCRIPTION,))], "")
    assert row.status is Level.OK
