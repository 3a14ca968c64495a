"""Fixing against the sandbox: plans carried out by the real script, in waves, with every way that it can go."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import sandbox
from shared.azure import Azure
from shared.errors import GuardError, NotFixedError, UsageError
from shared.models import Finding, Node, Outcome, Run, RunKind, RunState, Starter, Status, Subscription
from shared.node.edits import Method
from shared.node.fixing import Splice
from shared.runs.hosts import leases, starting
from shared.runs.hosts import terminal as runs
from shared.runs.model.messages import OpenWave, Ref
from shared.runs.model.plans import NodePlan, PlanFile, SeenFile, digest, same
from shared.runs.model.request import FixRequest, RunRequest
from shared.runs.nodes.repairing import LOOK_CODE
from shared.runs.steps import fix_waves
from shared.store import Store, new_run_id, open_store
from tests.runs.by_hand import gathered, recorded
from tests.support.bench import Bench, BenchFactory, one_pool
from tests.support.findings import AUDIT

FAST = {"allow_fix": True, "restart_seconds": 8, "command_deadline_seconds": 90.0}


async def plans(b: Bench, method: Method = "auto") -> list[NodePlan]:
    """The plans in the order of their nodes; a run has them as their looks ended."""
    run = await runs.survey_here(b.services, RunKind.PLAN, FixRequest(method=method))
    return sorted(await runs.plans_of(b.services, run), key=lambda plan: int(plan.node.instance_id))


async def fix(b: Bench, made: Sequence[NodePlan], **options: object) -> tuple[Run, list[Finding]]:
    request = FixRequest.model_validate({"pause_seconds": 0, **options})
    run = await runs.fix_here(b.services, request, made)
    return run, sorted(await b.findings(run.id), key=lambda item: int(item.instance_id or 0))


def made_false(b: Bench, plan: NodePlan) -> None:
    """Somebody writes the wrong flag behind the kubelet's back: a restart would make it wrong."""
    path = b.box.node_dir(plan.node.name) / "etc/default/kubelet"
    path.write_text(path.read_text().replace("KUBELET_FLAGS=", "KUBELET_FLAGS=--make-iptables-util-chains=false ", 1))


async def test_every_bad_state_is_fixed(bench: BenchFactory) -> None:
    states = (
        "false_file",
        "false_flag",
        "false_dropin",
        "false_both",
        "false_flag_twice",
        "false_envfile_quoted",
        "false_unit",
        "yaml_config",
        "seed_layout",
        "restart_pending_fixed",
        "restart_pending_broken",
        "daemon_reload_pending",
    )
    # All at once: a busy machine may take its time.
    async with bench(one_pool(*states), **{**FAST, "restart_seconds": 60, "command_deadline_seconds": 240.0}) as b:
        made = await plans(b)
        assert len(made) == len(states), "each state must fail"
        at_once = {"max_unavailable": "100%", "canary": False}
        run, findings = await fix(b, made, **at_once)
        for state, finding in zip(states, findings, strict=True):
            done = (finding.outcome, finding.status, finding.actual)
            assert done == (Outcome.FIXED, Status.PASS, True), (state, finding.reason)
        assert run.summary is not None
        assert run.summary.outcomes == {Outcome.FIXED: len(states)}
        assert await plans(b) == [], "nothing is left to plan"
        _, again = await fix(b, made, **at_once)
        for state, finding in zip(states, again, strict=True):
            assert finding.outcome is Outcome.ALREADY_RIGHT, (state, finding)


@pytest.mark.parametrize("method", ["config", "flags"])
async def test_methods(bench: BenchFactory, method: Method) -> None:
    async with bench(one_pool("false_file"), **FAST) as b:
        _, (finding,) = await fix(b, await plans(b, method))
        assert finding.outcome is Outcome.FIXED
        assert finding.source.startswith("flag" if method == "flags" else "/etc/default/kubeletconfig.json")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("state", "outcome", "status"),
    [
        ("unhealthy_when_fixed", Outcome.ROLLED_BACK, Status.FAIL),
        ("dies_when_fixed", Outcome.ROLLED_BACK, Status.FAIL),
        ("restart_fails", Outcome.FAILED, Status.ERROR),
    ],
)
async def test_what_does_not_come_back_well_is_rolled_back(
    bench: BenchFactory, state: str, outcome: Outcome, status: Status
) -> None:
    # One that dies some seconds after its start must not have settled before.
    async with bench(one_pool(state), **{**FAST, "settle_seconds": 6, "restart_seconds": 12}) as b:
        made = await plans(b)
        _, (finding,) = await fix(b, made)
        assert (finding.outcome, finding.status) == (outcome, status), finding
        assert str(outcome).replace("_", " ") in finding.reason
        assert finding.reason.startswith("LOOK AT THIS NODE") == (outcome is Outcome.FAILED)
        assert (finding.code == LOOK_CODE) == (outcome is Outcome.FAILED)
        assert "was not well" in finding.reason
        assert "journalctl -u kubelet" in finding.hint
        files = b.box.node_dir(finding.node)
        for edit in made[0].edits:
            assert "false" in (files / edit.path[1:]).read_text(), "the old text is there again"


