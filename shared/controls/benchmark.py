"""The benchmark as data: one entry a control. Adding a control is one more entry here.

Source: CIS Azure Kubernetes Service (AKS) Benchmark v1.7, section 3.2 (kubelet). Numbers and titles are the
benchmark's; rationale, impact and fix are in our own words.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Control:
    """One recommendation about one kubelet setting.

    `setting` is the path in KubeletConfiguration, `flag` the command-line flag that sets the same, `expected` the one
    value that complies. `level` is the benchmark's profile level, `automated` whether it counts in its score.
    """

    id: str
    title: str
    level: int
    automated: bool
    profile: str
    severity: str
    setting: str
    flag: str
    expected: bool
    rationale: str
    impact: str
    fix: str

    def complies(self, value: object) -> bool:
        """Whether an effective value is the one that the benchmark asks for (`true` is not `1`)."""
        return type(value) is type(self.expected) and value == self.expected


BENCHMARK = "CIS AKS Benchmark v1.7"

CONTROLS: tuple[Control, ...] = (
    Control(
        id="3.2.6",
        title="Ensure that the --make-iptables-util-chains argument is set to true",
        level=1,
        automated=True,
        profile="Level 1 - Worker Node",
        severity="medium",
        setting="makeIPTablesUtilChains",
        flag="--make-iptables-util-chains",
        expected=True,
        rationale=(
            "The kubelet keeps a few iptables chains that packets of pods rely on, and knows when the pods' network"
            " changes. Kept by hand, these rules lag behind it, and end up too strict or too open."
        ),
        impact="The kubelet manages its iptables chains. Another manager of the same rules may conflict with it.",
        fix=(
            "Where the kubelet reads a config file, set makeIPTablesUtilChains: true in it; where it is set by an"
            " argument, correct the argument to --make-iptables-util-chains=true. Then restart the kubelet."
        ),
    ),
)


def control(control_id: str) -> Control:
    """The control with this number. Raises KeyError where there is none."""
    return {entry.id: entry for entry in CONTROLS}[control_id]
