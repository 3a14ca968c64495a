"""Two witnesses: what clusters tell of their nodes, alone and beside the nodes, against the sandbox."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

import sandbox
from shared.azure import apiserver
from shared.errors import UsageError
from shared.models import Finding, Outcome, Run, RunKind, Status
from shared.runs.hosts import terminal as runs
from shared.runs.model.request import FixRequest, RunRequest
from tests.support.bench import Bench, BenchFactory
from tests.support.require import require

FLEET = """
timing: {latency: [0, 0]}
subscriptions:
- id: 11111111-2222-4333-8444-555555555555
  name: One
  clusters:
  - name: aks-one
    resource_group: rg-one
    location: westeurope
    version: 1.33.5
    %s
    pools:
    - name: pool1
      nodes: [%s]
"""
IPTABLES = "3.2.6"


@pytest.fixture(autouse=True)
def _jq() -> None:
    """AKS's command invoke has it."""
    require(shutil.which("jq") is not None, "jq is not installed")


def fleet(*states: str, cluster: str = "") -> str:
    return FLEET % (cluster, ", ".join(f"{{state: {state}}}" for state in states))


async def audit(b: Bench, witness: str, controls: Sequence[str] = (IPTABLES,)) -> list[Finding]:
    request = RunRequest.model_validate({"witness": witness, "controls": controls})
    run = await runs.survey_here(b.services, RunKind.AUDIT, request)
    return sorted(await b.findings(run.id), key=lambda finding: (finding.node, finding.control))


def commands(b: Bench) -> int:
    """How many run commands the nodes were sent so far."""
    return sum(b.box.stats()["commands"].values())


async def test_configz_alone_judges_without_a_run_command(bench: BenchFactory) -> None:
    async with bench(fleet("compliant_default", "false_file")) as b:
        right, wrong = await audit(b, "configz")
        assert commands(b) == 0
    assert (right.status, right.witness, right.actual) == (Status.PASS, "configz", True)
    assert (wrong.status, wrong.witness, wrong.actual) == (Status.FAIL, "configz", False)
    assert "what is on disk" in wrong.reason


async def test_configz_leaves_out_what_only_the_node_shows(bench: BenchFactory) -> None:
    async with bench(fleet("compliant_default")) as b:
        findings = await audit(b, "configz", ())
        assert {finding.control for finding in findings} == {f"3.2.{number}" for number in range(1, 10)}
        with pytest.raises(UsageError, match=r"3\.1\.1: only the node shows its files"):
            await audit(b, "configz", ("3.1.1", IPTABLES))
        with pytest.raises(UsageError, match="does not see"):
            await runs.survey_here(b.services, RunKind.PLAN, FixRequest(witness="configz"))


async def test_both_agree_and_prove_what_files_alone_cannot(bench: BenchFactory) -> None:
    async with bench(fleet("compliant_file", "changed_since_start", "restart_pending_broken")) as b:
        alone = await audit(b, "node")
        plain, changed, pending = await audit(b, "both")
        assert commands(b) == 6
    assert [finding.status for finding in alone] == [Status.PASS, Status.ERROR, Status.FAIL]
    assert plain.source.endswith("configz agrees")
    assert plain.witness == "node+configz"
    assert (changed.status, changed.code, changed.actual) == (Status.FAIL, "wrong_after_restart", True)
    assert (pending.status, pending.code) == (Status.FAIL, "wrong_after_restart")


async def test_smart_looks_at_what_is_new_fails_or_is_due(bench: BenchFactory) -> None:
    async with bench(fleet("compliant_default", "false_file", "compliant_file")) as b:
        first = await audit(b, "smart")
        assert commands(b) == 3
        second = await audit(b, "smart")
        assert commands(b) == 4
        assert [finding.status for finding in first] == [finding.status for finding in second]
        assert [finding.witness for finding in second] == ["configz", "node+configz", "configz"]
        b.services = replace(b.services, settings=b.services.settings.model_copy(update={"full_every_days": 0.0}))
        await audit(b, "smart")
        assert commands(b) == 7


async def test_smart_repeats_what_only_the_node_shows(bench: BenchFactory) -> None:
    async with bench(fleet("compliant_default")) as b:
        await audit(b, "smart", ("3.1.3", IPTABLES))
        again, _ = await audit(b, "smart", ("3.1.3", IPTABLES))
    assert again.status is Status.PASS
    assert "was right when the node was looked at, on" in again.reason


async def test_a_locked_cluster_is_judged_by_its_word(bench: BenchFactory) -> None:
    async with bench(fleet("compliant_default", "false_flag", cluster="lockdown: true")) as b:
        for witness in ("both", "smart"):
            right, wrong = await audit(b, witness)
            assert (right.status, wrong.status) == (Status.PASS, Status.FAIL)
            assert "what a restart would give, was not looked at: a deny assignment" in right.reason
        assert commands(b) == 0


async def test_configz_alone_does_not_mind_what_keeps_commands_from_nodes(bench: BenchFactory) -> None:
    async with bench(fleet("compliant_default", cluster="lockdown: true")) as b:
        (right,) = await audit(b, "configz")
    assert right.status is Status.PASS
    assert right.reason.endswith("was not looked at")
    refused = "lockdown: true\n    command_invoke: forbidden"
    async with bench(fleet("compliant_default", cluster=refused)) as b:
        (unheard,) = await audit(b, "configz")
    assert (unheard.status, unheard.code) == (Status.ERROR, "AuthorizationFailed")


