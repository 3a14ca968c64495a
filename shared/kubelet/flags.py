"""The kubelet's command line flags, as data.

Sources: `cmd/kubelet/app/options/options.go` (KubeletFlags, AddKubeletConfigFlags), `globalflags*.go` (cAdvisor),
`component-base/logs/api/v1/options.go` and `component-base/version/verflag`; the years of removal from Kubernetes'
release notes and from what AKS leaves out for a version (AgentBaker, karpenter-provider-azure).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

FlagKind = Literal[
    "bool", "int32", "int64", "uint32", "duration", "string", "strings", "bools", "pairs", "pairs_nosplit",
    "thresholds", "headers", "labels", "ip", "taints", "reserved_memory", "vmodule", "quantity", "version",
    "go_bool", "go_int", "go_duration",
]  # fmt: skip

# config: writes into KubeletConfiguration; kubelet: the kubelet's own; global: a library's; help: --help itself
Scope = Literal["config", "kubelet", "global", "help"]


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `path` is the setting it writes; `since` and `until` are the minor versions that know it."""

    name: str
    kind: FlagKind
    scope: Scope
    path: str = ""
    shorthand: str = ""
    since: int = 0
    until: int = 999

    @property
    def no_value(self) -> str:
        """What the flag means without a value ("true"); "" where it needs one."""
        return "true" if self.kind in ("bool", "go_bool", "version") else ""


def _config(name: str, kind: FlagKind, path: str, since: int = 0, until: int = 999) -> Flag:
    return Flag(name, kind, "config", path, since=since, until=until)


def _own(name: str, kind: FlagKind = "string", since: int = 0, until: int = 999) -> Flag:
    return Flag(name, kind, "kubelet", since=since, until=until)


def _global(name: str, kind: FlagKind = "string", until: int = 36) -> Flag:
    return Flag(name, kind, "global", until=until)


