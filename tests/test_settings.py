"""Settings: defaults, good values, and every bad value named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared import settings
from shared.errors import SettingsError
from shared.settings import NAMES, TABLE, Settings, as_markdown, default_of

DOCS = Path(__file__).parents[1] / "docs" / "settings.md"
STORAGE = {"AzureWebJobsStorage": "UseDevelopmentStorage=true"}


def test_defaults() -> None:
    loaded = settings.load({"PATH": "/bin", "GUARD_ARM_ENDPOINT": "  "})
    assert loaded == Settings()
    assert loaded.arm_scope == "https://management.azure.com/.default"
    assert loaded.authority == "https://login.microsoftonline.com"
    assert not loaded.allow_fix


def test_good_values() -> None:
    loaded = settings.load(
        {
            "GUARD_ARM_ENDPOINT": "https://management.usgovcloudapi.net/",
            "GUARD_SUBSCRIPTIONS": "5F1D6C1E-8A4B-4D0E-9A53-3C2B7F60A9D1, b27c9a40-6e15-4c7f-8d2e-91f0d3a84c66",
            "GUARD_ALLOW_FIX": "TRUE",
            "GUARD_MODE": "plan",
            "GUARD_SCHEDULE": "0 30 1 * * 1-5",
            "GUARD_COMMAND_SECONDS": "2.5",
            "GUARD_SETTLE_SECONDS": "3",
        }
    )
    assert loaded.arm_endpoint == "https://management.usgovcloudapi.net"
    assert loaded.arm_scope == "https://management.core.usgovcloudapi.net/.default"
    assert loaded.authority == "https://login.microsoftonline.us"
    assert loaded.subscriptions == ("5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1", "b27c9a40-6e15-4c7f-8d2e-91f0d3a84c66")
    assert (loaded.allow_fix, loaded.mode, loaded.schedule) == (True, "plan", "0 30 1 * * 1-5")
    assert (loaded.command_seconds, loaded.settle_seconds) == (2.5, 3)


def test_an_unknown_cloud_has_its_endpoint_as_audience() -> None:
    loaded = settings.load({"GUARD_ARM_ENDPOINT": "https://localhost:8443"})
    assert loaded.arm_scope == "https://localhost:8443/.default"
    assert loaded.authority is None


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("GUARD_ARM_ENDPOINT", "http://management.azure.com", "must be an https URL"),
        ("GUARD_ARM_ENDPOINT", "https://management.azure.com/subscriptions", "without a path"),
        ("GUARD_SUBSCRIPTIONS", "prod", "'prod' is not a subscription id"),
        ("GUARD_ALLOW_FIX", "maybe", "must be true or false"),
        ("GUARD_MODE", "repair", "must be audit, plan or fix"),
        ("GUARD_SCHEDULE", "0 2 * * *", "NCRONTAB expression of six fields"),
        ("GUARD_SCHEDULE", "0 0 25 * * *", "wrong hour '25': 25 is not from 0 to 23"),
        ("GUARD_ARM_ENDPOINT", "https://management.azure.com?x=1", "without a path"),
        ("GUARD_ARM_ENDPOINT", "https://management.azure.com:abc", "such as https://management.azure.com$"),
        ("GUARD_ARM_ENDPOINT", "https://management.azure.com:99999", "such as https://management.azure.com$"),
        ("GUARD_ARM_ENDPOINT", "https://[", "such as https://management.azure.com$"),
        ("GUARD_BUDGET_PERCENT", "1_0", "a percentage from 1 to 100"),
        ("GUARD_BUDGET_PERCENT", "５０", "a percentage from 1 to 100"),
        ("GUARD_BUDGET_PERCENT", "0", "a percentage from 1 to 100"),
        ("GUARD_BUDGET_PERCENT", "inf", "a percentage from 1 to 100"),
        ("GUARD_FIX_MOST", "-1", "a whole number of nodes from 0 to 100000"),
        ("GUARD_FIX_MOST", "²", "a whole number of nodes"),
        ("GUARD_KEEP_DAYS", "0", "from 1 to 3650"),
        ("GUARD_MANAGEMENT_GROUP", "my group", "a management group's id"),
        ("GUARD_COMMAND_SECONDS", "soon", "must be a number of seconds"),
        ("GUARD_COMMAND_SECONDS", "nan", "must be a number of seconds"),
        ("GUARD_COMMAND_DEADLINE_SECONDS", "0", "from 5 to 5400"),
        ("GUARD_SETTLE_SECONDS", "1.5", "whole number of seconds"),
    ],
)
def test_bad_values(name: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        settings.load({name: value})
    assert name in str(caught.value)
    assert repr(value) in str(caught.value)
    assert caught.value.exit_code == 64


def test_values_that_exclude_each_other() -> None:
    with pytest.raises(
        SettingsError, match=r"GUARD_SETTLE_SECONDS \(10\) must be less than GUARD_RESTART_SECONDS \(5\)"
    ):
        settings.load({"GUARD_RESTART_SECONDS": "5"})


def test_all_bad_values_at_once() -> None:
    with pytest.raises(SettingsError, match=r"GUARD_MODE.*GUARD_ALLOW_FIX"):
        settings.load({"GUARD_ALLOW_FIX": "x", "GUARD_MODE": "y"})


def test_the_table_in_the_docs_is_the_table() -> None:
    assert as_markdown() in DOCS.read_text("utf-8"), "put in what this prints: python -m shared.settings"


@pytest.mark.parametrize("field", list(TABLE))
def test_every_default_is_a_value_that_it_takes(field: str) -> None:
    row = TABLE[field]
    default = getattr(Settings(), field)
    if default not in ("", ()) and not row.secret:
        assert getattr(settings.load({row.name: default_of(field)}), field) == default
    assert row.limits
    assert row.meaning


SECRET = "AccountName=a;AccountKey=c2VjcmV0;TableEndpoint=http://127.0.0.1:9/a"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "value", [SECRET, "https://user:c2VjcmV0@host", "https://a.table.core.windows.net?sig=c2VjcmV0"]
)
def test_a_secret_is_shown_nowhere_whatever_setting_it_was_put_into(name: str, value: str) -> None:
    loaded, wrong = settings.load_what_is_right({**STORAGE, name: value})
    assert "c2VjcmV0" not in f"{wrong} {loaded!r} {loaded} {loaded.model_dump_json()} {loaded.model_dump()}"
    assert (wrong is None) == (name == "GUARD_STORE")


@pytest.mark.parametrize(
    ("store", "place"),
    [
        ("/var/lib/runs.db", "/var/lib/runs.db"),
        ("https://user:c2VjcmV0@a.table.core.windows.net/", "https://a.table.core.windows.net/"),
        (SECRET, "account a"),
        ("SharedAccessSignature=c2VjcmV0", "account of a connection string"),
        ("https://user:c2VjcmV0@[::1", "an address that is none"),
    ],
)
def test_the_place_of_a_store_is_shown_without_its_secret(store: str, place: str) -> None:
    assert settings.place_of(store) == place


def test_what_is_said_of_a_value_is_short() -> None:
    for value in ("x" * 100_000, "\x1b[2J" * 20):
        with pytest.raises(SettingsError) as raised:
            settings.load(dict.fromkeys(set(NAMES) - {"GUARD_STORE"}, value))
        assert len(str(raised.value)) < 400 * len(NAMES)
        assert str(raised.value).isprintable()


def test_the_app_gets_what_is_right_and_hears_what_is_not() -> None:
    loaded, wrong = settings.load_what_is_right(
        {
            **STORAGE,
            "GUARD_SCHEDULE": "0 0 99 * * *",
            "GUARD_FIX_MOST": "3",
            "GUARD_BUGDET_PERCENT": "50",
            "GUARD_MODE": "fix",
        }
    )
    assert (loaded.schedule, loaded.fix_most) == (Settings().schedule, 3)
    assert wrong is not None
    for said in ("GUARD_SCHEDULE='0 0 99 * * *'", "did you mean GUARD_BUDGET_PERCENT?", "GUARD_ALLOW_FIX=true"):
        assert said in str(wrong)
    assert settings.load_what_is_right({**STORAGE, "GUARD_NETWORK": "private"})[1] is None


def test_a_copy_with_other_values() -> None:
    changed = Settings().model_copy(update={"command_seconds": 0.3})
    assert (changed.command_seconds, changed.mode) == (0.3, "audit")
    with pytest.raises(ValueError, match="frozen"):
        changed.mode = "fix"
