"""The operations by name, method and path, and carrying one out: validate, do, and say what is wrong."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from shared.api import bodies, operations
from shared.api.operations import Answer, Caller, problem
from shared.errors import GuardError, UsageError

log = logging.getLogger(__name__)

MAX_BODY = 1 << 20
# How the Functions host takes a key in an address.
_KEY_PARAMETER = "code"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. `path` is below the prefix `/api/` and may have `{run_id}`; `answers` is what 2xx sends."""

    name: str
    method: str
    path: str
    carry_out: Callable[..., Awaitable[Answer]]
    answers: type[BaseModel]
    status: int = 200
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    refusals: tuple[int, ...] = ()


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "start_audit", "POST", "audits", operations.start_audit, bodies.RunView, 202, bodies.AuditBody, refusals=(409,)
    ),
    Operation(
        "start_fix", "POST", "fixes", operations.start_fix, bodies.RunView, 202, bodies.FixBody, refusals=(403, 409)
    ),
    Operation("list_runs", "GET", "runs", operations.list_runs, bodies.RunList, query=bodies.RunsQuery),
    Operation("get_run", "GET", "runs/{run_id}", operations.get_run, bodies.RunDetail, refusals=(404,)),
    Operation(
        "get_plan",
        "GET",
        "runs/{run_id}/plan",
        operations.get_plan,
        bodies.PlanView,
        query=bodies.PlanQuery,
        refusals=(404,),
    ),
    Operation(
        "cancel_run", "POST", "runs/{run_id}/cancel", operations.cancel_run, bodies.RunView, 202, refusals=(404, 409)
    ),
    Operation(
        "approve_run",
        "POST",
        "runs/{run_id}/approve",
        operations.approve_run,
        bodies.RunView,
        202,
        bodies.ApproveBody,
        refusals=(404, 409),
    ),
    Operation(
        "list_findings",
        "GET",
        "findings",
        operations.list_findings,
        bodies.FindingList,
        query=bodies.FindingsQuery,
        refusals=(404,),
    ),
    Operation("health", "GET", "health", operations.health, bodies.Health),
)


class _Wrong(Exception):
    """The request is not one: `answer` says why."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


async def carry_out(
    operation: Operation,
    connect: Callable[[], Awaitable[Caller]],
    *,
    parts: Mapping[str, str],
    query: Mapping[str, str],
    body: bytes,
    content_type: str,
) -> Answer:
    """Validate a request, do what it asks, and answer. Raises nothing that a caller could have caused."""
    try:
        arguments: dict[str, Any] = dict(parts)
        given = {name: value for name, value in query.items() if name != _KEY_PARAMETER}
        wanted = _parse(operation.query or bodies.NoQuery, given)
        if operation.query is not None:
            arguments["query"] = wanted
        if operation.body is not None:
            arguments["body"] = _parse(operation.body, _json(body, content_type))
        return await operation.carry_out(await connect(), **arguments)
    except _Wrong as wrong:
        return wrong.answer
    except UsageError as error:
        return problem(400, "Bad request", str(error))
    except GuardError as error:
        log.error("%s: %s", operation.name, error)
        return problem(503, "The app cannot do this now", str(error), Retry_After="60")


def _json(body: bytes, content_type: str) -> Any:
    kind = content_type.partition(";")[0].strip().lower()
    if body and kind not in ("application/json", ""):
        raise _Wrong(problem(415, "Not JSON", f"the body is {kind}; send JSON with Content-Type: application/json"))
    if len(body) > MAX_BODY:
        raise _Wrong(problem(413, "Too large", f"the body has {len(body)} bytes; at most {MAX_BODY} are read"))
    if not body.strip():
        return {}
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _Wrong(problem(400, "Not JSON", f"the body is not JSON: {error}")) from None


Model = TypeVar("Model", bound=BaseModel)


def _parse(kind: type[Model], values: Any) -> Model:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        errors = [
            bodies.FieldError(
                field=".".join(str(part) for part in item["loc"]) or "body",
                message=item["msg"].removeprefix("Value error, "),
            )
            for item in error.errors(include_url=False, include_input=False)
        ]
        detail = "; ".join(f"{item.field}: {item.message}" for item in errors)
        raise _Wrong(problem(400, "Bad request", detail[:2000], errors)) from None
