"""Go's JSON decoding of a document into KubeletConfiguration, with where each value came from.

Sources: `encoding/json` (drop-ins, after the merge; field names match in any case) and `sigs.k8s.io/json` (the config
file; field names match exactly), `metav1.Duration` and `resource.Quantity` for their own forms. Both decoders go
through an object's members in order, so a doubled key decodes onto what the first one left: a null or an object
does not undo it.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final, cast

from shared.kubelet.gotypes import GoError, parse_duration, parse_int, parse_quantity, parse_uint, quote
from shared.kubelet.schema import Field, GoType, zero
from shared.kubelet.source import Source
from shared.kubelet.tree import Node

Path = tuple[str, ...]
Struct = dict[str, object]


Origins = dict[Path, Source]
"""Where a value was read from, by path; a path that is not here has its default."""


def forget(origins: Origins, path: Path, value: object) -> None:
    """Drops the origin of `value` at `path` and of all that is in it."""
    origins.pop(path, None)
    if isinstance(value, dict):
        for name, below in value.items():
            forget(origins, (*path, name), below)


def decode_struct(node: Node, kind: GoType, into: Struct, origins: Origins, *, any_case: bool) -> None:
    """Decodes the object `node` onto `into`. Raises GoError as Go's decoder says it."""
    decoder = _Decoder(origins, any_case)
    decoder.value(node, kind, into, (), ())
    if decoder.first_error is not None:
        raise GoError(decoder.first_error)


def decode_alone(node: Node, kind: GoType) -> object:
    """One value of a file as a setting of type `kind`. Raises GoError where it does not fit."""
    decoder = _Decoder({}, any_case=False)
    value = decoder.value(node, kind, zero(kind), (), ())
    if decoder.first_error is not None:
        raise GoError(decoder.first_error)
    return value


@cache
def _by_folded_name(kind: GoType) -> dict[str, Field]:
    folded: dict[str, Field] = {}
    for name, field in kind.fields.items():
        folded.setdefault(fold(name), field)
    return folded


def fold(name: str) -> str:
    """Equal for names that encoding/json takes for one field: ASCII case, long s and the Kelvin sign."""
    return name.replace("\u017f", "s").replace("\u212a", "k").lower()


_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})\Z"
)


