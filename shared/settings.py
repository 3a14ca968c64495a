"""Settings: one table of them, read once from the environment and validated in one place (docs/settings.md).

`python -m shared.settings` prints the table as it stands in docs/settings.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Literal
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import BaseModel, ConfigDict, SecretStr

from shared import schedule
from shared.clouds import PUBLIC, Cloud, cloud_of
from shared.errors import SettingsError
from shared.plain import plain

# What `UseDevelopmentStorage=true` stands for: the account and key that Microsoft publishes for the emulator.
_DEVELOPMENT_STORAGE = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "TableEndpoint=http://127.0.0.1:10002/devstoreaccount1;"
)
_LONGEST = 16_384
_SHOWN = 60
# What may hold a secret although it stands in a setting that is none: a key, a signature, a password in an address.
_SECRET = re.compile(r"key=|sig=|signature=|password=|secret=|://[^/\s]*@", re.IGNORECASE)


def may_hold_secret(text: str) -> bool:
    """Whether a text looks as if it held a key, a signature or a password (pure)."""
    return _SECRET.search(text) is not None


def place_of(store: str) -> str:
    """Where a store is, without what signs in to it: a URL, a path, or the account of a connection string (pure)."""
    if ";" in store or "=" in store:
        pairs = dict(part.split("=", 1) for part in store.split(";") if "=" in part)
        return f"account {pairs.get('AccountName', 'of a connection string')}"
    try:
        parts = urlsplit(store)
    except ValueError:
        return "an address that is none"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else store


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of the table, as the annotation of a field of `Settings`.

    `name` is the environment variable, `limits` ends the sentence "must be …", `parse` reads its text (raising
    ValueError where it is not that), `default` says the default where its value does not say it, a `secret` one is
    never shown, and `words` are all that it takes where those are few.
    """

    name: str
    limits: str
    meaning: str
    parse: Callable[[str], object]
    default: str = ""
    secret: bool = False
    words: tuple[str, ...] = ()


def _endpoint(text: str) -> str:
    try:
        parts = urlsplit(text.rstrip("/"))
        _ = parts.port  # it is looked at when it is asked for
    except ValueError:
        raise ValueError from None
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        raise ValueError
    if parts.path or parts.query or parts.fragment:
        raise ValueError
    return f"https://{parts.netloc}"


def subscription_id(text: str) -> str:
    """A subscription id in its canonical spelling. Raises ValueError where `text` is not a GUID."""
    try:
        value = UUID(text.strip())
    except ValueError:
        raise ValueError(
            f"{plain(text, _SHOWN)!r} is not a subscription id (a GUID such as 00000000-0000-0000-0000-000000000000)"
        ) from None
    return str(value)


def _subscriptions(text: str) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(subscription_id(part) for part in text.replace(",", " ").split()))
    except ValueError as error:
        raise ValueError(f"says {error}") from None


def _bool(text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0"}:
        raise ValueError
    return text.lower() in {"true", "1"}


def _schedule(text: str) -> str:
    schedule.parse(text)
    return " ".join(text.split())


def _controls(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.replace(",", " ").split()))
    if not names or not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", name) for name in names):
        raise ValueError
    return names


def _controls_file(text: str) -> str:
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError from None
    if parts.scheme != "https" or not parts.hostname or not parts.path.strip("/"):
        raise ValueError
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("has a password or a signature: the blob is read by the identity's role")
    return text


def _management_group(text: str) -> str:
    # Azure's own rule for its ids.
    if re.fullmatch(r"[\w().-]{0,89}[\w()-]", text, re.ASCII) is None:
        raise ValueError
    return text


def _number(name: str, low: float, high: float, unit: str, meaning: str) -> Setting:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError from None
        # Python's own spellings: 1_0 is 10, and so are digits of other scripts.
        if "_" in text or not text.isascii():
            raise ValueError
        if not low <= value <= high:
            raise ValueError
        return value

    what = "a percentage" if unit == "percent" else f"a number of {unit}"
    return Setting(name, f"{what} from {low:g} to {high:g}", meaning, parse)


def _whole(name: str, low: int, high: int, unit: str, meaning: str) -> Setting:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text[:12]) <= high):
            raise ValueError
        return int(text)

    return Setting(name, f"a whole number of {unit} from {low} to {high}", meaning, parse)


def _choice(name: str, words: tuple[str, ...], meaning: str) -> Setting:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return Setting(name, f"{', '.join(words[:-1])} or {words[-1]}", meaning, parse, words=words)


