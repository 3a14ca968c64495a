"""A predicted deployment in a form to keep and to compare: short ids, no open expressions, no long texts.

A kept snapshot is a file of infra/snapshots: `{from, resources, outputs}`. `resources` are by id, `from` names the
snapshot that it differs from, and the rest is then a JSON merge patch (RFC 7396) over that one, so that a change shows
once and not in every combination. What is shortened:

- An id in the deployment's own resource group begins with the type: `Microsoft.Storage/storageAccounts/x`.
- What only a deployment knows is in braces, in words (tools.bicep.expressions).
- A list of objects of just a name and a value is an object.
- A text of several lines, or a very long one, is its length and the beginning of its SHA-256.
- What is null is left out, as Azure Resource Manager does.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tools.bicep.expressions import is_expression, worked_out

FOLDER: Final = Path(__file__).resolve().parents[2] / "infra" / "snapshots"

_LONGEST_TEXT: Final = 400


@dataclass(frozen=True)
class Resource:
    """One predicted resource. `body` is without id, type and name."""

    id: str
    body: Mapping[str, Any]

    @property
    def type(self) -> str:
        """Full type, such as `Microsoft.Storage/storageAccounts/blobServices`."""
        return resource_type(self.id)

    @property
    def name(self) -> str:
        """The last part of the name."""
        return _after_provider(self.id).rsplit("/", 1)[1]

    @property
    def scope(self) -> str:
        """The id of what an extension resource, such as a role assignment, is on; the resource group's is empty."""
        return self.id.rpartition("/providers/")[0]

    def at(self, path: str) -> Any:
        """The value at a dotted path. Raises KeyError with the resource and what is missing."""
        found: Any = self.body
        for key in path.split("."):
            if not isinstance(found, Mapping) or key not in found:
                raise KeyError(f"{self.id} has no {path}: {key} is missing")
            found = found[key]
        return found


@dataclass(frozen=True)
class Snapshot:
    """What one deployment makes. `outputs` by name."""

    resources: Mapping[str, Mapping[str, Any]]
    outputs: Mapping[str, Any]

    def of(self, type_: str) -> list[Resource]:
        """All resources of a type."""
        return [resource for resource in self.all() if resource.type == type_]

    def only(self, type_: str) -> Resource:
        """The one resource of a type. Raises ValueError where there are others or none."""
        (found,) = self.of(type_)
        return found

    def all(self) -> list[Resource]:
        """Every resource."""
        return [Resource(id_, body) for id_, body in self.resources.items()]

    def data(self) -> dict[str, Any]:
        """Plain JSON data: `{resources, outputs}`."""
        return {"resources": self.resources, "outputs": self.outputs}


def resource_type(id_: str) -> str:
    """The type that an id names: the namespace, and every second part after it."""
    namespace, *parts = _after_provider(id_).split("/")
    return "/".join([namespace, *parts[::2]])


def short(predicted: Mapping[str, Any]) -> Snapshot:
    """A prediction of the compiler's (`bicep snapshot`) in the form to keep. Raises ValueError for two with one id."""
    groups = [
        resource["id"]
        for resource in predicted["predictedResources"]
        if resource["type"] == "Microsoft.Resources/resourceGroups"
    ]
    resources: dict[str, Mapping[str, Any]] = {}
    for resource in predicted["predictedResources"]:
        body = _short(resource, groups)
        id_ = body.pop("id")
        if not re.search(r"/providers/|^Microsoft\.", id_):
            id_ = id_.replace("/resourceGroups/", "/providers/Microsoft.Resources/resourceGroups/")
        if id_ in resources:
            raise ValueError(f"two resources are {id_}")
        if resource_type(id_) != body.pop("type") or not body.pop("name").endswith(Resource(id_, {}).name):
            raise ValueError(f"{id_} does not fit its type and name")
        resources[id_] = body
    outputs = _short(predicted["outputs"], groups)
    return Snapshot(resources, outputs)


def difference(base: Any, other: Any) -> Any:
    """The merge patch that makes `other` of `base`; `{}` where they are equal objects."""
    if not isinstance(base, Mapping) or not isinstance(other, Mapping):
        return other
    removed = {key: None for key in base if key not in other}
    changed = {
        key: difference(base[key], value) if key in base else value
        for key, value in other.items()
        if key not in base or base[key] != value
    }
    return removed | changed


def merged(base: Any, patch: Any) -> Any:
    """A merge patch applied (RFC 7396)."""
    if not isinstance(patch, Mapping):
        return patch
    found = dict(base) if isinstance(base, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


def text(snapshot: Snapshot, base_name: str | None, base: Snapshot | None) -> str:
    """The file of a snapshot that is kept as its difference from another one, or whole."""
    kept = difference(base.data(), snapshot.data()) if base else snapshot.data()
    content = {"from": base_name, **{key: kept[key] for key in ("outputs", "resources") if kept.get(key)}}
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def kept(name: str, folder: Path = FOLDER) -> Snapshot:
    """A kept snapshot, with those that it builds on. Raises OSError where the file is not there."""
    content: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    base_name = content.pop("from")
    base = kept(base_name, folder).data() if base_name else {"resources": {}, "outputs": {}}
    return Snapshot(**merged(base, content))


def _after_provider(id_: str) -> str:
    return id_.rpartition("/providers/")[2]


def _short(value: Any, groups: list[str]) -> Any:
    if isinstance(value, str):
        if is_expression(value):
            return _short(worked_out(value), groups)
        for group in groups:
            value = value.replace(f"{group}/providers/", "")
        if "\n" in value or len(value) > _LONGEST_TEXT:
            digest = hashlib.sha256(value.encode()).hexdigest()
            return f"({len(value)} characters, sha256 {digest[:16]})"
        return value
    if isinstance(value, Mapping):
        return {_short(key, groups): _short(item, groups) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return dict(_named(value, groups)) if _is_named(value) else [_short(item, groups) for item in value]
    return value


def _is_named(items: list[Any]) -> bool:
    pairs = [item for item in items if isinstance(item, Mapping) and set(item) == {"name", "value"}]
    # Settings that are given as a secret are in no prediction: they stand among the others as an open value.
    return bool(pairs) and all(item in pairs or isinstance(item, str) for item in items)


def _named(items: list[Any], groups: list[str]) -> Iterator[tuple[str, Any]]:
    for item in items:
        yield (
            (item["name"], _short(item["value"], groups)) if isinstance(item, Mapping) else (_short(item, groups), "…")
        )
