"""A sweep as it is kept while a chunk's clusters are asked for the configz of their nodes: a work row in the store.

What they told is in documents, a page a call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from shared.azure import Pending
from shared.errors import StoreError
from shared.models import Problem, Told


@dataclass(frozen=True, slots=True)
class SweptPage:
    """What one call told of a cluster's nodes; `problem`: why it told nothing."""

    nodes: tuple[Told, ...] = ()
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class ClusterSweep:
    """How far one cluster was asked: `pages` calls are over, the last of them up to the node `after`.

    `command` is the call that is under way, or to be tried again.
    """

    pages: int = 0
    after: str = ""
    command: Pending | None = None
    done: bool = False

    def due(self, now: datetime) -> datetime | None:
        """When there is something to do; None where nothing is left."""
        if self.done:
            return None
        return now if self.command is None else self.command.due


@dataclass(frozen=True, slots=True)
class ChunkSweep:
    """How far the clusters of a chunk were asked, in their order."""

    clusters: tuple[ClusterSweep, ...]

    def due(self, now: datetime) -> datetime | None:
        """When to come again; None where all is told."""
        return min((at for cluster in self.clusters if (at := cluster.due(now)) is not None), default=None)

    def with_cluster(self, number: int, cluster: ClusterSweep) -> ChunkSweep:
        """The same with another state of one cluster."""
        return replace(self, clusters=(*self.clusters[:number], cluster, *self.clusters[number + 1 :]))


_SWEEP: TypeAdapter[ChunkSweep] = TypeAdapter(ChunkSweep)


def to_text(sweep: ChunkSweep) -> str:
    """A sweep as it is stored."""
    return _SWEEP.dump_json(sweep, exclude_defaults=True).decode()


def from_text(text: str, where: str) -> ChunkSweep:
    """A stored sweep. Raises StoreError where this version does not know it."""
    try:
        return _SWEEP.validate_json(text)
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise StoreError(f"the sweep {where} was not made by this version ({why}): start the run again") from None
