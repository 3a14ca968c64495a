"""Whether the identity may do what a run needs, and whether a deny assignment or a lock keeps it from it (pure).

As Azure decides ("What is Azure RBAC", "Understand deny assignments"): roles add up, `notActions` take something out of
their own role alone, a deny assignment beats every role; patterns have `*` for any characters, and case does not count.
A read-only lock stops what is no read, whoever asks ("Lock your resources": a run command is a POST).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from shared.azure import DenyAssignment, Lock, Permission, Principal, SignedIn
from shared.doctor.checks import Area, Check, Level, said
from shared.doctor.needs import Need, Place
from shared.models import Cluster, Problem
from shared.plain import plain
from shared.runs.model import names

Permissions = tuple[Permission, ...] | Problem


def matches(pattern: str, action: str) -> bool:
    """Whether a pattern of actions has this one."""
    first, *rest = pattern.lower().split("*")
    left = action.lower()
    if not rest:
        return left == first
    if not left.startswith(first):
        return False
    left = left[len(first) :]
    *middle, last = rest
    for part in middle:
        _, found, left = left.partition(part) if part else ("", "*", left)
        if not found:
            return False
    return left.endswith(last)


def allows(permissions: Iterable[Permission], action: str) -> bool:
    """Whether any of these has the action and does not take it out again."""
    return any(
        any(matches(pattern, action) for pattern in each.actions)
        and not any(matches(pattern, action) for pattern in each.but)
        for each in permissions
    )


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the rights in a subscription.

    `whole` are those on all of it; where they do not suffice, `groups` are those in node resource groups (by lower-case
    name), `single` those on clusters (by lower-case id). `clusters` are those in it; a Problem says why something is
    not known.
    """

    subscription: str
    name: str
    whole: Permissions
    clusters: Sequence[Cluster] | Problem
    groups: Mapping[str, Permissions]
    single: Mapping[str, Permissions]

    @property
    def subject(self) -> str:
        """The subscription as it is shown."""
        return f"{self.name} ({self.subscription})" if self.name else self.subscription


def lacking(needed: Sequence[Need], whole: Permissions) -> tuple[Need, ...]:
    """The needs that permissions on the whole subscription do not have; none where these are not known."""
    return () if isinstance(whole, Problem) else tuple(need for need in needed if not allows(whole, need.action))


def rows(known: Known, needed: Sequence[Need], command: str) -> list[Check]:
    """A row for each need; one alone where nothing is known. `command` gives what is lacking."""
    if isinstance(known.whole, Problem):
        what = f"the {len(needed)} actions that a run needs"
        return [Check(Area.RIGHTS, known.subject, what, Level.UNKNOWN, said(known.whole), command)]
    return [_row(known, need, known.whole, command) for need in needed]


def _row(known: Known, need: Need, whole: tuple[Permission, ...], command: str) -> Check:
    def check(status: Level, reason: str, command: str = "") -> Check:
        return Check(Area.RIGHTS, known.subject, need.what, status, f"{need.action}: {reason}", command)

    if allows(whole, need.action):
        return check(Level.OK, "allowed")
    absent = "no role of the identity allows it in this subscription"
    if need.place is Place.SUBSCRIPTION:
        return check(Level.FAIL, f"{absent}.", command)
    if isinstance(known.clusters, Problem):
        reason = f"{absent} as a whole, and where its clusters are, which one may be given on, is not known."
        return check(Level.UNKNOWN, reason, command)
    if not known.clusters:
        return check(Level.WARN, f"{absent}, in which there is no cluster now.", command)
    at = "on its clusters" if need.place is Place.CLUSTER else "in its node resource groups"
    without: list[str] = []
    untold: dict[str, Problem | None] = {}
    for cluster in known.clusters:
        if need.place is Place.CLUSTER:
            there = known.single.get(cluster.id.lower())
        else:
            there = known.groups.get(cluster.node_resource_group.lower())
        if there is None or isinstance(there, Problem):
            untold[cluster.name] = there
        elif not allows(there, need.action):
            without.append(cluster.name)
    if without:
        return check(Level.FAIL, f"{absent}, nor {at} for {names.listed(without)}.", command)
    if untold:
        why = next((f" {said(problem)}" for problem in untold.values() if problem is not None), "")
        return check(
            Level.UNKNOWN,
            f"{absent} as a whole, and whether one does {at} could not be told for {names.listed(list(untold))}.{why}",
            command,
        )
    return check(Level.OK, f"allowed {at}, of the {len(known.clusters)} clusters that are there now")


# --- deny assignments -------------------------------------------------------------------------------------------------


def denied(
    known: Known, found: Sequence[DenyAssignment] | Problem, needed: Sequence[Need], who: SignedIn, command: str
) -> list[Check]:
    """A row for each deny assignment that stands against a run, or one that says that there is none.

    A lockdown of a node resource group is told with its cluster (`clusters`).
    """
    what = "deny assignments"
    if isinstance(found, Problem):
        return [Check(Area.DENIED, known.subject, what, Level.UNKNOWN, said(found), command)]
    made = []
    for each in found:
        actions = [need for need in needed if _denies(known, each, need)]
        applies = _applies(each, who)
        if actions and applies is not None:
            made.append(_denial(known, each, actions, applies))
    reason = f"none of {len(found)} stands against a run" if found else "there is none"
    return made or [Check(Area.DENIED, known.subject, what, Level.OK, reason)]


