"""The order of a run: run → lane (a subscription) → batches of nodes; a fix besides: → pool → waves.

Deterministic; see context.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta

from shared.runs import pace
from shared.runs.context import Context, Json, Orchestrator, Task, wait_all
from shared.runs.fixing import failures
from shared.runs.waves import waves

WINDOW = 20
"""Batches of a lane in hand at once."""


def survey(context: Context) -> Orchestrator:
    """Look at every node in scope, and in a run that plans or fixes, plan.

    Input: `run_id`, `kind` and `request`. Gives `nodes`, `statuses` and `plans` (the number of batches of each
    subscription), or `error` where the request fits nothing.
    """
    job = context.get_input()
    scope = yield context.call_activity("scope", job)
    if "error" in scope:
        return scope
    lanes = [{**job, "subscription": subscription} for subscription in scope["subscriptions"]]
    found = yield from wait_all(context, [context.call_activity("discover", lane) for lane in lanes])
    unknown = unknown_names(job["request"], found)
    if unknown:
        return {"error": unknown}
    counts = yield from wait_all(
        context,
        [
            context.call_sub_orchestrator(
                "lane", {**lane, "batches": result["batches"]}, f"{context.instance_id}:{lane['subscription']}"
            )
            for lane, result in zip(lanes, found, strict=True)
        ],
    )
    return {
        "nodes": sum(nodes for result in found for _, nodes in result["batches"]),
        "statuses": total(counts),
        "plans": {lane["subscription"]: len(result["batches"]) for lane, result in zip(lanes, found, strict=True)},
    }


def lane(context: Context) -> Orchestrator:
    """One subscription's batches, each started when Azure's limits have room for it. Gives findings by status."""
    job = context.get_input()
    batches: list[tuple[str, int]] = [(region, nodes) for region, nodes in job.pop("batches")]
    begin = context.current_utc_datetime
    counts = [(yield context.call_activity("record_problems", job))]
    in_hand: list[Task] = []
    for number, offset in enumerate(pace.starts(batches)):
        due = begin + timedelta(seconds=offset)
        if due > context.current_utc_datetime:
            yield context.create_timer(due)
        if len(in_hand) == WINDOW:
            done = yield context.task_any(in_hand)
            in_hand.remove(done)
            counts.append(done.result)
        in_hand.append(context.call_activity("audit_batch", {**job, "batch": number}))
    counts += yield from wait_all(context, in_hand)
    return total(counts)


def fix(context: Context) -> Orchestrator:
    """Carry out gathered plans, all pools side by side. Input: `run_id`, `request`, `pools` (nodes by pool).

    Gives the outcomes.
    """
    job = context.get_input()
    results = yield from wait_all(
        context,
        [
            context.call_sub_orchestrator(
                "fix_pool", {**job, "pool": number, "nodes": nodes}, f"{context.instance_id}:pool{number}"
            )
            for number, nodes in enumerate(job.pop("pools"))
        ],
    )
    return {"outcomes": total(results)}


def fix_pool(context: Context) -> Orchestrator:
    """One pool's waves, a canary first, until all is done or there is trouble. Gives outcomes."""
    job = context.get_input()
    request = job["request"]
    outcomes: list[Mapping[str, int]] = []
    first = 0
    for count in waves(job["nodes"], request["max_unavailable"], canary=request["canary"]):
        if first and request["pause_seconds"]:
            yield context.create_timer(context.current_utc_datetime + timedelta(seconds=request["pause_seconds"]))
        result = yield context.call_activity("fix_wave", {**job, "first": first, "count": count})
        outcomes.append(result["outcomes"])
        first += count
        failed = failures(total(outcomes))
        stop = result["stop"]
        if failed > request["max_failures"]:
            allowed = request["max_failures"]
            stop = f"{failed} fixes of this pool failed or were rolled back, more than the {allowed} allowed"
        if stop and first < job["nodes"]:
            left = yield context.call_activity("leave_wave", {**job, "first": first, "reason": stop})
            outcomes.append(left["outcomes"])
            break
    return total(outcomes)


def unknown_names(request: Json, found: list[Json]) -> str:
    """A sentence naming the clusters and pools of the request that are nowhere; empty where all are (pure)."""
    sentences = []
    for noun, wanted, key in (
        ("cluster", request.get("clusters", []), "clusters"),
        ("node pool", request.get("node_pools", []), "pools"),
    ):
        known = {name for result in found for name in result[key]}
        missing = [name for name in wanted if name.lower() not in known]
        if missing:
            there = ", ".join(sorted(known)) or "none"
            sentences.append(
                f"no {noun} named {', '.join(missing)} in the {len(found)} subscriptions; there is: {there}"
            )
    return "; ".join(sentences)


def total(counts: list[Mapping[str, int]]) -> dict[str, int]:
    """The sum of counts by name (pure)."""
    summed: Counter[str] = Counter()
    for count in counts:
        summed.update(count)
    return dict(summed)


ORCHESTRATORS: dict[str, Callable[[Context], Orchestrator]] = {
    "survey": survey,
    "lane": lane,
    "fix": fix,
    "fix_pool": fix_pool,
}
