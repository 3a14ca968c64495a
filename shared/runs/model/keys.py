"""The names under which a run keeps what it works with in the store (pure): one place for all of them.

Documents are large and written once; work rows are small, and change as their batch goes on (but for answers).
"""

from __future__ import annotations

AUDIT = "audit/"
"""What the names of all batches of an audit begin with."""

FIX = "fix/"
"""What the names of all batches of a fix begin with."""


def lane(subscription: str) -> str:
    """What the names of a subscription's batches begin with."""
    return f"{AUDIT}{subscription}/"


def audit_batch(subscription: str, chunk: int, token: str, number: int) -> str:
    """A work row: a batch of a chunk of clusters. `token` tells apart the attempts to list the chunk."""
    return f"{lane(subscription)}{chunk:05d}/{token}/{number:05d}"


def answer(batch: str, token: str) -> str:
    """A work row: what a node of a batch answered to one command. `token` is in no other row's name."""
    return f"answers/{batch}/{token}"


def pool_batches(pool: int) -> str:
    """What the names of a pool's batches in a fix begin with."""
    return f"{FIX}{pool:05d}/"


def fix_batch(pool: int, first: int) -> str:
    """A work row: the nodes of a pool from the number `first` on, in a fix."""
    return f"{pool_batches(pool)}{first:06d}"


SCOPE = "scope"
"""A document: the subscriptions that a run looks at."""


def first_of(name: str) -> int:
    """The number of the first node of a fix's batch, by the batch's name."""
    return int(name.rsplit("/", 1)[1])


def pool_of(name: str) -> int:
    """The number of the pool of a fix's batch, by the batch's name."""
    return int(name.split("/")[1])


def listed(subscription: str) -> str:
    """A document: all clusters of a subscription."""
    return f"listed/{subscription}"


def clusters(subscription: str) -> str:
    """A document: the clusters of a subscription that are looked into, in chunks."""
    return f"clusters/{subscription}"


def chunk(subscription: str, number: int) -> str:
    """A document: what was found in a chunk of clusters. That it is there says that the chunk is listed whole."""
    return f"chunk/{subscription}/{number}"


def sweep(subscription: str, number: int) -> str:
    """A work row: how far the clusters of a chunk were asked for configz."""
    return f"sweep/{subscription}/{number:05d}"


def swept(subscription: str, number: int, cluster: int, page: int) -> str:
    """A document: what a cluster of a chunk told of some of its nodes."""
    return f"swept/{subscription}/{number}/{cluster}/{page}"


def told(batch: str) -> str:
    """A document: what the nodes of a batch told their clusters."""
    return f"told/{batch}"


def plans(batch: str, number: int) -> str:
    """A document: plans for nodes of a batch."""
    return f"plans/{batch}/{number}"


INDEX = "plan"
"""A document: which documents the plans of a planning run are in, and their digest."""

GATHERED = "pools"
"""A document: the pools of a fix."""


def pool_page(pool: int, page: int) -> str:
    """A document: some of a pool's plans in a fix."""
    return f"pool/{pool}/{page}"


def pool_running(pool: int) -> str:
    """A document: the nodes of a pool that ran before the fix's first wave."""
    return f"pool/{pool}/running"


def pool_asked(pool: int, done: int) -> str:
    """A work row: how far a pool's cluster was asked for its nodes, of which so many were done."""
    return f"asked/{pool:05d}/{done:06d}"


def pool_well(pool: int, done: int) -> str:
    """A document: how the nodes of a pool were when so many were done."""
    return f"well/{pool}/{done}"


def pool_until(pool: int) -> str:
    """A row of progress: when a pool of a fix is expected to be done."""
    return f"{pool_batches(pool)}until"


def places(subscription: str, cluster: str, node_pool: str, findings: int) -> str:
    """A row of progress: so many findings of places whose nodes were not listed, the first of which this is."""
    return f"places/{subscription}/{cluster}/{node_pool}/{findings}"
