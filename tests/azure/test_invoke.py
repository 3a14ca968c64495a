"""Command invoke on a scripted Resource Manager: what each answer comes to."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.azure import Azure, Invoked, Pending
from shared.azure.invoke import CLUSTER_SCOPE, read_answer
from shared.azure.problems import Fault
from shared.models import Cluster, Problem
from tests.support.arm import SUBSCRIPTION, Answer, Arm, Token

PLACE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-shop/providers/Microsoft.ContainerService/managedClusters/shop"
)
RESULT = f"{PLACE}/commandResults/0123"


def a_cluster(**changes: Any) -> Cluster:
    base = Cluster(
        id=PLACE,
        subscription=SUBSCRIPTION,
        resource_group="rg-shop",
        name="shop",
        location="westeurope",
        power="Running",
        provisioning="Succeeded",
        node_resource_group="MC_rg_shop_westeurope",
        locked=False,
        kubernetes_version="1.36.3",
        pools=(),
    )
    return replace(base, **changes)
