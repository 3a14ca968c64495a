"""A real cluster on this machine: etcd, a kube-apiserver with RBAC, and kubelets on booted nodes in a network of their
own. `$KUBE_TOOLS` names a folder with `kube-apiserver` and `kubectl` (any version behind the name, such as
`kubectl-v1.36.3`); without it, or without Debian's etcd-server, the tests that want one are skipped."""

from __future__ import annotations

import base64
import csv
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from tests.support.kubelet import RealNode, real_node
from tests.support.nspawn import CONFIG_PATH, KUBELET_PATH, UNIT_PATH, NodeFile
from tests.support.require import require

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
_KUBECONFIG = "/var/lib/kubelet/kubeconfig"
_CA = "/etc/kubernetes/certs/ca.crt"
_CERTIFICATE, _KEY = "/etc/kubernetes/certs/kubeletserver.crt", "/etc/kubernetes/certs/kubeletserver.key"
_UP_SECONDS = 60


def tool(name: str) -> Path:
    """One of the cluster's programs; else skip, or with REQUIRE_ALL=1 fail."""
    folder = Path(os.environ.get("KUBE_TOOLS") or "/nonexistent")
    found = next(iter(sorted(folder.glob(f"{name}*"))), None) if folder.is_dir() else None
    require(found is not None and os.access(found, os.X_OK), f"KUBE_TOOLS names no folder with {name}")
    assert found is not None
    return found


def require_cluster() -> None:
    """Skip, or with REQUIRE_ALL=1 fail, where a cluster cannot be made here."""
    for program in ("etcd", "jq", "ip"):
        require(shutil.which(program) is not None, f"a real cluster needs {program}")
    for name in ("kube-apiserver", "kubectl"):
        tool(name)


@dataclass(frozen=True, slots=True)
class User:
    """Who may come with a token: its name and groups as the API server knows them."""

    name: str
    groups: tuple[str, ...] = ()


ADMIN = User("admin", ("system:masters",))


@dataclass
class KubeNode:
    """A node of the cluster: a booted machine with a kubelet that has registered itself."""

    name: str
    address: str
    provider_id: str
    real: RealNode
    namespace: Path

    @contextmanager
    def off_the_network(self) -> Iterator[None]:
        """The node without its network."""
        _ip("-n", self.namespace.name, "link", "set", "eth0", "down")
        try:
            yield
        finally:
            _ip("-n", self.namespace.name, "link", "set", "eth0", "up")


