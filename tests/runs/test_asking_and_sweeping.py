"""What clusters tell a run, step by step: whose word counts for which node, and for how long."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.controls import Code, builtin, catalogue, install, read
from shared.models import Cluster, Finding, Node, Problem, RunKind, Status, Told
from shared.runs import documents
from shared.runs.model import findings, keys, rows, sweeps
from shared.runs.model.history import after
from shared.runs.model.messages import AskPool, FindNodes, PoolAsked, SweepChunk
from shared.runs.model.plans import NodePlan
from shared.runs.model.request import FixRequest, RunRequest
from shared.runs.model.sweeps import ChunkSweep, ClusterSweep, SweptPage
from shared.runs.nodes.hearing import digest_of, heard, needs_look, still_told
from shared.runs.steps import asking, plan_pages, sweeping
from tests.runs import by_hand
from tests.runs.simulated.azure import Invocation
from tests.runs.simulated.clock import now, virtually
from tests.runs.simulated.rig import Rig, rig

A = "5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1"
IPTABLES = "makeIPTablesUtilChains"
DENIED = Problem(Status.SKIPPED, "vanished", "the cluster no longer exists.", "Nothing to do.")


def told(node: Node, right: bool, name: str = "") -> Told:
    return Told(
        node.key,
        name or node.name,
        datetime.now(UTC),
        version="v1.33.5",
        values={IPTABLES: json.dumps(right)},
        settings=digest_of(catalogue().settings),
    )


def node_of(world: Rig, cluster: str, group: str = "rg") -> Node:
    (member,) = world.azure.add(A, cluster, [True])
    return replace(member.node, resource_group=group)


async def heard_of(world: Rig, clusters: Sequence[Cluster], pages: Mapping[int, Sequence[SweptPage]]) -> Any:
    """What `hearsay` makes of these pages, by the number of their cluster."""
    run = await by_hand.recorded(world.services, RunKind.AUDIT)
    row = ChunkSweep(tuple(ClusterSweep(len(pages[number]), done=True) for number in range(len(clusters))))
    await world.store.put_work(run.id, keys.sweep(A, 0), rows.to_text(sweeps.CHUNK, row), None)
    for number, some in pages.items():
        for at, page in enumerate(some):
            await documents.save(world.store, run.id, keys.swept(A, 0, number, at), documents.SWEPT, page)
    message = FindNodes(run_id=run.id, subscription=A, chunk=0)
    return await sweeping.hearsay(world.services, run.id, message, clusters)


class TestWhoseWordCounts:
    def test_a_cluster_speaks_of_its_own_nodes_alone(self) -> None:
        async def work() -> None:
            world = rig(1)
            ours, theirs = node_of(world, "aks"), node_of(world, "other")
            pages = {
                0: [SweptPage((told(ours, False),))],
                1: [SweptPage((told(theirs, True), told(ours, True, "liar")))],
            }
            said = await heard_of(world, world.azure.known, pages)
            assert said.of(ours).values == {IPTABLES: "false"}

        virtually(work)

    def test_clusters_of_one_name_in_two_groups_are_two(self) -> None:
        async def work() -> None:
            world = rig(1)
            node = node_of(world, "aks", "RG-ONE")
            one = replace(world.azure.known[0], resource_group="rg-one")
            two = replace(one, id=f"{one.id}2", resource_group="rg-two")
            said = await heard_of(world, [one, two], {0: [SweptPage()], 1: [SweptPage(problem=DENIED)]})
            assert said.of(node).trouble.code == "not_in_cluster"
            assert said.of(replace(node, resource_group="rg-two")).trouble.code == "vanished"

        virtually(work)

    def test_a_machine_that_nodes_of_two_pages_name_is_neither_s(self) -> None:
        async def work() -> None:
            world = rig(1)
            node = node_of(world, "aks")
            pages = [
                SweptPage((told(node, False),)),
                SweptPage((told(node, True, "zz"),)),
                SweptPage((told(node, True),)),
            ]
            said = await heard_of(world, world.azure.known, {0: pages})
            assert said.of(node).trouble.code == "configz_doubled_id"
            # One that was asked once more is not two.
            again = [SweptPage((replace(told(node, True), values={}, trouble=DENIED),)), SweptPage((told(node, True),))]
            said = await heard_of(world, world.azure.known, {0: again})
            assert said.of(node).values == {IPTABLES: "true"}

        virtually(work)

    def test_a_node_that_azure_has_is_no_skipped_one_whatever_became_of_its_cluster(self) -> None:
        async def work() -> None:
            world = rig(1)
            node = node_of(world, "aks")
            said = await heard_of(world, world.azure.known, {0: [SweptPage(problem=DENIED)]})
            assert said.of(node).trouble.status is Status.ERROR

        virtually(work)


async def swept(world: Rig, run_id: str) -> int:
    """Ask the first chunk's clusters to the end; gives the number of steps."""
    for step in range(200):
        due = (await sweeping.sweep(world.services, SweepChunk(run_id=run_id, subscription=A, chunk=0))).due
        if due is None:
            return step + 1
        await _until(due)
    raise AssertionError("it does not end")


