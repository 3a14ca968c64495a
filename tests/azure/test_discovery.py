"""Finding clusters and nodes against a real TLS server: what is found, what is said of the rest, how many calls."""

from __future__ import annotations

from dataclasses import astuple
from datetime import UTC, datetime
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError
from hypothesis import given
from hypothesis import strategies as st

from shared.azure import Azure, SubscriptionError, precheck
from shared.azure.discovery import cluster_of, match_pools, node_of, pool_of
from shared.azure.fields import moment
from shared.errors import CredentialError, EndpointError
from shared.models import Cluster, Node, NodePool, Problem, ScopeProblem, Status, Subscription
from shared.plain import plain
from shared.settings import Settings
from tests.support import arm as far
from tests.support.arm import (
    GROUP,
    SCALE_SET,
    SUBSCRIPTION,
    Answer,
    Arm,
    Seen,
    Token,
    a_node,
    error,
    instance,
    pool,
    scale_set,
)

CLUSTERS = "/managedclusters"
SETS = "/virtualmachinescalesets"
VMS = "/virtualmachines"
TAG = {"aks-managed-poolName": "pool1"}
NAMES = (
    "id name location tags properties powerState code provisioningState nodeResourceGroup agentPoolProfiles"
    " count mode type osType addonProfiles aciConnectorLinux enabled hostedSystemProfile instanceId"
    " instanceView statuses timeCreated osProfile computerName storageProfile osDisk imageReference"
    " orchestrationMode poolName"
)
FIELDS = NAMES.split()


async def one_cluster(arm: Arm, azure: Azure, *pools: dict[str, Any], **more: Any) -> Cluster:
    arm.on("GET", CLUSTERS, Answer(200, {"value": [far.cluster("shop", *pools, **more)]}))
    (found,) = await azure.clusters(SUBSCRIPTION)
    arm.seen.clear()
    return found


async def list_nodes(
    azure: Azure, cluster: Cluster, pools: list[str] | None = None
) -> tuple[list[Node], list[ScopeProblem]]:
    found = [item async for item in azure.nodes(cluster, pools)]
    nodes = [item for item in found if isinstance(item, Node)]
    return nodes, [item for item in found if isinstance(item, ScopeProblem)]


async def test_subscriptions(arm: Arm, azure: Azure) -> None:
    pages = [
        {"value": [{"subscriptionId": SUBSCRIPTION, "displayName": "One"}], "nextLink": "{base}/subscriptions?page=2"},
        {"value": [{"subscriptionId": "other", "displayName": "Two"}]},
    ]
    arm.on("GET", "/subscriptions", *(Answer(200, page) for page in pages))
    assert await azure.subscriptions() == [Subscription(SUBSCRIPTION, "One"), Subscription("other", "Two")]


async def test_clusters_of_all_pages_with_their_pools(arm: Arm, azure: Azure) -> None:
    second = far.cluster(
        "locked",
        pool("p", type="VirtualMachines", powerState={"code": "Stopped"}, osType="Windows", nodeImageVersion=None),
        powerState={"code": "Stopped"},
        nodeResourceGroupProfile={"restrictionLevel": "ReadOnly"},
        nodeProvisioningProfile={"mode": "Auto"},
        addonProfiles={"aciConnectorLinux": {"enabled": True}},
        hostedSystemProfile={"enabled": True},
    )
    next_link = "{base}/subscriptions/" + SUBSCRIPTION + "/providers/Microsoft.ContainerService/managedClusters?skip=1"
    arm.on(
        "GET",
        CLUSTERS,
        Answer(200, {"value": [far.cluster("shop", pool("pool1"))], "nextLink": next_link}),
        Answer(200, {"value": [second]}),
    )
    shop, locked = await azure.clusters(SUBSCRIPTION)
    assert (shop.name, shop.resource_group, shop.location) == ("shop", "rg-shop", "westeurope")
    assert (shop.power, shop.provisioning, shop.kubernetes_version) == ("Running", "Succeeded", "1.33.3")
    assert (shop.locked, shop.auto_provisioned, shop.virtual_nodes, shop.hosted_system) == (False,) * 4
    (first,) = shop.pools
    assert (first.name, first.kind, first.os, first.power) == ("pool1", "VirtualMachineScaleSets", "Linux", "Running")
    assert (first.kubernetes_version, first.count) == ("1.33.3", 2)
    assert locked.locked
    assert locked.auto_provisioned
    assert locked.virtual_nodes
    assert locked.hosted_system
    assert locked.power == "Stopped"
    assert (locked.pools[0].kind, locked.pools[0].os, locked.pools[0].power) == (
        "VirtualMachines",
        "Windows",
        "Stopped",
    )
    assert azure.stats.calls == {"clusters": 2}


