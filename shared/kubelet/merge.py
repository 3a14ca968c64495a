"""How drop-ins come over the config: JSON merge patch on the whole configuration.

Sources: `cmd/kubelet/app/server.go` (mergeKubeletConfigurations) and `evanphx/json-patch` v4 (`merge.go`): objects
merge key by key, a null removes, everything else replaces, and nulls of objects inside of what is new are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from shared.kubelet.decode import Origins, Path, Struct
from shared.kubelet.gotypes import format_duration, format_float
from shared.kubelet.schema import GoType
from shared.kubelet.source import DEFAULT
from shared.kubelet.tree import Node, bottom_up, with_children


def encode(value: object, kind: GoType, origins: Origins, path: Path = ()) -> Node:
    """The configuration as Go marshals it to JSON, each value with its origin."""
    source = origins.get(path, DEFAULT)
    if value is None:
        return Node("null", source)
    if kind.kind == "pointer":
        return encode(value, kind.inner, origins, path)
    if kind.kind == "struct":
        struct = cast(Struct, value)
        members = tuple(
            (field.json, encode(struct[field.stored], field.type, origins, (*path, field.stored)))
            for field in kind.fields.values()
            if not (field.omitempty and _is_empty(struct[field.stored], field.type))
        )
        return Node("object", source, members=members)
    if kind.kind == "map":
        entries = cast("dict[str, object]", value)
        return Node(
            "object",
            source,
            members=tuple(
                (key, encode(entry, kind.inner, origins, (*path, key))) for key, entry in sorted(entries.items())
            ),
        )
    if kind.kind == "slice":
        items = cast("list[object]", value)
        return Node(
            "array",
            source,
            items=tuple(encode(item, kind.inner, origins, (*path, "")) for item in items),
        )
    if kind.kind == "bool":
        return Node("bool", source, truth=bool(value))
    if kind.kind in ("int", "uint"):
        return Node("number", source, text=str(value))
    if kind.kind == "float":
        return Node("number", source, text=format_float(cast(float, value)))
    if kind.kind in ("duration", "log_duration"):
        return Node("string", source, text=format_duration(cast(int, value)))
    return Node("string", source, text=str(value))


def _is_empty(value: object, kind: GoType) -> bool:
    """What Go's omitempty leaves out. A struct is never empty, nor are a duration and a quantity: they are structs."""
    if kind.kind in ("struct", "duration", "quantity"):
        return False
    if kind.kind == "pointer":
        return value is None
    return not value


def merge(document: Node, patch: Node) -> Node:
    """`document` with `patch` over it; both are objects."""
    open_objects = [_Merging("", patch, dict(document.members), iter(patch.members))]
    while True:
        inner = open_objects[-1]
        for name, value in inner.rest:
            current = inner.members.get(name)
            if value.kind == "null":
                inner.members.pop(name, None)
            elif current is None or current.kind != "object":
                inner.members[name] = bottom_up(value, _pruned)
            elif value.kind == "object":
                open_objects.append(_Merging(name, value, dict(current.members), iter(value.members)))
                break
            else:
                inner.members[name] = value
        else:
            open_objects.pop()
            # Go marshals the merged map in the order of its keys
            members = tuple(sorted(inner.members.items(), key=lambda member: member[0]))
            made = Node("object", inner.patch.source, members=members)
            if not open_objects:
                return made
            open_objects[-1].members[inner.name] = made


@dataclass(slots=True)
class _Merging:
    """One object of the patch that is being merged into the member `name` of the one around it."""

    name: str
    patch: Node
    members: dict[str, Node]
    rest: Iterator[tuple[str, Node]]


def _pruned(node: Node, children: tuple[Node, ...]) -> Node:
    """Without the nulls that are right inside of an object; those of a list stay."""
    if node.members:
        named = zip(node.members, children, strict=True)
        kept = tuple((name, child) for (name, _), child in named if child.kind != "null")
        return Node("object", node.source, node.span, members=kept)
    return with_children(node, children) if children else node
