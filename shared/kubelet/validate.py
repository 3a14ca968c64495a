"""What the kubelet checks of a complete configuration before it starts.

Sources: `pkg/kubelet/apis/config/validation` (ValidateKubeletConfiguration and its parts for reserved memory),
`component-base/logs/api/v1` (Validate), `component-base/tracing/api/v1`, `component-base/metrics`
(ValidateShowHiddenMetricsVersion), `component-base/cli/flag` (TLS). Not here: what the kubelet only finds out later,
with the node at hand (a missing client CA file, an unknown authorization mode, quantities that do not fit).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final, cast

from shared.kubelet.decode import Struct
from shared.kubelet.defaults import get
from shared.kubelet.gates import FeatureGates
from shared.kubelet.gotypes import GoError, format_duration, parse_quantity, quote
from shared.kubelet.labels import is_valid_taint
from shared.kubelet.minors import Minor

_SECOND: Final = 1_000_000_000
_MAX_INT32: Final = 2**31 - 1
_MAX_UINT16: Final = 2**16 - 1
_MAX_UINT32: Final = 2**32 - 1

_ENFORCEMENTS: Final = ("pods", "system-reserved", "kube-reserved", "none")
_ENFORCEMENTS_SINCE_32: Final = (
    "pods", "system-reserved", "system-reserved-compressible", "kube-reserved", "kube-reserved-compressible", "none",
)  # fmt: skip
_IMAGE_POLICIES: Final = (
    "NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify",
)  # fmt: skip
_CHOICES: Final = (
    ("topologyManagerPolicy", ("none", "best-effort", "restricted", "single-numa-node")),
    ("topologyManagerScope", ("container", "pod")),
    ("hairpinMode", ("none", "hairpin-veth", "promiscuous-bridge")),
)
_RANGES: Final = (
    ("imageGCHighThresholdPercent", "image-gc-high-threshold", 0, 100),
    ("imageGCLowThresholdPercent", "image-gc-low-threshold", 0, 100),
    ("iptablesDropBit", "iptables-drop-bit", 0, 31),
    ("iptablesMasqueradeBit", "iptables-masquerade-bit", 0, 31),
    ("oomScoreAdj", "oom-score-adj", -1000, 1000),
    ("port", "port", 1, 65535),
)
_NOT_NEGATIVE: Final = (
    ("eventBurst", "event-burst"),
    ("eventRecordQPS", "event-qps"),
    ("kubeAPIBurst", "kube-api-burst"),
    ("kubeAPIQPS", "kube-api-qps"),
    ("maxOpenFiles", "max-open-files"),
    ("maxPods", "max-pods"),
    ("podsPerCore", "pods-per-core"),
    ("registryBurst", "registry-burst"),
    ("registryPullQPS", "registry-qps"),
)
_CPUSET: Final = re.compile(r"[+-]?[0-9]{1,18}\Z")
# distribution/reference: a registry with an optional port, then the path; neither tag nor digest
_HOST_PART: Final = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_PATH_PART: Final = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_IMAGE_NAME: Final = re.compile(
    rf"(?P<host>(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?)/(?P<path>{_PATH_PART}(?:/{_PATH_PART})*)\Z"
)

_USER_IDS: Final = 65536
# The default until 1.36: later kubelets take it also where the gate is off.
_OLD_THROTTLING_FACTOR: Final = 0.9


def validate_logging(config: Struct, gates: FeatureGates, rules: Minor) -> list[str]:
    """logsapi.Validate: what is wrong with `logging`."""
    return list(_Rules(config, gates, rules).logging())


def validate_configuration(config: Struct, gates: FeatureGates, rules: Minor) -> list[str]:
    """ValidateKubeletConfiguration: all that is wrong, in the kubelet's words."""
    checks = _Rules(config, gates, rules)
    problems = [f"invalid configuration: {problem}" for problem in checks.configuration()]
    return [*problems, *checks.logging()]


