"""Trying addresses: each is resolved and asked for something, as the app will do it, but without a token.

The proxies that the environment names count as they do for every call to Azure (`shared.azure.pipeline`).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from shared.doctor.addresses import Address, Reached
from shared.plain import plain

SECONDS = 5.0
"""How long an address is tried."""
_AT_ONCE = 20


async def reach(addresses: Sequence[Address], seconds: float = SECONDS) -> list[Reached]:
    """What becomes of trying each, side by side; in their order. Raises nothing."""
    if not addresses:
        return []
    gate = asyncio.Semaphore(_AT_ONCE)
    async with aiohttp.ClientSession(
        # Made now, so that SSL_CERT_FILE holds whenever it was set.
        connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(), force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    ) as session:

        async def one(address: Address) -> Reached:
            async with gate:
                return await _reach(session, address, seconds)

        return list(await asyncio.gather(*map(one, addresses)))


async def _reach(session: aiohttp.ClientSession, address: Address, seconds: float) -> Reached:
    proxy = _proxy(address) if address.by_proxy else None
    tried = Reached(address)
    begun = time.monotonic()
    try:
        if proxy is not None:
            tried = replace(tried, proxy=urlsplit(proxy).netloc.rpartition("@")[2])
        async with asyncio.timeout(seconds):
            if proxy is None:
                tried = replace(tried, found=await _resolve(address))
            date = await (_ask(session, address, proxy) if address.known_to_all else _greet(address))
            return replace(tried, date=date, at=datetime.now(UTC), seconds=time.monotonic() - begun)
    except TimeoutError:
        trouble = f"no answer within {seconds:g} s: a firewall on the way may swallow it"
    except socket.gaierror as error:
        trouble = f"its name cannot be resolved here ({plain(error.strerror or str(error), 200)})"
    except aiohttp.ClientConnectorCertificateError as error:
        trouble = (
            f"its certificate is not trusted here ({plain(str(error.certificate_error), 200)}): set SSL_CERT_FILE where"
            " an authority of your own signs"
        )
    except aiohttp.ClientHttpProxyError as error:
        trouble = f"the proxy refuses (HTTP {error.status})"
    except aiohttp.ClientConnectorError as error:
        trouble = f"it cannot be connected to ({plain(error.os_error.strerror or str(error.os_error), 200)})"
    except ValueError:  # of aiohttp's and urlsplit's for addresses, and of the codec for names
        trouble = (
            "no name can be so: see where it is set"
            if proxy is None
            else "the environment names a proxy that is no address: it wants http://HOST:PORT"
        )
    except (aiohttp.ClientError, OSError) as error:
        trouble = f"the connection broke ({type(error).__name__})"
    return replace(tried, trouble=trouble)


def _proxy(address: Address) -> str | None:
    """The proxy that the environment names for an address."""
    if proxy_bypass(address.shown):
        return None
    return getproxies().get("https" if address.tls else "http")


async def _resolve(address: Address) -> tuple[str, ...]:
    found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(place[0]) for *_, place in found))


async def _ask(session: aiohttp.ClientSession, address: Address, proxy: str | None) -> datetime | None:
    """The far side's clock, as its answer has it: any answer will do, most are refusals."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    url = f"{'https' if address.tls else 'http'}://{host}:{address.port}/"
    async with session.get(url, proxy=proxy, allow_redirects=False) as answer:
        try:
            date = parsedate_to_datetime(answer.headers.get("Date", ""))
        except (ValueError, OverflowError):
            return None
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date


async def _greet(address: Address) -> None:
    """A TLS handshake with one whose authority is not known here; nothing else is said."""
    unproved = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unproved.check_hostname = False
    unproved.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection(address.host, address.port, ssl=unproved)
    writer.close()
