"""Audits and fixes of clusters with every kind of node: scale sets, pools of single VMs, node auto-provisioning."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import sandbox
from shared.errors import UsageError
from shared.models import Finding, Outcome, RunKind, RunState, Status
from shared.report import exit_code
from shared.runs.hosts import terminal as runs
from shared.runs.model import batch as batches
from shared.runs.model.request import FixRequest, RunRequest
from shared.runs.steps import node_changes
from tests.runs.by_hand import found as found_by_hand
from tests.runs.by_hand import recorded
from tests.support.bench import Bench, BenchFactory

SUBSCRIPTION = "5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1"
FLEET = f"""
timing: {{latency: [0.2, 0.2], busy_seconds: 1}}
page_size: 2
subscriptions:
  - id: {SUBSCRIPTION}
    name: Test
    clusters:
      - name: aks-mixed
        resource_group: rg
        location: westeurope
        version: 1.33.5
        pools:
          - {{name: sets, nodes: [{{state: compliant_default}}, {{state: false_file}}]}}
          - {{name: vms, kind: VirtualMachines, nodes: [{{state: compliant_flag}}, {{state: false_flag, count: 3}}]}}
        auto_pools:
          - {{name: team.a, nodes: [{{state: false_file, count: 2}}, {{state: compliant_file}}]}}
        other_vms: [bastion]
      - name: aks-sets
        resource_group: rg
        location: westeurope
        version: 1.33.5
        pools: [{{name: sets, nodes: [{{state: compliant_default}}]}}]
"""
PASS, FAIL, ERROR, SKIPPED = Status.PASS, Status.FAIL, Status.ERROR, Status.SKIPPED
FAST = {"allow_fix": True, "restart_seconds": 20, "command_deadline_seconds": 120.0}


def one_pool_of_vms(*states: str, kind: str = "VirtualMachines") -> str:
    nodes = ", ".join(f"{{state: {state}}}" for state in states)
    return f"""
timing: {{latency: [0.2, 0.2], busy_seconds: 1}}
subscriptions:
  - id: {SUBSCRIPTION}
    name: Test
    clusters:
      - name: aks-vms
        resource_group: rg
        location: westeurope
        version: 1.33.5
        pools: [{{name: vms, kind: {kind}, nodes: [{nodes}]}}]
