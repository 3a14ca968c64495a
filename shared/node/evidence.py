"""What a node sent, taken apart into values: the kubelet's arguments, its unit, its files, and a few facts.

The records are those that `collect.sh` writes. Everything here is untrusted: sizes are bounded, paths are checked, and
a record that does not add up makes the whole evidence unusable (EvidenceError), never a guess.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from shared.models import Condition, Evidence, File, Health, Link, Listing, Metadata, Mount, Process

MAX_RECORDS = 2_048

_LONGEST_USUAL_PATH = 128
_HELD = {b"yes": True, b"no": False, b"unknown": None}
_STAMP = re.compile(r"(?:[A-Z][a-z]{2} )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(\d{1,6}))? UTC", re.ASCII)
_VERSION = re.compile(r"v\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?", re.ASCII)
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")
_QUOTED = re.compile(r"""\\(?:x([0-9a-fA-F]{2})|([0-7]{3})|(.))""", re.DOTALL)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class EvidenceError(Exception):
    """The payload does not have the form that the collect script writes. The text says where."""


@dataclass
class _Found:
    """What the records read so far amount to."""

    facts: dict[str, str] = field(default_factory=dict)
    argv: tuple[str, ...] = ()
    units: list[str] = field(default_factory=list)
    environments: list[str] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    links: dict[str, Link] = field(default_factory=dict)
    directories: dict[str, int] = field(default_factory=dict)
    listings: dict[str, tuple[bool, list[str], list[str]]] = field(default_factory=dict)
    listing: str = ""
    mounts: list[Mount] = field(default_factory=list)
    health: list[Health] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    manager: dict[str, str] = field(default_factory=dict)
    exists: dict[str, bool] = field(default_factory=dict)
    metadata: dict[str, Metadata | None] = field(default_factory=dict)
    log: dict[str, str] | None = None
    missing: list[str] = field(default_factory=list)


def read(payload: bytes, collected: int, uptime: int) -> Evidence:
    """The evidence in a payload that `frames.unpack` returned; the times are the frame's `wall` and `uptime`.

    Raises EvidenceError.
    """
    found = _Found()
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
        if kind in (b"file", b"argv"):
            head = rest.split(b" ", 8)
            if len(head) != (9 if kind == b"file" else 1):
                raise EvidenceError(f"a record is cut short: {line[:80]!r}")
            length = _number(head[5 if kind == b"file" else 0])
            body = payload[at : at + length]
            if len(body) != length:
                raise EvidenceError(f"a record says {length} bytes and has {len(body)}")
            at += length
            if kind == b"file":
                _file(found, head, body)
            else:
                # Every argument ends in a newline; a newline within one travels as \001.
                found.argv = tuple(item.replace("\x01", "\n") for item in _text(body).split("\n")[:-1])
        elif kind in _RECORDS:
            _RECORDS[kind](found, rest)
        else:
            raise EvidenceError(f"an unknown record: {line[:80]!r}")
    if payload[at:]:
        raise EvidenceError("something follows the last record")
    return _evidence(found, collected, uptime)


def _evidence(found: _Found, collected: int, uptime: int) -> Evidence:
    facts = found.facts
    return Evidence(
        collected=collected,
        uptime=uptime,
        process=_process(found) if found.argv else None,
        load_state=facts.get("LoadState", ""),
        active_state=facts.get("ActiveState", ""),
        sub_state=facts.get("SubState", ""),
        restarts=_small(facts.get("NRestarts")),
        needs_daemon_reload=facts.get("NeedDaemonReload") == "yes",
        refuses_manual="yes" in (facts.get("RefuseManualStop"), facts.get("RefuseManualStart")),
        systemd_version=_small(facts.get("systemd")),
        health=tuple(found.health),
        units=tuple(found.units),
        environments=tuple(found.environments),
        manager_environment=found.manager,
        conditions=tuple(found.conditions),
        files=found.files,
        links=found.links,
        directories=found.directories,
        listings={
            path: Listing(tuple(entries), tuple(walked)) if known else None
            for path, (known, entries, walked) in found.listings.items()
        },
        mounts=tuple(found.mounts),
        gone=frozenset(found.gone),
        exists=found.exists,
        metadata=found.metadata,
        log=found.log,
        unfinished=facts.get("unfinished", "").strip(),
        missing_tools=tuple(found.missing),
        overflow="overflow" in facts,
    )


def _process(found: _Found) -> Process:
    facts = found.facts
    monotonic = _small(facts.get("ExecMainStartTimestampMonotonic"), 15)
    started = _stamp(facts.get("ExecMainStartTimestamp", ""))
    version = facts.get("version", "")
    return Process(
        boot_id=facts.get("boot_id", ""),
        pid=_number(facts.get("pid", "0").encode()),
        ticks=_small(facts.get("ticks"), 19) or 0,
        argv=found.argv,
        state=facts.get("state", ""),
        started=started if monotonic else None,
        started_monotonic=monotonic * 1000 if monotonic else None,
        version=version if _VERSION.fullmatch(version) else "",
        executable=facts.get("executable", ""),
        root=facts.get("root", "/"),
        directory=facts.get("directory", "/"),
        uid=_small(facts.get("uid"), 11) or 0,
    )


def _stamp(text: str) -> int | None:
    """Nanoseconds since the epoch of a time as `systemctl show` prints it; without a fraction the second's start."""
    match = _STAMP.fullmatch(text)
    if match is None:
        return None
    try:
        seconds = datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return int(seconds.timestamp()) * 1_000_000_000 + int((match[2] or "0").ljust(6, "0")) * 1000


