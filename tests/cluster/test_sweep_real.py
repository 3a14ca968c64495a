"""The sweep on a real cluster: a kube-apiserver with RBAC, real kubelets of three minors on booted nodes, and the
script as Azure would run it, by an identity that has exactly the role that `infra/` has a manifest for."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest
from azure.core.credentials import AccessToken
from azure.core.credentials_async import AsyncTokenCredential
from azure.identity.aio import ManagedIdentityCredential

import sandbox
from shared.azure import Azure, Invoked, Pending
from shared.clouds import CLUSTER_SCOPE
from shared.cluster import Sweep, Way, parse_sweep, sweep_script
from shared.models import Problem
from shared.settings import Settings
from tests.support import fleets
from tests.support.bicep import INFRA
from tests.support.kube import ADMIN, KubeCluster, KubeNode, User, kube_cluster, require_cluster
from tests.support.kubelet import kubelet_binaries, require_kubelet, version_of
from tests.support.require import require

NONCE = "0123456789abcdef"
SETTINGS = (
    "authentication.anonymous.enabled",
    "authentication.x509.clientCAFile",
    "authorization.mode",
    "eventRecordQPS",
    "featureGates",
    "makeIPTablesUtilChains",
    "protectKernelDefaults",
    "readOnlyPort",
    "rotateCertificates",
    "serverTLSBootstrap",
    "streamingConnectionIdleTimeout",
    "tlsCertFile",
    "tlsPrivateKeyFile",
)
SECRETS = {
    "staticPodURL": "http://127.0.0.1:9/pods?sig=CANARY-URL",
    "staticPodURLHeader": {"Authorization": ["CANARY-HEADER"]},
}
DIRECT, PROXY, NOBODY, IN_A_POD = (User(f"0d4f9a3e-58d4-4a57-8b1c-{name}") for name in ("d", "p", "n", "i"))
NOT_KNOWN = User("not-known")
EVERYONE = (DIRECT, PROXY, NOBODY, IN_A_POD)


Ask = Callable[..., Awaitable[Sweep | Problem]]


@dataclass
class Said:
    """What the script printed, and what the product makes of it."""

    text: str
    sweep: Sweep

    @property
    def codes(self) -> dict[str, str]:
        """Every node's trouble; empty where it was heard."""
        return {name: node.trouble.code if node.trouble else "" for name, node in self.sweep.nodes.items()}


@pytest.fixture(scope="module")
def cluster() -> Iterator[KubeCluster]:
    """Three nodes, one of each kubelet there is, the role of the sweep given to one identity and the other to one."""
    require_cluster()
    binaries = sorted(require_kubelet(), key=lambda path: [int(part) for part in version_of(path).split(".")])
    binaries = [binaries[0], *binaries[-2:]] if len(binaries) > 2 else (binaries * 3)[:3]
    names = ("aks-a", "aks-b", "aks-c", "aks-own")
    with kube_cluster(*EVERYONE, nodes=names) as made, ExitStack() as nodes:
        for user, manifest in ((DIRECT, "sweep-rbac.yaml"), (PROXY, "sweep-rbac-proxy.yaml")):
            made.apply((INFRA / manifest).read_text().replace("IDENTITY_OBJECT_ID", user.name))
        for name, binary in zip(names, binaries, strict=False):
            wrong = name == "aks-c"
            config = {
                **SECRETS,
                "makeIPTablesUtilChains": not wrong,
                "featureGates": {"RotateKubeletServerCertificate": not wrong},
            }
            nodes.enter_context(made.node(name, binary, config))
        yield made


