"""An Azure Functions host in this process, with Durable Functions over a hub that outlives it.

It treats the app as the real one does: a worker imports function_app.py anew, asks `FunctionApp.get_functions()` for
what there is, calls HTTP and timer functions with the SDK's request objects, serves the HTTP API that the Durable
client calls, and gives orchestrators and activities what the extension gives them. Several hosts may share a hub.

It dies as the real one does (measured with the extension 3.19.0):

- A *worker* that dies (`Host.kill_worker`) loses what it had in hand. Its activities come back to their orchestrators
  as failures, nothing is delivered again, HTTP calls end with 500. An orchestrator that it was in fails for good, and
  so does each that is called in the `gap` until the next worker is up. The third death ends the host.
- A *host* that dies (`Host.kill`) leaves what it had in hand to the others, or to the next, after `visibility` seconds.

What is killed stops where it is: no `finally` is carried out (see `mortal`). What it had sent has been sent.

    async with cloud.host(gap=0) as host:
        host.kill_worker(in_activity("advance", number=2, at=3))
        run_id = await start(host)
        await host.finish(run_id)
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import logging
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import azure.durable_functions as df
import azure.functions as func
from aiohttp import web
from azure.durable_functions.models.utils import http_utils
from azure.functions._durable_functions import OrchestrationContext

from shared import remembered
from shared.runs.hosts import leases
from tests.support.durable_api import routes
from tests.support.hub import (
    COMPLETED,
    FAILED,
    TERMINATED,
    TIMER,
    TIMER_FIRED,
    Hub,
    Instance,
    Message,
    Work,
    event,
    new_episode,
)
from tests.support.mortal import Life

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
KEY = "the key of the function"
TRIGGERS = "shared.api.triggers"

EXITED = "python3 exited with code 137 (0x89)"
NO_WORKER = "Did not find any initialized language workers"
DEATHS, DEATHS_SECONDS = 3, 600.0

Loader = Callable[[], tuple[Any, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What an HTTP function answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


# When to kill

END = None


@dataclass(frozen=True, slots=True)
class Point:
    """A moment to come: in the call `number` (from 1, from now on) of a function, or of any function of that kind.

    `at` 0 is before its first line, another number when it (with all that it began) has been suspended so often, or
    at its end where that comes first, and END when it is done and its result is not kept yet.
    """

    kind: str
    name: str
    number: int
    at: int | None


def in_activity(name: str = "", number: int = 1, at: int | None = 0) -> Point:
    """In an activity."""
    return Point("activityTrigger", name, number, at)


def in_episode(name: str = "", number: int = 1, at: int | None = 0) -> Point:
    """In an orchestrator's episode. A host that dies at its END has sent its messages, and not written its history."""
    return Point("orchestrationTrigger", name, number, at)


def in_http(name: str = "", number: int = 1, at: int | None = 0) -> Point:
    """In an HTTP function."""
    return Point("httpTrigger", name, number, at)


def in_timer(name: str = "", number: int = 1, at: int | None = 0) -> Point:
    """In a timer function."""
    return Point("timerTrigger", name, number, at)


class GoneError(Exception):
    """There is no worker, or it died with the call."""


@dataclass
class Worker:
    """A worker process: its own import of the app, and what it has in hand."""

    module: Any
    functions: dict[str, Any]
    life: Life = field(default_factory=Life)


