"""The two loops that people write with the plain SDK to ask all their nodes: one after another, and all at once.

`python -m bench.peers sequential` lists clusters, scale sets and instances and waits for each run command before the
next (the loop of most published scripts). `gather` starts them all with asyncio.gather. Both leave the SDK's defaults
alone: its retries, its polling every 30 seconds. They print how many nodes answered and what the others raised; they
judge nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

_SCRIPT = (
    "ps -o args= -C kubelet",
    "grep -i makeIPTablesUtilChains /etc/default/kubeletconfig.json /etc/default/kubelet",
)
_COMMAND = {"commandId": "RunShellScript", "script": list(_SCRIPT)}


def sequential(only: int | None) -> tuple[int, Counter[str], float]:
    """One after another; gives how many nodes answered, the errors of the others by type, and the processor time when
    the first was done."""
    from azure.identity import ManagedIdentityCredential
    from azure.mgmt.compute import ComputeManagementClient
    from azure.mgmt.containerservice import ContainerServiceClient
    from azure.mgmt.resource.subscriptions import SubscriptionClient

    credential = ManagedIdentityCredential()
    answered, errors, first = 0, Counter[str](), 0.0

    def nodes() -> Iterator[tuple[Any, str, str, str]]:
        for owner in SubscriptionClient(credential, **_where()).subscriptions.list():
            compute = ComputeManagementClient(credential, str(owner.subscription_id), **_where())
            clusters = ContainerServiceClient(credential, str(owner.subscription_id), **_where()).managed_clusters
            for cluster in clusters.list():
                group = str(cluster.node_resource_group)
                for scale_set in compute.virtual_machine_scale_sets.list(group):
                    name = str(scale_set.name)
                    for instance in compute.virtual_machine_scale_set_vms.list(group, name):
                        yield compute, group, name, str(instance.instance_id)

    for number, (compute, group, name, instance_id) in enumerate(nodes()):
        if only is not None and number >= only:
            break
        try:
            poller = compute.virtual_machine_scale_set_vms.begin_run_command(group, name, instance_id, _COMMAND)
            answered += _has_output(poller.result())
        except Exception as error:  # as people write it: the loop goes on
            errors[type(error).__name__] += 1
        first = first or time.process_time()
    return answered, errors, first


async def gather() -> tuple[int, Counter[str]]:
    """All at once; gives how many nodes answered, and the errors of the others by type."""
    from azure.identity.aio import ManagedIdentityCredential
    from azure.mgmt.compute.aio import ComputeManagementClient
    from azure.mgmt.containerservice.aio import ContainerServiceClient
    from azure.mgmt.resource.subscriptions.aio import SubscriptionClient

    async def nodes(compute: Any, clusters: Any) -> AsyncIterator[tuple[str, str, str]]:
        async for cluster in clusters.managed_clusters.list():
            group = str(cluster.node_resource_group)
            async for scale_set in compute.virtual_machine_scale_sets.list(group):
                async for instance in compute.virtual_machine_scale_set_vms.list(group, str(scale_set.name)):
                    yield group, str(scale_set.name), str(instance.instance_id)

    async def ask(compute: Any, group: str, name: str, instance_id: str) -> bool:
        poller = await compute.virtual_machine_scale_set_vms.begin_run_command(group, name, instance_id, _COMMAND)
        return _has_output(await poller.result())

    async def whole(owner: Any) -> list[bool | BaseException]:
        async with (
            ComputeManagementClient(credential, str(owner.subscription_id), **_where()) as compute,
            ContainerServiceClient(credential, str(owner.subscription_id), **_where()) as clusters,
        ):
            found = [node async for node in nodes(compute, clusters)]
            return await asyncio.gather(*(ask(compute, *node) for node in found), return_exceptions=True)

    async with ManagedIdentityCredential() as credential, SubscriptionClient(credential, **_where()) as tenant:
        owners = [owner async for owner in tenant.subscriptions.list()]
        ends = [end for ends in await asyncio.gather(*map(whole, owners)) for end in ends]
    return sum(end is True for end in ends), Counter(type(end).__name__ for end in ends if end is not True)


def _where() -> dict[str, Any]:
    """Only what turns the SDK to the bench's server."""
    endpoint = os.environ["GUARD_ARM_ENDPOINT"]
    return {"base_url": endpoint, "credential_scopes": [f"{endpoint}/.default"]}


def _has_output(result: Any) -> bool:
    return bool(result.value and result.value[0].message)


def main() -> int:
    """Ask every node one way, and print what came of it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("way", choices=["sequential", "gather"])
    parser.add_argument("--only", type=int, help="ask so many nodes and no more")
    given = parser.parse_args()
    answered, errors, first = sequential(given.only) if given.way == "sequential" else (*asyncio.run(gather()), 0.0)
    print(json.dumps({"answered": answered, "errors": dict(errors), "cpu_first": first}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
