"""Azure Resource Manager, one call at a time: the layer under everything that finds, starts and looks."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from shared.azure.problems import Fault, response_fault
from shared.azure.throttle import DEFAULT_PAUSE, LONGEST_PAUSE, Throttle, retry_after
from shared.azure.versions import Versions

if TYPE_CHECKING:
    from types import TracebackType

    from azure.core.credentials_async import AsyncTokenCredential
    from azure.core.pipeline import AsyncPipeline
    from azure.core.rest import AsyncHttpResponse, HttpRequest

    from shared.azure.operations import Operation
    from shared.settings import Settings

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
class HeldBack:
    """Nothing was sent: our own limits have no room for `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """What went wrong with a call, and the seconds to wait before another."""

    fault: Fault
    asked: float = 0.0


class Arm:
    """An async context manager: one connection pool, one token, one throttle.

    Without `credential`, DefaultAzureCredential's. A credential that is given stays the caller's to close.
    """

    def __init__(self, settings: Settings, credential: AsyncTokenCredential | None = None) -> None:
        self.settings = settings
        self.versions = Versions()
        self.throttle = Throttle(share=settings.budget_percent / 100)
        self._given = credential
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        # The SDK takes a good part of a second to import: only who talks to Azure pays for it.
        from shared.azure.pipeline import build, open_transport

        async with AsyncExitStack() as opened:
            transport = open_transport()
            if transport.session is not None:
                await opened.enter_async_context(transport.session)
            credential: AsyncTokenCredential
            if self._given is not None:
                credential = self._given
            else:
                from azure.identity.aio import DefaultAzureCredential

                # It reports each source that does not apply as a warning of several lines; the error says it too.
                logging.getLogger("azure.identity").setLevel(logging.ERROR)
                authority = {"authority": self.settings.authority} if self.settings.authority else {}
                credential = await opened.enter_async_context(DefaultAzureCredential(transport=transport, **authority))
            self._pipeline: AsyncPipeline[HttpRequest, AsyncHttpResponse] = build(
                transport, credential, self.settings.arm_endpoint, self.settings.arm_scope, self.throttle
            )
            self._open = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def get(self, operation: Operation, region: str = "", **parts: str) -> Body | Refusal:
        """The object that one GET gives. `region` is where Compute counts it; passing trouble is sat out."""
        reply = await self._ask(operation, parts, region=region)
        return object_of(reply)

    async def post(
        self, operation: Operation, body: Body, region: str = "", most_wait: float | None = None, **parts: str
    ) -> Reply | HeldBack | Refusal:
        """The answer to one POST, which is never sent twice where Azure may have taken it.

        It waits for its turn under our limits at most `most_wait` seconds (None: as long as it takes).
        """
        return await self._ask(operation, parts, json.dumps(body).encode(), region, most_wait)

    async def look(self, url: str, most_wait: float) -> Reply | HeldBack | Refusal:
        """One GET of an address that Azure gave, as it is and without retries: whoever looks asks again anyway."""
        return await self._send("GET", url, None, "", most_wait, retry_total=0)

    async def pages(self, operation: Operation, region: str = "", **parts: str) -> AsyncIterator[list[Body] | Refusal]:
        """The pages of a list, one at a time; a refusal is the last. What is not an object among the items is an empty
        one: it is there, and will be missed."""
        seen: set[str] = set()
        reply = await self._ask(operation, parts, region=region)
        while True:
            page = _page(reply)
            if isinstance(page, Refusal):
                yield page
                return
            items, following = page
            yield items
            if not following:
                return
            if following in seen:
                yield Refusal(Fault(None, "malformed", "a list whose pages lead in a circle"))
                return
            seen.add(following)
            reply = await self._send("GET", following, None, region, None)

    async def _ask(
        self,
        operation: Operation,
        parts: Mapping[str, str],
        body: bytes | None = None,
        region: str = "",
        most_wait: float | None = None,
    ) -> Reply | HeldBack | Refusal:
        """One call; another at once where this cloud does not know the API version, so that it did nothing."""
        while True:
            version = self.versions.of(operation.provider)
            try:
                url = operation.url(self.settings.arm_endpoint, version, **parts)
            except ValueError as error:
                return Refusal(Fault(None, "malformed", str(error)))
            reply = await self._send(operation.method, url, body, region, most_wait)
            fault = reply.fault if isinstance(reply, Reply | Refusal) else None
            if fault is None or not self.versions.another(operation.provider, version, fault):
                return reply

    async def _send(
        self, method: str, url: str, body: bytes | None, region: str, most_wait: float | None, **options: object
    ) -> Reply | HeldBack | Refusal:
        from azure.core.exceptions import AzureError
        from azure.core.rest import HttpRequest

        from shared.azure.pipeline import MOST_WAIT, REGION, HeldBackError, content_of, fault_of, lower

        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        options |= {REGION: region, MOST_WAIT: most_wait}
        try:
            answer = await self._pipeline.run(HttpRequest(method, url, headers=headers, content=body), **options)
            content = await content_of(answer.http_response)
        except HeldBackError as error:
            return HeldBack(error.seconds)
        except AzureError as error:
            return Refusal(fault_of(error))
        except zlib.error as error:
            return Refusal(Fault(None, "malformed", f"a body that cannot be unpacked: {error}"))
        except (ValueError, AttributeError, TypeError) as error:
            # What the SDK raises for an address that it cannot make a request of.
            return Refusal(Fault(None, "malformed", str(error)))
        return Reply(answer.http_response.status_code, lower(answer.http_response.headers), content)


def refusal_of(reply: Reply) -> Refusal | None:
    """The refusal that an answer with an error status is."""
    fault = reply.fault
    if fault is None:
        return None
    return Refusal(fault, reply.asked or (DEFAULT_PAUSE if reply.status == 429 else 0.0))


def object_of(reply: Reply | HeldBack | Refusal) -> Body | Refusal:
    """The JSON object of an answer with status 200, or why there is none."""
    if isinstance(reply, Refusal):
        return reply
    if isinstance(reply, HeldBack):
        return Refusal(Fault(None, "throttled", "our own limits have no room for it"), reply.seconds)
    if (refused := refusal_of(reply)) is not None:
        return refused
    if reply.status != 200:
        text = f"HTTP {reply.status}, which is no answer to this call"
        return Refusal(Fault(reply.status, "malformed", text))
    try:
        body: object = json.loads(reply.content)
    except (ValueError, RecursionError):
        return Refusal(Fault(None, "malformed", f"{len(reply.content)} bytes that are not JSON"))
    if not isinstance(body, dict):
        return Refusal(Fault(None, "malformed", "JSON that is not an object"))
    return body


def _page(reply: Reply | HeldBack | Refusal) -> tuple[list[Body], str] | Refusal:
    """The items of a page, and the address of the next one (empty: none)."""
    body = object_of(reply)
    if isinstance(body, Refusal):
        return body
    items, following = body.get("value"), body.get("nextLink")
    if not isinstance(items, list):
        return Refusal(Fault(None, "malformed", "a list without its value"))
    if not isinstance(following, str | None):
        return Refusal(Fault(None, "malformed", "a list whose next page has no address"))
    return [item if isinstance(item, Mapping) else {} for item in items], following or ""
