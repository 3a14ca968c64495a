"""What the bench's nodes answer to the collect script: real evidence, read once, made another for every node.

A node of each state is made by the sandbox and the real script is run on it. Of its payload everything stays that nodes
of a pool have in common; what no two nodes share is put anew: when files were written and the machine and the kubelet
were started, the boot's id, the process's id. Each answer is packed when it is asked for, as each repeats its request.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import re
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from bench.fleets import REGION, VERSION
from sandbox import node
from sandbox.fleet import Cluster, Fleet, Nodes, Pool, Subscription
from sandbox.fleet import members as fleet_members
from sandbox.runcommand import Runner
from shared.node import frames

_SECOND = 1_000_000_000
_STEPS = "step replaced /etc/default/kubeletconfig.json\nstep restarted kubelet\n"
_NONCE = "0123456789abcdef"
# Every number that is a time, and every fact of one process or boot.
_SLOTS = re.compile(
    rb"^(?:(?:directory|link|file \d+ \d+ \d+ \d+) (?P<time>\d{19})"
    rb"|fact ExecMainStartTimestamp (?P<stamp>[^\n]+)"
    rb"|fact ExecMainStartTimestampMonotonic (?P<mono>\d+)"
    rb"|fact ticks (?P<ticks>\d+)|fact pid (?P<pid>\d+)|fact boot_id (?P<boot>[-0-9a-f]+)"
    rb"|fact executable (?P<executable>[^\n]*))",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Template:
    """Evidence of one state with holes. `pieces` and `slots` take turns, a piece first and last.

    A slot is the word before the hole, and of a time how many nanoseconds it is before the process's start.
    """

    pieces: tuple[bytes, ...]
    slots: tuple[tuple[str, bytes, int], ...]

    def payload(self, number: int, epoch: float) -> tuple[bytes, int]:
        """The evidence of the node with this number, and since when its machine is up (nanoseconds since 1970).

        It was started before `epoch` (seconds since 1970), and the same arguments give the same.
        """
        chance = random.Random(number)
        up = chance.randrange(80, 90) * _SECOND + chance.randrange(_SECOND) // 1000 * 1000
        age = chance.randrange(1, 60) * 86_400 * _SECOND + chance.randrange(86_400 * _SECOND)
        start = (int(epoch) * _SECOND - age) // 1000 * 1000
        told = datetime.fromtimestamp(start // _SECOND, UTC).strftime("%a %Y-%m-%d %H:%M:%S")
        words = {
            "stamp": f"{told}.{start % _SECOND // 1000:06d} UTC".encode(),
            "mono": str(up // 1000).encode(),
            "ticks": str(up // 10_000_000).encode(),
            "pid": str(1_000 + chance.randrange(3_000)).encode(),
            "boot": str(UUID(int=chance.getrandbits(128), version=4)).encode(),
            "executable": b"/opt/bin/kubelet",
        }
        drift = 30 * _SECOND + chance.randrange(_SECOND)
        made = [self.pieces[0]]
        for (kind, prefix, before), piece in zip(self.slots, self.pieces[1:], strict=True):
            made += (prefix, str(start - before - drift).encode() if kind == "time" else words[kind], piece)
        return b"".join(made), start - up


def template(payload: bytes) -> Template:
    """The template of one real payload. Raises ValueError where it tells of no running kubelet."""
    pieces: list[bytes] = []
    slots: list[tuple[str, bytes, int]] = []
    stamp = re.search(rb"^fact ExecMainStartTimestamp \w+ (\S+ \S+) UTC$", payload, re.MULTILINE)
    if stamp is None:
        raise ValueError("evidence of no running kubelet")
    moment = datetime.strptime(stamp[1].decode(), "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
    start = int(moment.timestamp()) * _SECOND + moment.microsecond * 1000
    at = 0
    for match in _SLOTS.finditer(payload):
        name = str(match.lastgroup)
        begin, end = match.span(name)
        pieces.append(payload[at : match.start()])
        before = start - int(match[name]) if name == "time" else 0
        slots.append((name, payload[match.start() : begin], before))
        at = end
    return Template((*pieces, payload[at:]), tuple(slots))


def frame(payload: bytes, nonce: str, part: int, now: float, up_since: int) -> tuple[str, str]:
    """What stdout and stderr bring of the parts `part` and the next one (`shared.node.frames`)."""
    packer = zlib.compressobj(6, wbits=31)
    text = base64.b64encode(packer.compress(payload) + packer.flush()).decode()
    digest = hashlib.sha256(text.encode()).hexdigest()
    parts = -(-len(text) // frames.PART_CHARACTERS)
    wall = int(now * _SECOND)
    # A node's uptime has two digits behind the point.
    uptime = (wall - up_since) // 10_000_000 * 10_000_000

    def one(number: int) -> str:
        cut = text[(number - 1) * frames.PART_CHARACTERS : number * frames.PART_CHARACTERS]
        head = f"KG2 {number} {parts} {len(text)} {len(cut)} {wall} {uptime} {nonce} {digest}"
        return f"{cut}\n{head}\n" if cut else ""

    return one(part), one(part + 1)


def report(nonce: str) -> str:
    """What a fix that went well prints to stderr (`shared.node.fixing`)."""
    digest = hashlib.sha256(_STEPS.encode()).hexdigest()
    return f"{_STEPS}KGR2 applied {len(_STEPS)} {nonce} {digest}\n"


def collected(states: Iterable[str]) -> Mapping[str, Template]:
    """A template of each state of the sandbox's catalogue, by running the real script on a node of it."""
    return asyncio.run(_collected(sorted(set(states))))


async def _collected(states: list[str]) -> Mapping[str, Template]:
    pool = Pool("np0", tuple(Nodes(state) for state in states))
    cluster = Cluster("aks-bench", "rg-bench", REGION, VERSION, (pool,))
    alone = Fleet((Subscription(str(UUID(int=1)), "Bench", (cluster,)),))
    members = list(fleet_members(alone))
    runner = Runner(2)
    found: dict[str, Template] = {}
    with tempfile.TemporaryDirectory(prefix="kubelet-guard-bench-") as directory:
        folders = await asyncio.to_thread(node.make, members, Path(directory))
        for member in members:
            script = frames.collect_script(1, _NONCE).split("\n")
            streams = await runner.run(folders[member.name], script)
            parts = frames.parse_streams(streams.stdout, streams.stderr, _NONCE)
            found[member.state] = template(frames.unpack(parts))
    return found
