"""Staying below Azure's published limits: token buckets, one for each limit that a call falls under.

Sources: "Understand how Azure Resource Manager throttles requests" (limits per subscription and principal) and
"Compute throttling limits" (policies per subscription and region, and per resource). Where a call is not named
there the choice is marked below. The buckets are this process's own view; the remaining counts in Azure's answers
lower them, so that several processes and other people's calls are respected too.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

# What a 429 without Retry-After costs, and the longest Retry-After that is believed (Compute's window is a minute;
# values of twenty minutes date from its older, hourly limits).
DEFAULT_PAUSE = 5.0
LONGEST_PAUSE = 300.0

# More buckets than this, and the full ones (nothing to remember) are dropped: they are made anew when needed.
_KEEP_BUCKETS = 1_000

# What part of a new bucket is given before Azure has said what is left, and how many times as much must be left as is
# on its way before that is believed.
_FIRST = 0.25
_FEW = 10

# Who is sent away before the first calls are answered comes again after this many seconds.
_FIRST_ANSWERS = 2.0
# Who is sent away comes so much sooner than its turn is expected, so that somebody is there when there is room.
_CROWD = 0.9

# Who is sent away comes again after this many seconds at the soonest.
_LEAST_AWAY = 0.05


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit: `capacity` calls at once, refilled with `per_second` calls a second."""

    capacity: float
    per_second: float


RATES: Mapping[str, Rate] = {
    "arm/reads": Rate(250, 25),
    "arm/writes": Rate(200, 10),
    "compute/update-vms": Rate(1_500, 500 / 60),
    "compute/get-vms": Rate(6_000, 2_000 / 60),
    "compute/get-operation": Rate(15_000, 5_000 / 60),
    "compute/high-cost-get": Rate(1_080, 360 / 60),
    "compute/update-single-vms": Rate(1_500, 500 / 60),
    "compute/get-single-vms": Rate(24_000, 8_000 / 60),
    "compute/list-single-vms": Rate(900, 300 / 60),
    "resource/update-vms": Rate(12, 4 / 60),
    "resource/get-vms": Rate(36, 12 / 60),
    "resource/get-operation": Rate(45, 15 / 60),
    # Resource Graph counts windows (15 queries in 5 seconds): no window has more than these.
    "graph/queries": Rate(5, 2),
}


def share_of(rate: Rate, share: float) -> Rate:
    """A limit of which only a share (above 0, at most 1) may be used up: never less than one call at once."""
    return Rate(max(1.0, rate.capacity * share), rate.per_second * share)