def validate_tls(config: Struct, rules: Minor) -> str | None:
    """What InitializeTLS refuses first: an unknown cipher suite, TLS version or key exchange."""
    for name in cast("list[str] | None", config["tlsCipherSuites"]) or []:
        if name not in rules.cipher_suites:
            return f"Cipher suite {name} not supported or doesn't exist"
    version = cast(str, config["tlsMinVersion"])
    if version and version not in rules.tls_versions:
        return f"unknown tls version {quote(version)}"
    seen: set[int] = set()
    for curve in cast("list[int] | None", config.get("tlsCurvePreferences")) or []:
        if not 1 <= curve <= _MAX_UINT16:
            return f"curve preference {curve} is out of range (must be 1-{_MAX_UINT16})"
        if curve in seen:
            return f"duplicate curve preference {curve}"
        if curve not in rules.curves:
            return f"curve preference {curve} is not supported by the current Go version"
        seen.add(curve)
    return None


class _Rules:
    def __init__(self, config: Struct, gates: FeatureGates, rules: Minor) -> None:
        self.config = config
        self.gates = gates
        self.minor = rules.number

    def number(self, name: str) -> int:
        """A number or a duration; 0 where it is not set."""
        return cast("int | None", get(self.config, tuple(name.split(".")))) or 0

    def text(self, name: str) -> str:
        """A text; empty where it is not set, or not known to this version."""
        return cast("str | None", self.config.get(name)) or ""

    def strings(self, name: str) -> list[str]:
        return cast("list[str] | None", self.config.get(name)) or []

    def configuration(self) -> Iterator[str]:
        if self.minor >= 35:
            try:
                self.gates.afresh()
            except GoError as error:
                yield str(error)
        yield from self.numbers()
        yield from self.images()
        yield from self.gated()
        yield from self.taints()
        yield from self.choices()
        yield from self.shutdown()
        yield from self.enforcements()
        yield from self.reserved()
        yield from self.tracing()
        yield from self.container_logs()
        yield from self.user_namespaces()
        yield from self.sysctls()

    def numbers(self) -> Iterator[str]:
        if self.number("nodeLeaseDurationSeconds") <= 0:
            yield "nodeLeaseDurationSeconds must be greater than 0"
        if self.text("systemCgroups") and not self.text("cgroupRoot"):
            yield ("systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not specified")
        for name, flag in _NOT_NEGATIVE:
            if self.number(name) < 0:
                yield f"{name} (--{flag}) {self.number(name)} must not be a negative number"
        for name, flag, least, most in _RANGES:
            if not least <= self.number(name) <= most:
                yield (f"{name} (--{flag}) {self.number(name)} must be between {least} and {most}, inclusive")
        if not 0 <= self.number("healthzPort") <= 65535:
            yield (f"healthzPort (--healthz-port) {self.number('healthzPort')} must be between 1 and 65535, inclusive")
        if not 0 <= self.number("readOnlyPort") <= 65535:
            yield (
                f"readOnlyPort (--read-only-port) {self.number('readOnlyPort')} must be between 0 and 65535, inclusive"
            )
        low, high = self.number("imageGCLowThresholdPercent"), self.number("imageGCHighThresholdPercent")
        if low >= high:
            yield (
                f"imageGCLowThresholdPercent (--image-gc-low-threshold) {low} must be less than "
                f"imageGCHighThresholdPercent (--image-gc-high-threshold) {high}"
            )
        if self.number("nodeStatusMaxImages") < -1:
            yield (
                f"nodeStatusMaxImages (--node-status-max-images) {self.number('nodeStatusMaxImages')} "
                "must be -1 or greater"
            )
        factor = cast("float | None", self.config["memoryThrottlingFactor"])
        if self.minor < 37 and factor is None and self.gates.enabled("MemoryQoS"):
            yield "memoryThrottlingFactor is required when MemoryQoS feature flag is enabled"
        if self.minor >= 37 and factor not in (None, _OLD_THROTTLING_FACTOR) and not self.gates.enabled("MemoryQoS"):
            yield "memoryThrottlingFactor must not be set when MemoryQoS feature gate is disabled"
        if factor is not None and not 0 < factor <= 1:
            yield f"memoryThrottlingFactor {factor} must be greater than 0 and less than or equal to 1.0"

    def images(self) -> Iterator[str]:
        oldest, youngest = self.number("imageMaximumGCAge"), self.number("imageMinimumGCAge")
        if oldest and not self.gates.enabled("ImageMaximumGCAge"):
            yield "ImageMaximumGCAge feature gate is required for Kubelet configuration option imageMaximumGCAge"
        for name in ("imageMinimumGCAge", "imageMaximumGCAge"):
            if self.number(name) < 0 and (self.minor >= 36 or name == "imageMaximumGCAge"):
                yield f"{name} {format_duration(self.number(name))} must not be negative"
        if 0 < oldest <= youngest:
            yield (
                f"imageMaximumGCAge {format_duration(oldest)} must be greater than "
                f"imageMinimumGCAge {format_duration(youngest)}"
            )
        parallel = cast("int | None", self.config["maxParallelImagePulls"])
        if parallel is not None and parallel < 1:
            yield f"maxParallelImagePulls {parallel} must be a positive number"
        if parallel is not None and parallel > 1 and self.config["serializeImagePulls"]:
            yield (
                "maxParallelImagePulls cannot be larger than 1 unless "
                "SerializeImagePulls (--serialize-image-pulls) is set to false"
            )
        policy = self.text("imagePullCredentialsVerificationPolicy")
        allowed = self.strings("preloadedImagesVerificationAllowlist")
        if self.gates.enabled("KubeletEnsureSecretPulledImages"):
            if policy not in _IMAGE_POLICIES:
                yield (
                    f"option {quote(policy)} specified for imagePullCredentialsVerificationPolicy. "
                    f"Valid options are {', '.join(map(quote, _IMAGE_POLICIES))}"
                )
            if allowed and policy != "NeverVerifyAllowlistedImages":
                yield (
                    "can't set `preloadedImagesVerificationAllowlist` if "
                    '`imagePullCredentialsVertificationPolicy` is not "NeverVerifyAllowlistedImages"'
                )
            elif bad := [pattern for pattern in allowed if not _is_image_pattern(pattern)]:
                yield f"invalid image pattern in `preloadedImagesVerificationAllowlist`: {quote(bad[0])}"
            return
        for name, given in (
            ("imagePullCredentialsVerificationPolicy", policy),
            ("preloadedImagesVerificationAllowlist", allowed),
        ):
            if given:
                yield (f"`{name}` must not be set if KubeletEnsureSecretPulledImages feature gate is not enabled")

    def gated(self) -> Iterator[str]:
        period = self.number("cpuCFSQuotaPeriod")
        if self.gates.enabled("CustomCPUCFSQuotaPeriod"):
            if not 1_000_000 <= period <= _SECOND:
                yield (
                    f"cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {format_duration(period)} "
                    "must be between 1ms and 1sec, inclusive"
                )
        elif period != 100_000_000:
            yield (
                f"cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {format_duration(period)} "
                "requires feature gate CustomCPUCFSQuotaPeriod"
            )
        if self.config["serverTLSBootstrap"] and not self.gates.enabled("RotateKubeletServerCertificate"):
            yield "serverTLSBootstrap true requires feature gate RotateKubeletServerCertificate"
        if self.config["runOnce"] and self.minor >= 32:
            yield "runOnce (--runOnce) true, Runonce mode has been deprecated and should not be set"
        swap = cast(str, get(self.config, ("memorySwap", "swapBehavior")))
        if self.gates.enabled("NodeSwap"):
            if swap not in ("", "NoSwap", "LimitedSwap"):
                yield (f'memorySwap.swapBehavior {quote(swap)} must be one of: "", "LimitedSwap" or "NoSwap"')
        elif swap:
            yield "memorySwap.swapBehavior cannot be set when NodeSwap feature flag is disabled"
        restart = cast("int | None", get(self.config, ("crashLoopBackOff", "maxContainerRestartPeriod")))
        if self.gates.enabled("KubeletCrashLoopBackOffMax"):
            if restart is None:
                yield (
                    "FeatureGate KubeletCrashLoopBackOffMax is enabled, "
                    "CrashLoopBackOff.MaxContainerRestartPeriod must be set"
                )
            elif not 1000 <= _toward_zero(restart, 1_000_000) <= 300_000:
                yield (
                    f"CrashLoopBackOff.MaxContainerRestartPeriod (got: {restart / _SECOND:g} seconds) "
                    "must be set between 1s and 300s"
                )
        elif restart is not None:
            yield (
                "FeatureGate KubeletCrashLoopBackOffMax not enabled, "
                "CrashLoopBackOff.MaxContainerRestartPeriod must not be set"
            )
        if self.config["enableSystemLogQuery"]:
            if not self.gates.enabled("NodeLogQuery"):
                wants = "enableSystemLogQuery" if self.minor >= 35 else "enableSystemLogHandler"
                yield f"NodeLogQuery feature gate is required for {wants}"
            if not self.config["enableSystemLogHandler"]:
                yield "enableSystemLogHandler is required for enableSystemLogQuery"
        if self.minor < 36:
            return
        reservation = self.text("memoryReservationPolicy")
        if reservation == "TieredReservation" and not self.gates.enabled("MemoryQoS"):
            yield 'memoryReservationPolicy "TieredReservation" requires MemoryQoS feature gate to be enabled'
        if reservation not in ("None", "TieredReservation"):
            yield (
                f"option {quote(reservation)} specified for memoryReservationPolicy. "
                'Valid options are "None" or "TieredReservation"'
            )

    def taints(self) -> Iterator[str]:
        for taint in cast("list[Struct] | None", self.config["registerWithTaints"]) or []:
            if not is_valid_taint(taint["key"], taint["value"], taint["effect"]):
                yield f"invalid taint: {taint['key']}={taint['value']}:{taint['effect']}"
            if taint["timeAdded"] is not None:
                yield "taint.TimeAdded is not nil"

    def choices(self) -> Iterator[str]:
        for name, allowed in _CHOICES:
            if self.text(name) not in allowed:
                yield f"{name} {quote(self.text(name))} must be one of: {', '.join(map(quote, allowed))}"

    def shutdown(self) -> Iterator[str]:
        total, critical = (
            self.number("shutdownGracePeriod"),
            self.number("shutdownGracePeriodCriticalPods"),
        )
        if self.gates.enabled("GracefulNodeShutdown"):
            if critical > total:
                yield (
                    f"shutdownGracePeriodCriticalPods {format_duration(critical)} must be <= "
                    f"shutdownGracePeriod {format_duration(total)}"
                )
            for name, value in (
                ("shutdownGracePeriod", total),
                ("shutdownGracePeriodCriticalPods", critical),
            ):
                if value < 0 or 0 < value < _SECOND:
                    yield f"{name} {format_duration(value)} must be either zero or otherwise >= 1 sec"
        elif total > 0 or critical > 0:
            yield (
                "specifying shutdownGracePeriod or shutdownGracePeriodCriticalPods "
                "requires feature gate GracefulNodeShutdown"
            )
        if self.config["shutdownGracePeriodByPodPriority"]:
            if not self.gates.enabled("GracefulNodeShutdownBasedOnPodPriority"):
                yield (
                    "Specifying shutdownGracePeriodByPodPriority requires "
                    "feature gate GracefulNodeShutdownBasedOnPodPriority"
                )
            elif total > 0 or critical > 0:
                yield ("Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time")

    def enforcements(self) -> Iterator[str]:
        wanted = self.strings("enforceNodeAllocatable")
        where = "enforceNodeAllocatable (--enforce-node-allocatable)"
        known = _ENFORCEMENTS_SINCE_32 if self.minor >= 32 else _ENFORCEMENTS
        for name in ("system-reserved", "kube-reserved"):
            if name in wanted and f"{name}-compressible" in wanted:
                yield f"both {quote(name)} and {quote(f'{name}-compressible')} cannot be specified together in {where}"
        for name, times in Counter(wanted).items():
            if times > 1:
                yield f"duplicated enforcements {quote(name)} in {where}"
            if name not in known:
                yield (f"option {quote(name)} specified for {where}. Valid options are {', '.join(map(quote, known))}")
                continue
            if name == "none":
                if len(wanted) > 1:
                    yield f'{where} may not contain additional enforcements when "none" is specified'
                continue
            for prefix, field, flag in (
                ("system-reserved", "systemReservedCgroup", "system-reserved-cgroup"),
                ("kube-reserved", "kubeReservedCgroup", "kube-reserved-cgroup"),
            ):
                if name.startswith(prefix) and not self.text(field):
                    yield f"{field} (--{flag}) must be specified when {quote(name)} included in {where}"
            if not self.config["cgroupsPerQOS"]:
                yield f"cgroupsPerQOS (--cgroups-per-qos) must be set to true when {quote(name)} contained in {where}"

    def reserved(self) -> Iterator[str]:
        cpus = self.text("reservedSystemCPUs")
        if cpus:
            if self.text("systemReservedCgroup") or self.text("kubeReservedCgroup"):
                yield (
                    "can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup "
                    "(--system-reserved-cgroup) or kubeReservedCgroup (--kube-reserved-cgroup)"
                )
            if not _is_cpuset(cpus):
                yield f"unable to parse reservedSystemCPUs (--reserved-cpus) {cpus}"
        seen: set[tuple[object, str]] = set()
        for reservation in cast("list[Struct] | None", self.config["reservedMemory"]) or []:
            node = reservation["numaNode"]
            for kind, quantity in cast("dict[str, str]", reservation["limits"] or {}).items():
                if kind != "memory" and not kind.startswith("hugepages-"):
                    yield f"the limit type {quote(kind)} for NUMA node {node} is not supported"
                if parse_quantity(quantity) == 0:
                    yield f"reserved memory may not be zero for NUMA node {node} and resource {quote(kind)}"
                if (node, kind) in seen:
                    yield (f"the reserved memory has a duplicate value for NUMA node {node} and resource {quote(kind)}")
                seen.add((node, kind))
        hidden = self.text("showHiddenMetricsForVersion")
        if hidden and hidden != f"1.{self.minor - 1}":
            yield (
                "--show-hidden-metrics-for-version must be omitted or have the value "
                f"'1.{self.minor - 1}'. Only the previous minor version is allowed"
            )

    def tracing(self) -> Iterator[str]:
        tracing = cast("Struct | None", self.config["tracing"])
        if tracing is None:
            return
        rate = cast("int | None", tracing["samplingRatePerMillion"])
        if rate is not None and not 0 <= rate <= 1_000_000:
            yield f"tracing.samplingRatePerMillion: Invalid value: {rate}: must be between 0 and 1000000"
        if not self.gates.enabled("KubeletTracing") and self.minor < 34:
            yield "tracing should not be configured if KubeletTracing feature flag is disabled."

    def user_namespaces(self) -> Iterator[str]:
        namespaces = cast("Struct | None", self.config.get("userNamespaces"))
        ids = cast("int | None", namespaces["idsPerPod"]) if namespaces is not None else None
        if ids is None:
            return
        if ids < _USER_IDS:
            yield f"userNamespaces.idsPerPod must not be less than {_USER_IDS}"
        elif ids % _USER_IDS:
            yield f"userNamespaces.idsPerPod must be a multiple of {_USER_IDS}"
        elif ids > _MAX_UINT32:
            yield f"userNamespaces.idsPerPod must not be more than {_MAX_UINT32}"

    def sysctls(self) -> Iterator[str]:
        sysctls = cast("dict[str, str] | None", self.config.get("defaultPodSysctls")) or {}
        if sysctls and not self.gates.enabled("DefaultPodSysctls"):
            yield "DefaultPodSysctls feature gate is required for Kubelet configuration option defaultPodSysctls"
            return
        seen: set[str] = set()
        for name in sysctls:
            if len(name) > 253 or not _SYSCTL.match(name):
                yield f"{quote(name)} is not a valid sysctl name for defaultPodSysctls"
                continue
            plain = _dotted(name)
            if plain not in _NAMESPACED_SYSCTLS and not plain.startswith(("net.", "fs.mqueue.")):
                yield f"{quote(name)} is not known to be namespaced for defaultPodSysctls"
            if plain in seen:
                yield f"duplicate sysctl {quote(plain)} found in defaultPodSysctls"
            seen.add(plain)

    def container_logs(self) -> Iterator[str]:
        if not self.text("containerRuntimeEndpoint"):
            yield "the containerRuntimeEndpoint was not specified or empty"
        if self.number("containerLogMaxWorkers") < 1:
            yield "containerLogMaxWorkers must be greater than or equal to 1"
        if self.number("containerLogMonitorInterval") < 3 * _SECOND:
            yield "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s"
        if self.number("containerLogMaxFiles") <= 1 and self.minor >= 33:
            yield "containerLogMaxFiles must be greater than 1"
        logs = self.text("podLogsDir")
        if not logs:
            yield "podLogsDir was not specified"
        if not logs.startswith("/"):
            yield f"pod logs path {quote(logs)} must be absolute path"
        if logs != clean_path(logs):
            yield f"pod logs path {quote(logs)} must be normalized"
        if not logs.isascii():
            yield f"pod logs path {quote(logs)} mut contains ASCII characters only"

    def logging(self) -> Iterator[str]:
        logging = cast(Struct, self.config["logging"])
        form = cast(str, logging["format"])
        if form not in ("text", "json"):
            yield f"logging.format: Invalid value: {quote(form)}: Unsupported log format"
        elif form == "json" and not self.gates.enabled("LoggingBetaOptions"):
            yield "logging.format: Forbidden: Log format json is disabled, see LoggingBetaOptions feature"
        if cast(int, logging["flushFrequency"]) <= 0:  # a kubelet that does not check it dies of it
            yield (
                f'logging.flushFrequency: Invalid value: "{format_duration(cast(int, logging["flushFrequency"]))}": '
                "Must be greater than zero"
            )
        if cast(int, logging["verbosity"]) > _MAX_INT32:
            yield f"logging.verbosity: Invalid value: {logging['verbosity']}: Must be <= {_MAX_INT32}"
        modules = cast("list[Struct] | None", logging["vmodule"]) or []
        if modules and form != "text":
            yield "logging.vmodule: Forbidden: Only supported for text log format"
        for at, module in enumerate(modules):
            pattern = cast(str, module["filePattern"])
            if not pattern:
                yield f"logging.vmodule[{at}]: Required value: File pattern must not be empty"
            if "=" in pattern or "," in pattern:
                yield (
                    f"logging.vmodule[{at}]: Invalid value: {quote(pattern)}: "
                    "File pattern must not contain equal sign or comma"
                )
            if cast(int, module["verbosity"]) > _MAX_INT32:
                yield f"logging.vmodule[{at}]: Invalid value: {module['verbosity']}: Must be <= {_MAX_INT32}"
        if self.gates.enabled("LoggingAlphaOptions"):
            return
        for name, options in cast("dict[str, Struct]", logging["options"]).items():
            if options["splitStream"]:
                yield f"logging.options.{name}.splitStream: Forbidden: Feature LoggingAlphaOptions is disabled"
            if parse_quantity(cast(str, options["infoBufferSize"])) != 0:
                yield f"logging.options.{name}.infoBufferSize: Forbidden: Feature LoggingAlphaOptions is disabled"


