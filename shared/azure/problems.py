"""Every way a call to Azure can go wrong, judged in one table: status, reason and what a person can do about it.

What Azure's codes and sentences mean is in `refusals`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shared.azure.refusals import CODES, SENTENCES
from shared.errors import GuardError
from shared.models import Problem, Status
from shared.plain import plain

_LONGEST_MESSAGE = 400
# Azure's longest messages list API versions and locations.
_LONGEST_READ = 16_000
# Error bodies nest their details; Azure's are two or three deep.
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong with one call, before it is judged.

    `status` is the HTTP status (None where no answer came), `code` Azure's error code or a word of our own (a key of
    the table below).
    """

    status: int | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Target:
    """What a call was for: `what` in words, the `action` its role needs, and the `scope` the role is needed on."""

    what: str
    action: str
    scope: str


class SubscriptionError(GuardError):
    """One subscription cannot be looked at; `problem` says why. The others can.

    `passing` says that the same call may well go through later.
    """

    def __init__(self, subscription: str, problem: Problem, *, passing: bool = False) -> None:
        super().__init__(f"subscription {subscription}: {problem.reason} {problem.hint}")
        self.subscription = subscription
        self.problem = problem
        self.passing = passing


_MAY_HAVE_RUN = "The command may have run all the same."
_AGAIN = "Run again."

