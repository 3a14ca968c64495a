"""The buckets by property, the throttle in virtual time, and what is read from Azure's headers."""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sandbox.throttle
from sandbox.throttle import UPDATE_VM
from shared.azure.throttle import DEFAULT_PAUSE, RATES, Bucket, Call, Limit, Rate, Throttle, classify, retry_after

SUB = "11111111-2222-3333-4444-555555555555"
SCALE_SETS = f"/subscriptions/{SUB}/resourceGroups/MC_x/providers/Microsoft.Compute/virtualMachineScaleSets"
VM = f"{SCALE_SETS}/aks-a/virtualMachines"
REGIONAL = f"{SUB}/westeurope"


def check_windows(times: list[float], rate: Rate) -> None:
    """No window holds more than capacity + refill; enough to look at those from one call to a later one."""
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            most = rate.capacity + rate.per_second * (times[last] - begin) + 1e-6
            assert last - first + 1 <= most, (begin, times[last], last - first + 1, most)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.floats(0, 30)),
        st.tuples(st.just("take"), st.just(0.0)),
        st.tuples(st.just("lower"), st.floats(0, 20)),
        st.tuples(st.just("pause"), st.floats(0, 10)),
    ),
    max_size=80,
)


@given(capacity=st.integers(1, 10), per_second=st.floats(0.05, 20), steps=steps)
def test_no_window_ever_has_more_than_capacity_and_refill(
    capacity: int, per_second: float, steps: list[tuple[str, float]]
) -> None:
    rate, now, taken = Rate(capacity, per_second), 1000.0, []
    bucket = Bucket(rate, now)
    for step, value in steps:
        if step == "pass":
            now += value
        elif step == "lower":
            bucket.lower(now, value)
        elif step == "pause":
            bucket.pause(now, value)
        elif bucket.delay(now) <= 0:
            bucket.take(now)
            taken.append(now)
    check_windows(taken, rate)


@given(capacity=st.integers(1, 10), per_second=st.floats(0.05, 20), steps=steps)
def test_after_the_delay_there_is_a_token(capacity: int, per_second: float, steps: list[tuple[str, float]]) -> None:
    now = 0.0
    bucket = Bucket(Rate(capacity, per_second), now)
    for step, value in steps:
        if step == "pass":
            now += value
        elif step == "lower":
            bucket.lower(now, value)
        elif step == "pause":
            bucket.pause(now, value)
        else:
            now += bucket.delay(now)
            assert bucket.delay(now) == 0
            bucket.take(now)


def test_a_token_that_is_not_there_cannot_be_taken() -> None:
    bucket = Bucket(Rate(1, 1), 0)
    bucket.take(0)
    with pytest.raises(RuntimeError):
        bucket.take(0.5)
    bucket.take(1)


def test_a_pause_gives_one_token_at_its_end_and_nothing_before() -> None:
    bucket = Bucket(Rate(100, 10), 0)
    bucket.pause(0, 5)
    assert bucket.delay(0) == 5
    assert bucket.delay(4.9) == pytest.approx(0.1)
    bucket.take(5)
    assert bucket.delay(5) == pytest.approx(0.1)