async def _until(due: datetime) -> None:
    await asyncio.sleep(max(0.0, (due - now()).total_seconds()))


def printed(lines: Sequence[object], nonce: str) -> str:
    body = "".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines)
    return f"{body}KC1 {len(lines)} {len(body)} {nonce} {hashlib.sha256(body.encode()).hexdigest()}\n"


def nonce_of(made: Invocation) -> str:
    return made.script.partition("nonce=")[2][:16]


async def chunk(world: Rig, request: RunRequest) -> str:
    run = await by_hand.recorded(world.services, RunKind.AUDIT, request)
    await documents.save(world.store, run.id, keys.clusters(A), documents.CHUNKS, [world.azure.known])
    return run.id


CONFIGZ_RUN = RunRequest(witness="configz", controls=("3.2.6",))


def test_what_one_cluster_prints_keeps_no_other_from_being_heard() -> None:
    async def work() -> None:
        world = rig(1)
        bad, good = node_of(world, "aks1"), node_of(world, "aks2")
        plain = world.azure._swept

        def answer(made: Invocation) -> str:
            if made.cluster.name != "aks1":
                return plain(made)
            head = {"sweep": "", "listed": 1, "left": 0}
            node = {"node": "n1", "id": f"azure://{bad.id}", "version": "\ud800", "boot": "\udfff", "ready": "True"}
            return printed([head, node, {"answer": "n1", "values": [None] * len(catalogue().settings)}], nonce_of(made))

        world.azure._swept = answer  # type: ignore[method-assign]
        run_id = await chunk(world, CONFIGZ_RUN)
        await swept(world, run_id)
        said = await sweeping.hearsay(
            world.services, run_id, FindNodes(run_id=run_id, subscription=A, chunk=0), world.azure.known
        )
        assert said.of(good).values[IPTABLES] == "false"
        assert (said.of(bad).version, said.of(bad).trouble) == ("", None)

    virtually(work)


def test_a_cluster_that_always_has_more_nodes_is_not_asked_for_ever() -> None:
    async def work() -> None:
        world = rig(1)
        node_of(world, "aks")
        world.azure.seconds = lambda _: 1.0

        def answer(made: Invocation) -> str:
            name = f"n{len(world.azure.invoked):06}"
            head = {"sweep": "", "listed": 1, "left": 1}
            return printed([head, {"node": name, "id": "", "ready": "True"}], nonce_of(made))

        world.azure._swept = answer  # type: ignore[method-assign]
        run_id = await chunk(world, CONFIGZ_RUN)
        await swept(world, run_id)
        assert len(world.azure.invoked) == 60

    virtually(work)


def test_it_is_said_to_have_been_asked_before_azure_had_the_command() -> None:
    async def work() -> None:
        world = rig(1)
        node_of(world, "aks")
        world.azure.call_seconds = lambda _: 20.0
        begun, run_id = now(), await chunk(world, CONFIGZ_RUN)
        await swept(world, run_id)
        page = await documents.load(world.store, run_id, keys.swept(A, 0, 0, 0), documents.SWEPT)
        assert page.nodes[0].asked - begun < timedelta(seconds=1)

    virtually(work)


