"""The whole audit against the sandbox: real SDK clients, real scripts, a finding for every node."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import sandbox
from sandbox.states import STATES
from shared.azure import Azure
from shared.controls import builtin, install, read
from shared.errors import GuardError, UsageError
from shared.models import Finding, RunKind, RunState, Status
from shared.runs.hosts import terminal as runs
from shared.runs.model.request import RunRequest
from tests.support.bench import Bench, BenchFactory, environment, one_pool
from tests.support.findings import AUDIT, CHAINS

PASS, FAIL, ERROR, SKIPPED = Status.PASS, Status.FAIL, Status.ERROR, Status.SKIPPED
FLAG = "flag --make-iptables-util-chains="
CONFIG = "/etc/default/kubeletconfig.json:"

# What the audit must find of 3.2.6 for every node of the demo fleet: status, code, actual value, where it comes from.
EXPECTED: dict[tuple[str, str], list[tuple[Status, str, bool | None, str]]] = {
    ("aks-retail-prod-weu", "system"): [
        (PASS, "right", True, "default"),
        (PASS, "right", True, FLAG),
        (PASS, "right", True, CONFIG),
    ],
    ("aks-retail-prod-weu", "apps"): [
        (PASS, "right", True, "default"),
        (PASS, "right", True, "default"),
        (FAIL, "wrong", False, CONFIG),
        (FAIL, "wrong", False, FLAG),
        (FAIL, "wrong", False, "/etc/kubernetes/kubelet.conf.d/50-team.conf:"),
        (PASS, "right", True, FLAG),
        (FAIL, "wrong_after_restart", True, FLAG),
    ],
    ("aks-retail-prod-weu", "win22"): [(Status.NOT_APPLICABLE, "not_for_this_node", None, "")] * 2,
    ("aks-batch-prod-neu", "system"): [
        (PASS, "right", True, "default"),
        (ERROR, "VMAgentStatusCommunicationError", None, ""),
    ],
    ("aks-batch-prod-neu", "spot"): [
        (FAIL, "wrong", False, FLAG),
        (SKIPPED, "vanished", None, ""),
        (SKIPPED, "deallocated", None, ""),
    ],
    ("aks-batch-prod-neu", "vms"): [(PASS, "right", True, "default"), (FAIL, "wrong", False, FLAG)],
    ("aks-batch-prod-neu", "burst"): [
        (SKIPPED, "deallocated", None, ""),
        (FAIL, "wrong", False, CONFIG),
        (PASS, "right", True, CONFIG),
    ],
    ("aks-payments-frc", "system"): [(ERROR, "locked", None, "")] * 2,
    ("aks-test-eus2", ""): [(SKIPPED, "cluster_stopped", None, "")],
}


async def test_the_demo_fleet(bench: BenchFactory) -> None:
    async with bench() as b:
        run = await runs.survey_here(b.services, RunKind.AUDIT, RunRequest())
        findings = await b.findings(run.id)
        stats, instances = b.box.stats(), [*b.box.compute.instances.values()]
    by_pool: dict[tuple[str, str], list[Finding]] = {}
    for finding in sorted(findings, key=lambda item: (item.node, item.key)):
        if finding.control == CHAINS:
            by_pool.setdefault((finding.cluster, finding.node_pool), []).append(finding)
    assert set(by_pool) == set(EXPECTED)
    for pool, expected in EXPECTED.items():
        got = [(item.status, item.code, item.actual, item.source) for item in by_pool[pool]]
        assert len(got) == len(expected), pool
        for (status, code, actual, source), (want, want_code, want_actual, want_source) in zip(
            got, expected, strict=True
        ):
            assert (status, code, actual) == (want, want_code, want_actual), (pool, got)
            assert source.startswith(want_source), (pool, source)
    # Of the others what fails, by the state of the node; a node that nobody can look at says why for each.
    states = {instance.member.name: instance.member.state for instance in instances}
    failing = {(item.node, item.control) for item in findings if item.status is FAIL and item.control != CHAINS}
    assert failing == {
        (name, control)
        for name, state in states.items()
        for control, said in STATES[state].others.items()
        if said == "fail"
    }
    assert len(failing) == 8
    others = {(item.node, item.status, item.code) for item in findings if item.node not in states}
    assert {code for _, _, code in others} == {"cluster_stopped"}
    # Every node and place that was found has exactly one finding for each control, and the summary adds up.
    assert run.summary is not None
    assert run.state is RunState.COMPLETED
    nodes = [item for item in findings if item.node]
    assert len({item.node for item in nodes}) == run.summary.nodes == 24
    assert len(nodes) == len({item.key for item in nodes}) == 24 * 13
    assert run.summary.statuses == Counter(item.status for item in findings)
    assert {item.key for item in b.heard} == {item.key for item in findings}
    assert sum(b.found) == 24
    assert all(item.reason and item.benchmark == "CIS AKS Benchmark v1.8" for item in findings)
    assert all(item.hint for item in findings if item.status is not PASS)
    assert not any(stats["throttled"].values()), stats


async def test_few_calls_a_node(bench: BenchFactory) -> None:
    async with bench(one_pool(*["compliant_default"] * 12), command_seconds=4.0) as b:
        run = await runs.survey_here(b.services, RunKind.AUDIT, RunRequest())
        calls = b.box.stats()["calls"]
    assert run.summary is not None
    assert run.summary.statuses == {PASS: 12 * 13}
    assert calls["runCommand"] == 12, calls
    assert calls["operations.get"] <= 24, calls


async def test_every_other_state(bench: BenchFactory) -> None:
    expected = {
        "busy": (PASS, "right"),
        "busy_stuck": (ERROR, "Conflict"),
        "hang": (ERROR, "deadline"),
        "no_output": (ERROR, "no_output"),
        "did_not_finish": (ERROR, "did_not_finish"),
        "garbled": (ERROR, "garbled"),
        "hostile": (ERROR, "malformed"),
        "refuses_start": (ERROR, "kubelet_not_running"),
        "no_kubelet": (ERROR, "no_kubelet"),
        "yaml_config": (FAIL, "wrong"),
        "false_unit": (FAIL, "wrong"),
        "false_envfile_quoted": (FAIL, "wrong"),
        "false_flag_twice": (FAIL, "wrong"),
        "restart_pending_fixed": (FAIL, "restart_pending"),
        "changed_since_start": (ERROR, "unproved"),
        "daemon_reload_pending": (FAIL, "wrong_after_restart"),
        "stopped": (SKIPPED, "stopped"),
        "compliant_default": (PASS, "right"),  # bad nodes must not touch the others
    }
    async with bench(one_pool(*expected)) as b:
        run = await runs.survey_here(b.services, RunKind.AUDIT, AUDIT)
        found = sorted(await b.findings(run.id), key=lambda item: int(item.instance_id))
    assert dict(zip(expected, ((item.status, item.code) for item in found), strict=True)) == expected
    assert all(item.reason.isprintable() for item in found)


WINDOWS = """\
controls:
  - id: ORG-1
    title: About Windows
    severity: low
    setting: maxPods
    rule: {equals: 110}
    applies: {os: [windows]}
    rationale: Windows is the control's business.
    fix: Set it.
