"""The kubelet's feature gates: what a minor's data says of each, and what a kubelet makes of those that are set.

Source: `component-base/featuregate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shared.kubelet.gotypes import GoError

_GROUPS: Final = {"a": "AllAlpha", "b": "AllBeta"}


@dataclass(frozen=True, slots=True)
class GateSpec:
    """A gate in one Kubernetes version. `stage` is one of "a", "b", "g" (GA), "d" (deprecated), "p" (not yet alpha)."""

    stage: str
    default: bool
    locked: bool


def read_gates(data: Mapping[str, str]) -> dict[str, GateSpec]:
    """A minor's gates, each written as its stage, its default (+ or -), and ! where it is locked to it."""
    return {name: GateSpec(word[0], word[1] == "+", word.endswith("!")) for name, word in data.items()}


class FeatureGates:
    """The gates of one kubelet: what was set, resolved against one version's table."""

    def __init__(
        self, known: Mapping[str, GateSpec], dependencies: Mapping[str, tuple[str, ...]], settings: Mapping[str, bool]
    ) -> None:
        """Raises GoError where the kubelet refuses a setting: unknown, locked, or lacking a dependency."""
        self._known = known
        self._set = dict(settings)
        for name in settings:
            if name not in known:
                raise GoError(f"unrecognized feature gate: {name}")
        for name, value in settings.items():
            spec = known[name]
            if spec.locked and spec.default != value:
                raise GoError(
                    f"cannot set feature gate {name} to {_word(value)}, feature is locked to {_word(spec.default)}"
                )
            if spec.stage == "p":
                raise GoError(f"cannot set feature gate {name} to {_word(value)}, feature is PreAlpha")
        if self._set:  # the defaults agree with each other
            self._check(dependencies)

    def enabled(self, name: str) -> bool:
        """Whether the gate is on: as set, else by AllAlpha or AllBeta, else its default; False where it is not known."""
        if name in self._set:
            return self._set[name]
        spec = self._known.get(name)
        if spec is None:
            return False
        group = _GROUPS.get(spec.stage)
        if group in self._set and name not in _GROUPS.values():
            return self._set[group]
        return spec.default

    def known(self, name: str) -> bool:
        """Whether this version has the gate."""
        return name in self._known

    def _check(self, dependencies: Mapping[str, tuple[str, ...]]) -> None:
        for name, needs in dependencies.items():
            if self.enabled(name):
                off = [need for need in needs if not self.enabled(need)]
                if off:
                    raise GoError(f"{name} is enabled, but depends on features that are disabled: [{' '.join(off)}]")


def _word(value: bool) -> str:
    return "true" if value else "false"
