"""The audit that is meant where none is named."""

from __future__ import annotations

from shared.models import Run, RunKind, RunState
from shared.runs.model.request import RunRequest
from shared.store import Store

_PAGE = 200


async def latest_audit(store: Store) -> Run | None:
    """The newest completed audit of everything, or the newest completed one where there is none of everything."""
    newest, continuation = None, None
    while True:
        page = await store.runs(_PAGE, continuation, kind=RunKind.AUDIT, state=RunState.COMPLETED)
        for run in page.runs:
            if not any(scope_of(run).values()):
                return run
            newest = newest or run
        continuation = page.continuation
        if continuation is None:
            return newest


def scope_of(run: Run) -> dict[str, list[str]]:
    """What a run was narrowed down to, by the fields of RunRequest; an empty list: no restriction."""
    values = {name: run.request.get(name) for name in RunRequest.model_fields}
    return {
        name: [str(item) for item in value] if isinstance(value, list | tuple) else [] for name, value in values.items()
    }
