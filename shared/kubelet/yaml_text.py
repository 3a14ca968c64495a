"""YAML as the kubelet reads it: go-yaml v2's resolution of scalars, then sigs.k8s.io/yaml's conversion to JSON.

Sources: go-yaml v2 `resolve.go` and `decode.go` (tags, merge keys, aliases), sigs.k8s.io/yaml `yaml.go` (keys).
The result is what the JSON that the kubelet makes of the YAML holds, with the places in the YAML text.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from dataclasses import dataclass, field
from typing import Final, Protocol

from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)

from shared.kubelet.gotypes import MAX_INT64, GoError, format_float, parse_int, quote, underscores_ok
from shared.kubelet.tree import MAX_DEPTH, MAX_NODES, DocumentError, Lines, Node, check_size
from shared.kubelet.yaml_events import first_document

_TAG: Final = "tag:yaml.org,2002:"
_BOOLS: Final = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_FLOATS: Final = {
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_YAML_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_DOT_FLOAT: Final = re.compile(r"\.[0-9]+([eE][-+]?[0-9]+)?\Z")
_BINARY: Final = re.compile(r"[01]+\Z")

Scalar = bool | int | float | str | None


class _Mark(Protocol):
    index: int


@dataclass(slots=True)
class _Yaml:
    """A node of the document's graph; an alias points to its target."""

    event: NodeEvent
    start: int
    end: int
    children: list[_Yaml] = field(default_factory=list)
    target: _Yaml | None = None


def parse_yaml(path: str, text: str) -> Node | None:
    """The first document of `text`; None where it is empty. Raises DocumentError in go-yaml's words.

    Objects keep doubled keys (also those a merge key brings in), sorted by key; of equal keys the last counts.
    """
    check_size(text)
    root = _compose(text)
    return None if root is None else _Converter(path, text).convert(root)


def _compose(text: str) -> _Yaml | None:
    root: _Yaml | None = None
    anchors: dict[str, _Yaml] = {}
    open_nodes: list[_Yaml] = []
    count = 0
    for event in first_document(text):
        if isinstance(event, CollectionEndEvent):
            closed = open_nodes.pop()
            closed.end = _index(event.end_mark)
            continue
        if not isinstance(event, NodeEvent):
            continue
        count += 1
        if count > MAX_NODES or len(open_nodes) >= MAX_DEPTH:
            raise DocumentError("yaml: the document is nested too deeply or has too many values")
        node = _Yaml(event, _index(event.start_mark), _index(event.end_mark))
        if isinstance(event, AliasEvent):
            node.target = anchors.get(event.anchor or "")
            if node.target is None:
                raise DocumentError(f"yaml: unknown anchor '{event.anchor}' referenced")
        elif event.anchor is not None:
            anchors[event.anchor] = node
        if isinstance(event, ScalarEvent) and any("\ud800" <= char <= "\udfff" for char in event.value):
            raise DocumentError("yaml: found invalid Unicode character escape code")
        if open_nodes:
            open_nodes[-1].children.append(node)
        else:
            root = node
        if isinstance(event, CollectionStartEvent):
            open_nodes.append(node)
    return root


def _index(mark: _Mark | None) -> int:
    assert mark is not None  # PyYAML's types allow events that nobody read from a text
    return mark.index


