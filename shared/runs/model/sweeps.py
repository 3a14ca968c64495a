"""A sweep as it is kept while a chunk's clusters are asked for the configz of their nodes: a work row in the store.

What they told is in documents, a page a call.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter

from shared.azure import Pending
from shared.models import Problem, Told


@dataclass(frozen=True, slots=True)
class SweptPage:
    """What one call told of a cluster's nodes; `problem`: why it told nothing."""

    nodes: tuple[Told, ...] = ()
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class ClusterSweep:
    """How far one cluster was asked: `pages` calls are over, the last of them up to the node `after`.

    `again` are nodes that these calls had no time or room for: when all were asked, they are once more. `command` is
    the call that is under way, or to be tried again; `asked` is when it was sent, before Azure had it.
    """

    pages: int = 0
    after: str = ""
    again: tuple[str, ...] = ()
    last: bool = False
    command: Pending | None = None
    asked: datetime | None = None
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


@dataclass(frozen=True, slots=True)
class NodeWell:
    """How a cluster says that a node is: whether it is Ready, and how many pods are not well (None: not known)."""

    ready: bool | None
    failing: int | None


@dataclass(frozen=True, slots=True)
class PoolQuestion:
    """How far a pool's cluster was asked: the `command` that is under way, and how many tries told nothing good."""

    command: Pending | None = None
    tries: int = 0


def worse(name: str, before: NodeWell | None, now: NodeWell | None) -> str:
    """In what a node is worse than before its fix, '' where in nothing (pure). What was not known cannot be worse."""
    if before is None:
        return ""
    if before.ready and (now is None or not now.ready):
        return f"{name} was Ready before its fix and is not now"
    if before.failing is not None and now is not None and now.failing is not None and now.failing > before.failing:
        return f"{now.failing} pods of {name} are not well, and before its fix {before.failing} were"
    return ""


CHUNK: TypeAdapter[ChunkSweep] = TypeAdapter(ChunkSweep)
QUESTION: TypeAdapter[PoolQuestion] = TypeAdapter(PoolQuestion)
