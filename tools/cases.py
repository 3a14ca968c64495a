"""Random kubelet command lines and files, many of them odd, to hold `shared.kubelet` against real kubelets.

`python -m tools.cases SEED COUNT` prints one JSON object a line: id, kind, argv, files (path to text; bytes that are
not UTF-8 as surrogates). The same seed gives the same cases.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from shared.kubelet.versions import DATA, modelled_minors

CONFIG: Final = "/etc/default/kubeletconfig.json"
DROPINS: Final = "/etc/kubernetes/kubelet.conf.d"
KUBECONFIG: Final = "/etc/kubernetes/kubeconfig"
CA: Final = "/etc/kubernetes/certs/ca.crt"
_API: Final = "kubelet.config.k8s.io/v1beta1"
_KIND_YAML: Final = f"kind: KubeletConfiguration\napiVersion: {_API}\n"

Case = dict[str, Any]
Value = Any


def _data() -> Iterator[dict[str, Any]]:
    for minor in modelled_minors():
        yield json.loads((DATA / f"1.{minor}.json").read_text("utf-8"))


_FLAGS: Final[dict[str, dict[str, str]]] = {name: flag for data in _data() for name, flag in data["flags"].items()}
_GATES: Final[list[str]] = sorted({name for data in _data() for name in data["gates"]})
_STRUCTS: Final[dict[str, dict[str, str]]] = {}
_NAMED: Final[dict[str, str]] = {}
for _each in _data():
    for _name, _fields in _each["types"].items():
        _STRUCTS.setdefault(_name, {}).update(_fields)
    _NAMED.update(_each["named"])
_ROOT: Final = "v1beta1.KubeletConfiguration"

_NOT_MEASURED: Final = frozenset({"v", "vmodule", "root-dir", "cert-dir", "fail-cgroupv1", "help", "version"})
_GONE_FLAGS: Final = ("network-plugin", "docker", "container-runtime", "cni-bin-dir", "add-dir-header", "log-dir")

_BOOLS: Final = ("true", "false", "1", "0", "t", "F", "TRUE", "False", "T", "f", "tRue", "yes", "", " true", "on")
_DURATIONS: Final = (
    "4h", "5m", "0", "0s", "1h30m", "-1s", "1.5h", "5", "", "1µs", "10ms", "1d", "+5m", "4h0m0s", "9223372036s", ".5s",
    "1e3s", "300ms", "2562047h48m", "1s1s", "100us", "-0",
)  # fmt: skip
_INTS: Final = (
    "0", "1", "-1", "5", "10255", "65535", "65536", "110", "0x10", "010", "+5", "1_000", "1e3", "", "2147483648",
    "-2147483649",
    "5.0", "١", "0b11", "100", "50", "31", "32", "1000000", "9223372036854775807", "9223372036854775808",
)  # fmt: skip
_TEXTS: Final = (
    "", "a", "/x/y", "Webhook", "AlwaysAllow", "AlwaysDeny", "RBAC", "none", "static", "pod", "é", "a b", "systemd",
    "cgroupfs", "text", "json", "VersionTLS12", "VersionTLS13", "VersionTLS10", "VersionTLS99", CA, "/missing/ca.crt",
    "ca.crt", "10%", "1.35", "1.30", "0-1", "10Mi", "hairpin-veth", "best-effort", "LimitedSwap", "/a/../b",
    "unix:///x",
    "NeverVerify", "AlwaysVerify", "NeverVerifyAllowlistedImages", "TieredReservation", "None", "container",
    "restricted",
)  # fmt: skip
_SUITES: Final = (
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256", "TLS_X",
    "TLS_RSA_WITH_RC4_128_SHA", "tls_aes_128_gcm_sha256", "",
)  # fmt: skip
_LISTS: Final = (
    "",
    "a",
    "a,b",
    'a"b',
    '"a,b",c',
    "a,,b",
    ",",
    "pods",
    "none",
    "pods,none",
    "system-reserved",
    " a",
    "a\nb",
)
_QUANTITIES: Final = (
    "1Gi",
    "500Mi",
    "100m",
    "0",
    "-1",
    "1.5",
    "1e3",
    "1E3",
    "1K",
    "1ki",
    "",
    "1 Gi",
    ".5",
    "5.",
    "+1",
    "1Ei",
    "12e-3",
    "0Gi",
)
_TAINTS: Final = (
    "a=b:NoSchedule", "a:NoExecute", "a=b:X", "a", "a=b:NoSchedule-", "a=b=c:NoSchedule",
    "a=b:NoSchedule,a=c:NoSchedule",
    "x.y/z=1:PreferNoSchedule", "", "a=:NoSchedule", "-", "a:NoSchedule:x", "=b:NoSchedule", "a=b:NoSchedule,",
    "A_b.c=v:NoExecute",
)  # fmt: skip
_MEMORY: Final = (
    "0:memory=1Gi",
    "0:memory=1Gi;1:memory=2Gi",
    "0:memory=1Gi,hugepages-1Gi=2Gi",
    "a:memory=1Gi",
    "0:memory",
    "",
    "0:cpu=1",
    "0:memory=0",
    "0:memory=1Gi;0:memory=1Gi",
    "0:memory=x",
    "-1:memory=1Gi",
    "+1:memory=1Gi",
    "4294967296:memory=1Gi",
    "0",
)
_LABELS: Final = (
    "agentpool=nodepool1,kubernetes.azure.com/mode=system", "a=b", "kubernetes.io/os=linux", "kubernetes.io/x=y", "a",
    "a=",
    "node.kubernetes.io/x=y", "k8s.io/a=b", "=a", "a=b,a=c", "a=b c", "-a=b", "x/y/z=1", "kubelet.kubernetes.io/q=1",
    "",
    "node.kubernetes.io/windows-build=1", "a=" + "b" * 64,
)  # fmt: skip
_VMODULES: Final = ("a=1", "a=x", "a", "a=1,b=2", "=1", "a=", "", "a=4294967296", "a=b=1")
_PAIRS: Final = (
    "cpu=100m,memory=1Gi",
    "a=b",
    "a",
    "",
    "a=b,",
    ",a=b",
    "a = b",
    "a=b=c",
    "=x",
    "a=",
    "full-pcpus-only=true",
    "memory.available=1m",
    "memory=50%",
)
_THRESHOLDS: Final = (
    "memory.available<750Mi,nodefs.available<10%",
    "a<b",
    "a",
    "",
    "a=b",
    "memory.available<",
    "<1",
    "a<b<c",
    "a<1,a<2",
)
_HEADERS: Final = ("a:b", "a:b,a:c", "a", "", ":b", "a:", "a:b:c", " a : b ", "a:b,c")
_ADDRESSES: Final = (
    "0.0.0.0",
    "::",
    "127.0.0.1",
    "1.2.3",
    "",
    "010.0.0.1",
    "::1%lo",
    "1.2.3.256",
    "::ffff:1.2.3.4",
    "a",
)

_FLAG_VALUES: Final[dict[str, tuple[str, ...]]] = {
    "pflag.boolValue": _BOOLS,
    "go.bool": _BOOLS,
    "pflag.durationValue": _DURATIONS,
    "go.duration": _DURATIONS,
    "pflag.int32Value": _INTS,
    "pflag.int64Value": _INTS,
    "go.int": _INTS,
    "pflag.stringValue": _TEXTS,
    "go.string": _TEXTS,
    "pflag.stringSliceValue": _LISTS,
    "flag.IPVar": _ADDRESSES,
    "flag.RegisterWithTaintsVar": _TAINTS,
    "flag.ReservedMemoryVar": _MEMORY,
    "flag.ConfigurationMap": _LABELS,
    "flag.MapStringString": _PAIRS,
    "flag.MapStringString.NoSplit": _PAIRS,
    "flag.LangleSeparatedMapStringString": _THRESHOLDS,
    "flag.ColonSeparatedMultimapStringString": _HEADERS,
    "resource.QuantityValue": _QUANTITIES,
    "v1.vmoduleConfigurationPFlag": _VMODULES,
}
_OWN_VALUES: Final = {
    "tls-cipher-suites": (*_SUITES, ",".join(_SUITES[:2]), 'a"b'),
    "cloud-provider": ("external", "", "external", "external", "azure"),
    "authorization-mode": ("Webhook", "AlwaysAllow", "RBAC", "", "webhook"),
    "client-ca-file": (CA, CA, "", "/missing/ca.crt", "ca.crt", "etc/kubernetes/certs/ca.crt"),
    "kubeconfig": (KUBECONFIG, ""),
    "bootstrap-kubeconfig": ("",),
    "lock-file": ("", "/run/lock"),
    "config": (CONFIG,),
    "config-dir": (DROPINS, f"{DROPINS}/", DROPINS[1:]),
    "experimental-mounter-path": ("",),
    "image-credential-provider-config": ("",),
    "image-credential-provider-bin-dir": ("",),
    "register-with-taints": _TAINTS,
    "hostname-override": ("", "a", "A b", " "),
    "logging-format": ("text", "text", "json", "xml", ""),
}
_CIS_FLAGS: Final = (
    "anonymous-auth", "authorization-mode", "client-ca-file", "read-only-port", "streaming-connection-idle-timeout",
    "make-iptables-util-chains", "event-qps", "rotate-certificates", "rotate-server-certificates", "feature-gates",
    "authentication-token-webhook", "protect-kernel-defaults", "tls-cipher-suites",
)  # fmt: skip
_CIS_FIELDS: Final = (
    "authentication", "authorization", "readOnlyPort", "streamingConnectionIdleTimeout", "makeIPTablesUtilChains",
    "eventRecordQPS", "rotateCertificates", "serverTLSBootstrap", "featureGates", "protectKernelDefaults",
    "tlsCipherSuites",
)  # fmt: skip
_AKS_FLAGS: Final = (
    "--enable-server", "--node-labels=agentpool=nodepool1,kubernetes.azure.com/mode=system", "--v=2",
    "--volume-plugin-dir=/etc/kubernetes/volumeplugins", "--runtime-request-timeout=15m",
    "--runtime-cgroups=/system.slice/containerd.service", "--node-status-update-frequency=10s", "--max-pods=110",
    "--pod-manifest-path=/etc/kubernetes/manifests",
)  # fmt: skip
_AKS_CONFIG: Final[dict[str, Value]] = {
    "staticPodPath": "/etc/kubernetes/manifests",
    "address": "0.0.0.0",
    "tlsCertFile": "/etc/kubernetes/certs/kubeletserver.crt",
    "tlsPrivateKeyFile": "/etc/kubernetes/certs/kubeletserver.key",
    "rotateCertificates": True,
    "authentication": {"x509": {"clientCAFile": CA}, "webhook": {"enabled": True}, "anonymous": {"enabled": False}},
    "authorization": {"mode": "Webhook", "webhook": {"cacheAuthorizedTTL": "0s", "cacheUnauthorizedTTL": "0s"}},
    "eventRecordQPS": 0,
    "clusterDomain": "cluster.local",
    "clusterDNS": ["10.0.0.10"],
    "featureGates": {},
    "evictionHard": {"memory.available": "750Mi", "nodefs.available": "10%"},
    "kubeReserved": {"cpu": "100m", "memory": "1638Mi"},
    "enforceNodeAllocatable": ["pods"],
}


class _Maker:
    """One case's dice."""

    def __init__(self, seed: str) -> None:
        self.dice = random.Random(seed)

    def chance(self, share: float) -> bool:
        return self.dice.random() < share

    # --- flags ---

    def flag(self, name: str) -> list[str]:
        kind = _FLAGS[name]["type"] if name in _FLAGS else "pflag.stringValue"
        if kind == "flag.MapStringBool":
            value = self.gate_text()
        else:
            pool = _OWN_VALUES.get(name) or _FLAG_VALUES[kind]
            value = self.dice.choice(pool[:3] if self.chance(0.5) else pool)
        if kind == "pflag.boolValue" and self.chance(0.6):
            value = self.dice.choice(("true", "false"))
        written = name.replace("-", "_") if self.chance(0.05) else name
        written = written.upper() if self.chance(0.01) else written
        form = self.dice.random()
        if form < 0.8:
            return [f"--{written}={value}"]
        if form < 0.95 and kind not in ("pflag.boolValue", "go.bool"):
            return [f"--{written}", value]
        return [
            self.dice.choice((f"--{written}", f"--{written} {value}", f"-{written}={value}", f"---{written}={value}"))
        ]

    def gate_text(self) -> str:
        gates = [
            f"{name}={self.dice.choice(('true', 'false', 'true', 'false', 'T', '0', 'x', ''))}"
            if self.chance(0.1)
            else f"{name}={self.dice.choice(('true', 'false'))}"
            for name in self.gate_names()
        ]
        text = ",".join(gates)
        return text + self.dice.choice((",", ",,", "=", " ")) if self.chance(0.05) else text

    def gate_names(self) -> list[str]:
        usual = (
            "RotateKubeletServerCertificate",
            "RotateKubeletServerCertificate",
            "AllAlpha",
            "AllBeta",
            "NoSuchGate",
        )
        return [
            self.dice.choice(usual if self.chance(0.1) else usual[:4]) if self.chance(0.5) else self.dice.choice(_GATES)
            for _ in range(self.dice.choice((1, 1, 1, 2, 3)))
        ]

    def argv(self, names: list[str]) -> list[str]:
        return [word for name in names for word in self.flag(name)]

    def any_flags(self, most: int) -> list[str]:
        known = [name for name in _FLAGS if name not in _NOT_MEASURED]
        names = [
            self.dice.choice(_CIS_FLAGS)
            if self.chance(0.4)
            else self.dice.choice(_GONE_FLAGS)
            if self.chance(0.03)
            else self.dice.choice(known)
            for _ in range(self.dice.randint(0, most))
        ]
        return self.argv(names)

    # --- values ---

    def value(self, kind: str, depth: int = 0) -> Value:
        """A value for a field of a Go type: mostly of its type, now and then null or something else."""
        kind = kind.removesuffix("!")
        if self.chance(0.07):
            return None
        if self.chance(0.03):
            return self.stray(depth)
        kind = kind.removeprefix("*")
        if kind in _STRUCTS:
            return self.struct(kind, depth)
        kind = _NAMED.get(kind, kind)
        if kind.startswith("[]"):
            if kind == "[]string":
                pool = (
                    _SUITES[:3]
                    if self.chance(0.5)
                    else ("pods", "none", "a", "10.0.0.10", "system-reserved", "", *_SUITES)
                )
                return [self.dice.choice(pool) for _ in range(self.dice.randint(0, 3))]
            return [self.value(kind[2:], depth + 1) for _ in range(self.dice.randint(0, 2))]
        if kind.startswith("map["):
            return self.mapping(kind.partition("]")[2], depth)
        return self.scalar(kind)

    def mapping(self, element: str, depth: int) -> Value:
        if element == "bool":
            return {name: self.dice.choice((True, False)) if self.chance(0.95) else None for name in self.gate_names()}
        keys = ("memory.available", "nodefs.available", "cpu", "memory", "a", "hugepages-1Gi", "imagefs.available", "")
        return {self.dice.choice(keys): self.value(element, depth + 1) for _ in range(self.dice.randint(0, 2))}

    def scalar(self, kind: str) -> Value:
        if kind == "bool":
            return self.dice.choice((True, False))
        if kind in ("int32", "int64", "uint32"):
            odd = (0.5, 1e3, 2**31, -(2**31) - 1, 2**63, -1, 65536)
            return (
                self.dice.choice((0, 1, 5, 10, 50, 80, 85, 110, 4194, 65536))
                if self.chance(0.85)
                else self.dice.choice(odd)
            )
        if kind == "float64":
            return self.dice.choice((0.9, 0.5, 1, 0, 1.5, -1, 1e400 if self.chance(0.1) else 0.25))
        if kind in ("v1.Duration", "v1.TimeOrMetaDuration"):
            return self.dice.choice(_DURATIONS[:4] if self.chance(0.85) else (5, 1000000000, *_DURATIONS))
        if kind.startswith("resource."):
            return self.dice.choice((*_QUANTITIES, 5, 1.5))
        if kind == "v1.Time":
            return self.dice.choice(("2024-01-02T03:04:05Z", "2024-01-02", ""))
        return self.dice.choice(_TEXTS)

    def stray(self, depth: int) -> Value:
        made: tuple[Value, ...] = (
            True,
            False,
            0,
            1,
            -1,
            1.5,
            "",
            "true",
            "false",
            "1",
            [],
            {},
            ["a"],
            {"a": 1},
            [None],
            {"a": None},
            10**20,
        )
        return self.dice.choice(made) if depth < 3 else 0

    def struct(self, name: str, depth: int = 0, most: int = 3) -> dict[str, Value]:
        fields = _STRUCTS[name]
        return {
            self.spelled(key): self.value(fields[key], depth + 1)
            for key in self.dice.sample(sorted(fields), min(len(fields), self.dice.randint(1, most)))
        }

    def spelled(self, key: str) -> str:
        if self.chance(0.95):
            return key
        return self.dice.choice(
            (key.upper(), key.lower(), key[0].upper() + key[1:], f"{key} ", key.replace("s", "ſ", 1))
        )

    def members(self, cis: float = 0.5, most: int = 4) -> list[tuple[str, Value]]:
        """Members of a configuration, in order; some of them twice."""
        fields = _STRUCTS[_ROOT]
        # what a node with cgroup v1 refuses says nothing about another
        left_out = {"kind", "apiVersion", "logging", "failCgroupV1", "containerRuntimeEndpoint", "singleProcessOOMKill"}
        names = sorted(set(fields) - left_out)
        found: list[tuple[str, Value]] = []
        for _ in range(self.dice.randint(0, most)):
            key = self.dice.choice(_CIS_FIELDS) if self.chance(cis) else self.dice.choice(names)
            if self.chance(0.02):
                key = self.dice.choice(("unknownKey", "logging", "failCgroupV1", "containerRuntimeEndpoint"))
            found.append((self.spelled(key), self.value(fields.get(key, "string"))))
            if self.chance(0.06):
                found.append((self.spelled(key), self.value(fields.get(key, "string"))))
        return found

    # --- texts ---

    def document(self, members: list[tuple[str, Value]]) -> str:
        kind = (
            "KubeletConfiguration"
            if self.chance(0.985)
            else self.dice.choice(
                ("kubeletconfiguration", "", "CredentialProviderConfig", "Pod", "SerializedNodeConfigSource")
            )
        )
        api = (
            _API
            if self.chance(0.985)
            else self.dice.choice(("v1", "", "a/b/c", "kubelet.config.k8s.io/v1", f"{_API}/"))
        )
        head = [("kind", kind), ("apiVersion", api)]
        if self.chance(0.02):
            head = self.dice.sample(head, self.dice.randint(0, 2))
        if self.chance(0.02):
            head = [(self.spelled(key).capitalize(), value) for key, value in head]
        everything = head + members if self.chance(0.9) else members + head
        if self.chance(0.5):
            return self.json_object(everything, self.dice.choice((None, None, 2, 4)))
        return self.yaml_block(everything)

    def json_object(self, members: list[tuple[str, Value]], indent: int | None) -> str:
        gap = "" if indent is None else "\n" + " " * indent
        inner = [f"{gap}{json.dumps(key)}: {self.json_value(value, indent)}" for key, value in members]
        text = "{" + ("," if gap else ", ").join(inner) + ("\n" if gap else "") + "}"
        return text + self.dice.choice(("\n", " ", "}", "x", "{}", ",")) if self.chance(0.04) else text

    @staticmethod
    def json_value(value: Value, indent: int | None) -> str:
        return json.dumps(value, indent=indent).replace("Infinity", "1e400")

    def yaml_block(self, members: list[tuple[str, Value]], indent: int = 0) -> str:
        lines: list[str] = []
        pad = " " * indent
        for key, value in members:
            name = self.yaml_key(key)
            if isinstance(value, dict) and value and self.chance(0.8):
                lines.append(
                    f"{pad}{name}:\n" + self.yaml_block(list(value.items()), indent + self.dice.choice((1, 2, 2, 4)))
                )
            elif isinstance(value, list) and value and self.chance(0.8):
                dash = self.dice.choice((pad, pad + "  "))
                lines.append(f"{pad}{name}:\n" + "".join(f"{dash}- {self.yaml_scalar(item)}\n" for item in value))
            else:
                plain = key in ("kind", "apiVersion") and bool(value) and self.chance(0.9)
                lines.append(f"{pad}{name}: {value if plain else self.yaml_scalar(value)}\n")
            if self.chance(0.05):
                lines.append(
                    self.dice.choice((f"{pad}# a comment: x\n", "\n", f"{pad}  # b\n", "\t\n", f"{pad}\t# c\n"))
                )
        return "".join(lines)

    def yaml_key(self, key: str) -> str:
        if not key or self.chance(0.04):
            return json.dumps(key)
        return f"'{key}'" if self.chance(0.03) else key

    def yaml_scalar(self, value: Value) -> str:
        if isinstance(value, bool) and self.chance(0.3):
            true = (
                "yes",
                "on",
                "True",
                "TRUE",
                "y",
                "Y",
                "On",
                "!!bool true",
                "'true'",
                "&a true",
                "true # c",
                "tRUE",
                "1",
            )
            false = (
                "no",
                "off",
                "False",
                "FALSE",
                "n",
                "N",
                "!!bool no",
                "'false'",
                '"false"',
                "&b false",
                "false#c",
                "0",
            )
            return self.dice.choice(true if value else false)
        if value is None and self.chance(0.6):
            return self.dice.choice(("", "~", "null", "Null", "NULL", "!!null ''", "nULL", "!!null null"))
        if isinstance(value, int | float) and not isinstance(value, bool) and self.chance(0.3):
            odd = (
                "0x10",
                "010",
                "0o10",
                "1_000",
                "1e3",
                "+5",
                "0b11",
                ".5",
                "5.",
                ".inf",
                ".nan",
                "1:30",
                "!!int '5'",
                "- 1",
            )
            return self.dice.choice((*odd, "!!float 5", "0.0", "-0", "2024-01-02", "1__0", "0x_1F", "1e400"))
        if isinstance(value, str) and value and self.chance(0.4):
            return self.dice.choice(
                (value, f"'{value}'", json.dumps(value), f"|\n      {value}", f">-\n      {value}", f"!!str {value}")
            )
        return json.dumps(value).replace("Infinity", ".inf")

    def mutated(self, text: str) -> str:
        """The text with some characters changed, doubled, dropped or moved."""
        marks = " \t\n:,-{}[]&*!|>'\"%@`#?.~<=0aé\r\ufeff\x85\u2028/\\_"
        for _ in range(self.dice.choice((1, 1, 2, 3))):
            at = self.dice.randint(0, len(text))
            roll = self.dice.random()
            if roll < 0.5:
                text = text[:at] + self.dice.choice(marks) + text[at:]
            elif roll < 0.7:
                text = text[:at] + text[at + self.dice.choice((1, 1, 2, 5)) :]
            elif roll < 0.85 and text:
                at = min(at, len(text) - 1)
                text = text[:at] + self.dice.choice(marks) + text[at + 1 :]
            else:
                lines = text.splitlines(keepends=True)
                moved = lines.pop(self.dice.randrange(len(lines))) if lines else ""
                lines.insert(self.dice.randint(0, len(lines)), self.dice.choice((moved, moved * 2, f" {moved}")))
                text = "".join(lines)
        return text

    def dropins(self, most: int, cis: float = 0.8) -> dict[str, str]:
        names = (
            "00.conf", "10.conf", "9.conf", "a.conf", "b.conf", "sub/x.conf", "-.conf", "é.conf", ".hidden.conf",
            "x.conf~",
            "zz.yaml", "a.CONF", "sub.conf/y.conf", "A.conf", ".conf", "a/b/c.conf", "b", "1.conf", "sub-/q.conf",
        )  # fmt: skip
        chosen = self.dice.sample(names, self.dice.randint(1, most))
        return {f"{DROPINS}/{name}": self.document(self.members(cis, 3)) for name in chosen}


