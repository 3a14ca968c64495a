"""Go's own text forms, as the kubelet's flags and config fields read and print them.

Sources: the Go standard library (`strconv.ParseBool`, `ParseInt`, `ParseUint`; `time.ParseDuration` and
`Duration.String`; the number form of `encoding/json`) and Kubernetes' `resource.ParseQuantity`.
Every parser raises `GoError` with Go's wording.
"""

from __future__ import annotations

import json
import re
from typing import Final


class GoError(ValueError):
    """A text that Go does not accept; the message is what Go says."""


MAX_INT64: Final = 2**63 - 1

_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
# No number the kubelet accepts is longer; Python refuses to convert very long ones at all.
_MAX_DIGITS: Final = 400


def quote(text: str) -> str:
    """`text` in double quotes, escaped: close to Go's %q, and always one line."""
    return json.dumps(text, ensure_ascii=False)


def parse_bool(text: str) -> bool:
    """strconv.ParseBool."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise GoError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")


def parse_int(text: str, bits: int, base: int = 0) -> int:
    """strconv.ParseInt: with base 0 the prefixes 0b, 0o, 0x, 0 and underscores between digits count."""
    negative = text.startswith("-")
    try:
        value = _parse_unsigned(text[1:] if text[:1] in ("+", "-") else text, base, text)
    except _SyntaxFault:
        raise GoError(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax") from None
    limit = 1 << (bits - 1)
    if value is None or (value > limit if negative else value >= limit):
        raise GoError(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return -value if negative else value


def parse_uint(text: str, bits: int, base: int = 10) -> int:
    """strconv.ParseUint: no sign."""
    try:
        value = _parse_unsigned(text, base, text)
    except _SyntaxFault:
        raise GoError(f"strconv.ParseUint: parsing {quote(text)}: invalid syntax") from None
    if value is None or value >= 1 << bits:
        raise GoError(f"strconv.ParseUint: parsing {quote(text)}: value out of range")
    return value


class _SyntaxFault(Exception):
    pass


_DIGITS: Final = {
    2: re.compile(r"[01]+\Z"),
    8: re.compile(r"[0-7]+\Z"),
    10: re.compile(r"[0-9]+\Z"),
    16: re.compile(r"[0-9a-fA-F]+\Z"),
}


def _parse_unsigned(digits: str, base: int, whole: str) -> int | None:
    """The value of `digits`; None where it is too long to matter. Raises _SyntaxFault."""
    if not digits:
        raise _SyntaxFault
    prefixed = base == 0
    if prefixed:
        base = 10
        if digits[0] == "0":
            marker = digits[1:2].lower() if len(digits) >= 3 else ""
            base = {"b": 2, "o": 8, "x": 16}.get(marker, 8)
            digits = digits[2:] if marker in ("b", "o", "x") else digits[1:]
        if "_" in digits:
            if not underscores_ok(whole):
                raise _SyntaxFault
            digits = digits.replace("_", "")
        if not digits and base == 8:  # the text was a plain 0
            return 0
    if not _DIGITS[base].match(digits):
        raise _SyntaxFault
    digits = digits.lstrip("0") or "0"
    return int(digits, base) if len(digits) <= _MAX_DIGITS else None


def underscores_ok(text: str) -> bool:
    """strconv's underscoreOK: an underscore stands between digits, or after a base prefix."""
    last = "^"  # what came before: ^ start, 0 digit or prefix, _ underscore, ! anything else
    if text[:1] in ("+", "-"):
        text = text[1:]
    hexadecimal = False
    if len(text) >= 2 and text[0] == "0" and text[1].lower() in "box":
        last = "0"
        hexadecimal = text[1].lower() == "x"
        text = text[2:]
    for char in text:
        if "0" <= char <= "9" or (hexadecimal and "a" <= char.lower() <= "f"):
            last = "0"
        elif char == "_":
            if last != "0":
                return False
            last = "_"
        else:
            if last == "_":
                return False
            last = "!"
    return last != "_"


