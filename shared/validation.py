"""What pydantic refuses, in people's words: what is wrong with a value, and what would be right."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shared.plain import plain

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SHOWN = 60
_LONGEST = 300

_WORDS: dict[str, Callable[[Any, dict[str, Any]], str]] = {
    "missing": lambda _, __: "is missing",
    "extra_forbidden": lambda _, __: "is not known here",
    "bool_type": lambda _, __: "must be true or false, without quotes",
    "int_type": lambda _, __: "must be a whole number, without quotes",
    "int_parsing": lambda _, __: "must be a whole number",
    "int_from_float": lambda _, __: "must be a whole number",
    "string_type": lambda _, __: "must be text",
    "tuple_type": lambda _, __: "must be a list",
    "literal_error": lambda _, more: f"must be {more['expected']}",
    "enum": lambda _, more: f"must be {more['expected']}",
    "greater_than_equal": lambda _, more: f"must be at least {more['ge']}",
    "less_than_equal": lambda _, more: f"must be at most {more['le']}",
    "string_too_short": lambda _, more: (
        "must not be empty" if more["min_length"] == 1 else f"must have at least {more['min_length']} characters"
    ),
    "string_too_long": lambda _, more: f"must have at most {more['max_length']} characters",
    "string_pattern_mismatch": lambda given, _: f"{plain(str(given), _SHOWN)!r} is not a possible name",
    "model_type": lambda _, __: "must be a JSON object, such as {}",
    "model_attributes_type": lambda _, __: "must be a JSON object, such as {}",
    "value_error": lambda _, more: str(more["error"]),
}


def field_of(error: ErrorDetails) -> str:
    """Where the value stands, such as `clusters.0`; empty for the whole."""
    return plain(".".join(str(part) for part in error["loc"]), _SHOWN)


def said(error: ErrorDetails) -> str:
    """What is wrong with the value, at most 300 characters; it follows the field's name and a colon."""
    words = _WORDS.get(error["type"])
    return plain(words(error.get("input"), error.get("ctx", {})) if words else error["msg"], _LONGEST)
