"""The one HTTP pipeline under the SDK's clients and under what is asked by hand: one token, one connection pool, one
throttle.

It leaves out four of the SDK's usual policies on purpose: redirects (Resource Manager's calls have none, and a token
must not follow one), automatic registration of resource providers (an audit changes nothing in a subscription),
and both logging policies (addresses of results are signed).
"""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
    StreamClosedError,
    StreamConsumedError,
)
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
from shared.azure.replies import Refusal, Reply
from shared.azure.throttle import LONGEST_PAUSE, Call, Throttle, classify

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from azure.core.credentials_async import AsyncTokenCredential

# The option of a call that names the region Compute counts it in; taken out again before the transport sees it.
REGION = "throttle_region"
# The option of a call that waits for its turn under the rate limits at most so many seconds.
MOST_WAIT = "throttle_most_wait"
# The option of a call that looks at the answer before the SDK's models do: a function of the Reply.
CHECK = "check"

_CONNECT_SECONDS = 15
_READ_SECONDS = 60
# For the whole answer.
WHOLE_SECONDS = 180.0

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
    """An answer that is not what was asked for; the SDK's models have not seen it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.fault.message)
        self.refusal = refusal


async def content_of(response: AsyncHttpResponse) -> bytes:
    """An answer's body, whether it was read before or not."""
    with suppress(StreamConsumedError, StreamClosedError):  # it was read before, and was empty
        await response.read()
    return response.content


async def reply_of(response: AsyncHttpResponse) -> Reply:
    """An answer as data."""
    return Reply(response.status_code, lower(response.headers), await content_of(response))


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


class _Checked(AsyncHTTPPolicy[HttpRequest, AsyncHttpResponse]):
    """Looks at the answers that the SDK's models are to get, and raises RefusedError for what is none.

    The SDK would try its own error model on whatever body there is (and log a traceback where that fails), and would
    take a page without `value` for an empty one.
    """

    async def send(self, request: _Request) -> _Response:
        check = request.context.options.pop(CHECK, None)
        response = await self.next.send(request)
        if check is None:
            return response
        answer = response.http_response
        accepted = request.http_request.method == "POST" and answer.status_code in {200, 202}
        # The SDK reads the body of a call that was accepted by itself, and cannot read an empty one twice.
        content = b"" if accepted else await content_of(answer)
        reply = Reply(answer.status_code, lower(answer.headers), content)
        if isinstance(refused := check(reply), Refusal):
            raise RefusedError(refused)
        if accepted and "retry-after" in reply.headers:
            # It takes a number of seconds and fails for a date, which is allowed, although the call was accepted.
            answer.headers["Retry-After"] = str(math.ceil(reply.asked))
        return response


class FirstAnswer(AsyncPollingMethod[None]):
    """A polling method that does not poll: it keeps the answer that accepted the operation."""

    def __init__(self) -> None:
        self.reply = Reply(0, {}, b"")

    def initialize(
        self,
        client: Any,  # noqa: ARG002 - the SDK names the arguments
        initial_response: Any,
        deserialization_callback: Any,  # noqa: ARG002
    ) -> None:
        answer = initial_response.http_response
        self.reply = Reply(answer.status_code, lower(answer.headers), answer.content)


async def first_reply(begin: Callable[[FirstAnswer], Awaitable[object]], most_wait: float) -> Reply | Refusal:
    """The answer that accepts a long-running operation, which `begin` starts through the SDK without polling.

    The SDK reads the body of this answer by itself, after the pipeline and its limit (`most_wait`, in seconds).
    """
    first = FirstAnswer()
    try:
        async with asyncio.timeout(most_wait + WHOLE_SECONDS):
            await begin(first)
    except TimeoutError:
        return Refusal(Fault(None, "connection_lost", f"the answer was not whole after {WHOLE_SECONDS:g} s"))
    return first.reply


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


