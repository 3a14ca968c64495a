"""Whole runs in virtual time, with all that goes wrong: they always end, say how, lose nothing and do nothing twice.

The orchestrators, the steps and the store are the real ones, and the watchdog looks after them; Azure, the app's host
and the clock are simulated (tests/runs/simulated). What fails is chosen by a seed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest

from shared.errors import EndpointError, GuardError
from shared.models import Cluster, Node, Outcome, Problem, Run, RunKind, RunState, ScopeProblem, Status
from shared.runs import orders
from shared.runs.hosts import terminal
from shared.runs.model import batch as batches
from shared.runs.model.pace import last_start
from shared.runs.model.plans import NodePlan
from shared.runs.model.request import FixRequest
from shared.runs.orchestrators.hand import WINDOW
from shared.runs.steps.advancing import OvertakenError
from shared.store import Hold, Store
from tests.runs.by_hand import advanced, found, recorded
from tests.runs.simulated.azure import Member
from tests.runs.simulated.clock import now, virtually
from tests.runs.simulated.hub import Chances
from tests.runs.simulated.rig import Rig, rig
from tests.runs.simulated.store import away
from tests.support.findings import AUDIT

A, B = "5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1", "11111111-2222-3333-4444-555555555555"
SEEDS = [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 14))]
TROUBLE = Chances(dies=0.3, fails=0.1, answer_lost=0.1, orchestration_dies=0.03)


def fleet(world: Rig, nodes: int, clusters: int = 4, subscriptions: Sequence[str] = (A, B)) -> list[Member]:
    """Clusters of so many nodes each, every third of which is wrong."""
    return [
        member
        for number in range(clusters)
        for member in world.azure.add(
            subscriptions[number % len(subscriptions)], f"aks{number}", [at % 3 == 0 for at in range(nodes)]
        )
    ]


def right_for(members: Sequence[Member]) -> Counter[Status]:
    return Counter(Status.FAIL if member.wrong else Status.PASS for member in members)


# Audits


@pytest.mark.parametrize("seed", SEEDS)
def test_an_audit_survives_its_workers(seed: int) -> None:
    """Whatever dies, every node ends with its verdict, or the run has failed and says so."""

    async def work() -> None:
        world = rig(seed, TROUBLE)
        members = fleet(world, 12)
        run = await world.ended((await world.start(RunKind.AUDIT)).id)
        found = await world.complete(run, members)
        statuses = Counter(finding.status for finding in found.values())
        if run.state is RunState.COMPLETED:
            assert statuses == right_for(members)
        else:
            assert run.state is RunState.FAILED
            assert "after 5 beginnings" in run.error
            assert all(finding.code in ("right", "wrong", "batch_failed") for finding in found.values())
        assert [item.id for item in world.runs] == [run.id], "its end is told once"
        for member in members:
            assert len(member.accepted) <= 1 + world.hub.deaths
            for earlier, later in pairwise(member.accepted):
                assert later - earlier >= batches.SENDING - timedelta(seconds=5), (
                    "only where the first sender was given up"
                )

    virtually(work)


def test_where_nothing_dies_nothing_is_done_twice() -> None:
    async def work() -> None:
        world = rig(1)
        members = fleet(world, 40)
        run = await world.ended((await world.start(RunKind.AUDIT)).id)
        found = await world.complete(run, members)
        assert Counter(finding.status for finding in found.values()) == right_for(members)
        assert {len(member.accepted) for member in members} == {1}
        assert not any(member.refused for member in members)
        assert len(world.told) == len(members)

    virtually(work)


def test_an_audit_is_as_fast_as_the_limits_allow() -> None:
    """At a share of 100: the last start at most a tenth after the bound (10 s where that is under a minute), the end
    the slowest command and 15 s after that; at no time is more started than Azure's bucket has."""

    async def work() -> None:
        world = rig(3)
        members = fleet(world, 140, clusters=3, subscriptions=(A,))
        began = now()
        run = await world.ended((await world.start(RunKind.AUDIT)).id)
        starts = sorted((at - began).total_seconds() for member in members for at in member.accepted)
        bound = last_start({"westeurope": len(members)}, 1.0)
        assert len(starts) == len(members)
        # What is started stands behind one activity and one call.
        assert bound <= starts[-1] <= bound + max(10.0, 0.1 * bound)
        assert run.finished is not None
        assert (run.finished - began).total_seconds() <= bound + 60 + 15 + 5
        for at, second in enumerate(starts):
            assert at + 1 <= 200 + 10 * second + 1
        looks = world.azure.calls["look"]
        assert looks <= 2.5 * len(members)

    virtually(work)