# --- the kinds ---


def _aks(make: _Maker) -> tuple[list[str], dict[str, str]]:
    argv = list(_AKS_FLAGS) if make.chance(0.6) else []
    files: dict[str, str] = {}
    if make.chance(0.7):
        usual = [(key, value) for key, value in _AKS_CONFIG.items() if make.chance(0.8)]
        files[CONFIG] = make.document(usual + make.members())
        argv += make.dice.choice((["--config", CONFIG], [f"--config={CONFIG}"]))
    if make.chance(0.4):
        files |= make.dropins(3)
        argv.append(f"--config-dir={DROPINS}")
    if make.chance(0.3):
        argv.append(f"--kubeconfig={KUBECONFIG}")
    argv += make.any_flags(3)
    return argv, files


def _cis(make: _Maker) -> tuple[list[str], dict[str, str]]:
    names = [make.dice.choice(_CIS_FLAGS) for _ in range(make.dice.randint(0, 3))]
    argv = make.argv(names)
    files: dict[str, str] = {}
    if make.chance(0.8):
        files[CONFIG] = make.document(make.members(1, 5))
        argv += ["--config", CONFIG]
    if make.chance(0.3):
        argv += [f"--kubeconfig={KUBECONFIG}"]
    return argv, files


def _dropins(make: _Maker) -> tuple[list[str], dict[str, str]]:
    files = make.dropins(4)
    argv = make.dice.choice(
        ([f"--config-dir={DROPINS}"], ["--config-dir", f"{DROPINS}/"], [f"--config_dir={DROPINS[1:]}"])
    )
    if make.chance(0.7):
        files[CONFIG] = make.document(make.members(0.7))
        argv = [*argv, "--config", CONFIG]
    return argv + make.any_flags(1), files


