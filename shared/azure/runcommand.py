"""Run command (the action, RunShellScript) on one machine: one POST, then as few looks at its result as it takes.

Sources: the REST operations "Virtual Machine Scale Set VMs - Run Command" and "Virtual Machines - Run Command",
Resource Manager's "Track asynchronous operations", and the source of the extension that runs the script
(Azure/run-command-extension-linux).
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shared.azure.operations import POLL_ACTION, RUN_COMMAND, RUN_VM_COMMAND, checked
from shared.azure.problems import Fault, Target, body_error, judge, passing, response_fault, word
from shared.azure.refusals import WAITED_FOR
from shared.azure.replies import HeldBack, Refusal, Reply, accepted_of
from shared.azure.versions import Provider
from shared.models import Node, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.azure.arm import Arm, Options
    from shared.settings import Settings

# The extension's limit on the script, counted on its base64 text.
SCRIPT_LIMIT = 256 * 1024
# What the extension returns of each stream at most: its last bytes.
STREAM_LIMIT = 4096

# A result is 8 KiB of output, each byte of which JSON may write as six, in some more JSON; nothing bigger is read.
_LONGEST_ANSWER = 1 << 17
# How many looks (or starts) in a row may be refused a token, or bring something unreadable, before that is the answer.
_PATIENCE = 3
# The longest that one try or look waits for its turn under our own limits.
MOST_WAIT = 5.0
# The longest that a start waits for the starts before it to be answered.
_MOST_CROWD = 20.0
# How long Azure may be away (no connection, no token, 5xx, 429) before a start, or a look past the deadline, is given
# up.
AWAY_SECONDS = 900.0
# Whoever comes later than this was kept from asking.
_ABSENT = timedelta(seconds=60)

# Looks after the first: never further apart than this, for a command younger than two minutes and for an older one.
_STEP_YOUNG = 12.0
_STEP_OLD = 15.0
_YOUNG = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What arrived of a command's output: the last 4,096 bytes of each stream. Its exit status is never reported."""

    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Pending:
    """A command that has not ended, to be kept and handed in again; `due` is when.

    `url` is signed: a secret, to be kept out of logs and histories. Empty: the command is not started yet. `since` is
    the first try of those that found the node busy in a row (or this one), `started` when Azure accepted the command.
    `tries` counts starts that were sent, `looks` those that were answered; `refusals` counts answers in a row that were
    of no use (a token refused, unreadable), `missed` says that a look found nothing once, `away_since` since when Azure
    has not answered at all. `first` is the first try of all. Times in which nobody came are counted in none of these.
    """

    due: datetime
    since: datetime
    url: str = field(default="", repr=False)
    started: datetime | None = None
    looks: int = 0
    tries: int = 0
    refusals: int = 0
    missed: bool = False
    away_since: datetime | None = None
    first: datetime | None = None


Ended = CommandResult | Problem
"""How a command ends."""


async def start(
    arm: Arm, node: Node, script: str, before: Pending | None, first_look: float, *, harmless: bool = False
) -> Pending | Ended:
    """Try once to start `script` on `node`; `before` is what the last try gave.

    A command that Azure took comes with its `url`, due `first_look` seconds after (later where Azure asks for it). One
    without was not taken (the node is busy or coming up, over a rate limit, no connection, no token) and may be tried
    again when it is due: a busy node for `busy_wait_seconds`, Azure that is away for AWAY_SECONDS, and where the two
    take turns for both together.

    Where no answer says whether Azure took it (5xx, a connection that broke, an answer that cannot be read), that is an
    end: a problem that `may_have_run`. Not so for a script that is `harmless` to run twice: then it is Azure that is
    away, and a first one that was taken after all makes the node busy, which is waited for. Raises ValueError where the
    script is too long for the extension, which would drop it silently.
    """
    if len(base64.b64encode(script.encode())) > SCRIPT_LIMIT:
        raise ValueError(f"the script has {len(script.encode())} bytes; its base64 text may have {SCRIPT_LIMIT}")
    outcome = await _post(arm, node, script)
    now = datetime.now(UTC)
    match outcome:
        case CommandResult():
            return outcome
        case _Accepted():
            due = now + timedelta(seconds=max(first_look, outcome.look_after))
            return Pending(due, before.since if before is not None else now, outcome.url, now)
        case HeldBack():
            return replace(before or Pending(now, now), due=now + timedelta(seconds=outcome.asked))
    target = Target("the node", RUN_VM_COMMAND if node.single else RUN_COMMAND, node.id)
    return untaken(arm.settings, before, outcome, now, harmless=harmless) or _start_problem(outcome, target)