class VirtualTime:
    """A clock that jumps to the next sleeper as soon as nobody has anything left to do."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self._count += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, self._count, future))
        await future

    async def run(self, *tasks: asyncio.Task[Any]) -> None:
        while not all(task.done() for task in tasks):
            for _ in range(12):
                await asyncio.sleep(0)
            if self._sleepers:
                at, _, future = heapq.heappop(self._sleepers)
                self.now = max(self.now, at)
                if not future.done():
                    future.set_result(None)
        for task in tasks:
            task.result()


def post(instance: int, region: str = "westeurope") -> Call:
    return classify("POST", f"https://arm{VM}/{instance}/runCommand?api-version=1", region)


async def test_three_thousand_commands_go_out_as_fast_as_the_limits_allow_and_no_faster() -> None:
    time = VirtualTime()
    throttle = Throttle(time.clock, time.sleep)
    sent: dict[Limit, list[float]] = defaultdict(list)

    async def send(call: Call) -> None:
        await throttle.take(call)
        throttle.answered(call, 202, {})
        for limit in call.limits:
            sent[limit].append(time.now)

    # What Azure says of the first shows that nobody else is there.
    throttle.answered(post(0), 202, {})
    count = 3_000
    await time.run(*(asyncio.create_task(send(post(number))) for number in range(count)))
    for limit, times in sent.items():
        # Windows from the first call say it for a sorted series as well, and take less time to look at.
        rate = RATES[limit.name]
        assert times == sorted(times)
        for begin in (0, len(times) // 3, len(times) // 2):
            for last in range(begin, len(times)):
                assert last - begin + 1 <= rate.capacity + rate.per_second * (times[last] - times[begin]) + 1e-6
    # ARM's writes are the narrowest here: 200 at once, 10 a second.
    assert time.now == pytest.approx((count - 200) / 10, abs=0.2)
    stats = throttle.stats
    assert stats.calls == {"run_command": count}
    assert stats.waits == count - 200


@given(
    calls=st.lists(
        st.tuples(st.floats(0, 20), st.integers(0, 2), st.sampled_from(["a", "b"]), st.booleans()), max_size=60
    )
)
def test_mixed_calls_keep_every_limit_at_the_moment_of_sending(calls: list[tuple[float, int, str, bool]]) -> None:
    small = {"arm/writes": Rate(5, 2), "compute/update-vms": Rate(3, 1), "resource/update-vms": Rate(2, 0.2)}

    async def scenario() -> None:
        time = VirtualTime()
        throttle = Throttle(time.clock, time.sleep)
        sent: dict[Limit, list[float]] = defaultdict(list)

        async def send(at: float, instance: int, region: str, refused: bool) -> None:
            await time.sleep(at)
            call = post(instance, region)
            await throttle.take(call)
            for limit in call.limits:
                sent[limit].append(time.now)
            if refused:
                throttle.answered(call, 429, {"retry-after": "3"})

        await time.run(*(asyncio.create_task(send(*call)) for call in calls))
        assert sum(throttle.stats.calls.values()) == len(calls)
        for limit, times in sent.items():
            check_windows(times, RATES[limit.name])

    with pytest.MonkeyPatch.context() as patch:
        for name, rate in small.items():
            patch.setitem(RATES, name, rate)
        asyncio.run(scenario())


async def test_one_region_does_not_hold_up_another() -> None:
    time = VirtualTime()
    throttle = Throttle(time.clock, time.sleep)
    throttle.answered(
        post(1, "westeurope"),
        429,
        {
            "retry-after": "60",
            "x-ms-ratelimit-remaining-resource": "Microsoft.Compute/UpdateVMScaleSetVMsSubscriptionMaximum;0",
        },
    )
    done: dict[str, float] = {}

    async def send(instance: int, region: str) -> None:
        await throttle.take(post(instance, region))
        done[region] = time.now

    await time.run(asyncio.create_task(send(2, "westeurope")), asyncio.create_task(send(3, "northeurope")))
    # Nothing was left: after the pause the first token has to flow in.
    assert done == {"northeurope": 0, "westeurope": pytest.approx(60 + 60 / 500)}


async def test_a_pause_that_comes_while_a_wider_limit_is_waited_for_holds() -> None:
    time = VirtualTime()
    throttle = Throttle(time.clock, time.sleep)
    throttle.answered(post(1), 202, {"x-ms-ratelimit-remaining-subscription-writes": "0"})
    sent: list[float] = []

    async def send() -> None:
        await throttle.take(post(2))
        sent.append(time.now)

    async def refuse() -> None:
        await time.sleep(0.05)
        spent = {"x-ms-ratelimit-remaining-resource": "Microsoft.Compute/UpdateVMScaleSetVMsSubscriptionMaximum;0"}
        throttle.answered(post(1), 429, {"retry-after": "30", **spent})

    await time.run(asyncio.create_task(send()), asyncio.create_task(refuse()))
    assert sent == [pytest.approx(30.05 + 60 / 500)]


async def test_a_cancelled_waiter_gives_its_turn_back() -> None:
    throttle = Throttle()
    call = post(1)
    throttle.answered(call, 429, {"retry-after-ms": "200"})
    waiter = asyncio.create_task(throttle.take(call))
    await asyncio.sleep(0.02)
    waiter.cancel()
    await asyncio.wait_for(throttle.take(call), 60)
    assert throttle.stats.calls == {"run_command": 1}


async def test_who_would_wait_too_long_is_sent_away_and_told_when_to_come_again() -> None:
    time = VirtualTime()
    throttle = Throttle(time.clock, time.sleep)
    told: dict[int, float] = {}

    async def send(number: int) -> None:
        told[number] = await throttle.take(post(number), 5)

    throttle.answered(post(0), 202, {})
    # 200 at once, 50 within five seconds (the last of them a hair late), and the rest one after another from then on.
    await time.run(*(asyncio.create_task(send(number)) for number in range(300)))
    sent = [number for number, seconds in told.items() if not seconds]
    assert sent == list(range(250))
    # Before the first answers it is too early to say more.
    assert [seconds for seconds in told.values() if seconds] == [2.0] * 50
    for number in range(250):
        throttle.answered(post(number), 202, {})
    away = [await throttle.take(post(number), 0) for number in range(50)]
    assert away == [pytest.approx(0.1 + number * 0.09) for number in range(50)]
    assert time.now == pytest.approx(5)
    assert throttle.stats.calls == {"run_command": 250}
    assert throttle.levels(SUB)[""] == pytest.approx(0)
    time.now += 10
    assert throttle.levels(SUB.upper()) == {"": pytest.approx(100), "westeurope": pytest.approx(1_375, abs=1)}


async def test_who_comes_in_a_long_pause_is_sent_away_at_once() -> None:
    throttle = Throttle()
    throttle.answered(post(1), 429, {"retry-after": "60"})
    waiter = asyncio.create_task(throttle.take(post(1)))
    await asyncio.sleep(0.01)
    assert await throttle.take(post(2), 5) > 50
    assert throttle.levels(SUB) == {"": 0, "westeurope": 0}
    waiter.cancel()


async def test_a_pause_that_comes_while_one_waits_sends_it_away() -> None:
    throttle = Throttle()
    throttle.answered(post(1), 202, {"x-ms-ratelimit-remaining-subscription-writes": "0"})
    waiter = asyncio.create_task(throttle.take(post(2), 0.15))
    await asyncio.sleep(0.01)
    throttle.answered(post(1), 429, {"retry-after": "60"})
    assert await waiter > 50
    assert throttle.stats.calls == {}


async def delays(throttle: Throttle, time: VirtualTime, call: Call) -> float:
    began = time.now
    await time.run(asyncio.create_task(throttle.take(call)))
    return time.now - began


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, 7),
        ({"x-ms-retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "2500"}, 2.5),
        ({}, DEFAULT_PAUSE),
        ({"retry-after": "nonsense"}, DEFAULT_PAUSE),
        ({"retry-after": "99999"}, 300),
    ],
)
async def test_a_429_pauses_for_everybody(headers: dict[str, str], expected: float) -> None:
    time = VirtualTime()
    throttle = Throttle(time.clock, time.sleep)
    throttle.answered(post(1), 429, headers)
    assert await delays(throttle, time, post(2)) == pytest.approx(expected)
    assert throttle.stats.refused == 1
    # Another subscription knows nothing of it.
    other = classify("POST", f"https://arm{VM}/1/runCommand".replace(SUB, SUB.replace("1", "9")), "westeurope")
    assert await delays(throttle, time, other) == 0


async def test_remaining_counts_lower_the_buckets() -> None:
    time = VirtualTime()
    throttle = Throttle(time.clock, time.sleep)
    call = post(1)
    throttle.answered(call, 202, {"x-ms-ratelimit-remaining-subscription-writes": "1"})
    assert await delays(throttle, time, post(2)) == 0
    assert await delays(throttle, time, post(3)) == pytest.approx(0.1)
    resource = "Microsoft.Compute/UpdateVMScaleSetVMsResourceMaximum;0,Microsoft.Compute/Other;700"
    throttle.answered(call, 202, {"x-ms-ratelimit-remaining-resource": resource})
    assert await delays(throttle, time, post(4)) < 0.2
    assert await delays(throttle, time, call) == pytest.approx(15, abs=0.2)


@pytest.mark.parametrize(("share", "first", "each"), [(1.0, 200, 10), (0.8, 160, 8), (0.01, 2, 0.1)])
async def test_only_our_share_is_used_up(share: float, first: int, each: float) -> None:
    time = VirtualTime()
    throttle = Throttle(time.clock, time.sleep, share)
    throttle.answered(post(0), 202, {})
    told = [await throttle.take(post(number), 0) for number in range(first + 1)]
    assert told[:-1] == [0] * first
    assert told[-1] > 0
    time.now += 100
    assert throttle.levels(SUB)[""] == pytest.approx(min(first, 100 * each))


async def test_at_first_half_of_what_is_left_is_given() -> None:
    """Another process, which knows as little, may take the other half."""
    time = VirtualTime()
    throttle = Throttle(time.clock, time.sleep, 0.8)
    throttle.answered(post(1), 202, {"x-ms-ratelimit-remaining-subscription-writes": "200"})
    told = [await throttle.take(post(number), 0) for number in range(81)]
    assert told[:80] == [0] * 80
    assert told[80] > 0


async def test_what_others_take_leaves_us_less_and_what_is_kept_back_stays() -> None:
    time = VirtualTime()
    throttle = Throttle(time.clock, time.sleep, 0.8)
    for left, ours in (("200", 160), ("50", 10), ("24", 0)):
        throttle.answered(post(1), 202, {"x-ms-ratelimit-remaining-subscription-writes": left})
        # Of Azure's 200 are 40 not for us.
        assert throttle.levels(SUB)[""] == pytest.approx(ours)
    time.now += 2
    assert throttle.levels(SUB)[""] == pytest.approx(0), "what was kept back comes first"
    time.now += 1
    assert throttle.levels(SUB)[""] == pytest.approx(8)


async def test_a_limit_that_is_smaller_than_published_still_gives_its_share() -> None:
    time = VirtualTime()
    throttle = Throttle(time.clock, time.sleep, 0.8)
    for number in range(20):
        await throttle.take(post(number))
        left = {"x-ms-ratelimit-remaining-resource": "Microsoft.Compute/UpdateVMScaleSetVMs;240"}
        throttle.answered(post(number), 202, left)
    assert time.now == 0
    assert throttle.levels(SUB)["westeurope"] > 150


async def test_our_own_calls_as_azure_counts_them_slow_nothing_down() -> None:
    """Azure's whole numbers, and that they are from a moment ago, must not cost a part of each token."""
    time = VirtualTime()
    throttle = Throttle(time.clock, time.sleep)
    azures = Bucket(RATES["arm/writes"], 0)

    async def send(number: int) -> None:
        call = post(number)
        await throttle.take(call)
        await time.sleep(0.03)
        azures.take(time.now)
        left = str(int(azures.level(time.now)))
        await time.sleep(0.05)
        throttle.answered(call, 202, {"x-ms-ratelimit-remaining-subscription-writes": left}, 0.08)

    await time.run(*(asyncio.create_task(send(number)) for number in range(700)))
    assert time.now == pytest.approx(50, abs=0.5)


