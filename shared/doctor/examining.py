"""Asking everything that the doctor wants to know, side by side and within a time; what was not reached is `unknown`.

A subscription costs five calls, and one more for each cluster of those in which a role was given more narrowly, up to a
bound. Of a subscription that cannot be looked into the others know nothing.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shared.azure import Azure, PolicyAssignment, SignedIn, SubscriptionError
from shared.clouds import PUBLIC
from shared.controls import Catalogue, catalogue
from shared.doctor import addresses, clusters, own, policies, rights
from shared.doctor.checks import Area, Check, Level, said
from shared.doctor.needs import Grant, Need, Place, Wants, needs, wants
from shared.doctor.reaching import reach
from shared.errors import GuardError, StoreError
from shared.models import Cluster, Problem, Run, Starter, Status
from shared.runs.hosts.own_catalogue import own_catalogue
from shared.runs.hosts.starting import held_words
from shared.runs.model.messages import Scope
from shared.runs.model.request import RunRequest
from shared.runs.steps.scope import subscriptions_of
from shared.settings import Settings
from shared.store import SCHEMA, Store

SECONDS = 100.0
"""How long it all takes at the most: a call over HTTP must be answered within 230 s."""

_TOKEN_SECONDS = 30.0
_STORE_SECONDS, _TIDY_SECONDS = 20.0, 5.0
_AT_ONCE = 20
# Of a subscription so many clusters are asked one by one for rights that are not given on the whole of it.
_MOST_CLUSTERS = 50
_MOST_API_SERVERS = 50
_RUN_PAGES = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """Of what: subscriptions, or those below a management group; both empty, what the settings say."""

    subscriptions: tuple[str, ...] = ()
    management_group: str = ""


async def examine(
    settings: Settings,
    azure: Azure,
    store: Store | GuardError,
    location: str,
    environ: Mapping[str, str],
    asked: Asked | None = None,
    seconds: float = SECONDS,
) -> list[Check]:
    """All rows, in the order of their areas.

    `store` is the one at `location`, or why it cannot be opened; `environ` the process's environment. Nothing but a
    row of the store is written, and that is deleted again. Raises nothing that Azure, the store or the network causes.
    """
    end = time.monotonic() + seconds
    examination = _Examination(settings, azure, asked or Asked(), end)
    who = await examination.identify()
    parts = await asyncio.gather(
        examination.within(examination.outbound(location, environ), Area.OUTBOUND, "addresses"),
        examination.within(examination.stored(store, location), Area.STORE, "the store"),
        examination.subscriptions(who),
    )
    made = [*examination.made, *(check for part in parts for check in part), *own.versions()]
    order = list(Area)
    return sorted(made, key=lambda check: order.index(check.area))


@dataclass
class _Examination:
    settings: Settings
    azure: Azure
    asked: Asked
    end: float
    made: list[Check] = field(default_factory=list)
    who: SignedIn | None = None

    @property
    def left(self) -> float:
        return max(0.0, self.end - time.monotonic())

    async def within(self, work: Awaitable[list[Check]], area: Area, subject: str) -> list[Check]:
        """What it gives; where the time is over before, that."""
        try:
            return await asyncio.wait_for(work, self.left)
        except TimeoutError:
            return [_late(area, subject)]

    async def identify(self) -> SignedIn | None:
        """Who signs in; None, and a row that says why, where nobody does."""
        try:
            found = await asyncio.wait_for(self.azure.signed_in(), min(_TOKEN_SECONDS, self.left))
        except TimeoutError:
            self.made.append(_late(Area.IDENTITY, "the identity"))
            return None
        if isinstance(found, Problem):
            self.made.append(Check(Area.IDENTITY, "the identity", "signs in", Level.FAIL, said(found)))
            return None
        self.who = found
        return found

    # --- what the app reaches, and what it keeps

    async def outbound(self, location: str, environ: Mapping[str, str]) -> list[Check]:
        reached = await reach(addresses.addresses(self.settings, location, environ))
        return [*addresses.rows(reached), addresses.clock(reached)]

    async def stored(self, store: Store | GuardError, location: str) -> list[Check]:
        known, made = await self._catalogue()
        now = datetime.now(UTC)
        made.append(own.next_runs(self.settings, now))
        if isinstance(store, GuardError):
            return [own.store_fails(location, str(store), self.who), *own.choices(self.settings, known, ""), *made]
        try:
            async with asyncio.timeout(min(_STORE_SECONDS, self.left)):
                await _try(store)
                held = await store.hold()
                since = await store.holder(f"schedule since/{self.settings.schedule}")
                last = await _last_scheduled(store)
        except (GuardError, TimeoutError) as error:
            why = str(error) or f"no answer within {_STORE_SECONDS:g} s"
            return [own.store_fails(location, why, self.who), *own.choices(self.settings, known, ""), *made]
        return [
            own.store_works(location, SCHEMA),
            *own.choices(self.settings, known, held_words(held) if held is not None else ""),
            *made,
            own.last_run(self.settings, last, datetime.fromisoformat(since) if since else None, now),
        ]

    async def _catalogue(self) -> tuple[Catalogue | None, list[Check]]:
        """The catalogue that this process judges by, and the row of one's own."""
        where = self.settings.controls_file
        if not where:
            return catalogue(), []
        what = "the catalogue of one's own"
        try:
            known = await own_catalogue(self.settings)
        except GuardError as error:
            return None, [Check(Area.SETTINGS, "GUARD_CONTROLS_FILE", what, Level.FAIL, str(error))]
        reason = f"{len(known.controls)} controls"
        return known, [Check(Area.SETTINGS, "GUARD_CONTROLS_FILE", what, Level.OK, reason)]

    # --- the subscriptions

    async def subscriptions(self, who: SignedIn | None) -> list[Check]:
        """The rows of all subscriptions, of who sees them, and of how long a run of them takes."""
        if who is None:
            reason = "not looked at: nobody is signed in"
            return [Check(Area.RIGHTS, "the subscriptions", "rights", Level.UNKNOWN, reason)]
        try:
            async with asyncio.timeout(self.left):
                seen = {each.id.lower(): each.name for each in await self.azure.subscriptions()}
                chosen = await self._chosen()
        except GuardError as error:
            return [Check(Area.IDENTITY, "the identity", "asks Azure Resource Manager", Level.FAIL, str(error))]
        except TimeoutError:
            return [_late(Area.RIGHTS, "the subscriptions")]
        made = [own.identity(who, len(seen))]
        group = self.asked.management_group or ("" if self.asked.subscriptions else self.settings.management_group)
        below = "" if self.settings.subscriptions else group
        grant = Grant(who, wants(self.settings), below, self.settings.cloud or PUBLIC)
        if isinstance(chosen, Scope):
            subject = f"management group {group}" if group else "the subscriptions"
            command = grant.command("SUBSCRIPTION-ID")
            return [*made, Check(Area.RIGHTS, subject, "what a run is of", Level.FAIL, chosen.error, command)]
        looks = [_Look(self, name, seen.get(name, ""), grant) for name in chosen]
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(look: _Look) -> list[Check]:
            async with gate:
                return await (look.rows() if look.subscription in seen else look.unseen())

        tasks = [asyncio.ensure_future(one(look)) for look in looks]
        if tasks:
            await asyncio.wait(tasks, timeout=self.left)
        for look, task in zip(looks, tasks, strict=True):
            if task.done():
                made += task.result()
            else:
                task.cancel()
                made.append(_late(Area.RIGHTS, look.subject))
        await asyncio.gather(*tasks, return_exceptions=True)
        found = [cluster for look in looks if isinstance(look.clusters, list) for cluster in look.clusters]
        if grant.wanted.serves:
            made += await self.within(self._api_servers(found), Area.OUTBOUND, "API servers")
        if grant.wanted.nodes and found:
            made.append(clusters.first_run(found, self.settings))
        return made

    async def _chosen(self) -> Sequence[str] | Scope:
        if self.asked.subscriptions and not self.asked.management_group:
            return [name.lower() for name in self.asked.subscriptions]
        request = RunRequest(subscriptions=self.asked.subscriptions, management_group=self.asked.management_group)
        return await subscriptions_of(self.azure, self.settings, request)

    async def _api_servers(self, found: Sequence[Cluster]) -> list[Check]:
        tried = addresses.api_servers(found)
        made = addresses.rows(await reach(tried[:_MOST_API_SERVERS]))
        if len(tried) > _MOST_API_SERVERS:
            reason = f"{len(tried) - _MOST_API_SERVERS:,} more were not tried: {_MOST_API_SERVERS} are at a time"
            made.append(Check(Area.OUTBOUND, "API servers", "of other clusters", Level.UNKNOWN, reason))
        return made


