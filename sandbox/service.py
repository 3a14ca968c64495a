"""The service manager and the kubelet of one node folder: what `systemctl daemon-reload`, `start`, `stop` do there.

Run by the node's `systemctl` stand-in as `python service.py VERB` with KUBELET_GUARD_ROOT set, and called by
`sandbox.node` when it makes a node. The unit is what the last daemon-reload loaded; environment and config files are
read at each start. The command line is systemd's (`shared.systemd`), whether the kubelet takes it is the
kubelet's own decision (`shared.kubelet`). Like a service of Type=simple, a start succeeds once the process is
forked: a kubelet that refuses its configuration crash-loops afterwards (Restart=always, RestartSec=2).

State is kept in `run/sandbox/` of the node:
    node.json        version, quirk and boot time; written once
    loaded.json      the unit as loaded;  loaded.list: its files and their times, for NeedDaemonReload
    process.json     what runs
    read.json        the config files as the running process has read them
    properties       what `systemctl show` answers, in its order
    healthz          `EPOCH STATUS`: refused before EPOCH, that HTTP status from then on; absent: refused
    dies_at          the epoch at which the running kubelet exits
    timers/          one file for each transient timer that systemd-run has made
    canary           there once the kubelet has made its KUBE-KUBELET-CANARY chains
    owners           `USER:GROUP PATH`, in numbers: whose files are that are not root's, for stat and chown

It imports nothing of `sandbox`, whose package pulls in the server.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shared.systemd import MissingEnvironmentFile, UnitError, start_command

if TYPE_CHECKING:
    from shared.kubelet import Resolution

UNIT = "kubelet.service"
_CHAINS = "makeIPTablesUtilChains"
CLOCK_TICKS = 100
_UNIT_DIRECTORIES = ("etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system")  # the first one wins
_DIES_AFTER_SECONDS = 4
_SEE = f'\nSee "systemctl status {UNIT}" and "journalctl -xeu {UNIT}" for details.'


class StartError(Exception):
    """systemctl itself fails with `status`. The text is what it prints to stderr.

    `queued` says that the job was accepted first, so that `--no-block` does not see its failure.
    """

    def __init__(self, message: str, status: int = 1, *, queued: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.queued = queued


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not change while a node lives. `boot`: seconds since the epoch, of the machine it shares."""

    version: str
    quirk: str
    boot: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """The unit as the last daemon-reload found it: paths in the order of application, and their texts."""

    fragment: str | None
    dropins: tuple[str, ...]
    texts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Process:
    """The kubelet's process. `since` is when it reached this state, `last_pid` the last process id given out."""

    state: Literal["dead", "running", "crashing"]
    since: float
    pid: int
    last_pid: int
    executable: str = ""


def daemon_reload(root: Path) -> None:
    """Load the unit and its drop-ins from disk."""
    fragment = next((d for d in _UNIT_DIRECTORIES if (root / d / UNIT).is_file()), None)
    dropins: dict[str, Path] = {}
    if fragment is not None:
        for directory in reversed(_UNIT_DIRECTORIES):
            dropins |= {path.name: path for path in (root / directory / f"{UNIT}.d").glob("*.conf")}
    files = [*([root / fragment / UNIT] if fragment else []), *(dropins[name] for name in sorted(dropins))]
    paths = [_inside(root, path) for path in files]
    loaded = Loaded(
        fragment=paths[0] if paths else None,
        dropins=tuple(paths[1:]),
        texts={inside: _read(path) for inside, path in zip(paths, files, strict=True)},
    )
    _write(root, "loaded.json", json.dumps(asdict(loaded)))
    # The same text as `stat -c '%n %.9Y'` prints, in the stand-in's order.
    stamps = []
    for directory in _UNIT_DIRECTORIES:
        found = [root / directory / UNIT, *sorted((root / directory / f"{UNIT}.d").glob("*.conf"))]
        stamps += [f"{path} {_stamp(path)}" for path in found if path.is_file()]
    _write(root, "loaded.list", "".join(f"{line}\n" for line in stamps))
    _show(root)


