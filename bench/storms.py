"""Seeded faults: what befalls a run, and when (pure)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from sandbox import Fault

_POLL, _START, _LIST, _ANY = "operations.get", "runCommand", "instances.list", "*"
_TOKEN = {"WWW-Authenticate": 'Bearer authorization_uri="https://login.windows.net/t", error="invalid_token"'}
_HALF = "Enable succeeded: \n[stdout]\nH4sIAAAAAAACA+1YW2/bNhR+z6/Q3Icm\n[stderr]\n"


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that is asked for `after` seconds of the run."""

    after: float
    name: str
    fault: Fault


# A name for each kind of fault, and how it is made of a kind of call and a number of calls.
_KINDS = (
    "429 storm",
    "5xx",
    "cut before",
    "cut after",
    "no value",
    "flipping poll",
    "expired token",
    "truncated frame",
    "slow answer",
    "vanishing node",
)


def storm(seed: int, seconds: float, paths: Sequence[str]) -> list[Strike]:
    """The faults of this seed within so many seconds; `paths` are the instances', one of which may vanish."""
    chance = random.Random(f"storm {seed}")
    strikes = [_strike(chance, seconds, paths) for _ in range(chance.randint(20, 80))]
    return sorted(strikes, key=lambda strike: strike.after)


def _strike(chance: random.Random, seconds: float, paths: Sequence[str]) -> Strike:
    name = chance.choices(_KINDS, weights=(3, 3, 2, 1, 2, 3, 2, 2, 2, 1))[0]
    # Most of a run is looks: what befalls the beginning is asked for at its beginning.
    after = 0.0 if chance.random() < 0.3 else chance.uniform(0, seconds)
    some = chance.randint(1, 4)
    kind = chance.choices((_POLL, _START, _LIST, _ANY), weights=(12, 6, 1, 1))[0]
    match name:
        case "429 storm":
            fault = Fault(kind=kind, count=5 * some, status=429, code="TooManyRequests", headers={"Retry-After": "1"})
        case "5xx":
            fault = Fault(kind=kind, count=some, status=chance.choice((500, 502, 503, 504)))
        case "cut before":
            fault = Fault(kind=kind, count=some, drop="before")
        case "cut after":
            fault = Fault(kind=kind, count=1, drop="after")
        case "no value":
            fault = Fault(kind=chance.choice((_POLL, _POLL, _LIST)), status=200, body={})
        case "flipping poll":
            status = chance.choice((404, 202, 200))
            body = {"status": "InProgress"} if status == 200 else None
            text = "" if status == 202 else None
            fault = Fault(kind=_POLL, status=status, body=body, text=text, code="NotFound")
        case "expired token":
            fault = Fault(kind=kind, count=1, status=401, code="ExpiredAuthenticationToken", headers=_TOKEN)
        case "truncated frame":
            fault = Fault(kind=_POLL, fields={"message": _HALF})
        case "slow answer":
            fault = Fault(kind=kind, count=some, delay=chance.uniform(0.1, 2))
        case _:
            path = chance.choice(paths)
            fault = Fault(kind=_START, count=100, path=path, status=404, code="ResourceNotFound")
    return Strike(after, name, fault)


def outages(seed: int) -> dict[int, float]:
    """With which of its calls the store goes, and for how many seconds."""
    chance = random.Random(f"outages {seed}")
    return {chance.randint(1, 60): chance.uniform(0.2, 4) for _ in range(chance.randint(2, 5))}