def _settings(make: _Maker) -> tuple[list[str], dict[str, str]]:
    files = {CONFIG: make.document(make.members(0, 3))}
    argv = ["--config", CONFIG]
    if make.chance(0.4):
        files |= make.dropins(2, 0)
        argv.append(f"--config-dir={DROPINS}")
    return argv, files


def _flags(make: _Maker) -> tuple[list[str], dict[str, str]]:
    argv = make.any_flags(3)
    if make.chance(0.1):
        at = make.dice.randint(0, len(argv))
        argv.insert(
            at,
            make.dice.choice(("--", "-", "x", "", "--=x", "---x", "-x", "-h=false", "--help=false", "--version=false")),
        )
    files = {}
    if make.chance(0.5):
        files[CONFIG] = make.document(make.members(0.5, 2))
        argv.insert(make.dice.choice((0, len(argv))), f"--config={CONFIG}")
    return argv, files


def _gates(make: _Maker) -> tuple[list[str], dict[str, str]]:
    argv = [word for _ in range(make.dice.randint(0, 2)) for word in make.flag("feature-gates")]
    files = {}
    if make.chance(0.7):
        members = [("featureGates", make.mapping("bool", 0))] if make.chance(0.9) else []
        files[CONFIG] = make.document(members + make.members(0.5, 1))
        argv += ["--config", CONFIG]
    if make.chance(0.3):
        files[f"{DROPINS}/a.conf"] = make.document([("featureGates", make.mapping("bool", 0))])
        argv.append(f"--config-dir={DROPINS}")
    return argv, files


