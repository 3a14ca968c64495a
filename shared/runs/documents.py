"""The large values of a run, which go through the store and not through an orchestration's history."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from shared.errors import StoreError
from shared.models import Node, ScopeProblem
from shared.runs.plans import NodePlan
from shared.store import Store

T = TypeVar("T")

NODES: TypeAdapter[list[Node]] = TypeAdapter(list[Node])
SCOPE_PROBLEMS: TypeAdapter[list[ScopeProblem]] = TypeAdapter(list[ScopeProblem])
PLANS: TypeAdapter[list[NodePlan]] = TypeAdapter(list[NodePlan])


async def save(store: Store, run_id: str, name: str, adapter: TypeAdapter[Any], value: Any) -> None:
    """Keep `value` under the run and a name such as `nodes/SUBSCRIPTION/0`."""
    await store.save_document(run_id, name, adapter.dump_json(value).decode())


async def load(store: Store, run_id: str, name: str, adapter: TypeAdapter[T]) -> T:
    """What was saved. Raises LookupError where nothing was: an activity came before the one that it builds on.

    Raises StoreError where it is nothing that this version takes.
    """
    text = await store.document(run_id, name)
    if text is None:
        raise LookupError(f"run {run_id} has no {name}")
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise StoreError(f"{name} of the run {run_id} was not made by this version ({why}); make it again") from None
