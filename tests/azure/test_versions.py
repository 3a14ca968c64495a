"""Which API versions go over the wire, and what happens where a cloud does not know them."""

from __future__ import annotations

import asyncio
import logging

import pytest

from shared.azure import Azure, CommandResult, Pending, SubscriptionError
from shared.azure.problems import Fault
from shared.azure.versions import PINNED, Provider, Versions, offered
from shared.models import Node, Problem
from tests.support import arm as far
from tests.support.arm import SCALE_SET, SUBSCRIPTION, Answer, Arm, accepted, error, instance, message, pool, scale_set

CLUSTERS = "/managedclusters"
LISTED = "2024-11-01, 2025-07-01, 2025-09-02-preview, 2025-10-01"
REFUSALS = [
    Answer(
        404,
        error(
            "InvalidResourceType",
            "The resource type 'x' could not be found in the namespace 'y' for api version '2026-08-01'."
            f" The supported api-versions are '{LISTED}'.",
        ),
    ),
    Answer(
        400,
        error(
            "NoRegisteredProviderFound",
            "No registered resource provider found for location 'usgovvirginia' and API version 'z' for type 'x'."
            f" The supported api-versions are '{LISTED}'. The supported locations are 'usgovvirginia, 2099-01-01'.",
        ),
    ),
    Answer(
        400,
        error("InvalidApiVersionParameter", f"The api-version 'z' is invalid. The supported versions are '{LISTED}'."),
    ),
]


def versions_asked(arm: Arm, part: str) -> list[str]:
    return [seen.query["api-version"] for seen in arm.seen if seen.path.lower().endswith(part)]


def behind(answer: Answer, refusal: Answer, *known: str) -> far.Script:
    """Answers in the versions that are known, and refuses the others."""
    return lambda seen: answer if seen.query["api-version"] in known else refusal


async def test_the_pinned_versions_go_over_the_wire(arm: Arm, azure: Azure, node: Node) -> None:
    arm.on("GET", "/subscriptions", Answer(200, {"value": []}))
    arm.on("GET", CLUSTERS, Answer(200, {"value": [far.cluster("shop", pool("pool1"))]}))
    arm.on("GET", "/virtualmachinescalesets", Answer(200, {"value": [scale_set(SCALE_SET, {"poolName": "pool1"})]}))
    arm.on("GET", "/virtualmachines", Answer(200, {"value": [instance("0")]}))
    arm.on("POST", "/runcommand", accepted())
    await azure.subscriptions()
    (cluster,) = await azure.clusters(SUBSCRIPTION)
    (found,) = [item async for item in azure.nodes(cluster) if isinstance(item, Node)]
    assert isinstance(await azure.start(found, "true", None, 0), Pending)
    assert [seen.query["api-version"] for seen in arm.seen] == [
        PINNED[Provider.RESOURCES],
        PINNED[Provider.CONTAINERS],
        *[PINNED[Provider.COMPUTE]] * 3,
    ]


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_the_newest_stable_version_of_the_list_is_taken_remembered_and_said_once(
    arm: Arm, azure: Azure, refusal: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    arm.scripts["GET", CLUSTERS] = behind(
        Answer(200, {"value": [far.cluster("shop", pool("p"))]}), refusal, "2025-10-01"
    )
    found = await asyncio.gather(*(azure.clusters(SUBSCRIPTION) for _ in range(5)))
    assert all(len(clusters) == 1 for clusters in found)
    await azure.clusters(SUBSCRIPTION)
    assert versions_asked(arm, CLUSTERS)[-1] == "2025-10-01"
    assert set(versions_asked(arm, CLUSTERS)) == {PINNED[Provider.CONTAINERS], "2025-10-01"}
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 1
    assert "2025-10-01" in said[0]


async def test_what_an_older_version_does_not_tell_is_unknown(arm: Arm, azure: Azure) -> None:
    told = far.cluster(
        "told", pool("p"), hostedSystemProfile={"enabled": False}, nodeProvisioningProfile={"mode": "Auto"}
    )
    body = Answer(200, {"value": [far.cluster("shop", pool("p")), told]})
    arm.scripts["GET", CLUSTERS] = behind(body, REFUSALS[0], "2025-10-01")
    shop, other = await azure.clusters(SUBSCRIPTION)
    assert (shop.locked, shop.auto_provisioned, shop.hosted_system, shop.virtual_nodes) == (None, None, None, False)
    assert (other.locked, other.auto_provisioned, other.hosted_system) == (None, True, False)


async def test_a_command_is_sent_in_the_version_that_the_cloud_knows(arm: Arm, azure: Azure, node: Node) -> None:
    arm.scripts["POST", "/runcommand"] = behind(accepted(), REFUSALS[1], "2025-10-01")
    arm.scripts["GET", ""] = lambda seen: Answer(200, far.result(message("hello")))
    started = await azure.start(node, "true", None, 0)
    assert isinstance(started, Pending)
    assert await azure.look(node, started) == CommandResult("hello", "")
    assert versions_asked(arm, "/runcommand") == [PINNED[Provider.COMPUTE], "2025-10-01"]


async def test_a_version_that_is_refused_although_it_is_listed_is_an_error(arm: Arm, azure: Azure, node: Node) -> None:
    arm.on("POST", "/runcommand", REFUSALS[0])
    outcome = await azure.start(node, "true", None, 0)
    assert isinstance(outcome, Problem)
    assert outcome.code == "InvalidResourceType"
    assert "could not be found" in outcome.reason
    assert not outcome.may_have_run
    assert versions_asked(arm, "/runcommand") == [PINNED[Provider.COMPUTE], "2025-10-01"]


@pytest.mark.parametrize("listed", ["", " The supported api-versions are '2025-09-02-preview'."])
async def test_a_refusal_that_offers_nothing_stable_is_an_error(arm: Arm, azure: Azure, listed: str) -> None:
    arm.on("GET", CLUSTERS, Answer(404, error("InvalidResourceType", f"The resource type could not be found.{listed}")))
    with pytest.raises(SubscriptionError, match="API version"):
        await azure.clusters(SUBSCRIPTION)
    assert len(arm.seen) == 1


def test_only_a_refusal_of_a_version_offers_any() -> None:
    text = f"The supported api-versions are '{LISTED}'."
    assert offered("z", Fault(404, "InvalidResourceType", text)) == ["2025-10-01", "2025-07-01", "2024-11-01"]
    bare = "The supported versions are 2024-11-01"
    assert offered("z", Fault(400, "InvalidApiVersionParameter", bare)) == ["2024-11-01"]
    assert offered("z", Fault(400, "InvalidParameter", text)) == []
    assert offered("z", Fault(404, "InvalidResourceType", "no list")) == []
    assert offered("2025-07-01", Fault(400, "NoRegisteredProviderFound", text)) == [], "the location is wrong"


def test_a_newer_version_is_taken_where_ours_is_gone() -> None:
    versions = Versions()
    gone = Fault(400, "InvalidApiVersionParameter", "The supported versions are '2099-01-01'.")
    assert versions.another(Provider.COMPUTE, versions.of(Provider.COMPUTE), gone)
    assert versions.of(Provider.COMPUTE) == "2099-01-01"
    assert not versions.older(Provider.COMPUTE)
    assert versions.of(Provider.CONTAINERS) == PINNED[Provider.CONTAINERS]
