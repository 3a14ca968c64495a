"""What a run looks at: its subscriptions, and their clusters in chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest

from shared.azure import SubscriptionError
from shared.errors import EndpointError
from shared.models import Cluster, RunKind, ScopeProblem
from shared.runs import documents
from shared.runs.model import batch as batches
from shared.runs.model import keys, names
from shared.runs.model.messages import BatchRef, Lane, OpenBatch, OpenLane, Ref, Scope
from shared.runs.services import Services
from shared.runs.steps.left_undone import record_places
from shared.runs.steps.standing import Standing, stand

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
    found = await _subscriptions(services, standing)
    if isinstance(found, Scope):
        return found
    if request.clusters or request.node_pools:
        unknown = await _unknown_names(services, standing, found)
        if unknown:
            return Scope(error=unknown, usage=True)
    await documents.save(store, ref.run_id, keys.SCOPE, documents.KEYS, list(found))
    return Scope(subscriptions=tuple(found))


async def _subscriptions(services: Services, standing: Standing) -> Sequence[str] | Scope:
    request, settings = standing.request, services.settings
    group = request.management_group or ("" if request.subscriptions else settings.management_group)
    if group:
        answer = await services.azure.graph_clusters(request.subscriptions, management_group=group)
        if answer.problem is not None:
            return Scope(error=f"{answer.problem.reason} {answer.problem.hint}", usage=bool(request.management_group))
        chosen = list(answer.clusters)
        if not chosen:
            return Scope(error=f"the management group {group} has no subscription that this identity can see")
        await _keep(services, standing, answer.clusters)
        return sorted(chosen)
    if not request.subscriptions and settings.subscriptions:
        chosen = list(settings.subscriptions)
    else:
        visible = {subscription.id for subscription in await services.azure.subscriptions()}
        if error := _unseen(request.subscriptions, visible):
            return Scope(error=error, usage=bool(request.subscriptions))
        chosen = list(request.subscriptions) or sorted(visible)
    if len(chosen) >= GRAPH_FROM and standing.run.kind is RunKind.AUDIT:
        answer = await services.azure.graph_clusters(chosen)
        if answer.problem is None:
            await _keep(services, standing, answer.clusters)
    return chosen


def _unseen(wanted: Sequence[str], visible: set[str]) -> str:
    unknown = names.unknown(wanted, visible)
    if unknown:
        return (
            f"no subscription {', '.join(unknown[:10])} among the {len(visible)} that this identity can see;"
            f" {names.there_is(unknown, visible)}. Correct the id, or give the identity a role there"
            " (docs/deploying.md)"
        )
    if not visible:
        return (
            "this identity can see no subscription: give it a role on one (docs/deploying.md), or sign in"
            " with another (az login)"
        )
    return ""


async def _keep(services: Services, standing: Standing, clusters: Mapping[str, list[Cluster]]) -> None:
    """Keep what Azure Resource Graph answered, for an audit: a plan is made of what Azure itself says now.

    Subscriptions that it did not answer for are listed plainly, when their lanes begin.
    """
    if standing.run.kind is not RunKind.AUDIT:
        return
    for subscription, found in clusters.items():
        await _save(services, standing, subscription, found)


async def _unknown_names(services: Services, standing: Standing, subscriptions: Sequence[str]) -> str:
    """A sentence naming the clusters and pools of the request that are nowhere; empty where all are.

    Where a subscription cannot be looked into, there may be others, and nothing is said.
    """
    gate = asyncio.Semaphore(_AT_ONCE)

    async def clusters(subscription: str) -> list[Cluster] | None:
        async with gate:
            try:
                return await _clusters(services, standing, subscription)
            except SubscriptionError:
                return None

    found = await asyncio.gather(*map(clusters, subscriptions))
    if any(listed is None for listed in found):
        return ""
    seen = [cluster for listed in found for cluster in listed or ()]
    request = standing.request
    chosen = [c for c in seen if not request.clusters or not names.unknown([c.name], request.clusters)]
    sentences = []
    for noun, wanted, known in (
        ("cluster", request.clusters, {cluster.name.lower() for cluster in seen}),
        ("node pool", request.node_pools, {pool.name.lower() for cluster in chosen for pool in cluster.pools}),
    ):
        missing = names.unknown(wanted, known)
        if missing:
            there = names.there_is(missing, known)
            some = ", ".join(missing[:10])
            sentences.append(f"no {noun} named {some} in the {len(subscriptions)} subscriptions; {there}")
    return "; ".join(sentences)


async def _clusters(services: Services, standing: Standing, subscription: str) -> list[Cluster]:
    """All clusters of a subscription, kept for the run. Raises SubscriptionError where they cannot be listed."""
    run_id = standing.run.id
    kept = await documents.find(services.store, run_id, keys.listed(subscription), documents.CLUSTERS)
    if kept is not None:
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