def untaken(
    settings: Settings, before: Pending | None, refused: Refusal, now: datetime, *, harmless: bool
) -> Pending | None:
    """When to try again what Azure has not taken, or what may be sent twice; None where that is no use (any more)."""
    met = word(refused.fault)
    first = _moved(before.first, before, now) if before is not None and before.first is not None else now
    if (now - first).total_seconds() >= AWAY_SECONDS + settings.busy_wait_seconds:
        return None
    tries = before.tries + 1 if before is not None else 1
    # Jitter: waiters must not march in step.
    jitter = random.uniform(0.8, 1.2)  # noqa: S311
    if met in WAITED_FOR:
        was_busy = before is not None and before.tries > 0 and before.away_since is None
        since = _moved(before.since, before, now) if before is not None and was_busy else now
        left = settings.busy_wait_seconds - (now - since).total_seconds()
        step = min(max(settings.command_seconds / 2, 0.1) * 1.5 ** min(tries - 1, 20), 30.0) * jitter
        due = now + timedelta(seconds=min(left, step))
        return Pending(due, since, tries=tries, first=first) if left > 0 else None
    if met == "unauthorized":
        refusals = before.refusals + 1 if before is not None else 1
        due = now + timedelta(seconds=jitter)
        return Pending(due, now, tries=tries, refusals=refusals, first=first) if refusals < _PATIENCE else None
    # A 5xx whose code is none of Azure's own troubles is an answer about the node.
    unknown = met == "malformed" or passing(refused.fault)
    if met in {"throttled", "unreachable", "credential"} or (harmless and unknown):
        away = _away_since(before, now)
        if (now - away).total_seconds() >= AWAY_SECONDS:
            return None
        step = refused.asked if met == "throttled" else max(refused.asked, _pause(now - away) * jitter)
        return Pending(now + timedelta(seconds=step), now, tries=tries, away_since=away, first=first)
    return None


def _away_since(before: Pending | None, now: datetime) -> datetime:
    """Since when Azure has not answered, as far as it was asked."""
    return now if before is None or before.away_since is None else _moved(before.away_since, before, now)


def _moved(begun: datetime, before: Pending, now: datetime) -> datetime:
    """When something began, later by an absence: a time in which nobody came (the store was away, the process had
    died) says nothing of Azure."""
    absent = now - before.due
    return begun + absent if absent > _ABSENT else begun


def _pause(away: timedelta) -> float:
    """Seconds to the next try while Azure is away: soon at first, then every half minute."""
    return min(max(away.total_seconds() / 3, 1.0), 30.0)


def _start_problem(refused: Refusal, target: Target) -> Problem:
    """Judge a refused start; say so where the command may have been started although no answer says it."""
    fault = refused.fault
    met = word(fault)
    if fault.status is not None and 200 <= fault.status < 300:
        return replace(judge(fault, target), may_have_run=True)
    if met == "missing":
        return judge(replace(fault, code="vanished"), target)
    problem = judge(fault, target)
    if met in {"connection_lost", "server_error", "malformed", "extension_failed"}:
        return replace(
            problem, reason=f"{problem.reason} The command may have been started all the same.", may_have_run=True
        )
    return problem


@dataclass(frozen=True, slots=True)
class _Accepted:
    url: str
    look_after: float


async def _post(arm: Arm, node: Node, script: str) -> _Accepted | CommandResult | Refusal:
    """Send the command, when it is its turn; HeldBack where that is not soon."""
    try:
        async with asyncio.timeout(_MOST_CROWD):
            await arm.sending.acquire()
    except TimeoutError:
        return HeldBack(Fault(None, "throttled", "too many commands are being sent"), MOST_WAIT)
    try:
        return await _send(arm, node, script)
    finally:
        arm.sending.release()


