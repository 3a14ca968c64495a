"""Answers of Azure Resource Manager as data, and what is read out of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from shared.azure.problems import Fault, response_fault
from shared.azure.throttle import DEFAULT_PAUSE, LONGEST_PAUSE, retry_after

Body = Mapping[str, object]
"""An object of Azure's JSON as it came: any field may be null, missing or odd."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whatever it says. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def asked(self) -> float:
        """The seconds that Azure asks to wait, as far as we believe them; 0 where it does not."""
        return min(retry_after(self.headers, datetime.now(UTC)) or 0.0, LONGEST_PAUSE)

    @property
    def fault(self) -> Fault | None:
        """What an error status says."""
        if 200 <= self.status < 300:
            return None
        return response_fault(self.status, self.content.decode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Refusal:
    """What went wrong with a call, and the seconds to wait before another."""

    fault: Fault
    asked: float = 0.0


@dataclass(frozen=True, slots=True)
class HeldBack(Refusal):
    """Nothing was sent: our own limits have no room for `asked` seconds."""


def accepted_of(reply: Reply) -> Reply | Refusal:
    """The answer by which a call was accepted (200, 202), or why it was not."""
    return _answer(reply, {200, 202})


def object_of(reply: Reply) -> Body | Refusal:
    """The JSON object of an answer with status 200, or why there is none."""
    answer = _answer(reply, {200})
    if isinstance(answer, Refusal):
        return answer
    try:
        body: object = json.loads(answer.content)
    except (ValueError, RecursionError):
        return _malformed(f"{len(answer.content)} bytes that are not JSON")
    return body if isinstance(body, dict) else _malformed("JSON that is not an object")


def page_of(reply: Reply) -> tuple[list[Body], str] | Refusal:
    """The items of a page, and the address of the next one (empty: none). An item that is no object is an empty one."""
    body = object_of(reply)
    if isinstance(body, Refusal):
        return body
    items, following = body.get("value"), body.get("nextLink")
    if not isinstance(items, list):
        return _malformed("a list without its value")
    if not isinstance(following, str | None):
        return _malformed("a list whose next page has no address")
    return [item if isinstance(item, Mapping) else {} for item in items], following or ""


def _answer(reply: Reply, statuses: set[int]) -> Reply | Refusal:
    if (fault := reply.fault) is not None:
        return Refusal(fault, reply.asked or (DEFAULT_PAUSE if reply.status == 429 else 0.0))
    if reply.status not in statuses:
        return Refusal(Fault(reply.status, "malformed", f"HTTP {reply.status}, which is no answer to this call"))
    return reply


def _malformed(text: str) -> Refusal:
    return Refusal(Fault(None, "malformed", text))
