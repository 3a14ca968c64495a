"""KubeletConfiguration v1beta1 as data: every field with its JSON name and Go type.

Source: Kubernetes' `staging/src/k8s.io/kubelet/config/v1beta1/types.go`, `component-base/logs/api/v1/types.go`,
`component-base/tracing/api/v1/types.go` and `core/v1` (Taint, ResourceList).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

GoKind = Literal[
    "bool", "int", "uint", "float", "string", "duration", "time", "log_duration", "quantity",
    "pointer", "slice", "map", "struct",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class GoType:
    """`name` is Go's own for errors; `bits` the width of a number; `element` of pointer, slice and map."""

    kind: GoKind
    name: str
    bits: int = 0
    element: GoType | None = None
    fields: tuple[Field, ...] = ()

    @property
    def inner(self) -> GoType:
        """The element type of a pointer, slice or map."""
        assert self.element is not None, self.name
        return self.element


@dataclass(frozen=True, slots=True)
class Field:
    """`omitempty` as in Go's tag; `since` and `until` are the minor versions that have the field."""

    json: str
    type: GoType
    omitempty: bool = True
    since: int = 0
    until: int = 999


BOOL: Final = GoType("bool", "bool")
INT32: Final = GoType("int", "int32", 32)
INT64: Final = GoType("int", "int64", 64)
UINT32: Final = GoType("uint", "v1.VerbosityLevel", 32)
FLOAT: Final = GoType("float", "float64", 64)
STRING: Final = GoType("string", "string")
DURATION: Final = GoType("duration", "v1.Duration")
TIME: Final = GoType("time", "v1.Time")
QUANTITY: Final = GoType("quantity", "resource.Quantity")


def _named(name: str) -> GoType:
    return GoType("string", name)


def _pointer(element: GoType) -> GoType:
    return GoType("pointer", element.name, element=element)


def _slice(element: GoType) -> GoType:
    return GoType("slice", f"[]{element.name}", element=element)


def _map(element: GoType, name: str = "") -> GoType:
    return GoType("map", name or f"map[string]{element.name}", element=element)


def _struct(name: str, *fields: Field) -> GoType:
    return GoType("struct", f"v1beta1.{name}", fields=fields)


_PBOOL: Final = _pointer(BOOL)
_PINT32: Final = _pointer(INT32)
_PDURATION: Final = _pointer(DURATION)
_STRINGS: Final = _slice(STRING)
_STRING_MAP: Final = _map(STRING)

_AUTHENTICATION: Final = _struct(
    "KubeletAuthentication",
    Field("x509", _struct("KubeletX509Authentication", Field("clientCAFile", STRING)), omitempty=False),
    Field(
        "webhook",
        _struct("KubeletWebhookAuthentication", Field("enabled", _PBOOL), Field("cacheTTL", DURATION)),
        omitempty=False,
    ),
    Field("anonymous", _struct("KubeletAnonymousAuthentication", Field("enabled", _PBOOL)), omitempty=False),
)

_AUTHORIZATION: Final = _struct(
    "KubeletAuthorization",
    Field("mode", _named("v1beta1.KubeletAuthorizationMode")),
    Field(
        "webhook",
        _struct(
            "KubeletWebhookAuthorization",
            Field("cacheAuthorizedTTL", DURATION),
            Field("cacheUnauthorizedTTL", DURATION),
        ),
        omitempty=False,
    ),
)

_LOG_OUTPUT: Final = (Field("splitStream", BOOL), Field("infoBufferSize", QUANTITY))
_LOGGING: Final = GoType(
    "struct",
    "v1.LoggingConfiguration",
    fields=(
        Field("format", STRING),
        Field("flushFrequency", GoType("log_duration", "v1.TimeOrMetaDuration"), omitempty=False),
        Field("verbosity", UINT32, omitempty=False),
        Field(
            "vmodule",
            GoType(
                "slice",
                "v1.VModuleConfiguration",
                element=GoType(
                    "struct",
                    "v1.VModuleItem",
                    fields=(
                        Field("filePattern", STRING, omitempty=False),
                        Field("verbosity", UINT32, omitempty=False),
                    ),
                ),
            ),
        ),
        Field(
            "options",
            GoType(
                "struct",
                "v1.FormatOptions",
                fields=(
                    Field("text", GoType("struct", "v1.TextOptions", fields=_LOG_OUTPUT), since=31),
                    Field("json", GoType("struct", "v1.JSONOptions", fields=_LOG_OUTPUT)),
                ),
            ),
        ),
    ),
)

_TAINT: Final = GoType(
    "struct",
    "v1.Taint",
    fields=(
        Field("key", STRING, omitempty=False),
        Field("value", STRING),
        Field("effect", _named("v1.TaintEffect"), omitempty=False),
        Field("timeAdded", _pointer(TIME)),
    ),
)

