"""A test bed with a real systemd: Debian 12 in systemd-nspawn, booted as its own machine.

`boot()` gives a running `Machine` with a private network of its own (so that several can listen on the same port),
and whatever it changes is gone with it. The root file system is built once by mmdebstrap and cached under
$KUBELET_GUARD_CACHE, or the user's cache directory.
"""

import fcntl
import hashlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.require import require

PACKAGES = "systemd,systemd-sysv,dbus,procps,iptables,curl,python3,python3-yaml,containerd"
_RECIPE = (
    *("mmdebstrap", "--variant=minbase", f"--include={PACKAGES}"),
    '--customize-hook=rm -f "$1/etc/hostname"',  # mmdebstrap copies this machine's, which would win over --hostname
    # Only a real kubelet needs it, and its fixture starts it.
    '--customize-hook=systemctl --quiet --root="$1" disable containerd.service',
    "bookworm",
)
_BOOT_SECONDS = 60
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command in the machine ended."""

    rc: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class NodeFile:
    """A file to put into the machine, owned by root."""

    text: str
    mode: int = 0o644


class Machine:
    """A running machine. `leader` is its PID 1 as this machine sees it."""

    def __init__(self, leader: int) -> None:
        self.leader = leader

    def execute(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command in all of the machine's namespaces, as root, in `/`, with no environment but PATH."""
        enter = ["nsenter", f"--target={self.leader}", "--all", "--root", "--wd", "--"]
        return subprocess.run(
            [*enter, *argv],
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def run(self, command: str | Sequence[str], *, stdin: str = "", timeout: float = 60) -> Completed:
        """Run an argument vector, or a script with `/bin/sh -c` (up to 128 KiB: the kernel's limit)."""
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else command
        done = self.execute(argv, stdin=stdin.encode(), timeout=timeout)
        return Completed(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def check(self, command: str | Sequence[str], *, stdin: str = "", timeout: float = 60) -> str:
        """As `run`, and the command must succeed. Its stdout."""
        done = self.run(command, stdin=stdin, timeout=timeout)
        assert done.rc == 0, f"{command!r} ended with {done.rc}: {done.stderr or done.stdout}"
        return done.stdout

    def write(self, files: Mapping[str, NodeFile | str]) -> None:
        """Write files, and the directories above them, byte for byte (line ends are kept)."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, file in files.items():
                node_file = NodeFile(file) if isinstance(file, str) else file
                content = node_file.text.encode(errors="surrogateescape")
                member = tarfile.TarInfo(path.lstrip("/"))
                member.size, member.mode, member.mtime = len(content), node_file.mode, int(time.time())
                tar.addfile(member, io.BytesIO(content))
        done = self.execute(["tar", "--extract", "--no-overwrite-dir", "--directory=/"], stdin=archive.getvalue())
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    def read_bytes(self, path: str) -> bytes:
        """The content of a file."""
        done = self.execute(["cat", "--", path])
        if done.returncode != 0:
            raise FileNotFoundError(done.stderr.decode(errors="replace").strip())
        return done.stdout

    def read(self, path: str) -> str:
        """The text of a file, its line ends as they are."""
        return self.read_bytes(path).decode()

    def read_directory(self, path: str) -> dict[str, bytes]:
        """Name and content of each plain file in a directory."""
        done = self.execute(["tar", "--create", f"--directory={path}", "."])
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
            found = {}
            for member in tar:
                if (file := tar.extractfile(member)) is not None:
                    found[member.name.removeprefix("./")] = file.read()
            return found


@contextmanager
def boot(
    *,
    hostname: str = "aks-nodepool1-12345678-vmss000000",
    binds: Mapping[Path, str] | None = None,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    network: Path | None = None,
) -> Iterator[Machine]:
    """Boot a fresh machine and stop it afterwards.

    `binds`: paths of this machine to show in it, read-only. `options` and `environment` are further ones for
    systemd-nspawn itself. `network` is a network namespace to live in, in the place of a private one.
    """
    require_nspawn()
    root = root_filesystem()
    name = f"kubelet-guard-{uuid.uuid4().hex[:12]}"
    with ExitStack() as cleanup:
        # nspawn puts its payload into a fixed child of its own cgroup: without one each, two machines would share it.
        cgroups = [top / name for top in _nspawn_cgroups()]
        for cgroup in cgroups:
            cgroup.mkdir()
            cleanup.callback(_remove_cgroup, cgroup)
        log = cleanup.enter_context(tempfile.TemporaryFile())
        join = "".join(f"echo $$ > {cgroup}/cgroup.procs; " for cgroup in cgroups)
        nspawn = subprocess.Popen(
            [
                # Should this process die, the machine gets a SIGTERM and ends too.
                *("setpriv", "--pdeathsig=TERM", "--", "/bin/sh", "-c", f'{join}exec "$@"', "sh"),
                *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot"),
                "--private-network" if network is None else f"--network-namespace-path={network}",
                *options,
                *("--volatile=overlay", f"--directory={root}", f"--machine={name}", f"--hostname={hostname}"),
                *(f"--bind-ro={here}:{there}" for here, there in (binds or {}).items()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        cleanup.callback(_stop, nspawn)
        try:
            leader = _wait_until_up(nspawn)
        except TimeoutError as error:
            log.seek(0)
            raise RuntimeError(f"{error}; its console:\n{log.read().decode(errors='replace')}") from None
        yield Machine(leader)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A fresh machine for the tests of one module."""
    with boot() as booted:
        yield booted


def require_nspawn() -> None:
    """Skip, or with REQUIRE_ALL=1 fail, where this machine cannot run the test bed."""
    require(os.geteuid() == 0, "the real systemd tests need root")
    for tool in ("systemd-nspawn", "nsenter", "setpriv"):
        require(shutil.which(tool) is not None, f"the real systemd tests need {tool}")
    require(_cached_root().is_dir() or shutil.which("mmdebstrap") is not None, "the real systemd tests need mmdebstrap")


def root_filesystem() -> Path:
    """The cached root file system; built now if it is not there yet (about 20 s)."""
    root = _cached_root()
    root.parent.mkdir(parents=True, exist_ok=True)
    with (root.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may come here at once
        if not root.is_dir():
            building = root.with_name(f"{root.name}.building")
            shutil.rmtree(building, ignore_errors=True)
            built = subprocess.run([*_RECIPE, str(building)], capture_output=True, text=True, check=False)
            if built.returncode != 0:
                shutil.rmtree(building, ignore_errors=True)
                raise RuntimeError(f"mmdebstrap failed:\n{built.stderr[-4000:]}")
            building.rename(root)
    return root


def _cached_root() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(os.environ.get("KUBELET_GUARD_CACHE") or Path(home) / "aks-kubelet-guard")
    key = hashlib.sha256(" ".join(_RECIPE).encode()).hexdigest()[:16]
    return cache / "roots" / key


def _nspawn_cgroups() -> list[Path]:
    """The hierarchies that nspawn uses: the unified one, and systemd's own where the old ones are mounted too."""
    if (_CGROUPS / "cgroup.procs").exists():
        return [_CGROUPS]
    return [top for top in (_CGROUPS / "systemd", _CGROUPS / "unified") if top.is_dir()]


def _wait_until_up(nspawn: subprocess.Popen[bytes]) -> int:
    """The PID of the machine's init, once its boot is over."""
    deadline = time.monotonic() + _BOOT_SECONDS
    while time.monotonic() < deadline:
        if nspawn.poll() is not None:
            raise TimeoutError(f"systemd-nspawn ended with {nspawn.returncode} before the machine was up")
        if leader := _child_of(nspawn.pid):
            state = Machine(leader).run(["systemctl", "is-system-running"]).stdout.strip()
            if state in ("running", "degraded"):
                return leader
        time.sleep(0.05)
    raise TimeoutError(f"the machine was not up after {_BOOT_SECONDS} s")


def _child_of(pid: int) -> int | None:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return None
    return int(children[0]) if children else None


def _stop(nspawn: subprocess.Popen[bytes]) -> None:
    """End the machine at once; nspawn itself is left to clean up after it."""
    if nspawn.poll() is None and (leader := _child_of(nspawn.pid)):
        os.kill(leader, signal.SIGKILL)
    else:
        nspawn.terminate()
    try:
        nspawn.wait(10)
    except subprocess.TimeoutExpired:
        nspawn.kill()
        nspawn.wait()


def _remove_cgroup(cgroup: Path) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            for directory, _, _ in os.walk(cgroup, topdown=False):
                os.rmdir(directory)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # its last processes are still ending


# The layout of an AKS node

UNIT_PATH = "/etc/systemd/system/kubelet.service"
DROPIN_DIRECTORY = "/etc/systemd/system/kubelet.service.d"
ENVIRONMENT_PATH = "/etc/default/kubelet"
CONFIG_PATH = "/etc/default/kubeletconfig.json"
KUBELET_PATH = "/opt/bin/kubelet"

UNIT = f"""[Unit]
Description=Kubelet
ConditionPathExists={KUBELET_PATH}

[Service]
Restart=always
RestartSec=2
EnvironmentFile={ENVIRONMENT_PATH}
SuccessExitStatus=143
ExecStartPre=/bin/mkdir -p /var/lib/kubelet
ExecStartPre=-/sbin/iptables -t nat --numeric --list
ExecStart={KUBELET_PATH} \\
        --enable-server \\
        --node-labels="${{KUBELET_NODE_LABELS}}" \\
        --v=2 \\
        --volume-plugin-dir=/etc/kubernetes/volumeplugins \\
        $KUBELET_TLS_BOOTSTRAP_FLAGS \\
        $KUBELET_CONFIG_FILE_FLAGS \\
        $KUBELET_CONTAINERD_FLAGS \\
        $KUBELET_CONTAINER_RUNTIME_FLAG \\
        $KUBELET_CGROUP_FLAGS \\
        $KUBELET_FLAGS

[Install]
WantedBy=multi-user.target
"""

ENVIRONMENT = """KUBELET_FLAGS=--address=0.0.0.0 --max-pods=110 --make-iptables-util-chains=true --rotate-certificates
KUBELET_REGISTER_SCHEDULABLE=true
NETWORK_POLICY=
KUBELET_NODE_LABELS=agentpool=nodepool1,kubernetes.azure.com/mode=system

AZURE_ENVIRONMENT_FILEPATH=
"""

DROPINS: Mapping[str, NodeFile] = {
    "10-componentconfig.conf": NodeFile(
        f'[Service]\nEnvironment="KUBELET_CONFIG_FILE_FLAGS=--config {CONFIG_PATH}"\n', 0o600
    ),
    "10-containerd-base-flag.conf": NodeFile(
        "[Service]\n"
        'Environment="KUBELET_CONTAINERD_FLAGS=--runtime-request-timeout=15m '
        '--container-runtime-endpoint=unix:///run/containerd/containerd.sock"\n'
    ),
    "10-tlsbootstrap.conf": NodeFile(
        '[Service]\nEnvironment="KUBELET_TLS_BOOTSTRAP_FLAGS=--kubeconfig /var/lib/kubelet/kubeconfig"\n', 0o600
    ),
}

CONFIG = """{
    "kind": "KubeletConfiguration",
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "authentication": {
        "anonymous": {
            "enabled": false
        }
    },
    "makeIPTablesUtilChains": true
}
"""


def install_aks_node(
    machine: Machine,
    kubelet: str,
    *,
    unit: str = UNIT,
    env: str | None = ENVIRONMENT,
    dropins: Mapping[str, NodeFile | str] = DROPINS,
    config: str | None = CONFIG,
) -> None:
    """Lay out a node as AKS does, with `kubelet` (a script with a shebang) as /opt/bin/kubelet, and reload systemd.

    What an earlier call laid out is removed first, and the kubelet stopped. `dropins` maps a file's name to its
    text; None for `env` or `config` leaves the file out (with `config`, leave out 10-componentconfig.conf too).
    """
    machine.run(["systemctl", "stop", "kubelet.service"])
    machine.check(["rm", "-rf", UNIT_PATH, DROPIN_DIRECTORY, ENVIRONMENT_PATH, CONFIG_PATH, KUBELET_PATH])
    files: dict[str, NodeFile | str] = {UNIT_PATH: unit, KUBELET_PATH: NodeFile(kubelet, 0o755)}
    files |= {f"{DROPIN_DIRECTORY}/{name}": dropin for name, dropin in dropins.items()}
    if env is not None:
        files[ENVIRONMENT_PATH] = NodeFile(env, 0o600)
    if config is not None:
        files[CONFIG_PATH] = NodeFile(config, 0o600)
    machine.write(files)
    machine.check(["systemctl", "daemon-reload"])
    machine.run(["systemctl", "reset-failed", "kubelet.service"])