def start(root: Path, now: float) -> None:
    """Start the kubelet as `systemctl start` would; nothing where it runs already. Raises StartError."""
    loaded, process = _loaded(root), _process(root)
    if loaded.fragment is None:
        raise StartError(f"Failed to start {UNIT}: Unit {UNIT} not found.", 5)
    if process.state == "running":
        return
    facts = _facts(root)
    _forget(root)
    if facts.quirk == "start_fails":
        _become(root, Process("crashing", now, 0, process.last_pid))
        text = f"Job for {UNIT} failed because the control process exited with error code.{_SEE}"
        raise StartError(text, queued=True)
    try:
        executable, argv = _command(root, loaded)
    except MissingEnvironmentFile:
        _become(root, Process("crashing", now, 0, process.last_pid))
        text = f"Job for {UNIT} failed because of unavailable resources or another system error.{_SEE}"
        raise StartError(text, queued=True) from None
    except UnitError:
        raise StartError(f"Failed to start {UNIT}: Unit {UNIT} has a bad unit file setting.") from None
    _launch(root, executable, argv, now, healthy_from=int(now) + 1)


def _launch(root: Path, executable: str, argv: Sequence[str], now: float, healthy_from: int) -> None:
    """Fork the kubelet: it runs, or refuses what it is given and crash-loops."""
    facts, pid = _facts(root), _process(root).last_pid + 211
    files = _config_files(root, argv)
    resolution = _resolution(tuple(argv), files, facts.version)
    if not resolution.accepted or not _reads_client_ca(root, resolution) or not (root / executable[1:]).is_file():
        _become(root, Process("crashing", now, 0, pid))
        return
    _write(root, "read.json", json.dumps(files))
    _spawn(root, pid, argv, executable, now, facts.boot)
    chains = resolution.value(_CHAINS) is True
    healthy = not (chains and facts.quirk == "unhealthy_when_true")
    _write(root, "healthz", f"{healthy_from} {200 if healthy else 500}\n")
    if chains:
        _write(root, "canary", "")
        if facts.quirk == "dies_when_true":
            _write(root, "dies_at", f"{int(now) + _DIES_AFTER_SECONDS}\n")
    _become(root, Process("running", now, pid, pid, executable))


def stop(root: Path, now: float) -> None:
    """Stop the kubelet. Raises StartError where there is no unit."""
    process = _process(root)
    if _loaded(root).fragment is None:
        raise StartError(f"Failed to stop {UNIT}: Unit {UNIT} not loaded.", 5)
    _forget(root)
    _become(root, Process("dead", now, 0, process.last_pid))


def restart(root: Path, now: float) -> None:
    """Stop and start. A unit that systemd refuses to load leaves the running process alone. Raises StartError."""
    loaded = _loaded(root)
    if loaded.fragment is None:
        raise StartError(f"Failed to restart {UNIT}: Unit {UNIT} not found.", 5)
    try:
        _command(root, loaded)
    except MissingEnvironmentFile:
        pass  # systemd finds this out when the old process is gone
    except UnitError:
        raise StartError(f"Failed to restart {UNIT}: Unit {UNIT} has a bad unit file setting.") from None
    stop(root, now)
    start(root, now)


def settle(root: Path, now: float) -> None:
    """Let happen what was bound to happen by now: a kubelet that dies after its start has died."""
    path = _state(root, "dies_at")
    if path.is_file() and now >= (at := float(path.read_text())):
        process = _process(root)
        _forget(root)
        _become(root, Process("crashing", at, 0, process.last_pid))


def install(root: Path, facts: Facts, first_pid: int) -> None:
    """Make a node folder's service manager: nothing loaded, nothing running."""
    _state(root, "").mkdir(parents=True, exist_ok=True)
    _write(root, "node.json", json.dumps(asdict(facts)))
    _write(root, "process.json", json.dumps(asdict(Process("dead", float(facts.boot), 0, first_pid))))
    proc = root / "proc"
    proc.mkdir(exist_ok=True)
    (proc / "stat").write_text(f"cpu  410873 5128 230377 98123457 20117 0 8123 0 0 0\nbtime {int(facts.boot)}\n")
    boot_id = proc / "sys/kernel/random/boot_id"
    boot_id.parent.mkdir(parents=True, exist_ok=True)
    boot_id.write_text(f"{uuid.uuid4()}\n")


def start_first(root: Path, now: float) -> None:
    """Load the unit and start the kubelet when a node is made: long ago, as far as its health is concerned."""
    daemon_reload(root)
    loaded = _loaded(root)
    if loaded.fragment is not None:
        executable, argv = _command(root, loaded)
        _launch(root, executable, argv, now, healthy_from=0)


