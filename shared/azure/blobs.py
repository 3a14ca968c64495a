"""One blob, read by the process's identity.

Source: Azure Storage REST documentation ("Get Blob", "Authorize with Microsoft Entra ID"): a token, and a service
version of 2017-11-09 or later.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.core.pipeline import AsyncPipeline
from azure.core.pipeline.policies import (
    AsyncBearerTokenCredentialPolicy,
    AsyncRetryPolicy,
    HeadersPolicy,
    RequestIdPolicy,
    UserAgentPolicy,
)
from azure.core.rest import AsyncHttpResponse, HttpRequest

from shared.azure.pipeline import open_transport
from shared.clouds import STORAGE_SCOPE
from shared.errors import BlobError, CredentialError
from shared.plain import plain

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

ROLE = "Storage Blob Data Reader"
_VERSION = "2021-12-02"
_WHOLE_SECONDS = 60.0


async def read_blob(
    url: str, most: int, credential: AsyncTokenCredential | None = None, authority: str | None = None
) -> bytes:
    """The content of the blob at an https URL, of which at most `most` bytes are read: more than those are refused.

    `credential` stays the caller's to close; without one, azure-identity's default credential is used, at `authority`
    (None: the public cloud's). Raises BlobError, and CredentialError where there is no credential.
    """
    async with AsyncExitStack() as stack:
        transport = open_transport()
        if transport.session is not None:
            await stack.enter_async_context(transport.session)
        signed_in: AsyncTokenCredential
        if credential is not None:
            signed_in = credential
        else:
            from azure.identity.aio import DefaultAzureCredential

            logging.getLogger("azure.identity").setLevel(logging.ERROR)
            options = {} if authority is None else {"authority": authority}
            signed_in = await stack.enter_async_context(DefaultAzureCredential(transport=transport, **options))
        policies: list[Any] = [
            RequestIdPolicy(),
            UserAgentPolicy("aks-kubelet-guard"),
            HeadersPolicy({"x-ms-version": _VERSION}),
            AsyncRetryPolicy(retry_total=3, retry_backoff_max=5),
            AsyncBearerTokenCredentialPolicy(signed_in, STORAGE_SCOPE),
        ]
        pipeline: AsyncPipeline[HttpRequest, AsyncHttpResponse] = AsyncPipeline(transport, policies)
        try:
            async with asyncio.timeout(_WHOLE_SECONDS):
                answer = (await pipeline.run(HttpRequest("GET", url), stream=True)).http_response
                content = bytearray()
                async for part in answer.iter_raw():
                    content += part
                    if len(content) > most:
                        break
        except ClientAuthenticationError:
            raise CredentialError(
                f"no Azure credential for the blob {url}: sign in with `az login`, or give the app a managed identity"
            ) from None
        except (AzureError, TimeoutError) as error:
            host = urlsplit(url).hostname
            raise BlobError(
                f"the blob {url} cannot be read: see that {host} resolves here, and that its firewall or private"
                f" endpoint lets this machine in ({type(error).__name__})"
            ) from None
    if answer.status_code != 200:
        raise _refused(url, answer)
    if len(content) > most:
        raise BlobError(f"the blob {url} has more than {most:,} bytes", 200)
    return bytes(content)


def _refused(url: str, answer: AsyncHttpResponse) -> BlobError:
    status = answer.status_code
    code = plain(answer.headers.get("x-ms-error-code", "no error code"), 60)
    match status:
        case 401 | 403:
            remedy = (
                f"give the identity the role {ROLE} on the container or the account (a new assignment takes some"
                " minutes), and see that the account's firewall lets this network in"
            )
        case 404:
            remedy = "there is no such blob: see the URL, https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB"
        case _:
            remedy = "the account is busy, or this is no blob's URL; try again later"
    return BlobError(f"the blob {url} was answered with {status} ({code}): {remedy}", status)
