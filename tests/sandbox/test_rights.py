"""The sandbox's roles and deny assignments: what it tells of them is what it enforces."""

from __future__ import annotations

import pytest

import sandbox
from sandbox import rights
from sandbox.compute import Refused
from sandbox.fleet import Deny, Lock, Role, Subscription
from sandbox.identity import PRINCIPAL
from sandbox.resources import ROUTES

SUBSCRIPTION = "5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1"
READ = "Microsoft.Compute/virtualMachines/read"


def owner(roles: tuple[Role, ...] | None = None, denies: tuple[Deny, ...] = ()) -> Subscription:
    return Subscription(SUBSCRIPTION, "Test", roles=roles, denies=denies)


def allowed(of: Subscription, action: str, **parts: str) -> bool:
    try:
        rights.check(of, action, {"subscription": of.id, **parts})
    except Refused:
        return False
    return True


def test_the_actions_of_its_calls() -> None:
    actions = {route.kind: route.action for route in ROUTES}
    assert actions["subscriptions.get"] == "Microsoft.Resources/subscriptions/read"
    assert actions["instances.list"] == "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/read"
    assert actions["runCommand"] == "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/runCommand/action"
    assert actions["invoke.get"] == "Microsoft.ContainerService/managedClusters/commandResults/read"
    assert actions["operations.get"] == "Microsoft.Compute/locations/operations/read"
    assert actions["permissions.list"] == "Microsoft.Authorization/permissions/read"


def test_roles() -> None:
    assert allowed(owner(), READ)
    assert not allowed(owner(()), READ)
    of = owner((Role(("*/read",), ("Microsoft.Compute/*",)), Role((READ,), group="rg")))
    assert not allowed(of, READ)
    assert not allowed(of, READ, group="other")
    assert allowed(of, READ, group="RG")
    assert allowed(of, "Microsoft.Network/x/READ")
    assert [body["actions"] for body in rights.permissions(of, "rg")] == [["*/read"], [READ]]
    assert [body["notActions"] for body in rights.permissions(of, "")] == [["Microsoft.Compute/*"]]


@pytest.mark.parametrize(
    ("deny", "where", "expected"),
    [
        (Deny("d", ("*",)), {}, False),
        (Deny("d", ("*",), ("*/read",)), {}, True),
        (Deny("d", ("*",), group="rg"), {}, True),
        (Deny("d", ("*",), group="rg"), {"group": "RG"}, False),
        (Deny("d", ("*",), principals=("me",)), {}, False),
        (Deny("d", ("*",), principals=("somebody",)), {}, True),
        (Deny("d", ("*",), excluded=("me",)), {}, True),
        (Deny("d", ("*",), inherited=False), {}, False),
        (Deny("d", ("*",), inherited=False), {"group": "rg"}, True),
        (Deny("d", ("*",), group="rg", inherited=False), {"group": "rg"}, False),
        (Deny("d", ("*",), group="rg", inherited=False), {"group": "rg", "vm": "x"}, True),
    ],
)
def test_deny_assignments(deny: Deny, where: dict[str, str], expected: bool) -> None:
    assert allowed(owner(denies=(deny,)), READ, **where) == expected


def test_locks() -> None:
    of = Subscription(SUBSCRIPTION, "Test", locks=(Lock("l", "rg"), Lock("d", "other", "CanNotDelete")))
    start = "Microsoft.Compute/virtualMachines/runCommand/action"
    assert allowed(of, READ, group="rg")
    assert not allowed(of, start, group="RG")
    assert allowed(of, start, group="other")
    assert allowed(of, start)
    assert [body["properties"]["level"] for body in rights.locks(of)] == ["ReadOnly", "CanNotDelete"]


def test_a_refusal_names_the_action_and_the_scope() -> None:
    where = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg"
    for of, code in (
        (owner(()), "AuthorizationFailed"),
        (owner(denies=(Deny("d", ("*",)),)), "DenyAssignmentAuthorizationFailed"),
    ):
        with pytest.raises(Refused) as refused:
            rights.check(of, READ, {"subscription": SUBSCRIPTION, "group": "rg"})
        assert (refused.value.status, refused.value.code) == (403, code)
        assert f"'{READ}'" in refused.value.message
        assert f"scope '{where}'" in refused.value.message


def test_how_they_are_told() -> None:
    of = owner(
        denies=(Deny("d", ("a",), ("b",), "rg", ("everybody", "me", "group x"), ("somebody",), inherited=False),)
    )
    (body,) = rights.deny_assignments(of)
    properties = body["properties"]
    assert properties["scope"] == f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg"
    assert properties["doNotApplyToChildScopes"] is True
    assert [each["type"] for each in properties["principals"]] == ["SystemDefined", "ServicePrincipal", "Group"]
    assert properties["principals"][1]["id"] == PRINCIPAL


def test_a_lockdown_is_a_deny_assignment_of_its_node_resource_group() -> None:
    fleet = sandbox.parse(
        f"""
subscriptions:
  - id: {SUBSCRIPTION}
    name: Test
    clusters:
      - {{name: a, resource_group: rg, location: westeurope, version: 1.33.5, lockdown: true, pools: []}}
      - {{name: b, resource_group: rg, location: westeurope, version: 1.33.5, pools: []}}
"""
    )
    (body,) = rights.deny_assignments(fleet.subscriptions[0])
    assert body["properties"]["scope"].endswith("/resourceGroups/MC_rg_a_westeurope")
