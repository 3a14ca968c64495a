"""Azure Resource Graph against a scripted server: pages, scopes, and tables that cannot be trusted."""

from __future__ import annotations

from typing import Any

import pytest

from shared.azure import Azure, ScopeError
from shared.errors import CredentialError, EndpointError
from tests.support import arm as far
from tests.support.arm import SUBSCRIPTION, Answer, Arm, Seen, error, pool

QUERY = "/resources"
OTHER = SUBSCRIPTION.replace("1", "2")


def shown(subscription: str) -> dict[str, Any]:
    return {"type": "microsoft.resources/subscriptions", "subscriptionId": subscription, "name": "x"}


def cluster(subscription: str, name: str) -> dict[str, Any]:
    told = far.cluster(name, pool("pool1"))
    return {**told, "type": "microsoft.containerservice/managedclusters", "subscriptionId": subscription}


def table(*rows: object, **more: Any) -> Answer:
    return Answer(200, {"totalRecords": len(rows), "data": list(rows), "resultTruncated": "false", **more})


async def test_pages_and_what_is_asked(arm: Arm, azure: Azure) -> None:
    first = table(shown(SUBSCRIPTION), cluster(SUBSCRIPTION, "a"), **{"$skipToken": "next"})
    arm.on("POST", QUERY, first, table(shown(OTHER), cluster(SUBSCRIPTION, "b")))
    answer = await azure.graph_clusters([SUBSCRIPTION, OTHER])
    assert answer.problem is None
    assert {owner: [item.name for item in found] for owner, found in answer.clusters.items()} == {
        SUBSCRIPTION: ["a", "b"],
        OTHER: [],
    }
    one, two = (seen.body for seen in arm.seen)
    assert one["subscriptions"] == [SUBSCRIPTION, OTHER]
    assert one["options"] == {"resultFormat": "objectArray", "$top": 1000}
    assert two == {**one, "options": {**one["options"], "$skipToken": "next"}}
    assert arm.seen[0].query["api-version"] == "2024-04-01"
    assert azure.stats.calls == {"graph": 2}


async def test_a_cluster_before_its_subscription_and_one_without(arm: Arm, azure: Azure) -> None:
    arm.on("POST", QUERY, table(cluster(SUBSCRIPTION, "a"), shown(SUBSCRIPTION), cluster(OTHER, "b"), 7))
    answer = await azure.graph_clusters([SUBSCRIPTION, OTHER])
    assert {owner: len(found) for owner, found in answer.clusters.items()} == {SUBSCRIPTION: 1}


async def test_a_thousand_subscriptions_a_query(arm: Arm, azure: Azure) -> None:
    arm.on("POST", QUERY, table())
    names = [f"{number:08d}-2222-3333-4444-555555555555" for number in range(2001)]
    answer = await azure.graph_clusters(names)
    assert answer.clusters == {}
    assert [len(seen.body["subscriptions"]) for seen in arm.seen] == [1000, 1000, 1]


async def test_what_was_answered_before_a_refusal_stays(arm: Arm, azure: Azure) -> None:
    def answers(seen: Seen) -> Answer:
        return table(shown(SUBSCRIPTION)) if SUBSCRIPTION in seen.body["subscriptions"] else Answer(403, error("No"))

    arm.on("POST", QUERY, answers)
    answer = await azure.graph_clusters([SUBSCRIPTION, *(str(number) for number in range(1000))])
    assert answer.clusters == {SUBSCRIPTION: []}
    assert answer.problem is not None
    assert answer.problem.code == "No"


@pytest.mark.parametrize(
    "reply",
    [
        Answer(200, text="<html>"),
        Answer(200, [1]),
        Answer(200, {}),
        Answer(200, {"data": {}}),
        Answer(200, {"data": [], "$skipToken": 7}),
        table(shown(SUBSCRIPTION), resultTruncated="true"),
        Answer(202, {"data": []}),
    ],
)
async def test_a_table_that_cannot_be_trusted_is_a_problem(arm: Arm, azure: Azure, reply: Answer) -> None:
    arm.on("POST", QUERY, reply)
    answer = await azure.graph_clusters([SUBSCRIPTION])
    assert answer.clusters == {}
    assert answer.problem is not None
    assert answer.problem.code == "malformed"
    assert len(arm.seen) == 1


async def test_a_query_over_the_quota_waits_for_it(arm: Arm, azure: Azure) -> None:
    limited = Answer(429, error("RateLimiting"), {"Retry-After": "1", "x-ms-user-quota-remaining": "0"})
    arm.on("POST", QUERY, limited, table(shown(SUBSCRIPTION)))
    answer = await azure.graph_clusters([SUBSCRIPTION])
    assert answer.problem is None
    assert arm.seen[1].at - arm.seen[0].at >= 0.95
    assert azure.stats.refused == 1


async def test_a_group_that_cannot_be_asked_for_a_while_is_asked_again_by_the_run(arm: Arm, azure: Azure) -> None:
    arm.on("GET", "/descendants", Answer(503, error("ServerBusy", "busy")))
    with pytest.raises(EndpointError, match=r"management group group \(ServerBusy\): busy"):
        await azure.subscriptions_below("group")


async def test_a_refused_token_concerns_the_whole_run(arm: Arm, azure: Azure) -> None:
    arm.on("GET", "/descendants", Answer(401, error("InvalidAuthenticationToken", "bad")))
    with pytest.raises(CredentialError):
        await azure.subscriptions_below("group")
    arm.on("GET", "/descendants", Answer(503, headers={"retry-after-ms": "5"}))
    with pytest.raises(EndpointError):
        await azure.subscriptions_below("group")
    arm.on("GET", "/descendants", Answer(404, error("NotFound", "no such group")))
    with pytest.raises(ScopeError, match="no such group"):
        await azure.subscriptions_below("group")


async def test_only_subscriptions_are_taken_of_what_is_below_a_group(arm: Arm, azure: Azure) -> None:
    below = [
        {"type": "Microsoft.Management/managementGroups", "name": "child", "properties": {"displayName": "Child"}},
        {"type": "/subscriptions", "name": SUBSCRIPTION, "properties": {"displayName": "One"}},
    ]
    more = [{"type": "Microsoft.Management/managementGroups/subscriptions", "name": OTHER, "properties": None}]
    arm.on(
        "GET",
        "/descendants",
        Answer(200, {"value": below, "nextLink": "{base}/descendants"}),
        Answer(200, {"value": more}),
    )
    assert [(item.id, item.name) for item in await azure.subscriptions_below("group")] == [
        (SUBSCRIPTION, "One"),
        (OTHER, ""),
    ]