@dataclass
class KubeCluster:
    """A running cluster. `bin` is a folder with `kubectl`, for PATH."""

    folder: Path
    bin: Path
    server: str
    authority: trustme.CA
    bridge: str
    network: str
    tokens: Mapping[User, str]
    nodes: dict[str, KubeNode] = field(default_factory=dict)

    @property
    def authority_pem(self) -> str:
        """The certificate of the cluster's authority."""
        return self.authority.cert_pem.bytes().decode()

    def kubeconfig(self, user: User) -> Path:
        """A kubeconfig of this user."""
        path = self.folder / f"{user.name.replace(':', '-')}.kubeconfig"
        path.write_text(json.dumps(self._kubeconfig(self.tokens[user])))
        return path

    def kubectl(self, *words: str, user: User = ADMIN, stdin: str = "") -> str:
        """What kubectl prints for this user; it must succeed."""
        done = subprocess.run(
            [self.bin / "kubectl", f"--kubeconfig={self.kubeconfig(user)}", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def apply(self, manifest: str) -> None:
        """Apply a manifest as the administrator."""
        self.kubectl("apply", "--filename=-", stdin=manifest)

    def _kubeconfig(self, token: str) -> object:
        ca = base64.b64encode(self.authority_pem.encode()).decode()
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.server, "certificate-authority-data": ca}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }

    @contextmanager
    def node(
        self, name: str, kubelet: Path, config: Mapping[str, object], *, own_certificate: bool = False
    ) -> Iterator[KubeNode]:
        """A node with this kubelet and what its config file has beside what it needs to be one of this cluster.

        `own_certificate`: its serving certificate is one that it signed itself. Labels are AKS's.
        """
        number = len(self.nodes) + 2
        address = f"{self.network}.{number}"
        group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/mc_rg"
        scale_set = f"{group}/providers/Microsoft.Compute/virtualMachineScaleSets/set"
        provider_id = f"azure://{scale_set}/virtualMachines/{number}"
        with (
            _namespace(f"{self.bridge}n{number}", self.bridge, f"{address}/24", f"{self.network}.1") as network,
            real_node(kubelet, hostname=name, network=network) as real,
        ):
            node = KubeNode(name, address, provider_id, real, network)
            self._install(node, config, own_certificate)
            self.nodes[name] = node
            real.machine.check(["systemctl", "daemon-reload"])
            real.machine.check(["systemctl", "start", "kubelet.service"])
            self.wait_for(node)
            label = "kubernetes.azure.com/kubelet-serving-ca=" + ("self" if own_certificate else "cluster")
            self.kubectl("label", "node", name, label)
            try:
                yield node
            finally:
                del self.nodes[name]
                self.kubectl("delete", "node", name, "--wait=false")

    def _install(self, node: KubeNode, config: Mapping[str, object], own_certificate: bool) -> None:
        served = self.authority.issue_cert(node.address, node.name)
        user = next(user for user in self.tokens if user.name == f"system:node:{node.name}")
        whole = {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True, "cacheTTL": "1s"},
                "x509": {"clientCAFile": _CA},
            },
            "authorization": {"mode": "Webhook", "webhook": {"cacheAuthorizedTTL": "1s", "cacheUnauthorizedTTL": "1s"}},
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "nodeStatusUpdateFrequency": "2s",
            **config,
        }
        if not own_certificate:
            whole |= {"tlsCertFile": _CERTIFICATE, "tlsPrivateKeyFile": _KEY}
        flags = f"--node-ip={node.address} --hostname-override={node.name} --provider-id={node.provider_id}"
        node.real.machine.write(
            {
                _CA: self.authority_pem,
                _CERTIFICATE: b"".join(blob.bytes() for blob in served.cert_chain_pems).decode(),
                _KEY: NodeFile(served.private_key_pem.bytes().decode(), 0o600),
                _KUBECONFIG: NodeFile(json.dumps(self._kubeconfig(self.tokens[user])), 0o600),
                CONFIG_PATH: NodeFile(json.dumps(whole), 0o600),
                UNIT_PATH: f"[Service]\nRestart=always\nRestartSec=2\n"
                f"ExecStart={KUBELET_PATH} --config={CONFIG_PATH} --kubeconfig={_KUBECONFIG} {flags} --v=2\n",
            }
        )

    def wait_for(self, node: KubeNode) -> None:
        """Wait until a node's kubelet answers."""
        deadline = time.monotonic() + _UP_SECONDS
        path = f"/api/v1/nodes/{node.name}/proxy/configz"
        while time.monotonic() < deadline:
            done = subprocess.run(
                [self.bin / "kubectl", f"--kubeconfig={self.kubeconfig(ADMIN)}", "get", "--raw", path],
                capture_output=True,
                timeout=60,
                check=False,
            )
            if done.returncode == 0:
                return
            time.sleep(0.2)
        log = node.real.machine.run("journalctl --unit=kubelet.service --no-pager | tail -n 5").stdout
        raise AssertionError(f"{node.name} did not come up: {done.stderr!r}\n{log}")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def _namespace(name: str, bridge: str, address: str, gateway: str) -> Iterator[Path]:
    """A network namespace on the bridge."""
    _ip("netns", "add", name)
    try:
        _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", name, "master", bridge, "up")
        _ip("-n", name, "address", "add", address, "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")
        _ip("-n", name, "route", "add", "default", "via", gateway)
        yield Path("/run/netns") / name
    finally:
        _ip("netns", "delete", name)


