"""What nodes answer that are not done yet: kept apart from their batch, so that no node's output harms another one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import pytest

from shared.azure import CommandResult, Pending
from shared.errors import StoreError
from shared.models import Run, RunKind, RunState, Status
from shared.runs.model import batch as batches
from shared.runs.model import keys
from shared.runs.model.batch import Answer, Batch, OpenNode
from shared.runs.steps import answers
from shared.store.backend import Row
from tests.runs.by_hand import advanced, found, recorded
from tests.runs.simulated.azure import Member, Operation
from tests.runs.simulated.clock import virtually
from tests.runs.simulated.hub import Chances
from tests.runs.simulated.rig import Rig, rig
from tests.support.findings import node

A = "5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1"
NOISE = "\x01" * 4096
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
TROUBLE = Chances(dies=0.3, fails=0.1, answer_lost=0.1, orchestration_dies=0.03)


def noisy(world: Rig, members: list[Member], times: int) -> None:
    """The first `times` answers of these nodes are as long as they can be, and nothing."""
    names, said, carry_out = {member.node.key for member in members}, Counter[str](), world.azure._carry_out

    def noise(operation: Operation) -> CommandResult:
        key = operation.member.node.key
        said[key] += 1
        return CommandResult(NOISE, NOISE) if key in names and said[key] <= times else carry_out(operation)

    world.azure._carry_out = noise  # type: ignore[method-assign]


async def closed(world: Rig, run: Run, names: Sequence[str]) -> None:
    while (await advanced(world.services, run, names)).batches[0].due is not None:  # noqa: ASYNC110 - in virtual time
        await asyncio.sleep(30)


async def kept(world: Rig, run_id: str) -> list[str]:
    return [work.name async for work in world.store.works(run_id, "answers/")]


def test_nodes_that_print_a_lot_are_their_own_trouble() -> None:
    async def work() -> None:
        world = rig(1)
        members = world.azure.add(A, "aks", [False] * 50)
        noisy(world, members[:20], times=2)
        run = await world.ended((await world.start(RunKind.AUDIT)).id)
        made = await world.complete(run, members)
        assert run.state is RunState.COMPLETED
        assert Counter(made[member.node.name].code for member in members[:20]) == {"garbled": 20}
        assert {made[member.node.name].status for member in members[20:]} == {Status.PASS}
        assert [len(member.accepted) for member in members] == [2] * 20 + [1] * 30, "nothing is sent again"
        assert len(await kept(world, run.id)) == 20, "an answer that ends a node's work is not kept"

    virtually(work)


def test_a_node_that_is_done_after_one_answer_costs_no_row() -> None:
    async def work() -> None:
        world = rig(2)
        members = world.azure.add(A, "aks", [False] * 30)
        run = await world.ended((await world.start(RunKind.AUDIT)).id)
        await world.complete(run, members)
        assert await kept(world, run.id) == []

    virtually(work)


@pytest.mark.parametrize("seed", range(3))
def test_answers_survive_their_workers(seed: int) -> None:
    async def work() -> None:
        world = rig(seed, TROUBLE)
        members = world.azure.add(A, "aks", [at % 3 == 0 for at in range(30)])
        noisy(world, members[:10], times=1)
        run = await world.ended((await world.start(RunKind.AUDIT)).id)
        made = await world.complete(run, members)
        for member in members:
            right = Status.FAIL if member.wrong else Status.PASS
            assert made[member.node.name].status is right or run.state is RunState.FAILED
        assert all(len(member.accepted) > 1 for member in members[:10] if run.state is RunState.COMPLETED)

    virtually(work)


@pytest.mark.parametrize("dies", ["before its row", "before the batch's"])
def test_an_answer_that_no_batch_names_is_nobodys(dies: str) -> None:
    """Its worker died: the heir looks again, and what the next one keeps is what counts."""

    async def work() -> None:
        world = rig(3)
        (member,) = world.azure.add(A, "aks", [True])
        noisy(world, [member], times=1)
        run = await recorded(world.services, RunKind.AUDIT)
        names = await found(world.services, run)
        await advanced(world.services, run, names)
        await asyncio.sleep(90)
        keep = answers.keep

        async def cut(*arguments: Any) -> str:
            if dies != "before its row":
                await keep(*arguments)
            raise asyncio.CancelledError

        with patch.object(answers, "keep", cut), pytest.raises(asyncio.CancelledError):
            await advanced(world.services, run, names)
        await closed(world, run, names)
        (finding,) = (await world.findings(run.id)).values()
        assert (finding.status, len(member.accepted)) == (Status.FAIL, 2)
        assert len(await kept(world, run.id)) == 1 + (dies != "before its row")

    virtually(work)


def test_an_answer_that_comes_at_once_and_does_not_end_the_work_is_kept() -> None:
    """The specification allows it; no round of the step is left for what follows."""

    async def work() -> None:
        world = rig(4)
        (member,) = world.azure.add(A, "aks", [True])
        noisy(world, [member], times=1)
        start = world.azure.start

        async def at_once(*arguments: Any, **more: Any) -> Any:
            began = await start(*arguments, **more)
            assert isinstance(began, Pending)
            await asyncio.sleep(90)
            return await world.azure.look(arguments[0], began)

        run = await recorded(world.services, RunKind.AUDIT)
        names = await found(world.services, run)
        with patch("shared.runs.steps.advancing._ROUNDS", 1):
            world.azure.start = at_once  # type: ignore[method-assign]
            await advanced(world.services, run, names)
            assert len(await kept(world, run.id)) == 1
            world.azure.start = start  # type: ignore[method-assign]
        await closed(world, run, names)
        (finding,) = (await world.findings(run.id)).values()
        assert (finding.status, len(member.accepted)) == (Status.FAIL, 2)

    virtually(work)


async def test_an_answer_of_another_version_is_refused_in_words() -> None:
    store = rig(5).store
    token = await answers.keep(store, "run", "b", Answer(CommandResult("o", "e"), doubtful=True))
    assert await answers.kept(store, "run", "b", [token]) == [Answer(CommandResult("o", "e"), doubtful=True)]
    await store.put_work("run", keys.answer("b", "other"), "{}", None)
    with pytest.raises(StoreError, match=r"was not made by this version .*: start the run again"):
        await answers.kept(store, "run", "b", [token, "other"])
    with pytest.raises(LookupError, match="run run has no answers/b/none"):
        await answers.kept(store, "run", "b", ["none"])


def test_a_batch_fits_its_row_whatever_its_names_and_addresses_are() -> None:
    """Azure's longest names, as many answers as a node has parts, and addresses of several KB."""
    longest = replace(
        node(1), resource_group="r" * 90, cluster="c" * 63, node_pool="p" * 12, node_resource_group="m" * 80,
        scale_set="s" * 64, name="n" * 64, node_image_version="v" * 80,
    )  # fmt: skip
    command = Pending(NOON, NOON, "u" * 7000, NOON, looks=9, tries=9, refusals=1, missed=True, away_since=NOON)
    open_node = OpenNode(longest, ("0123456789abcdef",) * 40, command, doubts=3, plan=99_999)
    Row(batches.to_text(Batch("westeurope", 50, (open_node,) * 50)))


def test_a_batch_that_cannot_be_advanced_takes_no_other_one_along() -> None:
    """Several are advanced by one call: where it fails, each is tried by itself."""

    async def work() -> None:
        world = rig(6)
        members = [member for at in range(6) for member in world.azure.add(A, f"aks{at}", [False] * 12)]
        world.azure.seconds = lambda source: source.uniform(60, 90)
        carry_out, bad = world.hub.carry_out, set[str]()

        async def fails(name: str, job: Any) -> Any:
            if name == "advance":
                if len(job["batches"]) > 1 and not bad:
                    bad.add(job["batches"][0])
                if bad & set(job["batches"]):
                    return {"failed": "a row is too long for the store", "again": False}
            return await carry_out(name, job)

        world.hub.carry_out = fails
        run = await world.ended((await world.start(RunKind.AUDIT)).id)
        made = await world.complete(run, members)
        (name,) = bad
        work = await world.store.work(run.id, name)
        assert work is not None
        lost = batches.from_text(work.text, name).found
        assert 0 < lost < len(members)
        assert Counter(finding.code for finding in made.values()) == {
            "batch_failed": lost,
            "right": len(members) - lost,
        }

    virtually(work)
