"""How drop-ins come over the config: JSON merge patch on the whole configuration.

Sources: `cmd/kubelet/app/server.go` (mergeKubeletConfigurations) and `evanphx/json-patch` v4 (`merge.go`): objects
merge key by key, a null removes, everything else replaces, and nulls inside of what is new are dropped.
"""

from __future__ import annotations

from typing import cast

from shared.kubelet.decode import Origins, Path, Struct
from shared.kubelet.gotypes import format_duration, format_float
from shared.kubelet.schema import GoType, fields_in
from shared.kubelet.source import DEFAULT
from shared.kubelet.tree import Node


def encode(value: object, kind: GoType, origins: Origins, *, minor: int, path: Path = ()) -> Node:
    """The configuration as Go marshals it to JSON, each value with its origin."""
    source = origins.get(path, DEFAULT)
    if value is None:
        return Node("null", source)
    if kind.kind == "pointer":
        return encode(value, kind.inner, origins, minor=minor, path=path)
    if kind.kind == "struct":
        struct = cast(Struct, value)
        members = tuple(
            (field.json, encode(struct[field.json], field.type, origins, minor=minor, path=(*path, field.json)))
            for field in fields_in(kind, minor)
            if not (field.omitempty and _is_empty(struct[field.json], field.type))
        )
        return Node("object", source, members=members)
    if kind.kind == "map":
        entries = cast("dict[str, object]", value)
        return Node(
            "object",
            source,
            members=tuple(
                (key, encode(entry, kind.inner, origins, minor=minor, path=(*path, key)))
                for key, entry in sorted(entries.items())
            ),
        )
    if kind.kind == "slice":
        items = cast("list[object]", value)
        return Node(
            "array",
            source,
            items=tuple(encode(item, kind.inner, origins, minor=minor, path=(*path, "")) for item in items),
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
    members = dict(document.members)
    for name, value in patch.members:
        current = members.get(name)
        if value.kind == "null":
            members.pop(name, None)
        elif current is None or current.kind != "object":
            members[name] = _pruned(value)
        elif value.kind == "object":
            members[name] = merge(current, value)
        else:
            members[name] = value
    # Go marshals the merged map in the order of its keys
    return Node("object", patch.source, members=tuple(sorted(members.items(), key=lambda member: member[0])))


def _pruned(node: Node) -> Node:
    if node.kind == "object":
        kept = tuple((name, _pruned(value)) for name, value in node.members if value.kind != "null")
        return Node("object", node.source, node.span, members=kept)
    if node.kind == "array":
        return Node(
            "array", node.source, node.span, items=tuple(_pruned(item) for item in node.items if item.kind != "null")
        )
    return node
