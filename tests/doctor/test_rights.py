"""Patterns of actions, and how roles and deny assignments come together."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.azure import DenyAssignment, Lock, Permission, Principal, SignedIn
from shared.clouds import CHINA, US_GOVERNMENT, Cloud
from shared.doctor.checks import Level
from shared.doctor.needs import Grant, Need, Place, Wants, needs, wants
from shared.doctor.rights import Known, allows, denied, locked, matches, rows
from shared.models import Cluster, Problem, Status
from shared.settings import Settings
from tests.doctor.cases import GROUP, OBJECT, SUBSCRIPTION

ALL = Wants(nodes=True, invokes=True, serves=True)
ME = SignedIn("client", OBJECT, "tenant")
EVERYBODY = Principal("00000000-0000-0000-0000-000000000000", "SystemDefined")
RUN = Need("Microsoft.Compute/virtualMachines/runCommand/action", "run", Place.NODE)

words = st.text("aB/.*", max_size=8)


@given(words, st.text("aB/.", max_size=12))
def test_a_pattern_is_any_characters_for_each_star_and_case_does_not_count(pattern: str, action: str) -> None:
    expected = re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), action, re.IGNORECASE) is not None
    assert matches(pattern, action) == expected


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    assert not matches("*a" * 2_000 + "b", "a" * 4_000)


def test_what_one_role_takes_out_another_may_give() -> None:
    contributor = Permission(("*",), ("Microsoft.Authorization/*/Write",))
    giver = Permission(("microsoft.authorization/ROLEASSIGNMENTS/write",))
    action = "Microsoft.Authorization/roleAssignments/write"
    assert not allows([contributor], action)
    assert allows([contributor, giver], action)
    assert allows([contributor], "Microsoft.Compute/virtualMachines/runCommand/action")
    assert not allows([], action)


CLUSTER = Cluster(
    id=f"/subscriptions/{SUBSCRIPTION}/resourcegroups/rg-test/providers/Microsoft.ContainerService"
    "/managedClusters/aks-test",
    subscription=SUBSCRIPTION,
    resource_group="rg-test",
    name="aks-test",
    location="westeurope",
    power="Running",
    provisioning="Succeeded",
    node_resource_group=GROUP,
    locked=False,
    kubernetes_version="1.33.5",
    pools=(),
)


def known(cluster: Cluster = CLUSTER) -> Known:
    return Known(SUBSCRIPTION, "Test", (Permission(("*",)),), [cluster], {}, {})


def deny(
    scope: str = f"/subscriptions/{SUBSCRIPTION}",
    principals: tuple[Principal, ...] = (EVERYBODY,),
    excluded: tuple[Principal, ...] = (),
    *,
    inherited: bool = True,
) -> DenyAssignment:
    return DenyAssignment("no", scope, (Permission(("*/action",)),), principals, excluded, inherited)


def level(each: DenyAssignment, who: SignedIn = ME, need: Need = RUN) -> Level:
    (row,) = denied(known(), [each], [need], who, "")
    return row.status


MINE, OTHER = Principal(OBJECT, "ServicePrincipal"), Principal("11111111-0000-0000-0000-000000000000", "User")
TEAM = Principal("22222222-0000-0000-0000-000000000000", "Group")


@pytest.mark.parametrize(
    ("principals", "excluded", "who", "expected"),
    [
        ((EVERYBODY,), (), ME, Level.FAIL),
        ((EVERYBODY,), (OTHER,), ME, Level.FAIL),
        ((EVERYBODY,), (MINE,), ME, Level.OK),
        ((EVERYBODY,), (TEAM,), ME, Level.UNKNOWN),
        ((MINE,), (), ME, Level.FAIL),
        ((OTHER,), (), ME, Level.OK),
        ((OTHER, TEAM), (), ME, Level.UNKNOWN),
        ((TEAM,), (MINE,), ME, Level.OK),
        ((), (), ME, Level.OK),
        # Who the identity is may not be known.
        ((EVERYBODY,), (), SignedIn(), Level.FAIL),
        ((EVERYBODY,), (OTHER,), SignedIn(), Level.UNKNOWN),
        ((OTHER,), (), SignedIn(), Level.UNKNOWN),
    ],
)
def test_whom_a_deny_assignment_is_about(
    principals: tuple[Principal, ...], excluded: tuple[Principal, ...], who: SignedIn, expected: Level
) -> None:
    assert level(deny(principals=principals, excluded=excluded), who) is expected


_SUBSCRIPTION = f"/subscriptions/{SUBSCRIPTION}"
_NODES = f"{_SUBSCRIPTION}/resourceGroups/{GROUP}"


@pytest.mark.parametrize(
    ("scope", "inherited", "place", "expected"),
    [
        ("", True, Place.NODE, Level.FAIL),
        ("/providers/Microsoft.Management/managementGroups/prod", True, Place.SUBSCRIPTION, Level.FAIL),
        ("/providers/Microsoft.Management/managementGroups/prod", False, Place.SUBSCRIPTION, Level.OK),
        (_SUBSCRIPTION.upper(), True, Place.NODE, Level.FAIL),
        (_SUBSCRIPTION, False, Place.SUBSCRIPTION, Level.FAIL),
        (_SUBSCRIPTION, False, Place.NODE, Level.OK),
        (_NODES.lower(), True, Place.NODE, Level.FAIL),
        (_NODES, False, Place.GROUP, Level.FAIL),
        (_NODES, False, Place.NODE, Level.OK),
        (f"{_NODES}/providers/Microsoft.Compute/virtualMachines/vm1", True, Place.NODE, Level.FAIL),
        (f"{_NODES}/providers/Microsoft.Compute/virtualMachines/vm1", True, Place.GROUP, Level.OK),
        (
            f"{_NODES}/providers/Microsoft.Compute/virtualMachineScaleSets/s/virtualMachines/0",
            True,
            Place.NODE,
            Level.FAIL,
        ),
        (f"{_NODES}/providers/Microsoft.Network/loadBalancers/kubernetes", True, Place.NODE, Level.OK),
        (_NODES, True, Place.SUBSCRIPTION, Level.OK),
        (_NODES, True, Place.CLUSTER, Level.OK),
        (f"{_NODES}-other", True, Place.NODE, Level.OK),
        (f"{_SUBSCRIPTION}/resourceGroups/rg-test", True, Place.CLUSTER, Level.FAIL),
        (f"{_SUBSCRIPTION}/resourceGroups/rg-test", False, Place.CLUSTER, Level.OK),
    ],
)
def test_where_a_deny_assignment_reaches(scope: str, inherited: bool, place: Place, expected: Level) -> None:
    assert level(deny(scope, inherited=inherited), need=replace(RUN, place=place)) is expected


NOT_LISTED = Known(
    SUBSCRIPTION,
    "Test",
    (Permission(("*/read",)),),
    Problem(Status.ERROR, "unreachable", "No answer.", "Wait."),
    {},
    {},
)
_ELSEWHERE = f"{_SUBSCRIPTION}/resourceGroups/databricks-rg"


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (_SUBSCRIPTION, Level.FAIL),
        ("/providers/Microsoft.Management/managementGroups/prod", Level.FAIL),
        # What Azure makes in the groups of other services stands against nothing; here it may be a node's.
        (_ELSEWHERE, Level.UNKNOWN),
        (f"{_ELSEWHERE}/providers/Microsoft.KeyVault/vaults/v", Level.OK),
    ],
)
def test_what_is_set_somewhere_in_a_subscription_whose_clusters_are_not_known(scope: str, expected: Level) -> None:
    (row,) = denied(NOT_LISTED, [deny(scope)], [RUN], ME, "")
    assert row.status is expected, row
    (row,) = locked(NOT_LISTED, [Lock(f"{scope}/providers/x/locks/l", "l", scope, read_only=True)], [RUN], "")
    assert row.status is expected, row
    assert bool(row.command) == (expected is Level.FAIL)


def test_a_right_may_be_given_on_clusters_that_are_not_known() -> None:
    needed = needs(Wants(nodes=True, invokes=False, serves=False))
    found = {row.what: row.status for row in rows(NOT_LISTED, needed, Grant(ME, ALL).command(NOT_LISTED.subscription))}
    assert found["run a command on a node"] is Level.UNKNOWN
    assert found["list the clusters with their node pools"] is Level.OK


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        ("Microsoft.Network/publicIPAddresses/ip", Level.OK),
        ("Microsoft.Compute/disks/d", Level.OK),
        ("Microsoft.Compute/virtualMachineScaleSets/aks-np1", Level.FAIL),
    ],
)
def test_a_lock_on_one_resource_of_a_node_resource_group(resource: str, expected: Level) -> None:
    scope = f"{_NODES}/providers/{resource}"
    (row,) = locked(known(), [Lock(f"{scope}/providers/x/locks/l", "l", scope, read_only=True)], [RUN], "")
    assert row.status is expected, row


def test_a_lockdown_is_told_with_its_cluster() -> None:
    (row,) = denied(known(replace(CLUSTER, locked=True)), [deny(_NODES)], [RUN], ME, "")
    assert row.status is Level.OK


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(), Wants(nodes=True, invokes=False, serves=False)),
        (Settings(witness="configz"), Wants(nodes=False, invokes=True, serves=False)),
        (Settings(witness="configz", sweep_way="api"), Wants(nodes=False, invokes=False, serves=True)),
        (Settings(witness="configz", mode="plan"), Wants(nodes=True, invokes=True, serves=False)),
        (Settings(witness="configz", allow_fix=True), Wants(nodes=True, invokes=True, serves=False)),
        (Settings(witness="smart", sweep_way="proxy"), Wants(nodes=True, invokes=True, serves=False)),
    ],
)
def test_what_settings_need(settings: Settings, expected: Wants) -> None:
    assert wants(settings) == expected
    actions = {need.action for need in needs(expected)}
    assert any("runCommand/action" in action and "Compute" in action for action in actions) == expected.nodes
    assert ("Microsoft.ContainerService/managedClusters/runCommand/action" in actions) == expected.invokes


def test_commands_are_quoted() -> None:
    evil = "x; rm -rf $(HOME) 'y'"
    for grant in (
        Grant(SignedIn("", evil), ALL),
        Grant(SignedIn("", evil), ALL, evil),
        Grant(SignedIn("", evil, person=True), ALL),
    ):
        command = grant.command(evil, evil)
        parts = shlex.split(command.replace(" && ", " "))
        assert any(evil in part for part in parts), command
        assert not {"rm", "-rf"} & set(parts), command


def test_the_record_of_a_deployment_has_a_name_for_each_region() -> None:
    """Azure refuses a deployment whose name was used in another region (InvalidDeploymentLocation)."""
    for group in ("", "prod"):
        grant = Grant(ME, ALL, group)
        first, second = (shlex.split(grant.command(SUBSCRIPTION, region)) for region in ("", "northeurope"))
        assert _option(first, "--location") == "westeurope"
        assert _option(second, "--location") == "northeurope"
        assert _option(first, "--name") != _option(second, "--name")
        assert len(_option(second, "--name")) <= 64


@pytest.mark.parametrize(("cloud", "region"), [(US_GOVERNMENT, "usgovvirginia"), (CHINA, "chinanorth3")])
def test_another_cloud_has_other_regions(cloud: Cloud, region: str) -> None:
    command = shlex.split(Grant(ME, ALL, cloud=cloud).command(SUBSCRIPTION))
    assert _option(command, "--location") == region


def _option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_a_person_gets_the_role_by_its_name() -> None:
    person = SignedIn("cli", OBJECT, "tenant", person=True)
    command = Grant(person, Wants(nodes=True, invokes=True, serves=False)).command(SUBSCRIPTION)
    first, second = command.split(" && ")
    assert f"--role 'AKS Kubelet Guard ({SUBSCRIPTION})' --scope /subscriptions/{SUBSCRIPTION}" in first
    assert f"--role 'AKS Kubelet Guard sweep ({SUBSCRIPTION})'" in second
    assert "--assignee-principal-type User" in first
