"""What is asked for: bad values are named, and equal ones are one."""

from __future__ import annotations

from typing import Any

import pytest

from shared.controls import catalogue
from shared.errors import NotFixedError, SettingsError, UsageError
from shared.models import RunKind
from shared.runs.model.request import MOST_NAMES, FixRequest, RunRequest, parse_request, settled
from shared.settings import Settings


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"subscriptions": ["abc"]}, "'abc' is not a subscription id"),
        ({"clusters": ["a b"]}, "cluster: 'a b' is not a possible name"),
        ({"clusters": ["$(rm -rf /)"]}, "is not a possible name"),
        ({"node_pools": ["NP_1"]}, "node pool: 'NP_1' is not a possible name"),
        ({"controls": ["9.9.9"]}, "no control '9.9.9'; there is: 3.1.1, "),
        ({"max_unavailable": "0"}, "max unavailable"),
        ({"max_unavailable": "101%"}, "max unavailable"),
        ({"max_failures": -1}, "max failure"),
        ({"subscriptions": ["abc"], "clusters": ["a b"]}, "subscription.*; cluster"),
        ({"clusters": [f"c{number}" for number in range(MOST_NAMES + 1)]}, "cluster.*1,001 names, and 1,000 are the"),
    ],
)
def test_bad_requests_name_the_value(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_request(FixRequest, values)


def test_of_many_bad_names_some_are_told() -> None:
    with pytest.raises(UsageError) as refused:
        parse_request(RunRequest, {"clusters": ["a b"] * MOST_NAMES})
    assert "and 990 more" in str(refused.value)
    assert len(str(refused.value)) < 2_000


def test_requests_are_normalised() -> None:
    guid = "5F1D6C1E-8A4B-4D0E-9A53-3C2B7F60A9D1"
    made = parse_request(RunRequest, {"subscriptions": [guid, guid.lower()], "clusters": ["a", "A"]})
    assert made.subscriptions == (guid.lower(),)
    assert made.clusters == ("a",)
    assert made.control_ids == catalogue().of("v1.8")
    assert len(made.control_ids) == 13
    assert parse_request(RunRequest, {"controls": ["3.2.6", "3.2.6"]}).control_ids == ("3.2.6",)


@pytest.mark.parametrize(
    ("kind", "asked", "fixes", "settles"),
    [
        (RunKind.AUDIT, (), ("3.2.6",), ()),
        (RunKind.AUDIT, ("3.2.1",), ("3.2.6",), ("3.2.1",)),
        (RunKind.PLAN, (), ("3.2.6",), ("3.2.6",)),
        (RunKind.PLAN, ("3.2.1",), ("3.2.6",), ("3.2.1",)),
        (RunKind.FIX, (), ("3.2.6", "3.1.1"), ("3.2.6", "3.1.1")),
        (RunKind.FIX, ("3.1.1",), ("3.2.6", "3.1.1"), ("3.1.1",)),
    ],
)
def test_a_fix_is_of_the_controls_that_the_deployment_fixes(
    kind: RunKind, asked: tuple[str, ...], fixes: tuple[str, ...], settles: tuple[str, ...]
) -> None:
    assert settled(kind, FixRequest(controls=asked), Settings(fix_controls=fixes)).controls == settles


def test_a_fix_of_other_controls_is_refused() -> None:
    with pytest.raises(NotFixedError, match=r"does not fix 3.1.1, 3.2.1, only 3.2.6 .GUARD_FIX_CONTROLS."):
        settled(RunKind.FIX, FixRequest(controls=("3.2.1", "3.2.6", "3.1.1")), Settings())


def test_controls_to_fix_that_there_are_not_are_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match=r"GUARD_FIX_CONTROLS names 3.2.66, which is no control; .*3.2.6"):
        settled(RunKind.PLAN, FixRequest(), Settings(fix_controls=("3.2.66",)))
