"""`python -m bench.server` plays a fleet of any size with Azure's published limits, without running anything on a node.

Bodies, limits and tokens are the sandbox's; what is different is that nothing here takes a processor's time that is not
a call: a command is a moment at which it will have ended, its answer is packed when it is fetched. What the table is
made of (`GET /bench/log`) is noted on the way.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import secrets
import signal
import ssl
import sys
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import trustme
from aiohttp import web

from bench.clock import Clock
from bench.evidence import Template, collected, frame, report
from bench.fleets import FIXED
from bench.fleets import fleet as make_fleet
from bench.latency import Latency
from sandbox import arm, compute
from sandbox.arm import Body
from sandbox.compute import Refused
from sandbox.fleet import Cluster, Fleet, Member, Pool, Subscription, scale_set_name
from sandbox.fleet import members as fleet_members
from sandbox.identity import TENANT, Identity
from sandbox.throttle import GET_OPERATION, GET_SCALE_SET, GET_VM, UPDATE_VM, Call, Policy, Throttle

HOST = "127.0.0.1"
_BODY_BYTES = 4 * 1024 * 1024
_NONCE = re.compile(rb"nonce=([0-9a-f]{16})")
_FIRST = re.compile(rb"first=(\d+)")
# Only a script that changes the node says how long its kubelet has to settle.
_FIX = re.compile(rb"\\nsettle=\d")
_PLAIN = '"makeIPTablesUtilChains": true'


@dataclass(slots=True)
class _Place:
    """A scale set: whose it is, and its instances."""

    owner: Subscription
    cluster: Cluster
    pool: Pool
    name: str
    nodes: list[_Node] = field(default_factory=list)


@dataclass(slots=True)
class _Node:
    """An instance and its command in hand."""

    number: int
    member: Member
    asked: int = 0
    fixed: bool = False
    free_at: float = 0.0


@dataclass(slots=True)
class _Operation:
    """A command: when it will have ended, and what is needed for its answer."""

    node: _Node
    signature: str
    started: float
    ends: float
    nonce: str
    part: int
    fixes: bool = False
    looks: int = 0
    seen: bool = False


@dataclass(slots=True)
class Log:
    """What happened: `starts` in seconds since the server's beginning, `slowest` the longest command that ended."""

    starts: list[float] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    busy: int = 0
    first: float = 0.0
    last: float = 0.0
    slowest: float = 0.0
    longest_unseen: float = 0.0


