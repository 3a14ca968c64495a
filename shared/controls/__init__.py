"""The benchmark's controls and the verdicts on them (pure)."""

from shared.controls.benchmark import BENCHMARK, CONTROLS, Control, control
from shared.controls.codes import Code
from shared.controls.judge import judge
from shared.controls.paths import absolute
from shared.controls.restart import OnDisk, next_start, on_disk
from shared.controls.verdict import Trouble, Verdict

__all__ = [
    "BENCHMARK",
    "CONTROLS",
    "Code",
    "Control",
    "OnDisk",
    "Trouble",
    "Verdict",
    "absolute",
    "control",
    "judge",
    "next_start",
    "on_disk",
]