class _Decoder:
    def __init__(self, origins: Origins, any_case: bool) -> None:
        self.origins = origins
        self.any_case = any_case
        self.first_error: str | None = None
        self.struct = ""  # Go's name of the struct being decoded

    def value(self, node: Node, kind: GoType, current: object, path: Path, fields: Path) -> object:
        """The value after decoding `node` onto `current`. `fields` are the struct fields on the way, for errors."""
        if kind.kind == "pointer":
            if node.kind == "null":
                forget(self.origins, path, current)
                return None
            return self.value(node, kind.inner, zero(kind.inner) if current is None else current, path, fields)
        if kind.kind in _OWN_FORMS:
            return self.own_form(node, kind, current, path, fields)
        if node.kind == "null":
            if kind.kind in ("slice", "map"):
                forget(self.origins, path, current)
                return None
            return current
        if kind.kind == "struct":
            return self.structure(node, kind, current, path, fields)
        if kind.kind == "map":
            return self.mapping(node, kind, current, path, fields)
        if kind.kind == "slice":
            return self.sequence(node, kind, current, path, fields)
        return self.scalar(node, kind, current, path, fields)

    def structure(self, node: Node, kind: GoType, current: object, path: Path, fields: Path) -> object:
        if node.kind != "object":
            return self.mismatch(node.kind, kind, current, fields)
        into = cast(Struct, current)
        outer, self.struct = self.struct, kind.name.rpartition(".")[2]
        for name, member in node.members:
            found = kind.fields.get(name)
            if found is None and self.any_case:
                found = _by_folded_name(kind).get(fold(name))
            if found is not None:
                self.struct = kind.name.rpartition(".")[2]
                into[found.stored] = self.value(
                    member, found.type, into[found.stored], (*path, found.stored), (*fields, found.json)
                )
        self.struct = outer
        return into

    def mapping(self, node: Node, kind: GoType, current: object, path: Path, fields: Path) -> object:
        if node.kind != "object":
            return self.mismatch(node.kind, kind, current, fields)
        into = dict(cast("dict[str, object]", current or {}))
        self.origins[path] = node.source
        for name, member in node.members:
            below = (*path, name)
            self.origins[below] = member.source
            into[name] = self.value(member, kind.inner, zero(kind.inner), below, fields)
        return into

    def sequence(self, node: Node, kind: GoType, current: object, path: Path, fields: Path) -> object:
        """A list is decoded onto the elements of the one before: what a null or an object leaves out stays."""
        if node.kind != "array":
            return self.mismatch(node.kind, kind, current, fields)
        outer, self.origins = self.origins, {}  # where one element comes from is nobody's question
        before = [copy_of(element) for element in cast("list[object] | None", current) or ()]
        items = [
            self.value(item, kind.inner, before[at] if at < len(before) else zero(kind.inner), path, fields)
            for at, item in enumerate(node.items)
        ]
        self.origins = outer
        self.origins[path] = node.source
        return items

    def scalar(self, node: Node, kind: GoType, current: object, path: Path, fields: Path) -> object:
        wanted = {"bool": "bool", "string": "string"}.get(kind.kind, "number")
        if node.kind != wanted:
            return self.mismatch(node.kind, kind, current, fields)
        result: object
        if kind.kind == "bool":
            result = node.truth
        elif kind.kind == "string":
            result = node.text
        else:
            try:
                result = _number(node.text, kind)
            except GoError:
                return self.mismatch(f"number {node.text[:40]}", kind, current, fields)
        self.origins[path] = node.source
        return result

    def own_form(self, node: Node, kind: GoType, current: object, path: Path, fields: Path) -> object:
        """Types with an UnmarshalJSON of their own: what that returns ends the decoding."""
        if kind.kind == "quantity":
            text = {"string": node.text, "number": node.text, "null": "0"}.get(node.kind)
            if text is None:
                text = "{" if node.kind == "object" else node.kind
            parse_quantity(text.strip())
            result: object = text.strip()
        elif kind.kind == "log_duration" and node.kind != "string":
            if node.kind == "null":
                return current
            if node.kind != "number":
                raise GoError(self.wrong_type(node.kind, "time.Duration", fields))
            try:
                result = parse_int(node.text, 64, base=10)
            except GoError:
                raise GoError(self.wrong_type(f"number {node.text[:40]}", "time.Duration", fields)) from None
        elif kind.kind == "time":
            if node.kind == "null":
                return None
            if node.kind != "string":
                raise GoError(self.wrong_type(node.kind, "string", fields))
            if not _RFC3339.match(node.text):
                raise GoError(f'parsing time {quote(node.text)} as "2006-01-02T15:04:05Z07:00": cannot parse')
            result = node.text
        else:
            if node.kind not in ("string", "null"):
                raise GoError(self.wrong_type(node.kind, "string", fields))
            result = parse_duration(node.text)  # of a null: the empty text, which is no duration
        self.origins[path] = node.source
        return result

    def mismatch(self, got: str, kind: GoType, current: object, fields: Path) -> object:
        """Go notes the first value of a wrong type and goes on; the decoding fails at its end."""
        if self.first_error is None:
            self.first_error = self.wrong_type(got, kind.name, fields)
        return current

    def wrong_type(self, got: str, wanted: str, fields: Path) -> str:
        if not fields:
            return f"json: cannot unmarshal {got} into Go value of type {wanted}"
        where = f"{self.struct}.{'.'.join(fields)}"
        return f"json: cannot unmarshal {got} into Go struct field {where} of type {wanted}"


def copy_of(value: object) -> object:
    """A struct's or a map's own copy, so that decoding onto it leaves the first one alone."""
    return {name: copy_of(below) for name, below in value.items()} if isinstance(value, dict) else value


_OWN_FORMS: Final = frozenset({"duration", "log_duration", "quantity", "time"})


def _number(text: str, kind: GoType) -> int | float:
    if kind.kind == "float":
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise GoError("value out of range")
        return value
    if kind.kind == "uint":
        return parse_uint(text, kind.bits)
    return parse_int(text, kind.bits, base=10)
