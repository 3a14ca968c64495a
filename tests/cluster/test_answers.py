"""What a sweep printed, read back: whole and honest, or not taken; and no node is lost."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from shared.cluster import Sweep, parse_sweep, resource_id
from shared.models import Status

NONCE = "0123456789abcdef"
SETTINGS = ["makeIPTablesUtilChains", "featureGates"]
SUBSCRIPTION = "/subscriptions/11111111-2222-4333-8444-555555555555"
SCALE_SET = f"{SUBSCRIPTION}/resourceGroups/mc_rg/providers/Microsoft.Compute/virtualMachineScaleSets/aks-p-1-vmss"


def node(name: str, number: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "node": name,
        "id": f"azure://{SCALE_SET}/virtualMachines/{number}",
        "version": "v1.36.3",
        "boot": "b357e7a2-75f0-4aed-b3ba-a8c0cc9dcd3b",
        "os": "linux",
        "address": "10.224.0.4",
        "ready": "True",
        "since": "2026-11-28T01:53:17Z",
        "ca": "cluster",
        **more,
    }


def report(*lines: dict[str, Any] | str, sweep: str = "", listed: int = 2, left: int = 0, nonce: str = NONCE) -> str:
    """What the script prints around these lines."""
    head = {"sweep": sweep, "listed": listed, "left": left}
    text = "".join(
        f"{line if isinstance(line, str) else json.dumps(line, separators=(',', ':'))}\n" for line in (head, *lines)
    )
    return f"{text}KC1 {len(lines) + 1} {len(text.encode())} {nonce} {hashlib.sha256(text.encode()).hexdigest()}\n"


def read(text: str, **more: Any) -> Sweep:
    return parse_sweep(text, NONCE, SETTINGS, "direct", **more)


def codes(sweep: Sweep) -> dict[str, str]:
    """Every node's trouble, empty for none."""
    return {name: item.trouble.code if item.trouble else "" for name, item in sweep.nodes.items()}


def test_a_report() -> None:
    text = report(
        node("a"),
        node("b", 1, ready="Unknown"),
        {"answer": "b", "values": [False, {"X": True}]},
        {"answer": "a", "values": [None, None]},
    )
    found = read(f"noise of a shell\n{text}")
    assert (found.problem, found.listed, found.left, found.last) == (None, 2, 0, "b")
    a, b = found.nodes["a"], found.nodes["b"]
    assert (a.values, b.values) == ({}, {"makeIPTablesUtilChains": False, "featureGates": {"X": True}})
    assert a.resource_id == f"{SCALE_SET}/virtualMachines/0".lower()
    assert (a.version, a.boot_id, a.os) == ("v1.36.3", "b357e7a2-75f0-4aed-b3ba-a8c0cc9dcd3b", "linux")
    assert (a.ready, b.ready, a.since) == (True, None, datetime(2026, 11, 28, 1, 53, 17, tzinfo=UTC))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-30],
        lambda text: text[10:],
        lambda text: text.replace("true", "null"),
        lambda text: text.replace(NONCE, "f" * 16),
        lambda text: text.replace("KC1 ", "KC2 "),
        lambda text: text + "and something else\n",
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "",
        lambda text: "KC1 1 0 0123456789abcdef " + "0" * 64,
        lambda text: text * 10_000,
    ],
)
def test_what_was_cut_or_changed_is_not_taken(spoil: Any) -> None:
    whole = report(node("a"), {"answer": "a", "values": [True, None]})
    assert codes(read(whole)) == {"a": ""}
    found = read(spoil(whole), nodes=["a"])
    assert found.problem is not None
    assert found.problem.code == "sweep_garbled"
    assert codes(found) == {"a": "sweep_garbled"}, "a node that was named is not lost"


