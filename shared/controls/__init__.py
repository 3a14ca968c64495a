"""The benchmark's controls and the verdicts on them (pure)."""

from shared.controls.benchmark import BENCHMARK, CONTROLS, Control, control
from shared.controls.judge import OnDisk, Verdict, judge, on_disk, plain_path, resolved

__all__ = [
    "BENCHMARK",
    "CONTROLS",
    "Control",
    "OnDisk",
    "Verdict",
    "control",
    "judge",
    "on_disk",
    "plain_path",
    "resolved",
]