async def test_nodes_take_one_list_of_scale_sets_and_one_paged_list_each(arm: Arm, azure: Azure) -> None:
    cluster = await one_cluster(arm, azure, pool("pool1"), pool("win", osType="Windows"))
    arm.on(
        "GET",
        SETS,
        Answer(
            200,
            {
                "value": [
                    scale_set(SCALE_SET, TAG),
                    scale_set("akswin", {"poolName": "win"}),
                    scale_set("somebodys", {"owner": "x"}),
                ]
            },
        ),
    )

    def machines(seen: Seen) -> Answer:
        assert seen.query.get("$expand") == "instanceView" or "skip" in seen.query
        if "akswin" in seen.path:
            windows = instance("7", scale_set_name="akswin", storageProfile={"osDisk": {"osType": "Windows"}})
            return Answer(200, {"value": [windows]})
        if "skip" not in seen.query:
            return Answer(200, {"value": [instance("0")], "nextLink": "{base}" + seen.path + "?skip=1"})
        return Answer(200, {"value": [instance("3", "deallocated")]})

    arm.on("GET", VMS, machines)
    nodes, problems = await list_nodes(azure, cluster)
    assert problems == []
    assert [(node.node_pool, node.instance_id, node.power, node.os) for node in nodes] == [
        ("pool1", "0", "running", "Linux"),
        ("pool1", "3", "deallocated", "Linux"),
        ("win", "7", "running", "Windows"),
    ]
    first = nodes[0]
    assert first.name == f"{SCALE_SET}000000"
    assert first.created == datetime(2026, 5, 1, 8, 30, 0, 123456, tzinfo=UTC)
    assert first.node_image_version == "AKSUbuntu-2204gen2containerd-202509.11.0"
    assert nodes[2].node_image_version == cluster.pools[1].node_image_version
    assert first.location == "westeurope"
    assert first.id.endswith(
        f"/{GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets/{SCALE_SET}/virtualMachines/0"
    )
    assert len(arm.seen) == 4


async def test_only_the_named_pools_are_looked_at(arm: Arm, azure: Azure) -> None:
    cluster = await one_cluster(arm, azure, pool("pool1"), pool("pool2"))
    both = [scale_set(SCALE_SET, TAG), scale_set("other", {"aks-managed-poolName": "pool2"})]
    arm.on("GET", SETS, Answer(200, {"value": both}))
    arm.on("GET", VMS, Answer(200, {"value": [instance("0")]}))
    nodes, problems = await list_nodes(azure, cluster, ["POOL1"])
    assert [node.node_pool for node in nodes] == ["pool1"]
    assert problems == []
    assert len(arm.seen) == 2


async def test_what_the_cluster_itself_says_takes_no_call(arm: Arm, azure: Azure) -> None:
    cluster = await one_cluster(
        arm,
        azure,
        pool("off", powerState={"code": "Stopped"}),
        pool("old", type="AvailabilitySet"),
        addonProfiles={"ACIConnectorLinux": {"enabled": True}},
        hostedSystemProfile={"enabled": True},
    )
    nodes, problems = await list_nodes(azure, cluster)
    assert nodes == []
    assert {(found.node_pool, found.problem.code, found.problem.status) for found in problems} == {
        ("off", "pool_stopped", Status.SKIPPED),
        ("old", "availability_set_pool", Status.ERROR),
        ("(virtual nodes)", "virtual_nodes", Status.NOT_APPLICABLE),
        ("(hosted system nodes)", "hosted_system", Status.NOT_APPLICABLE),
    }
    assert all(found.problem.hint and found.cluster == "shop" for found in problems)
    assert not arm.seen