# One function for each kind of record; `rest` is what follows the kind.


def _fact(found: _Found, rest: bytes) -> None:
    name, _, value = rest.decode("utf-8", "replace").partition(" ")
    found.facts[name] = value


def _gone(found: _Found, rest: bytes) -> None:
    found.gone.add(_path(rest))


def _link(found: _Found, rest: bytes) -> None:
    changed, length, text = _parts(rest, 3)
    at = _number(length)
    if text[at : at + 1] != b" ":
        raise EvidenceError(f"a link does not add up: {rest[:80]!r}")
    found.links[_path(text[:at])] = Link(_text(text[at + 1 :]), _number(changed))


def _directory(found: _Found, rest: bytes) -> None:
    changed, path = _parts(rest, 2)
    found.directories[_path(path)] = _number(changed)


def _listing(found: _Found, rest: bytes) -> None:
    known, path = _parts(rest, 2)
    slash = path != b"/" and path.endswith(b"/")
    found.listing = _path(path[:-1] if slash else path) + ("/" if slash else "")
    found.listings[found.listing] = (_holds(known) is True, [], [])


def _entry(found: _Found, rest: bytes) -> None:
    _of_listing(found)[1].append(_path(rest))


def _walked(found: _Found, rest: bytes) -> None:
    _of_listing(found)[2].append(_path(rest))


def _of_listing(found: _Found) -> tuple[bool, list[str], list[str]]:
    if not found.listing:
        raise EvidenceError("an entry of no listing")
    return found.listings[found.listing]


def _mount(found: _Found, rest: bytes) -> None:
    same, kind, point, root, source = _parts(rest, 5)
    point, root, source = (_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), part) for part in (point, root, source))
    found.mounts.append(Mount(_text(point), _text(root), _text(kind), _text(source), _holds(same) is True))


def _health(found: _Found, rest: bytes) -> None:
    address, port, answer = _parts(rest, 3)
    found.health.append(Health(_text(address), _number(port), _text(answer)))


def _condition(found: _Found, rest: bytes) -> None:
    holds, text = _parts(rest, 2)
    found.conditions.append(Condition(_text(text), _holds(holds)))


def _manager(found: _Found, rest: bytes) -> None:
    name, _, value = _text(rest).partition("=")
    found.manager[name] = _unquoted(value)


def _exists(found: _Found, rest: bytes) -> None:
    there, path = _parts(rest, 2)
    found.exists[_path(path)] = _holds(there) is True


