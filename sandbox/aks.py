"""The files of an AKS node, as its image and bootstrap leave them, with the deviations that a state asks for.

Layout and flags are those of the public AgentBaker repository (kubelet.service, cse_config.sh and its test data):
`KUBELET_FLAGS` last in ExecStart, `/etc/default/kubelet` and the kubelet's own drop-ins 0600, and on pools with a
config file `/etc/default/kubeletconfig.json`, which takes the place of the flags that it translates.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from sandbox.states import AZURE_JSON, CLIENT_CA, KUBECONFIG, Kubelet

KUBELET = "/opt/bin/kubelet"
UNIT = "/etc/systemd/system/kubelet.service"
UNIT_DROPINS = f"{UNIT}.d"
ENVIRONMENT = "/etc/default/kubelet"
CONFIG = "/etc/default/kubeletconfig.json"
YAML_CONFIG = "/var/lib/kubelet/config.yaml"
HOSTILE_CONFIG = "/etc/kubernetes/=1+1,$(id),<b>bold,config.yaml"
SEED_CONFIG = "/etc/kubernetes/kubelet/kubelet-config.json"
CONFIG_DIR = "/etc/kubernetes/kubelet.conf.d"

_CIPHERS = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
)

# Flags that stay flags even where the pool has a config file.
_FLAGS = {
    "--cloud-provider": "external",
    "--image-credential-provider-bin-dir": "/var/lib/kubelet/credential-provider",
    "--image-credential-provider-config": "/var/lib/kubelet/credential-provider-config.yaml",
    "--kubeconfig": KUBECONFIG,
    "--node-status-update-frequency": "10s",
}

# Flags that the config file replaces.
_TRANSLATED_FLAGS = {
    "--address": "0.0.0.0",
    "--anonymous-auth": "false",
    "--authentication-token-webhook": "true",
    "--authorization-mode": "Webhook",
    "--cgroups-per-qos": "true",
    "--client-ca-file": CLIENT_CA,
    "--cluster-dns": "10.0.0.10",
    "--cluster-domain": "cluster.local",
    "--container-log-max-size": "50M",
    "--enforce-node-allocatable": "pods",
    "--event-qps": "0",
    "--eviction-hard": "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,pid.available<2000",
    "--feature-gates": "RotateKubeletServerCertificate=true",
    "--image-gc-high-threshold": "85",
    "--image-gc-low-threshold": "80",
    "--kube-reserved": "cpu=140m,memory=1638Mi,pid=1000",
    "--max-pods": "110",
    "--pod-manifest-path": "/etc/kubernetes/manifests",
    "--pod-max-pids": "-1",
    "--protect-kernel-defaults": "true",
    "--read-only-port": "0",
    "--resolv-conf": "/run/systemd/resolve/resolv.conf",
    "--rotate-certificates": "true",
    "--rotate-server-certificates": "true",
    "--serialize-image-pulls": "false",
    "--streaming-connection-idle-timeout": "4h",
    "--tls-cert-file": "/etc/kubernetes/certs/kubeletserver.crt",
    "--tls-cipher-suites": ",".join(_CIPHERS),
    "--tls-private-key-file": "/etc/kubernetes/certs/kubeletserver.key",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file of a node: its text, its mode, and its user and group."""

    text: str
    mode: int
    owner: str = "0:0"


def files(kubelet: Kubelet, labels: Sequence[str], version: str) -> dict[str, File]:
    """Every file that is on the node when its kubelet starts, by absolute path; empty where none is installed.

    `version` is the node's Kubernetes version ("1.33.2"): AKS sets other things for others.
    """
    if not kubelet.installed:
        return {}
    found = _files(kubelet, labels, version) | {
        KUBECONFIG: File(_KUBECONFIG, 0o600),
        AZURE_JSON: File(_AZURE_JSON, 0o600),
        **{f"/etc/kubernetes/certs/{name}": File("", 0o600) for name in _CERTIFICATES},
    }
    return {
        path: File(file.text, kubelet.modes.get(path, file.mode), kubelet.owners.get(path, file.owner))
        for path, file in found.items()
    }


def _files(kubelet: Kubelet, labels: Sequence[str], version: str) -> dict[str, File]:
    """Those of the kubelet's unit."""
    arguments = " \\\n        ".join(("--enable-server", *_EXEC_START, *kubelet.unit_flags))
    found = {
        UNIT: File(_UNIT.format(kubelet=KUBELET, arguments=arguments), 0o644),
        ENVIRONMENT: File(_environment(kubelet, labels, version), 0o600),
        f"{UNIT_DROPINS}/10-containerd-base-flag.conf": File(_CONTAINERD_DROPIN, 0o644),
        f"{UNIT_DROPINS}/10-tlsbootstrap.conf": File(_TLS_DROPIN, 0o600),
        f"{UNIT_DROPINS}/10-watchdog.conf": File("[Service]\nWatchdogSec=60s\n", 0o644),
    }
    path = config_path(kubelet)
    if path is not None:
        config_flags = f"--config {path}"
        if kubelet.dropin_chains is not None:
            config_flags += f" --config-dir {CONFIG_DIR}"
            found[f"{CONFIG_DIR}/50-team.conf"] = File(_config_dropin(kubelet.dropin_chains), 0o600)
        found[path] = File(config_text(kubelet, kubelet.chains, version), 0o600)
        if kubelet.seed_layout:
            found[f"{UNIT_DROPINS}/10-kubelet-args.conf"] = File(_seed_dropin(config_flags), 0o644)
        else:
            name = "10-componentconfig.conf"
            found[f"{UNIT_DROPINS}/{name}"] = File(_setting("KUBELET_CONFIG_FILE_FLAGS", config_flags), 0o600)
    if kubelet.systemd_flags:
        path, file = systemd_dropin(kubelet.systemd_flags)
        found[path] = file
    return found