def _denial(known: Known, each: DenyAssignment, actions: Sequence[Need], sure: bool) -> Check:
    words = names.listed([need.action for need in actions])
    where = plain(each.scope, 200) or "an unknown scope"
    reason = f"it is at {where} and denies {words}, whatever role allows it."
    if not sure:
        reason += " It names a group, for or against, and whether the identity is in that is not known here."
    if not _met(known, each.scope):
        reason += _UNMET
    reason += " Have whoever made it exclude the identity, or leave this scope out of runs."
    status = Level.FAIL if sure and _met(known, each.scope) else Level.UNKNOWN
    return Check(Area.DENIED, known.subject, f"deny assignment {plain(each.name, 200)!r}", status, reason)


def _denies(known: Known, each: DenyAssignment, need: Need) -> bool:
    return allows(each.denies, need.action) and any(
        _covers(each.scope, place, inherited=each.inherited) for place in _scopes(known, need)
    )


_UNMET = " Whether a cluster is there is not known."


def _met(known: Known, scope: str) -> bool:
    """Whether runs surely come to a scope that `_scopes` has: one within a subscription whose clusters are not known
    may be of something else."""
    within = f"/subscriptions/{known.subscription}/".lower()
    return not (isinstance(known.clusters, Problem) and scope.lower().startswith(within))


def _scopes(known: Known, need: Need) -> list[tuple[str, bool]]:
    """The scopes that calls of a need are made at, in lower case, and whether of what is below them; without those of
    node resource groups under lockdown."""
    whole = f"/subscriptions/{known.subscription}".lower()
    if need.place is Place.SUBSCRIPTION or isinstance(known.clusters, Problem):
        return [(whole, need.place is not Place.SUBSCRIPTION)]
    if need.place is Place.CLUSTER:
        return [(cluster.id.lower(), False) for cluster in known.clusters]
    free = [cluster for cluster in known.clusters if not cluster.locked]
    below = need.place is Place.NODE
    return [(f"{whole}/resourcegroups/{cluster.node_resource_group.lower()}", below) for cluster in free]


_CALLED = ("microsoft.compute/virtualmachine", "microsoft.containerservice/managedclusters/")


def _covers(scope: str, place: tuple[str, bool], *, inherited: bool = True) -> bool:
    """Whether what is set at a scope reaches what is called at a place; it may be of one resource within it that is
    called, which a disk or a load balancer is not."""
    at, below = place
    scope = scope.lower().rstrip("/")
    if scope == at:
        return inherited or not below
    if scope.startswith(f"{at}/"):
        _, resource, name = scope.rpartition("/providers/")
        return below and (not resource or name.startswith(_CALLED))
    # A management group, or the tenant, is above every subscription that lists it.
    above = not scope or scope.startswith("/providers/microsoft.management/") or at.startswith(f"{scope}/")
    return above and inherited


def _applies(each: DenyAssignment, who: SignedIn) -> bool | None:
    """Whether it is about the identity: None where not, False where that hangs on what is not known here (a group)."""
    mine = who.object_id.lower()
    if mine and any(one.id == mine for one in each.excluded):
        return None
    if any(one.everybody or (mine and one.id == mine) for one in each.principals):
        return not (_groups(each.excluded) or (each.excluded and not mine))
    return False if _groups(each.principals) or (each.principals and not mine) else None


def _groups(principals: Iterable[Principal]) -> bool:
    return any(one.type.lower() == "group" for one in principals)


def locked(known: Known, found: Sequence[Lock] | Problem, needed: Sequence[Need], command: str) -> list[Check]:
    """A row for each read-only lock that stands against a run, or one that says that there is none."""
    what = "locks"
    if isinstance(found, Problem):
        return [Check(Area.DENIED, known.subject, what, Level.UNKNOWN, said(found), command)]
    made = []
    for lock in found:
        actions = [
            need.action
            for need in needed
            if not need.action.endswith("/read") and any(_covers(lock.scope, place) for place in _scopes(known, need))
        ]
        if lock.read_only and actions:
            met = _met(known, lock.scope)
            reason = (
                f"it is at {plain(lock.scope, 200) or 'an unknown scope'} and read-only, which stops"
                f" {names.listed(actions)}, whatever role allows it.{'' if met else _UNMET}"
                " Have it lifted, or leave this scope out of runs."
            )
            status, lift = (Level.FAIL, f"az lock delete --ids {shlex.quote(lock.id)}") if met else (Level.UNKNOWN, "")
            made.append(Check(Area.DENIED, known.subject, f"lock {plain(lock.name, 200)!r}", status, reason, lift))
    reason = f"none of {len(found)} stands against a run" if found else "there is none"
    return made or [Check(Area.DENIED, known.subject, what, Level.OK, reason)]
