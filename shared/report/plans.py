"""Plans as a person reads them: node by node what would be done, with diffs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from os.path import commonprefix
from typing import IO

from rich.console import Console
from rich.text import Text

from shared.plain import plain
from shared.report.words import indented
from shared.runs.model.plans import NodePlan

_LONG_LINE = 120
_AROUND = 40


def _readable(diff: Sequence[str]) -> Iterator[str]:
    """A diff's lines; of a long line (an environment file's flags) only what changed and some characters around it.

    Lines that stand in the place of as many others are taken for those; what cannot be paired is shown whole.
    """
    kinds = groupby(diff, lambda line: "" if line.startswith(("---", "+++")) else line[:1])
    runs = [(kind, list(lines)) for kind, lines in kinds]
    for number, (kind, lines) in enumerate(runs):
        other_kind = {"-": "+", "+": "-"}.get(kind)
        at = number + 1 if kind == "-" else number - 1
        others = runs[at][1] if 0 <= at < len(runs) and runs[at][0] == other_kind else []
        if len(others) == len(lines):
            yield from map(_changed_part, lines, others)
        else:
            yield from (
                line if kind in ("+", "-") or len(line) <= _LONG_LINE else f"{line[:_LONG_LINE]}…" for line in lines
            )


def _changed_part(line: str, other: str) -> str:
    """Of a long line of a diff what differs from the line that it replaces, or is replaced by."""
    if max(len(line), len(other)) <= _LONG_LINE:
        return line
    head = len(commonprefix([line[1:], other[1:]]))
    tail = len(commonprefix([line[1 + head :][::-1], other[1 + head :][::-1]]))
    return _around(line[0], line[1:], head, tail)


def _around(sign: str, text: str, head: int, tail: int) -> str:
    start, end = max(0, head - _AROUND), min(len(text), len(text) - tail + _AROUND)
    return f"{sign}{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


def plans_as_text(plans: Sequence[NodePlan], out: IO[str]) -> None:
    """What a fix would do, node by node, with diffs; masked values stay masked. What it leaves as it is is said too."""
    console = Console(file=out, highlight=False)
    for plan in sorted(plans, key=lambda item: (item.node.cluster, item.node.node_pool, item.node.name)):
        place = plain(f"{plan.node.cluster} / {plan.node.node_pool} / {plan.node.name}")
        console.print(Text.assemble(("\n" + place, "bold"), ("  " + plain(", ".join(plan.controls)), "dim")))
        if plan.refused:
            indented(console, f"not planned: {plain(plan.refused, None)}", 2, "yellow")
        for control, why in plan.left.items():
            indented(console, f"not planned for {plain(control)}: {plain(why, None)}", 2, "yellow")
        if plan.also:
            indented(console, f"also fails: {plain(', '.join(plan.also), None)}; not asked for", 2, "yellow")
        for step in plan.steps:
            indented(console, f"- {plain(step, None)}", 2)
        for line in _readable(plan.diff.splitlines()):
            style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "dim")
            console.print(Text(f"    {plain(line, None)}", style), soft_wrap=True)
    planned = sum(not plan.refused for plan in plans)
    console.print(Text(f"\n{planned} nodes would be changed, {len(plans) - planned} cannot be planned", "bold"))