@pytest.mark.parametrize(("outcome", "code"), [("disabled", "invoke_disabled"), ("forbidden", "AuthorizationFailed")])
async def test_a_cluster_that_cannot_be_asked(bench: BenchFactory, outcome: str, code: str) -> None:
    async with bench(fleet("compliant_default", cluster=f"command_invoke: {outcome}")) as b:
        (alone,) = await audit(b, "configz")
        (both,) = await audit(b, "both")
    assert (alone.status, alone.code) == (Status.ERROR, code)
    assert both.status is Status.PASS
    assert both.witness == "node"


async def test_a_plan_is_made_beside_the_second_witness(bench: BenchFactory) -> None:
    async with bench(fleet("compliant_default", "false_file")) as b:
        run = await runs.survey_here(b.services, RunKind.PLAN, FixRequest(witness="smart"))
        (plan,) = await runs.plans_of(b.services, run)
    assert plan.controls == (IPTABLES,)
    assert not plan.refused


async def fixed(b: Bench, witness: str = "both") -> tuple[list[Finding], Run]:
    request = FixRequest.model_validate({"witness": witness, "canary": True, "pause_seconds": 0})
    planned = await runs.survey_here(b.services, RunKind.PLAN, request)
    run = await runs.fix_here(b.services, request, await runs.plans_of(b.services, planned))
    return sorted(await b.findings(run.id), key=lambda finding: finding.node), run


async def test_a_fix_asks_the_cluster_before_each_wave(bench: BenchFactory) -> None:
    async with bench(fleet("false_file", "false_flag"), allow_fix=True) as b:
        before = sum(b.box.stats()["invoked"].values())
        findings, _ = await fixed(b)
        # Once for the plan, before the first wave, and before the second.
        assert sum(b.box.stats()["invoked"].values()) - before == 3
    assert [finding.outcome for finding in findings] == [Outcome.FIXED, Outcome.FIXED]


async def test_a_pool_is_left_where_its_nodes_are_not_ready_after_a_wave(bench: BenchFactory) -> None:
    pods = "command_invoke: worse_later"
    async with bench(fleet("false_file", "false_flag", cluster=pods), allow_fix=True) as b:
        findings, _ = await fixed(b)
    left, changed = sorted(findings, key=lambda finding: finding.outcome or "", reverse=True)
    assert (left.outcome, changed.outcome) == (Outcome.NOT_TRIED, Outcome.FIXED)
    assert f"2 pods of {changed.node} are not well, and before its fix 0 were" in left.reason


SERVER = "api_server: ok"


@asynccontextmanager
async def from_outside(
    bench: BenchFactory, *states: str, cluster: str = SERVER, **more: object
) -> AsyncIterator[Bench]:
    """A bench whose app asks the API servers by itself."""
    async with bench(fleet(*states, cluster=cluster), sweep_way="api", **more) as b:
        yield b
        assert not b.box.stats()["invoked"], "no command was invoked in a cluster"


async def test_the_app_itself_asks_the_api_server(bench: BenchFactory) -> None:
    async with from_outside(bench, "compliant_default", "false_file") as b:
        right, wrong = await audit(b, "configz")
        assert commands(b) == 0
        assert b.box.stats()["calls"]["credentials"] == 1
        assert (right.status, wrong.status) == (Status.PASS, Status.FAIL)
        assert (right.witness, right.actual, wrong.actual) == ("configz", True, False)


async def test_what_the_api_server_tells_stands_beside_what_the_node_shows(bench: BenchFactory) -> None:
    async with from_outside(bench, "compliant_file", "changed_since_start") as b:
        await audit(b, "node")
        plain, changed = await audit(b, "both")
    assert (plain.status, plain.witness) == (Status.PASS, "node+configz")
    assert (changed.status, changed.code, changed.actual) == (Status.FAIL, "wrong_after_restart", True)


async def test_a_cluster_of_many_nodes_is_asked_part_by_part(
    bench: BenchFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apiserver, "NODES_A_STEP", 2)
    async with from_outside(bench, *["compliant_default"] * 5) as b:
        findings = await audit(b, "configz")
        assert [finding.status for finding in findings] == [Status.PASS] * 5
        assert b.box.stats()["calls"]["credentials"] == 3


@pytest.mark.parametrize(
    ("cluster", "code"),
    [
        ("api_server: no_list", "sweep_list_forbidden"),
        ("api_server: no_proxy", "configz_forbidden"),
        ("api_server: foreign", "sweep_foreign_server"),
        ("api_server: forbidden", "AuthorizationFailed"),
        ("entra: false", "sweep_not_entra"),
    ],
)
async def test_an_api_server_that_cannot_be_asked(bench: BenchFactory, cluster: str, code: str) -> None:
    async with from_outside(bench, "compliant_default", cluster=cluster) as b:
        (alone,) = await audit(b, "configz")
        (both,) = await audit(b, "both")
    assert (alone.status, alone.code) == (Status.ERROR, code)
    assert (both.status, both.witness) == (Status.PASS, "node")


async def test_azure_that_is_away_when_the_address_is_wanted(bench: BenchFactory) -> None:
    async with from_outside(bench, "compliant_default") as b:
        b.box.inject(sandbox.Fault(kind="credentials", status=503, code="ServiceUnavailable"))
        (finding,) = await audit(b, "configz")
    assert finding.status is Status.PASS


async def test_a_fix_asks_the_api_server_before_each_wave(bench: BenchFactory) -> None:
    async with from_outside(bench, "false_file", "false_flag", allow_fix=True) as b:
        findings, _ = await fixed(b)
        # For the plan, before the first wave, and before the second.
        assert b.box.stats()["calls"]["credentials"] == 3
    assert [finding.outcome for finding in findings] == [Outcome.FIXED, Outcome.FIXED]