def run(
    cluster: KubeCluster,
    way: Way,
    user: User = DIRECT,
    *,
    nodes: Sequence[str] | None = None,
    shell: Sequence[str] = ("/bin/sh", "-c"),
    path: str = "",
    environment: Mapping[str, str] | None = None,
    **more: int | str,
) -> Said:
    """Run the script as the pod of a command would, by the credentials of this user."""
    script = sweep_script(SETTINGS, way, NONCE, nodes=nodes, **{"seconds": 2, **more})  # type: ignore[arg-type]
    given = {"KUBECONFIG": str(cluster.kubeconfig(user))} if environment is None else environment
    search = f"{path}{cluster.bin}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*shell, script], capture_output=True, timeout=120, check=True, env={"PATH": search, **given}, cwd="/"
    )
    text = (done.stdout + done.stderr).decode()
    return Said(text, parse_sweep(text, NONCE, SETTINGS, way, nodes=nodes, seconds=2))


def configz(cluster: KubeCluster, name: str) -> dict[str, object]:
    """What a kubelet says of itself to the administrator."""
    found = json.loads(cluster.kubectl("get", "--raw", f"/api/v1/nodes/{name}/proxy/configz"))["kubeletconfig"]
    assert isinstance(found, dict)
    return found


def at(config: Mapping[str, object], path: str) -> object:
    """A setting of it; None where it is absent."""
    found: object = config
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


@pytest.mark.parametrize("way", ["direct", "proxy"])
def test_the_kubelets_own_word_and_nothing_else_of_it(cluster: KubeCluster, way: Way) -> None:
    said = run(cluster, way, DIRECT if way == "direct" else PROXY)
    assert (said.sweep.problem, said.sweep.listed, said.sweep.left) == (None, 3, 0)
    assert said.codes == {"aks-a": "", "aks-b": "", "aks-c": ""}, said.text
    for name, node in said.sweep.nodes.items():
        config = configz(cluster, name)
        expected = {setting: value for setting in SETTINGS if (value := at(config, setting)) is not None}
        assert node.values == expected
        assert expected["makeIPTablesUtilChains"] is (name != "aks-c")
        assert node.resource_id == cluster.nodes[name].provider_id.removeprefix("azure://").lower()
        assert node.version == f"v{cluster.nodes[name].real.version}"
        assert node.boot_id == cluster.nodes[name].real.machine.read("/proc/sys/kernel/random/boot_id").strip()
        assert (node.ready, node.os) == (False, "linux"), "without a network plugin no node gets ready"
        assert node.since is not None
        assert "CANARY-URL" in json.dumps(config), "the kubelet shows its secrets to whoever may ask"
        assert "CANARY-HEADER" in json.dumps(config)
    assert "CANARY" not in said.text
    assert "staticPod" not in said.text


def test_the_role_is_for_this_and_nothing_else(cluster: KubeCluster) -> None:
    rights = cluster.kubectl("auth", "can-i", "--list", "--no-headers", user=DIRECT)
    own = {line.split()[0]: line.split()[-1] for line in rights.splitlines() if not line.lstrip().startswith("[")}
    # What every user may: ask for its own rights, and who it is.
    assert {name for name in own if not name.startswith("self")} == {"nodes"}
    assert own["nodes"] == "[list]"
    token = cluster.kubectl("create", "token", "configz", "--namespace=kubelet-guard", user=DIRECT).strip()
    for node in cluster.nodes.values():
        answers = {path: ask(cluster, node, token, path) for path in ("/configz", "/pods", "/metrics", "/logs/", "/")}
        assert answers.pop("/configz") == 200
        assert set(answers.values()) <= {403, 404}, answers