_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # micro sign
    "\u03bcs": 1_000,  # Greek letter mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION_PART: Final = re.compile(r"([0-9]*)(?:(\.)([0-9]*))?([^.0-9]*)")
_TOO_LARGE: Final = 1 << 63


def parse_duration(text: str) -> int:
    """time.ParseDuration, in nanoseconds: "4h", "1h30m", "-1.5s"; "0" alone needs no unit."""
    invalid = GoError(f"time: invalid duration {quote(text)}")
    negative = text.startswith("-")
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    if not rest:
        raise invalid
    total = 0
    at = 0
    while at < len(rest):
        if rest[at] not in ".0123456789":
            raise invalid
        part = _DURATION_PART.match(rest, at)
        assert part is not None  # every group may be empty
        whole, _, fraction, unit = part.group(1), part.group(2), part.group(3) or "", part.group(4)
        if len(whole.lstrip("0")) > 19:
            raise invalid
        value = int(whole[-19:] or "0") if len(whole) > 19 else int(whole or "0")
        if value > _TOO_LARGE or (not whole and not fraction):
            raise invalid
        if not unit:
            raise GoError(f"time: missing unit in duration {quote(text)}")
        if unit not in _UNITS:
            raise GoError(f"time: unknown unit {quote(unit)} in duration {quote(text)}")
        scale = _UNITS[unit]
        if value > _TOO_LARGE // scale:
            raise invalid
        value *= scale
        if fraction:
            value += _fraction_of(fraction, scale)
        total = (total + value) % (1 << 64)  # Go adds in uint64, without a check of its own
        if total > _TOO_LARGE:
            raise invalid
        at = part.end()
    if negative:
        return -total
    if total >= _TOO_LARGE:
        raise invalid
    return total


def _fraction_of(fraction: str, scale: int) -> int:
    """Go's leadingFraction: digits that no longer fit are dropped, then a float64 product is truncated."""
    value, power = 0, 1.0
    for digit in fraction:
        if value > MAX_INT64 // 10:
            break
        grown = value * 10 + int(digit)
        if grown > _TOO_LARGE:
            break
        value, power = grown, power * 10
    return int(float(value) * (float(scale) / power))


def format_duration(nanoseconds: int) -> str:
    """Duration.String: "4h0m0s", "1.5s", "100ms", "0s"."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if rest < 1_000:
        return f"{sign}{rest}ns"
    if rest < 1_000_000:
        return f"{sign}{_decimal(rest, 3)}\u00b5s"
    if rest < 1_000_000_000:
        return f"{sign}{_decimal(rest, 6)}ms"
    minutes, below = divmod(rest, 60_000_000_000)
    text = f"{_decimal(below, 9)}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{minutes}m{text}"
        if hours:
            text = f"{hours}h{text}"
    return sign + text


def _decimal(value: int, places: int) -> str:
    whole, fraction = divmod(value, 10**places)
    digits = f"{fraction:0{places}d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


_QUANTITY: Final = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,18})?\Z")


def parse_quantity(text: str) -> int:
    """resource.ParseQuantity; the answer is the quantity's sign: -1, 0 or 1."""
    match = _QUANTITY.match(text)
    if match is None:
        raise GoError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    if not match.group(2).strip("0."):
        return 0
    return -1 if match.group(1) == "-" else 1


def format_float(value: float) -> str:
    """A float64 as encoding/json writes it: the shortest digits, exponents only outside 1e-6 to 1e21."""
    if value == 0:
        return "-0" if str(value).startswith("-") else "0"
    mantissa, _, exponent_text = f"{value!r}".replace("E", "e").partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    # the point's place counted from the start of `digits`
    point = len(whole) + int(exponent_text or "0") - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if 1e-6 <= abs(value) < 1e21:
        if point <= 0:
            return f"{sign}0.{'0' * -point}{digits}"
        if point >= len(digits):
            return sign + digits + "0" * (point - len(digits))
        return f"{sign}{digits[:point]}.{digits[point:]}"
    exponent = point - 1
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}".replace("e-0", "e-")
