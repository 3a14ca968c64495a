"""Fixes in the app: planned, approved or not, in waves, killed at every turn."""

from __future__ import annotations

import asyncio
import importlib
from collections import Counter
from typing import Any
from unittest.mock import patch

import pytest

from shared.azure import Azure
from shared.models import Node, Outcome, RunState, Status
from shared.runs.model.messages import Advanced
from shared.runs.nodes.repairing import LOOK_CODE
from shared.runs.steps import STEPS, Step, discovering
from tests.support.bench import one_pool
from tests.support.cloud import ALLOWED, Cloud, CloudFactory, awaiting, start

# The package gives the function by this name.
LANE = importlib.import_module("shared.runs.orchestrators.lane")
AUTO: dict[str, Any] = {"approval": "auto", "pause_seconds": 0}
FAILING = one_pool("false_file", "false_flag", "compliant_default")


async def outcomes(c: Cloud, run_id: str) -> Counter[Outcome | None]:
    """What became of the nodes, after seeing that the summary says the same."""
    run, findings = await c.run(run_id), await c.findings(run_id)
    counted = Counter(finding.outcome for finding in findings)
    assert run.summary is not None
    assert counted == Counter(run.summary.outcomes)
    assert run.summary.nodes == len(findings)
    return counted


async def test_a_whole_fix(cloud: CloudFactory) -> None:
    async with cloud(FAILING, **ALLOWED) as c, c.host() as host:
        run_id = await start(host, AUTO, "/api/fixes")
        instance = await host.finish(run_id)
        assert instance.output == {"state": "completed"}, instance.error
        assert await outcomes(c, run_id) == {Outcome.FIXED: 2}
        shown = (await host.http("GET", f"/api/runs/{run_id}")).json()
        assert (shown["progress"]["waves"], shown["progress"]["outcomes"]) == (2, {"fixed": 2})
        assert shown["planning"]["nodes_done"] == 3
        planned = await c.run(shown["plan_run"])
        assert (planned.kind, planned.state) == ("plan", "completed")
        audit = await start(host)
        await host.finish(audit)
        assert {finding.status for finding in await c.findings(audit)} == {Status.PASS}


async def test_killed_while_a_node_is_fixed(cloud: CloudFactory) -> None:
    async with cloud(one_pool("false_file"), **ALLOWED) as c:
        async with c.host(visibility=0.2) as host:
            run_id = await start(host, AUTO, "/api/fixes")
            await c.accepted(run_id, 1)
        async with c.host() as host:
            await host.finish(run_id)
        assert await outcomes(c, run_id) == {Outcome.FIXED: 1}
        assert list(c.box.stats()["commands"].values()) == [2]


async def test_a_plan_that_is_approved(cloud: CloudFactory) -> None:
    async with cloud(FAILING, **ALLOWED) as c, c.host() as host:
        run_id = await start(host, {"pause_seconds": 0}, "/api/fixes")
        shown = await awaiting(host, run_id)
        assert shown["state"] == "awaiting_approval"
        digest = shown["approval"]["digest"]
        nodes, at = [], 0
        while at is not None:  # a page has what ended together
            plan = (await host.http("GET", f"{shown['links']['plan']}?continuation={at}")).json()
            assert plan["digest"] == digest
            nodes += plan["nodes"]
            at = plan["continuation"]
        assert len(nodes) == 2
        assert all("makeIPTablesUtilChains" in node["diff"] or "iptables" in node["diff"] for node in nodes)
        assert sum(c.box.stats()["commands"].values()) == 3, "nothing but looking so far"

        wrong = await host.http("POST", shown["links"]["approve"], {"digest": "0" * 64})
        assert (wrong.status, wrong.json()["title"]) == (409, "Not this plan")
        approved = await host.http("POST", shown["links"]["approve"], {"digest": digest})
        assert approved.status == 202
        await host.finish(run_id)
        assert await outcomes(c, run_id) == {Outcome.FIXED: 2}
        late = await host.http("POST", f"/api/runs/{run_id}/approve", {"digest": digest})
        assert (late.status, late.json()["title"]) == (409, "Nothing to approve")


async def test_an_approval_that_was_given_while_no_host_was_up(cloud: CloudFactory) -> None:
    async with cloud(one_pool("false_file"), **ALLOWED) as c:
        async with c.host() as host:
            run_id = await start(host, {}, "/api/fixes")
            shown = await awaiting(host, run_id)
            await host.http("POST", shown["links"]["approve"], {"digest": shown["approval"]["digest"]})
        async with c.host() as host:
            await host.finish(run_id)
        assert await outcomes(c, run_id) == {Outcome.FIXED: 1}


