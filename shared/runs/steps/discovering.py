"""Finding the nodes of a chunk of clusters, page by page, into batches."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from shared.azure import precheck, update_bucket
from shared.errors import EndpointError
from shared.models import Cluster, Node, ScopeProblem, Told
from shared.runs import documents
from shared.runs.model import batch as batches
from shared.runs.model import keys, pace
from shared.runs.model.batch import BATCH, Batch, OpenNode
from shared.runs.model.messages import BatchRef, FindNodes, Found
from shared.runs.nodes.hearing import needs_look
from shared.runs.services import Services
from shared.runs.steps.left_undone import record_places
from shared.runs.steps.node_record import past
from shared.runs.steps.progress_rows import save_found
from shared.runs.steps.standing import Standing, stand
from shared.runs.steps.sweeping import Hearsay, hearsay


async def find_nodes(services: Services, message: FindNodes) -> Found:
    """Make batches of the nodes of a chunk, and record what cannot be listed.

    The chunk's document comes last: what an attempt has left that did not get there is never looked at. Trouble that
    passes is raised, so that the nodes are looked for again; at the last try it is recorded.
    """
    standing = await stand(services, message)
    if standing.over:
        return Found()
    run_id, subscription, store = standing.run.id, message.subscription, services.store
    place = keys.chunk(subscription, message.chunk)
    known = await documents.find(store, run_id, place, documents.FOUND)
    if known is not None:
        return known
    chunked = await documents.load(store, run_id, keys.clusters(subscription), documents.CHUNKS)
    pools = standing.request.node_pools or None
    told = await hearsay(services, run_id, message, chunked[message.chunk]) if standing.request.sweeps else None
    gathering = _Gathering(services, standing, subscription, message.chunk, told, last=message.last)
    listing = (gathering.list_nodes(cluster, pools) for cluster in chunked[message.chunk])
    for error in await asyncio.gather(*listing, return_exceptions=True):
        if error is not None:
            raise error  # now that none goes on behind it
    await gathering.flush()
    tally = await record_places(services, standing, gathering.problems)
    found = Found(batches=tuple(gathering.batches), tally=tally, missed=gathering.missed)
    if gathering.found:
        share = services.settings.budget_percent / 100
        seconds = pace.last_start(gathering.regions, share) + services.settings.command_seconds * 1.5
        until = pace.after(datetime.now(UTC), seconds)
        await save_found(services, run_id, place, gathering.found, services.costs(), until)
    await documents.save(store, run_id, place, documents.FOUND, found)
    services.tell_found(gathering.found)
    return found


@dataclass
class _Gathering:
    """The nodes of a chunk on their way into batches, by what Compute counts their starts under; no more of them are
    held than fill a batch each."""

    services: Services
    standing: Standing
    subscription: str
    chunk: int
    told: Hearsay | None
    last: bool
    missed: str = ""
    problems: list[ScopeProblem] = field(default_factory=list)
    batches: list[BatchRef] = field(default_factory=list)
    regions: Counter[str] = field(default_factory=Counter)
    found: int = 0
    _token: str = field(default_factory=lambda: secrets.token_hex(4))
    _nodes: defaultdict[str, list[Node]] = field(default_factory=lambda: defaultdict(list))

    async def list_nodes(self, cluster: Cluster, pools: tuple[str, ...] | None) -> None:
        """Take a cluster's nodes in."""
        async for item in self.services.azure.nodes(cluster, pools):
            if isinstance(item, ScopeProblem):
                if item.passing and not self.last:
                    raise EndpointError(f"cluster {cluster.name}: {item.problem.reason}")
                if item.passing:
                    self.missed = self.missed or f"cluster {cluster.name}: {item.problem.reason}"
                self.problems.append(item)
                continue
            bucket = update_bucket(item.location, single=item.single)
            held = self._nodes[bucket]
            held.append(item)
            if len(held) >= BATCH:
                self._nodes[bucket] = []
                await self._put(bucket, held)

    async def flush(self) -> None:
        """Make batches of what is left."""
        for bucket, held in self._nodes.items():
            if held:
                await self._put(bucket, held)
        self._nodes.clear()

    async def _put(self, bucket: str, nodes: list[Node]) -> None:
        number = len(self.batches)
        name = keys.audit_batch(self.subscription, self.chunk, self._token, number)
        run_id, store = self.standing.run.id, self.services.store
        members = tuple(OpenNode(node) for node in nodes)
        if self.told is not None:
            told = {node.key: self.told.of(node) for node in nodes}
            await documents.save(store, run_id, keys.told(name), documents.TOLD, told)
            members = await self._chosen(nodes, told)
        asked = sum(member.look and precheck(member.node) is None for member in members)
        self.batches.append(BatchRef(name=name, region=bucket, nodes=asked))
        self.regions[bucket] += asked
        self.found += len(nodes)
        batch = Batch(bucket, len(nodes), members)
        await store.put_work(run_id, name, batches.to_text(batch), None)

    async def _chosen(self, nodes: list[Node], told: Mapping[str, Told]) -> tuple[OpenNode, ...]:
        """The nodes, and which of them are looked at themselves."""
        request = self.standing.request
        if request.witness != "smart":
            return tuple(OpenNode(node, look=request.witness != "configz") for node in nodes)
        known = await past(self.services, nodes)
        every = timedelta(days=self.services.settings.full_every_days)
        now = datetime.now(UTC)
        return tuple(
            OpenNode(node, look=needs_look(node, request.control_ids, told[node.key], known, now - every))
            for node in nodes
        )
