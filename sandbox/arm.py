"""The bodies of Azure Resource Manager's answers, in the shapes of the public REST specifications.

Microsoft.Resources 2022-12-01, Microsoft.ContainerService 2026-08-01, Microsoft.Compute 2026-04-01. Pure.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from sandbox.fleet import LISTENING, AutoPool, Cluster, Fleet, Member, Pool, Subscription, scale_set_name
from sandbox.identity import CLIENT, PRINCIPAL, TENANT
from sandbox.states import STATES

Body = dict[str, Any]
_CREATED = "2026-0{month}-{day:02d}T0{hour}:17:42.3312107+00:00"


def error(code: str, message: str, **more: object) -> Body:
    """Resource Manager's error body."""
    return {"error": {"code": code, "message": message, **more}}


def subscription(item: Subscription) -> Body:
    """One entry of GET /subscriptions."""
    return {
        "id": f"/subscriptions/{item.id}",
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionId": item.id,
        "tenantId": TENANT,
        "displayName": item.name,
        "state": "Enabled",
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "EnterpriseAgreement_2014-09-01",
            "spendingLimit": "Off",
        },
    }


def cluster_id(owner: Subscription, item: Cluster) -> str:
    """A managed cluster's resource id. AKS itself spells the group's segment in lower case."""
    group = f"/subscriptions/{owner.id}/resourcegroups/{item.resource_group}"
    return f"{group}/providers/Microsoft.ContainerService/managedClusters/{item.name}"


def fqdn(item: Cluster) -> str:
    """The name of a cluster's API server."""
    if item.fqdn or item.api_server in LISTENING:
        return item.fqdn or "localhost"
    return f"{item.name}-{zlib.crc32(item.name.encode()):08x}.hcp.{item.location}.azmk8s.io"


def cluster(owner: Subscription, item: Cluster) -> Body:
    """A managed cluster with its agent pool profiles."""
    properties: Body = {
        "provisioningState": item.provisioning,
        "powerState": {"code": item.power},
        "kubernetesVersion": item.version,
        "currentKubernetesVersion": item.version,
        "dnsPrefix": item.name,
        "fqdn": fqdn(item),
        "agentPoolProfiles": [_pool(item, pool) for pool in item.pools],
        "servicePrincipalProfile": {"clientId": "msi"},
        "nodeResourceGroup": item.node_group,
        "enableRBAC": True,
        "supportPlan": "KubernetesOfficial",
        "networkProfile": {
            "networkPlugin": "azure",
            "networkPluginMode": "overlay",
            "networkPolicy": "cilium",
            "networkDataplane": "cilium",
            "loadBalancerSku": "standard",
            "podCidr": "10.244.0.0/16",
            "serviceCidr": "10.0.0.0/16",
            "dnsServiceIP": "10.0.0.10",
            "outboundType": "loadBalancer",
        },
        "maxAgentPools": 100,
        "autoUpgradeProfile": {"upgradeChannel": "patch", "nodeOSUpgradeChannel": "NodeImage"},
        "disableLocalAccounts": True,
        "oidcIssuerProfile": {"enabled": False},
    }
    if item.entra:
        properties["aadProfile"] = {"managed": True, "enableAzureRBAC": False, "tenantID": TENANT}
    if item.command_invoke == "disabled":
        properties["apiServerAccessProfile"] = {"disableRunCommand": True}
    auto = {"mode": "Manual"} if item.auto_pools is None else {"mode": "Auto", "defaultNodePools": "Auto"}
    properties["nodeProvisioningProfile"] = auto
    if item.lockdown:
        properties["nodeResourceGroupProfile"] = {"restrictionLevel": "ReadOnly"}
    return {
        "id": cluster_id(owner, item),
        "location": item.location,
        "name": item.name,
        "type": "Microsoft.ContainerService/ManagedClusters",
        "tags": {"environment": "production"},
        "properties": properties,
        "identity": {"type": "SystemAssigned", "principalId": PRINCIPAL, "tenantId": TENANT},
        "sku": {"name": "Base", "tier": "Standard"},
    }


def _pool(owner: Cluster, pool: Pool) -> Body:
    version = pool.version or owner.version
    stopped = "Stopped" in (owner.power, pool.power)
    body: Body = {
        "name": pool.name,
        "vmSize": pool.size,
        "osDiskSizeGB": 128,
        "osDiskType": "Ephemeral",
        "kubeletDiskType": "OS",
        "maxPods": 110,
        "type": pool.kind,
        "enableAutoScaling": False,
        "provisioningState": pool.provisioning,
        "powerState": {"code": "Stopped" if stopped else "Running"},
        "orchestratorVersion": version,
        "currentOrchestratorVersion": version,
        "enableNodePublicIP": False,
        "mode": pool.mode,
        "osType": pool.os,
        "osSKU": "Ubuntu" if pool.os == "Linux" else "Windows2022",
        "nodeImageVersion": pool.image,
        "enableFIPS": False,
    }
    if pool.kind == "VirtualMachines":
        body["virtualMachinesProfile"] = {"scale": {"manual": [{"size": pool.size, "count": pool.count}]}}
        body["virtualMachineNodesStatus"] = [{"size": pool.size, "count": pool.count}]
    else:
        body["count"] = pool.count
    if pool.spot:
        body |= {"scaleSetPriority": "Spot", "scaleSetEvictionPolicy": "Delete", "spotMaxPrice": -1.0}
    return body