LATE = "etc/kubernetes/kubelet.conf.d/90-late.conf"
LATE_FALSE = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmakeIPTablesUtilChains: false\n"


def texts(b: Bench, plan: NodePlan) -> dict[str, bytes]:
    """What the files of a plan have on its node now."""
    return {edit.path: (b.box.node_dir(plan.node.name) / edit.path[1:]).read_bytes() for edit in plan.edits}


async def test_a_fix_after_which_the_verdict_is_fail_is_rolled_back(bench: BenchFactory) -> None:
    """The node says that all is well; but another file, written meanwhile, wins over the one that was corrected."""
    async with bench(one_pool("false_dropin"), **FAST) as b:
        (plan,) = await plans(b)
        before = texts(b, plan)
        (b.box.node_dir(plan.node.name) / LATE).write_text(LATE_FALSE)
        run, (finding,) = await fix(b, [plan])
        assert (finding.outcome, finding.status, finding.actual) == (Outcome.ROLLED_BACK, Status.FAIL, False), finding
        assert "not right: makeIPTablesUtilChains is false" in finding.reason
        assert LATE in finding.reason
        assert "--retry-rolled-back" in finding.hint
        assert texts(b, plan) == before
        assert b.box.stats()["commands"] == {plan.node.name: 3}, "to look, to fix, to undo"
        assert run.summary is not None
        assert run.summary.outcomes == {Outcome.ROLLED_BACK: 1}


async def test_what_was_rolled_back_is_taken_again_only_when_asked(bench: BenchFactory) -> None:
    async with bench(one_pool("false_dropin"), **FAST) as b:
        (plan,) = await plans(b)
        late = b.box.node_dir(plan.node.name) / LATE
        late.write_text(LATE_FALSE)
        await fix(b, [plan])
        commands = dict(b.box.stats()["commands"])
        _, (left,) = await fix(b, [plan])
        assert (left.outcome, left.status) == (Outcome.NOT_TRIED, Status.FAIL)
        assert "look at the node first" in left.reason
        assert "--retry-rolled-back" in left.reason
        assert b.box.stats()["commands"] == commands, "nothing was sent"

        (held,) = await plans(b)
        assert "was rolled back, on 20" in held.refused
        assert (held.edits, held.diff) == ((), "")
        asked = FixRequest(retry_rolled_back=True, pause_seconds=0)
        (again,) = await runs.plans_of(b.services, await runs.survey_here(b.services, RunKind.PLAN, asked))
        _, (finding,) = await fix(b, [again], retry_rolled_back=True)
        assert finding.outcome is Outcome.FIXED, finding
        made_false(b, plan)
        (later,) = await plans(b)
        assert later.refused == "", "it was right since, so that the roll back is forgotten"


async def test_a_fix_without_a_verdict_is_looked_at_again_and_left(bench: BenchFactory) -> None:
    async with bench(one_pool("false_dropin"), **FAST) as b:
        (plan,) = await plans(b)
        # The kubelet takes a drop-in of any size; what is too long to be collected leaves the value unknown.
        (b.box.node_dir(plan.node.name) / LATE).write_text(LATE_FALSE + "# long\n" * 20_000)
        before = texts(b, plan)
        sent: list[str] = []
        start = b.services.azure.start

        async def noted(node: Node, script: str, *more: Any, **options: Any) -> Any:
            sent.append("undo" if "\nundo='2" in script else "fix" if "\nundo=''" in script else "look")
            return await start(node, script, *more, **options)

        with patch.object(b.services.azure, "start", noted):
            _, (finding,) = await fix(b, [plan])
        assert (finding.outcome, finding.status) == (Outcome.FAILED, Status.ERROR), finding
        assert finding.reason.startswith("LOOK AT THIS NODE: failed: the fix is applied, but two looks gave no verdict")
        assert finding.code == LOOK_CODE
        assert sent[0] == "fix"
        assert set(sent[1:]) == {"look"}, "every restart is a risk"
        assert texts(b, plan) != before


