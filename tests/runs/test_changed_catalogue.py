"""Runs that are going while the catalogue of one's own, or what may be fixed, is changed: each comes to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from shared.controls import builtin, install, read
from shared.errors import UsageError
from shared.models import Outcome, RunKind, RunState, Status
from shared.runs.hosts import terminal as runs
from shared.runs.model.messages import End, OpenWave
from shared.runs.model.request import FixRequest
from shared.runs.steps import fix_waves
from shared.runs.steps.run_record import finish
from tests.runs.by_hand import advanced, found, gathered, opened, recorded
from tests.support.bench import BenchFactory, one_pool

OWN = """controls:
  - {id: ORG-1, title: t, severity: low, setting: maxPods, flag: --max-pods, rule: {one_of: [99]}, rationale: r, fix: f}
benchmarks:
  - {version: ours, name: Ours, entries: [{control: ORG-1}]}
"""


@pytest.fixture(autouse=True)
def _own() -> Iterator[None]:
    install(read(OWN, "own.yaml", builtin()))
    yield
    install(builtin())


async def test_a_run_of_a_control_that_is_no_more_ends_with_a_finding_for_each(bench: BenchFactory) -> None:
    async with bench(one_pool("compliant_default", "false_file")) as b:
        judged, failed = [
            await recorded(b.services, RunKind.AUDIT, FixRequest(controls=("ORG-1", "3.2.6"))) for _ in range(2)
        ]
        names = await found(b.services, judged)
        await found(b.services, failed)
        install(builtin())
        for _ in range(40):
            stood = await advanced(b.services, judged, names)
            if not any(batch.open for batch in stood.batches):
                break
            await asyncio.sleep(0.25)
        else:
            raise AssertionError("its nodes are never judged")
        done = await finish(b.services, judged, End(nodes=2))
        assert (done.state, done.error) == (RunState.COMPLETED, "")
        made = {(item.instance_id, item.control): (item.status, item.code) for item in await b.findings(judged.id)}
        assert made == {
            ("0", "ORG-1"): (Status.ERROR, "no_control"),
            ("1", "ORG-1"): (Status.ERROR, "no_control"),
            ("0", "3.2.6"): (Status.PASS, "right"),
            ("1", "3.2.6"): (Status.FAIL, "wrong"),
        }
        ended = await finish(b.services, failed, End(error="its lane was lost"))
        assert ended.state is RunState.FAILED
        assert {item.status for item in await b.findings(failed.id)} == {Status.ERROR}
        assert len(await b.findings(failed.id)) == 4


async def test_a_run_by_a_version_that_is_no_more_ends(bench: BenchFactory) -> None:
    async with bench(one_pool("compliant_default")) as b:
        run = await recorded(b.services, RunKind.AUDIT, FixRequest(benchmark="ours"))
        await found(b.services, run)
        install(builtin())
        ended = await finish(b.services, run, End(error="its lane was lost"))
        assert ended.state is RunState.FAILED
        assert len(await b.findings(run.id)) == 13


async def test_a_plan_of_another_catalogue_is_not_carried_out(bench: BenchFactory) -> None:
    """Not one of a control that is gone, nor one that the same control would judge in another way."""
    fix_controls = ("3.2.6", "ORG-1")
    async with bench(one_pool("false_file", "false_file"), fix_controls=fix_controls, allow_fix=True) as b:
        asked = FixRequest(max_unavailable="2", canary=False, pause_seconds=0)
        survey = await runs.survey_here(b.services, RunKind.PLAN, asked)
        made = await runs.plans_of(b.services, survey)
        assert [plan.controls for plan in made] == [("3.2.6", "ORG-1")] * 2
        commands = dict(b.box.stats()["commands"])
        run = await recorded(b.services, RunKind.FIX, asked.model_copy(update={"controls": fix_controls}))
        await gathered(b.services, run, made)
        names = await opened(b.services, run, 0, 1)
        for text in ("[99]", "[98]"), ("title: t", "title: u"):
            install(read(OWN.replace(*text), "own.yaml", builtin()))
            with pytest.raises(UsageError, match="the catalogue is another one"):
                await runs.fix_here(b.services, asked, made)
            wave = OpenWave(run_id=run.id, epoch=run.epoch, pool=0, first=1, count=1)
            assert "the catalogue is another one" in (await fix_waves.open_wave(b.services, wave)).stop
        install(builtin())
        await advanced(b.services, run, names)
        ended = await finish(b.services, run, End(error="stopped"))
        assert ended.state is RunState.FAILED
        assert b.box.stats()["commands"] == commands, "nothing was sent"
        left = await b.findings(run.id)
        assert {(item.control, item.outcome) for item in left} == {(name, Outcome.NOT_TRIED) for name in fix_controls}
        assert len(left) == 4


async def test_what_may_be_fixed_is_asked_again_before_a_node_is_touched(bench: BenchFactory) -> None:
    """A wave that was opened goes on in another process, perhaps with other settings, as by `--resume`."""
    install(builtin())
    for changes, says in (({"fix_controls": ("3.2.1",)}, "does not fix 3.2.6"), ({"allow_fix": False}, "not allow")):
        async with bench(one_pool("false_file"), allow_fix=True) as b:
            asked = FixRequest(pause_seconds=0, controls=("3.2.6",))
            survey = await runs.survey_here(b.services, RunKind.PLAN, asked)
            made = await runs.plans_of(b.services, survey)
            run = await recorded(b.services, RunKind.FIX, asked)
            await gathered(b.services, run, made)
            names = await opened(b.services, run, 0, 1)
            commands = dict(b.box.stats()["commands"])
            now = b.services.settings.model_copy(update=changes)
            await advanced(replace(b.services, settings=now), run, names)
            (finding,) = await b.findings(run.id)
            assert (finding.status, finding.outcome, says in finding.reason) == (Status.FAIL, Outcome.NOT_TRIED, True)
            assert b.box.stats()["commands"] == commands