@pytest.mark.parametrize("trouble", [Chances(), replace(TROUBLE, dies=0.1)])
def test_a_long_lane_goes_on_with_an_empty_history(trouble: Chances) -> None:
    async def work() -> None:
        world = rig(4, trouble)
        members = fleet(world, 30, clusters=6, subscriptions=(A,))
        run = await world.ended((await world.start(RunKind.AUDIT)).id)
        found = await world.complete(run, members)
        if trouble == Chances():
            assert Counter(finding.status for finding in found.values()) == right_for(members)
        instances = [item for item in world.hub.instances.values() if item.name.startswith("lane")]
        assert max(item.execution for item in instances) > 1
        # A stretch, what was in hand at its end, and a timer for each.
        assert max(item.longest for item in instances) <= 2 * (8 + WINDOW) + 8

    with patch("shared.runs.orchestrators.hand.STRETCH", 8):
        virtually(work)


def stops(world: Rig, run: Run) -> Coroutine[Any, Any, None]:
    return orders.cancel(world.store, run)


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_a_cancelled_audit_ends_with_every_node_told(seed: int) -> None:
    async def work() -> None:
        world = rig(seed, Chances(dies=0.1))
        members = fleet(world, 150, clusters=2, subscriptions=(A,))
        run = await world.start(RunKind.AUDIT)
        await asyncio.sleep(5)
        await stops(world, run)
        run = await world.ended(run.id)
        assert run.state is RunState.CANCELLED
        found = await world.findings(run.id)
        codes = Counter(finding.code for finding in found.values())
        assert codes["cancelled"] > 0
        judged = [member for member in members if member.accepted and member.node.name in found]
        assert len(judged) == codes["right"] + codes["wrong"], "what was begun is finished"

    virtually(work)


# The store


def goes_away(world: Rig, begins: float, seconds: float) -> None:
    """The store refuses everything for a while, what it has just done included."""
    loop = asyncio.get_running_loop()

    def trouble() -> None:
        if begins <= loop.time() < begins + seconds:
            away()

    world.backend.trouble = trouble


@pytest.mark.parametrize(("begins", "seconds"), [(0.5, 45), (1.5, 600), (20.0, 600), (40.0, 300), (47.0, 850)])
def test_a_store_that_goes_away_loses_no_verdict(begins: float, seconds: float) -> None:
    async def work() -> None:
        world = rig(5)
        world.backend.seconds = lambda: world.source.uniform(0.0, 0.05)
        members = fleet(world, 40)
        run = await world.start(RunKind.AUDIT)
        goes_away(world, begins, seconds)
        await asyncio.sleep(begins + seconds)
        run = await world.ended(run.id)
        found = await world.complete(run, members)
        assert run.state is RunState.COMPLETED
        assert Counter(finding.status for finding in found.values()) == right_for(members)
        assert {len(member.accepted) for member in members} == {1}, "what was found is not asked again"

    virtually(work)


def test_nothing_is_sent_for_a_run_that_was_ended_while_the_store_was_away() -> None:
    async def work() -> None:
        world = rig(5)
        members = fleet(world, 5, clusters=1, subscriptions=(A,))
        run = await recorded(world.services, RunKind.AUDIT, AUDIT)
        names = await found(world.services, run)
        whole = Store.put_work

        async def late(*arguments: Any) -> str | None:
            await asyncio.sleep(600)
            await world.store.change_run(run.id, lambda known: replace(known, state=RunState.FAILED))
            return await whole(*arguments)

        with patch.object(Store, "put_work", late), pytest.raises(OvertakenError, match="has ended, or was begun anew"):
            await advanced(world.services, run, names)
        assert not any(member.accepted for member in members)

    virtually(work)


