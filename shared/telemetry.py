"""What the serverless app says in its log, for alerts and the workbook: one JSON object a line, each a typed event.

The Functions host forwards the worker's log to Application Insights where its connection string is set. The queries in
infra/ are written over tables of these events, which `python -m tools.event_tables` makes of the classes here.

What happens is told once: what a run found and how it ended. What lasts (a fix that waits, a run that takes too long, a
hold, a scheduled run that did not happen, a refusal) is told by the watchdog again and again while it lasts, so that
its alert stays on for as long, and goes off by itself.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum

from shared.errors import (
    BlobError,
    CredentialError,
    EndpointError,
    GuardError,
    NotStorable,
    OrchestrationsError,
    SettingsError,
    StoreError,
)
from shared.models import Finding, Outcome, Run, RunKind, RunState, Starter, Status, outcome_of, worst

log = logging.getLogger("kubelet_guard.events")

# The SDK logs every request with its address at INFO, and azure-identity every source of a token.
_NOISY = ("azure", "aiohttp", "urllib3", "msal")

_REASON_MOST = 500


def quiet_libraries() -> None:
    """Let libraries speak of warnings and errors only."""
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """What a run found of one node; of a cluster, pool or subscription that could not be looked into `node` is empty.

    `place` is what the findings are of (`Finding.place`). `status` is the worst that a control found, `outcome` what a
    fix did; the numbers count controls by their status.
    """

    run: str
    subscription: str
    resource_group: str
    cluster: str
    node_pool: str
    node: str
    place: str
    status: Status
    outcome: Outcome | None
    passed: int
    failed: int
    undetermined: int
    skipped: int
    not_applicable: int


@dataclass(frozen=True, slots=True)
class FindingEvent:
    """A finding that somebody may have to act on: it fails, is undetermined, or a fix did not go well.

    `newly` says that it fails and was right in an earlier run, `regressed` that a fix had made it so.
    """

    run: str
    subscription: str
    resource_group: str
    cluster: str
    node_pool: str
    node: str
    place: str
    control: str
    severity: str
    status: Status
    outcome: Outcome | None
    code: str
    reason: str
    hint: str
    newly: bool
    regressed: bool


@dataclass(frozen=True, slots=True)
class RunEvent:
    """A run that ended. `error` is empty where it ended as it should; `fix_run` names the fix that a plan was made for.

    `throttled_seconds` is the time spent waiting for Azure's limits, over all lanes.
    """

    run: str
    run_kind: RunKind
    state: RunState
    starter: Starter
    fix_run: str
    error: str
    nodes: int
    azure_calls: int
    throttled_seconds: float


@dataclass(frozen=True, slots=True)
class ApprovalEvent:
    """A fix that waits for a person. `why` is why it waits although none was to be asked, or empty."""

    run: str
    digest: str
    expires: datetime
    why: str


@dataclass(frozen=True, slots=True)
class OverdueEvent:
    """A scheduled run that did not happen, or found nothing. `last_error` is the last attempt's."""

    due: datetime
    last_error: str


@dataclass(frozen=True, slots=True)
class LateEvent:
    """A run that goes on for much longer than Azure's published limits explain."""

    run: str
    run_kind: RunKind
    expected_end: datetime
    found: int
    done: int


@dataclass(frozen=True, slots=True)
class HoldEvent:
    """Fixes are held: by whom, since when and why."""

    holder: str
    since: datetime
    reason: str


class Side(StrEnum):
    """Who refuses."""

    STORE = "store"
    AZURE = "azure"
    SIGN_IN = "sign_in"
    DURABLE_FUNCTIONS = "durable_functions"
    CATALOGUE = "catalogue"
    SETTINGS = "settings"


@dataclass(frozen=True, slots=True)
class RefusalEvent:
    """Something that the app cannot do without refuses or is away. `run` is empty where it was not met in a run."""

    run: str
    side: Side
    reason: str


@dataclass(frozen=True, slots=True)
class HeartbeatEvent:
    """The watchdog came through, with so many runs going."""

    going: int


Event = (
    NodeEvent
    | FindingEvent
    | RunEvent
    | ApprovalEvent
    | OverdueEvent
    | LateEvent
    | HoldEvent
    | RefusalEvent
    | HeartbeatEvent
)

