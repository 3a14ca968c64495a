"""Settings: read once from the environment, validated in one place (docs/settings.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit
from uuid import UUID

from shared.errors import SettingsError

PUBLIC_ARM = "https://management.azure.com"

_TABLE_HOSTS = {
    "management.azure.com": "table.core.windows.net",
    "management.usgovcloudapi.net": "table.core.usgovcloudapi.net",
    "management.chinacloudapi.cn": "table.core.chinacloudapi.cn",
}
# What `UseDevelopmentStorage=true` stands for: the account and key that Microsoft publishes for the emulator.
_DEVELOPMENT_STORAGE = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "TableEndpoint=http://127.0.0.1:10002/devstoreaccount1;"
)
# The token audience of each cloud's Resource Manager is the endpoint itself, but for the public cloud's
# historical one, which every tenant accepts.
_AUTHORITIES = {
    "management.azure.com": "https://login.microsoftonline.com",
    "management.usgovcloudapi.net": "https://login.microsoftonline.us",
    "management.chinacloudapi.cn": "https://login.chinacloudapi.cn",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the deployment decides. Durations are in seconds."""

    arm_endpoint: str = PUBLIC_ARM
    subscriptions: tuple[str, ...] = ()
    # The deployment's key: without it nothing on a node is ever changed, whatever a request asks for.
    allow_fix: bool = False
    # What the scheduled run does, and when (NCRONTAB, six fields, UTC).
    mode: str = "audit"
    schedule: str = "0 0 2 * * *"
    # Where runs are kept (shared.store.open_store); empty: the host's default.
    store: str = ""
    # How long a run command usually takes: the first look at its result comes then (FACTS: about 20 s at least).
    command_seconds: float = 22.0
    # Our own deadline for one run command; operations have hung in progress for long.
    command_deadline_seconds: float = 600.0
    # How long to wait in all for a node whose run command is busy with somebody else's.
    busy_wait_seconds: float = 180.0
    # A restarted kubelet has this long to become healthy, and must then stay so for this long.
    restart_seconds: int = 90
    settle_seconds: int = 10
    # How long a fix that wants an approval waits for one.
    approval_hours: float = 24.0
    # The share of Azure's published limits that this product may use up, in percent.
    budget_percent: float = 80.0
    # A fix that nobody watches waits for a person where it is of more nodes than this, or where more than this share
    # (in percent) of the nodes that were looked at newly fail.
    fix_most: int = 20
    fix_new_percent: float = 5.0
    # How long runs with their findings, and what runs only need while they go, are kept, in days.
    keep_days: int = 400
    keep_work_days: int = 14
    # Whose subscriptions a run looks at that names none; empty: those of `subscriptions`.
    management_group: str = ""

    @property
    def arm_scope(self) -> str:
        """The OAuth scope for tokens: the endpoint is its own audience in every Azure cloud."""
        return f"{self.arm_endpoint}/.default"

    @property
    def authority(self) -> str | None:
        """The sign-in authority that belongs to a known endpoint, None (azure-identity's default) for others."""
        return _AUTHORITIES.get(urlsplit(self.arm_endpoint).hostname or "")


def _endpoint(text: str) -> str:
    parts = urlsplit(text.strip().rstrip("/"))
    if parts.scheme != "https" or not parts.netloc or parts.path or parts.query or parts.fragment:
        raise ValueError("must be an https URL without a path, such as https://management.azure.com")
    return f"https://{parts.netloc}"


def _subscriptions(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(subscription_id(part) for part in text.replace(",", " ").split()))


def subscription_id(text: str) -> str:
    """A subscription id in its canonical spelling. Raises ValueError where `text` is not a GUID."""
    try:
        value = UUID(text.strip())
    except ValueError:
        raise ValueError(
            f"{text!r} is not a subscription id (a GUID such as 00000000-0000-0000-0000-000000000000)"
        ) from None
    return str(value)


def _bool(text: str) -> bool:
    value = text.strip().lower()
    if value not in {"true", "false", "1", "0"}:
        raise ValueError("must be true or false")
    return value in {"true", "1"}


def _number(low: float, high: float, unit: str = "seconds") -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ValueError(f"must be a number of {unit} from {low:g} to {high:g}")
        return value

    return parse


def _whole(low: int, high: int, unit: str = "seconds") -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.strip().isdecimal() or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number of {unit} from {low} to {high}")
        return int(text)

    return parse


def _management_group(text: str) -> str:
    # Azure's own rule for its ids.
    if re.fullmatch(r"[\w().-]{0,89}[\w()-]", text.strip(), re.ASCII) is None:
        raise ValueError("must be a management group's id: letters, digits and -_.() , 90 at most")
    return text.strip()


def _mode(text: str) -> str:
    if text.strip() not in {"audit", "plan", "fix"}:
        raise ValueError("must be audit, plan or fix")
    return text.strip()


