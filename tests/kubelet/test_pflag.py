"""The command line: pflag's rules, the flag table, the kubelet's second reading."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kubelet import config_paths, resolve
from shared.kubelet.flags import Flag
from shared.kubelet.minors import minor_rules
from shared.kubelet.pflag import parse_flags
from shared.kubelet.schema import split_path
from shared.kubelet.versions import modelled_minors
from tests.support.configs import CONFIG, KIND

FLAGS_36 = minor_rules(36).flags


def value(path: str, *arguments: str) -> object:
    return resolve(["kubelet", *arguments], {}).value(path)


def error(*arguments: str, version: str | None = None) -> str:
    found = resolve(["kubelet", *arguments], {}, version=version)
    assert not found.accepted
    return str(found.error)


@pytest.mark.parametrize(
    ("path", "arguments", "expected"),
    [
        ("makeIPTablesUtilChains", ["--make-iptables-util-chains=f"], False),
        ("makeIPTablesUtilChains", ["--make_iptables-util_chains=0", "--make-iptables-util-chains"], True),
        ("eventRecordQPS", ["--event-qps=010"], 8),
        ("eventRecordQPS", ["--event-qps", "0x10"], 16),
        ("eventRecordQPS", ["--event-qps=1", "--event_qps=2"], 2),
        ("streamingConnectionIdleTimeout", ["--streaming-connection-idle-timeout=90m"], "1h30m0s"),
        ("tlsCipherSuites", ["--tls-cipher-suites="], []),
        (
            "tlsCipherSuites",
            ["--tls-cipher-suites=TLS_AES_128_GCM_SHA256", '--tls-cipher-suites="TLS_AES_256_GCM_SHA384"'],
            ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"],
        ),
        ("logging.verbosity", ["-v=2"], 2),
        ("logging.verbosity", ["-v2"], 2),
        ("logging.verbosity", ["-v", "2", "--v=4"], 4),
        (
            "logging.vmodule",
            ["--vmodule=a=1,b*=2"],
            [{"filePattern": "a", "verbosity": 1}, {"filePattern": "b*", "verbosity": 2}],
        ),
        ("featureGates.MemoryQoS", ["--feature-gates=MemoryQoS=true,MemoryQoS=false"], False),
        ("featureGates.AllBeta", ["--feature-gates= AllBeta = T "], True),
        ("featureGates", ["--feature-gates="], {}),
        ("kubeReserved", ["--kube-reserved=cpu=100m", "--kube-reserved=memory=1Gi"], {"cpu": "100m", "memory": "1Gi"}),
        ("evictionHard.memory.available", ["--eviction-hard=memory.available<750Mi,nodefs.available<10%"], "750Mi"),
        ("address", ["--address=::", "--address="], "::"),
        ("staticPodURLHeader", ["--manifest-url-header=a:b,a:c"], {"a": ["b", "c"]}),
        ("cpuManagerPolicyOptions", ["--cpu-manager-policy-options=strict=true,x"], {"strict": "true,x"}),
        (
            "registerWithTaints",
            ["--register-with-taints=a=b:NoSchedule,c:NoExecute"],
            [
                {"key": "a", "value": "b", "effect": "NoSchedule", "timeAdded": None},
                {"key": "c", "value": "", "effect": "NoExecute", "timeAdded": None},
            ],
        ),
        (
            "reservedMemory",
            ["--reserved-memory=0:memory=1Gi", "--reserved-memory=1:hugepages-2Mi=2Gi"],
            [
                {"numaNode": 0, "limits": {"memory": "1Gi"}},
                {"numaNode": 1, "limits": {"hugepages-2Mi": "2Gi"}},
            ],
        ),
    ],
)  # fmt: skip
def test_values(path: str, arguments: list[str], expected: object) -> None:
    assert value(path, *arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--no-such-flag=1"], "failed to parse kubelet flag: unknown flag: --no-such-flag"),
        (["--EVENT-QPS=0"], "failed to parse kubelet flag: unknown flag: --EVENT-QPS"),
        (["-event-qps=1"], "failed to parse kubelet flag: unknown shorthand flag: 'e' in -event-qps=1"),
        (["-1"], "failed to parse kubelet flag: unknown shorthand flag: '1' in -1"),
        (["---v=2"], "failed to parse kubelet flag: bad flag syntax: ---v=2"),
        (["--=2"], "failed to parse kubelet flag: bad flag syntax: --=2"),
        (["--event-qps"], "failed to parse kubelet flag: flag needs an argument: --event-qps"),
        (["-v"], "failed to parse kubelet flag: flag needs an argument: 'v' in -v"),
        (
            ["--v=x"],
            'failed to parse kubelet flag: invalid argument "x" for "-v, --v" flag: '
            'strconv.ParseUint: parsing "x": invalid syntax',
        ),
        (["--make-iptables-util-chains", "false"], "unknown command false"),
        (["--", "--event-qps=0"], "unknown command --event-qps=0"),
        (["-"], "unknown command -"),
        ([""], "unknown command "),
        (["--help"], "--help: the kubelet prints it and exits"),
        (["-h"], "--help: the kubelet prints it and exits"),
        (["--version"], "--version: the kubelet prints it and exits"),
        (["--version=raw"], "--version: the kubelet prints it and exits"),
        (
            ["--housekeeping-interval=x"],
            'failed to parse kubelet flag: invalid argument "x" for "--housekeeping-interval" flag: parse error',
        ),
        (
            ["--feature-gates=A"],
            'failed to parse kubelet flag: invalid argument "A" for "--feature-gates" flag: '
            "malformed pair, expect string=bool",
        ),
    ],
)
def test_refusals(arguments: list[str], expected: str) -> None:
    assert error(*arguments) == expected


@pytest.mark.parametrize(
    "argument",
    [
        "--address=1.2.3", "--register-with-taints=a=b", "--register-with-taints=a=b:Never", "--vmodule=a",
        "--reserved-memory=0", "--reserved-memory=0:disk=1Gi", "--log-json-info-buffer-size=x", "--max-pods=1.5",
        "--sync-frequency=5", '--cluster-dns=a"b', "--kube-reserved=cpu", "--eviction-hard=memory.available=1Gi",
        "--minimum-container-ttl-duration=x", "--application-metrics-count-limit=x", "--log-cadvisor-usage=x",
        "--seccomp-default=x", "--pod-max-pids=9223372036854775808", "--manifest-url-header=a", "--version=x",
        "--node-labels=kubernetes.io/role=agent", "--node-labels=a b=c", "--node-labels=a=b c",
    ],
)  # fmt: skip
def test_a_bad_value_of_any_flag_refuses(argument: str) -> None:
    assert (
        argument.partition("=")[0].lstrip("-") in error(argument)
        or "node labels" in error(argument)
        or "node-labels" in error(argument)
    )


def test_help_that_is_off_goes_on_unless_there_is_a_config() -> None:
    assert resolve(["kubelet", "--help=false", "--version=false"], {}).accepted
    # the second reading knows no --help, and ends there
    assert not resolve(["kubelet", "--help=false", "--config=/c"], {"/c": KIND}).accepted


def test_over_a_config_a_bare_library_flag_swallows_the_next_argument() -> None:
    """newFakeFlagSet: on the second reading cAdvisor's bool flags want a value, and take what comes next."""
    bare = ["--log-cadvisor-usage", "--make-iptables-util-chains=false"]
    assert value("makeIPTablesUtilChains", *bare) is False
    found = resolve(["kubelet", "--config=/c", *bare], {"/c": KIND})
    assert found.value("makeIPTablesUtilChains") is True
    assert found.assignments("makeIPTablesUtilChains") == ()
    assert (
        resolve(["kubelet", "--config=/c", "--log-cadvisor-usage=true", bare[1]], {"/c": KIND}).value(
            "makeIPTablesUtilChains"
        )
        is False
    )
    last = resolve(["kubelet", "--config=/c", "--log-cadvisor-usage"], {"/c": KIND})
    assert last.error == "failed to precedence kubeletConfigFlag: flag needs an argument: --log-cadvisor-usage"