def test_a_pod_without_tools_says_so() -> None:
    found = read(f"KC1 missing {NONCE} jq awk\n")
    assert found.problem is not None
    assert found.problem.reason == "the pod of the command lacks jq, awk."
    assert read("KC1 missing ffffffffffffffff jq\n").problem is not None


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (None, "configz_lost"),
        ({"answer": "a", "trouble": "timeout"}, "configz_timeout"),
        ({"answer": "a", "trouble": "never heard of"}, "configz_malformed"),
        ({"answer": "a", "values": [True]}, "configz_malformed"),
        ({"answer": "a", "values": {"a": 1}}, "configz_malformed"),
        ({"answer": "a", "trouble": ""}, "configz_malformed"),
        ({"answer": "a", "values": [[[[[[[[[True]]]]]]]], 1]}, "configz_malformed"),
        ('{"answer":"a","values":[' + "[" * 3000, "configz_malformed"),
        ('{"answer":"a","values":[' + "[" * 1500 + "]" * 1500 + ",1]}", "configz_malformed"),
        ('{"answer":"a","values":[' + "9" * 5000 + ",1]}", "configz_malformed"),
    ],
)
def test_one_answer_harms_no_other(answer: dict[str, Any] | str | None, code: str) -> None:
    """A kubelet that answers nonsense is in trouble, alone."""
    answers = [] if answer is None else [answer]
    found = read(report(node("a"), node("b", 1), *answers, {"answer": "b", "values": [True, None]}))
    assert found.problem is None
    assert codes(found) == {"a": code, "b": ""}


def test_nodes_that_were_not_to_be_asked() -> None:
    found = read(report(node("a", trouble="too_old"), node("b", 1, id=""), listed=9, left=7))
    assert codes(found) == {"a": "configz_too_old", "b": "configz_no_id"}
    assert (found.listed, found.left) == (9, 7)


def test_what_another_call_may_hear() -> None:
    troubles = dict(zip("abcd", ("not_asked", "no_room", "timeout", "forbidden"), strict=True))
    nodes = [node(name, number) for number, name in enumerate("abcde")]
    found = read(report(*nodes, *({"answer": name, "trouble": word} for name, word in troubles.items())))
    assert set(found.again) == {"a", "b", "e"}


def test_two_nodes_that_claim_one_machine_are_both_in_trouble() -> None:
    heard = ({"answer": name, "values": [True, None]} for name in "abc")
    found = read(report(node("a"), node("b"), node("c", 1), *heard))
    assert codes(found) == {"a": "configz_doubled_id", "b": "configz_doubled_id", "c": ""}
    assert not found.nodes["a"].values


def test_a_sweep_that_asked_nobody_says_why_of_each() -> None:
    found = read(report(node("a"), sweep="token_forbidden"), nodes=["a", "gone"])
    assert codes(found) == {"a": "sweep_token_forbidden", "gone": "sweep_token_forbidden"}
    unknown = read(report(sweep="list_unheard_of"))
    assert unknown.problem is not None
    assert unknown.problem.status is Status.ERROR


def test_a_node_that_was_named_and_is_not_there() -> None:
    found = read(report(node("a"), {"answer": "a", "values": [True, None]}), nodes=["a", "gone"])
    assert codes(found) == {"a": "", "gone": "configz_unknown_node"}


def test_an_answer_of_nobody_is_no_honest_report() -> None:
    assert read(report(node("a"), {"answer": "b", "values": [True, None]})).problem is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"azure://{SCALE_SET}/virtualMachines/12", f"{SCALE_SET}/virtualMachines/12".lower()),
        (
            f"azure://{SUBSCRIPTION}/resourceGroups/MC_a.(b)/providers/microsoft.compute/VirtualMachines/aks-Vm-1",
            f"{SUBSCRIPTION}/resourcegroups/mc_a.(b)/providers/microsoft.compute/virtualmachines/aks-vm-1",
        ),
        (f"aws://{SCALE_SET}/virtualMachines/12", ""),
        (f"azure://{SCALE_SET}/virtualMachines/x", ""),
        (f"azure://{SCALE_SET}", ""),
        (f"azure://{SUBSCRIPTION}/resourceGroups/../providers/Microsoft.Compute/virtualMachines/a/b", ""),
        ("azure:///subscriptions/x/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/a", ""),
        ("", ""),
    ],
)
def test_the_machine_that_a_provider_id_names(text: str, expected: str) -> None:
    assert resource_id(text) == expected


@given(some.text())
def test_whatever_is_printed_is_read_without_an_exception(text: str) -> None:
    assert read(text, nodes=["a"]).nodes.keys() == {"a"}


_JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
)


@given(some.lists(_JSON, max_size=4))
def test_whatever_a_kubelet_answers_is_its_own_matter(values: list[Any]) -> None:
    found = read(
        report(node("a"), node("b", 1), {"answer": "a", "values": values}, {"answer": "b", "values": [True, None]})
    )
    assert codes(found)["b"] == ""
    assert codes(found)["a"] == ("" if len(values) == 2 else "configz_malformed")