@dataclass
class _Look:
    """One subscription."""

    examination: _Examination
    subscription: str
    name: str
    grant: Grant
    clusters: list[Cluster] | Problem | None = None

    @property
    def subject(self) -> str:
        return f"{self.name} ({self.subscription})" if self.name else self.subscription

    @property
    def wanted(self) -> Wants:
        return self.grant.wanted

    async def unseen(self) -> list[Check]:
        """Of a subscription that the identity does not see."""
        reason = "the identity has no role in it, or there is no such subscription in its tenant."
        command = self.grant.command(self.subscription)
        return [Check(Area.RIGHTS, self.subject, "see the subscription", Level.FAIL, reason, command)]

    async def rows(self) -> list[Check]:
        """All rows of it."""
        azure, name = self.examination.azure, self.subscription
        whole, denials, locks, assigned, (found, trouble) = await asyncio.gather(
            azure.permissions(name), azure.deny_assignments(name), azure.locks(name), self._policies(), self._list()
        )
        self.clusters = found
        needed = needs(self.wanted)
        groups, single = await self._narrower(rights.lacking(needed, whole), found)
        known = rights.Known(name, self.name, whole, found, groups, single)
        command = self.grant.command(name, found[0].location if isinstance(found, list) and found else "")
        made = rights.rows(known, needed, command)
        made += rights.denied(known, denials, needed, self.grant.to, command)
        made += rights.locked(known, locks, needed, command)
        if assigned is not None:
            made += policies.rows(known, assigned, command)
        if trouble is not None:
            made.append(trouble)
        if isinstance(found, list):
            made += [row for each in found for row in clusters.rows(each, self.wanted, self.examination.settings)]
        return made

    async def _policies(self) -> Sequence[PolicyAssignment] | Problem | None:
        return await self.examination.azure.policy_assignments(self.subscription) if self.wanted.invokes else None

    async def _list(self) -> tuple[list[Cluster] | Problem, Check | None]:
        """The clusters, or why they are not known, and then the row that says so."""
        try:
            return await self.examination.azure.clusters(self.subscription), None
        except SubscriptionError as error:
            problem, status = error.problem, Level.UNKNOWN if error.passing else Level.FAIL
        except GuardError as error:
            problem, status = Problem(Status.ERROR, type(error).__name__, str(error), ""), Level.UNKNOWN
        return problem, Check(Area.CLUSTER, self.subject, "list the clusters", status, said(problem).strip())

    async def _narrower(
        self, lacking: Sequence[Need], found: list[Cluster] | Problem
    ) -> tuple[Mapping[str, rights.Permissions], Mapping[str, rights.Permissions]]:
        """What is allowed in node resource groups and on clusters, where that may make up for what is lacking."""
        azure = self.examination.azure
        places = {need.place for need in lacking}
        asked = [] if isinstance(found, Problem) else found[:_MOST_CLUSTERS]

        def of_group(cluster: Cluster) -> Awaitable[rights.Permissions]:
            return azure.permissions(self.subscription, cluster.node_resource_group)

        groups = asked if places & {Place.GROUP, Place.NODE} else []
        single = asked if Place.CLUSTER in places else []
        return (
            await _each({each.node_resource_group.lower(): each for each in groups}, of_group),
            await _each({each.id.lower(): each for each in single}, azure.cluster_permissions),
        )


