"""A batch of nodes as it is kept while they are worked on: a work row in the store.

It holds the nodes that are open; one that is done has its findings instead. It may hold signed addresses of results,
which go when the command has ended. What a node answered is kept in rows of its own, for 50 nodes' answers may be more
than one row holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from pydantic import TypeAdapter

from shared.azure import CommandResult, Pending
from shared.models import Finding, Node, Outcome, Problem, Status, outcome_of
from shared.runs.model import rows
from shared.runs.model.messages import BatchNow, Tally

BATCH = 50
"""Nodes a batch at most: few enough to be kept in one row, enough to make rows and steps few."""

FAILURES = (Outcome.FAILED, Outcome.ROLLED_BACK)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one command of a node's work. `doubtful`: it may have been sent twice, for its sender died."""

    result: CommandResult | Problem
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class OpenNode:
    """A node that is not done: where the answers are that it gave so far, and the command that is under way.

    `answers` are the tokens of the work rows that hold them, in order.
    `command` is None where the next one is yet to be sent. `sending` is set while it is being sent: whoever finds it
    set long ago knows that the sender died, and not whether Azure took the command; `doubts` counts how often, and the
    next answer is `doubtful`.
    `plan` is the number of the node in its pool, in a fix. Without `look` the node is judged by what its kubelet told
    its cluster, and no command is sent.
    """

    node: Node
    answers: tuple[str, ...] = ()
    command: Pending | None = None
    sending: datetime | None = None
    doubts: int = 0
    plan: int = -1
    look: bool = True

    @property
    def begun(self) -> bool:
        """Whether anything was sent to the node, or may have been."""
        sent = self.command is not None and bool(self.command.url)
        return bool(self.answers) or sent or self.sending is not None or self.doubts > 0

    @property
    def due(self) -> datetime | None:
        """When there is something to do; None: now."""
        if self.command is not None:
            return self.command.due
        return None if self.sending is None else self.sending + SENDING


SENDING = timedelta(seconds=90)
"""Sending takes a second or two, and where the connection hangs a minute; what takes longer died with its process."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What a part of a run cost: calls to Azure, and waits for its limits."""

    calls: int = 0
    waits: int = 0
    seconds: float = 0.0

    def plus(self, other: Costs) -> Costs:
        """Both together."""
        return Costs(self.calls + other.calls, self.waits + other.waits, self.seconds + other.seconds)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch. `nodes` are the open ones; what is done is counted.

    `judged` nodes were found right or wrong. `failing_since` has, of each that fails and was right once, when it began
    to fail. `plans` are, for each document of plans, the keys and digests of its entries.
    """

    region: str
    found: int
    nodes: tuple[OpenNode, ...]
    statuses: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, int] = field(default_factory=dict)
    judged: int = 0
    failing_since: tuple[datetime, ...] = ()
    plans: tuple[tuple[tuple[str, str], ...], ...] = ()
    costs: Costs = Costs()

    @property
    def tally(self) -> Tally:
        """What it came to so far."""
        return Tally(nodes=self.found, statuses=self.statuses, outcomes=self.outcomes)

    def due(self, now: datetime) -> datetime | None:
        """When to come again; None where no node is open."""
        return min((node.due or now for node in self.nodes), default=None)

    def now(self, name: str, now: datetime) -> BatchNow:
        """How it stands."""
        return BatchNow(name=name, open=len(self.nodes), due=self.due(now), tally=self.tally)

    def counted(self, made: Iterable[Finding], failing_since: datetime | None = None) -> Batch:
        """The batch with the findings of a node that is done; a node has one outcome."""
        made = list(made)
        statuses = Counter(self.statuses) + Counter(str(finding.status) for finding in made)
        outcome = outcome_of(finding.outcome for finding in made)
        outcomes = Counter(self.outcomes) + Counter([str(outcome)] if outcome is not None else [])
        return replace(
            self,
            statuses=dict(statuses),
            outcomes=dict(outcomes),
            judged=self.judged + any(finding.status in (Status.PASS, Status.FAIL) for finding in made),
            failing_since=self.failing_since if failing_since is None else (*self.failing_since, failing_since),
        )


_BATCH: TypeAdapter[Batch] = TypeAdapter(Batch)


def to_text(batch: Batch) -> str:
    """A batch as it is stored."""
    return rows.to_text(_BATCH, batch)


def from_text(text: str, where: str) -> Batch:
    """A stored batch. Raises StoreError where this version does not know it."""
    return rows.from_text(_BATCH, text, f"the batch {where}")


def failures(outcomes: Mapping[str, int]) -> int:
    """How many of these outcomes count against `max_failures`."""
    return sum(outcomes.get(str(outcome), 0) for outcome in FAILURES)


def total(tallies: Iterable[Tally]) -> Tally:
    """The sum of parts."""
    statuses: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    nodes = 0
    for tally in tallies:
        nodes += tally.nodes
        statuses.update(tally.statuses)
        outcomes.update(tally.outcomes)
    return Tally(nodes=nodes, statuses=dict(statuses), outcomes=dict(outcomes))
