"""The far side for these tests: a TLS server with Resource Manager's shapes and answers as scripted by a test."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import trustme
from aiohttp import web
from azure.core.credentials import AccessToken

from shared.clouds import CLOUDS
from shared.models import Node

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
GROUP = "MC_rg_shop_westeurope"
SCALE_SET = "aks-pool1-12345678-vmss"
OPERATION = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/locations/westeurope/operations/"


@dataclass
class Answer:
    """One scripted answer; `drop` closes the connection instead, `cut` does so within the body.

    `drip` sends a byte every so many seconds for ever.

    `{base}` in headers is the server's address.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    drop: bool = False
    cut: bool = False
    drip: float = 0.0


@dataclass
class Seen:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    at: float


Script = list[Answer] | Callable[[Seen], Answer]


class Arm:
    """Answers by (method, end of path): a list is used up, its last one stays."""

    def __init__(self) -> None:
        self.base = ""
        self.seen: list[Seen] = []
        self.raw: list[str] = []
        self.scripts: dict[tuple[str, str], Script] = {}

    def on(self, method: str, path_end: str, *answers: Answer | Callable[[Seen], Answer]) -> None:
        first = answers[0]
        self.scripts[method, path_end.lower()] = (
            first if callable(first) else [a for a in answers if isinstance(a, Answer)]
        )

    def count(self, method: str, part: str = "") -> int:
        return sum(1 for seen in self.seen if seen.method == method and part.lower() in seen.path.lower())

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.text()
        seen = Seen(
            request.method,
            request.path,
            dict(request.query),
            dict(request.headers),
            json.loads(raw) if raw else None,
            time.monotonic(),
        )
        self.seen.append(seen)
        self.raw.append(request.raw_path)
        path = request.path.rstrip("/").lower()
        found = [
            script for (method, end), script in self.scripts.items() if method == request.method and path.endswith(end)
        ]
        if not found:
            return web.json_response(error("NotScripted", f"{request.method} {request.path}"), status=404)
        script = found[0]
        answer = script(seen) if callable(script) else (script.pop(0) if len(script) > 1 else script[0])
        if answer.drop:
            assert request.transport is not None
            request.transport.abort()
        headers = {name: value.replace("{base}", self.base) for name, value in answer.headers.items()}
        if answer.cut:
            broken = web.StreamResponse(status=answer.status, headers={"Content-Length": "100"})
            await broken.prepare(request)
            await broken.write(b"{")
            assert request.transport is not None
            request.transport.abort()
            return broken
        if answer.drip:
            slow = web.StreamResponse(status=answer.status)
            await slow.prepare(request)
            while True:
                await slow.write(b" ")
                await asyncio.sleep(answer.drip)
        if answer.text is not None:
            return web.Response(status=answer.status, text=answer.text, headers=headers)
        if answer.body is None:
            return web.Response(status=answer.status, headers=headers)
        body = json.loads(json.dumps(answer.body).replace("{base}", self.base))
        return web.json_response(body, status=answer.status, headers=headers)


