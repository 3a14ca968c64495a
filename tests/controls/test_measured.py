"""Every control's setting as real kubelets of seven minors had it: the value, and so the verdict, is theirs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from shared.controls import builtin
from shared.kubelet import GATES
from tests.kubelet.test_cases import CASES, MINORS, minor_cases, resolved

CONTROLS = [control for control in builtin().controls.values() if control.file is None]


def measured(minor: str) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], str]]:
    """A case, what the kubelet came to, and its version."""
    for case in minor_cases(minor):
        yield case, case["measured"][minor], case["measured"][minor]["version"]
    if minor == "1.36":
        for case in CASES:
            yield case, case, "1.36.3"


@pytest.mark.parametrize("minor", MINORS)
def test_verdicts_are_those_of_what_was_measured(minor: str) -> None:
    """Of a gate that nothing sets by name a kubelet says nothing: it is on by default, and flags set its group here."""
    verdicts: Counter[tuple[str, bool]] = Counter()
    different = []
    for case, truth, version in measured(minor):
        if not truth["accepted"]:
            continue
        found = resolved(case, version)
        for control in CONTROLS:
            value = truth["effective"].get(control.setting)
            if value is None and control.setting.startswith(GATES):
                value = not any("AllBeta=false" in argument for argument in case["argv"])
            if found.effective(control.setting) != value:
                different.append((case["id"], control.id, value, found.effective(control.setting)))
            verdicts[control.id, control.complies(value)] += 1
    assert different == []
    seen = {control for control, _ in verdicts}
    assert seen == {control.id for control in CONTROLS}
    failing = {control for control, right in verdicts if not right}
    assert failing >= {"3.2.1", "3.2.2", "3.2.3", "3.2.4", "3.2.6", "3.2.8", "3.2.9"}