async def test_a_stopped_cluster_is_skipped_without_a_call(arm: Arm, azure: Azure) -> None:
    cluster = await one_cluster(arm, azure, pool("pool1"), powerState={"code": "Stopped"})
    nodes, problems = await list_nodes(azure, cluster)
    assert nodes == []
    assert [(found.node_pool, found.problem.code, found.problem.status) for found in problems] == [
        ("", "cluster_stopped", Status.SKIPPED)
    ]
    assert not arm.seen


async def test_pools_whose_scale_set_is_not_as_expected(arm: Arm, azure: Azure) -> None:
    cluster = await one_cluster(
        arm,
        azure,
        pool("zero", count=0),
        pool("lost"),
        pool("new", provisioningState="Creating"),
        pool("flex"),
        pool("empty", count=3),
        pool("broken"),
        pool("pool1"),
    )
    sets = [
        scale_set("flexset", {"aks-managed-poolName": "flex"}, orchestrationMode="Flexible"),
        scale_set("emptyset", {"aks-managed-poolName": "empty"}),
        scale_set("brokenset", {"aks-managed-poolName": "broken"}),
        scale_set("strayset", {"aks-managed-poolName": "stray"}),
        scale_set("goingset", {"aks-managed-poolName": "going"}, provisioningState="Deleting"),
        scale_set(SCALE_SET, TAG),
    ]
    arm.on("GET", SETS, Answer(200, {"value": sets}))

    def machines(seen: Seen) -> Answer:
        if "emptyset" in seen.path:
            return Answer(200, {"value": []})
        if "brokenset" in seen.path:
            return Answer(403, error("AuthorizationFailed", "no"))
        return Answer(200, {"value": [instance("0"), instance("../1")]})

    arm.on("GET", VMS, machines)
    nodes, problems = await list_nodes(azure, cluster)
    assert [node.instance_id for node in nodes] == ["0"]
    assert {(found.node_pool, found.problem.code, found.problem.status) for found in problems} == {
        ("lost", "scale_set_missing", Status.ERROR),
        ("new", "pool_changing", Status.SKIPPED),
        ("flex", "flexible_scale_set", Status.ERROR),
        ("empty", "pool_empty", Status.SKIPPED),
        ("broken", "AuthorizationFailed", Status.ERROR),
        ("stray", "pool_unknown", Status.ERROR),
        ("going", "pool_unknown", Status.SKIPPED),
        ("pool1", "malformed", Status.ERROR),
    }
    refused = next(found.problem for found in problems if found.node_pool == "broken")
    assert "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/read" in refused.reason


