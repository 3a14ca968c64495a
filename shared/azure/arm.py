"""Azure Resource Manager, one call at a time: the layer under everything that finds, starts and looks.

A call is made by the SDK's clients (`sdk`), or by hand where their models would cost more than the call itself, and
where there is no client for it (`pages`, `query`, `look`): by the same pipeline, and refused in the same words.
"""

from __future__ import annotations

import asyncio
import json
import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self, TypeVar

from shared.azure.problems import Fault
from shared.azure.replies import Body, HeldBack, Refusal, Reply, object_of, page_of
from shared.azure.single_vms import PowerStates
from shared.azure.throttle import Throttle
from shared.azure.versions import Provider, Versions

if TYPE_CHECKING:
    from types import TracebackType

    from azure.core.async_paging import AsyncItemPaged
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.core.pipeline import AsyncPipeline
    from azure.core.rest import AsyncHttpResponse, HttpRequest
    from azure.mgmt.compute.aio import ComputeManagementClient
    from azure.mgmt.containerservice.aio import ContainerServiceClient

    from shared.azure.operations import Operation
    from shared.settings import Settings

T = TypeVar("T")
Options = Mapping[str, Any]
"""What a call of the SDK's has to hand on to the pipeline."""

_MOST_SENDING = 100


class Arm:
    """An async context manager: one connection pool, one token, one throttle.

    Without `credential`, DefaultAzureCredential's. A credential that is given stays the caller's to close.
    """

    def __init__(self, settings: Settings, credential: AsyncTokenCredential | None = None) -> None:
        self.settings = settings
        self.versions = Versions()
        self.throttle = Throttle(share=settings.budget_percent / 100)
        self.power_states = PowerStates()
        # Of the starts: each holds a whole script, and the connection pool takes no more calls at once.
        self.sending = asyncio.Semaphore(_MOST_SENDING)
        self._given = credential
        self._open = AsyncExitStack()
        self._compute: dict[str, ComputeManagementClient] = {}
        self._containers: dict[tuple[str, str], ContainerServiceClient] = {}

    async def __aenter__(self) -> Self:
        # The SDK takes a good part of a second to import: only who talks to Azure pays for it, and not within a call.
        from azure.mgmt.compute.aio import ComputeManagementClient  # noqa: F401
        from azure.mgmt.containerservice.aio import ContainerServiceClient  # noqa: F401

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
            self._credential = credential
            self._pipeline: AsyncPipeline[HttpRequest, AsyncHttpResponse] = build(
                transport, credential, self.settings.arm_endpoint, self.settings.arm_scope, self.throttle
            )
            self._open = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    # The SDK's clients, all over the one pipeline. The API version is never the SDK's own: AKS's client takes it when
    # it is made, Compute's, whose operations have versions of their own, with each call.

    def containers(self, subscription: str, version: str) -> ContainerServiceClient:
        """The subscription's one client for AKS in an API version."""
        key = (subscription, version)
        if key not in self._containers:
            from azure.mgmt.containerservice.aio import ContainerServiceClient

            self._containers[key] = ContainerServiceClient(
                self._credential,
                subscription,
                self.settings.arm_endpoint,
                pipeline=self._pipeline,
                api_version=version,
            )
        return self._containers[key]

    def compute(self, subscription: str) -> ComputeManagementClient:
        """The subscription's one client for Compute."""
        if subscription not in self._compute:
            from azure.mgmt.compute.aio import ComputeManagementClient

            self._compute[subscription] = ComputeManagementClient(
                self._credential, subscription, self.settings.arm_endpoint, pipeline=self._pipeline
            )
        return self._compute[subscription]

    async def sdk(
        self,
        provider: Provider,
        check: Callable[[Reply], object],
        call: Callable[[str, Options], Awaitable[T | Refusal]],
        region: str = "",
        most_wait: float | None = None,
    ) -> T | Refusal:
        """What a call of the SDK's clients gives; `call` makes it in an API version and with options for the pipeline.

        Answers that `check` gives a Refusal for never reach the SDK. `region` is where Compute counts the call, which
        waits for its turn under our limits at most `most_wait` seconds (None: as long as it takes), or is HeldBack.
        """
        from shared.azure.pipeline import CHECK, MOST_WAIT, REGION

        options = {CHECK: check, REGION: region, MOST_WAIT: most_wait}
        return await self._spoken(provider, lambda version: _caught(lambda: call(version, options)))

    async def token(self, scope: str) -> str | Refusal:
        """A token of the same identity for another service than Resource Manager. A secret."""

        async def call() -> str:
            return (await self._credential.get_token(scope)).token

        return await _caught(call)

    async def query(
        self, operation: Operation, body: Body | None, most_wait: float | None = None, **parts: str
    ) -> Body | Refusal:
        """The object that one POST which changes nothing gives."""
        content = None if body is None else json.dumps(body).encode()
        return _read(await self._ask(operation, parts, content, most_wait=most_wait), object_of)

    async def look(self, url: str, most_wait: float) -> Reply | Refusal:
        """One GET of an address that Azure gave, as it is and without retries: whoever looks asks again anyway.

        By hand, since the SDK knows no single look: its poller sleeps where it is, asks at once and reads twice.
        """
        return await self._send("GET", url, most_wait=most_wait, retry_total=0)

    async def pages(self, operation: Operation, region: str = "", **parts: str) -> AsyncIterator[list[Body] | Refusal]:
        """The pages of a list, one at a time; a refusal is the last. What is not an object among the items is an empty
        one: it is there, and will be missed."""
        seen: set[str] = set()
        reply = await self._ask(operation, parts, region=region)
        while True:
            page = _read(reply, page_of)
            if isinstance(page, Refusal):
                yield page
                return
            items, following = page
            yield items
            if not following:
                return
            if following in seen:
                yield CIRCLE
                return
            seen.add(following)
            reply = await self._send("GET", following, region=region)

    async def _ask(
        self,
        operation: Operation,
        parts: Mapping[str, str],
        body: bytes | None = None,
        region: str = "",
        most_wait: float | None = None,
    ) -> Reply | Refusal:
        def send(version: str) -> Awaitable[Reply | Refusal]:
            return self._send(
                operation.method, operation.url(self.settings.arm_endpoint, version, **parts), body, region, most_wait
            )

        return await self._spoken(operation.provider, send)

    async def _spoken(self, provider: Provider, call: Callable[[str], Awaitable[T | Refusal]]) -> T | Refusal:
        """One call; another at once where this cloud does not know the API version, so that it did nothing."""
        while True:
            version = self.versions.of(provider)
            try:
                reply = await call(version)
            except ValueError as error:
                return Refusal(Fault(None, "malformed", str(error)))
            fault = reply.fault if isinstance(reply, Reply | Refusal) else None
            if fault is None or not self.versions.another(provider, version, fault):
                return reply

    async def _send(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        region: str = "",
        most_wait: float | None = None,
        **options: object,
    ) -> Reply | Refusal:
        from azure.core.rest import HttpRequest

        from shared.azure.pipeline import MOST_WAIT, REGION, reply_of

        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        options |= {REGION: region, MOST_WAIT: most_wait}

        async def send() -> Reply:
            request = HttpRequest(method, url, headers=headers, content=body)
            return await reply_of((await self._pipeline.run(request, **options)).http_response)

        return await _caught(send)


