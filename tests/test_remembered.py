"""The memory of pure functions' answers is bounded, and gives what would be made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.remembered import Remembered, forget


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 12))))
def test_bounded_and_true(asked: list[tuple[int, int]]) -> None:
    memory: Remembered[tuple[int, int], str] = Remembered(entries=5, weight=160)
    for number, weight in asked:
        made = memory.get((number, weight), lambda n=number: f"answer {n}", lambda _, w=weight: w)  # type: ignore[misc]
        assert made == f"answer {number}"
        assert len(memory) <= 5
        assert memory.weight <= 160


def test_made_once_and_the_longest_unused_goes_first() -> None:
    memory: Remembered[str, int] = Remembered(entries=2, weight=1000)
    made: list[str] = []

    def ask(name: str) -> int:
        return memory.get(name, lambda: made.append(name) or len(name), lambda _: 1)  # type: ignore[func-returns-value]

    for name in ("a", "b", "a", "c", "a", "b"):
        assert ask(name) == 1
    assert made == ["a", "b", "c", "b"]


def test_a_heavy_answer_is_given_and_drives_out_no_other() -> None:
    memory: Remembered[str, str] = Remembered(entries=10, weight=160)
    memory.get("small", lambda: "small", lambda _: 10)
    assert memory.get("huge", lambda: "huge", lambda _: 11) == "huge"
    assert (len(memory), memory.weight) == (1, 10)


def test_forget() -> None:
    memory: Remembered[str, str] = Remembered(entries=10, weight=160)
    memory.get("a", lambda: "a", lambda _: 10)
    forget()
    assert (len(memory), memory.weight) == (0, 0)
