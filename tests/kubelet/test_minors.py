"""What the data files of the minors say: one layout, and what is known of single minors."""

from __future__ import annotations

import json

import pytest

from shared.kubelet.gates import FeatureGates
from shared.kubelet.gotypes import GoError
from shared.kubelet.minors import minor_rules
from shared.kubelet.versions import DATA, modelled_minors, nearest_minor


def test_seven_minors_are_modelled() -> None:
    assert modelled_minors() == (31, 32, 33, 34, 35, 36, 37)


@pytest.mark.parametrize("minor", modelled_minors())
def test_the_files_have_one_layout(minor: int) -> None:
    data = json.loads((DATA / f"1.{minor}.json").read_text("utf-8"))
    newest = json.loads((DATA / f"1.{modelled_minors()[-1]}.json").read_text("utf-8"))
    assert set(data) - {"internal"} == set(newest)
    assert ("internal" in data) == (minor <= 31)
    assert data["version"].startswith(f"1.{minor}.")


@pytest.mark.parametrize("minor", modelled_minors())
def test_the_defaults_of_every_gate_agree_with_each_other(minor: int) -> None:
    rules = minor_rules(minor)
    assert len(rules.gates) > 100
    gates = FeatureGates(rules.gates, rules.dependencies).set({"AllAlpha": False})
    assert all(gates.enabled(name) is spec.default for name, spec in rules.gates.items() if spec.stage in "gd")
    assert {spec.stage for spec in rules.gates.values()} <= set("abgdp")


def test_defaults_that_changed() -> None:
    defaults = {
        minor: {".".join(each.path): each.value for each in minor_rules(minor).defaults} for minor in modelled_minors()
    }
    assert [defaults[minor]["failCgroupV1"] for minor in (34, 35)] == [False, True]
    assert [defaults[minor].get("memoryThrottlingFactor") for minor in (36, 37)] == [0.9, None]
    for minor in modelled_minors():
        assert defaults[minor]["makeIPTablesUtilChains"] is True


def test_what_a_group_set_stays_set() -> None:
    rules = minor_rules(36)
    beta = next(
        name for name, spec in rules.gates.items() if spec.stage == "b" and not spec.default and name != "AllBeta"
    )
    off = FeatureGates(rules.gates, {})
    on = off.set({"AllBeta": True})
    assert (off.enabled(beta), on.enabled(beta)) == (False, True)
    back = on.set({"AllBeta": False})
    assert (back.enabled(beta), back.afresh().enabled(beta)) == (True, False)
    assert on.set({beta: False}).enabled(beta) is False
    with pytest.raises(GoError, match="unrecognized feature gate: Nope"):
        on.set({"Nope": True})


@pytest.mark.parametrize(
    ("version", "minor", "own"),
    [("v1.33.5", 33, True), ("1.30.1", 31, False), ("1.38.0-alpha", 37, False), ("", 36, False), (None, 36, False)],
)
def test_the_nearest_minor(version: str | None, minor: int, own: bool) -> None:
    assert nearest_minor(version) == (minor, own)