@pytest.mark.parametrize("begins", [1.0, 21.0, 31.0])
def test_a_store_that_goes_away_while_a_terminal_works(begins: float) -> None:
    async def work() -> None:
        world = rig(6)
        members = fleet(world, 20)
        goes_away(world, begins, 600)
        run = await terminal.survey_here(world.services, RunKind.AUDIT, AUDIT)
        found = await world.complete(run, members)
        assert run.state is RunState.COMPLETED
        assert Counter(finding.status for finding in found.values()) == right_for(members)
        assert {len(member.accepted) for member in members} == {1}

    virtually(work)


def test_a_terminals_fix_outlives_a_store_that_goes_away() -> None:
    """Its lease runs out meanwhile; nobody else can have taken it, and it is held again."""

    async def work() -> None:
        world = rig(7)
        members = fleet(world, 6, clusters=1, subscriptions=(A,))
        plans = await planned(world)
        goes_away(world, asyncio.get_running_loop().time() + 30, 500)
        run = await terminal.fix_here(world.services, FixRequest(pause_seconds=0), plans)
        assert run.state is RunState.COMPLETED
        assert run.summary is not None
        assert run.summary.outcomes == {Outcome.FIXED: 2}
        assert [member.restarts for member in members] == [1, 0, 0, 1, 0, 0]

    virtually(work)


async def planned(world: Rig) -> list[NodePlan]:
    run = await terminal.survey_here(world.services, RunKind.PLAN, FixRequest())
    return await terminal.plans_of(world.services, run)


# Azure

READS = ("subscriptions", "clusters", "cluster", "nodes", "node")


def azure_goes_away(world: Rig, begins: float, seconds: float, calls: Sequence[str] = READS) -> None:
    """Azure answers none of these calls for a while."""
    loop = asyncio.get_running_loop()

    def trouble(call: str) -> None:
        if call in calls and begins <= loop.time() < begins + seconds:
            raise EndpointError("nobody answers")

    world.azure.trouble = trouble


@pytest.mark.parametrize("calls", [READS, ("nodes",)])
@pytest.mark.parametrize("begins", [0.0, 1.0])
def test_an_azure_that_goes_away_loses_no_verdict(begins: float, calls: Sequence[str]) -> None:
    async def work() -> None:
        world = rig(20)
        members = fleet(world, 12)
        azure_goes_away(world, begins, 600, calls)
        run = await world.ended((await world.start(RunKind.AUDIT)).id)
        found = await world.complete(run, members)
        assert run.finished is not None
        assert (run.finished - run.started).total_seconds() > 600, "it was met"
        assert (run.state, run.error) == (RunState.COMPLETED, "")
        assert Counter(finding.status for finding in found.values()) == right_for(members)
        assert {len(member.accepted) for member in members} == {1}

    virtually(work)


@pytest.mark.parametrize(("call", "code"), [("nodes", "unreachable"), ("clusters", "batch_failed")])
def test_what_an_azure_that_stays_away_hides_is_told(call: str, code: str) -> None:
    """The places are errors with the reason, and the run says so."""

    async def work() -> None:
        world = rig(21)
        fleet(world, 4, clusters=2)
        azure_goes_away(world, 0, 3600, (call,))
        run = await world.ended((await world.start(RunKind.AUDIT)).id)
        assert run.state is RunState.COMPLETED
        assert "not everything could be looked at" in run.error
        assert "nobody answers" in run.error
        places = (await world.findings(run.id)).values()
        assert [(place.status, place.code, place.node) for place in places] == [(Status.ERROR, code, "")] * 2
        assert all("nobody answers" in place.reason for place in places)

    virtually(work)


def test_one_cluster_that_azure_does_not_answer_for_takes_no_other_along() -> None:
    async def work() -> None:
        world = rig(22)
        members = fleet(world, 4, subscriptions=(A,))
        listed = world.azure.nodes

        async def nodes(cluster: Cluster, pools: Collection[str] | None) -> AsyncIterator[Node | ScopeProblem]:
            if cluster.name == "aks1":
                error = Problem(Status.ERROR, "server_error", "Azure failed to answer", "Run again later.")
                yield ScopeProblem(A, "rg", "aks1", "np1", error, passing=True)
                return
            async for item in listed(cluster, pools):
                yield item

        with patch.object(world.azure, "nodes", nodes):
            run = await world.ended((await world.start(RunKind.AUDIT)).id)
        others = [member for member in members if member.node.cluster != "aks1"]
        found = await world.complete(run, others)
        assert found[f"{A}/aks1"].code == "server_error"
        assert Counter(found[member.node.name].status for member in others) == right_for(others)
        assert run.state is RunState.COMPLETED
        assert run.error == "not everything could be looked at: cluster aks1: Azure failed to answer"

    virtually(work)


