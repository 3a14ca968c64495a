"""What the identity may do, and what stands against it: permissions, deny assignments, locks, policies; and who it is.

Nothing of it is asked for by a run. Sources: the REST operations "Permissions - List For Resource Group" and "… For
Resource" (of a subscription the same), "Deny Assignments - List", "Management Locks - List At Subscription Level",
"Policy Assignments - List" (which without a filter
has those above the subscription and those within it), and "Understand deny assignments" (the principal of all zeros is
everybody). Whether permissions already leave out what a deny assignment takes away is not documented: ask for both.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.azure.fields import text_of, under
from shared.azure.operations import (
    CLUSTER_PERMISSIONS,
    DENY_ASSIGNMENTS,
    GROUP_PERMISSIONS,
    LOCKS,
    PERMISSIONS,
    POLICY_ASSIGNMENTS,
    Operation,
)
from shared.azure.problems import Fault, Target, judge
from shared.azure.replies import Body, Refusal
from shared.models import Cluster, Problem

if TYPE_CHECKING:
    from shared.azure.arm import Arm

# A list of more is none that can be: a scope has 200 policy assignments at most, a subscription 4,000 role assignments.
_MOST_ITEMS = 5_000


@dataclass(frozen=True, slots=True)
class Permission:
    """What one role allows (or one deny assignment takes away): patterns of actions, without those of `but`."""

    actions: tuple[str, ...]
    but: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a deny assignment is about: an object id of Entra ID, and the type that Azure gives (`User`, `Group`, …)."""

    id: str
    type: str

    @property
    def everybody(self) -> bool:
        """Whether it stands for every principal of the directory."""
        return bool(self.id) and not self.id.strip("0-")


@dataclass(frozen=True, slots=True)
class DenyAssignment:
    """A deny assignment at `scope` (a resource id); `inherited` says whether it holds below that, too."""

    name: str
    scope: str
    denies: tuple[Permission, ...]
    principals: tuple[Principal, ...]
    excluded: tuple[Principal, ...]
    inherited: bool = True


@dataclass(frozen=True, slots=True)
class Lock:
    """A management lock at `scope`, inherited by all below; `read_only` ones let nothing but reads through."""

    id: str
    name: str
    scope: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class PolicyAssignment:
    """A policy (or a set of them) that is assigned at `scope`.

    `definition` is the last part of the definition's id, for a built-in one a GUID; `effect` what the assignment sets
    (empty: the definition's default), `enforced` whether it does more than report, `namespaces` those of a cluster that
    it leaves out (None: the definition's default).
    """

    name: str
    scope: str
    definition: str
    is_set: bool
    effect: str
    enforced: bool
    namespaces: tuple[str, ...] | None
    not_scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who the identity is, by its token; what that does not tell is empty. `person` says that it is a user's."""

    client_id: str = ""
    object_id: str = ""
    tenant: str = ""
    person: bool = False


async def signed_in(arm: Arm) -> SignedIn | Problem:
    """Who the identity is that Resource Manager is asked as."""
    token = await arm.token(arm.settings.arm_scope)
    if isinstance(token, Refusal):
        return judge(token.fault, Target("Azure Resource Manager", "", "a subscription"))
    return read_token(token)


def read_token(token: str) -> SignedIn:
    """What a token of Entra ID's says of its owner: its claims are not checked here, Azure does that (pure)."""
    parts = token.split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (IndexError, ValueError, binascii.Error, RecursionError):
        return SignedIn()
    if not isinstance(claims, Mapping):
        return SignedIn()
    # "Access token claims reference": a token for an application has no scope, one on behalf of a user has.
    person = text_of(claims.get("idtyp")) == "user" or bool(claims.get("scp"))
    return SignedIn(
        text_of(claims.get("appid")) or text_of(claims.get("azp")),
        text_of(claims.get("oid")),
        text_of(claims.get("tid")),
        person,
    )


async def permissions(arm: Arm, subscription: str, group: str = "") -> tuple[Permission, ...] | Problem:
    """What the identity's roles allow in a subscription, or in one of its resource groups."""
    if group:
        return await _permissions(arm, GROUP_PERMISSIONS, f"resource group {group}", subscription, group=group)
    return await _permissions(arm, PERMISSIONS, f"subscription {subscription}", subscription)


async def cluster_permissions(arm: Arm, cluster: Cluster) -> tuple[Permission, ...] | Problem:
    """What the identity's roles allow on a cluster."""
    place = {"group": cluster.resource_group, "cluster": cluster.name}
    return await _permissions(arm, CLUSTER_PERMISSIONS, f"cluster {cluster.name}", cluster.subscription, **place)


