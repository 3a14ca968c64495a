"""Single VMs of a node resource group, with the real SDK clients."""

from __future__ import annotations

import asyncio

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.mgmt.compute.models import RunCommandInput

from sandbox import Fleet, serve
from sandbox.throttle import GET_SINGLE_VM, LIST_SINGLE_VMS, UPDATE_SINGLE_VM, Call, Throttle
from tests.sandbox.test_throttle import passed
from tests.support.fleets import GROUP, SUBSCRIPTION, Azure, azure, code, fleet, until

AUTO = "auto_pools: [{name: burst, nodes: [{state: compliant_default}]}], other_vms: [bastion], "
COMPUTE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Compute/virtualMachines"


def of_vms(*states: str, **settings: object) -> Fleet:
    return fleet(*states, pool="kind: VirtualMachines, ", cluster=AUTO, **settings)


def names(clients: Azure) -> list[str]:
    return [instance.member.name for instance in clients.box.compute.instances.values()]


async def test_the_list_of_a_group_has_tags_and_no_power(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(of_vms("false_flag", "stopped", page_size=2)) as box, azure(box, monkeypatch) as clients:
        (cluster,) = [item async for item in clients.clusters.managed_clusters.list()]
        assert cluster.node_provisioning_profile is not None
        assert cluster.node_provisioning_profile.mode == "Auto"
        assert cluster.agent_pool_profiles is not None
        (pool,) = cluster.agent_pool_profiles
        assert (pool.type, pool.count) == ("VirtualMachines", None)
        assert pool.virtual_machine_nodes_status is not None
        assert [item.count for item in pool.virtual_machine_nodes_status] == [2]
        found = [item async for item in clients.compute.virtual_machines.list(GROUP)]
        assert [item.name for item in found] == [*names(clients), "bastion"]
        assert all(item.instance_view is None for item in found)
        tags = [item.tags or {} for item in found]
        assert [tag.get("aks-managed-poolName") for tag in tags] == ["pool1", "pool1", None, None]
        assert [tag.get("karpenter.sh_nodepool") for tag in tags] == [None, None, "burst", None]
        assert found[2].storage_profile is not None
        assert found[2].storage_profile.image_reference is not None
        assert str(found[2].storage_profile.image_reference.community_gallery_image_id).startswith("/CommunityGall")
        assert box.stats()["calls"]["vms.list"] == 2


async def test_the_list_of_a_subscription_tells_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(of_vms("false_flag", "stopped", page_size=2)) as box, azure(box, monkeypatch) as clients:
        found = [item async for item in clients.compute.virtual_machines.list_all(status_only="true")]
        powers = [item.instance_view.statuses[-1].code for item in found]
        assert powers == [f"PowerState/{state}" for state in ("running", "stopped", "running", "running")]
        assert f"/resourceGroups/{GROUP.upper()}/" in str(found[0].id), "as Azure spells groups in lists"
        assert all(item.tags is None for item in found)
        plain = [item async for item in clients.compute.virtual_machines.list_all()]
        assert all(item.instance_view is None and item.tags for item in plain)
        assert box.stats()["calls"]["vms.listAll"] == 4


@pytest.mark.parametrize("group", ["", f"/resourceGroups/{GROUP}"])
async def test_no_list_is_expanded(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(of_vms("false_flag")) as box, azure(box, monkeypatch) as clients:
        path = f"/subscriptions/{SUBSCRIPTION}{group}/providers/Microsoft.Compute/virtualMachines"
        answer = await clients.send("GET", f"{path}?api-version=2026-04-01&$expand=instanceView")
        assert answer.status == 400


async def test_one_vm(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(of_vms("dead_agent", "vanished")) as box, azure(box, monkeypatch) as clients:
        first, second, _ = names(clients)
        found = await clients.compute.virtual_machines.get(GROUP.upper(), first.upper(), expand="instanceView")
        assert found.name == first
        assert found.instance_view is not None
        assert found.instance_view.vm_agent is not None
        assert (await clients.compute.virtual_machines.get(GROUP, first)).instance_view is None
        view = await clients.compute.virtual_machines.instance_view(GROUP, first)
        assert view.statuses is not None
        assert view.statuses[-1].code == "PowerState/running"
        assert (await clients.compute.virtual_machines.get(GROUP, "bastion")).tags == {"owner": "network team"}
        for name in (second, "none"):
            with pytest.raises(ResourceNotFoundError) as caught:
                await clients.compute.virtual_machines.get(GROUP, name)
            assert code(caught.value) == "ResourceNotFound"


async def test_a_command_runs_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(of_vms("false_flag")) as box, azure(box, monkeypatch) as clients:
        name = names(clients)[0]

        async def run(script: str) -> str:
            command = RunCommandInput(command_id="RunShellScript", script=script.splitlines())
            poller = await clients.compute.virtual_machines.begin_run_command(GROUP, name, command)
            result = await asyncio.wait_for(poller.result(), 60)
            assert result.value is not None
            return str(result.value[0].message)

        assert name in await run("cat $KUBELET_GUARD_ROOT/etc/hostname")
        wait = "while [ ! -e $KUBELET_GUARD_ROOT/go ]; do sleep 0.05; done"
        first = asyncio.create_task(run(f"{wait}; echo first"))
        await until(lambda: box.stats()["commands"][name] == 2)
        with pytest.raises(ResourceExistsError) as caught:
            await run("echo second")
        assert code(caught.value) == "Conflict"
        (box.node_dir(name) / "go").touch()
        assert "first" in await first
        body = {"commandId": "RunShellScript", "script": ["true"]}
        answer = await clients.send("POST", f"{COMPUTE}/{name}/runCommand?api-version=2026-04-01", json=body)
        assert answer.status == 202
        assert {"Location", "Azure-AsyncOperation"} <= answer.headers.keys()
        left = answer.headers["x-ms-ratelimit-remaining-resource"]
        assert left.startswith("Microsoft.Compute/UpdateVMResource;8,Microsoft.Compute/UpdateVMSubscription;149")
        await clients.ended(answer.headers["Location"])


@pytest.mark.parametrize(
    ("state", "status", "error", "says"),
    [
        ("forbidden", 403, "AuthorizationFailed", "Microsoft.Compute/virtualMachines/runCommand/action"),
        ("vanished", 404, "ResourceNotFound", "Microsoft.Compute/virtualMachines/aks-"),
        ("vanished_inactive", 404, "ResourceNotFound", "was not found"),
        ("stopped", 409, "OperationNotAllowed", "not running"),
    ],
)
async def test_refusals(state: str, status: int, error: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(of_vms(state)) as box, azure(box, monkeypatch) as clients:
        command = RunCommandInput(command_id="RunShellScript", script=["true"])
        with pytest.raises(HttpResponseError) as caught:
            await clients.compute.virtual_machines.begin_run_command(GROUP, names(clients)[0], command)
        assert (caught.value.status_code, code(caught.value)) == (status, error)
        assert says in str(caught.value)


def test_the_figures_are_those_of_single_vms() -> None:
    throttle = Throttle(enforced=True)
    for policy, resource, subscription in ((UPDATE_SINGLE_VM, 12, 1500), (GET_SINGLE_VM, 36, 24000)):
        call = Call("one", False, "westeurope", "node0", policy)
        assert passed(throttle, call, 0) == resource
        other = Call("one", False, "northeurope", "node0", policy)
        assert throttle.take(other, 0) is None
        left = throttle.headers(other, 0)["x-ms-ratelimit-remaining-resource"]
        assert left.endswith(f"{policy.name}Subscription;{subscription - 1}")
    lists = Call("two", False, "", "", LIST_SINGLE_VMS)
    assert throttle.take(lists, 0) is None
    assert throttle.headers(lists, 0)["x-ms-ratelimit-remaining-resource"] == (
        "Microsoft.Compute/HighCostGetVMSubscription;899"
    )
