"""The parts of a run that think: pace, waves, history, requests, batches, and the local driver's semantics."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UsageError
from shared.models import History, Outcome, Status
from shared.runs import history, pace
from shared.runs.activities import BATCH, make_batches
from shared.runs.context import Context, Orchestrator, attempt_all
from shared.runs.local import LocalHost
from shared.runs.orchestrators import unknown_names
from shared.runs.model.request import FixRequest, RunRequest, parse_request
from shared.runs.waves import waves
from tests.support.findings import NOW, finding, node


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(1, 50)), max_size=60))
def test_the_pace_keeps_the_published_limits(batches: list[tuple[str, int]]) -> None:
    """FACTS, section 4: at no moment may more have been started than the buckets have given out."""
    starts = pace.starts(batches)
    assert starts == sorted(starts) or len({region for region, _ in batches}) > 1
    for moment in starts:
        begun = [(region, nodes) for (region, nodes), start in zip(batches, starts, strict=True) if start <= moment]
        assert sum(nodes for _, nodes in begun) <= 200 + 10 * moment + 1e-6
        for region in {name for name, _ in begun}:
            assert sum(nodes for name, nodes in begun if name == region) <= 1500 + 500 / 60 * moment + 1e-6


def test_the_pace_of_a_large_lane() -> None:
    assert pace.starts([("a", 50)] * 3) == [0.0, 0.0, 0.0]
    ten_thousand = pace.starts([("a", 50)] * 200)
    assert 16 * 60 < ten_thousand[-1] < 22 * 60, "the limits allow 17 minutes, and a tenth is left to others"


@given(
    st.integers(0, 500), st.one_of(st.integers(1, 60).map(str), st.integers(1, 100).map("{}%".format)), st.booleans()
)
def test_waves(nodes: int, most: str, canary: bool) -> None:
    sizes = waves(nodes, most, canary=canary)
    assert sum(sizes) == nodes
    assert all(size > 0 for size in sizes)
    limit = max(1, nodes * int(most[:-1]) // 100) if most.endswith("%") else int(most)
    assert max(sizes, default=0) <= limit
    if canary and nodes:
        assert sizes[0] == 1


def test_waves_by_example() -> None:
    assert waves(10, "25%", canary=True) == [1, 2, 2, 2, 2, 1]
    assert waves(3, "1", canary=False) == [1, 1, 1]
    assert waves(5, "10%", canary=False) == [1] * 5
    assert waves(0, "1", canary=True) == []


def test_batches_take_turns_between_regions() -> None:
    nodes = [node(number, "west") for number in range(120)] + [node(number + 200, "north") for number in range(30)]
    batches = make_batches(nodes)
    assert [(batch[0].location, len(batch)) for batch in batches] == [
        ("north", 30),
        ("west", BATCH),
        ("west", BATCH),
        ("west", 20),
    ]
    assert sorted(item.key for batch in batches for item in batch) == sorted(item.key for item in nodes)
    assert all(len({item.location for item in batch}) == 1 for batch in batches)


def test_history_of_a_node_that_was_fixed_and_fails_again() -> None:
    fixed = finding(Status.PASS, outcome=Outcome.FIXED)
    known = history.after(fixed, "key", None)
    assert known == History("key", "3.2.6", Status.PASS, NOW, NOW, NOW, "image-1", NOW, since=NOW)
    later = NOW + timedelta(days=9)
    again = finding(Status.FAIL, observed=later)
    marked = history.with_history(again, known)
    assert (marked.regressed, marked.last_right, marked.reimaged_since) == (True, NOW, False)
    assert history.with_history(replace(again, node_image_version="image-2"), known).reimaged_since is True
    assert history.with_history(replace(again, node_created=later), known).reimaged_since is True
    then = history.after(marked, "key", known)
    assert then is not None
    assert (then.status, then.last_right, then.last_fixed, then.seen) == (Status.FAIL, NOW, NOW, later)


def test_history_of_a_node_that_was_never_fixed() -> None:
    known = history.after(finding(Status.PASS), "key", None)
    marked = history.with_history(finding(Status.FAIL), known)
    assert (marked.regressed, marked.last_right, marked.reimaged_since) == (False, NOW, None)
    assert history.after(finding(Status.ERROR), "key", known) is None
    assert history.with_history(finding(Status.PASS), known) == finding(Status.PASS)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"subscriptions": ["abc"]}, "'abc' is not a subscription id"),
        ({"clusters": ["a b"]}, "cluster: 'a b' is not a possible name"),
        ({"clusters": ["$(rm -rf /)"]}, "is not a possible name"),
        ({"node_pools": ["NP-1"]}, "node pool: 'NP-1' is not a possible name"),
        ({"controls": ["9.9.9"]}, "no control '9.9.9'; there is: 3.2.6"),
        ({"max_unavailable": "0"}, "max unavailable"),
        ({"max_unavailable": "101%"}, "max unavailable"),
        ({"max_failures": -1}, "max failure"),
        ({"subscriptions": ["abc"], "clusters": ["a b"]}, "subscription.*; cluster"),
    ],
)
def test_bad_requests_name_the_value(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_request(FixRequest, values)


def test_requests_are_normalised() -> None:
    guid = "5F1D6C1E-8A4B-4D0E-9A53-3C2B7F60A9D1"
    made = parse_request(RunRequest, {"subscriptions": [guid, guid.lower()], "clusters": ["a", "a"]})
    assert made.subscriptions == (guid.lower(),)
    assert made.clusters == ("a",)
    assert made.control_ids == ("3.2.6",)


def test_unknown_names() -> None:
    found = [{"clusters": ["aks-a"], "pools": ["np1"]}, {"clusters": [], "pools": []}]
    assert unknown_names({"clusters": ["AKS-A"], "node_pools": ["np1"]}, found) == ""
    assert "no cluster named x in the 2 subscriptions; there is: aks-a" in unknown_names({"clusters": ["x"]}, found)


async def test_the_local_driver_keeps_durable_semantics() -> None:
    """Results in order, JSON all the way, the finished task from task_any, exceptions where they are waited for."""
    calls: list[Any] = []

    async def double(value: Any) -> Any:
        calls.append(value)
        if value == "bad":
            raise ValueError("no")
        return {"twice": (value, value)}

    def parent(context: Context) -> Orchestrator:
        assert (yield from attempt_all(context, [])) == []
        both = yield context.task_all([context.call_activity("double", item) for item in (1, 2)])
        first = yield context.task_any([context.call_activity("double", 3)])
        timer = context.create_timer(context.current_utc_datetime)
        yield timer
        try:
            yield context.call_activity("double", "bad")
        except ValueError as error:
            caught = str(error)
        inner = yield context.call_sub_orchestrator("child", {"x": (1,)}, "mine")
        return [both, first.result, caught, inner, context.instance_id]

    def child(context: Context) -> Orchestrator:
        value = context.get_input()
        yield context.call_activity("double", 0)
        return [value, context.instance_id]

    host = LocalHost({"parent": parent, "child": child}, {"double": double})
    assert await host.run("parent", None, "top") == [
        [{"twice": [1, 1]}, {"twice": [2, 2]}],
        {"twice": [3, 3]},
        "no",
        [{"x": [1]}, "mine"],
        "top",
    ]
    assert calls == [1, 2, 3, "bad", 0]


def test_what_was_proved_is_remembered() -> None:
    known = history.after(finding(Status.PASS), "key", None, proof="a" * 64)
    assert known is not None
    assert known.proof == "a" * 64
    unproved = history.after(finding(Status.PASS), "key", known)
    assert unproved is None, "it names its process, and stays true of it"
    again = history.after(finding(Status.FAIL), "key", known, proof="b" * 64)
    assert again is not None
    assert again.proof == "b" * 64