class Bench:
    """The fleet, its limits and its log."""

    def __init__(self, fleet: Fleet, clock: Clock, latency: Latency, templates: Mapping[str, Template]) -> None:
        self.clock = clock
        self.latency = latency
        self.templates = templates
        self.fleet = fleet
        self.identity = Identity()
        self.throttle = Throttle(enforced=True)
        self.log = Log()
        self.endpoint = ""
        self.operations: dict[str, _Operation] = {}
        self.owners = {item.id: item for item in fleet.subscriptions}
        self.groups: dict[tuple[str, str], tuple[Subscription, Cluster]] = {}
        self.places: dict[tuple[str, str, str], _Place] = {}
        for owner in fleet.subscriptions:
            for cluster in owner.clusters:
                self.groups[owner.id, cluster.node_group.lower()] = (owner, cluster)
                for pool in cluster.pools:
                    name = scale_set_name(owner, cluster, pool)
                    key = (owner.id, cluster.node_group.lower(), name.lower())
                    self.places[key] = _Place(owner, cluster, pool, name)
        self.nodes = list(fleet_members(fleet))
        for number, member in enumerate(self.nodes):
            key = (member.subscription.id, member.cluster.node_group.lower(), member.scale_set.lower())
            self.places[key].nodes.append(_Node(number, member))

    def report(self) -> Body:
        """The log, with the looks at every command that was seen to end, and what the server itself cost."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        looks = Counter(operation.looks for operation in self.operations.values())
        return {
            **{item.name: getattr(self.log, item.name) for item in fields(self.log)},
            "looks": {str(count): number for count, number in sorted(looks.items())},
            "unseen": sum(not operation.seen for operation in self.operations.values()),
            "server_cpu_seconds": usage.ru_utime + usage.ru_stime,
        }

    # Resource Manager's calls. Each gives a kind, the limits it falls under and its answer, which is made only where
    # they let it pass.

    async def answer(self, http: web.BaseRequest) -> web.StreamResponse:
        """One call, from its token to its answer."""
        path = http.path
        if path == "/bench/log":
            return web.json_response(self.report())
        now = self.clock.since()
        if wrong := self.identity.refusal(http.headers.get("Authorization", ""), self.endpoint):
            challenge = f'Bearer authorization_uri="https://login.windows.net/{TENANT}", error="invalid_token"'
            return self._send(401, arm.error(*wrong), {"WWW-Authenticate": challenge})
        if not self.log.calls:
            self.log.first = now
        self.log.last = now
        try:
            kind, call = self._classify(http.method, path)
            self.log.calls[kind] += 1
            refusal = self.throttle.take(call, now)
            headers = self.throttle.headers(call, now)
            if refusal is not None:
                self.log.refused[refusal.limit] += 1
                text = f"Number of requests exceeded. Please try again after '{refusal.retry_after}' seconds."
                code = "SubscriptionRequestsThrottled" if refusal.limit.startswith("arm-") else "TooManyRequests"
                return self._send(429, arm.error(code, text), {**headers, "Retry-After": str(refusal.retry_after)})
            body = await http.read() if http.method == "POST" else b""
            status, answer, more = self._carry_out(kind, path, http.query, body, now)
            return self._send(status, answer, {**headers, **more})
        except Refused as refused:
            return self._send(refused.status, arm.error(refused.code, refused.message), {})

    def _classify(self, method: str, path: str) -> tuple[str, Call]:
        parts = path.lower().strip("/").split("/")
        owner = parts[1] if len(parts) > 1 else ""
        if owner and owner not in self.owners:
            raise Refused(404, "SubscriptionNotFound", f"The subscription '{owner}' could not be found.")
        kind, policy, region, item = _kind(method, parts)
        if kind == "operations.get":
            operation = self.operations.get(parts[-1])
            item = "" if operation is None else operation.node.member.name
        elif region == "?":
            region = self.groups.get((owner, parts[3]), (None, _NOWHERE))[1].location
        return kind, Call(owner, method != "GET", region if policy else "", item, policy)

    def _carry_out(
        self, kind: str, path: str, query: Mapping[str, str], body: bytes, now: float
    ) -> tuple[int, Body | None, Mapping[str, str]]:
        parts = path.lower().strip("/").split("/")
        owner = self.owners.get(parts[1]) if len(parts) > 1 else None
        match kind:
            case "subscriptions.list":
                return self._page(path, query, [arm.subscription(item) for item in self.fleet.subscriptions])
            case "subscriptions.get" if owner:
                return 200, arm.subscription(owner), {}
            case "clusters.list" if owner:
                return self._page(path, query, [arm.cluster(owner, item) for item in owner.clusters])
            case "clusters.get" if owner:
                for item in owner.clusters:
                    if (item.resource_group.lower(), item.name.lower()) == (parts[3], parts[-1]):
                        return 200, arm.cluster(owner, item), {}
                raise compute.not_found(f"Microsoft.ContainerService/managedClusters/{parts[-1]}", parts[3])
            case "scaleSets.list" if owner:
                found = self.groups.get((owner.id, parts[3]))
                if found is None:
                    raise Refused(404, "ResourceGroupNotFound", f"Resource group '{parts[3]}' could not be found.")
                return self._page(path, query, [arm.scale_set(*found, pool) for pool in found[1].pools])
            case "operations.get":
                return self._look(parts[-1], query, now)
        place = self.places.get((parts[1], parts[3], parts[7]))
        if place is None:
            raise compute.not_found(f"Microsoft.Compute/virtualMachineScaleSets/{parts[7]}", parts[3])
        view = query.get("$expand", "").lower() == "instanceview"
        if kind == "scaleSets.get":
            return 200, arm.scale_set(place.owner, place.cluster, place.pool), {}
        if kind == "instances.list":
            return self._instances(path, query, place, view)
        number = int(parts[9]) if parts[9].isdecimal() else -1
        if not 0 <= number < len(place.nodes):
            raise compute.not_found(f"Microsoft.Compute/virtualMachineScaleSets/{parts[7]}", parts[3])
        node = place.nodes[number]
        if kind == "instances.get":
            return 200, arm.instance(node.member, view), {}
        if kind == "instances.view":
            return 200, arm.instance_view(node.member), {}
        return self._start(node, query, body, now)

    def _start(
        self, node: _Node, query: Mapping[str, str], body: bytes, now: float
    ) -> tuple[int, Body | None, Mapping[str, str]]:
        if now < node.free_at:
            self.log.busy += 1
            text = "Run command extension execution is in progress."
            raise Refused(409, "Conflict", f"{text} Please wait for completion before invoking a run command.")
        nonce, first = _NONCE.search(body), _FIRST.search(body)
        seconds = self.latency.seconds(node.number, node.asked)
        node.asked += 1
        node.free_at = now + seconds
        operation = _Operation(
            node,
            secrets.token_urlsafe(12),
            now,
            now + seconds,
            nonce[1].decode() if nonce else "",
            int(first[1]) if first else 1,
            fixes=bool(nonce and _FIX.search(body)),
        )
        key = str(uuid.uuid4())
        self.operations[key] = operation
        self.log.starts.append(round(now, 3))
        version = query.get("api-version", "")
        urls = {name: self._url(key, operation, version, form) for name, form in _FORMS.items()}
        return 202, None, urls

    def _look(self, key: str, query: Mapping[str, str], now: float) -> tuple[int, Body | None, Mapping[str, str]]:
        operation = self.operations.get(key)
        if operation is None or query.get("s") != operation.signature:
            raise Refused(404, "NotFound", f"The entity was not found: operation '{key}'.")
        if not operation.seen:
            operation.looks += 1
        over = now >= operation.ends
        if over and not operation.seen:
            operation.seen = True
            self.log.slowest = max(self.log.slowest, operation.ends - operation.started)
            self.log.longest_unseen = max(self.log.longest_unseen, now - operation.ends)
        monitor = "monitor" in query
        if not over:
            location = self._url(key, operation, query.get("api-version", ""), "&monitor=true")
            return (202, None, {"Location": location}) if monitor else (200, {"status": "InProgress", "name": key}, {})
        if self.latency.dead(operation.node.number):
            wrong = ("VMAgentStatusCommunicationError", "VM has not reported status for VM agent or extensions.")
            if monitor:
                raise Refused(409, *wrong)
            return 200, {"status": "Failed", "name": key, **arm.error(*wrong)}, {}
        value = {"value": [_result(self._message(operation))]}
        return 200, value if monitor else {"status": "Succeeded", "name": key, "properties": {"output": value}}, {}

    def _message(self, operation: _Operation) -> str:
        out, err = _PLAIN, ""
        if operation.nonce:
            node = operation.node
            node.fixed = node.fixed or operation.fixes
            state = FIXED if node.fixed else node.member.state
            # A fix restarts the kubelet: from then on it is another process.
            number = node.number + len(self.nodes) * node.fixed
            payload, up_since = self.templates[state].payload(number, self.clock.epoch)
            # The script ran some seconds before its result was told.
            ran = self.clock.epoch + operation.ends - 5
            out, err = frame(payload, operation.nonce, operation.part, ran, up_since)
            err = report(operation.nonce) if operation.fixes else err
        return f"Enable succeeded: \n[stdout]\n{out}\n[stderr]\n{err}"

    def _url(self, key: str, operation: _Operation, version: str, form: str) -> str:
        member = operation.node.member
        place = f"/subscriptions/{member.subscription.id}/providers/Microsoft.Compute"
        place = f"{place}/locations/{member.cluster.location}/operations/{key}"
        return f"{self.endpoint}{place}?p={key}{form}&api-version={version}&s={operation.signature}"

    def _page(self, path: str, query: Mapping[str, str], items: list[Body]) -> tuple[int, Body, Mapping[str, str]]:
        start = int(query.get("$skiptoken", "0"))
        return 200, arm.page(items[start : start + self.fleet.page_size], self._next(path, query, len(items))), {}

    def _instances(
        self, path: str, query: Mapping[str, str], place: _Place, view: bool
    ) -> tuple[int, Body, Mapping[str, str]]:
        start = int(query.get("$skiptoken", "0"))
        shown = place.nodes[start : start + self.fleet.page_size]
        items = [arm.instance(node.member, view) for node in shown]
        return 200, arm.page(items, self._next(path, query, len(place.nodes))), {}

    def _next(self, path: str, query: Mapping[str, str], total: int) -> str | None:
        end = int(query.get("$skiptoken", "0")) + self.fleet.page_size
        kept = {name: value for name, value in query.items() if name != "$skiptoken"} | {"$skiptoken": str(end)}
        return f"{self.endpoint}{path}?" + "&".join(f"{n}={v}" for n, v in kept.items()) if end < total else None

    @staticmethod
    def _send(status: int, body: Body | None, headers: Mapping[str, str]) -> web.Response:
        if body is None:
            return web.Response(status=status, headers=headers)
        text = json.dumps(body, separators=(",", ":"))
        return web.Response(status=status, text=text, content_type="application/json", headers=headers)


_FORMS = {"Location": "&monitor=true", "Azure-AsyncOperation": ""}
_NOWHERE = Cluster("nowhere", "rg-nowhere", "nowhere", "1.33.0", ())


def _kind(method: str, parts: list[str]) -> tuple[str, Policy | None, str, str]:
    """A call's kind, Compute's policy for it, its region (`?`: its resource group's) and its resource."""
    match method, parts:
        case "GET", ["subscriptions"]:
            return "subscriptions.list", None, "", ""
        case "GET", ["subscriptions", _]:
            return "subscriptions.get", None, "", ""
        case "GET", ["subscriptions", _, "providers", "microsoft.containerservice", "managedclusters"]:
            return "clusters.list", None, "", ""
        case "GET", [*_, "providers", "microsoft.containerservice", "managedclusters", _]:
            return "clusters.get", None, "", ""
        case "GET", [*_, "locations", region, "operations" | "operationresults", _]:
            return "operations.get", GET_OPERATION, region, ""
        case "GET", ["subscriptions", _, "resourcegroups", _, "providers", "microsoft.compute", *rest]:
            match rest:
                case ["virtualmachinescalesets"]:
                    return "scaleSets.list", None, "", ""
                case ["virtualmachinescalesets", _]:
                    return "scaleSets.get", GET_SCALE_SET, "?", "/".join(rest)
                case ["virtualmachinescalesets", _, "virtualmachines"]:
                    return "instances.list", None, "", ""
                case ["virtualmachinescalesets", _, "virtualmachines", _]:
                    return "instances.get", GET_VM, "?", "/".join(parts)
                case ["virtualmachinescalesets", _, "virtualmachines", _, "instanceview"]:
                    return "instances.view", GET_VM, "?", "/".join(parts[:-1])
        case "POST", [*_, "virtualmachinescalesets", _, "virtualmachines", _, "runcommand"]:
            return "runCommand", UPDATE_VM, "?", "/".join(parts[:-1])
        case "POST", ["providers", "microsoft.resourcegraph", "resources"]:
            raise compute.forbidden("Microsoft.ResourceGraph/resources/read", "/")
    raise Refused(404, "InvalidResourceType", f"The bench has no {method} /{'/'.join(parts)}.")


def _result(text: str) -> Body:
    code = {"code": "ProvisioningState/succeeded", "level": "Info", "displayStatus": "Provisioning succeeded"}
    return {**code, "message": text}


def _tls(directory: Path) -> ssl.SSLContext:
    """A certificate for localhost; what is to be trusted for it is written into the directory."""
    authority = trustme.CA()
    own = authority.cert_pem.bytes()
    trusted = ssl.get_default_verify_paths().cafile
    (directory / "trust.pem").write_bytes(own + (Path(trusted).read_bytes() if trusted else b""))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", HOST).configure_cert(context)
    return context


async def _serve(bench: Bench, context: ssl.SSLContext, trusted: Path) -> None:
    identity = web.Application()
    identity.router.add_get("/msi/token", bench.identity.answer)
    front = web.ServerRunner(web.Server(bench.answer, access_log=None))
    side = web.AppRunner(identity, access_log=None)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await front.setup()
    await side.setup()
    await web.TCPSite(front, HOST, 0, ssl_context=context, backlog=1024).start()
    await web.TCPSite(side, HOST, 0).start()
    bench.endpoint = f"https://localhost:{front.addresses[0][1]}"
    ready: dict[str, Any] = {
        "GUARD_ARM_ENDPOINT": bench.endpoint,
        "IDENTITY_ENDPOINT": f"http://{HOST}:{side.addresses[0][1]}/msi/token",
        "IDENTITY_HEADER": bench.identity.header,
        "SSL_CERT_FILE": str(trusted),
        "REQUESTS_CA_BUNDLE": str(trusted),
    }
    print(json.dumps(ready), flush=True)
    await stop.wait()
    await side.cleanup()
    await front.cleanup()


def main() -> int:
    """Print the variables that turn a client here as one line of JSON, then serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m bench.server", description=__doc__)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--subscriptions", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--epoch", type=float, required=True)
    parser.add_argument("--dead-every", type=int, default=Latency().dead_every)
    parser.add_argument("--state", default="", help="every node is in this state of the catalogue")
    parser.add_argument("--dir", type=Path, required=True)
    given = parser.parse_args()
    fleet = make_fleet(given.nodes, given.subscriptions, given.state)
    templates = collected([FIXED, *(member.state for member in fleet_members(fleet))])
    clock = Clock(given.scale, given.epoch)
    bench = Bench(fleet, clock, Latency(dead_every=given.dead_every), templates)
    asyncio.run(_serve(bench, _tls(given.dir), given.dir / "trust.pem"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