async def _send(arm: Arm, node: Node, script: str) -> _Accepted | CommandResult | Refusal:
    async def call(version: str, options: Options) -> Reply | Refusal:
        from azure.mgmt.compute.models import RunCommandInput

        from shared.azure.pipeline import FirstAnswer, first_reply

        group, scale_set, machine = node.node_resource_group, node.scale_set, node.instance_id
        command = RunCommandInput(command_id="RunShellScript", script=[script])

        async def begin(first: FirstAnswer) -> None:
            more = {"polling": first, "api_version": version, **options}
            if node.single:
                checked(subscription=node.subscription, group=group, machine=machine)
                await arm.compute(node.subscription).virtual_machines.begin_run_command(group, machine, command, **more)
            else:
                checked(subscription=node.subscription, group=group, set=scale_set, instance=machine)
                await arm.compute(node.subscription).virtual_machine_scale_set_vms.begin_run_command(
                    group, scale_set, machine, command, **more
                )

        return await first_reply(begin, MOST_WAIT)

    # Never sent twice where Azure may have taken it.
    reply = await arm.sdk(Provider.COMPUTE, accepted_of, call, node.location, MOST_WAIT)
    if isinstance(reply, Refusal):
        return reply
    # `Location` ends as the result itself; the other address would need a second read for it.
    if url := reply.headers.get("location") or reply.headers.get("azure-asyncoperation"):
        return _Accepted(url, reply.asked)
    # The specification allows the result at once.
    answer = read_answer(reply.status, reply.content)
    if isinstance(answer, CommandResult):
        return answer
    if answer is None or answer.code == "malformed":
        text = "the command was accepted without its result or an address to ask for it"
        return Refusal(Fault(None, "malformed", text))
    return Refusal(replace(answer, status=reply.status))


async def look(arm: Arm, node: Node, pending: Pending) -> Pending | Ended:
    """Look once at a started command: its result, its problem, or when to look again.

    Our own deadline (counted from its start) ends it only where Azure says at or after it that it is still going. Azure
    that is away (no connection, no token, 5xx, 429) is looked past until AWAY_SECONDS after the deadline, or after it
    went away. What is not found is looked for once more: the answer may come from a replica that does not know it yet.
    Raises ValueError for a command that was not started.
    """
    if pending.started is None or not pending.url:
        raise ValueError("a command that was not started cannot be looked at")
    reply = await arm.look(pending.url, MOST_WAIT)
    now = datetime.now(UTC)
    if isinstance(reply, HeldBack):
        return replace(pending, due=now + timedelta(seconds=reply.asked))
    answer = read_answer(reply.status, reply.content) if isinstance(reply, Reply) else reply.fault
    if isinstance(answer, CommandResult):
        return answer
    asked = reply.asked
    settings = arm.settings
    end = pending.started + timedelta(seconds=settings.command_deadline_seconds)
    step = _step(settings.command_seconds, now - pending.started, pending.looks)
    due = now + timedelta(seconds=max(step, asked))
    if now < end:  # a last look comes at the deadline, and not much later
        due = min(due, max(end, now + timedelta(seconds=asked)))
    looked = replace(pending, due=due, looks=pending.looks + 1, refusals=0, away_since=None)
    target = Target("the node", POLL_ACTION, f"/subscriptions/{node.subscription}")
    limit = f"it took longer than {settings.command_deadline_seconds:g} s"
    if answer is None:
        return looked if now < end else _look_problem(Fault(None, "deadline", f"{limit}."), target)
    if word(answer) in {"unauthorized", "malformed"}:
        refusals = pending.refusals + 1
        return replace(looked, refusals=refusals) if refusals < _PATIENCE else _look_problem(answer, target)
    if passing(answer):
        away = _away_since(pending, now)
        if now < max(end, away) + timedelta(seconds=AWAY_SECONDS):
            return replace(pending, due=due, away_since=away)
        last = f", and the last look at it failed ({answer.code}: {answer.message})."
        return _look_problem(Fault(None, "deadline", limit + last), target)
    if answer.status == 404 and not pending.missed:
        return replace(looked, missed=True)
    return _look_problem(answer, target)