"""


async def test_windows_is_the_control_s_business(bench: BenchFactory) -> None:
    """No control of this version's is about Windows nodes; one that is meets a node that nobody can look at."""
    fleet = one_pool("compliant_default", "deallocated").replace("name: np1", "name: np1\n            os: Windows")
    async with bench(fleet) as b:
        audit = await runs.survey_here(b.services, RunKind.AUDIT, RunRequest())
        found = [(item.status, item.code) for item in await b.findings(audit.id)]
        assert found == [(Status.NOT_APPLICABLE, "not_for_this_node")] * 2 * 13
        install(read(WINDOWS, "ours.yaml", builtin()))
        try:
            audit = await runs.survey_here(b.services, RunKind.AUDIT, RunRequest())
            found = [(item.status, item.code) for item in await b.findings(audit.id) if item.control == "ORG-1"]
        finally:
            install(builtin())
        assert found == [(ERROR, "windows"), (SKIPPED, "deallocated")]
        assert not b.box.stats()["commands"], "and nothing is sent to it"


async def test_scope(bench: BenchFactory) -> None:
    async with bench() as b:
        request = RunRequest(clusters=("AKS-Retail-Prod-WEU",), node_pools=("system",))
        run = await runs.survey_here(b.services, RunKind.AUDIT, request)
        assert {(item.cluster, item.node_pool) for item in await b.findings(run.id)} == {
            ("aks-retail-prod-weu", "system")
        }
        only = RunRequest(subscriptions=("b27c9a40-6e15-4c7f-8d2e-91f0d3a84c66",))
        run = await runs.survey_here(b.services, RunKind.AUDIT, only)
        assert {item.cluster for item in await b.findings(run.id)} == {"aks-payments-frc", "aks-test-eus2"}


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (RunRequest(clusters=("aks-none",)), "no cluster named aks-none in the 2 subscriptions; there is: aks-batch"),
        (RunRequest(node_pools=("nonesuch",)), "no node pool named nonesuch"),
        (RunRequest(subscriptions=("00000000-0000-0000-0000-000000000001",)), "no subscription 00000000"),
    ],
)
async def test_unknown_names_are_told_before_anything_is_touched(
    bench: BenchFactory, request_: RunRequest, says: str
) -> None:
    async with bench() as b:
        with pytest.raises(UsageError, match=says):
            await runs.survey_here(b.services, RunKind.AUDIT, request_)
        assert says in await failed_at_the_door(b)
        assert "runCommand" not in b.box.stats()["calls"]


