"""What thinking about one node costs: from a command's output to the verdict, and a plan, in milliseconds of CPU.

    python -m bench.judging [NODES]

Nodes are made of what the collector really sends from the sandbox's nodes. What differs between two nodes of an AKS
pool differs here too: the process, all times, and since Kubernetes 1.29 `--node-ip` (Azure/AgentBaker: cse_config.sh).
`alike` nodes differ in nothing else, `same` ones not even in that, and `unalike` ones have settings of their own in
every file.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import sandbox
from sandbox import fleet, node
from shared.controls import control, judge
from shared.models import Evidence
from shared.node import evidence, frames
from shared.node.edits import plan
from shared.node.fixing import HEALTHZ, apply_script, file_edit

NONCE = "0123456789abcdef"
CONTROL = control("3.2.6")
STATES = ("compliant_default", "false_file", "false_flag", "false_dropin", "yaml_config")

_FLEET = """
subscriptions:
- id: 11111111-2222-4333-8444-555555555555
  name: One
  clusters:
  - name: aks-one
    resource_group: rg-one
    location: westeurope
    version: 1.33.5
    pools: [{{name: pool1, nodes: [{nodes}]}}]
"""


@dataclass(frozen=True, slots=True)
class Output:
    """What one command printed."""

    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Payload:
    """What a node sends, before it is packed."""

    raw: bytes
    wall: int
    uptime: int


def collected(state: str, directory: Path) -> Payload:
    """What the collector sends from a node in this state of the sandbox."""
    members = list(fleet.members(sandbox.parse(_FLEET.format(nodes=f"{{state: {state}}}"))))
    folder = node.make(members, directory)[members[0].name]
    parts: list[frames.Frame] = []
    while not parts or len(parts) < parts[0].parts:
        done = subprocess.run(
            ["/bin/sh", "-c", frames.collect_script(len(parts) + 1, NONCE)],
            env=dict(folder.environment()),
            capture_output=True,
            text=True,
            check=True,
        )
        parts += frames.parse_streams(done.stdout, done.stderr, NONCE)
    return Payload(frames.unpack(parts), parts[0].wall, parts[0].uptime)


def another(payload: Payload, number: int, kind: str) -> Payload:
    """The same payload from another node of the pool."""
    chance = random.Random(number)
    step = chance.randrange(1, 9) * 86_400_000_000_000 + chance.randrange(1_000_000)
    head = rb"(?m)^(file \d+ \d+ \d+ \d+ |link |directory )(\d{19})(?= )"
    raw = re.sub(head, lambda match: match[1] + str(int(match[2]) - step).encode(), payload.raw)
    raw = re.sub(rb"(?m)^fact boot_id .*", b"fact boot_id %s" % chance.randbytes(16).hex().encode(), raw)
    raw = re.sub(rb"(?m)^fact pid \d+", b"fact pid %d" % chance.randrange(1000, 30_000), raw)
    raw = re.sub(rb"(?m)^fact ticks \d+", b"fact ticks %d" % chance.randrange(1000, 90_000), raw)
    # A block moves as a whole: no file's change time comes behind the start.
    if kind != "same":
        address = f"10.224.{chance.randrange(0, 4)}.{chance.randrange(4, 250)}".encode()
        # As AKS appends it to KUBELET_FLAGS; `--cloud-provider` stands first there and in the process's arguments.
        raw = _put(raw, rb"--cloud-provider=external", b"--cloud-provider=external%s--node-ip=" + address)
    if kind == "unalike":
        own = b"%03d" % (number % 900 + 100)
        raw = raw.replace(b"--node-status-update-frequency=10s", b"--node-status-update-frequency=%ss" % own[:2])
        for old in (b"--max-pods=110", b'"maxPods": 110', b"maxPods: 110"):
            raw = raw.replace(old, old[:-3] + own)
        raw = raw.replace(b"10.0.0.10", b"10.0.%d.1%d" % (number % 10, number // 10 % 10))
        # In the unit itself; its comments and its description are masked on the node.
        raw = raw.replace(b"/etc/kubernetes/volumeplugins", b"/etc/kubernetes/volume%07d" % number)
    return Payload(raw, payload.wall, payload.uptime)


def _put(raw: bytes, old: bytes, new: bytes) -> bytes:
    """Replace text in every body, a blank in files and a newline in the arguments at `%s`; the lengths follow."""
    out, at = [], 0
    while at < len(raw):
        end = raw.index(b"\n", at)
        line, at = raw[at:end], end + 1
        words = line.split(b" ")
        if words[0] not in (b"file", b"argv"):
            out.append(line + b"\n")
            continue
        place = 6 if words[0] == b"file" else 1
        length = int(words[place])
        before, at = raw[at : at + length], at + length
        after = before.replace(old, new % (b" " if words[0] == b"file" else b"\n"))
        words[place] = str(len(after)).encode()
        if words[0] == b"file":
            words[4] = words[place]
        out += [b" ".join(words), b"\n", after]
    return b"".join(out)


def packed(payload: Payload) -> Output:
    """A payload as a command prints it."""
    text = base64.b64encode(gzip.compress(payload.raw, 6)).decode()
    digest = hashlib.sha256(text.encode()).hexdigest()
    parts = [text[at : at + frames.PART_CHARACTERS] for at in range(0, len(text), frames.PART_CHARACTERS)]
    printed = [
        f"{part}\nKG2 {number} {len(parts)} {len(text)} {len(part)} {payload.wall} {payload.uptime} {NONCE} {digest}\n"
        for number, part in enumerate(parts, 1)
    ]
    assert len(printed) <= frames.PARTS_PER_CALL
    return Output(printed[0], "".join(printed[1:]))


def measured(stages: Sequence[tuple[str, Callable[[], object]]], rounds: int) -> Iterable[tuple[str, float]]:
    """Milliseconds of CPU a node that each stage takes."""
    for name, run in stages:
        at = time.process_time()
        run()
        yield name, (time.process_time() - at) * 1000 / rounds


def table(payload: Payload, kind: str, count: int) -> list[tuple[str, float]]:
    """What `count` such nodes cost, stage by stage."""
    outputs = [packed(another(payload, number, kind)) for number in range(count)]
    framed: list[list[frames.Frame]] = []
    raws: list[bytes] = []
    seen: list[Evidence] = []
    failing: list[Evidence] = []

    def parse() -> None:
        framed.extend(frames.parse_streams(output.stdout, output.stderr, NONCE) for output in outputs)

    def unpack() -> None:
        raws.extend(map(frames.unpack, framed))

    def read() -> None:
        seen.extend(evidence.read(raw, parts[0].wall, parts[0].uptime) for raw, parts in zip(raws, framed, strict=True))

    def verdicts() -> None:
        failing.extend(item for item in seen if not _passes(item))

    def plans() -> None:
        for item in failing:
            _script(item)

    found = list(
        measured(
            [
                ("frames", parse),
                ("unpack", unpack),
                ("evidence", read),
                ("judge", verdicts),
                ("plan and script", plans),
            ],
            count,
        )
    )
    return [*found, ("to the verdict", sum(cost for _, cost in found[:4]))]


def _passes(item: Evidence) -> bool:
    verdict = judge(CONTROL, item)
    if verdict.status not in ("pass", "fail"):
        raise SystemExit(f"a node of the bench is not judged: {verdict}")
    return verdict.status == "pass"


def _script(item: Evidence) -> None:
    made = plan([CONTROL], item)
    if made.refused:
        raise SystemExit(f"a node of the bench is not planned: {made.refused[CONTROL.id]}")
    edits = [file_edit(item.files[path], text) for path, text in sorted(made.texts.items())]
    apply_script(
        edits,
        present=made.present,
        absent=made.absent,
        settle_seconds=10,
        limit_seconds=60,
        nonce=NONCE,
        healthz=HEALTHZ,
    )


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as place:
        payloads = {state: collected(state, Path(place) / state) for state in STATES}
    for state, payload in payloads.items():
        _passes(evidence.read(payload.raw, payload.wall, payload.uptime))  # the data files are read once
        for kind in ("same", "alike", "unalike"):
            costs = "  ".join(f"{name} {cost:.3f}" for name, cost in table(payload, kind, count))
            print(f"{state:18} {kind:8} {costs}", flush=True)


if __name__ == "__main__":
    main()
