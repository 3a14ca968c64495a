"""The serverless app: its triggers, thin. Each validates, then calls the rest of shared/.

Settings are read here once; with a bad one every function is there all the same, and refuses with what is wrong: an app
that does not index has no function at all, and says nowhere why. The Azure SDK is imported by the first function that
needs it, not while functions are indexed. The Functions worker looks at the annotations of functions, and refuses to
load one whose annotation is text or a generic type.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import azure.durable_functions as df
import azure.functions as func

from shared import settings as settings_module
from shared.api import routes
from shared.api.bodies import ProblemBody
from shared.api.openapi import as_text
from shared.api.operations import Answer, Caller
from shared.errors import OrchestrationsError
from shared.runs.hosts.durable import Connections, carry_out
from shared.runs.model.messages import Ref
from shared.runs.orchestrators import ORCHESTRATORS, RUN, WAKE
from shared.runs.orchestrators.hand import first_line
from shared.runs.steps import STEPS

log = logging.getLogger(__name__)

settings, bad = settings_module.load_what_is_right(os.environ)
connections = Connections(settings, bad)
_FIRST = datetime(2020, 1, 1, tzinfo=UTC)
app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)


def _silent(why: object) -> OrchestrationsError:
    return OrchestrationsError(f"Durable Functions does not answer: {first_line(why)}")


@contextmanager
def _asked() -> Iterator[None]:
    """The SDK raises a bare Exception for whatever the extension does not do."""
    try:
        yield
    except Exception as error:
        raise _silent(error) from error


class _Durable:
    """The Durable Functions client of one call, as `shared.runs.hosts.starting.Orchestrations`.

    Every method raises OrchestrationsError where Durable Functions does not answer.
    """

    def __init__(self, client: df.DurableOrchestrationClient) -> None:
        self._client = client

    async def start(self, run_id: str, ref: Ref) -> None:
        with _asked():
            await self._client.start_new(RUN, run_id, ref.model_dump(mode="json"))

    async def wake(self, run_id: str) -> None:
        if await self.going(run_id):
            with _asked():
                await self._client.raise_event(run_id, WAKE)

    async def going(self, run_id: str) -> bool:
        with _asked():
            status = await self._client.get_status(run_id)
        # The SDK takes a failure of the extension itself for an instance that is not there.
        failure = getattr(status, "ExceptionMessage", None)
        if failure is not None:
            raise _silent(failure)
        return bool(status) and status.runtime_status in (
            df.OrchestrationRuntimeStatus.Running,
            df.OrchestrationRuntimeStatus.Pending,
            df.OrchestrationRuntimeStatus.ContinuedAsNew,
            df.OrchestrationRuntimeStatus.Suspended,
        )

    async def end(self, run_id: str, why: str) -> None:
        if await self.going(run_id):
            with _asked():
                await self._client.terminate(run_id, why)

    async def forget(self, before: datetime) -> int:
        over = [
            df.OrchestrationRuntimeStatus.Completed,
            df.OrchestrationRuntimeStatus.Failed,
            df.OrchestrationRuntimeStatus.Terminated,
        ]
        with _asked():
            purged = await self._client.purge_instance_history_by(_FIRST, before, over)
        return int(purged.instances_deleted)


def _http(operation: routes.Operation) -> None:
    @app.function_name(operation.name)
    @app.route(operation.path, methods=[operation.method])
    @app.durable_client_input(client_name="client")
    async def answer(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
        async def connect() -> Caller:
            return Caller(await connections.services(), _Durable(client))

        return _response(
            await routes.carry_out(
                operation,
                connections.catalogue,
                connect,
                parts=req.route_params,
                query=req.params,
                body=req.get_body(),
                content_type=req.headers.get("content-type", ""),
            )
        )


def _open_http(operation: routes.Operation) -> None:
    @app.function_name(operation.name)
    @app.route(operation.path, methods=[operation.method], auth_level=func.AuthLevel.ANONYMOUS)
    async def answer(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 - the binding's name
        return _response(await routes.carry_out_open(operation))


def _response(answer: Answer) -> func.HttpResponse:
    kind = "application/problem+json" if isinstance(answer.body, ProblemBody) else "application/json"
    return func.HttpResponse(
        answer.body.model_dump_json(), status_code=answer.status, headers=dict(answer.headers), mimetype=kind
    )


def _activity(name: str) -> None:
    @app.function_name(name)
    @app.activity_trigger(input_name="job")
    async def activity(job: dict) -> dict:  # type: ignore[type-arg]  # the worker takes plain types only
        result: dict[str, Any] = await carry_out(connections, name, job)
        return result


for _operation in routes.OPERATIONS:
    (_open_http if _operation.open else _http)(_operation)
for _name in STEPS:
    _activity(_name)
for _name, _orchestrator in ORCHESTRATORS.items():
    app.function_name(_name)(app.orchestration_trigger(context_name="context")(_orchestrator))


@app.function_name("openapi")
@app.route("openapi.json", methods=["GET"])
async def openapi(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 - the binding's name
    """The document of this API."""
    return func.HttpResponse(as_text(), mimetype="application/json")


@app.function_name("scheduled_run")
@app.timer_trigger(
    schedule=settings_module.schedule_binding(os.environ, settings),
    arg_name="timer",
)
@app.durable_client_input(client_name="client")
async def scheduled_run(timer: func.TimerRequest, client: df.DurableOrchestrationClient) -> None:
    """Start the scheduled run (GUARD_MODE), unless it is going."""
    from shared.runs.hosts import starting, watchdog

    try:
        run = await watchdog.start_scheduled(await connections.services(), _Durable(client))
    except (starting.GoingError, starting.HeldError) as error:
        log.warning("the scheduled run was not started: %s", error)
    else:
        log.info("the scheduled run %s (%s) was started%s", run.id, run.kind, ", late" if timer.past_due else "")


@app.function_name("watchdog")
@app.timer_trigger(schedule="30 * * * * *", arg_name="timer")
@app.durable_client_input(client_name="client")
async def watch(timer: func.TimerRequest, client: df.DurableOrchestrationClient) -> None:  # noqa: ARG001
    """Hold the records of runs against what is going; every minute while a run is, else every fifteen."""
    from shared.runs.hosts import watchdog

    await watchdog.tick(connections.services, _Durable(client), datetime.now(UTC))
