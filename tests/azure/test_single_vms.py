"""Nodes that are single VMs, against a real TLS server: which VMs are nodes, what of the rest, how many calls."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.azure import Azure, precheck, single_vms
from shared.azure.discovery import pool_of
from shared.models import Cluster, Node, Problem, ScopeProblem, Status
from tests.support import arm as far
from tests.support.arm import (
    GROUP,
    SCALE_SET,
    SUBSCRIPTION,
    Answer,
    Arm,
    Seen,
    a_node,
    accepted,
    error,
    instance,
    pool,
    scale_set,
    vm,
    vm_state,
)

CLUSTERS = "/managedclusters"
SETS = f"/{GROUP}/providers/microsoft.compute/virtualmachinescalesets"
INSTANCES = f"/{SCALE_SET}/virtualmachines"
VMS = f"/{GROUP}/providers/microsoft.compute/virtualmachines"
STATES = f"/subscriptions/{SUBSCRIPTION}/providers/microsoft.compute/virtualmachines"
AUTO = {"nodeProvisioningProfile": {"mode": "Auto"}}
OF_VMS = {"aks-managed-poolName": "vms", "aks-managed-agentpool-type": "VirtualMachines"}


def vms_pool(nodes: int, **more: Any) -> dict[str, Any]:
    """A pool of single VMs, whose count stands with their sizes."""
    sizes = [{"size": "Standard_D4s_v5", "count": nodes}]
    return pool("vms", type="VirtualMachines", count=None, virtualMachineNodesStatus=sizes) | more


def karpenter(name: str, cluster: str = "shop") -> dict[str, str]:
    return {"karpenter.azure.com_cluster": cluster, "Karpenter.sh_nodepool": name, "compute.aks.billing": "linux"}


async def one_cluster(arm: Arm, azure: Azure, *pools: dict[str, Any], **more: Any) -> Cluster:
    arm.on("GET", CLUSTERS, Answer(200, {"value": [far.cluster("shop", *pools, **more)]}))
    arm.on("GET", f"{CLUSTERS}/shop", Answer(200, far.cluster("shop", *pools, **more)))
    (found,) = await azure.clusters(SUBSCRIPTION)
    arm.seen.clear()
    return found


def holds(arm: Arm, *vms: dict[str, Any], **powers: str) -> None:
    """What the node resource group holds, and which of it runs (all but those named)."""
    arm.on("GET", VMS, Answer(200, {"value": list(vms)}))
    states = [vm_state(item["name"], powers.get(item["name"].replace("-", "_"), "running")) for item in vms]
    arm.on("GET", STATES, Answer(200, {"value": states}))


async def list_nodes(
    azure: Azure, cluster: Cluster, pools: list[str] | None = None
) -> tuple[list[Node], list[ScopeProblem]]:
    found = [item async for item in azure.nodes(cluster, pools)]
    nodes = [item for item in found if isinstance(item, Node)]
    return nodes, [item for item in found if isinstance(item, ScopeProblem)]


def told(problems: list[ScopeProblem]) -> list[tuple[str, str, Status]]:
    return [(found.node_pool, found.problem.code, found.problem.status) for found in problems]


async def test_vms_are_nodes_by_their_tags_and_take_two_lists(arm: Arm, azure: Azure) -> None:
    cluster = await one_cluster(arm, azure, pool("pool1"), vms_pool(2), **AUTO)
    arm.on("GET", SETS, Answer(200, {"value": [scale_set(SCALE_SET, {"aks-managed-poolName": "pool1"})]}))
    arm.on("GET", INSTANCES, Answer(200, {"value": [instance("0")]}))
    community = {
        "communityGalleryImageId": "/CommunityGalleries/AKSUbuntu-38d80f77-467a-481f-a8d4-09b6d4220bd2"
        "/images/2204gen2arm64containerd/versions/202510.19.1"
    }
    disk = {"imageReference": community, "osDisk": {"osType": "Linux"}}
    burst = vm("aks-burst-x7k2p", karpenter("burst"), storageProfile=disk)
    link = f"{{base}}/subscriptions/{SUBSCRIPTION}/resourceGroups{VMS}?p=2"
    pages = [
        {"value": [vm("aks-vms-1-vms1", OF_VMS), vm("bastion", {"owner": "x"})], "nextLink": link},
        # One that comes on two pages is one node; an answer's own spelling of names counts for nothing.
        {"value": [vm("aks-vms-1-vms2", {"poolName": "VMS"}), burst, vm("aks-vms-1-vms1", OF_VMS)]},
    ]
    arm.on("GET", VMS, *(Answer(200, page) for page in pages))

    def states(seen: Seen) -> Answer:
        assert seen.query["statusOnly"] == "true"
        assert "$expand" not in seen.query
        on = [vm_state("aks-vms-1-vms1", "running"), vm_state("AKS-VMS-1-VMS2", "deallocated")]
        return Answer(200, {"value": [*on, vm_state("bastion", "running")]})

    arm.on("GET", STATES, states)
    nodes, problems = await list_nodes(azure, cluster)
    assert problems == []
    assert [(node.node_pool, node.scale_set, node.instance_id, node.power) for node in nodes] == [
        ("pool1", SCALE_SET, "0", "running"),
        ("vms", "", "aks-vms-1-vms1", "running"),
        ("vms", "", "aks-vms-1-vms2", "deallocated"),
        ("burst", "", "aks-burst-x7k2p", ""),
    ]
    place = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Compute/virtualMachines"
    assert [node.id for node in nodes[1:]] == [f"{place}/{node.instance_id}" for node in nodes[1:]]
    assert [node.single for node in nodes] == [False, True, True, True]
    assert [node.kubernetes_version for node in nodes] == ["1.33.3", "1.33.3", "1.33.3", None]
    assert nodes[3].node_image_version == "AKSUbuntu-2204gen2arm64containerd-202510.19.1"
    assert azure.stats.calls == {"clusters": 1, "scale_sets": 1, "instances": 1, "vms": 2, "vm_states": 1}
    await list_nodes(azure, cluster)
    assert azure.stats.calls["vm_states"] == 1, "the states of a whole subscription are not asked for each cluster"


@pytest.mark.parametrize("told_of", [True, None])
async def test_vms_are_looked_for_where_there_may_be_any(arm: Arm, azure: Azure, told_of: bool | None) -> None:
    cluster = replace(await one_cluster(arm, azure), auto_provisioned=told_of)
    holds(arm, vm("aks-burst-x7k2p", karpenter("burst")))
    nodes, _ = await list_nodes(azure, cluster)
    assert [node.node_pool for node in nodes] == ["burst"]
    arm.seen.clear()
    assert await list_nodes(azure, replace(cluster, auto_provisioned=False)) == ([], _)
    assert not arm.seen


async def test_a_pool_that_the_cluster_had_not_when_it_was_listed(arm: Arm, azure: Azure) -> None:
    cluster = await one_cluster(arm, azure, pool("pool1"))
    now = far.cluster("shop", pool("pool1"), pool("young"), vms_pool(1))
    arm.on("GET", f"{CLUSTERS}/shop", Answer(200, now))
    sets = [scale_set(SCALE_SET, {"aks-managed-poolName": "pool1"}), scale_set("y", {"aks-managed-poolName": "young"})]
    arm.on("GET", SETS, Answer(200, {"value": sets}))
    arm.on("GET", INSTANCES, Answer(200, {"value": [instance("0")]}))
    arm.on("GET", "/y/virtualmachines", Answer(200, {"value": [instance("0")]}))
    holds(arm, vm("one", OF_VMS))
    nodes, problems = await list_nodes(azure, cluster)
    assert ([node.node_pool for node in nodes], problems) == (["pool1", "young", "vms"], [])
    assert (arm.count("GET", "/managedclusters/shop"), azure.stats.calls["scale_sets"]) == (1, 1)


async def test_the_states_of_a_subscription_are_asked_anew_after_a_while(
    arm: Arm, azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = await one_cluster(arm, azure, vms_pool(1))
    holds(arm, vm("one", OF_VMS), one="stopped")
    assert [node.power for node in (await list_nodes(azure, cluster))[0]] == ["stopped"]
    monkeypatch.setattr(single_vms, "_KNOWN_FOR", 0.0)
    holds(arm, vm("one", OF_VMS))
    assert [node.power for node in (await list_nodes(azure, cluster))[0]] == ["running"]


@pytest.mark.parametrize(
    "reply", [Answer(403, error("AuthorizationFailed", "no")), Answer(200, {"value": None}), Answer(200, text="<html>")]
)
async def test_states_that_cannot_be_had_leave_it_to_run_command(arm: Arm, azure: Azure, reply: Answer) -> None:
    cluster = await one_cluster(arm, azure, vms_pool(1))
    holds(arm, vm("one", OF_VMS))
    arm.on("GET", STATES, reply)
    (node,), problems = await list_nodes(azure, cluster)
    assert (node.power, problems, precheck(node)) == ("", [], None)


async def test_where_vms_cannot_be_listed_the_scale_sets_are(arm: Arm, azure: Azure) -> None:
    cluster = await one_cluster(arm, azure, pool("pool1"), vms_pool(1))
    arm.on("GET", SETS, Answer(200, {"value": [scale_set(SCALE_SET, {"aks-managed-poolName": "pool1"})]}))
    arm.on("GET", INSTANCES, Answer(200, {"value": [instance("0")]}))
    arm.on("GET", VMS, Answer(403, error("AuthorizationFailed", "no")))
    nodes, (problem,) = await list_nodes(azure, cluster)
    assert [node.node_pool for node in nodes] == ["pool1"]
    assert (problem.problem.status, problem.passing) == (Status.ERROR, False)
    assert "may not do Microsoft.Compute/virtualMachines/read" in problem.problem.reason
    arm.on("GET", VMS, Answer(503, text="<html>", headers={"retry-after-ms": "5"}))
    _, (problem,) = await list_nodes(azure, cluster)
    assert problem.passing


async def test_vms_that_a_pool_should_have_are_missed(arm: Arm, azure: Azure) -> None:
    holds(arm, vm("one", OF_VMS))
    nodes, problems = await list_nodes(azure, await one_cluster(arm, azure, vms_pool(2)))
    assert len(nodes) == 1
    assert told(problems) == [("vms", "vms_missing", Status.ERROR)]
    assert "has 2 nodes, and only 1 VMs" in problems[0].problem.reason
    holds(arm, vm("bastion", {}))
    cases = {
        "Succeeded": ("vms_missing", Status.ERROR),
        "Updating": ("vms_missing", Status.ERROR),
        "Creating": ("pool_changing", Status.SKIPPED),
    }
    for state, expected in cases.items():
        cluster = await one_cluster(arm, azure, vms_pool(2, provisioningState=state))
        nodes, problems = await list_nodes(azure, cluster)
        assert (nodes, told(problems)) == ([], [("vms", *expected)])
        assert arm.count("GET", "/managedclusters/shop") == 1, "the pool may have changed since the cluster was listed"
    # While it scales, its count runs ahead of its VMs.
    holds(arm, vm("one", OF_VMS))
    assert (await list_nodes(azure, await one_cluster(arm, azure, vms_pool(2, provisioningState="Scaling"))))[1] == []
    assert (await list_nodes(azure, await one_cluster(arm, azure, vms_pool(0))))[1] == []


async def test_a_pool_of_machines_holds_what_karpenter_made(arm: Arm, azure: Azure) -> None:
    machines = vms_pool(2, name="aksmanagedap", mode="Machines")
    cluster = await one_cluster(arm, azure, machines, **AUTO)
    # By AKS's own tag beside Karpenter's, and without.
    both = karpenter("burst") | {"aks-managed-poolName": "aksmanagedap"}
    holds(arm, vm("aks-burst-1", both), vm("aks-burst-2", karpenter("burst")))
    nodes, problems = await list_nodes(azure, cluster)
    assert ([node.node_pool for node in nodes], problems) == (["burst", "burst"], [])
    assert [node.kubernetes_version for node in nodes] == [None, None], "each has its own"
    nodes, problems = await list_nodes(azure, cluster, ["AKSManagedAP"])
    assert [node.name for node in nodes] == ["aks-burst-1"]
    both_pools = await one_cluster(arm, azure, machines, vms_pool(1))
    holds(arm, vm("one", OF_VMS))
    assert told((await list_nodes(azure, both_pools))[1]) == [("aksmanagedap", "vms_missing", Status.ERROR)]


async def test_only_the_pools_that_were_asked_for(arm: Arm, azure: Azure) -> None:
    cluster = await one_cluster(arm, azure, pool("pool1"), vms_pool(1), **AUTO)
    holds(arm, vm("one", OF_VMS), vm("aks-team.a-1", karpenter("team.a")), vm("aks-b-1", karpenter("b")))
    for wanted, names in ((["Team.A"], ["aks-team.a-1"]), (["vms"], ["one"]), (["vms", "b"], ["one", "aks-b-1"])):
        nodes, problems = await list_nodes(azure, cluster, wanted)
        assert ([node.name for node in nodes], problems) == (names, [])
    assert arm.count("GET", SETS) == 0


@pytest.mark.parametrize(
    ("state", "status"), [("Succeeded", Status.ERROR), ("Failed", Status.ERROR), ("Deleting", Status.SKIPPED)]
)
async def test_a_vm_of_a_pool_that_is_not_there_any_more(arm: Arm, azure: Azure, state: str, status: Status) -> None:
    cluster = await one_cluster(arm, azure, pool("sets", count=0), vms_pool(1))
    arm.on("GET", SETS, Answer(200, {"value": []}))
    left = vm("left", {"aks-managed-poolName": "old"}, provisioningState=state)
    # One that is tagged with a pool of scale sets is none of its nodes.
    holds(arm, vm("one", OF_VMS), left, vm("odd", {"aks-managed-poolName": "sets"}))
    nodes, problems = await list_nodes(azure, cluster)
    assert [node.name for node in nodes] == ["one"]
    assert told(problems) == [("old", "pool_unknown", status)]


async def test_a_vm_with_a_strange_name_is_asked_for_nothing(arm: Arm, azure: Azure) -> None:
    cluster = await one_cluster(arm, azure, vms_pool(2))
    holds(arm, vm("one", OF_VMS), vm("../one", OF_VMS))
    nodes, problems = await list_nodes(azure, cluster)
    assert [node.name for node in nodes] == ["one"]
    assert told(problems) == [("vms", "malformed", Status.ERROR)]


@pytest.mark.parametrize("field", ["tags", "properties", "id", "location"])
@pytest.mark.parametrize("value", [None, 7, [], "x"])
async def test_no_field_of_a_vm_loses_the_others(arm: Arm, azure: Azure, field: str, value: object) -> None:
    cluster = await one_cluster(arm, azure, vms_pool(2))
    holds(arm, vm("one", OF_VMS), vm("two", OF_VMS) | {field: value})
    nodes, problems = await list_nodes(azure, cluster)
    lost = field == "tags"
    assert [node.instance_id for node in nodes] == (["one"] if lost else ["one", "two"])
    assert [code for _, code, _ in told(problems)] == (["vms_missing"] if lost else [])


def single(**changes: Any) -> Node:
    return a_node(scale_set="", instance_id="aks-vms-1-vms1", name="aks-vms-1-vms1", node_pool="vms", **changes)


async def test_a_vm_is_read_afresh_by_one_get(arm: Arm, azure: Azure) -> None:
    now = vm("AKS-vms-1-vms1", OF_VMS, provisioningState="Updating")
    now["properties"]["instanceView"] = vm_state("x", "stopped")["properties"]["instanceView"]

    def answer(seen: Seen) -> Answer:
        assert seen.query["$expand"] == "instanceView"
        return Answer(200, now)

    arm.on("GET", f"{VMS}/aks-vms-1-vms1", answer)
    found = await azure.node(single())
    assert isinstance(found, Node)
    assert (found.power, found.provisioning, found.key) == ("stopped", "Updating", single().key)
    assert azure.stats.calls == {"vm": 1}
    now["name"] = "another"
    other = await azure.node(single())
    assert isinstance(other, Problem)
    assert other.code == "malformed"
    arm.on("GET", f"{VMS}/aks-vms-1-vms1", Answer(404, error("ResourceNotFound", "gone")))
    gone = await azure.node(single())
    assert isinstance(gone, Problem)
    assert (gone.status, gone.code) == (Status.SKIPPED, "vanished")
    arm.on("GET", f"{VMS}/aks-vms-1-vms1", Answer(403, error("AuthorizationFailed", "no")))
    refused = await azure.node(single())
    assert isinstance(refused, Problem)
    assert "Microsoft.Compute/virtualMachines/read" in refused.reason


async def test_a_command_goes_to_the_vm(arm: Arm, azure: Azure) -> None:
    arm.on("POST", f"{VMS}/aks-vms-1-vms1/runcommand", accepted())
    started = await azure.start(single(), "true", None, 1)
    assert not isinstance(started, Problem)
    assert arm.seen[-1].body == {"commandId": "RunShellScript", "script": ["true"]}
    assert azure.stats.calls == {"vm_run_command": 1}
    refusal = Answer(403, error("AuthorizationFailed", "no"))
    arm.on("POST", f"{VMS}/aks-vms-1-vms1/runcommand", refusal)
    refused = await azure.start(single(), "true", None, 1)
    assert isinstance(refused, Problem)
    assert "may not do Microsoft.Compute/virtualMachines/runCommand/action" in refused.reason
    arm.on("POST", f"{VMS}/aks-vms-1-vms1/runcommand", Answer(404, error("ResourceNotFound", "gone")))
    gone = await azure.start(single(), "true", None, 1)
    assert isinstance(gone, Problem)
    assert (gone.status, gone.code) == (Status.SKIPPED, "vanished")


async def test_the_two_kinds_are_paced_apart(arm: Arm, azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(azure._arm.throttle, "_clock", lambda: now)  # a bucket fills while a slow machine answers
    arm.on("POST", f"{VMS}/aks-vms-1-vms1/runcommand", accepted())
    arm.on("POST", f"{INSTANCES}/0/runcommand", accepted())
    await azure.start(single(), "true", None, 1)
    await azure.start(a_node(), "true", None, 1)
    share = azure.settings.budget_percent / 100
    assert azure.levels(SUBSCRIPTION) == {
        "": pytest.approx(200 * share - 2),  # both are writes to Resource Manager
        "westeurope": pytest.approx(1500 * share - 1),
        "westeurope/single": pytest.approx(1500 * share - 1),
    }


@pytest.mark.parametrize(
    ("item", "count"),
    [
        (vms_pool(3), 3),
        (vms_pool(3, count=7), 7),
        (vms_pool(3, virtualMachineNodesStatus=[{"count": 2}, {"count": 4}, None, {"count": "x"}]), 6),
        (vms_pool(3, virtualMachineNodesStatus=None), None),
    ],
)
def test_how_many_nodes_a_pool_of_vms_has(item: dict[str, Any], count: int | None) -> None:
    assert pool_of(item).count == count


def test_what_is_being_created_for_long_is_no_node_that_does_not_run() -> None:
    young, old = datetime.now(UTC) - timedelta(minutes=10), datetime.now(UTC) - timedelta(hours=2)
    cases = [
        ("running", young, Status.SKIPPED),
        ("running", None, Status.SKIPPED),
        ("running", old, Status.ERROR),
        ("", old, Status.SKIPPED),
        ("stopped", old, Status.SKIPPED),
    ]
    for power, created, status in cases:
        met = precheck(single(power=power, provisioning="Creating", created=created))
        assert met is not None
        assert met.status is status