def test_a_terminal_hears_at_once_that_azure_is_away() -> None:
    async def work() -> None:
        world = rig(23)
        fleet(world, 1)
        azure_goes_away(world, 0, 600)
        with pytest.raises(GuardError, match="nobody answers"):
            await terminal.survey_here(world.services, RunKind.AUDIT, AUDIT)
        assert asyncio.get_running_loop().time() < 10

    virtually(work)


def test_a_lane_that_cannot_be_gone_on_with_leaves_what_it_had_found() -> None:
    """Its nodes are errors: they are not lost."""

    async def work() -> None:
        world = rig(24)
        members = world.azure.add(A, "aks", [False] * 60)
        world.azure.seconds = lambda source: source.uniform(200, 300)
        carry_out = world.hub.carry_out

        async def second_fails(name: str, job: Any) -> Any:
            if name == "open_lane" and job["epoch"] == 1:
                return {"failed": "an unreadable row", "again": False}
            return await carry_out(name, job)

        world.hub.carry_out = second_fails
        run = await world.start(RunKind.AUDIT)
        await asyncio.sleep(10)
        world.hub.end(world.hub.instances[run.id], failed="python3 exited with code 137")
        run = await world.ended(run.id)
        found = await world.complete(run, members)
        assert Counter(finding.code for finding in found.values()) == {"batch_failed": 60}
        assert "an unreadable row" in run.error

    virtually(work)


# Fixes


@pytest.mark.parametrize("calls", [READS, ("node",), ("nodes",)])
def test_a_fix_outlives_an_azure_that_goes_away(calls: Sequence[str]) -> None:
    async def work() -> None:
        world = rig(25)
        members = world.azure.add(A, "aks", [True] * 12)
        run = await world.start(RunKind.FIX, FixRequest(pause_seconds=5, max_unavailable="2"))
        await one_is_fixed(members)
        azure_goes_away(world, asyncio.get_running_loop().time(), 600, calls)
        run = await world.ended(run.id)
        assert run.state is RunState.COMPLETED
        assert run.summary is not None
        assert run.summary.outcomes == {Outcome.FIXED: 12}

    virtually(work)


FORBIDDEN = Problem(Status.ERROR, "AuthorizationFailed", "the identity may not read the node", "Give it a role.")


@pytest.mark.parametrize("ran", [True, False])
def test_a_node_that_may_not_be_looked_at_in_a_fix_is_said_to_be_that(ran: bool) -> None:
    """One that ran when the pool was first listed stops its pool; another one is left."""

    async def work() -> None:
        world = rig(26)
        members = world.azure.add(A, "aks", [True] * 14)
        # All looks end together, so that it is not the first of its pool.
        world.azure.seconds = lambda _: 30.0
        hidden, listed, got = members[6].node, world.azure.nodes, world.azure.node

        async def node(asked: Node) -> Node | Problem:
            return FORBIDDEN if asked.key == hidden.key else await got(asked)

        async def nodes(cluster: Cluster, pools: Collection[str] | None) -> AsyncIterator[Node | ScopeProblem]:
            async for item in listed(cluster, pools):
                fixing = not ran and pools and isinstance(item, Node) and item.key == hidden.key
                yield replace(item, power="stopping") if fixing and isinstance(item, Node) else item

        async def seldom(*_: object) -> bool:
            return False

        # The pool is listed once, and its nodes asked for one by one from then on.
        listing = patch("shared.runs.steps.fix_waves._another_tenth", seldom)
        with listing, patch.object(world.azure, "node", node), patch.object(world.azure, "nodes", nodes):
            run = await world.ended((await world.start(RunKind.FIX, FixRequest(pause_seconds=0, canary=False))).id)
        found = await world.complete(run, members)
        assert found[hidden.name].outcome is Outcome.NOT_TRIED
        left = [finding for finding in found.values() if finding.outcome is not Outcome.FIXED]
        if ran:
            assert len(left) > 1
            assert all(f"could not be looked at: {FORBIDDEN.reason}" in finding.reason for finding in left)
        else:
            assert [(f.node, f.code, f.reason) for f in left] == [
                (hidden.name, FORBIDDEN.code, f"not tried: {FORBIDDEN.reason}")
            ]

    virtually(work)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("broken", [False, True])
