"""Findings, runs and histories to store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from shared.models import Finding, History, Node, Run, RunKind, RunState, Status, instance_resource_id

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
RUN = "20260131T120000Z-a1b2c3"
SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"


def finding(n: int = 0, **changes: Any) -> Finding:
    values: dict[str, Any] = {
        "run_id": RUN,
        "observed": NOON,
        "control": "3.2.6",
        "title": "Ensure that the --make-iptables-util-chains argument is set to true",
        "severity": "medium",
        "status": Status.PASS,
        "subscription": SUBSCRIPTION,
        "resource_group": "Prod-RG",
        "cluster": "Prod",
        "location": "westeurope",
        "node_pool": "system",
        "scale_set": "aks-system-12345678-vmss",
        "instance_id": str(n),
        "node": f"aks-system-12345678-vmss{n:06d}",
        "actual": True,
        "expected": True,
        "source": "flag --make-iptables-util-chains in /etc/default/kubelet",
        "reason": "The kubelet runs with makeIPTablesUtilChains=true.",
    }
    return Finding(**{**values, **changes})


def run(run_id: str = RUN, **changes: Any) -> Run:
    values: dict[str, Any] = {"id": run_id, "kind": RunKind.AUDIT, "state": RunState.RUNNING, "started": NOON}
    return Run(**{**values, **changes})


def node_key(n: int = 0, subscription: str = SUBSCRIPTION) -> str:
    return (
        f"/subscriptions/{subscription}/resourcegroups/mc_prod/providers/microsoft.compute"
        f"/virtualmachinescalesets/aks-system-12345678-vmss/virtualmachines/{n}"
    )


def machine_id(name: str, scale_set: str = "aks-system-12345678-vmss", group: str = "MC_Prod") -> str:
    """An instance's resource id; of a single VM where `scale_set` is empty."""
    return instance_resource_id(SUBSCRIPTION, group, scale_set, name)


def node(n: int = 0, **changes: Any) -> Node:
    values: dict[str, Any] = {
        "subscription": SUBSCRIPTION,
        "resource_group": "Prod-RG",
        "cluster": "Prod",
        "location": "westeurope",
        "node_pool": "system",
        "node_resource_group": "MC_Prod",
        "scale_set": "aks-system-12345678-vmss",
        "instance_id": str(n),
        "name": f"aks-system-12345678-vmss{n:06d}",
        "os": "Linux",
        "power": "running",
        "provisioning": "Succeeded",
        "kubernetes_version": "1.34.2",
        "node_image_version": "AKSUbuntu-2204gen2containerd-202601.13.0",
        "created": NOON,
        "cluster_provisioning": "Succeeded",
        "pool_provisioning": "Succeeded",
        "locked": False,
    }
    return Node(**{**values, **changes})


def history(n: int = 0, **changes: Any) -> History:
    values: dict[str, Any] = {
        "node_key": node_key(n),
        "control": "3.2.6",
        "status": Status.PASS,
        "seen": NOON,
        "last_right": NOON,
        "last_fixed": None,
        "node_image_version": "AKSUbuntu-2204gen2containerd-202601.13.0",
        "created": NOON,
        "since": NOON,
    }
    return History(**{**values, **changes})
