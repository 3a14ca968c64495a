# TEMPORARY: until the azure part lands
from shared.azure import discovery
from shared.azure.client import Azure
from shared.models import Problem, Status
async def _iter_nodes(self, cluster, pools=None):
    found, problems = await discovery.nodes(self, cluster, pools)
    for item in [*problems, *found]:
        yield item
async def _cluster(self, subscription, group, name):
    found = [c for c in await discovery.clusters(self, subscription) if c.name.lower()==name.lower() and c.resource_group.lower()==group.lower()]
    return found[0] if found else Problem(Status.SKIPPED, "vanished", f"the cluster {name} is not there any more", "")
async def _node(self, node):
    cluster = await self.cluster(node.subscription, node.resource_group, node.cluster)
    found, _ = await discovery.nodes(self, cluster, [node.node_pool])
    return next((n for n in found if n.key == node.key), Problem(Status.SKIPPED, "vanished", "gone", ""))
Azure.nodes = _iter_nodes
Azure.cluster = _cluster
Azure.node = _node
