"""From command line and files to the effective configuration: order, merge, defaults, sources, assignments."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kubelet import Assignment, Resolution, resolve
from shared.kubelet.minors import minor_rules
from shared.kubelet.schema import split_path
from tests.support.configs import CONFIG, DROPINS, JSON_KIND, KIND

CONFIGURATION = minor_rules(36).configuration


def with_config(text: str, *arguments: str, version: str | None = None) -> Resolution:
    return resolve(["kubelet", f"--config={CONFIG}", *arguments], {CONFIG: text}, version=version)


def with_dropins(*texts: str, base: str | None = None, arguments: tuple[str, ...] = ()) -> Resolution:
    files = {f"{DROPINS}/{at:02d}.conf": text for at, text in enumerate(texts)}
    if base is None:
        return resolve(["kubelet", f"--config-dir={DROPINS}", *arguments], files)
    return resolve(["kubelet", "--config", CONFIG, f"--config-dir={DROPINS}", *arguments], {CONFIG: base, **files})


# --- order and defaults ---


def test_a_bare_command_line_has_the_legacy_defaults() -> None:
    found = resolve(["kubelet"], {})
    assert [found.value(path) for path in _LEGACY] == [True, False, "AlwaysAllow", 10255]
    assert {str(found.source(path)) for path in _LEGACY} == {"default"}


def test_a_config_file_has_the_v1beta1_defaults_and_drop_ins_alone_the_legacy_ones() -> None:
    assert [with_config(KIND).value(path) for path in _LEGACY] == [False, True, "Webhook", 0]
    assert [with_dropins(KIND).value(path) for path in _LEGACY] == [True, False, "AlwaysAllow", 10255]
    # a drop-in's null takes the legacy value away, and the v1beta1 default comes in its place
    nulled = with_dropins(KIND + "readOnlyPort: null\nauthentication: null\n")
    assert [nulled.value(path) for path in _LEGACY] == [False, True, "AlwaysAllow", 0]


_LEGACY = (
    "authentication.anonymous.enabled", "authentication.webhook.enabled", "authorization.mode", "readOnlyPort",
)  # fmt: skip


def test_default_then_file_then_dropins_then_flags() -> None:
    path = "makeIPTablesUtilChains"
    off = KIND + "makeIPTablesUtilChains: false\n"
    on = KIND + "makeIPTablesUtilChains: true\n"
    assert with_config(KIND).value(path) is True
    assert with_config(off).value(path) is False
    assert with_dropins(on, base=off).value(path) is True
    assert with_dropins(on, off, base=on).value(path) is False
    flagged = with_dropins(on, off, base=on, arguments=("--make-iptables-util-chains", "-v=2"))
    assert flagged.value(path) is True
    assert str(flagged.source(path)) == "flag --make-iptables-util-chains (argument 4)"
    assert [(str(found.source), found.value) for found in flagged.assignments(path)] == [
        (f"{CONFIG}:3", True),
        (f"{DROPINS}/00.conf:3", True),
        (f"{DROPINS}/01.conf:3", False),
        ("flag --make-iptables-util-chains (argument 4)", True),
    ]


def test_zero_values_in_a_file_take_the_default_where_go_cannot_tell_them_from_unset() -> None:
    found = with_config(
        KIND + 'streamingConnectionIdleTimeout: "0"\neventRecordQPS: 0\nmaxPods: 0\nauthorization: {mode: ""}\n'
    )
    assert found.value("streamingConnectionIdleTimeout") == "4h0m0s"
    assert str(found.source("streamingConnectionIdleTimeout")) == "default"
    assert found.value("eventRecordQPS") == 0
    assert str(found.source("eventRecordQPS")) == f"{CONFIG}:4"
    assert found.value("maxPods") == 110
    assert found.value("authorization.mode") == "Webhook"
    assert with_config(KIND, "--streaming-connection-idle-timeout=0").value("streamingConnectionIdleTimeout") == "0s"


def test_dependent_defaults() -> None:
    assert with_config(KIND).value("nodeStatusReportFrequency") == "5m0s"
    assert with_config(KIND + "nodeStatusUpdateFrequency: 20s\n").value("nodeStatusReportFrequency") == "20s"
    assert with_config(KIND + "maxParallelImagePulls: 2\n").value("serializeImagePulls") is False
    assert with_config(KIND + "podPidsLimit: -7\n").value("podPidsLimit") == -1
    assert with_config(KIND).value("evictionHard.memory.available") == "100Mi"
    assert with_config(KIND + "evictionHard: {pid.available: 5%}\n").value("evictionHard") == {"pid.available": "5%"}
    merged = with_config(KIND + "evictionHard: {nodefs.available: 5%}\nmergeDefaultEvictionSettings: true\n")
    assert merged.value("evictionHard.nodefs.available") == "5%"
    assert merged.value("evictionHard.imagefs.available") == "15%"
    assert resolve(["kubelet"], {}).value("evictionHard") is None
    assert with_config(KIND).value("tlsCertFile") == "/var/lib/kubelet/pki/kubelet.crt"
    assert with_config(KIND, "--cert-dir=/certs/").value("tlsPrivateKeyFile") == "/certs/kubelet.key"
    assert with_config(KIND + "serverTLSBootstrap: true\n").value("tlsCertFile") == ""


def test_paths_in_the_config_file_are_relative_to_it() -> None:
    found = with_config(KIND + "staticPodPath: ../manifests\nauthentication: {x509: {clientCAFile: ca.crt}}\n")
    assert found.value("staticPodPath") == "/etc/manifests"
    assert found.value("authentication.x509.clientCAFile") == "/etc/default/ca.crt"
    assert with_dropins(KIND + "staticPodPath: manifests\n").value("staticPodPath") == "manifests"
    assert with_config(KIND, "--client-ca-file=ca.crt").value("authentication.x509.clientCAFile") == "ca.crt"


# --- the config file ---


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", f'kubelet config file "{CONFIG}" was empty'),
        ("{}", "failed to decode: Object 'Kind' is missing in '{}'"),
        ("[]", "failed to decode: couldn't get version/kind; json parse error: json: cannot unmarshal array"),
        ("kind: KubeletConfiguration\n", "failed to decode: Object 'apiVersion' is missing in"),
        ("kind: 1\napiVersion: v1\n", "failed to decode: couldn't get version/kind; json parse error"),
        ("kind: KubeletConfiguration\napiVersion: a/b/c\n", "failed to decode: unexpected GroupVersion string: a/b/c"),
        ("kind: Pod\napiVersion: v1\n", 'failed to decode: no kind "Pod" is registered for version "v1"'),
        (KIND.replace("v1beta1", "v1"), 'failed to decode: no kind "KubeletConfiguration" is registered for version'),
        (KIND.replace("KubeletConfiguration", "CredentialProviderConfig"), "failed to decode: failed to cast object"),
        (KIND + "maxPods: '5'\n", "json: cannot unmarshal string into Go struct field KubeletConfiguration.maxPods of"),
        (KIND + "maxPods: 2147483648\n", "json: cannot unmarshal number 2147483648 into Go struct field"),
        (
            KIND + "authentication: 1\n",
            "field KubeletConfiguration.authentication of type v1beta1.KubeletAuthentication",
        ),
        (KIND + "clusterDNS: 10.0.0.10\n", "KubeletConfiguration.clusterDNS of type []string"),
        (KIND + "kubeReserved: {cpu: 1}\n", "KubeletConfiguration.kubeReserved of type string"),
        (KIND + "syncFrequency: 5\n", "KubeletConfiguration.syncFrequency of type string"),
        (KIND + "syncFrequency: null\n", 'failed to decode: time: invalid duration ""'),
        (KIND + "logging: {verbosity: -1}\n", "LoggingConfiguration.logging.verbosity"),
        (KIND + "logging: {flushFrequency: 1.5}\n", "of type time.Duration"),
        (
            KIND + "reservedMemory: [{numaNode: 0, limits: {memory: 1X}}]\n",
            "quantities must match the regular expression",
        ),
        (KIND + "registerWithTaints: [{key: a, timeAdded: x}]\n", "parsing time"),
        (KIND + "featureGates: {NoSuchGate: true}\n", "unrecognized feature gate: NoSuchGate"),
        (KIND + "memoryThrottlingFactor: 1e999\n", "cannot unmarshal string"),
    ],
)
def test_config_files_that_refuse(text: str, error: str) -> None:
    found = with_config(text)
    prefix = (
        f"failed to load kubelet config file, path: {CONFIG}, "
        f"error: failed to load Kubelet config file {CONFIG}, error "
    )
    assert not found.accepted
    assert str(found.error).startswith(prefix)
    assert error in str(found.error)
    assert found.files_read == (CONFIG,)


def test_a_missing_config_file_refuses() -> None:
    found = resolve(["kubelet", "--config=/nowhere"], {})
    assert "open /nowhere: no such file or directory" in str(found.error)
    assert found.files_read == ("/nowhere",)


def test_unknown_wrongly_cased_and_doubled_keys_are_passed_over_in_the_config_file() -> None:
    found = with_config(KIND + "MakeIPTablesUtilChains: false\nnope: {a: 1}\nmaxPods: 1\nmaxPods: 2\n")
    assert found.value("makeIPTablesUtilChains") is True
    assert found.value("maxPods") == 2
    # only the kind is looked for in any case
    assert with_config(KIND.replace("kind", "KIND") + "maxPods: 3\n").value("maxPods") == 3


def test_a_doubled_json_key_decodes_onto_the_first_one() -> None:
    found = with_config(
        f'{{{JSON_KIND}, "authentication": {{"anonymous": {{"enabled": true}}}}, "authentication": {{"webhook": null}},'
        ' "rotateCertificates": true, "rotateCertificates": null, "eventRecordQPS": 7, "eventRecordQPS": null}'
    )
    assert found.value("authentication.anonymous.enabled") is True
    assert found.value("rotateCertificates") is True
    assert found.value("eventRecordQPS") == 50
    doubled = (
        KIND
        + "authentication: {anonymous: {enabled: true}}\nauthentication: {}\n"
        + "rotateCertificates: true\nrotateCertificates:\n"
    )
    assert with_config(doubled).value("authentication.anonymous.enabled") is False
    assert with_config(doubled).value("rotateCertificates") is False


def test_json_numbers_are_read_strictly_and_yaml_numbers_by_value() -> None:
    assert with_config(KIND + "maxPods: 1e2\n").value("maxPods") == 100
    assert not with_config(f'{{{JSON_KIND}, "maxPods": 1e2}}').accepted
    assert with_dropins(f'{{{JSON_KIND}, "maxPods": 1e2}}').value("maxPods") == 100
    assert not with_dropins(f'{{{JSON_KIND}, "maxPods": 1e2000}}').accepted


def test_lists_and_maps_keep_empty_and_nil_apart() -> None:
    found = with_config(KIND + "tlsCipherSuites: []\nfeatureGates: {}\nenforceNodeAllocatable: []\n")
    assert [found.value(path) for path in ("tlsCipherSuites", "featureGates", "enforceNodeAllocatable")] == [[], {}, []]
    assert found.value("featureGates.Any") is None
    assert with_config(KIND).value("featureGates") is None
    # on the way through the merge an empty list is left out, and the default comes back
    merged = with_dropins(KIND, base=KIND + "tlsCipherSuites: []\nenforceNodeAllocatable: []\n")
    assert merged.value("tlsCipherSuites") is None
    assert merged.value("enforceNodeAllocatable") == ["pods"]


def test_a_null_in_a_map_is_its_zero_value() -> None:
    gates = KIND + "featureGates: {MemoryQoS: null}\n"
    assert with_config(gates).value("featureGates.MemoryQoS") is False
    assert with_dropins(gates).value("featureGates") == {}  # in a drop-in a null only takes away


# --- drop-ins ---


def test_which_files_are_drop_ins_and_in_which_order() -> None:
    names = [
        "zz.yaml",
        "10.conf",
        "5.conf",
        "10.conf.bak",
        "sub/1.conf",
        "sub.conf",
        ".conf",
        "a.CONF",
        "a/b/c.conf",
        "B.conf",
    ]
    files = {f"{DROPINS}/{name}": KIND for name in names}
    found = resolve(["kubelet", f"--config-dir={DROPINS}/"], {**files, "/other/1.conf": "x", f"{DROPINS}x/1.conf": "x"})
    assert found.accepted
    assert [path.removeprefix(f"{DROPINS}/") for path in found.files_read] == [
        ".conf", "10.conf", "5.conf", "B.conf", "a/b/c.conf", "sub/1.conf", "sub.conf",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "was empty"),
        ("maxPods: 1\n", "Object 'Kind' is missing in 'maxPods: 1 '"),
        (KIND.replace("kind", "Kind"), "Object 'Kind' is missing in"),
        (KIND.replace("v1beta1", "v1"), "unknown apiVersion/kind: kubelet.config.k8s.io/v1, Kind=KubeletConfiguration"),
        ("kind: KubeletConfiguration\n", "unknown apiVersion/kind: , Kind=KubeletConfiguration"),
        (KIND + "maxPods: 1\nmaxPods: 1\n", 'strict decoding error: key "maxPods" already set in map'),
        (f'{{{JSON_KIND}, "a": {{"b": 1, "b": 1}}}}', 'strict decoding error: duplicate field "b"'),
        (f"{{{JSON_KIND}, }}", "json parse error: invalid character '}'"),
    ],
)
def test_drop_ins_that_refuse(text: str, error: str) -> None:
    found = with_dropins(text)
    prefix = (
        f'failed to merge kubelet configs: failed to walk through kubelet dropin directory "{DROPINS}": '
        f"failed to load kubelet dropin file, path: {DROPINS}/00.conf, error: "
    )
    assert not found.accepted
    assert str(found.error).startswith(prefix)
    assert error in str(found.error)


def test_a_wrong_type_counts_only_after_the_merge() -> None:
    assert with_dropins(KIND + "maxPods: x\n", KIND + "maxPods: 5\n").value("maxPods") == 5
    found = with_dropins(KIND + "maxPods: x\n")
    assert found.error == (
        "failed to merge kubelet configs: failed to unmarshal merged JSON into kubelet configuration: "
        "json: cannot unmarshal string into Go struct field KubeletConfiguration.maxPods of type int32"
    )


def test_objects_merge_lists_replace_and_nulls_remove() -> None:
    base = (
        KIND
        + "authentication: {webhook: {enabled: false, cacheTTL: 1m}}\n"
        + "clusterDNS: [10.0.0.10]\nfeatureGates: {AllBeta: true}\n"
    )
    found = with_dropins(
        KIND
        + "authentication: {webhook: {enabled: null}}\n"
        + "clusterDNS: [null, 10.0.0.11]\nfeatureGates: {AllAlpha: false}\n",
        base=base,
    )
    assert found.value("authentication.webhook.enabled") is True
    assert found.value("authentication.webhook.cacheTTL") == "1m0s"
    assert found.value("clusterDNS") == ["", "10.0.0.11"]  # only the nulls of objects go
    assert found.value("featureGates") == {"AllBeta": True, "AllAlpha": False}
    assert str(found.source("featureGates.AllBeta")) == f"{CONFIG}:5"
    assert str(found.source("featureGates.AllAlpha")) == f"{DROPINS}/00.conf:5"


def test_a_drop_in_may_spell_a_key_in_any_case() -> None:
    """The merged JSON is decoded by encoding/json; what is sorted last counts."""
    path = "makeIPTablesUtilChains"
    assert with_dropins(KIND + "makeIptablesUtilChains: false\n").value(path) is False
    assert with_dropins(KIND + "MakeIPTablesUtilChains: false\n").value(path) is True
    gone = with_dropins(KIND + "MakeIPTablesUtilChains: false\nmakeIPTablesUtilChains: null\n")
    assert gone.value(path) is False
    assert [found.value for found in gone.assignments(path)] == [False, None]


# --- feature gates ---


def test_gates_of_flags_and_files_come_together_and_the_flag_wins() -> None:
    found = with_config(KIND + "featureGates: {AllBeta: true, MemoryQoS: true}\n", "--feature-gates=MemoryQoS=false")
    assert found.value("featureGates") == {"AllBeta": True, "MemoryQoS": False}
    assert found.source("featureGates.MemoryQoS").kind == "flag"
    assert str(found.source("featureGates.AllBeta")) == f"{CONFIG}:3"
    assert [(each.source.kind, each.value) for each in found.assignments("featureGates.MemoryQoS")] == [
        ("file", True),
        ("flag", False),
    ]


@pytest.mark.parametrize(
    ("gates", "version", "error"),
    [
        ("NoSuchGate=true", None, "unrecognized feature gate: NoSuchGate"),
        ("NoSuchGate=true", "1.31.1", "unrecognized feature gate: NoSuchGate"),
        ("MemoryQoS=true", "1.31.0", None),
        ("NodeSwap=false", None, "cannot set feature gate NodeSwap to false, feature is locked to true"),
        ("NodeSwap=false", "1.31.0", None),
        ("NodeSwap=true", None, None),
        ("GitRepoVolumeDriver=true", None, "feature is locked to false"),
        ("RotateKubeletServerCertificate=false", None, None),
        ("GracefulNodeShutdown=false", None, "GracefulNodeShutdownBasedOnPodPriority is enabled, but depends on"),
        ("GracefulNodeShutdown=false", "1.31.0", None),
        (
            "GracefulNodeShutdown=false,GracefulNodeShutdownBasedOnPodPriority=false",
            None,
            "WindowsGracefulNodeShutdown is enabled, but depends on",
        ),
    ],
)
def test_gates_by_version(gates: str, version: str | None, error: str | None) -> None:
    by_flag = resolve(["kubelet", f"--feature-gates={gates}"], {}, version=version)
    pairs = json.dumps({name: value == "true" for name, value in (pair.split("=") for pair in gates.split(","))})
    by_file = with_config(KIND + f"featureGates: {pairs}\n", version=version)
    for found in (by_flag, by_file):
        assert (found.error is None) == (error is None)
        assert error is None or error in str(found.error)


def test_a_default_stays_behind_when_its_gate_goes_after_defaulting() -> None:
    """Defaults see the flags' gates and the file's own, but the flags alone and drop-ins come after them."""
    flag, gates = (
        "--feature-gates=KubeletCrashLoopBackOffMax=false",
        "featureGates: {KubeletCrashLoopBackOffMax: false}\n",
    )
    refusal = "FeatureGate KubeletCrashLoopBackOffMax not enabled, CrashLoopBackOff.MaxContainerRestartPeriod must not"
    assert with_config(KIND + gates).accepted
    assert with_config(KIND, flag).accepted
    assert refusal in str(resolve(["kubelet", flag], {}).error)
    assert refusal in str(with_dropins(KIND + gates, base=KIND).error)


# --- validation ---


@pytest.mark.parametrize(
    ("argument", "error"),
    [
        ("--event-qps=-1", "eventRecordQPS (--event-qps) -1 must not be a negative number"),
        ("--read-only-port=70000", "readOnlyPort (--read-only-port) 70000 must be between 0 and 65535, inclusive"),
        ("--port=0", "port (--port) 0 must be between 1 and 65535, inclusive"),
        ("--healthz-port=-1", "healthzPort (--healthz-port) -1 must be between 1 and 65535, inclusive"),
        ("--image-gc-high-threshold=101", "(--image-gc-high-threshold) 101 must be between 0"),
        ("--image-gc-low-threshold=85", "imageGCLowThresholdPercent (--image-gc-low-threshold) 85 must be less than"),
        ("--oom-score-adj=-1001", "oomScoreAdj"),
        ("--node-status-max-images=-2", "nodeStatusMaxImages"),
        ("--cpu-cfs-quota-period=2s", "cpuCFSQuotaPeriod"),
        ("--minimum-image-ttl-duration=-1s", "imageMinimumGCAge -1s must not be negative"),
        ("--system-cgroups=/sys", "systemCgroups"),
        ("--topology-manager-policy=best", "topologyManagerPolicy"),
        ("--topology-manager-scope=node", "topologyManagerScope"),
        ("--hairpin-mode=x", "hairpinMode"),
        ("--enforce-node-allocatable=pods,pods", "duplicated enforcements"),
        ("--enforce-node-allocatable=none,pods", "may not contain additional enforcements"),
        ("--enforce-node-allocatable=kube-reserved", "kubeReservedCgroup (--kube-reserved-cgroup) must be specified"),
        ("--enforce-node-allocatable=x", 'option "x" specified for enforceNodeAllocatable'),
        ("--cgroups-per-qos=false", "cgroupsPerQOS (--cgroups-per-qos) must be set to true"),
        ("--reserved-cpus=3-1", "unable to parse reservedSystemCPUs"),
        ("--container-runtime-endpoint=", "the containerRuntimeEndpoint was not specified or empty"),
        ("--container-log-max-files=1", "containerLogMaxFiles must be greater than 1"),
        ("--logging-format=xml", "initialize logging: logging.format"),
        ("--log-json-split-stream", "Feature LoggingAlphaOptions is disabled"),
        ("--vmodule=a=1 --logging-format=json", "Only supported for text log format"),
        ("--v=4294967295", "logging.verbosity"),
        ("--tls-cipher-suites=NOPE", "failed to construct kubelet dependencies: Cipher suite NOPE not supported"),
        ("--tls-min-version=VersionSSL30", 'unknown tls version "VersionSSL30"'),
        ("--runonce", "Runonce mode has been deprecated"),
        ("--rotate-server-certificates --feature-gates=RotateKubeletServerCertificate=false", "requires feature gate"),
        ("--reserved-memory=0:memory=0", "reserved memory may not be zero for NUMA node 0"),
        ("--reserved-memory=0:memory=1 --reserved-memory=0:memory=1", "duplicate value for NUMA node 0"),
    ],
)  # fmt: skip
def test_validation_of_flags(argument: str, error: str) -> None:
    found = resolve(["kubelet", *argument.split()], {})
    assert not found.accepted
    assert error in str(found.error)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("nodeLeaseDurationSeconds: -1", "nodeLeaseDurationSeconds must be greater than 0"),
        ("imageMaximumGCAge: 1m", "imageMaximumGCAge 1m0s must be greater than imageMinimumGCAge 2m0s"),
        ("maxParallelImagePulls: 0", "maxParallelImagePulls 0 must be a positive number"),
        ("maxParallelImagePulls: 2\nserializeImagePulls: true", "maxParallelImagePulls cannot be larger than 1"),
        ("shutdownGracePeriod: 500ms", "shutdownGracePeriod 500ms must be either zero or otherwise >= 1 sec"),
        ("shutdownGracePeriodCriticalPods: 5s", "shutdownGracePeriodCriticalPods 5s must be <= shutdownGracePeriod 0s"),
        ("memorySwap: {swapBehavior: Much}", "memorySwap.swapBehavior"),
        ("crashLoopBackOff: {maxContainerRestartPeriod: 301s}", "must be set between 1s and 300s"),
        ("imagePullCredentialsVerificationPolicy: Maybe", 'option "Maybe" specified for imagePullCredentials'),
        ("preloadedImagesVerificationAllowlist: [a]", "can't set `preloadedImagesVerificationAllowlist`"),
        ("memoryThrottlingFactor: 1.5", "memoryThrottlingFactor 1.5 must be greater than 0"),
        ("memoryReservationPolicy: TieredReservation", "requires MemoryQoS feature gate"),
        ("containerLogMaxWorkers: 0", "containerLogMaxWorkers"),
        ("containerLogMonitorInterval: 2s", "containerLogMonitorInterval"),
        ("podLogsDir: /var/log/..", "pod logs path"),
        ("enableSystemLogQuery: true\nenableSystemLogHandler: false", "enableSystemLogHandler is required"),
        ("showHiddenMetricsForVersion: '1.0'", "--show-hidden-metrics-for-version must be omitted"),
        ("registerWithTaints: [{key: 'a b', effect: NoSchedule}]", "invalid taint"),
        ("tracing: {samplingRatePerMillion: -1}", "tracing.samplingRatePerMillion"),
        (
            "shutdownGracePeriod: 5s\nshutdownGracePeriodByPodPriority: [{priority: 1, shutdownGracePeriodSeconds: 1}]",
            "Cannot specify both",
        ),
    ],
)  # fmt: skip
def test_validation_of_the_config(line: str, error: str) -> None:
    found = with_config(KIND + line + "\n")
    assert not found.accepted
    assert error in str(found.error)


@pytest.mark.parametrize(
    ("pattern", "accepted"),
    [
        ("mcr.microsoft.com/*", True), ("mcr.microsoft.com/oss/kubernetes/pause", True), ("localhost/a", True),
        ("registry:5000/a", True), ("[::1]/a", True), ("Registry/a", True), ("docker.io/library/nginx", True),
        ("docker.io/nginx", False), ("index.docker.io/library/nginx", False), ("nginx", False), ("registry/a", False),
        ("mcr.microsoft.com/a:1", False), ("mcr.microsoft.com/A", False), ("mcr.microsoft.com/a*", False),
        ("*/*", False), ("/*", False), ("", False), (" a.b/c", False), ("mcr.microsoft.com/", False),
        (f"a.b/{'c' * 255}", True), (f"a.b/{'c' * 256}", False),
    ],
)  # fmt: skip
def test_image_patterns_of_the_allowlist(pattern: str, accepted: bool) -> None:
    policy = "imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages\n"
    allowed = f"preloadedImagesVerificationAllowlist: {json.dumps([pattern])}\n"
    assert with_config(KIND + policy + allowed).accepted is accepted


def test_several_problems_come_in_brackets() -> None:
    found = resolve(["kubelet", "--event-qps=-1", "--port=0"], {})
    assert found.error == (
        "failed to validate kubelet configuration, error: ["
        "invalid configuration: eventRecordQPS (--event-qps) -1 must not be a negative number, "
        "invalid configuration: port (--port) 0 must be between 1 and 65535, inclusive]"
    )


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("singleProcessOOMKill: 1", 32), ("crashLoopBackOff: 1", 32), ("mergeDefaultEvictionSettings: 1", 33),
        ("tlsCurvePreferences: 1", 36), ("memoryReservationPolicy: 1", 36), ("defaultPodSysctls: 1", 37),
    ],
)  # fmt: skip
def test_a_field_of_a_later_version_is_passed_over(line: str, first: int) -> None:
    assert with_config(KIND + line + "\n", version=f"1.{first - 1}.0").accepted
    assert not with_config(KIND + line + "\n", version=f"1.{first}.0").accepted


@pytest.mark.parametrize(
    ("version", "like", "modelled"),
    [
        ("", "1.36", False), ("latest", "1.36", False), ("2.0", "1.36", False), (None, "1.36", False),
        ("1.28.9", "1.31", False), ("1.99.0", "1.37", False), ("v1.31.13", "1.31", True), ("1.37.2", "1.37", True),
    ],
)  # fmt: skip
def test_a_version_without_data_has_the_nearest_rules_and_says_so(
    version: str | None, like: str, modelled: bool
) -> None:
    for argument in ("--cloud-config=x", "--containerd=x"):  # gone since 1.34 and 1.37
        found = resolve(["kubelet", argument], {}, version=version)
        assert found.accepted is resolve(["kubelet", argument], {}, version=like).accepted
        assert found.modelled is modelled


# --- drop-ins of 1.31 ---


def of_1_31(*dropins: str, base: str = KIND, arguments: tuple[str, ...] = ()) -> Resolution:
    files = {f"{DROPINS}/{at}.conf": text for at, text in enumerate(dropins)} | {CONFIG: base}
    return resolve(["kubelet", f"--config={CONFIG}", f"--config-dir={DROPINS}", *arguments], files, version="1.31.13")


@pytest.mark.parametrize(
    ("path", "base", "dropin", "expected"),
    [
        ("authentication.anonymous.enabled", "authentication: {anonymous: {enabled: true}}\n",
         "authentication: null\n", True),
        ("makeIPTablesUtilChains", "makeIPTablesUtilChains: false\n", "makeIPTablesUtilChains: null\n", False),
        ("makeIPTablesUtilChains", "", "makeIPTablesUtilChains: false\n", False),
        ("makeIPTablesUtilChains", "", "MAKEIPTABLESUTILCHAINS: false\n", True),  # sorts before the kubelet's own name
        ("makeIPTablesUtilChains", "", "makeiptablesutilchains: false\n", False),
        ("makeIPTablesUtilChains", "", "MakeIPTablesUtilChains: false\n", False),
        ("authorization.mode", "", "authorization: {mode: ''}\n", ""),
        ("readOnlyPort", "readOnlyPort: 5\n", "readOnlyPort: 0\n", 0),
        ("streamingConnectionIdleTimeout", "", "streamingConnectionIdleTimeout: 0s\n", "0s"),
        ("resolvConf", "resolvConf: /a\n", "resolvConf: /b\n", "/a"),  # its name there is ResolverConfig
        ("evictionHard", "evictionHard: {a: '1'}\n", "evictionHard: {b: '2'}\n", {"a": "1", "b": "2"}),
        ("clusterDNS", "clusterDNS: [a, b]\n", "clusterDNS: [null, c]\n", ["a", "c"]),
        ("podPidsLimit", "podPidsLimit: 5\n", "podPidsLimit: -5\n", -5),
    ],
)  # fmt: skip
def test_drop_ins_of_1_31_are_merged_onto_the_internal_type(
    path: str, base: str, dropin: str, expected: object
) -> None:
    found = of_1_31(KIND + dropin, base=KIND + base)
    assert found.accepted, found.error
    assert found.value(path) == expected


def test_in_1_31_a_null_takes_back_what_an_earlier_drop_in_said() -> None:
    off, null = (KIND + f"makeIPTablesUtilChains: {value}\n" for value in ("false", "null"))
    assert of_1_31(off, null).value("makeIPTablesUtilChains") is True
    assert of_1_31(off, null, base=off).value("makeIPTablesUtilChains") is False
    assert str(of_1_31(off).source("makeIPTablesUtilChains")) == f"{DROPINS}/0.conf:3"


def test_1_31_takes_a_drop_in_of_any_kind() -> None:
    text = "kind: Pod\napiVersion: v1\nmakeIPTablesUtilChains: false\n"
    assert of_1_31(text).value("makeIPTablesUtilChains") is False
    assert not with_dropins(text).accepted


# --- what stops a kubelet whose configuration is taken ---


@pytest.mark.parametrize("version", ["1.31.0", "1.35.0", "1.36.0", "1.37.0"])
def test_a_client_ca_file_that_is_not_there_refuses(version: str) -> None:
    asked: list[str] = []

    def nothing(path: str) -> bool:
        asked.append(path)
        return False

    text = KIND + "authentication: {x509: {clientCAFile: pki/ca.crt}}\n"
    argv = ["kubelet", f"--config={CONFIG}"]
    found = resolve(argv, {CONFIG: text}, version=version, exists=nothing)
    assert "/etc/default/pki/ca.crt: no such file or directory" in str(found.error)
    relative = resolve([*argv, "--client-ca-file=ca.crt"], {CONFIG: text}, version=version, cwd="/w", exists=nothing)
    assert "open ca.crt: no such file or directory" in str(relative.error)
    assert asked == ["/etc/default/pki/ca.crt", "/w/ca.crt"]
    assert resolve([*argv, "--client-ca-file="], {CONFIG: text}, version=version, exists=nothing).accepted
    assert resolve(argv, {CONFIG: text}, version=version, exists=lambda path: path.startswith("/etc/")).accepted


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--authorization-mode=RBAC",), "unknown authorization mode RBAC"),
        (("--authorization-mode=",), "no authorization mode specified"),
        (("--authorization-mode=RBAC", "--authentication-token-webhook", "--kubeconfig=/k"), "authorization mode RBAC"),
        (("--authorization-mode=Webhook", "--authentication-token-webhook", "--kubeconfig=/k"), None),
        # such a kubelet ends for want of an API server before it looks at its mode
        (("--authorization-mode=RBAC", "--authentication-token-webhook"), None),
        (("--exit-on-lock-contention",), "cannot exit on lock file contention: no lock file specified"),
        (("--exit-on-lock-contention", "--lock-file=/run/lock"), None),
        (("--cloud-provider=azure",), None),
        (("--hostname-override= ",), "empty hostname is invalid"),
    ],
)
def test_what_stops_a_kubelet_after_its_configuration_was_taken(arguments: tuple[str, ...], error: str | None) -> None:
    found = resolve(["kubelet", *arguments], {})
    assert found.accepted is (error is None)
    assert error is None or error in str(found.error)


def test_until_1_33_only_an_external_cloud_provider_is_known() -> None:
    assert not resolve(["kubelet", "--cloud-provider=azure"], {}, version="1.31.2").accepted
    assert resolve(["kubelet", "--cloud-provider=external"], {}, version="1.31.2").accepted


# --- the working directory and the listing ---


def test_relative_paths_start_at_the_working_directory() -> None:
    off = KIND + "makeIPTablesUtilChains: false\n"
    argv = ["kubelet", "--config=conf/c.yaml", "--config-dir=d"]
    files = {"/work/conf/c.yaml": off, "/work/d/1.conf": KIND + "readOnlyPort: 5\n", "/d/1.conf": KIND + "port: 0\n"}
    found = resolve(argv, files, cwd="/work")
    assert (found.value("makeIPTablesUtilChains"), found.value("readOnlyPort")) == (False, 5)
    assert not resolve(argv, files).accepted


def test_the_listing_says_which_drop_ins_are_read_and_in_which_order() -> None:
    files = {f"/d/{name}.conf": KIND + f"readOnlyPort: {port}\n" for name, port in (("a", 1), ("b", 2), ("c", 3))}
    asked: list[str] = []

    def listing(directory: str) -> list[str]:
        asked.append(directory)
        return ["/d/b.conf", "/d/a.conf"]

    found = resolve(["kubelet", "--config-dir=d/"], files, listing=listing)
    assert found.value("readOnlyPort") == 1
    assert found.files_read == ("/d/b.conf", "/d/a.conf")
    assert set(asked) == {"/d/"}

    def gone(directory: str) -> list[str]:
        raise FileNotFoundError(directory)

    nowhere = resolve(["kubelet", "--config-dir=/d"], files, listing=gone)
    assert "lstat /d: no such file or directory" in str(nowhere.error)
    missing = resolve(["kubelet", "--config-dir=/d"], files, listing=lambda directory: ["/d/b.conf", "/d/x.conf"])
    assert "open /d/x.conf: no such file or directory" in str(missing.error)


# --- gates that stay ---


def test_a_group_that_was_switched_stays_so_when_a_file_switches_it_back() -> None:
    """The flags' AllBeta is set before the file is read; the file's own then finds every beta gate set."""
    text = KIND + "featureGates: {AllBeta: false}\n"
    found = with_config(text, "--feature-gates=AllBeta=true")
    assert found.accepted, found.error
    assert found.value("crashLoopBackOff.maxContainerRestartPeriod") == "5m0s"
    assert with_config(text).value("crashLoopBackOff.maxContainerRestartPeriod") is None


# --- limits of ours ---


def test_a_limit_of_ours_is_no_refusal_of_the_kubelet() -> None:
    for found in (
        with_config(KIND + "x: [" + "a," * 60_000 + "a]\n"),
        with_dropins(KIND + "x: [" + "a," * 60_000 + "a]\n"),
        with_config('{"x": [' + "0," * 60_000 + "0]}"),
        resolve(["kubelet", *["--enable-server"] * 20_000], {}),
    ):
        assert not found.accepted
        assert found.limit == found.error
        assert "which is a limit of ours" in found.limit
    assert with_config(KIND + "x: [a\n").limit == ""


def test_an_error_can_be_written_whatever_bytes_it_quotes() -> None:
    argv = ["kubelet", os.fsdecode(b"--make-iptables-util-chains=\xff")]
    assert "parsing" in str(resolve(argv, {}).error)
    str(resolve(argv, {}).error).encode("utf-8")


def test_a_value_that_nests_deep_can_be_shown() -> None:
    found = with_config(KIND + "makeIPTablesUtilChains: " + "[" * 9000 + "]" * 9000 + "\n")
    assert not found.accepted
    (assignment,) = found.assignments("makeIPTablesUtilChains")
    assert "…" in repr(assignment.value)
    assert with_config(KIND + "x: " + "[" * 9000 + "]" * 9000 + "\n").accepted


# --- what is asked of a resolution ---


def test_assignments_name_every_place() -> None:
    config = f'{{{JSON_KIND},\n "readOnlyPort": 1,\n "readOnlyPort": "x", "ReadOnlyPort": 3}}'
    found = resolve(["kubelet", "--read_only_port", "5", f"--config={CONFIG}", "--read-only-port=6"], {CONFIG: config})
    assert not found.accepted
    assert [
        (each.source.line, each.value, config[slice(*each.span)] if each.span else each.source.text)
        for each in found.assignments("readOnlyPort")
    ] == [(2, 1, "1"), (3, "x", '"x"'), (0, 5, "--read_only_port 5"), (0, 6, "--read-only-port=6")]
    assert [each.source.words for each in found.assignments("readOnlyPort")[2:]] == [2, 1]
    assert found.assignments("makeIPTablesUtilChains") == ()


def test_assignments_in_yaml() -> None:
    text = KIND + "x: &off false\nmakeIPTablesUtilChains: true\nmakeIPTablesUtilChains: *off\nmaxPods:\n"
    found = with_config(text)
    first, second = found.assignments("makeIPTablesUtilChains")
    assert (first.value, second.value, str(found.source("makeIPTablesUtilChains"))) == (True, False, f"{CONFIG}:5")
    assert text[slice(*second.span or (0, 0))] == "*off"
    (left_out,) = found.assignments("maxPods")
    assert left_out.value is None
    assert left_out.span == (text.index("maxPods:") + 8,) * 2


def test_assignments_where_files_cannot_be_read() -> None:
    found = resolve(
        ["kubelet", f"--config={CONFIG}", f"--config-dir={DROPINS}", "--make-iptables-util-chains=f"],
        {CONFIG: "{", f"{DROPINS}/1.conf": "makeIPTablesUtilChains: false\n", f"{DROPINS}/2.conf": ""},
    )
    assert not found.accepted
    assert [str(each.source) for each in found.assignments("makeIPTablesUtilChains")] == [
        f"{DROPINS}/1.conf:1",
        "flag --make-iptables-util-chains=f (argument 3)",
    ]
    assert found.files_read == (CONFIG, f"{DROPINS}/1.conf", f"{DROPINS}/2.conf")


def test_questions_that_have_no_answer() -> None:
    found = resolve(["kubelet"], {})
    for path in (
        "",
        "makeIpTablesUtilChains",
        "authentication.anonymous.nope",
        "makeIPTablesUtilChains.x",
        "registerWithTaints.0",
    ):
        with pytest.raises(KeyError, match="not a path of KubeletConfiguration"):
            found.value(path)
    refused = resolve(["kubelet", "stray"], {})
    with pytest.raises(ValueError, match="unknown command stray"):
        refused.value("readOnlyPort")
    with pytest.raises(ValueError, match="unknown command stray"):
        refused.source("readOnlyPort")


@pytest.mark.parametrize(
    ("argv", "files", "version"),
    [("kubelet", {}, None), ([1], {}, None), (None, {}, None), ([], {"a": 1}, None), ([], [], None), ([], {}, 1.3)],
)  # fmt: skip
def test_wrong_argument_types(argv: object, files: object, version: object) -> None:
    with pytest.raises(TypeError):
        resolve(argv, files, version=version)  # type: ignore[arg-type]


def test_every_field_has_a_value_and_a_source() -> None:
    found = with_config(KIND)
    for name in CONFIGURATION.fields:
        found.value(name)
        expected = "file" if name in ("kind", "apiVersion") else "default"
        assert found.source(name).kind == expected


# --- properties ---

BOOL_TEXT = {True: ["1", "t", "T", "TRUE", "true", "True"], False: ["0", "f", "F", "FALSE", "false", "False"]}
BOOL_FLAGS = [flag for flag in minor_rules(36).flags.by_name.values() if flag.kind == "bool" and flag.scope == "config"]
HARMLESS_BOOLS = [
    flag for flag in BOOL_FLAGS if flag.name not in ("runonce", "cgroups-per-qos") and "split" not in flag.name
]


@given(st.data())
def test_the_last_of_a_repeated_flag_wins_and_a_flag_beats_every_file(data: st.DataObject) -> None:
    flag = data.draw(st.sampled_from(HARMLESS_BOOLS))
    values = data.draw(st.lists(st.booleans(), min_size=1, max_size=4))
    arguments = [f"--{flag.name}={data.draw(st.sampled_from(BOOL_TEXT[value]))}" for value in values]
    nested: object = data.draw(st.booleans())
    for part in reversed(flag.path.split(".")):
        nested = {part: nested}
    text = json.dumps({"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1", **dict(nested)})  # type: ignore[call-overload]
    paths = data.draw(st.sampled_from([[], ["--config=/c"], ["--config-dir=/d"], ["--config=/c", "--config-dir=/d"]]))
    at = data.draw(st.integers(0, len(arguments)))
    argv = ["kubelet", *arguments[:at], *paths, *arguments[at:]]
    found = resolve(argv, {"/c": text, "/d/1.conf": text})
    assert found.accepted, found.error
    assert found.value(flag.path) is values[-1]
    assert found.source(flag.path).text == arguments[-1]
    assert len(found.assignments(flag.path)) == len(values) + len(paths)


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "makeIPTablesUtilChains": st.booleans() | st.none(),
        "readOnlyPort": st.integers(0, 65535),
        "eventRecordQPS": st.integers(0, 2**31 - 1) | st.none(),
        "streamingConnectionIdleTimeout": st.sampled_from(["0", "5m", "-1s", "4h0m0s"]),
        "clusterDNS": st.lists(st.sampled_from(["10.0.0.10", "::1"]), max_size=2),
        "featureGates": st.dictionaries(st.sampled_from(["PodsAPI", "MemoryQoS", "AllAlpha"]), st.just(False)),
        "authentication": st.fixed_dictionaries(
            {}, optional={"anonymous": st.fixed_dictionaries({}, optional={"enabled": st.booleans() | st.none()})}
        ),
        "kubeReserved": st.dictionaries(st.sampled_from(["cpu", "memory"]), st.sampled_from(["1", "100m"])),
        "resolvConf": st.sampled_from(["", "/run/resolv.conf"]),
    },
)


def yaml_of(value: object, indent: int = 0) -> str:
    """A plain block style, without a library's own opinions."""
    if isinstance(value, dict) and value:
        lines = [
            f"{' ' * indent}{key}:"
            + (f"\n{yaml_of(item, indent + 2)}" if isinstance(item, dict) and item else f" {yaml_of(item)}")
            for key, item in value.items()
        ]
        return "\n".join(lines)
    return json.dumps(value)


