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
    GRAPH = "Microsoft.ResourceGraph"
    MANAGEMENT = "Microsoft.Management"
    AUTHORIZATION = "Microsoft.Authorization"
    # Of the same provider, and versioned apart.
    POLICY = "Microsoft.Authorization/policyAssignments"
    LOCKS = "Microsoft.Authorization/locks"


PINNED = {
    Provider.RESOURCES: "2022-12-01",
    Provider.CONTAINERS: "2026-08-01",
    Provider.COMPUTE: "2026-04-01",
    Provider.GRAPH: "2024-04-01",
    Provider.MANAGEMENT: "2020-05-01",
    Provider.AUTHORIZATION: "2022-04-01",
    Provider.POLICY: "2023-04-01",
    Provider.LOCKS: "2016-09-01",
}
"""What the code was written and tested against."""

_REFUSALS = {"invalidresourcetype", "noregisteredproviderfound", "invalidapiversionparameter"}
# "The supported api-versions are '2025-10-01,2026-02-01'." and "The supported versions are '2019-05-01, …'."
_LISTED = re.compile(r"supported (?:api-?)?versions are:?\s*'?([\w,\s-]*)", re.IGNORECASE)
_STABLE = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOST_TRIED = 4


def offered(asked: str, fault: Fault) -> list[str]:
    """The stable versions that a refusal of the version `asked` lists, newest first.

    Empty where it lists none, is no such refusal, or lists the one that was asked for: then something else is wrong.
    """
    if fault.code.lower() not in _REFUSALS or (listed := _LISTED.search(fault.message)) is None:
        return []
    names = {name.strip() for name in listed[1].split(",")}
    return [] if asked in names else sorted((name for name in names if _STABLE.fullmatch(name)), reverse=True)


class Versions:
    """The version in use for each provider: the pinned one until the cloud refuses it."""

    def __init__(self) -> None:
        self._used = dict(PINNED)
        self._refused: dict[Provider, set[str]] = {provider: set() for provider in Provider}

    def of(self, provider: Provider) -> str:
        """The version to ask with."""
        return self._used[provider]

    def older(self, provider: Provider) -> bool:
        """Whether what is missing in an answer may only be unknown to the version in use."""
        return self._used[provider] < PINNED[provider]

    def another(self, provider: Provider, asked: str, fault: Fault) -> bool:
        """Whether what was asked with the version `asked` and met `fault` is worth asking again with `of(provider)`.

        True at most once for each version, and for few of them.
        """
        choices = offered(asked, fault)
        if not choices:
            return False
        refused = self._refused[provider]
        refused.add(asked)
        if self._used[provider] not in refused:
            return True  # somebody who asked at the same time has found another already
        choice = next((name for name in choices if name not in refused), None)
        if choice is None or len(refused) >= _MOST_TRIED:
            return False
        self._used[provider] = choice
        log.warning(
            "this cloud does not know version %s of %s: its newest, %s, is used; what that does not tell is unknown",
            asked,
            provider,
            choice,
        )
        return True