async def test_a_roll_back_of_what_somebody_changed_since_says_so(bench: BenchFactory) -> None:
    """The second command is compare and swap too."""
    async with bench(one_pool("false_dropin"), **FAST) as b:
        (plan,) = await plans(b)
        node = b.box.node_dir(plan.node.name)
        (node / LATE).write_text(LATE_FALSE)
        path = node / plan.edits[0].path[1:]
        start = b.services.azure.start

        async def meddling(node: Node, script: str, *more: Any, **options: Any) -> Any:
            """Somebody edits the file between the fix and its undoing."""
            if "\nundo='2" in script:
                path.write_text(path.read_text() + "# mine\n")
            return await start(node, script, *more, **options)

        with patch.object(b.services.azure, "start", meddling):
            _, (finding,) = await fix(b, [plan])
        assert finding.outcome is Outcome.FAILED, finding
        assert finding.reason.startswith("LOOK AT THIS NODE: failed: ")
        assert finding.code == LOOK_CODE
        assert "has changed" in finding.reason
        assert path.read_text().endswith("# mine\n")


def forged(plan: NodePlan, path: str, **changes: object) -> NodePlan:
    """A plan whose edit is of another file than it says, and which is whole in itself."""
    (edit, *_), old, new = plan.edits, b"root:x:0:0::/root:/bin/sh\n", b"evil:x:0:0::/root:/bin/sh\n"
    splice = Splice(0, 4, b"root", b"evil")
    seen = SeenFile(path, old, sha256(old).hexdigest())
    other = replace(edit, path=path, digest=seen.digest, splices=(splice,), new_digest=sha256(new).hexdigest())
    return NodePlan.model_validate({**dict(plan), "edits": (other,), "files": (seen,), **changes})


def plan_file(made: Sequence[NodePlan], run_id: str) -> PlanFile:
    return PlanFile(
        run_id=run_id,
        made=datetime.now(UTC),
        controls=("3.2.6",),
        method="auto",
        nodes=tuple(made),
        digest=digest(made),
    )


@pytest.mark.parametrize("store_has_it", [True, False])
async def test_a_plan_file_does_what_its_planning_run_planned(
    bench: BenchFactory, tmp_path: Path, store_has_it: bool
) -> None:
    async with bench(one_pool("false_file", "false_flag"), **FAST) as b:
        planning = await runs.survey_here(b.services, RunKind.PLAN, FixRequest())
        made = await runs.plans_of(b.services, planning)
        evil = [made[0], forged(made[1], "/etc/passwd")]
        passwd = b.box.node_dir(made[1].node.name) / "etc/passwd"
        passwd.write_text("root:x:0:0::/root:/bin/sh\n")
        async with open_store(str(tmp_path / "other.db")) as other:
            services = b.services if store_has_it else replace(b.services, store=other)
            commands = dict(b.box.stats()["commands"])
            if store_has_it:
                for wrong in (evil, made[:1], [*made[:1], replaced_node(made[1], made[0])]):
                    with pytest.raises(UsageError, match=r"not what the run .* planned .* nothing was sent"):
                        await runs.plans_in_file(services, plan_file(wrong, planning.id), FixRequest())
                audit = await runs.survey_here(b.services, RunKind.AUDIT, RunRequest(clusters=("aks-test",)))
                with pytest.raises(UsageError, match="planned nothing"):
                    await runs.plans_in_file(services, plan_file(made, audit.id), FixRequest())
                commands = {name: count + 1 for name, count in commands.items()}
            else:
                proved, run = await runs.plans_in_file(services, plan_file(evil, planning.id), FixRequest())
                assert run is not None
                assert [bool(plan.refused) for plan in proved] == [False, True]
                assert "its plan is another one now" in proved[1].refused
                commands = {name: count + 1 for name, count in commands.items()}
            assert b.box.stats()["commands"] == commands, "nothing but looks"
            proved, run = await runs.plans_in_file(services, plan_file(made, planning.id), FixRequest())
            assert (run is None) is store_has_it
            assert [plan.refused for plan in proved] == ["", ""]
            assert proved == made if store_has_it else all(map(same, proved, made))
            done = await runs.fix_here(services, FixRequest(pause_seconds=0), proved)
            assert done.summary is not None
            assert done.summary.outcomes == {Outcome.FIXED: 2}
            if not store_has_it:
                nothing, run = await runs.plans_in_file(services, plan_file(made, planning.id), FixRequest())
                assert nothing == [], "they are right now, by a look of their own"
        assert passwd.read_text().startswith("root:")


def replaced_node(plan: NodePlan, other: NodePlan) -> NodePlan:
    """A plan with the edits of another node's."""
    return NodePlan.model_validate({**dict(other), "node": plan.node})


