"""When nodes may start, and when they are looked at: never above the published limits, and rarely twice."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.runs.model.batch import BATCH
from shared.runs.model.pace import WRITES, Pace, last_start, next_first_look
from tests.support.findings import NOW

WANTED = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(1, BATCH), st.integers(0, 120)), min_size=1, max_size=60
)
"""Batches: their region, their nodes, and how many seconds after the one before there is one to be started."""


def started(pace: Pace, wanted: Sequence[tuple[str, int, int]]) -> list[tuple[float, str, int]]:
    """When each of these batches starts (seconds from NOW), one after the other."""
    now, starts = NOW, []
    for region, nodes, later in wanted:
        now += timedelta(seconds=later)
        # Clocks have whole microseconds: a wait that is cut to them may leave a hair to wait for.
        while seconds := pace.wait(region, nodes, now):
            now += timedelta(seconds=seconds) + timedelta(microseconds=1)
        pace = pace.took(region, nodes, now)
        starts.append(((now - NOW).total_seconds(), region, nodes))
    return starts


@given(WANTED, st.sampled_from([0.01, 0.1, 0.25, 0.5, 0.8, 1.0]))
def test_the_pace_keeps_the_published_limits(wanted: list[tuple[str, int, int]], share: float) -> None:
    """FACTS, section 4: in no stretch of time may more be started than a bucket holds and gets meanwhile."""
    starts = started(Pace(at=NOW, share=share), wanted)
    # A batch that is larger than its bucket starts when that is full; what it owes is paid before the next one.
    least = 0.0 if 200 * share >= BATCH else BATCH
    for first, (since, _, _) in enumerate(starts):
        for moment, _, _ in starts[first:]:
            begun = [(place, nodes) for at, place, nodes in starts[first:] if at <= moment]
            seconds = moment - since
            assert sum(nodes for _, nodes in begun) <= share * (200 + 10 * seconds) + least + 1e-3
            for region in {place for place, _ in begun}:
                taken = sum(nodes for place, nodes in begun if place == region)
                assert taken <= share * (1500 + 500 / 60 * seconds) + least + 1e-3


@given(WANTED, st.dictionaries(st.sampled_from([WRITES, "a", "b"]), st.floats(-50, 2000)), st.integers(0, 300))
def test_what_azure_says_only_slows(wanted: list[tuple[str, int, int]], levels: dict[str, float], later: int) -> None:
    pace = Pace(at=NOW, share=0.8)
    for region, nodes, _ in wanted[:5]:
        pace = pace.took(region, nodes, NOW)
    now = NOW + timedelta(seconds=later)
    told = pace.told(levels, now)
    for region, nodes, _ in wanted:
        assert told.wait(region, nodes, now) >= pace.wait(region, nodes, now) - 1e-6
    for name, level in levels.items():
        assert told.told({name: 0.0}, now).levels[name] <= max(0.0, level)
    assert told.told(dict.fromkeys(levels, 1e9), now) == told, "more than we know of is not believed"


def test_the_pace_of_a_large_lane() -> None:
    """The bound of FACTS, section 4, at 10,000 nodes of one region: 17 minutes, and a fifth is left to others."""
    assert [at for at, _, _ in started(Pace(at=NOW, share=1.0), [("a", 50, 0)] * 3)] == [0.0, 0.0, 0.0]
    for share, minutes in ((1.0, 17.0), (0.8, 22.0)):
        last = started(Pace(at=NOW, share=share), [("a", 50, 0)] * 200)[-1][0]
        assert last == pytest.approx(minutes * 60, rel=0.02)
        assert last_start({"a": 10_000}, share) == pytest.approx(last, rel=0.01)


@given(st.dictionaries(st.sampled_from("abc"), st.integers(0, 30), max_size=3), st.sampled_from([0.5, 0.8, 1.0]))
def test_when_the_last_one_starts_is_known_before(batches: dict[str, int], share: float) -> None:
    """Regions take turns, as they do in a lane."""
    turns = sorted((number, region, BATCH, 0) for region, count in batches.items() for number in range(count))
    starts = started(Pace(at=NOW, share=share), [turn[1:] for turn in turns])
    last = starts[-1][0] if starts else 0.0
    assert last == pytest.approx(last_start({r: n * BATCH for r, n in batches.items()}, share), rel=0.3, abs=10)


# First looks

LEAST, MOST = 20.0, 90.0


def latency(source: random.Random) -> float:
    """Seconds that a command takes: 20 at least, half of them within 30, one of a hundred a minute and a half."""
    return 20 + source.lognormvariate(2.3, 0.75)


def step(seconds: float, age: float, looks: int) -> float:
    """Seconds to the next look, as `shared.azure.runcommand` has them."""
    return min(max(seconds * 0.4, 0.1) * 1.3**looks, 12.0 if age < 120 else 15.0)


@pytest.mark.parametrize("begins_at", [20.0, 30.0, 60.0, 90.0])
@pytest.mark.parametrize("late", [1, 6])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_first_looks_settle_where_most_commands_have_ended(begins_at: float, late: int, seed: int) -> None:
    """Also where `late` batches have started before the first looks of the first of them are made."""
    source = random.Random(seed)
    looks, shares = 0, []
    seconds = begins_at
    chosen = deque([begins_at] * late)
    for _ in range(150):
        waited = chosen.popleft()
        ended = 0
        for _ in range(BATCH):
            took, at, mine = latency(source), waited, 1
            ended += took <= at
            while took > at:
                at += step(30.0, at, mine)
                mine += 1
            looks += mine
        shares.append(ended / BATCH)
        seconds = next_first_look(seconds, BATCH, ended, waited, least=LEAST, most=MOST)
        chosen.append(seconds)
    assert 0.85 <= sum(shares[50:]) / 100 <= 0.95
    assert looks / (150 * BATCH) <= 1.4, "two looks a node are what the limits were reckoned with"


def test_what_many_looks_of_one_time_say_counts_once() -> None:
    """Eight batches were started before anything was known: that all came too early is no eight lessons."""
    seconds = 30.0
    for _ in range(8):
        seconds = next_first_look(seconds, BATCH, BATCH // 2, 30.0, least=LEAST, most=MOST)
    assert seconds == next_first_look(30.0, BATCH, BATCH // 2, 30.0, least=LEAST, most=MOST) < 40.0


@given(st.floats(1, 200), st.integers(0, 1000), st.floats(0, 1), st.floats(1, 200))
def test_a_first_look_stays_in_its_bounds(seconds: float, looked: int, part: float, waited: float) -> None:
    after = next_first_look(seconds, looked, int(looked * part), waited, least=LEAST, most=MOST)
    assert after == seconds if not looked else LEAST <= after <= MOST


def test_few_looks_teach_little() -> None:
    one, many = (next_first_look(30.0, looked, 0, 30.0, least=LEAST, most=MOST) for looked in (1, 50))
    assert 30.0 < one < 31.0 < many
