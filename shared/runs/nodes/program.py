"""A node's work as a generator: it yields what to send, and gets the answer back.

It is begun anew from the answers that are kept whenever there is a new one, so it must do the same with the same
answers; that is how it goes on in another process.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from shared.runs.model.batch import Answer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """A script to be run on the node.

    A `harmless` one only reads, and may be sent again where it is not known whether it was taken.
    """

    script: str
    harmless: bool = False


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """The program is over."""

    value: T


Program = Generator[Send, Answer, T]


def resume(program: Program[T], answers: Iterable[Answer]) -> Send | Done[T]:
    """What comes next of a program that got these answers to what it sent."""
    try:
        send = next(program)
        for answer in answers:
            send = program.send(answer)
    except StopIteration as stop:
        return Done(stop.value)
    return send