def _yaml(make: _Maker) -> tuple[list[str], dict[str, str]]:
    text = _KIND_YAML + make.yaml_block(make.members(0.8, 3))
    extras = (
        "base: &b\n  makeIPTablesUtilChains: false\n<<: *b\n",
        "b1: &x {readOnlyPort: 1}\nb2: &y {readOnlyPort: 2}\n<<: [*x, *y]\n",
        "--- \n", "---\n", "...\n", "? a\n: b\n", "x: [a, b\n  , c]\n", "x: {a: b, c}\n", "x: !t y\n", "- a\n",
        "%YAML 1.2\n",
        "x: &a [*a]\n", "x: \"\\x41\\u00e9\\U0001F600\\/\"\n", "x: 'it''s'\n", "x: |+\n  a\n\n",
        "x: >2-\n    a\n   b\n", "\ufeff",
        "makeIPTablesUtilChains: !!binary dHJ1ZQ==\n", "x: [,]\n", "x: [a,]\n", "x: {,}\n", "1: a\n", "~: a\n",
        "true: a\n",
        "[a]: b\n", "{a: b}: c\n", "x: a: b\n", "x: 'a\n  b'\n", "x: \"a\\\n  b\"\n", "x:\ty\n", "\tx: y\n", "x: - y\n",
        "x: ?y\n",
        "x: %y\n", "x: @y\n", "x: `y\n", "<<: {readOnlyPort: 3}\n", "<<: 5\n", "x: *none\n",
        "'<<': {readOnlyPort: 3}\n",
        "!!merge <<: {readOnlyPort: 3}\n", "x: !!set {a, b}\n", "x: !!timestamp 2024-01-02\n",
        "x: 2024-01-02 03:04:05\n", "? |\n  k\n: v\n",
        "x: !<tag:yaml.org,2002:int> 5\n", "x: !!str\n", "x: !!map\n", "x: !!seq []\n", "%TAG ! tag:x,2000:\n---\n",
        "\r\n", "x: a #b\n",
        "x: 0o17\nreadOnlyPort: 0o0\n", "readOnlyPort: 1_0\n", "eventRecordQPS: 0x5\n", "eventRecordQPS: 5 # c\n",
        "x: \"\\q\"\n", "x: \x07\n",
    )  # fmt: skip
    for _ in range(make.dice.choice((0, 1, 1, 2))):
        extra = make.dice.choice(extras)
        lines = text.splitlines(keepends=True)
        lines.insert(make.dice.randint(0, len(lines)), extra)
        text = "".join(lines)
    if make.chance(0.5):
        text = make.mutated(text)
    if make.chance(0.05):
        text = text.replace("\n", "\r\n")
    return ["--config", CONFIG], {CONFIG: text}


