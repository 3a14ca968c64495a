"""Nodes and findings as values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from shared.models import Finding, Node, Status
from shared.runs.model.request import FixRequest, RunRequest

CHAINS = "3.2.6"
"""The control of most tests of the engine, which does the same for all."""
AUDIT, FIX = RunRequest(controls=(CHAINS,)), FixRequest(controls=(CHAINS,))

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def node(number: int, location: str = "westeurope") -> Node:
    return Node(
        subscription="5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1",
        resource_group="rg",
        cluster="aks",
        location=location,
        node_pool="np1",
        node_resource_group="MC_rg_aks",
        scale_set="vmss",
        instance_id=str(number),
        name=f"node{number:06}",
        os="Linux",
        power="running",
        provisioning="Succeeded",
        kubernetes_version="1.33.5",
        node_image_version="image-1",
        created=NOW,
        cluster_provisioning="Succeeded",
        pool_provisioning="Succeeded",
        locked=False,
    )


def finding(status: Status, **changes: Any) -> Finding:
    made = Finding(
        run_id="r", observed=NOW, control="3.2.6", title="t", severity="medium", status=status,
        subscription="s", resource_group="rg", cluster="aks", location="l", node_pool="np1", scale_set="vmss",
        instance_id="0", node="node", actual=None, expected=True, source="", reason="why",
        node_image_version="image-1", node_created=NOW,
    )  # fmt: skip
    return replace(made, **changes)
