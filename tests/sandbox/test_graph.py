"""Resource Graph, management groups and the other form of operations' addresses, as the product uses them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sandbox import Fault, Sandbox, parse, serve
from sandbox.throttle import Call, Throttle
from shared import settings
from shared.azure import Azure, ScopeError
from shared.models import Subscription
from tests.support.bench import environment
from tests.support.fleets import azure, fleet

SEEN, EMPTY, HIDDEN, LEFT_OUT = (f"{number}1111111-2222-4333-8444-555555555555" for number in range(1, 5))
CLUSTER = "location: westeurope, version: 1.33.2, pools: [{name: np1, nodes: [{state: deallocated}]}]"
FLEET = f"""
timing: {{graph_lag: 600}}
page_size: 2
management_groups:
- {{id: all, subscriptions: ["{SEEN}", "{EMPTY}", "{HIDDEN}", "{LEFT_OUT}"]}}
- {{id: secret, subscriptions: ["{SEEN}"], forbidden: true}}
subscriptions:
- id: "{SEEN}"
  name: Seen
  clusters:
  - {{name: one, resource_group: rg, {CLUSTER}}}
  - {{name: two, resource_group: rg, lockdown: true, {CLUSTER}}}
  - {{name: young, resource_group: rg, age: 30, {CLUSTER}}}
- {{id: "{EMPTY}", name: Empty}}
- id: "{HIDDEN}"
  name: Hidden
  forbidden: true
  clusters: [{{name: three, resource_group: rg, {CLUSTER}}}]
- id: "{LEFT_OUT}"
  name: Left out
  in_graph: false
  clusters: [{{name: four, resource_group: rg, {CLUSTER}}}]
"""


@asynccontextmanager
async def product() -> AsyncIterator[tuple[Sandbox, Azure]]:
    async with serve(parse(FLEET)) as box:
        with environment(box.environ):
            async with Azure(settings.load(os.environ)) as client:
                yield box, client


async def test_the_graph_answers_for_what_it_shows_and_says_nothing_of_the_rest() -> None:
    async with product() as (box, client):
        answer = await client.graph_clusters([SEEN, EMPTY.upper(), HIDDEN, LEFT_OUT])
        assert answer.problem is None
        assert {owner: [item.name for item in found] for owner, found in answer.clusters.items()} == {
            SEEN: ["one", "two"],
            EMPTY: [],
        }
        assert box.stats()["calls"]["graph.query"] == 2, "pages of two rows"
        by_list = {item.name: item for item in await client.clusters(SEEN)}
        assert set(by_list) == {"one", "two", "young"}
        for found in answer.clusters[SEEN]:
            assert (found.id, found.node_resource_group) == (
                by_list[found.name].id,
                by_list[found.name].node_resource_group,
            )
            assert found.pools == by_list[found.name].pools
            # What the graph does not tell is not known.
            assert found.locked is (True if found.name == "two" else None)
        assert [item.name async for item in client.nodes(answer.clusters[SEEN][0]) if hasattr(item, "name")]


async def test_a_query_that_is_refused_is_a_problem() -> None:
    async with product() as (box, client):
        assert (await client.graph_clusters([HIDDEN])).problem is not None
        box.inject(Fault("graph.query", status=403, code="AuthorizationFailed", message="no"))
        answer = await client.graph_clusters([SEEN])
        assert answer.clusters == {}
        assert answer.problem is not None
        assert "managedClusters/read" in answer.problem.reason
        box.inject(Fault("graph.query", status=503, headers={"Retry-After": "1"}))
        assert (await client.graph_clusters([SEEN])).problem is None


async def test_the_subscriptions_of_a_management_group() -> None:
    async with product() as (_, client):
        found = await client.subscriptions_below("ALL")
        assert found == [
            Subscription(SEEN, "Seen"),
            Subscription(EMPTY, "Empty"),
            Subscription(HIDDEN, "Hidden"),
            Subscription(LEFT_OUT, "Left out"),
        ]
        for name in ("secret", "nowhere"):
            with pytest.raises(ScopeError, match="managementGroups/descendants/read"):
                await client.subscriptions_below(name)


def test_a_user_has_fifteen_queries_in_five_seconds() -> None:
    throttle = Throttle(enforced=True)
    query = Call("", True, graph=True)
    assert all(throttle.take(query, 100 + number / 10) is None for number in range(15))
    assert throttle.headers(query, 102) == {
        "x-ms-user-quota-remaining": "0",
        "x-ms-user-quota-resets-after": "00:00:03",
    }
    refusal = throttle.take(query, 102)
    assert refusal is not None
    assert refusal.retry_after == 3
    assert throttle.take(query, 105) is None


async def test_the_other_form_of_an_operations_address(monkeypatch: pytest.MonkeyPatch) -> None:
    small = fleet("compliant_default", operation_results=True)
    async with serve(small) as box, azure(box, monkeypatch) as clients:
        answer = await clients.post("true")
        location = answer.headers["Location"]
        assert "/operationResults/" in location
        await clients.ended(location)
        assert (await clients.send("GET", location)).status == 200
        looked = (await clients.send("GET", location)).headers
        assert "GetOperationResource" in looked["x-ms-ratelimit-remaining-resource"]
        one = await clients.send("GET", f"{clients.path(0)}?api-version=2026-04-01")
        assert "GetVMScaleSetVMResource;35" in one.headers["x-ms-ratelimit-remaining-resource"]
