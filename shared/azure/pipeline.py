"""The one HTTP pipeline under all of the SDK's clients: one token, one connection pool, one throttle.

It leaves out four of the SDK's usual policies on purpose: redirects (Resource Manager's calls have none, and a token
must not follow one), automatic registration of resource providers (an audit changes nothing in a subscription),
and both logging policies (addresses of results are signed).
"""

from __future__ import annotations

import json
import math
import ssl
import time
import zlib
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
from azure.core.exceptions import AzureError, StreamClosedError, StreamConsumedError
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

from shared.azure.problems import Fault, response_fault, word
from shared.azure.throttle import DEFAULT_PAUSE, LONGEST_PAUSE, Call, Throttle, classify, retry_after

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azure.core.credentials_async import AsyncTokenCredential

# The option of a call that names the region Compute counts it in; taken out again before the transport sees it.
REGION = "throttle_region"
# The option of a call that waits for its turn under the rate limits at most so many seconds.
MOST_WAIT = "throttle_most_wait"
# The option of a call whose answers with an error status are wanted as they are.
AS_IT_IS = "as_it_is"

_CONNECT_SECONDS = 15
_READ_SECONDS = 60

_Request = PipelineRequest[HttpRequest]
_Response = PipelineResponse[HttpRequest, AsyncHttpResponse]


class ForeignHostError(AzureError):
    """A call to a host that is not the Resource Manager endpoint; nothing was sent."""


class HeldBackError(AzureError):
    """A call that would have waited too long for our own limits; nothing was sent. Come again after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__("held back by our own limits")
        self.seconds = seconds


class RefusedError(AzureError):
    """An answer that is not what was asked for, judged before the SDK's models see it. `asked`: seconds to wait."""

    def __init__(self, fault: Fault, asked: float = 0.0) -> None:
        super().__init__(fault.message)
        self.fault = fault
        self.asked = asked


async def content_of(response: AsyncHttpResponse) -> bytes:
    """An answer's body, whether it was read before or not."""
    with suppress(StreamConsumedError, StreamClosedError):  # it was read before, and was empty
        await response.read()
    return response.content


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


class _Refusals(AsyncHTTPPolicy[HttpRequest, AsyncHttpResponse]):
    """Raises RefusedError for an error status, and for a list that is none.

    The SDK would try its own error model on whatever body there is (and log a traceback where that fails), and would
    take a page without `value` for an empty one.
    """

    async def send(self, request: _Request) -> _Response:
        as_it_is = request.context.options.pop(AS_IT_IS, False)
        a_list = request.http_request.method == "GET"
        try:
            response = await self.next.send(request)
            answer = response.http_response
            refused = not 200 <= answer.status_code < 300
            # What is left to the SDK is left unread, too: it cannot read an empty body a second time.
            content = await content_of(answer) if refused or a_list else b""
        except zlib.error as error:
            raise RefusedError(Fault(None, "malformed", f"a body that cannot be unpacked: {error}")) from None
        if as_it_is:
            return response
        if refused:
            asked = retry_after(_lower(answer.headers), datetime.now(UTC))
            fault = response_fault(answer.status_code, content.decode("utf-8", "replace"))
            raise RefusedError(fault, min(DEFAULT_PAUSE if asked is None else asked, LONGEST_PAUSE))
        if answer.status_code not in ({200} if a_list else {200, 202}):
            text = f"HTTP {answer.status_code}, which is no answer to this call"
            raise RefusedError(Fault(answer.status_code, "malformed", text))
        if a_list:
            _check_page(content)
        elif "Retry-After" in answer.headers:
            # The SDK takes a number of seconds and fails for a date, which is allowed, although the call was accepted.
            seconds = retry_after(_lower(answer.headers), datetime.now(UTC))
            answer.headers["Retry-After"] = str(math.ceil(min(seconds or 0, LONGEST_PAUSE)))
        return response


def _check_page(content: bytes) -> None:
    """Raises RefusedError where an answer is not a page of a list."""
    try:
        page: object = json.loads(content)
    except (ValueError, RecursionError):
        raise RefusedError(Fault(None, "malformed", f"{len(content)} bytes that are not JSON")) from None
    if not isinstance(page, dict) or not isinstance(page.get("value"), list):
        raise RefusedError(Fault(None, "malformed", "a list without its value"))
    if not isinstance(page.get("nextLink"), str | None):
        raise RefusedError(Fault(None, "malformed", "a list whose next page has no address"))


class _FreshToken(AsyncHTTPPolicy[HttpRequest, AsyncHttpResponse]):
    """Sends a request that was refused for its token (401: nothing was done) once more: the policy below, which drops
    such a token, then gets a fresh one."""

    async def send(self, request: _Request) -> _Response:
        response = await self.next.send(request)
        return await self.next.send(request) if response.http_response.status_code == 401 else response


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
        for option in (REGION, MOST_WAIT):
            if option in request.context.options:
                request.context[option] = request.context.options.pop(option)
        http = request.http_request
        call: Call = classify(http.method, http.url, request.context.get(REGION, ""))
        if held := await self._throttle.take(call, request.context.get(MOST_WAIT)):
            raise HeldBackError(held)
        sent = time.monotonic()
        response = await self.next.send(request)
        answer = response.http_response
        if answer.status_code == 429 and not await _over_a_limit(answer):
            return response
        self._throttle.answered(call, answer.status_code, _lower(answer.headers), time.monotonic() - sent)
        return response


async def _over_a_limit(answer: AsyncHttpResponse) -> bool:
    """Whether a 429 speaks of the rate: some say with it that the one resource is held by another operation."""
    fault = response_fault(429, (await content_of(answer)).decode("utf-8", "replace"))
    return word(fault) == "throttled"


class FirstAnswer(AsyncPollingMethod[None]):
    """A polling method that does not poll: it keeps the answer that accepted the operation."""

    def __init__(self) -> None:
        self.status_code = 0
        self.headers: Mapping[str, str] = {}
        self.content = b""

    def initialize(
        self,
        client: Any,  # noqa: ARG002 - the SDK names the arguments
        initial_response: Any,
        deserialization_callback: Any,  # noqa: ARG002
    ) -> None:
        answer = initial_response.http_response
        self.status_code, self.headers, self.content = answer.status_code, answer.headers, answer.content


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
    """The pipeline: refusals, host check, bounded retries of reads, one fresh token, throttle, token, transport."""
    return AsyncPipeline(
        transport,
        [
            RequestIdPolicy(),
            UserAgentPolicy("aks-kubelet-guard"),
            _Refusals(),
            _OnlyResourceManager(endpoint),
            _Retry(retry_total=4, retry_backoff_max=30),
            _FreshToken(),
            _Throttled(throttle),
            AsyncARMChallengeAuthenticationPolicy(credential, scope),
        ],
    )
