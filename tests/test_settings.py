"""Settings: defaults, good values, and every bad value named at once."""

from __future__ import annotations

import pytest

from shared import settings
from shared.errors import SettingsError
from shared.settings import Settings


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
    with pytest.raises(SettingsError, match=r"GUARD_ALLOW_FIX.*GUARD_MODE"):
        settings.load({"GUARD_ALLOW_FIX": "x", "GUARD_MODE": "y"})