@pytest.mark.parametrize("how", ["refused", "cancelled", "expired"])
async def test_a_plan_that_is_not_approved(how: str, cloud: CloudFactory) -> None:
    hours = "0.001" if how == "expired" else "24"
    async with cloud(FAILING, **ALLOWED, GUARD_APPROVAL_HOURS=hours) as c, c.host() as host:
        run_id = await start(host, {}, "/api/fixes")
        shown = await awaiting(host, run_id)
        if how == "refused":
            body = {"digest": shown["approval"]["digest"], "approve": False}
            assert (await host.http("POST", shown["links"]["approve"], body)).status == 202
            again = await host.http("POST", shown["links"]["approve"], {**body, "approve": True})
            assert again.status == 409
        elif how == "cancelled":
            assert (await host.http("POST", shown["links"]["cancel"])).status == 202
        await host.finish(run_id)
        run = await c.run(run_id)
        assert run.state is RunState.CANCELLED
        assert (
            run.error
            == {
                "refused": "the plan was refused",
                "cancelled": "the run was cancelled",
                "expired": "nobody approved the plan in time",
            }[how]
        )
        assert await outcomes(c, run_id) == {Outcome.NOT_TRIED: 2}
        assert set(c.box.stats()["commands"].values()) == {1}
        assert not [item for item in c.hub.instances.values() if item.open and not item.over], "no timer is left"


async def test_cancelled_between_two_waves(cloud: CloudFactory) -> None:
    async with cloud(one_pool(*["false_file"] * 3), **ALLOWED) as c, c.host() as host:
        run_id = await start(host, {**AUTO, "pause_seconds": 60}, "/api/fixes")

        async def first_is_over() -> bool:
            return any(not batch.nodes for batch in (await c.batches(run_id)).values())

        await c.until(first_is_over)
        await host.http("POST", f"/api/runs/{run_id}/cancel")
        await host.finish(run_id)  # well before the pause is over
        assert (await c.run(run_id)).state is RunState.CANCELLED
        assert await outcomes(c, run_id) == {Outcome.FIXED: 1, Outcome.NOT_TRIED: 2}


async def test_cancelled_while_planning(cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovering, "BATCH", 1)
    monkeypatch.setattr(LANE, "WINDOW", 1)
    async with cloud(one_pool(*["false_file"] * 6), **ALLOWED) as c, c.host() as host:
        run_id = await start(host, AUTO, "/api/fixes")
        await host.until(lambda: c.box.stats()["commands"])
        await host.http("POST", f"/api/runs/{run_id}/cancel")
        await host.finish(run_id)
        run = await c.run(run_id)
        assert run.state is RunState.CANCELLED
        planned = await c.run(run.plan_run)
        assert planned.state is RunState.CANCELLED
        assert planned.summary is not None
        assert sum(planned.summary.statuses.values()) == 6
        assert set(await outcomes(c, run_id)) <= {Outcome.NOT_TRIED}
        assert set(c.box.stats()["commands"].values()) == {1}


def broken(name: str) -> Step:
    """A step that never can be done."""

    async def fail(services: Any, message: Any) -> Any:
        raise RuntimeError("out of luck")

    return Step(STEPS[name].message, fail)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("name", ["open_wave", "open_fix"])
async def test_a_wave_that_cannot_be_opened(name: str, cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STEPS, name, broken(name))
    async with cloud(FAILING, **ALLOWED) as c, c.host() as host:
        run_id = await start(host, AUTO, "/api/fixes")
        await host.finish(run_id)
        assert await outcomes(c, run_id) == {Outcome.NOT_TRIED: 2}
        assert "out of luck" in (await c.findings(run_id))[0].reason
        assert host.activities.count(name) == 3