class Bucket:
    """A token bucket. Pure: the caller says what time it is, in seconds of any clock that never runs backwards.

    It is full when it is made, but of what it holds only the part `first` is given before `trust` says that Azure has
    the rest as well: another process, which knows as little, may just be using it up.
    """

    __slots__ = ("_level", "_rate", "_stamp", "_unproved")

    def __init__(self, rate: Rate, now: float, first: float = 1.0) -> None:
        self._rate = rate
        self._level = max(1.0, rate.capacity * first)
        self._unproved = rate.capacity - self._level
        self._stamp = now

    def _refill(self, now: float) -> None:
        # A stamp in the future is a pause: nothing flows in until then.
        if now > self._stamp:
            most = self._rate.capacity - self._unproved
            self._level = min(most, self._level + (now - self._stamp) * self._rate.per_second)
            self._stamp = now

    def level(self, now: float) -> float:
        """The tokens that are there now; none during a pause."""
        self._refill(now)
        return max(0.0, self._level) if self._stamp <= now else 0.0

    def most(self, now: float) -> float:
        """The tokens that may be there: those that Azure has not confirmed yet counted, too."""
        return self.level(now) + self._unproved if self._stamp <= now else 0.0

    def delay(self, now: float, tokens: float = 1.0) -> float:
        """Seconds until so many tokens are there; 0 when they are."""
        self._refill(now)
        # A hair below one counts as one: sums of floats must not leave a waiter with waits too small to move the clock.
        missing = tokens - self._level
        flowing = missing / self._rate.per_second if missing > 1e-9 else 0.0
        return max(0.0, self._stamp - now) + flowing

    @property
    def seconds_each(self) -> float:
        """Seconds in which one token flows in."""
        return 1 / self._rate.per_second

    def take(self, now: float) -> None:
        """Take one token. Raises RuntimeError where none is there: ask `delay` first."""
        if self.delay(now) > 0:
            raise RuntimeError("took a token that is not there")
        self._level -= 1

    def lower(self, now: float, remaining: float) -> None:
        """Believe Azure where it says that fewer calls remain for us than the bucket holds.

        Below zero others are taking what was kept back for them: then nothing is given until as much has flowed in.
        """
        self._refill(now)
        self._level = min(self._level, remaining)
        self._unproved = min(self._unproved, max(0.0, remaining - self._level))

    def trust(self, now: float, level: float) -> None:
        """Fill up to `level`, as far as it is with what was there from the first and was not given yet."""
        self._refill(now)
        more = min(self._unproved, max(0.0, level - self._level))
        self._level += more
        self._unproved -= more

    def pause(self, now: float, seconds: float) -> None:
        """Give nothing for `seconds`, then one token, and from then on what flows in."""
        self._refill(now)
        self._level = min(self._level, 1.0)
        self._stamp = max(self._stamp, now + seconds)

    def full(self, now: float) -> bool:
        """Whether the bucket could as well be a new one."""
        self._refill(now)
        return self._stamp <= now and self._level >= self._rate.capacity


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit that a call falls under: its name in RATES and what it is counted for (subscription, region, …)."""

    name: str
    scope: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call by kind, with its limits from the narrowest to the widest."""

    kind: str
    limits: tuple[Limit, ...]


_GUID = r"(?P<subscription>[0-9a-f-]{36})"
_VMS = rf"/subscriptions/{_GUID}/resourcegroups/[^/]+/providers/microsoft\.compute/virtualmachines"
_SCALE_SETS = rf"/subscriptions/{_GUID}/resourcegroups/[^/]+/providers/microsoft\.compute/virtualmachinescalesets"
_CLUSTERS = rf"/subscriptions/{_GUID}/resourcegroups/[^/]+/providers/microsoft\.containerservice/managedclusters"
_KINDS: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    ("GET", "subscriptions", re.compile(r"/subscriptions")),
    (
        "GET",
        "clusters",
        re.compile(rf"/subscriptions/{_GUID}/providers/microsoft\.containerservice/managedclusters"),
    ),
    (
        "GET",
        "cluster",
        re.compile(rf"{_CLUSTERS}/[^/]+"),
    ),
    ("POST", "invoke", re.compile(rf"{_CLUSTERS}/[^/]+/runcommand")),
    ("POST", "credentials", re.compile(rf"{_CLUSTERS}/[^/]+/listclusterusercredential")),
    ("GET", "invoke_poll", re.compile(rf"{_CLUSTERS}/[^/]+/commandresults/[^/]+")),
    ("POST", "graph", re.compile(r"/providers/microsoft\.resourcegraph/resources")),
    ("GET", "descendants", re.compile(r"/providers/microsoft\.management/managementgroups/[^/]+/descendants")),
    ("GET", "scale_sets", re.compile(_SCALE_SETS)),
    ("GET", "instances", re.compile(rf"{_SCALE_SETS}/[^/]+/virtualmachines")),
    ("GET", "instance", re.compile(rf"{_SCALE_SETS}/[^/]+/virtualmachines/[^/]+")),
    ("POST", "run_command", re.compile(rf"{_SCALE_SETS}/[^/]+/virtualmachines/[^/]+/runcommand")),
    ("GET", "vms", re.compile(_VMS)),
    ("GET", "vm_states", re.compile(rf"/subscriptions/{_GUID}/providers/microsoft\.compute/virtualmachines")),
    ("GET", "vm", re.compile(rf"{_VMS}/[^/]+")),
    ("POST", "vm_run_command", re.compile(rf"{_VMS}/[^/]+/runcommand")),
    (
        "GET",
        "poll",
        re.compile(
            rf"/subscriptions/{_GUID}/providers/microsoft\.compute/locations/(?P<region>[^/]+)"
            r"/operation(?:s|results)/[^/]+"
        ),
    ),
)
_SUBSCRIPTION = re.compile(rf"/subscriptions/{_GUID}(?:/|$)")