_TRACING: Final = GoType(
    "struct",
    "v1.TracingConfiguration",
    fields=(Field("endpoint", _pointer(STRING)), Field("samplingRatePerMillion", _PINT32)),
)

KUBELET_CONFIGURATION: Final = _struct(
    "KubeletConfiguration",
    Field("kind", STRING),
    Field("apiVersion", STRING),
    Field("enableServer", _PBOOL),
    Field("staticPodPath", STRING),
    Field("podLogsDir", STRING, since=30),
    Field("syncFrequency", DURATION),
    Field("fileCheckFrequency", DURATION),
    Field("httpCheckFrequency", DURATION),
    Field("staticPodURL", STRING),
    Field("staticPodURLHeader", _map(_STRINGS)),
    Field("address", STRING),
    Field("port", INT32),
    Field("readOnlyPort", INT32),
    Field("tlsCertFile", STRING),
    Field("tlsPrivateKeyFile", STRING),
    Field("tlsCipherSuites", _STRINGS),
    Field("tlsCurvePreferences", _slice(INT32), since=37),
    Field("tlsMinVersion", STRING),
    Field("rotateCertificates", BOOL),
    Field("serverTLSBootstrap", BOOL),
    Field("authentication", _AUTHENTICATION, omitempty=False),
    Field("authorization", _AUTHORIZATION, omitempty=False),
    Field("registryPullQPS", _PINT32),
    Field("registryBurst", INT32),
    Field(
        "imagePullCredentialsVerificationPolicy",
        _named("v1beta1.ImagePullCredentialsVerificationPolicy"),
        since=33,
    ),
    Field("preloadedImagesVerificationAllowlist", _STRINGS, since=33),
    Field("eventRecordQPS", _PINT32),
    Field("eventBurst", INT32),
    Field("enableDebuggingHandlers", _PBOOL),
    Field("enableContentionProfiling", BOOL),
    Field("healthzPort", _PINT32),
    Field("healthzBindAddress", STRING),
    Field("oomScoreAdj", _PINT32),
    Field("clusterDomain", STRING),
    Field("clusterDNS", _STRINGS),
    Field("streamingConnectionIdleTimeout", DURATION),
    Field("nodeStatusUpdateFrequency", DURATION),
    Field("nodeStatusReportFrequency", DURATION),
    Field("nodeLeaseDurationSeconds", INT32),
    Field("imageMinimumGCAge", DURATION),
    Field("imageMaximumGCAge", DURATION, since=29),
    Field("imageGCHighThresholdPercent", _PINT32),
    Field("imageGCLowThresholdPercent", _PINT32),
    Field("volumeStatsAggPeriod", DURATION),
    Field("kubeletCgroups", STRING),
    Field("systemCgroups", STRING),
    Field("cgroupRoot", STRING),
    Field("cgroupsPerQOS", _PBOOL),
    Field("cgroupDriver", STRING),
    Field("cpuManagerPolicy", STRING),
    Field("singleProcessOOMKill", _PBOOL, since=32),
    Field("cpuManagerPolicyOptions", _STRING_MAP),
    Field("cpuManagerReconcilePeriod", DURATION),
    Field("memoryManagerPolicy", STRING),
    Field("topologyManagerPolicy", STRING),
    Field("topologyManagerScope", STRING),
    Field("topologyManagerPolicyOptions", _STRING_MAP),
    Field("qosReserved", _STRING_MAP),
    Field("runtimeRequestTimeout", DURATION),
    Field("hairpinMode", STRING),
    Field("maxPods", INT32),
    Field("podCIDR", STRING),
    Field("podPidsLimit", _pointer(INT64)),
    Field("resolvConf", _pointer(STRING)),
    Field("runOnce", BOOL),
    Field("cpuCFSQuota", _PBOOL),
    Field("cpuCFSQuotaPeriod", _PDURATION),
    Field("nodeStatusMaxImages", _PINT32),
    Field("maxOpenFiles", INT64),
    Field("contentType", STRING),
    Field("kubeAPIQPS", _PINT32),
    Field("kubeAPIBurst", INT32),
    Field("serializeImagePulls", _PBOOL),
    Field("maxParallelImagePulls", _PINT32),
    Field("evictionHard", _STRING_MAP),
    Field("evictionSoft", _STRING_MAP),
    Field("evictionSoftGracePeriod", _STRING_MAP),
    Field("evictionPressureTransitionPeriod", DURATION),
    Field("evictionMaxPodGracePeriod", INT32),
    Field("evictionMinimumReclaim", _STRING_MAP),
    Field("mergeDefaultEvictionSettings", _PBOOL, since=33),
    Field("podsPerCore", INT32),
    Field("enableControllerAttachDetach", _PBOOL),
    Field("protectKernelDefaults", BOOL),
    Field("makeIPTablesUtilChains", _PBOOL),
    Field("iptablesMasqueradeBit", _PINT32),
    Field("iptablesDropBit", _PINT32),
    Field("featureGates", _map(BOOL)),
    Field("failSwapOn", _PBOOL),
    Field("memorySwap", _struct("MemorySwapConfiguration", Field("swapBehavior", STRING))),
    Field("containerLogMaxSize", STRING),
    Field("containerLogMaxFiles", _PINT32),
    Field("containerLogMaxWorkers", _PINT32, since=30),
    Field("containerLogMonitorInterval", _PDURATION, since=30),
    Field("configMapAndSecretChangeDetectionStrategy", _named("v1beta1.ResourceChangeDetectionStrategy")),
    Field("systemReserved", _STRING_MAP),
    Field("kubeReserved", _STRING_MAP),
    Field("reservedSystemCPUs", STRING),
    Field("showHiddenMetricsForVersion", STRING),
    Field("systemReservedCgroup", STRING),
    Field("kubeReservedCgroup", STRING),
    Field("enforceNodeAllocatable", _STRINGS),
    Field("allowedUnsafeSysctls", _STRINGS),
    Field("volumePluginDir", STRING),
    Field("providerID", STRING),
    Field("kernelMemcgNotification", BOOL),
    Field("logging", _LOGGING),
    Field("enableSystemLogHandler", _PBOOL),
    Field("enableSystemLogQuery", _PBOOL),
    Field("shutdownGracePeriod", DURATION),
    Field("shutdownGracePeriodCriticalPods", DURATION),
    Field(
        "shutdownGracePeriodByPodPriority",
        _slice(
            _struct(
                "ShutdownGracePeriodByPodPriority",
                Field("priority", INT32, omitempty=False),
                Field("shutdownGracePeriodSeconds", INT64, omitempty=False),
            )
        ),
    ),
    Field(
        "crashLoopBackOff",
        _struct("CrashLoopBackOffConfig", Field("maxContainerRestartPeriod", _PDURATION)),
        since=32,
    ),
    Field(
        "reservedMemory",
        _slice(
            _struct(
                "MemoryReservation",
                Field("numaNode", INT32, omitempty=False),
                Field("limits", _map(QUANTITY, "v1.ResourceList"), omitempty=False),
            )
        ),
    ),
    Field("enableProfilingHandler", _PBOOL),
    Field("enableDebugFlagsHandler", _PBOOL),
    Field("seccompDefault", _PBOOL),
    Field("memoryThrottlingFactor", _pointer(FLOAT)),
    Field("memoryReservationPolicy", _named("v1beta1.MemoryReservationPolicy"), since=36),
    Field("registerWithTaints", _slice(_TAINT)),
    Field("registerNode", _PBOOL),
    Field("tracing", _pointer(_TRACING)),
    Field("localStorageCapacityIsolation", _PBOOL),
    Field("containerRuntimeEndpoint", STRING, omitempty=False),
    Field("imageServiceEndpoint", STRING),
    Field("failCgroupV1", _PBOOL, since=31),
    Field(
        "userNamespaces",
        _pointer(_struct("UserNamespaces", Field("idsPerPod", _pointer(INT64)))),
        since=33,
    ),
)