def _metadata(found: _Found, rest: bytes) -> None:
    mode, uid, gid, regular, hosted, path = _parts(rest, 6)
    name, bits, owner, group = _path(path), _number(mode, 8), _number(uid), _number(gid)
    if bits > 0o7777 or max(owner, group) >= 2**32:
        raise EvidenceError(f"not a mode and an owner: {rest[:80]!r}")
    found.metadata[name] = Metadata(name, bits, owner, group, _holds(regular) is True, _holds(hosted) is True)


def _log(found: _Found, rest: bytes) -> None:
    if rest or found.log is not None:
        raise EvidenceError("a log within a log")
    found.log = {}


def _logged(found: _Found, rest: bytes) -> None:
    setting, value = _parts(rest, 2)
    if found.log is None:
        raise EvidenceError("a setting of no log")
    found.log[_text(setting)] = _text(value)


_RECORDS: dict[bytes, Callable[[_Found, bytes], None]] = {
    b"fact": _fact,
    b"unit": lambda found, rest: found.units.append(_path(rest)),
    b"environment": lambda found, rest: found.environments.append(_path(rest)),
    b"gone": _gone,
    b"link": _link,
    b"directory": _directory,
    b"listing": _listing,
    b"entry": _entry,
    b"walked": _walked,
    b"mount": _mount,
    b"health": _health,
    b"condition": _condition,
    b"manager": _manager,
    b"exists": _exists,
    b"metadata": _metadata,
    b"absent": lambda found, rest: found.metadata.update({_path(rest): None}),
    b"log": _log,
    b"logged": _logged,
    b"missing": lambda found, rest: found.missing.append(_text(rest)),
}


def _file(found: _Found, head: list[bytes], body: bytes) -> None:
    path = _path(head[8])
    if path in found.files:
        raise EvidenceError(f"{path} comes twice")
    size = _number(head[3])
    digest = head[7].decode("ascii", "replace")
    if digest == "-":
        digest = hashlib.sha256(body).hexdigest()
    elif len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise EvidenceError(f"{path} has a malformed digest")
    found.files[path] = File(
        path=path,
        text=_text(body),
        mode=_number(head[0], 8),
        uid=_number(head[1]),
        gid=_number(head[2]),
        size=size,
        changed=_number(head[4]),
        digest=digest,
        whole=len(body) == size,
        hosted=_holds(head[6]) is True,
    )


def _parts(rest: bytes, count: int) -> list[bytes]:
    parts = rest.split(b" ", count - 1)
    if len(parts) != count:
        raise EvidenceError(f"a record is cut short: {rest[:80]!r}")
    return parts


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _path(raw: bytes) -> str:
    return _usual_path(raw) if len(raw) <= _LONGEST_USUAL_PATH else _plain_path(raw)


@lru_cache(maxsize=2048)
def _usual_path(raw: bytes) -> str:
    """The same, remembered: a pool's nodes have the same paths."""
    return _plain_path(raw)


def _plain_path(raw: bytes) -> str:
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


def _holds(raw: bytes) -> bool | None:
    if raw not in _HELD:
        raise EvidenceError(f"neither yes nor no: {raw[:40]!r}")
    return _HELD[raw]


def _small(fact: str | None, digits: int = 9) -> int | None:
    return int(fact) if fact and fact.isascii() and fact.isdecimal() and len(fact) <= digits else None


def _unquoted(value: str) -> str:
    """A value as `systemctl show-environment` prints it: plain, or in `$'…'` with C's escapes."""
    if not (len(value) > 2 and value.startswith("$'") and value.endswith("'")):
        return value

    def character(match: re.Match[str]) -> str:
        if match[3] is not None:
            return _ESCAPES.get(match[3], match[3])
        code = int(match[1], 16) if match[1] is not None else int(match[2], 8) & 0xFF
        return bytes([code]).decode("ascii", "surrogateescape")

    text = _QUOTED.sub(character, value[2:-1])
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
