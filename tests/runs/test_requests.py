"""What is asked for: bad values are named, and equal ones are one."""

from __future__ import annotations

from typing import Any

import pytest

from shared.errors import UsageError
from shared.runs.model.request import MOST_NAMES, FixRequest, RunRequest, parse_request


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"subscriptions": ["abc"]}, "'abc' is not a subscription id"),
        ({"clusters": ["a b"]}, "cluster: 'a b' is not a possible name"),
        ({"clusters": ["$(rm -rf /)"]}, "is not a possible name"),
        ({"node_pools": ["NP_1"]}, "node pool: 'NP_1' is not a possible name"),
        ({"controls": ["9.9.9"]}, "no control '9.9.9'; there is: 3.2.6"),
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
    assert made.control_ids == ("3.2.6",)