def systemd_dropin(flags: Sequence[str]) -> tuple[str, File]:
    """A team's systemd drop-in that hands flags over in a variable which AKS's unit expands."""
    return f"{UNIT_DROPINS}/20-team.conf", File(_setting("KUBELET_CGROUP_FLAGS", " ".join(flags)), 0o644)


def config_path(kubelet: Kubelet) -> str | None:
    """Where the kubelet's config file is, None where the pool has none."""
    if kubelet.config == "none":
        return None
    if kubelet.seed_layout:
        return SEED_CONFIG
    if kubelet.hostile:
        return HOSTILE_CONFIG
    return CONFIG if kubelet.config == "json" else YAML_CONFIG


def config_text(kubelet: Kubelet, chains: bool | str | None, version: str) -> str:
    """The config file's text with `makeIPTablesUtilChains: chains`, without the key where that is None."""
    if kubelet.config == "yaml":
        line = "" if chains is None else f"makeIPTablesUtilChains: {json.dumps(chains)}  # see ticket NET-482\n"
        return _YAML.format(chains=line, attack=_ATTACK if kubelet.hostile else "")
    values = deepcopy(_CONFIG)
    if not _sets_idle_timeout(version):
        del values["streamingConnectionIdleTimeout"]
    for path, value in {**kubelet.settings, "makeIPTablesUtilChains": chains}.items():
        _put(values, path, value)
    return json.dumps(values, indent=4) + "\n"


def _put(values: dict[str, Any], path: str, value: object) -> None:
    *above, name = path.split(".")
    for part in above:
        values = values[part]
    if value is None:
        values.pop(name, None)
    else:
        values[name] = value


def _sets_idle_timeout(version: str) -> bool:
    # AgentBaker leaves it out from 1.34.0 on, where the kubelet no longer does anything with it.
    return int(version.split(".")[1]) < 34


