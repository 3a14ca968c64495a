"""What the doctor found: a line for each thing, then what is not well, why, and the command for it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.doctor import Area, Check, Level
from shared.plain import plain
from shared.report.words import indented

_WORDS = {
    Level.OK: ("ok", "green"),
    Level.WARN: ("warn", "yellow"),
    Level.FAIL: ("fail", "bold red"),
    Level.UNKNOWN: ("unknown", "yellow"),
}
_SECTIONS = {
    Level.FAIL: "What will not work",
    Level.UNKNOWN: "What could not be told",
    Level.WARN: "What to know",
}
# Of these there are many in a large estate: what is well is counted, and of more subscriptions than these together.
_COUNTED = {Area.RIGHTS, Area.DENIED, Area.POLICY, Area.CLUSTER}
_FEW = 10


def checks_as_json(checks: Iterable[Check], out: IO[str]) -> None:
    """The rows as a JSON array."""
    rows = [{name: plain(value, None) for name, value in asdict(check).items()} for check in checks]
    out.write(json.dumps(rows, indent=2) + "\n")


def checks_as_text(checks: Sequence[Check], out: IO[str]) -> None:
    """A table of all that was looked at, then what is not well: why, and below it the command that sets it right."""
    console = Console(file=out, highlight=False)
    console.print()
    console.print(_table(checks))
    for level, heading in _SECTIONS.items():
        chosen = [check for check in checks if check.status is level]
        if chosen:
            console.print()
            console.print(Text(heading, _WORDS[level][1]))
            _section(console, chosen)
    counts = Counter(check.status for check in checks)
    summary = Text.assemble((f"{len(checks)} checks", "bold"))
    for level, (word, style) in _WORDS.items():
        if counts[level]:
            summary.append(f" · {counts[level]} {word}", style)
    console.print()
    console.print(summary)


def _table(checks: Sequence[Check]) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    for _ in range(3):
        table.add_column()
    for status, area, subject, what in _lines(checks):
        word, style = _WORDS[status]
        said = Text.assemble((plain(subject, 200), "bold"), f"  {plain(what, None)}")
        table.add_row(Text(word, style), Text(area, "dim"), said)
    return table


def _lines(checks: Sequence[Check]) -> list[tuple[Level, str, str, str]]:
    """A line for each row; what is well of a subscription is one line, and of many subscriptions or clusters too."""
    well: dict[Area, dict[str, list[Check]]] = defaultdict(lambda: defaultdict(list))
    for check in checks:
        if _is_counted(check):
            well[check.area][check.subject].append(check)
    lines: list[tuple[Level, str, str, str]] = []
    for check in checks:
        if not _is_counted(check):
            detail = f": {check.reason}" if check.status is Level.OK else ""
            lines.append((check.status, check.area, check.subject, f"{check.what}{detail}"))
            continue
        # Where the first of them stands.
        subjects = well.pop(check.area, {})
        few = check.area is not Area.CLUSTER and len(subjects) <= _FEW
        for subject, members in subjects.items() if few else ():
            said = "; ".join(f"{member.what}: {member.reason}" for member in members)
            what = f"{len(members)} actions allowed" if check.area is Area.RIGHTS else said
            lines.append((Level.OK, check.area, subject, what))
        if subjects and not few:
            noun = "cluster" if check.area is Area.CLUSTER else "subscription"
            what = _allowed(subjects.values()) if check.area is Area.RIGHTS else "nothing stands against a run"
            lines.append((Level.OK, check.area, f"{len(subjects):,} {noun}{'s' * (len(subjects) > 1)}", what))
    return lines


def _allowed(subjects: Iterable[Sequence[Check]]) -> str:
    return f"{sum(map(len, subjects)):,} actions allowed"


def _is_counted(check: Check) -> bool:
    return check.status is Level.OK and check.area in _COUNTED


def _section(console: Console, checks: Sequence[Check]) -> None:
    """What has one subject and one command is said together, and the command once, on a line that is never broken."""
    groups: dict[tuple[str, str], list[Check]] = defaultdict(list)
    for check in checks:
        groups[check.subject, check.command].append(check)
    for (subject, command), members in groups.items():
        console.print(Text.assemble("  ", (plain(subject, 200), "bold")))
        for check in members:
            indented(console, f"{plain(check.what, None)}: {plain(check.reason, None)}", 4)
        if command:
            console.print(Text(f"    → {plain(command, None)}"), soft_wrap=True)
