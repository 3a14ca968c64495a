"""The addresses that the app talks to, and what became of trying each (pure)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from shared.doctor.checks import Area, Check, Level
from shared.models import Cluster
from shared.settings import Settings

RESOURCE_MANAGER = "Azure Resource Manager"
# Skews within these are nobody's trouble; a token that is not valid yet, or any more, is refused from five minutes on.
_NOTABLE, _TOO_MUCH = 60.0, 300.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where the app must get to. `known_to_all` says that its certificate is of an authority that the machine trusts
    (an API server's is of its cluster's), `needed` that no run works without it, `by_proxy` that the environment's
    proxies count for it."""

    what: str
    host: str
    port: int = 443
    tls: bool = True
    known_to_all: bool = True
    needed: bool = True
    by_proxy: bool = True

    @property
    def shown(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Reached:
    """What became of trying an address. `trouble` (empty: it answered) says in words what did not work; `found` are the
    addresses that its name stands for here, `proxy` the host of the proxy that was used, `date` the far side's clock
    when `at` was ours, `seconds` how long it took."""

    address: Address
    trouble: str = ""
    found: tuple[str, ...] = ()
    proxy: str = ""
    date: datetime | None = None
    at: datetime | None = None
    seconds: float = 0.0


def addresses(settings: Settings, store: str, environ: Mapping[str, str]) -> list[Address]:
    """The addresses that these settings and the store at `store` need, without those of API servers; each once."""
    found = [_at(RESOURCE_MANAGER, settings.arm_endpoint)]
    # A managed identity's tokens come from the machine's own endpoint.
    if settings.authority and not environ.get("IDENTITY_ENDPOINT"):
        found.append(_at("signing in", settings.authority))
    found.append(_table(store))
    for service in ("blob", "queue", "table"):
        uri = environ.get(f"AzureWebJobsStorage__{service}ServiceUri", "").strip()
        found.append(_at(f"the host's storage ({service})", uri))
    ingestion = _pairs(environ.get("APPLICATIONINSIGHTS_CONNECTION_STRING", "")).get("ingestionendpoint", "")
    found.append(_at("Application Insights", ingestion, needed=False))
    if "://" in settings.controls_file:
        found.append(_at("the catalogue of one's own", settings.controls_file))
    each: dict[str, Address] = {}
    for address in found:
        if address is not None:
            each.setdefault(address.shown, address)
    return list(each.values())


def api_servers(clusters: Iterable[Cluster]) -> list[Address]:
    """The API servers of clusters: their own authorities sign for them, and they are asked past all proxies."""
    running = [cluster for cluster in clusters if cluster.power.lower() != "stopped" and cluster.api_servers]
    return [
        Address(
            f"the API server of {cluster.name}",
            cluster.api_servers[-1] if cluster.private else cluster.api_servers[0],
            known_to_all=False,
            needed=True,
            by_proxy=False,
        )
        for cluster in running
    ]


def _at(what: str, url: str, *, needed: bool = True) -> Address | None:
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.scheme not in ("http", "https"):
        return None
    tls = parts.scheme == "https"
    return Address(what, parts.hostname, port or (443 if tls else 80), tls, needed=needed)


def _table(store: str) -> Address | None:
    """The table service that a store is in; None where it is a file."""
    what = "the store"
    if "://" in store and "=" not in store.partition("://")[0]:
        return _at(what, store)
    pairs = _pairs(store)
    if endpoint := pairs.get("tableendpoint"):
        return _at(what, endpoint)
    account = pairs.get("accountname", "")
    suffix = pairs.get("endpointsuffix", "core.windows.net")
    return (
        _at(what, f"{pairs.get('defaultendpointsprotocol', 'https')}://{account}.table.{suffix}") if account else None
    )


def _pairs(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(";") if "=" in part)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def rows(reached: Sequence[Reached]) -> list[Check]:
    """A row for each address that was tried."""
    return [_row(each) for each in reached]


def _row(each: Reached) -> Check:
    address = each.address
    by = f" by the proxy {each.proxy}" if each.proxy else ""
    where = ", ".join(f"{found} ({_kind(found)})" for found in each.found[:3])
    if each.trouble:
        status = Level.FAIL if address.needed else Level.WARN
        at = f"; its name stands for {where}" if where else ""
        return Check(Area.OUTBOUND, address.shown, address.what, status, f"{each.trouble}{by}{at}")
    at = f" at {where}" if where else ""
    return Check(
        Area.OUTBOUND, address.shown, address.what, Level.OK, f"answers{by}{at} in {each.seconds * 1000:.0f} ms"
    )


def _kind(found: str) -> str:
    try:
        known = ipaddress.ip_address(found.partition("%")[0])
    except ValueError:
        return "unknown"
    if known.is_loopback:
        return "this machine"
    return "private" if known.is_private else "public"


def clock(reached: Sequence[Reached]) -> Check:
    """How far this machine's clock is from Resource Manager's."""
    subject, what = "this machine", "the clock"
    told = next(((each.date, each.at) for each in reached if each.address.what == RESOURCE_MANAGER), (None, None))
    date, at = told
    if date is None or at is None:
        reason = f"{RESOURCE_MANAGER} did not say what time it is"
        return Check(Area.CLOCK, subject, what, Level.UNKNOWN, reason)
    ahead = (at - date).total_seconds()
    size = abs(ahead)
    way = "ahead of" if ahead > 0 else "behind"
    if size <= _NOTABLE:
        return Check(Area.CLOCK, subject, what, Level.OK, f"agrees with {RESOURCE_MANAGER}'s to {size:.0f} s")
    reason = f"is {size:,.0f} s {way} {RESOURCE_MANAGER}'s"
    if size <= _TOO_MUCH:
        return Check(Area.CLOCK, subject, what, Level.WARN, f"{reason}; from {_TOO_MUCH:.0f} s on tokens are refused")
    reason = f"{reason}: tokens are refused, and leases of runs are misjudged. Set it right"
    return Check(Area.CLOCK, subject, what, Level.FAIL, reason, "timedatectl set-ntp true")
