"""Command invoke on a scripted Resource Manager: how many requests, and what each answer comes to."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.azure import AWAY_SECONDS, Azure, Invoked, Pending
from shared.azure.discovery import cluster_of
from shared.azure.invoke import read_answer
from shared.azure.problems import Fault
from shared.clouds import CLUSTER_SCOPE
from shared.models import Cluster, Problem
from tests.support.arm import SUBSCRIPTION, Answer, Arm, Token, error
from tests.support.arm import cluster as cluster_body

PLACE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-shop/providers/Microsoft.ContainerService/managedClusters/shop"
)
RESULT = f"{PLACE}/commandResults/0123"
POST, LOOK = "/shop/runcommand", "/commandresults/0123"
ACCEPTED = Answer(202, headers={"Location": "{base}" + f"{RESULT}?api-version=2026-08-01&s=SIGNATURE"})


def a_cluster(**changes: Any) -> Cluster:
    return replace(cluster_of(SUBSCRIPTION, cluster_body("shop")), **changes)


def done(logs: object = "all\n", code: object = 0, state: str = "Succeeded", **more: Any) -> dict[str, Any]:
    return {"id": "0123", "properties": {"provisioningState": state, "exitCode": code, "logs": logs, **more}}


async def at_once(azure: Azure, cluster: Cluster, tries: int = 20) -> Invoked | Problem | Pending:
    """Start and look without waiting until anything is due."""
    state: Pending | None = None
    for _ in range(tries):
        outcome = (
            await azure.look_in_cluster(cluster, state)
            if state is not None and state.url
            else await azure.start_in_cluster(cluster, "kubectl version", state, 1.0)
        )
        if not isinstance(outcome, Pending):
            return outcome
        state = outcome
    assert state is not None
    return state


async def test_one_post_and_one_look(arm: Arm, azure: Azure, token: Token) -> None:
    arm.on("POST", POST, ACCEPTED)
    arm.on("GET", LOOK, Answer(200, done()))
    assert await at_once(azure, a_cluster()) == Invoked("all\n", 0)
    post, _ = arm.seen
    assert post.body == {"command": "kubectl version", "context": ""}
    assert token.asked == [(f"{arm.base}/.default",)], "a cluster without Entra ID gets no token"
    assert azure.stats.calls == {"invoke": 1, "invoke_poll": 1}


async def test_an_entra_cluster_gets_a_token_for_itself_and_nobody_else_does(
    arm: Arm, azure: Azure, token: Token, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    arm.on("POST", POST, ACCEPTED)
    arm.on("GET", LOOK, Answer(202, {}), Answer(200, done(None)))
    assert await at_once(azure, a_cluster(entra=True)) == Invoked("", 0)
    assert arm.seen[0].body["clusterToken"] == "t0ken"
    assert token.asked[0] == (CLUSTER_SCOPE,)
    assert "t0ken" not in caplog.text
    assert "SIGNATURE" not in caplog.text


async def test_a_lost_start_is_sent_again_since_it_changes_nothing(arm: Arm, azure: Azure) -> None:
    arm.on("POST", POST, Answer(drop=True), Answer(503, text="away"), Answer(429, error("TooManyRequests")), ACCEPTED)
    arm.on("GET", LOOK, Answer(200, done()))
    assert await at_once(azure, a_cluster()) == Invoked("all\n", 0)
    # The one that was refused for the rate keeps our own limit shut for a while.
    assert arm.count("POST") == 4


@pytest.mark.parametrize(
    ("answers", "code", "words"),
    [
        ([Answer(403, error("AuthorizationFailed", "no"))], "AuthorizationFailed", "runCommand/action"),
        ([Answer(404, error("ResourceNotFound", "gone"))], "ResourceNotFound", "does not exist"),
        ([Answer(400, error("MissingAADClusterToken"))], "MissingAADClusterToken", "Entra"),
        (
            [Answer(400, error("KubernetesOperationError", 'admission webhook "x.y" denied the request: [a] b'))],
            "KubernetesOperationError",
            "policy",
        ),
        ([Answer(200, {})], "malformed", "could not be read"),
    ],
)
async def test_what_a_refused_start_comes_to(
    arm: Arm, azure: Azure, answers: Sequence[Answer], code: str, words: str
) -> None:
    arm.on("POST", POST, *answers)
    # An answer that nobody can read is asked for again, as long as Azure may be away.
    found = await at_once(azure, a_cluster(), tries=1)
    if isinstance(found, Pending):
        assert code == "malformed"
        long_ago = replace(found, away_since=datetime.now(UTC) - timedelta(seconds=AWAY_SECONDS))
        found = await azure.start_in_cluster(a_cluster(), "kubectl version", long_ago, 1.0)
    assert isinstance(found, Problem)
    assert found.code == code
    assert words in f"{found.reason} {found.hint}"


@pytest.mark.parametrize(
    ("answers", "code", "words", "looks"),
    [
        ([Answer(404, text="")], "no_capacity", "did not start", 2),
        ([Answer(404, error("ResourceNotFound", "gone"))], "ResourceNotFound", "does not exist", 2),
        ([Answer(403, error("AuthorizationFailed", "no"))], "AuthorizationFailed", "commandResults/read", 1),
        (
            [Answer(400, error("KubernetesPerformanceError", "container command-1 in aks-command namespace did not"))],
            "KubernetesPerformanceError",
            "did not start",
            1,
        ),
        (
            [
                Answer(
                    200,
                    done(None, None, "Failed", reason="container c in aks-command namespace did not start within 30s"),
                )
            ],
            "no_capacity",
            "did not start",
            1,
        ),
        ([Answer(200, done(None, None, "Canceled"))], "invoke_failed", "ended as Canceled", 1),
        ([Answer(200, {"error": {"code": "X", "message": "y"}})], "X", "refused the call", 1),
        ([Answer(200, text="<html>")], "malformed", "could not be read", 3),
        ([Answer(200, done(7, 0))], "invoke_failed", "did not run", 1),
    ],
)
async def test_what_a_look_comes_to(
    arm: Arm, azure: Azure, answers: Sequence[Answer], code: str, words: str, looks: int
) -> None:
    arm.on("POST", POST, ACCEPTED)
    arm.on("GET", LOOK, *answers)
    found = await at_once(azure, a_cluster())
    assert isinstance(found, Problem)
    assert found.code == code
    assert words in f"{found.reason} {found.hint}"
    assert arm.count("GET") == looks
    assert "SIGNATURE" not in f"{found}"


async def test_azure_that_is_away_is_looked_past(arm: Arm, azure: Azure) -> None:
    arm.on("POST", POST, ACCEPTED)
    arm.on("GET", LOOK, Answer(503, text="x"), Answer(drop=True), Answer(202), Answer(200, done(code=2)))
    assert await at_once(azure, a_cluster()) == Invoked("all\n", 2)


async def test_a_command_without_end_has_one(arm: Arm, azure: Azure) -> None:
    arm.on("POST", POST, ACCEPTED)
    arm.on("GET", LOOK, Answer(202))
    going = await at_once(azure, a_cluster(), tries=3)
    assert isinstance(going, Pending)
    assert going.started is not None
    late = replace(going, started=going.started - timedelta(minutes=6))
    found = await azure.look_in_cluster(a_cluster(), late)
    assert isinstance(found, Problem)
    assert found.code == "invoke_deadline"
    with pytest.raises(ValueError, match="not started"):
        await azure.look_in_cluster(a_cluster(), replace(going, url=""))


async def test_without_a_token_it_is_tried_again(arm: Arm, azure: Azure, token: Token) -> None:
    from azure.core.exceptions import ClientAuthenticationError

    async def refused(*scopes: str, **_: Any) -> Any:
        raise ClientAuthenticationError("AADSTS: the identity has no federated credential")

    token.get_token = refused  # type: ignore[method-assign]
    first = await azure.start_in_cluster(a_cluster(entra=True), "kubectl version", None, 1.0)
    assert isinstance(first, Pending)
    assert not first.url
    long_ago = replace(first, away_since=datetime.now(UTC) - timedelta(seconds=AWAY_SECONDS))
    found = await azure.start_in_cluster(a_cluster(entra=True), "kubectl version", long_ago, 1.0)
    assert isinstance(found, Problem)
    assert found.code == "credential"
    assert not arm.seen


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (202, b"", None),
        (202, b"{}", None),
        (200, json.dumps(done(state="Running")).encode(), None),
        (200, json.dumps(done("\u00e9" * 600_000)).encode(), Invoked("\u00e9" * 600_000, 0)),
        (200, b"[" * 100_000, Fault(None, "malformed", "100000 bytes that are not JSON")),
        (200, b"[]", Fault(None, "malformed", "JSON that is not an object")),
        (200, b" " * ((1 << 22) + 1), Fault(None, "malformed", "4194305 bytes")),
    ],
)
def test_the_forms_of_an_answer(status: int, body: bytes, expected: object) -> None:
    assert read_answer(status, body) == expected


def test_what_a_list_says_of_how_a_cluster_can_be_asked() -> None:
    profile = {"disableRunCommand": True, "enablePrivateCluster": True}
    body = cluster_body("shop", aadProfile={"managed": True}, apiServerAccessProfile=profile)
    found = cluster_of(SUBSCRIPTION, body)
    assert (found.entra, found.invoke_disabled, found.private) == (True, True, True)
    found = cluster_of(SUBSCRIPTION, cluster_body("shop", aadProfile=None, apiServerAccessProfile=None))
    assert (found.entra, found.invoke_disabled, found.private) == (False, False, False)
