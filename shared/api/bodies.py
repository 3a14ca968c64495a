"""What comes in over HTTP and what goes out, as models; the OpenAPI document is made of them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from shared.doctor import Area, Level
from shared.models import Finding, RunKind, RunState, Starter, Status
from shared.runs.model.request import FixRequest, RunRequest

Continuation = Annotated[str, Field(max_length=2048, description="Where the page before ended, as it said itself.")]
Text = Annotated[str, Field(max_length=256)]


def _digest(text: str) -> str:
    if re.fullmatch(r"[0-9a-f]{64}", text) is None:
        raise ValueError("must be the digest that the run shows: 64 of 0-9 and a-f")
    return text


class AuditBody(RunRequest):
    """What to audit. An empty list means no restriction."""


class FixBody(FixRequest):
    """What to fix, and how. With `approval` manual, the run waits for a yes to its plan before it changes a node."""

    approval: Literal["auto", "manual"] = "manual"


class ApproveBody(BaseModel):
    """Yes or no to the plan with this digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: Annotated[str, AfterValidator(_digest), Field(json_schema_extra={"pattern": "^[0-9a-f]{64}$"})]
    approve: bool = True


class NoQuery(BaseModel):
    """An operation without query parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RunsQuery(NoQuery):
    """Which runs."""

    kind: RunKind | None = None
    state: RunState | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 20
    continuation: Continuation | None = None


class FindingsQuery(NoQuery):
    """Which findings; of the latest complete audit where no run is named. Names are compared without regard to case."""

    run_id: Text | None = None
    status: Status | None = None
    control: Text | None = None
    subscription: Text | None = None
    cluster: Text | None = None
    node_pool: Text | None = None
    node: Text | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    continuation: Continuation | None = None


class PlanQuery(NoQuery):
    """Which page of a plan."""

    continuation: Annotated[int, Field(ge=0, le=1_000_000)] = 0


class Links(BaseModel):
    """Where to go from a run, as paths on this host."""

    self: str
    findings: str
    cancel: str | None = None
    approve: str | None = None
    plan: str | None = None


class ProgressView(BaseModel):
    """How far a run is. `statuses` count findings: a node has one for each control. `waves` of a fix are over;
    `expected_end` is an estimate by Azure's published limits.

    It is null where there is none, or the one that there was has passed.
    """

    nodes_found: int
    nodes_done: int
    statuses: dict[str, int]
    outcomes: dict[str, int]
    waves: int
    azure_calls: int
    throttle_waits: int
    throttled_seconds: float
    expected_end: datetime | None


class ApprovalView(BaseModel):
    """The plan that waits to be approved, by its digest, and until when; and `why`, where none was to be asked for."""

    digest: str
    expires: datetime
    why: str = ""


class SummaryView(BaseModel):
    """What a run came to. `statuses` count findings (a node has one for each control), `outcomes` nodes."""

    statuses: dict[str, int]
    outcomes: dict[str, int]
    nodes: int
    azure_calls: int
    throttled_seconds: float


class ListedRun(BaseModel):
    """A run, without what it was asked for, which may be long: the run itself shows that.

    `summary` and `finished` are null while it goes, `error` says why it failed or ended early. A fix names the run that
    makes its plan, and that one the fix.
    """

    id: str
    kind: RunKind
    state: RunState
    started: datetime
    finished: datetime | None
    summary: SummaryView | None
    error: str
    by: Starter
    plan_run: str | None
    fix_run: str | None
    links: Links


class RunView(ListedRun):
    """A run, and what it was asked for."""

    request: dict[str, Any]


class RunDetail(RunView):
    """A run with its progress; for a fix also that of its planning run, what waits to be approved, and a hold on it.

    `lost`: it is recorded as going, and nothing carries it out. The watchdog begins it again or ends it, in a minute or
    a few.
    """

    progress: ProgressView
    lost: bool = False
    held: HeldView | None = None
    planning: ProgressView | None = None
    approval: ApprovalView | None = None


class RunList(BaseModel):
    """A page of runs, newest first; `continuation` is null on the last."""

    runs: list[ListedRun]
    continuation: str | None


class Scope(BaseModel):
    """What a run looked at; an empty list or text means no restriction."""

    management_group: str = ""
    subscriptions: list[str]
    clusters: list[str]
    node_pools: list[str]
    controls: list[str]


class FindingList(BaseModel):
    """A page of findings in a stable order; `continuation` is null on the last.

    `run` and `scope` say of which run they are, and what that was narrowed down to (null where there is none yet).
    """

    run: str | None
    scope: Scope | None
    findings: list[Finding]
    continuation: str | None


class NodePlanView(BaseModel):
    """What would be done to one node for `controls`, or `refused`: why nothing is.

    `left` says, of controls that fail and were asked for, why they are not planned; `also` are those that fail and were
    not asked for. Without `restart` the kubelet is not restarted.
    """

    subscription: str
    resource_group: str
    cluster: str
    node_pool: str
    node: str
    controls: list[str]
    left: dict[str, str]
    also: list[str]
    steps: list[str]
    restart: bool
    diff: str
    refused: str


class PlanView(BaseModel):
    """A page of the plan of a run; `digest` (of the whole) is what an approval names."""

    run_id: str
    digest: str | None
    nodes: list[NodePlanView]
    continuation: int | None


class Check(BaseModel):
    """One thing that the app needs: whether it is well, and what it said."""

    ok: bool
    detail: str


class HoldBody(BaseModel):
    """Why fixes are held."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Annotated[str, Field(min_length=1, max_length=500)]


class HeldView(BaseModel):
    """Who holds all fixes, since when, and why."""

    by: str
    since: datetime
    reason: str


class HoldView(BaseModel):
    """Whether fixes are held: none starts, and none begins another wave. Null where they are not."""

    held: HeldView | None


class HealthQuery(NoQuery):
    """How thoroughly. `deep` takes up to two minutes: it looks, without a run, at all that one needs."""

    deep: bool = False


class DoctorRow(BaseModel):
    """One thing that a run needs. `status` is `ok`, `warn` (a run will work, and a person should know), `fail`, or
    `unknown` where it could not be told.

    `reason` says what was found, `command` what sets it right (empty: nothing to do, or nothing that one command does).
    """

    area: Area
    subject: str
    what: str
    status: Level
    reason: str
    command: str


class Health(BaseModel):
    """The app's health. `settings` holds no secret; `held` is not null where fixes are held.

    `checks` is null unless they were asked for (`deep`); then `ok` is false where one of them fails.
    """

    ok: bool
    version: str
    settings: dict[str, Any]
    storage: Check
    identity: Check
    held: HeldView | None = None
    checks: list[DoctorRow] | None = None


class Alive(BaseModel):
    """The app is up. It says nothing of what the app needs: that is what health is for."""

    status: Literal["alive"] = "alive"
    version: str


class FieldError(BaseModel):
    """What is wrong with one field of the request."""

    field: str
    message: str


class ProblemBody(BaseModel):
    """An answer that is not what was asked for (RFC 9457, application/problem+json).

    `type` says which kind it is and stays as it is, `detail` is for people; `errors` names the first 20 wrong fields.
    """

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []
    run: RunView | None = None