# Azure's addresses of operations end in `operations/ID` where they were seen; `operationResults/ID` is unconfirmed.
# Listing instances is not named in Compute's tables; run command on an instance is not either (a single VM's counts
# as an update). Both are assumed to count as their nearest relatives. Single VMs have policies of their own.
_COMPUTE = {
    "scale_sets": ("compute/high-cost-get", None),
    "instances": ("compute/get-vms", None),
    "instance": ("compute/get-vms", "resource/get-vms"),
    "run_command": ("compute/update-vms", "resource/update-vms"),
    "vms": ("compute/list-single-vms", None),
    "vm_states": ("compute/list-single-vms", None),
    "vm": ("compute/get-single-vms", "resource/get-vms"),
    "vm_run_command": ("compute/update-single-vms", "resource/update-vms"),
    "poll": ("compute/get-operation", "resource/get-operation"),
}


_UPDATE_SINGLE = "compute/update-single-vms"
_UPDATES = ("compute/update-vms", _UPDATE_SINGLE)


def update_bucket(region: str, *, single: bool) -> str:
    """What Compute counts starts in a region under: single VMs have a bucket of their own beside the instances'."""
    return f"{region}/single" if single else region


def classify(method: str, url: str, region: str) -> Call:
    """The kind and limits of a request. `region` is where Compute counts it (a poll's own URL names it)."""
    path = urlsplit(url).path.rstrip("/").lower()
    found = next(
        ((kind, match) for verb, kind, pattern in _KINDS if verb == method and (match := pattern.fullmatch(path))),
        None,
    )
    kind, match = found if found is not None else ("other", _SUBSCRIPTION.match(path))
    groups = match.groupdict() if match is not None else {}
    subscription = groups.get("subscription") or ""
    if kind == "graph":
        return Call(kind, (Limit("graph/queries", ""),))
    arm = Limit("arm/reads" if method in {"GET", "HEAD"} else "arm/writes", subscription)
    if kind not in _COMPUTE:
        return Call(kind, (arm,))
    regional, per_resource = _COMPUTE[kind]
    where = (groups.get("region") or region).replace(" ", "").lower()
    limits = (Limit(regional, f"{subscription}/{where}"), arm)
    if per_resource is not None:
        return Call(kind, (Limit(per_resource, path), *limits))
    return Call(kind, limits)