_SYSCTL_PART: Final = "[a-z0-9](?:[-_a-z0-9]*[a-z0-9])?"
_SYSCTL: Final = re.compile(rf"(?:{_SYSCTL_PART}[./])*{_SYSCTL_PART}\Z")
_NAMESPACED_SYSCTLS: Final = frozenset(
    {
        "kernel.sem", "kernel.shm", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
        "kernel.msg", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni",
    }
)  # fmt: skip


def _dotted(name: str) -> str:
    """A sysctl's name with dots between its parts; the first separator says which of . and / is which."""
    first = next((char for char in name if char in "./"), ".")
    return name if first == "." else name.translate(str.maketrans("./", "/."))


def _toward_zero(value: int, unit: int) -> int:
    """Go's integer division."""
    return value // unit if value >= 0 else -(-value // unit)


def _is_cpuset(text: str) -> bool:
    """cpuset.Parse: numbers and ranges between commas."""
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not _CPUSET.match(first) or (dash and not _CPUSET.match(last)):
            return False
        if dash and int(first) > int(last):
            return False
    return True


def _is_image_pattern(pattern: str) -> bool:
    """getAllowlistImagePattern: an image name as the kubelet writes it in full, or the start of one and "/*"."""
    if pattern != pattern.strip():
        return False
    if pattern.endswith("/*"):
        return len(pattern) > 2 and "*" not in pattern[:-1]
    found = _IMAGE_NAME.match(pattern)
    if found is None or len(found["path"]) > 255:
        return False
    host = found["host"]
    if host == "docker.io":
        return "/" in found["path"]  # docker.io/nginx is written docker.io/library/nginx
    return host != "index.docker.io" and (host == "localhost" or bool(set(host) & {".", ":"}) or host != host.lower())


def clean_path(path: str) -> str:
    """filepath.Clean."""
    rooted = path.startswith("/")
    kept: list[str] = []
    for part in path.split("/"):
        if part == ".." and kept and kept[-1] != "..":
            kept.pop()
        elif part == ".." and rooted:
            continue
        elif part not in ("", "."):
            kept.append(part)
    cleaned = "/".join(kept)
    return f"/{cleaned}" if rooted else cleaned or "."


def join_problems(problems: list[str]) -> str:
    """An aggregate of errors as Kubernetes prints it: one as it is, more in brackets, equal ones once."""
    unique = list(dict.fromkeys(problems))
    return unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]"