def zero(kind: GoType) -> object:
    """Go's zero value: None for pointers, slices and maps; a dict of zero values for a struct."""
    if kind.kind == "struct":
        return {field.json: zero(field.type) for field in kind.fields}
    return _ZERO.get(kind.kind)


_ZERO: Final[dict[str, object]] = {
    "bool": False, "int": 0, "uint": 0, "float": 0.0, "string": "", "duration": 0, "log_duration": 0,
    "quantity": "0",
}  # fmt: skip


def fields_in(kind: GoType, minor: int) -> Iterator[Field]:
    """A struct's fields that Kubernetes 1.`minor` has."""
    return (field for field in kind.fields if field.since <= minor <= field.until)


@cache
def field_index(kind: GoType, minor: int) -> dict[str, Field]:
    """A struct's fields by JSON name."""
    return {field.json: field for field in fields_in(kind, minor)}


def split_path(path: str) -> tuple[tuple[str, ...], GoType]:
    """A config path's parts and type. Below a map, the rest of the path is one key ("evictionHard.memory.available").

    Raises KeyError where KubeletConfiguration has no such field.
    """
    at = KUBELET_CONFIGURATION
    parts: list[str] = []
    rest = path
    while True:
        while at.kind == "pointer":
            at = at.inner
        if at.kind == "map":
            return (*parts, rest), at.inner
        name, dot, rest = rest.partition(".")
        field = next((field for field in at.fields if field.json == name), None)
        if field is None:
            raise KeyError(f"{path!r} is not a path of KubeletConfiguration v1beta1: no field {name!r}")
        parts.append(name)
        at = field.type
        if not dot:
            return tuple(parts), at
