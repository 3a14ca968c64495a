"""Run command (the action, RunShellScript) on one instance: one POST, then as few looks at its result as it takes.

Sources: the REST operation "Virtual Machine Scale Set VMs - Run Command", Resource Manager's "Track asynchronous
operations", and the source of the extension that runs the script (Azure/run-command-extension-linux).
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import zlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shared.azure.problems import Fault, Target, body_error, fault_of, judge, passing, response_fault, word
from shared.azure.refusals import WAITED_FOR
from shared.azure.throttle import LONGEST_PAUSE, retry_after
from shared.azure.versions import Provider

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.azure.client import Azure
    from shared.models import Node, Problem

# The extension's limit on the script, counted on its base64 text.
SCRIPT_LIMIT = 256 * 1024
# What the extension returns of each stream at most: its last bytes.
STREAM_LIMIT = 4096

_ACTION = "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/runCommand/action"
_POLL_ACTION = "Microsoft.Compute/locations/operations/read"

# A result is 8 KiB of output, each byte of which JSON may write as six, in some more JSON; nothing bigger is read.
_LONGEST_ANSWER = 1 << 17
_LONGEST_STEP = 15.0
# How often a POST is repeated that Azure certainly did not take (429, no connection), besides waiting while busy.
_RESTARTS = 5
# How many looks in a row may be refused a token, or bring something unreadable, before it counts as the answer.
_PATIENCE = 3


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What arrived of a command's output: the last 4,096 bytes of each stream. Its exit status is never reported."""

    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Started:
    """A started command, to be stored and asked for again later. `url` is signed: keep it out of logs and histories.

    `at` is when Azure accepted it, `look_after` the seconds that Azure asked to wait before the first look. Where Azure
    answered with the result at once there is no `url`, but the `result`.
    """

    url: str = field(repr=False)
    at: datetime
    look_after: float = 0.0
    result: CommandResult | None = field(default=None, repr=False)


async def start(azure: Azure, node: Node, script: str) -> Started | Problem:
    """Send `script` to `node`; wait, bounded, while another command runs there or the node is coming up.

    It is sent again only where Azure certainly did not take it: busy (409), over a rate limit (429), an API version
    that this cloud does not know, or no connection at all. Raises ValueError where the script is too long for the
    extension, which would drop it silently.
    """
    if len(base64.b64encode(script.encode())) > SCRIPT_LIMIT:
        raise ValueError(f"the script has {len(script.encode())} bytes; its base64 text may have {SCRIPT_LIMIT}")
    target = Target("the node", _ACTION, node.id)
    loop = asyncio.get_running_loop()
    wait_until = loop.time() + azure.settings.busy_wait_seconds
    step = max(azure.settings.command_seconds / 2, 0.1)
    restarts = 0
    while True:
        version = azure.versions.of(Provider.COMPUTE)
        outcome = await _post(azure, node, script, version)
        if isinstance(outcome, Started):
            return outcome
        met = word(outcome)
        if met in WAITED_FOR and (left := wait_until - loop.time()) > 0:
            # Waiters on one node must not march in step: some jitter.
            await asyncio.sleep(min(left, step * random.uniform(0.8, 1.2)))  # noqa: S311
            step = min(step * 1.5, 30.0)
        elif met in {"throttled", "unreachable"} and restarts < _RESTARTS:
            restarts += 1
            # After a 429 the throttle holds the next try back for as long as Azure asked.
            await asyncio.sleep(0 if met == "throttled" else min(0.5 * 2**restarts, 8.0))
        elif not azure.versions.another(Provider.COMPUTE, version, outcome):
            return _start_problem(outcome, target)


def _start_problem(fault: Fault, target: Target) -> Problem:
    """Judge a refused start; say so where the command may have been started although no answer says it."""
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


