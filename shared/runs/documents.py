"""The large values of a run, which go through the store and not through an orchestration's history."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from shared.errors import StoreError
from shared.models import Cluster, Told
from shared.runs.model.messages import Found, Gathered, PlanIndex
from shared.runs.model.plans import NodePlan
from shared.runs.model.sweeps import NodeWell, SweptPage
from shared.store import Store

T = TypeVar("T")

CLUSTERS: TypeAdapter[list[Cluster]] = TypeAdapter(list[Cluster])
CHUNKS: TypeAdapter[list[list[Cluster]]] = TypeAdapter(list[list[Cluster]])
FOUND: TypeAdapter[Found] = TypeAdapter(Found)
PLANS: TypeAdapter[list[NodePlan]] = TypeAdapter(list[NodePlan])
INDEX: TypeAdapter[PlanIndex] = TypeAdapter(PlanIndex)
GATHERED: TypeAdapter[Gathered] = TypeAdapter(Gathered)
SWEPT: TypeAdapter[SweptPage] = TypeAdapter(SweptPage)
WELL: TypeAdapter[dict[str, NodeWell]] = TypeAdapter(dict[str, NodeWell])
TOLD: TypeAdapter[dict[str, Told]] = TypeAdapter(dict[str, Told])
KEYS: TypeAdapter[list[str]] = TypeAdapter(list[str])


async def save(store: Store, run_id: str, name: str, adapter: TypeAdapter[Any], value: Any) -> None:
    """Keep `value` under the run and a name (shared.runs.model.keys)."""
    await store.save_document(run_id, name, adapter.dump_json(value).decode())


async def find(store: Store, run_id: str, name: str, adapter: TypeAdapter[T]) -> T | None:
    """What was saved, None where nothing was. Raises StoreError where it is nothing that this version takes."""
    text = await store.document(run_id, name)
    if text is None:
        return None
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise StoreError(f"{name} of the run {run_id} was not made by this version ({why}); make it again") from None


async def load(store: Store, run_id: str, name: str, adapter: TypeAdapter[T]) -> T:
    """What was saved. Raises as `find`, and LookupError where nothing was: a step came before the one it builds on."""
    value = await find(store, run_id, name, adapter)
    if value is None:
        raise LookupError(f"run {run_id} has no {name}")
    return value