CIRCLE = Refusal(Fault(None, "malformed", "a list whose pages lead in a circle"))


async def items_of(listed: AsyncItemPaged[Any]) -> list[Body] | Refusal:
    """All items of a list of the SDK's. Its models are read as the objects that they hold."""
    from azure.core.async_paging import AsyncPageIterator

    items: list[Body] = []
    seen: set[object] = set()
    pages = listed.by_page()
    assert isinstance(pages, AsyncPageIterator)  # which knows the address of the next page
    async for page in pages:
        if pages.continuation_token in seen:
            return CIRCLE
        seen.add(pages.continuation_token)
        items += [item if isinstance(item, Mapping) else {} async for item in page]
    return items


async def _caught(call: Callable[[], Awaitable[T | Refusal]]) -> T | Refusal:
    """What a call by the pipeline gives, its exceptions as what they stand for."""
    from azure.core.exceptions import AzureError

    from shared.azure.pipeline import HeldBackError, RefusedError, fault_of

    try:
        return await call()
    except HeldBackError as error:
        return HeldBack(Fault(None, "throttled", "our own limits have no room for it"), error.seconds)
    except RefusedError as error:
        return error.refusal
    except AzureError as error:
        return Refusal(fault_of(error))
    except zlib.error as error:
        return Refusal(Fault(None, "malformed", f"a body that cannot be unpacked: {error}"))
    except (ValueError, AttributeError, TypeError) as error:
        # What the SDK raises for an address that it cannot make a request of, or a body that its models cannot hold.
        return Refusal(Fault(None, "malformed", str(error)))


def _read(reply: Reply | Refusal, reader: Callable[[Reply], T | Refusal]) -> T | Refusal:
    return reader(reply) if isinstance(reply, Reply) else reply
