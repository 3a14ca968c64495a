"""What an API server says of nodes and kubelets, where the app asks it by itself: read as the sweep's script reads it
in the cluster (nodes.jq, answer.jq). Pure.

Of a kubelet's configuration nothing but the settings that are asked for is kept.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from shared.cluster.answers import Json, NodeConfig, resource_id
from shared.cluster.sweep import NODE_SECONDS, node_name
from shared.cluster.troubles import node_problem

WAY = "api"
"""How the texts of troubles name this way."""

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+:-]{0,79}", re.ASCII)
# As in the script: settings that are longer than this are none.
_LONGEST_VALUES = 3500
_LONGEST_WORDS = 4000
_READY = {"True": True, "False": False}
# Of an answer that is none: what its words (the API server's, or a kubelet's) come to, the first that fits.
_TROUBLES = tuple(
    (re.compile(pattern), word)
    for pattern, word in (
        (r"connection refused|was refused|no route to host|network is unreachable", "refused"),
        (r"deadline exceeded|Client\.Timeout|i/o timeout|timed out|TLS handshake timeout", "timeout"),
        (r"x509: |tls: failed to verify", "certificate"),
    )
)
_STATUSES = {401: "unauthorized", 403: "forbidden", 404: "not_found", 408: "timeout", 429: "not_asked", 504: "timeout"}


def read_node(item: object) -> NodeConfig | None:
    """A node of the API's list, not asked yet; None where it has no name. What cannot be so is left empty."""
    name = _at(item, "metadata", "name")
    if not isinstance(name, str) or not node_name(name):
        return None
    conditions = _at(item, "status", "conditions")
    ready = next((each for each in _objects(conditions) if each.get("type") == "Ready"), {})
    info = _at(item, "status", "nodeInfo")
    machine = _at(item, "spec", "providerID")
    return NodeConfig(
        name,
        resource_id(machine) if isinstance(machine, str) and len(machine) <= 400 else "",
        _word(_at(info, "kubeletVersion")),
        _word(_at(info, "bootID")),
        _word(_at(info, "operatingSystem")),
        _READY.get(_word(ready.get("status"))),
        _time(_word(ready.get("lastTransitionTime"))),
    )


def known_machines(nodes: Iterable[NodeConfig], seconds: int = NODE_SECONDS) -> list[NodeConfig]:
    """All nodes of a cluster, with the trouble of those that name no machine, or one that another node names too."""
    listed = [*nodes]
    named = Counter(node.resource_id for node in listed)

    def told(node: NodeConfig) -> NodeConfig:
        if node.resource_id and named[node.resource_id] == 1:
            return node
        return troubled(node, "doubled_id" if node.resource_id else "no_id", seconds)

    return [told(node) for node in listed]


def troubled(node: NodeConfig, word: str, seconds: int = NODE_SECONDS) -> NodeConfig:
    """A node whose kubelet was not heard, by the script's word for why."""
    return replace(node, trouble=node_problem(word, WAY, node.name, seconds))


def heard(node: NodeConfig, status: int, body: bytes, settings: Sequence[str]) -> NodeConfig:
    """A node with what its kubelet answered through the API server's proxy: an HTTP status, and at most so much of the
    body as a configuration can have."""
    if status != 200:
        return troubled(node, _trouble(status, body))
    try:
        config = _at(json.loads(body), "kubeletconfig")
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, Mapping):
        return troubled(node, "malformed")
    values = {setting: value for setting in settings if (value := _at(config, *setting.split("."))) is not None}
    try:
        # What JSON or Unicode does not have (NaN, half a surrogate pair), and Python reads, goes no further.
        json.dumps(values, allow_nan=False, ensure_ascii=False).encode("utf-8")
        long = len(json.dumps(list(values.values()))) > _LONGEST_VALUES
    except (ValueError, RecursionError):
        return troubled(node, "malformed")
    return troubled(node, "too_long") if long else replace(node, values=values)


def failing_pods(body: object) -> int | None:
    """How many pods of a list should be up and are not ready; None where it is no list. Those of command invoke do not
    count."""
    if not isinstance(_at(body, "items"), list):
        return None
    return sum(map(_failing, _objects(_at(body, "items"))))


def _failing(pod: Mapping[str, Json]) -> bool:
    if _at(pod, "metadata", "namespace") == "aks-command" or _at(pod, "status", "phase") == "Succeeded":
        return False
    conditions = _objects(_at(pod, "status", "conditions"))
    return not any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _trouble(status: int, body: bytes) -> str:
    if status in _STATUSES:
        return _STATUSES[status]
    if status < 500:
        return "malformed"
    words = body[:_LONGEST_WORDS].decode("utf-8", "replace")
    return next((word for pattern, word in _TROUBLES if pattern.search(words)), "unreachable")


def _at(value: object, *path: str) -> Json:
    """What stands at a path of objects; None where there is nothing, or it leads through something else."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value  # type: ignore[return-value]  # it is JSON that was read


def _objects(value: object) -> list[Mapping[str, Json]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _word(value: object) -> str:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""


def _time(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
