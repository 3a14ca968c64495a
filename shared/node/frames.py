"""The frames in which a node sends its evidence: taking them apart again, trusting nothing (DESIGN, "The node").

A payload (gzip, then base64) is cut into parts of at most 3,960 characters, because run command returns only the last
4,096 bytes of each stream. A frame is one part and, after it, its header:

    KG1 PART PARTS PAYLOAD_LENGTH PART_LENGTH NOW SHA256_OF_PAYLOAD

One call prints two parts, one to stdout and one to stderr.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files

PARTS_PER_CALL = 2
PART_CHARACTERS = 3960
MAX_PARTS = 40
MAX_UNPACKED_BYTES = 8 * 1024 * 1024

_HEADER = re.compile(r"KG1 (\d{1,3}) (\d{1,3}) (\d{1,7}) (\d{1,4}) (\d{1,11}) ([0-9a-f]{64})")


class FrameError(Exception):
    """What came from a node is not a whole, honest frame. The text says how."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One part of a payload. `now` is the node's clock in seconds since the epoch."""

    part: int
    parts: int
    length: int
    now: int
    digest: str
    text: str


def collect_script(first_part: int = 1) -> str:
    """The read-only script that prints parts `first_part` and the one after it."""
    collect = files(__package__).joinpath("collect.sh").read_text("utf-8")
    return f"#!/bin/sh\nfirst={int(first_part)}\nreport=\n{collect}"


def request_nonce(run_id: str, node_key: str, step: str) -> str:
    """The word by which an answer names its request: 16 hex characters, the same for the same step of a run."""
    return hashlib.sha256("\n".join((run_id, node_key, step)).encode()).hexdigest()[:16]


def parse(stream: str) -> Frame:
    """The frame at the end of `stream`; what stands before it is noise. Raises FrameError."""
    body, _, last = stream.rstrip().rpartition("\n")
    header = _HEADER.fullmatch(last.strip())
    if header is None:
        raise FrameError("its output does not end in a frame header: it was cut off, or something else printed")
    part, parts, length, part_length, now = (int(header[i]) for i in range(1, 6))
    if not (1 <= part <= parts <= MAX_PARTS and parts == -(-length // PART_CHARACTERS)):
        raise FrameError(f"the frame header does not add up: part {part} of {parts}, {length} characters")
    expected = PART_CHARACTERS if part < parts else length - PART_CHARACTERS * (parts - 1)
    if part_length != expected:
        raise FrameError(f"part {part} of {parts} says {part_length} characters where {expected} belong")
    if len(body) < part_length:
        raise FrameError(f"part {part} of {parts} is truncated: {len(body)} of {part_length} characters arrived")
    return Frame(part, parts, length, now, header[6], body[len(body) - part_length :])


def parse_streams(stdout: str, stderr: str) -> list[Frame]:
    """The frames of one call: stdout's always, stderr's where stdout's says that there is a further part."""
    first = parse(stdout)
    return [first, parse(stderr)] if first.part < first.parts else [first]


def unpack(frames: Iterable[Frame]) -> bytes:
    """The payload of a whole set of frames, decompressed; never more than MAX_UNPACKED_BYTES. Raises FrameError."""
    by_part = {frame.part: frame for frame in frames}
    if not by_part:
        raise FrameError("no frame arrived")
    shapes = {(frame.parts, frame.length, frame.digest) for frame in by_part.values()}
    if len(shapes) > 1:
        raise FrameError("the parts are of different payloads: the node changed between two calls")
    (parts, length, digest), *_ = shapes
    missing = [number for number in range(1, parts + 1) if number not in by_part]
    if missing:
        raise FrameError(f"parts {missing} of {parts} did not arrive")
    text = "".join(by_part[number].text for number in range(1, parts + 1))
    if len(text) != length or hashlib.sha256(text.encode()).hexdigest() != digest:
        raise FrameError("the digest does not match: the output was changed on its way")
    try:
        packed = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise FrameError(f"the payload is not base64: {error}") from None
    # wbits 31: exactly one gzip member, its checksum verified.
    stream = zlib.decompressobj(wbits=31)
    try:
        raw = stream.decompress(packed, MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise FrameError(f"the payload is not gzip: {error}") from None
    if stream.unconsumed_tail:
        raise FrameError(f"the payload unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
    if not stream.eof or stream.unused_data:
        raise FrameError("the gzip stream is not whole")
    return raw
