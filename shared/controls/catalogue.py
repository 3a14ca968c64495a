"""The controls and benchmarks as data: `catalogue.yaml`, and a file of one's own that adds to it or overrides it.

Adding a control is one entry there. Sources of the entries: CIS Azure Kubernetes Service (AKS) Benchmark, section 3;
numbers and titles are the benchmark's, everything else is in our own words.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from shared.controls.rules import AnyRule, Equals, FileRule, NonZeroDuration, Present, Scalar, show
from shared.errors import SettingsError
from shared.kubelet import GATES, SECRETS, asked, flag_text, kind_of, knows, minor_of, names_file
from shared.kubelet.gotypes import GoError, format_duration, parse_duration
from shared.models import Node
from shared.plain import plain
from shared.validation import said

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# Some 300 controls. YAML is slow to read, and who starts a run waits for it.
_LONGEST = 262_144
_MOST_SAID = 5
# One question to a cluster has at most 100, and of feature gates two groups are among them (shared/cluster/sweep.py).
_MOST_SETTINGS = 98


# What a setting's value is, by its Go kind, and in words.
_TYPES: Mapping[str, tuple[type[Scalar], str]] = {
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "uint": (int, "a whole number"),
    "string": (str, "text"),
    "duration": (str, "a duration such as 4h0m0s"),
    "log_duration": (str, "a duration such as 5s"),
}
_DURATIONS = ("duration", "log_duration")


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Versions(_Entry):
    """A range of Kubernetes minors, both ends included."""

    from_: Annotated[str, Field(alias="from", pattern=r"^1\.[0-9]{1,3}$")] = "1.0"
    to: Annotated[str, Field(pattern=r"^1\.[0-9]{1,3}$")] = "1.999"

    def holds(self, version: str | None) -> bool:
        """Whether a Kubernetes version ("1.33.2") is within the range; one that is not known is."""
        minor = minor_of(version)
        return minor is None or int(self.from_[2:]) <= minor <= int(self.to[2:])

    def __str__(self) -> str:
        return f"{self.from_} to {self.to}" if self.to != "1.999" else f"{self.from_} and later"


class Applies(_Entry):
    """To which nodes a control applies: their operating system, Kubernetes version and kind of machine."""

    os: tuple[Literal["linux", "windows"], ...] = Field(default=("linux",), strict=False, min_length=1)
    kubernetes: Versions = Versions()
    machines: tuple[Literal["scale_set", "virtual_machine"], ...] = Field(
        default=("scale_set", "virtual_machine"), strict=False, min_length=1
    )


class Place(_Entry):
    """The file that a control is about: what a flag of the kubelet names, or a path of the host."""

    flag: Annotated[str, Field(pattern=r"^(--[a-z][a-z0-9-]*)?$")] = ""
    path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_.@-]+)*$")] = ""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.flag) == bool(self.path):
            raise ValueError("must have either a flag or a path")
        if self.path and posixpath.normpath(self.path) != self.path:
            raise ValueError(f"must be a path without . and .., and {self.path!r} is not")
        return self

    def __str__(self) -> str:
        return self.path or f"the file of {self.flag}"


class Control(_Entry):
    """One recommendation about one setting of the kubelet, or about one file of the node.

    `setting` is the path in KubeletConfiguration and `flag` the command-line flag that sets the same. `write` is what a
    fix writes where the rule does not say it; a control with `by_hand` is never planned, and this says what to do
    instead.
    """

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]
    title: Annotated[str, Field(min_length=1, max_length=300)]
    severity: Literal["low", "medium", "high"]
    setting: Annotated[str, Field(pattern=r"^([A-Za-z][A-Za-z0-9.]{0,99})?$")] = ""
    flag: Annotated[str, Field(pattern=r"^(--[a-z][a-z0-9-]*)?$")] = ""
    file: Place | None = None
    rule: AnyRule
    write: Scalar | None = None
    by_hand: str = ""
    applies: Applies = Applies()
    rationale: str
    impact: str = ""
    fix: str
    references: tuple[str, ...] = Field((), strict=False)

    @model_validator(mode="after")
    def _fits(self, info: ValidationInfo) -> Self:
        if (self.file is None) == (not self.setting):
            raise ValueError("must be about either a setting or a file")
        if isinstance(self.rule, FileRule) != (self.file is not None):
            raise ValueError("mode_at_most and owner are rules of a file, all others of a setting")
        if self.file is not None and self.file.flag and info.context is not None and not names_file(self.file.flag):
            raise ValueError(f"no flag {self.file.flag} of a kubelet names a file")
        if self.file is not None and (self.flag or self.write is not None):
            raise ValueError("flag and write belong to a setting")
        # Those that this version comes with are tested; to ask costs every minor's data.
        if self.setting and info.context is not None and (why := self._unlike_a_kubelet()):
            raise ValueError(why)
        if self.setting and not self.by_hand and self.right is None:
            raise ValueError(f"must have `write` (what a fix writes) or `by_hand`: {self.rule.kind} does not say it")
        if self.right is not None and not self.complies(self.right):
            raise ValueError(f"a fix would write {show(self.right)}, which must {self.must}")
        return self

    def _unlike_a_kubelet(self) -> str:
        """Why no kubelet has this setting and flag, or why no value that the setting has could comply; else ''."""
        if why := knows(self.setting, self.flag):
            return why
        if self.setting in SECRETS:
            return f"{self.setting} holds secrets, and nothing of it leaves a node"
        kind = kind_of(self.setting)
        if kind not in _TYPES:
            return f"{self.setting} is no single value (a {kind}), and there is no rule for that"
        kinds, words = _TYPES[kind]
        if isinstance(self.rule, NonZeroDuration) and kind not in _DURATIONS:
            return f"{self.setting} is no duration, but {words}"
        if isinstance(self.rule, Present) and kind != "string":
            return f"{self.setting} names no file, but is {words}"
        values = [*self.rule.values, *([] if self.write is None else [self.write])]
        wrong = [value for value in values if type(value) is not kinds]
        if wrong:
            return f"{self.setting} is {words}, and {wrong[0]!r} is not"
        if kind not in _DURATIONS:
            return ""
        return next((why for value in values if (why := self._unlike_a_duration(str(value), words))), "")

    def _unlike_a_duration(self, value: str, words: str) -> str:
        """Why a text cannot be compared with a duration, which a kubelet shows in one form only; else ''."""
        try:
            shown = format_duration(parse_duration(value))
        except GoError:
            return f"{self.setting} is {words}, and {value!r} is not"
        return "" if shown == value else f"{self.setting} is a duration, of which {value!r} is written {shown}"

    def complies(self, value: object) -> bool:
        """Whether an effective value of the setting is right."""
        assert not isinstance(self.rule, FileRule)
        return self.rule.complies(value)

    @property
    def must(self) -> str:
        """What must be, as the end of a sentence: "be true"."""
        return self.rule.must

    @property
    def expected(self) -> Scalar:
        """What a finding says is expected: the one value that complies, or what must be."""
        return self.rule.equals if isinstance(self.rule, Equals) else self.must.removeprefix("be ")

    @property
    def right(self) -> Scalar | None:
        """The value that a fix writes; None where it is a file, or nothing is planned."""
        if self.by_hand or isinstance(self.rule, FileRule):
            return None
        return self.write if self.write is not None else self.rule.right

    @property
    def argument(self) -> str:
        """The argument that a fix gives; '' where no flag sets it, or nothing is planned."""
        if not self.flag or self.right is None:
            return ""
        name = self.setting.removeprefix(GATES)
        return f"{self.flag}={f'{name}=' if name != self.setting else ''}{flag_text(self.right)}"

    @property
    def subject(self) -> str:
        """What is judged, in few words."""
        if self.file is None:
            return self.setting
        return f"the {'mode' if self.rule.kind == 'mode_at_most' else 'owner'} of {self.file}"

    @property
    def digest(self) -> str:
        """Names what is judged and by which rule: another one makes an earlier verdict one on something else."""
        judged = self.model_dump_json(include={"setting", "file", "rule"})
        return hashlib.sha256(judged.encode()).hexdigest()[:16]

    def inapplicable(self, node: Node) -> str:
        """Why the control does not apply to this node, '' where it does."""
        if node.os and node.os.lower() not in self.applies.os:
            return f"the control is about {' and '.join(self.applies.os)} nodes, and this one runs {node.os}"
        machine = "scale_set" if node.scale_set else "virtual_machine"
        if machine not in self.applies.machines:
            return f"the control is not about nodes of this kind ({machine.replace('_', ' ')})"
        if not self.applies.kubernetes.holds(node.kubernetes_version):
            return f"the control is about Kubernetes {self.applies.kubernetes}; this node has {node.kubernetes_version}"
        return ""


class Recommendation(_Entry):
    """A control as a benchmark's version has it.

    An empty number or title is the control's own; `level` is None where it is not known.
    """

    control: str
    number: str = ""
    title: str = ""
    level: Literal[1, 2] | None = None
    automated: bool = True


class Benchmark(_Entry):
    """A version of a benchmark: for which Kubernetes versions, and what it recommends."""

    version: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,39}$")]
    name: Annotated[str, Field(min_length=1, max_length=100)]
    kubernetes: Versions = Versions()
    entries: tuple[Recommendation, ...] = Field(strict=False, min_length=1)

    def entry(self, control_id: str) -> Recommendation | None:
        """What it says of a control; None where it has none."""
        return next((entry for entry in self.entries if entry.control == control_id), None)


class _File(_Entry):
    """A catalogue as it is written."""

    controls: tuple[Control, ...] = Field((), strict=False)
    benchmarks: tuple[Benchmark, ...] = Field((), strict=False)
    default: str = ""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Controls by id and benchmarks by version, in order. `default` is the version by which a run reports that names
    none; `digest` is the SHA-256 of a file of one's own, '' where there is none."""

    controls: Mapping[str, Control]
    benchmarks: Mapping[str, Benchmark]
    default: str
    digest: str = ""

    @property
    def settings(self) -> tuple[str, ...]:
        """What kubelets are asked for: the settings of all controls, and the groups of their feature gates, sorted."""
        controls = self.controls.values()
        return tuple(sorted({name for control in controls if control.setting for name in asked(control.setting)}))

    def of(self, version: str = "") -> tuple[str, ...]:
        """The ids of what a run judges that names no control: a benchmark's, and those of one's own in no benchmark."""
        known = {entry.control for benchmark in self.benchmarks.values() for entry in benchmark.entries}
        chosen = self.benchmarks[version or self.default]
        return (*(entry.control for entry in chosen.entries), *(name for name in self.controls if name not in known))


