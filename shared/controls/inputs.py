"""What a kubelet with some command line would read, out of what a node showed."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from shared.controls.codes import Code
from shared.controls.paths import absolute, absolute_directory
from shared.controls.verdict import Trouble
from shared.kubelet import ConfigPaths, Resolution, Source, config_paths, named_by, resolve
from shared.models import Evidence, File, Process
from shared.remembered import Remembered

# What the collector reads of one file.
_MOST_BYTES = 65_536

# kubelet, and the names under which several versions lie side by side: kubelet-1.33.5, kubelet-v1.34.0-beta.1.
_KUBELET = re.compile(r"(kubelet|hyperkube)([-_]?v?[0-9]+(\.[0-9]+)*([-+][0-9A-Za-z.+-]*)?)?")
# Besides, what a wrapper moves aside and executes: kubelet.real, kubelet-bin.
_KUBELET_OF_ANY_NAME = re.compile(r"(kubelet|hyperkube)([-_.0-9].*)?", re.DOTALL)

DELETED = " (deleted)"
"""How the kernel ends the name of an executable that is no longer there (proc_pid_exe(5))."""

_NODE_IP = re.compile(r"(--node-ip=)[0-9A-Fa-f.:,]{1,100}")
_LABELS = ("--node-labels", "--node_labels")

_RESTORE = "Restore what the command line names before anything restarts the kubelet."
_REPORT = "Report this case, with the kubelet's command line."


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files that a kubelet reads, absolute: the config file first, then the drop-ins in the order of its walk.

    `config` and `directory` (its trailing slash kept) are empty where the command line names none.
    """

    config: str
    directory: str
    dropins: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file, in the order in which they are read."""
        return ((self.config,) if self.config else ()) + self.dropins


def is_kubelet(path: str) -> bool:
    """Whether a program that a unit starts is a kubelet by its name, and no script around one."""
    return _KUBELET.fullmatch(posixpath.basename(path)) is not None


def runs_kubelet(process: Process) -> bool:
    """Whether a process is a kubelet by a name of its own; of a script the kernel shows the shell's."""
    names = ((process.argv or ("",))[0], process.executable.removesuffix(DELETED))
    return any(_KUBELET_OF_ANY_NAME.fullmatch(posixpath.basename(name)) for name in names)


def inputs(argv: Sequence[str], evidence: Evidence, directory: str) -> Inputs | Trouble:
    """The files that a kubelet with this command line and working directory reads, all of them there in whole."""
    named = _NAMED.get(tuple(canonical(argv)), lambda: config_paths(argv), lambda _: 1_000 + sum(map(_size, argv)))
    config = absolute(named.config, directory) if named.config else ""
    if config and (trouble := _unread(config, "config file", evidence)):
        return trouble
    if not named.config_dir:
        return Inputs(config, "", ())
    root = absolute_directory(named.config_dir, directory)
    if root.rstrip("/") in evidence.gone:
        reason = f"the directory {root} that the command line names is not there, or cannot be read"
        return Trouble(Code.CONFIG_UNREADABLE, reason, _RESTORE, fails=True)
    listing = evidence.listings.get(root)
    if listing is None:
        return Trouble(
            Code.LISTING_UNKNOWN,
            f"what the directory {root} that the command line names holds is not known",
            "Look at the directory on the node: a name in it cannot be listed, or a directory cannot be read.",
        )
    for path in listing.files:
        if trouble := _unread(path, "drop-in", evidence):
            return trouble
    return Inputs(config, root, listing.files)


def named(argv: Sequence[str], flag: str) -> str:
    """The file that a command line names by a flag (with its dashes), as it does; '' where it names none."""
    known = (tuple(canonical(argv)), flag)
    return _NAMED_BY.get(known, lambda: named_by(argv, flag), lambda _: 1_000 + sum(map(_size, argv)))


def _unread(path: str, noun: str, evidence: Evidence) -> Trouble | None:
    """Why this file's text is not known, or None."""
    file = evidence.files.get(path)
    if path in evidence.gone:
        reason = f"the {noun} {path} that the command line names is not there, or cannot be read"
        return Trouble(Code.CONFIG_UNREADABLE, reason, _RESTORE, fails=True)
    if file is None:
        return Trouble(
            Code.CONFIG_UNREADABLE, f"the {noun} {path} that the command line names was not collected", _REPORT
        )
    return None if file.whole else _not_whole(file)


def _not_whole(file: File) -> Trouble:
    if file.size > _MOST_BYTES:
        return Trouble(
            Code.TOO_LARGE,
            f"{file.path} has {file.size:,} bytes; {_MOST_BYTES:,} are read, which is a limit of this tool",
            "Make the file shorter: comments count.",
        )
    return Trouble(Code.CONFIG_UNREADABLE, f"{file.path} is not text: it has NUL bytes", "Look at it on the node.")


