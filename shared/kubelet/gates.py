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
    """The gates of one kubelet, after what was set of them, in the order of setting.

    A kubelet sets its gates several times, and what a group (AllAlpha, AllBeta) switched stays so when the group is set
    the other way later.
    """

    def __init__(self, known: Mapping[str, GateSpec], dependencies: Mapping[str, tuple[str, ...]]) -> None:
        self._known = known
        self._dependencies = dependencies
        self._raw: dict[str, bool] = {}
        self._enabled: dict[str, bool] = {}

    def set(self, settings: Mapping[str, bool]) -> FeatureGates:
        """The gates with `settings` set.

        Raises GoError where the kubelet refuses one: unknown, locked, lacking a dependency.
        """
        after = FeatureGates(self._known, self._dependencies)
        after._raw = {**self._raw, **settings}
        after._enabled = dict(self._enabled)
        after._settle()
        return after

    def afresh(self) -> FeatureGates:
        """The gates as if all that was set had been set at once. Raises GoError as `set`."""
        return FeatureGates(self._known, self._dependencies).set(self._raw)

    def enabled(self, name: str) -> bool:
        """Whether the gate is on: as set, else its default; False where this version does not know it."""
        if name in self._enabled:
            return self._enabled[name]
        spec = self._known.get(name)
        return spec is not None and spec.default

    def state(self, name: str) -> bool | None:
        """Whether the gate is on; None where this version does not know it."""
        return self.enabled(name) if name in self._known else None

    def group(self, name: str) -> str:
        """The group that switches this gate where nothing sets it by name: AllAlpha, AllBeta, or '' for none."""
        spec = self._known.get(name)
        return "" if spec is None else _GROUPS.get(spec.stage, "")

    def _settle(self) -> None:
        for name in self._raw:
            if name not in self._known:
                raise GoError(f"unrecognized feature gate: {name}")
        for name, value in self._raw.items():
            spec = self._known[name]
            if spec.locked and spec.default != value:
                raise GoError(
                    f"cannot set feature gate {name} to {_word(value)}, feature is locked to {_word(spec.default)}"
                )
            if spec.stage == "p":
                raise GoError(f"cannot set feature gate {name} to {_word(value)}, feature is PreAlpha")
        if not self._raw:
            return  # the defaults agree with each other
        self._enabled.update(self._raw)
        for stage, group in _GROUPS.items():
            if group in self._raw:
                for name, spec in self._known.items():
                    if spec.stage == stage and name not in _GROUPS.values():
                        self._enabled.setdefault(name, self._raw[group])
        for name, needs in self._dependencies.items():
            if self.enabled(name):
                off = [need for need in needs if not self.enabled(need)]
                if off:
                    raise GoError(f"{name} is enabled, but depends on features that are disabled: [{' '.join(off)}]")


def _word(value: bool) -> str:
    return "true" if value else "false"