_COUNT = re.compile(r"[0-9]{1,12}")


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait as the answer asks for (RFC 9110, 10.2.3, and Azure's forms in milliseconds), or None.

    `headers` has lower-case names; an unreadable value counts as none.
    """
    if text := headers.get("retry-after", "").strip():
        if _COUNT.fullmatch(text):
            return float(text)
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - now).total_seconds())
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if _COUNT.fullmatch(text := headers.get(name, "").strip()):
            return float(text) / 1000
    return None


def _remaining(headers: Mapping[str, str], call: Call) -> dict[Limit, int]:
    """What the answer says is left under each of the call's limits."""
    left: dict[Limit, int] = {}

    def note(limit: Limit, count: str) -> None:
        if _COUNT.fullmatch(count.strip()):
            left[limit] = min(int(count), left.get(limit, int(count)))

    for limit in call.limits:
        if limit.name.startswith("arm/"):
            note(limit, headers.get(f"x-ms-ratelimit-remaining-subscription-{limit.name[4:]}", ""))
        if limit.name.startswith("graph/"):
            note(limit, headers.get("x-ms-user-quota-remaining", ""))
    # "Microsoft.Compute/<policy>;<count>", several of them separated by commas or as repeated headers.
    for entry in headers.get("x-ms-ratelimit-remaining-resource", "").split(","):
        policy, _, count = entry.partition(";")
        prefix = "resource/" if policy.strip().lower().endswith(("resource", "resourcemaximum")) else "compute/"
        for limit in call.limits:
            if limit.name.startswith(prefix):
                note(limit, count)
    return left


@dataclass(frozen=True, slots=True)
class Stats:
    """What a run cost. `calls` counts requests by kind, `refused` Azure's 429s; `waits` counts the calls that were
    held back, `wait_seconds` is their waiting summed over those calls (many wait at the same time)."""

    calls: Mapping[str, int]
    refused: int
    waits: int
    wait_seconds: float


@dataclass(slots=True)
class _Gate:
    """A bucket, and who stands before it.

    Of the calls `waiting` have no token yet, `sent` no answer yet, `heard` were answered. `most_left` is the most that
    Azure said was left, `promised` the time until which the tokens are promised to those who were sent away.
    """

    bucket: Bucket
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    sent: int = 0
    heard: int = 0
    most_left: int = 0
    promised: float = 0.0


class Throttle:
    """Holds every call back until all its limits have room. First come, first served under each limit.

    The limits are the subscription's, and others need them too: only `share` of each (above 0, at most 1) is used up.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        share: float = 1.0,
    ) -> None:
        self._share = share
        self._clock = clock
        self._sleep = sleep
        self._gates: dict[Limit, _Gate] = {}
        # Of those limits there is one for each node: kept apart, so that the others are quickly looked through.
        self._narrow: dict[Limit, _Gate] = {}
        self._most_narrow = _KEEP_BUCKETS
        self._calls: Counter[str] = Counter()
        self._refused = 0
        self._waits = 0
        self._wait_seconds = 0.0

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters."""
        return Stats(dict(self._calls), self._refused, self._waits, self._wait_seconds)

    def levels(self, subscription: str) -> dict[str, float]:
        """The calls that may start commands now: in the whole subscription (the empty name), and by `update_bucket`.

        What Azure has not confirmed yet counts: whoever plans by it is held back here until it has. Who waits already
        is taken off. A bucket that nothing was taken of yet is not named: it is full.
        """
        now = self._clock()
        wide = self._gate(Limit("arm/writes", subscription.lower()))
        found = {"": wide}
        prefix = f"{subscription.lower()}/"
        for limit, gate in self._gates.items():
            if limit.name in _UPDATES and limit.scope.startswith(prefix):
                region = limit.scope.removeprefix(prefix)
                found[update_bucket(region, single=limit.name == _UPDATE_SINGLE)] = gate
        return {name: max(0.0, gate.bucket.most(now) - gate.waiting) for name, gate in found.items()}

    def _gate(self, limit: Limit) -> _Gate:
        narrow = limit.name.startswith("resource/")
        gate = (self._narrow if narrow else self._gates).get(limit)
        if gate is None:
            now = self._clock()
            if narrow and len(self._narrow) >= self._most_narrow:
                self._narrow = {
                    key: kept
                    for key, kept in self._narrow.items()
                    if kept.waiting or kept.sent or not kept.bucket.full(now)
                }
                # Where few were full, looking at all of them for each new one would grow with the square.
                self._most_narrow = max(_KEEP_BUCKETS, 2 * len(self._narrow))
            # No other process calls for the same node.
            first = 1.0 if narrow else _FIRST
            gate = _Gate(Bucket(share_of(RATES[limit.name], self._share), now, first))
            (self._narrow if narrow else self._gates)[limit] = gate
        return gate

    async def take(self, call: Call, most: float | None = None) -> float:
        """Wait until each of the call's limits has a token, then take one of each, all at the moment of sending.

        0 once they are taken. Where that would take longer than `most` seconds nothing is taken: then it is the seconds
        after which to come again, later for each who is sent away, so that they do not all come at once.

        Turns are held from the narrowest limit to the widest, so whoever waits for a region does not hold up
        another region under the same subscription.
        """
        gates = [self._gate(limit) for limit in call.limits]
        now = self._clock()
        if all(gate.waiting == 0 and gate.bucket.delay(now) <= 0 for gate in gates):
            for gate in gates:
                gate.bucket.take(now)
        else:
            if most is not None and self._expected(gates, now) > most:
                return self._sent_away(gates, now)
            for gate in gates:
                gate.waiting += 1
            try:
                async with asyncio.timeout(most):
                    await self._wait(gates)
            except TimeoutError:
                return self._sent_away(gates, self._clock())
            finally:
                for gate in gates:
                    gate.waiting -= 1
                self._held_back(self._clock() - now)
        for gate in gates:
            gate.sent += 1
        self._calls[call.kind] += 1
        return 0.0

    async def _wait(self, gates: Sequence[_Gate]) -> None:
        while True:
            async with AsyncExitStack() as turns:
                for gate in gates:
                    await turns.enter_async_context(gate.turn)
                    while (delay := gate.bucket.delay(self._clock())) > 0:
                        await self._sleep(delay)
                now = self._clock()
                # While a wider limit was waited for, a 429 may have paused a narrower one: then queue anew.
                if all(gate.bucket.delay(now) <= 0 for gate in gates):
                    for gate in gates:
                        gate.bucket.take(now)
                    return

    def _expected(self, gates: Sequence[_Gate], now: float) -> float:
        """Seconds until a token of each is there for one who queues now."""
        return max(gate.bucket.delay(now, 1.0 + gate.waiting) for gate in gates)

    def _sent_away(self, gates: Sequence[_Gate], now: float) -> float:
        """Seconds after which one who does not queue may come again. It is a hint: no token is held for it."""
        slowest = max(gates, key=lambda gate: gate.bucket.delay(now, 1.0 + gate.waiting))
        if slowest.sent > slowest.heard:
            return _FIRST_ANSWERS  # soon it is known how many more there are
        at = max(slowest.promised, now + slowest.bucket.delay(now, 1.0 + slowest.waiting))
        slowest.promised = at + slowest.bucket.seconds_each * _CROWD
        seconds = max(at - now, _LEAST_AWAY)
        self._held_back(seconds)
        return seconds

    def _held_back(self, seconds: float) -> None:
        if seconds > 0.001:
            self._waits += 1
            self._wait_seconds += seconds

    def unanswered(self, call: Call) -> None:
        """A call that was sent has ended without an answer, or with none to learn from."""
        for limit in call.limits:
            gate = self._gate(limit)
            gate.sent = max(0, gate.sent - 1)

    def answered(self, call: Call, status: int, headers: Mapping[str, str], seconds: float = 0.0) -> None:
        """Learn from an answer: `headers` has lower-case names, repeated ones joined by commas.

        `seconds` is how long ago the call was sent: what has flowed in since Azure counted is no reason to slow down.
        """
        self.unanswered(call)
        now = self._clock()
        left = _remaining(headers, call)
        for limit in call.limits:
            gate, rate = self._gate(limit), RATES[limit.name]
            gate.heard += 1
            if limit not in left:
                gate.bucket.trust(now, rate.capacity)
                continue
            # A limit that Azure counts smaller than it is published must not look used up for ever.
            gate.most_left = max(gate.most_left, left[limit])
            kept_back = (1 - self._share) * min(rate.capacity, gate.most_left)
            count = left[limit] - kept_back
            gate.bucket.lower(now, count + seconds * rate.per_second * self._share)
            # An early answer to a burst does not count the rest of it. Half: others see the same tokens.
            if gate.sent * _FEW <= count - gate.sent:
                gate.bucket.trust(now, (count - gate.sent) / 2)
        if status != 429:
            return
        self._refused += 1
        asked = retry_after(headers, datetime.now(UTC))
        pause = min(DEFAULT_PAUSE if asked is None else asked, LONGEST_PAUSE)
        self._held_back(pause)
        # The limit that is used up says so; where none does, all but the resource's own are held.
        spent = [limit for limit, count in left.items() if count == 0]
        for limit in spent or [limit for limit in call.limits if not limit.name.startswith("resource/")]:
            self._gate(limit).bucket.pause(now, pause)
