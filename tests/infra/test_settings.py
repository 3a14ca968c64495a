"""The settings of the app in code, templates and docs: the same names, defaults and limits; and a deployment keeps what
it was given. What is kept in infra/snapshots is the compiler's own word (tests/infra/test_predicted.py)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import shared.settings
from shared.settings import TABLE
from tests.support.bicep import APPS, INFRA, Deployment, bicep, given, interface
from tools import package
from tools.bicep.combinations import in_cloud
from tools.bicep.settings import OTHERWISE, declared, described
from tools.bicep.snapshots import short

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
PARAMETERS: dict[str, Any] = interface()["parameters"]
# A setting whose value the prediction does not know, because it is given as a secret.
GIVEN = "{unknown()}"


@pytest.fixture(params=APPS, ids=lambda app: app.combination.name)
def deployed(request: pytest.FixtureRequest) -> dict[str, str]:
    """The app settings that a combination of parameters deploys."""
    app: Deployment = request.param
    found: dict[str, str] = app.snapshot.only("Microsoft.Web/sites").at("properties.siteConfig.appSettings")
    return found


# One table


def test_the_parameter_is_the_table_of_the_code() -> None:
    """Every row that has no parameter of its own, with its words where it takes a few, and all that is known of it."""
    parameter = PARAMETERS["settings"]
    assert (parameter["type"], parameter["additionalProperties"], parameter["defaultValue"]) == (
        "secureObject",
        False,
        {},
    )
    assert parameter["properties"] == {
        row.name: {
            "type": "string",
            "nullable": True,
            "metadata": {"description": described(field)},
            **({"allowedValues": sorted(row.words)} if row.words else {}),
        }
        for field, row in TABLE.items()
        if row.name not in OTHERWISE
    }
    assert declared() in (INFRA / "main.bicep").read_text(), "python -m tools.bicep settings writes it anew"


def test_what_a_deployer_is_told_of_a_setting() -> None:
    assert described("fix_most") == (
        "A fix that nobody watches waits for a person where it is of more nodes than this."
        " It takes a whole number of nodes from 0 to 100000. Not given: 20."
    )
    assert "with the same id (docs/adding-a-control.md). It takes a file's path" in described("controls_file")
    assert described("store").endswith("or a file's path; a secret. Not given: the host's storage.")
    assert described("management_group").endswith("Not given: nothing.")


def test_every_setting_is_deployed_and_nothing_else_is(deployed: dict[str, str]) -> None:
    ours = {name for name in deployed if name.startswith("GUARD_")}
    assert ours == set(OTHERWISE), "one name, one place"
    assert ours | set(PARAMETERS["settings"]["properties"]) == set(shared.settings.NAMES), "what is missing is wiped"
    assert GIVEN in deployed, "what is given is added"


@pytest.mark.parametrize("name", sorted(name for name, parameter in OTHERWISE.items() if parameter))
def test_the_parameters_of_their_own(name: str) -> None:
    (field,) = (field for field, row in TABLE.items() if row.name == name)
    parameter = PARAMETERS[OTHERWISE[name]]
    default = getattr(shared.settings.Settings(), field)
    assert parameter["defaultValue"] == (list(default) if isinstance(default, tuple) else default)
    assert tuple(parameter.get("allowedValues", ())) == TABLE[field].words


def test_the_package_is_made_for_the_python_that_is_deployed() -> None:
    python = PARAMETERS["pythonVersion"]
    assert package.pythons() == (python["defaultValue"], tuple(python["allowedValues"]))


def test_what_the_parameters_file_reads_is_a_setting_or_known_as_none() -> None:
    read_by_it = set(re.findall(r"'(GUARD_\w+)'", (INFRA / "main.bicepparam").read_text()))
    assert read_by_it - set(shared.settings.NAMES) == set(shared.settings.DEPLOYMENT_NAMES)


def test_what_is_deployed_is_what_the_code_takes(deployed: dict[str, str]) -> None:
    given = {name: value for name, value in deployed.items() if name.startswith("GUARD_")}
    loaded = shared.settings.load(given)
    assert loaded == shared.settings.Settings(arm_endpoint=loaded.arm_endpoint), "nothing but the cloud is decided here"


# What azd and az do with it


def app_settings(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The app settings that a deployment with these variables makes."""
    copy = in_cloud("AzureCloud", folder)
    for path in (copy / "main.bicep", copy / "modules" / "app.bicep"):
        # A prediction does not tell what is a secret.
        path.write_text(re.sub(r"@secure\(\)\n(?=param settings )", "", path.read_text()))
    scope = ("--subscription-id", SUBSCRIPTION, "--location", "westeurope")
    done = bicep("snapshot", str(copy / "main.bicepparam"), "--mode", "overwrite", *scope, environ=environ)
    assert done.returncode == 0, done.stderr
    predicted = json.loads((copy / "main.snapshot.json").read_text())
    assert predicted["diagnostics"] == []
    found: dict[str, str] = short(predicted).only("Microsoft.Web/sites").at("properties.siteConfig.appSettings")
    return found


