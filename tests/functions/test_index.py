"""Indexing: what the host learns of the app, how fast, and what it says where a setting is bad."""

from __future__ import annotations

import abc
import inspect
import json
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.runs.model import ENGINE
from shared.runs.model.batch import BATCH
from shared.runs.orchestrators import ORCHESTRATORS
from shared.runs.steps import STEPS
from shared.settings import NAMES, load_what_is_right
from shared.store.patient import PATIENCE_SECONDS
from tests.support.bench import environment
from tests.support.host import Host, load_app
from tests.support.hub import PARTITIONS, Hub

ROOT = Path(__file__).parents[2]
RUN = "20260101T000000Z-000000"
NO_HUB = json.dumps(
    {"taskHubName": "none", "creationUrls": {}, "managementUrls": {}, "rpcBaseUrl": "http://127.0.0.1:9"}
)
STORAGE = {"AzureWebJobsStorage": "UseDevelopmentStorage=true"}
HTTP = {
    "start_audit": ("POST", "audits"),
    "start_fix": ("POST", "fixes"),
    "list_runs": ("GET", "runs"),
    "get_run": ("GET", "runs/{run_id}"),
    "get_plan": ("GET", "runs/{run_id}/plan"),
    "cancel_run": ("POST", "runs/{run_id}/cancel"),
    "approve_run": ("POST", "runs/{run_id}/approve"),
    "list_findings": ("GET", "findings"),
    "get_hold": ("GET", "hold"),
    "hold_fixes": ("POST", "hold"),
    "release_hold": ("DELETE", "hold"),
    "health": ("GET", "health"),
    "live": ("GET", "live"),
    "openapi": ("GET", "openapi.json"),
}


def test_the_functions() -> None:
    with environment(STORAGE):
        _, functions = load_app()
    triggers = {name: function.get_trigger() for name, function in functions.items()}
    http = {
        name: (str(trigger.methods[0].value), trigger.route)
        for name, trigger in triggers.items()
        if trigger.type == "httpTrigger"
    }
    assert http == HTTP
    assert {name for name in HTTP if triggers[name].auth_level.name != "FUNCTION"} == {"live"}
    assert triggers["live"].auth_level.name == "ANONYMOUS"
    assert [item.type for item in functions["live"].get_bindings()] == ["httpTrigger", "http"], "no Durable client"
    activities = {name for name, trigger in triggers.items() if trigger.type == "activityTrigger"}
    assert activities == set(STEPS)
    orchestrators = {name for name, trigger in triggers.items() if trigger.type == "orchestrationTrigger"}
    assert orchestrators == set(ORCHESTRATORS)
    assert all(name.endswith(f"_{ENGINE}") for name in orchestrators), "so that no other version goes on with its runs"
    assert triggers["scheduled_run"].schedule == "0 0 2 * * *"
    assert triggers["watchdog"].schedule == "30 * * * * *"


def test_the_worker_can_load_every_function() -> None:
    """The checks of the Python worker (azure_functions_worker/functions.py) that an SDK does not make."""
    with environment(STORAGE):
        _, functions = load_app()
    for name, function in functions.items():
        called = function.get_user_function()
        bound = {binding.name for binding in function.get_bindings()} - {"$return"}
        assert set(inspect.signature(called).parameters) == bound, name
        for parameter, annotation in typing.get_type_hints(called).items():
            assert type(annotation) is type or isinstance(annotation, abc.ABCMeta), f"{name}: {parameter}: {annotation}"


def test_the_schedule_is_the_host_s_to_read_where_it_is_set() -> None:
    with environment({**STORAGE, "GUARD_SCHEDULE": "0 30 3 * * *"}):
        _, functions = load_app()
    assert functions["scheduled_run"].get_trigger().schedule == "%GUARD_SCHEDULE%"


