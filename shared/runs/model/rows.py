"""Work rows as text: what this version wrote it reads, and says so of another's."""

from __future__ import annotations

from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from shared.errors import StoreError

T = TypeVar("T")


def to_text(adapter: TypeAdapter[T], value: T) -> str:
    """A value as it is stored."""
    return adapter.dump_json(value, exclude_defaults=True).decode()


def from_text(adapter: TypeAdapter[T], text: str, what: str) -> T:
    """A stored value; `what` names it, as "the batch X". Raises StoreError where this version does not know it."""
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise StoreError(f"{what} was not made by this version ({why}): start the run again") from None
