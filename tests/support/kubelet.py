"""Booted nodes that run a real kubelet, in states that a node can be in.

`$KUBELET_BIN` names one or more kubelets (paths joined by `:`); without it the tests that want one are skipped. A
kubelet runs standalone beside Debian's containerd and answers `configz`: what it really has in effect.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from shared.models import Evidence
from shared.node import evidence, frames
from tests.support.nspawn import (
    CONFIG_PATH,
    ENVIRONMENT_PATH,
    KUBELET_PATH,
    UNIT_PATH,
    Machine,
    NodeFile,
    boot,
)
from tests.support.require import require

UNIT_NAME = "kubelet.service"
START_SECONDS = 30

# What a kubelet in a container without a cluster needs to come up, and to answer whoever asks for its configuration.
STANDALONE = (
    "--container-runtime-endpoint=unix:///run/containerd/containerd.sock --fail-cgroupv1=false "
    "--cgroup-driver=cgroupfs --cgroups-per-qos=false --enforce-node-allocatable= "
    "--anonymous-auth=true --authentication-token-webhook=false --authorization-mode=AlwaysAllow"
)
_NSPAWN_OPTIONS = ("--capability=all", "--system-call-filter=@known")
_NSPAWN_ENVIRONMENT = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "0"}
# The kernel settings that a kubelet insists on. A container cannot set its host's, so it is shown these.
_KERNEL = {"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"}
# A start counts as later than a change only beyond the kernel's coarse clock; this is well beyond it.
_SETTLED = "sleep 0.1"
# What a program needs besides its own files in a root directory of its own.
_ROOT_DIRECTORY = (
    f"MountAPIVFS=yes\nBindReadOnlyPaths={KUBELET_PATH} /usr /lib /lib64 /bin /sbin /etc/machine-id /etc/passwd\n"
    "BindPaths=/run /var\n"
)
# The size of a directory is the overlay's, and says nothing.
_SHOWN = "-type d -printf '%p %m\\n' -o -printf '%p %y %m %s %l\\n'"


def _find(what: str) -> str:
    """A command that finds what is on a node's own disk and no program's own business."""
    pruned = " -o ".join(f"-path {path}" for path in ("/dev", "/proc", "/run", "/sys", "/tmp", "/var"))
    return f"find / -mindepth 1 \\( {pruned} \\) -prune -o {what}"


def kubelet_binaries() -> tuple[Path, ...]:
    """The kubelets that $KUBELET_BIN names."""
    return tuple(Path(name) for name in os.environ.get("KUBELET_BIN", "").split(":") if name)


def require_kubelet() -> tuple[Path, ...]:
    """The kubelets, at least one; else skip, or with REQUIRE_ALL=1 fail."""
    found = kubelet_binaries()
    require(bool(found), "KUBELET_BIN names no kubelet")
    for path in found:
        require(os.access(path, os.X_OK), f"{path} (KUBELET_BIN) is no program")
    return found


@cache
def version_of(binary: Path) -> str:
    """What it says of itself, such as "1.37.2"."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.fullmatch(r"Kubernetes v(\S+)\n", said)
    assert found, said
    return found[1]


