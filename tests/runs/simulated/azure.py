"""A small Azure in virtual time: the port of `shared.azure`, and nodes that answer with what a real script printed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from shared.azure import CommandResult, Invoked, Pending, Stats
from shared.errors import EndpointError
from shared.models import Cluster, Node, NodePool, Problem, ScopeProblem, Status, Subscription
from shared.node import evidence, frames
from shared.runs.model.plans import plan_node, spliced
from tests.runs.simulated.clock import now
from tests.support.findings import node
from tests.support.folder_node import NONCE, FolderNode

UNIT = (
    "[Service]\nEnvironmentFile=/etc/default/kubelet\n"
    "ExecStart=/opt/bin/kubelet $KUBELET_CONFIG_FILE_FLAGS $KUBELET_FLAGS\n"
)
PLACE = "/etc/default/kubelet"
WRONG_TEXT = "KUBELET_FLAGS=--make-iptables-util-chains=false\n"
CREATED = datetime.fromisoformat("2026-10-01T00:00:00+00:00")


@cache
def printed(text: str) -> str:
    """What the real collect script prints on a node with this environment file."""
    with TemporaryDirectory() as place:
        folder = FolderNode(Path(place) / "node")
        folder.write("/etc/systemd/system/kubelet.service", UNIT)
        folder.write(PLACE, text, 0o600)
        folder.unit()
        folder.process("/opt/bin/kubelet", *text.strip().removeprefix("KUBELET_FLAGS=").split())
        done = folder.run(frames.collect_script(1, NONCE))
    stdout = done.stdout.decode()
    assert frames.parse(stdout, NONCE).parts == 1
    return stdout


@cache
def right_text() -> str:
    """The environment file of a wrong node after its fix."""
    frame = frames.parse(printed(WRONG_TEXT), NONCE)
    seen = evidence.read(frames.unpack([frame]), frame.wall, frame.uptime)
    (edit,) = plan_node(node(1), ("3.2.6",), seen, "auto").edits
    return spliced(WRONG_TEXT.encode(), edit.splices).decode()


@dataclass
class Member:
    """A node. `broken` ones do not come back well from a fix, and are rolled back.

    `accepted` are the times at which it took a command, `fixing` those of a fix, and `fixes` when such were over;
    `refused` are those at which it was sent one while one was going. `restarts` counts those of its kubelet.
    """

    node: Node
    wrong: bool = False
    broken: bool = False
    going_until: datetime | None = None
    accepted: list[datetime] = field(default_factory=list)
    refused: list[datetime] = field(default_factory=list)
    fixing: list[datetime] = field(default_factory=list)
    fixes: list[datetime] = field(default_factory=list)
    restarts: int = 0


@dataclass
class Operation:
    """A command that Azure took; what it does to its node it does when it ends."""

    member: Member
    script: str
    ends: datetime
    result: CommandResult | None = None


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command in a cluster."""

    cluster: Cluster
    script: str
    ends: datetime


