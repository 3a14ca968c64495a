"""The order of a run: run → lane (a subscription) → batches of nodes; a fix besides: → pool → waves.

Deterministic; see context.py. A task begins when it is first yielded, so whatever is to go on side by side is yielded
together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from datetime import datetime, timedelta
from typing import Any

from shared.runs import names, pace
from shared.runs.context import (
    Context,
    EventContext,
    Json,
    Orchestrator,
    Task,
    Timer,
    attempt,
    attempt_all,
    first_line,
    let_go,
)
from shared.runs.fixing import failures
from shared.runs.waves import waves

WINDOW = 20
"""Batches of a lane in hand at once."""

STRETCH = 100
"""Batches after which a lane goes on with an empty history: replaying a long one is slow."""

WAKE = "wake"
"""The event that makes a waiting run look into the store; it carries nothing."""

# How long a waiting run sleeps at most before it looks again, whether it was woken or not.
_LOOK_AGAIN = timedelta(hours=1)
# How long a pause between waves lasts at most before a cancelled run notices.
_PAUSE_SLICE = timedelta(seconds=30)


def run(context: EventContext) -> Orchestrator:
    """A whole run, as the serverless app does it: its record, the survey, and for a fix: approval, waves; its end.

    Input: `run_id`, `kind`, `request`, and `record` (what the run's record says was asked for); for a fix also
    `plan_run` (the id of its planning run) and `approval` (`auto` or `manual`). Gives the `state`.
    """
    job = context.get_input()
    try:
        steps = _fix_run if job["kind"] == "fix" else _survey_run
        end = yield from steps(context, job)
    except Exception as error:
        # Whatever it was: a run that is not going must not look as if it were.
        end = {"error": f"{type(error).__name__}: {first_line(error)}"}
    return (yield from attempt(context.call_activity("finish", {**job, **end})))


def _survey_run(context: Context, job: Json) -> Generator[Task, Any, Json]:
    yield from attempt(context.call_activity("begin", job))
    surveyed = yield from attempt(context.call_sub_orchestrator("survey", job, f"{context.instance_id}:survey"))
    if "failed" in surveyed:
        return {"error": surveyed["failed"]}
    return surveyed


def _fix_run(context: EventContext, job: Json) -> Generator[Task, Any, Json]:
    """Plan as a run of its own (as a person would with `plan`, then `fix`), and carry that plan out."""
    yield from attempt(context.call_activity("begin", job))
    record = {**job["record"], "fix_run": job["run_id"]}
    plan = {**job, "run_id": job["plan_run"], "kind": "plan", "root": job["run_id"], "record": record}
    surveyed = yield from _survey_run(context, plan)
    yield from attempt(context.call_activity("finish", {**plan, **surveyed}))
    if "error" in surveyed:
        return {"error": surveyed["error"]}
    gathered = yield from attempt(
        context.call_activity("gather", {**job, "plans": {"run_id": plan["run_id"], "batches": surveyed["plans"]}})
    )
    if "failed" in gathered:
        return {"error": gathered["failed"]}
    pools, ended = gathered["pools"], ""
    if pools and job["approval"] == "manual":
        ended = yield from _await_approval(context, {**job, "digest": gathered["digest"]})
    if ended:
        leaving = [{**job, "pool": pool, "first": 0, "reason": ended} for pool in range(len(pools))]
        left = yield from attempt_all(context, [context.call_activity("leave_wave", pool) for pool in leaving])
        lost = next((result["failed"] for result in left if "failed" in result), "")
        return {"nodes": gathered["nodes"], **({"error": lost} if lost else {"ended": ended})}
    fixed = yield from attempt(
        context.call_sub_orchestrator("fix", {**job, "pools": pools}, f"{context.instance_id}:fix")
    )
    error = fixed.get("failed") or fixed.get("error")
    return {"nodes": gathered["nodes"], **({"error": error} if error else {})}


def _await_approval(context: EventContext, job: Json) -> Generator[Task, Any, str]:
    """Wait until the plan is approved (''), refused, cancelled or the time is over: gives why it is not carried out.

    The store is asked, not the event: an event can get lost or come twice.
    """
    asked = yield from attempt(context.call_activity("ask_approval", job))
    if "failed" in asked:
        return f"no approval could be asked for: {asked['failed']}"
    expires = datetime.fromisoformat(asked["expires"])
    woken: Task | None = None
    while True:
        said = yield from attempt(context.call_activity("approval", job))
        if said.get("decision"):
            return _REFUSALS[said["decision"]]
        if context.current_utc_datetime >= expires:
            return "nobody approved the plan in time"
        if woken is None:
            woken = context.wait_for_external_event(WAKE)
        timer = context.create_timer(min(expires, context.current_utc_datetime + _LOOK_AGAIN))
        first = yield context.task_any([woken, timer])
        if first is woken:
            woken = None
            let_go(timer)


_REFUSALS = {"approved": "", "refused": "the plan was refused", "cancelled": "the run was cancelled"}


def survey(context: Context) -> Orchestrator:
    """Look at every node in scope, and in a run that plans or fixes, plan.

    Input: `run_id`, `kind` and `request`. Gives `nodes`, `statuses` and `plans` (the number of batches of each
    subscription), or `error` where the request fits nothing, or not everything could be recorded.
    """
    job = context.get_input()
    scope = yield from attempt(context.call_activity("scope", job))
    if "failed" in scope or "error" in scope:
        return {"error": scope.get("error") or scope["failed"]}
    lanes = [{**job, "subscription": subscription} for subscription in scope["subscriptions"]]
    found = yield from attempt_all(context, [context.call_activity("discover", lane) for lane in lanes])
    seen = [result for result in found if "failed" not in result]
    # What is not in sight may have the name; why it is not becomes a finding.
    in_sight = all("failed" not in result and not result.get("unseen") for result in found)
    unknown = unknown_names(job["request"], seen) if in_sight else ""
    if unknown:
        return {"error": unknown}
    open_lanes = [
        (lane, result["batches"]) for lane, result in zip(lanes, found, strict=True) if "failed" not in result
    ]
    results = yield from attempt_all(
        context,
        [
            context.call_sub_orchestrator(
                "lane", {**lane, "batches": batches}, f"{context.instance_id}:{lane['subscription']}"
            )
            for lane, batches in open_lanes
        ],
    )
    failed = [
        {**lane, "batches": 0, "reason": result["failed"]}
        for lane, result in zip(lanes, found, strict=True)
        if "failed" in result
    ] + [
        {**lane, "batches": len(batches), "reason": result["failed"]}
        for (lane, batches), result in zip(open_lanes, results, strict=True)
        if "failed" in result
    ]
    results += yield from attempt_all(context, [context.call_activity("fail_lane", lane) for lane in failed])
    lost = [
        lane["reason"] for lane, result in zip(failed, results[len(open_lanes) :], strict=True) if "failed" in result
    ]
    lost += [result["lost"] for result in results if result.get("lost")]
    return {
        "nodes": sum(nodes for result in seen for _, nodes in result["batches"]),
        "statuses": total([result.get("statuses", {}) for result in results]),
        "plans": {lane["subscription"]: len(batches) for lane, batches in open_lanes},
        **({"error": f"not everything could be recorded: {lost[0]}"} if lost else {}),
    }


def lane(context: Context) -> Orchestrator:
    """One subscription's batches, each started when Azure's limits have room for it.

    Input besides the job: `batches` (region and number of nodes of each), and where it goes on with a new history:
    `first` (the batch), `begin` (of the lane) and `so_far`. Gives findings by status, and `lost`: why a batch could
    not be recorded, if one could not.
    """
    job = context.get_input()
    batches: list[tuple[str, int]] = [(region, nodes) for region, nodes in job.pop("batches")]
    first: int = job.pop("first", 0)
    begin = datetime.fromisoformat(job.pop("begin", context.current_utc_datetime.isoformat()))
    results: list[Json] = [job.pop("so_far", {})]
    if first == 0:
        recorded = yield from attempt(context.call_activity("record_problems", job))
        results.append({"lost": recorded["failed"]} if "failed" in recorded else recorded)
    end = min(first + STRETCH, len(batches))
    starts = [begin + timedelta(seconds=offset) for offset in pace.starts(batches)[first:end]]
    in_hand: dict[int, Task] = {}
    timer: Timer | None = None
    for number, due in enumerate(starts, first):
        while True:
            # A cancelled lane only has to record its nodes: nothing to pace.
            early = due > context.current_utc_datetime and not any(result.get("cancelled") for result in results)
            if not early and len(in_hand) < WINDOW:
                break
            if early and timer is None:
                timer = context.create_timer(due)
            done = yield context.task_any([*in_hand.values(), *([timer] if timer is not None else [])])
            if done is timer:
                timer = None
                continue
            at = next(at for at, task in in_hand.items() if task is done)
            results.append((yield from _settled(context, {**job, "batch": at}, in_hand.pop(at))))
        if timer is not None:
            let_go(timer)
            timer = None
        in_hand[number] = context.call_activity("audit_batch", {**job, "batch": number})
    ended = yield from attempt_all(context, list(in_hand.values()))
    for at, result in zip(in_hand, ended, strict=True):
        results.append((yield from _recorded(context, {**job, "batch": at}, result)))
    so_far = {
        "statuses": total([result.get("statuses", {}) for result in results]),
        "lost": next((result["lost"] for result in results if result.get("lost")), ""),
        "cancelled": any(result.get("cancelled") for result in results),
    }
    if end < len(batches):
        more = {"batches": batches, "first": end, "begin": begin.isoformat(), "so_far": so_far}
        context.continue_as_new({**job, **more})
    return so_far


def _settled(context: Context, batch: Json, task: Task) -> Generator[Task, Any, Json]:
    """A finished batch's result, recorded where it failed."""
    return (yield from _recorded(context, batch, (yield from attempt(task))))


def _recorded(context: Context, batch: Json, result: Json) -> Generator[Task, Any, Json]:
    if "failed" not in result:
        return result
    recorded = yield from attempt(context.call_activity("fail_batch", {**batch, "reason": result["failed"]}))
    return {"lost": recorded["failed"]} if "failed" in recorded else recorded


def fix(context: Context) -> Orchestrator:
    """Carry out gathered plans, all pools side by side. Input: `run_id`, `request`, `pools` (nodes by pool).

    Gives the outcomes, and `error` where not everything could be recorded.
    """
    job = context.get_input()
    pools: list[int] = job.pop("pools")
    results = yield from attempt_all(
        context,
        [
            context.call_sub_orchestrator(
                "fix_pool", {**job, "pool": number, "nodes": nodes}, f"{context.instance_id}:pool{number}"
            )
            for number, nodes in enumerate(pools)
        ],
    )
    failed = [
        {**job, "pool": number, "first": 0, "count": nodes, "reason": result["failed"]}
        for number, (nodes, result) in enumerate(zip(pools, results, strict=True))
        if "failed" in result
    ]
    results += yield from attempt_all(context, [context.call_activity("fail_wave", pool) for pool in failed])
    lost = [result["failed"] for result in results[len(pools) :] if "failed" in result]
    lost += [result["lost"] for result in results if result.get("lost")]
    return {
        "outcomes": total([result.get("outcomes", {}) for result in results]),
        **({"error": f"not everything could be recorded: {lost[0]}"} if lost else {}),
    }


def fix_pool(context: Context) -> Orchestrator:
    """One pool's waves, a canary first, until all is done or there is trouble.

    Gives `outcomes`, and `lost`: why not all nodes could be recorded, if they could not.
    """
    job = context.get_input()
    request = job["request"]
    results: list[Json] = []
    first, stop = 0, ""
    for count in waves(job["nodes"], request["max_unavailable"], canary=request["canary"]):
        if first:
            yield from _pause(context, job, request["pause_seconds"])
        wave = {**job, "first": first, "count": count}
        result = yield from attempt(context.call_activity("fix_wave", wave))
        if "failed" in result:
            stop = f"a wave of this pool failed: {result['failed']}"
            result = yield from attempt(context.call_activity("fail_wave", {**wave, "reason": result["failed"]}))
        results.append(result)
        first += count
        failed = failures(total([result.get("outcomes", {}) for result in results]))
        stop = stop or result.get("stop", "")
        if failed > request["max_failures"]:
            allowed = request["max_failures"]
            stop = f"{failed} fixes of this pool failed or were rolled back, more than the {allowed} allowed"
        if stop and first < job["nodes"]:
            rest = {**job, "first": first, "reason": stop}
            results.append((yield from attempt(context.call_activity("leave_wave", rest))))
            break
    return {
        "outcomes": total([result.get("outcomes", {}) for result in results]),
        "lost": next((result["failed"] for result in results if "failed" in result), ""),
    }


def _pause(context: Context, job: Json, seconds: float) -> Generator[Task, Any, None]:
    """The pause between two waves; a run that is cancelled meanwhile does not sit it out."""
    end = context.current_utc_datetime + timedelta(seconds=seconds)
    while context.current_utc_datetime < end:
        yield context.create_timer(min(end, context.current_utc_datetime + _PAUSE_SLICE))
        if context.current_utc_datetime < end:
            said = yield from attempt(context.call_activity("stopped", job))
            if said.get("stopped"):
                return


def unknown_names(request: Json, found: list[Json]) -> str:
    """A sentence naming the clusters and pools of the request that are nowhere; empty where all are (pure)."""
    sentences = []
    for noun, wanted, key in (
        ("cluster", request.get("clusters", []), "clusters"),
        ("node pool", request.get("node_pools", []), "pools"),
    ):
        known = {name for result in found for name in result[key]}
        missing = names.unknown(wanted, known)
        if missing:
            there = names.there_is(missing, known)
            sentences.append(f"no {noun} named {', '.join(missing)} in the {len(found)} subscriptions; {there}")
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
"""What both hosts drive, by name; `run`, which can be woken from outside, is the serverless app's alone."""
