"""What a run of these settings needs to be allowed, and the command that grants it (pure).

The actions are those of the calls in `shared.azure.operations`; who gets them with which role is said in
docs/deploying.md, where the commands are from, too.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum

from shared.azure import SignedIn
from shared.azure.operations import (
    CREDENTIALS,
    INSTANCES,
    INVOKE,
    INVOKE_RESULT,
    POLL_ACTION,
    READ_CLUSTER,
    RUN_COMMAND,
    RUN_VM_COMMAND,
    SCALE_SETS,
    SUBSCRIPTIONS,
    VMS,
)
from shared.clouds import CHINA, PUBLIC, US_GOVERNMENT, Cloud
from shared.settings import Settings


class Place(StrEnum):
    """Where an action is needed at the least: a role may be given there, and not on the whole subscription.

    `SUBSCRIPTION`: the call is made of the subscription itself. `GROUP`: of a node resource group. `NODE`: of what is
    in it. `CLUSTER`: of a cluster.
    """

    SUBSCRIPTION = "subscription"
    GROUP = "group"
    NODE = "node"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Need:
    """An action that the identity must have, and what for."""

    action: str
    what: str
    place: Place


@dataclass(frozen=True, slots=True)
class Wants:
    """Who is asked by runs of these settings: nodes by run command, clusters by a command in them (`invokes`), or
    API servers by the app itself (`serves`)."""

    nodes: bool
    invokes: bool
    serves: bool


def wants(settings: Settings) -> Wants:
    """What these settings have a run do. A plan is made of what is on the nodes, whoever else is asked."""
    sweeps = settings.witness != "node"
    return Wants(
        nodes=settings.witness != "configz" or settings.mode != "audit" or settings.allow_fix,
        invokes=sweeps and settings.sweep_way != "api",
        serves=sweeps and settings.sweep_way == "api",
    )


_FINDING = (
    Need(SUBSCRIPTIONS.action, "see the subscription", Place.SUBSCRIPTION),
    Need(READ_CLUSTER, "list the clusters with their node pools", Place.SUBSCRIPTION),
    Need(SCALE_SETS.action, "list the scale sets of a node resource group", Place.GROUP),
    Need(INSTANCES.action, "list the instances of a scale set", Place.NODE),
    # Which of them run is asked of the subscription; where that is refused, run command tells.
    Need(VMS.action, "find nodes that are single VMs", Place.GROUP),
)
_NODES = (
    Need(RUN_COMMAND, "run a command on a node", Place.NODE),
    Need(RUN_VM_COMMAND, "run a command on a node that is a single VM", Place.NODE),
    Need(POLL_ACTION, "ask for a command's result", Place.SUBSCRIPTION),
)
_INVOKES = (
    Need(INVOKE, "invoke a command in a cluster", Place.CLUSTER),
    Need(INVOKE_RESULT, "ask for its result", Place.CLUSTER),
)
_SERVES = (Need(CREDENTIALS.action, "learn where a cluster's API server is", Place.CLUSTER),)


def needs(wanted: Wants) -> tuple[Need, ...]:
    """Every action that such runs need."""
    return (
        *_FINDING,
        *(_NODES if wanted.nodes else ()),
        *(_INVOKES if wanted.invokes else ()),
        *(_SERVES if wanted.serves else ()),
    )


_NOBODY = "OBJECT-ID-OF-THE-IDENTITY"
# Where Azure keeps the record of a deployment; any region of the cloud does.
_REGIONS = {PUBLIC: "westeurope", US_GOVERNMENT: "usgovvirginia", CHINA: "chinanorth3"}


@dataclass(frozen=True, slots=True)
class Grant:
    """How access is given: to whom, for what, where runs are of a management group, below which (else empty), and in
    which cloud."""

    to: SignedIn
    wanted: Wants
    group: str = ""
    cloud: Cloud = PUBLIC

    def command(self, subscription: str, region: str = "") -> str:
        """The command that gives what these runs need in a subscription (or, of one, below the management group).

        A person gets the role by its name: the templates give it to applications, and make it.
        """
        whom = self.to.object_id or _NOBODY
        if self.to.person:
            parts = f"az role assignment create --assignee-object-id {shlex.quote(whom)} --assignee-principal-type User"
            sweeps = self.wanted.invokes or self.wanted.serves
            roles = [
                *(["AKS Kubelet Guard"] if self.wanted.nodes else []),
                *(["AKS Kubelet Guard sweep"] if sweeps else []),
            ]
            place, name = self._place(subscription)
            return " && ".join(
                f"{parts} --role {shlex.quote(f'{role} ({name})')} --scope {shlex.quote(place)}" for role in roles
            )
        # A deployment of the same name may not be made again in another region ("Subscription deployments", location).
        place = region or _REGIONS[self.cloud]
        where = f"--location {shlex.quote(place)} --name {shlex.quote(f'kubelet-guard-access-{place}')}"
        if self.group:
            command = (
                f"az deployment mg create --management-group-id {shlex.quote(self.group)} {where}"
                f" --template-file infra/access-management-group.bicep --parameters principalId={shlex.quote(whom)}"
            )
        else:
            of = shlex.quote(f'["{subscription}"]')
            command = (
                f"az deployment sub create --subscription {shlex.quote(subscription)} {where}"
                " --template-file infra/access-subscription.bicep"
                f" --parameters principalId={shlex.quote(whom)} subscriptions={of}"
            )
        options = {
            "nodes=false": not self.wanted.nodes,
            "sweep=true": self.wanted.invokes,
            "sweepApi=true": self.wanted.serves,
        }
        return " ".join([command, *(option for option, given in options.items() if given)])

    def _place(self, subscription: str) -> tuple[str, str]:
        """The scope of the role, and what stands in its name."""
        if self.group:
            return f"/providers/Microsoft.Management/managementGroups/{self.group}", self.group
        return f"/subscriptions/{subscription}", subscription
