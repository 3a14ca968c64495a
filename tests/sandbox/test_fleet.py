import re
from pathlib import Path

import pytest

from sandbox.fleet import FleetError, load, members, parse
from sandbox.states import STATES
from tests.support.fleets import SUBSCRIPTION, fleet

DEMO = Path(__file__).parents[2] / "fleets" / "demo.yaml"


def test_the_demo_has_what_it_promises() -> None:
    demo = load(DEMO)
    clusters = [cluster for subscription in demo.subscriptions for cluster in subscription.clusters]
    pools = [pool for cluster in clusters for pool in cluster.pools]
    assert (len(demo.subscriptions), len(clusters)) == (2, 4)
    assert [cluster.name for cluster in clusters if cluster.lockdown] == ["aks-payments-frc"]
    assert [cluster.name for cluster in clusters if cluster.power == "Stopped"] == ["aks-test-eus2"]
    assert {pool.kind for pool in pools} == {"VirtualMachineScaleSets", "VirtualMachines"}
    assert sum(pool.os == "Windows" for pool in pools) == 1
    assert len([*members(demo)]) == 26
    assert [auto.name for cluster in clusters for auto in cluster.auto_pools or ()] == ["burst"]
    assert [cluster.other_vms for cluster in clusters if cluster.other_vms] == [("bastion",)]
    wanted = {"false_file", "false_flag", "false_dropin", "false_both", "restart_pending_broken", "dead_agent"}
    assert wanted | {"deallocated", "vanished"} <= {member.state for member in members(demo)}


def test_node_names_are_those_of_aks() -> None:
    names = [member.name for member in members(fleet(*["compliant_default"] * 37))]
    assert names[0].startswith("aks-pool1-")
    assert [name[-10:] for name in (names[0], names[10], names[36])] == ["vmss000000", "vmss00000a", "vmss000010"]


def test_single_vms_are_named_by_their_pool() -> None:
    auto = "auto_pools: [{name: team.a, nodes: [{state: compliant_default, count: 2}]}], "
    found = [*members(fleet("compliant_default", "false_flag", pool="kind: VirtualMachines, ", cluster=auto))]
    assert [member.scale_set for member in found] == [""] * 4
    assert [re.sub("[0-9]{8}", "N", member.name) for member in found[:2]] == ["aks-pool1-N-vms1", "aks-pool1-N-vms2"]
    assert all(re.fullmatch(r"aks-team\.a-[a-z0-9]{5}", member.name) for member in found[2:])
    assert found[2].name != found[3].name
    assert all(member.instance_id == member.name for member in found)


def test_every_state_can_be_in_a_fleet() -> None:
    assert [member.state for member in members(fleet(*STATES))] == list(STATES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a", "a mapping with `subscriptions` belongs here, not list"),
        ("a: [", "not YAML"),
        ("{}", "subscriptions: Field required"),
        ("subscriptions: [{id: one, name: One}]", "subscriptions[0].id: 'one' is not a subscription id (a GUID)"),
        (f"subscriptions: [{{id: {SUBSCRIPTION}, name: A, colour: red}}]", "subscriptions[0].colour: Unexpected"),
        ("subscriptions: []\ntiming: {latency: [-1, 2]}", "timing.latency[0]: Input should be greater"),
        (
            f"subscriptions: [{{id: {SUBSCRIPTION}, name: A}}, {{id: {SUBSCRIPTION.upper()}, name: B}}]",
            f"subscription {SUBSCRIPTION} is there twice",
        ),
    ],
)
def test_a_wrong_fleet_is_refused_by_name_and_place(text: str, expected: str) -> None:
    with pytest.raises(FleetError) as caught:
        parse(text, "x.yaml")
    assert str(caught.value).startswith("x.yaml: ")
    assert expected in str(caught.value)


def test_a_misspelt_state_gets_a_suggestion_and_every_mistake_is_named() -> None:
    with pytest.raises(FleetError) as caught:
        fleet("false_fiel", "nonsense")
    text = str(caught.value)
    assert "nodes[0].state: 'false_fiel' is not a node state; did you mean 'false_file'?" in text
    assert "nodes[1].state: 'nonsense' is not a node state; `python -m sandbox states` lists them" in text


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="No such file"):
        load(tmp_path / "none.yaml")