def test_the_cold_start() -> None:
    """The index is made without any of the Azure SDK but the Functions' own, which is what a cold start waits for."""
    code = (
        "import function_app, json, sys; functions = function_app.app.get_functions();"
        "print(json.dumps([name for name in sys.modules if name.startswith(('azure.', 'rich', 'aiosqlite', 'msal'))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **STORAGE},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {".".join(name.split(".")[:2]) for name in json.loads(done.stdout)}
    assert imported == {"azure.functions", "azure.durable_functions"}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"GUARD_MODE": "destroy", "GUARD_ALLOW_FIX": "perhaps"},
            ["GUARD_MODE='destroy'", "GUARD_ALLOW_FIX='perhaps'"],
        ),
        ({"GUARD_MODE": "fix"}, ["GUARD_ALLOW_FIX=true"]),
        ({"GUARD_APPROVAL_HOURS": "500"}, ["from 0.001 to 120"]),
        ({"GUARD_SCHEDULE": "daily"}, ["NCRONTAB"]),
        ({"GUARD_SCHEDULE": "0 0 2 * * 7"}, ["wrong weekday '7'"]),
        ({"GUARD_BUGDET_PERCENT": "50"}, ["GUARD_BUDGET_PERCENT?"]),
        ({"AzureWebJobsStorage": ""}, ["AzureWebJobsStorage__tableServiceUri", "GUARD_STORE"]),
        ({"GUARD_FIX_CONTROLS": "3.2.6 9.9.9"}, ["GUARD_FIX_CONTROLS", "no control '9.9.9'", "3.2.6"]),
        ({"GUARD_CONTROLS_FILE": "/dev/null"}, ["GUARD_CONTROLS_FILE", "must be a mapping"]),
        ({"GUARD_CONTROLS_FILE": "https://a.example/c/x?sig=secret"}, ["GUARD_CONTROLS_FILE", "without a signature"]),
    ],
)
async def test_a_bad_setting_hides_nothing_and_is_said(
    variables: dict[str, str], said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Every function is there, all but the ones that need no settings refuse, and nothing is asked of anybody."""
    with environment({**STORAGE, **variables}):
        module, functions = load_app()
        assert set(functions) == {*HTTP, *STEPS, *ORCHESTRATORS, "scheduled_run", "watchdog"}
        assert functions["scheduled_run"].get_trigger().schedule == "0 0 2 * * *"
        host = Host(Hub(), lambda: (module, functions), binding=NO_HUB)
        host.start()
        for name, (method, route) in HTTP.items():
            caplog.clear()
            answer = await host.http(method, f"/api/{route.replace('{run_id}', RUN)}", {} if method == "POST" else None)
            if name in ("live", "openapi"):
                assert answer.status == 200
                continue
            assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json"), name
            problem = answer.json()
            assert problem["type"] == "urn:kubelet-guard:problem:bad-settings"
            assert all(part in problem["detail"] for part in said), problem
            assert len(caplog.records) == 1
        for name in STEPS:
            caplog.clear()
            result = await functions[name].get_user_function()(job={"run_id": RUN})
            assert result["failed"].startswith("bad setting: ")
            assert len(caplog.records) == 1
        for name in ("scheduled_run", "watchdog"):
            assert not await host.tick(name=name)
            assert isinstance(host.errors[-1], SettingsError)
            assert said[0] in str(host.errors[-1])


@pytest.mark.parametrize(
    ("variables", "store"),
    [
        ({"GUARD_STORE": "runs.db", **STORAGE}, "runs.db"),
        ({"AzureWebJobsStorage__tableServiceUri": "https://a.table.core.usgovcloudapi.net/"}, None),
        ({"AzureWebJobsStorage__accountName": "acc"}, "https://acc.table.core.windows.net"),
        (
            {"AzureWebJobsStorage__accountName": "acc", "GUARD_ARM_ENDPOINT": "https://management.usgovcloudapi.net"},
            "https://acc.table.core.usgovcloudapi.net",
        ),
        ({"AzureWebJobsStorage": "AccountName=acc;AccountKey=YQ=="}, "AccountName=acc;AccountKey=YQ=="),
    ],
)
def test_where_runs_are_kept(variables: dict[str, str], store: str | None) -> None:
    loaded, wrong = load_what_is_right(variables)
    assert wrong is None
    assert loaded.store.get_secret_value() == (store or variables["AzureWebJobsStorage__tableServiceUri"])


def test_host_json_fits_the_code() -> None:
    # A comment in it makes the Durable SDK's import fail.
    host = json.loads((ROOT / "host.json").read_text())
    assert host["extensionBundle"]["version"] == "[4.*, 5.0.0)"
    assert host["extensions"]["http"]["routePrefix"] == "api"
    hours, minutes, seconds = map(int, host["functionTimeout"].split(":"))
    assert hours * 3600 + minutes * 60 + seconds > 2 * PATIENCE_SECONDS, "a step sits out a store that is away"
    durable = host["extensions"]["durableTask"]
    assert BATCH * durable["maxConcurrentActivityFunctions"] <= 2_000, "nodes in hand at once, with what they sent"
    for queue in ("controlQueueVisibilityTimeout", "workItemQueueVisibilityTimeout"):
        assert durable["storageProvider"][queue] == "00:01:00", "what a dead host had in hand"
    assert durable["tracing"]["distributedTracingEnabled"] is False, (
        "it warns at every start where it has no place to send"
    )
    assert durable["storageProvider"]["partitionCount"] == PARTITIONS
    sampling = host["logging"]["applicationInsights"]["samplingSettings"]
    assert "Trace" in sampling["excludedTypes"].split(";"), "our events are traces"


def test_the_example_of_local_settings_is_valid() -> None:
    values = json.loads((ROOT / "local.settings.json.example").read_text())["Values"]
    loaded, wrong = load_what_is_right(values)
    assert (loaded.mode, wrong) == ("audit", None)
    assert {name for name in values if name.startswith("GUARD_")} <= set(NAMES)
