"""`python -m sandbox serve` plays a fleet until it is told to stop; `python -m sandbox states` prints the catalogue."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import signal
import sys
from pathlib import Path

from sandbox import FleetError, Sandbox, serve
from sandbox.states import STATES

REAL_LATENCY = (22.0, 28.0)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox", description="A small Azure on localhost.", allow_abbrev=False
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("states", help="print the catalogue of node states", allow_abbrev=False)
    run = verbs.add_parser("serve", help="play a fleet until SIGINT or SIGTERM", allow_abbrev=False)
    run.add_argument("--fleet", type=Path, required=True, help="the fleet file, such as fleets/demo.yaml")
    run.add_argument("--port", type=int, default=0, help="the port of Resource Manager (default: a free one)")
    run.add_argument("--dir", type=Path, help="keep the nodes here (default: a temporary folder, removed at the end)")
    run.add_argument(
        "--latency", help="seconds that a run command takes, `2`, `22-28` or `real`, instead of the fleet's"
    )
    run.add_argument("--no-throttle", action="store_true", help="do not enforce Azure's rate limits")
    run.add_argument("--env-file", type=Path, help="also write the variables to this file, for a shell to source")
    given = parser.parse_args(arguments)
    if given.verb == "states":
        for name, state in STATES.items():
            print(f"{name:24} {state.expected:8} {state.description}")  # noqa: T201 - a command's output
        return 0
    try:
        latency = None if given.latency is None else _latency(given.latency)
        asyncio.run(_serve(given.fleet, given.port, given.dir, latency, given.no_throttle, given.env_file))
    except (FleetError, OSError, ValueError) as error:
        print(f"sandbox: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _latency(text: str) -> tuple[float, float]:
    if text == "real":
        return REAL_LATENCY
    low, _, high = text.partition("-")
    try:
        pair = (float(low), float(high or low))
    except ValueError:
        pair = (1.0, 0.0)
    if not 0 <= pair[0] <= pair[1] <= 3600:
        raise ValueError(f"--latency {text!r}: give seconds such as 2, a range such as 22-28, or `real`")
    return pair


async def _serve(
    fleet: Path,
    port: int,
    directory: Path | None,
    latency: tuple[float, float] | None,
    no_throttle: bool,
    env_file: Path | None,
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    throttle = False if no_throttle else None
    async with serve(fleet, directory=directory, port=port, latency=latency, throttle=throttle) as box:
        text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in box.environ.items())
        if env_file is not None:
            await asyncio.to_thread(_write_private, env_file, text)
        print(text, end="", flush=True)  # noqa: T201 - for a shell to evaluate
        print(_summary(box), file=sys.stderr, flush=True)  # noqa: T201
        await stop.wait()


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)


def _summary(box: Sandbox) -> str:
    subscriptions = box.fleet.subscriptions
    clusters = [cluster for subscription in subscriptions for cluster in subscription.clusters]
    counts = f"{len(subscriptions)} subscriptions, {len(clusters)} clusters, {len(box.compute.instances)} instances"
    return f"sandbox: {counts} in {box.directory}; stop it with Ctrl-C"


if __name__ == "__main__":
    sys.exit(main())
