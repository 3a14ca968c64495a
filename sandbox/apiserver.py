"""API servers of the sandbox's clusters: what AKS gives to find one, and a small one for clusters that ask for it
(`api_server`), over TLS of an authority of its own, which knows the calls of a sweep.

Where the fleet's cluster names a real one (`kubeconfig`), its server and authority are given out.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from aiohttp import web

from sandbox import arm
from sandbox.arm import Body
from sandbox.compute import forbidden
from sandbox.fleet import Cluster, Fleet, Member, Subscription
from sandbox.identity import TENANT, Identity
from sandbox.invoke import CLUSTER_AUDIENCE, joined, kubelet_answer, node_object, pods_of, up
from sandbox.node import Folder

if TYPE_CHECKING:
    import trustme

ACTION = "Microsoft.ContainerService/managedClusters/listClusterUserCredential/action"
_USER = "c2a7e1b4-93f5-4f0e-a6d1-7b8c9d0e1f23"
# As long as the API server itself waits for a node that is not there.
_SILENCE = 30.0


@dataclass(slots=True)
class ApiServer:
    """One cluster's. `port` and `authority` (PEM) are known once it listens."""

    fleet: Fleet
    identity: Identity
    folders: Mapping[str, Folder]
    owner: Subscription
    item: Cluster
    port: int = 0
    authority: str = ""
    asked: int = 0

    def context(self) -> ssl.SSLContext:
        """Its side of TLS, by an authority that nobody else knows."""
        self.authority, made = _made()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.issue_cert(arm.fqdn(self.item)).configure_cert(context)
        return context

    async def answer(self, http: web.Request) -> web.Response:
        """Answer one of the sweep's calls."""
        self.asked += 1
        scheme, _, token = http.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not self.identity.is_for(token, CLUSTER_AUDIENCE):
            return _status(401, "Unauthorized", "Unauthorized")
        nodes = joined(self.fleet, self.owner, self.item)
        parts = http.path.strip("/").split("/")
        match parts:
            case ["api", "v1", "nodes"]:
                return self._list(http, nodes)
            case ["api", "v1", "nodes", name, "proxy", "configz"]:
                return await self._configz(name, nodes)
            case ["api", "v1", "pods"]:
                name = http.query.get("fieldSelector", "").removeprefix("spec.nodeName=")
                found = [node for node in nodes if node.name == name]
                return web.json_response(pods_of(up=bool(found) and up(found[0], self.folders)))
        return _status(404, "NotFound", "the server could not find the requested resource")

    def _list(self, http: web.Request, nodes: list[Member]) -> web.Response:
        if self.item.api_server == "no_list":
            text = (
                f'nodes is forbidden: User "{_USER}" cannot list resource "nodes" in API group "" at the cluster scope'
            )
            return _status(403, "Forbidden", text)
        start, most = int(http.query.get("continue") or "0"), int(http.query.get("limit") or "500")
        items = [node_object(node, number, self.folders) for number, node in enumerate(nodes)][start : start + most]
        following = str(start + most) if start + most < len(nodes) else ""
        return web.json_response({"kind": "NodeList", "metadata": {"continue": following}, "items": items})

    async def _configz(self, name: str, nodes: list[Member]) -> web.Response:
        if self.item.api_server == "no_proxy":
            text = f'nodes "{name}" is forbidden: User "{_USER}" cannot get resource "nodes/proxy" in API group ""'
            return _status(403, "Forbidden", text)
        place = next((number for number, node in enumerate(nodes) if node.name == name), None)
        if place is None:
            return _status(404, "NotFound", f'nodes "{name}" not found')
        kind, text = kubelet_answer(nodes[place], place, self.folders)
        if kind == "json":
            return web.Response(text=text, content_type="application/json")
        if "refused" in text:
            why = "connect: connection refused"
        else:
            await asyncio.sleep(_SILENCE)
            why = "i/o timeout"
        return _status(503, "ServiceUnavailable", f"error trying to reach service: dial tcp 10.224.0.4:10250: {why}")


def credentials(endpoint: ApiServer | None, owner: Subscription, item: Cluster) -> Body:
    """What listClusterUserCredential gives. Raises Refused."""
    if item.api_server == "forbidden":
        raise forbidden(ACTION, arm.cluster_id(owner, item))
    if item.kubeconfig:
        (real,) = json.loads(Path(item.kubeconfig).read_text())["clusters"]
        cluster = real["cluster"]
    else:
        host = "apiserver.example.org" if item.api_server == "foreign" else arm.fqdn(item)
        authority, port = (endpoint.authority, endpoint.port) if endpoint is not None else (_made()[0], 443)
        data = base64.b64encode(authority.encode()).decode()
        cluster = {"certificate-authority-data": data, "server": f"https://{host}:{port}"}
    name = f"clusterUser_{item.resource_group}_{item.name}"
    config = {
        "apiVersion": "v1",
        "clusters": [{"cluster": cluster, "name": item.name}],
        "contexts": [{"context": {"cluster": item.name, "user": name}, "name": item.name}],
        "current-context": item.name,
        "kind": "Config",
        "preferences": {},
        "users": [{"name": name, "user": _user(item)}],
    }
    text = yaml.safe_dump(config, sort_keys=False)
    return {"kubeconfigs": [{"name": "clusterUser", "value": base64.b64encode(text.encode()).decode()}]}


def _made() -> tuple[str, trustme.CA]:
    """An authority, with its certificate (PEM)."""
    import trustme  # a development dependency, as in `server`

    made = trustme.CA()
    return made.cert_pem.bytes().decode(), made


def _user(item: Cluster) -> Body:
    """A user of Entra ID logs in by a program; on other clusters the credentials are an administrator's."""
    if not item.entra:
        return {
            "client-certificate-data": "bm9uZQ==",
            "client-key-data": "bm9uZQ==",
            "token": "an-administrators-token",
        }
    arguments = ["get-token", "--login", "devicecode", "--server-id", CLUSTER_AUDIENCE, "--tenant-id", TENANT]
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "args": arguments, "command": "kubelogin"}}


def _status(code: int, reason: str, message: str) -> web.Response:
    """Kubernetes' error body."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    return web.json_response(body, status=code)