async def test_plans_that_no_run_makes_are_refused_before_anything_is_sent(bench: BenchFactory) -> None:
    async with bench(one_pool("false_file"), **FAST) as b:
        (plan,) = await plans(b)
        commands = dict(b.box.stats()["commands"])
        (edit,) = plan.edits
        other = replace(edit.splices[0], new=b'"x"')
        for changes, says in (
            ({"controls": ("9.9.9",)}, "does not know the control '9.9.9'; there is: 3.1.1"),
            ({"files": ()}, "which the node's evidence does not name"),
            ({"edits": (replace(edit, path="/etc/shadow"),)}, "'/etc/shadow', which the node's evidence does not name"),
            ({"edits": (replace(edit, digest="0" * 64),)}, "not of the text"),
            ({"edits": (replace(edit, splices=(other, *edit.splices[1:])),)}, "does not give what it says"),
            ({"edits": (replace(edit, new_digest=None),)}, "does not give what it says"),
            ({"edits": (edit, edit)}, "more than one edit"),
        ):
            with pytest.raises(UsageError, match=says):
                await fix(b, [plan.model_copy(update=changes)])
        assert b.box.stats()["commands"] == commands
        assert (await b.services.store.runs(kind=RunKind.FIX)).runs == ()


async def test_the_diff_is_made_of_the_edits(bench: BenchFactory) -> None:
    async with bench(one_pool("false_file"), **FAST) as b:
        (plan,) = await plans(b)
        assert '-    "makeIPTablesUtilChains": false' in plan.diff
        assert "diff" not in plan.model_dump(), "what is not kept cannot be faked"
        stored = PlanFile.model_validate_json(plan_file([plan], "x").model_dump_json())
        assert stored.nodes[0].diff == plan.diff
        evil = forged(plan, "/etc/passwd")
        assert evil.diff.splitlines()[-2:] == ["-root:x:0:0::/root:/bin/sh", "+evil:x:0:0::/root:/bin/sh"]


async def test_a_file_changed_between_plan_and_fix_is_left_alone(bench: BenchFactory) -> None:
    async with bench(one_pool("false_file"), **FAST) as b:
        made = await plans(b)
        path = b.box.node_dir(made[0].node.name) / "etc/default/kubeletconfig.json"
        path.write_text(path.read_text().replace("110", "111"))
        before = path.read_bytes()
        _, (finding,) = await fix(b, made)
        assert (finding.outcome, finding.status) == (Outcome.CHANGED_MEANWHILE, Status.ERROR), (
            "nobody knows what it read"
        )
        assert path.read_bytes() == before


async def test_a_pool_is_left_at_the_first_failure(bench: BenchFactory) -> None:
    states = ["false_file", "unhealthy_when_fixed", "false_file", "false_flag"]
    async with bench(one_pool(*states), **FAST) as b:
        made = await plans(b)
        run, found = await fix(b, made)
        assert [item.outcome for item in found] == [
            Outcome.FIXED,
            Outcome.ROLLED_BACK,
            Outcome.NOT_TRIED,
            Outcome.NOT_TRIED,
        ]
        assert "more than the 0 allowed" in found[2].reason
        assert run.summary is not None
        assert sum(run.summary.outcomes.values()) == run.summary.nodes == 4
        # The rest can be had by allowing the failure; what is right is not touched again.
        _, rest = await fix(b, made, max_failures=1, max_unavailable="50%", canary=False, retry_rolled_back=True)
        assert Counter(item.outcome for item in rest) == {
            Outcome.ALREADY_RIGHT: 1,
            Outcome.ROLLED_BACK: 1,
            Outcome.FIXED: 2,
        }


async def test_waves_are_kept(bench: BenchFactory) -> None:
    async with bench(one_pool(*["false_flag"] * 5), **FAST) as b:
        made = await plans(b)
        before = b.box.stats()["most_commands_at_once"]
        assert before >= 2, "an audit looks at all at once"
        _, found = await fix(b, made, max_unavailable="2")
        assert [item.outcome for item in found] == [Outcome.FIXED] * 5
        times = sorted(item.observed for item in found)
        # The canary alone, then two and two.
        gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
        assert gaps[0] > 0.5
        assert gaps[2] > 0.5


async def test_a_fix_needs_the_deployments_key(bench: BenchFactory) -> None:
    async with bench(one_pool("false_file"), **{**FAST, "allow_fix": False}) as b:
        made = await plans(b)
        text = (b.box.node_dir(made[0].node.name) / "etc/default/kubeletconfig.json").read_text()
        _, (finding,) = await fix(b, made)
        assert (finding.outcome, finding.status) == (Outcome.NOT_TRIED, Status.FAIL)
        assert "does not allow fixes" in finding.reason
        assert (b.box.node_dir(made[0].node.name) / "etc/default/kubeletconfig.json").read_text() == text


async def test_a_cluster_in_another_state_is_left_for_later(bench: BenchFactory) -> None:
    async with bench(one_pool("false_file"), **FAST) as b:
        made = await plans(b)
    async with bench(one_pool("false_file", provisioning="Upgrading"), **FAST) as b:
        _, (finding,) = await fix(b, made)
        assert finding.outcome is Outcome.NOT_TRIED
        assert "not in the state Succeeded but Upgrading" in finding.reason


