"""Faults on demand: the next calls of a kind fail, wait, or lose their connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Fault:
    """What happens to the next `count` calls of a kind (as `stats` names them; `*` is any) whose path has `path` in it.

    First `delay` seconds pass. `drop` cuts the connection, `before` the call is handled or `after` it, when its effect
    is there but no answer comes. Else `status` is answered, unhandled, with the headers and: `text` as it is, or `body`
    as JSON, or the code and the message. Without a status the call is handled, late at most: `fields` (names joined by
    dots) are then set in the item number `item` of the list that is answered, and `at_once` makes a run command answer
    with its result.
    """

    kind: str
    count: Annotated[int, Field(ge=1)] = 1
    path: str = ""
    delay: Annotated[float, Field(ge=0, le=600)] = 0.0
    drop: Literal["before", "after"] | None = None
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    code: str = "InternalServerError"
    message: str = "A fault that was asked for."
    headers: Mapping[str, str] = Field(default_factory=dict)
    body: Mapping[str, Any] | list[Any] | None = None
    text: str | None = None
    fields: Mapping[str, Any] = Field(default_factory=dict)
    item: Annotated[int, Field(ge=0)] = 0
    at_once: bool = False

    def edit(self, items: list[dict[str, Any]]) -> None:
        """Set the fields in a list that is answered."""
        for path, value in self.fields.items():
            *parents, name = path.split(".")
            place = items[self.item]
            for parent in parents:
                place = place[parent]
            place[name] = value


class Faults:
    """The faults still to come, in the order they were asked for."""

    def __init__(self) -> None:
        self._left: list[tuple[Fault, int]] = []

    def add(self, fault: Fault) -> None:
        """Ask for a fault."""
        self._left.append((fault, fault.count))

    def clear(self) -> None:
        """Take back every fault that has not happened yet."""
        self._left.clear()

    def take(self, kind: str, path: str) -> Fault | None:
        """The fault that befalls this call, counted down."""
        for i, (fault, left) in enumerate(self._left):
            if fault.kind in ("*", kind) and fault.path.lower() in path.lower():
                self._left[i : i + 1] = [(fault, left - 1)] if left > 1 else []
                return fault
        return None
