"""Permissions, deny assignments, policies and the owner of a token, against a scripted server that is odd at times."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from shared.azure import Azure, DenyAssignment, Lock, Permission, PolicyAssignment, Principal, SignedIn
from shared.azure.rights import read_token
from shared.azure.versions import PINNED, Provider
from shared.models import Problem
from tests.support.arm import GROUP, SUBSCRIPTION, Answer, Arm, cluster, error, pool

PERMISSIONS = "/providers/microsoft.authorization/permissions"
DENIES = "/providers/microsoft.authorization/denyassignments"
POLICIES = "/providers/microsoft.authorization/policyassignments"


async def test_permissions_page_by_page(arm: Arm, azure: Azure) -> None:
    # As the specification's example of 2022-04-01 has it, and a role that takes something out.
    first = {
        "actions": ["*"],
        "notActions": ["Microsoft.Authorization/*/Delete"],
        "dataActions": [],
        "notDataActions": [],
    }
    second: dict[str, Any] = {"actions": None, "notActions": ["x", 7]}
    arm.on(
        "GET",
        PERMISSIONS,
        Answer(200, {"value": [first], "nextLink": "{base}/next" + PERMISSIONS}),
        Answer(200, {"value": [second, "no object"]}),
    )
    assert await azure.permissions(SUBSCRIPTION) == (
        Permission(("*",), ("Microsoft.Authorization/*/Delete",)),
        Permission((), ("x", "7")),
        Permission(()),
    )
    assert arm.seen[0].path == f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/permissions"
    assert arm.seen[0].query["api-version"] == PINNED[Provider.AUTHORIZATION] == "2022-04-01"


async def test_permissions_in_a_group_and_on_a_cluster(arm: Arm, azure: Azure) -> None:
    arm.on("GET", PERMISSIONS, Answer(200, {"value": []}))
    arm.on("GET", "/managedclusters", Answer(200, {"value": [cluster("shop", pool("p"))]}))
    assert await azure.permissions(SUBSCRIPTION, GROUP) == ()
    (found,) = await azure.clusters(SUBSCRIPTION)
    assert await azure.cluster_permissions(found) == ()
    assert [seen.path for seen in arm.seen if seen.path.endswith("permissions")] == [
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Authorization/permissions",
        f"{found.id.replace('resourcegroups', 'resourceGroups')}/providers/Microsoft.Authorization/permissions",
    ]


async def test_a_refusal_names_action_and_scope(arm: Arm, azure: Azure) -> None:
    arm.on("GET", PERMISSIONS, Answer(403, error("AuthorizationFailed", "no")))
    arm.on("GET", DENIES, Answer(403, error("AuthorizationFailed", "no")))
    arm.on("GET", POLICIES, Answer(200, {"value": "none"}))
    refused = await azure.permissions(SUBSCRIPTION, GROUP)
    assert isinstance(refused, Problem)
    assert f"Microsoft.Authorization/permissions/read on /subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}" in (
        refused.reason
    )
    denied = await azure.deny_assignments(SUBSCRIPTION)
    assert isinstance(denied, Problem)
    assert "Microsoft.Authorization/denyAssignments/read" in denied.reason
    odd = await azure.policy_assignments(SUBSCRIPTION)
    assert isinstance(odd, Problem)
    assert odd.code == "malformed"


async def test_a_list_without_end_is_not_read_on(arm: Arm, azure: Azure) -> None:
    pages = iter(range(1_000))
    arm.scripts["GET", PERMISSIONS] = lambda seen: Answer(
        200, {"value": [{}] * 1_000, "nextLink": f"{{base}}/{next(pages)}{PERMISSIONS}"}
    )
    found = await azure.permissions(SUBSCRIPTION)
    assert isinstance(found, Problem)
    assert "more than 5,000 items" in found.reason
    assert len(arm.seen) == 6


async def test_deny_assignments(arm: Arm, azure: Azure) -> None:
    # As the specification's example has it.
    told = {
        "properties": {
            "denyAssignmentName": "Deny assignment name",
            "description": "Deny assignment description",
            "permissions": [{"actions": ["action"], "notActions": [], "dataActions": ["action"], "notDataActions": []}],
            "scope": "/subscriptions/subId",
            "doNotApplyToChildScopes": False,
            "principals": [{"id": "00000000-0000-0000-0000-000000000000", "type": "SystemDefined"}],
            "excludePrincipals": [{"id": "principalId2", "type": "Group"}],
            "isSystemProtected": True,
        },
        "id": "/subscriptions/subId/providers/Microsoft.Authorization/denyAssignments/denyAssignmentId",
        "type": "Microsoft.Authorization/denyAssignments",
        "name": "denyAssignmentId",
    }
    own = {"name": "n", "properties": {"doNotApplyToChildScopes": True, "permissions": None, "principals": [1]}}
    arm.on("GET", DENIES, Answer(200, {"value": [told, own]}))
    found = await azure.deny_assignments(SUBSCRIPTION)
    assert not isinstance(found, Problem)
    first, second = found
    assert first == DenyAssignment(
        "Deny assignment name",
        "/subscriptions/subId",
        (Permission(("action",)),),
        (Principal("00000000-0000-0000-0000-000000000000", "SystemDefined"),),
        (Principal("principalid2", "Group"),),
    )
    assert first.principals[0].everybody
    assert not first.excluded[0].everybody
    assert second == DenyAssignment("n", "", (), (), (), inherited=False)
    assert not Principal("", "").everybody


async def test_locks(arm: Arm, azure: Azure) -> None:
    group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg"
    first, second = (
        "/providers/Microsoft.Authorization/locks/testlock",
        f"{group}/providers/microsoft.authorization/locks/b",
    )
    told = [
        {"properties": {"level": "ReadOnly"}, "id": first, "name": "testlock"},
        {"properties": {"level": "CanNotDelete"}, "id": second, "name": "b"},
        {"properties": None, "id": 7},
    ]
    arm.on("GET", "/locks", Answer(200, {"value": told}))
    assert await azure.locks(SUBSCRIPTION) == (
        Lock(first, "testlock", "", True),
        Lock(second, "b", group, False),
        Lock("7", "", "7", False),
    )
    assert arm.seen[0].query["api-version"] == PINNED[Provider.LOCKS]


async def test_policy_assignments(arm: Arm, azure: Azure) -> None:
    policy = {
        "properties": {
            "displayName": "Only our images",
            "policyDefinitionId": "/providers/Microsoft.Authorization/policyDefinitions/"
            "FEBD0533-8e55-448f-b837-bd0e06f16469",
            "scope": "/providers/Microsoft.Management/managementGroups/prod",
            "notScopes": ["/subscriptions/a"],
            "parameters": {"effect": {"value": "Deny"}, "excludedNamespaces": {"value": ["kube-system"]}},
            "enforcementMode": "DoNotEnforce",
        },
        "name": "x",
    }
    bare = {"name": "set", "properties": {"policyDefinitionId": "/subscriptions/s/policySetDefinitions/mine"}}
    arm.on("GET", POLICIES, Answer(200, {"value": [policy, bare]}))
    assert await azure.policy_assignments(SUBSCRIPTION) == (
        PolicyAssignment(
            "Only our images",
            "/providers/Microsoft.Management/managementGroups/prod",
            "febd0533-8e55-448f-b837-bd0e06f16469",
            False,
            "Deny",
            False,
            ("kube-system",),
            ("/subscriptions/a",),
        ),
        PolicyAssignment("set", "", "mine", True, "", True, None, ()),
    )
    assert arm.seen[0].query["api-version"] == PINNED[Provider.POLICY]
    assert "$filter" not in arm.seen[0].query


def token(claims: object) -> str:
    return f"h.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.s"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (token({"appid": "a", "oid": "o", "tid": "t"}), SignedIn("a", "o", "t")),
        (token({"azp": "a", "oid": "o", "tid": "t", "idtyp": "app"}), SignedIn("a", "o", "t")),
        (token({"appid": "a", "oid": "o", "tid": "t", "scp": "user_impersonation"}), SignedIn("a", "o", "t", True)),
        (token({"appid": "a", "idtyp": "user"}), SignedIn("a", "", "", True)),
        (token({"appid": {"no": "text"}}), SignedIn()),
        (token([1]), SignedIn()),
        ("t0ken", SignedIn()),
        ("a.%%%.c", SignedIn()),
        ("a.bm90IGpzb24.c", SignedIn()),
    ],
)
def test_who_a_token_is_of(text: str, expected: SignedIn) -> None:
    assert read_token(text) == expected


async def test_a_token_that_tells_nothing_is_no_error(arm: Arm, azure: Azure) -> None:
    assert await azure.signed_in() == SignedIn()
    assert arm.seen == [], "it is read, and nobody is asked"
