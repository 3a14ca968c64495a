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

from shared.azure import Pending
from shared.cluster import NODES_A_CALL, NodeConfig, Sweep, doubled
from shared.controls import catalogue
from shared.models import Cluster, Node, Problem, Status, Told
from shared.node.frames import request_nonce
from shared.runs import documents
from shared.runs.model import keys, rows, sweeps
from shared.runs.model.messages import FindNodes, SweepChunk, Swept
from shared.runs.model.sweeps import ChunkSweep, ClusterSweep, SweptPage
from shared.runs.nodes.hearing import digest_of, still_told
from shared.runs.nodes.verdicts import internal
from shared.runs.services import Services
from shared.runs.steps.advancing import OvertakenError
from shared.runs.steps.in_cluster import ask
from shared.runs.steps.standing import stand
from shared.store import Work

log = logging.getLogger(__name__)

# AKS has clusters of 5,000 nodes; more pages than that only a cluster tells that is none.
_MOST_PAGES = 60
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
    row = (
        ChunkSweep(tuple(ClusterSweep() for _ in clusters))
        if work is None
        else rows.from_text(sweeps.CHUNK, work.text, f"the sweep {name}")
    )
    now = datetime.now(UTC)
    due = [number for number, state in enumerate(row.clusters) if (at := state.due(now)) is not None and at <= now]
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ahead(number: int) -> ClusterSweep:
        async with gate:
            turn = _Turn(services, run_id, clusters[number], (subscription, message.chunk, number))
            return await turn.take(row.clusters[number])

    states = dict(zip(due, await asyncio.gather(*map(ahead, due)), strict=True))
    row = ChunkSweep(tuple(states.get(number, state) for number, state in enumerate(row.clusters)))
    if due or work is None:
        etag = await store.put_work(
            run_id, name, rows.to_text(sweeps.CHUNK, row), work.etag if work is not None else None
        )
        if etag is None:
            raise OvertakenError(f"the sweep {name} was gone on with by another one meanwhile")
    return Swept(due=row.due(datetime.now(UTC)))


def _read(work: Work) -> ChunkSweep:
    return rows.from_text(sweeps.CHUNK, work.text, f"the sweep {work.name}")


class _Turn:
    """One step of one cluster's sweep."""

    def __init__(self, services: Services, run_id: str, cluster: Cluster, place: tuple[str, int, int]) -> None:
        self._services = services
        self._run_id = run_id
        self._cluster = cluster
        self._place = place

    async def take(self, state: ClusterSweep) -> ClusterSweep:
        """Send the command, or look at it, or ask the API server from here; what was told is saved."""
        names = catalogue().settings
        if state.command is None or not state.command.url:
            state = replace(state, asked=datetime.now(UTC))
        found: Pending | Sweep | Problem
        try:
            found = await self._ask(state, names)
        except Exception as error:
            log.exception("asking the cluster %s failed", self._cluster.id)
            found = internal(error)
        if isinstance(found, Pending):
            return replace(state, command=found)
        if isinstance(found, Problem):
            await self._save(state, SweptPage(problem=found))
            return ClusterSweep(state.pages + 1, done=True)
        begun = state.asked or datetime.now(UTC)
        page = SweptPage(tuple(_told(node, begun, names) for node in found.nodes.values()), found.problem)
        more = found.left > 0 and found.last > state.after and found.problem is None and not state.last
        if more and state.pages + 1 >= _MOST_PAGES:
            more, page = False, replace(page, problem=_ENDLESS)
        await self._save(state, page)
        again = tuple(sorted({*state.again, *found.again}))[:NODES_A_CALL]
        pages = state.pages + 1
        if more:
            return ClusterSweep(pages, found.last, again)
        if again and page.problem is None and not state.last:
            return ClusterSweep(pages, again=again, last=True)
        return ClusterSweep(pages, done=True)

    async def _ask(self, state: ClusterSweep, names: Sequence[str]) -> Pending | Sweep | Problem:
        # Who judges by another catalogue does not take this answer for its own.
        nonce = request_nonce(self._run_id, self._cluster.id.lower(), f"sweep.{state.pages}.{digest_of(names)}")
        nodes, after = (state.again, "") if state.last else (None, state.after)
        return await ask(self._services, self._cluster, names, state.command, nonce, nodes=nodes, after=after)

    async def _save(self, state: ClusterSweep, page: SweptPage) -> None:
        subscription, chunk, number = self._place
        if page.problem is not None:
            log.warning("%s was not asked for configz, or not whole: %s", self._cluster.id, page.problem.reason)
        name = keys.swept(subscription, chunk, number, state.pages)
        await documents.save(self._services.store, self._run_id, name, documents.SWEPT, page)


