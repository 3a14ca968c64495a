"""The HTTP API of the Durable extension, as far as the SDK's client is used."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from aiohttp import web

from tests.support.hub import RAISED, TERMINATED, Hub, Instance, Message, event

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PAGE = 100  # instances that a list shows; the SDK's client does not ask for the next ones


def routes(hub: Hub, functions: Callable[[], Mapping[str, Any]]) -> list[web.RouteDef]:
    """What there is under `rpcBaseUrl`, over this hub. `functions` is the app's index."""

    async def start(request: web.Request) -> web.Response:
        name, instance_id = request.match_info["name"], request.match_info.get("id") or uuid4().hex
        function = functions().get(name)
        if function is None or function.get_trigger().type != "orchestrationTrigger":
            missing = f"The function '{name}' doesn't exist, is disabled, or is not an orchestrator function."
            return web.json_response({"ExceptionMessage": missing}, status=400)
        known = hub.instances.get(instance_id)
        if known is not None and not known.over:
            said = f"An Orchestration instance with the status {known.status} already exists."
            return web.json_response({"ExceptionMessage": said}, status=500)
        # The client encodes the input twice: what arrives is JSON text in a JSON string.
        text = await request.text()
        hub.create(instance_id, name, json.loads(text) if text else "null")
        return web.json_response({"id": instance_id}, status=202)

    async def raise_event(request: web.Request) -> web.Response:
        instance = hub.instances.get(request.match_info["id"])
        if instance is None or instance.over:
            return web.json_response(None, status=404 if instance is None else 410)
        raised = event(RAISED, Name=request.match_info["name"], Input=json.dumps(await request.json()))
        hub.send(instance, Message(raised))
        return web.json_response(None, status=202)

    async def terminate(request: web.Request) -> web.Response:
        instance = hub.instances.get(request.match_info["id"])
        if instance is None or instance.over:
            return web.json_response(None, status=404 if instance is None else 410)
        hub.send(instance, Message(event(TERMINATED, Input=request.query.get("reason", ""))))
        return web.json_response(None, status=202)

    async def status(request: web.Request) -> web.Response:
        instance = hub.instances.get(request.match_info["id"])
        if instance is None:
            return web.json_response(None, status=404)
        return web.json_response(_shown(instance, request), status=200 if instance.over else 202)

    async def statuses(request: web.Request) -> web.Response:
        chosen = sorted(_chosen(hub, request), key=lambda instance: instance.id)
        return web.json_response([_shown(instance, request) for instance in chosen[:PAGE]])

    async def purge(request: web.Request) -> web.Response:
        instance_id = request.match_info["id"]
        if instance_id not in hub.instances:
            return web.json_response(None, status=404)
        hub.purge(instance_id)
        return web.json_response({"instancesDeleted": 1})

    async def purge_all(request: web.Request) -> web.Response:
        if "createdTimeFrom" not in request.query:
            return web.json_response("Please provide value for 'createdTimeFrom' parameter.", status=400)
        chosen = _chosen(hub, request)
        for instance in chosen:
            hub.purge(instance.id)
        return web.json_response({"instancesDeleted": len(chosen)}, status=200 if chosen else 404)

    def unless_broken(answer: Handler) -> Handler:
        async def answered(request: web.Request) -> web.StreamResponse:
            if hub.broken:
                said = {
                    "Message": "Something went wrong while processing your request",
                    "ExceptionMessage": "no storage",
                }
                return web.json_response(said, status=500)
            return await answer(request)

        return answered

    base = "/runtime/webhooks/durabletask"
    return [
        web.post(base + "/orchestrators/{name}", unless_broken(start)),
        web.post(base + "/orchestrators/{name}/{id}", unless_broken(start)),
        web.post(base + "/instances/{id}/raiseEvent/{name}", unless_broken(raise_event)),
        web.post(base + "/instances/{id}/terminate", unless_broken(terminate)),
        web.get(base + "/instances/", unless_broken(statuses)),
        web.delete(base + "/instances/", unless_broken(purge_all)),
        web.get(base + "/instances/{id}", unless_broken(status)),
        web.delete(base + "/instances/{id}", unless_broken(purge)),
    ]


def _shown(instance: Instance, request: web.Request) -> dict[str, Any]:
    return {
        "name": instance.name,
        "instanceId": instance.id,
        "runtimeStatus": instance.status,
        "input": json.loads(instance.input) if request.query.get("showInput", "true").lower() == "true" else None,
        "customStatus": instance.custom_status,
        "output": instance.output,
        "createdTime": f"{instance.created[:19]}Z",
        "lastUpdatedTime": f"{instance.updated[:19]}Z",
        "historyEvents": None,
    }


def _chosen(hub: Hub, request: web.Request) -> list[Instance]:
    """The instances that a list, or a purge, is about."""
    query = request.query
    wanted = [status for status in query.get("runtimeStatus", "").split(",") if status]
    since, until = (_time(query.get(name)) for name in ("createdTimeFrom", "createdTimeTo"))
    return [
        instance
        for instance in hub.instances.values()
        if instance.id.startswith(query.get("instanceIdPrefix", ""))
        and (not wanted or instance.status in wanted)
        and (since is None or datetime.fromisoformat(instance.created) >= since)
        and (until is None or datetime.fromisoformat(instance.created) <= until)
    ]


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