@dataclass(frozen=True, slots=True)
class State:
    """What is on a node when its kubelet starts, and what happens to it then without a restart.

    Texts may have undecodable bytes as surrogates. `links` maps a symbolic link to its target. `unit_section` are
    lines of the unit's [Unit], `service_section` of its [Service]. `start_only` are files that are there for the start
    and removed after it. `before` and `after` (the start) are shell commands, run as root in the order given; in the
    latter `$PID` is the kubelet's.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    exec_start: str = f"{KUBELET_PATH} --config={CONFIG_PATH} $KUBELET_FLAGS"
    unit_section: str = ""
    service_section: str = ""
    environment: str | None = "KUBELET_FLAGS=--v=2\n"
    environment_path: str = ENVIRONMENT_PATH
    manager_environment: Mapping[str, str] = field(default_factory=dict)
    start_only: tuple[str, ...] = ()
    missing_tools: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


class RealNode:
    """A booted node with a real kubelet at /opt/bin/kubelet."""

    def __init__(self, machine: Machine, version: str) -> None:
        self.machine = machine
        self.version = version

    @property
    def pid(self) -> int:
        """The kubelet's process, as the node counts it; 0 where none runs."""
        return int(self.machine.check(["systemctl", "show", "--property=MainPID", "--value", UNIT_NAME]))

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write into the file that is there (through a link too), or make it."""
        place, data = shlex.quote(path), text.encode(errors="surrogateescape")
        made = f"mkdir -p -- $(dirname -- {place}) && cat > {place} && chmod {mode:o} -- {place}"
        done = self.machine.execute(["/bin/sh", "-c", made], stdin=data)
        assert done.returncode == 0, done.stderr

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link, or turn one that is there."""
        self.machine.check(f'mkdir -p -- "$(dirname -- {shlex.quote(path)})"')
        self.machine.check(["ln", "-sfn", "--", target, path])

    def mount(self, source: str, point: str) -> None:
        """Bind-mount one path over another, in the mount namespace of the kubelet too."""
        self.machine.check(["mount", "--bind", source, point])

    def signal(self, name: str) -> None:
        """Send the kubelet's process a signal, such as `STOP`."""
        self.machine.check(["kill", f"-{name}", str(self.pid)])

    def lay_out(self, state: State) -> None:
        """Put a state's files, links and unit in place; no kubelet runs yet."""
        files: dict[str, NodeFile | str] = {
            path: NodeFile(_standalone(text), 0o755 if text.startswith("#!") else 0o644)
            for path, text in state.files.items()
        }
        service = state.service_section
        if root := re.search(r"^RootDirectory=(\S+)", service, re.MULTILINE):
            service += f"\n{_ROOT_DIRECTORY}"
            files[f"{root[1]}/etc/os-release"] = "ID=debian\n"
        if state.environment is not None:
            files[state.environment_path] = NodeFile(state.environment, 0o600)
            service += f"\nEnvironmentFile={state.environment_path}"
        files |= dict.fromkeys(state.start_only, "")
        files[UNIT_PATH] = (
            f"[Unit]\nDescription=Kubelet\n{state.unit_section}\n[Service]\nRestart=always\nRestartSec=2\n{service}\n"
            f"ExecStart={_standalone(state.exec_start)}\n"
        )
        self.machine.write(files)
        self.link(f"/etc/systemd/system/multi-user.target.wants/{UNIT_NAME}", UNIT_PATH)
        for path, target in state.links.items():
            self.link(path, target)
        for name, value in state.manager_environment.items():
            self.machine.check(["systemctl", "set-environment", f"{name}={value}"])
        for tool in state.missing_tools:
            self.machine.check(f'rm -- "$(command -v {shlex.quote(tool)})"')
        for command in state.before:
            self.machine.check(command)

    def start(self) -> None:
        """Start the kubelet as a boot does (what refuses to be started by hand too), and wait until it answers."""
        self.machine.check(f"{_SETTLED}; systemctl daemon-reload && systemctl start multi-user.target")
        self.wait_until_well()

    def restart(self) -> None:
        """Restart the kubelet by hand, and wait until it answers."""
        self.machine.check(f"{_SETTLED}; systemctl daemon-reload && systemctl restart {UNIT_NAME}")
        self.wait_until_well()

    def wait_until_well(self) -> None:
        """Wait until the kubelet answers for its health and its configuration."""
        deadline = time.monotonic() + START_SECONDS
        while not (self.well() and self._ask_configz()):
            assert time.monotonic() < deadline, self.machine.run(
                f"systemctl status {UNIT_NAME}; journalctl --unit={UNIT_NAME} | grep -E ' [EF][0-9]+ |systemd' | tail"
            ).stdout
            time.sleep(0.05)

    def well(self) -> bool:
        """Whether it answers healthz with ok."""
        return self.machine.run("curl -s -m 5 http://127.0.0.1:10248/healthz").stdout == "ok"

    def configz(self) -> dict[str, object]:
        """The configuration that the running process has in effect, in its own word."""
        answer = self._ask_configz()
        assert answer, "the kubelet does not answer configz"
        found = json.loads(answer)["kubeletconfig"]
        assert isinstance(found, dict)
        return found

    def enter(self, state: State) -> dict[str, object]:
        """Bring the node into a state. What the running process had in effect when it was asked, after its start."""
        self.lay_out(state)
        self.start()
        effective = self.configz()
        pid = self.pid
        if state.start_only:
            self.machine.check(["rm", "--", *state.start_only])
        for command in state.after:
            self.machine.check(f"PID={pid}; {command}")
        assert self.pid == pid, "the state is one of the process that was asked"
        return effective

    def clear(self) -> None:
        """Stop the kubelet and take away what has come since the boot: files, and what a kubelet or a fix keeps."""
        self.machine.check(
            f"systemctl kill --signal=KILL {UNIT_NAME}; systemctl stop {UNIT_NAME}; systemctl reset-failed; "
            f"{_find('-cnewer /run/booted ! -type d -exec rm -f -- {} +')}; "
            f"{_find('-depth -cnewer /run/booted -type d -empty -delete')}; "
            "rm -rf /var/lib/kubelet /var/lib/kubelet-guard; systemctl daemon-reload"
        )

    def print_of(self) -> str:
        """What a state can change and a boot leaves alone, to be compared: files, mounts, the manager's environment."""
        return self.machine.check(
            f"{_find(_SHOWN)} | sort; cut -d' ' -f4- /proc/self/mountinfo | grep -v '^/ /sys/' | sort; "
            "systemctl show-environment"
        )

    def _ask_configz(self) -> str:
        return self.machine.run("curl -sk -m 5 https://127.0.0.1:10250/configz").stdout


