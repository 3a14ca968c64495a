"""A plan for files whose mode is wrong, from the node's evidence to the findings of its fix, by the real scripts."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from shared.azure import CommandResult
from shared.models import Finding, History, Outcome, Problem, Status
from shared.runs.model.batch import Answer
from shared.runs.model.plans import NodePlan, held_back, plan_node
from shared.runs.nodes.repairing import RestartLimits, barred, repair
from shared.runs.steps.left_undone import left_alone
from tests.support.findings import NOW
from tests.support.findings import node as an_azure_node
from tests.support.fixable_node import CONFIG, ENVIRONMENT, FixableNode
from tests.support.folder_node import FolderNode

KUBECONFIG = "/var/lib/kubelet/kubeconfig"
AZURE_JSON = "/etc/kubernetes/azure.json"
FALSE, TRUE = "--make-iptables-util-chains=false", "--make-iptables-util-chains=true"
FLAGS = f"--kubeconfig={KUBECONFIG} {FALSE}"


@pytest.fixture
def lax(folder_node: FolderNode) -> FixableNode:
    """A node that fails 3.1.1 and 3.1.3 by modes, 3.2.3 by having no client CA, and 3.2.6 by a flag."""
    folder_node.write(
        "/etc/systemd/system/kubelet.service",
        f"[Service]\nEnvironmentFile={ENVIRONMENT}\nExecStart=/opt/bin/kubelet --config={CONFIG} $KUBELET_FLAGS\n",
    )
    folder_node.unit()
    folder_node.write(ENVIRONMENT, f"KUBELET_FLAGS={FLAGS}\n", 0o600)
    folder_node.write(KUBECONFIG, "", 0o666)
    folder_node.write(AZURE_JSON, "", 0o664)
    folder_node.process("/opt/bin/kubelet", f"--config={CONFIG}", *FLAGS.split())
    fixable = FixableNode(folder_node.root)
    fixable.prepare()
    return fixable


def planned(node: FixableNode, *controls: str) -> NodePlan:
    return plan_node(an_azure_node(1), controls, node.collect(), "auto")


def repaired(
    node: FixableNode, plan: NodePlan, *, twice: bool = False, before: Callable[[], object] = lambda: None
) -> dict[str, Finding]:
    """What becomes of a plan. `twice`: its sender died after sending, and sent it again."""
    before()
    program = repair("run-1", plan, RestartLimits(restart_seconds=3, settle_seconds=1))
    send, doubtful = next(program), twice
    while True:
        if doubtful:
            node.run(send.script)
        done = node.run(send.script)
        try:
            send = program.send(Answer(CommandResult(done.stdout.decode(), done.stderr.decode()), doubtful))
        except StopIteration as stop:
            return {finding.control: finding for finding in stop.value.findings}
        doubtful = False


def test_modes_alone_are_fixed_and_then_right_already(lax: FixableNode) -> None:
    plan = planned(lax, "3.1.1", "3.1.3")
    assert (plan.refused, plan.restart, plan.edits) == ("", False, ())
    assert plan.steps == (
        f"set the mode of {KUBECONFIG} from 666 to 644",
        f"set the mode of {AZURE_JSON} from 664 to 644",
    )
    found = repaired(lax, plan)
    assert {name: (each.status, each.outcome) for name, each in found.items()} == {
        "3.1.1": (Status.PASS, Outcome.FIXED),
        "3.1.3": (Status.PASS, Outcome.FIXED),
    }
    again = repaired(lax, plan)
    assert {each.outcome for each in again.values()} == {Outcome.ALREADY_RIGHT}
    assert lax.restarts() == 0


def test_modes_that_were_sent_twice_are_fixed_once(lax: FixableNode) -> None:
    found = repaired(lax, planned(lax, "3.1.1", "3.1.3"), twice=True)
    assert {each.outcome for each in found.values()} == {Outcome.FIXED}


@pytest.mark.parametrize("twice", [False, True])
def test_a_mode_that_somebody_changed_is_theirs(lax: FixableNode, twice: bool) -> None:
    plan = planned(lax, "3.1.1", "3.1.3")
    found = repaired(lax, plan, twice=twice, before=lambda: (lax.root / AZURE_JSON[1:]).chmod(0o622))
    assert {name: (each.status, each.outcome) for name, each in found.items()} == {
        "3.1.1": (Status.FAIL, Outcome.CHANGED_MEANWHILE),
        "3.1.3": (Status.FAIL, Outcome.CHANGED_MEANWHILE),
    }
    assert f"the mode or owner of {AZURE_JSON} has changed" in found["3.1.3"].reason
    assert (lax.mode(KUBECONFIG)[0], lax.mode(AZURE_JSON)[0]) == (0o666, 0o622)


def test_a_file_that_went_is_told(lax: FixableNode) -> None:
    plan = planned(lax, "3.1.1")
    found = repaired(lax, plan, before=(lax.root / KUBECONFIG[1:]).unlink)
    assert (found["3.1.1"].status, found["3.1.1"].outcome) == (Status.ERROR, Outcome.CHANGED_MEANWHILE)


def test_modes_and_settings_in_one_restart_and_what_is_left(lax: FixableNode) -> None:
    plan = planned(lax, "3.2.3", "3.1.1", "3.2.6")
    assert (plan.controls, list(plan.left)) == (("3.1.1", "3.2.6"), ["3.2.3"])
    found = repaired(lax, plan)
    assert {name: (each.status, each.outcome) for name, each in found.items()} == {
        "3.1.1": (Status.PASS, Outcome.FIXED),
        "3.2.6": (Status.PASS, Outcome.FIXED),
        "3.2.3": (Status.ERROR, Outcome.NOT_TRIED),  # nothing tells when this node's kubelet was started
    }
    assert "only AKS knows" in found["3.2.3"].reason
    assert (lax.mode(KUBECONFIG)[0], lax.restarts()) == (0o644, 1)
    assert (lax.root / ENVIRONMENT[1:]).read_text() == f"KUBELET_FLAGS={FLAGS.replace(FALSE, TRUE)}\n"
    assert lax.mode(ENVIRONMENT) == (0o600, os.getuid(), os.getgid())


def test_what_is_left_is_judged_as_it_is_then(lax: FixableNode) -> None:
    """A restart, or somebody, may have cured what could not be planned, and a node that is gone fails nothing."""
    plan = planned(lax, "3.2.6").model_copy(update={"left": {"3.1.1": "it is theirs"}})
    gone = Problem(Status.SKIPPED, "vanished", "the node is not there any more", "Run the audit again.")
    barred_now = barred("run-1", plan, gone)
    assert barred_now is not None
    assert {(each.control, each.status, each.outcome) for each in barred_now.findings} == {
        ("3.2.6", Status.SKIPPED, Outcome.NOT_TRIED),
        ("3.1.1", Status.SKIPPED, Outcome.NOT_TRIED),
    }
    found = repaired(lax, plan)
    assert (found["3.1.1"].status, found["3.1.1"].code, found["3.1.1"].actual) == (Status.FAIL, "no_plan", "666")
    assert found["3.1.1"].reason.endswith("must be 644 or stricter; not fixed: it is theirs")
    other = planned(lax, "3.1.3").model_copy(update={"left": plan.left})
    found = repaired(lax, other, before=lambda: (lax.root / KUBECONFIG[1:]).chmod(0o600))
    assert {name: (each.status, each.outcome) for name, each in found.items()} == {
        "3.1.3": (Status.PASS, Outcome.FIXED),
        "3.1.1": (Status.PASS, Outcome.NOT_TRIED),
    }


def test_a_plan_that_is_held_back_still_has_every_control(lax: FixableNode) -> None:
    plan = planned(lax, "3.2.3", "3.1.1", "3.2.6")
    key = plan.node.key
    rolled_back = History(key, "3.2.6", Status.FAIL, NOW, None, None, None, None, last_rolled_back=NOW)
    held = held_back(plan, {(key, "3.2.6"): rolled_back}, retry=False)
    assert "was rolled back" in held.refused
    assert set(held.controls) == {"3.2.3", "3.1.1", "3.2.6"}
    assert {each.control for each in left_alone("run-1", held, "no_plan", held.refused).findings} == set(held.controls)


def test_one_that_is_refused_by_the_kubelet_leaves_the_modes(lax: FixableNode) -> None:
    plan = planned(lax, "3.1.1", "3.2.6")
    found = repaired(lax, plan, before=lambda: lax.write("/etc/default/other", "REFUSE"))
    assert {each.outcome for each in found.values()} == {Outcome.FAILED}, "it refuses the old files as well"
    assert lax.mode(KUBECONFIG)[0] == 0o666