async def failed_at_the_door(b: Bench) -> str:
    """Why the latest run failed, which found nothing."""
    run = await b.services.store.latest_run()
    assert run is not None
    assert (run.state, await b.findings(run.id)) == (RunState.FAILED, [])
    assert run.summary is not None
    assert run.summary.nodes == 0
    return run.error


async def test_a_forbidden_subscription_is_a_finding(bench: BenchFactory) -> None:
    async with bench() as b:
        fault = sandbox.Fault(
            "*", count=99, path="5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1/providers", status=403, code="AuthorizationFailed"
        )
        b.box.inject(fault)
        run = await runs.survey_here(b.services, RunKind.AUDIT, AUDIT)
        findings = await b.findings(run.id)
    refused = [item for item in findings if item.subscription.startswith("5f1d")]
    assert [(item.status, item.cluster, item.node) for item in refused] == [(ERROR, "", "")]
    assert len(findings) > 2, "the other subscription goes on"


async def test_a_name_that_may_be_out_of_sight_is_not_called_unknown(bench: BenchFactory) -> None:
    """The named cluster is in the subscription that cannot be looked at: that is an error and no wrong usage."""
    async with bench() as b:
        hidden = "5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1"
        name = (await b.services.azure.clusters(hidden))[0].name
        b.box.inject(sandbox.Fault("*", count=99, path=f"{hidden}/providers", status=403, code="AuthorizationFailed"))
        run = await runs.survey_here(b.services, RunKind.AUDIT, RunRequest(controls=(CHAINS,), clusters=(name,)))
        findings = await b.findings(run.id)
    assert [(item.status, item.subscription) for item in findings] == [(ERROR, hidden)]


async def test_no_endpoint_and_no_credential(bench: BenchFactory, tmp_path: Path) -> None:
    async with bench(one_pool("compliant_default")) as b:
        elsewhere = b.services.settings.model_copy(update={"arm_endpoint": "https://localhost:9"})
        async with Azure(elsewhere) as azure:
            with pytest.raises(GuardError, match="localhost:9"):
                await runs.survey_here(replace(b.services, azure=azure), RunKind.AUDIT, AUDIT)
        assert "localhost:9" in await failed_at_the_door(b)
        with environment({**b.box.environ, "IDENTITY_HEADER": "wrong"}):
            async with Azure(b.services.settings) as azure:
                with pytest.raises(GuardError, match="az login"):
                    await runs.survey_here(replace(b.services, azure=azure), RunKind.AUDIT, AUDIT)
        assert "az login" in await failed_at_the_door(b)


async def test_no_secret_reaches_the_store(bench: BenchFactory, tmp_path: Path) -> None:
    """Neither what the node keeps to itself, nor a token, nor the signed address of a result whose command is over."""
    canary = "a-label-that-nobody-needs"
    async with bench(one_pool("compliant_default")) as b:
        (node,) = (instance.member.name for instance in b.box.compute.instances.values())
        path = b.box.node_dir(node) / "etc/default/kubelet"
        path.write_text(path.read_text().replace("KUBELET_NODE_LABELS=", f"KUBELET_NODE_LABELS=team={canary},", 1))
        assert canary in path.read_text()
        await runs.survey_here(b.services, RunKind.AUDIT, AUDIT)
        assert len(b.heard) == 1
    with sqlite3.connect(tmp_path / "runs.db") as database:
        dump = "\n".join(database.iterdump())
    assert node in dump
    assert canary not in dump
    assert "Bearer" not in dump
    assert "/operations/" not in dump
