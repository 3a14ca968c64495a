"""Telling a person how a run goes, on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from shared.models import Finding, Status, worst

_SECONDS_BETWEEN_LINES = 5.0


@dataclass
class Meter:
    """Counts nodes found and done, by the worst that any control found of them (`statuses`; of a cluster or pool whose
    nodes are not known too). All findings of a node arrive in one call, which may be of many nodes."""

    found: int = 0
    done: int = 0
    statuses: Counter[Status] = field(default_factory=Counter)

    def on_found(self, nodes: int) -> None:
        self.found += nodes
        self.show()

    def on_findings(self, findings: list[Finding]) -> None:
        places: dict[str, list[Finding]] = {}
        for finding in findings:
            places.setdefault(finding.place, []).append(finding)
        self.statuses.update(worst(finding.status for finding in place) for place in places.values())
        self.done += sum(1 for place in places.values() if place[0].node)
        self.show()

    def show(self) -> None:
        """Make the new figures visible."""

    def words(self) -> str:
        """What the nodes came to so far, such as `12 pass, 3 fail`."""
        return ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in sorted(self.statuses.items()))


class _Bar(Meter):
    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self._task = progress.add_task("finding clusters and nodes", total=None, words="")

    def show(self) -> None:
        label = "auditing" if self.found else "finding clusters and nodes"
        self._progress.update(
            self._task, description=label, total=self.found or None, completed=self.done, words=self.words()
        )


class _Lines(Meter):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._next = time.monotonic() + _SECONDS_BETWEEN_LINES

    def show(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _SECONDS_BETWEEN_LINES
            self.line()

    def line(self) -> None:
        words = f": {self.words()}" if self.statuses else ""
        self._console.print(f"{self.done} of {self.found} nodes{words}", highlight=False)


@contextmanager
def meter() -> Iterator[Meter]:
    """A meter that shows itself on stderr for as long as the context lasts."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[words]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            yield _Bar(progress)
    else:
        lines = _Lines(console)
        yield lines
        lines.line()
