"""Azure Resource Graph as far as the product asks it: the tables of subscriptions and of clusters.

It answers for what the identity may read, within the scope that is asked for, and says nothing of the rest; a cluster
or pool younger than its lag is not there yet, and one that was started or stopped since is there as it was. Of the
query only which of the two types it names counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from sandbox import arm
from sandbox.arm import Body
from sandbox.compute import Refused, forbidden
from sandbox.fleet import Cluster, Fleet, ManagementGroup, Pool, Power, Subscription

_MOST_SUBSCRIPTIONS = 1000
_MOST_ROWS = 1000
_SUBSCRIPTION, _CLUSTER = "microsoft.resources/subscriptions", "microsoft.containerservice/managedclusters"


def answer(fleet: Fleet, body: Body, elapsed: float) -> Body:
    """The answer to a query `elapsed` seconds after the start. Raises Refused."""
    query, options = body.get("query"), body.get("options") or {}
    if not isinstance(query, str) or not isinstance(options, dict) or options.get("resultFormat") != "objectArray":
        raise Refused(400, "BadRequest", "The sandbox takes a query, and objectArray as the format of its result.")
    types = {kind.lower() for kind in re.findall(r"type\s*=~\s*'([^']*)'", query)}
    rows = sorted(_rows(fleet, _scope(fleet, body), types, elapsed), key=lambda row: str(row["id"]))
    start = int(options.get("$skipToken") or 0)
    end = start + min(int(options.get("$top") or 100), _MOST_ROWS, fleet.page_size)
    page = rows[start:end]
    more = {"$skipToken": str(end)} if end < len(rows) else {}
    return {
        "totalRecords": len(rows),
        "count": len(page),
        "data": page,
        "facets": [],
        "resultTruncated": "false",
    } | more


def _scope(fleet: Fleet, body: Body) -> Sequence[Subscription]:
    listed = body.get("subscriptions")
    if not listed:
        return _seen(fleet, {item.id for item in fleet.subscriptions})
    if len(listed) > _MOST_SUBSCRIPTIONS:
        raise Refused(400, "BadRequest", f"A query may name {_MOST_SUBSCRIPTIONS} subscriptions at most.")
    found = _seen(fleet, {name.lower() for name in listed})
    if not found:
        raise forbidden("Microsoft.Resources/subscriptions/read", f"/subscriptions/{listed[0]}")
    return found


def _seen(fleet: Fleet, ids: set[str]) -> Sequence[Subscription]:
    return [item for item in fleet.subscriptions if item.id in ids and item.in_graph and not item.forbidden]


def _rows(fleet: Fleet, scope: Sequence[Subscription], types: set[str], elapsed: float) -> Iterator[Body]:
    for owner in scope:
        if _SUBSCRIPTION in types:
            place = f"/subscriptions/{owner.id}"
            row = {"id": place, "name": owner.name, "type": _SUBSCRIPTION, "location": "", "subscriptionId": owner.id}
            yield row | {"properties": {"state": "Enabled", "managementGroupAncestorsChain": []}}
        for item in owner.clusters if _CLUSTER in types else ():
            if item.age + elapsed >= fleet.timing.graph_lag:
                yield _cluster(owner, _before(item, fleet.timing.graph_lag - elapsed))


def _before(item: Cluster, lag: float) -> Cluster:
    """A cluster as it was when nothing that is younger than `lag` seconds had happened."""

    def power(part: Cluster | Pool) -> Power:
        if part.switched >= lag:
            return part.power
        return "Running" if part.power == "Stopped" else "Stopped"

    pools = tuple(replace(pool, power=power(pool)) for pool in item.pools if pool.age >= lag)
    return replace(item, power=power(item), pools=pools)


def _cluster(owner: Subscription, item: Cluster) -> Body:
    told = arm.cluster(owner, item)
    return {
        "id": told["id"],
        "name": told["name"],
        "type": _CLUSTER,  # Resource Graph writes types in lower case
        "location": told["location"],
        "subscriptionId": owner.id,
        "properties": told["properties"],
    }


def descendants(fleet: Fleet, group: ManagementGroup) -> list[Body]:
    """What is below a management group: also subscriptions that the identity sees nothing in."""
    names = {item.id: item.name for item in fleet.subscriptions}
    parent = {"id": f"/providers/Microsoft.Management/managementGroups/{group.id}"}
    return [
        {
            "id": f"/subscriptions/{owner}",
            "type": "/subscriptions",
            "name": owner,
            "properties": {"displayName": names.get(owner, owner), "parent": parent},
        }
        for owner in group.subscriptions
    ]