def test_a_fix_survives_its_workers(seed: int, broken: bool) -> None:
    async def work() -> None:
        world = rig(seed, TROUBLE)
        pools = [world.azure.add((A, B)[at % 2], f"aks{at}", [True] * 6 + [False] * 2) for at in range(2)]
        pools[1][3].broken = broken
        request = FixRequest(pause_seconds=5, max_unavailable="2")
        run = await world.ended((await world.start(RunKind.FIX, request)).id)
        wrong = [member for pool in pools for member in pool[:6]]
        found = await world.complete(run, wrong)
        for pool in pools:
            for member in pool:
                outcome = found[member.node.name].outcome if member.node.name in found else None
                if member.broken:  # sent again where its sender died, and rolled back again
                    assert member.restarts == 2 * len(member.fixing)
                    assert len(member.fixing) <= 4, "then a person has to look at it"
                else:
                    assert member.restarts in ((1,) if outcome is Outcome.FIXED else (0, 1))
                if outcome in (Outcome.FIXED, Outcome.ALREADY_RIGHT):
                    assert not member.wrong
                elif outcome is Outcome.NOT_TRIED:
                    assert (member.wrong, member.fixes) == (True, []), "what is said to be left is left"
            canary = min((member for member in pool if member.fixing), key=lambda member: member.fixing[0])
            for member in pool:
                if member is not canary:
                    assert all(at >= canary.fixes[0] for at in member.fixing), "the canary goes first, alone"
        outcomes = Counter(finding.outcome for finding in found.values())
        if run.state is RunState.COMPLETED:
            assert all("dies again" in f.reason for f in found.values() if f.outcome is Outcome.FAILED)
            assert outcomes[Outcome.ROLLED_BACK] <= broken
            if not broken:
                assert outcomes == {Outcome.FIXED: 12}
        else:
            assert "after 5 beginnings" in run.error

    virtually(work)


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_no_more_nodes_of_a_pool_are_in_hand_than_are_allowed(seed: int) -> None:
    async def work() -> None:
        world = rig(seed, replace(TROUBLE, dies=0.1))
        pool = world.azure.add(A, "aks", [True] * 12)
        request = FixRequest(pause_seconds=0, max_unavailable="3")
        run = await world.ended((await world.start(RunKind.FIX, request)).id)
        in_hand = most = 0
        begun = [(at, 1) for member in pool for at in member.fixing]
        over = [(at, -1) for member in pool for at in member.fixes]
        for _, change in sorted([*begun, *over]):
            in_hand += change
            most = max(most, in_hand)
        assert most <= 3
        assert run.summary is not None
        assert sum(run.summary.outcomes.values()) == 12

    virtually(work)


def test_a_long_fix_goes_on_with_an_empty_history() -> None:
    async def work() -> None:
        world = rig(8)
        members = fleet(world, 9, clusters=3)
        run = await world.ended((await world.start(RunKind.FIX)).id)
        assert run.summary is not None
        assert run.summary.outcomes == {Outcome.FIXED: 9}
        assert sum(member.restarts for member in members) == 9
        (instance,) = (item for item in world.hub.instances.values() if item.name.startswith("fix"))
        assert instance.execution > 2

    with patch("shared.runs.orchestrators.hand.STRETCH", 6):
        virtually(work)


def test_a_fix_waits_for_its_approval_and_needs_no_wake() -> None:
    """The event is lost: the watchdog sees the word in the store."""

    async def work() -> None:
        world = rig(9)
        members = fleet(world, 3, clusters=1)
        run = await world.start(RunKind.FIX, manual=True)
        await asyncio.sleep(300)
        waiting = await world.run(run.id)
        assert waiting.state is RunState.AWAITING_APPROVAL
        assert waiting.approval is not None
        assert sum(member.restarts for member in members) == 0
        assert await orders.decide(world.store, run.id, waiting.approval.digest, orders.Decision.APPROVED)
        began = now()
        run = await world.ended(run.id)
        assert run.finished is not None
        assert run.finished - began < timedelta(minutes=5)
        assert run.summary is not None
        assert run.summary.outcomes == {Outcome.FIXED: 1}

    virtually(work)


