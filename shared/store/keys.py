"""Keys of rows: any text made safe for Azure Table Storage, and text cut to what a property holds.

Source of the limits: Azure Storage REST documentation, "Understanding the Table service data model".
"""

from __future__ import annotations

import hashlib
import re
import string

from shared.errors import UsageError

# A key is at most 1 KiB of UTF-16.
MAX_KEY = 512
_SAFE = frozenset(string.ascii_letters + string.digits + "._-")
_ESCAPED = re.compile(r"((?:~[0-9a-f]{2})+)")


def encode_key(text: str) -> str:
    """`text` as a key of letters, digits and `.`, `_`, `-`, everything else being `~` and two hex digits a UTF-8 byte.

    `/`, `\\`, `#`, `?` and control characters are forbidden in keys and `%` is known to cause trouble. Encoding goes
    character by character, so the encoded form of a prefix is a prefix of the encoded form.
    Raises UsageError where `text` is empty, is not valid Unicode, or is longer than a key can be.
    """
    if not text:
        raise UsageError("a key of the store is empty; it must have at least one character")
    try:
        encoded = "".join(
            char if char in _SAFE else "".join(f"~{byte:02x}" for byte in char.encode("utf-8")) for char in text
        )
    except UnicodeEncodeError:
        raise UsageError(f"{text[:60]!r} is not valid Unicode text, so it cannot be a key of the store") from None
    if len(encoded) > MAX_KEY:
        raise UsageError(f"the key {text[:60]!r}… takes {len(encoded)} characters; at most {MAX_KEY} fit")
    return encoded


def decode_key(encoded: str) -> str:
    """The text that `encode_key` made `encoded` from."""
    return _ESCAPED.sub(lambda match: bytes.fromhex(match[1].replace("~", "")).decode("utf-8"), encoded)


def prefix_end(encoded: str) -> str:
    """The smallest text that sorts after every key beginning with `encoded` (an encoded, non-empty prefix)."""
    return encoded[:-1] + chr(ord(encoded[-1]) + 1)


def digest(text: str) -> str:
    """A short, stable stand-in for `text` as a key: 32 hex digits (128 bits) of its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


_ODD = re.compile(r"[^a-z0-9_-]")
_SORTED_BY = 280
_MACHINE = re.compile(
    r"/subscriptions/([^/|]+)/resourcegroups/([^/|]+)/providers/microsoft\.compute"
    r"(?:/virtualmachinescalesets/([^/|]+))?/virtualmachines/([^/|]+)"
)


def finding_row(key: str) -> str:
    """The row of the finding with this `Finding.key`.

    Rows come in the order of subscription, node resource group, scale set and instance (single VMs by name), or where
    the finding is of no machine, or made by an earlier version, of subscription, cluster, pool, scale set and instance.
    So a run's findings can be shown in that order without being held; the digest tells them apart.
    """
    machine = _MACHINE.match(key)
    if machine is not None:
        *ordered, name = machine.groups("")
        ordered.append(name.rjust(10, "0") if name.isdecimal() else name)
    else:
        parts = key.split("|")
        ordered = [*parts[:1], *parts[2:5], parts[5].rjust(10, "0") if len(parts) > 5 else ""]
    place = ".".join(_ODD.sub("-", part) for part in ordered)
    return f"{place[:_SORTED_BY]}.{digest(key)}"


def utf16_units(text: str) -> int:
    """The length of `text` in UTF-16 code units, which is what Table Storage counts."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def split_text(text: str, units: int) -> list[str]:
    """`text` in pieces of at most `units` (2 or more) UTF-16 code units, none of which cuts a character in two.

    The empty text is one empty piece.
    """
    if text.isascii():
        return [text[at : at + units] for at in range(0, len(text), units)] or [""]
    raw = text.encode("utf-16-le")
    pieces = []
    start = 0
    while start < len(raw):
        end = min(start + 2 * units, len(raw))
        # The high byte of a low surrogate: the character began one unit earlier.
        if end < len(raw) and 0xDC <= raw[end + 1] <= 0xDF:
            end -= 2
        pieces.append(raw[start:end].decode("utf-16-le"))
        start = end
    return pieces
