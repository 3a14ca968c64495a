"""Azure policies that stand against asking clusters by a command in them (pure).

A policy does not stop a run command on a node: `deny` is about writes of resources, and `denyAction` knows nothing but
deletions ("Azure Policy definitions denyAction effect"). What there is are the built-in policies of AKS, by the ids of
their definitions in the public repository Azure/azure-policy.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.azure import PolicyAssignment
from shared.doctor.checks import Area, Check, Level, said
from shared.doctor.rights import Known
from shared.models import Problem
from shared.plain import plain

_TURNS_OFF = "1b708b0a-3380-40e9-8b79-821f9fa224cc"
"""Disable Command Invoke on Azure Kubernetes Service clusters; DeployIfNotExists unless it says otherwise."""
_IMAGES = "febd0533-8e55-448f-b837-bd0e06f16469"
"""Kubernetes cluster containers should only use allowed images; Deny unless it says otherwise."""
# Where AKS runs what is invoked.
_NAMESPACE = "aks-command"


def rows(known: Known, found: Sequence[PolicyAssignment] | Problem, command: str) -> list[Check]:
    """A row for each policy that stands against it, or one that says that there is none."""
    subject, what = known.subject, "policies"
    if isinstance(found, Problem):
        return [Check(Area.POLICY, subject, what, Level.UNKNOWN, said(found), command)]
    places = _places(known)
    there = [each for each in found if each.enforced and any(_applies(each, place) for place in places)]
    made = [row for each in there if (row := _row(subject, each)) is not None]
    if made:
        return made
    sets = sum(each.is_set for each in found)
    reason = f"none of {len(found) - sets} known to turn command invoke off or to deny its pod"
    if sets:
        reason += f"; what is in {sets} assigned sets of policies was not looked at"
    return [Check(Area.POLICY, subject, what, Level.OK, reason)]


def _places(known: Known) -> list[str]:
    """The clusters; the subscription where there are none, or they are not known."""
    clusters = () if isinstance(known.clusters, Problem) else known.clusters
    return [cluster.id.lower() for cluster in clusters] or [f"/subscriptions/{known.subscription}".lower()]


def _applies(each: PolicyAssignment, place: str) -> bool:
    """Whether an assignment is about a place, or about some of a subscription: the list has those of any resource."""
    scope = each.scope.lower().rstrip("/")
    above = not scope or scope.startswith("/providers/microsoft.management/")
    left_out = any(_within(place, other.lower().rstrip("/")) for other in each.not_scopes)
    return (above or _within(place, scope) or _within(scope, place)) and not left_out


def _within(place: str, scope: str) -> bool:
    return place == scope or place.startswith(f"{scope}/")


def _row(subject: str, each: PolicyAssignment) -> Check | None:
    effect = each.effect.lower()
    what = f"policy {plain(each.name, 200)!r}"
    if each.definition == _TURNS_OFF and effect in {"", "deployifnotexists"}:
        reason = (
            f"it is assigned at {plain(each.scope, 200)} and turns command invoke off, on clusters that are made or"
            " changed and on all others when it is remediated. Exempt the clusters that runs are to ask, or use"
            " GUARD_SWEEP_WAY=api or GUARD_WITNESS=node."
        )
        return Check(Area.POLICY, subject, what, Level.WARN, reason)
    if each.definition == _IMAGES and effect in {"", "deny"} and _NAMESPACE not in (each.namespaces or ()):
        reason = (
            f"it is assigned at {plain(each.scope, 200)} and lets clusters run the images that it names and no others:"
            f" it may deny the command's pod. Add the namespace {_NAMESPACE} to its excludedNamespaces."
        )
        return Check(Area.POLICY, subject, what, Level.WARN, reason)
    return None
