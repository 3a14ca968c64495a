"""AKS's side of the sandbox: commands in a pod of a cluster, each run by a real `sh`, and the results that they leave.

Where the fleet's cluster names a real one (`kubeconfig`), the command's kubectl is the machine's and asks that; else it
is a stand-in, which answers from what the sandbox records of its nodes when the command starts (`sandbox/cluster`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sandbox import arm, service
from sandbox.arm import Body
from sandbox.compute import Refused, forbidden
from sandbox.configz import configz
from sandbox.fleet import Cluster, Fleet, Member, Subscription, members
from sandbox.identity import Identity
from sandbox.node import Folder
from sandbox.states import STATES, Command

CLUSTER_AUDIENCE = "6dae42f8-4368-4678-94ff-3960e28e3630"
ACTION = "Microsoft.ContainerService/managedClusters/runCommand/action"
RESULT_ACTION = "Microsoft.ContainerService/managedClusters/commandResults/read"

LOG_BYTES = 512 * 1000
_PAGE = 200
_FORBIDDEN = 'Error from server (Forbidden): {what} is forbidden: User "{who}" cannot {verb} at the cluster scope\n'
_REFUSED = "The connection to the server {address}:10250 was refused - did you specify the right host or port?\n"
_SILENT = "Unable to connect to the server: context deadline exceeded\n"


@dataclass(slots=True)
class Invocation:
    """One command. `body` is its result, `error` its failure; neither while it is going."""

    id: str
    cluster: Cluster
    started: datetime
    body: Body | None = None
    error: Refused | None = None


@dataclass(slots=True)
class Invocations:
    """All commands by id, and what they run on. `latency` is how long a pod takes to start and to be heard of."""

    fleet: Fleet
    identity: Identity
    folders: Mapping[str, Folder]
    found: dict[str, Invocation] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    running: set[asyncio.subprocess.Process] = field(default_factory=set)

    def start(self, owner: Subscription, item: Cluster, body: Body) -> Invocation:
        """Accept a command, or raise Refused."""
        self._refuse(owner, item, body)
        made = Invocation(secrets.token_hex(16), item, datetime.now(UTC))
        self.found[made.id] = made
        task = asyncio.create_task(self._carry_out(owner, made, str(body["command"])))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return made

    async def close(self) -> None:
        """End everything that still runs."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for process in [*self.running]:
            _kill(process)
            await process.wait()

    def _refuse(self, owner: Subscription, item: Cluster, body: Body) -> None:
        command, token = body.get("command"), body.get("clusterToken")
        if item.command_invoke == "forbidden":
            raise forbidden(ACTION, arm.cluster_id(owner, item))
        if item.command_invoke == "disabled":
            # That it is refused is documented, its code is not.
            raise Refused(400, "BadRequest", "Run command is disabled on this cluster (disableRunCommand).")
        if item.power == "Stopped":
            raise Refused(400, "OperationNotAllowed", f"managed cluster {item.name} is not running.")
        if not isinstance(command, str) or not command:
            raise Refused(400, "InvalidParameter", "The command is missing.")
        if item.entra and not token:
            text = "This cluster have Azure Active Directory enabled, .clusterToken is required."
            raise Refused(400, "MissingAADClusterToken", text)
        if item.entra and not self.identity.is_for(str(token), CLUSTER_AUDIENCE):
            raise Refused(400, "InvalidParameter", "The clusterToken is not one for the cluster's server application.")
        if item.command_invoke == "policy":
            text = "Failed to run command in managed cluster due to kubernetes failure. details: admission webhook"
            text = f'{text} "validation.gatekeeper.sh" denied the request: [read-only-root] a root file system'
            raise Refused(400, "KubernetesOperationError", text)

    async def _carry_out(self, owner: Subscription, made: Invocation, command: str) -> None:
        item, (low, high) = made.cluster, self.fleet.timing.latency
        await asyncio.sleep((low + high) / 2)
        match item.command_invoke:
            case "no_capacity":
                text = f"Failed to run command due to cluster perf issue, container command-{made.id} in aks-command"
                text = f"{text} namespace did not start within 30s on your cluster, retry may helps."
                made.error = Refused(400, "KubernetesPerformanceError", text)
            case "not_found":
                made.error = Refused(404, "", "Not Found")
            case "image":
                made.body = _result(made, "Failed", reason="ImagePullBackOff")
            case "hang":
                return
            case _:
                logs, code = await self._run(owner, item, command)
                if item.command_invoke == "truncated":
                    logs = logs[: -len(logs) // 3]
                made.body = _result(made, "Succeeded", logs=logs, code=code)

    async def _run(self, owner: Subscription, item: Cluster, command: str) -> tuple[str, int]:
        """What the command prints, both streams mingled, and its exit code."""
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="kubelet-guard-command-"))
        try:
            environment = await asyncio.to_thread(self._prepare, folder, owner, item)
            with (folder / "logs").open("wb") as logs:
                process = await asyncio.create_subprocess_exec(
                    *("/bin/sh", "-c", command),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=logs,
                    stderr=asyncio.subprocess.STDOUT,
                    cwd=folder,
                    env=environment,
                    start_new_session=True,
                )
            self.running.add(process)
            try:
                code = await process.wait()
            finally:
                self.running.discard(process)
                if process.returncode is None:
                    _kill(process)
                    await process.wait()
            return (folder / "logs").read_bytes()[:LOG_BYTES].decode("utf-8", "replace"), code
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _prepare(self, folder: Path, owner: Subscription, item: Cluster) -> dict[str, str]:
        """The environment of a command's pod."""
        path = os.environ.get("PATH", os.defpath)
        common = {"HOME": str(folder), "TMPDIR": str(folder)}
        if item.kubeconfig:
            return {**common, "PATH": f"{item.kubectl}{os.pathsep}{path}", "KUBECONFIG": item.kubeconfig}
        commands, recorded = folder / "bin", folder / "cluster"
        commands.mkdir()
        recorded.mkdir()
        shutil.copy(Path(__file__).with_name("cluster") / "kubectl.sh", commands / "kubectl")
        nodes = joined(self.fleet, owner, item)
        commands_so_far = sum(made.cluster is item for made in self.found.values())
        worse = item.command_invoke == "worse_later" and commands_so_far > 2
        for name, text in _recorded(item, nodes, self.folders, worse=worse):
            (recorded / name).write_text(text, "utf-8")
        return {**common, "PATH": f"{commands}{os.pathsep}{path}", "SANDBOX_CLUSTER": str(recorded)}


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended in between
        os.killpg(process.pid, signal.SIGKILL)


