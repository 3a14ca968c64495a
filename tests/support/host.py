"""An Azure Functions host in this process, with Durable Functions over a hub that outlives it.

It treats the app as the real one does: it imports function_app.py anew, asks `FunctionApp.get_functions()` for what
there is, calls HTTP and timer functions with the SDK's request objects, serves the HTTP API that the Durable client
calls, and gives orchestrators and activities what the extension gives them.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import azure.functions as func
from aiohttp import web
from azure.durable_functions.models.utils import http_utils
from azure.functions._durable_functions import OrchestrationContext

from tests.support.hub import (
    ACTIVITY,
    CHILD,
    COMPLETED,
    EPISODE,
    FAILED,
    RAISED,
    TIMER,
    TIMER_FIRED,
    Event,
    Hub,
    Instance,
    event,
)

ROOT = Path(__file__).parents[2]
KEY = "the key of the function"


@dataclass(frozen=True, slots=True)
class Reply:
    """What an HTTP function answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Host:
    """A running host. `functions` is what the app's index holds, by name; `timing_out` activities take too long.

    While `going` is clear, no activity begins, so that every run stays where it is.
    """

    hub: Hub
    module: ModuleType
    functions: dict[str, Any]
    binding: str = ""
    die_after: int | None = None
    lose_result: int | None = None
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    going: asyncio.Event = field(default_factory=asyncio.Event)
    activities: list[str] = field(default_factory=list)
    timing_out: Counter[str] = field(default_factory=Counter)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _busy: set[str] = field(default_factory=set)
    _failure: BaseException | None = None

    # Triggers

    async def http(
        self,
        method: str,
        address: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        raw: bytes = b"",
        key: str = KEY,
    ) -> Reply:
        """Call the HTTP function that this address belongs to.

        As the host answers: 404 where there is none, 401 without its key.
        """
        parts = urlsplit(address)
        sent = raw if body is None else json.dumps(body).encode()
        for function in self.functions.values():
            trigger = function.get_trigger()
            if trigger.type != "httpTrigger" or method not in [str(item.value) for item in trigger.methods]:
                continue
            pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", trigger.route)
            match = re.fullmatch(f"/api/{pattern}", parts.path)
            if match is None:
                continue
            if trigger.auth_level != func.AuthLevel.ANONYMOUS and key != KEY:
                return Reply(401, {}, b"")
            request = func.HttpRequest(
                method,
                f"https://guard.example{address}",
                headers={"content-type": content_type} if sent else {},
                params=dict(parse_qsl(parts.query, keep_blank_values=True)),
                route_params=match.groupdict(),
                body=sent,
            )
            answer = await function.get_user_function()(**self._arguments(function, {trigger.name: request}))
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Reply(answer.status_code, {**headers, "content-type": answer.mimetype}, answer.get_body())
        return Reply(404, {}, b"")

    async def tick(self, past_due: bool = False) -> None:
        """Fire the timer."""
        function = self.functions["scheduled_run"]
        timer = func.timer.TimerRequest(past_due=past_due)
        await function.get_user_function()(**self._arguments(function, {function.get_trigger().name: timer}))

    def _arguments(self, function: Any, given: dict[str, Any]) -> dict[str, Any]:
        clients = {item.name: self.binding for item in function.get_bindings() if item.type == "durableClient"}
        return {**given, **clients}

    # Durable Functions

    def pump(self) -> None:
        """Begin all work that waits: messages to instances, and what was asked for and has not ended."""
        for instance in list(self.hub.instances.values()):
            self._serve(instance)
            for number in list(instance.open):
                self._begin(instance, number)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and self._failure is None:
            self._failure = task.exception()
            self.dead.set()

    def _serve(self, instance: Instance) -> None:
        if instance.id in self._busy or self.dead.is_set():
            return
        self._busy.add(instance.id)
        self._spawn(self._episodes(instance))

    async def _episodes(self, instance: Instance) -> None:
        try:
            while instance.inbox and not instance.over and not self.dead.is_set():
                self._episode(instance, instance.inbox[0])
                await asyncio.sleep(0)
        finally:
            self._busy.discard(instance.id)

    def _episode(self, instance: Instance, message: Event) -> None:
        function = self.functions[instance.name].get_user_function()
        episode = [event(EPISODE), message]
        try:
            state = json.loads(function(OrchestrationContext(instance.context(episode))))
        except Exception as error:
            self.hub.fail(instance, str(error).partition("\n\n$OutOfProcData$")[0])
            begun = []
        else:
            begun = self.hub.commit(instance, episode, state)
        if self.die_after is not None and self.hub.episodes >= self.die_after:
            self.dead.set()
            return
        for number in begun:
            self._begin(instance, number)
        if instance.over and instance.parent is not None:
            self._serve(self.hub.instances[instance.parent[0]])

    def _begin(self, instance: Instance, number: int) -> None:
        action = instance.open[number]
        kind = action["actionType"]
        if kind == ACTIVITY:
            self._spawn(self._activity(instance, number, action["functionName"], action["input"]))
        elif kind == CHILD:
            child_id = action.get("instanceId") or f"{instance.id}:{number}"
            child = self.hub.instances.get(child_id)
            if child is None:
                child = self.hub.create(child_id, action["functionName"], action["input"], (instance.id, number))
            self._serve(child)
        else:
            assert kind == TIMER, f"the host knows no action {kind}"
            self._spawn(self._timer(instance, number, action["fireAt"]))

    async def _activity(self, instance: Instance, number: int, name: str, input_: str) -> None:
        await self.going.wait()
        self.activities.append(name)
        function = self.functions[name]
        try:
            if self.timing_out[name] > 0:
                self.timing_out[name] -= 1
                raise TimeoutError(f"Timeout value of 02:00:00 was exceeded by function: Functions.{name}")
            result = await function.get_user_function()(**{function.get_trigger().name: json.loads(input_)})
        except Exception as error:
            ended = event(FAILED, TaskScheduledId=number, Reason=f"{type(error).__name__}: {error}", Details="")
        else:
            ended = event(COMPLETED, TaskScheduledId=number, Result=json.dumps(result))
        if self.dead.is_set():
            return
        if len(self.activities) == self.lose_result:
            self.dead.set()
            return
        self.hub.deliver(instance, number, ended)
        self._serve(instance)

    async def _timer(self, instance: Instance, number: int, fire_at: str) -> None:
        await asyncio.sleep(max(0.0, (datetime.fromisoformat(fire_at) - datetime.now(UTC)).total_seconds()))
        self.hub.deliver(instance, number, event(TIMER_FIRED, TimerId=number, FireAt=fire_at))
        self._serve(instance)

    async def until(self, holds: Callable[[], Any], seconds: float = 60) -> None:
        """Wait until something holds, or this host has died."""
        async with asyncio.timeout(seconds):
            while not holds() and not self.dead.is_set():  # noqa: ASYNC110 - what is waited for is any condition
                await asyncio.sleep(0.01)
        if self._failure is not None:
            raise self._failure

    async def finish(self, run_id: str, seconds: float = 60) -> Instance:
        """The instance of a run, once it is over (or this host died)."""
        await self.until(lambda: self.hub.instances[run_id].over, seconds)
        return self.hub.instances[run_id]

    async def kill(self) -> None:
        """End at once, in the middle of whatever is going on."""
        self.dead.set()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        await self.module.connections.close()


