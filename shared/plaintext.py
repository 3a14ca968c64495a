"""Text that may quote a node, made fit to be stored and shown (pure)."""

from __future__ import annotations

import re

_BYTES = re.compile("[\udc80-\udcff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def readable(text: str) -> str:
    r"""Text without surrogates, which no store and no terminal takes: bytes that are not UTF-8 become `\xNN`."""
    text = _BYTES.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", text)
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)