_SIDES: tuple[tuple[type[GuardError], Side], ...] = (
    (StoreError, Side.STORE),
    (EndpointError, Side.AZURE),
    (CredentialError, Side.SIGN_IN),
    (OrchestrationsError, Side.DURABLE_FUNCTIONS),
    (BlobError, Side.CATALOGUE),
    (SettingsError, Side.SETTINGS),
)


def name_of(event: type[Event]) -> str:
    """The `event` field of the lines of this class: `run` of RunEvent (pure)."""
    return event.__name__.removesuffix("Event").lower()


def tell_findings(findings: Iterable[Finding]) -> None:
    """One line a node, and one for each of its findings that somebody may have to act on.

    A part of a run that is repeated after a crash says its findings again.
    """
    places: dict[str, list[Finding]] = {}
    for finding in findings:
        places.setdefault(finding.place, []).append(finding)
    for found in places.values():
        _tell(_node(found))
        for finding in found:
            if _matters(finding):
                _tell(_finding(finding))


def _node(found: list[Finding]) -> NodeEvent:
    one = found[0]
    counts = Counter(finding.status for finding in found)
    return NodeEvent(
        run=one.run_id,
        subscription=one.subscription,
        resource_group=one.resource_group,
        cluster=one.cluster,
        node_pool=one.node_pool,
        node=one.node,
        place=one.place,
        status=worst(counts),
        outcome=outcome_of(finding.outcome for finding in found),
        passed=counts[Status.PASS],
        failed=counts[Status.FAIL],
        undetermined=counts[Status.ERROR],
        skipped=counts[Status.SKIPPED],
        not_applicable=counts[Status.NOT_APPLICABLE],
    )


def _matters(finding: Finding) -> bool:
    went_badly = (Outcome.FAILED, Outcome.ROLLED_BACK, Outcome.CHANGED_MEANWHILE)
    return finding.status in (Status.FAIL, Status.ERROR) or finding.regressed or finding.outcome in went_badly


def _finding(finding: Finding) -> FindingEvent:
    return FindingEvent(
        run=finding.run_id,
        subscription=finding.subscription,
        resource_group=finding.resource_group,
        cluster=finding.cluster,
        node_pool=finding.node_pool,
        node=finding.node,
        place=finding.place,
        control=finding.control,
        severity=finding.severity,
        status=finding.status,
        outcome=finding.outcome,
        code=finding.code,
        reason=finding.reason,
        hint=finding.hint,
        newly=finding.status is Status.FAIL and (finding.regressed or finding.last_right is not None),
        regressed=finding.regressed,
    )


def tell_run(run: Run) -> None:
    """One line for a run that ended, or waits for its approval."""
    if run.state.final:
        summary = run.summary
        _tell(
            RunEvent(
                run=run.id,
                run_kind=run.kind,
                state=run.state,
                starter=run.by,
                fix_run=run.fix_run,
                error=run.error,
                nodes=summary.nodes if summary is not None else 0,
                azure_calls=summary.azure_calls if summary is not None else 0,
                throttled_seconds=summary.throttled_seconds if summary is not None else 0.0,
            )
        )
    elif run.approval is not None and run.approval.expires is not None:
        _tell(ApprovalEvent(run.id, run.approval.digest, run.approval.expires, run.approval.why))


def tell_overdue(due: datetime, last_error: str) -> None:
    """One line for a scheduled run that is overdue."""
    _tell(OverdueEvent(due, last_error))


def tell_late(run: Run, expected_end: datetime, found: int, done: int) -> None:
    """One line for a run that goes on for too long: `done` of the `found` nodes have their findings."""
    _tell(LateEvent(run.id, run.kind, expected_end, found, done))


def tell_hold(holder: str, since: datetime, reason: str) -> None:
    """One line for a hold that is on."""
    _tell(HoldEvent(holder, since, reason))


def tell_refusal(run_id: str, error: GuardError) -> None:
    """One line for something that refuses or is away; none for an error that says nothing of that.

    `run_id` is empty where it was not met in a run.
    """
    if isinstance(error, NotStorable):
        return
    for kind, side in _SIDES:
        if isinstance(error, kind):
            lines = str(error).splitlines()
            _tell(RefusalEvent(run_id, side, lines[0][:_REASON_MOST] if lines else ""))
            return


def tell_heartbeat(going: int) -> None:
    """One line that says that the watchdog came through, with so many runs going."""
    _tell(HeartbeatEvent(going))


def _tell(event: Event) -> None:
    fields = {"event": name_of(type(event)), **asdict(event)}
    log.info("%s", json.dumps(fields, default=datetime.isoformat))
