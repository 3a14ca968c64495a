"""What the sandbox's identity may do: roles, deny assignments, locks and policies, as Azure tells and enforces them.

Shapes: the REST operations of Microsoft.Authorization 2022-04-01 (permissions, denyAssignments), 2016-09-01 (locks) and
2023-04-01 (policyAssignments). A subscription whose fleet names no roles has given the identity everything. Policies
are told alone: of those that there are none stops a call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from sandbox import arm
from sandbox.arm import Body
from sandbox.compute import Refused, forbidden
from sandbox.fleet import Deny, Policy, Role, Subscription
from sandbox.identity import CLIENT, PRINCIPAL

EVERYBODY = "00000000-0000-0000-0000-000000000000"
_OWNER = (Role(actions=("*",)),)
_LOCKDOWN = "node resource group deny assignment created by Azure Kubernetes Services for nrg-lockdown"
_KINDS = {"everybody": (EVERYBODY, "SystemDefined"), "me": (PRINCIPAL, "ServicePrincipal")}


def action_of(method: str, path: str) -> str:
    """The action that a role must allow for a call, from its method and path (with its parts in braces)."""
    whole = path if "/providers/" in path else f"/providers/Microsoft.Resources{path}"
    namespace, *rest = whole.split("/providers/")[-1].strip("/").split("/")
    types = [word for word in rest if not word.startswith("{")]
    return "/".join([namespace, *types, "read" if method == "GET" else "action"])


def check(owner: Subscription, action: str, parts: Mapping[str, str]) -> None:
    """Raises Refused where no role allows the action there, or a deny assignment or a lock forbids it."""
    group = parts.get("group", "")
    place = _scope(owner, group)
    roles = _OWNER if owner.roles is None else owner.roles
    if not any(_has(role.actions, role.not_actions, action) for role in roles if _at(role.group, group)):
        raise forbidden(action, place)
    for deny in owner.denies:
        meant = {_id(name) for name in deny.principals} & {EVERYBODY, PRINCIPAL}
        left_out = PRINCIPAL in {_id(name) for name in deny.excluded}
        own = deny.group.lower() == group.lower() and len(parts) <= 1 + bool(group)
        reaches = _at(deny.group, group) and (deny.inherited or own)
        if meant and not left_out and reaches and _has(deny.actions, deny.not_actions, action):
            raise Refused(403, "DenyAssignmentAuthorizationFailed", _denied(deny, action, place))

    for lock in owner.locks:
        if lock.level == "ReadOnly" and _at(lock.group, group) and not action.endswith("/read"):
            text = f"The scope '{place}' cannot perform write operation because following scope(s) are locked:"
            raise Refused(409, "ScopeLocked", f"{text} '{_scope(owner, lock.group)}'. Please remove the lock.")


def _scope(owner: Subscription, group: str) -> str:
    return f"/subscriptions/{owner.id}" + (f"/resourceGroups/{group}" if group else "")


def _denied(deny: Deny, action: str, place: str) -> str:
    return (
        f"The client '{CLIENT}' with object id '{PRINCIPAL}' has permission to perform action '{action}' on scope"
        f" '{place}'; however, the access is denied because of the deny assignment with name '{deny.name}' and Id"
        f" '{arm.uuid(deny.name).replace('-', '')}' at scope '{place}'."
    )


def _at(of: str, group: str) -> bool:
    return not of or of.lower() == group.lower()


def _has(actions: Iterable[str], but: Iterable[str], action: str) -> bool:
    return _any(actions, action) and not _any(but, action)


def _any(patterns: Iterable[str], action: str) -> bool:
    return any(re.fullmatch(re.escape(each).replace(r"\*", ".*"), action, re.IGNORECASE) for each in patterns)


def _id(name: str) -> str:
    return _KINDS.get(name, (name, ""))[0]


def permissions(owner: Subscription, group: str) -> list[Body]:
    """What the roles allow in a subscription, or in one of its resource groups."""
    roles = _OWNER if owner.roles is None else owner.roles
    return [_permission(role.actions, role.not_actions) for role in roles if _at(role.group, group)]


def _permission(actions: Iterable[str], but: Iterable[str]) -> Body:
    return {"actions": [*actions], "notActions": [*but], "dataActions": [], "notDataActions": []}


def deny_assignments(owner: Subscription) -> list[Body]:
    """The deny assignments in a subscription: those of the fleet, and AKS's own of clusters under lockdown."""
    locked = [
        Deny(name=_LOCKDOWN, actions=("*",), not_actions=("*/read",), group=item.node_group, excluded=("aks",))
        for item in owner.clusters
        if item.lockdown
    ]
    return [_deny_assignment(owner, each) for each in (*owner.denies, *locked)]


def _deny_assignment(owner: Subscription, deny: Deny) -> Body:
    scope = _scope(owner, deny.group)
    name = arm.uuid(deny.name + deny.group)
    return {
        "properties": {
            "denyAssignmentName": deny.name,
            "description": "",
            "permissions": [_permission(deny.actions, deny.not_actions)],
            "scope": scope,
            "doNotApplyToChildScopes": not deny.inherited,
            "principals": [_principal(each) for each in deny.principals],
            "excludePrincipals": [_principal(each) for each in deny.excluded],
            "isSystemProtected": True,
        },
        "id": f"{scope}/providers/Microsoft.Authorization/denyAssignments/{name}",
        "type": "Microsoft.Authorization/denyAssignments",
        "name": name,
    }


def _principal(name: str) -> Body:
    if name.startswith("group "):
        return {"id": arm.uuid(name), "type": "Group"}
    known, kind = _KINDS.get(name, (arm.uuid(name), "ServicePrincipal"))
    return {"id": known, "type": kind}


def locks(owner: Subscription) -> list[Body]:
    """The management locks in a subscription."""
    return [
        {
            "properties": {"level": lock.level},
            "id": f"{_scope(owner, lock.group)}/providers/Microsoft.Authorization/locks/{lock.name}",
            "type": "Microsoft.Authorization/locks",
            "name": lock.name,
        }
        for lock in owner.locks
    ]


def policy_assignments(owner: Subscription) -> list[Body]:
    """The policies that are assigned to a subscription."""
    return [_policy_assignment(owner, each) for each in owner.policies]


def _policy_assignment(owner: Subscription, policy: Policy) -> Body:
    scope, name = f"/subscriptions/{owner.id}", arm.uuid(policy.name)
    kind = "policySetDefinitions" if policy.is_set else "policyDefinitions"
    parameters: Body = {}
    if policy.effect:
        parameters["effect"] = {"value": policy.effect}
    if policy.excluded_namespaces is not None:
        parameters["excludedNamespaces"] = {"value": [*policy.excluded_namespaces]}
    return {
        "properties": {
            "displayName": policy.name,
            "policyDefinitionId": f"/providers/Microsoft.Authorization/{kind}/{policy.definition}",
            "scope": scope,
            "notScopes": [],
            "parameters": parameters,
            "enforcementMode": "Default" if policy.enforced else "DoNotEnforce",
        },
        "id": f"{scope}/providers/Microsoft.Authorization/policyAssignments/{name}",
        "type": "Microsoft.Authorization/policyAssignments",
        "name": name,
    }