def ask(cluster: KubeCluster, node: KubeNode, token: str, path: str) -> int:
    """What a kubelet answers to a token: the status."""
    url = f"https://{node.address}:10250{path}"
    words = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", str(cluster.folder / "ca.crt"))
    done = subprocess.run([*words, "-H", f"Authorization: Bearer {token}", url], capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.parametrize("way", ["direct", "proxy"])
def test_nodes_that_do_not_answer_hold_up_nobody(cluster: KubeCluster, way: Way) -> None:
    user = DIRECT if way == "direct" else PROXY
    down, frozen, away = (cluster.nodes[name] for name in ("aks-a", "aks-b", "aks-c"))
    down.real.machine.check(["systemctl", "stop", "kubelet.service"])
    frozen.real.signal("STOP")
    try:
        said = run(cluster, way, user)
        assert said.codes == {"aks-a": "configz_refused", "aks-b": "configz_timeout", "aks-c": ""}
        assert said.sweep.nodes["aks-c"].values["makeIPTablesUtilChains"] is False
        with away.off_the_network():
            said = run(cluster, way, user, nodes=["aks-a", "aks-b", "aks-c", "gone"])
        assert said.codes == {
            "aks-a": "configz_refused",
            "aks-b": "configz_timeout",
            "aks-c": "configz_timeout",
            "gone": "configz_unknown_node",
        }
        assert all(node.boot_id for node in said.sweep.nodes.values() if node.name != "gone")
        one_by_one = run(cluster, way, user, width=1, budget=0)
        assert set(one_by_one.codes.values()) == {"configz_not_asked"}
    finally:
        frozen.real.signal("CONT")
        down.real.machine.check(["systemctl", "start", "kubelet.service"])
        cluster.wait_for(down)


def test_they_are_asked_side_by_side(cluster: KubeCluster, tmp_path: Path) -> None:
    """A kubectl that asks no kubelet before three of them want to."""
    (tmp_path / "waiting").mkdir()
    (tmp_path / "kubectl").write_text(
        textwrap.dedent(
            f"""\
            #!/bin/sh
            case $* in
            *configz*)
                mktemp {tmp_path}/waiting/XXXXXX >/dev/null
                i=0
                while [ "$(ls {tmp_path}/waiting | wc -l)" -lt 3 ]; do
                    i=$((i + 1))
                    [ $i -lt 300 ] || exit 1
                    sleep 0.1
                done
                ;;
            esac
            exec {cluster.bin}/kubectl "$@"
            """
        )
    )
    (tmp_path / "kubectl").chmod(0o755)
    assert set(run(cluster, "proxy", PROXY, path=f"{tmp_path}{os.pathsep}").codes.values()) == {""}


def test_a_node_that_is_back_is_heard_again(cluster: KubeCluster) -> None:
    assert set(run(cluster, "direct").codes.values()) == {""}


@pytest.mark.parametrize(
    ("way", "user", "code", "of_all"),
    [
        ("direct", NOBODY, "sweep_list_forbidden", False),
        ("proxy", NOBODY, "sweep_list_forbidden", False),
        ("direct", PROXY, "sweep_token_forbidden", True),
        ("proxy", DIRECT, "configz_forbidden", True),
    ],
)
def test_a_role_that_is_missing_is_named(cluster: KubeCluster, way: Way, user: User, code: str, of_all: bool) -> None:
    said = run(cluster, way, user)
    assert said.codes == (dict.fromkeys(cluster.nodes, code) if of_all else {})
    if code.startswith("sweep"):
        assert said.sweep.problem is not None
        assert said.sweep.problem.code == code
        assert "sweep-rbac.yaml" in said.sweep.problem.hint


def test_a_service_account_without_its_role_or_that_is_not_there(cluster: KubeCluster) -> None:
    # On a cluster without Entra ID the pod is an administrator: it may make the token of an account of no rights.
    said = run(cluster, "direct", ADMIN, account="default/gone")
    assert set(said.codes.values()) == {"sweep_token_not_found"}
    cluster.kubectl("create", "serviceaccount", "powerless", "--namespace=default")
    said = run(cluster, "direct", ADMIN, account="default/powerless")
    assert set(said.codes.values()) == {"configz_forbidden"}
    assert all("nodes/configz" in node.trouble.reason for node in said.sweep.nodes.values() if node.trouble)
    assert set(run(cluster, "direct", ADMIN).codes.values()) == {""}


def test_a_part_at_a_time(cluster: KubeCluster) -> None:
    first = run(cluster, "direct", most=2).sweep
    assert (sorted(first.nodes), first.left, first.listed) == (["aks-a", "aks-b"], 1, 3)
    rest = run(cluster, "direct", most=2, after=first.last).sweep
    assert (sorted(rest.nodes), rest.left) == (["aks-c"], 0)


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_any_shell_and_its_tools(cluster: KubeCluster, shell: str, tmp_path: Path) -> None:
    """The base of AKS's image is not published: GNU's tools or busybox's."""
    require(shutil.which(shell) is not None, f"{shell} is not installed")
    path = ""
    words = [str(shutil.which(shell)), "-c"]
    if shell == "busybox":
        tools = tmp_path / "busybox"
        tools.mkdir()
        for name in (
            "sh",
            "xargs",
            "awk",
            "head",
            "sort",
            "wc",
            "date",
            "sha256sum",
            "base64",
            "mktemp",
            "cat",
            "rm",
            "true",
        ):
            (tools / name).symlink_to(str(shutil.which("busybox")))
        path, words = f"{tools}{os.pathsep}", [str(tools / "sh"), "-c"]
    assert set(run(cluster, "direct", shell=words, path=path).codes.values()) == {""}


def test_an_xargs_that_knows_no_width_and_a_pod_that_lacks_a_tool(cluster: KubeCluster, tmp_path: Path) -> None:
    (tmp_path / "xargs").write_text(
        f'#!/bin/sh\ncase "$*" in *-P*) exit 1 ;; esac\nexec {shutil.which("xargs")} "$@"\n'
    )
    (tmp_path / "xargs").chmod(0o755)
    assert set(run(cluster, "direct", path=f"{tmp_path}{os.pathsep}").codes.values()) == {""}
    tools = tmp_path / "few"
    tools.mkdir()
    for name in ("sh", "cat"):
        (tools / name).symlink_to(str(shutil.which(name)))
    script = sweep_script(SETTINGS, "direct", NONCE)
    done = subprocess.run(
        [tools / "sh", "-c", script], capture_output=True, text=True, check=True, env={"PATH": str(tools)}
    )
    found = parse_sweep(done.stdout, NONCE, SETTINGS, "direct")
    assert found.problem is not None
    assert found.problem.code == "sweep_missing_tools"
    assert "kubectl, jq" in found.problem.reason


def test_a_certificate_of_the_nodes_own_gets_no_token(cluster: KubeCluster) -> None:
    with cluster.node("aks-own", kubelet_binaries()[-1], {}, own_certificate=True) as node:
        assert run(cluster, "direct", nodes=[node.name]).codes == {node.name: "configz_own_certificate"}
        assert run(cluster, "proxy", PROXY, nodes=[node.name]).codes == {node.name: ""}
        # A label that says otherwise does not help: the certificate itself is looked at.
        cluster.kubectl("label", "node", node.name, "--overwrite", "kubernetes.azure.com/kubelet-serving-ca=cluster")
        assert run(cluster, "direct", nodes=[node.name]).codes == {node.name: "configz_certificate"}


HOSTILE = textwrap.dedent(
    """
    import http.server, json, ssl, sys
    certificate, key, heard, answer = sys.argv[1:]
    class Kubelet(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            open(heard, "a").write(json.dumps([self.path, dict(self.headers)]) + "\\n")
            body = open(answer, "rb").read()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 10250), Kubelet)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
    """
)


@contextmanager
def hostile(cluster: KubeCluster, node: KubeNode, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Somebody else in the kubelet's place, with a good certificate: files of what he hears, and of what he answers."""
    served = cluster.authority.issue_cert(node.address)
    certificate, key, heard, answer = (folder / name for name in ("crt", "key", "heard", "answer"))
    certificate.write_bytes(b"".join(blob.bytes() for blob in served.cert_chain_pems))
    key.write_bytes(served.private_key_pem.bytes())
    answer.write_bytes(b"")
    node.real.machine.check(["systemctl", "stop", "kubelet.service"])
    inside = ["ip", "netns", "exec", node.namespace.name, sys.executable, "-c", HOSTILE]
    server = subprocess.Popen([*inside, *map(str, (certificate, key, heard, answer))], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not heard.exists() and time.monotonic() < deadline:
            url = f"https://{node.address}:10250/up"
            subprocess.run(["curl", "-s", "--cacert", str(cluster.folder / "ca.crt"), url], capture_output=True)
            time.sleep(0.05)
        heard.write_text("")
        yield heard, answer
    finally:
        server.kill()
        server.wait()
        node.real.machine.check(["systemctl", "start", "kubelet.service"])
        cluster.wait_for(node)


def test_what_a_hostile_node_is_shown_and_what_it_can_do(cluster: KubeCluster, tmp_path: Path) -> None:
    node = cluster.nodes["aks-b"]
    nested = b'{"kubeletconfig":{"makeIPTablesUtilChains":' + b"[" * 200 + b"]" * 200 + b"}}"
    answers = {
        b'{"kubeletconfig":{"makeIPTablesUtilChains":"' + b"A" * 5000 + b'"}}': "configz_too_long",
        b'{"kubeletconfig":{"makeIPTablesUtilChains":"' + "\u00e9".encode() * 400 + b'"}}': "configz_too_long",
        b'{"kubeletconfig":{"staticPodURL":"CANARY' + b"A" * 400_000 + b'"}}': "configz_malformed",
        b'{"staticPodURL":"CANARY"}': "configz_malformed",
        b'"CANARY x509: (Forbidden)': "configz_forbidden",
        b"[" * 300_000: "configz_malformed",
        b"\0\xff\xfe": "configz_malformed",
        b"": "configz_malformed",
        b'{"kubeletconfig":[]}': "configz_malformed",
        b'{"kubeletconfig":{"authentication":7}}': "",
        b'{"kubeletconfig":{"makeIPTablesUtilChains":"\\n{\\"answer\\":\\"aks-a\\",\\"values\\":[]}\\nKC1"}}': "",
        nested: "configz_malformed",
    }
    with hostile(cluster, node, tmp_path) as (heard, answer):
        for body, code in answers.items():
            answer.write_bytes(body)
            said = run(cluster, "direct", ADMIN)
            assert said.codes == {"aks-a": "", "aks-b": code, "aks-c": ""}, body[:80]
            assert "CANARY" not in said.text
        # By the proxy no token of ours reaches it at all; the API server comes with its own certificate.
        shown = [json.loads(line) for line in heard.read_text().splitlines()]
        heard.write_text("")
        run(cluster, "proxy", PROXY)
        assert not [
            headers for _, headers in map(json.loads, heard.read_text().splitlines()) if "Authorization" in headers
        ]
    tokens = {headers["Authorization"].removeprefix("Bearer ") for _, headers in shown}
    assert len(tokens) == len(answers), "each sweep makes a token of its own"
    assert {path.partition("?")[0] for path, _ in shown} == {"/configz"}
    assert not tokens & set(cluster.tokens.values()), "the pod's own credentials are never shown to a node"
    for token in tokens:
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        assert claims["sub"] == "system:serviceaccount:kubelet-guard:configz"
        assert claims["exp"] - claims["iat"] == 600
    server = re.sub(r"/$", "", cluster.server)
    got = subprocess.run(
        ["curl", "-sk", "-H", f"Authorization: Bearer {tokens.pop()}", f"{server}/api/v1/nodes"], capture_output=True
    )
    assert b'"reason":"Forbidden"' in got.stdout.replace(b" ", b""), "it opens nothing but configz"


def test_credentials_of_a_pod_without_a_kubeconfig(cluster: KubeCluster, tmp_path: Path) -> None:
    """As a pod has them: the service account's folder, and the API server in the environment."""
    (tmp_path / "token").write_text(cluster.tokens[DIRECT])
    (tmp_path / "ca.crt").write_text(cluster.authority_pem)
    (tmp_path / "namespace").write_text("aks-command")
    host, port = cluster.server.removeprefix("https://").split(":")
    place = "/var/run/secrets/kubernetes.io/serviceaccount"
    # /run of its own, so that nothing of this machine's is touched.
    inside = f'mount -t tmpfs none /run && mkdir -p {place} && cp {tmp_path}/* {place}/ && exec /bin/sh -c "$0"'
    said = run(
        cluster,
        "direct",
        shell=("unshare", "--mount", "/bin/sh", "-c", inside),
        environment={"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, "HOME": "/nonexistent"},
    )
    assert said.codes == {"aks-a": "", "aks-b": "", "aks-c": ""}, said.text


async def test_the_whole_way_by_resource_manager(cluster: KubeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The product's client, command invoke, and the real cluster behind it."""
    real = f"kubeconfig: {cluster.kubeconfig(DIRECT)}, kubectl: {cluster.bin}, "
    async with sandbox.serve(fleets.fleet("no_kubelet", cluster=real)) as box:
        for name, value in box.environ.items():
            monkeypatch.setenv(name, value)
        async with Azure(Settings(arm_endpoint=box.endpoint)) as client:
            (found,) = await client.clusters(fleets.SUBSCRIPTION)
            state: Pending | None = None
            outcome: Pending | Invoked | object = None
            while True:
                if state is not None and state.url:
                    outcome = await client.look_in_cluster(found, state)
                else:
                    script = sweep_script(SETTINGS, "direct", NONCE)
                    outcome = await client.start_in_cluster(found, script, state, 0.1)
                if not isinstance(outcome, Pending):
                    break
                state = outcome
                await asyncio.sleep(max(0.0, (state.due - datetime.now(UTC)).total_seconds()))
            assert isinstance(outcome, Invoked), outcome
    sweep = parse_sweep(outcome.logs, NONCE, SETTINGS, "direct")
    assert {name: node.values["makeIPTablesUtilChains"] for name, node in sweep.nodes.items()} == {
        "aks-a": True,
        "aks-b": True,
        "aks-c": False,
    }


@dataclass
class _Credential:
    """A credential of an identity: its token for the cluster, and another's for everything else."""

    token: str
    other: AsyncTokenCredential

    async def get_token(self, *scopes: str, **more: Any) -> AccessToken:
        if scopes == (CLUSTER_SCOPE,):
            return AccessToken(self.token, int(time.time()) + 3600)
        return await self.other.get_token(*scopes, **more)

    async def close(self) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


@asynccontextmanager
async def from_outside(cluster: KubeCluster, user: User, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ask]:
    """The product's client as this identity, and the cluster as Azure would show it; what the API server tells it."""
    host = cluster.server.removeprefix("https://").rpartition(":")[0]
    real = f"kubeconfig: {cluster.kubeconfig(ADMIN)}, fqdn: '{host}', "
    async with sandbox.serve(fleets.fleet("no_kubelet", cluster=real)) as box:
        for name, value in box.environ.items():
            monkeypatch.setenv(name, value)
        async with (
            ManagedIdentityCredential() as other,
            Azure(Settings(arm_endpoint=box.endpoint), _Credential(cluster.tokens[user], other)) as client,
        ):
            (found,) = await client.clusters(fleets.SUBSCRIPTION)

            async def ask(settings: Sequence[str] = SETTINGS, **more: Any) -> Sweep | Problem:
                told = await client.ask_api_server(found, settings, None, **more)
                assert not isinstance(told, Pending)
                return told

            yield ask


async def heard_from_outside(ask: Ask, **more: Any) -> Sweep:
    found = await ask(**more)
    assert isinstance(found, Sweep), found
    return found


async def test_the_app_itself_asks_the_api_server(
    cluster: KubeCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    within = run(cluster, "proxy", PROXY).sweep
    async with from_outside(cluster, PROXY, monkeypatch) as ask:
        found = await heard_from_outside(ask)
        named = await heard_from_outside(ask, nodes=["aks-b", "gone"])
    assert (found.listed, found.left, found.problem) == (3, 0, None)
    assert found.nodes == within.nodes, "word for word what the script in the cluster tells"
    assert all(node.values for node in found.nodes.values())
    assert Said("", named).codes == {"aks-b": "", "gone": "configz_unknown_node"}
    assert "CANARY" in cluster.kubectl("get", "--raw", "/api/v1/nodes/aks-a/proxy/configz")
    assert "CANARY" not in f"{found} {caplog.text}"
    assert cluster.tokens[PROXY] not in f"{found} {caplog.text}"


async def test_nodes_that_do_not_answer_the_app_hold_up_nobody(
    cluster: KubeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    down, frozen, away = (cluster.nodes[name] for name in ("aks-a", "aks-b", "aks-c"))
    async with from_outside(cluster, PROXY, monkeypatch) as ask:
        down.real.machine.check(["systemctl", "stop", "kubelet.service"])
        frozen.real.signal("STOP")
        try:
            found = await heard_from_outside(ask)
            assert Said("", found).codes == {"aks-a": "configz_refused", "aks-b": "configz_timeout", "aks-c": ""}
            with away.off_the_network():
                found = await heard_from_outside(ask)
            assert Said("", found).codes["aks-c"] == "configz_timeout"
        finally:
            frozen.real.signal("CONT")
            down.real.machine.check(["systemctl", "start", "kubelet.service"])
            cluster.wait_for(down)


async def test_a_role_of_the_apps_that_is_missing_is_named(
    cluster: KubeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with from_outside(cluster, NOBODY, monkeypatch) as ask:
        refused = await ask()
    assert isinstance(refused, Problem)
    assert refused.code == "sweep_list_forbidden"
    assert "sweep-rbac-proxy.yaml" in refused.hint
    async with from_outside(cluster, DIRECT, monkeypatch) as ask:
        found = await heard_from_outside(ask)
        assert set(Said("", found).codes.values()) == {"configz_forbidden"}
        # To list pods is a right of its own; without it only Ready is known.
        found = await heard_from_outside(ask, settings=(), nodes=["aks-a"], pods=True)
        assert found.nodes["aks-a"].failing is None
    unknown = replace(cluster, tokens={**cluster.tokens, NOT_KNOWN: "no-token-of-this-cluster"})
    async with from_outside(unknown, NOT_KNOWN, monkeypatch) as ask:
        refused = await ask()
    assert isinstance(refused, Problem)
    assert refused.code == "sweep_list_unauthorized"


async def test_pods_are_counted_with_the_role_for_it(cluster: KubeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.apply((INFRA / "sweep-pods-rbac.yaml").read_text().replace("IDENTITY_OBJECT_ID", PROXY.name))
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stuck", "namespace": "default"},
        "spec": {
            "nodeName": "aks-a",
            "automountServiceAccountToken": False,
            "containers": [{"name": "c", "image": "x"}],
        },
    }
    # Nothing here makes a namespace its service account, which every pod has to have.
    cluster.kubectl("create", "serviceaccount", "default", "--namespace=default")
    cluster.apply(json.dumps(pod))
    async with from_outside(cluster, PROXY, monkeypatch) as ask:
        found = await heard_from_outside(ask, settings=(), nodes=["aks-a", "aks-c"], pods=True)
    assert {name: node.failing for name, node in found.nodes.items()} == {"aks-a": 1, "aks-c": 0}
    cluster.kubectl("delete", "pod", "stuck", "--namespace=default", "--force", "--grace-period=0")
