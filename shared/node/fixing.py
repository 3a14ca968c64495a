"""The change of a node's files: the smallest edits, the script that applies them, and the report that it sends back.

The script is `apply.sh` (DESIGN, "The fix: compare and swap"). An edit is bytes at offsets, not a whole text: evidence
carries some values masked, one `*` for each byte, so the true text of a file may never leave the node.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import ipaddress
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files

from shared.models import File
from shared.node.frames import FrameError, collect_source, nonce_line

MAX_FILE_BYTES = 65_536
"""What `collect.sh` reads of a file: a longer one could not be judged again."""
MAX_SCRIPT_BYTES = 190 * 1024
"""Run command takes 256 KiB of base64, which is 192 KiB of script."""
MAX_LIMIT_SECONDS = 100
"""A restart and a rollback's restart, each this long, stay inside the 5 minutes of AKS's node auto-repair."""
MAX_EDITS = 32
HEALTHZ = "127.0.0.1:10248"
"""Where a kubelet says that it is healthy, unless its configuration says otherwise."""
HEALTHZ_OFF = "-"

_BACKUP = re.compile(r"\d{8}T\d{6}Z-\d{1,10}")


class CannotApply(Exception):
    """The edit cannot be expressed, or must not be sent. The text says why."""


@dataclass(frozen=True, slots=True)
class Splice:
    """`length` bytes at byte offset `start` of the file as it is on the node, which are `old`, become `new`."""

    start: int
    length: int
    old: bytes
    new: bytes


@dataclass(frozen=True, slots=True)
class FileEdit:
    """Splices of one file, ascending and apart from each other.

    `digest` is the SHA-256 of the whole file as it must be before, `new_digest` as it will be after; None where the
    evidence has values masked, so that only the node can know.
    """

    path: str
    digest: str
    splices: tuple[Splice, ...]
    new_digest: str | None = None


@dataclass(frozen=True, slots=True)
class ModeEdit:
    """A file's mode, user and group as they must be before, and as they will be; the numbers of stat(2)."""

    path: str
    mode: int
    uid: int
    gid: int
    new_mode: int
    new_uid: int
    new_gid: int


class ApplyOutcome(StrEnum):
    """What the script did: after `changed_meanwhile`, `busy`, `not_ready` and `rolled_back` the node is as it was.

    After `failed` too, unless the reason begins with LOOK AT THIS NODE.
    """

    APPLIED = "applied"
    CHANGED_MEANWHILE = "changed_meanwhile"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    BUSY = "busy"
    NOT_READY = "not_ready"


@dataclass(frozen=True, slots=True)
class Step:
    """One step that the script took, such as `replaced /etc/default/kubelet`."""

    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """What the script says it did. `reason` is empty where it was applied."""

    outcome: ApplyOutcome
    reason: str
    steps: tuple[Step, ...]

    @property
    def backup_id(self) -> str:
        """The backup by which `undo_script` undoes this change; empty where there is none to undo."""
        names = [step.detail.rpartition("/")[2] for step in self.steps if step.name == "backed-up"]
        return names[0] if self.outcome is ApplyOutcome.APPLIED and names and _BACKUP.fullmatch(names[0]) else ""


def file_edit(file: File, new_text: str) -> FileEdit:
    """The smallest splices that make `new_text` of `file`, as evidence shows it.

    Raises CannotApply where nothing would change, the file was not read whole, the new text cannot be a text file that
    is read whole again, or a splice would touch, hold or stand within masked text: that would write `*` for a value.
    """
    if not file.whole:
        raise CannotApply(f"{file.path} was not read whole: it has NUL bytes, or is too long ({file.size:,} bytes)")
    old = file.text.encode("utf-8", "surrogateescape")
    try:
        new = new_text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise CannotApply(f"the new text of {file.path} is not Unicode: {error}") from None
    if old == new:
        raise CannotApply(f"nothing would change in {file.path}")
    if b"\0" in new:
        raise CannotApply(f"the new text of {file.path} has a NUL byte")
    if len(new) > MAX_FILE_BYTES:
        raise CannotApply(f"{file.path} would have {len(new):,} bytes; at most {MAX_FILE_BYTES:,} can be read again")
    splices = tuple(Splice(at, len(was), was, text) for at, was, text in _differences(old, new, 0, _TOKENS))
    masked = _digest(old) != file.digest
    if masked and any(_masked(old, splice) for splice in splices):
        raise CannotApply(f"a change of {file.path} would touch a value that was masked on the node")
    return FileEdit(file.path, file.digest, splices, None if masked else _digest(new))


