"""Findings as a person reads them: pools with their nodes, then what did not pass, and what to do about it.

Of one control it is that control's page. Of several, nodes are counted by the worst that any control found of them,
what several controls say of a node in the same words is said once, and a control has a section where it has something
to say of its own.
"""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.controls import catalogue
from shared.models import Finding, Status, outcome_of, worst
from shared.report.order import by_number, sorted_by_place, spans
from shared.report.words import HEADINGS, STATUSES, indented

_SECTIONS = {
    Status.FAIL: "What failed",
    Status.ERROR: "What could not be determined",
    Status.SKIPPED: "What was skipped",
    Status.NOT_APPLICABLE: "What the control does not apply to",
}
_OF_SEVERAL = {**_SECTIONS, Status.NOT_APPLICABLE: "What controls do not apply to"}
_NAMES_SHOWN = 3


def as_table(findings: Iterable[Finding], out: IO[str]) -> None:
    """A table by cluster and pool; under it what did not pass, where it is set, and what to do."""
    console = Console(file=out, highlight=False)
    ordered = sorted_by_place(findings)
    controls = sorted({finding.control for finding in ordered}, key=by_number)
    if len(controls) > 1:
        _several(console, ordered, controls)
    elif controls:
        _heading(console, ordered[0])
        console.print()
        console.print(_by_pool(ordered))
        _sections(console, _SECTIONS, _alone(ordered))
    console.print()
    console.print(summary(ordered))


def _several(console: Console, findings: Sequence[Finding], controls: Sequence[str]) -> None:
    benchmarks = dict.fromkeys(finding.benchmark for finding in findings if finding.benchmark)
    console.print()
    console.print(Text.assemble((", ".join([*benchmarks, f"{len(controls)} controls"]), "bold")))
    console.print()
    console.print(_by_pool(findings, _WIDE_ROOM if console.width >= _WIDE else _NARROW_ROOM))
    shared, own = _divided(findings, controls)
    _sections(console, _OF_SEVERAL, shared)
    for control_id in controls:
        chosen = [finding for finding in own if finding.control == control_id]
        if chosen:
            _heading(console, chosen[0])
            _sections(console, _SECTIONS, _alone(chosen))


def _heading(console: Console, finding: Finding) -> None:
    """A control's id, title, benchmark, level (where it is known) and severity, as the finding's benchmark has them."""
    known = next((one for one in catalogue().benchmarks.values() if one.name == finding.benchmark), None)
    entry = known.entry(finding.control) if known is not None else None
    number = entry.number if entry is not None else ""
    words = [
        finding.benchmark + (f" {number}" if number and finding.benchmark else ""),
        f"Level {entry.level}" if entry is not None and entry.level else "",
        f"severity {finding.severity}",
    ]
    console.print()
    console.print(Text.assemble((f"{finding.control} ", "bold"), finding.title))
    console.print(Text(", ".join(filter(None, words)), "dim"))


def _places(findings: Iterable[Finding]) -> Mapping[str, list[Finding]]:
    """All findings of each node (or of a subscription, cluster or pool), in their order."""
    places: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        places[finding.place].append(finding)
    return places


# So many columns a console has where the controls that fail have much room, and their room else and then.
_WIDE = 100
_NARROW_ROOM, _WIDE_ROOM = 16, 40