@pytest.mark.parametrize(
    ("argument", "last"),
    [
        ("--pod-infra-container-image=pause:3.6", 34),
        ("--cloud-config=/etc/kubernetes/azure.json", 33),
        ("--register-schedulable", 33),
        ("--containerd=x", 36),
    ],
)
def test_flags_that_went(argument: str, last: int) -> None:
    assert resolve(["kubelet", argument], {}, version=f"1.{last}.4").accepted
    assert "unknown flag" in error(argument, version=f"v1.{last + 1}.0")


@pytest.mark.parametrize("minor", modelled_minors())
@pytest.mark.parametrize("argument", ["--container-runtime=remote", "--iptables-drop-bit=1", "--network-plugin=azure"])
def test_flags_that_went_long_ago(argument: str, minor: int) -> None:
    assert "unknown flag" in error(argument, version=f"1.{minor}.0")


@pytest.mark.parametrize("minor", modelled_minors())
def test_a_flags_only_aks_node_is_accepted(minor: int) -> None:
    flags = [
        "--enable-server", "--node-labels=agentpool=nodepool1,kubernetes.azure.com/mode=system", "--v=2",
        "--volume-plugin-dir=/etc/kubernetes/volumeplugins", "--kubeconfig", "/var/lib/kubelet/kubeconfig",
        "--bootstrap-kubeconfig", "/var/lib/kubelet/bootstrap-kubeconfig", "--runtime-request-timeout=15m",
        "--container-runtime-endpoint=unix:///run/containerd/containerd.sock", "--cgroup-driver=systemd",
        "--runtime-cgroups=/system.slice/containerd.service", "--address=0.0.0.0", "--anonymous-auth=false",
        "--authentication-token-webhook=true", "--authorization-mode=Webhook", "--cgroups-per-qos=true",
        "--client-ca-file=/etc/kubernetes/certs/ca.crt", "--cloud-provider=external", "--cluster-dns=10.0.0.10",
        "--cluster-domain=cluster.local", "--enforce-node-allocatable=pods", "--event-qps=0",
        "--eviction-hard=memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%",
        "--image-gc-high-threshold=85", "--image-gc-low-threshold=80", "--max-pods=110",
        "--image-credential-provider-bin-dir=/var/lib/kubelet/credential-provider",
        "--image-credential-provider-config=/var/lib/kubelet/credential-provider-config.yaml",
        "--kube-reserved=cpu=180m,memory=3645Mi,pid=1000", "--node-status-update-frequency=10s", "--pod-max-pids=-1",
        "--pod-manifest-path=/etc/kubernetes/manifests", "--protect-kernel-defaults=true", "--read-only-port=0",
        "--resolv-conf=/run/systemd/resolve/resolv.conf", "--rotate-certificates=true",
        "--streaming-connection-idle-timeout=4h", "--tls-cert-file=/etc/kubernetes/certs/kubeletserver.crt",
        "--tls-private-key-file=/etc/kubernetes/certs/kubeletserver.key", "--serialize-image-pulls=false",
        "--tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_RSA_WITH_AES_256_GCM_SHA384",
        "--feature-gates=RotateKubeletServerCertificate=true", "--rotate-server-certificates=true",
    ]  # fmt: skip
    if minor <= 34:
        flags.append("--pod-infra-container-image=mcr.microsoft.com/oss/kubernetes/pause:3.6")
    if minor <= 33:
        flags.append("--cloud-config=/etc/kubernetes/azure.json")
    found = resolve(["kubelet", *flags], {}, version=f"1.{minor}.2")
    assert found.error is None
    assert found.value("protectKernelDefaults") is True


