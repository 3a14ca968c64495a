"""Resource Manager's calls, with the real SDK clients."""

from __future__ import annotations

import json

import aiohttp
import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError, ServiceRequestError

from sandbox import Fault, parse, serve
from tests.support.fleets import GROUP, SUBSCRIPTION, azure, code, fleet

CLUSTERS = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/managedClusters"


async def test_lists_come_in_pages_and_have_the_shapes_that_the_sdk_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    states = ["compliant_default"] * 4 + ["deallocated", "stopped", "dead_agent"]
    async with serve(fleet(*states, pool="spot: true,", page_size=2)) as box, azure(box, monkeypatch) as clients:
        assert [item.subscription_id async for item in clients.subscriptions.subscriptions.list()] == [SUBSCRIPTION]
        (cluster,) = [item async for item in clients.clusters.managed_clusters.list()]
        assert (cluster.name, cluster.location, cluster.node_resource_group) == ("aks-one", "westeurope", GROUP)
        assert cluster.power_state is not None
        assert cluster.power_state.code == "Running"
        assert cluster.agent_pool_profiles is not None
        pool = cluster.agent_pool_profiles[0]
        assert (pool.name, pool.count, pool.os_type) == ("pool1", 7, "Linux")
        assert (pool.type, pool.scale_set_priority) == ("VirtualMachineScaleSets", "Spot")
        (scale_set,) = [item async for item in clients.compute.virtual_machine_scale_sets.list(GROUP)]
        assert scale_set.tags is not None
        assert scale_set.tags["aks-managed-poolName"] == "pool1"
        assert scale_set.sku is not None
        assert scale_set.sku.capacity == 7
        machines = clients.compute.virtual_machine_scale_set_vms
        found = [item async for item in machines.list(GROUP, clients.scale_set, expand="instanceView")]
        assert [item.instance_id for item in found] == [str(number) for number in range(7)]
        powers = [item.instance_view.statuses[-1].code for item in found]
        assert powers == ["PowerState/running"] * 4 + [
            "PowerState/deallocated",
            "PowerState/stopped",
            "PowerState/running",
        ]
        assert found[0].os_profile.computer_name == clients.node(0)
        assert found[0].time_created.year == 2026
        bare = [item async for item in machines.list(GROUP, clients.scale_set)]
        assert all(item.instance_view is None for item in bare)
        assert box.stats()["calls"]["instances.list"] == 8
        assert box.stats()["calls"]["token"] == 1


async def test_single_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("compliant_default", "vanished")) as box, azure(box, monkeypatch) as clients:
        cluster = await clients.clusters.managed_clusters.get("RG-ONE", "AKS-ONE")
        assert cluster.current_kubernetes_version == "1.33.2"
        scale_set = await clients.compute.virtual_machine_scale_sets.get(GROUP.upper(), clients.scale_set.upper())
        assert scale_set.name == clients.scale_set
        machines = clients.compute.virtual_machine_scale_set_vms
        machine = await machines.get(GROUP, clients.scale_set, "0", expand="instanceView")
        assert machine.instance_view is not None
        view = await machines.get_instance_view(GROUP, clients.scale_set, "0")
        assert view.statuses is not None
        assert view.statuses[-1].code == "PowerState/running"
        for instance in ("1", "7"):
            with pytest.raises(ResourceNotFoundError) as caught:
                await machines.get(GROUP, clients.scale_set, instance)
            assert code(caught.value) == "ResourceNotFound"


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/subscriptions/00000000-0000-4000-8000-000000000000/providers/{aks}", 404, "SubscriptionNotFound"),
        ("/subscriptions/{sub}/resourceGroups/none/providers/{aks}/x", 404, "ResourceGroupNotFound"),
        ("/subscriptions/{sub}/resourceGroups/rg-one/providers/{aks}/x", 404, "ResourceNotFound"),
        ("/subscriptions/{sub}/resourceGroups/none/providers/{vmss}", 404, "ResourceGroupNotFound"),
        ("/subscriptions/{sub}/resourceGroups/{group}/providers/{vmss}/none", 404, "ResourceNotFound"),
        ("/subscriptions/{sub}/providers/Microsoft.Compute/locations/westeurope/operations/x", 404, "NotFound"),
        ("/subscriptions/{sub}/nonsense", 404, "InvalidResourceType"),
    ],
)
async def test_what_is_not_there(path: str, status: int, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"aks": "Microsoft.ContainerService/managedClusters", "vmss": "Microsoft.Compute/virtualMachineScaleSets"}
    filled = path.format(sub=SUBSCRIPTION, group=GROUP, **names)
    async with serve(fleet("no_kubelet")) as box, azure(box, monkeypatch) as clients:
        answer = await clients.send("GET", f"{filled}?api-version=2026-04-01")
        assert answer.status == status
        assert answer.code() == error
        assert "x-ms-request-id" in answer.headers


