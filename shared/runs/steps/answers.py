"""What nodes that are not done have answered: a work row for each answer, written once.

A row's token is made anew whenever one is written. So what an attempt left that did not get to name it in its batch's
row is never taken for another answer.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable

from pydantic import TypeAdapter, ValidationError

from shared.errors import StoreError
from shared.runs.model import keys
from shared.runs.model.batch import Answer
from shared.store import Store

_ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)


async def keep(store: Store, run_id: str, batch: str, answer: Answer) -> str:
    """Keep what a node of a batch answered; gives the token by which it is found again."""
    token = secrets.token_hex(8)
    await store.put_work(run_id, keys.answer(batch, token), _ANSWER.dump_json(answer).decode(), None)
    return token


async def kept(store: Store, run_id: str, batch: str, tokens: Iterable[str]) -> list[Answer]:
    """The answers with these tokens. Raises LookupError where one is not there, StoreError where it is none."""
    return list(await asyncio.gather(*(_one(store, run_id, keys.answer(batch, token)) for token in tokens)))


async def _one(store: Store, run_id: str, name: str) -> Answer:
    work = await store.work(run_id, name)
    if work is None:
        raise LookupError(f"run {run_id} has no {name}")
    try:
        return _ANSWER.validate_json(work.text)
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise StoreError(f"{name} was not made by this version ({why}): start the run again") from None