async def _each(
    found: Mapping[str, Cluster], ask: Callable[[Cluster], Awaitable[rights.Permissions]]
) -> Mapping[str, rights.Permissions]:
    return dict(zip(found, await asyncio.gather(*map(ask, found.values())), strict=True))


def _late(area: Area, subject: str) -> Check:
    reason = "not looked at: the time was over before. Ask for fewer subscriptions (--subscription)"
    return Check(area, subject, "in time", Level.UNKNOWN, reason)


async def _try(store: Store) -> None:
    """Write, read and delete a row of nobody else's. Raises StoreError where one of these does not work."""
    name, owner = f"doctor/{secrets.token_hex(8)}", "the doctor"
    try:
        if not await store.claim(name, owner, _STORE_SECONDS) or await store.holder(name) != owner:
            raise StoreError("a row that was written is not there when it is read")
    finally:
        # A store that swallows what it is sent would swallow this too; the claim ends by itself.
        async with asyncio.timeout(_TIDY_SECONDS):
            await store.release(name, owner)
    if await store.holder(name) is not None:
        raise StoreError("a row that was deleted is there when it is read")


async def _last_scheduled(store: Store) -> Run | None:
    """The last run that the schedule started, among the latest runs."""
    continuation: str | None = None
    for _ in range(_RUN_PAGES):
        page = await store.runs(100, continuation)
        for run in page.runs:
            if run.by is Starter.TIMER and not run.fix_run:
                return run
        continuation = page.continuation
        if continuation is None:
            break
    return None
