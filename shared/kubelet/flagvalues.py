"""What each kind of flag makes of its text.

Sources: `spf13/pflag` (bool, int, duration, stringSlice), `component-base/cli/flag` (maps), `pkg/util/flag` (IP,
taints, reserved memory), `component-base/logs/api/v1` (verbosity, vmodule), Go's `flag` for cAdvisor's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Final, cast

from shared.kubelet.flags import FlagKind
from shared.kubelet.gotypes import (
    GoError,
    parse_bool,
    parse_duration,
    parse_int,
    parse_quantity,
    parse_uint,
    quote,
)
from shared.kubelet.labels import parse_taints


def parse_value(kind: FlagKind, text: str) -> object:
    """The value of one occurrence of a flag. Raises GoError as the kubelet words it.

    Maps and lists are those of this occurrence alone; an IP address that is empty is None: it changes nothing.
    """
    return _PARSERS[kind](text)


def combined(kind: FlagKind, values: Sequence[object]) -> object:
    """What a flag's occurrences make together, in their order; None where they change nothing."""
    if kind == "ip":
        return next((value for value in reversed(values) if value is not None), None)
    if kind in ("strings", "reserved_memory", "vmodule"):
        return [item for value in values for item in cast("list[object]", value)]
    if kind == "headers":
        headers: dict[str, list[str]] = {}
        for given in cast("Sequence[dict[str, list[str]]]", values):
            for name, more in given.items():
                headers.setdefault(name, []).extend(more)
        return headers
    if kind in ("bools", "pairs", "pairs_nosplit", "thresholds", "labels"):
        pairs: dict[str, object] = {}
        for value in cast("Sequence[dict[str, object]]", values):
            pairs.update(value)
        return pairs
    return values[-1]


def _pairs(text: str, separator: str, *, split: bool = True) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for part in text.split(",") if split else [text]:
        if split and not part:
            continue
        key, given, value = part.partition(separator)
        if not given:
            raise GoError(f"malformed pair, expect string{separator}string")
        found.append((key.strip(), value.strip()))
    return found


def _bools(text: str) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for part in text.split(","):
        if not part:
            continue
        key, given, value = part.partition("=")
        if not given:
            raise GoError("malformed pair, expect string=bool")
        try:
            found[key.strip()] = parse_bool(value.strip())
        except GoError as error:
            raise GoError(f"invalid value of {key.strip()}: {value.strip()}, err: {error}") from error
    return found


