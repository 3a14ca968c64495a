"""The sandbox's server: Resource Manager over TLS on 127.0.0.1, and App Service's identity endpoint beside it.

Every Resource Manager call goes the same way: its route, its token, its API version, a fault that was asked for, the
rate limits, then the answer. `/sandbox/stats` and `/sandbox/faults` are the sandbox's own and need no token.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from pathlib import Path

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from sandbox import arm, node, rights
from sandbox.arm import Body
from sandbox.compute import Refused
from sandbox.faults import Fault
from sandbox.fleet import Fleet, load, members
from sandbox.identity import TENANT
from sandbox.resources import ROUTES, Answer, Request, Sandbox, call, run_at_once
from sandbox.throttle import Call

HOST = "127.0.0.1"
_BODY_BYTES = 4 * 1024 * 1024  # Resource Manager's own limit for a request
_IDENTITY_PATH = "/msi/token"
_REMOVALS = 20


async def _answer_arm(box: Sandbox, http: web.Request) -> web.StreamResponse:
    route, match = next(
        ((route, m) for route in ROUTES if route.method == http.method and (m := route.path.fullmatch(http.path))),
        (None, None),
    )
    query = {name.lower(): value for name, value in http.query.items()}
    kind = route.kind if route else "unknown"
    box.calls[kind] += 1
    headers = {"x-ms-request-id": str(uuid.uuid4()), "x-ms-correlation-request-id": str(uuid.uuid4())}
    fault = box.faults.take(kind, http.path)
    if fault is not None:
        await asyncio.sleep(fault.delay)
        if fault.drop == "before":
            return _drop(http)
    if wrong := box.identity.refusal(http.headers.get("Authorization", ""), box.endpoint):
        challenge = f'Bearer authorization_uri="https://login.windows.net/{TENANT}", error="invalid_token"'
        return _send(box, Answer(401, arm.error(*wrong), headers | {"WWW-Authenticate": challenge}))
    if route is None or match is None:
        text = f"The sandbox has no {http.method} {http.path}."
        return _send(box, Answer(404, arm.error("InvalidResourceType", text), headers))
    if "api-version" not in query:
        text = "The api-version query parameter (?api-version=) is required for all requests."
        return _send(box, Answer(400, arm.error("MissingApiVersionParameter", text), headers))
    if fault is not None and fault.status is not None:
        return _send_fault(box, fault, fault.status, headers | dict(fault.headers))
    content = _json_object(await http.read())
    if content is None:
        text = "The request content was invalid and could not be deserialized."
        return _send(box, Answer(400, arm.error("InvalidRequestContent", text), headers))
    request = Request(http.path, match.groupdict(), query, content)
    asked, now = call(box, route, request), time.monotonic()
    refusal = box.throttle.take(asked, now)
    headers |= box.throttle.headers(asked, now)
    if refusal is not None:
        limited = _throttled(asked, refusal.limit, refusal.retry_after)
        return _send(box, Answer(429, limited, headers | {"Retry-After": str(refusal.retry_after)}))
    try:
        if "subscription" in request.parts:
            rights.check(box.subscription(request), route.action, request.parts)
        at_once = fault is not None and fault.at_once and route.kind in {"runCommand", "vms.runCommand"}
        answer = await run_at_once(box, request) if at_once else route.answer(box, request)
    except Refused as refused:
        answer = Answer(refused.status, arm.error(refused.code, refused.message))
    if fault is not None and fault.drop == "after":
        return _drop(http)
    if fault is not None and fault.fields and answer.status == 200 and answer.body is not None:
        fault.edit(answer.body["value"])
    return _send(box, replace(answer, headers=headers | dict(answer.headers)))


def _send_fault(box: Sandbox, fault: Fault, status: int, headers: dict[str, str]) -> web.Response:
    if fault.text is not None:
        box.statuses[str(status)] += 1
        return web.Response(status=status, text=fault.text, content_type="text/html", headers=headers)
    body = arm.error(fault.code, fault.message) if fault.body is None else fault.body
    return _send(box, Answer(status, body, headers))


def _json_object(content: bytes) -> Body | None:
    """The JSON object of a request's content, empty for none; None where it is something else."""
    try:
        data = json.loads(content or b"{}")
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _throttled(call: Call, limit: str, retry_after: int) -> Body:
    if limit.startswith("arm-"):
        text = f"Number of '{limit.removeprefix('arm-').removesuffix('s')}' requests for subscription '{call.scope}'"
        text = f"{text} exceeded. Please try again after '{retry_after}' seconds."
        return arm.error("SubscriptionRequestsThrottled", text)
    if call.graph:
        text = (
            "Client application has been throttled and should not attempt to repeat the request until the quota resets."
        )
        return arm.error("RateLimiting", f"Please provide below info when asking for support. {text}")
    text = "The server rejected the request because too many requests have been received for this subscription."
    detail = {"code": "TooManyRequests", "target": limit.rpartition("/")[2], "message": "{}"}
    return arm.error("OperationNotAllowed", text, details=[detail])


def _send(box: Sandbox, answer: Answer) -> web.Response:
    box.statuses[str(answer.status)] += 1
    headers = {"Cache-Control": "no-cache", **_clock(box), **answer.headers}
    if answer.body is None:
        return web.Response(status=answer.status, headers=headers)
    return web.json_response(answer.body, status=answer.status, headers=headers)