def compute_scope(owner: Subscription, item: Cluster) -> str:
    """The path under which Compute keeps a cluster's resources: its node resource group."""
    return f"/subscriptions/{owner.id}/resourceGroups/{item.node_group}/providers/Microsoft.Compute"


def scale_set(owner: Subscription, item: Cluster, pool: Pool) -> Body:
    """A pool's virtual machine scale set."""
    name = scale_set_name(owner, item, pool)
    number = zlib.crc32(name.encode())
    return {
        "name": name,
        "id": f"{compute_scope(owner, item)}/virtualMachineScaleSets/{name}",
        "type": "Microsoft.Compute/virtualMachineScaleSets",
        "location": item.location,
        "tags": _tags(item, pool),
        "sku": {"name": pool.size, "tier": "Standard", "capacity": pool.count},
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {}},
        "properties": {
            "singlePlacementGroup": False,
            "orchestrationMode": "Uniform",
            "upgradePolicy": {"mode": "Manual"},
            "virtualMachineProfile": {
                "osProfile": {"computerNamePrefix": name, "adminUsername": "azureuser"},
                "storageProfile": {"imageReference": _image(pool)},
                "priority": "Spot" if pool.spot else "Regular",
                "timeCreated": _created(number),
            },
            "provisioningState": "Succeeded",
            "overprovision": False,
            "doNotRunExtensionsOnOverprovisionedVMs": False,
            "uniqueId": uuid(name),
            "platformFaultDomainCount": 1,
            "timeCreated": _created(number),
        },
    }


def instance(member: Member, view: bool) -> Body:
    """One instance of a scale set, with its instance view where `view` is set."""
    properties: Body = {
        "latestModelApplied": True,
        "modelDefinitionApplied": "VirtualMachineScaleSet",
        **_machine(member),
    }
    if view:
        properties["instanceView"] = instance_view(member)
    return {
        "name": f"{member.scale_set}_{member.instance_id}",
        "id": member_id(member),
        "type": "Microsoft.Compute/virtualMachineScaleSets/virtualMachines",
        "location": member.cluster.location,
        "tags": _tags(member.cluster, member.pool),
        "instanceId": member.instance_id,
        "sku": {"name": member.pool.size, "tier": "Standard"},
        "properties": properties,
    }


def member_id(member: Member) -> str:
    """A node's resource id."""
    return f"{compute_scope(member.subscription, member.cluster)}/{member.resource}"


def _machine(member: Member) -> Body:
    """What instances and VMs have in common."""
    return {
        "vmId": uuid(member.name),
        "hardwareProfile": {"vmSize": member.pool.size},
        "storageProfile": {
            "imageReference": _image(member.pool),
            "osDisk": {"osType": member.pool.os, "createOption": "FromImage", "caching": "ReadOnly", "diskSizeGB": 128},
            "dataDisks": [],
        },
        "osProfile": {
            "computerName": member.name,
            "adminUsername": "azureuser",
            "secrets": [],
            "allowExtensionOperations": True,
            "requireGuestProvisionSignal": True,
        },
        "provisioningState": "Succeeded",
        "timeCreated": _created(zlib.crc32(member.name.encode())),
    }


def vm(member: Member, *, view: bool) -> Body:
    """A single VM, with its instance view where `view` is set."""
    properties = _machine(member)
    if isinstance(member.pool, AutoPool):
        tags = {
            "compute.aks.billing": "linux",
            "karpenter.azure.com_cluster": member.cluster.name,
            "karpenter.sh_nodepool": member.pool.name,
        }
    else:
        tags = {**_tags(member.cluster, member.pool), "aks-managed-agentpool-type": "VirtualMachines"}
    if view:
        properties["instanceView"] = instance_view(member)
    return _vm(member.name, member_id(member), member.cluster.location, tags, properties)


def other_vm(owner: Subscription, item: Cluster, name: str) -> Body:
    """A VM that is no node."""
    disk = {"imageReference": {"publisher": "Debian", "offer": "debian-12"}, "osDisk": {"osType": "Linux"}}
    properties: Body = {
        "vmId": uuid(name),
        "storageProfile": disk,
        "provisioningState": "Succeeded",
        "timeCreated": _created(zlib.crc32(name.encode())),
    }
    tags = {"owner": "network team"}
    return _vm(name, f"{compute_scope(owner, item)}/virtualMachines/{name}", item.location, tags, properties)