def _json(make: _Maker) -> tuple[list[str], dict[str, str]]:
    head = [("kind", "KubeletConfiguration"), ("apiVersion", _API)]
    text = make.json_object(head + make.members(0.8, 3), make.dice.choice((None, 2)))
    extras = ('"x": 1e5,', '"x": -0,', '"x": 01,', '"x": 1.,', '"x": .5,', '"x": "\\ud800",', '"x": "\\ud83d\\ude00",',
    '"x": "a\\qb",',
              '"x": NaN,', '"x": "a\tb",', "'x': 1,", "/* c */", '"x": tru,', '"x": +1,', '"": 1,', '"x": 1e400,',
              '"\\u006dakeIPTablesUtilChains": false,')  # fmt: skip
    if make.chance(0.6):
        text = "{" + make.dice.choice(extras) + text[1:]
    if make.chance(0.4):
        text = make.mutated(text)
    return ["--config", CONFIG], {CONFIG: text}


def _bytes(make: _Maker) -> tuple[list[str], dict[str, str]]:
    text = make.document(
        [("makeIPTablesUtilChains", make.chance(0.5)), ("clusterDomain", "abc"), *make.members(0.8, 2)]
    )
    if make.chance(0.4):
        text = text.replace("\n", " # comment x\n", 1)
    raw = bytearray(text.encode("utf-8", "surrogatepass"))
    odd = (
        b"\xff",
        b"\xe9",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xc0\x80",
        b"\x80",
        b"\xe2\x28\xa1",
        b"\x00",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
    )
    for _ in range(make.dice.choice((1, 1, 2))):
        at = make.dice.choice((raw.find(b"abc") + 1, raw.find(b"comment"), make.dice.randint(0, len(raw)), len(raw), 0))
        raw[max(at, 0) : max(at, 0)] = make.dice.choice(odd)
    path = CONFIG if make.chance(0.7) else f"{DROPINS}/a.conf"
    argv = ["--config", CONFIG] if path == CONFIG else ["--config-dir", DROPINS]
    return argv, {path: bytes(raw).decode("utf-8", "surrogateescape")}


