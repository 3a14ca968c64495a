"""What became of a node over time, as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import IO

from rich.console import Console
from rich.text import Text

from shared.models import Finding, History, Outcome
from shared.report.order import sorted_by_place
from shared.report.words import HEADINGS

Changes = Mapping[str, Sequence[History]]
"""What became of a node's control over time, by `Finding.key`."""


def what_changed(change: History) -> str:
    """What made a change: `fixed`, `rolled_back`, or nothing that this tool did (empty)."""
    if change.seen == change.last_fixed:
        return str(Outcome.FIXED)
    return str(Outcome.ROLLED_BACK) if change.seen == change.last_rolled_back else ""


def changes_as_text(findings: Iterable[Finding], changes: Changes, out: IO[str]) -> None:
    """What became of each node's control over time, a line a change; nothing for what is no node."""
    console = Console(file=out, highlight=False)
    for finding in sorted_by_place(findings):
        if finding.key not in changes:
            continue
        console.print(Text.assemble("\n", (f"{finding.node} over time", "bold"), (f"  {finding.control}", "dim")))
        for change in changes[finding.key]:
            heading, style = HEADINGS[change.status]
            what = what_changed(change).replace("_", " ")
            console.print(
                Text.assemble(f"  {change.seen:%Y-%m-%d %H:%M} UTC  ", (heading, style), f"  {what}".rstrip())
            )
        if not changes[finding.key]:
            console.print("  no change of it is known")