def _result(
    made: Invocation, state: str, *, logs: str | None = None, code: int | None = None, reason: str = ""
) -> Body:
    properties: Body = {"provisioningState": state, "startedAt": made.started.isoformat()}
    properties["finishedAt"] = datetime.now(UTC).isoformat()
    if logs is not None:
        properties |= {"exitCode": code, "logs": logs}
    if reason:
        properties["reason"] = reason
    return {"id": made.id, "properties": properties}


def _recorded(
    item: Cluster, nodes: list[Member], folders: Mapping[str, Folder], *, worse: bool
) -> Iterator[tuple[str, str]]:
    """The files from which the stand-in answers, by name."""
    if item.command_invoke == "no_rights":
        yield (
            "nodes.error",
            _FORBIDDEN.format(what="nodes", who="0d4f9a3e", verb='list resource "nodes" in API group ""'),
        )
    if item.command_invoke in ("no_rights", "no_account"):
        text = 'Error from server (NotFound): namespaces "kubelet-guard" not found\n'
        yield (
            "token.error",
            text
            if item.command_invoke == "no_account"
            else _FORBIDDEN.format(
                what='serviceaccounts "configz"', who="0d4f9a3e", verb='create resource "serviceaccounts/token"'
            ),
        )
    else:
        claims = base64.urlsafe_b64encode(b'{"sub":"system:serviceaccount:kubelet-guard:configz"}').decode().rstrip("=")
        yield "token.json", json.dumps({"status": {"token": f"e30.{claims}.{secrets.token_urlsafe(16)}"}})
    for start in range(0, max(len(nodes), 1), _PAGE):
        page = nodes[start : start + _PAGE]
        following = str(start // _PAGE + 1) if start + _PAGE < len(nodes) else ""
        items = [node_object(node, number, folders) for number, node in enumerate(page, start)]
        listed = {"kind": "NodeList", "metadata": {"continue": following}, "items": items}
        yield f"nodes.{start // _PAGE}.json", json.dumps(listed)
        yield from (
            (f"pods.{node.name}.json", json.dumps(pods_of(up=not worse and up(node, folders)))) for node in page
        )
    for number, node in enumerate(nodes):
        kind, text = kubelet_answer(node, number, folders)
        yield f"node.{node.name}.{kind}", text
        yield f"direct.{_address(number)}.{kind}", text


def joined(fleet: Fleet, owner: Subscription, item: Cluster) -> list[Member]:
    """The nodes that are in a cluster, by name. One that is listed by Azure and gone has left the cluster, too."""
    found = [member for member in members(fleet) if (member.subscription, member.cluster) == (owner, item)]
    gone = (Command.VANISHED, Command.VANISHED_INACTIVE)
    return sorted((node for node in found if STATES[node.state].command not in gone), key=lambda node: node.name)


def _address(number: int) -> str:
    return f"10.224.{number // 250}.{number % 250 + 4}"


def pods_of(*, up: bool) -> Body:
    """The pods of a node: two that are up, or not, and one that has ended."""
    running = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(up)}]}
    ended = {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False"}]}
    items = [{"metadata": {"name": f"pod-{n}", "namespace": "default"}, "status": running} for n in range(2)]
    return {
        "kind": "PodList",
        "items": [*items, {"metadata": {"name": "job", "namespace": "default"}, "status": ended}],
    }


def up(node: Member, folders: Mapping[str, Folder]) -> bool:
    """Whether a node runs, and its kubelet."""
    folder = folders.get(node.name)
    return arm.power_state(node) == "running" and (folder is None or service.serving(folder.root) is not None)


def node_object(node: Member, number: int, folders: Mapping[str, Folder]) -> Body:
    """A node object, as far as anything asks for it. The cloud provider writes the group's name in lower case."""
    group = f"/subscriptions/{node.subscription.id}/resourceGroups/{node.cluster.node_group.lower()}"
    folder = folders.get(node.name)
    boot = (folder.root / "proc/sys/kernel/random/boot_id").read_text().strip() if folder else arm.uuid(node.name)
    return {
        "metadata": {
            "name": node.name,
            "labels": {
                "agentpool": node.pool.name,
                "kubernetes.azure.com/kubelet-serving-ca": "cluster",
                "kubernetes.io/os": node.pool.os.lower(),
            },
        },
        "spec": {"providerID": f"azure://{group}/providers/Microsoft.Compute/{node.resource}"},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": _address(number)},
                {"type": "Hostname", "address": node.name},
            ],
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True" if up(node, folders) else "Unknown",
                    "lastTransitionTime": "2026-01-20T08:15:00Z",
                }
            ],
            "nodeInfo": {
                "bootID": boot,
                "kubeletVersion": f"v{node.pool.version or node.cluster.version}",
                "operatingSystem": node.pool.os.lower(),
            },
        },
    }


def kubelet_answer(node: Member, number: int, folders: Mapping[str, Folder]) -> tuple[str, str]:
    """What asking a kubelet comes to: `json` and the body, or `error` and kubectl's words."""
    if arm.power_state(node) != "running":
        return "error", _SILENT
    folder = folders.get(node.name)
    if folder is None:  # Windows: nothing of it is modelled but its defaults
        return "json", json.dumps(configz(("kubelet",), {}, node.pool.version or node.cluster.version))
    started = service.serving(folder.root)
    if started is None:
        return "error", _REFUSED.format(address=_address(number))
    return "json", json.dumps(configz(*started))
