"""The operations by name, method and path, and carrying one out: validate, do, and say what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from shared.api import bodies, operations, problems
from shared.api.operations import Answer, Caller, problem
from shared.errors import GuardError, SettingsError, UsageError
from shared.plain import plain
from shared.validation import field_of, said

log = logging.getLogger(__name__)

# Four lists of 1,000 names, the longest that there are, take 130 KB.
MAX_BODY = 256 * 1024
_MOST_ERRORS = 20
_MOST_SAID = 5
_NO_STORE = {"Cache-Control": "no-store"}
# How the Functions host takes a key in an address.
_KEY_PARAMETER = "code"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. `path` is below the prefix `/api/` and may have `{run_id}`; `answers` is what 2xx sends.

    An `open` one takes no key and no connections, and answers whatever the settings are.
    """

    name: str
    method: str
    path: str
    carry_out: Callable[..., Awaitable[Answer]]
    answers: type[BaseModel]
    status: int = 200
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    refusals: tuple[int, ...] = ()
    open: bool = False


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
    Operation("get_hold", "GET", "hold", operations.get_hold, bodies.HoldView),
    Operation("hold_fixes", "POST", "hold", operations.set_hold, bodies.HoldView, body=bodies.HoldBody),
    Operation("release_hold", "DELETE", "hold", operations.release_hold, bodies.HoldView),
    Operation("health", "GET", "health", operations.health, bodies.Health, query=bodies.HealthQuery),
    Operation("live", "GET", "live", operations.live, bodies.Alive, open=True),
)


class _Wrong(Exception):
    """The request is not one: `answer` says why."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


async def carry_out(
    operation: Operation,
    ready: Callable[[], Awaitable[None]],
    connect: Callable[[], Awaitable[Caller]],
    *,
    parts: Mapping[str, str],
    query: Mapping[str, str],
    body: bytes,
    content_type: str,
) -> Answer:
    """Validate a request, do what it asks, and answer. Raises nothing that a caller could have caused.

    `ready` raises SettingsError where a setting is bad, a GuardError where something is missing that a request is
    validated by; then nothing is done, and the answer says so. No answer is to be kept by a cache.
    """
    try:
        await ready()
    except SettingsError as bad:
        log.error("%s: %s", operation.name, bad)
        answer = problem(problems.BAD_SETTINGS, str(bad))
    except GuardError as error:
        answer = _unavailable(operation, error)
    else:
        answer = await _carry_out(operation, connect, parts, query, body, content_type)
    return replace(answer, headers={**answer.headers, **_NO_STORE})


async def carry_out_open(operation: Operation) -> Answer:
    """Answer an `open` operation."""
    answer = await operation.carry_out()
    return replace(answer, headers={**answer.headers, **_NO_STORE})


async def _carry_out(
    operation: Operation,
    connect: Callable[[], Awaitable[Caller]],
    parts: Mapping[str, str],
    query: Mapping[str, str],
    body: bytes,
    content_type: str,
) -> Answer:
    try:
        arguments: dict[str, Any] = dict(parts)
        given = {name: value for name, value in query.items() if name != _KEY_PARAMETER}
        wanted = _parse((operation.query or bodies.NoQuery).model_validate, given)
        if operation.query is not None:
            arguments["query"] = wanted
        if operation.body is not None:
            arguments["body"] = _parse(
                partial(operation.body.model_validate_json, strict=True), _json(body, content_type)
            )
        return await operation.carry_out(await connect(), **arguments)
    except _Wrong as wrong:
        return wrong.answer
    except UsageError as error:
        return problem(problems.BAD_REQUEST, str(error))
    except GuardError as error:
        return _unavailable(operation, error)


def _unavailable(operation: Operation, error: GuardError) -> Answer:
    log.error("%s: %s", operation.name, error)
    return problem(problems.UNAVAILABLE, str(error), Retry_After="60")


def _json(body: bytes, content_type: str) -> bytes:
    """The body as JSON text; an empty one is an empty object."""
    kind = content_type.partition(";")[0].strip().lower()
    if body and kind not in ("application/json", ""):
        detail = f"the body is {plain(kind, 60)}; send JSON with Content-Type: application/json"
        raise _Wrong(problem(problems.NOT_JSON_TYPE, detail))
    if len(body) > MAX_BODY:
        detail = f"the body has {len(body):,} bytes; at most {MAX_BODY:,} are read"
        raise _Wrong(problem(problems.TOO_LARGE, detail))
    return body if body.strip() else b"{}"


Given = TypeVar("Given")
Model = TypeVar("Model", bound=BaseModel)


def _parse(validate: Callable[[Given], Model], values: Given) -> Model:
    try:
        return validate(values)
    except ValidationError as error:
        wrong = error.errors(include_url=False)
    if wrong[0]["type"] == "json_invalid":
        raise _Wrong(problem(problems.NOT_JSON, f"the body is not JSON: {wrong[0]['ctx']['error']}"))
    errors = [bodies.FieldError(field=field_of(item) or "body", message=said(item)) for item in wrong[:_MOST_ERRORS]]
    detail = "; ".join(f"{item.field}: {item.message}" for item in errors[:_MOST_SAID])
    more = f"; and {len(wrong) - _MOST_SAID:,} more" if len(wrong) > _MOST_SAID else ""
    raise _Wrong(problem(problems.BAD_REQUEST, detail + more, errors))