def read(text: str, where: str, base: Catalogue | None = None) -> Catalogue:
    """The catalogue in a text (YAML, or JSON), over `base`: an entry with the same id or version takes its place.

    Raises SettingsError, which names the line of each thing that is wrong.
    """
    if len(text) > _LONGEST:
        raise SettingsError(f"the catalogue {where} has more than {_LONGEST:,} characters")
    try:
        root = yaml.compose(text, Loader=_Loader)
        values = _Loader(text).get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        why = " ".join(str(error).split()) or "it is nested too deeply"
        raise SettingsError(f"the catalogue {where} cannot be read as YAML: {plain(why, 300)}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"the catalogue {where} must be a mapping with controls, or benchmarks, or both")
    try:
        found = _File.model_validate(values, context=base)
    except ValidationError as error:
        wrong = [f"line {_line(root, item['loc'])}: {_name(item['loc'])}{_said(item)}" for item in _own(error.errors())]
        more = f"; and {len(wrong) - _MOST_SAID} more" if len(wrong) > _MOST_SAID else ""
        raise SettingsError(f"the catalogue {where}: {'; '.join(wrong[:_MOST_SAID])}{more}") from None
    made = Catalogue(
        controls={**(base.controls if base else {}), **{one.id: one for one in found.controls}},
        benchmarks={**(base.benchmarks if base else {}), **{one.version: one for one in found.benchmarks}},
        default=found.default or (base.default if base else ""),
        digest=hashlib.sha256(text.encode()).hexdigest() if base else "",
    )
    for path, why in _misfits(found, made):
        raise SettingsError(f"the catalogue {where}: line {_line(root, path)}: {why}")
    return made


def _misfits(found: _File, made: Catalogue) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """What does not fit together, each with the place where it stands."""
    for field, key, names in (
        ("controls", "id", [one.id for one in found.controls]),
        ("benchmarks", "version", [one.version for one in found.benchmarks]),
    ):
        for number, name in enumerate(names):
            # Requests and findings do not tell a letter from its capital.
            if name.lower() in map(str.lower, names[:number]):
                yield (field, number, key), f"the {key} {name} is there twice"
    for number, benchmark in enumerate(found.benchmarks):
        listed = [entry.control for entry in benchmark.entries]
        for at, name in enumerate(listed):
            place = ("benchmarks", number, "entries", at, "control")
            if name not in made.controls:
                yield place, f"{benchmark.name} names the control {plain(name, 60)!r}, which is not there"
            if name in listed[:at]:
                yield place, f"{benchmark.name} has the control {name} twice"
    settings = {control.setting for control in made.controls.values() if control.setting}
    if len(settings) > _MOST_SETTINGS:
        yield ("controls",), f"its controls are about {len(settings)} settings; {_MOST_SETTINGS} can be asked for"
    if made.default not in made.benchmarks:
        yield ("default",), f"the default benchmark {plain(made.default, 60)!r} is not there"


def _own(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """The errors without those that only follow from others: a list is too short because one of its items is wrong."""
    return [
        item
        for item in errors
        if item["type"] != "too_short"
        or not any(other["loc"][: len(item["loc"])] == item["loc"] for other in errors if other is not item)
    ]


def _said(error: ErrorDetails) -> str:
    """What is wrong, in YAML's words."""
    match error["type"]:
        case "string_type":
            return "must be text, in quotes where it looks like a number, a date, true or false"
        case "string_pattern_mismatch":
            return f"{plain(str(error['input']), 60)!r} is not possible here"
        case "model_type" | "model_attributes_type":
            return "must be a mapping of names to values"
        case "too_short":
            return "must not be empty"
        case _:
            return said(error)


class _Loader(yaml.SafeLoader):
    """YAML, but for aliases, a few lines of which make millions of values, and for doubled keys, of which one would
    count and nobody be told."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not taken here", problem_mark=mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        made = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in made.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key {plain(key.value, 60)!r} is there twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return made


def _line(node: yaml.Node | None, path: Sequence[int | str]) -> int:
    """The line of what a pydantic error is about, as far as the text has it."""
    line = 1
    for part in path:
        if node is None:
            break
        line = node.start_mark.line + 1
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
        elif isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == part), None)
            if found is None:
                continue  # a kind of rule, or a field that is missing
            line, node = found[0].start_mark.line + 1, found[1]
    if isinstance(node, yaml.Node):
        line = max(line, node.start_mark.line + 1) if isinstance(node, yaml.ScalarNode) else line
    return line


def _name(path: Sequence[int | str]) -> str:
    """The field that is wrong, and a colon."""
    names = [part for part in path if isinstance(part, str) and part not in ("controls", "benchmarks", "entries")]
    return f"{plain('.'.join(dict.fromkeys(names)), 60)}: " if names else ""


@cache
def builtin() -> Catalogue:
    """The catalogue that this version comes with."""
    return read(files(__package__).joinpath("catalogue.yaml").read_text("utf-8"), "catalogue.yaml")


_installed: list[Catalogue] = []


def install(made: Catalogue) -> None:
    """Judge by this catalogue in this process, from here on."""
    _installed[:] = [made]


def catalogue() -> Catalogue:
    """The catalogue that this process judges by."""
    return _installed[0] if _installed else builtin()


def control(control_id: str) -> Control:
    """The control with this id. Raises KeyError where there is none."""
    return catalogue().controls[control_id]
