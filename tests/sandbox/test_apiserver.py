"""A cluster's API server, asked by the product itself, against the sandbox's own: what it tells, and how it refuses."""

from __future__ import annotations

import asyncio

import pytest

from shared.azure import Pending
from shared.cluster import Sweep
from shared.models import Problem
from tests.sandbox.test_invoke import SETTINGS, Asked, asked


async def ask(cluster: Asked, **more: object) -> Sweep | Problem:
    """Ask to the end."""
    found = await cluster.client.ask_api_server(cluster.cluster, SETTINGS, None, **more)  # type: ignore[arg-type]
    assert not isinstance(found, Pending)
    return found


async def test_what_the_kubelets_run_with(monkeypatch: pytest.MonkeyPatch) -> None:
    states = ("compliant_default", "false_both", "changed_since_start", "refuses_start", "deallocated", "vanished")
    async with asked(monkeypatch, *states, api_server="ok") as cluster:
        began = asyncio.get_running_loop().time()
        found = await ask(cluster)
        assert isinstance(found, Sweep)
        assert asyncio.get_running_loop().time() - began < 12, "the one that does not answer has a time of its own"
        assert (found.problem, found.listed, found.left) == (None, 5, 0)
        values = [item.values.get("makeIPTablesUtilChains") for item in found.nodes.values()]
        assert values == [True, False, True, None, None], "the process's, not the disk's"
        codes = [item.trouble and item.trouble.code for item in found.nodes.values()]
        assert codes == [None, None, None, "configz_refused", "configz_timeout"]
        assert cluster.client.stats.calls == {"clusters": 1, "credentials": 1}
        # By a command in the cluster the very same comes out, but for the words of what takes a proxy's side.
        within = await cluster.sweep("proxy")
        assert {name: (node.values, node.resource_id, node.boot_id) for name, node in found.nodes.items()} == {
            name: (node.values, node.resource_id, node.boot_id) for name, node in within.nodes.items()
        }


async def test_named_nodes_and_their_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(monkeypatch, "compliant_default", "refuses_start", api_server="ok") as cluster:
        whole = await ask(cluster)
        assert isinstance(whole, Sweep)
        up, down = whole.nodes
        found = await cluster.client.ask_api_server(cluster.cluster, (), None, nodes=[up, down, "gone"], pods=True)
        assert isinstance(found, Sweep)
        told = {
            name: (node.ready, node.failing, node.trouble and node.trouble.code) for name, node in found.nodes.items()
        }
        assert told == {up: (True, 0, None), down: (None, 2, None), "gone": (None, None, "configz_unknown_node")}


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"api_server": "no_list"}, "sweep_list_forbidden", "sweep-rbac-proxy.yaml"),
        ({"api_server": "foreign"}, "sweep_foreign_server", "apiserver.example.org"),
        ({"api_server": "forbidden"}, "AuthorizationFailed", "listClusterUserCredential/action"),
        ({"api_server": "ok", "entra": "false"}, "sweep_not_entra", "command invoke"),
        ({"fqdn": "localhost"}, "sweep_unreachable", "cannot be reached from here"),
        ({"power": "Stopped"}, "cluster_stopped", "stopped"),
    ],
)
async def test_a_cluster_that_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], code: str, words: str
) -> None:
    async with asked(monkeypatch, "compliant_default", **fields) as cluster:
        found = await ask(cluster)
    assert isinstance(found, Problem)
    assert found.code == code
    assert words in f"{found.reason} {found.hint}"


async def test_a_right_to_the_proxy_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(monkeypatch, "compliant_default", api_server="no_proxy") as cluster:
        found = await ask(cluster)
    assert isinstance(found, Sweep)
    (node,) = found.nodes.values()
    assert node.trouble is not None
    assert node.trouble.code == "configz_forbidden"
    assert "GUARD_SWEEP_WAY" in node.trouble.hint
    assert node.resource_id, "what the list says is kept"
