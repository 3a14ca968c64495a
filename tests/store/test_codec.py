from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import StoreError
from shared.models import Finding, History, Outcome, Run, RunKind, RunState, RunSummary, Status
from shared.store.codec import decode, encode
from tests.support.records import NOON, RUN, finding, history, run

TIMES = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))
STRICT = {datetime: TIMES, str: st.text(max_size=20)}


def _of(kind: type) -> st.SearchStrategy[object]:
    for known, strategy in STRICT.items():
        st.register_type_strategy(known, strategy)
    return st.from_type(kind)


@given(_of(Finding))
def test_any_finding_comes_back_equal(value: Finding) -> None:
    assert decode(Finding, encode(value), "it") == value


@given(_of(History))
def test_any_history_comes_back_equal(value: History) -> None:
    assert decode(History, encode(value), "it") == value


def test_a_finished_run_comes_back_equal() -> None:
    value = run(
        kind=RunKind.FIX,
        state=RunState.COMPLETED,
        finished=NOON + timedelta(minutes=5),
        request={"subscriptions": ["s"], "mode": "fix", "waves": {"first": 1}, "all": None},
        summary=RunSummary({Status.PASS: 3}, {Outcome.FIXED: 1}, 4, 17, 2.5),
        error="",
    )
    assert decode(Run, encode(value), "it") == value


@pytest.mark.parametrize("value", [True, False, 1, 0, "true", "1", "", (), ("a",), ("true", "1"), None])
def test_a_value_keeps_its_type(value: bool | int | str | tuple[str, ...] | None) -> None:
    actual = decode(Finding, encode(finding(actual=value)), "it").actual
    assert actual == value
    assert type(actual) is type(value)


def test_times_are_written_in_utc() -> None:
    local = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert json.loads(encode(finding(observed=local)))["observed"] == "2026-01-31T12:00:00+00:00"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (finding(observed=NOON.replace(tzinfo=None)), "has no zone"),
        (finding(status="undecided"), "undecided"),
        (run(request={"when": object()}), "cannot be stored"),
        (run(request={"size": float("nan")}), "float values"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(value: object, says: str) -> None:
    with pytest.raises(StoreError, match=says):
        encode(value)


def test_text_that_is_not_unicode_is_kept_readable() -> None:
    assert decode(Finding, encode(finding(reason="odd \udce9 name")), "it").reason == "odd ? name"


def test_a_row_of_an_older_version_gets_the_defaults() -> None:
    old = json.loads(encode(finding()))
    for name in ("hint", "code", "restart_pending", "regressed", "outcome"):
        del old[name]
    assert decode(Finding, json.dumps(old), "it") == finding()
    older = json.loads(encode(history(proof="ab")))
    assert older.pop("proof") == "ab"
    assert decode(History, json.dumps(older), "it") == history(proof="")


def test_a_newer_versions_fields_are_ignored() -> None:
    new = {**json.loads(encode(run())), "colour": "blue", "summary": {"nodes": 3, "planets": 1}}
    assert decode(Run, json.dumps(new), "it") == run(summary=RunSummary(nodes=3))


@dataclass(frozen=True)
class Other:
    count: int


@pytest.mark.parametrize("text", ['{"count": "many"}', "{}", "[]", "null", "{", ""])
def test_what_is_no_such_value_says_which_row_it_is(text: str) -> None:
    with pytest.raises(StoreError, match=r"the thing 7 in the store is not a Other \("):
        decode(Other, text, "the thing 7")


def test_the_run_id_is_a_sample() -> None:
    assert decode(Run, encode(run()), "it").id == RUN