async def test_nodes_that_are_gone_or_were_reimaged_are_not_touched(bench: BenchFactory) -> None:
    async with bench(one_pool("false_file", "false_file"), **FAST) as b:
        first, second = await plans(b)
        gone = first.model_copy(update={"node": replace(first.node, instance_id="77", name="ghost", id="")})
        other = second.model_copy(update={"node": replace(second.node, node_image_version="another-image")})
        _, found = await fix(b, [gone, other])
        assert {item.outcome for item in found} == {Outcome.NOT_TRIED, Outcome.CHANGED_MEANWHILE}
        assert {(item.code, item.status) for item in found} == {
            ("vanished", Status.SKIPPED),
            ("reimaged", Status.ERROR),  # it runs, and was not judged
        }


async def test_a_node_without_a_plan_says_why(bench: BenchFactory) -> None:
    async with bench(one_pool("false_flag"), **FAST) as b:
        (plan,) = await plans(b, "config")
        assert "reads no config file" in plan.refused
        _, (finding,) = await fix(b, [plan])
        assert finding.outcome is Outcome.NOT_TRIED
        assert "reads no config file" in finding.reason


async def test_a_broken_off_fix_goes_on_and_restarts_nothing_twice(bench: BenchFactory) -> None:
    async with bench(one_pool("false_file", "false_flag", "false_both"), **FAST) as b:
        made = await plans(b)
        seen: list[Finding] = []

        def first_node_then_killed(found: list[Finding]) -> None:
            seen.extend(found)
            going.cancel()

        watched = replace(b.services, on_findings=first_node_then_killed)
        going = asyncio.create_task(runs.fix_here(watched, FixRequest(pause_seconds=0), made))
        with pytest.raises(asyncio.CancelledError):
            await going
        assert len(seen) == 1
        run = await b.services.store.latest_run()
        assert run is not None
        commands = dict(b.box.stats()["commands"])
        done = await runs.resume_fix_here(b.services, run.id)
        found = sorted(await b.findings(run.id), key=lambda item: item.node)
        assert done.state is RunState.COMPLETED
        assert [item.outcome for item in found] == [Outcome.FIXED] * 3
        first = seen[0].node
        assert b.box.stats()["commands"][first] == commands[first], "the first node was done already"
        with pytest.raises(UsageError, match="is complete"):
            await runs.resume_fix_here(b.services, run.id)
        with pytest.raises(UsageError, match="no fix"):
            await runs.resume_fix_here(b.services, "20260101T000000Z-abcdef")


async def test_a_fixed_node_that_fails_again_has_regressed(bench: BenchFactory) -> None:
    async with bench(one_pool("false_file"), **FAST) as b:
        made = await plans(b)
        _, (fixed,) = await fix(b, made)
        made_false(b, made[0])
        run = await runs.survey_here(b.services, RunKind.AUDIT, AUDIT)
        (finding,) = await b.findings(run.id)
        assert (finding.status, finding.regressed, finding.reimaged_since) == (Status.FAIL, True, False)
        assert finding.last_right == fixed.observed


async def test_a_lost_answer_starts_nothing_twice(bench: BenchFactory) -> None:
    async with bench(one_pool("false_flag"), **FAST) as b:
        made = await plans(b)
        before = b.box.stats()["commands"][made[0].node.name]
        b.box.inject(sandbox.Fault("runCommand", drop="after"))
        _, (finding,) = await fix(b, made)
        assert finding.outcome is Outcome.FAILED, finding
        assert b.box.stats()["commands"][made[0].node.name] == before + 1


async def test_a_fix_with_an_unknown_end_is_an_error_whatever_the_node_became(bench: BenchFactory) -> None:
    """The node is stopped while it is fixed: a skipped one would leave the exit status at 0."""
    stopped = {"code": "OperationNotAllowed", "message": "The operation requires the VM to be running (or set to run)."}
    async with bench(one_pool("false_file"), **FAST) as b:
        made = await plans(b)
        b.box.inject(sandbox.Fault("operations.get", status=409, body={"error": stopped}))
        _, (finding,) = await fix(b, made)
    assert (finding.outcome, finding.status) == (Outcome.FAILED, Status.ERROR), finding
    assert finding.reason.startswith("LOOK AT THIS NODE")
    assert finding.code == LOOK_CODE


async def test_a_fix_is_a_proof_for_later_looks(bench: BenchFactory) -> None:
    """What touches only the files' metadata after a fix leaves the node proved."""
    async with bench(one_pool("false_file"), **FAST) as b:
        (plan,) = await plans(b)
        await fix(b, [plan])
        (b.box.node_dir(plan.node.name) / plan.edits[0].path[1:]).chmod(0o600)
        run = await runs.survey_here(b.services, RunKind.AUDIT, AUDIT)
        (finding,) = await b.findings(run.id)
        assert finding.status is Status.PASS, finding


