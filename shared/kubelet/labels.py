"""Kubernetes' rules for labels and taints, as far as the kubelet's flags and config are checked by them.

Sources: `apimachinery/pkg/util/validation` (qualified names, label values), `pkg/util/taints`,
`staging/src/k8s.io/kubelet/pkg/apis/well_known_labels.go`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Final

from shared.kubelet.gotypes import GoError

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
_DNS_LABELS: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*\Z")
_EFFECTS: Final = frozenset({"NoSchedule", "PreferNoSchedule", "NoExecute"})


def is_qualified_name(text: str) -> bool:
    """validation.IsQualifiedName: an optional DNS prefix and a name of at most 63 characters."""
    prefix, slash, name = text.rpartition("/")
    if slash and (len(prefix) > 253 or not _DNS_LABELS.match(prefix)):
        return False
    return len(name) <= 63 and _NAME.match(name) is not None


def is_label_value(text: str) -> bool:
    """validation.IsValidLabelValue: empty, or as a name."""
    return not text or (len(text) <= 63 and _NAME.match(text) is not None)


def check_node_labels(labels: Mapping[str, str], own: Set[str], namespaces: Iterable[str]) -> None:
    """ValidateKubeletFlags on --node-labels; of Kubernetes' labels a kubelet may set its `own`. Raises GoError."""
    allowed = tuple(namespaces)
    foreign = sorted(
        key for key in labels if _is_kubernetes_label(key) and key not in own and not _is_in(_namespace(key), allowed)
    )
    if foreign:
        raise GoError(f"unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: {foreign}")
    for key, value in labels.items():
        if not is_qualified_name(key):
            raise GoError(f"invalid node labels: '{key}' - name part must consist of alphanumeric characters")
        if not is_label_value(value):
            raise GoError(f"invalid node labels: '{value}' - a valid label must be an empty string or a name")


def _namespace(key: str) -> str:
    namespace, slash, _ = key.partition("/")
    return namespace if slash else ""


def _is_kubernetes_label(key: str) -> bool:
    return _is_in(_namespace(key), ("kubernetes.io", "k8s.io"))


def _is_in(namespace: str, names: Iterable[str]) -> bool:
    return any(namespace == name or namespace.endswith(f".{name}") for name in names)


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str
    effect: str


def parse_taints(specs: Iterable[str]) -> list[Taint]:
    """taints.ParseTaints; a spec that removes ("key-") is read and dropped. Raises GoError."""
    found: dict[tuple[str, str], Taint] = {}
    for spec in specs:
        removes = spec.endswith("-")
        taint = _parse_taint(spec.removesuffix("-"))
        if removes:
            continue
        if not taint.effect:
            raise GoError(f"invalid taint spec: {spec}")
        if (taint.key, taint.effect) in found:
            raise GoError(f"duplicated taints with the same key and effect: {spec}")
        found[taint.key, taint.effect] = taint
    return list(found.values())


def _parse_taint(spec: str) -> Taint:
    head, colon, effect = spec.partition(":")
    if ":" in effect:
        raise GoError(f"invalid taint spec: {spec}")
    key, value = head, ""
    if colon:
        if effect not in _EFFECTS:
            raise GoError(f"invalid taint effect: {effect}, unsupported taint effect")
        key, _, value = head.partition("=")
        if "=" in value or not is_label_value(value):
            raise GoError(f"invalid taint spec: {spec}")
    if not is_qualified_name(key):
        raise GoError(f"invalid taint spec: {spec}")
    return Taint(key, value, effect)


def is_valid_taint(key: object, value: object, effect: object) -> bool:
    """taints.CheckTaintValidation."""
    return is_qualified_name(str(key)) and is_label_value(str(value)) and (effect == "" or effect in _EFFECTS)