def lower(headers: Mapping[str, str]) -> dict[str, str]:
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
        learned = False
        try:
            # The transport's own limit is on each read alone: an answer that drips would hold a call for ever.
            async with asyncio.timeout(WHOLE_SECONDS):
                response = await self.next.send(request)
            answer = response.http_response
            if answer.status_code != 429 or await _over_a_limit(answer):
                learned = True
                seconds = time.monotonic() - sent
                self._throttle.answered(call, answer.status_code, lower(answer.headers), seconds)
        except TimeoutError:
            text = f"the answer was not whole after {WHOLE_SECONDS:g} s"
            raise ServiceResponseTimeoutError(text) from None
        finally:
            if not learned:
                self._throttle.unanswered(call)
        return response


async def _over_a_limit(answer: AsyncHttpResponse) -> bool:
    """Whether a 429 speaks of the rate: some say with it that the one resource is held by another operation."""
    fault = response_fault(429, (await content_of(answer)).decode("utf-8", "replace"))
    return word(fault) == "throttled"


def fault_of(error: AzureError) -> Fault:
    """The fault behind an exception of the SDK or of this pipeline."""
    match error:
        # The transport's name for a connection that broke within the body; by its class it would be an answer.
        case IncompleteReadError():
            return Fault(None, "connection_lost", error.message)
        # An answer of Resource Manager is none, whatever it says: this is the token's service.
        case HttpResponseError():
            return Fault(None, "credential", error.message.partition("\n")[0])
        case ServiceRequestTimeoutError():
            return Fault(None, "unreachable", error.message)
        case ServiceRequestError(inner_exception=aiohttp.ClientConnectorCertificateError()):
            return Fault(None, "untrusted", error.message)
        case ServiceRequestError(inner_exception=aiohttp.ClientConnectorError()):
            return Fault(None, "unreachable", error.message)
        # The transport calls a connection that broke in the middle a request error too: it may have arrived.
        case ServiceRequestError() | ServiceResponseError():
            return Fault(None, "connection_lost", error.message or "no answer in time")
        case ForeignHostError():
            return Fault(None, "foreign_host", error.message)
        case _:
            return Fault(None, "other", error.message)


class _Transport(AioHttpTransport):  # type: ignore[misc]  # the SDK exports it without its type
    """The SDK's, with the environment's proxies read once: aiohttp would read them, and `.netrc`, at every call, which
    costs 0.5 ms and two threads' work."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        super().__init__(
            session=session,
            session_owner=False,
            connection_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            use_env_settings=False,
        )
        self._proxies = getproxies()
        self._known: dict[tuple[str, str], str | None] = {}

    async def send(self, request: Any, *, stream: bool = False, proxies: Any = None, **config: Any) -> Any:
        """Send a request, by the proxy that the environment names for its host. As the SDK's."""
        parts = urlsplit(request.url)
        place = (parts.scheme, parts.netloc)
        if place not in self._known:
            # The port counts in no_proxy; credentials in an address do not.
            by_itself = proxy_bypass(parts.netloc.rpartition("@")[2])
            self._known[place] = None if by_itself else self._proxies.get(parts.scheme)
        if proxies is None and (proxy := self._known[place]) is not None:
            config["proxy"] = proxy
        return await super().send(request, stream=stream, proxies=proxies, **config)


def open_transport() -> AioHttpTransport:
    """A transport over one connection pool. Close its `session` when done: closing the clients leaves it open.

    The TLS context is made now and not when aiohttp was imported, so that SSL_CERT_FILE holds whenever it was set.
    """
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=ssl.create_default_context()),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )
    return _Transport(session)


def build(
    transport: AioHttpTransport, credential: AsyncTokenCredential, endpoint: str, scope: str, throttle: Throttle
) -> AsyncPipeline[HttpRequest, AsyncHttpResponse]:
    """The pipeline: check of what the SDK gets, host check, bounded retries of reads, one fresh token, throttle, token,
    transport.
    """
    return AsyncPipeline(
        transport,
        [
            RequestIdPolicy(),
            UserAgentPolicy("aks-kubelet-guard"),
            _Checked(),
            _OnlyResourceManager(endpoint),
            _Retry(retry_total=4, retry_backoff_max=30),
            _FreshToken(),
            _Throttled(throttle),
            AsyncARMChallengeAuthenticationPolicy(credential, scope),
        ],
    )
