"""Tests that need a tool which not every machine has."""

import os

import pytest


def require(condition: bool, reason: str) -> None:
    """Skip the test where the condition does not hold; fail it where REQUIRE_ALL=1 says that nothing may be skipped."""
    if condition:
        return
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(f"REQUIRE_ALL=1, but {reason}", pytrace=False)
    pytest.skip(reason)