def vm_status(listed: Body, power: str) -> Body:
    """A VM as the list of a subscription gives it with `statusOnly=true`, which spells resource groups in capitals."""
    *_, subscription, _, group, _, provider, kind, name = listed["id"].split("/")
    statuses = [
        {"code": "ProvisioningState/succeeded", "level": "Info", "displayStatus": "Provisioning succeeded"},
        {"code": f"PowerState/{power}", "level": "Info", "displayStatus": f"VM {power}"},
    ]
    return {
        "name": name,
        "id": f"/subscriptions/{subscription}/resourceGroups/{group.upper()}/providers/{provider}/{kind}/{name}",
        "type": listed["type"],
        "location": listed["location"],
        "properties": {
            "vmId": listed["properties"]["vmId"],
            "provisioningState": listed["properties"]["provisioningState"],
            "instanceView": {"statuses": statuses},
        },
    }


def _vm(name: str, resource_id: str, location: str, tags: Body, properties: Body) -> Body:
    return {
        "name": name,
        "id": resource_id,
        "type": "Microsoft.Compute/virtualMachines",
        "location": location,
        "tags": tags,
        "properties": properties,
    }


def instance_view(member: Member) -> Body:
    """The instance view: provisioning and power state, and the agent where it reports."""
    power = power_state(member)
    view: Body = {
        "statuses": [
            {
                "code": "ProvisioningState/succeeded",
                "level": "Info",
                "displayStatus": "Provisioning succeeded",
                "time": _created(zlib.crc32(member.name.encode())),
            },
            {"code": f"PowerState/{power}", "level": "Info", "displayStatus": f"VM {power}"},
        ],
    }
    if member.scale_set:
        view |= {"platformUpdateDomain": int(member.instance_id) % 5, "platformFaultDomain": 0}
    if power == "running":
        view |= {"computerName": member.name, "hyperVGeneration": "V2"}
        ready = STATES[member.state].command != "dead_agent"
        status = (
            {"code": "ProvisioningState/succeeded", "level": "Info", "displayStatus": "Ready"}
            if ready
            else {"code": "ProvisioningState/Unavailable", "level": "Warning", "displayStatus": "Not Ready"}
        )
        view["vmAgent"] = {"vmAgentVersion": "2.14.0.1" if ready else "Unknown", "statuses": [status]}
    return view


def power_state(member: Member) -> str:
    """The instance's power state without its prefix. Instances of a stopped cluster or pool are deallocated."""
    stopped = "Stopped" in (member.cluster.power, member.pool.power)
    return "deallocated" if stopped else STATES[member.state].power


def page(items: Sequence[Body], next_link: str | None, **more: object) -> Body:
    """One page of a list."""
    return {"value": list(items), **more, **({"nextLink": next_link} if next_link else {})}


def whole(fleet: Fleet) -> Body:
    """What GET /subscriptions says besides its page."""
    return {"count": {"type": "Total", "value": len(fleet.subscriptions)}}


def _tags(item: Cluster, pool: Pool | AutoPool) -> dict[str, str]:
    return {
        "aks-managed-cluster-name": item.name,
        "aks-managed-cluster-rg": item.resource_group,
        "aks-managed-coordination": "true",
        "aks-managed-createOperationID": uuid(f"{item.name}/{pool.name}"),
        "aks-managed-kubeletIdentityClientID": CLIENT,
        "aks-managed-orchestrator": f"Kubernetes:{pool.version or item.version}",
        "aks-managed-poolName": pool.name,
        "aks-managed-resourceNameSuffix": f"{zlib.crc32(item.name.encode()) % 10**8:08d}",
        "aks-managed-ssh-access": "LocalUser",
    }


def _image(pool: Pool | AutoPool) -> Body:
    sku, _, version = pool.image.partition("-")[2].partition("-")
    if isinstance(pool, AutoPool):
        gallery = "/CommunityGalleries/AKSUbuntu-38d80f77-467a-481f-a8d4-09b6d4220bd2"
        return {"communityGalleryImageId": f"{gallery}/images/{sku}/versions/{version}"}
    gallery = "/subscriptions/109a5e88-712a-48ae-9078-9ca8b3c81345/resourceGroups/AKS-Ubuntu/providers"
    return {"id": f"{gallery}/Microsoft.Compute/galleries/AKSUbuntu/images/{sku}/versions/{version}"}


def _created(number: int) -> str:
    return _CREATED.format(month=1 + number % 9, day=1 + number % 28, hour=number % 10)


def uuid(text: str) -> str:
    """A UUID that stands for this text."""
    number = zlib.crc32(text.encode())
    return f"{number:08x}-{number % 0xFFFF:04x}-4{number % 0xFFF:03x}-a{number % 0xFEE:03x}-{number * 4099:012x}"