def _by_pool(findings: Iterable[Finding], room: int = 0) -> Table:
    """A row a pool, counting nodes; where there is `room` (characters) with the controls that fail there, and on how
    many nodes."""
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 1 if room else 2, 0, 0))
    for heading in ("Cluster", "Node pool"):
        table.add_column(heading, no_wrap=True)
    for heading in ("Nodes", *(HEADINGS[status][0] for status in STATUSES)):
        table.add_column(heading, justify="right")
    if room:
        table.add_column("Failing")
    pools: dict[tuple[str, str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        pools[finding.subscription, finding.cluster, finding.node_pool].append(finding)
    previous = None
    for (subscription, cluster, pool), members in pools.items():
        places = _places(members)
        counts = Counter(worst(item.status for item in place) for place in places.values())
        nodes = sum(1 for place in places.values() if place[0].node)
        table.add_row(
            Text("" if (subscription, cluster) == previous else cluster or f"(subscription {subscription})"),
            Text(pool or "(all)"),
            str(nodes) if nodes else Text("-", "dim"),
            *(Text(str(counts[status]), HEADINGS[status][1]) if counts[status] else "" for status in STATUSES),
            # Rich would break a line within `3.2.6 ×4`, whose space textwrap keeps.
            *([Text("\n".join(textwrap.wrap(_failing(members), room)))] if room else []),
        )
        previous = (subscription, cluster)
    return table


def _failing(findings: Iterable[Finding]) -> str:
    """The controls that fail, those on most nodes first: `3.2.6 ×4, 3.2.1`."""
    counts = Counter(finding.control for finding in findings if finding.status is Status.FAIL)
    ordered = sorted(counts, key=lambda name: (-counts[name], by_number(name)))
    return ", ".join(f"{name}\u00a0×{counts[name]}" if counts[name] > 1 else name for name in ordered)


_Said = tuple[Finding, str]
"""A finding that is said, and the controls that it is said for, where that has to be said too."""


def _divided(findings: Iterable[Finding], controls: Sequence[str]) -> tuple[list[_Said], list[Finding]]:
    """What did not pass: what several controls say of a node in the same words, once; and what a control has of its
    own."""
    shared: list[_Said] = []
    own: list[Finding] = []
    for place in _places(findings).values():
        alike: dict[tuple[Status, str, str], list[Finding]] = defaultdict(list)
        for finding in place:
            if finding.status is not Status.PASS:
                alike[finding.status, _reason(finding), finding.hint].append(finding)
        for group in alike.values():
            if len(group) == 1:
                own += group
            else:
                whole = len(group) == len(place)
                shared.append((group[0], "" if whole else spans((item.control for item in group), controls)))
    return shared, own


def _alone(findings: Iterable[Finding]) -> list[_Said]:
    return [(finding, "") for finding in findings]


def _sections(console: Console, headings: Mapping[Status, str], said: Sequence[_Said]) -> None:
    """One entry for each cluster, pool and reason, with the nodes that share it."""
    for status, heading in headings.items():
        groups: dict[tuple[str, str, str, str, str], list[Finding]] = defaultdict(list)
        for finding, controls in said:
            if finding.status is status:
                key = (finding.cluster, finding.node_pool, _reason(finding), finding.hint, controls)
                groups[key].append(finding)
        if groups:
            console.print()
            console.print(Text(heading, HEADINGS[status][1]))
        for (cluster, pool, reason, hint, controls), members in groups.items():
            place = " / ".join(filter(None, (cluster or members[0].subscription, pool)))
            names = [finding.node for finding in members if finding.node]
            more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
            console.print(
                Text.assemble(
                    *("  ", (place, "bold"), "  " if names else "", ", ".join(names[:_NAMES_SHOWN]) + more),
                    (f"  {controls}" if controls else "", "dim"),
                )
            )
            indented(console, reason, 4)
            if hint:
                indented(console, f"→ {hint}", 4)


def _reason(finding: Finding) -> str:
    """A finding's reason, with what history adds to it."""
    if not finding.regressed:
        return finding.reason
    last = f", last right {finding.last_right:%Y-%m-%d %H:%M} UTC" if finding.last_right else ""
    reimaged = {True: ", reimaged since", False: ", not reimaged since", None: ""}[finding.reimaged_since]
    return f"{finding.reason} [regressed: it was fixed before{last}{reimaged}]"


def summary(findings: Sequence[Finding]) -> Text:
    """One line: how many nodes and controls, and how many nodes (or places without nodes) came to each status."""
    places = _places(findings)
    nodes = sum(1 for place in places.values() if place[0].node)
    controls = len({finding.control for finding in findings})
    parts = Text.assemble((f"{nodes} nodes" + (f", {controls} controls" if controls > 1 else ""), "bold"))
    counts = Counter(worst(finding.status for finding in place) for place in places.values())
    for status in STATUSES:
        if counts[status]:
            parts.append(f" · {counts[status]} {HEADINGS[status][0].lower()}", HEADINGS[status][1])
    done = [outcome_of(finding.outcome for finding in place) for place in places.values()]
    outcomes = Counter(outcome for outcome in done if outcome is not None)
    if outcomes:
        words = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in sorted(outcomes.items()))
        parts.append(f"   fix: {words}")
    return parts