def uptime() -> float:
    """Seconds since this machine booted, as /proc/uptime counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def effective(root: Path) -> Resolution | None:
    """What the running kubelet would make of what is on disk now; None where none runs or it refuses."""
    process = _process(root)
    if process.state != "running":
        return None
    raw = (root / f"proc/{process.pid}/cmdline").read_bytes().rstrip(b"\0").decode("utf-8", "surrogateescape")
    argv = tuple(raw.split("\0"))
    resolution = _resolution(argv, _config_files(root, argv), _facts(root).version)
    return resolution if resolution.accepted else None


def serving(root: Path) -> tuple[tuple[str, ...], dict[str, str], str] | None:
    """What the running kubelet was started with: arguments, the files it read, its version; None where none runs."""
    settle(root, time.time())
    process = _process(root)
    if process.state != "running":
        return None
    raw = (root / f"proc/{process.pid}/cmdline").read_bytes().rstrip(b"\0").decode("utf-8", "surrogateescape")
    return tuple(raw.split("\0")), dict(json.loads(_state(root, "read.json").read_text())), _facts(root).version


def healthy(root: Path, now: float) -> bool:
    """Whether the kubelet runs and says at its healthz that it is healthy, after what was bound to happen by now."""
    settle(root, now)
    answer = _state(root, "healthz")
    if _process(root).state != "running" or not answer.is_file():
        return False
    since, status = answer.read_text().split()
    return now >= float(since) and status == "200"


def _command(root: Path, loaded: Loaded) -> tuple[str, tuple[str, ...]]:
    """The executable and the argument vector that a start would have now. Raises UnitError."""
    texts = dict(loaded.texts)
    texts |= {path: _read(root / path[1:]) for path, _ in environment_files(loaded) if (root / path[1:]).is_file()}
    return _start_command(loaded.fragment or "", loaded.dropins, tuple(texts.items()))


@lru_cache(maxsize=256)
def _start_command(
    fragment: str, dropins: tuple[str, ...], texts: tuple[tuple[str, str], ...]
) -> tuple[str, tuple[str, ...]]:
    command = start_command(fragment, dropins, dict(texts))
    return command.executable, tuple(argument.text for argument in command.argv)


@lru_cache(maxsize=256)
def _resolution(argv: tuple[str, ...], files: tuple[tuple[str, str], ...], version: str) -> Resolution:
    # A node's systemctl is a process of its own each time, and only a start needs a kubelet's rules.
    from shared.kubelet import resolve

    return resolve(argv, dict(files), version=version)


def _reads_client_ca(root: Path, resolution: Resolution) -> bool:
    """Whether the client CA file, where one is named, is there: without it a kubelet does not start."""
    path = str(resolution.value("authentication.x509.clientCAFile"))
    return not path or (root / path.lstrip("/")).is_file()


def _config_files(root: Path, argv: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The texts of every file that the arguments name as --config, or that is below a --config-dir."""
    named: list[str] = []
    for word, following in zip(argv, (*argv[1:], ""), strict=True):
        match = re.fullmatch(r"--config(?:[-_]dir)?(?:=(.*))?", word, re.DOTALL)
        if match:
            named.append(following if match[1] is None else match[1])
    found: dict[str, str] = {}
    for path in named:
        if path.startswith("/"):
            place = root / path[1:]
            below = sorted(place.rglob("*")) if place.is_dir() else [place]
            found |= {_inside(root, file): _read(file) for file in below if file.is_file()}
    return tuple(found.items())


def environment_files(loaded: Loaded) -> list[tuple[str, bool]]:
    """The unit's EnvironmentFile= paths, each with whether it may be missing."""
    found: list[tuple[str, bool]] = []
    for path in (*([loaded.fragment] if loaded.fragment else []), *loaded.dropins):
        for value in re.findall(r"^[ \t]*EnvironmentFile[ \t]*=[ \t]*(\S*)", loaded.texts[path], re.MULTILINE):
            found = [*found, (value.removeprefix("-"), value.startswith("-"))] if value else []
    return found


def _spawn(root: Path, pid: int, argv: Sequence[str], executable: str, now: float, boot: float) -> None:
    directory = root / f"proc/{pid}"
    directory.mkdir()
    (directory / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in argv))
    (directory / "comm").write_text("kubelet\n")
    (directory / "exe").symlink_to(root / executable[1:])
    (directory / "cwd").symlink_to("/")
    ticks = int((now - boot) * CLOCK_TICKS)
    before = f"S 1 {pid} {pid} 0 -1 4194560 51234 0 12 0 8123 2310 0 0 20 0 17 0"  # fields 3 to 21 of proc(5)
    (directory / "stat").write_text(f"{pid} (kubelet) {before} {ticks} 2178953216 24310 {'0 ' * 27}0\n")


