"""Frames: whole, truncated, garbled, empty and hostile ones."""

from __future__ import annotations

import base64
import gzip
import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.models import Condition, Health, Link, Listing, Mount
from shared.node import evidence, fixing, frames
from shared.node.evidence import EvidenceError
from shared.node.frames import MAX_UNPACKED_BYTES, PART_CHARACTERS, FrameError, MissingTools, request_nonce

NONCE = "0123456789abcdef"
WALL, UPTIME = 1_700_000_000_123_456_789, 99_000_000_000_000_000


def cut(packed: bytes, digest: str | None = None, nonce: str = NONCE) -> list[str]:
    """The streams that the script would print for a payload of these packed bytes."""
    text = base64.b64encode(packed).decode()
    digest = digest or hashlib.sha256(text.encode()).hexdigest()
    parts = [text[at : at + PART_CHARACTERS] for at in range(0, len(text), PART_CHARACTERS)]
    return [
        f"{part}\nKG2 {number} {len(parts)} {len(text)} {len(part)} {WALL} {UPTIME} {nonce} {digest}\n"
        for number, part in enumerate(parts, 1)
    ]


def whole(streams: list[str]) -> bytes:
    return frames.unpack(frames.parse(stream, NONCE) for stream in streams)


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
    assert len(frames.parse_streams(one[0], "sh: warning", NONCE)) == 1
    two = cut(zlib.compress(bytes(range(256)) * 20, 0, wbits=31))
    assert len(frames.parse_streams(two[0], two[1], NONCE)) == 2
    with pytest.raises(FrameError, match="does not end in a frame header"):
        frames.parse_streams(two[0], "", NONCE)


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        ("", "does not end in a frame header"),
        ("hello\n", "does not end in a frame header"),
        (cut(gzip.compress(b"x" * 99))[0][:-9], "does not end in a frame header"),
        (cut(gzip.compress(b"x" * 99))[0] + "motd\n", "does not end in a frame header"),
        (cut(gzip.compress(b"x" * 99))[0][9:], "truncated"),
        (cut(gzip.compress(b"x"))[0].replace("KG2 1 1 ", "KG2 2 1 "), "does not add up"),
        (cut(gzip.compress(b"x"))[0].replace("KG2 1 1 ", "KG2 1 9 "), "does not add up"),
        (cut(gzip.compress(b"x"))[0].replace("KG2 1 1 ", "KG2 0 0 "), "does not add up"),
        (f"x\nKG2 1 41 161900 3950 1 1 {NONCE} " + "0" * 64, "does not add up"),
        (f"x\nKG2 1 1 3 2 1 1 {NONCE} " + "0" * 64, "says 2 characters where 3 belong"),
        (f"\nKG2 0 0 0 0 1 1 {NONCE} " + "0" * 64, "does not add up"),
    ],
)
def test_broken_frames(stream: str, says: str) -> None:
    with pytest.raises(FrameError, match=says):
        frames.parse(stream, NONCE)


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
    parsed = [frames.parse(stream, NONCE) for stream in streams]
    with pytest.raises(FrameError, match=says):
        frames.unpack(parsed)


def test_parts_of_two_payloads_do_not_mix() -> None:
    first = [frames.parse(stream, NONCE) for stream in cut(zlib.compress(bytes(range(256)) * 20, 0, wbits=31))]
    second = [frames.parse(stream, NONCE) for stream in cut(zlib.compress(bytes(range(255, -1, -1)) * 20, 0, wbits=31))]
    with pytest.raises(FrameError, match="different payloads"):
        frames.unpack([first[0], second[1]])


def test_not_base64() -> None:
    text = "!!!!"
    digest = hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(FrameError, match="not base64"):
        whole([f"{text}\nKG2 1 1 4 4 1 1 {NONCE} {digest}"])


@given(st.text(max_size=5000))
def test_arbitrary_output_is_refused_and_never_crashes(stream: str) -> None:
    with pytest.raises(FrameError):
        frames.parse(stream, NONCE)


@given(st.binary(max_size=2000))
def test_arbitrary_payloads_are_refused_and_never_crash(payload: bytes) -> None:
    with pytest.raises(EvidenceError):
        evidence.read(payload, 0, 0)


FILE = b"file 644 0 0 2 5 2 yes - /etc/a\nhi"


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "end in the middle"),
        (FILE, "end in the middle"),
        (FILE + b"end\nmore", "something follows"),
        (FILE + FILE + b"end\n", "comes twice"),
        (b"file 644 0 0 2 5 99 yes - /etc/a\nhi", "says 99 bytes"),
        (b"file 644 0 0 2 5 99999999999999999999 yes - /etc/a\nhi", "not a number"),
        (b"file 644 0 0 2 5 -1 yes - /etc/a\nhi", "not a number"),
        (b"file 999 0 0 2 5 2 yes - /etc/a\nhiend\n", "to base 8"),
        (b"file 644 0 0 2 5 2 yes zz /etc/a\nhiend\n", "malformed digest"),
        (b"file 644 0 0 2 5 2 perhaps - /etc/a\nhiend\n", "neither yes nor no"),
        (b"file 644 0 0\nend\n", "cut short"),
        (b"argv\nend\n", "not a number"),
        (b"gone ../etc/shadow\nend\n", "plain absolute path"),
        (b"gone /etc/../etc/shadow\nend\n", "plain absolute path"),
        (b"gone /etc/\x1b[31m\nend\n", "plain absolute path"),
        (b"gone /etc/\xff\nend\n", "not UTF-8"),
        (b"unit relative\nend\n", "plain absolute path"),
        (b"link 1 3 /etc/a b\nend\n", "does not add up"),
        (b"link 1 6 /etc/a\nend\n", "does not add up"),
        (b"directory 1\nend\n", "cut short"),
        (b"entry /etc/a\nend\n", "entry of no listing"),
        (b"listing yes /etc/k.d//\nend\n", "plain absolute path"),
        (b"logged a b\nend\n", "setting of no log"),
        (b"log\nlog\nend\n", "log within a log"),
        (b"health 127.0.0.1 x ok\nend\n", "not a number"),
        (b"surprise 1\nend\n", "unknown record"),
        (b"fact a b\n" * 2100 + b"end\n", "more than 2048 records"),
    ],
)
def test_hostile_records(payload: bytes, says: str) -> None:
    with pytest.raises(EvidenceError, match=says):
        evidence.read(payload, 0, 0)