@dataclass
class SmallAzure:
    """Subscriptions, also below management `groups`, with clusters of one pool each. `seconds` says how long a command
    takes.

    `trouble` is told of every call before it and after it, and may raise. `unready` are the names of nodes that their
    clusters say are not Ready.
    """

    source: random.Random
    seconds: Callable[[random.Random], float] = lambda source: source.uniform(20, 60)
    call_seconds: Callable[[random.Random], float] = lambda source: source.uniform(0.05, 0.5)
    trouble: Callable[[str], None] = lambda _: None
    members: dict[str, Member] = field(default_factory=dict)
    known: list[Cluster] = field(default_factory=list)
    groups: dict[str, Sequence[str]] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    invoked: dict[str, Invocation] = field(default_factory=dict)
    unready: set[str] = field(default_factory=set)
    calls: Counter[str] = field(default_factory=Counter)

    def add(self, subscription: str, cluster: str, wrong: Sequence[bool], location: str = "westeurope") -> list[Member]:
        """A cluster with a node for each of `wrong`."""
        pool = NodePool("np1", "VirtualMachineScaleSets", "Linux", "Running", "Succeeded", "1.33.5", None, len(wrong))
        group = f"MC_{cluster}"
        place = f"/subscriptions/{subscription}/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters"
        self.known.append(
            Cluster(
                f"{place}/{cluster}", subscription, "rg", cluster, location, "Running", "Succeeded", group, False,
                "1.33.5", (pool,),
            )
        )  # fmt: skip
        made = []
        for number, bad in enumerate(wrong):
            one = replace(
                node(number, location),
                subscription=subscription,
                cluster=cluster,
                node_resource_group=group,
                name=f"{cluster}-{number:06}",
                created=CREATED,
                id="",
            )
            made.append(Member(one, wrong=bad))
            self.members[one.key] = made[-1]
        return made

    @property
    def stats(self) -> Stats:
        return Stats(dict(self.calls), 0, 0, 0.0)

    async def _call(self, name: str) -> None:
        self.calls[name] += 1
        self.trouble(name)
        await asyncio.sleep(self.call_seconds(self.source))
        self._end_what_ended()

    def _end_what_ended(self) -> None:
        for operation in self.operations.values():
            if operation.result is None and operation.ends <= now():
                operation.result = self._carry_out(operation)
                operation.member.going_until = None

    async def subscriptions(self) -> list[Subscription]:
        await self._call("subscriptions")
        return [Subscription(name, name) for name in sorted({cluster.subscription for cluster in self.known})]

    async def subscriptions_below(self, management_group: str) -> list[Subscription]:
        await self._call("subscriptions_below")
        return [Subscription(name, name) for name in self.groups[management_group]]

    async def clusters(self, subscription: str) -> list[Cluster]:
        await self._call("clusters")
        return [cluster for cluster in self.known if cluster.subscription == subscription]

    async def cluster(self, subscription: str, resource_group: str, name: str) -> Cluster | Problem:
        await self._call("cluster")
        return next(cluster for cluster in self.known if (cluster.subscription, cluster.name) == (subscription, name))

    async def nodes(self, cluster: Cluster, pools: Collection[str] | None) -> AsyncIterator[Node | ScopeProblem]:
        try:
            await self._call("nodes")
        except EndpointError as error:
            away = Problem(Status.ERROR, "unreachable", str(error), "Run again.")
            yield ScopeProblem(cluster.subscription, cluster.resource_group, cluster.name, "", away, passing=True)
            return
        for member in self.members.values():
            if (member.node.subscription, member.node.cluster) == (cluster.subscription, cluster.name):
                yield member.node

    async def node(self, asked: Node) -> Node | Problem:
        await self._call("node")
        return self.members[asked.key].node

    def levels(self, subscription: str) -> dict[str, float]:
        return {}

    async def start(
        self, asked: Node, script: str, before: Pending | None, first_look: float, *, harmless: bool = False
    ) -> Pending | CommandResult | Problem:
        await self._call("start")
        assert harmless == ("\nedits='" not in script), "a fix is not sent twice"
        member = self.members[asked.key]
        since = before.since if before is not None else now()
        if member.going_until is not None:
            member.refused.append(now())
            return Pending(now() + timedelta(seconds=5), since, tries=(before.tries if before else 0) + 1)
        member.accepted.append(now())
        if "\nedits='" in script:
            member.fixing.append(now())
        ends = now() + timedelta(seconds=self.seconds(self.source))
        member.going_until = ends
        url = f"https://op/{len(self.operations)}"
        self.operations[url] = Operation(member, script, ends)
        # It is taken; the answer is on its way.
        taken = now()
        await asyncio.sleep(self.call_seconds(self.source))
        self.trouble("started")
        return Pending(now() + timedelta(seconds=first_look), since, url, taken)

    async def look(self, asked: Node, pending: Pending) -> Pending | CommandResult | Problem:
        await self._call("look")
        operation = self.operations[pending.url]
        assert operation.member.node.key == asked.key
        if operation.result is not None:
            return operation.result
        return replace(pending, due=now() + timedelta(seconds=12), looks=pending.looks + 1)

    # What a cluster does

    async def start_in_cluster(
        self, cluster: Cluster, command: str, before: Pending | None, first_look: float
    ) -> Pending | Invoked | Problem:
        await self._call("start_in_cluster")
        url = f"https://invoked/{len(self.invoked)}"
        ends = now() + timedelta(seconds=self.seconds(self.source))
        self.invoked[url] = Invocation(cluster, command, ends)
        taken = now()
        await asyncio.sleep(self.call_seconds(self.source))
        self.trouble("started")
        return Pending(now() + timedelta(seconds=first_look), taken, url, taken)

    async def look_in_cluster(self, cluster: Cluster, pending: Pending) -> Pending | Invoked | Problem:
        await self._call("look_in_cluster")
        made = self.invoked[pending.url]
        assert made.cluster.id == cluster.id
        if made.ends <= now():
            return Invoked(self._swept(made), 0)
        return replace(pending, due=now() + timedelta(seconds=6), looks=pending.looks + 1)

    def _swept(self, made: Invocation) -> str:
        """What the real script would print of nodes that say what they run with."""

        def given(name: str) -> str:
            found = re.search(rf"^{name}=(.*)$", made.script, re.MULTILINE)
            assert found is not None
            return found[1].strip("'")

        settings, names = json.loads(given("settings")), json.loads(given("names"))
        known = sorted(
            (m for m in self.members.values() if m.node.cluster == made.cluster.name), key=lambda m: m.node.name
        )
        asked = [m for m in known if m.node.name > given("after") and (names is None or m.node.name in names)]
        chosen, rest = asked[: int(given("most"))], asked[int(given("most")) :]
        lines = [{"sweep": "", "listed": len(known), "left": len(rest)}]
        for member in chosen:
            lines.append(
                {
                    "node": member.node.name,
                    "id": f"azure://{member.node.id}",
                    "version": "v1.33.5",
                    "boot": "another",
                    "ready": "False" if member.node.name in self.unready else "True",
                }
            )
        for member in chosen:
            values = [not member.wrong if setting == "makeIPTablesUtilChains" else None for setting in settings]
            lines.append({"answer": member.node.name, "values": values})
        report = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        digest = hashlib.sha256(report.encode()).hexdigest()
        return f"{report}KC1 {len(lines)} {len(report)} {given('nonce')} {digest}\n"

    # What a node does

    def _carry_out(self, operation: Operation) -> CommandResult:
        member, script = operation.member, operation.script
        found = re.search(r"^nonce=([0-9a-f]{16})$", script, re.MULTILINE)
        assert found is not None
        nonce = found[1]
        if "\nedits='" not in script:
            return CommandResult(self._frame(member, nonce), "")
        assert "\nundo=''" in script, "nothing here is undone"
        member.fixes.append(operation.ends)
        if not member.wrong:
            outcome, said = "changed_meanwhile", "reason the file has changed\n"
        elif member.broken:
            member.restarts += 2
            outcome, said = "rolled_back", "reason the kubelet was not well\n"
        else:
            member.restarts += 1
            member.wrong = False
            outcome, said = "applied", "step backed-up /var/lib/kubelet-guard/backups/20261101T000000Z-1-ab\n"
        digest = hashlib.sha256(said.encode()).hexdigest()
        return CommandResult(self._frame(member, nonce), f"{said}KGR2 {outcome} {len(said)} {nonce} {digest}\n")

    def _frame(self, member: Member, nonce: str) -> str:
        return printed(WRONG_TEXT if member.wrong else right_text()).replace(NONCE, nonce)


def gone() -> Problem:
    """What is said of a node that is not there."""
    return Problem(Status.SKIPPED, "vanished", "gone", "")