async def test_a_cluster_whose_pools_are_others_by_now_is_read_again_once(arm: Arm, azure: Azure) -> None:
    cluster = await one_cluster(arm, azure, pool("pool1"), pool("gone"))
    now = far.cluster("shop", pool("pool1"), pool("young"), pool("new", powerState={"code": "Stopped"}))
    arm.on("GET", "/managedclusters/shop", Answer(200, now))
    tags = {"pool1": SCALE_SET, "young": "youngset", "new": "newset", "stray": "strayset"}
    sets = [scale_set(name, {"aks-managed-poolName": tag}) for tag, name in tags.items()]
    arm.on("GET", SETS, Answer(200, {"value": sets}))
    arm.on("GET", VMS, Answer(200, {"value": [instance("0")]}))
    nodes, problems = await list_nodes(azure, cluster)
    assert [node.node_pool for node in nodes] == ["pool1", "young"]
    assert [(found.node_pool, found.problem.code) for found in problems] == [
        ("new", "pool_stopped"),
        ("stray", "pool_unknown"),
    ]
    assert arm.count("GET", "/managedclusters/shop") == 1
    arm.on("GET", "/managedclusters/shop", Answer(200, far.cluster("shop", powerState={"code": "Stopped"})))
    nodes, problems = await list_nodes(azure, cluster)
    assert nodes == []
    assert [found.problem.code for found in problems] == ["cluster_stopped"]


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        (Answer(403, error("AuthorizationFailed", "no")), "AuthorizationFailed", "virtualMachineScaleSets/read"),
        (Answer(404, error("ResourceGroupNotFound", "no")), "ResourceGroupNotFound", GROUP),
        (Answer(200, text="<html>"), "malformed", "could not be read"),
        (Answer(200, [1, 2]), "malformed", "could not be read"),
        (Answer(200, {"value": None}), "malformed", "could not be read"),
        (Answer(202, {"value": []}), "malformed", "HTTP 202"),
        (Answer(200, text="no gzip", headers={"Content-Encoding": "gzip"}), "malformed", "unpacked"),
        (Answer(200, {"value": {}}), "malformed", "could not be read"),
        (Answer(200, {}), "malformed", "could not be read"),
        (Answer(200, {"value": [], "nextLink": 7}), "malformed", "could not be read"),
        (Answer(200, {"value": [], "nextLink": "{base}/virtualmachinescalesets"}), "malformed", "in a circle"),
        (Answer(404, text="<html>no such page</html>"), "not_found", "no such page"),
        (Answer(409, error("ReadOnlyDisabledSubscription", "off")), "ReadOnlyDisabledSubscription", "disabled"),
        (Answer(200, {"value": [], "nextLink": "https://evil.example/x"}), "foreign_host", "evil.example"),
    ],
)
async def test_a_node_resource_group_that_cannot_be_listed(
    arm: Arm, azure: Azure, reply: Answer, code: str, words: str
) -> None:
    cluster = await one_cluster(arm, azure, pool("pool1"))
    arm.on("GET", SETS, reply)
    nodes, problems = await list_nodes(azure, cluster)
    assert nodes == []
    assert [(found.node_pool, found.problem.status, found.problem.code, found.passing) for found in problems] == [
        ("", Status.ERROR, code, False)
    ]
    assert words in problems[0].problem.reason


SOON = {"retry-after-ms": "5"}


@pytest.mark.parametrize(
    ("reply", "error_type"),
    [
        (Answer(503, text="<html>", headers=SOON), EndpointError),
        (Answer(500, error("SomethingInternal", "no"), SOON), EndpointError),
        (Answer(429, headers=SOON), EndpointError),
        (Answer(401, error("ExpiredAuthenticationToken", "old")), CredentialError),
    ],
)
async def test_trouble_that_passes_is_no_answer(
    arm: Arm, azure: Azure, reply: Answer, error_type: type[Exception]
) -> None:
    cluster = await one_cluster(arm, azure, pool("pool1"))
    arm.on("GET", SETS, reply)
    _, (problem,) = await list_nodes(azure, cluster)
    assert (problem.node_pool, problem.passing) == ("", True)
    arm.on("GET", SETS, Answer(200, {"value": [scale_set(SCALE_SET, TAG)]}))
    arm.on("GET", VMS, reply)
    _, (problem,) = await list_nodes(azure, cluster)
    assert (problem.node_pool, problem.passing) == ("pool1", True)
    arm.on("GET", SETS, Answer(404, error("ResourceGroupNotFound", "no")))
    arm.on("GET", "/managedclusters/shop", reply)
    _, (problem,) = await list_nodes(azure, cluster)
    assert problem.passing, "whether the cluster is gone is not known"
    with pytest.raises(error_type):
        await azure.cluster(SUBSCRIPTION, "rg-shop", "shop")
    arm.on("GET", f"{VMS}/0", reply)
    with pytest.raises(error_type):
        await azure.node(a_node())
    arm.on("GET", CLUSTERS, reply)
    with pytest.raises((SubscriptionError, CredentialError)) as caught:
        await azure.clusters(SUBSCRIPTION)
    assert getattr(caught.value, "passing", True)