def canonical(argv: Sequence[str]) -> list[str]:
    """The arguments with the address in `--node-ip=` blanked, where a kubelet makes the same of them.

    AKS gives every node that flag with its own address (since Kubernetes 1.29), so that no two nodes of a pool have the
    same arguments. It is the kubelet's own flag, whose text no setting depends on, and none of the kubelet's refusals.
    It stays what it is where it may be something else: another flag's value, or no flag because of a `--` before it.
    Its length, which counts for a limit, stays too.
    """
    arguments = list(argv)
    for index in [index for index, argument in enumerate(argv) if argument.startswith("--node-ip=")]:
        match = _NODE_IP.fullmatch(argv[index])
        before = argv[index - 1] if index else ""
        complete = not before.startswith("-") or (before.startswith("--") and "=" in before)
        if index and match is not None and complete and "--" not in argv:
            arguments[index] = match[1] + "0" * (match.end() - match.end(1))
    return arguments


def resolved(
    argv: Sequence[str], read: Inputs, evidence: Evidence, version: str | None, directory: str, *, starts: bool = False
) -> Resolution | Trouble:
    """What a kubelet makes of this command line and the files that it reads.

    `starts` says that it is one that would start now: for it a file that is only named (a client CA) must be there. Of
    the running one it is known to have been. Label values are masked in evidence, and a masked one stands for a valid
    one: the kubelet runs with it.
    """
    arguments = canonical(argv)
    for index, argument in enumerate(arguments):
        if not argument.startswith(_LABELS):
            continue
        name, has_value, _ = argument.partition("=")
        if name.replace("_", "-") == "--node-labels":
            at = index if has_value else index + 1
            arguments[at : at + 1] = [value.replace("*", "x") for value in arguments[at : at + 1]]
    files = tuple((path, evidence.files[path].text) for path in read.paths)
    absent = frozenset(path for path, there in evidence.exists.items() if starts and not there)
    key = (tuple(arguments), files, version, directory, read.dropins, absent)
    made, asked = _RESOLVED.get(key, lambda: _resolve(*key), lambda found: _weight(key, found))
    if made.limit:
        return Trouble(Code.TOO_LARGE, made.limit, "Make the file simpler, or report this case.")
    unknown = [path for path in asked if path not in evidence.exists and path not in evidence.files]
    if starts and unknown:
        return Trouble(Code.CONFIG_UNREADABLE, f"whether {unknown[0]} is there is not known")
    return made


_Key = tuple[tuple[str, ...], tuple[tuple[str, str], ...], str | None, str, tuple[str, ...], frozenset[str]]

# One look asks the same of every control, mostly of the running kubelet and of a restart; one pool of all its nodes.
_RESOLVED: Remembered[_Key, tuple[Resolution, tuple[str, ...]]] = Remembered(entries=1024, weight=48 * 1024 * 1024)
_NAMED: Remembered[tuple[str, ...], ConfigPaths] = Remembered(entries=1024, weight=8 * 1024 * 1024)
_NAMED_BY: Remembered[tuple[tuple[str, ...], str], str] = Remembered(entries=1024, weight=8 * 1024 * 1024)


def _size(text: str) -> int:
    """Bytes of a text in memory, about."""
    return 80 + (1 if text.isascii() else 4) * len(text)


def _weight(key: _Key, made: tuple[Resolution, tuple[str, ...]]) -> int:
    """Bytes, about: measured are 9,000 for a resolution of few flags, and up to 550 for each value of a file."""
    arguments, files, _, _, dropins, absent = key
    texts = (*arguments, *(text for _, text in files), *dropins, *absent, *made[1])
    return 16_000 + 2 * sum(map(_size, texts)) + 600 * made[0].values_read


def _resolve(
    argv: tuple[str, ...],
    files: tuple[tuple[str, str], ...],
    version: str | None,
    directory: str,
    dropins: tuple[str, ...],
    absent: frozenset[str],
) -> tuple[Resolution, tuple[str, ...]]:
    """The resolution, and the files whose being there it depends on."""
    asked: list[str] = []

    def exists(path: str) -> bool:
        asked.append(absolute(path, directory))
        return asked[-1] not in absent

    made = resolve(argv, dict(files), version=version, cwd=directory, exists=exists, listing=lambda _: dropins)
    return made, tuple(asked)


def placed(source: Source, directory: str) -> Source:
    """Where a value comes from, with a file's path from the root."""
    return replace(source, path=absolute(source.path, directory)) if source.kind == "file" else source


def by_arguments(argv: Sequence[str], evidence: Evidence, version: str | None, directory: str) -> Resolution | Trouble:
    """What a kubelet makes of its flags alone: no file that it reads can change what a flag sets.

    The last of a repeated flag counts, and an empty name is no file.
    """
    return resolved([*argv, "--config=", "--config-dir="], Inputs("", "", ()), evidence, version, directory)
