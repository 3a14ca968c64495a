"""The benchmark's controls and the verdicts on them (pure)."""

from shared.controls.catalogue import (
    Benchmark,
    Catalogue,
    Control,
    Recommendation,
    builtin,
    catalogue,
    control,
    install,
    read,
)
from shared.controls.codes import Code
from shared.controls.hearsay import judge_told, of_process
from shared.controls.judge import judge, judge_all
from shared.controls.paths import absolute
from shared.controls.restart import OnDisk, next_start, on_disk
from shared.controls.running import CONFIGZ
from shared.controls.verdict import Trouble, Verdict

__all__ = [
    "CONFIGZ",
    "Benchmark",
    "Catalogue",
    "Code",
    "Control",
    "OnDisk",
    "Recommendation",
    "Trouble",
    "Verdict",
    "absolute",
    "builtin",
    "catalogue",
    "control",
    "install",
    "judge",
    "judge_all",
    "judge_told",
    "next_start",
    "of_process",
    "on_disk",
    "read",
]