def _forget(root: Path) -> None:
    """Remove what only a running kubelet has."""
    process = _process(root)
    if process.pid:
        shutil.rmtree(root / f"proc/{process.pid}", ignore_errors=True)
    for name in ("healthz", "dies_at"):
        _state(root, name).unlink(missing_ok=True)


def _become(root: Path, process: Process) -> None:
    _write(root, "process.json", json.dumps(asdict(process)))
    _show(root)


def _show(root: Path) -> None:
    """Write what `systemctl show` answers. Service properties come before unit properties, as there."""
    loaded, process, boot = _loaded(root), _process(root), _facts(root).boot
    running, crashing = process.state == "running", process.state == "crashing"
    since = int((process.since - boot) * 1_000_000)
    fraction = int(process.since % 1 * 1_000_000)
    stamp = time.strftime(f"%a %Y-%m-%d %H:%M:%S.{fraction:06d} UTC", time.gmtime(process.since))
    lines = [] if loaded.fragment is None else ["Type=simple", "Restart=always", "RestartUSec=2s"]
    lines += [f"MainPID={process.pid}"]
    if loaded.fragment is not None:
        lines += [
            f"Result={'exit-code' if crashing else 'success'}",
            f"NRestarts={f'since {int(process.since)}' if crashing else 0}",
            f"ExecMainStartTimestamp={stamp if running else ''}",
            f"ExecMainStartTimestampMonotonic={since if running else 0}",
            f"ExecMainPID={process.pid or process.last_pid}",
            f"ExecMainCode={1 if crashing else 0}",
            f"ExecMainStatus={1 if crashing else 0}",
            *(
                f"EnvironmentFiles={path} (ignore_errors={'yes' if optional else 'no'})"
                for path, optional in environment_files(loaded)
            ),
            "KillMode=control-group",
            "RefuseManualStart=no",
            "RefuseManualStop=no",
            "CanStop=yes",
            f"InvocationID={process.pid:032x}",
        ]
    active, sub = {
        "running": ("active", "running"),
        "crashing": ("activating", "auto-restart"),
        "dead": ("inactive", "dead"),
    }[process.state]
    lines += [
        f"Id={UNIT}",
        f"Names={UNIT}",
        f"Description={'Kubelet' if loaded.fragment else UNIT}",
        f"LoadState={'loaded' if loaded.fragment else 'not-found'}",
        f"ActiveState={active}",
        f"SubState={sub}",
        f"FragmentPath={loaded.fragment or ''}",
        f"DropInPaths={' '.join(loaded.dropins)}",
        f"UnitFileState={'enabled' if loaded.fragment else ''}",
        f"ActiveEnterTimestamp={stamp if running else ''}",
        f"ActiveEnterTimestampMonotonic={since if running else 0}",
        "Job=",
        "NeedDaemonReload=",
    ]
    _write(root, "properties", "".join(f"{line}\n" for line in lines))


def _facts(root: Path) -> Facts:
    return Facts(**json.loads(_state(root, "node.json").read_text()))


def _loaded(root: Path) -> Loaded:
    data = json.loads(_state(root, "loaded.json").read_text())
    return Loaded(data["fragment"], tuple(data["dropins"]), data["texts"])


def _process(root: Path) -> Process:
    return Process(**json.loads(_state(root, "process.json").read_text()))


def _state(root: Path, name: str) -> Path:
    return root / "run/sandbox" / name


def _write(root: Path, name: str, text: str) -> None:
    path = _state(root, name)
    beside = path.with_name(f"{name}.new")
    beside.write_text(text, "utf-8", "surrogateescape")
    beside.replace(path)


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")


def _inside(root: Path, path: Path) -> str:
    return f"/{path.relative_to(root)}"


def _stamp(path: Path) -> str:
    nanoseconds = path.stat().st_mtime_ns
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"


def main(arguments: Sequence[str]) -> int:
    """`systemctl VERB [--no-block]` for the node in KUBELET_GUARD_ROOT; returns the exit status."""
    root = Path(os.environ["KUBELET_GUARD_ROOT"])
    verb, *options = arguments
    now = time.time()
    settle(root, now)
    actions = {"start": start, "stop": stop, "restart": restart}
    try:
        if verb == "daemon-reload":
            daemon_reload(root)
        elif verb != "settle":
            actions[verb](root, now)
    except StartError as error:
        if error.queued and "--no-block" in options:
            return 0
        print(error, file=sys.stderr)  # noqa: T201 - this is systemctl's output
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
