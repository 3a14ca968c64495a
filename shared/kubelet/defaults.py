"""What the kubelet fills in where nothing is set.

Sources: `pkg/kubelet/apis/config/v1beta1/defaults.go` (SetDefaults_KubeletConfiguration),
`component-base/logs/api/v1` (SetRecommendedLoggingConfiguration), `cmd/kubelet/app/options/options.go`
(applyLegacyDefaults) and `pkg/kubelet/eviction/defaults_linux.go`.
"""

from __future__ import annotations

from typing import cast

from shared.kubelet.decode import Origins, Path, Struct, forget
from shared.kubelet.gates import FeatureGates
from shared.kubelet.gotypes import GoError
from shared.kubelet.minors import Default, Minor


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


def apply_defaults(config: Struct, origins: Origins, rules: Minor, gates: FeatureGates) -> None:
    """SetDefaults_KubeletConfiguration, with the gates as they are set so far.

    Raises GoError where the configuration's own gates are refused.
    """
    # before nodeStatusUpdateFrequency gets its own default
    if not config["nodeStatusReportFrequency"] and config["nodeStatusUpdateFrequency"]:
        _fill(config, origins, ("nodeStatusReportFrequency",), config["nodeStatusUpdateFrequency"])
    parallel = cast("int | None", config["maxParallelImagePulls"])
    if config["serializeImagePulls"] is None:
        _fill(config, origins, ("serializeImagePulls",), parallel is None or parallel < 2)
    limit = cast("int | None", config["podPidsLimit"])
    if limit is not None and limit < 0:
        _fill(config, origins, ("podPidsLimit",), -1)
    for default in rules.defaults:
        _fill_unset(config, origins, default)
    if not rules.gated_defaults:
        return  # such a kubelet does not ask for gates here
    local = _with_own(gates, config)
    for gate, defaults in rules.gated_defaults.items():
        if local.enabled(gate):
            for default in defaults:
                _fill_unset(config, origins, default)


def _with_own(gates: FeatureGates, config: Struct) -> FeatureGates:
    try:
        return gates.set(cast("dict[str, bool] | None", config["featureGates"]) or {})
    except GoError as error:  # the kubelet panics here
        raise GoError(
            f"failed to merge global and in-flight KubeletConfiguration while setting defaults, error: {error}"
        ) from error


def apply_legacy_defaults(config: Struct, rules: Minor) -> None:
    """applyLegacyDefaults: for the command line alone."""
    for default in rules.legacy_defaults:
        put(config, default.path, default.value)


def apply_eviction_defaults(config: Struct, origins: Origins, rules: Minor) -> None:
    """What loading a config file adds: the default hard thresholds where it has none, or wants them merged in."""
    current = cast("dict[str, object] | None", config["evictionHard"])
    if current is None:
        _fill(config, origins, ("evictionHard",), dict(rules.eviction_hard))
    elif config.get("mergeDefaultEvictionSettings"):
        config["evictionHard"] = {**rules.eviction_hard, **current}


def _fill_unset(config: Struct, origins: Origins, default: Default) -> None:
    current = get(config, default.path)
    if current is None if default.has_nil else not current:
        value = default.value
        _fill(config, origins, default.path, list(value) if isinstance(value, list) else value)


def _fill(config: Struct, origins: Origins, path: Path, value: object) -> None:
    forget(origins, path, get(config, path))
    put(config, path, value)