FLAGS: Final = (
    Flag("help", "bool", "help", shorthand="h"),
    Flag("version", "version", "global"),
    # --- KubeletFlags ---
    _own("config"),
    _own("config-dir", since=28),
    _own("kubeconfig"),
    _own("bootstrap-kubeconfig"),
    _own("hostname-override"),
    _own("node-ip"),
    _own("cert-dir"),
    _own("cloud-provider"),
    _own("root-dir"),
    _own("runtime-cgroups"),
    _own("image-credential-provider-config"),
    _own("image-credential-provider-bin-dir"),
    _own("lock-file"),
    _own("experimental-mounter-path"),
    _own("seccomp-default", "bool"),
    _own("exit-on-lock-contention", "bool"),
    _own("experimental-allocatable-ignore-eviction", "bool"),
    _own("node-labels", "labels"),
    _own("minimum-container-ttl-duration", "duration"),
    _own("maximum-dead-containers-per-container", "int32"),
    _own("maximum-dead-containers", "int32"),
    # gone since; AKS set the first five
    _own("pod-infra-container-image", until=34),
    _own("cloud-config", until=33),
    _own("keep-terminated-pod-volumes", "bool", until=30),
    _global("azure-container-registry-config", until=29),
    _own("container-runtime", until=26),
    _own("register-schedulable", "bool", until=34),
    _own("master-service-namespace", until=26),
    _own("network-plugin", until=23),
    _own("cni-bin-dir", until=23),
    _own("cni-cache-dir", until=23),
    _own("cni-conf-dir", until=23),
    _own("network-plugin-mtu", "int32", until=23),
    _own("non-masquerade-cidr", until=23),
    _own("image-pull-progress-deadline", "duration", until=23),
    _own("docker-endpoint", until=23),
    _own("dynamic-config-dir", until=23),
    # --- KubeletConfiguration ---
    _config("enable-server", "bool", "enableServer"),
    _config("fail-swap-on", "bool", "failSwapOn"),
    _config("pod-manifest-path", "string", "staticPodPath"),
    _config("sync-frequency", "duration", "syncFrequency"),
    _config("file-check-frequency", "duration", "fileCheckFrequency"),
    _config("http-check-frequency", "duration", "httpCheckFrequency"),
    _config("manifest-url", "string", "staticPodURL"),
    _config("manifest-url-header", "headers", "staticPodURLHeader"),
    _config("address", "ip", "address"),
    _config("port", "int32", "port"),
    _config("read-only-port", "int32", "readOnlyPort"),
    _config("fail-cgroupv1", "bool", "failCgroupV1", since=31),
    _config("container-runtime-endpoint", "string", "containerRuntimeEndpoint"),
    _config("image-service-endpoint", "string", "imageServiceEndpoint"),
    _config("anonymous-auth", "bool", "authentication.anonymous.enabled"),
    _config("authentication-token-webhook", "bool", "authentication.webhook.enabled"),
    _config("authentication-token-webhook-cache-ttl", "duration", "authentication.webhook.cacheTTL"),
    _config("client-ca-file", "string", "authentication.x509.clientCAFile"),
    _config("authorization-mode", "string", "authorization.mode"),
    _config("authorization-webhook-cache-authorized-ttl", "duration", "authorization.webhook.cacheAuthorizedTTL"),
    _config(
        "authorization-webhook-cache-unauthorized-ttl",
        "duration",
        "authorization.webhook.cacheUnauthorizedTTL",
    ),
    _config("tls-cert-file", "string", "tlsCertFile"),
    _config("tls-private-key-file", "string", "tlsPrivateKeyFile"),
    _config("rotate-server-certificates", "bool", "serverTLSBootstrap"),
    _config("tls-cipher-suites", "strings", "tlsCipherSuites"),
    _config("tls-min-version", "string", "tlsMinVersion"),
    _config("rotate-certificates", "bool", "rotateCertificates"),
    _config("registry-qps", "int32", "registryPullQPS"),
    _config("registry-burst", "int32", "registryBurst"),
    _config("event-qps", "int32", "eventRecordQPS"),
    _config("event-burst", "int32", "eventBurst"),
    _config("enable-debugging-handlers", "bool", "enableDebuggingHandlers"),
    _config("contention-profiling", "bool", "enableContentionProfiling"),
    _config("healthz-port", "int32", "healthzPort"),
    _config("healthz-bind-address", "ip", "healthzBindAddress"),
    _config("oom-score-adj", "int32", "oomScoreAdj"),
    _config("cluster-domain", "string", "clusterDomain"),
    _config("volume-plugin-dir", "string", "volumePluginDir"),
    _config("cluster-dns", "strings", "clusterDNS"),
    _config("streaming-connection-idle-timeout", "duration", "streamingConnectionIdleTimeout"),
    _config("node-status-update-frequency", "duration", "nodeStatusUpdateFrequency"),
    _config("minimum-image-ttl-duration", "duration", "imageMinimumGCAge"),
    _config("image-gc-high-threshold", "int32", "imageGCHighThresholdPercent"),
    _config("image-gc-low-threshold", "int32", "imageGCLowThresholdPercent"),
    _config("volume-stats-agg-period", "duration", "volumeStatsAggPeriod"),
    _config("feature-gates", "bools", "featureGates"),
    _config("kubelet-cgroups", "string", "kubeletCgroups"),
    _config("system-cgroups", "string", "systemCgroups"),
    _config("provider-id", "string", "providerID"),
    _config("cgroups-per-qos", "bool", "cgroupsPerQOS"),
    _config("cgroup-driver", "string", "cgroupDriver"),
    _config("cgroup-root", "string", "cgroupRoot"),
    _config("cpu-manager-policy", "string", "cpuManagerPolicy"),
    _config("cpu-manager-policy-options", "pairs_nosplit", "cpuManagerPolicyOptions"),
    _config("cpu-manager-reconcile-period", "duration", "cpuManagerReconcilePeriod"),
    _config("qos-reserved", "pairs", "qosReserved"),
    _config("topology-manager-policy", "string", "topologyManagerPolicy"),
    _config("topology-manager-scope", "string", "topologyManagerScope"),
    _config("topology-manager-policy-options", "pairs", "topologyManagerPolicyOptions"),
    _config("runtime-request-timeout", "duration", "runtimeRequestTimeout"),
    _config("hairpin-mode", "string", "hairpinMode"),
    _config("max-pods", "int32", "maxPods"),
    _config("pod-cidr", "string", "podCIDR"),
    _config("pod-max-pids", "int64", "podPidsLimit"),
    _config("resolv-conf", "string", "resolvConf"),
    _config("runonce", "bool", "runOnce"),
    _config("cpu-cfs-quota", "bool", "cpuCFSQuota"),
    _config("cpu-cfs-quota-period", "duration", "cpuCFSQuotaPeriod"),
    _config("enable-controller-attach-detach", "bool", "enableControllerAttachDetach"),
    _config("make-iptables-util-chains", "bool", "makeIPTablesUtilChains"),
    _config("iptables-masquerade-bit", "int32", "iptablesMasqueradeBit", until=34),
    _config("iptables-drop-bit", "int32", "iptablesDropBit", until=34),
    _config("container-log-max-size", "string", "containerLogMaxSize"),
    _config("container-log-max-files", "int32", "containerLogMaxFiles"),
    _config("allowed-unsafe-sysctls", "strings", "allowedUnsafeSysctls"),
    _config("node-status-max-images", "int32", "nodeStatusMaxImages"),
    _config("kernel-memcg-notification", "bool", "kernelMemcgNotification"),
    _config("local-storage-capacity-isolation", "bool", "localStorageCapacityIsolation"),
    _config("max-open-files", "int64", "maxOpenFiles"),
    _config("kube-api-content-type", "string", "contentType"),
    _config("kube-api-qps", "int32", "kubeAPIQPS"),
    _config("kube-api-burst", "int32", "kubeAPIBurst"),
    _config("serialize-image-pulls", "bool", "serializeImagePulls"),
    _config("eviction-hard", "thresholds", "evictionHard"),
    _config("eviction-soft", "thresholds", "evictionSoft"),
    _config("eviction-soft-grace-period", "pairs", "evictionSoftGracePeriod"),
    _config("eviction-pressure-transition-period", "duration", "evictionPressureTransitionPeriod"),
    _config("eviction-max-pod-grace-period", "int32", "evictionMaxPodGracePeriod"),
    _config("eviction-minimum-reclaim", "pairs", "evictionMinimumReclaim"),
    _config("pods-per-core", "int32", "podsPerCore"),
    _config("protect-kernel-defaults", "bool", "protectKernelDefaults"),
    _config("reserved-cpus", "string", "reservedSystemCPUs"),
    _config("system-reserved", "pairs", "systemReserved"),
    _config("kube-reserved", "pairs", "kubeReserved"),
    _config("enforce-node-allocatable", "strings", "enforceNodeAllocatable"),
    _config("system-reserved-cgroup", "string", "systemReservedCgroup"),
    _config("kube-reserved-cgroup", "string", "kubeReservedCgroup"),
    _config("memory-manager-policy", "string", "memoryManagerPolicy"),
    _config("reserved-memory", "reserved_memory", "reservedMemory"),
    _config("register-node", "bool", "registerNode"),
    _config("register-with-taints", "taints", "registerWithTaints"),
    # --- logging ---
    Flag("v", "uint32", "config", "logging.verbosity", shorthand="v"),
    _config("vmodule", "vmodule", "logging.vmodule"),
    _config("logging-format", "string", "logging.format"),
    _config("log-flush-frequency", "duration", "logging.flushFrequency"),
    _config("log-text-split-stream", "bool", "logging.options.text.splitStream", since=31),
    _config("log-text-info-buffer-size", "quantity", "logging.options.text.infoBufferSize", since=31),
    _config("log-json-split-stream", "bool", "logging.options.json.splitStream"),
    _config("log-json-info-buffer-size", "quantity", "logging.options.json.infoBufferSize"),
    # --- cAdvisor's, registered by the kubelet; all but the first went in 1.37 ---
    _global("housekeeping-interval", "go_duration", until=999),
    _global("global-housekeeping-interval", "go_duration"),
    _global("application-metrics-count-limit", "go_int"),
    _global("boot-id-file"),
    _global("container-hints"),
    _global("containerd"),
    _global("containerd-namespace"),
    _global("enable-load-reader", "go_bool"),
    _global("event-storage-age-limit"),
    _global("event-storage-event-limit"),
    _global("log-cadvisor-usage", "go_bool"),
    _global("machine-id-file"),
    _global("storage-driver-user"),
    _global("storage-driver-password"),
    _global("storage-driver-host"),
    _global("storage-driver-db"),
    _global("storage-driver-table"),
    _global("storage-driver-secure", "go_bool"),
    _global("storage-driver-buffer-duration", "go_duration"),
)


@dataclass(frozen=True, slots=True)
class FlagSet:
    """The flags that one kubelet knows, by name and by their one-letter form."""

    by_name: dict[str, Flag]
    by_shorthand: dict[str, Flag]


@cache
def flag_set(minor: int | None) -> FlagSet:
    """The flags of Kubernetes 1.`minor`; None: of every version."""
    known = [flag for flag in FLAGS if minor is None or flag.since <= minor <= flag.until]
    return FlagSet({flag.name: flag for flag in known}, {flag.shorthand: flag for flag in known if flag.shorthand})
