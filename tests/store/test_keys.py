from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UsageError
from shared.store.keys import MAX_KEY, decode_key, digest, encode_key, prefix_end, split_text, utf16_units

TEXT = st.text(min_size=1, max_size=40) | st.text("/\\#?%'\"~+& \t\x00\x7f\x9fé漢😀aZ0._-", min_size=1, max_size=40)


@given(TEXT)
def test_a_key_comes_back_and_has_no_forbidden_character(text: str) -> None:
    encoded = encode_key(text)
    assert decode_key(encoded) == text
    assert re.fullmatch(r"[A-Za-z0-9._~-]{1,512}", encoded)


@given(TEXT, TEXT)
def test_different_texts_are_different_keys_and_prefixes_stay_prefixes(one: str, two: str) -> None:
    assert (encode_key(one) == encode_key(two)) == (one == two)
    assert encode_key(one + two).startswith(encode_key(one))
    assert encode_key(one) <= encode_key(one + two) < prefix_end(encode_key(one))


@given(TEXT, TEXT)
def test_the_end_of_a_prefix_leaves_others_out(prefix: str, other: str) -> None:
    first, key = encode_key(prefix), encode_key(other)
    assert (first <= key < prefix_end(first)) == key.startswith(first)


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "empty"), ("\ud800", "not valid Unicode"), ("x" * (MAX_KEY + 1), "513 characters"), ("/" * 171, "takes 513")],
)
def test_what_cannot_be_a_key_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        encode_key(text)


def test_the_longest_key_is_taken() -> None:
    assert encode_key("x" * MAX_KEY) == "x" * MAX_KEY


def test_a_digest_is_stable() -> None:
    """Rows written by an older version must be found by their digest: this value may never change."""
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223"


@given(st.text() | st.text("a😀é\x00"), st.integers(2, 9))
def test_pieces_join_to_the_text_and_are_short_enough(text: str, units: int) -> None:
    pieces = split_text(text, units)
    assert "".join(pieces) == text
    assert all(utf16_units(piece) <= units for piece in pieces)
    assert all(pieces) or pieces == [""]
    # No shorter than needed: at most one unit is left for a character that takes two.
    assert all(utf16_units(piece) >= units - 1 for piece in pieces[:-1])
