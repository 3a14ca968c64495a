"""Asking the clusters of a chunk for the configz of their nodes: what is due is sent or looked at, nothing waited for.

The commands change nothing, so that one which is sent twice, for its sender died, does no harm.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from shared.azure import Invoked, Pending
from shared.cluster import NODES_A_CALL, NodeConfig, Sweep, parse_sweep, sweep_script
from shared.controls import catalogue
from shared.kubelet import asked
from shared.models import Cluster, Node, Problem, Status, Told
from shared.node.frames import request_nonce
from shared.runs import documents
from shared.runs.model import keys, sweeps
from shared.runs.model.messages import FindNodes, SweepChunk, Swept
from shared.runs.model.sweeps import ChunkSweep, ClusterSweep, SweptPage
from shared.runs.nodes.verdicts import internal
from shared.runs.services import Services
from shared.runs.steps.advancing import OvertakenError
from shared.runs.steps.standing import stand

log = logging.getLogger(__name__)

# Seconds: a pod is there in some ten, and asks a thousand kubelets in as many.
_FIRST_LOOK = 10.0
# What a call had no time or room for.
_LEFT_OVER = {"configz_not_asked", "configz_no_room", "configz_lost"}
# So many clusters of a chunk are asked at once.
_AT_ONCE = 20


async def sweep(services: Services, message: SweepChunk) -> Swept:
    """Do what is due in a chunk's sweep; gives when to come again. Raises StoreError; then it may be done again."""
    standing = await stand(services, message)
    if standing.over or standing.cancelled:
        return Swept(over=standing.over, cancelled=standing.cancelled)
    run_id, subscription, store = standing.run.id, message.subscription, services.store
    chunked = await documents.load(store, run_id, keys.clusters(subscription), documents.CHUNKS)
    clusters = chunked[message.chunk]
    name = keys.sweep(subscription, message.chunk)
    work = await store.work(run_id, name)
    row = ChunkSweep(tuple(ClusterSweep() for _ in clusters)) if work is None else sweeps.from_text(work.text, name)
    now = datetime.now(UTC)
    due = [number for number, state in enumerate(row.clusters) if (at := state.due(now)) is not None and at <= now]
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ahead(number: int) -> ClusterSweep:
        async with gate:
            turn = _Turn(services, run_id, clusters[number], keys_of(number))
            return await turn.take(row.clusters[number])

    def keys_of(number: int) -> tuple[str, int, int]:
        return subscription, message.chunk, number

    for number, state in zip(due, await asyncio.gather(*map(ahead, due)), strict=True):
        row = row.with_cluster(number, state)
    if due or work is None:
        etag = await store.put_work(run_id, name, sweeps.to_text(row), work.etag if work is not None else None)
        if etag is None:
            raise OvertakenError(f"the sweep {name} was gone on with by another one meanwhile")
    return Swept(due=row.due(datetime.now(UTC)))


def settings() -> tuple[str, ...]:
    """The settings that a cluster is asked for: those of every control."""
    controls = catalogue().controls.values()
    return tuple(sorted({name for control in controls if control.setting for name in asked(control.setting)}))


