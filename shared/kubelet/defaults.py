"""What the kubelet fills in where nothing is set.

Sources: `pkg/kubelet/apis/config/v1beta1/defaults.go` (SetDefaults_KubeletConfiguration),
`component-base/logs/api/v1` (SetRecommendedLoggingConfiguration), `cmd/kubelet/app/options/options.go`
(applyLegacyDefaults) and `pkg/kubelet/eviction/defaults_linux.go`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from shared.kubelet.decode import Origins, Path, Struct, forget
from shared.kubelet.gates import FeatureGates
from shared.kubelet.gotypes import GoError
from shared.kubelet.schema import KUBELET_CONFIGURATION, split_path, zero

_SECOND: Final = 1_000_000_000
_MINUTE: Final = 60 * _SECOND

_DEFAULTS: Final[Mapping[str, object]] = {
    "enableServer": True,
    "syncFrequency": _MINUTE,
    "fileCheckFrequency": 20 * _SECOND,
    "httpCheckFrequency": 20 * _SECOND,
    "address": "0.0.0.0",  # noqa: S104 - the kubelet's own default
    "port": 10250,
    "authentication.anonymous.enabled": False,
    "authentication.webhook.enabled": True,
    "authentication.webhook.cacheTTL": 2 * _MINUTE,
    "authorization.mode": "Webhook",
    "authorization.webhook.cacheAuthorizedTTL": 5 * _MINUTE,
    "authorization.webhook.cacheUnauthorizedTTL": 30 * _SECOND,
    "registryPullQPS": 5,
    "registryBurst": 10,
    "eventRecordQPS": 50,
    "eventBurst": 100,
    "enableDebuggingHandlers": True,
    "healthzPort": 10248,
    "healthzBindAddress": "127.0.0.1",
    "oomScoreAdj": -999,
    "streamingConnectionIdleTimeout": 240 * _MINUTE,
    "nodeStatusUpdateFrequency": 10 * _SECOND,
    "nodeLeaseDurationSeconds": 40,
    "imageMinimumGCAge": 2 * _MINUTE,
    "imageGCHighThresholdPercent": 85,
    "imageGCLowThresholdPercent": 80,
    "volumeStatsAggPeriod": _MINUTE,
    "cgroupsPerQOS": True,
    "cgroupDriver": "cgroupfs",
    "cpuManagerPolicy": "none",
    "cpuManagerReconcilePeriod": 10 * _SECOND,
    "memoryManagerPolicy": "None",
    "topologyManagerPolicy": "none",
    "topologyManagerScope": "container",
    "runtimeRequestTimeout": 2 * _MINUTE,
    "hairpinMode": "promiscuous-bridge",
    "maxPods": 110,
    "podPidsLimit": -1,
    "resolvConf": "/etc/resolv.conf",
    "cpuCFSQuota": True,
    "cpuCFSQuotaPeriod": 100_000_000,
    "nodeStatusMaxImages": 50,
    "maxOpenFiles": 1_000_000,
    "contentType": "application/vnd.kubernetes.protobuf",
    "kubeAPIQPS": 50,
    "kubeAPIBurst": 100,
    "evictionPressureTransitionPeriod": 5 * _MINUTE,
    "mergeDefaultEvictionSettings": False,
    "enableControllerAttachDetach": True,
    "makeIPTablesUtilChains": True,
    "iptablesMasqueradeBit": 14,
    "iptablesDropBit": 15,
    "failSwapOn": True,
    "containerLogMaxSize": "10Mi",
    "containerLogMaxFiles": 5,
    "containerLogMaxWorkers": 1,
    "containerLogMonitorInterval": 10 * _SECOND,
    "configMapAndSecretChangeDetectionStrategy": "Watch",
    "enforceNodeAllocatable": ("pods",),
    "volumePluginDir": "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/",
    "logging.format": "text",
    "logging.flushFrequency": 5 * _SECOND,
    "enableSystemLogHandler": True,
    # an internal bool behind a pointer: unset is false
    "enableSystemLogQuery": False,
    "enableProfilingHandler": True,
    "enableDebugFlagsHandler": True,
    "seccompDefault": False,
    "failCgroupV1": True,
    "memoryThrottlingFactor": 0.9,
    "memoryReservationPolicy": "None",
    "registerNode": True,
    "localStorageCapacityIsolation": True,
    "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
    "podLogsDir": "/var/log/pods",
}

# What holds where neither --config nor --config-dir is given; drop-ins alone are merged over these.
_LEGACY: Final[Mapping[str, object]] = {
    "authentication.anonymous.enabled": True,
    "authentication.webhook.enabled": False,
    "authorization.mode": "AlwaysAllow",
    "readOnlyPort": 10255,
}

EVICTION_HARD: Final[Mapping[str, str]] = {
    "memory.available": "100Mi",
    "nodefs.available": "10%",
    "nodefs.inodesFree": "5%",
    "imagefs.available": "15%",
    "imagefs.inodesFree": "5%",
}

_PATHS: Final = {path: split_path(path)[0] for path in (*_DEFAULTS, *_LEGACY)}


def _has_nil(path: Path) -> bool:
    """Whether "unset" is nil for this field, so that a zero that was set stays; else the zero value is unset."""
    at = KUBELET_CONFIGURATION
    for part in path:
        at = next(field.type for field in at.fields if field.json == part)
    return at.kind in ("pointer", "slice", "map")


_HAS_NIL: Final = {name: _has_nil(_PATHS[name]) for name in _DEFAULTS}


def new_configuration() -> Struct:
    """A KubeletConfiguration of zero values."""
    return cast(Struct, zero(KUBELET_CONFIGURATION))


def get(config: Struct, path: Path) -> object:
    """The value at `path`; None below a pointer that is nil or where a map has no such key."""
    at: object = config
    for part in path:
        if not isinstance(at, dict):
            return None
        at = at.get(part)
    return at


def put(config: Struct, path: Path, value: object) -> None:
    """Sets the value at `path`, whose structs are all there."""
    at = config
    for part in path[:-1]:
        at = cast(Struct, at[part])
    at[path[-1]] = value


def apply_defaults(
    config: Struct, origins: Origins, *, minor: int, flag_gates: Mapping[str, bool] | None = None
) -> None:
    """SetDefaults_KubeletConfiguration. Raises GoError where the feature gates (the flags' too) are refused."""
    own = cast("dict[str, bool] | None", config["featureGates"])
    gates = _gates(minor, {**(flag_gates or {}), **(own or {})})
    # before nodeStatusUpdateFrequency gets its own default
    if not config["nodeStatusReportFrequency"]:
        update = config["nodeStatusUpdateFrequency"]
        _fill(config, origins, ("nodeStatusReportFrequency",), update or 5 * _MINUTE)
    parallel = cast("int | None", config["maxParallelImagePulls"])
    if config["serializeImagePulls"] is None:
        _fill(config, origins, ("serializeImagePulls",), parallel is None or parallel < 2)
    limit = cast("int | None", config["podPidsLimit"])
    if limit is not None and limit < -1:
        _fill(config, origins, ("podPidsLimit",), -1)
    for name, value in _DEFAULTS.items():
        path = _PATHS[name]
        if _is_unset(config, name, path):
            _fill(config, origins, path, list(value) if isinstance(value, tuple) else value)
    back_off = ("crashLoopBackOff", "maxContainerRestartPeriod")
    if gates.enabled("KubeletCrashLoopBackOffMax") and get(config, back_off) is None:
        _fill(config, origins, back_off, 300 * _SECOND)
    policy = ("imagePullCredentialsVerificationPolicy",)
    if gates.enabled("KubeletEnsureSecretPulledImages") and not get(config, policy):
        _fill(config, origins, policy, "NeverVerifyPreloadedImages")


def _gates(minor: int, settings: Mapping[str, bool]) -> FeatureGates:
    try:
        return FeatureGates(minor, settings)
    except GoError as error:  # the kubelet panics here
        raise GoError(
            f"failed to merge global and in-flight KubeletConfiguration while setting defaults, error: {error}"
        ) from error


def apply_legacy_defaults(config: Struct) -> None:
    """applyLegacyDefaults: for the command line alone."""
    for name, value in _LEGACY.items():
        put(config, _PATHS[name], value)


def apply_eviction_defaults(config: Struct, origins: Origins) -> None:
    """What loading a config file adds: the default hard thresholds where it has none, or wants them merged in."""
    current = cast("dict[str, object] | None", config["evictionHard"])
    if current is None:
        _fill(config, origins, ("evictionHard",), dict(EVICTION_HARD))
    elif config["mergeDefaultEvictionSettings"]:
        config["evictionHard"] = {**EVICTION_HARD, **current}


def _is_unset(config: Struct, name: str, path: Path) -> bool:
    value = get(config, path)
    return value is None if _HAS_NIL[name] else not value


def _fill(config: Struct, origins: Origins, path: Path, value: object) -> None:
    forget(origins, path, get(config, path))
    put(config, path, value)