def load_app() -> tuple[ModuleType, dict[str, Any]]:
    """function_app.py, imported as a new process would, and its functions by name."""
    spec = importlib.util.spec_from_file_location("function_app", ROOT / "function_app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, {function.get_function_name(): function for function in module.app.get_functions()}


@asynccontextmanager
async def running(hub: Hub, *, die_after: int | None = None, lose_result: int | None = None) -> AsyncIterator[Host]:
    """A host over this hub, which goes on with whatever is open in it; killed at the end of the block.

    It dies by itself when histories have grown by `die_after` events in all, or when the activity number `lose_result`
    is done and its result not yet kept.
    """
    host = Host(hub, *load_app(), die_after=die_after, lose_result=lose_result)
    api = web.Application()
    api.add_routes(_routes(host))
    runner = web.AppRunner(api, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}/runtime/webhooks/durabletask/"
        host.binding = json.dumps(
            {"taskHubName": "KubeletGuard", "creationUrls": {}, "managementUrls": {}, "rpcBaseUrl": base}
        )
        host.going.set()
        host.pump()
        yield host
    finally:
        await host.kill()
        await http_utils._close_session()
        await runner.cleanup()


def _routes(host: Host) -> list[web.RouteDef]:
    """The extension's HTTP API, as far as the SDK's client is used."""

    async def start(request: web.Request) -> web.Response:
        instance_id = request.match_info["id"]
        known = host.hub.instances.get(instance_id)
        if known is not None and not known.over:
            return web.json_response({"ExceptionMessage": "already exists"}, status=500)
        # The client encodes the input twice: what arrives is JSON text in a JSON string.
        host._serve(host.hub.create(instance_id, request.match_info["name"], await request.json()))
        return web.json_response({"id": instance_id}, status=202)

    async def raise_event(request: web.Request) -> web.Response:
        instance = host.hub.instances.get(request.match_info["id"])
        if instance is None:
            return web.json_response(None, status=404)
        if instance.over:
            return web.json_response(None, status=410)
        instance.inbox.append(event(RAISED, Name=request.match_info["name"], Input=json.dumps(await request.json())))
        host._serve(instance)
        return web.json_response(None, status=202)

    async def status(request: web.Request) -> web.Response:
        instance = host.hub.instances.get(request.match_info["id"])
        if instance is None:
            return web.json_response(None, status=404)
        shown = {
            "name": instance.name,
            "instanceId": instance.id,
            "runtimeStatus": instance.status,
            "createdTime": instance.created,
            "lastUpdatedTime": instance.created,
            "output": instance.output,
        }
        return web.json_response(shown, status=200 if instance.over else 202)

    base = "/runtime/webhooks/durabletask"
    return [
        web.post(base + "/orchestrators/{name}/{id}", start),
        web.post(base + "/instances/{id}/raiseEvent/{name}", raise_event),
        web.get(base + "/instances/{id}", status),
    ]
