"""Frames: whole, truncated, garbled, empty and hostile ones."""

from __future__ import annotations

import base64
import gzip
import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.node import evidence, frames
from shared.node.evidence import EvidenceError
from shared.node.frames import MAX_UNPACKED_BYTES, PART_CHARACTERS, FrameError


def cut(packed: bytes, digest: str | None = None) -> list[str]:
    """The streams that the script would print for a payload of these packed bytes."""
    text = base64.b64encode(packed).decode()
    digest = digest or hashlib.sha256(text.encode()).hexdigest()
    parts = [text[at : at + PART_CHARACTERS] for at in range(0, len(text), PART_CHARACTERS)]
    return [
        f"{part}\nKG1 {number} {len(parts)} {len(text)} {len(part)} 1700000000 {digest}\n"
        for number, part in enumerate(parts, 1)
    ]


def whole(streams: list[str]) -> bytes:
    return frames.unpack(frames.parse(stream) for stream in streams)


@given(st.binary(max_size=20_000), st.text(max_size=200))
def test_round_trip_with_noise_before(payload: bytes, noise: str) -> None:
    streams = [f"{noise}\n{stream}" for stream in cut(gzip.compress(payload))]
    assert all(len(stream) <= 4096 for stream in cut(gzip.compress(payload)))
    assert whole(streams) == payload


def test_parts_in_any_order() -> None:
    payload = bytes(range(256)) * 40
    streams = cut(zlib.compress(payload, 0, wbits=31))
    assert len(streams) > 3
    assert whole(streams[::-1]) == payload


def test_stderr_is_read_only_where_there_is_a_second_part() -> None:
    one = cut(gzip.compress(b"x"))
    assert len(frames.parse_streams(one[0], "sh: warning")) == 1
    two = cut(zlib.compress(bytes(range(256)) * 20, 0, wbits=31))
    assert len(frames.parse_streams(two[0], two[1])) == 2
    with pytest.raises(FrameError, match="does not end in a frame header"):
        frames.parse_streams(two[0], "")


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        ("", "does not end in a frame header"),
        ("hello\n", "does not end in a frame header"),
        (cut(gzip.compress(b"x" * 99))[0][:-9], "does not end in a frame header"),
        (cut(gzip.compress(b"x" * 99))[0] + "motd\n", "does not end in a frame header"),
        (cut(gzip.compress(b"x" * 99))[0][9:], "truncated"),
        (cut(gzip.compress(b"x"))[0].replace("KG1 1 1 ", "KG1 2 1 "), "does not add up"),
        (cut(gzip.compress(b"x"))[0].replace("KG1 1 1 ", "KG1 1 9 "), "does not add up"),
        (cut(gzip.compress(b"x"))[0].replace("KG1 1 1 ", "KG1 0 0 "), "does not add up"),
        ("x\nKG1 1 41 162000 3960 1 " + "0" * 64, "does not add up"),
        ("x\nKG1 1 1 3 2 1 " + "0" * 64, "says 2 characters where 3 belong"),
        ("\nKG1 0 0 0 0 1 " + "0" * 64, "does not add up"),
    ],
)
def test_broken_frames(stream: str, says: str) -> None:
    with pytest.raises(FrameError, match=says):
        frames.parse(stream)


@pytest.mark.parametrize(
    ("streams", "says"),
    [
        ([], "no frame arrived"),
        (cut(gzip.compress(b"x"), "0" * 64), "digest does not match"),
        (cut(b"not gzip"), "not gzip"),
        (cut(gzip.compress(b"x" * 999)[:-9]), "not whole"),
        (cut(gzip.compress(b"x") + b"trailing"), "not whole"),
        (cut(gzip.compress(b"\0" * (MAX_UNPACKED_BYTES + 1))), "more than"),
        (cut(zlib.compress(bytes(range(256)) * 40, 0, wbits=31))[1:], r"parts \[1\] of 4"),
    ],
)
def test_broken_payloads(streams: list[str], says: str) -> None:
    parsed = [frames.parse(stream) for stream in streams]
    with pytest.raises(FrameError, match=says):
        frames.unpack(parsed)


def test_parts_of_two_payloads_do_not_mix() -> None:
    first = [frames.parse(stream) for stream in cut(zlib.compress(bytes(range(256)) * 20, 0, wbits=31))]
    second = [frames.parse(stream) for stream in cut(zlib.compress(bytes(range(255, -1, -1)) * 20, 0, wbits=31))]
    with pytest.raises(FrameError, match="different payloads"):
        frames.unpack([first[0], second[1]])


def test_not_base64() -> None:
    text = "!!!!"
    digest = hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(FrameError, match="not base64"):
        whole([f"{text}\nKG1 1 1 4 4 1 {digest}"])


@given(st.text(max_size=5000))
def test_arbitrary_output_is_refused_and_never_crashes(stream: str) -> None:
    with pytest.raises(FrameError):
        frames.parse(stream)


@given(st.binary(max_size=2000))
def test_arbitrary_payloads_are_refused_and_never_crash(payload: bytes) -> None:
    with pytest.raises(EvidenceError):
        evidence.read(payload, 0)


FILE = b"file 644 0 0 2 5 2 - /etc/a\nhi"


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "end in the middle"),
        (FILE, "end in the middle"),
        (FILE + b"end\nmore", "something follows"),
        (FILE + FILE + b"end\n", "comes twice"),
        (b"file 644 0 0 2 5 99 - /etc/a\nhi", "says 99 bytes"),
        (b"file 644 0 0 2 5 99999999999999999999 - /etc/a\nhi", "not a number"),
        (b"file 644 0 0 2 5 -1 - /etc/a\nhi", "not a number"),
        (b"file 999 0 0 2 5 2 - /etc/a\nhiend\n", "to base 8"),
        (b"file 644 0 0 2 5 2 zz /etc/a\nhiend\n", "malformed digest"),
        (b"file 644 0 0\nend\n", "cut short"),
        (b"gone 0 0 0 0 0 0 - ../etc/shadow\nend\n", "plain absolute path"),
        (b"gone 0 0 0 0 0 0 - /etc/../etc/shadow\nend\n", "plain absolute path"),
        (b"gone 0 0 0 0 0 0 - /etc/\x1b[31m\nend\n", "plain absolute path"),
        (b"gone 0 0 0 0 0 0 - /etc/\xff\nend\n", "not UTF-8"),
        (b"unit relative\nend\n", "plain absolute path"),
        (b"surprise 1\nend\n", "unknown record"),
        (b"fact a b\n" * 600 + b"end\n", "more than 512 records"),
    ],
)
def test_hostile_records(payload: bytes, says: str) -> None:
    with pytest.raises(EvidenceError, match=says):
        evidence.read(payload, 0)


def test_nonsense_facts_are_no_facts() -> None:
    seen = evidence.read(b"fact started 1 0 1\nfact NRestarts x\nfact pid 0\nend\n", 7)
    assert (seen.started, seen.restarts, seen.pid, seen.collected) == (None, None, 0, 7)