async def test_reads_are_repeated_after_passing_trouble(arm: Arm, azure: Azure) -> None:
    trouble = [Answer(503, text="<html>"), Answer(drop=True), Answer(429, headers={"retry-after-ms": "20"})]
    arm.on("GET", CLUSTERS, *trouble, Answer(200, {"value": []}))
    assert await azure.clusters(SUBSCRIPTION) == []
    assert arm.count("GET") == 4
    # aiohttp itself repeats a GET once on a connection that was closed meanwhile: that one is not seen here.
    assert azure.stats.calls == {"clusters": 3}


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        (Answer(403, error("AuthorizationFailed", "no")), "AuthorizationFailed", "managedClusters/read"),
        (Answer(404, error("SubscriptionNotFound", "no")), "SubscriptionNotFound", SUBSCRIPTION),
        (Answer(401, error("InvalidAuthenticationTokenTenant", "no")), "InvalidAuthenticationTokenTenant", "tenant"),
        (Answer(409, error("ReadOnlyDisabledSubscription", "no")), "ReadOnlyDisabledSubscription", "disabled"),
    ],
)
async def test_one_subscription_that_cannot_be_read(
    arm: Arm, azure: Azure, reply: Answer, code: str, words: str
) -> None:
    arm.on("GET", CLUSTERS, reply)
    with pytest.raises(SubscriptionError, match=words) as caught:
        await azure.clusters(SUBSCRIPTION)
    assert caught.value.problem.code == code
    assert caught.value.problem.status is Status.ERROR
    assert not caught.value.passing


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (409, "MissingSubscriptionRegistration"),
        (404, "SubscriptionNotRegistered"),
        (400, "DisallowedOperation"),
        (400, "DisallowedProvider"),
    ],
)
async def test_no_provider_means_no_clusters_and_nothing_is_registered(
    arm: Arm, azure: Azure, status: int, code: str
) -> None:
    arm.on("GET", CLUSTERS, Answer(status, error(code, "not registered to use namespace")))
    assert await azure.clusters(SUBSCRIPTION) == []
    assert arm.count("POST") == 0


async def test_a_refused_token_concerns_the_whole_run(arm: Arm, azure: Azure) -> None:
    arm.on("GET", CLUSTERS, Answer(401, error("InvalidAuthenticationToken", "bad")))
    with pytest.raises(CredentialError, match="az login"):
        await azure.clusters(SUBSCRIPTION)


async def test_no_credential_is_said_so(arm: Arm, settings: Settings) -> None:
    class Nobody(Token):
        async def get_token(self, *scopes: str, **_: Any) -> Any:
            raise ClientAuthenticationError("nobody is signed in\nmany lines more")

    async with Azure(settings, Nobody()) as azure:
        with pytest.raises(CredentialError, match=r"nobody is signed in(?s:.*)az login"):
            await azure.subscriptions()
        # In the middle of a run it passes, and is no more than a problem of the cluster where it does not.
        linux = NodePool("pool1", "VirtualMachineScaleSets", "Linux", "Running", "Succeeded", None, None, 1)
        shop = Cluster("", SUBSCRIPTION, "rg", "shop", "w", "Running", "Succeeded", GROUP, False, None, (linux,))
        nodes, problems = await list_nodes(azure, shop)
    assert nodes == []
    assert [(found.problem.code, found.passing) for found in problems] == [("credential", True)]
    assert not arm.seen


async def test_an_endpoint_that_nobody_answers(token: Token) -> None:
    async with Azure(Settings(arm_endpoint="https://localhost:1"), token) as azure:
        with pytest.raises(EndpointError, match=r"https://localhost:1.*GUARD_ARM_ENDPOINT"):
            await azure.subscriptions()