async def test_a_pool_whose_other_nodes_go_down_is_left(bench: BenchFactory) -> None:
    async with bench(one_pool("false_file", "false_file", "compliant_default"), **FAST) as b:
        made = await plans(b)
        sibling = next(item for key, item in b.box.compute.instances.items() if key.endswith("/2"))

        def then_a_sibling_goes_down(_: list[Finding]) -> None:
            sibling.member = replace(sibling.member, state="deallocated")

        watched = replace(b.services, on_findings=then_a_sibling_goes_down)
        run = await runs.fix_here(watched, FixRequest(pause_seconds=0), made)
        found = sorted(await b.findings(run.id), key=lambda item: item.instance_id)
    assert [item.outcome for item in found] == [Outcome.FIXED, Outcome.NOT_TRIED]
    assert "nodes of the pool that ran before do not now" in found[1].reason


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("operations.get", 404, "NotFound"),
        ("operations.get", 409, "VMExtensionProvisioningError"),
        ("runCommand", 500, "InternalServerError"),
    ],
)
async def test_a_fix_that_may_have_run_stops_the_pool(bench: BenchFactory, kind: str, status: int, code: str) -> None:
    async with bench(one_pool("false_file", "false_file"), **FAST) as b:
        made = await plans(b)
        b.box.inject(sandbox.Fault(kind, count=50, status=status, code=code))
        _, found = await fix(b, made)
    assert [item.outcome for item in found] == [Outcome.FAILED, Outcome.NOT_TRIED], found
    assert "more than the 0 allowed" in found[1].reason


async def test_after_a_roll_back_the_audit_says_the_plain_truth(bench: BenchFactory) -> None:
    async with bench(one_pool("unhealthy_when_fixed"), **FAST) as b:
        await fix(b, await plans(b))
        run = await runs.survey_here(b.services, RunKind.AUDIT, AUDIT)
        (finding,) = await b.findings(run.id)
    assert (finding.status, finding.code, finding.actual) == (Status.FAIL, "wrong", False), finding


async def test_a_cut_between_history_and_findings_forgets_nothing(bench: BenchFactory) -> None:
    async with bench(one_pool("false_file"), **FAST) as b:
        made = await plans(b)
        store = b.services.store
        full = patch.object(Store, "save_findings", side_effect=OSError("the disk is full"))
        with full, pytest.raises(GuardError, match="could not be recorded: OSError: the disk is full; go on with"):
            await fix(b, made)
        stopped = await store.latest_run()
        assert stopped is not None
        assert await b.findings(stopped.id) == []
        history = await store.history([made[0].node])
        assert history[made[0].node.key, "3.2.6"].last_fixed is not None


class App:
    """The app's orchestrations: all that were started go on for ever."""

    async def start(self, run_id: str, ref: Ref) -> None:
        pass

    async def wake(self, run_id: str) -> None:
        pass

    async def going(self, run_id: str) -> bool:
        return True

    async def end(self, run_id: str, why: str) -> None:
        raise AssertionError("nothing ends it")

    async def forget(self, before: datetime) -> int:
        raise AssertionError("nothing forgets it")