async def _permissions(
    arm: Arm, operation: Operation, what: str, subscription: str, **place: str
) -> tuple[Permission, ...] | Problem:
    listed = await _listed(arm, operation, f"the permissions in {what}", subscription, **place)
    return listed if isinstance(listed, Problem) else tuple(map(_permission, listed))


async def deny_assignments(arm: Arm, subscription: str) -> tuple[DenyAssignment, ...] | Problem:
    """The deny assignments of a subscription: at it, above it, and within it."""
    what = f"the deny assignments of subscription {subscription}"
    listed = await _listed(arm, DENY_ASSIGNMENTS, what, subscription)
    return listed if isinstance(listed, Problem) else tuple(map(_deny_assignment, listed))


async def locks(arm: Arm, subscription: str) -> tuple[Lock, ...] | Problem:
    """The management locks of a subscription and within it."""
    listed = await _listed(arm, LOCKS, f"the locks of subscription {subscription}", subscription)
    return listed if isinstance(listed, Problem) else tuple(map(_lock, listed))


async def policy_assignments(arm: Arm, subscription: str) -> tuple[PolicyAssignment, ...] | Problem:
    """The policies that are assigned to a subscription, above it, and within it."""
    what = f"the policies of subscription {subscription}"
    listed = await _listed(arm, POLICY_ASSIGNMENTS, what, subscription)
    return listed if isinstance(listed, Problem) else tuple(map(_policy_assignment, listed))


async def _listed(arm: Arm, operation: Operation, what: str, subscription: str, **place: str) -> list[Body] | Problem:
    scope = f"/subscriptions/{subscription}" + (f"/resourceGroups/{place['group']}" if "group" in place else "")
    target = Target(what, operation.action, scope)
    items: list[Body] = []
    async for page in arm.pages(operation, subscription=subscription, **place):
        if isinstance(page, Refusal):
            return judge(page.fault, target)
        items += page
        if len(items) > _MOST_ITEMS:
            return judge(Fault(None, "malformed", f"a list of more than {_MOST_ITEMS:,} items"), target)
    return items


def _permission(item: Body) -> Permission:
    return Permission(_texts(item.get("actions")), _texts(item.get("notActions")))


def _deny_assignment(item: Body) -> DenyAssignment:
    properties = under(item, "properties")
    return DenyAssignment(
        name=text_of(properties.get("denyAssignmentName")) or text_of(item.get("name")),
        scope=text_of(properties.get("scope")),
        denies=tuple(map(_permission, _objects(properties.get("permissions")))),
        principals=tuple(map(_principal, _objects(properties.get("principals")))),
        excluded=tuple(map(_principal, _objects(properties.get("excludePrincipals")))),
        inherited=text_of(properties.get("doNotApplyToChildScopes")).lower() != "true",
    )


def _principal(item: Body) -> Principal:
    return Principal(text_of(item.get("id")).lower(), text_of(item.get("type")))


def _lock(item: Body) -> Lock:
    lock_id = text_of(item.get("id"))
    scope = re.split(r"/providers/microsoft\.authorization/locks/", lock_id, maxsplit=1, flags=re.IGNORECASE)[0]
    level = text_of(under(item, "properties").get("level"))
    return Lock(lock_id, text_of(item.get("name")), scope, level.lower() == "readonly")


def _policy_assignment(item: Body) -> PolicyAssignment:
    properties = under(item, "properties")
    parameters = under(properties, "parameters")
    definition = text_of(properties.get("policyDefinitionId"))
    namespaces = under(parameters, "excludedNamespaces").get("value")
    return PolicyAssignment(
        name=text_of(properties.get("displayName")) or text_of(item.get("name")),
        scope=text_of(properties.get("scope")),
        definition=definition.rpartition("/")[2].lower(),
        is_set="/policysetdefinitions/" in definition.lower(),
        effect=text_of(under(parameters, "effect").get("value")),
        enforced=text_of(properties.get("enforcementMode")).lower() != "donotenforce",
        namespaces=_texts(namespaces) if isinstance(namespaces, list) else None,
        not_scopes=_texts(properties.get("notScopes")),
    )


def _texts(value: object) -> tuple[str, ...]:
    return tuple(text_of(item) for item in value) if isinstance(value, list) else ()


def _objects(value: object) -> list[Body]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