class _Converter:
    def __init__(self, path: str, text: str) -> None:
        self.lines = Lines(path, text)
        self.text = text
        self.decoded = 0
        self.aliased = 0
        self.aliases: list[_Yaml] = []
        self.depth = 0

    def convert(self, node: _Yaml) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:  # aliases included
            raise DocumentError("yaml: the document is nested too deeply")
        value = self.alias(node, node.target) if node.target is not None else self.content(node)
        self.depth -= 1
        return value

    def content(self, node: _Yaml) -> Node:
        self.count()
        if isinstance(node.event, ScalarEvent):
            return self.scalar(node, node.event)
        start = self.content_start(node)
        source = self.lines.source(start)
        if isinstance(node.event, MappingStartEvent):
            members = sorted(self.members(node), key=lambda member: member[0])
            return Node("object", source, (start, node.end), members=tuple(members))
        items = tuple(self.convert(child) for child in node.children)
        return Node("array", source, (start, node.end), items=items)

    def count(self) -> None:
        """go-yaml's guard against alias bombs, with a lower ceiling."""
        self.decoded += 1
        if self.aliases:
            self.aliased += 1
        if self.decoded > MAX_NODES or (
            self.aliased > 100 and self.decoded > 1000 and self.aliased / self.decoded > 0.99
        ):
            raise DocumentError("yaml: document contains excessive aliasing")

    def alias(self, node: _Yaml, target: _Yaml) -> Node:
        self.count()
        if any(target is other for other in self.aliases):
            raise DocumentError(f"yaml: anchor '{target.event.anchor}' value contains itself")
        self.aliases.append(target)
        value = self.convert(target)
        self.aliases.pop()
        # an edit goes where the alias stands, not to the anchor that other places share
        return Node(
            value.kind,
            self.lines.source(node.start),
            (node.start, node.end),
            value.text,
            value.truth,
            value.items,
            value.members,
        )

    def members(self, node: _Yaml) -> list[tuple[str, Node]]:
        found: list[tuple[str, Node]] = []
        for key, value in zip(node.children[::2], node.children[1::2], strict=True):
            if _is_merge(key):
                found.extend(self.merged(value))
            else:
                name = self.key(key)
                found.append((name, self.convert(value)))
        return found

    def merged(self, value: _Yaml) -> list[tuple[str, Node]]:
        """What `<<: value` sets: a mapping, or a list of them of which the first counts most."""
        source = value if value.target is None else value.target
        if isinstance(source.event, MappingStartEvent):
            return self.mapping_members(value)
        if source is value and isinstance(value.event, CollectionStartEvent):
            return [member for item in reversed(value.children) for member in self.mapping_members(item)]
        raise DocumentError("yaml: map merge requires map or sequence of maps as the value")

    def mapping_members(self, node: _Yaml) -> list[tuple[str, Node]]:
        target = node if node.target is None else node.target
        if not isinstance(target.event, MappingStartEvent):
            raise DocumentError("yaml: map merge requires map or sequence of maps as the value")
        self.count()
        if node.target is None:
            return self.members(node)
        if any(target is other for other in self.aliases) or len(self.aliases) >= MAX_DEPTH:
            raise DocumentError(f"yaml: anchor '{target.event.anchor}' value contains itself")
        self.aliases.append(target)
        members = self.members(target)
        self.aliases.pop()
        return members

    def key(self, node: _Yaml) -> str:
        target = node if node.target is None else node.target
        self.count()
        if not isinstance(target.event, ScalarEvent):
            raise DocumentError("yaml: invalid map key")
        value = _resolve_event(target.event)
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float):
            return _float_key(value)
        if isinstance(value, int) and value <= MAX_INT64:
            return str(value)
        raise DocumentError(f"unsupported map key {quote(str(target.event.value))}")

    def scalar(self, node: _Yaml, event: ScalarEvent) -> Node:
        start = self.content_start(node)
        source, span = self.lines.source(start), (start, node.end)
        value = _resolve_event(event)
        if value is None:
            return Node("null", source, span)
        if isinstance(value, bool):
            return Node("bool", source, span, truth=value)
        if isinstance(value, str):
            return Node("string", source, span, text=value)
        if isinstance(value, int):
            return Node("number", source, span, text=str(value))
        if not math.isfinite(value):
            name = "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
            raise DocumentError(f"json: unsupported value: {name}")
        return Node("number", source, span, text=format_float(value))

    def content_start(self, node: _Yaml) -> int:
        """Past a leading anchor: it stays where it is when the value is replaced. A tag belongs to the value."""
        at = node.start
        while at < node.end and self.text[at] == "&":
            while at < node.end and not self.text[at].isspace():
                at += 1
            while at < node.end and self.text[at].isspace():
                at += 1
        return at


def _is_merge(key: _Yaml) -> bool:
    event = key.event
    if not isinstance(event, ScalarEvent) or event.value != "<<":
        return False
    return (event.tag in (None, "!") and event.implicit[0]) or event.tag == _TAG + "merge"


def _resolve_event(event: ScalarEvent) -> Scalar:
    """go-yaml's decoder.scalar: quoted text without a tag is a string, all else is resolved."""
    tag = str(event.tag or "")
    text = str(event.value)
    if not tag and not event.implicit[0]:
        return text
    if tag == _TAG + "binary":
        try:
            return base64.b64decode("".join(text.split("\n")), validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            raise DocumentError("yaml: !!binary value contains invalid base64 data") from None
    short = tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag
    if tag and (short == tag or short not in ("str", "bool", "int", "float", "null", "timestamp")):
        return text  # a tag that go-yaml does not know leaves a string; "!" is one
    if short == "str":
        return text
    value, kind = _resolve(text, short)
    if not short or kind == short:
        return value
    if short == "float" and kind == "int" and isinstance(value, int):
        return float(value)
    raise DocumentError(f"yaml: cannot decode !!{kind} `{text}` as a !!{short}")


def _resolve(text: str, tag: str) -> tuple[Scalar, str]:
    """The value and go-yaml's name for its kind."""
    if text in _NULLS:
        return None, "null"
    if text in _BOOLS:
        return _BOOLS[text], "bool"
    if text in _FLOATS:
        return _FLOATS[text], "float"
    first = text[0]
    if first == ".":
        plain = text.replace("_", "") if underscores_ok(text) else text
        if _DOT_FLOAT.match(plain) and math.isfinite(float(plain)):
            return float(plain), "float"
        return text, "str"
    if first not in "+-0123456789":
        return text, "str"
    if tag in ("", "timestamp") and _TIMESTAMP.match(text):
        return text, "timestamp"
    plain = text.replace("_", "")
    for bits in (64, 65):  # int64, then uint64
        try:
            value = parse_int(plain, bits)
        except GoError:
            continue
        if bits == 64 or (value >= 0 and plain[0] not in "+-"):
            return value, "int"
    if _YAML_FLOAT.match(plain) and math.isfinite(float(plain)):
        return float(plain), "float"
    return text, "str"


# go-yaml's formats; only their kind matters: a timestamp stays the text that it is. Days are not checked.
_TIMESTAMP: Final = re.compile(
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"(?:[Tt ][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:[.,][0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})?)?\Z"
)


def _float_key(value: float) -> str:
    """A float as a map key: Go's FormatFloat 'g'."""
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    text = repr(value)
    return text.removesuffix(".0")
