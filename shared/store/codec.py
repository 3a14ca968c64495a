"""Values to JSON text and back: what a row's data is.

A row of an older version lacks fields and gets their defaults; a newer version's extra fields are ignored. So a stored
dataclass may gain fields with defaults, and never lose, rename or retype one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from shared.errors import NotStorable, StoreError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # 0.1 s that a caller who only imports the store need not wait for

    return TypeAdapter(kind)


def encode(value: object) -> str:
    """`value` (a dataclass, or a dict of what JSON knows) as JSON text; times in UTC, ISO 8601.

    What is not valid Unicode (a node may send it) becomes `?`. Raises NotStorable for a field whose value is not of its
    type, for a time without a zone and for what JSON does not know.
    """
    try:
        kind: Any = type(value)
        plain = _adapter(kind).dump_python(value, warnings="error")
        text = json.dumps(plain, default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise NotStorable(f"a {type(value).__name__} cannot be stored: {error}") from error
    return text.encode("utf-8", "replace").decode("utf-8")


def _plain(value: object) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"{value!r} is a {type(value).__name__}, which JSON does not know")
    if value.tzinfo is None:
        raise ValueError(f"the time {value.isoformat()} has no zone; it must be in UTC")
    return value.astimezone(UTC).isoformat()


def decode(kind: type[T], text: str, where: str) -> T:
    """The value that `encode` wrote. `where` names the row in the StoreError raised where it is not one."""
    from pydantic import ValidationError

    try:
        value: T = _adapter(cast("Any", kind)).validate_json(text)
        return value
    except ValidationError as error:
        first: Mapping[str, Any] = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "value"
        why = f"{field}: {first['msg']}"
    except ValueError as error:
        why = str(error)
    raise StoreError(f"{where} in the store is not a {kind.__name__} ({why}); was it written by a newer version?")
