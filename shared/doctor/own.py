"""What the app itself brings: its identity, store, settings, schedule and versions (pure)."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import metadata
from urllib.parse import urlsplit

from shared import __version__
from shared.azure import SignedIn
from shared.controls import Catalogue
from shared.doctor.checks import Area, Check, Level
from shared.kubelet import modelled_minors
from shared.models import Run, RunState
from shared.plain import plain
from shared.runs.hosts.watchdog import EARLY, LATE, last_due
from shared.runs.model import ENGINE
from shared.runs.model.names import listed
from shared.runtime import NEWEST, OLDEST
from shared.schedule import next_after
from shared.settings import Settings, place_of
from shared.store import ROLE

_SDK = (
    "azure-core",
    "azure-identity",
    "azure-data-tables",
    "azure-mgmt-containerservice",
    "azure-mgmt-compute",
    "aiohttp",
    "pydantic",
)
_SHOWN_TIMES = 3


def identity(who: SignedIn, seen: int) -> Check:
    """Who signs in."""
    kind = "a person" if who.person else "an application or managed identity"
    if not who.client_id and not who.object_id:
        reason = f"signed in; its token does not say as whom; it sees {seen} subscriptions"
        return Check(Area.IDENTITY, "unknown", "signs in", Level.OK, reason)
    subject = f"object {who.object_id}" if who.person else f"client {who.client_id}"
    reason = f"{kind}, object {who.object_id} of tenant {who.tenant}; it sees {seen} subscriptions"
    return Check(Area.IDENTITY, subject, "signs in", Level.OK, reason)


def store_fails(location: str, why: str, who: SignedIn | None) -> Check:
    """The row of a store that cannot be used."""
    place = place_of(location)
    command = ""
    parts = urlsplit(place)
    # A connection string brings its own key, a file needs none, and no role helps where the store is away or a newer
    # version's: a refusal that one may help against names it.
    if parts.scheme == "https" and parts.hostname and "=" not in location and ROLE in why:
        account = parts.hostname.partition(".")[0]
        whom = who.object_id if who is not None and who.object_id else "OBJECT-ID-OF-THE-IDENTITY"
        kind = "User" if who is not None and who.person else "ServicePrincipal"
        command = (
            f"az role assignment create --assignee-object-id {shlex.quote(whom)} --assignee-principal-type {kind}"
            f" --role {shlex.quote(ROLE)}"
            f' --scope "$(az storage account show --name {shlex.quote(account)} --query id --output tsv)"'
        )
    return Check(Area.STORE, plain(place, 200), "opens, is written and read", Level.FAIL, why, command)


def store_works(location: str, schema: int) -> Check:
    """The row of a store that was written, read and tidied."""
    reason = f"a row of the doctor's own was written, read and deleted; schema {schema}"
    return Check(Area.STORE, plain(place_of(location), 200), "opens, is written and read", Level.OK, reason)


def choices(settings: Settings, known: Catalogue | None, held: str) -> list[Check]:
    """What the settings ask for, where it does not fit together. `known` is None where its catalogue cannot be had,
    `held` who holds fixes, and why."""

    def check(what: str, status: Level, reason: str) -> Check:
        return Check(Area.SETTINGS, "GUARD_MODE", what, status, reason)

    if settings.mode == "fix" and not settings.allow_fix:
        return [
            check(
                "what the scheduled run does",
                Level.FAIL,
                "GUARD_MODE=fix needs GUARD_ALLOW_FIX=true besides: set that where fixes are wanted, else another mode",
            )
        ]
    may = "fixes are allowed" if settings.allow_fix else "no node is changed: GUARD_ALLOW_FIX is false"
    how = f"{settings.mode}; who is asked: {settings.witness}"
    if settings.witness != "node":
        how += f", by the way {settings.sweep_way}"
    made = [check("what the scheduled run does", Level.OK, f"{how}; {may}")]
    if held and settings.allow_fix:
        made.append(check("fixes", Level.WARN, f"{held}: kubelet-guard hold --release lets them go on"))
    if known is not None:
        unknown = [name for name in settings.fix_controls if name not in known.controls]
        by_hand = [name for name in settings.fix_controls if name in known.controls and known.controls[name].by_hand]
        if unknown:
            reason = f"GUARD_FIX_CONTROLS names {listed(unknown)}, and there is no such control"
            made.append(check("controls to fix", Level.FAIL, reason))
        if by_hand:
            reason = f"GUARD_FIX_CONTROLS names {listed(by_hand)}, which no fix sets right: that is done by hand"
            made.append(check("controls to fix", Level.WARN, reason))
    return made


def next_runs(settings: Settings, now: datetime) -> Check:
    """When the scheduled run comes."""
    moments: list[datetime] = []
    for _ in range(_SHOWN_TIMES):
        moments.append(next_after(settings.schedule, moments[-1] if moments else now))
    times = ", ".join(f"{moment:%Y-%m-%d %H:%M}" for moment in moments)
    return Check(Area.SCHEDULE, _scheduled(settings), "the next runs", Level.OK, f"{times} UTC ({settings.mode})")


def last_run(settings: Settings, last: Run | None, known_since: datetime | None, now: datetime) -> Check:
    """How the scheduled run was the last time.

    `last` is the last one that the store has, `known_since` when the app first saw this schedule (None: the store has
    not seen an app with it, so that what another one started says nothing of it). The watchdog says what is overdue.
    """
    subject, what = _scheduled(settings), "the last run"
    said = f"{last.id} is {last.state}" if last is not None else "none yet"
    if known_since is None:
        said += ", and no app with this schedule has used this store"
    elif (due := _missed(settings.schedule, last, known_since, now)) is not None:
        reason = f"{said}; one was due at {due:%Y-%m-%d %H:%M} UTC and did not start. See the log of the app's watchdog"
        return Check(Area.SCHEDULE, subject, what, Level.FAIL, reason)
    if last is not None and last.state is RunState.FAILED:
        return Check(Area.SCHEDULE, subject, what, Level.WARN, f"{said}: {plain(last.error)}")
    return Check(Area.SCHEDULE, subject, what, Level.OK, said)


def _scheduled(settings: Settings) -> str:
    return f"GUARD_SCHEDULE {settings.schedule}"


def _missed(schedule: str, last: Run | None, known_since: datetime, now: datetime) -> datetime | None:
    """When a run was due that should have started by now, and did not; one that is still going keeps the next away."""
    due = last_due(schedule, now)
    if due is None or due < known_since or now - due <= LATE:
        return None
    started = last is not None and (not last.state.final or last.started >= due - EARLY)
    return None if started else due


def versions(found: Mapping[str, str] | None = None, python: Sequence[int] = sys.version_info[:3]) -> list[Check]:
    """What runs here; `found` are the versions of packages by name (None: those installed)."""
    installed = _installed() if found is None else found
    minors = modelled_minors()
    made = [
        Check(Area.VERSIONS, "aks-kubelet-guard", "version", Level.OK, f"{__version__}, engine {ENGINE}"),
        Check(
            Area.VERSIONS, "kubelets", "that it has data of", Level.OK, f"Kubernetes 1.{minors[0]} to 1.{minors[-1]}"
        ),
    ]
    is_python = ".".join(map(str, python))
    least, most = (".".join(map(str, version)) for version in (OLDEST, NEWEST))
    if OLDEST <= tuple(python[:2]) <= NEWEST:
        made.append(Check(Area.VERSIONS, "Python", "version", Level.OK, is_python))
    else:
        reason = f"{is_python}: this version is for Python {least} to {most}"
        made.append(Check(Area.VERSIONS, "Python", "version", Level.FAIL, reason))
    absent = [name for name, version in installed.items() if not version]
    if absent:
        reason = f"{listed(absent)} are not installed: the deployment is not whole"
        made.append(Check(Area.VERSIONS, "packages", "versions", Level.FAIL, reason, "pip install -r requirements.txt"))
    else:
        reason = ", ".join(f"{name} {version}" for name, version in installed.items())
        made.append(Check(Area.VERSIONS, "packages", "versions", Level.OK, reason))
    return made


def _installed() -> dict[str, str]:
    found = {}
    for name in _SDK:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found
