"""A configuration as the kubelet itself tells it: in its log (YAML), or in its answer to configz (JSON).

Both are the v1beta1 object with its empty fields left out (`omitempty`): what is not there has Go's zero value, not a
default. Source: `cmd/kubelet/app/server.go` (the log), `pkg/kubelet/server` (configz).
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.kubelet.decode import decode_alone
from shared.kubelet.gates import FeatureGates
from shared.kubelet.gotypes import GoError
from shared.kubelet.minors import minor_rules
from shared.kubelet.resolve import GATES, printed
from shared.kubelet.schema import GoType, split_path, zero
from shared.kubelet.tree import Budget, DocumentError
from shared.kubelet.versions import nearest_minor
from shared.kubelet.yaml_text import parse_yaml


class NotTold(Exception):
    """What the kubelet told of a setting is no value of it. The text says what it told."""


def told(path: str, values: Mapping[str, str], version: str | None) -> object:
    """The effective value of a setting in `values` (setting → YAML or JSON text); of a feature gate whether it is on.

    A gate that is not among them is as its group (`featureGates.AllBeta`), or the version, has it; None where the
    version does not know it. Raises NotTold, and KeyError for a path that KubeletConfiguration does not have.
    """
    rules = minor_rules(nearest_minor(version)[0])
    _, kind = split_path(path, rules.configuration)
    if not path.startswith(GATES):
        if path not in values:
            plain = kind.inner if kind.kind == "pointer" else kind
            return printed(zero(plain), plain)
        return _value(path, values[path], kind)
    given = {name: bool(_value(f"{GATES}{name}", text, kind)) for name, text in _gates(values).items()}
    try:
        return FeatureGates(rules.gates, rules.dependencies).set(given).state(path.removeprefix(GATES))
    except GoError as error:
        raise NotTold(f"its feature gates are none of Kubernetes {version}: {error}") from None


def _gates(values: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix(GATES): text for name, text in values.items() if name.startswith(GATES)}


def asked(path: str) -> tuple[str, ...]:
    """What must be asked for, for a setting to be told: of a gate its groups as well."""
    return (path, f"{GATES}AllAlpha", f"{GATES}AllBeta") if path.startswith(GATES) else (path,)


def _value(path: str, text: str, kind: GoType) -> object:
    try:
        _, node = parse_yaml("", text, Budget())
        if node.kind == "null":
            raise NotTold(f"{path}: {text}, which is no value of it")
        return printed(decode_alone(node, kind), kind)
    except (DocumentError, GoError):
        raise NotTold(f"{path}: {text}, which is no value of it") from None