"""


async def audit(b: Bench, request: RunRequest | None = None) -> list[Finding]:
    run = await runs.survey_here(b.services, RunKind.AUDIT, request or RunRequest(controls=("3.2.6",)))
    assert run.state is RunState.COMPLETED
    return await b.findings(run.id)


def by_pool(found: list[Finding]) -> Counter[tuple[str, str, Status]]:
    return Counter((item.cluster, item.node_pool, item.status) for item in found)


async def test_every_kind_of_node_is_judged_and_known_by_its_resource_id(bench: BenchFactory) -> None:
    async with bench(FLEET) as b:
        found = await audit(b)
        assert by_pool(found) == {
            ("aks-mixed", "sets", PASS): 1,
            ("aks-mixed", "sets", FAIL): 1,
            ("aks-mixed", "vms", PASS): 1,
            ("aks-mixed", "vms", FAIL): 3,
            ("aks-mixed", "team.a", PASS): 1,
            ("aks-mixed", "team.a", FAIL): 2,
            ("aks-sets", "sets", PASS): 1,
        }
        assert {item.resource_id.lower() for item in found} == set(b.box.compute.instances)
        assert all(item.place == item.resource_id.lower() for item in found)
        single = [item for item in found if not item.scale_set]
        assert all(item.instance_id == item.node == item.resource_id.rsplit("/", 1)[1] for item in single)
        stats = b.box.stats()
        assert "bastion" not in stats["commands"]
        assert (stats["calls"]["vms.runCommand"], stats["calls"]["runCommand"]) == (7, 3)
        # One cluster has VMs: its list has 4 pages, that of the subscription's power states as many.
        assert (stats["calls"]["vms.list"], stats["calls"]["vms.listAll"]) == (4, 4)
        run = await b.services.store.latest_run(RunKind.AUDIT)
        assert run is not None
        assert run.summary is not None
        assert run.summary.nodes == 10
        changes = await node_changes.changes_of(b.services.store, run, found)
        assert all([entry.status for entry in changes[item.key]] == [item.status] for item in found)


async def test_they_are_planned_and_fixed_by_the_same_code(bench: BenchFactory) -> None:
    async with bench(FLEET, **FAST) as b:
        survey = await runs.survey_here(b.services, RunKind.PLAN, FixRequest())
        plans = await runs.plans_of(b.services, survey)
        assert Counter(plan.node.node_pool for plan in plans) == {"sets": 1, "vms": 3, "team.a": 2}
        run = await runs.fix_here(b.services, FixRequest(pause_seconds=0), plans)
        found = await b.findings(run.id)
        assert Counter((item.node_pool, item.status, item.outcome) for item in found) == {
            ("sets", PASS, Outcome.FIXED): 1,
            ("vms", PASS, Outcome.FIXED): 3,
            ("team.a", PASS, Outcome.FIXED): 2,
        }
        again = await audit(b)
        assert {item.status for item in again} == {PASS}
        assert exit_code(again) == 0
        assert "bastion" not in b.box.stats()["commands"]


async def test_their_starts_count_apart(bench: BenchFactory) -> None:
    async with bench(FLEET) as b:
        run = await recorded(b.services, RunKind.AUDIT)
        names = await found_by_hand(b.services, run)
        works = [await b.services.store.work(run.id, name) for name in names]
        made = [batches.from_text(work.text, work.name) for work in works if work is not None]
        assert {batch.region: batch.found for batch in made} == {"westeurope": 3, "westeurope/single": 7}
        assert all(node.node.single == batch.region.endswith("/single") for batch in made for node in batch.nodes)


async def test_a_pool_that_was_deleted_meanwhile_is_left(bench: BenchFactory) -> None:
    fleet = one_pool_of_vms("false_flag")
    async with bench(fleet, **FAST) as b:
        survey = await runs.survey_here(b.services, RunKind.PLAN, FixRequest())
        plans = await runs.plans_of(b.services, survey)
        assert len(plans) == 1
    async with bench(fleet.replace("name: vms,", "name: others,"), **FAST) as b:
        run = await runs.fix_here(b.services, FixRequest(pause_seconds=0), plans)
        (found,) = await b.findings(run.id)
        assert (found.status, found.outcome) == (FAIL, Outcome.NOT_TRIED)
        assert "the node pool is not in the state Succeeded but gone" in found.reason
        assert not b.box.stats()["commands"]


async def test_a_pool_of_node_auto_provisioning_is_chosen_by_its_name(bench: BenchFactory) -> None:
    async with bench(FLEET, **FAST) as b:
        found = await audit(b, RunRequest(node_pools=("Team.A",), controls=("3.2.6",)))
        assert by_pool(found) == {("aks-mixed", "team.a", FAIL): 2, ("aks-mixed", "team.a", PASS): 1}
        with pytest.raises(UsageError, match=r"no node pool named team\.b"):
            await audit(b, RunRequest(node_pools=("team.b",)))
        survey = await runs.survey_here(b.services, RunKind.PLAN, FixRequest(node_pools=("team.a",)))
        plans = await runs.plans_of(b.services, survey)
        # From a file whose run this store does not have, the nodes are looked at again: by their names, too.
        run = await runs.fix_here(b.services, FixRequest(pause_seconds=0, node_pools=("team.a",)), plans)
        assert {item.outcome for item in await b.findings(run.id)} == {Outcome.FIXED}


STATES = {
    "compliant_default": (PASS, "right"),
    "stopped": (SKIPPED, "stopped"),
    "deallocated": (SKIPPED, "deallocated"),
    "vanished": (SKIPPED, "vanished"),
    "vanished_inactive": (SKIPPED, "vanished"),
    "busy": (PASS, "right"),
    "dead_agent": (ERROR, "VMAgentStatusCommunicationError"),
    "forbidden": (ERROR, "AuthorizationFailed"),
    "did_not_finish": (ERROR, "did_not_finish"),
}


async def test_what_can_be_met_on_a_vm(bench: BenchFactory) -> None:
    async with bench(one_pool_of_vms(*STATES)) as b:
        found = sorted(await audit(b), key=lambda item: item.node)
        assert [(item.status, item.code) for item in found] == list(STATES.values())
        commands = b.box.stats()["commands"]
        stopped = [item.node for item in found if item.code in {"stopped", "deallocated"}]
        assert not set(stopped) & commands.keys(), "the list of the subscription told that they do not run"


async def test_without_the_power_states_run_command_tells(bench: BenchFactory) -> None:
    async with bench(one_pool_of_vms("compliant_default", "stopped")) as b:
        b.box.inject(sandbox.Fault("vms.listAll", count=100, status=403, code="AuthorizationFailed"))
        found = sorted(await audit(b), key=lambda item: item.node)
        assert [(item.status, item.code) for item in found] == [(PASS, "right"), (SKIPPED, "OperationNotAllowed")]


async def test_a_lockdown_is_said_of_each(bench: BenchFactory) -> None:
    fleet = one_pool_of_vms("compliant_default").replace("version:", "lockdown: true\n        version:")
    async with bench(fleet) as b:
        (found,) = await audit(b)
        assert (found.status, found.code) == (ERROR, "locked")


async def test_a_pool_whose_nodes_run_and_are_not_looked_at_is_an_error(bench: BenchFactory) -> None:
    async with bench(one_pool_of_vms("compliant_default", kind="AvailabilitySet")) as b:
        found = await audit(b)
        assert [(item.status, item.code, item.node) for item in found] == [(ERROR, "availability_set_pool", "")]
        assert exit_code(found) == 2


@pytest.mark.parametrize(
    ("fault", "outcome", "status"),
    [
        (sandbox.Fault("vms.get", status=404, code="ResourceNotFound"), Outcome.NOT_TRIED, FAIL),
        (sandbox.Fault("vms.runCommand", status=404, code="ResourceNotFound"), Outcome.NOT_TRIED, SKIPPED),
    ],
)
async def test_a_vm_that_goes_during_a_fix(
    bench: BenchFactory, fault: sandbox.Fault, outcome: Outcome, status: Status, tmp_path: Path
) -> None:
    async with bench(one_pool_of_vms(*["false_flag"] * 12), **FAST) as b:
        survey = await runs.survey_here(b.services, RunKind.PLAN, FixRequest())
        plans = await runs.plans_of(b.services, survey)
        b.box.inject(fault)
        run = await runs.fix_here(b.services, FixRequest(pause_seconds=0, max_unavailable="1"), plans)
        found = await b.findings(run.id)
        assert len(found) == 12
        met = [item for item in found if item.outcome is not Outcome.FIXED]
        assert met
        assert {(item.outcome, item.status) for item in met} >= {(outcome, status)}
