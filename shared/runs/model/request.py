"""What a run is asked to do: one model for the terminal, the HTTP body and the schedule."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from shared.controls import CONTROLS
from shared.errors import UsageError
from shared.node.planning import Method
from shared.runs.model.names import there_is
from shared.settings import subscription_id


def _control(value: str) -> str:
    known = [entry.id for entry in CONTROLS]
    if value not in known:
        raise ValueError(f"no control {value!r}; {there_is([value], known)}")
    return value


def _unique(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


# Azure's own rules: cluster names have 1 to 63 letters, digits, hyphens and underscores; pool names 1 to 12.
ClusterName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9]$|^[a-zA-Z0-9][-_a-zA-Z0-9]{0,61}[a-zA-Z0-9]$")]
PoolName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,11}$")]
Names = AfterValidator(_unique)
# The extras are for the OpenAPI document: what the validators ask for, said in a schema's words.
SubscriptionId = Annotated[
    str,
    AfterValidator(subscription_id),
    Field(json_schema_extra={"pattern": "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"}),
]
ControlId = Annotated[
    str, AfterValidator(_control), Field(json_schema_extra={"enum": [entry.id for entry in CONTROLS]})
]


class RunRequest(BaseModel):
    """The scope of a run. An empty list means no restriction.

    Names are compared without regard to case, as Azure does. An empty `subscriptions` means those of the
    `management_group`, else those of the settings, or all that the identity can see.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    management_group: Annotated[str, Field(pattern=r"^([\w().-]{0,89}[\w()-])?$")] = ""
    subscriptions: Annotated[tuple[SubscriptionId, ...], Names] = ()
    clusters: Annotated[tuple[ClusterName, ...], Names] = ()
    node_pools: Annotated[tuple[PoolName, ...], Names] = ()
    controls: Annotated[tuple[ControlId, ...], Names] = ()

    @property
    def control_ids(self) -> tuple[str, ...]:
        """The controls to judge: those asked for, or all."""
        return self.controls or tuple(entry.id for entry in CONTROLS)


class FixRequest(RunRequest):
    """The scope of a run that plans or fixes, and how it goes about it.

    `max_unavailable` is how many nodes of a pool may be in hand at once, a number or a share such as `10%` (of which
    the whole part counts, at least one); `max_failures` how many fixes of a pool may fail or be rolled back before its
    other nodes are left; `canary` whether a pool's first wave is one node; `pause_seconds` the time between two waves;
    `retry_rolled_back` whether nodes are taken again on which the last fix was rolled back.
    """

    method: Method = "auto"
    max_unavailable: Annotated[str, Field(pattern=r"^([1-9][0-9]{0,3}|([1-9][0-9]?|100)%)$")] = "1"
    max_failures: Annotated[int, Field(ge=0, le=1000)] = 0
    canary: bool = True
    pause_seconds: Annotated[int, Field(ge=0, le=3600)] = 15
    retry_rolled_back: Annotated[bool, Field(strict=True)] = False


Request = TypeVar("Request", bound=RunRequest)


def parse_request(kind: type[Request], values: dict[str, Any]) -> Request:
    """A request from a terminal's arguments. Raises UsageError that names every bad value."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UsageError("; ".join(_sentence(item) for item in error.errors())) from None


def _sentence(item: Any) -> str:
    where = str(item["loc"][0]).replace("_", " ").rstrip("s") if item["loc"] else "request"
    if item["type"] == "string_pattern_mismatch":
        return f"{where}: {item['input']!r} is not a possible name"
    return f"{where}: {item['msg'].removeprefix('Value error, ')}"
