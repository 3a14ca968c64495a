"""What the sandbox's tests share: small fleets, and the real SDK clients pointed at a running sandbox."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import ManagedIdentityCredential
from azure.mgmt.compute.aio import ComputeManagementClient
from azure.mgmt.containerservice.aio import ContainerServiceClient
from azure.mgmt.resource.subscriptions.aio import SubscriptionClient

from sandbox import Fleet, Sandbox, parse

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
GROUP = "MC_rg-one_aks-one_westeurope"


def fleet(*states: str, pool: str = "", cluster: str = "", **settings: object) -> Fleet:
    """One subscription, cluster and pool with a node for each state; `pool` and `cluster` are further YAML fields."""
    nodes = ", ".join(f"{{state: {state}}}" for state in states)
    timing = {"latency": [0, 0], "busy_seconds": 1, "slow_seconds": 0.5} | dict(settings.pop("timing", {}))  # type: ignore[call-overload]
    rest = "\n".join(f"{name}: {str(value).lower()}" for name, value in settings.items())
    return parse(f"""
timing: {{{", ".join(f"{name}: {value}" for name, value in timing.items())}}}
{rest}
subscriptions:
- id: {SUBSCRIPTION}
  name: One
  clusters:
  - {{name: aks-one, resource_group: rg-one, location: westeurope, version: 1.33.2, {cluster}
     pools: [{{name: pool1, {pool} nodes: [{nodes}]}}]}}
""")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def code(self) -> str:
        """Azure's error code in the body."""
        return str(self.json()["error"]["code"])


class Azure:
    """The SDK clients of one subscription, which do not retry, and a plain HTTP session."""

    def __init__(self, box: Sandbox, credential: ManagedIdentityCredential, http: aiohttp.ClientSession) -> None:
        common: dict[str, Any] = {
            "base_url": box.endpoint,
            "credential_scopes": [f"{box.endpoint}/.default"],
            # One session for all: with `connection_verify` the SDK reads the certificates for every single request.
            "transport": AioHttpTransport(session=http, session_owner=False),
            "retry_total": 0,
        }
        self.box = box
        self.http = http
        self.credential = credential
        self.subscriptions = SubscriptionClient(credential, **common)
        self.clusters = ContainerServiceClient(credential, SUBSCRIPTION, **common)
        self.compute = ComputeManagementClient(credential, SUBSCRIPTION, polling_interval=0.05, **common)

    @property
    def scale_set(self) -> str:
        """The name of the fleet's only scale set."""
        return next(iter(self.box.compute.instances.values())).member.scale_set

    def node(self, number: int) -> str:
        """The name of a node."""
        return f"{self.scale_set}{number:06d}"

    def path(self, number: int) -> str:
        """The resource id of an instance."""
        sets = (
            f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets"
        )
        return f"{sets}/{self.scale_set}/virtualMachines/{number}"

    async def run(self, script: str | Sequence[str], number: int = 0, command: str = "RunShellScript") -> str:
        """Run a script on a node through the SDK; the message of its result."""
        lines = script.splitlines() if isinstance(script, str) else list(script)
        poller = await self.compute.virtual_machine_scale_set_vms.begin_run_command(
            GROUP, self.scale_set, str(number), {"commandId": command, "script": lines}
        )
        result = await asyncio.wait_for(poller.result(), 60)
        assert result.value is not None
        message = result.value[0].message
        assert message is not None
        return message

    async def stdout(self, script: str, number: int = 0) -> str:
        """Run a script on a node; what it printed, and nothing to stderr."""
        message = await self.run(script, number)
        head, stderr = message.split("\n[stderr]\n")
        assert stderr == ""
        return head.removeprefix("Enable succeeded: \n[stdout]\n")

    async def send(self, method: str, path: str, **more: Any) -> Answer:
        """A request with a good token, and its answer."""
        token = await self.credential.get_token(f"{self.box.endpoint}/.default")
        headers = {"Authorization": f"Bearer {token.token}"}
        url = path if path.startswith("https:") else f"{self.box.endpoint}{path}"
        async with self.http.request(method, url, headers=headers, **more) as response:
            return Answer(response.status, response.headers, await response.read())

    async def post(self, script: str, number: int = 0) -> Answer:
        """The bare POST of a run command."""
        body = {"commandId": "RunShellScript", "script": script.splitlines()}
        return await self.send("POST", f"{self.path(number)}/runCommand?api-version=2026-04-01", json=body)

    async def ended(self, location: str) -> None:
        """Wait until a command is over, however it ended."""
        async with asyncio.timeout(60):
            while (await self.send("GET", location)).status == 202:  # noqa: ASYNC110 - Azure has no event to wait for
                await asyncio.sleep(0.2)


@asynccontextmanager
async def azure(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Azure]:
    """Clients for a running sandbox, with its managed identity."""
    for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER"):
        monkeypatch.setenv(name, box.environ[name])
    context = ssl.create_default_context(cafile=str(box.ca_file))
    async with (
        ManagedIdentityCredential() as credential,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http,
    ):
        clients = Azure(box, credential, http)
        async with clients.subscriptions, clients.clusters, clients.compute:
            yield clients


async def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something holds; fail where it does not in time."""
    for _ in range(int(seconds / 0.02)):
        if holds():
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"still waiting after {seconds} s")


def code(error: HttpResponseError) -> str:
    """Azure's code of an error that the SDK raised."""
    assert error.error is not None
    assert error.error.code is not None
    return str(error.error.code)
