"""Go's text forms; the expectations were printed by Go itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kubelet.gotypes import (
    GoError,
    format_duration,
    format_float,
    parse_bool,
    parse_duration,
    parse_int,
    parse_quantity,
    parse_uint,
)


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_true(text: str) -> None:
    assert parse_bool(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_false(text: str) -> None:
    assert parse_bool(text) is False


@pytest.mark.parametrize("text", ["", "yes", "on", "tRUE", " true", "2", "-1"])
def test_not_a_bool(text: str) -> None:
    with pytest.raises(GoError, match=r"strconv\.ParseBool: parsing .*: invalid syntax"):
        parse_bool(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("00", 0), ("-0", 0), ("+7", 7), ("010", 8), ("0o17", 15), ("0x1F", 31), ("-0X10", -16),
        ("0b101", 5), ("1_000", 1000), ("0x_1", 1), ("0_7", 7), ("2147483647", 2147483647),
        ("-2147483648", -2147483648), ("0" * 500 + "7", 7),
    ],
)  # fmt: skip
def test_int32(text: str, value: int) -> None:
    assert parse_int(text, 32) == value


@pytest.mark.parametrize("text", ["", "+", "x", "0x", "08", "1__0", "_1", "1_", "1.0", "1e3", " 1", "٣", "0b2"])
def test_int_syntax(text: str) -> None:
    with pytest.raises(GoError, match="invalid syntax"):
        parse_int(text, 32)


@pytest.mark.parametrize("text", ["2147483648", "-2147483649", "0x80000000", "9" * 5000])
def test_int_range(text: str) -> None:
    with pytest.raises(GoError, match="value out of range"):
        parse_int(text, 32)


def test_decimal_only() -> None:
    assert parse_int("010", 32, base=10) == 10
    assert parse_uint("4294967295", 32) == 2**32 - 1
    for text in ("0x10", "1_0"):
        with pytest.raises(GoError):
            parse_int(text, 32, base=10)
    for text in ("-1", "+1", "4294967296"):
        with pytest.raises(GoError):
            parse_uint(text, 32)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("0", "0s"), ("+0", "0s"), ("4h", "4h0m0s"), ("90m", "1h30m0s"), ("1h30m", "1h30m0s"), ("-1s", "-1s"),
        ("1.5h", "1h30m0s"), (".5s", "500ms"), ("5.s", "5s"), ("100us", "100\u00b5s"), ("1\u03bcs", "1\u00b5s"),
        ("2562047h47m16.854775807s", "2562047h47m16.854775807s"), ("1ns", "1ns"), ("0h0m", "0s"),
        ("1.000000001s", "1.000000001s"), ("-9223372036854775808ns", "-2562047h47m16.854775808s"),
    ],
)  # fmt: skip
def test_duration(text: str, printed: str) -> None:
    assert format_duration(parse_duration(text)) == printed


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", 'time: invalid duration ""'),
        ("90", 'time: missing unit in duration "90"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("1 h", 'time: unknown unit " h" in duration "1 h"'),
        (".s", 'time: invalid duration ".s"'),
        ("-", 'time: invalid duration "-"'),
        ("s", 'time: invalid duration "s"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("2562048h", 'time: invalid duration "2562048h"'),
    ],
)
def test_not_a_duration(text: str, error: str) -> None:
    with pytest.raises(GoError) as caught:
        parse_duration(text)
    assert str(caught.value) == error


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_a_printed_duration_parses_to_itself(nanoseconds: int) -> None:
    # what Go prints has at most nine digits after the point, which a float64 holds but for its last place
    assert abs(parse_duration(format_duration(nanoseconds)) - nanoseconds) <= 1


@pytest.mark.parametrize(
    ("text", "sign"), [("100m", 1), ("0", 0), ("0.0Gi", 0), ("-1.5e3", -1), ("1E", 1), ("1e-3", 1), (".5Ki", 1)]
)
def test_quantity(text: str, sign: int) -> None:
    assert parse_quantity(text) == sign


@pytest.mark.parametrize("text", ["", "1Kb", "1 Gi", "Gi", "1e", "--1", "1.5.2", "0x10"])
def test_not_a_quantity(text: str) -> None:
    with pytest.raises(GoError, match="quantities must match"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"), (1000.0, "1000"), (1e20, "100000000000000000000"), (1e21, "1e+21"), (1e-6, "0.000001"),
        (1e-7, "1e-7"), (-0.5, "-0.5"), (0.0, "0"), (-0.0, "-0"), (123456789.125, "123456789.125"),
    ],
)  # fmt: skip
def test_float(value: float, text: str) -> None:
    assert format_float(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_printed_float_is_the_same_float(value: float) -> None:
    assert float(format_float(value)) == value
