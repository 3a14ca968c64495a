"""The soak's checks see what is wrong: prepared stores and nodes, and what a trial says of them."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import sandbox
import sandbox.node
from bench import lives
from bench import trial as trials
from bench.checks import Stored, check_nodes, check_runs, read
from bench.clock import Clock
from bench.excuses import Excuses
from bench.flaky import Weather
from bench.world import ONE_KEY, Look, Trial, World, look
from sandbox import Fault
from sandbox.fleet import Cluster, Fleet, Member, Nodes, Pool, Subscription, members
from sandbox.states import STATES
from shared.controls import catalogue
from shared.models import Finding, Outcome, Run, RunKind, RunState, RunSummary, Status
from shared.node.fixing import FileEdit, Splice
from shared.runs import documents
from shared.runs.model import keys
from shared.runs.model.messages import Gathered
from shared.runs.model.plans import NodePlan, SeenFile
from shared.runs.steps import plan_pages
from shared.store import new_run_id, open_store
from tests.support.hub import Hub
from tests.support.records import finding, node

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
STATUS = {"pass": Status.PASS, "fail": Status.FAIL, "skipped": Status.SKIPPED}


def fleet(*states: str) -> list[Member]:
    pools = (Pool("np0", tuple(Nodes(state) for state in states)),)
    cluster = Cluster("aks", "rg", "westeurope", "1.33.5", pools)
    return list(members(Fleet((Subscription("11111111-2222-4333-8444-555555555555", "x", (cluster,)),))))


def world_of(how: str, *states: str) -> World:
    box = cast(sandbox.Sandbox, SimpleNamespace(node_dir=lambda name: Path(name)))
    excuses = Excuses(lambda kind, path: path)
    return World(box, fleet(*states), "", Trial(1, how), Clock(1, 0.0), excuses, status=1)


@pytest.fixture(autouse=True)
def nodes_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.checks.chains_are_kept", lambda root: True)


def found(member: Member, run: str, outcome: Outcome | None = None, status: Status | None = None) -> Finding:
    return finding(
        run_id=run,
        node=member.name,
        subscription=member.subscription.id,
        resource_group=member.cluster.resource_group,
        cluster=member.cluster.name,
        node_pool=member.pool.name,
        scale_set=member.scale_set,
        instance_id=member.instance_id,
        status=status or STATUS.get(STATES[member.state].expected, Status.ERROR),
        outcome=outcome,
    )


def ended(kind: RunKind, findings: list[Finding], state: RunState = RunState.COMPLETED, **more: Any) -> Run:
    statuses, outcomes = Counter(item.status for item in findings), Counter(item.outcome for item in findings)
    nodes = len({item.node for item in findings})
    summary = RunSummary(statuses, {name: count for name, count in outcomes.items() if name}, nodes)
    finished = NOW if state.final else None
    return Run(
        kind.value, kind, state, NOW, request={"controls": ["3.2.6"]}, finished=finished, summary=summary, **more
    )


def told(how: str, fix: Run | None, fixed: list[Finding], *states: str, **seen: Any) -> list[str]:
    """What the check says of a complete plan over nodes in these states, and this fix."""
    world = world_of(how, *states)
    for name, value in seen.items():
        setattr(world, name, value)
    surveyed = [found(member, "plan") for member in world.members]
    plan = ended(RunKind.PLAN, surveyed)
    runs = [plan] if fix is None else [replace(fix, started=NOW + timedelta(seconds=9)), plan]
    check_runs(world, Stored(runs, {"plan": surveyed, "fix": fixed}))
    return world.trial.broken


def outcomes(*said: tuple[str, Outcome]) -> list[Finding]:
    made = zip(fleet(*(state for state, _ in said)), said, strict=True)
    good = (Outcome.FIXED, Outcome.ALREADY_RIGHT)
    return [
        found(member, "fix", outcome, Status.PASS if outcome in good else Status.FAIL) for member, (_, outcome) in made
    ]


def test_an_audit_has_to_have_every_control_once() -> None:
    def said(findings: list[Finding]) -> list[str]:
        world = world_of("audit", "neglected")
        check_runs(world, Stored([replace(ended(RunKind.AUDIT, findings), request={})], {"audit": findings}))
        return world.trial.broken

    (member,) = fleet("neglected")
    one = found(member, "audit")
    whole = [
        replace(one, control=name, status=STATUS[STATES["neglected"].expects(name)]) for name in catalogue().controls
    ]
    assert said(whole) == []
    assert "has [0, 1] findings for each" in said(whole[1:])[0]
    assert "has [1, 2] findings for each" in said([*whole, whole[0]])[0]
    assert "is said to pass 3.2.1" in said([replace(item, status=Status.PASS) for item in whole if item.control])[2]
    assert said([replace(item, control="9.9.9") for item in whole[:1]] + whole)[0].endswith("asked for: ['9.9.9']")


@pytest.mark.parametrize("how", ["fix", "fix, store away", "fix, killed", "fix, app dies"])
def test_a_fix_has_to_be_there_and_complete(how: str) -> None:
    states = ("false_file", "false_flag")
    both = outcomes(("false_file", Outcome.FIXED), ("false_flag", Outcome.FIXED))
    assert told(how, ended(RunKind.FIX, both), both, *states) == []
    assert "no fix was recorded" in told(how, None, [], *states)[0]
    for state in (RunState.FAILED, RunState.CANCELLED):
        assert f"the fix ended {state}" in told(how, ended(RunKind.FIX, [], state), [], *states)[0]
        assert "of the fix there is nothing of" in told(how, ended(RunKind.FIX, [], state), [], *states)[1]
    assert "not over" in told(how, ended(RunKind.FIX, both, RunState.RUNNING), both, *states)[0]
    missing = both[:1]
    assert "of the fix there is nothing of" in told(how, ended(RunKind.FIX, missing), missing, *states)[0]
    assert "the fix's summary says" in told(how, ended(RunKind.FIX, missing), both, *states)[0]


def test_a_fix_without_findings_is_in_order_where_nothing_fails() -> None:
    assert told("fix", None, [], "compliant_file", "deallocated") == []


def test_only_a_survey_begun_before_the_kill_may_be_left_going() -> None:
    world = world_of("audit, killed", "compliant_file")
    world.killed = NOW.timestamp() + 60
    second = [found(world.members[0], "second")]
    whole = replace(ended(RunKind.AUDIT, second), id="second", started=NOW + timedelta(seconds=300))
    first = replace(whole, id="first", state=RunState.RUNNING, started=NOW)
    findings = {"second": second, "first": [], "third": []}
    check_runs(world, Stored([whole, first], findings))
    assert world.trial.broken == []
    check_runs(world, Stored([replace(whole, state=RunState.RUNNING), first], findings))
    assert "not over" in world.trial.broken[0]
    del world.trial.broken[:]
    check_runs(world, Stored([whole, first, replace(first, id="third")], findings))
    assert "not over" in world.trial.broken[0], "one was killed, not two"


@pytest.mark.parametrize(
    ("outcome", "broken"),
    [
        (Outcome.ROLLED_BACK, ""),
        (Outcome.FIXED, "unhealthy_when_fixed) is fixed although"),
        (Outcome.FAILED, "unhealthy_when_fixed) is failed although"),
        (Outcome.NOT_TRIED, "unhealthy_when_fixed) is not_tried although"),
    ],
)
def test_a_kubelet_that_does_not_get_well_is_rolled_back(outcome: Outcome, broken: str) -> None:
    rolled_back = outcome is Outcome.ROLLED_BACK
    last = Outcome.NOT_TRIED if rolled_back else Outcome.FIXED
    states = ("false_file", "unhealthy_when_fixed", "false_flag")
    fixed = outcomes(*zip(states, (Outcome.FIXED, outcome, last), strict=True))
    said = told("fix", ended(RunKind.FIX, fixed), fixed, *states)
    assert broken in said[0] if broken else said == []


def test_only_what_can_hinder_a_fix_excuses_it() -> None:
    fixed = outcomes(("false_file", Outcome.NOT_TRIED))
    (member,) = fleet("false_file")
    group = f"/subscriptions/{member.subscription.id}/resourceGroups/{member.cluster.node_group}/providers"
    path = f"{group}/Microsoft.Compute/virtualMachineScaleSets/{member.scale_set}/virtualMachines"

    def said(place: str, faults: int, **fault: Any) -> list[str]:
        excuses = Excuses(lambda kind, path: path)
        excuses.begin_waves()
        for _ in range(faults):
            excuses.heed("instances.list", place, Fault(kind="instances.list", **fault), old=False)
        return told("fix", ended(RunKind.FIX, fixed), fixed, "false_file", excuses=excuses)

    assert "although nothing hindered it" in said(path, 0)[0]
    assert "although nothing hindered it" in said(path, 3, status=503)[0], "it is asked for again"
    assert "although nothing hindered it" in said(path, 9, delay=5)[0]
    assert "although nothing hindered it" in said(path.replace("aks", "other"), 4, status=503)[0], "another pool's"
    assert said(path, 4, status=503) == []
    assert said(path, 1, status=200, body={}) == []


def test_a_killed_process_excuses_no_fix() -> None:
    fixed = outcomes(("false_file", Outcome.FAILED))
    trial = Trial(1, "fix, app dies", faults=Counter({"worker killed": 3}))
    assert "although nothing hindered it" in told("", ended(RunKind.FIX, fixed), fixed, "false_file", trial=trial)[0]


def nodes(how: str, change: dict[str, str], planned: Any = None, **seen: Any) -> list[str]:
    """What the check says of a wrong node whose files were changed so."""
    world = world_of(how, seen.pop("state", "false_file"))
    for name, value in seen.items():
        setattr(world, name, value)
    name = world.members[0].name
    before = Look({"/etc/a": "old", "/etc/b": "old"}, well=True)
    after = Look({**before.files, **change}, well=True)
    check_nodes(world, {name: before}, {name: after}, {name: planned} if planned is not None else {})
    return world.trial.broken


def test_nothing_is_changed_without_both_keys_or_beside_the_plan() -> None:
    planned = {"/etc/a": {"new"}}
    assert nodes("fix", {"/etc/a": "new", "/var/lib/kubelet-guard/backups/1/manifest": "x"}, planned) == []
    assert "without both keys" in nodes("audit", {"/etc/a": "new"})[0]
    assert "without both keys" in nodes("audit", {"/var/lib/kubelet-guard/lock": "new"})[0]
    assert "without both keys" in nodes(ONE_KEY, {"/etc/a": "new"})[0]
    assert "beside the plan" in nodes("fix", {"/etc/b": "new"}, planned)[0]
    assert "beside the plan" in nodes("fix", {"/etc/a": "other"}, planned)[0]
    assert "beside the plan" in nodes("fix", {"/etc/a": "new"})[0]
    assert "under way" in nodes("fix", {"/var/lib/kubelet-guard/journal": "x"}, planned)[0]
    assert "was not rolled back" in nodes("fix", {"/etc/a": "new"}, planned, state="dies_when_fixed")[0]


def test_a_script_that_changes_is_not_sent_without_both_keys() -> None:
    name = fleet("false_file")[0].name
    for how in ("audit", "plan", ONE_KEY):
        assert "without both keys" in nodes(how, {}, changers={name})[0]
    assert "beside the plan" in nodes("fix", {}, changers={name})[0]
    assert nodes("fix", {}, {}, changers={name}) == []


def test_a_kill_excuses_one_repetition_and_no_more() -> None:
    name = fleet("false_file")[0].name
    for kills in (0, 1, 3):
        trial = Trial(1, "fix, app dies", faults=Counter({"worker killed": kills}))
        most = {
            "changes": Counter({(name, "a"): 1 + kills}),
            "nonces": Counter({(name, "b"): 1 + kills}),
            "in_the_way": {name: {str(n) for n in range(kills)}},
        }
        nodes("", {}, {}, trial=trial, **most)
        assert trial.broken == []
        for one, more in (
            ("changes", Counter({(name, "a"): 2 + kills})),
            ("nonces", Counter({(name, "b"): 2 + kills})),
            ("in_the_way", {name: {str(n) for n in range(kills + 1)}}),
        ):
            trial.broken.clear()
            nodes("", {}, {}, trial=trial, **{**most, one: more})
            assert len(trial.broken) == 1, one


def test_well_is_what_the_kubelet_says(tmp_path: Path) -> None:
    member = fleet("unhealthy_when_fixed")[0]
    root = sandbox.node.make([member], tmp_path)[member.name].root
    first = look(root, member)
    assert first.well
    (root / "run/sandbox/healthz").write_text("0 500\n")
    assert not look(root, member).well
    (root / "run/sandbox/healthz").write_text("0 200\n")
    assert look(root, member) == first
    (root / "run/sandbox/dies_at").write_text("1\n")
    assert not look(root, member).well
    assert look(root, member).files == first.files


def test_a_store_is_read_with_what_was_planned(tmp_path: Path) -> None:
    old, new = (hashlib.sha256(text).hexdigest() for text in (b"false", b"true"))
    edit = FileEdit("/etc/a", old, (Splice(0, 5, b"false", b"true"),), new)
    seen = SeenFile("/etc/a", b"false", old)
    plan = NodePlan(node=node(), controls=("3.2.6",), edits=(edit,), files=(seen,))

    async def work() -> Stored:
        place = str(tmp_path / "runs.db")
        async with open_store(place) as store:
            fix = replace(ended(RunKind.FIX, []), id=new_run_id(NOW))
            await store.save_run(fix)
            await store.save_run(replace(ended(RunKind.PLAN, []), id=new_run_id(NOW)))
            await plan_pages.save(store, fix.id, 0, 0, [plan])
            gathered = Gathered(pools=(1,), digest="", nodes=1)
            await documents.save(store, fix.id, keys.GATHERED, documents.GATHERED, gathered)
        return await read(place)

    stored = asyncio.run(work())
    assert [run.kind for run in stored.fixes] == [RunKind.FIX]
    assert stored.survey is not None
    assert stored.planned == {plan.node.name: {"/etc/a": {new}}}


@pytest.mark.parametrize("orphan", [False, True])
def test_a_run_that_leaves_something_going_is_not_over(orphan: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def http(method: str, *_: Any) -> Any:
        return SimpleNamespace(status=202 if method == "POST" else 200, json=lambda: {"id": "r", "state": "completed"})

    @asynccontextmanager
    async def running(hub: Hub, **_: Any) -> AsyncIterator[Any]:
        if orphan:
            hub.create("r:lane", "lane", "{}")
        yield SimpleNamespace(dead=asyncio.Event(), http=http, functions={}, slots=8, room=lambda: 8)

    monkeypatch.setattr(lives, "running", running)
    monkeypatch.setattr(lives, "_ASK", 0.01)
    monkeypatch.setattr(lives, "_AFTERMATH", 0.05)
    going = lives.live(1, "/api/fixes", {}, Counter(), Weather(1, {}))
    if orphan:
        with pytest.raises(RuntimeError, match="there still goes: lane r:lane"):
            asyncio.run(going)
    else:
        assert asyncio.run(going) == "r"


def test_a_fix_has_nodes_that_do_not_get_well_among_others() -> None:
    for seed in range(20):
        listed = list(members(sandbox.parse(trials._fleet(random.Random(seed), fixing=True, unwell="dies_when_fixed"))))
        assert sum(member.state == "dies_when_fixed" for member in listed) == 1
