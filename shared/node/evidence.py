"""What a node sent, taken apart into values: the kubelet's arguments, its unit, its files, and a few facts.

The records are those that `collect.sh` writes. Everything here is untrusted: sizes are bounded, paths are checked, and
a record that does not add up makes the whole evidence unusable (EvidenceError), never a guess.
"""

from __future__ import annotations

import hashlib
import posixpath

from shared.models import Evidence, File

MAX_RECORDS = 512


class EvidenceError(Exception):
    """The payload does not have the form that the collect script writes. The text says where."""


def _path(raw: bytes) -> str:
    try:
        path = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise EvidenceError(f"a path is not UTF-8: {raw[:80]!r}") from None
    if not path.startswith("/") or posixpath.normpath(path) != path or not path.isprintable():
        raise EvidenceError(f"not a plain absolute path: {path[:120]!r}")
    return path


def _number(raw: bytes, base: int = 10) -> int:
    text = raw.decode("ascii", "replace")
    if not text.isdigit() or len(text) > 19:
        raise EvidenceError(f"not a number: {text[:40]!r}")
    try:
        return int(text, base)
    except ValueError:
        raise EvidenceError(f"not a number to base {base}: {text!r}") from None


def read(payload: bytes, collected: int) -> Evidence:
    """The evidence in a payload that `frames.unpack` returned; `collected` is the frame's `now`.

    Raises EvidenceError.
    """
    facts: dict[str, str] = {}
    argv: tuple[str, ...] = ()
    lists: dict[str, list[str]] = {"unit": [], "environment": []}
    found: dict[str, File] = {}
    directories: dict[str, int] = {}
    gone: set[str] = set()
    at = records = 0
    while True:
        end = payload.find(b"\n", at)
        if end < 0:
            raise EvidenceError("the records end in the middle")
        line = payload[at:end]
        at = end + 1
        records += 1
        if records > MAX_RECORDS:
            raise EvidenceError(f"more than {MAX_RECORDS} records")
        kind, _, rest = line.partition(b" ")
        if kind == b"end":
            break
        if kind == b"fact":
            name, _, value = rest.decode("utf-8", "replace").partition(" ")
            facts[name] = value
        elif kind in (b"unit", b"environment"):
            lists[kind.decode()].append(_path(rest))
        elif kind in (b"file", b"dir", b"gone", b"argv"):
            head = rest.split(b" ", 7)
            if len(head) != 8:
                raise EvidenceError(f"a record is cut short: {line[:80]!r}")
            length = _number(head[5])
            body = payload[at : at + length]
            if len(body) != length:
                raise EvidenceError(f"a record says {length} bytes and has {len(body)}")
            at += length
            if kind == b"argv":
                # Every argument ends in a newline; a newline within one travels as \001.
                text = body.decode("utf-8", "surrogateescape")
                argv = tuple(item.replace("\x01", "\n") for item in text.split("\n")[:-1])
                continue
            path = _path(head[7])
            if path in found or path in directories or path in gone:
                raise EvidenceError(f"{path} comes twice")
            if kind == b"gone":
                gone.add(path)
            elif kind == b"dir":
                directories[path] = _number(head[4])
            else:
                found[path] = _file(path, head, body)
        else:
            raise EvidenceError(f"an unknown record: {line[:80]!r}")
    if payload[at:]:
        raise EvidenceError("something follows the last record")
    return Evidence(
        collected=collected,
        pid=_number(facts.get("pid", "0").encode()),
        argv=argv,
        started=_started(facts.get("started")),
        load_state=facts.get("LoadState", ""),
        active_state=facts.get("ActiveState", ""),
        sub_state=facts.get("SubState", ""),
        restarts=_small(facts.get("NRestarts")),
        needs_daemon_reload=facts.get("NeedDaemonReload") == "yes",
        systemd_version=_small(facts.get("systemd")),
        healthz=facts.get("healthz", ""),
        units=tuple(lists["unit"]),
        environments=tuple(lists["environment"]),
        files=found,
        directories=directories,
        gone=frozenset(gone),
        overflow="overflow" in facts,
    )


def _file(path: str, head: list[bytes], body: bytes) -> File:
    size = _number(head[3])
    digest = head[6].decode("ascii", "replace")
    if digest == "-":
        digest = hashlib.sha256(body).hexdigest()
    elif len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise EvidenceError(f"{path} has a malformed digest")
    return File(
        path=path,
        text=body.decode("utf-8", "surrogateescape"),
        mode=_number(head[0], 8),
        uid=_number(head[1]),
        gid=_number(head[2]),
        size=size,
        changed=_number(head[4]),
        digest=digest,
        whole=len(body) == size,
    )


def _small(fact: str | None) -> int | None:
    return int(fact) if fact and fact.isdecimal() and len(fact) < 10 else None


def _started(fact: str | None) -> float | None:
    """The process's start, from `TICKS_SINCE_BOOT TICKS_A_SECOND BOOT_TIME` (proc(5): /proc/PID/stat, /proc/stat)."""
    numbers = (fact or "").split()
    if len(numbers) != 3 or not all(number.isdecimal() and len(number) < 20 for number in numbers):
        return None
    ticks, hertz, boot = map(int, numbers)
    return boot + ticks / hertz if hertz else None