@dataclass(eq=False)
class Host:
    """A running host.

    `functions` is what the app's index holds, by name; none where indexing failed, which nothing else tells.
    `timing_out` activities take too long, so that the host ends them, and with them the worker.
    While `going` is clear, no activity begins, so that every run stays where it is.
    `activities` are the names of those that were begun, `calls` counts every call by kind and name, `suspensions` says
    how often such a call was suspended at most (what `at` of a Point may be), `struck` how many Points were
    reached, `deaths` when workers died, `errors` what functions raised. `dead` is set when the host has ended.
    """

    hub: Hub
    load: Loader
    binding: str = ""
    gap: float = 0.2
    visibility: float = 1.0
    together: int = 1
    slots: int = 8
    die_after: int | None = None
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    going: asyncio.Event = field(default_factory=asyncio.Event)
    functions: dict[str, Any] = field(default_factory=dict)
    activities: list[str] = field(default_factory=list)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    suspensions: Counter[tuple[str, str]] = field(default_factory=Counter)
    timing_out: Counter[str] = field(default_factory=Counter)
    deaths: list[float] = field(default_factory=list)
    struck: int = 0
    errors: list[Exception] = field(default_factory=list)
    worker: Worker | None = None
    _killing: list[tuple[Point, Callable[[], None]]] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _closing: set[asyncio.Task[None]] = field(default_factory=set)
    _busy: set[str] = field(default_factory=set)
    _timers: set[tuple[str, str, int]] = field(default_factory=set)
    _in_hand: list[Work] = field(default_factory=list)
    _answering: int = 0
    _doomed: bool = False
    _draining: bool = False
    _failure: BaseException | None = None

    # Life and death

    def start(self) -> None:
        """Begin a first worker, and, where the app has orchestrators, to serve the hub."""
        self.going.set()
        self._next_worker()
        if any(function.get_trigger().type == "orchestrationTrigger" for function in self.functions.values()):
            self.hub.join(self)

    def _next_worker(self) -> None:
        if self.dead.is_set() or self.worker is not None:
            return
        # A new process knows nothing of what the last one kept in its modules.
        leases._renewed.clear()
        remembered.forget()
        try:
            module, functions = self.load()
        except Exception as error:
            # A host whose worker cannot index the app says "Running" and has no functions.
            self.errors.append(error)
            module, functions = None, {}
        self.worker, self.functions = Worker(module, functions), functions

    def kill_worker(self, when: Point | None = None) -> None:
        """Kill the worker, now or at a moment to come. The next one is up `gap` seconds later."""
        if when is not None:
            self._later(when, self.kill_worker)
            return
        if self.worker is None or self.dead.is_set():
            return
        worker, self.worker = self.worker, None
        worker.life.kill()
        self._forget(worker)
        self.deaths.append(time.monotonic())
        if len([at for at in self.deaths if at > self.deaths[-1] - DEATHS_SECONDS]) >= DEATHS:
            self.kill()
        elif self.gap > 0:
            asyncio.get_running_loop().call_later(self.gap, self._next_worker, context=Context())
        else:
            self._next_worker()

    def kill(self, when: Point | None = None) -> None:
        """Kill the host, now or at a moment to come. What it had in hand is out of reach for `visibility` seconds."""
        if when is not None:
            self._later(when, self.kill)
            return
        if self.dead.is_set():
            return
        self.dead.set()
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.life.kill()
            self._forget(worker)
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self.hub.leave(self, self._in_hand, self.visibility)

    def _forget(self, worker: Worker) -> None:
        """The connections of a worker that died break off."""

        async def close() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await worker.module.connections.close()

        _new_session(self._closing)
        if hasattr(worker.module, "connections"):
            _keep(self._closing, close())

    async def stop(self, seconds: float = 30) -> None:
        """End in good order, as on SIGTERM: take nothing more, wait for what is in hand, leave the rest to others."""
        self._draining = True
        with suppress(TimeoutError):
            await self.until(lambda: not self._in_hand and not self._answering, seconds)
        if not self._in_hand:
            self.visibility = 0
        self.kill()

    async def closed(self) -> None:
        """Wait until everything of a host that died is closed."""
        while self._tasks or self._closing:
            await asyncio.wait([*self._tasks, *self._closing])

    def _later(self, when: Point, kill: Callable[[], None]) -> None:
        calls = self.calls[when.kind, when.name]
        self._killing.append((replace(when, number=calls + when.number), kill))

    def _strike(self, kind: str, name: str) -> list[tuple[Point, Callable[[], None]]]:
        """Count a call: who is to be killed in it."""
        self.calls[kind, name] += 1
        self.calls[kind, ""] += 1
        due = [
            (point, kill)
            for point, kill in self._killing
            if point.kind == kind and point.name in ("", name) and point.number == self.calls[kind, point.name]
        ]
        self._killing = [item for item in self._killing if item not in due]
        self.struck += len(due)
        return due

    async def _call(self, function: Any, arguments: dict[str, Any]) -> Any:
        """Call a function in the worker. Raises GoneError, or what the function raised."""
        called = function.get_trigger().type, function.get_function_name()
        due = self._strike(*called)
        worker = self.worker
        if worker is None:
            raise GoneError(NO_WORKER)

        def kill(reached: Callable[[int | None], bool]) -> None:
            for item in list(due):
                if reached(item[0].at):
                    due.remove(item)
                    item[1]()

        async def work() -> Any:
            answer = function.get_user_function()(**arguments)
            return await answer if inspect.isawaitable(answer) else answer

        kill(lambda at: at == 0)
        if worker.life.dead:
            raise GoneError(EXITED)

        def suspended(count: int) -> None:
            self.suspensions[called] = max(self.suspensions[called], count)
            kill(lambda at: at is not None and at <= count)

        task = worker.life.spawn(work(), suspended)
        await asyncio.wait([task])
        kill(lambda at: True)
        if worker.life.dead:
            if not task.cancelled():
                task.exception()  # so that nobody says that nobody asked
            raise GoneError(EXITED)
        return task.result()

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

        As the host answers: 404 where there is none, 401 without its key, 500 where it raised or its worker died; 503
        where the host is no more.
        """
        parts = urlsplit(address)
        sent = raw if body is None else json.dumps(body).encode()
        if self.dead.is_set():
            return Reply(503, {}, b"")
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
            self._answering += 1
            try:
                answer = await self._call(function, self._arguments(function, {trigger.name: request}))
            except Exception as error:
                self._raised(function, error)
                return Reply(500, {}, b"")
            finally:
                self._answering -= 1
                self._die_if_doomed()
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Reply(answer.status_code, {**headers, "content-type": answer.mimetype}, answer.get_body())
        return Reply(404, {}, b"")

    async def tick(self, past_due: bool = False, *, name: str = "scheduled_run") -> bool:
        """Fire a timer: whether its function came to its end. If not, it is not called again before its next time."""
        function = self.functions[name]
        timer = func.timer.TimerRequest(past_due=past_due)
        try:
            await self._call(function, self._arguments(function, {function.get_trigger().name: timer}))
        except Exception as error:
            self._raised(function, error)
            return False
        return True

    def _arguments(self, function: Any, given: dict[str, Any]) -> dict[str, Any]:
        clients = {item.name: self.binding for item in function.get_bindings() if item.type == "durableClient"}
        return {**given, **clients}

    def _raised(self, function: Any, error: Exception) -> None:
        self.errors.append(error)
        if not isinstance(error, GoneError):
            log.error("Executed 'Functions.%s' (Failed)", function.get_function_name(), exc_info=error)

    @property
    def client(self) -> Any:
        """The SDK's Durable client, as functions get it."""
        return df.DurableOrchestrationClient(self.binding)

    # Durable Functions

    @property
    def _taking(self) -> bool:
        return not (self.dead.is_set() or self._doomed or self._draining)

    def serve(self, instance: Instance) -> None:
        """Go on with an instance that has messages, and set its timers."""
        if not self._taking or instance.over:
            return
        for number, action in instance.open.items():
            timer = (instance.id, instance.execution, number)
            if action["actionType"] == TIMER and timer not in self._timers:
                self._timers.add(timer)
                self._spawn(self._timer(*timer, action["fireAt"]))
        if instance.inbox and instance.id not in self._busy:
            self._busy.add(instance.id)
            self._spawn(self._episodes(instance.id))

    def room(self) -> int:
        """How many more activities this host carries out side by side."""
        return self.slots - len(self._in_hand) if self._taking else 0

    def carry_out(self, work: Work) -> None:
        """Begin an activity."""
        self._in_hand.append(work)
        self._spawn(self._activity(work))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        _keep(self._tasks, work).add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None and self._failure is None:
            self._failure = task.exception()
            self.dead.set()

    async def _episodes(self, instance_id: str) -> None:
        try:
            await asyncio.sleep(0)
            while self._taking and self.hub.owner(instance_id) is self:
                instance = self.hub.instances.get(instance_id)
                messages = [] if instance is None or instance.over else self.hub.due(instance, self.together)
                if instance is None or not messages:
                    return
                self._episode(instance, messages)
                await asyncio.sleep(0)
        finally:
            self._busy.discard(instance_id)

    def _episode(self, instance: Instance, messages: list[Message]) -> None:
        ended = next((item.event for item in messages if item.event["EventType"] == TERMINATED), None)
        if ended is not None:
            self.hub.terminate(instance, ended["Input"])
            return
        due = self._strike("orchestrationTrigger", instance.name)
        for _, kill in due:
            if kill == self.kill_worker:
                kill()
        hosts = [point for point, kill in due if kill == self.kill]
        if self.dead.is_set() or any(point.at is not END for point in hosts):
            self.kill()
        elif due and not hosts:
            self.hub.lose_episode(instance, messages, EXITED)
        elif self.worker is None:
            self.hub.lose_episode(instance, messages, NO_WORKER)
        elif instance.name not in self.functions:
            missing = f"The function '{instance.name}' doesn't exist, is disabled, or is not an orchestrator function."
            self.hub.lose_episode(instance, messages, missing)
        else:
            self._think(instance, messages, sent_only=bool(hosts))

    def _think(self, instance: Instance, messages: list[Message], sent_only: bool) -> None:
        episode = new_episode(messages)
        names = [name for name, item in self.functions.items() if item.get_trigger().type == "activityTrigger"]
        function = self.functions[instance.name].get_user_function()
        try:
            told = function(OrchestrationContext(instance.context(episode)))
        except Exception as error:
            text, _, told = str(error).partition("\n\n$OutOfProcData$:")
            if not told:
                self.hub.lose_episode(instance, messages, text)
                return
        state = json.loads(told)
        if sent_only:
            self.kill()
            self.hub.ask_only(instance, state, names)
            return
        self.hub.commit(instance, episode, messages, state, names)
        self._doomed = self.die_after is not None and self.hub.episodes >= self.die_after
        self._die_if_doomed()

    def _die_if_doomed(self) -> None:
        if self._doomed and not self._answering:
            self.kill()

    async def _activity(self, work: Work) -> None:
        await self.going.wait()
        self.activities.append(work.name)
        function = self.functions[work.name]
        try:
            if self.timing_out[work.name] > 0:
                self.timing_out[work.name] -= 1
                self.kill_worker()
                raise TimeoutError(f"Timeout value of 02:00:00 was exceeded by function: Functions.{work.name}")
            result = json.dumps(await self._call(function, {function.get_trigger().name: json.loads(work.input)}))
        except Exception as error:
            said = str(error) if isinstance(error, GoneError) else f"{type(error).__name__}: {error}"
            reason = f"Activity function '{work.name}' failed: {said}"
            ended = event(FAILED, TaskScheduledId=work.number, Reason=reason, Details="")
        else:
            ended = event(COMPLETED, TaskScheduledId=work.number, Result=result)
        if self.dead.is_set():
            return
        self._in_hand.remove(work)
        self.hub.deliver(work.instance, work.execution, work.number, ended)
        self.hub.dispatch()

    async def _timer(self, instance_id: str, execution: str, number: int, fire_at: str) -> None:
        await asyncio.sleep(max(0.0, (datetime.fromisoformat(fire_at) - datetime.now(UTC)).total_seconds()))
        self._timers.discard((instance_id, execution, number))
        self.hub.deliver(instance_id, execution, number, event(TIMER_FIRED, TimerId=number, FireAt=fire_at))

    # What a test waits for

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