def _schedule(text: str) -> str:
    if len(text.split()) != 6:
        raise ValueError("must be an NCRONTAB expression of six fields, such as 0 0 2 * * * (daily at 02:00 UTC)")
    return " ".join(text.split())


_PARSERS: dict[str, tuple[str, Callable[[str], object]]] = {
    "GUARD_ARM_ENDPOINT": ("arm_endpoint", _endpoint),
    "GUARD_SUBSCRIPTIONS": ("subscriptions", _subscriptions),
    "GUARD_ALLOW_FIX": ("allow_fix", _bool),
    "GUARD_MODE": ("mode", _mode),
    "GUARD_SCHEDULE": ("schedule", _schedule),
    "GUARD_STORE": ("store", str.strip),
    "GUARD_COMMAND_SECONDS": ("command_seconds", _number(0.1, 300)),
    "GUARD_COMMAND_DEADLINE_SECONDS": ("command_deadline_seconds", _number(5, 5400)),
    "GUARD_BUSY_WAIT_SECONDS": ("busy_wait_seconds", _number(0, 3600)),
    "GUARD_RESTART_SECONDS": ("restart_seconds", _whole(5, 100)),
    "GUARD_SETTLE_SECONDS": ("settle_seconds", _whole(1, 60)),
    # The storage that Durable Functions keeps its timers in takes none of more than six days.
    "GUARD_APPROVAL_HOURS": ("approval_hours", _number(0.001, 120, "hours")),
    "GUARD_BUDGET_PERCENT": ("budget_percent", _number(1, 100, "percent")),
    "GUARD_FIX_MOST": ("fix_most", _whole(0, 100_000, "nodes")),
    "GUARD_FIX_NEW_PERCENT": ("fix_new_percent", _number(0, 100, "percent")),
    "GUARD_KEEP_DAYS": ("keep_days", _whole(1, 3650, "days")),
    "GUARD_KEEP_WORK_DAYS": ("keep_work_days", _whole(1, 3650, "days")),
    "GUARD_MANAGEMENT_GROUP": ("management_group", _management_group),
}


NAMES: tuple[str, ...] = tuple(_PARSERS)
"""Every environment variable that is a setting."""


def load(environ: Mapping[str, str]) -> Settings:
    """Settings from environment variables; an unset or empty one has its default.

    Raises SettingsError naming every bad variable at once.
    """
    values: dict[str, object] = {}
    wrong: list[str] = []
    for name, (field, parse) in _PARSERS.items():
        text = environ.get(name, "")
        if not text.strip():
            continue
        try:
            values[field] = parse(text)
        except ValueError as error:
            wrong.append(f"{name}={text!r}: {error}")
    if wrong:
        raise SettingsError("bad setting: " + "; ".join(wrong))
    settings = Settings(**values)  # type: ignore[arg-type]
    if settings.settle_seconds >= settings.restart_seconds:
        raise SettingsError(
            f"bad setting: GUARD_SETTLE_SECONDS ({settings.settle_seconds}) must be less than GUARD_RESTART_SECONDS"
            f" ({settings.restart_seconds}), within which the kubelet must come up and settle"
        )
    return settings


def load_for_host(environ: Mapping[str, str]) -> Settings:
    """Settings of the serverless app: as `load`; without GUARD_STORE runs are kept in the Functions host's storage.

    Raises SettingsError, also where there is no storage at all, and where the scheduled run is a fix and fixes are not
    allowed.
    """
    settings = load(environ)
    if settings.mode == "fix" and not settings.allow_fix:
        raise SettingsError(
            "bad setting: GUARD_MODE='fix' needs GUARD_ALLOW_FIX=true besides; set it, or another GUARD_MODE"
        )
    return settings if settings.store else replace(settings, store=_host_store(environ, settings.arm_endpoint))


def _host_store(environ: Mapping[str, str], arm_endpoint: str) -> str:
    """The table service of the host's storage, by the Functions' own conventions: an identity's address, an account's
    name, or a connection string ("Connecting to host storage with an identity", Azure Functions reference)."""
    if url := environ.get("AzureWebJobsStorage__tableServiceUri", "").strip():
        return url
    if account := environ.get("AzureWebJobsStorage__accountName", "").strip():
        host = _TABLE_HOSTS.get(urlsplit(arm_endpoint).hostname or "", _TABLE_HOSTS["management.azure.com"])
        return f"https://{account}.{host}"
    text = environ.get("AzureWebJobsStorage", "").strip()
    if text.rstrip(";").lower() == "usedevelopmentstorage=true":
        return _DEVELOPMENT_STORAGE
    if not text:
        raise SettingsError(
            "no storage: set AzureWebJobsStorage__tableServiceUri (or AzureWebJobsStorage__accountName, or the"
            " connection string AzureWebJobsStorage), or GUARD_STORE"
        )
    return text
