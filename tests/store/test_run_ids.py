from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UsageError
from shared.store import new_run_id
from shared.store.run_ids import newest_first_key

MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(
    lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000)
)
CLOSE = st.tuples(MOMENTS, st.integers(1, 2000)).map(lambda pair: (pair[0], pair[0] + timedelta(milliseconds=pair[1])))


@given(st.tuples(MOMENTS, MOMENTS) | CLOSE)
def test_ids_sort_by_time_to_the_millisecond_and_keys_the_other_way(moments: tuple[datetime, datetime]) -> None:
    one, two = moments
    ids = new_run_id(one), new_run_id(two)
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", run_id) for run_id in ids)
    if one < two:
        assert ids[0] < ids[1]
        assert newest_first_key(ids[0]) > newest_first_key(ids[1])


def test_an_id_is_in_utc() -> None:
    local = datetime(2026, 1, 31, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert new_run_id(local).startswith("20260130T233000Z-")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latest",
        "20260131T120000Z",
        "20260131T120000Z-ABCDEF",
        "20260131T120000Z-a1b2c3\n",
        "٢0260131T120000Z-a1b2c3",
    ],
)
def test_what_is_no_run_id_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a run id"):
        newest_first_key(text)
