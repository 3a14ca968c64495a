"""What became of nodes over time, for findings of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared.errors import StoreError
from shared.models import Finding, History, Run, instance_resource_id
from shared.runs import documents
from shared.runs.model import keys
from shared.store import Store


async def changes_of(store: Store, run: Run, findings: Sequence[Finding]) -> Mapping[str, Sequence[History]]:
    """The changes that the store still has, in order of time, by `Finding.key`: an entry for each finding of a node.

    `run` is theirs. Where they were made before findings told their machine's resource id, it, or the run that planned
    it, knows the node resource groups; where neither does (both are of 0.1.0), there are no changes. Raises StoreError.
    """
    known: dict[str, Sequence[History]] = {}
    of_nodes = [finding for finding in findings if finding.node]
    groups = await _groups(store, run, {finding.subscription for finding in of_nodes if not finding.resource_id})
    for finding in of_nodes:
        known[finding.key] = ()
        key = _node_key(finding, groups)
        if key:
            known[finding.key] = [entry for entry in await store.changes(key) if entry.control == finding.control]
    return known


def _node_key(finding: Finding, groups: Mapping[tuple[str, ...], str]) -> str:
    """`Node.key` of a finding's node; empty where it is not known."""
    if finding.resource_id:
        return finding.resource_id.lower()
    group = groups.get(_place(finding.subscription, finding.resource_group, finding.cluster))
    if group is None:
        return ""
    return instance_resource_id(finding.subscription, group, finding.scale_set, finding.instance_id).lower()


async def _groups(store: Store, run: Run, subscriptions: set[str]) -> Mapping[tuple[str, ...], str]:
    """The node resource groups of the clusters that a run looked into."""
    groups: dict[tuple[str, ...], str] = {}
    for run_id in filter(None, (run.plan_run, run.id)):
        for subscription in subscriptions:
            try:
                chunks = await documents.find(store, run_id, keys.clusters(subscription), documents.CHUNKS)
            except StoreError as error:
                if error.transient:
                    raise
                continue  # 0.1.0 kept them in another form
            for cluster in (cluster for chunk in chunks or () for cluster in chunk):
                place = _place(cluster.subscription, cluster.resource_group, cluster.name)
                groups[place] = cluster.node_resource_group
    return groups


def _place(*parts: str) -> tuple[str, ...]:
    return tuple(part.lower() for part in parts)