def apply_script(
    edits: Sequence[FileEdit],
    *,
    modes: Sequence[ModeEdit] = (),
    restart: bool = True,
    present: Sequence[str],
    absent: Sequence[str],
    settle_seconds: int,
    limit_seconds: int,
    nonce: str,
    healthz: str = HEALTHZ,
    running_pid: int | None = None,
) -> str:
    """The script for run command that makes all the edits or none, restarts the kubelet, verifies, or rolls back.

    `modes` are changed when all else is well; without `restart` they are all that is done, and the kubelet is neither
    asked nor restarted. Without edits it restarts only; `running_pid` then says which process is to end, so that doing
    it twice restarts once. `present` and `absent` are whole arguments that the new process must and must not have; it
    has `limit_seconds` (at most MAX_LIMIT_SECONDS) to come up and must stay up for `settle_seconds`. `healthz` is the
    address and port where it says that it is healthy (HEALTHZ_OFF: nowhere). `nonce` (16 hex characters) is repeated by
    the answer: the script's stdout ends in part 1 of the evidence after it (`frames.parse`), its stderr in the report
    (`parse_report`).
    Raises CannotApply where an edit is malformed or the script too long for run command.
    """
    if len(edits) > MAX_EDITS:
        raise CannotApply(f"{len(edits)} files are more than the {MAX_EDITS} that one call changes")
    if len({edit.path for edit in edits}) < len(edits):
        raise CannotApply("a file has more than one edit")
    if edits and not restart:
        raise CannotApply("the kubelet would not be restarted with its edited files")
    return _script(
        settle_seconds,
        limit_seconds,
        nonce,
        healthz,
        edits=" ".join(map(_edit_word, edits)),
        modes=_mode_words(modes),
        restart="yes" if restart else "no",
        present=" ".join(map(_argument_word, present)),
        absent=" ".join(map(_argument_word, absent)),
        running_pid=str(int(running_pid)) if running_pid else "",
    )


def undo_script(
    backup_id: str,
    *,
    modes: Sequence[ModeEdit] = (),
    settle_seconds: int,
    limit_seconds: int,
    nonce: str,
    healthz: str = HEALTHZ,
) -> str:
    """The script that undoes the applied change whose report named this backup (`Report.backup_id`), and whose `modes`
    were these.

    Each file must still be as that change left it, else `changed_meanwhile`. The rest is as with `apply_script`: its
    files are old or new together, `applied` says that the old texts are back and the kubelet is well with them, and a
    kubelet that is not goes back to the texts before this call.
    Raises CannotApply where this is no backup's name.
    """
    if not _BACKUP.fullmatch(backup_id):
        raise CannotApply(f"not the name of a backup: {backup_id[:80]!r}")
    back = [ModeEdit(m.path, m.new_mode, m.new_uid, m.new_gid, m.mode, m.uid, m.gid) for m in modes]
    return _script(settle_seconds, limit_seconds, nonce, healthz, undo=backup_id, modes=_mode_words(back))