def test_a_fix_that_nobody_approves_ends() -> None:
    async def work() -> None:
        world = rig(10, approval_hours=2)
        members = fleet(world, 3, clusters=1)
        run = await world.ended((await world.start(RunKind.FIX, manual=True)).id)
        assert run.state is RunState.CANCELLED
        assert run.error == "nobody approved the plan in time"
        found = await world.complete(run, members[:1])
        assert [finding.outcome for finding in found.values()] == [Outcome.NOT_TRIED]

    virtually(work)


@pytest.mark.parametrize("first", ["the word", "the time"])
def test_an_approval_in_the_last_moment_counts_or_is_refused(first: str) -> None:
    """Of the word and the time that is over one is first: what was taken is not called expired."""

    async def work() -> None:
        world = rig(10, approval_hours=2)
        fleet(world, 3, clusters=1)
        run = await world.start(RunKind.FIX, manual=True)
        await asyncio.sleep(300)
        waiting = await world.run(run.id)
        asked = waiting.approval
        assert asked is not None
        assert asked.expires is not None
        expires = asked.expires
        # In the orchestrator's last look: it has read the store, and the time is over when it hears what that said.
        whole = orders.decision

        async def late(store: Store, run_id: str, digest: str) -> orders.Decision | None:
            said = await whole(store, run_id, digest)
            if now() >= expires and taken is None:
                await approve()
            return said

        taken: bool | None = None

        async def approve() -> None:
            nonlocal taken
            taken = await orders.decide(world.store, run.id, asked.digest, orders.Decision.APPROVED)

        with patch.object(orders, "decision", late if first == "the word" else whole):
            await asyncio.sleep((expires - now()).total_seconds() + 30)
        if first == "the time":
            await approve()
        run = await world.ended(run.id)
        assert taken is (first == "the word")
        assert run.state is (RunState.COMPLETED if taken else RunState.CANCELLED)

    virtually(work)


def test_a_fix_whose_approval_cannot_be_asked_for_has_failed() -> None:
    async def work() -> None:
        world = rig(10)
        members = fleet(world, 3, clusters=1)
        run = await world.start(RunKind.FIX, manual=True)
        whole = world.hub.carry_out

        async def full(name: str, job: Any) -> Any:
            return {"failed": "the store is full", "again": False} if name == "ask_approval" else await whole(name, job)

        world.hub.carry_out = full
        run = await world.ended(run.id)
        assert (run.state, run.error) == (RunState.FAILED, "no approval could be asked for: the store is full")
        assert sum(member.restarts for member in members) == 0

    virtually(work)


async def one_is_fixed(members: Sequence[Member]) -> None:
    while not any(member.fixes for member in members):  # noqa: ASYNC110 - in virtual time
        await asyncio.sleep(1)


def test_a_hold_stops_the_next_wave_until_it_is_released() -> None:
    async def work() -> None:
        world = rig(11)
        members = world.azure.add(A, "aks", [True] * 5)
        run = await world.start(RunKind.FIX)
        await one_is_fixed(members)
        await world.store.set_hold(Hold(by="somebody", since=now(), reason="to look"))
        await asyncio.sleep(600)
        assert sum(len(member.fixes) for member in members) <= 2, "what was in hand is finished"
        assert not (await world.run(run.id)).state.final
        await world.store.release_hold()
        run = await world.ended(run.id)
        assert run.summary is not None
        assert run.summary.outcomes == {Outcome.FIXED: 5}

    virtually(work)


def test_a_cancelled_fix_leaves_the_rest_alone() -> None:
    async def work() -> None:
        world = rig(12)
        members = world.azure.add(A, "aks", [True] * 6)
        run = await world.start(RunKind.FIX)
        await one_is_fixed(members)
        await stops(world, run)
        run = await world.ended(run.id)
        assert run.state is RunState.CANCELLED
        found = await world.complete(run, members)
        outcomes = Counter(finding.outcome for finding in found.values())
        assert outcomes[Outcome.FIXED] == sum(not member.wrong for member in members)
        assert outcomes[Outcome.NOT_TRIED] == sum(not member.fixes for member in members) > 0

    virtually(work)