async def test_one_run_fixes_a_subscription_at_a_time(bench: BenchFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    # Short, so that the first fix has to renew its lease more than once.
    monkeypatch.setattr(leases, "LEASE_SECONDS", 1.2)
    async with bench(one_pool("false_file", "false_flag"), **FAST) as b:
        made = await plans(b)
        begun: asyncio.Queue[Run] = asyncio.Queue()
        first = asyncio.create_task(
            runs.fix_here(b.services, FixRequest(pause_seconds=4), made, begun.put_nowait), name="first"
        )
        going = await asyncio.wait_for(begun.get(), 60)
        await asyncio.sleep(2)
        with pytest.raises(
            UsageError, match=rf"the fix {going.id} is going on the same subscriptions: .*, process \d+"
        ):
            await fix(b, made)
        with pytest.raises(UsageError, match=f"the fix {going.id} is going"):
            await runs.resume_fix_here(b.services, going.id)
        with pytest.raises(starting.GoingError, match=going.id):
            await starting.start(b.services, App(), RunKind.FIX, FixRequest(), by=Starter.HTTP)
        # Elsewhere another one may.
        away = [
            plan.model_copy(
                update={"node": replace(plan.node, subscription="11111111-1111-1111-1111-111111111111", id="")}
            )
            for plan in made
        ]
        elsewhere, _ = await fix(b, away)
        assert elsewhere.state is RunState.COMPLETED
        assert not first.done()
        done = await first
        assert (done.id, done.state) == (going.id, RunState.COMPLETED)
        assert [run.id for run in (await b.services.store.runs(kind=RunKind.FIX)).runs] == [elsewhere.id, going.id]
        again, _ = await fix(b, made)
        assert again.state is RunState.COMPLETED, "the lease was given back"


async def test_a_fix_of_the_app_is_waited_for(bench: BenchFactory) -> None:
    async with bench(one_pool("false_file"), **FAST) as b:
        made = await plans(b)
        other = await starting.start(b.services, App(), RunKind.FIX, FixRequest(), by=Starter.HTTP, manual=True)
        commands = dict(b.box.stats()["commands"])
        with pytest.raises(
            UsageError, match=f"the fix {other.id} of the app is running .* /api/runs/{other.id}/cancel"
        ):
            await fix(b, made)
        assert b.box.stats()["commands"] == commands
        assert len((await b.services.store.runs(kind=RunKind.FIX)).runs) == 1


async def test_a_fix_whose_process_was_killed_is_in_nobodys_way(bench: BenchFactory) -> None:
    async with bench(one_pool("false_file"), **FAST) as b:
        made = await plans(b)
        started = datetime.now(UTC)
        killed = Run(new_run_id(started), RunKind.FIX, RunState.RUNNING, started, request={"subscriptions": []})
        await b.services.store.save_run(killed)
        _, (finding,) = await fix(b, made)
        assert finding.outcome is Outcome.FIXED
        after = await b.services.store.run(killed.id)
        assert after is not None
        assert (after.state, after.error) == (RunState.FAILED, "its terminal went away before it was over")


async def test_a_lost_lease_ends_the_fix(bench: BenchFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 1.2)
    async with bench(one_pool("false_file", "false_flag"), **FAST) as b:
        made = await plans(b)
        begun: asyncio.Queue[Run] = asyncio.Queue()
        first = asyncio.create_task(
            runs.fix_here(b.services, FixRequest(pause_seconds=60), made, begun.put_nowait), name="first"
        )
        run = await asyncio.wait_for(begun.get(), 60)
        store, lease = b.services.store, leases.name(run.id)
        held = await store.holder(lease)
        assert held is not None
        await store.release(lease, held)
        assert await store.claim(lease, "another", 60)
        with pytest.raises(GuardError, match="was taken over by another"):
            await asyncio.wait_for(first, 30)
        assert await store.holder(lease) == "another"
        after = await store.run(run.id)
        assert after is not None
        assert after.state is RunState.CANCELLED


async def test_a_fix_that_cannot_record_is_not_complete(bench: BenchFactory) -> None:
    async with bench(one_pool("false_file"), **FAST) as b:
        made = await plans(b)
        with (
            patch.object(Store, "save_findings", side_effect=RuntimeError("no room")),
            pytest.raises(GuardError, match=r"RuntimeError: no room; go on with: .* --resume") as no,
        ):
            await fix(b, made)
        assert no.value.exit_code == 2
        run = await b.services.store.latest_run()
        assert run is not None
        assert run.state is RunState.FAILED
        assert await b.findings(run.id) == [], "what was done to the node is not made up"
        done = await runs.resume_fix_here(b.services, run.id)
        assert (done.state, done.error) == (RunState.COMPLETED, "")


async def test_whoever_shows_what_was_found_concerns_no_run(bench: BenchFactory) -> None:
    """A terminal that does not take it: everything is recorded all the same."""

    def broken(_: list[Finding]) -> None:
        raise RuntimeError("no room")

    async with bench(one_pool("false_file"), **FAST) as b:
        made = await plans(b)
        services = replace(b.services, on_findings=broken)
        run = await runs.fix_here(services, FixRequest(pause_seconds=0), made)
        assert [item.outcome for item in await b.findings(run.id)] == [Outcome.FIXED]
        assert (run.state, run.error) == (RunState.COMPLETED, "")


async def test_a_survey_that_fails_is_no_wrong_usage(bench: BenchFactory) -> None:
    class Unforeseen(Azure):
        async def subscriptions(self) -> list[Subscription]:
            raise RuntimeError("unforeseen")

    async with bench(one_pool("compliant_default"), **FAST) as b:
        services = replace(b.services, azure=Unforeseen(b.services.settings))
        with pytest.raises(GuardError, match="unforeseen") as no:
            await runs.survey_here(services, RunKind.AUDIT, RunRequest(clusters=("aks-test",)))
        assert no.value.exit_code == 2
        run = await b.services.store.latest_run()
        assert run is not None
        assert (run.state, run.error) == (RunState.FAILED, "RuntimeError: unforeseen")
        assert run.id in str(no.value)


async def test_a_cancelled_audit_keeps_what_it_found(bench: BenchFactory) -> None:
    async with bench(one_pool("compliant_default", "hang"), **FAST) as b:
        begun: list[Run] = []

        def stop(_: list[Finding]) -> None:
            if auditing.cancelling() == 0:
                auditing.cancel()

        auditing = asyncio.create_task(
            runs.survey_here(
                replace(b.services, on_findings=stop),
                RunKind.AUDIT,
                AUDIT,
                begun.append,
            )
        )
        with pytest.raises(asyncio.CancelledError):
            await auditing
        (run,) = begun
        after = await b.services.store.run(run.id)
        assert after is not None
        assert after.state is RunState.CANCELLED
        assert after.finished is not None
        first, second = sorted(await b.findings(run.id), key=lambda item: item.instance_id)
    assert (first.status, second.status, second.code) == (Status.PASS, Status.ERROR, "cancelled")
    assert after.summary is not None
    assert after.summary.statuses == {Status.PASS: 1, Status.ERROR: 1}


# Which controls a fix may touch


async def test_a_fix_leaves_what_it_was_not_asked_for(bench: BenchFactory) -> None:
    """A node that fails six controls: the plan is for the one that this deployment fixes, and says what else fails."""
    async with bench(one_pool("neglected"), **FAST) as b:
        (plan,) = await plans(b)
        assert (plan.controls, plan.also) == (("3.2.6",), ("3.1.1", "3.1.3", "3.2.1", "3.2.4", "3.2.7"))
        run, (finding,) = await fix(b, [plan])
        assert (finding.control, finding.outcome) == ("3.2.6", Outcome.FIXED)
        assert run.request["controls"] == ["3.2.6"]
        audit = await runs.survey_here(b.services, RunKind.AUDIT, RunRequest())
        failing = {item.control for item in await b.findings(audit.id) if item.status is Status.FAIL}
        assert failing == set(plan.also)


async def test_a_deployment_fixes_what_it_is_told_to(bench: BenchFactory) -> None:
    wide = ("3.1.1", "3.1.3", "3.2.1", "3.2.4", "3.2.6", "3.2.7")
    async with bench(one_pool("neglected"), fix_controls=wide, **FAST) as b:
        (plan,) = await plans(b)
        assert (plan.controls, plan.left, plan.also) == (wide, {}, ())
        run, found = await fix(b, [plan])
        assert {(item.control, item.outcome) for item in found} == {(name, Outcome.FIXED) for name in wide}
        assert run.summary is not None
        assert (run.summary.nodes, run.summary.outcomes) == (1, {Outcome.FIXED: 1}), "of a node there is one"
        audit = await runs.survey_here(b.services, RunKind.AUDIT, RunRequest())
        assert {item.status for item in await b.findings(audit.id)} == {Status.PASS}


async def test_modes_and_owners_are_fixed_without_a_restart(bench: BenchFactory) -> None:
    files = ("3.1.1", "3.1.2", "3.1.3", "3.1.4")
    states = ("kubeconfig_open", "kubeconfig_owner", "azure_json_open", "azure_json_owner")
    async with bench(one_pool(*states), fix_controls=files, **FAST) as b:
        nodes = sorted((i.member for i in b.box.compute.instances.values()), key=lambda member: member.name)
        before = [(b.box.node_dir(node.name) / "run/sandbox/process.json").read_text() for node in nodes]
        run, found = await fix(b, await plans(b))
        assert [(item.control, item.outcome) for item in found] == [(name, Outcome.FIXED) for name in files]
        assert before == [(b.box.node_dir(node.name) / "run/sandbox/process.json").read_text() for node in nodes]
        assert run.summary is not None
        assert run.summary.outcomes == {Outcome.FIXED: 4}


async def test_other_controls_are_planned_and_not_fixed(bench: BenchFactory) -> None:
    asked = FixRequest(controls=("3.2.1", "3.2.6"), pause_seconds=0)
    async with bench(one_pool("neglected"), **FAST) as b:
        survey = await runs.survey_here(b.services, RunKind.PLAN, asked)
        made = await runs.plans_of(b.services, survey)
        assert made[0].controls == ("3.2.1", "3.2.6")
        commands = dict(b.box.stats()["commands"])
        for request in (asked, FixRequest(pause_seconds=0)):
            with pytest.raises(NotFixedError, match=r"does not fix 3\.2\.1, only 3\.2\.6 \(GUARD_FIX_CONTROLS\)"):
                await runs.fix_here(b.services, request, made)
        assert b.box.stats()["commands"] == commands
        assert [run.kind for run in (await b.services.store.runs(9)).runs] == [RunKind.PLAN]

        # What was planned by a deployment that may, and is gone on with by one that may not, stops at the wave.
        run = await recorded(b.services, RunKind.FIX, asked)
        await gathered(b.services, run, made)
        wave = OpenWave(run_id=run.id, epoch=run.epoch, pool=0, first=0, count=1)
        assert "does not fix 3.2.1 " in (await fix_waves.open_wave(b.services, wave)).stop
        assert b.box.stats()["commands"] == commands