@pytest.mark.parametrize(
    ("share", "others", "processes"), [(1.0, 0.0, 1), (0.8, 0.0, 1), (0.8, 5.0, 1), (0.8, 0.0, 2), (0.8, 0.0, 4)]
)
async def test_starts_come_as_fast_as_azure_lets_them_and_are_hardly_ever_refused(
    share: float, others: float, processes: int
) -> None:
    """Nodes that come when they are told to, from one process or several, against Azure's buckets, which somebody else
    uses, too."""
    time = VirtualTime()
    throttles = [Throttle(time.clock, time.sleep, share) for _ in range(processes)]
    azures = sandbox.throttle.Throttle(enforced=True)
    count, refused = 900, 0
    left = count

    async def start(number: int) -> None:
        nonlocal refused, left
        throttle = throttles[number % processes]
        call, theirs = post(number), sandbox.throttle.Call(SUB, True, "westeurope", str(number), UPDATE_VM)
        while True:
            while held := await throttle.take(call, 5):
                await time.sleep(held)
            await time.sleep(0.02)
            refusal = azures.take(theirs, time.now)
            headers = azures.headers(theirs, time.now)
            await time.sleep(0.03)
            if refusal is None:
                throttle.answered(call, 202, headers, 0.05)
                left -= 1
                return
            refused += 1
            throttle.answered(call, 429, {**headers, "retry-after": str(refusal.retry_after)}, 0.05)
            await time.sleep(refusal.retry_after)

    async def somebody_else() -> None:
        while left and others:
            azures.take(sandbox.throttle.Call(SUB, True), time.now)
            await time.sleep(1 / others)

    tasks = [asyncio.create_task(start(number)) for number in range(count)]
    await time.run(*tasks, asyncio.create_task(somebody_else()))
    bound = (count - 200 * share) / (10 * share if not others else min(10 * share, 10 - others))
    assert time.now <= bound * 1.02
    assert refused == 0
    if processes == 1:
        assert time.now >= bound * 0.98


