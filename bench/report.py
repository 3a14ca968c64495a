"""Results as rows of a table, as JSON, and as a page with a plot in `docs/`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from bench.fleets import bound_of
from bench.measure import Result
from bench.plot import chart

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parent.parent / "docs"
_MARK = "<!-- bench: {} -->"
_ALL = TypeAdapter(list[Result])
_WHO = ("us", "fix", "app", "all at once", "one by one")
_COLUMNS = (
    "who",
    "nodes",
    "subscriptions",
    "controls",
    "clock",
    "bound s",
    "last start s",
    "of bound",
    "end s",
    "end - bound - slowest s",
    "calls a node",
    "looks a node",
    "429 %",
    "CPU ms a node",
    "peak MB",
    "held up %",
    "no or wrong verdict",
)


def head() -> str:
    """The table's head, in Markdown."""
    return f"| {' | '.join(_COLUMNS)} |\n|{'|'.join(['---', *['--:'] * (len(_COLUMNS) - 1)])}|"


def row(result: Result) -> str:
    """One row. A figure that follows from fewer nodes begins with ≈."""
    about = "≈ " if result.extrapolated else ""
    ratio = f"{result.last_start / result.bound:.2f}" if result.bound and result.who != "fix" else "-"
    cells = (
        result.who,
        f"{result.nodes:,}",
        str(result.subscriptions),
        str(result.controls),
        f"×{result.scale:g}",
        f"{result.bound:,.0f}",
        f"{about}{result.last_start:,.0f}",
        f"{about}{ratio}",
        f"{about}{result.end:,.0f}",
        "-" if result.who == "fix" else f"{about}{round(result.lag):,}",
        f"{result.calls / result.nodes:.2f}",
        f"{result.looks_each:.2f}",
        f"{100 * result.refused / max(1, result.calls):.1f}",
        f"{about}{result.cpu_ms:.1f}",
        f"{result.peak_mb:,.0f}",
        f"{100 * result.waited:.0f}" if result.waited else "",
        f"{result.wrong:,}",
    )
    return f"| {' | '.join(cells)} |"


def app_line(result: Result) -> str:
    """What a run in the serverless app cost besides, as an item of a list."""
    activities, transactions = result.app["activities"], result.app["transactions"]
    named = ", ".join(f"{count} {name}" for name, count in sorted(activities.items(), key=lambda item: -item[1]))
    orchestrations = sum(result.app["orchestrations"].values())
    largest = result.app["largest_history_characters"]
    return (
        f"- The app, {result.nodes:,} nodes: {orchestrations} orchestrations in {result.app['episodes']:,} episodes,"
        f" the largest history {largest / 1024:,.1f} KB; {sum(activities.values()):,} activities ({named});"
        f" {sum(transactions.values()) / result.nodes:.2f} table transactions a node."
    )


def load(path: Path) -> list[Result]:
    """The results in a file; none where there is no file."""
    return _ALL.validate_json(path.read_bytes()) if path.exists() else []


def keep(path: Path, result: Result) -> None:
    """Put a result into a file, in the place of an earlier one of the same case."""
    case = _case(result)
    kept = [other for other in load(path) if _case(other) != case]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(item) for item in (*kept, result)], indent=1) + "\n", "utf-8")


def _case(result: Result) -> tuple[object, ...]:
    # What a table shows of it: two rows that nobody can tell apart say nothing.
    return result.who, result.nodes, result.subscriptions, result.scale, result.controls


def write_docs() -> None:
    """Put the tables of all result files and the plot into docs/performance.md, between its marks."""
    page = DOCS / "performance.md"
    text = page.read_text("utf-8")
    for path in sorted(RESULTS.glob("*.json")):
        begin, end = _MARK.format(path.stem), f"<!-- end of {path.stem} -->"
        if begin not in text or not load(path):
            continue
        results = sorted(
            load(path), key=lambda item: (_WHO.index(item.who), item.nodes, item.subscriptions, item.controls)
        )
        measured = max(item.measured for item in results)
        loads = [item.load for item in results]
        apps = [app_line(item) for item in results if item.app]
        said = f"Measured on {measured}, on {os.cpu_count()} cores, their load {min(loads):.0f} to {max(loads):.0f}."
        table = "\n".join([said, "", head(), *map(row, results), "", *apps])
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
    page.write_text(text, "utf-8")
    (DOCS / "performance.svg").write_text(_plot(), "utf-8")


def _plot() -> str:
    before, after = load(RESULTS / "before.json"), load(RESULTS / "after.json")
    peers = next(filter(None, ([item for item in some if item.who == "all at once"] for some in (after, before))), [])
    lines: list[tuple[str, Sequence[tuple[float, float]]]] = []
    biggest = max((item.nodes for item in (*before, *after) if item.subscriptions == 1), default=0)
    for name, results in (("0.1.0", before), ("now", after)):
        for item in results:
            if (item.who, item.nodes, item.subscriptions) == ("us", biggest, 1) and item.dead_every:
                lines.append((name, _points(item)))
    lines += [("all at once, 1,000 nodes", _points(item)) for item in peers if item.nodes == 1000]
    # Up to 8,000 nodes Resource Manager's writes are the narrower limit, then Compute's updates in one region.
    steps = [200, *(nodes for nodes in (8_000,) if nodes < biggest), biggest]
    lines.append(("Azure's limits", [(bound_of(nodes, nodes) / 60, float(nodes)) for nodes in steps]))
    return chart(f"Nodes started, {biggest:,} nodes in one subscription", "minutes", lines)


def _points(result: Result) -> list[tuple[float, float]]:
    last = max(1, len(result.curve) - 1)
    return [(start / 60, 1 + number * (result.starts - 1) / last) for number, start in enumerate(result.curve)]
