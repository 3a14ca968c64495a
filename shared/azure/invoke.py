"""AKS command invoke: one command in a pod of the cluster, private clusters included. One POST, then looks at it.

Only for commands that change nothing: a start whose answer got lost is sent again. On clusters with Entra ID the pod
acts as the caller, whose token for AKS's server application goes with the POST.

Sources: the REST operations "Managed Clusters - Run Command" and "Managed Clusters - Get Command Result", the article
"Resolve az aks command invoke failures", and the Azure CLI (which token it sends, and how it polls).
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shared.azure.discovery import CLUSTER_STOPPED
from shared.azure.operations import INVOKE, INVOKE_RESULT, checked
from shared.azure.problems import Fault, Target, body_error, judge, passing, response_fault, word
from shared.azure.replies import HeldBack, Refusal, Reply, accepted_of
from shared.azure.runcommand import AWAY_SECONDS, MOST_WAIT, Pending, untaken
from shared.azure.versions import Provider
from shared.clouds import CLUSTER_SCOPE
from shared.models import Cluster, Problem

if TYPE_CHECKING:
    from shared.azure.arm import Arm, Options

# 512 kB of logs, each byte of which JSON may write as six, in some more JSON; nothing bigger is read.
_LONGEST_ANSWER = 1 << 22
_PATIENCE = 3
# A pod has 60 s to be scheduled, and our longest command takes some 200 after that.
_DEADLINE = timedelta(seconds=300)
_STEP, _LONGEST_STEP = 3.0, 10.0
_STATES = {"succeeded", "failed", "canceled"}


@dataclass(frozen=True, slots=True)
class Invoked:
    """What a command printed (both streams, mingled; at most 512 kB) and its exit code."""

    logs: str
    exit_code: int


def refusal(cluster: Cluster) -> Problem | None:
    """Why no command can be invoked in the cluster, as far as its own description tells."""
    if cluster.power.lower() == "stopped":
        return CLUSTER_STOPPED
    if cluster.invoke_disabled:
        return judge(
            Fault(None, "invoke_disabled", "apiServerAccessProfile.disableRunCommand is set"), _target(cluster)
        )
    return None


async def start(
    arm: Arm, cluster: Cluster, command: str, before: Pending | None, first_look: float
) -> Pending | Invoked | Problem:
    """Try once to start `command` (a shell's, which changes nothing); `before` is what the last try gave.

    A command that Azure took comes with its `url`, due `first_look` seconds after (later where Azure asks for it). One
    without was not taken, or nobody knows (over a rate limit, no connection, no token, 5xx), and may be tried again
    when it is due, as `runcommand.start` says.
    """
    if (why := refusal(cluster)) is not None:
        return why
    outcome = await _post(arm, cluster, command)
    now = datetime.now(UTC)
    match outcome:
        case Invoked():
            return outcome
        case Pending():
            due = now + timedelta(seconds=max(first_look, (outcome.due - now).total_seconds()))
            return replace(outcome, due=due, since=before.since if before is not None else outcome.since)
        case HeldBack():
            return replace(before or Pending(now, now), due=now + timedelta(seconds=outcome.asked))
    again = untaken(arm.settings, before, outcome, now, harmless=True)
    return again or judge(outcome.fault, _target(cluster))


async def _post(arm: Arm, cluster: Cluster, command: str) -> Pending | Invoked | Refusal:
    token = await arm.token(CLUSTER_SCOPE) if cluster.entra else None
    if isinstance(token, Refusal):
        return token

    async def call(version: str, options: Options) -> Reply | Refusal:
        from azure.mgmt.containerservice.models import RunCommandRequest

        from shared.azure.pipeline import first_reply

        group, name = cluster.resource_group, cluster.name
        checked(subscription=cluster.subscription, group=group, cluster=name)
        request = RunCommandRequest(command=command, context="", cluster_token=token)
        return await first_reply(
            lambda first: arm.containers(cluster.subscription, version).managed_clusters.begin_run_command(
                group, name, request, polling=first, **options
            ),
            MOST_WAIT,
        )

    reply = await arm.sdk(Provider.CONTAINERS, accepted_of, call, most_wait=MOST_WAIT)
    if isinstance(reply, Refusal):
        return reply
    now = datetime.now(UTC)
    if url := reply.headers.get("location"):
        return Pending(now + timedelta(seconds=reply.asked), now, url, now)
    answer = read_answer(reply.status, reply.content)
    if isinstance(answer, Invoked):
        return answer
    text = "the command was accepted without its result or an address to ask for it"
    return Refusal(answer or Fault(None, "malformed", text))


async def look(arm: Arm, cluster: Cluster, pending: Pending) -> Pending | Invoked | Problem:
    """Look once at a started command: what it printed, its problem, or when to look again.

    Azure that is away is looked past until AWAY_SECONDS after it went away. What is not found is looked for once more.
    Raises ValueError for a command that was not started.
    """
    if pending.started is None or not pending.url:
        raise ValueError("a command that was not started cannot be looked at")
    reply = await arm.look(pending.url, MOST_WAIT)
    now = datetime.now(UTC)
    if isinstance(reply, HeldBack):
        return replace(pending, due=now + timedelta(seconds=reply.asked))
    answer = read_answer(reply.status, reply.content) if isinstance(reply, Reply) else reply.fault
    if isinstance(answer, Invoked):
        return answer
    # Jitter: waiters must not march in step.
    step = min(_STEP * 1.3 ** min(pending.looks, 20), _LONGEST_STEP) * random.uniform(0.8, 1.2)  # noqa: S311
    due = now + timedelta(seconds=max(step, reply.asked))
    looked = replace(pending, due=due, looks=pending.looks + 1, refusals=0, away_since=None)
    target = _target(cluster, INVOKE_RESULT)
    late = now - pending.started > _DEADLINE
    if answer is None:
        return looked if not late else judge(Fault(None, "invoke_deadline", f"{_DEADLINE.seconds} s"), target)
    if word(answer) in {"unauthorized", "malformed"} and pending.refusals + 1 < _PATIENCE:
        return replace(looked, refusals=pending.refusals + 1)
    if passing(answer):
        away = pending.away_since or now
        if (now - away).total_seconds() < AWAY_SECONDS:
            return replace(pending, due=due, away_since=away)
    if answer.status == 404:
        if not pending.missed:
            return replace(looked, missed=True)
        # Documented: a bare "Not Found" in the place of the result is a pod that was never scheduled.
        if word(answer) == "not_found":
            answer = replace(answer, code="no_capacity")
    return judge(answer, target)


def read_answer(status: int, body: bytes) -> Invoked | Fault | None:
    """What an answer says: what the command printed, why there is nothing, or None where it is still going."""
    if not 200 <= status < 300:
        return response_fault(status, body[:_LONGEST_ANSWER].decode("utf-8", "replace"))
    if len(body) > _LONGEST_ANSWER:
        return Fault(None, "malformed", f"{len(body)} bytes")
    if status == 202 and not body.strip():
        return None
    try:
        answer: object = json.loads(body)
    except (ValueError, RecursionError):
        return Fault(None, "malformed", f"{len(body)} bytes that are not JSON")
    if not isinstance(answer, dict):
        return Fault(None, "malformed", "JSON that is not an object")
    if (error := body_error(answer)) is not None and "error" in answer:
        return Fault(None, *error)
    properties = answer.get("properties")
    if not isinstance(properties, Mapping):
        return None if status == 202 else Fault(None, "malformed", "a result without its properties")
    state = properties.get("provisioningState")
    if not isinstance(state, str) or state.lower() not in _STATES:
        return None
    logs, code, reason = properties.get("logs"), properties.get("exitCode"), properties.get("reason")
    if state.lower() == "succeeded" and isinstance(code, int) and isinstance(logs, str | None):
        return Invoked(logs or "", code)
    # Azure's own sentences come here too, where the pod could not be made.
    fault = Fault(None, "", reason if isinstance(reason, str) and reason else f"it ended as {state}")
    met = word(fault)
    return replace(fault, code="invoke_failed" if met == "other" else met)


def _target(cluster: Cluster, action: str = INVOKE) -> Target:
    group = f"/subscriptions/{cluster.subscription}/resourceGroups/{cluster.resource_group}"
    return Target(f"cluster {cluster.name}", action, cluster.id or group)