@contextmanager
def _bridge(name: str, address: str) -> Iterator[None]:
    _ip("link", "add", name, "type", "bridge")
    try:
        _ip("address", "add", address, "dev", name)
        _ip("link", "set", name, "up")
        yield
    finally:
        _ip("link", "delete", name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _running(*argv: str | Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    # Should this process die, they end too.
    with log.open("wb") as out:
        process = subprocess.Popen(["setpriv", "--pdeathsig=KILL", "--", *argv], stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def kube_cluster(*users: User, nodes: tuple[str, ...] = ()) -> Iterator[KubeCluster]:
    """A cluster without nodes; `nodes` are the names that nodes may register with."""
    require_cluster()
    everyone = [ADMIN, *users, *(User(f"system:node:{name}", ("system:nodes",)) for name in nodes)]
    tokens = {user: f"token-{number:02d}-{os.urandom(8).hex()}" for number, user in enumerate(everyone)}
    # One of each test process; the kernel's names of devices have 15 characters.
    bridge, network = f"kg{os.getpid()}", f"10.{64 + os.getpid() // 256 % 64}.{os.getpid() % 256}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kube-")))
        stack.enter_context(_bridge(bridge, f"{network}.1/24"))
        (folder / "bin").mkdir()
        (folder / "bin/kubectl").symlink_to(tool("kubectl"))
        authority = trustme.CA()
        arguments = _secrets(folder, authority, network, tokens)
        client, peer, secure = _free_port(), _free_port(), _free_port()
        stack.enter_context(
            _running(
                *("etcd", f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync"),
                *(
                    f"--listen-client-urls=http://127.0.0.1:{client}",
                    f"--advertise-client-urls=http://127.0.0.1:{client}",
                ),
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                log=folder / "etcd.log",
            )
        )
        server = stack.enter_context(
            _running(
                *(tool("kube-apiserver"), f"--etcd-servers=http://127.0.0.1:{client}", f"--secure-port={secure}"),
                *(f"--advertise-address={network}.1", "--authorization-mode=Node,RBAC", *arguments),
                *("--service-account-issuer=https://cluster.test", "--service-cluster-ip-range=10.96.0.0/24"),
                *("--enable-admission-plugins=NodeRestriction", "--kubelet-preferred-address-types=InternalIP"),
                log=folder / "kube-apiserver.log",
            )
        )
        found = KubeCluster(folder, folder / "bin", f"https://{network}.1:{secure}", authority, bridge, network, tokens)
        _wait_until_ready(found, server)
        yield found


def _secrets(folder: Path, authority: trustme.CA, network: str, tokens: Mapping[User, str]) -> list[str]:
    """Write the API server's certificates, keys and tokens; the flags that name them."""
    served = authority.issue_cert(f"{network}.1", "127.0.0.1", "kubernetes.default.svc")
    client = authority.issue_cert("kubelet-client", common_name="kubelet-client", organization_name="system:masters")
    signer = authority.issue_cert("service-accounts")
    for name, certificate in {"served": served, "client": client, "signer": signer}.items():
        (folder / f"{name}.crt").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        (folder / f"{name}.key").write_bytes(certificate.private_key_pem.bytes())
    (folder / "ca.crt").write_bytes(authority.cert_pem.bytes())
    with (folder / "tokens.csv").open("w", newline="") as file:
        rows = ((token, user.name, user.name, ",".join(user.groups)) for user, token in tokens.items())
        csv.writer(file).writerows(rows)
    names = {
        "tls-cert-file": "served.crt",
        "tls-private-key-file": "served.key",
        "client-ca-file": "ca.crt",
        "kubelet-client-certificate": "client.crt",
        "kubelet-client-key": "client.key",
        "service-account-key-file": "signer.key",
        "service-account-signing-key-file": "signer.key",
        "token-auth-file": "tokens.csv",
    }
    return [f"--{flag}={folder / name}" for flag, name in names.items()]


def _wait_until_ready(cluster: KubeCluster, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _UP_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        done = subprocess.run(
            [cluster.bin / "kubectl", f"--kubeconfig={cluster.kubeconfig(ADMIN)}", "get", "--raw", "/readyz"],
            capture_output=True,
            timeout=60,
            check=False,
        )
        if done.stdout == b"ok":
            return
        time.sleep(0.2)
    raise AssertionError(f"no API server: {(cluster.folder / 'kube-apiserver.log').read_text()[-3000:]}")
