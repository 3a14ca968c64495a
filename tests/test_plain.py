"""Text that is fit for a screen."""

from __future__ import annotations

import io
import logging
import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from shared.plain import PlainFormatter, plain

# Unicode, DerivedCoreProperties: Default_Ignorable_Code_Point, but for those whose category says enough.
DRAWN_AS_NOTHING = {
    0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x3164, *range(0xFE00, 0xFE10), 0xFFA0,
    *range(0xE0100, 0xE01F0),
}  # fmt: skip


def test_of_all_characters_only_those_that_show_come_through() -> None:
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        category = unicodedata.category(char)
        through = char == " " or (category[0] not in "CZ" and code not in DRAWN_AS_NOTHING)
        assert (plain(char) == char) is through, hex(code)
        assert through or (plain(char)[0] == "\\" and plain(char).isascii()), hex(code)


def test_what_is_shown_says_what_it_was() -> None:
    assert plain("a\x1b[31m\x9b\n\u202e\U000e0041") == r"a\x1b[31m\x9b\x0a\u202e\U000e0041"
    assert plain(b"caf\xe9 \xff".decode("utf-8", "surrogateescape")) == r"caf\xe9 \xff"
    assert plain("\ud800") == r"\ud800"


def test_it_is_bounded() -> None:
    assert plain("x" * 10_000) == "x" * 599 + "…"
    assert plain("\x00" * 10_000, None) == r"\x00" * 10_000


@given(st.text())
def test_again_changes_nothing_and_it_can_be_written(text: str) -> None:
    once = plain(text)
    assert plain(once) == once
    once.encode()


def test_a_log_line_and_its_traceback_are_plain() -> None:
    out = io.StringIO()
    log = logging.Logger("test")
    handler = logging.StreamHandler(out)
    handler.setFormatter(PlainFormatter("%(message)s"))
    log.addHandler(handler)
    try:
        raise ValueError("\x1b[2J\u202e")
    except ValueError:
        log.exception("about \x9b%s", "\x07")
    assert out.getvalue().startswith("about \\x9b\\x07\nTraceback")
    assert out.getvalue().endswith("ValueError: \\x1b[2J\\u202e\n")
