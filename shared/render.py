"""Findings as a person or a program reads them: a table, JSON, CSV."""

from __future__ import annotations

import csv
import json
import textwrap
from collections import Counter, defaultdict
from collections.abc import AsyncIterable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from itertools import groupby
from os.path import commonprefix
from typing import IO, Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.models import Finding, History, Outcome, Status
from shared.plain import plain, plain_fields
from shared.runs.model.plans import NodePlan

# The order in which a person wants to hear of them.
_STATUSES = (Status.PASS, Status.FAIL, Status.ERROR, Status.SKIPPED, Status.NOT_APPLICABLE)
_HEADINGS = {
    Status.PASS: ("Pass", "green"),
    Status.FAIL: ("Fail", "bold red"),
    Status.ERROR: ("Error", "yellow"),
    Status.SKIPPED: ("Skipped", "cyan"),
    Status.NOT_APPLICABLE: ("N/A", "dim"),
}
_SECTIONS = {
    Status.FAIL: "What failed",
    Status.ERROR: "What could not be determined",
    Status.SKIPPED: "What was skipped",
    Status.NOT_APPLICABLE: "What the control does not apply to",
}
_NAMES_SHOWN = 3

_FINDING = TypeAdapter(Finding)


def exit_code(findings: Iterable[Finding]) -> int:
    """See `exit_code_of`."""
    return exit_code_of({finding.status for finding in findings})


def exit_code_of(statuses: Collection[Status]) -> int:
    """0: every node judged passes; 1: some fail; 2: none fails, but some could not be determined (or none was found).

    Skipped and not applicable nodes (stopped, Windows) have no running kubelet to judge, and do not count.
    """
    if Status.FAIL in statuses:
        return 1
    return 2 if Status.ERROR in statuses or not statuses else 0


Changes = Mapping[str, Sequence[History]]
"""What became of a node's control over time, by `Finding.key`."""


def as_json(findings: Iterable[Finding], out: IO[str], changes: Changes | None = None) -> None:
    """Findings as a JSON array; each with its node's `changes` where these are given."""
    _write(sorted_by_place(findings), json_entries(out, changes))


def as_csv(findings: Iterable[Finding], out: IO[str]) -> None:
    """Findings as CSV with a header line. A cell that a spreadsheet would take for a formula gets a leading quote."""
    _write(sorted_by_place(findings), csv_entries(out))


Entries = Generator[None, Finding | None, None]
"""Takes findings one by one, as they come; the end is told with None."""


def _write(findings: Iterable[Finding], entries: Entries) -> None:
    next(entries)
    for finding in findings:
        entries.send(finding)
    with suppress(StopIteration):
        entries.send(None)


async def stream(findings: AsyncIterable[Finding], entries: Entries) -> set[Status]:
    """Write findings as they come, holding none; gives their statuses."""
    statuses: set[Status] = set()
    next(entries)
    async for finding in findings:
        statuses.add(finding.status)
        entries.send(plain_fields(finding))
    with suppress(StopIteration):
        entries.send(None)
    return statuses


def json_entries(out: IO[str], changes: Changes | None = None) -> Entries:
    """A JSON array."""
    before = "[\n"
    while (finding := (yield)) is not None:
        value = _FINDING.dump_python(finding, mode="json")
        if changes is not None:
            value["changes"] = [
                {"at": change.seen.isoformat(), "status": change.status, "what": what_changed(change)}
                for change in changes.get(finding.key, ())
            ]
        text = json.dumps(value, indent=2)
        out.write(before + textwrap.indent(text, "  "))
        before = ",\n"
    out.write("[]\n" if before == "[\n" else "\n]\n")


def csv_entries(out: IO[str]) -> Entries:
    """CSV."""
    names = [field.name for field in fields(Finding)]
    writer = csv.DictWriter(out, names)
    writer.writeheader()
    while (finding := (yield)) is not None:
        row = _FINDING.dump_python(finding, mode="json")
        writer.writerow({name: _cell(row[name]) for name in names})


# What makes a formula of a cell, in full width too, which spreadsheets of some languages take as well.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip().startswith(_FORMULA):
        return "'" + value
    return json.dumps(value) if isinstance(value, bool | list) else value


def sorted_by_place(findings: Iterable[Finding]) -> list[Finding]:
    """Findings in the order of subscription, cluster, pool, node and control, in plain characters."""
    return sorted(
        map(plain_fields, findings),
        key=lambda item: (item.subscription, item.cluster, item.node_pool, item.node, item.key),
    )


def as_table(findings: Iterable[Finding], out: IO[str]) -> None:
    """A table by cluster and pool; under it what did not pass, where it is set, and what to do."""
    console = Console(file=out, highlight=False)
    ordered = sorted_by_place(findings)
    for control_id in sorted({finding.control for finding in ordered}):
        chosen = [finding for finding in ordered if finding.control == control_id]
        console.print()
        console.print(Text.assemble((f"{control_id} ", "bold"), chosen[0].title))
        console.print(Text(f"{chosen[0].benchmark}, severity {chosen[0].severity}", "dim"))
        console.print()
        console.print(_by_pool(chosen))
        for status, heading in _SECTIONS.items():
            _section(console, heading, status, [finding for finding in chosen if finding.status is status])
    console.print()
    console.print(summary(ordered))