class _Turn:
    """One step of one cluster's sweep."""

    def __init__(self, services: Services, run_id: str, cluster: Cluster, place: tuple[str, int, int]) -> None:
        self._services = services
        self._run_id = run_id
        self._cluster = cluster
        self._place = place

    async def take(self, state: ClusterSweep) -> ClusterSweep:
        """Send the command, or look at it, or ask the API server from here; what was told is saved."""
        command = state.command
        begun = command.started if command is not None and command.started is not None else datetime.now(UTC)
        found: Pending | Sweep | Problem
        try:
            found = await self._ask(state)
        except Exception as error:
            log.exception("asking the cluster %s failed", self._cluster.id)
            found = internal(error)
        if isinstance(found, Pending):
            return replace(state, command=found)
        if isinstance(found, Problem):
            await self._save(state, SweptPage(problem=found))
            return replace(state, pages=state.pages + 1, command=None, done=True)
        page = SweptPage(tuple(_told(node, begun) for node in found.nodes.values()), found.problem)
        await self._save(state, page)
        left = [name for name, node in found.nodes.items() if node.trouble and node.trouble.code in _LEFT_OVER]
        again = tuple(sorted({*state.again, *left}))[:NODES_A_CALL]
        pages = state.pages + 1
        if found.left > 0 and found.last > state.after and found.problem is None and not state.last:
            return ClusterSweep(pages, found.last, again)
        if again and found.problem is None and not state.last:
            return ClusterSweep(pages, again=again, last=True)
        return ClusterSweep(pages, done=True)

    async def _ask(self, state: ClusterSweep) -> Pending | Sweep | Problem:
        azure, cluster, command = self._services.azure, self._cluster, state.command
        way = self._services.settings.sweep_way
        nodes, after = (state.again, "") if state.last else (None, state.after)
        if way == "api":
            return await azure.ask_api_server(cluster, settings(), command, nodes=nodes, after=after)
        nonce = request_nonce(self._run_id, cluster.id.lower(), f"sweep.{state.pages}")
        if command is not None and command.url:
            outcome = await azure.look_in_cluster(cluster, command)
        else:
            script = sweep_script(settings(), way, nonce, nodes=nodes, after=after)
            outcome = await azure.start_in_cluster(cluster, script, command, _FIRST_LOOK)
        return parse_sweep(outcome.logs, nonce, settings(), way) if isinstance(outcome, Invoked) else outcome

    async def _save(self, state: ClusterSweep, page: SweptPage) -> None:
        subscription, chunk, number = self._place
        name = keys.swept(subscription, chunk, number, state.pages)
        await documents.save(self._services.store, self._run_id, name, documents.SWEPT, page)


def _told(node: NodeConfig, begun: datetime) -> Told:
    return Told(
        resource_id=node.resource_id,
        name=node.name,
        asked=begun,
        version=node.version,
        boot_id=node.boot_id,
        ready=node.ready,
        values={setting: json.dumps(value) for setting, value in node.values.items()},
        trouble=node.trouble,
    )


@dataclass(frozen=True, slots=True)
class Hearsay:
    """What the clusters of a chunk told: of nodes by their keys, and why clusters told nothing, by their names in lower
    case."""

    nodes: Mapping[str, Told]
    problems: Mapping[str, Problem]

    def of(self, node: Node) -> Told:
        """What a node told, or why it was not heard."""
        known = self.nodes.get(node.key)
        if known is not None:
            return known
        trouble = self.problems.get(node.cluster.lower(), NOT_IN_CLUSTER)
        return Told(resource_id=node.key, name=node.name, asked=datetime.now(UTC), trouble=trouble)


NOT_IN_CLUSTER = Problem(
    Status.ERROR,
    "not_in_cluster",
    "the machine is in Azure, and the cluster has no node of it.",
    "Look at the node itself (--witness both): it may not have joined yet, or not any more.",
)
NOT_SWEPT = Problem(
    Status.ERROR,
    "not_swept",
    "the cluster could not be asked for the configuration of its nodes.",
    "Run again; the run's error says why.",
)


async def hearsay(services: Services, run_id: str, message: FindNodes, clusters: Sequence[Cluster]) -> Hearsay:
    """What the sweep of a chunk brought."""
    store = services.store
    name = keys.sweep(message.subscription, message.chunk)
    work = await store.work(run_id, name)
    row = ChunkSweep(()) if work is None else sweeps.from_text(work.text, name)
    nodes: dict[str, Told] = {}
    problems = {cluster.name.lower(): NOT_SWEPT for cluster in clusters[len(row.clusters) :]}
    for number, state in enumerate(row.clusters):
        if not state.done:
            problems[clusters[number].name.lower()] = NOT_SWEPT
        for page in range(state.pages):
            place = keys.swept(message.subscription, message.chunk, number, page)
            told = await documents.load(store, run_id, place, documents.SWEPT)
            nodes.update({node.resource_id: node for node in told.nodes if node.resource_id})
            if told.problem is not None:
                problems[clusters[number].name.lower()] = told.problem
    return Hearsay(nodes, problems)
