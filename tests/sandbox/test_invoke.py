"""Command invoke as the product uses it, against the sandbox: the very script, on a recorded cluster; every failure."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

import sandbox
from sandbox import service
from shared.azure import Azure, Invoked, Pending
from shared.cluster import Sweep, Way, parse_sweep, sweep_script
from shared.models import Cluster, Problem
from shared.settings import Settings
from tests.support.fleets import SUBSCRIPTION, fleet
from tests.support.require import require

NONCE = "0123456789abcdef"
SETTINGS = ["makeIPTablesUtilChains", "authentication.anonymous.enabled", "readOnlyPort"]


@dataclass
class Asked:
    """A sandbox and a client for its only cluster."""

    box: sandbox.Sandbox
    client: Azure
    cluster: Cluster

    async def invoke(self, command: str) -> Invoked | Problem:
        """Run a command to its end."""
        state: Pending | None = None
        while True:
            outcome = (
                await self.client.look_in_cluster(self.cluster, state)
                if state is not None and state.url
                else await self.client.start_in_cluster(self.cluster, command, state, 0.05)
            )
            if not isinstance(outcome, Pending):
                return outcome
            state = outcome
            await asyncio.sleep(max(0.0, (state.due - datetime.now(UTC)).total_seconds()))

    async def sweep(self, way: Way = "direct", **more: object) -> Sweep:
        """Ask the cluster's kubelets."""
        require(shutil.which("jq") is not None, "the sweep's script needs jq, which AKS's image has")
        done = await self.invoke(sweep_script(SETTINGS, way, NONCE, **more))  # type: ignore[arg-type]
        assert isinstance(done, Invoked), done
        assert done.exit_code == 0
        assert not [name for name in more if name not in ("nodes", "after", "most")]
        return parse_sweep(done.logs, NONCE, SETTINGS, way, nodes=more.get("nodes"))  # type: ignore[arg-type]


@asynccontextmanager
async def asked(monkeypatch: pytest.MonkeyPatch, *states: str, **fields: str) -> AsyncIterator[Asked]:
    text = "".join(f"{name}: {value}, " for name, value in fields.items() if name != "pool")
    async with sandbox.serve(fleet(*states, cluster=text, pool=fields.get("pool", ""))) as box:
        for name, value in box.environ.items():
            monkeypatch.setenv(name, value)
        async with Azure(Settings(arm_endpoint=box.endpoint)) as client:
            (cluster,) = await client.clusters(SUBSCRIPTION)
            yield Asked(box, client, cluster)


@pytest.mark.parametrize("way", ["direct", "proxy"])
@pytest.mark.parametrize("entra", ["true", "false"])
async def test_what_the_kubelets_run_with(monkeypatch: pytest.MonkeyPatch, way: Way, entra: str) -> None:
    states = ("compliant_default", "false_both", "changed_since_start", "refuses_start", "deallocated", "vanished")
    async with asked(monkeypatch, *states, entra=entra) as cluster:
        assert cluster.cluster.entra is (entra == "true")
        found = await cluster.sweep(way)
        assert (found.problem, found.listed, found.left) == (None, 5, 0)
        values = [item.values.get("makeIPTablesUtilChains") for item in found.nodes.values()]
        assert values == [True, False, True, None, None], "the process's, not the disk's"
        codes = [item.trouble and item.trouble.code for item in found.nodes.values()]
        assert codes == [None, None, None, "configz_refused", "configz_timeout"]
        assert [item.ready for item in found.nodes.values()] == [True, True, True, None, None]
        listed = {node.key async for node in cluster.client.nodes(cluster.cluster) if not hasattr(node, "problem")}
        assert {item.resource_id for item in found.nodes.values()} <= listed, "as Azure names its machines"


async def test_a_restart_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(monkeypatch, "restart_pending_fixed") as cluster:
        (before,) = (await cluster.sweep()).nodes.values()
        root = cluster.box.node_dir(before.name)
        service.restart(root, datetime.now(UTC).timestamp())
        (after,) = (await cluster.sweep()).nodes.values()
        assert (before.values["makeIPTablesUtilChains"], after.values["makeIPTablesUtilChains"]) == (False, True)
        assert before.boot_id == after.boot_id != ""


async def test_hundreds_of_nodes_in_pages_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    states = ["no_kubelet"] * 430
    async with asked(monkeypatch, *states) as cluster:
        whole: dict[str, object] = {}
        after, left, calls = "", 1, 0
        while left:
            found = await cluster.sweep("proxy", after=after, most=300)
            assert found.listed == 430
            assert not whole.keys() & found.nodes.keys()
            whole |= found.nodes
            after, left, calls = found.last, found.left, calls + 1
        assert (len(whole), calls) == (430, 2)
        name = sorted(whole)[399]
        assert (await cluster.sweep("proxy", nodes=[name, "gone"])).nodes.keys() == {name, "gone"}


async def test_old_kubelets_are_not_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(monkeypatch, "compliant_default", pool="version: 1.32.9,") as cluster:
        (old,) = (await cluster.sweep("direct")).nodes.values()
        assert old.trouble is not None
        assert old.trouble.code == "configz_too_old"
        (asked_by_proxy,) = (await cluster.sweep("proxy")).nodes.values()
        assert asked_by_proxy.values["makeIPTablesUtilChains"] is True


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        ("disabled", "invoke_disabled"),
        ("forbidden", "AuthorizationFailed"),
        ("result_forbidden", "AuthorizationFailed"),
        ("policy", "KubernetesOperationError"),
        ("no_capacity", "KubernetesPerformanceError"),
        ("not_found", "no_capacity"),
        ("image", "invoke_failed"),
    ],
)
async def test_a_command_that_cannot_be_invoked(monkeypatch: pytest.MonkeyPatch, failure: str, code: str) -> None:
    async with asked(monkeypatch, "compliant_default", command_invoke=failure) as cluster:
        found = await cluster.invoke("echo")
        assert isinstance(found, Problem)
        assert found.code == code
        calls = cluster.box.stats()["calls"]
        assert calls.get("invoke", 0) == (0 if failure == "disabled" else 1), "a lasting refusal is not asked for again"


@pytest.mark.parametrize(
    ("failure", "code", "nodes"),
    [
        ("no_rights", "sweep_list_forbidden", 0),
        ("no_account", "sweep_token_not_found", 1),
        ("truncated", "sweep_garbled", 0),
    ],
)
async def test_a_cluster_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, failure: str, code: str, nodes: int
) -> None:
    async with asked(monkeypatch, "compliant_default", command_invoke=failure) as cluster:
        found = await cluster.sweep()
        assert found.problem is not None
        assert (found.problem.code, len(found.nodes)) == (code, nodes)


async def test_a_stopped_cluster_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(monkeypatch, "compliant_default", power="Stopped") as cluster:
        found = await cluster.invoke("echo")
        assert isinstance(found, Problem)
        assert found.code == "cluster_stopped"
        assert "invoke" not in cluster.box.stats()["calls"]


async def test_an_entra_cluster_wants_a_token_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a list that is behind may lead to, and a token for somebody else."""
    from dataclasses import replace

    async with asked(monkeypatch, "compliant_default") as cluster:
        cluster.cluster = replace(cluster.cluster, entra=False)
        found = await cluster.invoke("echo")
        assert isinstance(found, Problem)
        assert found.code == "MissingAADClusterToken"
        assert "Entra" in found.reason
        cluster.cluster = replace(cluster.cluster, entra=True)
        done = await cluster.invoke("echo out; echo err >&2; exit 3")
        assert done == Invoked("out\nerr\n", 3)
