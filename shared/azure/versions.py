"""The versions of Azure's REST APIs that this product speaks, whatever version of the SDK is installed.

A cloud that lags behind (US Government, China) refuses a version that it does not know, and its refusal lists those
that it does: then the newest stable one of the list is taken, for as long as the client lives, and said once.
Source: Azure Resource Manager's "Resolve errors for resource provider registration" and "Resolve common errors"
(NoRegisteredProviderFound, InvalidResourceType, InvalidApiVersionParameter).
"""

from __future__ import annotations

import logging
import re
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.azure.problems import Fault

log = logging.getLogger(__name__)


class Provider(StrEnum):
    """The resource providers that are called."""

    RESOURCES = "Microsoft.Resources"
    CONTAINERS = "Microsoft.ContainerService"
    COMPUTE = "Microsoft.Compute"


PINNED = {
    Provider.RESOURCES: "2022-12-01",
    Provider.CONTAINERS: "2026-08-01",
    Provider.COMPUTE: "2026-04-01",
}
"""What the code was written and tested against."""

_REFUSALS = {"invalidresourcetype", "noregisteredproviderfound", "invalidapiversionparameter"}
# "The supported api-versions are '2025-10-01,2026-02-01'." and "The supported versions are '2019-05-01, …'."
_LISTED = re.compile(r"supported (?:api-?)?versions are:?\s*'?([\w,\s-]*)", re.IGNORECASE)
_STABLE = re.compile(r"\d{4}-\d{2}-\d{2}")


def offered(fault: Fault) -> list[str]:
    """The stable versions that a refusal of a version lists, newest first; empty where it lists none, or is another."""
    if fault.code.lower() not in _REFUSALS or (listed := _LISTED.search(fault.message)) is None:
        return []
    names = {name.strip() for name in listed[1].split(",")}
    return sorted((name for name in names if _STABLE.fullmatch(name)), reverse=True)


class Versions:
    """The version in use for each provider: the pinned one until the cloud refuses it."""

    def __init__(self) -> None:
        self._used = dict(PINNED)
        self._refused: set[tuple[Provider, str]] = set()
        self.notes: list[str] = []

    def of(self, provider: Provider) -> str:
        """The version to ask with."""
        return self._used[provider]

    def older(self, provider: Provider) -> bool:
        """Whether what is missing in an answer may only be unknown to the version in use."""
        return self._used[provider] < PINNED[provider]

    def another(self, provider: Provider, asked: str, fault: Fault) -> bool:
        """Whether what was asked with the version `asked` and met `fault` is worth asking again with `of(provider)`.

        True at most once for each version that the cloud offers.
        """
        choices = offered(fault)
        self._refused.update([(provider, asked)] if choices else [])
        if not choices:
            return False
        if (provider, self._used[provider]) not in self._refused:
            return True  # somebody who asked at the same time has found another already
        choice = next((name for name in choices if (provider, name) not in self._refused), None)
        if choice is None:
            return False
        self._used[provider] = choice
        note = (
            f"this cloud does not know version {asked} of {provider}: its newest, {choice}, is used;"
            " what that does not tell counts as unknown"
        )
        self.notes.append(note)
        log.warning("%s", note)
        return True