# Our word → the finding's status, reason and hint. In the texts: {what}, {action}, {scope} of the target, {message}
# and {code} as Azure gave them.
_TABLE: dict[str, tuple[Status, str, str]] = {
    # The run command cannot be started now.
    "busy": (
        Status.ERROR,
        "{what} is busy with another run command, and stayed so as long as we were ready to wait: {message}",
        "Run again later. Where nothing is running on the node the state is stuck: run the command "
        "RemoveRunCommandLinuxExtension on the instance ({scope}) once.",
    ),
    "operation_going_on": (
        Status.ERROR,
        "another operation is going on with {what}, and did not end as long as we were ready to wait: {message}",
        "Run again when the operation (an upgrade, a scaling) has ended.",
    ),
    "platform_update": (
        Status.ERROR,
        "Azure is updating the platform under {what}, and did not end as long as we were ready to wait: {message}",
        "Run again later.",
    ),
    "preempted": (
        Status.ERROR,
        "another operation on {what} took the place of ours ({code}): {message}",
        "Run again when that operation (an upgrade, a scaling) has ended.",
    ),
    "starting": (
        Status.SKIPPED,
        "{what} is not up yet, and did not come up as long as we were ready to wait: {message}",
        "Run again in some minutes.",
    ),
    "not_running": (
        Status.SKIPPED,
        "{what} is not running: {message}",
        "Nothing to do while it is stopped; it is looked at by the next run after it has started.",
    ),
    "deleting": (
        Status.SKIPPED,
        "{what} is being deleted: {message}",
        "Nothing to do: the next run sees the nodes that are there then.",
    ),
    "vanished": (
        Status.SKIPPED,
        "{what} no longer exists: it was removed (scaled in, evicted or replaced) after it was listed. Azure says: "
        "{message}",
        "Nothing to do: the next run sees the nodes that are there then.",
    ),
    "locked": (
        Status.ERROR,
        "a deny assignment forbids run commands on {what}: its node resource group is under lockdown ({message}).",
        "The cluster's nodeResourceGroupProfile.restrictionLevel is ReadOnly (always so on AKS Automatic). On other "
        "clusters, set it to Unrestricted (az aks update --nrg-lockdown-restriction-level Unrestricted) to have nodes "
        "looked at.",
    ),
    "scope_locked": (
        Status.ERROR,
        "a read-only lock forbids run commands on {what}: {message}",
        "Remove the management lock from the node resource group, or accept that its nodes cannot be looked at.",
    ),
    "not_allowed": (
        Status.ERROR,
        "Azure does not allow it for {what} now: {message}",
        "Read Azure's message; run again when the cause is gone.",
    ),
    "conflict": (
        Status.ERROR,
        "another operation is going on with {what} ({code}): {message}",
        "Run again when the operation (an upgrade, a scaling) has ended.",
    ),
    # The run command was started, and did not come back with a result.
    "agent_silent": (
        Status.ERROR,
        "the VM agent of {what} does not answer: {message}",
        "Check that waagent (walinuxagent) runs on the node and reaches 168.63.129.16; reboot or reimage the node.",
    ),
    "command_failed": (
        Status.ERROR,
        "the run command on {what} failed ({code}): {message}",
        "Look at /var/log/azure/run-command/handler.log and /var/log/waagent.log on the node, and run again.",
    ),
    "extension_failed": (
        Status.ERROR,
        "Azure met an error of its own with the run command extension of {what} ({code}): {message}",
        "Run again; if it stays so, remove the extension: run the command RemoveRunCommandLinuxExtension on the "
        "instance ({scope}) once.",
    ),
    "did_not_finish": (
        Status.ERROR,
        "the run command on {what} was cut off (a reboot, or a restart of the VM agent, in the middle). "
        + _MAY_HAVE_RUN,
        _AGAIN,
    ),
    "no_output": (
        Status.ERROR,
        "the run command on {what} was reported as succeeded, but without any output. " + _MAY_HAVE_RUN,
        "Run again. If it stays so, look at /var/log/azure/run-command/handler.log on the node: its disk may be full, "
        "or scripts may be forbidden to run from /var/lib/waagent (noexec).",
    ),
    "deadline": (
        Status.ERROR,
        "no result of the run command on {what} arrived before our deadline: {message} " + _MAY_HAVE_RUN,
        "Check that the node can reach the internet on port 443 (the result is sent that way) and that its VM agent "
        "is ready; then run again.",
    ),
    "expired": (
        Status.ERROR,
        "Azure no longer knows the result of the run command on {what} ({code}): it has expired, or the node was "
        "removed meanwhile ({message}). " + _MAY_HAVE_RUN,
        _AGAIN,
    ),
    # A command invoked in a cluster.
    "invoke_disabled": (
        Status.ERROR,
        "command invoke is disabled on {what}: {message}",
        "Enable it (az aks update --enable-run-command), or look at the nodes by run command on the node.",
    ),
    "no_cluster_token": (
        Status.ERROR,
        "{what} uses Entra ID, and got no token for its API server with the command: {message}",
        "Run again: the cluster was changed after it was listed. The identity must be of the cluster's tenant.",
    ),
    "no_capacity": (
        Status.ERROR,
        "the command's pod did not start on {what}: no node had room for it, or every pool is tainted or not ready "
        "({code}: {message})",
        "Give a pool without taints room for a pod of 200 millicores and 500 MiB in the namespace aks-command; look at "
        "its events there.",
    ),
    "invoke_denied": (
        Status.ERROR,
        "a policy of {what} forbids the command's pod: {message}",
        "Exempt the namespace aks-command from the policy that the message names.",
    ),
    "invoke_failed": (
        Status.ERROR,
        "the command on {what} did not run to its end: {message}",
        "Run again; look at the pods in the namespace aks-command.",
    ),
    "invoke_deadline": (
        Status.ERROR,
        "no result of the command on {what} arrived before our deadline ({message}).",
        "Run again; look at the pods in the namespace aks-command.",
    ),
    # No permission.
    "forbidden": (
        Status.ERROR,
        "the identity may not do {action} on {scope}. Azure says: {message}",
        "Assign it a role that contains this action on the subscription (infra/ has both roles: one to read, one for "
        "run command). A new assignment takes some minutes to work.",
    ),
    "policy": (
        Status.ERROR,
        "an Azure policy forbids it for {what}: {message}",
        "Exempt the node resource group from the policy, or accept that its nodes cannot be looked at.",
    ),
    "unauthorized": (
        Status.ERROR,
        "Azure refused our token for {what} ({code}): {message}",
        'Run "az login" (for the right tenant), or check the managed identity (AZURE_CLIENT_ID) and the endpoint '
        "(GUARD_ARM_ENDPOINT).",
    ),
    "wrong_tenant": (
        Status.ERROR,
        "{what} belongs to another tenant than our token: {message}",
        "Use an identity of that tenant (az login --tenant), or take the subscription out of the list.",
    ),
    "credential": (
        Status.ERROR,
        "no token could be had for {what}: {message}",
        'Run "az login", or give the app a managed identity (AZURE_CLIENT_ID for a user-assigned one), or set '
        "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET.",
    ),
    # Not there.
    "subscription_missing": (
        Status.ERROR,
        "{what} is not known to Azure, or the identity has no role in it ({code}): {message}",
        "Check the id; assign the identity a role that contains {action} on {scope}.",
    ),
    "subscription_disabled": (
        Status.ERROR,
        "the subscription of {what} is disabled ({code}): {message}",
        "Enable the subscription again, or take it out of the list.",
    ),
    "missing": (
        Status.ERROR,
        "{what} does not exist ({code}): {message}",
        "It may have been deleted meanwhile; otherwise look at the cluster's state in Azure.",
    ),
    "not_found": (
        Status.ERROR,
        "Azure found nothing under the address of the call for {what} ({code}), which does not say that it is gone: "
        "{message}",
        "Run again; check GUARD_ARM_ENDPOINT and the proxy, and that this cloud has the operation.",
    ),
    "no_provider": (
        Status.ERROR,
        "the subscription of {what} is not allowed, or not registered, to use the resource provider ({code}): "
        "{message}",
        "Register the resource provider that Azure's message names (az provider register), or take the subscription "
        "out of the list.",
    ),
    "api_version": (
        Status.ERROR,
        "this cloud does not know the call for {what} in the API version that we speak, and offers no other "
        "({code}): {message}",
        "Check GUARD_ARM_ENDPOINT; a newer release of this program may know the cloud's versions.",
    ),
    # Trouble on the way, or in Azure.
    "throttled": (
        Status.ERROR,
        "Azure kept refusing calls for {what} because of its rate limits: {message}",
        "Run again later; look for other programs that call Azure for the same subscription.",
    ),
    "unreachable": (
        Status.ERROR,
        "Azure could not be reached for {what}: {message}",
        "Check the network, the proxy settings and GUARD_ARM_ENDPOINT; run again.",
    ),
    "untrusted": (
        Status.ERROR,
        "the endpoint's certificate is not trusted: {message}",
        "Check GUARD_ARM_ENDPOINT and the proxy; set SSL_CERT_FILE where a private authority signs.",
    ),
    "connection_lost": (
        Status.ERROR,
        "the connection broke before Azure's answer for {what} arrived: {message}",
        _AGAIN,
    ),
    "server_error": (
        Status.ERROR,
        "Azure failed to answer for {what} ({code}): {message}",
        "Run again later; look at Azure's status page.",
    ),
    "malformed": (
        Status.ERROR,
        "Azure's answer for {what} could not be read: {message}",
        "Run again; a proxy between here and Azure may be answering in its place.",
    ),
    "foreign_host": (
        Status.ERROR,
        "Azure's answer for {what} points to another host, which gets no token of ours: {message}",
        "Check GUARD_ARM_ENDPOINT: it must be the endpoint that Azure's own answers name.",
    ),
    "other": (
        Status.ERROR,
        "Azure refused the call for {what} ({code}): {message}",
        "Read Azure's message.",
    ),
}

