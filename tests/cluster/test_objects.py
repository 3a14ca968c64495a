"""What an API server says, read here: the same as the script's jq reads in the cluster, for whatever comes."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from typing import Any

import pytest

from shared.cluster import NodeConfig, failing_pods, heard, read_node, resource_id
from shared.cluster.objects import WAY
from shared.cluster.troubles import node_problem
from tests.support.require import require

SETTINGS = ("makeIPTablesUtilChains", "authentication.anonymous.enabled", "featureGates", "eventRecordQPS")
MACHINE = (
    "azure:///subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/MC_rg/providers/Microsoft.Compute"
    "/virtualMachineScaleSets/set/virtualMachines/0"
)
WHOLE: dict[str, Any] = {
    "metadata": {"name": "aks-a"},
    "spec": {"providerID": MACHINE},
    "status": {
        "conditions": [
            {"type": "DiskPressure", "status": "False"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-20T08:15:00Z"},
        ],
        "nodeInfo": {"kubeletVersion": "v1.33.5", "bootID": "e30c-1", "operatingSystem": "linux"},
    },
}


def jq(program: str, text: str, *arguments: str) -> list[dict[str, Any]]:
    """What one of the script's programs makes of a text."""
    require(shutil.which("jq") is not None, "jq is not installed")
    source = files("shared.cluster").joinpath(program).read_text("utf-8")
    done = subprocess.run(["jq", *arguments, source], input=text, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def edited(*path: str, value: object) -> dict[str, Any]:
    """The whole node with another value at a path."""
    made = json.loads(json.dumps(WHOLE))
    place = made
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return dict(made)


@pytest.mark.parametrize(
    "item",
    [
        WHOLE,
        {"metadata": {"name": "aks-a"}},
        edited("spec", "providerID", value=None),
        edited("spec", "providerID", value="azure:///subscriptions/x"),
        edited("spec", "providerID", value=f"{MACHINE}\n"),
        edited("spec", "providerID", value=MACHINE + "0" * 400),
        edited("status", "nodeInfo", "kubeletVersion", value='v1 "$(id)"'),
        edited("status", "nodeInfo", "bootID", value="b" * 81),
        edited("status", "nodeInfo", "operatingSystem", value=7),
        edited("status", "conditions", value=[]),
        edited("status", "conditions", value=[7, {"type": "Ready", "status": "Unknown", "lastTransitionTime": "x"}]),
        edited(
            "status", "conditions", value=[{"type": "Ready", "status": "False"}, {"type": "Ready", "status": "True"}]
        ),
    ],
)
def test_a_node_as_the_script_reads_it(item: dict[str, Any]) -> None:
    arguments = ("-ac", "--arg", "way", "proxy", "--arg", "after", "", "--argjson", "names", "null")
    (line,) = jq("nodes.jq", json.dumps({"items": [item]}), *arguments)
    found = read_node(item)
    assert found is not None
    ready = {"True": True, "False": False}.get(line["ready"])
    assert (found.name, found.resource_id, found.ready) == (line["node"], resource_id(line["id"]), ready)
    assert (found.version, found.boot_id, found.os) == (line["version"], line["boot"], line["os"])
    assert (found.since is not None) == (line["since"] == "2026-01-20T08:15:00Z")


@pytest.mark.parametrize("name", [None, "", "a" * 300, "../x", "A", "a b", "a\n", 7, {}])
def test_no_node_without_a_name(name: object) -> None:
    assert read_node(edited("metadata", "name", value=name)) is None


@pytest.mark.parametrize(
    "item", [None, 7, [], {}, {"metadata": []}, {"metadata": {"name": "a"}, "status": 7, "spec": "x"}]
)
def test_what_is_no_node_breaks_nothing(item: object) -> None:
    assert read_node(item) in (None, NodeConfig("a"))


@pytest.mark.parametrize(
    "body",
    [
        {"kubeletconfig": {"makeIPTablesUtilChains": False, "authentication": {"anonymous": {"enabled": True}}}},
        {"kubeletconfig": {"featureGates": {"A": True}, "eventRecordQPS": 0, "staticPodURL": "CANARY"}},
        {"kubeletconfig": {"authentication": 7}},
        {"kubeletconfig": {"authentication": {"anonymous": [{"enabled": True}]}}},
        {"kubeletconfig": {"featureGates": {"A" * 4000: True}}},
        {"kubeletconfig": {"featureGates": {"\u00e9" * 600: True}}},
        {"kubeletconfig": {}},
        {"kubeletconfig": []},
        {"staticPodURL": "CANARY"},
        [],
        "CANARY",
        None,
    ],
)
def test_an_answer_as_the_script_reads_it(body: object) -> None:
    text = json.dumps(body)
    (line,) = jq("answer.jq", text, "-Rsac", "--arg", "name", "a", "--argjson", "settings", json.dumps(SETTINGS))
    found = heard(NodeConfig("a"), 200, text.encode(), SETTINGS)
    if word := line.get("trouble"):
        assert found.trouble == node_problem(word, WAY, "a", 6)
    else:
        told = {name: value for name, value in zip(SETTINGS, line["values"], strict=True) if value is not None}
        assert (found.values, found.trouble) == (told, None)
    assert "CANARY" not in str(found)


@pytest.mark.parametrize("value", ['"\\ud800"', '{"\\udfff": true}', "NaN", "-Infinity", "1" * 5000])
def test_what_python_reads_and_json_does_not_have(value: str) -> None:
    body = f'{{"kubeletconfig":{{"featureGates":{value}}}}}'.encode()
    assert heard(NodeConfig("a"), 200, body, SETTINGS).trouble == node_problem("malformed", WAY, "a", 6)


def test_pods_that_should_be_up_and_are_not_ready() -> None:
    def pod(namespace: str, phase: str, ready: str | None) -> dict[str, Any]:
        conditions = [] if ready is None else [{"type": "Ready", "status": ready}]
        return {"metadata": {"namespace": namespace}, "status": {"phase": phase, "conditions": conditions}}

    pods = [
        pod("default", "Running", "True"),
        pod("default", "Running", "False"),
        pod("default", "Pending", None),
        pod("default", "Succeeded", "False"),
        pod("aks-command", "Running", "False"),
    ]
    assert failing_pods({"items": pods}) == 2
    assert failing_pods({"items": []}) == 0
    assert failing_pods({"kind": "Status"}) is None
    assert failing_pods(None) is None