class RealNodes:
    """One booted node for each kubelet, given out again as long as it can be made as it was after its boot."""

    def __init__(self) -> None:
        self._open: dict[Path, tuple[ExitStack, RealNode, str]] = {}

    def fresh(self, binary: Path) -> RealNode:
        """A node that is as after its boot."""
        if binary in self._open:
            stack, node, print_before = self._open[binary]
            with suppress(AssertionError, subprocess.TimeoutExpired):  # then it is another one's turn
                node.clear()
                if node.print_of() == print_before:
                    return node
            del self._open[binary]
            stack.close()
        stack = ExitStack()
        node = stack.enter_context(real_node(binary))
        self._open[binary] = stack, node, node.print_of()
        node.machine.check(f"touch /run/booted; {_SETTLED}")
        return node

    def close(self) -> None:
        """End all nodes."""
        for stack, _, _ in self._open.values():
            stack.close()


@contextmanager
def real_node(
    binary: Path, *, hostname: str = "aks-nodepool1-12345678-vmss000000", network: Path | None = None
) -> Iterator[RealNode]:
    """Boot a node of its own with this kubelet and a running containerd; `network` as of `boot`."""
    with boot(
        hostname=hostname,
        binds={binary: KUBELET_PATH},
        options=_NSPAWN_OPTIONS,
        environment=_NSPAWN_ENVIRONMENT,
        network=network,
    ) as machine:
        for path, value in _KERNEL.items():
            shown = f"/run/kernel/{path}"
            machine.check(
                f"mkdir -p {Path(shown).parent}; echo {value} > {shown}; mount --bind {shown} /proc/sys/{path}"
            )
        # Debian's containerd, and no messages of this machine's kernel.
        machine.check("ln -s /dev/null /dev/kmsg; systemctl start containerd.service")
        yield RealNode(machine, version_of(binary))


def _standalone(text: str) -> str:
    """A command line or a script with what every kubelet here needs put behind its name."""
    return re.sub(rf"({re.escape(KUBELET_PATH)}(-[\w.]+)?)(?=\s+[-$\"])", rf"\1 {STANDALONE}", text)


def collect(node: RealNode) -> tuple[Evidence, str]:
    """What the node shows to the commands that the product would send, and all that left the node for it, unpacked."""
    parts: list[frames.Frame] = []
    while not parts or len(parts) < parts[0].parts:
        nonce = frames.request_nonce("run", "node", str(len(parts)))
        script = frames.collect_script(len(parts) + 1, nonce)
        done = node.machine.execute(["/bin/sh", "-c", script], timeout=120)
        assert done.returncode == 0, done.stderr
        assert max(len(done.stdout), len(done.stderr)) <= 4096
        parts += frames.parse_streams(done.stdout.decode(), done.stderr.decode(), nonce)
    payload = frames.unpack(parts)
    return evidence.read(payload, parts[0].wall, parts[0].uptime), payload.decode("utf-8", "surrogateescape")