@pytest.mark.usefixtures("hurried")
async def test_a_wave_whose_end_cannot_be_seen(cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fix of its node was sent; no other node of the pool is touched."""
    async with cloud(FAILING, **ALLOWED) as c, c.host() as host:
        run_id = await start(host, {"pause_seconds": 0}, "/api/fixes")
        shown = await awaiting(host, run_id)
        whole = STEPS["advance"]

        async def break_afterwards(services: Any, message: Any) -> Any:
            answer = await whole.carry_out(services, message)
            if isinstance(answer, Advanced) and answer.started:
                monkeypatch.setitem(STEPS, "advance", broken("advance"))
            return answer

        monkeypatch.setitem(STEPS, "advance", Step(whole.message, break_afterwards))
        await host.http("POST", shown["links"]["approve"], {"digest": shown["approval"]["digest"]})
        await host.finish(run_id)
        assert await outcomes(c, run_id) == {Outcome.FAILED: 1, Outcome.NOT_TRIED: 1}
        lost = next(item for item in await c.findings(run_id) if item.outcome is Outcome.FAILED)
        assert lost.reason.startswith("LOOK AT THIS NODE: the fix was sent to the node; what it did is not known")
        assert lost.code == LOOK_CODE
        assert sum(c.box.stats()["commands"].values()) == 4, "three looks, and one fix"


async def test_a_fix_whose_planning_fails_is_no_success(cloud: CloudFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STEPS, "scope", broken("scope"))
    async with cloud(FAILING, **ALLOWED) as c, c.host() as host:
        run_id = await start(host, AUTO, "/api/fixes")
        await host.finish(run_id)
        run = await c.run(run_id)
        assert run.state is RunState.FAILED
        assert "nothing was changed, for the plan failed: RuntimeError: out of luck" in run.error
        assert (await c.run(run.plan_run)).state is RunState.FAILED


async def test_fixing_wants_both_keys(cloud: CloudFactory) -> None:
    async with cloud(FAILING) as c, c.host() as host:
        answer = await host.http("POST", "/api/fixes", AUTO)
        assert answer.status == 403
        assert "GUARD_ALLOW_FIX" in answer.json()["detail"]
        assert c.hub.instances == {}


async def test_fixes_of_overlapping_subscriptions_exclude_each_other(cloud: CloudFactory) -> None:
    async with cloud(FAILING, **ALLOWED) as c, c.host() as host:
        run_id = await start(host, {}, "/api/fixes")
        other = {"subscriptions": ["5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1"], "clusters": ["aks-test"]}
        answer = await host.http("POST", "/api/fixes", other)
        assert (answer.status, answer.json()["run"]["id"]) == (409, run_id)
        await awaiting(host, run_id)
        assert (await host.http("POST", "/api/fixes", other)).status == 409
        await host.http("POST", f"/api/runs/{run_id}/cancel")
        await host.finish(run_id)
        assert (await host.http("POST", "/api/fixes", other)).status == 202


async def test_what_was_rolled_back_waits_to_be_asked_for(cloud: CloudFactory) -> None:
    settings = {**ALLOWED, "GUARD_RESTART_SECONDS": "5"}
    async with cloud(one_pool("unhealthy_when_fixed"), **settings) as c, c.host() as host:
        first = await start(host, AUTO, "/api/fixes")
        await host.finish(first)
        assert await outcomes(c, first) == {Outcome.ROLLED_BACK: 1}
        (finding,) = await c.findings(first)
        assert "was not well: healthz" in finding.reason
        assert "retry_rolled_back" in finding.hint

        second = await start(host, AUTO, "/api/fixes")
        await host.finish(second)
        assert await outcomes(c, second) == {Outcome.NOT_TRIED: 1}
        (node,) = (await host.http("GET", f"/api/runs/{second}/plan")).json()["nodes"]
        assert "was rolled back, on 20" in node["refused"]
        assert node["diff"] == ""

        third = await start(host, {**AUTO, "retry_rolled_back": True}, "/api/fixes")
        await host.finish(third)
        assert await outcomes(c, third) == {Outcome.ROLLED_BACK: 1}


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("noted", [True, False])
async def test_killed_while_a_fix_is_undone(cloud: CloudFactory, noted: bool) -> None:
    """The node said that all was well, the verdict was fail, and the host dies while it is rolled back: after it noted
    where to ask for the result, or before, so that the undoing is sent twice."""
    late = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmakeIPTablesUtilChains: false\n"
    async with cloud(one_pool("false_dropin"), **ALLOWED) as c:
        async with c.host(visibility=0.2) as host:
            run_id = await start(host, {"pause_seconds": 0}, "/api/fixes")
            shown = await awaiting(host, run_id)
            (name,) = c.box.stats()["commands"]
            (c.box.node_dir(name) / "etc/kubernetes/kubelet.conf.d/90-late.conf").write_text(late)

            async def undone() -> bool:
                nodes = [node for batch in (await c.batches(run_id)).values() for node in batch.nodes]
                return any(node.answers and node.command is not None and node.command.url for node in nodes)

            start_command = Azure.start

            async def taken_and_dead(azure: Azure, node: Node, script: str, *more: Any, **options: Any) -> Any:
                result = await start_command(azure, node, script, *more, **options)
                if "\nundo='2" in script and not noted:
                    host.kill()
                    await asyncio.sleep(3600)
                return result

            with patch.object(Azure, "start", taken_and_dead):
                await host.http("POST", shown["links"]["approve"], {"digest": shown["approval"]["digest"]})
                if noted:
                    await c.until(undone)
                    host.kill()
                else:
                    await asyncio.wait_for(host.dead.wait(), 60)
        async with c.host() as host:
            await host.finish(run_id)
        assert await outcomes(c, run_id) == {Outcome.ROLLED_BACK: 1}
        # To look, to fix, to undo; once more where it was not noted that the undoing had been sent.
        assert c.box.stats()["commands"][name] in ((3,) if noted else (3, 4))


async def test_the_schedule_can_fix(cloud: CloudFactory) -> None:
    async with cloud(one_pool("false_file"), **ALLOWED, GUARD_MODE="fix") as c, c.host() as host:
        await host.tick()
        (run,) = (await host.http("GET", "/api/runs?kind=fix")).json()["runs"]
        await host.finish(run["id"])
        assert await outcomes(c, run["id"]) == {Outcome.FIXED: 1}