def _script(
    settle_seconds: int,
    limit_seconds: int,
    nonce: str,
    healthz: str,
    *,
    edits: str = "",
    modes: str = "",
    restart: str = "yes",
    undo: str = "",
    present: str = "",
    absent: str = "",
    running_pid: str = "",
) -> str:
    if not 1 <= settle_seconds < limit_seconds <= MAX_LIMIT_SECONDS:
        raise CannotApply(
            f"settle_seconds {settle_seconds} and limit_seconds {limit_seconds}:"
            f" 1 <= settle < limit <= {MAX_LIMIT_SECONDS} is what can be kept"
        )
    bounds = f"limit={int(limit_seconds)}\nsettle={int(settle_seconds)}\nhealthz='{_healthz(healthz)}'\n"
    rollback = f"#!/bin/sh\n{bounds}{_source('kubelet.sh')}{_source('rollback.sh')}"
    script = (
        f"#!/bin/sh\n{nonce_line(nonce)}{bounds}"
        f"edits='{edits}'\nmodes='{modes}'\nrestart={restart}\nundo='{undo}'\n"
        f"present='{present}'\nabsent='{absent}'\nrunning_pid={running_pid}\n"
        f"rollback='{_base64(rollback.encode())}'\n"
        f"{_source('kubelet.sh')}{_source('apply.sh')}first=1\n{collect_source()}"
    )
    if len(script) > MAX_SCRIPT_BYTES:
        raise CannotApply(f"the script has {len(script):,} bytes; run command takes {MAX_SCRIPT_BYTES:,}")
    return script


_HEADER = re.compile(r"KGR2 ([a-z_]{1,20}) (\d{1,4}) ([0-9a-f]{16}) ([0-9a-f]{64})")


def parse_report(stderr: str, nonce: str) -> Report:
    """The report at the end of what the script printed to stderr; what stands before it is noise.

    Raises FrameError where it is cut short, was changed, is not a report, or answers a request with another nonce.
    """
    before, _, last = stderr.rstrip().rpartition("\n")
    header = _HEADER.fullmatch(last.strip())
    if header is None:
        raise FrameError("the fix's output does not end in its report: it was cut off, or the fix did not end")
    if header[3] != nonce:
        raise FrameError("the fix's report answers another request")
    if header[1] not in set(ApplyOutcome):
        raise FrameError(f"the fix's report has an unknown outcome: {header[1]}")
    length, text = int(header[2]), f"{before}\n" if before else ""
    if len(text) < length:
        raise FrameError(f"the fix's report is truncated: {len(text)} of {length} characters arrived")
    body = text[len(text) - length :]
    if hashlib.sha256(body.encode("utf-8", "replace")).hexdigest() != header[4]:
        raise FrameError("the fix's report was changed on its way: its digest does not match")
    steps: list[Step] = []
    reason = ""
    *lines, end = body.split("\n")
    if end:
        raise FrameError("the fix's report ends in the middle of a line")
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "step":
            name, _, detail = rest.partition(" ")
            steps.append(Step(name, detail))
        elif kind == "reason" and not reason:
            reason = rest
        else:
            raise FrameError(f"the fix's report has an unknown line: {line[:80]!r}")
    return Report(ApplyOutcome(header[1]), reason, tuple(steps))


def _lines(text: bytes) -> list[bytes]:
    return text.splitlines(keepends=True)


def _words(text: bytes) -> list[bytes]:
    return re.findall(rb"\w+|\s+|[^\w\s]", text)


_TOKENS: tuple[Callable[[bytes], list[bytes]], ...] = (_lines, _words)
_MOST_TOKENS = 2_000  # difflib is quadratic at its worst, and the text is a node's


def _differences(
    old: bytes, new: bytes, at: int, tokens: Sequence[Callable[[bytes], list[bytes]]]
) -> Iterator[tuple[int, bytes, bytes]]:
    """Offset, old and new bytes of each difference: common ends are cut off, then common lines, then common words."""
    head = _common(old, new)
    old, new, at = old[head:], new[head:], at + head
    tail = _common(old[::-1], new[::-1])
    old, new = old[: len(old) - tail], new[: len(new) - tail]
    if not old and not new:
        return
    if not old or not new or not tokens:
        yield at, old, new
        return
    olds, news = tokens[0](old), tokens[0](new)
    if max(len(olds), len(news)) > _MOST_TOKENS:
        yield from _differences(old, new, at, tokens[1:])
        return
    offset = at
    for tag, i, j, k, m in difflib.SequenceMatcher(None, olds, news, autojunk=False).get_opcodes():
        was = b"".join(olds[i:j])
        if tag != "equal":
            yield from _differences(was, b"".join(news[k:m]), offset, tokens[1:])
        offset += len(was)


