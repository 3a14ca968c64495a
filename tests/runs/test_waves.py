"""Which nodes are fixed next, in every order in which fixes may end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from shared.runs.model import waves
from shared.runs.model.waves import Limits, Pool, decide
from tests.support.findings import NOW

LIMITS = st.builds(
    Limits,
    st.one_of(st.integers(1, 60).map(str), st.integers(1, 100).map("{}%".format)),
    st.integers(0, 3),
    st.booleans(),
)
SIZES = st.lists(st.integers(0, 70), max_size=4)


@given(SIZES, LIMITS, st.integers(0, 60), st.data())
def test_a_fix_from_its_beginning_to_its_end(sizes: list[int], limits: Limits, pause: int, data: st.DataObject) -> None:
    """Waves end in any order, and any of their fixes may fail; pools may be stopped at any time."""
    pools = [Pool(nodes) for nodes in sizes]
    begun: list[list[int]] = [[] for _ in sizes]
    stopped: set[int] = set()
    now = NOW
    while True:
        decision = decide(pools, limits, now)
        assert len({wave.pool for wave in decision.waves}) == len(decision.waves), "two waves of a pool"
        for wave in decision.waves:
            pool = pools[wave.pool]
            assert wave.pool not in stopped, "nothing begins after a stop"
            assert pool.failures <= limits.max_failures
            assert pool.not_before is None or pool.not_before <= now
            assert (pool.wave, pool.done) == (0, wave.first), "the one after the other, none left out"
            assert 1 <= wave.count <= most(sizes[wave.pool], limits.max_unavailable)
            assert wave.first + wave.count <= pool.nodes
            if limits.canary and not begun[wave.pool]:
                assert wave.count == 1, "the canary goes first, alone"
            begun[wave.pool] += range(wave.first, wave.first + wave.count)
            pools[wave.pool] = replace(pool, wave=wave.count)
        for leaving in decision.leave:
            pool = pools[leaving.pool]
            assert pool.wave == 0, "what is in hand is not left"
            assert leaving.first == pool.done
            assert leaving.reason
            pools[leaving.pool] = replace(pool, done=pool.nodes)
        in_hand = [number for number, pool in enumerate(pools) if pool.wave]
        if not in_hand:
            if decision.again is None and not decision.leave:
                break
            now = decision.again or now
            continue
        now += timedelta(seconds=data.draw(st.integers(0, 30)))
        number = data.draw(st.sampled_from(in_hand))
        pool = pools[number]
        failed = data.draw(st.integers(0, pool.wave))
        if data.draw(st.integers(0, 9)) == 0:
            stopped.add(number)
        pools[number] = replace(
            pool,
            done=pool.done + pool.wave,
            wave=0,
            failures=pool.failures + failed,
            stop="told to" if number in stopped else "",
            not_before=now + timedelta(seconds=pause),
        )
    assert [pool.done for pool in pools] == sizes, "every node of every pool is fixed or left"
    for number, pool in enumerate(pools):
        assert begun[number] == list(range(len(begun[number])))
        if number not in stopped and pool.failures <= limits.max_failures:
            assert len(begun[number]) == sizes[number]


def most(nodes: int, text: str) -> int:
    return max(1, nodes * int(text[:-1]) // 100) if text.endswith("%") else int(text)


def waves_of(nodes: int, limits: Limits) -> list[int]:
    """The sizes of a pool's waves where nothing fails."""
    sizes: list[int] = []
    while True:
        begun = decide([Pool(nodes, done=sum(sizes))], limits, NOW).waves
        if not begun:
            return sizes
        sizes.append(begun[0].count)


def test_waves_by_example() -> None:
    assert waves_of(10, Limits("25%", 0, canary=True)) == [1, 2, 2, 2, 2, 1]
    assert waves_of(3, Limits("1", 0, canary=False)) == [1, 1, 1]
    assert waves_of(5, Limits("10%", 0, canary=False)) == [1] * 5
    assert waves_of(0, Limits("1", 0, canary=True)) == []


def test_why_a_pool_is_left() -> None:
    limits = Limits("1", 1, canary=True)
    (leaving,) = decide([Pool(9, done=3, failures=2)], limits, NOW).leave
    assert (leaving.pool, leaving.first) == (0, 3)
    assert leaving.reason == "2 fixes of this pool failed or were rolled back, more than the 1 allowed"
    assert decide([Pool(9, done=3, failures=1)], limits, NOW).leave == ()
    assert decide([Pool(9, done=9, stop="told to")], limits, NOW) == waves.Decision()


def test_a_pool_that_is_left_is_not_asked() -> None:
    limits = Limits("1", 0, canary=True)
    waits = Pool(9, done=3, waits=True)
    assert decide([waits], limits, NOW) == waves.Decision(ask=(0,))
    for left in (replace(waits, failures=1), replace(waits, stop="told to")):
        decision = decide([left], limits, NOW)
        assert (decision.ask, len(decision.leave)) == ((), 1)
    later = NOW + timedelta(seconds=5)
    assert decide([replace(waits, not_before=later)], limits, NOW) == waves.Decision(again=later)


def test_the_waves_that_are_left() -> None:
    tenth = Limits("10%", 0, canary=True)
    assert [waves.waves_left(100, done, tenth) for done in (0, 1, 11, 100)] == [11, 10, 9, 0]
    assert waves.waves_left(3, 0, Limits("1", 0, canary=False)) == 3
    assert waves.waves_left(0, 0, tenth) == 0
