"""`python -m bench.soak`: many trials (`bench.trial`), each of a seed, each checked.

Of one that broke a promise it prints how to run it again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from bench.clock import Clock
from bench.faster import hasten

if TYPE_CHECKING:
    from bench.world import Trial

# A trial takes a minute or two, on a busy machine more; one that is not over by then hangs.
_PATIENCE = 600.0


def main() -> int:
    """Run the trials side by side, each in a process of its own; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1, help="the first of the seeds")
    parser.add_argument("--jobs", type=int, default=8, help="trials at once: they mostly wait")
    parser.add_argument("--scale", type=float, default=20, help="how many times as fast as the world's the clock goes")
    parser.add_argument("--one", type=int, metavar="SEED", help="this trial alone, in this process")
    given = parser.parse_args()
    began = time.monotonic()
    clock = Clock.from_now(given.scale)
    hasten(clock.scale, clock.epoch)
    # Not before: modules keep the clocks that they find.
    from bench.trial import trial

    if given.one is not None:
        alone = trial(given.one, clock)
        print(json.dumps(vars(alone)))
        return 1 if alone.broken else 0
    results = []
    for result in _side_by_side(range(given.seed, given.seed + given.runs), given.jobs, clock):
        results.append(result)
        _tell(result, clock)
    _tell_all(results, time.clock_gettime(time.CLOCK_MONOTONIC) - began)
    return 1 if any(result.broken for result in results) else 0


def _tell(result: Trial, clock: Clock) -> None:
    head = f"{result.seed:6} {result.how:28} {result.nodes:3} nodes {sum(result.faults.values()):4} faults"
    print(f"{head} {result.lost:3} lost {result.seconds:5.1f} s{'  BROKEN' if result.broken else ''}", flush=True)
    for text in result.broken:
        print(f"       {text}", flush=True)
    if result.broken:
        print(f"       again: python -m bench.soak --scale {clock.scale:g} --one {result.seed}", flush=True)


def _tell_all(results: list[Trial], seconds: float) -> None:
    faults, how, outcomes = Counter[str](), Counter[str](), Counter[str]()
    for result in results:
        faults.update(result.faults)
        outcomes.update(result.outcomes)
        how[result.how] += 1
    failed = sum(1 for result in results if result.broken)
    print(
        f"{len(results)} runs over {sum(result.nodes for result in results)} nodes in {seconds:.0f} s,"
        f" {sum(faults.values())} faults, {sum(result.lost for result in results)} verdicts lost to them,"
        f" {failed} runs broke a promise"
    )
    print(", ".join(f"{count} {name}" for name, count in how.most_common()))
    print(f"nodes of fixes: {', '.join(f'{count} {name}' for name, count in outcomes.most_common())}")
    print(", ".join(f"{count} {name}" for name, count in faults.most_common()))


def _side_by_side(seeds: Iterable[int], jobs: int, clock: Clock) -> Iterator[Trial]:
    """The trials of the seeds as they end, so many at once; each in a process that is forked from this one."""
    fork = multiprocessing.get_context("fork")
    going: dict[multiprocessing.connection.Connection, tuple[int, BaseProcess, float]] = {}
    left = iter(seeds)
    seed = next(left, None)
    while going or seed is not None:
        while seed is not None and len(going) < jobs:
            ours, theirs = fork.Pipe(duplex=False)
            process: BaseProcess = fork.Process(target=_child, args=(seed, clock, theirs))
            process.start()
            theirs.close()
            going[ours] = seed, process, time.monotonic() + _PATIENCE * clock.scale
            seed = next(left, None)
        ready = multiprocessing.connection.wait(list(going), timeout=1)
        for ours in list(going):
            if ours in ready or time.monotonic() > going[ours][2]:
                number, process, _ = going.pop(ours)
                yield _end(ours, number, process, hangs=ours not in ready)


def _child(seed: int, clock: Clock, ours: multiprocessing.connection.Connection) -> None:
    os.setsid()
    from bench.trial import trial
    from bench.world import Trial

    try:
        result = trial(seed, clock)
    except BaseException:
        result = Trial(seed, "?", broken=[f"the trial itself failed: {traceback.format_exc()[-1500:]}"])
    ours.send(result)


def _end(ours: multiprocessing.connection.Connection, seed: int, process: BaseProcess, *, hangs: bool) -> Trial:
    from bench.world import Trial

    try:
        result: Trial = Trial(seed, "?", broken=[f"not over after {_PATIENCE:.0f} s"]) if hangs else ours.recv()
    except EOFError:
        result = Trial(seed, "?", broken=["the trial's process died"])
    if hangs and process.pid is not None:
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    ours.close()
    return result


if __name__ == "__main__":
    sys.exit(main())