async def test_an_endpoint_whose_certificate_is_not_trusted(
    arm: Arm, settings: Settings, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    async with Azure(settings, token) as azure:
        with pytest.raises(EndpointError, match="SSL_CERT_FILE"):
            await azure.clusters(SUBSCRIPTION)
    assert not arm.seen


async def test_the_default_credential_is_the_managed_identity_of_its_endpoint(
    arm: Arm, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{arm.base}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "secret-header")
    arm.on(
        "GET",
        "/msi/token",
        Answer(
            200, {"access_token": "from-msi", "expires_on": "4102444800", "token_type": "Bearer", "resource": arm.base}
        ),
    )
    arm.on("GET", CLUSTERS, Answer(200, {"value": []}))
    async with Azure(settings) as azure:
        assert await azure.clusters(SUBSCRIPTION) == []
        assert await azure.clusters(SUBSCRIPTION) == []
    assert arm.count("GET", "msi") == 1
    asked = next(seen for seen in arm.seen if "msi" in seen.path)
    assert asked.query["resource"] == arm.base
    assert arm.seen[-1].headers["Authorization"] == "Bearer from-msi"


async def test_a_pool_of_azures_own(arm: Arm, azure: Azure) -> None:
    cluster = await one_cluster(arm, azure, pool("hosted", mode="ManagedSystem"), hostedSystemProfile={"enabled": True})
    nodes, problems = await list_nodes(azure, cluster)
    assert nodes == []
    assert [(found.node_pool, found.problem.code, found.problem.status) for found in problems] == [
        ("hosted", "hosted_system", Status.NOT_APPLICABLE),
    ]
    assert not arm.seen


@pytest.mark.parametrize("state", ["Creating", "Deleting"])
async def test_a_cluster_that_comes_or_goes(arm: Arm, azure: Azure, state: str) -> None:
    for changes in ({"agentPoolProfiles": None}, {"nodeResourceGroup": None}, {}):
        cluster = await one_cluster(arm, azure, pool("pool1"), provisioningState=state, **changes)
        arm.on("GET", SETS, Answer(404, error("ResourceGroupNotFound", "no")))
        nodes, problems = await list_nodes(azure, cluster)
        assert nodes == []
        assert [(found.problem.code, found.problem.status) for found in problems] == [
            ("cluster_changing", Status.SKIPPED)
        ]
    cluster = await one_cluster(arm, azure, pool("pool1"), provisioningState=state)
    arm.on("GET", SETS, Answer(200, {"value": [scale_set(SCALE_SET, TAG)]}))
    arm.on("GET", VMS, Answer(404, error("ResourceNotFound", "no")))
    _, (problem,) = await list_nodes(azure, cluster)
    assert (problem.node_pool, problem.problem.code) == ("pool1", "cluster_changing")


@pytest.mark.parametrize("group", [None, "..", "a/b", "a?b", "x\x1b", "x" * 91])
async def test_a_node_resource_group_that_cannot_be_one_is_asked_for_nothing(
    arm: Arm, azure: Azure, group: str | None
) -> None:
    cluster = await one_cluster(arm, azure, pool("pool1"), nodeResourceGroup=group)
    nodes, problems = await list_nodes(azure, cluster)
    assert nodes == []
    assert [(found.problem.code, found.problem.status) for found in problems] == [("malformed", Status.ERROR)]
    assert not arm.seen


async def test_nodes_come_page_by_page_and_those_before_a_broken_page_stay(arm: Arm, azure: Azure) -> None:
    cluster = await one_cluster(arm, azure, pool("pool1"))
    arm.on("GET", SETS, Answer(200, {"value": [scale_set(SCALE_SET, TAG)]}))
    first = {"value": [instance("0"), instance("1")], "nextLink": "{base}/virtualmachines?page=2"}
    arm.on("GET", VMS, Answer(200, first), Answer(403, error("AuthorizationFailed", "no")))
    found = azure.nodes(cluster)
    assert [getattr(await anext(found), "instance_id", None) for _ in range(2)] == ["0", "1"]
    assert len(arm.seen) == 2
    (last,) = [item async for item in found]
    assert isinstance(last, ScopeProblem)
    assert (last.node_pool, last.problem.code) == ("pool1", "AuthorizationFailed")


async def test_a_cluster_that_is_gone_although_it_was_listed(arm: Arm, azure: Azure) -> None:
    cluster = await one_cluster(arm, azure, pool("pool1"))
    arm.on("GET", SETS, Answer(404, error("ResourceGroupNotFound", "no")))
    arm.on("GET", "/managedclusters/shop", Answer(404, error("ResourceNotFound", "no")))
    nodes, (problem,) = await list_nodes(azure, cluster)
    assert nodes == []
    assert (problem.cluster, problem.problem.status, problem.problem.code) == ("shop", Status.SKIPPED, "vanished")
    going = far.cluster("shop", pool("pool1"), provisioningState="Deleting")
    arm.on("GET", "/managedclusters/shop", Answer(200, going))
    _, (problem,) = await list_nodes(azure, cluster)
    assert problem.problem.code == "cluster_changing"


async def test_one_cluster_by_one_call(arm: Arm, azure: Azure) -> None:
    arm.on("GET", "/managedclusters/shop", Answer(200, far.cluster("shop", pool("pool1"))))
    listed = await one_cluster(arm, azure, pool("pool1"))
    assert await azure.cluster(SUBSCRIPTION, "rg-shop", "shop") == listed
    assert [seen.path for seen in arm.seen] == [listed.id.replace("resourcegroups", "resourceGroups")]
    assert azure.stats.calls == {"clusters": 1, "cluster": 1}


async def test_one_node_by_one_call(arm: Arm, azure: Azure) -> None:
    known = a_node(power="running", created=None, node_image_version="old", kubernetes_version="1.33.3")
    arm.on("GET", f"{VMS}/0", Answer(200, instance("0", "deallocated", provisioningState="Updating")))
    now = await azure.node(known)
    assert isinstance(now, Node)
    assert (now.power, now.provisioning, now.key) == ("deallocated", "Updating", known.key)
    assert now.node_image_version == "AKSUbuntu-2204gen2containerd-202509.11.0"
    assert now.created is not None
    assert now.kubernetes_version == "1.33.3"
    assert arm.seen[0].path.lower() == known.key
    assert arm.seen[0].query["$expand"] == "instanceView"
    assert azure.stats.calls == {"instance": 1}


@pytest.mark.parametrize(
    ("reply", "code", "status"),
    [
        (Answer(404, error("ResourceNotFound", "gone")), "vanished", Status.SKIPPED),
        (Answer(404, error("ParentResourceNotFound", "gone")), "vanished", Status.SKIPPED),
        (Answer(404, text="<html>"), "not_found", Status.ERROR),
        (Answer(403, error("AuthorizationFailed", "no")), "AuthorizationFailed", Status.ERROR),
        (Answer(200, text="<html>"), "malformed", Status.ERROR),
        (Answer(200, [1]), "malformed", Status.ERROR),
    ],
)
async def test_a_cluster_or_node_that_cannot_be_had(
    arm: Arm, azure: Azure, reply: Answer, code: str, status: Status
) -> None:
    arm.on("GET", "/managedclusters/shop", reply)
    arm.on("GET", f"{VMS}/0", reply)
    for outcome in (await azure.cluster(SUBSCRIPTION, "rg-shop", "shop"), await azure.node(a_node())):
        assert isinstance(outcome, Problem)
        assert (outcome.code, outcome.status) == (code, status)


async def test_an_answer_for_another_instance_is_none(arm: Arm, azure: Azure) -> None:
    arm.on("GET", f"{VMS}/0", Answer(200, instance("1")))
    outcome = await azure.node(a_node())
    assert isinstance(outcome, Problem)
    assert outcome.code == "malformed"


async def test_a_name_that_leads_elsewhere_is_asked_for_nothing(arm: Arm, azure: Azure) -> None:
    for name in ("..", ".", ""):
        outcomes = (
            await azure.cluster(SUBSCRIPTION, name, "shop"),
            await azure.cluster(name, "rg-shop", "shop"),
            await azure.node(a_node(instance_id=name)),
            await azure.node(a_node(scale_set="", instance_id=name)),
            await azure.start(a_node(node_resource_group=name), "true", None, 1),
        )
        for outcome in outcomes:
            assert isinstance(outcome, Problem)
            assert outcome.code == "malformed"
    assert not arm.seen
    await azure.cluster(SUBSCRIPTION, "a/b?c#d", "shop")
    assert "/resourceGroups/a%2Fb%3Fc%23d/" in arm.raw[0]


async def test_an_instance_on_two_pages_is_one_node(arm: Arm, azure: Azure) -> None:
    cluster = await one_cluster(arm, azure, pool("pool1"))
    arm.on("GET", SETS, Answer(200, {"value": [scale_set(SCALE_SET, TAG)]}))
    pages = [
        {"value": [instance("0")], "nextLink": "{base}/virtualmachines"},
        {"value": [instance("0"), instance("1")]},
    ]
    arm.on("GET", VMS, *(Answer(200, page) for page in pages))
    nodes, problems = await list_nodes(azure, cluster)
    assert [node.instance_id for node in nodes] == ["0", "1"]
    assert problems == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2026-11-20T08:00:00", datetime(2026, 11, 20, 8, tzinfo=UTC)),
        ("2026-11-20T08:00:00.1234567Z", datetime(2026, 11, 20, 8, 0, 0, 123456, tzinfo=UTC)),
        ("2026-11-20T10:00:00+02:00", datetime(2026, 11, 20, 8, tzinfo=UTC)),
        ("0001-01-01T00:00:00", None),
        ("0001-01-01T00:00:00+00:00", None),
        ("9999-12-31T23:59:59-12:00", None),
        ("", None),
        ("yesterday", None),
        (None, None),
        (20261120, None),
        ({}, None),
    ],
)
def test_times_as_azure_writes_them(given: object, expected: datetime | None) -> None:
    assert moment(given) == expected


jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(FIELDS), jsons, max_size=8), st.booleans())
def test_any_item_of_a_list_is_read(item: dict[str, object], older: bool) -> None:
    cluster = cluster_of(SUBSCRIPTION, item, older=older)
    node = node_of(cluster, pool_of(item), SCALE_SET, item)
    match_pools({"x"}, [item])
    for value in (*astuple(cluster), *astuple(node)):
        assert not isinstance(value, str) or plain(value) == value
    precheck(node)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"os": "Windows"}, Status.ERROR, "windows"),
        ({"power": "deallocated"}, Status.SKIPPED, "deallocated"),
        ({"power": "Stopped"}, Status.SKIPPED, "stopped"),
        ({"power": "starting"}, Status.SKIPPED, "starting"),
        ({"provisioning": "Creating"}, Status.SKIPPED, "starting"),
        ({"provisioning": "Deleting"}, Status.SKIPPED, "deleting"),
        ({"pool_provisioning": "Deleting"}, Status.SKIPPED, "deleting"),
        ({"cluster_provisioning": "Deleting"}, Status.SKIPPED, "deleting"),
        ({"locked": True}, Status.ERROR, "locked"),
        ({"locked": True, "power": "deallocated"}, Status.SKIPPED, "deallocated"),
    ],
)
def test_precheck(changes: dict[str, Any], status: Status, code: str) -> None:
    problem = precheck(a_node(**changes))
    assert problem is not None
    assert (problem.status, problem.code) == (status, code)
    assert problem.reason
    assert problem.hint


@pytest.mark.parametrize("changes", [{}, {"power": ""}, {"provisioning": "Updating"}, {"provisioning": "Failed"}])
def test_precheck_lets_through_what_is_worth_trying(changes: dict[str, Any]) -> None:
    assert precheck(a_node(**changes)) is None
