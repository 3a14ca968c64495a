"""Which deployments are predicted and kept: one row a combination of parameters. A new one is one row more."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tools.bicep.compiler import Compiler
from tools.bicep.snapshots import Snapshot, short

INFRA: Final = Path(__file__).resolve().parents[2] / "infra"

HOME: Final = "00000000-0000-0000-0000-000000000001"
OTHER: Final = "00000000-0000-0000-0000-000000000002"
PRINCIPAL: Final = "00000000-0000-0000-0000-00000000000a"
MANAGEMENT_GROUP: Final = "platform"

# What environment() gives in each cloud, as far as the templates read it. A prediction does not know in which cloud it
# is, so it is written into a copy of the templates.
# Source: the metadata that Azure Resource Manager answers at /metadata/endpoints, of which environment() is a part.
CLOUDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "AzureCloud": {
        "name": "AzureCloud",
        "resourceManager": "https://management.azure.com/",
        "suffixes": {"storage": "core.windows.net"},
    },
    "AzureUSGovernment": {
        "name": "AzureUSGovernment",
        "resourceManager": "https://management.usgovcloudapi.net",
        "suffixes": {"storage": "core.usgovcloudapi.net"},
    },
    "AzureChinaCloud": {
        "name": "AzureChinaCloud",
        "resourceManager": "https://management.chinacloudapi.cn",
        "suffixes": {"storage": "core.chinacloudapi.cn"},
    },
}


@dataclass(frozen=True)
class Combination:
    """A deployment to predict. `parameters` None: those of the template's own .bicepparam file, as azd gives them.
    `base`: the kept snapshot that it is kept as a difference from."""

    name: str
    base: str | None = None
    template: str = "main"
    parameters: Mapping[str, Any] | None = field(default_factory=dict)
    scope: Mapping[str, str] = field(default_factory=lambda: {"subscriptionId": HOME, "location": "westeurope"})
    cloud: str = "AzureCloud"


_MAIN: Final = {"environmentName": "prod", "location": "westeurope", "tags": {"application": "aks-kubelet-guard"}}
_ACCESS: Final = {"grantAccessTo": [OTHER], "grantSweep": True, "grantSweepApi": True}
_EMAIL: Final = {"alertEmails": ["ops@example.com"]}


def _networks() -> Iterator[Combination]:
    """Network × access × e-mail. The first is what azd deploys where nothing was set."""
    below: str | None = None
    for network in ("public", "private-storage", "private"):
        for suffix, base, parameters in (
            ("", below, {}),
            ("-access", network, _ACCESS),
            ("-email", network, _EMAIL),
            ("-access-email", f"{network}-access", {**_ACCESS, **_EMAIL}),
        ):
            given = {**_MAIN, "network": network, **parameters}
            yield Combination(f"{network}{suffix}", base, parameters=given if base else None)
        below = network


_HUB: Final = f"/subscriptions/{OTHER}/resourceGroups/rg-hub/providers/Microsoft.Network"
SUBNETS: Final = {
    "app": f"{_HUB}/virtualNetworks/vnet-spoke/subnets/guard",
    "endpoints": f"{_HUB}/virtualNetworks/vnet-spoke/subnets/endpoints",
}
ZONES: Final = {
    "zones": "existing",
    **{name: f"{_HUB}/privateDnsZones/privatelink.{name}.core.windows.net" for name in ("blob", "queue", "table")},
    "sites": f"{_HUB}/privateDnsZones/privatelink.azurewebsites.net",
}
_PRIVATE: Final = {**_MAIN, "network": "private"}

COMBINATIONS: Final[tuple[Combination, ...]] = (
    *_networks(),
    Combination("private-subnets", "private", parameters={**_PRIVATE, "subnets": SUBNETS}),
    Combination("private-zones", "private", parameters={**_PRIVATE, "dns": ZONES}),
    Combination("private-subnets-zones", "private-subnets", parameters={**_PRIVATE, "subnets": SUBNETS, "dns": ZONES}),
    Combination(
        "private-subnets-no-zones",
        "private-subnets-zones",
        parameters={**_PRIVATE, "subnets": SUBNETS, "dns": {"zones": "none"}},
    ),
    # In the same region, which is none of theirs: names are made of it, and only what the cloud changes is to show.
    Combination("us-government", "private", parameters=_PRIVATE, cloud="AzureUSGovernment"),
    Combination("china", "private", parameters=_PRIVATE, cloud="AzureChinaCloud"),
    Combination(
        "subscription",
        template="access-subscription",
        parameters={"principalId": PRINCIPAL, "subscriptions": [HOME, OTHER]},
    ),
    Combination(
        "subscription-sweep",
        template="access-subscription",
        parameters={"principalId": PRINCIPAL, "nodes": False, "sweep": True},
    ),
    Combination(
        "subscription-sweep-api",
        template="access-subscription",
        parameters={"principalId": PRINCIPAL, "nodes": False, "sweepApi": True},
    ),
    Combination(
        "management-group",
        template="access-management-group",
        parameters={"principalId": PRINCIPAL, "sweep": True, "sweepApi": True},
        scope={"managementGroupId": MANAGEMENT_GROUP, "location": "westeurope"},
    ),
)

# The longest names that the inputs can give: an environment of 40 characters, and a region than which none is longer.
# The rest of it is like the others, so that only its ids are kept (`ids`).
_LONG: Final = {"environmentName": "e" * 40, "location": "australiasoutheast"}
LONGEST: Final = replace(
    next(each for each in COMBINATIONS if each.name == "private-access-email"),
    name="longest-names",
    parameters={**_MAIN, "network": "private", **_ACCESS, **_EMAIL, **_LONG},
    scope={"subscriptionId": HOME, "location": _LONG["location"]},
)


def predicted(compiler: Compiler, combination: Combination, folder: Path) -> Snapshot:
    """What a combination deploys, in the form to keep. Like `deployed`."""
    return short(deployed(compiler, combination, folder))


def deployed(compiler: Compiler, combination: Combination, folder: Path) -> dict[str, Any]:
    """What a combination deploys, as `Compiler.snapshot` has it: ARM JSON with all parameters filled in.

    The files for it are made in `folder`, one folder a cloud. Raises CompilerError where they do not compile.
    """
    copy = in_cloud(combination.cloud, folder)
    if combination.parameters is None:
        file = copy / f"{combination.template}.bicepparam"
    else:
        file = copy / f"{combination.name}.bicepparam"
        lines = [f"param {name} = {literal(value)}\n" for name, value in combination.parameters.items()]
        file.write_text(f"using './{combination.template}.bicep'\n{''.join(lines)}")
    return compiler.snapshot(file, combination.scope)


def in_cloud(cloud: str, folder: Path) -> Path:
    """A copy of the templates below `folder`, made where there is none, with what this cloud's environment() gives."""
    copy = folder / cloud
    if not copy.exists():
        shutil.copytree(INFRA, copy, ignore=shutil.ignore_patterns("snapshots"))
        # The linter's rules are for the files themselves: a cloud's addresses written out are what they refuse.
        (copy / "bicepconfig.json").write_text('{"analyzers": {"core": {"enabled": false}}}')
        for file in copy.rglob("*.bicep"):
            text = file.read_text()
            if "environment()" in text:
                known = f"var knownCloud = {literal(CLOUDS[cloud])}\n"
                file.write_text(text.replace("environment()", "knownCloud") + known)
    return copy


def literal(value: Any) -> str:
    """JSON data as Bicep writes it, on one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return "'" + re.sub(r"(['\\]|\$(?=\{))", r"\\\1", value) + "'"
        case list():
            return f"[{', '.join(map(literal, value))}]"
        case Mapping():
            return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
        case _:
            raise TypeError(f"no Bicep literal for {value!r}")