async def test_api_version_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("no_kubelet")) as box, azure(box, monkeypatch) as clients:
        answer = await clients.send("GET", CLUSTERS)
        assert (answer.status, answer.code()) == (400, "MissingApiVersionParameter")


async def test_no_call_without_a_token_of_this_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("no_kubelet")) as box, azure(box, monkeypatch) as clients:
        elsewhere = await clients.credential.get_token("https://vault.azure.net/.default")
        url = f"{box.endpoint}{CLUSTERS}?api-version=2026-08-01"
        wrong = {"": "AuthenticationFailed", "Bearer nonsense": "InvalidAuthenticationToken"}
        wrong[f"Bearer {elsewhere.token}"] = "InvalidAuthenticationToken"
        for authorization, error in wrong.items():
            headers = {"Authorization": authorization} if authorization else {}
            async with clients.http.get(url, headers=headers) as answer:
                assert answer.status == 401
                assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
                assert (await answer.json())["error"]["code"] == error
        assert (await clients.send("GET", url)).status == 200


async def test_the_identity_endpoint_wants_its_header_version_and_a_resource() -> None:
    async with serve(fleet("no_kubelet")) as box, aiohttp.ClientSession() as http:
        url, secret = box.environ["IDENTITY_ENDPOINT"], {"X-IDENTITY-HEADER": box.environ["IDENTITY_HEADER"]}
        asked = f"{url}?resource={box.endpoint}&api-version=2019-08-01"
        for address, headers, status in (
            (asked, {}, 401),
            (asked, {"X-IDENTITY-HEADER": "x"}, 401),
            (f"{url}?resource={box.endpoint}", secret, 400),
            (f"{url}?api-version=2019-08-01", secret, 400),
        ):
            async with http.get(address, headers=headers) as answer:
                assert answer.status == status
        async with http.get(asked, headers=secret) as answer:
            body = await answer.json()
        assert body["token_type"] == "Bearer"
        assert int(body["expires_on"]) > 0
        assert body["access_token"].count(".") == 2


async def test_a_forbidden_subscription_is_listed_and_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = parse(f"subscriptions: [{{id: {SUBSCRIPTION}, name: Closed, forbidden: true}}]")
    async with serve(closed) as box, azure(box, monkeypatch) as clients:
        assert len([item async for item in clients.subscriptions.subscriptions.list()]) == 1
        with pytest.raises(HttpResponseError) as caught:
            [item async for item in clients.clusters.managed_clusters.list()]
        assert caught.value.status_code == 403
        assert code(caught.value) == "AuthorizationFailed"


