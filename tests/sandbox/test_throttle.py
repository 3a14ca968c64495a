"""The figures are Azure's published ones: tokens at the start, and tokens a minute after that."""

import pytest

from sandbox.throttle import GET_OPERATION, GET_SCALE_SET, GET_VM, UPDATE_VM, Call, Policy, Throttle


def passed(throttle: Throttle, call: Call, now: float) -> int:
    """How many calls pass at this instant."""
    count = 0
    while throttle.take(call, now) is None:
        count += 1
    return count


@pytest.mark.parametrize(("write", "capacity", "a_second"), [(False, 250, 25), (True, 200, 10)])
def test_resource_manager_counts_by_subscription(write: bool, capacity: int, a_second: int) -> None:
    throttle = Throttle(enforced=True)
    one, other = Call("one", write), Call("other", write)
    assert passed(throttle, one, 0) == capacity
    assert passed(throttle, other, 0) == capacity
    assert passed(throttle, one, 1) == a_second
    assert passed(throttle, one, 10_000) == capacity


@pytest.mark.parametrize(
    ("policy", "resource", "a_minute", "subscription"),
    [(UPDATE_VM, 12, 4, 1500), (GET_VM, 36, 12, 6000), (GET_OPERATION, 45, 15, 15000), (GET_SCALE_SET, 36, 12, 2400)],
)
def test_compute_counts_by_resource_and_by_region(
    policy: Policy, resource: int, a_minute: int, subscription: int
) -> None:
    throttle = Throttle(enforced=True)
    call = Call("one", False, "westeurope", "node0", policy)
    assert passed(throttle, call, 0) == resource
    assert passed(throttle, call, 60.001) == a_minute
    elsewhere = Call("one", False, "northeurope", "node0", policy)
    assert throttle.take(elsewhere, 60.001) is None
    remaining = throttle.headers(elsewhere, 60.001)["x-ms-ratelimit-remaining-resource"]
    assert remaining.endswith(f"{policy.name}Subscription;{subscription - 1}")


def test_updates_of_many_instances_meet_the_subscriptions_limit() -> None:
    """Of Compute's subscription limits the only one that comes before Resource Manager's own."""
    throttle = Throttle(enforced=True)
    total, now = 0, 0.0
    refused: set[str] = set()
    while not any(name.endswith("Subscription") for name in refused):
        refusal = throttle.take(Call("one", True, "westeurope", f"node{total}", UPDATE_VM), now)
        if refusal is None:
            total += 1
        else:
            refused.add(refusal.limit)
            now += 0.1
    assert refused == {"arm-writes", "Microsoft.Compute/UpdateVMScaleSetVMSubscription"}
    assert total == pytest.approx(1500 + now * 500 / 60, abs=2)


def test_a_refused_call_takes_nothing_and_says_when_to_come_back() -> None:
    throttle = Throttle(enforced=True)
    call = Call("one", True, "westeurope", "node0", UPDATE_VM)
    assert passed(throttle, call, 0) == 12
    refusal = throttle.take(call, 0)
    assert refusal is not None
    assert (refusal.limit, refusal.retry_after) == ("Microsoft.Compute/UpdateVMScaleSetVMResource", 15)
    assert throttle.headers(call, 0) == {
        "x-ms-ratelimit-remaining-subscription-writes": "188",
        "x-ms-ratelimit-remaining-resource": (
            "Microsoft.Compute/UpdateVMScaleSetVMResource;0,Microsoft.Compute/UpdateVMScaleSetVMSubscription;1488"
        ),
    }
    assert throttle.refused == {"Microsoft.Compute/UpdateVMScaleSetVMResource": 2}
    assert throttle.take(call, 15.001) is None


def test_without_enforcement_nothing_is_counted_down() -> None:
    throttle = Throttle(enforced=False)
    call = Call("one", False)
    assert all(throttle.take(call, 0) is None for _ in range(1000))
    assert throttle.headers(call, 0) == {"x-ms-ratelimit-remaining-subscription-reads": "250"}