def test_nonsense_facts_are_no_facts() -> None:
    facts = (
        b"fact ExecMainStartTimestamp yesterday\nfact NRestarts x\nfact pid 1\nfact version <script>\nfact ticks -1\n"
    )
    seen = evidence.read(facts + b"argv 2\nk\nend\n", 7, 8)
    assert seen.process is not None
    assert (seen.process.started, seen.process.version, seen.process.ticks) == (None, "", 0)
    assert (seen.restarts, seen.process.argv, seen.collected, seen.uptime) == (None, ("k",), 7, 8)


@pytest.mark.parametrize(
    ("stamp", "started"),
    [
        ("Fri 2026-11-27 10:45:12.123456 UTC", 1_795_776_312_123_456_000),
        ("Fri 2026-11-27 10:45:12 UTC", 1_795_776_312_000_000_000),
        ("Fri 2026-11-27 10:45:12 CET", None),
        ("Fri 2026-13-27 10:45:12 UTC", None),
        ("n/a", None),
        ("", None),
    ],
)
def test_the_start_by_the_wall_clock(stamp: str, started: int | None) -> None:
    facts = f"fact ExecMainStartTimestamp {stamp}\nfact ExecMainStartTimestampMonotonic 2500000\nargv 2\nk\nend\n"
    process = evidence.read(facts.encode(), 0, 0).process
    assert process is not None
    assert (process.started, process.started_monotonic) == (started, 2_500_000_000)


def test_records_of_every_kind() -> None:
    records = (
        b"link 5 10 /etc/a b/c ../x y\ndirectory 6 /etc\n"
        b"listing yes /etc/k.d/\nwalked /etc/k.d\nentry /etc/k.d/1.conf\nlisting no /etc/n.d\n"
        b"mount yes ext4 /etc/a\\040b / /dev/sda1\nhealth ::1 10300 \ncondition unknown ConditionX=a b\n"
        b"manager A=$'x\\n\\x41\\303\\251\\'y'\nmanager B=plain $x\nexists no /etc/ca.crt\nlog\nlogged a.b false\n"
        b"missing curl\nfact unfinished replacing 7 \nend\n"
    )
    seen = evidence.read(records, 1, 2)
    assert seen.links == {"/etc/a b/c": Link("../x y", 5)}
    assert seen.directories == {"/etc": 6}
    assert seen.listings == {"/etc/k.d/": Listing(("/etc/k.d/1.conf",), ("/etc/k.d",)), "/etc/n.d": None}
    assert seen.mounts == (Mount("/etc/a b", "/", "ext4", "/dev/sda1", same=True),)
    assert seen.health == (Health("::1", 10300, ""),)
    assert seen.conditions == (Condition("ConditionX=a b", None),)
    assert seen.manager_environment == {"A": "x\nAé'y", "B": "plain $x"}
    assert (seen.exists, seen.log, seen.missing_tools) == ({"/etc/ca.crt": False}, {"a.b": "false"}, ("curl",))
    assert (seen.unfinished, seen.process) == ("replacing 7", None)


def test_an_answer_to_another_request_is_refused() -> None:
    other = request_nonce("run", "node", "collect.1.1")
    assert other != request_nonce("run", "node", "collect.2.1")
    assert other == request_nonce("run", "node", "collect.1.1")
    with pytest.raises(FrameError, match="another request"):
        frames.parse(cut(gzip.compress(b"x"), nonce=other)[0], NONCE)


def test_a_script_takes_no_other_nonce() -> None:
    with pytest.raises(ValueError, match="not a nonce"):
        frames.collect_script(1, "$(reboot)")


def test_scripts_are_ascii() -> None:
    """Hundreds are held at once, and one other character doubles what each takes."""
    assert frames.collect_source().isascii()
    assert fixing.undo_script("20260101T000000Z-1", settle_seconds=1, limit_seconds=2, nonce=NONCE).isascii()


def test_missing_tools_are_named() -> None:
    with pytest.raises(MissingTools) as raised:
        frames.parse(f"noise\nKG2 missing {NONCE} gzip sha256sum\n", NONCE)
    assert raised.value.tools == ("gzip", "sha256sum")
    with pytest.raises(FrameError):
        frames.parse("KG2 missing 0000000000000000 gzip\n", NONCE)


def test_the_longest_header_leaves_room_for_its_part() -> None:
    number = "9" * 19
    header = f"\nKG2 40 40 {PART_CHARACTERS * 40} {PART_CHARACTERS} {number} {number} {NONCE} {'0' * 64}\n"
    assert PART_CHARACTERS + len(header) <= 4096