def test_a_deployment_keeps_what_it_was_given(tmp_path: Path) -> None:
    """`azd env set` once; every `azd up` afterwards deploys it again, and what is not said has the code's default."""
    further = {
        "GUARD_BUDGET_PERCENT": "50",
        "GUARD_FIX_CONTROLS": "3.2.6, 3.2.1",
        "GUARD_FIX_MOST": "5",
        "GUARD_STORE": "https://a.table.core.windows.net",
        "GUARD_WITNESS": "smart",
    }
    environ = {"GUARD_SETTINGS": json.dumps(further), "GUARD_MODE": "plan", "GUARD_SUBSCRIPTIONS": SUBSCRIPTION}
    assert given(environ)["settings"] == further

    first, second = (app_settings(environ, tmp_path) for _ in range(2))
    assert first == second
    assert {name: value for name, value in first.items() if name in further} == further
    loaded = shared.settings.load({name: value for name, value in first.items() if name in {*OTHERWISE, *further}})
    assert loaded == shared.settings.Settings(
        budget_percent=50,
        fix_controls=("3.2.6", "3.2.1"),
        fix_most=5,
        mode="plan",
        store=loaded.store,
        subscriptions=(SUBSCRIPTION,),
        witness="smart",
    )
    assert loaded.store.get_secret_value() == further["GUARD_STORE"]

    without = app_settings({}, tmp_path)
    assert set(first) - set(without) == set(further), "what was given before is gone where it is not given again"
    assert {name for name in without if name.startswith("GUARD_")} == set(OTHERWISE)


def test_what_is_given_without_a_variable_is_the_default_of_the_code() -> None:
    parameters = given({})
    for name, parameter in OTHERWISE.items():
        if parameter and parameter in parameters:
            assert parameters[parameter] == PARAMETERS[parameter]["defaultValue"], name
    assert parameters["settings"] == {}


def test_lists_are_told_by_commas_and_spaces_do_not_count() -> None:
    environ = {
        "GUARD_SUBSCRIPTIONS": f" {SUBSCRIPTION} ,",
        "GUARD_GRANT_ACCESS_TO": f"{SUBSCRIPTION}, {SUBSCRIPTION.replace('0', '1')}",
        "GUARD_ALERT_EMAILS": "a@example.com, b@example.com",
        "GUARD_ALERTS_OFF": "run-late, fixes-held",
    }
    parameters = given(environ)
    assert parameters["subscriptions"] == [SUBSCRIPTION]
    assert parameters["grantAccessTo"] == [SUBSCRIPTION, SUBSCRIPTION.replace("0", "1")]
    assert parameters["alertEmails"] == ["a@example.com", "b@example.com"]
    assert parameters["alertsOff"] == ["run-late", "fixes-held"]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"GUARD_SETTINGS": '{"GUARD_WITNES": "both"}'}, 'Did you mean "GUARD_WITNESS"?'),
        ({"GUARD_SETTINGS": '{"GUARD_WITNESS": "all"}'}, "'both' | 'configz' | 'node' | 'smart'"),
        ({"GUARD_SETTINGS": '{"GUARD_FIX_MOST": 5}'}, '"GUARD_FIX_MOST" expected a value of type "null | string"'),
        ({"GUARD_MODE": "destroy"}, "'audit' | 'fix' | 'plan'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_deployed(environ: dict[str, str], said: str) -> None:
    """Names, and values of those that take a few words. The limits of others are said by the app (health)."""
    done = bicep("build-params", str(INFRA / "main.bicepparam"), "--stdout", environ=environ)
    assert done.returncode != 0
    assert said in done.stderr
