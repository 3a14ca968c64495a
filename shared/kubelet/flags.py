"""The kubelet's command line flags: what a minor's data says of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

FlagKind = Literal[
    "bool", "int32", "int64", "uint32", "duration", "string", "strings", "bools", "pairs", "pairs_nosplit",
    "thresholds", "headers", "labels", "ip", "taints", "reserved_memory", "vmodule", "quantity", "version",
    "go_bool", "go_int", "go_duration",
]  # fmt: skip

# config: writes into KubeletConfiguration; kubelet: the kubelet's own; global: a library's; help: --help itself
Scope = Literal["config", "kubelet", "global", "help"]

# The Go type behind a flag says how its text is read.
_KINDS: Final[Mapping[str, FlagKind]] = {
    "flag.ColonSeparatedMultimapStringString": "headers",
    "flag.ConfigurationMap": "labels",
    "flag.IPVar": "ip",
    "flag.LangleSeparatedMapStringString": "thresholds",
    "flag.MapStringBool": "bools",
    "flag.MapStringString": "pairs",
    "flag.MapStringString.NoSplit": "pairs_nosplit",
    "flag.RegisterWithTaintsVar": "taints",
    "flag.ReservedMemoryVar": "reserved_memory",
    "go.bool": "go_bool",
    "go.duration": "go_duration",
    "go.int": "go_int",
    "go.string": "string",
    "pflag.boolValue": "bool",
    "pflag.durationValue": "duration",
    "pflag.int32Value": "int32",
    "pflag.int64Value": "int64",
    "pflag.stringSliceValue": "strings",
    "pflag.stringValue": "string",
    "resource.QuantityValue": "quantity",
    "v1.verbosityLevelPflag": "uint32",
    "v1.vmoduleConfigurationPFlag": "vmodule",
    "verflag.versionValue": "version",
}


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `path` is the setting it writes; `alone` what it means without a value, "" where it needs one."""

    name: str
    kind: FlagKind
    scope: Scope
    path: str = ""
    shorthand: str = ""
    alone: str = ""
    default: str = ""


@dataclass(frozen=True, slots=True)
class FlagSet:
    """The flags that one kubelet knows, by name and by their one-letter form."""

    by_name: dict[str, Flag]
    by_shorthand: dict[str, Flag]

    @classmethod
    def of(cls, flags: Iterable[Flag]) -> FlagSet:
        known = list(flags)
        return cls({flag.name: flag for flag in known}, {flag.shorthand: flag for flag in known if flag.shorthand})


_HELP: Final = Flag("help", "bool", "help", shorthand="h", alone="true")


def read_flags(data: Mapping[str, Mapping[str, str]]) -> FlagSet:
    """A minor's flags. Raises KeyError for a Go type that is not known here."""
    return FlagSet.of(
        [
            _HELP,
            *(
                Flag(
                    name,
                    _KINDS[entry["type"]],
                    cast("Scope", entry["scope"]),
                    path=entry.get("path", ""),
                    shorthand=entry.get("letter", ""),
                    alone=entry.get("alone", ""),
                    default=entry.get("default", ""),
                )
                for name, entry in data.items()
            ),
        ]
    )