async def test_stopped_locked_and_other_pools_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"""
subscriptions:
- id: {SUBSCRIPTION}
  name: One
  clusters:
  - name: stopped
    resource_group: rg
    location: eastus
    version: 1.31.1
    power: Stopped
    pools: [{{name: p, nodes: [{{state: no_kubelet}}]}}]
  - name: locked
    resource_group: rg
    location: eastus
    version: 1.34.0
    lockdown: true
    pools: [{{name: vms, kind: VirtualMachines, nodes: [{{state: compliant_default, count: 3}}]}}]
"""
    async with serve(parse(text)) as box, azure(box, monkeypatch) as clients:
        stopped, locked = [item async for item in clients.clusters.managed_clusters.list()]
        assert stopped.power_state is not None
        assert stopped.power_state.code == "Stopped"
        assert locked.node_resource_group_profile is not None
        assert locked.node_resource_group_profile.restriction_level == "ReadOnly"
        assert locked.agent_pool_profiles is not None
        assert locked.agent_pool_profiles[0].type == "VirtualMachines"
        assert not [item async for item in clients.compute.virtual_machine_scale_sets.list("MC_rg_locked_eastus")]
        group = "MC_rg_stopped_eastus"
        (scale_set,) = [item async for item in clients.compute.virtual_machine_scale_sets.list(group)]
        vms = clients.compute.virtual_machine_scale_set_vms
        (machine,) = [item async for item in vms.list(group, str(scale_set.name), expand="instanceView")]
        assert machine.instance_view.statuses[-1].code == "PowerState/deallocated"


async def test_past_a_limit_calls_are_refused_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("no_kubelet")) as box, azure(box, monkeypatch) as clients:
        path = f"{clients.path(0)}?api-version=2026-04-01"
        answers = [await clients.send("GET", path) for _ in range(37)]
        assert [answer.status for answer in answers] == [200] * 36 + [429]
        assert answers[0].headers["x-ms-ratelimit-remaining-subscription-reads"] == "249"
        assert answers[0].headers["x-ms-ratelimit-remaining-resource"] == (
            "Microsoft.Compute/GetVMScaleSetVMResource;35,Microsoft.Compute/GetVMScaleSetVMSubscription;5999"
        )
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 5
        assert answers[-1].json()["error"]["details"][0]["code"] == "TooManyRequests"
        assert box.stats()["throttled"] == {"Microsoft.Compute/GetVMScaleSetVMResource": 1}
    async with serve(fleet("no_kubelet"), throttle=False) as box, azure(box, monkeypatch) as clients:
        assert {(await clients.send("GET", path)).status for _ in range(60)} == {200}


async def test_resource_manager_refuses_past_its_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("no_kubelet")) as box, azure(box, monkeypatch) as clients:
        refused = None
        for _ in range(1500):
            answer = await clients.send("GET", f"{CLUSTERS}?api-version=2026-08-01")
            if answer.status != 200:
                refused = answer
                break
        assert refused is not None
        assert refused.status == 429
        assert refused.code() == "SubscriptionRequestsThrottled"
        assert box.stats()["statuses"]["200"] >= 250


async def test_faults_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("no_kubelet")) as box, azure(box, monkeypatch) as clients:

        async def status() -> int:
            return (await clients.send("GET", f"{CLUSTERS}?api-version=2026-08-01")).status

        box.inject(Fault("clusters.list", count=2, status=503, code="ServerBusy", headers={"Retry-After": "1"}))
        assert [await status() for _ in range(3)] == [503, 503, 200]
        for drop in ("before", "after"):
            # aiohttp itself repeats a GET whose kept connection went away, so once would not be seen.
            fault = json.dumps({"kind": "*", "drop": drop, "count": 3})
            async with clients.http.post(f"{box.endpoint}/sandbox/faults", data=fault) as answer:
                assert answer.status == 204
            with pytest.raises(ServiceRequestError):
                [item async for item in clients.clusters.managed_clusters.list()]
            box.faults.clear()
        assert await status() == 200
        box.inject(Fault("clusters.list", path="/no/such/path", status=500))
        assert await status() == 200
        async with clients.http.delete(f"{box.endpoint}/sandbox/faults") as answer:
            assert answer.status == 204
        async with clients.http.post(f"{box.endpoint}/sandbox/faults", data='{"kind": "x", "what": 1}') as answer:
            assert answer.status == 400
            assert "what" in await answer.text()
        async with clients.http.get(f"{box.endpoint}/sandbox/stats") as answer:
            assert (await answer.json())["statuses"]["503"] == 2