def _common(one: bytes, other: bytes) -> int:
    """How many bytes two texts have in common at their start."""
    same, most = 0, min(len(one), len(other))
    while same < most:
        middle = (same + most + 1) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            most = middle - 1
    return same


def _masked(text: bytes, splice: Splice) -> bool:
    around = text[max(splice.start - 1, 0) : splice.start + splice.length + 1]
    within = not splice.old and around == b"**"
    return within or b"*" in splice.old or b"*" in splice.new


def _checked(path: str) -> str:
    if not path.startswith("/") or posixpath.normpath(path) != path or not path.isprintable():
        raise CannotApply(f"not a plain absolute path: {path[:120]!r}")
    return path


def _mode_words(modes: Sequence[ModeEdit]) -> str:
    if len(modes) > MAX_EDITS:
        raise CannotApply(f"{len(modes)} modes are more than the {MAX_EDITS} that one call changes")
    if len({edit.path for edit in modes}) < len(modes):
        raise CannotApply("a file's mode has more than one edit")
    return " ".join(map(_mode_word, modes))


def _mode_word(edit: ModeEdit) -> str:
    if (edit.mode, edit.uid, edit.gid) == (edit.new_mode, edit.new_uid, edit.new_gid):
        raise CannotApply(f"the edit of the mode of {edit.path} changes nothing")
    numbers = (edit.uid, edit.gid, edit.new_uid, edit.new_gid)
    if not all(0 <= mode <= 0o7777 for mode in (edit.mode, edit.new_mode)) or not all(0 <= n < 2**32 for n in numbers):
        raise CannotApply(f"not a mode and an owner of {edit.path}: {edit}")
    before = f"{edit.mode:o}:{edit.uid}:{edit.gid}"
    return f"{_base64(_checked(edit.path).encode())},{before},{edit.new_mode:o}:{edit.new_uid}:{edit.new_gid}"


def _edit_word(edit: FileEdit) -> str:
    path = _checked(edit.path)
    for digest in (edit.digest, edit.new_digest or "0" * 64):
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise CannotApply(f"not a SHA-256 for {path}: {digest[:80]!r}")
    end = 0
    for number, splice in enumerate(edit.splices):
        if splice.start < end or splice.length != len(splice.old) or splice.old == splice.new:
            raise CannotApply(f"splice {number} of {path} overlaps the one before, or changes nothing")
        end = splice.start + splice.length
    if not edit.splices:
        raise CannotApply(f"the edit of {path} changes nothing")
    splices = (f"{s.start}:{s.length}:{_base64(s.old)}:{_base64(s.new)}" for s in edit.splices)
    return ",".join((_base64(path.encode()), edit.digest, edit.new_digest or "-", *splices))


def _healthz(address: str) -> str:
    """The address as curl takes it: an IP address and a port, the former in brackets where it has colons."""
    if address == HEALTHZ_OFF:
        return address
    host, _, port = address.rpartition(":")
    try:
        parsed = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port) if re.fullmatch(r"[0-9]{1,5}", port) else 0
    except ValueError:
        number = 0
    if not 1 <= number <= 65_535 or "%" in host:
        raise CannotApply(f"not an address and a port to ask a kubelet at: {address[:80]!r}")
    return f"[{parsed}]:{number}" if parsed.version == 6 else f"{parsed}:{number}"


def _argument_word(argument: str) -> str:
    if not argument or "\0" in argument:
        raise CannotApply(f"not an argument that a process can be asked for: {argument[:80]!r}")
    return _base64(argument.replace("\n", "\x01").encode("utf-8", "surrogateescape"))


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


@cache
def _source(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")