def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    # In no worker's context, even where a worker's own code brought it here: a worker's tasks die with it.
    task = asyncio.get_running_loop().create_task(work, context=Context())
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


def _new_session(closing: set[asyncio.Task[None]]) -> None:
    """A new session for the SDK's Durable client: all workers share one here, and the next knows nothing of it."""
    session, http_utils._client_session = http_utils._client_session, None
    http_utils._session_lock = asyncio.Lock()
    if session is not None:
        _keep(closing, session.close())


def load_app() -> tuple[Any, dict[str, Any]]:
    """The module of the triggers, imported by function_app.py as in a new process, and the functions by name."""
    sys.modules.pop(TRIGGERS, None)
    spec = importlib.util.spec_from_file_location("function_app", ROOT / "function_app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return sys.modules[TRIGGERS], {function.get_function_name(): function for function in module.app.get_functions()}


@asynccontextmanager
async def running(
    hub: Hub, *, load: Loader = load_app, lose_result: int | None = None, **options: Any
) -> AsyncIterator[Host]:
    """A host over this hub, which goes on with whatever is open in it; killed at the end of the block.

    It dies by itself when histories have grown by `die_after` events in all (and what it was asked over HTTP has been
    answered), or when the activity number `lose_result`
    is done and its result not yet kept. `gap` is how long there is no worker after one died, `visibility` how long
    what a dead host had in hand stays out of reach (in seconds), `together` how many messages an episode brings at
    most, `slots` how many activities this host carries out side by side.
    """
    host = Host(hub, load, **options)
    if lose_result is not None:
        host.kill(in_activity(number=lose_result, at=END))
    api = web.Application()
    api.add_routes(routes(hub, lambda: host.functions))
    runner = web.AppRunner(api, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}/runtime/webhooks/durabletask/"
        host.binding = json.dumps(
            {"taskHubName": "KubeletGuard", "creationUrls": {}, "managementUrls": {}, "rpcBaseUrl": base}
        )
        host.start()
        yield host
    finally:
        host.kill()
        await host.closed()
        await runner.cleanup()