def test_calls_are_counted_where_azure_counts_them() -> None:
    sub = f"https://management.azure.com/subscriptions/{SUB}"
    compute = f"{sub}/resourceGroups/MC/providers/Microsoft.Compute/virtualMachineScaleSets"
    vms = f"{sub}/resourceGroups/MC/providers/Microsoft.Compute/virtualMachines"
    reads = Limit("arm/reads", SUB)
    cases = [
        (
            "GET",
            "https://management.azure.com/subscriptions?api-version=1",
            Call("subscriptions", (Limit("arm/reads", ""),)),
        ),
        ("GET", f"{sub}/providers/Microsoft.ContainerService/managedClusters?x=1", Call("clusters", (reads,))),
        ("GET", compute, Call("scale_sets", (Limit("compute/high-cost-get", REGIONAL), reads))),
        (
            "GET",
            f"{compute}/a/virtualMachines?$expand=instanceView",
            Call("instances", (Limit("compute/get-vms", REGIONAL), reads)),
        ),
        ("GET", vms, Call("vms", (Limit("compute/list-single-vms", REGIONAL), reads))),
        (
            "GET",
            f"{sub}/providers/Microsoft.Compute/virtualMachines?statusOnly=true",
            Call("vm_states", (Limit("compute/list-single-vms", REGIONAL), reads)),
        ),
        (
            "GET",
            f"{vms}/a?$expand=instanceView",
            Call(
                "vm",
                (
                    Limit("resource/get-vms", urlsplit(f"{vms}/a").path.lower()),
                    Limit("compute/get-single-vms", REGIONAL),
                    reads,
                ),
            ),
        ),
        (
            "POST",
            f"{vms}/a/runCommand",
            Call(
                "vm_run_command",
                (
                    Limit("resource/update-vms", urlsplit(f"{vms}/a/runCommand").path.lower()),
                    Limit("compute/update-single-vms", REGIONAL),
                    Limit("arm/writes", SUB),
                ),
            ),
        ),
        ("GET", f"{sub}/resourceGroups/x", Call("other", (reads,))),
        ("PUT", f"{sub}/resourceGroups/x", Call("other", (Limit("arm/writes", SUB),))),
    ]
    for method, url, call in cases:
        assert classify(method, url, "West Europe") == call
        assert classify(method, url.upper().replace("HTTPS", "https"), "westeurope") == call
    poll = classify("GET", f"{sub}/providers/Microsoft.Compute/locations/northeurope/operations/abc?monitor=true", "")
    assert poll.kind == "poll"
    assert [limit.name for limit in poll.limits] == ["resource/get-operation", "compute/get-operation", "arm/reads"]
    assert poll.limits[1].scope == f"{SUB}/northeurope"
    results = f"{sub}/providers/Microsoft.Compute/locations/northeurope/operationResults/abc?x=1"
    assert classify("GET", results, "").limits[1:] == poll.limits[1:]
    command = post(5)
    assert [limit.name for limit in command.limits] == ["resource/update-vms", "compute/update-vms", "arm/writes"]
    assert command.limits[0].scope.endswith("/virtualmachines/5/runcommand")


def test_retry_after_as_a_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}, now) == 30
    assert retry_after({"retry-after": "Wed, 31 Dec 2025 00:00:30 GMT"}, now) == 0
    assert retry_after({"retry-after": "soon"}, now) is None
    assert retry_after({}, now) is None