class TestAnotherCatalogue:
    def test_what_nobody_asked_for_is_not_left_out_by_the_kubelet(self) -> None:
        before = rig(1)
        node = node_of(before, "aks")
        mine = told(node, True)
        assert still_told({node.key: mine}) == {node.key: mine}
        install(read(MORE, "mine.yaml", builtin()))
        try:
            other = still_told({node.key: mine})[node.key]
        finally:
            install(builtin())
        assert other.trouble is not None
        assert other.trouble.code == "other_settings"

    def test_a_verdict_by_another_rule_is_not_repeated(self) -> None:
        world = rig(1)
        node = node_of(world, "aks")
        seen = datetime.now(UTC)
        finding = replace(_right(node, "3.1.1"), observed=seen)
        known = {(node.key, "3.1.1"): after(finding, node.key, None, looks=True)}
        assert known[node.key, "3.1.1"] is not None
        word, since = told(node, True), seen - timedelta(days=7)
        assert not needs_look(node, ("3.1.1",), word, known, since)  # type: ignore[arg-type]
        install(read(STRICTER, "mine.yaml", builtin()))
        try:
            assert needs_look(node, ("3.1.1",), word, known, since)  # type: ignore[arg-type]
            verdict = heard(node, ("3.1.1",), word, known)["3.1.1"]  # type: ignore[arg-type]
        finally:
            install(builtin())
        assert (verdict.status, verdict.code) == (Status.ERROR, Code.NEEDS_NODE)


def _right(node: Node, control_id: str) -> Finding:
    from shared.controls import Verdict

    verdict = Verdict(Status.PASS, Code.RIGHT, None, "", "right", "", witness="node")
    return findings.from_verdict("run", datetime.now(UTC), node, control_id, verdict)


MORE = """
controls:
  - id: X.1
    title: Ensure that pod pids are limited
    severity: low
    setting: podPidsLimit
    flag: --pod-max-pids
    rule: {equals: 0}
    rationale: none
    fix: none
"""
STRICTER = """
controls:
  - id: 3.1.1
    title: Ensure that the kubeconfig file permissions are set to 600
    severity: high
    file: {flag: --kubeconfig}
    rule: {mode_at_most: '600'}
    rationale: none
    fix: none
"""


class TestAsking:
    def test_of_a_large_pool_every_node_is_compared_with_how_it_was(self) -> None:
        async def work() -> None:
            world = rig(1)
            members = world.azure.add(A, "aks", [True] * 700)
            run = await by_hand.recorded(world.services, RunKind.FIX, FixRequest(witness="both"))
            await by_hand.gathered(
                world.services, run, [NodePlan(node=member.node, controls=("3.2.6",)) for member in members]
            )
            (late,) = (await plan_pages.load(world.store, run.id, 0, [450])).values()
            since = 0
            for done in (0, 1, 201, 401):
                assert (await asked(world, run.id, done, since)).stop == ""
                since = done
            world.azure.unready.add(late.node.name)
            assert "was Ready before its fix and is not now" in (await asked(world, run.id, 601, since)).stop

        virtually(work)

    def test_who_could_not_say_before_the_first_wave_is_not_asked_again(self) -> None:
        async def work() -> None:
            world = rig(1)
            members = world.azure.add(A, "aks", [True] * 3)
            world.azure._swept = lambda made: printed(  # type: ignore[method-assign]
                [{"sweep": "list_forbidden", "listed": 0, "left": 0}], nonce_of(made)
            )
            run = await by_hand.recorded(world.services, RunKind.FIX, FixRequest(witness="both"))
            await by_hand.gathered(
                world.services, run, [NodePlan(node=member.node, controls=("3.2.6",)) for member in members]
            )
            assert (await asked(world, run.id, 0, 0)).stop == ""
            assert (await asked(world, run.id, 1, 0)).stop == ""
            assert world.azure.calls["start_in_cluster"] == 1

        virtually(work)


async def asked(world: Rig, run_id: str, done: int, since: int) -> PoolAsked:
    for _ in range(50):
        said = await asking.ask_pool(world.services, AskPool(run_id=run_id, pool=0, done=done, since=since))
        if said.due is None:
            return said
        await _until(said.due)
    raise AssertionError("it does not end")
