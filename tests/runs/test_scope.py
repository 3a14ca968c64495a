"""Which subscriptions a run looks at: those of a management group, and what must not be lost or touched besides."""

from __future__ import annotations

import pytest

import sandbox
from shared.errors import GuardError, UsageError
from shared.models import Outcome, RunKind, RunState, Status
from shared.runs.hosts import terminal
from shared.runs.model.request import FixRequest, RunRequest
from shared.runs.steps import scope
from tests.runs.simulated.clock import virtually
from tests.runs.simulated.rig import rig
from tests.support.bench import BenchFactory
from tests.support.findings import AUDIT, CHAINS

SEEN, OTHER, HIDDEN, LEFT_OUT, ELSEWHERE = (f"{number}1111111-2222-4333-8444-555555555555" for number in range(1, 6))
CLUSTER = "resource_group: rg, location: westeurope, version: 1.33.2, pools: [{name: np1, nodes: [{state: stopped}]}]"
FLEET = f"""
timing: {{latency: [0, 0]}}
management_groups:
- {{id: all, subscriptions: ["{SEEN.upper()}", "{OTHER}", "{HIDDEN}", "{LEFT_OUT}"]}}
- {{id: secret, subscriptions: ["{SEEN}"], forbidden: true}}
- {{id: none, subscriptions: []}}
subscriptions:
- {{id: "{SEEN}", name: Seen, clusters: [{{name: one, {CLUSTER}}}]}}
- {{id: "{OTHER}", name: Other, clusters: [{{name: two, {CLUSTER}}}]}}
- {{id: "{HIDDEN}", name: Hidden, forbidden: true, clusters: [{{name: three, {CLUSTER}}}]}}
- {{id: "{LEFT_OUT}", name: Left out, in_graph: false, clusters: [{{name: four, {CLUSTER}}}]}}
- {{id: "{ELSEWHERE}", name: Elsewhere, clusters: [{{name: five, {CLUSTER}}}]}}
"""
WHOLE_GROUP = {
    (SEEN, "one", Status.SKIPPED),
    (OTHER, "two", Status.SKIPPED),
    (HIDDEN, "", Status.ERROR),
    (LEFT_OUT, "four", Status.SKIPPED),
}


@pytest.mark.parametrize("graph", ["answers", "is forbidden"])
async def test_all_below_a_group_is_looked_at_whatever_the_graph_leaves_out(
    graph: str, bench: BenchFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scope, "GRAPH_FROM", 2)
    async with bench(FLEET) as b:
        if graph == "is forbidden":
            b.box.inject(sandbox.Fault("graph.query", status=403, code="AuthorizationFailed", message="no"))
        run = await terminal.survey_here(
            b.services, RunKind.AUDIT, RunRequest(controls=(CHAINS,), management_group="ALL")
        )
        assert run.state is RunState.COMPLETED
        found = {(item.subscription, item.cluster, item.status) for item in await b.findings(run.id)}
        assert found == WHOLE_GROUP, "what the identity cannot see into is an error of that subscription"
        listed = b.box.stats()["calls"]["clusters.list"]
        assert listed == (2 if graph == "answers" else 4), "plainly, where the graph said nothing"


async def test_a_group_and_subscriptions_are_those_of_the_group_that_are_named(bench: BenchFactory) -> None:
    async with bench(FLEET) as b:
        asked = RunRequest(management_group="all", subscriptions=(OTHER.upper(),))
        run = await terminal.survey_here(b.services, RunKind.AUDIT, asked)
        assert {item.cluster for item in await b.findings(run.id)} == {"two"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            RunRequest(management_group="all", subscriptions=(SEEN, ELSEWHERE)),
            f"no subscription {ELSEWHERE} among the 4 below the management group all; there is: .*{SEEN}",
        ),
        (RunRequest(management_group="secret"), "management group secret: .*managementGroups/descendants/read"),
    ],
)
async def test_a_group_that_is_not_as_asked_for_is_wrong_usage(
    asked: RunRequest, said: str, bench: BenchFactory
) -> None:
    async with bench(FLEET) as b:
        with pytest.raises(UsageError, match=said):
            await terminal.survey_here(b.services, RunKind.AUDIT, asked)
        assert "clusters.list" not in b.box.stats()["calls"]


async def test_the_settings_group_is_for_those_who_name_nothing(bench: BenchFactory) -> None:
    async def clusters(asked: RunRequest, **settings: object) -> set[str]:
        async with bench(FLEET, management_group="all", **settings) as b:
            run = await terminal.survey_here(b.services, RunKind.AUDIT, asked)
            return {item.cluster for item in await b.findings(run.id)}

    assert await clusters(RunRequest()) == {"one", "two", "", "four"}
    assert await clusters(RunRequest(subscriptions=(ELSEWHERE,))) == {"five"}
    assert await clusters(RunRequest(), subscriptions=(ELSEWHERE,)) == {"five"}, "GUARD_SUBSCRIPTIONS comes first"


async def test_a_group_with_nothing_below_it_is_said(bench: BenchFactory) -> None:
    async with bench(FLEET, management_group="none") as b:
        with pytest.raises(GuardError, match="the management group none has no subscription below it"):
            await terminal.survey_here(b.services, RunKind.AUDIT, AUDIT)


def test_a_fix_of_one_subscription_of_a_group_touches_no_other() -> None:
    async def work() -> None:
        world = rig(1)
        mine = world.azure.add(SEEN, "aks0", [True, True])
        others = world.azure.add(OTHER, "aks1", [True, True])
        world.azure.groups["all"] = [SEEN, OTHER]
        asked = FixRequest(management_group="all", subscriptions=(SEEN,), pause_seconds=0)
        run = await world.ended((await world.start(RunKind.FIX, asked)).id)
        assert {finding.outcome for finding in (await world.findings(run.id)).values()} == {Outcome.FIXED}
        assert [bool(member.accepted) for member in (*mine, *others)] == [True, True, False, False]

    virtually(work)
