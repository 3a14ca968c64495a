"""YAML as the kubelet reads it: go-yaml v2's resolution of scalars, then sigs.k8s.io/yaml's conversion to JSON.

Sources: go-yaml v2 `resolve.go` and `decode.go` (tags, merge keys, aliases), sigs.k8s.io/yaml `yaml.go` (keys).
The result is what the JSON that the kubelet makes of the YAML holds, with the places in the YAML text.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
)

from shared.kubelet.gotypes import MAX_INT64, GoError, format_float, parse_int, quote, underscores_ok
from shared.kubelet.source import DEFAULT, Source
from shared.kubelet.tree import MAX_DEPTH, Budget, DocumentError, Lines, Node
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
# go-yaml's guard against alias bombs, in documents of less than 400,000 nodes: ours are smaller.
_ALIASED_SHARE: Final = 0.99

Scalar = bool | int | float | str | None


class _Mark(Protocol):
    index: int


@dataclass(slots=True, eq=False)
class _Part:
    """One node of the document, as it is written and as the kubelet reads it (without doubled keys).

    `decodes` is how many nodes go-yaml decodes for it, `height` how deep it nests; both with what is behind aliases.
    `scalar` is the event of a scalar, also of one behind an alias; `mappings` what is in the list of a merge key.
    """

    written: Node
    read: Node
    decodes: int
    height: int
    scalar: ScalarEvent | None = None
    mappings: list[_Part] | None = None
    aliased: bool = False


@dataclass(slots=True, eq=False)
class _Open:
    """A collection that has begun. `merges` tells that it is the list of a merge key."""

    event: CollectionStartEvent
    start: int
    merges: bool
    parts: list[_Part] = field(default_factory=list)


def parse_yaml(path: str, text: str, budget: Budget) -> tuple[Node, Node]:
    """The first document of `text`, as it is written and as it is read; a null where it is empty.

    As it is written, objects keep doubled keys (also those a merge key brings in), sorted by key; of equal keys the
    last counts. Raises DocumentError in go-yaml's words, LimitError beyond the budget.
    """
    budget.text(text)
    composer = _Composer(path, text, budget)
    for event in first_document(text):
        composer.take(event)
    return composer.result()


class _Composer:
    """Builds the document from its events. What go-yaml's decoder refuses is refused after all was parsed."""

    def __init__(self, path: str, text: str, budget: Budget) -> None:
        self.lines = Lines(path, text)
        self.text = text
        self.budget = budget
        self.open: list[_Open] = []
        self.anchors: dict[str, _Part | _Open] = {}
        self.root: _Part | None = None
        self.failure: str | None = None
        self.late: dict[int, str] = {}  # what fails once it is made JSON, by the id of the node that is read
        self.kept: list[Node] = []  # those nodes: an id is only good as long as its object lives
        self.decoded = 1  # the document
        self.aliased = 0

    def take(self, event: Event) -> None:
        if isinstance(event, CollectionEndEvent):
            opened = self.open.pop()
            self.add(self.closed(opened, _index(event.end_mark)), opened.event.anchor)
        elif isinstance(event, CollectionStartEvent):
            self.begin(event)
        elif isinstance(event, AliasEvent):
            self.add(self.alias(event), None)
        elif isinstance(event, ScalarEvent):
            self.add(self.scalar(event), event.anchor)

    def result(self) -> tuple[Node, Node]:
        if self.failure is not None:
            raise DocumentError(self.failure)
        if self.root is None:
            empty = Node("null", self.lines.source(0))
            return empty, empty
        if self.root.height > MAX_DEPTH:
            raise DocumentError("exceeded max depth")
        if self.late:
            self.refuse_late(self.root.read)
        return self.root.written, self.root.read

    def refuse_late(self, root: Node) -> None:
        seen: set[int] = set()
        waiting = [root]
        while waiting:
            node = waiting.pop()
            if id(node) in self.late:
                raise DocumentError(self.late[id(node)])
            if id(node) not in seen:
                seen.add(id(node))
                waiting.extend(node.children)

    def fail(self, words: str) -> None:
        if self.failure is None:
            self.failure = words

    def add(self, part: _Part, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = part
        if self.open:
            self.open[-1].parts.append(part)
        else:
            self.root = part

    def begin(self, event: CollectionStartEvent) -> None:
        merges = self.is_merge_value() and not isinstance(event, MappingStartEvent)
        if not merges:
            self.count(1)
        opened = _Open(event, _index(event.start_mark), merges)
        if event.anchor is not None:
            self.anchors[event.anchor] = opened
        self.open.append(opened)

    def is_key(self) -> bool:
        """Whether what comes next is a mapping's key."""
        return (
            bool(self.open) and isinstance(self.open[-1].event, MappingStartEvent) and len(self.open[-1].parts) % 2 == 0
        )

    def is_merge_value(self) -> bool:
        if not self.open or not isinstance(self.open[-1].event, MappingStartEvent) or self.is_key():
            return False
        return _is_merge(self.open[-1].parts[-1])

    def count(self, more: int) -> None:
        self.decoded += more
        self.budget.values(more)

    def scalar(self, event: ScalarEvent) -> _Part:
        if any("\ud800" <= char <= "\udfff" for char in event.value):
            raise DocumentError("yaml: found invalid Unicode character escape code")
        key = self.is_key()
        node = _NO_NODE if key and event.anchor is None else self.scalar_node(event)
        part = _Part(node, node, 1, 0, scalar=event)
        if key and _is_merge(part):
            part.decodes = 0
        else:
            self.count(1)
        return part

    def scalar_node(self, event: ScalarEvent) -> Node:
        end = _index(event.end_mark)
        start = self.content_start(_index(event.start_mark), end)
        source, span = self.lines.source(start), (start, end)
        try:
            value = _resolve_event(event)
        except DocumentError as error:
            self.fail(str(error))
            return Node("null", source, span)
        if value is None:
            return Node("null", source, span)
        if isinstance(value, bool):
            return Node("bool", source, span, truth=value)
        if isinstance(value, str):
            return Node("string", source, span, text=value)
        if isinstance(value, int):
            return Node("number", source, span, text=str(value))
        if math.isfinite(value):
            return Node("number", source, span, text=format_float(value))
        name = "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
        node = Node("number", source, span, text="0")
        self.late[id(node)] = f"json: unsupported value: {name}"
        self.kept.append(node)
        return node

    def alias(self, event: AliasEvent) -> _Part:
        target = self.anchors.get(event.anchor or "")
        if target is None:
            raise DocumentError(f"yaml: unknown anchor '{event.anchor}' referenced")
        start, end = _index(event.start_mark), _index(event.end_mark)
        if isinstance(target, _Open):
            self.fail(f"yaml: anchor '{event.anchor}' value contains itself")
            node = Node("null", self.lines.source(start), (start, end))
            return _Part(node, node, 1, 0)
        self.decoded += 1 + target.decodes
        self.aliased += target.decodes
        # Within an alias the share of the aliased grows, so that its end is where go-yaml's guard would strike.
        if self.aliased > 100 and self.decoded > 1000 and self.aliased / self.decoded > _ALIASED_SHARE:
            raise DocumentError("yaml: document contains excessive aliasing")
        self.budget.values(1 + target.decodes)
        # an edit goes where the alias stands, not to the anchor that other places share
        source, span = self.lines.source(start), (start, end)
        written = replace(target.written, source=source, span=span)
        read = written if target.read is target.written else replace(target.read, source=source, span=span)
        if id(target.read) in self.late:
            self.late[id(read)] = self.late[id(target.read)]
            self.kept.append(read)
        return _Part(written, read, 1 + target.decodes, target.height, target.scalar, aliased=True)

    def closed(self, opened: _Open, end: int) -> _Part:
        parts = opened.parts
        decodes = sum(part.decodes for part in parts) + (0 if opened.merges else 1)
        height = 1 + max((part.height for part in parts), default=0)
        if height > MAX_DEPTH + 1:  # aliases of aliases: no need to know how much deeper
            height = MAX_DEPTH + 1
        start = self.content_start(opened.start, end)
        source, span = self.lines.source(start), (start, end)
        if isinstance(opened.event, MappingStartEvent):
            written, read = self.mapping(parts, source, span)
        else:
            written = Node("array", source, span, items=tuple(part.written for part in parts))
            read = written
            if any(part.read is not part.written for part in parts):
                read = replace(written, items=tuple(part.read for part in parts))
        return _Part(written, read, decodes, height, mappings=parts if opened.merges else None)

    def mapping(self, parts: list[_Part], source: Source, span: tuple[int, int]) -> tuple[Node, Node]:
        written: list[tuple[str, Node]] = []
        read: dict[str, Node] = {}
        unsupported: str | None = None
        for key, value in zip(parts[::2], parts[1::2], strict=True):
            if _is_merge(key):
                for mapping in self.merged(value):
                    written.extend(mapping.written.members)
                    read.update(mapping.read.members)
                    unsupported = unsupported or self.late.get(id(mapping.read))
                continue
            if key.scalar is None:
                self.fail("yaml: invalid map key")
                continue
            try:
                name = _key(key.scalar)
            except _UnsupportedKey as error:
                unsupported = unsupported or str(error)
                continue
            except DocumentError as error:
                self.fail(str(error))
                continue
            written.append((name, value.written))
            read[name] = value.read
        written.sort(key=lambda member: member[0])
        made = Node("object", source, span, members=tuple(written))
        members = tuple(sorted(read.items(), key=lambda member: member[0]))
        same = len(members) == len(written) and all(
            mine[1] is other[1] for mine, other in zip(members, written, strict=True)
        )
        deduplicated = made if same else replace(made, members=members)
        if unsupported is not None:
            self.late[id(deduplicated)] = unsupported
            self.kept.append(deduplicated)
        return made, deduplicated

    def merged(self, value: _Part) -> list[_Part]:
        """The mappings that `<<: value` brings in, the one that counts most last."""
        found = [value] if value.mappings is None else list(reversed(value.mappings))
        if all(mapping.written.kind == "object" for mapping in found):
            return found
        self.fail("yaml: map merge requires map or sequence of maps as the value")
        return []

    def content_start(self, at: int, end: int) -> int:
        """Past a leading anchor: it stays where it is when the value is replaced. A tag belongs to the value."""
        while at < end and self.text[at] == "&":
            while at < end and not self.text[at].isspace():
                at += 1
            while at < end and self.text[at].isspace():
                at += 1
        return at


_NO_NODE: Final = Node("null", DEFAULT)


def _index(mark: _Mark | None) -> int:
    assert mark is not None  # PyYAML's types allow events that nobody read from a text
    return mark.index


def _is_merge(key: _Part) -> bool:
    event = key.scalar
    if event is None or key.aliased or event.value != "<<":
        return False
    return (event.tag in (None, "!") and event.implicit[0]) or event.tag == _TAG + "merge"


class _UnsupportedKey(Exception):
    """A key that YAML takes and JSON does not."""


def _key(event: ScalarEvent) -> str:
    """A mapping's key as JSON has it. Raises DocumentError, _UnsupportedKey."""
    value = _resolve_event(event)
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float_key(value)
    if isinstance(value, int) and value <= MAX_INT64:
        return str(value)
    raise _UnsupportedKey(f"unsupported map key {quote(str(event.value))}")


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
