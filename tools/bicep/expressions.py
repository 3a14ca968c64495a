"""What a prediction leaves open: expressions of the ARM template language (`[concat(…, reference(…).name)]`), because
only a deployment knows what they read. They are worked out as far as lists, objects and texts go, and the rest is put
into words: `{Microsoft.Storage/storageAccounts/x.primaryEndpoints.blob}`.

Source: "Template syntax and expressions" and the function reference of Azure Resource Manager's documentation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

_TOKEN: Final = re.compile(r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+)|(?P<name>\w+)|(?P<sign>[()\[\].,?]))")


class ExpressionError(ValueError):
    """Not an expression of the template language."""


@dataclass(frozen=True, slots=True)
class Open:
    """A part of a value that only the deployment knows: `words` say what it is."""

    words: str


def is_expression(text: str) -> bool:
    """Whether a text of a template is an expression: in brackets, and not with the two that stand for one."""
    return text.startswith("[") and text.endswith("]") and not text.startswith("[[")


def worked_out(text: str) -> Any:
    """The value of an expression in brackets as plain JSON data, with what is open in words and braces.

    Raises ExpressionError for what is no expression.
    """
    reader = _Reader(text[1:-1])
    value = reader.value()
    if reader.peek() is not None:
        raise ExpressionError(f"{reader.peek()!r} follows an expression: {text}")
    return _plain(value)


class _Reader:
    """A recursive descent over one expression, which evaluates as it reads."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def peek(self) -> str | None:
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            rest = self._text[self._at :].strip()
            if rest:
                raise ExpressionError(f"cannot read {rest[:40]!r}")
            return None
        return found[found.lastgroup or 0]

    def value(self) -> Any:
        token = self._next()
        if token.startswith("'"):
            found: Any = token[1:-1].replace("''", "'")
        elif re.fullmatch(r"-?\d+", token):
            found = int(token)
        else:
            if self._next() != "(":
                raise ExpressionError(f"{token} is no call of a function")
            found = _call(token, self._arguments())
        while self.peek() in (".", "["):
            if self._next() == ".":
                if self.peek() == "?":
                    self._next()
                found = _member(found, self._next())
            else:
                if self.peek() == "?":
                    self._next()
                found = _member(found, self.value())
                self._expect("]")
        return found

    def _arguments(self) -> list[Any]:
        found: list[Any] = []
        while self.peek() != ")":
            if found:
                self._expect(",")
            found.append(self.value())
        self._next()
        return found

    def _expect(self, sign: str) -> None:
        if (token := self._next()) != sign:
            raise ExpressionError(f"{token!r} where {sign!r} is expected")

    def _next(self) -> str:
        token = self.peek()
        if token is None:
            raise ExpressionError(f"ends too early: {self._text}")
        found = _TOKEN.match(self._text, self._at)
        assert found is not None
        self._at = found.end()
        return token


def _call(name: str, arguments: list[Any]) -> Any:
    match name, arguments:
        case "createArray", _:
            return arguments
        case "createObject", _:
            return dict(zip(arguments[::2], arguments[1::2], strict=True))
        case (("true" | "false" | "null"), []):
            return {"true": True, "false": False, "null": None}[name]
        case "format", [str(template), *values]:
            return re.sub(r"\{(\d+)\}", lambda found: _within(values[int(found[1])]), template)
        case "concat", [list(), *_]:
            return [item for argument in arguments for item in (argument if isinstance(argument, list) else [argument])]
        case "concat", _:
            return "".join(map(_within, arguments))
        case "reference", [str(target), *_]:
            # The version that is asked with says nothing of what is read.
            return Open(target)
        case "extensionResourceId", [scope, type_, resource]:
            return f"{_within(scope)}/providers/{type_}/{_within(resource)}"
        case "subscriptionResourceId", [str(subscription), type_, resource]:
            return f"/subscriptions/{subscription}/providers/{type_}/{_within(resource)}"
        case _:
            # Of an id the last part says enough: names of resources, which this is mostly in, have no slash.
            return Open(f"{name}({', '.join(_bare(argument).rsplit('/', 1)[-1] for argument in arguments)})")


def _member(value: Any, key: Any) -> Any:
    if isinstance(value, Open):
        return Open(f"{value.words}.{_bare(key)}")
    return value[key]


def _bare(value: Any) -> str:
    return value.words if isinstance(value, Open) else str(_plain(value))


def _within(value: Any) -> str:
    return f"{{{value.words}}}" if isinstance(value, Open) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Open):
        return _within(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
