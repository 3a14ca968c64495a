"""The frames in which a node sends its evidence: taking them apart again, trusting nothing (DESIGN, "The node").

A payload (gzip, then base64) is cut into parts of at most 3,950 characters, because run command returns only the last
4,096 bytes of each stream. A frame is one part and, after it, its header:

    KG2 PART PARTS PAYLOAD_LENGTH PART_LENGTH WALL_NS UPTIME_NS NONCE SHA256_OF_PAYLOAD

One call prints two parts, one to stdout and one to stderr. A node that lacks a tool without which no frame can be made
prints `KG2 missing NONCE TOOL…` in its place.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from shared.controls import Catalogue, catalogue
from shared.controls.rules import Present

PARTS_PER_CALL = 2
PART_CHARACTERS = 3950
MAX_PARTS = 40
MAX_UNPACKED_BYTES = 8 * 1024 * 1024

_HEADER = re.compile(
    r"KG2 (\d{1,3}) (\d{1,3}) (\d{1,7}) (\d{1,4}) (\d{1,19}) (\d{1,19}) ([0-9a-f]{16}) ([0-9a-f]{64})", re.ASCII
)
_MISSING = re.compile(r"KG2 missing ([0-9a-f]{16})((?: [a-z0-9]{1,20}){1,20})")
_NONCE = re.compile(r"[0-9a-f]{16}")
_WORD = re.compile(r"[A-Za-z0-9/_.@-]+")


class FrameError(Exception):
    """What came from a node is not a whole, honest frame. The text says how."""


class MissingTools(Exception):
    """The node lacks tools without which it cannot send a frame. `tools` are their names."""

    def __init__(self, tools: tuple[str, ...]) -> None:
        super().__init__(f"the node lacks {', '.join(tools)}")
        self.tools = tools


@dataclass(frozen=True, slots=True)
class Frame:
    """One part of a payload. `wall` and `uptime` are the node's clocks in nanoseconds, since the epoch and since boot.

    `uptime` is 0 where the node's clocks are too coarse to be compared.
    """

    part: int
    parts: int
    length: int
    wall: int
    uptime: int
    digest: str
    text: str


def request_nonce(run_id: str, node_key: str, step: str) -> str:
    """What names one request to a node, and is in every answer to it: 16 hexadecimal digits.

    It follows from what the request is for, so that a run that was interrupted knows the answer to what it had asked.
    """
    return hashlib.sha256("\0".join((run_id, node_key, step)).encode()).hexdigest()[:16]


def collect_script(first_part: int, nonce: str) -> str:
    """The read-only script that prints parts `first_part` and the one after it."""
    return f"#!/bin/sh\nfirst={int(first_part)}\nreport=\n{nonce_line(nonce)}{collect_source()}"


def nonce_line(nonce: str) -> str:
    """The line of a script that sets its request's nonce. Raises ValueError for what is none."""
    if not _NONCE.fullmatch(nonce):
        raise ValueError(f"not a nonce: {nonce!r}")
    return f"nonce={nonce}\n"


def collect_source() -> str:
    """The collector's text, for a script that sets `first`, `report` and `nonce` before it."""
    return f"{_wanted(catalogue())}{_collector()}"


def _wanted(known: Catalogue) -> str:
    """The lines of a script that set what the controls need to be shown."""
    controls = known.controls.values()
    present = [control for control in controls if isinstance(control.rule, Present)]
    words = {
        "settings": known.settings,
        "present_flags": {control.flag for control in present if control.flag} | {"--client-ca-file"},
        "present_keys": {control.setting.rpartition(".")[2] for control in present} | {"clientCAFile"},
        "file_flags": {control.file.flag for control in controls if control.file is not None and control.file.flag},
        "file_paths": {control.file.path for control in controls if control.file is not None and control.file.path},
    }
    for name, values in words.items():
        if not all(_WORD.fullmatch(value) for value in values):
            raise ValueError(f"not {name} that a script can name: {sorted(values)}")
    return "".join(f"{name}='{' '.join(sorted(values))}'\n" for name, values in words.items())


@cache
def _collector() -> str:
    here = files(__package__)
    mask = here.joinpath("mask.awk").read_text("utf-8")
    collect = here.joinpath("collect.sh").read_text("utf-8")
    return f"mask_program() {{\ncat <<'MASK'\n{mask}MASK\n}}\n{collect}"


def parse(stream: str, nonce: str) -> Frame:
    """The frame at the end of `stream`; what stands before it is noise. Raises FrameError and MissingTools."""
    body, _, last = stream.rstrip().rpartition("\n")
    if (missing := _MISSING.fullmatch(last.strip())) and missing[1] == nonce:
        raise MissingTools(tuple(missing[2].split()))
    header = _HEADER.fullmatch(last.strip())
    if header is None:
        raise FrameError("its output does not end in a frame header: it was cut off, or something else printed")
    if header[7] != nonce:
        raise FrameError("it is the answer to another request")
    part, parts, length, part_length, wall, uptime = (int(header[i]) for i in range(1, 7))
    if not (1 <= part <= parts <= MAX_PARTS and parts == -(-length // PART_CHARACTERS)):
        raise FrameError(f"the frame header does not add up: part {part} of {parts}, {length} characters")
    expected = PART_CHARACTERS if part < parts else length - PART_CHARACTERS * (parts - 1)
    if part_length != expected:
        raise FrameError(f"part {part} of {parts} says {part_length} characters where {expected} belong")
    if len(body) < part_length:
        raise FrameError(f"part {part} of {parts} is truncated: {len(body)} of {part_length} characters arrived")
    return Frame(part, parts, length, wall, uptime, header[8], body[len(body) - part_length :])


def parse_streams(stdout: str, stderr: str, nonce: str) -> list[Frame]:
    """The frames of one call: stdout's always, stderr's where stdout's says that there is a further part."""
    first = parse(stdout, nonce)
    return [first, parse(stderr, nonce)] if first.part < first.parts else [first]


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
