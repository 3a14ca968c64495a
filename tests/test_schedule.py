"""Schedules: what the Functions host takes, when they come, and what is refused in words."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.schedule import next_after, parse

NOW = datetime(2026, 11, 27, 15, 0, 30, 250_000, tzinfo=UTC)  # a Friday


@pytest.mark.parametrize(
    ("schedule", "comes"),
    [
        ("0 0 2 * * *", "2026-11-28T02:00:00"),
        ("30 0 15 * * *", "2026-11-28T15:00:30"),
        ("31 0 15 * * *", "2026-11-27T15:00:31"),
        ("*/20 5/10 * * * *", "2026-11-27T15:05:00"),
        ("0 0,30 9-17/4 * * *", "2026-11-27T17:00:00"),
        ("0 30 1 * * 1-5", "2026-11-30T01:30:00"),
        ("0 30 9 * Jan Mon", "2027-01-04T09:30:00"),
        ("0 0 0 1 december SUNDAY", "2030-12-01T00:00:00"),
        ("0 0 9 13 * FRI", "2027-08-13T09:00:00"),
        ("0 0 1 31 * *", "2026-12-31T01:00:00"),
        ("0 0 0 29 2 1", "2044-02-29T00:00:00"),
        ("* * * * * *", "2026-11-27T15:00:31"),
    ],
)
def test_when_it_comes(schedule: str, comes: str) -> None:
    assert next_after(schedule, NOW) == datetime.fromisoformat(comes).replace(tzinfo=UTC)


def test_the_moment_is_taken_in_any_time_zone() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=9)))
    assert next_after("0 0 2 * * *", there) == datetime(2026, 11, 28, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ("0 0 2 * *", "has 5 fields, and six are needed"),
        ("@daily", "has 1 fields"),
        ("60 0 0 * * *", "wrong second '60': 60 is not from 0 to 59"),
        ("0 -1 0 * * *", "wrong minute '-1'"),
        ("00000000099 0 2 * * *", "wrong second '00000000099': 00000000099 has more than 9 digits"),
        ("0 0 0-0000000099 * * *", "wrong hour '0-0000000099'"),
        ("0 0 24 * * *", "wrong hour '24'"),
        ("0 0 2 0 * *", "wrong day '0'"),
        ("0 0 2 L * *", "wrong day 'L'"),
        ("0 0 2 ? * *", "wrong day"),
        ("0 0 2 * FOO *", "or a name such as JAN"),
        ("0 0 2 * * 7", "wrong weekday '7': 7 is not from 0 to 6"),
        ("0 0 2 * * T", "or a name such as SUN"),
        ("0 0 2 * * FRI-SUN", "runs backwards"),
        ("0 */0 2 * * *", "'0' is no step"),
        ("0 1/2/3 2 * * *", "'2/3' is no step"),
        ("0 1, 2 * * *", "wrong minute '1,'"),
        ("٣ 0 0 * * *", "wrong second"),
        ("0 0 2 31 2,4 *", "no month of 2,4 has a day 31"),
    ],
)
def test_what_is_refused(schedule: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse(schedule)


def test_what_is_said_is_short() -> None:
    with pytest.raises(ValueError, match="wrong second") as raised:
        parse("9" * 100_000 + " 0 0 * * *")
    assert len(str(raised.value)) < 200


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1)),
    st.lists(st.integers(0, 59), min_size=1, max_size=3),
    st.lists(st.integers(0, 23), min_size=1, max_size=3),
    st.lists(st.integers(0, 6), min_size=1, max_size=3),
)
def test_nothing_is_left_out(moment: datetime, minutes: list[int], hours: list[int], weekdays: list[int]) -> None:
    """Minute by minute from the moment to what is given, no other one fits."""
    text = " ".join(
        ["0", *(",".join(map(str, values)) for values in (minutes, hours)), "* *", ",".join(map(str, weekdays))]
    )
    start = moment.replace(tzinfo=UTC)
    found = next_after(text, start)
    at = start.replace(second=0, microsecond=0) + timedelta(minutes=1)
    while not (at.minute in minutes and at.hour in hours and at.isoweekday() % 7 in weekdays):
        at += timedelta(minutes=1)
    assert found == at
