"""What a sweep prints, taken apart: trusting nothing, and losing no node.

The report is lines of JSON: one of the sweep, one a node, one an answer. After it comes its frame, as the last line, so
that a report whose end is missing cannot pass for a whole one:

    KC1 LINES BYTES NONCE SHA256_OF_THE_REPORT

A pod that lacks a tool prints `KC1 missing NONCE TOOL…` in its place.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from shared.cluster.sweep import NODE_SECONDS, Way
from shared.cluster.troubles import node_problem, sweep_problem
from shared.models import Problem

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

LONGEST_REPORT = 1024 * 1024

_FRAME = re.compile(r"KC1 (\d{1,6}) (\d{1,7}) ([0-9a-f]{16}) ([0-9a-f]{64})", re.ASCII)
_MISSING = re.compile(r"KC1 missing ([0-9a-f]{16})((?: [a-z0-9]{1,20}){1,20})", re.ASCII)
_WORD = re.compile(r"[a-z_]{0,40}", re.ASCII)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
# A version, a boot's id: the form that the script lets out. Who runs the pod may have printed another.
_FACT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+:-]{0,79}", re.ASCII)
_ANSWER = re.compile(r'\{"answer":"([a-z0-9.-]{1,253})",', re.ASCII)
_PODS = re.compile(r'\{"pods":"([a-z0-9.-]{1,253})","failing":(-1|\d{1,6})\}', re.ASCII)
_PART = r"[A-Za-z0-9_.()-]{1,90}"
_MACHINE = re.compile(
    rf"azure://(/subscriptions/[0-9a-f-]{{36}}/resourceGroups/{_PART}/providers/Microsoft\.Compute"
    rf"/(?:virtualMachineScaleSets/{_PART}/virtualMachines/\d{{1,10}}|virtualMachines/{_PART}))",
    re.IGNORECASE | re.ASCII,
)
_PASSING = {"configz_not_asked", "configz_no_room", "configz_lost"}
_READY = {"True": True, "False": False}
# Of a setting: a list in an object in a list, and room.
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What a cluster says of one node, and what its kubelet says of itself.

    `resource_id` is the machine's Azure resource id in lower case (empty: it names none). `version` is the kubelet's
    ("v1.33.5"), `boot_id` the running kernel's. `ready` is the node's condition (None: nobody knows) and `since` when
    it became so. `values` holds the settings that were asked for and are there: one that is absent has Go's zero value,
    since a kubelet leaves empty fields out. It is empty where `trouble` says why the kubelet was not heard.
    `failing` is how many of its pods are not well (None: not asked, or not known).
    """

    name: str
    resource_id: str = ""
    version: str = ""
    boot_id: str = ""
    os: str = ""
    ready: bool | None = None
    since: datetime | None = None
    values: Mapping[str, Json] = field(default_factory=dict)
    trouble: Problem | None = None
    failing: int | None = None


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one call told. `nodes` are by name; all that were chosen are in it, and all that were named.

    `listed` is how many nodes the cluster has. `left` is how many come after the last of `nodes`, to be asked for by
    another call with `after=last`. `problem` is why no kubelet was asked (then every node in `nodes` has it too).
    """

    nodes: Mapping[str, NodeConfig]
    listed: int = 0
    left: int = 0
    problem: Problem | None = None

    @property
    def again(self) -> tuple[str, ...]:
        """The nodes that another call may well hear, since this one had no time or room for them."""
        return tuple(name for name, node in self.nodes.items() if node.trouble and node.trouble.code in _PASSING)

    @property
    def last(self) -> str:
        """The name after which the next call goes on."""
        return max(self.nodes, default="")


def resource_id(provider_id: str) -> str:
    """The Azure resource id, in lower case, that a node's spec.providerID names; empty where it names none.

    `azure://` and the id: of a scale set's instance (`azure:///subscriptions/…/virtualMachineScaleSets/S/virtualMachines/0`)
    or of a single VM (`…/virtualMachines/NAME`). Its case is the cloud provider's, which is not Resource Manager's.
    """
    found = _MACHINE.fullmatch(provider_id)
    return found[1].lower() if found is not None else ""


def parse_sweep(
    text: str,
    nonce: str,
    settings: Sequence[str],
    way: Way,
    *,
    nodes: Iterable[str] | None = None,
    seconds: int = NODE_SECONDS,
) -> Sweep:
    """What the script made of the same arguments printed, with whatever stands before it. Raises nothing."""
    named = [] if nodes is None else [*nodes]
    try:
        lines = _report(text, nonce)
        sweep = _read(lines, settings, way, seconds)
    except _Garbled as error:
        sweep = Sweep({}, problem=error.problem)
    unheard = {
        name: NodeConfig(name, trouble=sweep.problem or node_problem("unknown_node", way, name, seconds))
        for name in named
        if name not in sweep.nodes
    }
    return replace(sweep, nodes={**sweep.nodes, **unheard}) if unheard else sweep


def doubled(name: str) -> Problem:
    """Why a node is not heard that names a machine which another node of its cluster names too."""
    return node_problem("doubled_id", "", name, 0)


class _Garbled(Exception):
    """What came is no report."""

    def __init__(self, detail: str, word: str = "garbled") -> None:
        super().__init__(detail)
        self.problem = sweep_problem(word, detail)


def _report(text: str, nonce: str) -> list[str]:
    """The lines of the report, proved to be whole."""
    if len(text) > LONGEST_REPORT:
        raise _Garbled(f"{len(text):,} characters")
    body, _, last = text.rstrip().rpartition("\n")
    last = last.strip()
    if (missing := _MISSING.fullmatch(last)) is not None and missing[1] == nonce:
        raise _Garbled(", ".join(missing[2].split()), "missing_tools")
    frame = _FRAME.fullmatch(last)
    if frame is None:
        raise _Garbled("its end is missing, or something else was printed after it")
    if frame[3] != nonce:
        raise _Garbled("it is the answer to another request")
    raw = f"{body}\n".encode("utf-8", "replace")[-int(frame[2]) :]
    if len(raw) != int(frame[2]) or hashlib.sha256(raw).hexdigest() != frame[4]:
        raise _Garbled("it was cut off or changed on its way")
    lines = raw.decode("utf-8", "replace").splitlines()
    if len(lines) != int(frame[1]):
        raise _Garbled("it has more or fewer lines than it says")
    return lines


def _read(lines: Sequence[str], settings: Sequence[str], way: Way, seconds: int) -> Sweep:
    head = _object(lines[0] if lines else "")
    word, listed, left = head.get("sweep"), head.get("listed"), head.get("left")
    if (
        not isinstance(word, str)
        or not _WORD.fullmatch(word)
        or not isinstance(listed, int)
        or not isinstance(left, int)
    ):
        raise _Garbled("it does not begin as a report does")
    problem = sweep_problem(word) if word else None
    found: dict[str, NodeConfig] = {}
    answers: dict[str, str] = {}
    failing: dict[str, int] = {}
    for line in lines[1:]:
        if (answer := _ANSWER.match(line)) is not None:
            answers[answer[1]] = line
        elif (pods := _PODS.fullmatch(line)) is not None:
            failing[pods[1]] = int(pods[2])
        else:
            node = _node(_object(line), way, seconds)
            found[node.name] = node
    if strange := answers.keys() - found.keys():
        raise _Garbled(f"{len(strange)} answers of nodes that it does not list")
    twice = {machine for machine, count in Counter(node.resource_id for node in found.values()).items() if count > 1}
    for name, node in found.items():
        if problem is not None:
            found[name] = replace(node, trouble=problem)
        elif not node.resource_id:
            found[name] = replace(node, trouble=node_problem("no_id", way, name, seconds))
        elif node.resource_id in twice:
            found[name] = replace(node, trouble=doubled(name))
        elif node.trouble is None:
            values = _values(answers.get(name), settings)
            found[name] = (
                replace(node, trouble=node_problem(values, way, name, seconds))
                if isinstance(values, str)
                else replace(node, values=values)
            )
    for name, count in failing.items():
        if name in found and count >= 0:
            found[name] = replace(found[name], failing=count)
    return Sweep(found, listed, left, problem)


def _object(line: str) -> Mapping[str, object]:
    try:
        read: object = json.loads(line)
    except (ValueError, RecursionError):
        raise _Garbled("a line of it is not JSON") from None
    if not isinstance(read, dict):
        raise _Garbled("a line of it is not an object")
    return read


def _node(item: Mapping[str, object], way: Way, seconds: int) -> NodeConfig:
    def text(name: str) -> str:
        value = item.get(name)
        return value if isinstance(value, str) and len(value) <= 400 else ""

    def fact(name: str) -> str:
        return value if _FACT.fullmatch(value := text(name)) else ""

    name, word = text("node"), text("trouble")
    if not _NAME.fullmatch(name) or not _WORD.fullmatch(word):
        raise _Garbled("a node without a name")
    return NodeConfig(
        name,
        resource_id(text("id")),
        fact("version"),
        fact("boot"),
        fact("os"),
        _READY.get(text("ready")),
        _time(text("since")),
        trouble=node_problem(word, way, name, seconds) if word else None,
    )


def _time(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _nested(value: object) -> bool:
    """Whether something is nested deeper than any field of a kubelet's configuration (pure).

    How deep json.loads itself goes is another number in each Python.
    """
    at = [value]
    for _ in range(_DEEPEST):
        at = [inner for each in at for inner in _inner(each)]
    return bool(at)


def _inner(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _values(line: str | None, settings: Sequence[str]) -> dict[str, Json] | str:
    """The values that an answer has, or the word for why it has none."""
    if line is None:
        return "lost"
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return "malformed"  # of one kubelet alone
    word, values = answer.get("trouble"), answer.get("values")
    if isinstance(word, str) and word and _WORD.fullmatch(word):
        return word
    if not isinstance(values, list) or len(values) != len(settings) or _nested(values):
        return "malformed"
    return {setting: value for setting, value in zip(settings, values, strict=True) if value is not None}
