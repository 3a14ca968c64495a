"""What a run was narrowed down to (pure)."""

from __future__ import annotations

from shared.models import Run
from shared.runs.model.request import RunRequest


def scope_of(run: Run) -> dict[str, list[str]]:
    """What a run was narrowed down to, by the fields of RunRequest; an empty list: no restriction."""
    values = {name: run.request.get(name) for name in RunRequest.model_fields}
    return {
        name: [str(item) for item in value] if isinstance(value, list | tuple) else [] for name, value in values.items()
    }