def _step(command_seconds: float, age: timedelta, looks: int) -> float:
    """Seconds to the next look: growing, but so that nobody waits long for a command that has ended."""
    return min(max(command_seconds * 0.4, 0.1) * 1.3 ** min(looks, 40), _STEP_YOUNG if age < _YOUNG else _STEP_OLD)


def _look_problem(fault: Fault, target: Target) -> Problem:
    return replace(judge(fault, target), may_have_run=True)


def read_answer(status: int, body: bytes) -> CommandResult | Fault | None:
    """What an answer to a look says: the result, a fault, or None where the command is still going.

    Both forms of the answer are understood: `Location`'s (202 until it ends as `{"value": […]}`, or with the status
    and error of a failure) and `Azure-AsyncOperation`'s (`{"status": …}`, ending with the result under
    `properties.output` or with `error`).
    """
    if len(body) > _LONGEST_ANSWER:
        return Fault(None, "malformed", f"{len(body)} bytes, where a result has some thousand")
    text = body.decode("utf-8", "replace")
    if status in {404, 410}:
        return replace(response_fault(status, text), code="expired")
    if status >= 300:
        return response_fault(status, text)
    if not text.strip():
        return None if status == 202 else Fault(None, "no_output", "an empty answer")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return Fault(None, "malformed", f"HTTP {status} with {len(body)} bytes that are not JSON")
    if not isinstance(answer, dict):
        return Fault(None, "malformed", f"HTTP {status} with JSON that is not an object")
    state = str(answer.get("status") or "").lower()
    failed = state in {"failed", "canceled", "cancelled"}
    error = body_error(answer if failed else {"error": answer.get("error")})
    if failed or error is not None:
        code, message = error or ("", "")
        return Fault(None, code or "OperationFailed", message or f"the operation ended as {state}")
    values = answer.get("value")
    if values is None:
        if status == 202 or state not in {"", "succeeded"}:
            return None
        output = _dict(_dict(answer.get("properties")).get("output"))
        values = output.get("value")
    return _result(values)


def _dict(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _result(values: object) -> CommandResult | Fault:
    first = _dict(values[0]) if isinstance(values, list) and values else {}
    message = first.get("message")
    code = str(first.get("code") or "")
    if not isinstance(message, str):
        return Fault(None, "no_output", "an answer without a message")
    if code and not code.lower().startswith("provisioningstate/succeeded"):
        return Fault(None, code, message)
    streams = split_message(message)
    if streams is None:
        return Fault(None, "did_not_finish" if "didn't finish" in message else "no_output", message)
    if not streams.stdout.strip() and not streams.stderr.strip():
        return Fault(None, "no_output", "nothing on either stream")
    return streams


def split_message(message: str) -> CommandResult | None:
    """The two streams in `Enable succeeded: \\n[stdout]\\n…\\n[stderr]\\n…`, or None where they are not there.

    Output may itself have a line `[stderr]`. The extension puts the streams in as they are, so the text alone cannot
    say which such line is its own. Only divisions that leave neither stream above the extension's 4,096 bytes are
    possible; of those the last is taken: then the whole of stdout is in what is called stdout, and nothing of it is
    cut. (A frame on stdout has its own length and digest, so text too many cannot pass for output.)
    """
    _, opened, rest = message.partition("[stdout]\n")
    if not opened:
        return None
    marker = "\n[stderr]\n"
    # An empty stdout leaves the marker right behind the opening line.
    text = "\n" + rest
    # Some answers end with the marker line itself, without the line end after it.
    if text.endswith("\n[stderr]"):
        text += "\n"
    divisions = []
    at = text.find(marker)
    while at >= 0:
        divisions.append(CommandResult(text[1:at] if at else "", text[at + len(marker) :]))
        at = text.find(marker, at + 1)
    if not divisions:
        return CommandResult(rest, "")
    possible = [division for division in divisions if _fits(division.stdout) and _fits(division.stderr)]
    return (possible or divisions)[-1]


def _fits(stream: str) -> bool:
    # A tail may begin inside a character, which arrives as one or more replacement characters for single bytes.
    return len(stream.encode("utf-8", "replace")) - 2 * stream.count("\ufffd") <= STREAM_LIMIT