def _headers(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in _pairs(text, ":"):
        found.setdefault(name, []).append(value)
    return found


def _labels(text: str) -> dict[str, str]:
    parts = (part.partition("=") for part in text.split(",") if part)
    return {key.strip(): value.strip() for key, _, value in parts}


def _ip(text: str) -> str | None:
    if not text:
        return None
    if not is_ip(text):
        raise GoError(f"{quote(text)} is not a valid IP address")
    return text


_IPV4: Final = re.compile(r"[0-9]{1,8}(?:\.[0-9]{1,8}){3}\Z")


def is_ip(text: str) -> bool:
    """netutils.ParseIPSloppy: as net.ParseIP once was, with leading zeros in IPv4."""
    if _IPV4.match(text):
        return all(int(part) <= 255 for part in text.split("."))
    try:
        return ":" in text and "%" not in text and bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


_FIELD_END: Final = re.compile(r"[,\n]|\r\n|\Z")


def _strings(text: str) -> list[str]:
    """pflag's stringSlice: the first record of a CSV text."""
    if not text:
        return []
    record = text.lstrip("\r\n")
    if not record:
        raise GoError("EOF")
    fields: list[str] = []
    at = 0
    while True:
        if record[at : at + 1] == '"':
            field, at = _quoted_field(record, at + 1)
        else:
            end = _FIELD_END.search(record, at)
            assert end is not None  # \Z always matches
            field = record[at : end.start()]
            at = end.start()
            if '"' in field:
                raise GoError(f'parse error on line 1, column {at}: bare " in non-quoted field')
        fields.append(field)
        if record[at : at + 1] != ",":
            return fields
        at += 1


def _quoted_field(record: str, at: int) -> tuple[str, int]:
    parts: list[str] = []
    while True:
        end = record.find('"', at)
        if end < 0:
            raise GoError('parse error on line 1: extraneous or missing " in quoted-field')
        parts.append(record[at:end])
        following = record[end + 1 : end + 2]
        if following == '"':
            parts.append('"')
            at = end + 2
        elif following in ("", ",", "\n") or record[end + 1 : end + 3] == "\r\n":
            return "".join(parts).replace("\r\n", "\n"), end + 1
        else:
            raise GoError('parse error on line 1: extraneous or missing " in quoted-field')


def _taints(text: str) -> list[dict[str, object]]:
    if not text:
        return []
    return [
        {"key": taint.key, "value": taint.value, "effect": taint.effect, "timeAdded": None}
        for taint in parse_taints(text.split(","))
    ]


_DIGITS: Final = re.compile(r"[+-]?[0-9]{1,18}\Z")


def _reserved_memory(text: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for reservation in text.split(";") if text else []:
        node, colon, limits_text = reservation.partition(":")
        if not colon or ":" in limits_text:
            raise GoError(
                "the reserved memory has incorrect format, expected "
                f"numaNodeID:type=quantity[,type=quantity...], got {reservation}"
            )
        if not _DIGITS.match(node):
            raise GoError(f"failed to convert the NUMA node ID, exptected integer, got {node}")
        limits: dict[str, object] = {}
        for part in limits_text.split(","):
            kind, equals, quantity = part.partition("=")
            if not equals or "=" in quantity:
                raise GoError(f"the reserved limit has incorrect value, expected type=quantatity, got {part}")
            if kind != "memory" and not kind.startswith("hugepages-"):
                raise GoError(f"memory type conversion error, unknown type: {quote(kind)}")
            parse_quantity(quantity)
            limits[kind] = quantity
        found.append({"numaNode": (int(node) + 2**31) % 2**32 - 2**31, "limits": limits})
    return found


def _vmodule(text: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for item in text.split(","):
        if not item:
            continue
        pattern, equals, level = item.partition("=")
        if not equals or "=" in level or not pattern or not level:
            raise GoError(f"{quote(item)} does not have the pattern=N format")
        try:
            found.append({"filePattern": pattern, "verbosity": parse_uint(level, 31)})
        except GoError as error:
            raise GoError(f"parsing verbosity in {quote(item)}: {error}") from error
    return found


def _quantity(text: str) -> str:
    parse_quantity(text)
    return text


def _version(text: str) -> str:
    """verflag: "raw" and "vX.Y.Z" print, a bool says whether to."""
    if text == "raw" or text.startswith("v"):
        return "true"
    return "true" if parse_bool(text) else ""


def _go_flag(parse: Callable[[str], object]) -> Callable[[str], object]:
    """Go's own flag package has shorter words for what went wrong."""

    def parse_or_short_error(text: str) -> object:
        try:
            return parse(text)
        except GoError as error:
            out_of_range = str(error).endswith("out of range")
            raise GoError("value out of range" if out_of_range else "parse error") from error

    return parse_or_short_error


_PARSERS: Final[dict[FlagKind, Callable[[str], object]]] = {
    "bool": parse_bool,
    "int32": lambda text: parse_int(text, 32),
    "int64": lambda text: parse_int(text, 64),
    "uint32": lambda text: parse_uint(text, 32),
    "duration": parse_duration,
    "string": str,
    "strings": _strings,
    "bools": _bools,
    "pairs": lambda text: dict(_pairs(text, "=")),
    "pairs_nosplit": lambda text: dict(_pairs(text, "=", split=False)),
    "thresholds": lambda text: dict(_pairs(text, "<")),
    "headers": _headers,
    "labels": _labels,
    "ip": _ip,
    "taints": _taints,
    "reserved_memory": _reserved_memory,
    "vmodule": _vmodule,
    "quantity": _quantity,
    "version": _version,
    "go_bool": _go_flag(parse_bool),
    "go_int": _go_flag(lambda text: parse_int(text, 64)),
    "go_duration": _go_flag(parse_duration),
}
