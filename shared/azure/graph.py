"""The clusters of many subscriptions by few queries of Azure Resource Graph, and what is below a management group.

Resource Graph lags behind Azure and leaves out in silence what the identity cannot read. It shows the subscriptions
that it does answer for (`resourcecontainers`): only for those does "no cluster" mean that there was none when it last
looked. Who is going to change something asks Azure itself.

Called as plain REST: one POST through the same pipeline, limits and refusals as every other call; the SDK's package for
it (azure-mgmt-resourcegraph) would add a second set of models around one untyped table.

Sources: the REST operation "Resources - Resources", "Guidance for throttled requests in Azure Resource Graph" (15
queries in 5 seconds a user; `x-ms-user-quota-remaining`), "Understanding the Azure Resource Graph query language"
(union of `resourcecontainers` and `resources`), "Work with large Azure resource data sets" (at most 1,000 rows a page,
`$skipToken`), and the REST operation "Management Groups - Get Descendants".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.azure.discovery import cluster_of, raise_for_run, raise_passing
from shared.azure.fields import text_of
from shared.azure.operations import DESCENDANTS, QUERY
from shared.azure.problems import Fault, Target, judge, passing
from shared.azure.replies import Body, Refusal
from shared.errors import EndpointError, GuardError
from shared.models import Cluster, Problem, Subscription

if TYPE_CHECKING:
    from shared.azure.arm import Arm

_SUBSCRIPTION = "microsoft.resources/subscriptions"
_CLUSTER = "microsoft.containerservice/managedclusters"
_QUERY = (
    f"resourcecontainers | where type =~ '{_SUBSCRIPTION}'"
    f" | union (resources | where type =~ '{_CLUSTER}')"
    " | project id, name, type, location, subscriptionId, properties | order by id asc"
)
_MOST_SUBSCRIPTIONS = 1000
_MOST_ROWS = 1000
_TRIES = 4
# A table of more pages than this leads in a circle: Resource Graph answers for 10,000 subscriptions at most.
_MOST_PAGES = 1000


class ScopeError(GuardError):
    """The subscriptions of a management group are not known; the text says what to grant."""


@dataclass(frozen=True, slots=True)
class GraphAnswer:
    """`clusters` by subscription (lower case), for those that were answered for: an empty list is one that has none.

    What a list of clusters tells and Resource Graph does not is None in them. `problem` is why nothing (more) is known.
    """

    clusters: Mapping[str, list[Cluster]]
    problem: Problem | None = None


async def clusters(arm: Arm, subscriptions: Sequence[str]) -> GraphAnswer:
    """The clusters of `subscriptions`. Raises nothing."""
    found: dict[str, list[Cluster]] = {}
    where = "the subscriptions"
    target = Target(f"a query of Resource Graph for {where}", QUERY.action, where)
    for at in range(0, len(subscriptions), _MOST_SUBSCRIPTIONS):
        rows = await _rows(arm, subscriptions[at : at + _MOST_SUBSCRIPTIONS])
        if isinstance(rows, Fault):
            return GraphAnswer(found, judge(rows, target))
        # A cluster whose subscription is not shown is no answer for that subscription.
        found |= {_subscription(row): [] for row in rows if text_of(row.get("type")).lower() == _SUBSCRIPTION}
        for row in rows:
            if text_of(row.get("type")).lower() == _CLUSTER and (owner := _subscription(row)) in found:
                found[owner].append(cluster_of(owner, row, older=True))
    return GraphAnswer(found)


def _subscription(row: Body) -> str:
    return text_of(row.get("subscriptionId")).lower()


async def _rows(arm: Arm, subscriptions: Sequence[str]) -> list[Body] | Fault:
    """All rows of the query within these subscriptions, a thousand at most."""
    rows: list[Body] = []
    options: dict[str, object] = {"resultFormat": "objectArray", "$top": _MOST_ROWS}
    for _ in range(_MOST_PAGES):
        page = await _page(arm, {"subscriptions": [*subscriptions], "query": _QUERY, "options": options})
        if isinstance(page, Refusal):
            return page.fault
        data, token = page.get("data"), page.get("$skipToken")
        if not isinstance(data, list) or not isinstance(token, str | None):
            return Fault(None, "malformed", "a table without its rows")
        rows += [row for row in data if isinstance(row, Mapping)]
        if not token:
            if text_of(page.get("resultTruncated")).lower() == "true":
                return Fault(None, "malformed", "a table that is cut off, without the rest")
            return rows
        options = {**options, "$skipToken": token}
    return Fault(None, "malformed", "a table whose pages do not end")


async def _page(arm: Arm, body: Body) -> Body | Refusal:
    """One page; a query changes nothing, so it is sent again after trouble that passes."""
    pause = 1.0
    for left in reversed(range(_TRIES)):
        page = await arm.query(QUERY, body)
        if not isinstance(page, Refusal) or not passing(page.fault) or not left:
            return page
        await asyncio.sleep(max(page.asked, pause))
        pause *= 2
    raise AssertionError("the last try returns")


async def subscriptions_below(arm: Arm, management_group: str) -> list[Subscription]:
    """All subscriptions below a management group.

    Raises CredentialError, EndpointError (also for what passes by itself) or ScopeError.
    """
    scope = f"/providers/Microsoft.Management/managementGroups/{management_group}"
    target = Target(f"management group {management_group}", DESCENDANTS.action, scope)
    found: list[Subscription] = []
    async for page in arm.pages(DESCENDANTS, group=management_group):
        if isinstance(page, Refusal):
            raise_for_run(arm, page.fault, target)
            raise_passing(arm, page.fault, target)
            problem = judge(page.fault, target)
            kind = EndpointError if passing(page.fault) else ScopeError
            raise kind(f"management group {management_group}: {problem.reason} {problem.hint}")
        for item in page:
            # "/subscriptions" as documented, "Microsoft.Management/managementGroups/subscriptions" in older versions.
            if text_of(item.get("type")).lower().endswith("/subscriptions"):
                properties = item.get("properties")
                name = properties.get("displayName") if isinstance(properties, Mapping) else ""
                found.append(Subscription(text_of(item.get("name")), text_of(name)))
    return found