@pytest.mark.parametrize("minor", modelled_minors())
def test_the_flags_of_a_minor_fit_its_settings(minor: int) -> None:
    rules = minor_rules(minor)
    assert len(rules.flags.by_name) > 100
    for flag in rules.flags.by_name.values():
        assert "_" not in flag.name
        assert (flag.scope == "config") == bool(flag.path)
        if flag.path:
            parts, kind = split_path(flag.path, rules.configuration)
            assert ".".join(parts) == flag.path
            while kind.kind == "pointer":
                kind = kind.inner
            assert kind.kind in _FITS[flag.kind], flag.name


_FITS = {
    "bool": {"bool"}, "int32": {"int"}, "int64": {"int"}, "uint32": {"uint"}, "duration": {"duration", "log_duration"},
    "string": {"string"}, "strings": {"slice"}, "bools": {"map"}, "pairs": {"map"}, "pairs_nosplit": {"map"},
    "thresholds": {"map"}, "headers": {"map"}, "ip": {"string"}, "taints": {"slice"}, "reserved_memory": {"slice"},
    "vmodule": {"slice"}, "quantity": {"quantity"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "config", "config_dir"),
    [
        (["kubelet"], None, None),
        (["kubelet", "--config", "/a", "--config-dir=/d"], "/a", "/d"),
        (["kubelet", "--config=/a", "--config=/b"], "/b", None),
        (["kubelet", "--config=/a", "--config="], None, None),
        (["kubelet", "--config_dir=/d", "--nope", "--config=/a", "stray", "-x", "--event-qps=x"], "/a", "/d"),
        (["kubelet", "--config"], None, None),
        (["kubelet", "--config=/a", "--", "--config=/b"], "/a", None),
        (["kubelet", "--cluster-domain", "--config=/a"], None, None),
        ([], None, None),
    ],
)
def test_config_paths(argv: list[str], config: str | None, config_dir: str | None) -> None:
    found = config_paths(argv)
    assert (found.config, found.config_dir) == (config, config_dir)


@given(st.lists(st.one_of(st.text(), st.sampled_from(["--config", "--v=2", "--", "-v", "--event-qps", "-h", CONFIG]))))
def test_any_command_line_is_read_to_its_end_or_its_first_error(arguments: list[str]) -> None:
    line = parse_flags(["kubelet", *arguments], FLAGS_36)
    if line.error is None:
        words = sum(given.source.words for given in line.given)
        assert words + len(line.arguments) + arguments.count("--") >= len(arguments)
    for given_flag in line.given:
        source = given_flag.source
        assert " ".join(["kubelet", *arguments][source.position : source.position + source.words]) == source.text


@given(st.sampled_from(sorted(FLAGS_36.by_name.values(), key=lambda flag: flag.name)), st.text(max_size=20))
def test_underscores_are_dashes(flag: Flag, text: str) -> None:
    name = flag.name
    dashes, underscores = (
        parse_flags(["kubelet", f"--{spelled}={text}"], FLAGS_36) for spelled in (name, name.replace("-", "_"))
    )
    assert dashes.error == underscores.error
    assert [given.value for given in dashes.given] == [given.value for given in underscores.given]
