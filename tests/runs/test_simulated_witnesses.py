"""Runs with two witnesses in virtual time, with workers that die: every node ends with its verdict, and no cluster is
asked without need."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from shared.models import Outcome, RunKind, RunState, Status
from shared.runs.model.request import FixRequest, RunRequest
from tests.runs.simulated.azure import Member
from tests.runs.simulated.clock import virtually
from tests.runs.simulated.hub import Chances
from tests.runs.simulated.rig import Rig, rig

A, B = "5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1", "11111111-2222-3333-4444-555555555555"
TROUBLE = Chances(dies=0.2, fails=0.1, answer_lost=0.1, orchestration_dies=0.03)
CONTROLS = ("3.2.6",)


def fleet(world: Rig, nodes: int, clusters: int = 4) -> list[Member]:
    return [
        member
        for number in range(clusters)
        for member in world.azure.add((A, B)[number % 2], f"aks{number}", [at % 3 == 0 for at in range(nodes)])
    ]


def asked(witness: str) -> RunRequest:
    return RunRequest.model_validate({"witness": witness, "controls": CONTROLS})


def right_for(members: list[Member]) -> Counter[Status]:
    return Counter(Status.FAIL if member.wrong else Status.PASS for member in members)


@pytest.mark.parametrize("witness", ["configz", "both", "smart"])
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))])
def test_an_audit_survives_its_workers(seed: int, witness: str) -> None:
    async def work() -> None:
        world = rig(seed, TROUBLE)
        members = fleet(world, 12)
        run = await world.ended((await world.start(RunKind.AUDIT, asked(witness))).id)
        found = await world.complete(run, members)
        if run.state is RunState.COMPLETED:
            assert Counter(finding.status for finding in found.values()) == right_for(members)
        if witness == "configz":
            assert not any(member.accepted for member in members)

    virtually(work)


def test_what_each_witness_costs() -> None:
    async def work() -> None:
        for witness, starts, invoked in (("node", 48, 0), ("configz", 0, 4), ("both", 48, 4), ("smart", 48, 4)):
            world = rig(1)
            members = fleet(world, 12)
            run = await world.ended((await world.start(RunKind.AUDIT, asked(witness))).id)
            await world.complete(run, members)
            assert (world.azure.calls["start"], world.azure.calls["start_in_cluster"]) == (starts, invoked), witness
            if witness == "smart":  # all were new; by now only those that fail are looked at
                run = await world.ended((await world.start(RunKind.AUDIT, asked(witness))).id)
                assert world.azure.calls["start"] == starts + sum(member.wrong for member in members)

    virtually(work)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))])
def test_a_fix_that_asks_survives_its_workers(seed: int) -> None:
    async def work() -> None:
        world = rig(seed, TROUBLE)
        members = fleet(world, 9, clusters=2)
        wrong = [member for member in members if member.wrong]
        request = FixRequest(witness="both", pause_seconds=0, max_failures=9)
        run = await world.ended((await world.start(RunKind.FIX, request)).id)
        found = await world.findings(run.id)
        assert {member.node.name for member in wrong} == set(found)
        if run.state is RunState.COMPLETED:
            assert {finding.outcome for finding in found.values()} <= {Outcome.FIXED, Outcome.FAILED}

    virtually(work)


def test_a_pool_is_left_where_a_node_is_not_ready_after_its_wave() -> None:
    async def work() -> None:
        world = rig(1)
        members = fleet(world, 12, clusters=1)
        wrong = [member.node.name for member in members if member.wrong]
        plain = world.azure._carry_out

        def carry_out(operation):  # type: ignore[no-untyped-def]
            if "\nedits='" in operation.script:
                world.azure.unready.add(operation.member.node.name)
            return plain(operation)

        world.azure._carry_out = carry_out  # type: ignore[method-assign]
        request = FixRequest(witness="both", pause_seconds=0)
        run = await world.ended((await world.start(RunKind.FIX, request)).id)
        found = await world.findings(run.id)
        assert set(found) == set(wrong)
        assert Counter(finding.outcome for finding in found.values()) == {Outcome.FIXED: 1, Outcome.NOT_TRIED: 3}
        left = next(finding for finding in found.values() if finding.outcome is Outcome.NOT_TRIED)
        assert "was Ready before its fix and is not now" in left.reason
        assert run.finished is not None
        assert run.finished - run.started < timedelta(minutes=10)

    virtually(work)