class Settings(BaseModel):
    """What the deployment decides; its fields are the table of settings. Copies: `settings.model_copy(update={…})`.

    The limits hold for what is read from the environment (`load`); a value that code gives is of the field's type.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    subscriptions: Annotated[
        tuple[str, ...],
        Setting(
            "GUARD_SUBSCRIPTIONS",
            "subscription ids (GUIDs), by comma or space",
            "whose clusters a run looks at that names no subscription",
            _subscriptions,
            "all that the identity sees",
        ),
    ] = ()
    management_group: Annotated[
        str,
        Setting(
            "GUARD_MANAGEMENT_GROUP",
            "a management group's id: letters, digits and -_.() , at most 90",
            "by management group, whose clusters a run looks at where `GUARD_SUBSCRIPTIONS` names none: those of all"
            " subscriptions below it",
            _management_group,
            "–",
        ),
    ] = ""
    schedule: Annotated[
        str,
        Setting(
            "GUARD_SCHEDULE",
            "an NCRONTAB expression of six fields, such as 0 0 2 * * * (daily at 02:00 UTC)",
            "when the scheduled run starts, in UTC: second, minute, hour, day, month, weekday (0 to 6, or SUN to SAT);"
            " a day must fit both its day and its weekday",
            _schedule,
        ),
    ] = "0 0 2 * * *"
    mode: Annotated[
        Literal["audit", "plan", "fix"],
        _choice(
            "GUARD_MODE", ("audit", "plan", "fix"), "what the scheduled run does; `fix` needs `GUARD_ALLOW_FIX=true`"
        ),
    ] = "audit"
    allow_fix: Annotated[
        bool,
        Setting(
            "GUARD_ALLOW_FIX",
            "true or false",
            "the deployment's key: without it nothing on a node is ever changed, whatever a request asks for",
            _bool,
        ),
    ] = False
    fix_controls: Annotated[
        tuple[str, ...],
        Setting(
            "GUARD_FIX_CONTROLS",
            "controls, such as 3.2.6, by comma or space",
            "the controls that a fix may set right, and those that a plan is made for where a request names none",
            _controls,
            "3.2.6",
        ),
    ] = ("3.2.6",)
    controls_file: Annotated[
        str,
        Setting(
            "GUARD_CONTROLS_FILE",
            "a file's path, or the https URL of a blob, without a signature",
            "a catalogue of one's own: controls and benchmarks that are added, or that take the place of those with the"
            " same id ([how](adding-a-control.md))",
            _controls_file,
            "–",
        ),
    ] = ""
    witness: Annotated[
        Literal["node", "configz", "both", "smart"],
        _choice(
            "GUARD_WITNESS",
            ("node", "configz", "both", "smart"),
            "who is asked: every `node` by run command; each cluster for the `configz` of its nodes; `both`; or"
            " `smart`: configz, and by run command the nodes that fail, are unclear, new, or not looked at for long",
        ),
    ] = "node"
    sweep_way: Annotated[
        Literal["direct", "proxy", "api"],
        _choice(
            "GUARD_SWEEP_WAY",
            ("direct", "proxy", "api"),
            "how a cluster is asked for configz: from within, its kubelets `direct`ly (Kubernetes 1.33 and later) or by"
            " the API server's `proxy`; or by that proxy from the app itself, `api`, where it reaches the API server."
            " The proxy is a right that can run commands on nodes (docs/cluster-witness.md)",
        ),
    ] = "direct"
    full_every_days: Annotated[
        float,
        _number(
            "GUARD_FULL_EVERY", 0, 365, "days", "how often `smart` looks at each node itself, also where all is well"
        ),
    ] = 7.0
    # The storage that Durable Functions keeps its timers in takes none of more than six days.
    approval_hours: Annotated[
        float, _number("GUARD_APPROVAL_HOURS", 0.001, 120, "hours", "how long a fix waits for its approval")
    ] = 24.0
    fix_most: Annotated[
        int,
        _whole(
            "GUARD_FIX_MOST",
            0,
            100_000,
            "nodes",
            "a fix that nobody watches waits for a person where it is of more nodes than this",
        ),
    ] = 20
    fix_new_percent: Annotated[
        float,
        _number(
            "GUARD_FIX_NEW_PERCENT",
            0,
            100,
            "percent",
            "a fix that nobody watches waits, too, where more than this share of the nodes looked at newly fail",
        ),
    ] = 5.0
    arm_endpoint: Annotated[
        str,
        Setting(
            "GUARD_ARM_ENDPOINT",
            "an https URL without a user and without a path, such as https://management.azure.com",
            "Resource Manager of the cloud",
            _endpoint,
        ),
    ] = f"https://{PUBLIC.resource_manager}"
    store: Annotated[
        SecretStr,
        Setting(
            "GUARD_STORE",
            "a table service's URL, a storage account's connection string, or a file's path",
            "where runs are kept. Unset, the app takes `AzureWebJobsStorage__tableServiceUri`,"
            " `AzureWebJobsStorage__accountName` or `AzureWebJobsStorage`; the terminal a file in your state folder",
            str,
            "the host's storage",
            secret=True,
        ),
    ] = SecretStr("")
    budget_percent: Annotated[
        float,
        _number(
            "GUARD_BUDGET_PERCENT", 1, 100, "percent", "the share of Azure's published limits that runs may use up"
        ),
    ] = 80.0
    # FACTS: a run command takes 20 s at least.
    command_seconds: Annotated[
        float,
        _number(
            "GUARD_COMMAND_SECONDS",
            0.1,
            300,
            "seconds",
            "how long a run command usually takes: the first look at its result comes then",
        ),
    ] = 22.0
    # Our own; operations have hung in progress for long.
    command_deadline_seconds: Annotated[
        float, _number("GUARD_COMMAND_DEADLINE_SECONDS", 5, 5400, "seconds", "how long a run command is waited for")
    ] = 600.0
    busy_wait_seconds: Annotated[
        float,
        _number(
            "GUARD_BUSY_WAIT_SECONDS",
            0,
            3600,
            "seconds",
            "how long a node is waited for that is busy: with somebody else's run command or another operation, a"
            " platform update, or starting",
        ),
    ] = 180.0
    restart_seconds: Annotated[
        int,
        _whole("GUARD_RESTART_SECONDS", 5, 100, "seconds", "how long a restarted kubelet has to become healthy"),
    ] = 90
    settle_seconds: Annotated[
        int,
        _whole(
            "GUARD_SETTLE_SECONDS",
            1,
            60,
            "seconds",
            "how long a restarted kubelet must then stay healthy, within `GUARD_RESTART_SECONDS`",
        ),
    ] = 10
    keep_days: Annotated[
        int, _whole("GUARD_KEEP_DAYS", 1, 3650, "days", "how long runs are kept, with their findings and plans")
    ] = 400
    keep_work_days: Annotated[
        int,
        _whole(
            "GUARD_KEEP_WORK_DAYS",
            1,
            3650,
            "days",
            "how long that is kept which a run needs only while it goes: node lists, commands, progress",
        ),
    ] = 14

    @property
    def cloud(self) -> Cloud | None:
        """The cloud that the endpoint is of, None for one that is not known."""
        return cloud_of(self.arm_endpoint)

    @property
    def arm_scope(self) -> str:
        """The OAuth scope for tokens of Resource Manager; an endpoint of no known cloud is its own audience."""
        return f"{self.cloud.audience if self.cloud else self.arm_endpoint}/.default"

    @property
    def authority(self) -> str | None:
        """The sign-in authority that belongs to a known endpoint, None (azure-identity's default) for others."""
        return self.cloud.authority if self.cloud else None


def _table() -> dict[str, Setting]:
    rows = {}
    for field, info in Settings.model_fields.items():
        (rows[field],) = (item for item in info.metadata if isinstance(item, Setting))
    return rows


TABLE: Mapping[str, Setting] = _table()
"""Every setting by its field in `Settings`."""

NAMES: tuple[str, ...] = tuple(row.name for row in TABLE.values())
"""Every environment variable that is a setting."""

DEPLOYMENT_NAMES = (
    "GUARD_ALERTS_OFF",
    "GUARD_ALERT_EMAILS",
    "GUARD_DNS",
    "GUARD_GRANT_ACCESS_TO",
    "GUARD_GRANT_SWEEP",
    "GUARD_GRANT_SWEEP_API",
    "GUARD_NETWORK",
    "GUARD_SETTINGS",
    "GUARD_SUBNETS",
)
"""Variables that infra/main.bicepparam reads besides: on a deployer's machine they may stand beside the settings."""


def default_of(field: str) -> str:
    """A setting's default as text, as it would stand in the environment or is described."""
    row, value = TABLE[field], getattr(Settings(), field)
    if row.default:
        return row.default
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def load(environ: Mapping[str, str]) -> Settings:
    """Settings from environment variables; an unset or empty one has its default.

    Raises SettingsError naming every bad variable at once.
    """
    settings, wrong = _read(environ)
    if wrong:
        raise _error(wrong)
    return settings


def load_what_is_right(environ: Mapping[str, str]) -> tuple[Settings, SettingsError | None]:
    """Settings of the serverless app, which must come up: as `load`, but a bad one has its default; and what is wrong.

    Without GUARD_STORE runs are kept in the Functions host's storage. Wrong is also where there is no storage at all, a
    scheduled fix where fixes are not allowed, and a GUARD_ name that is no setting: a deployment means something by it.
    """
    settings, wrong = _read(environ)
    for name in sorted(environ):
        if name.upper().startswith("GUARD_") and name not in (*NAMES, *DEPLOYMENT_NAMES):
            close = get_close_matches(name.upper(), NAMES, n=1, cutoff=0.8)
            meant = f"; did you mean {close[0]}?" if close else ""
            wrong.append(f"{plain(name, _SHOWN)} is no setting{meant}")
    if settings.mode == "fix" and not settings.allow_fix:
        wrong.append("GUARD_MODE='fix' needs GUARD_ALLOW_FIX=true besides; set it, or another GUARD_MODE")
    if not settings.store:
        if store := _host_store(environ, settings.arm_endpoint):
            settings = settings.model_copy(update={"store": SecretStr(store)})
        else:
            wrong.append(
                "there is no storage: set AzureWebJobsStorage__tableServiceUri (or AzureWebJobsStorage__accountName,"
                " or the connection string AzureWebJobsStorage), or GUARD_STORE"
            )
    return settings, _error(wrong) if wrong else None


def schedule_binding(environ: Mapping[str, str], settings: Settings) -> str:
    """The timer's schedule as its binding says it: the setting by name, which is the host's to read.

    Where it is not set, or is bad, that would leave the function without a schedule, and so out of the index: then the
    schedule itself.
    """
    name = TABLE["schedule"].name
    return f"%{name}%" if " ".join(environ.get(name, "").split()) == settings.schedule else settings.schedule


def _error(wrong: list[str]) -> SettingsError:
    return SettingsError("bad setting: " + "; ".join(wrong))


def _read(environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    values: dict[str, object] = {}
    wrong: list[str] = []
    for field, row in TABLE.items():
        text = environ.get(row.name, "").strip()
        if not text:
            continue
        try:
            if len(text) > _LONGEST:
                raise ValueError(f"is longer than {_LONGEST:,} characters")
            values[field] = row.parse(text)
        except ValueError as error:
            wrong.append(_must_be(row, text, str(error)))
    settings = Settings.model_validate(values)
    if settings.settle_seconds >= settings.restart_seconds:
        wrong.append(
            f"GUARD_SETTLE_SECONDS ({settings.settle_seconds}) must be less than GUARD_RESTART_SECONDS"
            f" ({settings.restart_seconds}), within which the kubelet must come up and settle"
        )
    return settings, wrong


def _must_be(row: Setting, text: str, why: str) -> str:
    if row.secret or may_hold_secret(text):
        return f"{row.name} (its value is not shown): must be {row.limits}"
    return f"{row.name}={plain(text, _SHOWN)!r}: must be {row.limits}" + (f": it {why}" if why else "")


def _host_store(environ: Mapping[str, str], arm_endpoint: str) -> str:
    """The table service of the host's storage, by the Functions' own conventions: an identity's address, an account's
    name, or a connection string ("Connecting to host storage with an identity", Azure Functions reference).

    Empty where there is none.
    """
    if url := environ.get("AzureWebJobsStorage__tableServiceUri", "").strip():
        return url
    if account := environ.get("AzureWebJobsStorage__accountName", "").strip():
        return (cloud_of(arm_endpoint) or PUBLIC).table_service(account)
    text = environ.get("AzureWebJobsStorage", "").strip()
    return _DEVELOPMENT_STORAGE if text.rstrip(";").lower() == "usedevelopmentstorage=true" else text


def as_markdown() -> str:
    """The table as it stands in docs/settings.md."""
    rows = ["| Setting | Default | What it does | What it takes |", "|---|---|---|---|"]
    for field, row in TABLE.items():
        default = row.default or f"`{default_of(field)}`"
        rows.append(f"| `{row.name}` | {default} | {row.meaning} | {row.limits}{'; a secret' if row.secret else ''} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_markdown())
