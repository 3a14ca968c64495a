"""All of section 3 on a booted node with a real kubelet: each control failing, fixed at once, and passing.

The node belongs to a cluster of a few lines: an API server that knows every token and allows everything, so that the
kubelet answers configz also where it lets nobody in by itself.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from shared.controls import builtin, control, judge_all
from shared.models import Status
from shared.node.fixing import ApplyOutcome, Report, apply_script, parse_report
from shared.runs.model.plans import plan_node
from tests.support.findings import node as an_azure_node
from tests.support.kubelet import RealNode, State, collect, kubelet_binaries, real_node, require_kubelet, version_of
from tests.support.nspawn import CONFIG_PATH, KUBELET_PATH

KUBECONFIG = "/var/lib/kubelet/kubeconfig"
AZURE_JSON = "/etc/kubernetes/azure.json"
CLIENT_CA = "/etc/kubernetes/certs/ca.crt"
CANARY = "c4n4ry-s3cret"
NONCE = "0123456789abcdef"
ALL = tuple(builtin().controls)

API_SERVER = """
import http.server, json
SOMEBODY = {"authenticated": True, "user": {"username": "test"}}
STATUS = {"tokenreviews": SOMEBODY, "subjectaccessreviews": {"allowed": True}}
class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        group, version, name = (["", ""] + self.path.partition("?")[0].strip("/").split("/"))[-3:]
        known = STATUS.get(name) if self.command == "POST" else None
        kind = {"tokenreviews": "TokenReview", "subjectaccessreviews": "SubjectAccessReview"}.get(name, "Status")
        answer = {"kind": kind, "apiVersion": f"{group}/{version}" if known else "v1", "metadata": {}}
        answer |= {"spec": {}, "status": known} if known else {"status": "Failure", "reason": "NotFound", "code": 404}
        body = json.dumps(answer).encode()
        self.send_response(201 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_PUT = do_PATCH = do_GET
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 6443), Api).serve_forever()
"""
CLUSTER = f"""
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:6443"}}}}]
users: [{{name: u, user: {{token: {CANARY}}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""
WRONG = {
    "kind": "KubeletConfiguration",
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "readOnlyPort": 10255,
    "eventRecordQPS": 3,
    "makeIPTablesUtilChains": False,
    "rotateCertificates": False,
    "featureGates": {"RotateKubeletServerCertificate": False},
}
# Anonymous requests and AlwaysAllow are what every kubelet of these tests is given.
FAILING = State(
    {
        CONFIG_PATH: json.dumps(WRONG, indent=2),
        KUBECONFIG: CLUSTER,
        AZURE_JSON: f'{{"aadClientSecret": "{CANARY}"}}',
        "/opt/api.py": API_SERVER,
    },
    exec_start=(
        f"{KUBELET_PATH} --config={CONFIG_PATH} --kubeconfig {KUBECONFIG} --register-node=false"
        " --authentication-token-webhook=true $KUBELET_FLAGS"
    ),
    environment="KUBELET_FLAGS=--streaming-connection-idle-timeout=0 --v=2\n",
    before=(
        f"chmod 666 {KUBECONFIG}; chmod 664 {AZURE_JSON}; chown 1000:1000 {KUBECONFIG} {AZURE_JSON}",
        "systemd-run --quiet --unit=api python3 /opt/api.py",
    ),
)


def _kubelets() -> list[object]:
    """All that there are; the newest also where nothing slow is run."""
    newest = max(kubelet_binaries(), key=lambda path: int(version_of(path).split(".")[1]), default=None)
    found = [
        pytest.param(path, id=version_of(path), marks=[] if path == newest else [pytest.mark.slow])
        for path in kubelet_binaries()
    ]
    return [*found] or [None]


@pytest.fixture(params=_kubelets())
def node(request: pytest.FixtureRequest) -> Iterator[RealNode]:
    require_kubelet()
    path: Path = request.param
    with real_node(path) as booted:
        yield booted


def in_effect(node: RealNode) -> dict[str, object]:
    """What the kubelet itself says of the settings of all controls; of a gate that it does not name, that it is on."""
    for _ in range(100):
        asked = "curl -sk -m 5 -H 'Authorization: Bearer any' https://127.0.0.1:10250/configz"
        answer = node.machine.run(asked).stdout
        if answer.startswith("{"):
            break
        time.sleep(0.1)
    values = json.loads(answer)["kubeletconfig"]
    found: dict[str, object] = {}
    for each in builtin().controls.values():
        if each.setting:
            at: object = values
            for key in each.setting.split("."):
                at = at.get(key) if isinstance(at, Mapping) else None
            found[each.id] = at
    return found


def apply(node: RealNode, script: str) -> Report:
    done = node.machine.execute(["/bin/sh", "-s"], stdin=script.encode(), timeout=280)
    return parse_report(done.stderr.decode(), NONCE)


def test_all_thirteen_fail_are_fixed_and_pass(node: RealNode) -> None:
    node.lay_out(FAILING)
    node.start()
    wrong = in_effect(node)
    assert wrong == {
        "3.2.1": True,
        "3.2.2": "AlwaysAllow",
        "3.2.3": None,
        "3.2.4": 10255,
        "3.2.5": "0s",
        "3.2.6": False,
        "3.2.7": 3,
        "3.2.8": None,  # false is left out
        "3.2.9": False,
    }
    seen, sent = collect(node)
    verdicts = judge_all([control(name) for name in ALL], seen)
    assert {name: each.status for name, each in verdicts.items()} == dict.fromkeys(ALL, Status.FAIL), verdicts
    assert {name: verdicts[name].actual for name in wrong} == {**wrong, "3.2.3": "", "3.2.8": False}
    assert [verdicts[name].actual for name in ALL[:4]] == ["666", "1000:1000", "664", "1000:1000"]

    plan = plan_node(an_azure_node(1), ALL, seen, "auto")
    assert (plan.controls, list(plan.left)) == (tuple(name for name in ALL if name != "3.2.3"), ["3.2.3"])
    script = apply_script(
        plan.edits,
        modes=plan.modes,
        restart=plan.restart,
        present=plan.present,
        absent=plan.absent,
        settle_seconds=2,
        limit_seconds=60,
        nonce=NONCE,
        healthz=plan.healthz,
    )
    report = apply(node, script)
    assert report.outcome is ApplyOutcome.APPLIED, report
    assert apply(node, script).outcome is ApplyOutcome.CHANGED_MEANWHILE, "a second time changes nothing"
    right = {
        "3.2.1": False,
        "3.2.2": "Webhook",
        "3.2.3": None,
        "3.2.4": None,  # 0 is left out
        "3.2.5": "4h0m0s",
        "3.2.6": True,
        "3.2.7": 50,
        "3.2.8": True,
        "3.2.9": True,
    }
    assert in_effect(node) == right
    assert (
        node.machine.run("curl -sk -m 5 -o /dev/null -w '%{http_code}' https://127.0.0.1:10250/configz").stdout == "401"
    )
    seen, more = collect(node)
    fixed = judge_all([control(name) for name in ALL], seen)
    assert {name for name, each in fixed.items() if each.status is not Status.PASS} == {"3.2.3"}, fixed

    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=ca"
    authority = subprocess.run(request.split(), capture_output=True, text=True, check=True).stdout
    node.write(CLIENT_CA, authority)
    file = json.loads(node.machine.read(CONFIG_PATH))
    node.write(CONFIG_PATH, json.dumps({**file, "authentication": {"x509": {"clientCAFile": CLIENT_CA}}}))
    node.restart()
    assert in_effect(node) == {**right, "3.2.3": CLIENT_CA}
    seen, last = collect(node)
    passing = judge_all([control(name) for name in ALL], seen)
    assert {name: each.status for name, each in passing.items()} == dict.fromkeys(ALL, Status.PASS), passing
    assert CANARY not in sent + more + last
