"""`python -m bench`: measure the table's cases, one after another, and keep the results (docs/performance.md)."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from bench import report
from bench.measure import Case, measure

# The scale is what a client at 20 ms a node still keeps up with on one core.
_SCALE = 5.0
_PEERS_ONE_BY_ONE = 6


def cases(scale: float) -> list[Case]:
    """Two sizes for us and the two loops that people write, several subscriptions, a fix, the app, and 10,000 once."""
    found = []
    for nodes in (100, 1000):
        found += [
            Case("us", nodes, scale=scale),
            Case("one by one", nodes, scale=scale, only=_PEERS_ONE_BY_ONE, dead_every=0),
            Case("all at once", nodes, scale=scale),
        ]
    # All start at once there: on a faster clock the processor is the limit, and not Azure.
    found += [Case("us", 1000, subscriptions, scale=1.0, dead_every=0) for subscriptions in (4, 20)]
    return [
        *found,
        Case("fix", 1000, 1, scale, dead_every=0),
        Case("app", 1000, 1, scale),
        Case("us", 10_000, 1, scale),
    ]


def main() -> int:
    """Measure, print a table, and write it down where asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--nodes", type=int, action="append", help="only this many nodes, for us")
    parser.add_argument("--subscriptions", type=int, default=1, help="with --nodes: in so many subscriptions")
    parser.add_argument("--who", default="us", choices=["us", "fix", "app", "one by one", "all at once"])
    parser.add_argument(
        "--scale", type=float, default=_SCALE, help="how many times as fast as the world's the clock is"
    )
    parser.add_argument("--control", default="", help="judge this control alone (default: all of the benchmark)")
    parser.add_argument("--no-dead-agents", action="store_true", help="every node answers")
    parser.add_argument("--out", type=Path, help="add the results to this JSON file")
    parser.add_argument(
        "--docs",
        action="store_true",
        help="write the tables and the plot of all results into docs/, at the end or (without --out) alone",
    )
    given = parser.parse_args()
    if given.docs and given.out is None:
        report.write_docs()
        return 0
    chosen = cases(given.scale)
    if given.nodes:
        one_by_one = _PEERS_ONE_BY_ONE if given.who == "one by one" else None
        dead = 0 if given.no_dead_agents else Case("us", 1).dead_every
        chosen = [Case(given.who, nodes, given.subscriptions, given.scale, one_by_one, dead) for nodes in given.nodes]
    chosen = [case if case.who == "fix" else replace(case, control=given.control) for case in chosen]
    failed = False
    print(report.head(), flush=True)
    for case in chosen:
        try:
            result = measure(case)
        except (RuntimeError, TimeoutError) as error:
            failed = True
            print(f"{case}: {error}", file=sys.stderr)
            continue
        print(report.row(result), flush=True)
        if given.out is not None:
            report.keep(given.out, result)
        failed = failed or (case.who in ("us", "fix", "app") and result.wrong > 0)
    if given.docs:
        report.write_docs()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
