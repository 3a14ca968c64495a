"""Go types as data: what fields a struct has, under which JSON name, and how a value of each type is held here.

A struct's value is a dict by the published (v1beta1) JSON names, also where the type is the kubelet's internal one,
whose JSON names are others: `Field.stored` is the key in the dict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

GoKind = Literal[
    "bool", "int", "uint", "float", "string", "duration", "time", "log_duration", "quantity",
    "pointer", "slice", "map", "struct",
]  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class GoType:
    """`name` is Go's own for errors; `bits` the width of a number; `element` of pointer, slice and map.

    `fields` are a struct's, by JSON name.
    """

    kind: GoKind
    name: str
    bits: int = 0
    element: GoType | None = None
    fields: Mapping[str, Field] = field(default_factory=dict)

    @property
    def inner(self) -> GoType:
        """The element type of a pointer, slice or map."""
        assert self.element is not None, self.name
        return self.element


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """`omitempty` as in Go's tag; `stored` is the published JSON name."""

    json: str
    type: GoType
    omitempty: bool
    stored: str


_BASIC: Final[Mapping[str, tuple[GoKind, int]]] = {
    "bool": ("bool", 0),
    "string": ("string", 0),
    "int32": ("int", 32),
    "int64": ("int", 64),
    "uint32": ("uint", 32),
    "float64": ("float", 64),
    "v1.Duration": ("duration", 0),
    "v1.Time": ("time", 0),
    "v1.TimeOrMetaDuration": ("log_duration", 0),
    "resource.Quantity": ("quantity", 0),
    "resource.QuantityValue": ("quantity", 0),
}
_MAP: Final = re.compile(r"map\[[\w.]+\](.+)\Z")

Structs = Mapping[str, Mapping[str, tuple[str, str]]]
"""By a struct's Go name: its fields by JSON name, with the published name and the Go type ("!": never left out)."""


def go_type(name: str, structs: Structs, named: Mapping[str, str]) -> GoType:
    """The type that Go calls `name`. `named` says what a named type that is no struct stands for.

    Raises KeyError for a type that nothing here knows how to read.
    """
    members = structs.get(name)
    if members is not None:
        made = {
            json: Field(json, go_type(kind.removesuffix("!"), structs, named), not kind.endswith("!"), stored)
            for json, (stored, kind) in members.items()
        }
        return GoType("struct", name, fields=made)
    if name.startswith("*"):
        element = go_type(name[1:], structs, named)
        return GoType("pointer", element.name, element=element)
    if name.startswith("[]"):
        return GoType("slice", name, element=go_type(name[2:], structs, named))
    mapping = _MAP.match(name)
    if mapping is not None:
        return GoType("map", name, element=go_type(mapping[1], structs, named))
    if name in named:
        stands_for = go_type(named[name], structs, named)
        return GoType(stands_for.kind, name, stands_for.bits, stands_for.element)
    kind, bits = _BASIC[name]
    return GoType(kind, name, bits)


def zero(kind: GoType) -> object:
    """Go's zero value: None for pointers, slices and maps; a dict of zero values for a struct."""
    if kind.kind == "struct":
        return {member.stored: zero(member.type) for member in kind.fields.values()}
    return _ZERO.get(kind.kind)


_ZERO: Final[dict[str, object]] = {
    "bool": False, "int": 0, "uint": 0, "float": 0.0, "string": "", "duration": 0, "log_duration": 0,
    "quantity": "0",
}  # fmt: skip


def split_path(path: str, root: GoType) -> tuple[tuple[str, ...], GoType]:
    """A config path's parts and type. Below a map, the rest of the path is one key ("evictionHard.memory.available").

    Raises KeyError where the struct `root` has no such field.
    """
    at = root
    parts: list[str] = []
    rest = path
    while True:
        while at.kind == "pointer":
            at = at.inner
        if at.kind == "map":
            return (*parts, rest), at.inner
        name, dot, rest = rest.partition(".")
        found = at.fields.get(name)
        if found is None:
            raise KeyError(f"{path!r} is not a path of KubeletConfiguration v1beta1: no field {name!r}")
        parts.append(name)
        at = found.type
        if not dot:
            return tuple(parts), at