def _environment(kubelet: Kubelet, labels: Sequence[str], version: str) -> str:
    given = _flags(kubelet, version)
    flags = [*(f"{name}={value}" for name, value in given.items()), *kubelet.flags]
    if kubelet.quoted:
        half = len(flags) // 2
        text = f'KUBELET_FLAGS="{" ".join(flags[:half])} \\\n{" ".join(flags[half:])}"'
    else:
        text = f"KUBELET_FLAGS={' '.join(flags)}"
    lines = [text, "KUBELET_REGISTER_SCHEDULABLE=true", "NETWORK_POLICY=", ""]
    lines += [f"KUBELET_NODE_LABELS={','.join((*labels, *kubelet.labels))}"]
    if kubelet.hostile:
        lines.insert(0, _ATTACK)
    if kubelet.padding:
        noise = random.Random(kubelet.padding)  # noqa: S311 - filler that gzip cannot shrink
        lines += [f"# {noise.randbytes(59).hex()}" for _ in range(kubelet.padding // 121)]
    return "\n".join(lines) + "\n"


def _flags(kubelet: Kubelet, version: str) -> Mapping[str, str]:
    given = _FLAGS if kubelet.config != "none" else _FLAGS | _TRANSLATED_FLAGS
    left_out = {*kubelet.without, *(() if _sets_idle_timeout(version) else ("--streaming-connection-idle-timeout",))}
    return {name: given[name] for name in sorted(given.keys() - left_out)}


def _setting(name: str, value: str) -> str:
    return f'[Service]\nEnvironment="{name}={value}"\n'


def _config_dropin(chains: bool) -> str:
    body = {"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"}
    return json.dumps({**body, "makeIPTablesUtilChains": chains}, indent=2) + "\n"


def _seed_dropin(config_flags: str) -> str:
    arguments = " ".join(("--enable-server", *(word for word in _EXEC_START if "CONFIG_FILE" not in word)))
    return f"{_setting('KUBELET_ARGS', config_flags)}ExecStart=\nExecStart={KUBELET} {arguments} $KUBELET_ARGS\n"


_CERTIFICATES = ("ca.crt", "kubeletserver.crt", "kubeletserver.key")

# What a look at these two files must not bring out: nobody asks for their text.
_KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters:
- name: default-cluster
  cluster: {server: https://aks-one-dns.hcp.westeurope.azmk8s.io:443}
users:
- name: default-auth
  user: {token: a-token-that-stays-on-the-node}
"""
_AZURE_JSON = (
    json.dumps(
        {
            "cloud": "AzurePublicCloud",
            "vmType": "vmss",
            "aadClientId": "msi",
            "aadClientSecret": "a-secret-that-stays-on-the-node",
            "useManagedIdentityExtension": True,
        },
        indent=4,
    )
    + "\n"
)

_EXEC_START = (
    '--node-labels="${KUBELET_NODE_LABELS}"',
    "--v=2",
    "--volume-plugin-dir=/etc/kubernetes/volumeplugins",
    "$KUBELET_TLS_BOOTSTRAP_FLAGS",
    "$KUBELET_CONFIG_FILE_FLAGS",
    "$KUBELET_CONTAINERD_FLAGS",
    "$KUBELET_CONTAINER_RUNTIME_FLAG",
    "$KUBELET_CGROUP_FLAGS",
    "$KUBELET_FLAGS",
)

_UNIT = """\
[Unit]
Description=Kubelet
ConditionPathExists={kubelet}
Wants=network-online.target containerd.service
After=network-online.target containerd.service

[Service]
Restart=always
RestartSec=2
EnvironmentFile=/etc/default/kubelet
# A terminated kubelet exits with 143.
SuccessExitStatus=143
ExecStartPre=/bin/bash /opt/azure/containers/ensure-kubelet-prerequisites.sh
ExecStartPre=/bin/mkdir -p /var/lib/kubelet
ExecStartPre=/bin/mount --make-shared /var/lib/kubelet
ExecStartPre=-/sbin/iptables -t nat --numeric --list

ExecStart={kubelet} \\
        {arguments}

[Install]
WantedBy=multi-user.target
"""

_CONTAINERD_DROPIN = (
    '[Service]\nEnvironment="KUBELET_CONTAINERD_FLAGS=--runtime-request-timeout=15m'
    ' --container-runtime-endpoint=unix:///run/containerd/containerd.sock"\n'
)
_TLS_DROPIN = (
    '[Service]\nEnvironment="KUBELET_TLS_BOOTSTRAP_FLAGS=--kubeconfig /var/lib/kubelet/kubeconfig'
    ' --bootstrap-kubeconfig /var/lib/kubelet/bootstrap-kubeconfig"\n'
)

_CONFIG: dict[str, Any] = {
    "kind": "KubeletConfiguration",
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "staticPodPath": "/etc/kubernetes/manifests",
    "address": "0.0.0.0",
    "tlsCertFile": "/etc/kubernetes/certs/kubeletserver.crt",
    "tlsPrivateKeyFile": "/etc/kubernetes/certs/kubeletserver.key",
    "tlsCipherSuites": list(_CIPHERS),
    "rotateCertificates": True,
    "serverTLSBootstrap": True,
    "authentication": {
        "x509": {"clientCAFile": CLIENT_CA},
        "webhook": {"enabled": True},
        "anonymous": {"enabled": False},
    },
    "authorization": {"mode": "Webhook", "webhook": {"cacheAuthorizedTTL": "0s", "cacheUnauthorizedTTL": "0s"}},
    "eventRecordQPS": 0,
    "clusterDomain": "cluster.local",
    "clusterDNS": ["10.0.0.10"],
    "streamingConnectionIdleTimeout": "4h0m0s",
    "nodeStatusUpdateFrequency": "10s",
    "imageGCHighThresholdPercent": 85,
    "imageGCLowThresholdPercent": 80,
    "cgroupsPerQOS": True,
    "maxPods": 110,
    "podPidsLimit": -1,
    "protectKernelDefaults": True,
    "resolvConf": "/run/systemd/resolve/resolv.conf",
    "serializeImagePulls": False,
    "evictionHard": {
        "memory.available": "100Mi",
        "nodefs.available": "10%",
        "nodefs.inodesFree": "5%",
        "pid.available": "2000",
    },
    "featureGates": {"RotateKubeletServerCertificate": True},
    "containerLogMaxSize": "50M",
    "kubeReserved": {"cpu": "140m", "memory": "1638Mi", "pid": "1000"},
    "enforceNodeAllocatable": ["pods"],
}

_YAML = """\
# Kept by the platform team; changes go through review.
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
{attack}
authentication:
  anonymous: {{enabled: false}}
  webhook:
    enabled: true
  x509:
    clientCAFile: /etc/kubernetes/certs/ca.crt
authorization:
  mode: Webhook
clusterDNS:
- 10.0.0.10
clusterDomain: "cluster.local"
{chains}\
maxPods: 110
podPidsLimit: -1
protectKernelDefaults: true
readOnlyPort: 0   # 10255 stays closed
rotateCertificates: true
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 4h0m0s
tlsCertFile: /etc/kubernetes/certs/kubeletserver.crt
tlsPrivateKeyFile: /etc/kubernetes/certs/kubeletserver.key
"""

_ATTACK = """\
# $(touch /tmp/owned); `reboot`; ${IFS}&& rm -rf --no-preserve-root /
# <script>alert(document.domain)</script> =HYPERLINK("http://example.invalid","x") @SUM(1+1)
# ../../../../etc/shadow ::error::forged %n%s%x {{7*7}} ' or 1=1 --"""