@given(
    SETTINGS,
    SETTINGS,
    st.lists(st.sampled_from(["--event-qps=3", "--client-ca-file=x", "--feature-gates=MemoryQoS=false"])),
)
def test_json_and_yaml_of_the_same_config_agree(
    first: dict[str, object], second: dict[str, object], flags: list[str]
) -> None:
    outcomes = []
    kinds = {"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"}
    for write in (json.dumps, yaml_of, lambda value: json.dumps(value, indent=4)):
        files = {"/c": write({**kinds, **first}), "/d/1.conf": write({**second, **kinds})}
        found = resolve(["kubelet", "--config=/c", "--config-dir=/d", *flags], files)
        assert found.accepted, found.error
        outcomes.append({name: found.value(name) for name in CONFIGURATION.fields})
    assert outcomes[0] == outcomes[1] == outcomes[2]


@given(SETTINGS, SETTINGS, st.lists(st.sampled_from(["--make-iptables-util-chains=false", "-v=2", "--max-pods", "30"])))
def test_a_true_flag_at_the_end_of_an_accepted_command_line_sets_the_chains(
    first: dict[str, object], second: dict[str, object], flags: list[str]
) -> None:
    kinds = {"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"}
    files = {"/c": json.dumps({**kinds, **first}), "/d/1.conf": json.dumps({**kinds, **second})}
    argv = ["kubelet", "--config=/c", "--config-dir=/d", *flags]
    if resolve(argv, files).accepted:
        found = resolve([*argv, "--make-iptables-util-chains=true"], files)
        assert found.value("makeIPTablesUtilChains") is True
        assert found.source("makeIPTablesUtilChains").position == len(argv)