# Codes that a 5xx carries when it speaks of Azure's own trouble rather than of an operation that failed.
_PASSING = {
    "",
    "badgateway",
    "gatewaytimeout",
    "internalerror",
    "internalservererror",
    "servertimeout",
    "serverbusy",
    "serviceunavailable",
    "retryableerror",
}


def word(fault: Fault) -> str:
    """The row of the table that judges `fault`."""
    code = fault.code.lower()
    if fault.code in _TABLE:
        return fault.code
    if code in CODES:
        return CODES[code]
    if fault.status == 429:
        return "throttled"
    # An extension's status (`ProvisioningState/failed/1`) quotes the node, not Azure: no sentence counts in it.
    if "/" in code:
        return "command_failed"
    if (met := next((met for sentence, met in SENTENCES if sentence.search(fault.message)), None)) is not None:
        return met
    if code == "operationnotallowed":
        return "not_allowed"
    match fault.status:
        case 401:
            return "unauthorized"
        # A proxy's page says nothing of roles.
        case 403 if code:
            return "forbidden"
        case 404:
            return "not_found"
        case 409:
            return "conflict"
        case status if status is not None and status >= 500:
            return "server_error"
        case _:
            return "other"


def passing(fault: Fault) -> bool:
    """Whether asking the same again may well be answered: no lasting answer was given."""
    if fault.status is None:
        return fault.code in {"unreachable", "connection_lost", "credential"}
    return fault.status in {401, 408, 429} or (fault.status >= 500 and fault.code.lower() in _PASSING)