async def _post(azure: Azure, node: Node, script: str, version: str) -> Started | Fault:
    from azure.core.exceptions import AzureError
    from azure.mgmt.compute.models import RunCommandInput

    from shared.azure.pipeline import FirstAnswer

    first = FirstAnswer()
    try:
        await azure.compute(node.subscription).virtual_machine_scale_set_vms.begin_run_command(
            node.node_resource_group,
            node.scale_set,
            node.instance_id,
            RunCommandInput(command_id="RunShellScript", script=[script]),
            polling=first,
            api_version=version,
            throttle_region=node.location,
        )
    except AzureError as error:
        return fault_of(error)
    except zlib.error as error:
        return Fault(None, "malformed", f"a body that cannot be unpacked: {error}")
    headers = {name.lower(): value for name, value in first.headers.items()}
    now = datetime.now(UTC)
    # `Location` ends as the result itself; the other address would need a second read for it.
    if url := headers.get("location") or headers.get("azure-asyncoperation"):
        return Started(url, now, min(retry_after(headers, now) or 0.0, LONGEST_PAUSE))
    # The specification allows the result at once.
    answer = read_answer(first.status_code, first.content)
    if isinstance(answer, CommandResult):
        return Started("", now, result=answer)
    if answer is None or answer.code == "malformed":
        return Fault(None, "malformed", "the command was accepted without its result or an address to ask for it")
    return replace(answer, status=first.status_code)


async def wait(azure: Azure, node: Node, started: Started) -> CommandResult | Problem:
    """Look at a started command until it has ended, or until our own deadline (counted from its start) is over.

    The first look comes when a command has usually ended, and always comes, however late the process is back.
    Faults that pass (no connection, 5xx, 429) are looked past until the deadline; what is not found is looked for once
    more, since the answer may come from a replica that does not know of it yet.
    """
    if started.result is not None:
        return started.result
    settings = azure.settings
    target = Target("the node", _POLL_ACTION, f"/subscriptions/{node.subscription}")
    end = started.at + timedelta(seconds=settings.command_deadline_seconds)
    look_at = started.at + timedelta(seconds=max(settings.command_seconds, started.look_after))
    step = max(settings.command_seconds * 0.4, 0.1)
    refusals = 0
    missed = False
    while True:
        await asyncio.sleep(max(0.0, (look_at - datetime.now(UTC)).total_seconds()))
        answer, asked = await _look(azure, started.url)
        if isinstance(answer, CommandResult):
            return answer
        if answer is not None:
            lasting = word(answer) in {"unauthorized", "credential", "malformed"}
            refusals = refusals + 1 if lasting else 0
            once_more = answer.status == 404 and not missed
            missed = missed or answer.status == 404
            if not (passing(answer) or lasting or once_more) or refusals >= _PATIENCE:
                return judge(answer, target)
        now = datetime.now(UTC)
        if now >= end:
            seconds = f"it took longer than {settings.command_deadline_seconds:g} s"
            last = f", and the last look at it failed ({answer.code}: {answer.message})" if answer is not None else ""
            return judge(Fault(None, "deadline", f"{seconds}{last}."), target)
        look_at = min(now + timedelta(seconds=max(step, asked)), end)
        step = min(step * 1.3, _LONGEST_STEP)


async def _look(azure: Azure, url: str) -> tuple[CommandResult | Fault | None, float]:
    """One look: the result, a fault or None (still going), and the seconds that Azure asks to wait."""
    from azure.core.exceptions import AzureError

    from shared.azure.pipeline import content_of

    try:
        response = await azure.look(url)
        content = await content_of(response)
    except AzureError as error:
        return fault_of(error), 0.0
    headers = {name.lower(): value for name, value in response.headers.items()}
    asked = min(retry_after(headers, datetime.now(UTC)) or 0.0, LONGEST_PAUSE)
    return read_answer(response.status_code, content), asked


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
    return sum(1 if letter == "\ufffd" else len(letter.encode("utf-8", "replace")) for letter in stream) <= STREAM_LIMIT
