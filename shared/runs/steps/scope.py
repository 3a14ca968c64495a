"""What a run looks at: its subscriptions, and their clusters in chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from itertools import zip_longest

from shared.azure import Azure, ScopeError, SubscriptionError, leaves_out
from shared.errors import EndpointError
from shared.models import Cluster, RunKind, ScopeProblem
from shared.runs import documents
from shared.runs.model import batch as batches
from shared.runs.model import keys, names
from shared.runs.model.messages import BatchRef, Lane, OpenBatch, OpenLane, Ref, Scope
from shared.runs.model.request import RunRequest
from shared.runs.services import Services
from shared.runs.steps.left_undone import record_places
from shared.runs.steps.standing import Standing, stand
from shared.settings import Settings

GRAPH_FROM = 10
"""Subscriptions from which on their clusters are asked for at once, of Azure Resource Graph."""

_CHUNK_NODES, _CHUNK_CLUSTERS, _FIRST_CHUNK_NODES = 500, 20, 50
_AT_ONCE = 20


async def scope(services: Services, ref: Ref) -> Scope:
    """The subscriptions to look at, one lane each; or what the request names that is not there."""
    standing = await stand(services, ref)
    request, store = standing.request, services.store
    known = await documents.find(store, ref.run_id, keys.SCOPE, documents.KEYS)
    if known is not None:
        return Scope(subscriptions=tuple(known))
    found = await subscriptions_of(services.azure, services.settings, request)
    if isinstance(found, Scope):
        return found
    kept = await _ask_graph(services, standing, found)
    if request.clusters or request.node_pools:
        unknown = await _unknown_names(services, standing, found)
        if unknown and kept:  # Azure itself may have what Resource Graph does not know yet
            unknown = await _unknown_names(services, standing, found, afresh=kept)
        if unknown:
            return Scope(error=unknown, usage=True)
    await documents.save(store, ref.run_id, keys.SCOPE, documents.KEYS, list(found))
    return Scope(subscriptions=tuple(found))


async def subscriptions_of(azure: Azure, settings: Settings, request: RunRequest) -> Sequence[str] | Scope:
    """The subscriptions that a request is of, in lower case; or why there are none.

    Raises CredentialError or EndpointError.
    """
    if settings.subscriptions and not (request.subscriptions or request.management_group):
        return settings.subscriptions
    group = request.management_group or ("" if request.subscriptions else settings.management_group)
    try:
        below = azure.subscriptions_below(group) if group else azure.subscriptions()
        known = {subscription.id.lower() for subscription in await below}
    except ScopeError as error:
        return Scope(error=str(error), usage=bool(request.management_group))
    if unseen := _unseen(request.subscriptions, known, group):
        return Scope(error=unseen, usage=bool(request.subscriptions))
    return [name.lower() for name in request.subscriptions] or sorted(known)


def _unseen(wanted: Sequence[str], known: set[str], group: str) -> str:
    unknown = names.unknown(wanted, known)
    if unknown:
        where = f"below the management group {group}" if group else "that this identity can see"
        right = "the id or the group" if group else "the id, or give the identity a role there (docs/deploying.md)"
        return (
            f"no subscription {names.listed(unknown)} among the {len(known)} {where};"
            f" {names.there_is(unknown, known)}. Correct {right}"
        )
    if not known and group:
        return f"the management group {group} has no subscription below it: name another one"
    if not known:
        return (
            "this identity can see no subscription: give it a role on one (docs/deploying.md), or sign in"
            " with another (az login)"
        )
    return ""


async def _ask_graph(services: Services, standing: Standing, subscriptions: Sequence[str]) -> Collection[str]:
    """Keep what Azure Resource Graph tells of many subscriptions, for an audit: a plan is made of what Azure itself
    says now. Gives those of which something is kept.

    The others are listed plainly, when their lanes begin: those that it does not answer for, and those with a cluster
    that it would leave out, for what it says of that may be over.
    """
    if len(subscriptions) < GRAPH_FROM or standing.run.kind is not RunKind.AUDIT:
        return ()
    # Where a query was refused, what others answered is as good.
    answered = (await services.azure.graph_clusters(subscriptions)).clusters
    kept = {owner: found for owner, found in answered.items() if not any(map(leaves_out, found))}
    gate = asyncio.Semaphore(_AT_ONCE)

    async def save(subscription: str) -> None:
        async with gate:
            await _save(services, standing, subscription, kept[subscription])

    await asyncio.gather(*map(save, kept))
    return kept.keys()


async def _unknown_names(
    services: Services, standing: Standing, subscriptions: Sequence[str], afresh: Collection[str] = ()
) -> str:
    """A sentence naming the clusters and pools of the request that are nowhere; empty where all are.

    The subscriptions `afresh` are listed again. Where one (or a cluster whose pools only their nodes
    show) cannot be looked into, there may be others, and nothing is said.
    """
    gate = asyncio.Semaphore(_AT_ONCE)

    async def clusters(subscription: str) -> list[Cluster] | None:
        async with gate:
            try:
                return await _clusters(services, standing, subscription, afresh=subscription in afresh)
            except SubscriptionError:
                return None

    found = await asyncio.gather(*map(clusters, subscriptions))
    if any(listed is None for listed in found):
        return ""
    seen = [cluster for listed in found for cluster in listed or ()]
    request = standing.request
    chosen = [c for c in seen if not request.clusters or not names.unknown([c.name], request.clusters)]
    pools = {pool.name.lower() for cluster in chosen for pool in cluster.pools}
    # What node auto-provisioning calls its pools shows only on their nodes.
    for cluster in chosen:
        if cluster.auto_provisioned and (wanted_still := names.unknown(request.node_pools, pools)):
            async for item in services.azure.nodes(cluster, wanted_still):
                if isinstance(item, ScopeProblem):
                    return ""
                pools.add(item.node_pool.lower())
    sentences = []
    for noun, wanted, known in (
        ("cluster", request.clusters, {cluster.name.lower() for cluster in seen}),
        ("node pool", request.node_pools, pools),
    ):
        missing = names.unknown(wanted, known)
        if missing:
            there = names.there_is(missing, known)
            some = ", ".join(missing[:10])
            sentences.append(f"no {noun} named {some} in the {len(subscriptions)} subscriptions; {there}")
    return "; ".join(sentences)


async def _clusters(
    services: Services, standing: Standing, subscription: str, *, afresh: bool = False
) -> list[Cluster]:
    """All clusters of a subscription, kept for the run. Raises SubscriptionError where they cannot be listed."""
    run_id = standing.run.id
    kept = await documents.find(services.store, run_id, keys.listed(subscription), documents.CLUSTERS)
    if kept is not None and not afresh:
        return kept
    clusters = await services.azure.clusters(subscription)
    await _save(services, standing, subscription, clusters)
    return clusters


async def _save(services: Services, standing: Standing, subscription: str, clusters: list[Cluster]) -> None:
    name = keys.listed(subscription)
    await documents.save(services.store, standing.run.id, name, documents.CLUSTERS, clusters)


async def open_lane(services: Services, message: OpenLane) -> Lane:
    """A lane: its clusters in chunks, and where an earlier beginning of the run got to.

    Raises EndpointError where its clusters cannot be listed now, and StoreError; then it may be done again.
    """
    standing = await stand(services, message)
    if standing.over:
        return Lane(over=True)
    run_id, subscription, store = standing.run.id, message.subscription, services.store
    chunked = await documents.find(store, run_id, keys.clusters(subscription), documents.CHUNKS)
    closed = []
    missed = ""
    if chunked is None:
        clusters: list[Cluster] = []
        try:
            clusters = await _clusters(services, standing, subscription)
        except SubscriptionError as error:
            if error.passing and not message.last:
                raise EndpointError(str(error)) from error
            missed = str(error) if error.passing else ""
            place = ScopeProblem(subscription, "", "", "", error.problem)
            closed.append(await record_places(services, standing, [place]))
        wanted = standing.request.clusters
        chosen = [cluster for cluster in clusters if not wanted or not names.unknown([cluster.name], wanted)]
        chunked = chunks(chosen)
        await documents.save(store, run_id, keys.clusters(subscription), documents.CHUNKS, chunked)
    waiting: list[BatchRef] = []
    open_: list[OpenBatch] = []
    at = 0
    while at < len(chunked):
        found = await documents.find(store, run_id, keys.chunk(subscription, at), documents.FOUND)
        if found is None:
            break
        closed.append(found.tally)
        missed = missed or found.missed
        for ref in found.batches:
            work = await store.work(run_id, ref.name)
            if work is None:
                raise LookupError(f"run {run_id} has no batch {ref.name}")
            batch = batches.from_text(work.text, ref.name)
            now = batch.now(ref.name, datetime.now(UTC))
            if now.due is None:
                closed.append(now.tally)
            elif any(node.begun for node in batch.nodes) or len(batch.nodes) < batch.found:
                open_.append(OpenBatch(name=ref.name, open=now.open, due=now.due))
            else:
                waiting.append(ref)
        at += 1
    return Lane(
        chunks=len(chunked),
        next_chunk=at,
        waiting=tuple(waiting),
        open=tuple(open_),
        closed=batches.total(closed),
        missed=missed,
    )


def chunks(clusters: Sequence[Cluster]) -> list[list[Cluster]]:
    """Clusters in chunks that are listed together, the regions taking turns; the first is small (pure)."""
    by_region: dict[str, list[Cluster]] = {}
    for cluster in sorted(clusters, key=lambda item: (item.location, item.id)):
        by_region.setdefault(cluster.location, []).append(cluster)
    ordered = [cluster for turn in zip_longest(*by_region.values()) for cluster in turn if cluster is not None]
    made: list[list[Cluster]] = []
    nodes = 0
    for cluster in ordered:
        expected = sum(pool.count or 0 for pool in cluster.pools)
        most = _FIRST_CHUNK_NODES if len(made) <= 1 else _CHUNK_NODES
        if not made or nodes + expected > most or len(made[-1]) >= _CHUNK_CLUSTERS:
            made.append([])
            nodes = 0
        made[-1].append(cluster)
        nodes += expected
    return made
