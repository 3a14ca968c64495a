"""What a run is asked to do: one model for the terminal, the HTTP body and the schedule."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo

from shared.controls import builtin, catalogue
from shared.errors import NotFixedError, SettingsError, UsageError
from shared.models import Run, RunKind
from shared.node.edits import Method
from shared.plain import plain
from shared.runs.model.names import there_is
from shared.settings import Settings, subscription_id
from shared.validation import said

MOST_NAMES = 1_000
"""How many names a list of a request may have."""

_MOST_SAID = 10


STORED: Mapping[str, bool] = {"stored": True}
"""The validation context of a request that was recorded: a catalogue of one's own may have changed since, and the run
must come to its end all the same."""


def _control(value: str, info: ValidationInfo) -> str:
    known = catalogue().controls
    if value not in known and info.context != STORED:
        shown = plain(value, 60)
        raise ValueError(f"no control {shown!r}; {there_is([shown], known)}")
    return value


def _benchmark(value: str, info: ValidationInfo) -> str:
    known = catalogue().benchmarks
    if value and value not in known and info.context != STORED:
        shown = plain(value, 60)
        raise ValueError(f"no version {shown!r} of the benchmark; {there_is([shown], known)}")
    return value


def _few(values: Any) -> Any:
    # Before the names are looked at: what is wrong with each of 100,000 is not worth finding out.
    if not isinstance(values, list | tuple):
        return values
    if len(values) > MOST_NAMES:
        raise ValueError(f"has {len(values):,} names, and {MOST_NAMES:,} are the most; leave it out for all")
    return tuple(values)


def _unique(values: tuple[str, ...]) -> tuple[str, ...]:
    first: dict[str, str] = {}
    for name in values:
        first.setdefault(name.lower(), name)
    return tuple(first.values())


def _share(value: str) -> str:
    if re.fullmatch(_SHARE, value) is None:
        raise ValueError('must be a number of nodes such as "1" (at most 9999), or a share such as "10%"')
    return value


def _integral(value: Any) -> Any:
    # JSON knows no integers: 2.0 is one, as JSON Schema has it.
    return int(value) if isinstance(value, float) and value.is_integer() else value


_SHARE = r"([1-9][0-9]{0,3}|([1-9][0-9]?|100)%)"


# Azure's own rules: cluster names have 1 to 63 letters, digits, hyphens and underscores. Pool names have 1 to 12
# letters and digits; those of node auto-provisioning are names of Kubernetes objects, of at most 63 as their labels.
ClusterName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9]$|^[a-zA-Z0-9][-_a-zA-Z0-9]{0,61}[a-zA-Z0-9]$")]
PoolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9]$|^[a-zA-Z0-9][-.a-zA-Z0-9]{0,61}[a-zA-Z0-9]$")]
# The extras are for the OpenAPI document: what the validators ask for, said in a schema's words.
SubscriptionId = Annotated[
    str,
    AfterValidator(subscription_id),
    Field(json_schema_extra={"pattern": "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"}),
]
ControlId = Annotated[
    str,
    AfterValidator(_control),
    # Those of this version: a catalogue of one's own may have more.
    Field(json_schema_extra={"enum": list(builtin().controls)}),
]
BenchmarkVersion = Annotated[
    str, AfterValidator(_benchmark), Field(json_schema_extra={"enum": ["", *builtin().benchmarks]})
]
Whole = BeforeValidator(_integral)
Name = TypeVar("Name", bound=str)
Names = Annotated[
    tuple[Name, ...],
    BeforeValidator(_few),
    AfterValidator(_unique),
    Field(json_schema_extra={"maxItems": MOST_NAMES}),
]


class RunRequest(BaseModel):
    """The scope of a run: lists of at most 1,000 names. An empty list means no restriction.

    Names are compared without regard to case, as Azure does. An empty `subscriptions` means all below the
    `management_group`, else those of the settings, or all that the identity can see. Where both are named, each of the
    subscriptions must be below the group. `benchmark` is the version by which the run reports (the catalogue's default
    where it is empty), and whose controls it judges where none is named. `witness` is who is asked (empty: the
    deployment's choice); what files and their modes are only the node itself can tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    management_group: Annotated[str, Field(pattern=r"^([\w().-]{0,89}[\w()-])?$")] = ""
    subscriptions: Names[SubscriptionId] = ()
    clusters: Names[ClusterName] = ()
    node_pools: Names[PoolName] = ()
    controls: Names[ControlId] = ()
    benchmark: BenchmarkVersion = ""
    witness: Literal["", "node", "configz", "both", "smart"] = ""

    @property
    def control_ids(self) -> tuple[str, ...]:
        """The controls to judge: those asked for, or all of the benchmark that the witness can tell of."""
        return self.controls or (self.of_benchmark if self.witness != "configz" else _without_files(self.of_benchmark))

    @property
    def sweeps(self) -> bool:
        """Whether clusters are asked for the configz of their nodes."""
        return self.witness not in ("", "node")

    @property
    def of_benchmark(self) -> tuple[str, ...]:
        """The benchmark's controls; the default one's where it is not there any more."""
        known = catalogue()
        return known.of(self.benchmark if self.benchmark in known.benchmarks else "")


SCOPE = ("management_group", "subscriptions", "clusters", "node_pools", "controls")
"""The fields of a request that say what a run is of; the others say how it goes about it."""


class FixRequest(RunRequest):
    """The scope of a run that plans or fixes, and how it goes about it.

    `max_unavailable` is how many nodes of a pool may be in hand at once, a number or a share such as `10%` (of which
    the whole part counts, at least one); `max_failures` how many fixes of a pool may fail or be rolled back before its
    other nodes are left; `canary` whether a pool's first wave is one node; `pause_seconds` the time between two waves;
    `retry_rolled_back` whether nodes are taken again on which the last fix was rolled back.
    """

    method: Method = "auto"
    max_unavailable: Annotated[str, AfterValidator(_share), Field(json_schema_extra={"pattern": f"^{_SHARE}$"})] = "1"
    max_failures: Annotated[int, Field(ge=0, le=1000), Whole] = 0
    canary: bool = True
    pause_seconds: Annotated[int, Field(ge=0, le=3600), Whole] = 15
    retry_rolled_back: Annotated[bool, Field(strict=True)] = False


Request = TypeVar("Request", bound=RunRequest)


def _without_files(control_ids: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in control_ids if catalogue().controls[name].file is None)


def settled(kind: RunKind, request: Request, settings: Settings) -> Request:
    """The request with its witness named, and for one to plan or fix its controls: those of GUARD_FIX_CONTROLS, if it
    names none.

    Raises NotFixedError for a fix of others, SettingsError where those are none that there are, and UsageError for what
    the witness cannot tell.
    """
    if not request.witness:
        able = kind is RunKind.AUDIT or settings.witness != "configz"
        request = request.model_copy(update={"witness": settings.witness if able else "node"})
    if request.witness == "configz":
        files = [name for name in request.controls if name not in _without_files(request.controls)]
        if kind is not RunKind.AUDIT:
            raise UsageError("a plan is made of what is on the node, which the witness configz does not see; use both")
        if files:
            raise UsageError(f"{', '.join(files)}: only the node shows its files; use the witness node, both or smart")
    if kind is RunKind.AUDIT:
        return request
    fix_controls = settings.fix_controls
    known = catalogue().controls
    if strange := [name for name in fix_controls if name not in known]:
        raise SettingsError(f"GUARD_FIX_CONTROLS names {strange[0]}, which is no control; {there_is(strange, known)}")
    if kind is RunKind.FIX:
        refuse_others(request.controls, fix_controls)
    return request if request.controls else request.model_copy(update={"controls": fix_controls})


def refuse_others(controls: Iterable[str], fix_controls: tuple[str, ...]) -> None:
    """Raises NotFixedError where a fix of these controls would be one of others than this deployment fixes."""
    others = sorted(set(controls) - set(fix_controls))
    if others:
        raise NotFixedError(
            f"this deployment does not fix {', '.join(others)}, only {', '.join(fix_controls)} (GUARD_FIX_CONTROLS)"
        )


def parse_request(kind: type[Request], values: dict[str, Any]) -> Request:
    """A request from a terminal's arguments. Raises UsageError that names every bad value."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        wrong = [_sentence(item) for item in error.errors()]
        more = f"; and {len(wrong) - _MOST_SAID:,} more" if len(wrong) > _MOST_SAID else ""
        raise UsageError("; ".join(wrong[:_MOST_SAID]) + more) from None


def _sentence(item: Any) -> str:
    where = str(item["loc"][0]).replace("_", " ").rstrip("s") if item["loc"] else "request"
    return f"{where}: {said(item)}"


def named(run: Run, field: str) -> frozenset[str]:
    """What a run's request names in a field of RunRequest, in lower case; the empty set: no restriction."""
    value = run.request.get(field)
    values = value if isinstance(value, list | tuple) else [value] if value else []
    return frozenset(str(item).lower() for item in values)


def scope_of(run: Run) -> dict[str, str | list[str]]:
    """What a run was narrowed down to, by the fields of RunRequest; an empty list or text: no restriction."""
    values = {name: run.request.get(name) or RunRequest.model_fields[name].default for name in SCOPE}
    return {
        name: [str(item) for item in value] if isinstance(value, list | tuple) else str(value)
        for name, value in values.items()
    }