def judge(fault: Fault, target: Target) -> Problem:
    """The problem that a finding reports for `fault`. Azure's own words are shortened, and no URL keeps its query."""
    row = word(fault)
    status, reason, hint = _TABLE[row]
    action, scope = _refused(fault.message) or (target.action, target.scope)
    values = {
        "what": target.what,
        "action": action,
        "scope": scope,
        "code": fault.code or f"HTTP {fault.status}",
        "message": tidy(fault.message),
    }
    return Problem(status, fault.code or row, reason.format(**values), hint.format(**values))


def _refused(message: str) -> tuple[str, str] | None:
    """The action and scope that an AuthorizationFailed message names: what Azure says beats what we think."""
    found = re.search(r"perform action '([\w./*]{1,200})' over scope '([^'\s]{1,500})'", message)
    return (found[1], found[2]) if found is not None else None


def tidy(message: str) -> str:
    """A message fit for one line of a report: plain characters, no queries of URLs (signatures), bounded."""
    message = message[: 10 * _LONGEST_MESSAGE]
    return plain(re.sub(r"(https?://[^\s?'\"]*)\?[^\s'\"]*", r"\1?…", " ".join(message.split())), _LONGEST_MESSAGE)


def body_error(body: object) -> tuple[str, str] | None:
    """Code and message of an error body, or None where it is none.

    Resource Manager's shape is `{"error": {"code", "message", "details": […]}}`; some providers leave out the envelope.
    The innermost detail is the root: its code counts (where it has one), and its text is kept after those around it.
    """
    envelope = _field(body, "error")
    levels = list(_levels(envelope if envelope is not None else body))
    code = next((code for code, _ in reversed(levels) if code), "")
    texts = list(dict.fromkeys(text for _, text in levels if text))
    return (code, ": ".join(text.rstrip(":") for text in texts)) if code or texts else None


def _levels(error: object) -> Iterator[tuple[str, str]]:
    """Code and message of an error and of its first detail, and that one's, and so on, from the outside in."""
    for _ in range(_DEEPEST):
        if isinstance(error, str):
            yield "", _word(error)
        if not isinstance(error, Mapping):
            return
        yield _word(_field(error, "code")), _word(_field(error, "message"))
        details = _field(error, "details")
        error = (
            next((item for item in details if isinstance(item, Mapping)), None) if isinstance(details, list) else None
        )


def _field(body: object, name: str) -> object:
    """A field of an object whatever the case of its name: not all providers spell it as Resource Manager does."""
    if not isinstance(body, Mapping):
        return None
    return next((value for key, value in body.items() if isinstance(key, str) and key.lower() == name), None)


def _word(value: object) -> str:
    return value[:_LONGEST_READ].strip() if isinstance(value, str) else ""


def response_fault(status: int, text: str) -> Fault:
    """The fault that an answer with an error status stands for; what is not JSON keeps its text without its markup."""
    try:
        body: object = json.loads(text)
    except (ValueError, RecursionError):
        words = " ".join(re.sub(r"<[^<>]*>", " ", text[:_LONGEST_READ]).split())
        return Fault(status, "", f"HTTP {status}: {words}" if words else f"HTTP {status}")
    code, message = body_error(body) or ("", "")
    return Fault(status, code, message or f"HTTP {status}")
