"""A config file as the kubelet takes it in: JSON or YAML by its content.

Source: `apimachinery/pkg/runtime/serializer` (recognizer, json) and `pkg/kubelet/kubeletconfig/configfiles`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from shared.kubelet.decode import fold
from shared.kubelet.gotypes import MAX_INT64, format_float, parse_int, quote
from shared.kubelet.json_text import parse_json
from shared.kubelet.minors import KUBELET_GROUP, Minor
from shared.kubelet.tree import Budget, DocumentError, LimitError, Node, bottom_up, last_member, with_children
from shared.kubelet.yaml_text import parse_yaml

_KIND: Final = (f"{KUBELET_GROUP}/v1beta1", "KubeletConfiguration")
_SCHEME: Final = "k8s.io/kubernetes/pkg/kubelet/apis/config/scheme/scheme.go:33"


@dataclass(frozen=True, slots=True)
class Document:
    """A file that could be read. `written` keeps YAML's doubled keys, `read` is what the kubelet decodes."""

    written: Node
    read: Node
    yaml: bool


def read_document(path: str, text: str, budget: Budget) -> Document:
    """Reads a file's text. Raises DocumentError where it is neither JSON nor YAML, LimitError beyond the budget."""
    if text.lstrip(_GO_SPACE).startswith("{"):
        try:
            root = parse_json(path, text, budget)
        except LimitError:
            raise
        except DocumentError as error:
            raise DocumentError(f"couldn't get version/kind; json parse error: {error}") from error
        return Document(root, root, yaml=False)
    written, read = parse_yaml(path, text, budget)
    return Document(written, read, yaml=True)


# unicode.IsSpace; the byte order mark is none, so it makes a JSON file YAML
_GO_SPACE: Final = (
    "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
)


def check_config_kind(document: Document, text: str, rules: Minor) -> None:
    """What the kubelet asks of a config file's apiVersion and kind. Raises DocumentError."""
    version, kind = _type_meta(document.read)
    if not kind:
        raise DocumentError(f"Object 'Kind' is missing in '{_one_line(text)}'")
    group, slash, number = version.rpartition("/")
    if not number:
        raise DocumentError(f"Object 'apiVersion' is missing in '{_one_line(text)}'")
    if slash and "/" in group:
        raise DocumentError(f"unexpected GroupVersion string: {version}")
    if (version, kind) == _KIND:
        return
    if (version, kind) in rules.kinds:
        raise DocumentError(
            f"failed to cast object to KubeletConfiguration, unexpected type: {group}/{number}, Kind={kind}"
        )
    raise DocumentError(f"no kind {quote(kind)} is registered for version {quote(version)} in scheme {quote(_SCHEME)}")


def check_dropin_kind(document: Document, text: str, rules: Minor) -> None:
    """What the kubelet asks of a drop-in: exactly named keys, none doubled. Raises DocumentError."""
    version, _ = _type_meta(document.read)
    doubled = first_doubled(document.written)
    exact_kind, exact_version = (
        node.text if node is not None and node.kind == "string" else ""
        for node in (last_member(document.read, "kind"), last_member(document.read, "apiVersion"))
    )
    if "/" in version.partition("/")[2]:
        raise DocumentError(f"unexpected GroupVersion string: {version}")
    if not exact_kind:
        raise DocumentError(f"Object 'Kind' is missing in '{_one_line(text)}'")
    if doubled is not None:
        where = f"key {quote(doubled)} already set in map" if document.yaml else f"duplicate field {quote(doubled)}"
        raise DocumentError(f"strict decoding error: {where}")
    if rules.internal is None and (exact_version, exact_kind) != _KIND:
        raise DocumentError(f"unknown apiVersion/kind: {exact_version}, Kind={exact_kind}")


def _type_meta(root: Node) -> tuple[str, str]:
    """apiVersion and kind as the first look finds them: in any case of letters, the last one wins."""
    if root.kind not in ("object", "null"):
        raise DocumentError(
            "couldn't get version/kind; json parse error: "
            f"json: cannot unmarshal {root.kind} into Go value of type struct"
        )
    found = {"apiversion": "", "kind": ""}
    for name, node in root.members:
        folded = fold(name)
        if folded in found and node.kind != "null":
            if node.kind != "string":
                raise DocumentError(
                    "couldn't get version/kind; json parse error: "
                    f"json: cannot unmarshal {node.kind} into Go struct field .{name} of type string"
                )
            found[folded] = node.text
    return found["apiversion"], found["kind"]


def first_doubled(root: Node) -> str | None:
    """A key that stands twice in one object, anywhere in the document."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        names: set[str] = set()
        for name, _ in node.members:
            if name in names:
                return name
            names.add(name)
        waiting.extend(reversed(node.children))
    return None


def canonical_numbers(root: Node) -> Node:
    """A drop-in's numbers after its way through Go's int64 and float64: 1.0 and 1e3 become 1 and 1000.

    Raises DocumentError for a number beyond float64.
    """
    return bottom_up(root, _canonical_number)


def _canonical_number(node: Node, children: tuple[Node, ...]) -> Node:
    if node.kind == "number":
        return replace(node, text=_canonical(node.text))
    return with_children(node, children) if children else node


def _canonical(text: str) -> str:
    if text.lstrip("-").isdigit() and len(text) <= 20:
        value = int(text)
        if -MAX_INT64 - 1 <= value <= MAX_INT64:
            return str(parse_int(text, 64, base=10))
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise DocumentError(f"json: cannot unmarshal number {text[:40]} into Go value of type float64")
    return format_float(number)


def _one_line(text: str) -> str:
    """The start of a file's text, on one line: the kubelet quotes all of it, which may hold what no log should."""
    flat = re.sub(r"\s+", " ", text[:2000])
    return flat if len(flat) <= 80 else flat[:80] + "…"