def _clock(box: Sandbox) -> dict[str, str]:
    ahead = box.fleet.timing.clock_ahead
    return {"Date": formatdate(time.time() + ahead, usegmt=True)} if ahead else {}


def _drop(http: web.Request) -> web.Response:
    if http.transport is not None:
        http.transport.abort()
    return web.Response()


async def _answer_stats(box: Sandbox, _: web.Request) -> web.Response:
    return web.json_response(box.stats())


async def _answer_faults(box: Sandbox, http: web.Request) -> web.Response:
    if http.method == "DELETE":
        box.faults.clear()
        return web.Response(status=204)
    try:
        box.inject(TypeAdapter(Fault).validate_json(await http.read()))
    except ValidationError as error:
        return web.Response(status=400, text=f"not a fault: {error}\n")
    return web.Response(status=204)


async def _answer_identity(box: Sandbox, http: web.Request) -> web.Response:
    box.calls["token"] += 1
    return await box.identity.answer(http)


@asynccontextmanager
async def serve(
    fleet: Fleet | Path,
    *,
    directory: Path | None = None,
    port: int = 0,
    latency: tuple[float, float] | None = None,
    throttle: bool | None = None,
) -> AsyncIterator[Sandbox]:
    """Play `fleet` (or the one in a file) until the block is left; `port` 0 takes a free one.

    Everything is kept below `directory`, which must be empty or not be there and stays; without one, below a temporary
    folder that is removed. `latency` (seconds, from and to) and `throttle` override the fleet's. Raises FleetError, and
    FileExistsError where `directory` has something in it.
    """
    fleet = load(fleet) if isinstance(fleet, Path) else fleet
    if latency is not None:
        fleet = replace(fleet, timing=replace(fleet.timing, latency=latency))
    if throttle is not None:
        fleet = replace(fleet, throttle=throttle)
    root = await asyncio.to_thread(_folder, directory)
    try:
        folders = await asyncio.to_thread(node.make, list(members(fleet)), root)
        box = Sandbox(fleet, root, folders)
        async with _listening(box, port):
            yield box
    finally:
        if directory is None:
            await asyncio.to_thread(_remove, root)


def _remove(root: Path) -> None:
    """Remove the folder and all in it. A script's children that were just killed may still write their last."""
    for _ in range(_REMOVALS):
        shutil.rmtree(root, ignore_errors=True)
        if not root.exists():
            return
        time.sleep(0.05)
    shutil.rmtree(root)


def _folder(directory: Path | None) -> Path:
    """The folder to keep everything in. Raises FileExistsError."""
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="kubelet-guard-sandbox-"))
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise FileExistsError(f"{directory} is not empty: the sandbox wants a folder of its own")
    return directory.absolute()


@asynccontextmanager
async def _listening(box: Sandbox, port: int) -> AsyncIterator[None]:
    front = web.Application(client_max_size=_BODY_BYTES)
    front.router.add_get("/sandbox/stats", partial(_answer_stats, box))
    front.router.add_post("/sandbox/faults", partial(_answer_faults, box))
    front.router.add_delete("/sandbox/faults", partial(_answer_faults, box))
    front.router.add_route("*", "/{path:.*}", partial(_answer_arm, box))
    identity = web.Application()
    identity.router.add_get(_IDENTITY_PATH, partial(_answer_identity, box))
    # Tasks of run commands end before the connections do.
    runners = [web.AppRunner(app, access_log=None, shutdown_timeout=1) for app in (front, identity)]
    try:
        for server in box.api_servers.values():
            own = web.Application()
            own.router.add_route("*", "/{path:.*}", server.answer)
            # What hangs, as a frozen node does, is not waited for.
            runners.append(web.AppRunner(own, access_log=None, shutdown_timeout=0.1))
            await runners[-1].setup()
            await web.TCPSite(runners[-1], HOST, 0, ssl_context=server.context()).start()
            server.port = runners[-1].addresses[0][1]
        for runner, on, context in zip(runners[:2], (port, 0), (_tls(box), None), strict=True):
            await runner.setup()
            await web.TCPSite(runner, HOST, on, ssl_context=context).start()
        box.endpoint = f"https://localhost:{runners[0].addresses[0][1]}"
        # App Service's endpoint is plain HTTP on the local host, too.
        box.identity_endpoint = f"http://{HOST}:{runners[1].addresses[0][1]}{_IDENTITY_PATH}"
        yield
    finally:
        await box.compute.close()
        await box.invocations.close()
        for folder in box.folders.values():
            folder.stop_timers()
        for runner in runners:
            await runner.cleanup()


def _tls(box: Sandbox) -> ssl.SSLContext:
    """A server context with a certificate for localhost; writes the files of those to trust."""
    import trustme  # a development dependency: the rest of the package can be imported without it

    authority = trustme.CA()
    own = authority.cert_pem.bytes()
    trusted = ssl.get_default_verify_paths().cafile
    box.ca_file.write_bytes(own)
    # SSL_CERT_FILE replaces a process's trust altogether, so what was trusted before stays in.
    box.trust_file.write_bytes(own + (Path(trusted).read_bytes() if trusted else b""))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", HOST).configure_cert(context)
    return context