@given(SETTINGS, st.booleans())
def test_the_span_of_an_assignment_reads_as_its_value(settings: dict[str, object], as_yaml: bool) -> None:
    kinds = {"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"}
    text = (yaml_of if as_yaml else json.dumps)({**kinds, **settings})
    found = with_config(text)
    leaves = {
        "makeIPTablesUtilChains": settings.get("makeIPTablesUtilChains", ...),
        "readOnlyPort": settings.get("readOnlyPort", ...),
        "clusterDNS": settings.get("clusterDNS", ...),
        "resolvConf": settings.get("resolvConf", ...),
    }
    for path, value in leaves.items():
        assignments = found.assignments(path)
        assert len(assignments) == (value is not ...)
        for each in assignments:
            assert isinstance(each, Assignment)
            assert each.value == value
            assert each.span is not None
            assert json.loads(text[slice(*each.span)]) == value
            assert each.source.line == text.count("\n", 0, each.span[0]) + 1


@given(
    st.lists(
        st.one_of(
            st.text(max_size=12),
            st.binary(max_size=12).map(os.fsdecode),
            st.sampled_from(["--config=/c", "--config-dir=/d", "--v", "--feature-gates=A=b"]),
        )
    ),
    st.dictionaries(
        st.sampled_from(["/c", "/d/1.conf", "/d/x/2.conf", "c"]),
        (st.text() | st.binary().map(os.fsdecode)).map(lambda text: KIND + text)
        | st.text()
        | st.binary().map(os.fsdecode),
    ),
    st.none() | st.text(max_size=6) | st.sampled_from(["1.28.0", "1.37.1", "v1.31"]),
)
def test_nothing_raises(arguments: list[str], files: dict[str, str], version: str | None) -> None:
    found = resolve(["kubelet", *arguments], files, version=version)
    assert found.accepted == (found.error is None)
    for path in ("makeIPTablesUtilChains", "featureGates.A", "authentication.anonymous.enabled", "tlsCipherSuites"):
        split_path(path, CONFIGURATION)
        for each in found.assignments(path):
            assert each.source.kind in ("file", "flag")
        if found.accepted:
            found.value(path)
            assert str(found.source(path))
