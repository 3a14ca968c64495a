"""`python -m bench.soak`: many trials (`bench.trial`), each of a seed, each checked.

Of one that broke a promise it prints how to run it again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed

from pydantic import TypeAdapter

from bench.trial import Trial, trial

_TRIAL = TypeAdapter(Trial)

# A trial takes some seconds; one that is not over by then hangs.
_PATIENCE = 180.0


def main() -> int:
    """Run the trials side by side, each in a process of its own; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1, help="the first of the seeds")
    parser.add_argument("--jobs", type=int, default=6, help="trials at once: they mostly wait")
    parser.add_argument("--one", type=int, metavar="SEED", help="this trial alone, in this process")
    given = parser.parse_args()
    if given.one is not None:
        print(_TRIAL.dump_json(trial(given.one)).decode())
        return 0
    began = time.monotonic()
    faults, how = Counter[str](), Counter[str]()
    failed, lost, nodes = 0, 0, 0
    with ThreadPoolExecutor(given.jobs) as pool:
        for done in as_completed([pool.submit(_one, seed) for seed in range(given.seed, given.seed + given.runs)]):
            result = done.result()
            faults.update(result.faults)
            how[result.how] += 1
            lost += result.lost
            nodes += result.nodes
            if result.broken:
                failed += 1
                print(f"seed {result.seed} ({result.how}):", flush=True)
                for text in result.broken:
                    print(f"    {text}")
                print(f"    again: python -m bench.soak --one {result.seed}", flush=True)
    print(
        f"{given.runs} runs over {nodes} nodes in {time.monotonic() - began:.0f} s, {sum(faults.values())} faults,"
        f" {lost} verdicts lost to them, {failed} runs broke a promise"
    )
    print(", ".join(f"{count} {name}" for name, count in how.most_common()))
    print(", ".join(f"{count} {name}" for name, count in faults.most_common()))
    return 1 if failed else 0


def _one(seed: int) -> Trial:
    """The trial of a seed, as its process prints it."""
    command = [sys.executable, "-m", "bench.soak", "--one", str(seed)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return Trial(seed, "?", broken=[f"not over after {_PATIENCE:.0f} s"])
    if done.returncode != 0:
        return Trial(seed, "?", broken=[f"the trial itself failed: {done.stderr[-1500:]}"])
    return _TRIAL.validate_json(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