@asynccontextmanager
async def serve(authority: trustme.CA) -> AsyncIterator[Arm]:
    arm = Arm()
    app = web.Application(client_max_size=1 << 20)
    app.router.add_route("*", "/{tail:.*}", arm.handle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1", *(each.resource_manager for each in CLOUDS)).configure_cert(context)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    arm.base = f"https://localhost:{port}"
    try:
        yield arm
    finally:
        await runner.cleanup()


class Token:
    """A credential that gives a fixed token, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.asked.append(scopes)
        return AccessToken("t0ken", int(time.time()) + 3600)

    async def close(self) -> None:
        pass

    async def __aenter__(self) -> Token:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


def error(code: str, message: str = "") -> dict[str, Any]:
    return {"error": {"code": code, "message": message or code}}


def accepted(**headers: str) -> Answer:
    """The 202 of a run command, with both addresses, signed-looking as Azure's."""
    operation = OPERATION + str(uuid4())
    query = "p=abc&api-version=2026-04-01&t=639&c=MIIH&s=SIGNATURE&h=xyz"
    return Answer(
        202,
        headers={
            "Location": "{base}" + f"{operation}?monitor=true&{query}",
            "Azure-AsyncOperation": "{base}" + f"{operation}?{query}",
            **headers,
        },
    )


def message(stdout: str, stderr: str = "") -> str:
    return f"Enable succeeded: \n[stdout]\n{stdout}\n[stderr]\n{stderr}"


def result(text: str, code: str = "ProvisioningState/succeeded") -> dict[str, Any]:
    return {"value": [{"code": code, "level": "Info", "displayStatus": "Provisioning succeeded", "message": text}]}


def pool(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "count": 2,
        "vmSize": "Standard_D4s_v5",
        "type": "VirtualMachineScaleSets",
        "mode": "System",
        "osType": "Linux",
        "provisioningState": "Succeeded",
        "powerState": {"code": "Running"},
        "orchestratorVersion": "1.33",
        "currentOrchestratorVersion": "1.33.3",
        "nodeImageVersion": "AKSUbuntu-2204gen2containerd-202510.29.0",
        **more,
    }


def cluster(name: str, *pools: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": f"/subscriptions/{SUBSCRIPTION}/resourcegroups/rg-{name}/providers"
        f"/Microsoft.ContainerService/managedClusters/{name}",
        "name": name,
        "type": "Microsoft.ContainerService/ManagedClusters",
        "location": "westeurope",
        "properties": {
            "provisioningState": "Succeeded",
            "powerState": {"code": "Running"},
            "kubernetesVersion": "1.33",
            "currentKubernetesVersion": "1.33.3",
            "agentPoolProfiles": list(pools),
            "nodeResourceGroup": GROUP,
            **more,
        },
    }


def scale_set(name: str, tags: dict[str, str], **properties: Any) -> dict[str, Any]:
    return {
        "id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers"
        f"/Microsoft.Compute/virtualMachineScaleSets/{name}",
        "name": name,
        "type": "Microsoft.Compute/virtualMachineScaleSets",
        "location": "westeurope",
        "tags": tags,
        "sku": {"name": "Standard_D4s_v5", "tier": "Standard", "capacity": 2},
        "properties": {"orchestrationMode": "Uniform", "provisioningState": "Succeeded", **properties},
    }


def instance(
    instance_id: str, power: str = "running", scale_set_name: str = SCALE_SET, **properties: Any
) -> dict[str, Any]:
    return {
        "name": f"{scale_set_name}_{instance_id}",
        "instanceId": instance_id,
        "type": "Microsoft.Compute/virtualMachineScaleSets/virtualMachines",
        "location": "westeurope",
        "properties": {
            "latestModelApplied": True,
            "provisioningState": "Succeeded",
            "timeCreated": "2026-05-01T08:30:00.1234567+00:00",
            "osProfile": {
                "computerName": f"{scale_set_name}{int(instance_id or 0):06d}" if instance_id.isdigit() else "x"
            },
            "storageProfile": {
                "osDisk": {"osType": "Linux"},
                "imageReference": {
                    "id": "/subscriptions/s/resourceGroups/AKS-Ubuntu/providers/Microsoft.Compute/galleries/AKSUbuntu"
                    "/images/2204gen2containerd/versions/202509.11.0"
                },
            },
            "instanceView": {
                "statuses": [
                    {"code": "ProvisioningState/succeeded", "level": "Info"},
                    {"code": f"PowerState/{power}", "level": "Info"},
                ]
            },
            **properties,
        },
    }


def vm(name: str, tags: dict[str, str], **properties: Any) -> dict[str, Any]:
    """A single VM as the list of a resource group has it: without an instance view."""
    made = instance("0", **properties)
    del made["instanceId"], made["properties"]["instanceView"]
    made["properties"]["osProfile"] = {"computerName": name}
    place = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Compute/virtualMachines"
    return made | {"name": name, "id": f"{place}/{name}", "type": "Microsoft.Compute/virtualMachines", "tags": tags}


def vm_state(name: str, power: str) -> dict[str, Any]:
    """A single VM as the list of a subscription has it with `statusOnly=true`."""
    place = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP.upper()}/providers/Microsoft.Compute/virtualMachines"
    statuses = [{"code": "ProvisioningState/succeeded"}, {"code": f"PowerState/{power}"}]
    return {"name": name, "id": f"{place}/{name}", "properties": {"instanceView": {"statuses": statuses}}}


def a_node(**changes: Any) -> Node:
    base = Node(
        subscription=SUBSCRIPTION,
        resource_group="rg-shop",
        cluster="shop",
        location="westeurope",
        node_pool="pool1",
        node_resource_group=GROUP,
        scale_set=SCALE_SET,
        instance_id="0",
        name=f"{SCALE_SET}000000",
        os="Linux",
        power="running",
        provisioning="Succeeded",
        kubernetes_version="1.33.3",
        node_image_version=None,
        created=None,
        cluster_provisioning="Succeeded",
        pool_provisioning="Succeeded",
        locked=False,
    )
    return replace(base, **{"id": "", **changes})
