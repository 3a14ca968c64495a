"""What one minor's kubelet knows, read from its data file: flags, fields, gates, defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from shared.kubelet.flags import Flag, FlagSet, read_flags
from shared.kubelet.gates import GateSpec, read_gates
from shared.kubelet.gotypes import parse_duration
from shared.kubelet.schema import GoKind, GoType, go_type, split_path
from shared.kubelet.versions import DATA, modelled_minors

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Default:
    """A built-in value of a setting. `has_nil`: "not set" is nil, so that a zero that was set stays."""

    path: Path
    value: object
    has_nil: bool


@dataclass(frozen=True, slots=True, eq=False)
class Minor:
    """The kubelet of Kubernetes 1.`number`.

    `internal` is the kubelet's own type of the configuration, where drop-ins are merged onto that. `gated_defaults`
    hold only where the gate is on; `legacy_defaults` only where neither config file nor drop-in directory is given.
    `kinds` are the (apiVersion, kind) that a config file may have without being unknown.
    """

    number: int
    flags: FlagSet
    configuration: GoType
    internal: GoType | None
    gates: Mapping[str, GateSpec]
    dependencies: Mapping[str, tuple[str, ...]]
    defaults: tuple[Default, ...]
    gated_defaults: Mapping[str, tuple[Default, ...]]
    legacy_defaults: tuple[Default, ...]
    eviction_hard: Mapping[str, str]
    kinds: frozenset[tuple[str, str]]
    cipher_suites: frozenset[str]
    tls_versions: frozenset[str]
    curves: frozenset[int]
    labels: frozenset[str]
    label_namespaces: tuple[str, ...]


KUBELET_GROUP: Final = "kubelet.config.k8s.io"


@cache
def minor_rules(number: int) -> Minor:
    """The rules of a minor that has data."""
    data: dict[str, Any] = json.loads((DATA / f"1.{number}.json").read_text("utf-8"))
    named = data["named"]
    published = {
        name: {field: (field, kind) for field, kind in fields.items()} for name, fields in data["types"].items()
    }
    configuration = go_type("v1beta1.KubeletConfiguration", published, named)
    internal = data.get("internal")
    return Minor(
        number=number,
        flags=read_flags(data["flags"]),
        configuration=configuration,
        internal=None if internal is None else go_type("config.KubeletConfiguration", internal, named),
        gates=read_gates(data["gates"]),
        dependencies={name: tuple(needs) for name, needs in data["dependencies"].items()},
        defaults=_defaults(data["defaults"], configuration),
        gated_defaults={gate: _defaults(more, configuration) for gate, more in data["gated_defaults"].items()},
        legacy_defaults=_defaults(data["legacy_defaults"], configuration),
        eviction_hard=data["eviction_hard"],
        kinds=frozenset((f"{KUBELET_GROUP}/{version}", kind) for version, _, kind in map(_words, data["kinds"])),
        cipher_suites=frozenset(data["cipher_suites"]),
        tls_versions=frozenset(data["tls_versions"]),
        curves=frozenset(data["curves"]),
        labels=frozenset(data["labels"]),
        label_namespaces=tuple(data["label_namespaces"]),
    )


def _words(text: str) -> tuple[str, str, str]:
    return text.partition(" ")


def _defaults(values: Mapping[str, object], configuration: GoType) -> tuple[Default, ...]:
    found: list[Default] = []
    for name, value in values.items():
        path, kind = split_path(name, configuration)
        has_nil = kind.kind in ("pointer", "slice", "map")
        inner = kind.inner if kind.kind == "pointer" else kind
        if inner.kind in ("duration", "log_duration"):
            assert isinstance(value, str), name
            found.append(Default(path, parse_duration(value), has_nil))
        else:
            found.append(Default(path, value, has_nil))
    return tuple(found)


@cache
def every_flag() -> FlagSet:
    """The flags of all minors that have data; where they differ, the newest counts."""
    names: dict[str, Flag] = {}
    for number in modelled_minors():
        names.update(minor_rules(number).flags.by_name)
    return FlagSet.of(names.values())


SECRETS = frozenset({"staticPodURL", "staticPodURLHeader"})
"""Settings that hold what a static pod's source is fetched with: a kubelet shows it in the clear, so nobody asks."""


def names_file(flag: str) -> bool:
    """Whether a kubelet's flag (with its dashes) has a text as its value, as one that names a file has."""
    known = every_flag().by_name.get(flag.removeprefix("--"))
    return known is not None and known.kind == "string"


def knows(path: str, flag: str) -> str:
    """Why no kubelet has this setting, or no such flag (with its dashes, '' for none) sets it; '' where one does."""
    if not any(_has(path, minor_rules(number).configuration) for number in modelled_minors()):
        return f"no kubelet has the setting {path}"
    known = every_flag().by_name.get(flag.removeprefix("--"))
    sets = known is not None and known.scope == "config" and f"{path}.".startswith(f"{known.path}.")
    if flag and not sets:
        return f"the flag {flag} does not set {path}"
    return ""


def kind_of(path: str) -> GoKind:
    """What a setting is in the newest minor that has it, pointers followed. Raises KeyError where none has it."""
    for number in reversed(modelled_minors()):
        with suppress(KeyError):
            _, kind = split_path(path, minor_rules(number).configuration)
            return kind.inner.kind if kind.kind == "pointer" else kind.kind
    raise KeyError(path)


def _has(path: str, configuration: GoType) -> bool:
    try:
        split_path(path, configuration)
    except KeyError:
        return False
    return True