def _told(node: NodeConfig, begun: datetime, names: Sequence[str]) -> Told:
    return Told(
        resource_id=node.resource_id,
        name=node.name,
        asked=begun,
        version=node.version,
        boot_id=node.boot_id,
        ready=node.ready,
        values={setting: json.dumps(value) for setting, value in node.values.items()},
        trouble=node.trouble,
        settings=digest_of(names),
    )


def _place(cluster: Cluster) -> tuple[str, str]:
    return cluster.resource_group.lower(), cluster.name.lower()


@dataclass(frozen=True, slots=True)
class Hearsay:
    """What the clusters of a chunk told, each by its resource group and name in lower case: of nodes by their keys, and
    why it told nothing. A cluster speaks of its own nodes alone."""

    nodes: Mapping[tuple[str, str], Mapping[str, Told]]
    problems: Mapping[tuple[str, str], Problem]

    def of(self, node: Node) -> Told:
        """What a node told, or why it was not heard."""
        place = node.resource_group.lower(), node.cluster.lower()
        known = self.nodes.get(place, {}).get(node.key)
        if known is not None:
            return known
        # Azure has the node: whatever its cluster is, it is one that was not judged.
        trouble = replace(self.problems.get(place, NOT_IN_CLUSTER), status=Status.ERROR)
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

_ENDLESS = Problem(
    Status.ERROR,
    "sweep_endless",
    "the cluster tells of more nodes than a cluster can have.",
    "Look at it with kubectl get nodes.",
)


async def hearsay(services: Services, run_id: str, message: FindNodes, clusters: Sequence[Cluster]) -> Hearsay:
    """What the sweep of a chunk brought."""
    store = services.store
    name = keys.sweep(message.subscription, message.chunk)
    work = await store.work(run_id, name)
    row = ChunkSweep(()) if work is None else _read(work)
    told: dict[tuple[str, str], Mapping[str, Told]] = {}
    problems = {_place(cluster): NOT_SWEPT for cluster in clusters[len(row.clusters) :]}
    for number, state in enumerate(row.clusters):
        place, nodes = _place(clusters[number]), _Nodes()
        if not state.done:
            problems[place] = NOT_SWEPT
        for page in range(state.pages):
            swept = keys.swept(message.subscription, message.chunk, number, page)
            heard = await documents.load(store, run_id, swept, documents.SWEPT)
            nodes.add(heard.nodes)
            if heard.problem is not None:
                problems[place] = heard.problem
        told[place] = still_told(nodes.told)
    return Hearsay(told, problems)


class _Nodes:
    """The nodes of one cluster, page by page. A machine that two of them name is neither's."""

    def __init__(self) -> None:
        self.told: dict[str, Told] = {}

    def add(self, nodes: Sequence[Told]) -> None:
        """Take a page in; a node that was asked twice counts as it was last."""
        for node in nodes:
            known = self.told.get(node.resource_id)
            if known is not None and known.name != node.name:
                trouble = doubled(node.name)
                self.told[node.resource_id] = replace(node, name="", values={}, trouble=trouble)
            elif node.resource_id:
                self.told[node.resource_id] = node
