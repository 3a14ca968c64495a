"""The contract of a backend, over both."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import StoreError, UsageError
from shared.store.backend import (
    ALWAYS_FITS_UNITS,
    MAX_ROW_SENT,
    MAX_ROW_UNITS,
    Backend,
    Row,
    Table,
    Where,
    encode_continuation,
)
from shared.store.keys import split_text


def _writer() -> str:
    return uuid4().hex


ODD = ["a", "a/b\\c#d?e", "per%cent ' \" quote", "tab\tnul\x00del\x7f", "é漢😀", "~", "..", "Ä" * 80]


async def test_rows_with_odd_keys_and_texts_come_back(backend: Backend) -> None:
    rows = {key: Row(f"data of {key}\n'quoted' \\ 漢😀") for key in ODD}
    for partition in ODD:
        await backend.put(Table.DOCUMENTS, partition, rows)
    for partition in ODD:
        for key in ODD:
            found = await backend.get(Table.DOCUMENTS, partition, key)
            assert found is not None
            assert (found.partition, found.row, found.data) == (partition, key, rows[key].data)
    page = await backend.query(Table.DOCUMENTS, Where(ODD[1]), 100)
    assert {stored.row for stored in page.rows} == set(ODD)


@pytest.mark.parametrize("unit", ["a", "é", "漢", "😀", '"', "\\", "\x01"])
async def test_a_row_of_the_greatest_size_comes_back_and_a_greater_one_is_refused(backend: Backend, unit: str) -> None:
    size = min(MAX_ROW_UNITS // len(unit.encode("utf-16-le")) * 2, (MAX_ROW_SENT - 2) // len(json.dumps(unit)[1:-1]))
    await backend.put(Table.DOCUMENTS, "p", {"one": Row(unit * size), "two": Row("x" + unit * (size - 1))})
    for key in ("one", "two"):
        found = await backend.get(Table.DOCUMENTS, "p", key)
        assert found is not None
        assert len(found.data) == size
        assert found.data.endswith(unit * (size - 1))
    with pytest.raises(StoreError, match="is too long for the store; 150000 always fit"):
        Row(unit * (size + 2))


@settings(max_examples=20)
@given(st.text(min_size=1) | st.text('\x01😀漢"', min_size=1))
def test_a_piece_that_always_fits_fits(text: str) -> None:
    repeated = text * (ALWAYS_FITS_UNITS // max(1, len(text)) + 1)
    assert Row(split_text(repeated, ALWAYS_FITS_UNITS)[0]).data


async def test_a_shorter_text_leaves_nothing_of_a_longer_one(backend: Backend) -> None:
    await backend.put(Table.RUNS, "p", {"r": Row("x" * 100_000, {"status": "old", "kind": "audit"})})
    await backend.put(Table.RUNS, "p", {"r": Row("short", {"status": "new"})})
    found = await backend.get(Table.RUNS, "p", "r")
    assert found is not None
    assert found.data == "short"
    assert (await backend.query(Table.RUNS, Where("p", equals={"kind": "audit"}), 10)).rows == ()
    assert len((await backend.query(Table.RUNS, Where("p", equals={"status": "new"}), 10)).rows) == 1


async def test_nothing_is_what_a_missing_row_is(backend: Backend) -> None:
    assert await backend.get(Table.RUNS, "p", "r") is None
    assert (await backend.query(Table.RUNS, Where("p"), 10)).rows == ()
    assert await backend.ranges(Table.RUNS, "p", [("r", "r")]) == ()
    await backend.delete(Table.RUNS, "p", ["r"])
    await backend.put(Table.RUNS, "p", {})


async def test_insert_never_overwrites(backend: Backend) -> None:
    assert await backend.insert(Table.CLAIMS, "p", "r", Row("first"), _writer())
    assert not await backend.insert(Table.CLAIMS, "p", "r", Row("second"), _writer())
    assert not await backend.insert(Table.CLAIMS, "p", "r", Row("first"), _writer())
    found = await backend.get(Table.CLAIMS, "p", "r")
    assert found is not None
    assert found.data == "first"
    assert await backend.insert(Table.COMMANDS, "p", "r", Row("another table"), _writer())


async def test_one_of_many_inserts_wins(backend: Backend) -> None:
    won = await asyncio.gather(*(backend.insert(Table.CLAIMS, "p", "r", Row(str(n)), _writer()) for n in range(20)))
    assert sum(each is not None for each in won) == 1
    found = await backend.get(Table.CLAIMS, "p", "r")
    assert found is not None
    assert found.data == str([each is not None for each in won].index(True))


async def test_replace_and_delete_want_the_row_that_was_read(backend: Backend) -> None:
    assert not await backend.replace(
        Table.CLAIMS, "p", "r", Row("x"), "W/\"datetime'2026-01-01T00%3A00%3A00Z'\"", _writer()
    )
    await backend.insert(Table.CLAIMS, "p", "r", Row("one"), _writer())
    first = await backend.get(Table.CLAIMS, "p", "r")
    assert first is not None
    assert await backend.replace(Table.CLAIMS, "p", "r", Row("two"), first.etag, _writer())
    assert not await backend.replace(Table.CLAIMS, "p", "r", Row("three"), first.etag, _writer())
    await backend.delete(Table.CLAIMS, "p", ["r"], first.etag)
    second = await backend.get(Table.CLAIMS, "p", "r")
    assert second is not None
    assert second.data == "two"
    await backend.delete(Table.CLAIMS, "p", ["r"], second.etag)
    assert await backend.get(Table.CLAIMS, "p", "r") is None
    # Made anew, it is another row, whatever its text.
    await backend.insert(Table.CLAIMS, "p", "r", Row("two"), _writer())
    assert not await backend.replace(Table.CLAIMS, "p", "r", Row("three"), second.etag, _writer())


async def test_one_of_many_replacements_wins(backend: Backend) -> None:
    await backend.insert(Table.CLAIMS, "p", "r", Row("start"), _writer())
    found = await backend.get(Table.CLAIMS, "p", "r")
    assert found is not None
    won = await asyncio.gather(
        *(backend.replace(Table.CLAIMS, "p", "r", Row(str(n)), found.etag, _writer()) for n in range(20))
    )
    assert sum(each is not None for each in won) == 1


async def test_a_range_is_given_in_order_through_all_that_starts_with_its_last(backend: Backend) -> None:
    await backend.put(Table.HISTORY, "p", {key: Row(key) for key in ("a.2", "a.1", "ab.1", "b", "c.1", "a", "a~1")})
    await backend.put(Table.HISTORY, "q", {"a.3": Row("a.3")})
    for ranges, expected in (
        ([("c.", "c."), ("a.", "a."), ("none", "none")], ["c.1", "a.1", "a.2"]),
        ([("a.2", "b")], ["a.2", "ab.1", "a~1", "b"]),
        ([("a.1", "a.1")], ["a.1"]),
        ([], []),
    ):
        found = await backend.ranges(Table.HISTORY, "p", ranges)
        assert [stored.row for stored in found] == expected


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where("q"), ["q1", "q2", "q3"]),
        (Where("q", first="2"), ["q2", "q3"]),
        (Where("q", last="2"), ["q1", "q2"]),
        (Where("q", first="2", last="2"), ["q2"]),
        (Where(after="p"), ["q1", "q2", "q3", "r1", "r2", "r3"]),
        (Where(before="q"), ["p1", "p2", "p3"]),
        (Where(after="p", before="r", first="2"), ["q2", "q3"]),
        (Where(smaller={"day": "20260102"}), ["p1", "q1", "r1"]),
        (Where("r", equals={"status": "pass"}, smaller={"day": "20260103"}), ["r2"]),
    ],
)
async def test_a_query_bounds_partitions_rows_and_fields(backend: Backend, where: Where, expected: list[str]) -> None:
    statuses = {"1": "fail", "2": "pass", "3": "fail"}
    for name in "pqr":
        rows = {n: Row("x", {"status": status, "day": f"2026010{n}"}) for n, status in statuses.items()}
        await backend.put(Table.FINDINGS, name, {**rows})
    for limit in (1, 2, 100):
        found: list[str] = []
        continuation: str | None = None
        while continuation is not None or not found:
            page = await backend.query(Table.FINDINGS, where, limit, continuation, data=False)
            found += [stored.partition + stored.row for stored in page.rows]
            assert all(
                stored.fields == {"status": statuses[stored.row], "day": f"2026010{stored.row}"} and not stored.data
                for stored in page.rows
            )
            continuation = page.continuation
            if continuation is None:
                break
        assert found == expected


async def test_many_rows_are_deleted_also_where_some_are_gone(backend: Backend) -> None:
    await backend.put(Table.WORK, "p", {f"{n:03d}": Row("") for n in range(250)})
    await backend.delete(Table.WORK, "p", ["007"])
    await backend.delete(Table.WORK, "p", [f"{n:03d}" for n in range(249)])
    assert [stored.row for stored in (await backend.query(Table.WORK, Where("p"), 10)).rows] == ["249"]
    await backend.delete(Table.WORK, "p", [])


async def test_a_writer_meets_its_own_row_as_its_own(backend: Backend) -> None:
    mine, other = _writer(), _writer()
    etag = await backend.insert(Table.WORK, "p", "r", Row("one"), mine)
    assert etag is not None
    assert await backend.insert(Table.WORK, "p", "r", Row("one"), mine) == etag
    assert await backend.insert(Table.WORK, "p", "r", Row("one"), other) is None
    second = await backend.replace(Table.WORK, "p", "r", Row("two"), etag, other)
    assert second not in (None, etag)
    assert await backend.replace(Table.WORK, "p", "r", Row("two"), etag, other) == second
    assert await backend.replace(Table.WORK, "p", "r", Row("two"), etag, mine) is None
    found = await backend.get(Table.WORK, "p", "r")
    assert found is not None
    assert (found.data, found.etag) == ("two", second)


async def test_pages_give_every_row_once_and_in_order(backend: Backend) -> None:
    for name in ("p", "q", "r"):
        await backend.put(Table.FINDINGS, name, {f"{n:02d}": Row("") for n in range(7)})
    for partition, expected in (
        ("q", [("q", f"{n:02d}") for n in range(7)]),
        (None, [(name, f"{n:02d}") for name in "pqr" for n in range(7)]),
    ):
        for limit in (1, 3, 7, 20, 21, 1000):
            rows: list[tuple[str, str]] = []
            continuation: str | None = None
            pages = 0
            while True:
                page = await backend.query(Table.FINDINGS, Where(partition), limit, continuation)
                assert 1 <= len(page.rows) <= limit
                rows += [(stored.partition, stored.row) for stored in page.rows]
                pages, continuation = pages + 1, page.continuation
                if continuation is None:
                    break
            assert rows == expected
            assert pages == -(-len(expected) // limit)


async def test_a_page_goes_on_whatever_was_written_or_deleted(backend: Backend) -> None:
    await backend.put(Table.FINDINGS, "p", {key: Row("") for key in "bdfh"})
    page = await backend.query(Table.FINDINGS, Where("p"), 2)
    assert [stored.row for stored in page.rows] == ["b", "d"]
    await backend.delete(Table.FINDINGS, "p", ["d"])
    await backend.put(Table.FINDINGS, "p", {key: Row("") for key in "aceg"})
    rest = await backend.query(Table.FINDINGS, Where("p"), 10, page.continuation)
    assert [stored.row for stored in rest.rows] == ["e", "f", "g", "h"]


@pytest.mark.parametrize(
    "value", ["plain", "it's", "a' or status ne '", "two  spaces", " @field0 ", "é漢😀", "%27", "a+b&c#d", ""]
)
async def test_a_field_is_compared_as_it_is(backend: Backend, value: str) -> None:
    await backend.put(
        Table.FINDINGS,
        "p",
        {"yes": Row("yes", {"cluster": value, "status": "fail"}), "no": Row("no", {"cluster": "other"})},
    )
    for partition in ("p", None):
        found = await backend.query(Table.FINDINGS, Where(partition, equals={"cluster": value, "status": "fail"}), 10)
        assert [stored.row for stored in found.rows] == ["yes"]


async def test_a_filter_finds_the_rare_row_across_pages(backend: Backend) -> None:
    rows = {f"{n:04d}": Row("", {"status": "fail" if n in (3, 1200, 1201) else "pass"}) for n in range(1202)}
    await backend.put(Table.FINDINGS, "p", rows)
    first = await backend.query(Table.FINDINGS, Where("p", equals={"status": "fail"}), 2)
    assert [stored.row for stored in first.rows] == ["0003", "1200"]
    second = await backend.query(Table.FINDINGS, Where("p", equals={"status": "fail"}), 2, first.continuation)
    assert [stored.row for stored in second.rows] == ["1201"]
    assert second.continuation is None


@pytest.mark.parametrize(
    "continuation",
    [
        "",
        "x",
        "é",
        "!!!!",
        "bnVsbA",
        "W10",
        "WyJwIl0",
        "WzEsMl0",
        "WyJwIiwiIl0",
        encode_continuation("q", "r"),
        "A" * 3000,
    ],
)
async def test_a_continuation_that_is_not_ours_is_refused(backend: Backend, continuation: str) -> None:
    with pytest.raises(UsageError, match="is not a continuation of this query"):
        await backend.query(Table.FINDINGS, Where("p"), 10, continuation)


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_a_page_that_cannot_be_is_refused(backend: Backend, limit: int) -> None:
    with pytest.raises(UsageError, match=f"a page of {limit} rows"):
        await backend.query(Table.FINDINGS, Where("p"), limit)
