"""Seeded faults: what befalls a run, and when (pure). All times are the run's own seconds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from sandbox import Fault

POLL, START, LIST, ANY = "operations.get", "runCommand", "instances.list", "*"

_TOKEN = {"WWW-Authenticate": 'Bearer authorization_uri="https://login.windows.net/t", error="invalid_token"'}
_HALF = "Enable succeeded: \n[stdout]\nH4sIAAAAAAACA+1YW2/bNhR+z6/Q3Icm\n[stderr]\n"

# What only delays a run, and its weight.
_GENTLE = {
    "429 storm": 4,
    "5xx": 4,
    "cut before": 3,
    "cut after": 1,
    "expired token": 1,
    "still going": 3,
    "slow answer": 2,
    "away": 1,
}
# What may cost a node its verdict: Azure says something else of it than what is.
_HARSH = {"no value": 2, "not found": 2, "truncated frame": 2, "vanishing node": 1}


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that is asked for `after` seconds of the run; with `lasting`, it strikes every call for so many."""

    after: float
    name: str
    fault: Fault
    lasting: float = 0.0


def storm(seed: int, seconds: float, paths: Sequence[str]) -> list[Strike]:
    """The faults of this seed within so many seconds; `paths` are the instances', one of which may vanish.

    Every other seed has none but such as only delay: then no verdict may be lost.
    """
    chance = random.Random(f"storm {seed}")
    strikes = [_gentle(chance, seconds) for _ in range(chance.randint(25, 70))]
    if chance.random() < 0.5:
        strikes += [_harsh(chance, seconds, paths) for _ in range(chance.randint(1, 4))]
    return sorted(strikes, key=lambda strike: strike.after)


def fix_storm(seed: int, seconds: float, paths: Sequence[str]) -> list[Strike]:
    """The faults within so many seconds of the waves of this seed's fix.

    Of every other seed none strikes a start so that nobody knows whether it was taken, for that ends its pool.
    """
    chance = random.Random(f"fix storm {seed}")
    strikes = [_gentle(chance, seconds) for _ in range(chance.randint(15, 40))]
    if chance.random() < 0.5:
        strikes = [strike for strike in strikes if not _leaves_doubt(strike)]
    else:
        strikes.append(Strike(chance.uniform(0, seconds / 4), "cut after", Fault(kind=START, drop="after")))
        strikes += [_harsh(chance, seconds, paths) for _ in range(chance.randint(0, 2))]
    return sorted(strikes, key=lambda strike: strike.after)


def _leaves_doubt(strike: Strike) -> bool:
    fault = strike.fault
    return fault.kind in (START, ANY) and (fault.drop is not None or (fault.status or 0) >= 500)


def _after(chance: random.Random, seconds: float) -> float:
    # What befalls the beginning is asked for at its beginning.
    return 0.0 if chance.random() < 0.3 else chance.uniform(0, seconds)


def _gentle(chance: random.Random, seconds: float) -> Strike:
    name = chance.choices(tuple(_GENTLE), tuple(_GENTLE.values()))[0]
    after, some = _after(chance, seconds), chance.randint(1, 4)
    kind = chance.choices((POLL, START, LIST, ANY), weights=(12, 8, 1, 1))[0]
    lasting = 0.0
    match name:
        case "429 storm":
            asked = {"Retry-After": str(chance.choice((1, 1, 2, 5, 15)))}
            # A list is asked for five times in all, everything else until it is there.
            count = some if kind in (LIST, ANY) else 4 * some
            fault = Fault(kind=kind, count=count, status=429, code="TooManyRequests", headers=asked)
        case "5xx":
            fault = Fault(kind=kind, count=some, status=chance.choice((500, 502, 503, 504)))
        case "cut before":
            fault = Fault(kind=kind, count=some, drop="before")
        case "cut after":
            fault = Fault(kind=kind, count=1, drop="after")
        case "expired token":
            fault = Fault(kind=kind, count=1, status=401, code="ExpiredAuthenticationToken", headers=_TOKEN)
        case "still going":
            # A poll that was over flips back.
            body, text = chance.choice((({"status": "InProgress"}, None), (None, "")))
            fault = Fault(kind=POLL, count=some, status=200 if body else 202, body=body, text=text)
        case "slow answer":
            fault = Fault(kind=kind, count=some, delay=chance.uniform(1, 10))
        case _:
            lasting = chance.choice((5, 20, 60, 60, 300, 600))
            after = chance.uniform(20, seconds)
            fault = chance.choice((Fault(kind=ANY, drop="before"), Fault(kind=ANY, status=503)))
    return Strike(after, name, fault, lasting)


def _harsh(chance: random.Random, seconds: float, paths: Sequence[str]) -> Strike:
    name = chance.choices(tuple(_HARSH), tuple(_HARSH.values()))[0]
    match name:
        case "no value":
            fault = Fault(kind=chance.choice((POLL, POLL, LIST)), status=200, body={})
        case "not found":
            fault = Fault(kind=POLL, count=chance.choice((1, 1, 2)), status=404, code="NotFound")
        case "truncated frame":
            fault = Fault(kind=POLL, fields={"message": _HALF})
        case _:
            path = chance.choice(paths)
            fault = Fault(kind=START, count=100, path=path, status=404, code="ResourceNotFound")
    return Strike(_after(chance, seconds), name, fault)


def outages(seed: int) -> dict[int, float]:
    """With which of its calls the store goes, and for how many seconds."""
    chance = random.Random(f"outages {seed}")
    lengths = ((0.5, 20), (0.5, 20), (20, 90), (300, 600))
    return {chance.randint(1, 80): chance.uniform(*chance.choice(lengths)) for _ in range(chance.randint(2, 5))}
