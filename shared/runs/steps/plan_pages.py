"""A pool's plans in a fix, kept in pages: a wave reads the few that it is about."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from shared.runs import documents
from shared.runs.model import keys
from shared.runs.model.plans import NodePlan
from shared.store import Store

PAGE = 10
"""Plans a page: each may be some ten thousand characters long."""


async def save(store: Store, run_id: str, pool: int, page: int, plans: Sequence[NodePlan]) -> None:
    """Keep a page of at most PAGE plans."""
    await documents.save(store, run_id, keys.pool_page(pool, page), documents.PLANS, list(plans))


async def load(store: Store, run_id: str, pool: int, wanted: Iterable[int]) -> dict[int, NodePlan]:
    """The plans with these numbers. Raises LookupError where one is not there."""
    numbers = sorted(set(wanted))
    pages = sorted({number // PAGE for number in numbers})
    loaded = await asyncio.gather(
        *(documents.load(store, run_id, keys.pool_page(pool, page), documents.PLANS) for page in pages)
    )
    by_page = dict(zip(pages, loaded, strict=True))
    return {number: by_page[number // PAGE][number % PAGE] for number in numbers}
