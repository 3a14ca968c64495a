"""The one HTTP pipeline under all of the SDK's clients: one token, one connection pool, one throttle.

It leaves out four of the SDK's usual policies on purpose: redirects (Resource Manager's calls have none, and a token
must not follow one), automatic registration of resource providers (an audit changes nothing in a subscription),
and both logging policies (addresses of results are signed).
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
from azure.core.exceptions import AzureError
from azure.core.pipeline import AsyncPipeline, PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import (
    AsyncHTTPPolicy,
    AsyncRetryPolicy,
    RequestIdPolicy,
    SansIOHTTPPolicy,
    UserAgentPolicy,
)
from azure.core.pipeline.transport import AioHttpTransport
from azure.core.polling import AsyncPollingMethod
from azure.core.rest import AsyncHttpResponse, HttpRequest
from azure.mgmt.core.policies import AsyncARMChallengeAuthenticationPolicy

from shared.azure.throttle import LONGEST_PAUSE, Call, Throttle, classify

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azure.core.credentials_async import AsyncTokenCredential

# The option of a call that names the region Compute counts it in; taken out again before the transport sees it.
REGION = "throttle_region"

_CONNECT_SECONDS = 15
_READ_SECONDS = 60

_Request = PipelineRequest[HttpRequest]
_Response = PipelineResponse[HttpRequest, AsyncHttpResponse]


class ForeignHostError(AzureError):
    """A call to a host that is not the Resource Manager endpoint; nothing was sent."""


def same_service(url: str, endpoint: str) -> bool:
    """Whether `url` is on the host of `endpoint`, or below it (regional addresses), by https and on the same port."""
    target, home = urlsplit(url), urlsplit(endpoint)
    if target.scheme != "https" or target.username is not None or not target.hostname or not home.hostname:
        return False
    try:
        same_port = (target.port or 443) == (home.port or 443)
    except ValueError:
        return False
    return same_port and (target.hostname == home.hostname or target.hostname.endswith("." + home.hostname))


class _OnlyResourceManager(SansIOHTTPPolicy[HttpRequest, AsyncHttpResponse]):
    """Lets a request (a page's next link, a result's address) out to the endpoint's own host only."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint

    def on_request(self, request: _Request) -> None:
        url = request.http_request.url
        if not same_service(url, self._endpoint):
            raise ForeignHostError(f"{urlsplit(url).hostname or 'an address without host'} is not {self._endpoint}")


class _Retry(AsyncRetryPolicy[HttpRequest, AsyncHttpResponse]):
    """Repeats reads only: a POST that Azure may have accepted must not be sent a second time."""

    def is_retry(self, settings: dict[str, Any], response: PipelineResponse[Any, Any]) -> bool:
        return response.http_request.method == "GET" and super().is_retry(settings, response)

    def get_retry_after(self, response: PipelineResponse[Any, Any]) -> float | None:
        asked = super().get_retry_after(response)
        return None if asked is None else min(asked, LONGEST_PAUSE)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers with lower-case names; repeated ones joined by commas."""
    joined: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        joined[key] = f"{joined[key]},{value}" if key in joined else value
    return joined


class _Throttled(AsyncHTTPPolicy[HttpRequest, AsyncHttpResponse]):
    """Below the retry policy, so that every single request takes its tokens; above the token, so that none ages."""

    def __init__(self, throttle: Throttle) -> None:
        super().__init__()
        self._throttle = throttle

    async def send(self, request: _Request) -> _Response:
        # Options are for the transport, which refuses ones that it does not know; a retry finds ours in the context.
        if REGION in request.context.options:
            request.context[REGION] = request.context.options.pop(REGION)
        http = request.http_request
        call: Call = classify(http.method, http.url, request.context.get(REGION, ""))
        await self._throttle.take(call)
        response = await self.next.send(request)
        self._throttle.answered(call, response.http_response.status_code, _lower(response.http_response.headers))
        return response


class FirstAnswer(AsyncPollingMethod[None]):
    """A polling method that does not poll: it keeps the headers of the answer that accepted the operation."""

    def __init__(self) -> None:
        self.headers: Mapping[str, str] = {}

    def initialize(
        self,
        client: Any,  # noqa: ARG002 - the SDK names the arguments
        initial_response: Any,
        deserialization_callback: Any,  # noqa: ARG002
    ) -> None:
        self.headers = initial_response.http_response.headers


def open_transport() -> AioHttpTransport:
    """A transport over one connection pool. Close its `session` when done: closing the clients leaves it open.

    The TLS context is made now and not when aiohttp was imported, so that SSL_CERT_FILE holds whenever it was set.
    """
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=ssl.create_default_context()),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=True,
        auto_decompress=False,
    )
    return AioHttpTransport(
        session=session, session_owner=False, connection_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS
    )


def build(
    transport: AioHttpTransport, credential: AsyncTokenCredential, endpoint: str, scope: str, throttle: Throttle
) -> AsyncPipeline[HttpRequest, AsyncHttpResponse]:
    """The pipeline: host check, bounded retries of reads, throttle, token, transport."""
    return AsyncPipeline(
        transport,
        [
            RequestIdPolicy(),
            UserAgentPolicy("aks-kubelet-guard"),
            _OnlyResourceManager(endpoint),
            _Retry(retry_total=4, retry_backoff_max=30),
            _Throttled(throttle),
            AsyncARMChallengeAuthenticationPolicy(credential, scope),
        ],
    )