def _nesting(make: _Maker) -> tuple[list[str], dict[str, str]]:
    depth = make.dice.choice(
        (5, 63, 64, 65, 200, 999, 1000, 2000, 4995, 9990, 9997, 9998, 9999, 10000, 10001, 10002, 12000)
    )
    open_, close = make.dice.choice((("[", "]"), ('{"a":', "}")))
    inner = "1" if close == "}" else ""
    if make.chance(0.4):
        text = f'{{"kind":"KubeletConfiguration","apiVersion":"{_API}","x":{open_ * depth}{inner}{close * depth}}}'
    elif make.chance(0.6):
        text = f"{_KIND_YAML}x: {(open_ * depth).replace(':', ': ')}{inner}{close * depth}\n"
    elif make.chance(0.5):
        depth = min(depth, 300)
        text = f"{_KIND_YAML}x:\n" + "".join(" " * at + "a:\n" for at in range(1, depth)) + " " * depth + "b\n"
    else:
        width = make.dice.choice((2, 5, 9, 10, 40))
        anchors = "".join(
            f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * width)}]\n" if at else "a0: &a0 [x]\n"
            for at in range(make.dice.randint(2, 7))
        )
        text = _KIND_YAML + anchors
    path = CONFIG if make.chance(0.7) else f"{DROPINS}/a.conf"
    return (["--config", CONFIG] if path == CONFIG else ["--config-dir", DROPINS]), {path: text}


_KINDS: Final[tuple[tuple[str, int, Callable[[_Maker], tuple[list[str], dict[str, str]]]], ...]] = (
    ("aks", 20, _aks), ("cis", 14, _cis), ("dropins", 14, _dropins), ("fields", 12, _settings), ("flags", 12, _flags),
    ("gates", 8, _gates), ("yaml", 12, _yaml), ("json", 4, _json), ("bytes", 3, _bytes), ("nesting", 1, _nesting),
)  # fmt: skip


def cases(seed: int, count: int) -> Iterator[Case]:
    for number in range(count):
        make = _Maker(f"{seed}:{number}")
        kind, _, build = make.dice.choices(_KINDS, [weight for _, weight, _ in _KINDS])[0]
        argv, files = build(make)
        yield {"id": f"{seed}-{number}", "kind": kind, "argv": ["kubelet", *argv], "files": files}


def main() -> None:
    for case in cases(int(sys.argv[1]), int(sys.argv[2])):
        print(json.dumps(case))


if __name__ == "__main__":
    main()
