"""What is remembered of a node, and when nothing is written."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.models import Finding, History, Outcome, Status
from shared.runs.model import history
from tests.support.records import NOON, finding, node_key

DAY = timedelta(days=1)


def _seen(status: Status, when: datetime, **changes: Any) -> Finding:
    return finding(status=status, observed=when, node_image_version="image-1", node_created=NOON, **changes)


def _after(before: History | None, made: Finding, proof: str = "process") -> History | None:
    return history.after(made, node_key(), before, proof)


RIGHT = _after(None, _seen(Status.PASS, NOON))
WRONG = _after(RIGHT, _seen(Status.FAIL, NOON + 5 * DAY))


def test_the_first_look_is_remembered() -> None:
    assert RIGHT is not None
    assert (RIGHT.status, RIGHT.seen, RIGHT.since, RIGHT.last_right) == (Status.PASS, NOON, NOON, NOON)
    assert WRONG is not None
    assert (WRONG.status, WRONG.since, WRONG.last_right) == (Status.FAIL, NOON + 5 * DAY, NOON)


@pytest.mark.parametrize("known", [RIGHT, WRONG])
def test_the_same_again_is_not_written(known: History) -> None:
    again = _seen(known.status, known.seen + DAY)
    assert _after(known, again) is None
    assert _after(known, again, proof="") is None  # no proof of its own this time
    assert _after(known, _seen(Status.ERROR, known.seen + DAY)) is None


@pytest.mark.parametrize("known", [RIGHT, WRONG])
@pytest.mark.parametrize("status", [Status.PASS, Status.FAIL])
def test_what_differs_is_written_and_says_since_when(known: History, status: Status) -> None:
    when = known.seen + DAY
    now = _after(known, _seen(status, when), proof="another process")
    assert now is not None
    assert (now.seen, now.proof) == (when, "another process")
    assert now.since == (known.since if status is known.status else when)
    assert now.last_right == (when if status is Status.PASS else known.last_right)


def test_another_image_of_a_right_node_is_written() -> None:
    assert RIGHT is not None
    made = replace(_seen(Status.PASS, NOON + DAY), node_image_version="image-2")
    now = _after(RIGHT, made)
    assert now is not None
    assert (now.node_image_version, now.since) == ("image-2", NOON)


def test_a_fix_and_a_roll_back_are_written_each_time() -> None:
    assert WRONG is not None
    when = WRONG.seen + DAY
    back = _after(WRONG, _seen(Status.FAIL, when, outcome=Outcome.ROLLED_BACK))
    assert back is not None
    assert (back.last_rolled_back, back.since) == (when, WRONG.since)
    assert _after(back, _seen(Status.FAIL, when + DAY)) is None
    fixed = _after(back, _seen(Status.PASS, when + DAY, outcome=Outcome.FIXED))
    assert fixed is not None
    assert (fixed.last_fixed, fixed.last_rolled_back, fixed.since) == (when + DAY, None, when + DAY)


def test_what_stays_is_written_again_once_in_a_while() -> None:
    assert RIGHT is not None
    assert _after(RIGHT, _seen(Status.PASS, NOON + history.SEEN_AGAIN - timedelta(seconds=1))) is None
    now = _after(RIGHT, _seen(Status.PASS, NOON + history.SEEN_AGAIN))
    assert now is not None
    assert (now.seen, now.since) == (NOON + history.SEEN_AGAIN, NOON)


def test_a_node_that_was_fixed_and_fails_again_has_regressed() -> None:
    known = _after(None, _seen(Status.PASS, NOON, outcome=Outcome.FIXED))
    assert known is not None
    later = NOON + 9 * DAY
    again = _seen(Status.FAIL, later)
    marked = history.with_history(again, known)
    assert (marked.regressed, marked.last_right, marked.reimaged_since) == (True, NOON, False)
    assert history.with_history(replace(again, node_image_version="image-2"), known).reimaged_since is True
    assert history.with_history(replace(again, node_created=later), known).reimaged_since is True
    then = _after(known, marked)
    assert then is not None
    assert (then.status, then.last_right, then.last_fixed, then.seen) == (Status.FAIL, NOON, NOON, later)


def test_a_node_that_was_never_fixed_only_fails() -> None:
    marked = history.with_history(_seen(Status.FAIL, NOON + DAY), RIGHT)
    assert (marked.regressed, marked.last_right, marked.reimaged_since) == (False, NOON, None)
    right = _seen(Status.PASS, NOON + DAY)
    assert history.with_history(right, RIGHT) == right


def test_a_proof_stays_until_another_one_comes() -> None:
    assert RIGHT is not None
    changed = _after(RIGHT, _seen(Status.FAIL, NOON + DAY), proof="")
    assert changed is not None
    assert changed.proof == RIGHT.proof, "it names its process, and stays true of it"
