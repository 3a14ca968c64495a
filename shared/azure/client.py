"""Azure as this product uses it: clusters, nodes and run command, over one connection pool and one credential."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from shared.azure import discovery, runcommand
from shared.azure.throttle import Stats, Throttle
from shared.azure.versions import Versions
from shared.models import Cluster, Node, ScopeProblem, Subscription

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from azure.core import AsyncPipelineClient
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.core.pipeline import AsyncPipeline
    from azure.core.rest import AsyncHttpResponse, HttpRequest
    from azure.mgmt.compute.aio import ComputeManagementClient
    from azure.mgmt.containerservice.aio import ContainerServiceClient
    from azure.mgmt.resource.subscriptions.aio import SubscriptionClient

    from shared.settings import Settings


class Azure:
    """An async context manager: `async with Azure(settings) as azure`.

    Without `credential`, DefaultAzureCredential's: environment, managed identity (AZURE_CLIENT_ID names a
    user-assigned one), Azure CLI and so on. A credential that is given stays the caller's to close.
    """

    def __init__(self, settings: Settings, credential: AsyncTokenCredential | None = None) -> None:
        self.settings = settings
        self.versions = Versions()
        self._throttle = Throttle(share=settings.budget_percent / 100)
        self._given = credential
        self._open = AsyncExitStack()
        self._compute: dict[str, ComputeManagementClient] = {}
        self._containers: dict[tuple[str, str], ContainerServiceClient] = {}

    async def __aenter__(self) -> Self:
        # The SDK takes most of a second to import: only who talks to Azure pays for it.
        from azure.core import AsyncPipelineClient

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
                transport, credential, self.settings.arm_endpoint, self.settings.arm_scope, self._throttle
            )
            self._plain: AsyncPipelineClient[HttpRequest, AsyncHttpResponse] = AsyncPipelineClient(
                self.settings.arm_endpoint, pipeline=self._pipeline
            )
            self._open = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    @property
    def stats(self) -> Stats:
        """Calls made and waits for rate limits, for the run's summary."""
        return self._throttle.stats

    async def subscriptions(self) -> list[Subscription]:
        """All subscriptions that the identity sees. Raises CredentialError or EndpointError."""
        return await discovery.subscriptions(self)

    async def clusters(self, subscription: str) -> list[Cluster]:
        """The AKS clusters of a subscription with their pools.

        Raises CredentialError and EndpointError (which concern the whole run), and SubscriptionError with the
        problem of this one subscription.
        """
        return await discovery.clusters(self, subscription)

    async def nodes(
        self, cluster: Cluster, pools: Collection[str] | None = None
    ) -> tuple[list[Node], list[ScopeProblem]]:
        """The nodes of a cluster (of the `pools` named, or of all), and what cannot be looked at. Raises nothing."""
        return await discovery.nodes(self, cluster, pools)

    async def start(
        self, node: Node, script: str, before: runcommand.Pending | None, first_look: float
    ) -> runcommand.Pending | runcommand.Ended:
        """Try once to start `script` on `node`: see `runcommand.start`."""
        return await runcommand.start(self, node, script, before, first_look)

    async def look(self, node: Node, pending: runcommand.Pending) -> runcommand.Pending | runcommand.Ended:
        """Look once at a started command, in this process or in another than started it: see `runcommand.look`."""
        return await runcommand.look(self, node, pending)

    def levels(self, subscription: str) -> dict[str, float]:
        """How many commands may be started now as far as this process knows: see `Throttle.levels`."""
        return self._throttle.levels(subscription)

    async def start_and_wait(self, node: Node, script: str) -> runcommand.Pending | runcommand.Ended:
        """Start `script`, waiting while the node is busy."""
        outcome = await self.start(node, script, None, self.settings.command_seconds)
        while isinstance(outcome, runcommand.Pending) and not outcome.url:
            await _until(outcome.due)
            outcome = await self.start(node, script, outcome, self.settings.command_seconds)
        return outcome

    async def wait(self, node: Node, pending: runcommand.Pending) -> runcommand.Ended:
        """Look at a started command until it has ended."""
        outcome: runcommand.Pending | runcommand.Ended = pending
        while isinstance(outcome, runcommand.Pending):
            await _until(outcome.due)
            outcome = await self.look(node, outcome)
        return outcome

    # What discovery and runcommand speak through. The API version is never the SDK's: two of its clients take it when
    # they are made, Compute's, whose operations have versions of their own, with each call.

    def tenant(self, api_version: str) -> SubscriptionClient:
        """A client for what is above subscriptions."""
        from azure.mgmt.resource.subscriptions.aio import SubscriptionClient

        return SubscriptionClient(
            self._credential, self.settings.arm_endpoint, pipeline=self._pipeline, api_version=api_version
        )

    def containers(self, subscription: str, api_version: str) -> ContainerServiceClient:
        """The subscription's one client for AKS in a version."""
        key = (subscription, api_version)
        if key not in self._containers:
            from azure.mgmt.containerservice.aio import ContainerServiceClient

            self._containers[key] = ContainerServiceClient(
                self._credential,
                subscription,
                self.settings.arm_endpoint,
                pipeline=self._pipeline,
                api_version=api_version,
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

    async def get_as_it_is(self, url: str, most_wait: float) -> AsyncHttpResponse:
        """One GET of an address that Azure gave, whatever comes, without retries: whoever looks asks again anyway."""
        from azure.core.rest import HttpRequest

        request = HttpRequest("GET", url)
        return await self._plain.send_request(request, retry_total=0, as_it_is=True, throttle_most_wait=most_wait)


async def _until(due: datetime) -> None:
    await asyncio.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()))