def _by_pool(findings: list[Finding]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("Cluster", "Node pool"):
        table.add_column(heading, no_wrap=True)
    for heading in ("Nodes", *(_HEADINGS[status][0] for status in _STATUSES)):
        table.add_column(heading, justify="right")
    pools: dict[tuple[str, str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        pools[finding.subscription, finding.cluster, finding.node_pool].append(finding)
    previous = None
    for (subscription, cluster, pool), members in pools.items():
        counts = Counter(finding.status for finding in members)
        nodes = sum(1 for finding in members if finding.node)
        table.add_row(
            Text("" if (subscription, cluster) == previous else cluster or f"(subscription {subscription})"),
            Text(pool or "(all)"),
            str(nodes) if nodes else Text("-", "dim"),
            *(Text(str(counts[status]), _HEADINGS[status][1]) if counts[status] else "" for status in _STATUSES),
        )
        previous = (subscription, cluster)
    return table


def _section(console: Console, heading: str, status: Status, findings: list[Finding]) -> None:
    """One entry for each cluster, pool and reason, with the nodes that share it."""
    if not findings:
        return
    groups: dict[tuple[str, str, str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        reason = finding.reason + _past(finding)
        groups[finding.cluster, finding.node_pool, reason, finding.hint].append(finding)
    console.print()
    console.print(Text(heading, _HEADINGS[status][1]))
    for (cluster, pool, reason, hint), members in groups.items():
        place = " / ".join(filter(None, (cluster or members[0].subscription, pool)))
        names = [finding.node for finding in members if finding.node]
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        console.print(
            Text.assemble("  ", (place, "bold"), "  " if names else "", ", ".join(names[:_NAMES_SHOWN]) + more)
        )
        _indented(console, reason, 4)
        if hint:
            _indented(console, f"→ {hint}", 4)


def _indented(console: Console, text: str, indent: int, style: str = "") -> None:
    """A paragraph with an indentation, its lines not padded."""
    for line in textwrap.wrap(text, max(console.width - indent, 20), break_on_hyphens=False):
        console.print(Text(" " * indent + line, style), soft_wrap=True)


def _past(finding: Finding) -> str:
    """What history adds to a reason."""
    if not finding.regressed:
        return ""
    last = f", last right {finding.last_right:%Y-%m-%d %H:%M} UTC" if finding.last_right else ""
    reimaged = {True: ", reimaged since", False: ", not reimaged since", None: ""}[finding.reimaged_since]
    return f" [regressed: it was fixed before{last}{reimaged}]"


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
            heading, style = _HEADINGS[change.status]
            what = what_changed(change).replace("_", " ")
            console.print(
                Text.assemble(f"  {change.seen:%Y-%m-%d %H:%M} UTC  ", (heading, style), f"  {what}".rstrip())
            )
        if not changes[finding.key]:
            console.print("  no change of it is known")


def plans_as_text(plans: Sequence[NodePlan], out: IO[str]) -> None:
    """What a fix would do, node by node, with diffs; masked values stay masked."""
    console = Console(file=out, highlight=False)
    for plan in sorted(plans, key=lambda item: (item.node.cluster, item.node.node_pool, item.node.name)):
        place = plain(f"{plan.node.cluster} / {plan.node.node_pool} / {plan.node.name}")
        console.print(Text.assemble(("\n" + place, "bold"), ("  " + plain(", ".join(plan.controls)), "dim")))
        if plan.refused:
            _indented(console, f"not planned: {plain(plan.refused, None)}", 2, "yellow")
        for step in plan.steps:
            _indented(console, f"- {plain(step, None)}", 2)
        for line in _readable(plan.diff.splitlines()):
            style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "dim")
            console.print(Text(f"    {plain(line, None)}", style), soft_wrap=True)
    planned = sum(not plan.refused for plan in plans)
    console.print(Text(f"\n{planned} nodes would be changed, {len(plans) - planned} cannot be planned", "bold"))


def summary(findings: Sequence[Finding]) -> Text:
    """One line: how many nodes, and how many findings of each status."""
    nodes = len({item.place for item in findings if item.node})
    counts = Counter(finding.status for finding in findings)
    parts = Text.assemble((f"{nodes} nodes", "bold"))
    for status in _STATUSES:
        if counts[status]:
            parts.append(f" · {counts[status]} {_HEADINGS[status][0].lower()}", _HEADINGS[status][1])
    outcomes = Counter(finding.outcome for finding in findings if finding.outcome is not None)
    if outcomes:
        words = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in sorted(outcomes.items()))
        parts.append(f"   fix: {words}")
    return parts
