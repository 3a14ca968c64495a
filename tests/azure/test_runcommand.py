"""Run command against a real TLS server: how many requests, and every way it can go wrong."""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import TypeAdapter

from shared.azure import AWAY_SECONDS, Azure, CommandResult, Pending
from shared.azure.problems import Fault
from shared.azure.replies import Refusal
from shared.azure.runcommand import untaken
from shared.models import Node, Problem, Status
from shared.settings import Settings
from tests.support.arm import SUBSCRIPTION, Answer, Arm, Seen, Token, accepted, error, message, result

BUSY = error(
    "Conflict",
    "Run command extension execution is in progress. Please wait for completion before invoking a run command.",
)
BUSY_FAULT = Fault(409, "Conflict", "Run command extension execution is in progress. Please wait for completion.")
ADAPTER = TypeAdapter(Pending)
FRAME = "H4sIAAAA\nend\n"
POST = "/runcommand"


async def begin(azure: Azure, node: Node, script: str = "true") -> Pending | CommandResult | Problem:
    """Try until the command is started, or has ended."""
    outcome = await azure.start(node, script, None, azure.settings.command_seconds)
    while isinstance(outcome, Pending) and not outcome.url:
        await until(outcome)
        outcome = await azure.start(node, script, outcome, azure.settings.command_seconds)
    return outcome


async def end(azure: Azure, node: Node, outcome: Pending | CommandResult | Problem) -> CommandResult | Problem:
    """Look until it has ended."""
    while isinstance(outcome, Pending):
        await until(outcome)
        outcome = await azure.look(node, outcome)
    return outcome


async def until(pending: Pending) -> None:
    await asyncio.sleep(max(0.0, (pending.due - datetime.now(UTC)).total_seconds()))


async def run(azure: Azure, node: Node, script: str = "#!/bin/sh\necho hi\n") -> CommandResult | Problem:
    return await end(azure, node, await begin(azure, node, script))


def polls(arm: Arm, *answers: Answer) -> None:
    """Script the looks: every operation's address ends in a new id, so match by prefix."""
    queue = list(answers)

    def answer(seen: Seen) -> Answer:
        return queue.pop(0) if len(queue) > 1 else queue[0]

    arm.scripts["GET", ""] = answer


async def test_one_post_and_one_look(arm: Arm, azure: Azure, node: Node, token: Token) -> None:
    arm.on("POST", POST, accepted())
    polls(arm, Answer(200, result(message(FRAME, "a warning"))))
    outcome = await run(azure, node, "#!/bin/sh\necho 'ä'\n")
    assert outcome == CommandResult(FRAME, "a warning")
    assert [seen.method for seen in arm.seen] == ["POST", "GET"]
    post, look = arm.seen
    assert post.body == {"commandId": "RunShellScript", "script": ["#!/bin/sh\necho 'ä'\n"]}
    assert post.path == (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{node.node_resource_group}/providers/Microsoft.Compute"
        f"/virtualMachineScaleSets/{node.scale_set}/virtualMachines/0/runCommand"
    )
    assert look.query["monitor"] == "true"
    assert look.at - post.at >= azure.settings.command_seconds - 0.02
    assert look.headers["Authorization"] == "Bearer t0ken"
    assert token.asked == [(f"{arm.base}/.default",)]
    assert azure.stats.calls == {"run_command": 1, "poll": 1}


async def test_a_slower_command_takes_two_looks(arm: Arm, azure: Azure, node: Node) -> None:
    arm.on("POST", POST, accepted())
    polls(arm, Answer(202, headers={"Location": "{base}/elsewhere"}), Answer(200, result(message(FRAME))))
    assert await run(azure, node) == CommandResult(FRAME, "")
    assert (arm.count("POST"), arm.count("GET")) == (1, 2)


async def test_a_longer_retry_after_is_respected(arm: Arm, azure: Azure, node: Node) -> None:
    arm.on("POST", POST, accepted(**{"Retry-After": "1"}))
    polls(arm, Answer(200, result(message(FRAME))))
    assert isinstance(await run(azure, node), CommandResult)
    assert arm.seen[1].at - arm.seen[0].at >= 0.98


async def test_an_answer_in_progress_with_200_is_not_the_end(arm: Arm, azure: Azure, node: Node) -> None:
    arm.on("POST", POST, accepted())
    polls(arm, Answer(200, {"status": "InProgress"}), Answer(200, result(message(FRAME))))
    assert isinstance(await run(azure, node), CommandResult)


async def test_the_other_address_serves_where_location_is_missing(arm: Arm, azure: Azure, node: Node) -> None:
    reply = accepted()
    del reply.headers["Location"]
    arm.on("POST", POST, reply)
    polls(
        arm,
        Answer(200, {"status": "InProgress"}),
        Answer(200, {"status": "Succeeded", "properties": {"output": result(message(FRAME))}}),
    )
    assert await run(azure, node) == CommandResult(FRAME, "")


async def test_a_started_command_is_waited_for_by_another_client(
    arm: Arm, azure: Azure, node: Node, token: Token
) -> None:
    arm.on("POST", POST, accepted())
    polls(arm, Answer(200, result(message(FRAME))))
    started = await begin(azure, node)
    assert isinstance(started, Pending)
    # Long after the deadline, and through the store: the result is asked for all the same.
    late = replace(started, started=datetime.now(UTC) - timedelta(hours=1))
    stored = ADAPTER.validate_json(ADAPTER.dump_json(late))
    assert stored == late
    async with Azure(azure.settings, token) as other:
        assert await other.look(node, stored) == CommandResult(FRAME, "")
    assert arm.count("POST") == 1


async def test_a_signed_address_is_in_no_repr_and_no_log(
    arm: Arm, azure: Azure, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    arm.on("POST", POST, accepted())
    polls(arm, Answer(200, result(message("node output"))))
    started = await begin(azure, node)
    assert isinstance(started, Pending)
    await end(azure, node, started)
    assert "SIGNATURE" in started.url
    assert "SIGNATURE" not in repr(started)
    for secret in ("SIGNATURE", "t0ken", "node output"):
        assert secret not in caplog.text


@pytest.mark.parametrize("after", ["1", "Wed, 21 Oct 2015 07:28:00 GMT", "0.5", "soon", "9" * 400, ""])
async def test_an_accepted_command_is_not_lost_for_its_retry_after(
    arm: Arm, azure: Azure, node: Node, after: str
) -> None:
    arm.on("POST", POST, accepted(**{"Retry-After": after}))
    assert isinstance(await begin(azure, node), Pending)


async def test_a_result_at_once_needs_no_look(arm: Arm, azure: Azure, node: Node) -> None:
    arm.on("POST", POST, Answer(200, result(message(FRAME, "x"))))
    assert await azure.start(node, "true", None, 1) == CommandResult(FRAME, "x")
    assert len(arm.seen) == 1


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Answer(200, result("Enable failed: no", "ProvisioningState/failed/3")), "ProvisioningState/failed/3"),
        (Answer(200, result(message("", ""))), "no_output"),
        (Answer(200, {"value": None}), "no_output"),
        (Answer(200, text="<html>"), "malformed"),
        (Answer(200, text=""), "no_output"),
        (Answer(200, text="no gzip", headers={"Content-Encoding": "gzip"}), "malformed"),
        (Answer(204), "malformed"),
    ],
)
async def test_a_failure_at_once_may_have_run(arm: Arm, azure: Azure, node: Node, reply: Answer, code: str) -> None:
    arm.on("POST", POST, reply)
    outcome = await azure.start(node, "true", None, 1)
    assert isinstance(outcome, Problem)
    assert (outcome.status, outcome.code, outcome.may_have_run) == (Status.ERROR, code, True)
    assert len(arm.seen) == 1


async def test_a_refused_token_is_asked_for_anew_once(arm: Arm, azure: Azure, node: Node, token: Token) -> None:
    arm.on("POST", POST, Answer(401, error("ExpiredAuthenticationToken")), accepted())
    assert isinstance(await begin(azure, node), Pending)
    assert len(token.asked) == 2
    assert arm.seen[0].body == arm.seen[1].body
    assert azure.stats.calls == {"run_command": 2}, "the second one takes its tokens of the limits too"


async def test_busy_is_waited_for(arm: Arm, azure: Azure, node: Node) -> None:
    arm.on("POST", POST, Answer(409, BUSY), Answer(409, BUSY), accepted())
    polls(arm, Answer(200, result(message(FRAME))))
    assert isinstance(await run(azure, node), CommandResult)
    assert arm.count("POST") == 3


async def test_busy_is_waited_for_only_so_long(arm: Arm, azure: Azure, node: Node) -> None:
    arm.on("POST", POST, Answer(409, BUSY, {"Retry-After": "600"}))
    outcome = await run(azure, node)
    assert isinstance(outcome, Problem)
    assert outcome.status is Status.ERROR
    assert "RemoveRunCommandLinuxExtension" in outcome.hint
    assert arm.seen[-1].at - arm.seen[0].at < 4
    assert arm.count("POST") <= 8


AUTHORIZATION = (
    "The client 'x' with object id 'y' does not have authorization to perform action "
    "'Microsoft.Compute/virtualMachineScaleSets/virtualMachines/runCommand/action' over scope "
    f"'/subscriptions/{SUBSCRIPTION}/a' "
    "or the scope is invalid."
)


@pytest.mark.parametrize(
    ("reply", "status", "code", "words"),
    [
        (
            Answer(409, error("OperationNotAllowed", "Cannot modify extensions in the VM when the VM is not running.")),
            Status.SKIPPED,
            "OperationNotAllowed",
            "not running",
        ),
        (
            Answer(409, error("OperationNotAllowed", "The quota is used up.")),
            Status.ERROR,
            "OperationNotAllowed",
            "quota",
        ),
        (Answer(409, error("AttachDiskWhileBeingDetached")), Status.ERROR, "AttachDiskWhileBeingDetached", "another"),
        (Answer(409, error("ScopeLocked", "locked")), Status.ERROR, "ScopeLocked", "lock"),
        (Answer(404, error("ResourceNotFound", "gone")), Status.SKIPPED, "vanished", "no longer exists"),
        (Answer(404, error("ParentResourceNotFound", "gone")), Status.SKIPPED, "vanished", "no longer exists"),
        (
            Answer(
                400,
                error(
                    "InvalidParameter",
                    "The provided instanceId 0 is not an active Virtual Machine Scale Set VM instanceId.",
                ),
            ),
            Status.SKIPPED,
            "InvalidParameter",
            "no longer exists",
        ),
        (
            Answer(403, error("DenyAssignmentAuthorizationFailed", "denied")),
            Status.ERROR,
            "DenyAssignmentAuthorizationFailed",
            "lockdown",
        ),
        (
            Answer(403, error("AuthorizationFailed", AUTHORIZATION)),
            Status.ERROR,
            "AuthorizationFailed",
            "runCommand/action",
        ),
        (Answer(403, error("RequestDisallowedByPolicy", "no")), Status.ERROR, "RequestDisallowedByPolicy", "policy"),
        (Answer(401, error("ExpiredAuthenticationToken", "old")), Status.ERROR, "ExpiredAuthenticationToken", "token"),
        (Answer(404, error("SubscriptionNotFound")), Status.ERROR, "SubscriptionNotFound", "not known"),
        (Answer(307, headers={"Location": "https://evil.example/"}), Status.ERROR, "other", "HTTP 307"),
    ],
)
async def test_a_refused_start_is_a_problem(
    arm: Arm, azure: Azure, node: Node, reply: Answer, status: Status, code: str, words: str
) -> None:
    arm.on("POST", POST, reply)
    outcome = await run(azure, node)
    assert isinstance(outcome, Problem)
    assert (outcome.status, outcome.code) == (status, code)
    assert words in outcome.reason
    assert outcome.hint
    # A refused token is asked for anew, once, and that three times.
    assert len(arm.seen) == (6 if reply.status == 401 else 1)


async def test_the_missing_role_is_named_as_azure_names_it(arm: Arm, azure: Azure, node: Node) -> None:
    arm.on("POST", POST, Answer(403, error("AuthorizationFailed", AUTHORIZATION)))
    outcome = await run(azure, node)
    assert isinstance(outcome, Problem)
    assert f"/subscriptions/{SUBSCRIPTION}/a." in outcome.reason


@pytest.mark.parametrize(
    "reply",
    [
        Answer(500, error("InternalServerError", "oops")),
        Answer(503, error("ServiceUnavailable", "oops"), {"Retry-After": "1"}),
        Answer(504, text="<html>gateway</html>"),
        Answer(drop=True),
        Answer(202),
    ],
)
async def test_a_start_that_may_have_been_taken_is_not_sent_again(
    arm: Arm, azure: Azure, node: Node, reply: Answer
) -> None:
    arm.on("POST", POST, reply)
    outcome = await run(azure, node)
    assert isinstance(outcome, Problem)
    assert outcome.status is Status.ERROR
    assert "may have been started" in outcome.reason
    assert arm.count("POST") == 1


UNKNOWN = [
    Answer(500, error("InternalServerError", "oops")),
    Answer(503, error("ServiceUnavailable", "oops")),
    Answer(504, text="<html>gateway</html>"),
    Answer(drop=True),
    Answer(200, text="{not json"),
    Answer(202),
]


@pytest.mark.parametrize("reply", UNKNOWN)
async def test_a_harmless_start_outlasts_azure_that_is_away(arm: Arm, azure: Azure, node: Node, reply: Answer) -> None:
    """It is sent until an answer says what became of it, however often and long that takes."""
    arm.on("POST", POST, reply)
    now = datetime.now(UTC)
    tried: Pending | None = None
    for number in range(1, 4):
        outcome = await azure.start(node, "true", tried, 1, harmless=True)
        assert isinstance(outcome, Pending)
        assert (outcome.url, outcome.started, outcome.tries) == ("", None, number)
        assert outcome.away_since is not None
        tried = replace(outcome, away_since=outcome.away_since - timedelta(seconds=200))
    assert tried is not None
    assert arm.count("POST") == 3
    assert 20 < (tried.due - now).total_seconds() < 40, "the pauses grow"
    arm.on("POST", POST, accepted())
    started = await azure.start(node, "true", tried, 1, harmless=True)
    assert isinstance(started, Pending)
    assert (started.url != "", started.away_since) == (True, None)


@pytest.mark.parametrize("reply", UNKNOWN)
async def test_a_harmless_start_is_given_up_too(arm: Arm, azure: Azure, node: Node, reply: Answer) -> None:
    arm.on("POST", POST, reply)
    now = datetime.now(UTC)
    away = Pending(now, now, tries=30, away_since=now - timedelta(seconds=AWAY_SECONDS))
    outcome = await azure.start(node, "true", away, 1, harmless=True)
    assert isinstance(outcome, Problem)
    assert (outcome.status, outcome.may_have_run) == (Status.ERROR, True)


@pytest.mark.parametrize("reply", UNKNOWN)
async def test_azure_is_not_away_while_nobody_asks(arm: Arm, azure: Azure, node: Node, reply: Answer) -> None:
    """The store was away for longer than Azure may be, between two tries."""
    arm.on("POST", POST, reply)
    now = datetime.now(UTC)
    away = timedelta(seconds=AWAY_SECONDS)
    first = Pending(now - away, now - away, tries=1, away_since=now - away - timedelta(seconds=1))
    outcome = await azure.start(node, "true", first, 1, harmless=True)
    assert isinstance(outcome, Pending)
    assert outcome.away_since is not None
    assert outcome.due - outcome.away_since < timedelta(seconds=60)


async def test_a_harmless_start_whose_answer_was_lost_finds_the_node_busy(arm: Arm, azure: Azure, node: Node) -> None:
    arm.on("POST", POST, Answer(drop=True), Answer(409, BUSY), Answer(409, BUSY), accepted())
    polls(arm, Answer(200, result(message(FRAME))))
    outcome = await azure.start(node, "true", None, 0.1, harmless=True)
    assert isinstance(outcome, Pending)
    assert outcome.away_since is not None
    busy = await azure.start(node, "true", outcome, 0.1, harmless=True)
    assert isinstance(busy, Pending)
    assert (busy.url, busy.away_since, busy.since > outcome.since) == ("", None, True)
    while isinstance(busy, Pending) and not busy.url:
        await until(busy)
        busy = await azure.start(node, "true", busy, 0.1, harmless=True)
    assert await end(azure, node, busy) == CommandResult(FRAME, "")
    assert arm.count("POST") == 4


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Answer(500, error("VMAgentStatusCommunicationError", "silent")), "VMAgentStatusCommunicationError"),
        (Answer(500, error("VMExtensionManagementInternalError", "x")), "VMExtensionManagementInternalError"),
        (Answer(500, error("SomethingOfTheNode", "x")), "SomethingOfTheNode"),
        (Answer(403, error("AuthorizationFailed", AUTHORIZATION)), "AuthorizationFailed"),
        (Answer(200, result("Enable failed: no", "ProvisioningState/failed/3")), "ProvisioningState/failed/3"),
        (Answer(200, result(message("", ""))), "no_output"),
    ],
)
async def test_an_answer_about_the_node_ends_a_harmless_start(
    arm: Arm, azure: Azure, node: Node, reply: Answer, code: str
) -> None:
    arm.on("POST", POST, reply)
    outcome = await azure.start(node, "true", None, 1, harmless=True)
    assert isinstance(outcome, Problem)
    assert (outcome.code, arm.count("POST")) == (code, 1)


async def test_a_refusal_for_the_rate_is_repeated_as_azure_asks(arm: Arm, azure: Azure, node: Node) -> None:
    arm.on("POST", POST, Answer(429, error("TooManyRequests"), {"x-ms-retry-after-ms": "300"}), accepted())
    polls(arm, Answer(200, result(message(FRAME))))
    assert isinstance(await run(azure, node), CommandResult)
    assert arm.seen[1].at - arm.seen[0].at >= 0.3
    assert azure.stats.refused == 1
    assert azure.stats.waits >= 1


async def test_one_try_never_waits_for_what_it_met(arm: Arm, azure: Azure, node: Node) -> None:
    """Each try is one request and says when to try again; the next one takes its count from there."""
    limited = Answer(429, error("OperationNotAllowed", "limit"), {"Retry-After": "40"})
    tried: Pending | None = None
    for number, (reply, seconds) in enumerate(((Answer(409, BUSY), 0.1), (limited, 40.0)), start=1):
        arm.on("POST", POST, reply)
        before = datetime.now(UTC)
        outcome = await azure.start(node, "true", tried, 1)
        assert isinstance(outcome, Pending)
        assert (outcome.url, outcome.started, outcome.tries) == ("", None, number)
        # From its answer on, which came somewhere in between.
        assert (outcome.due - before).total_seconds() >= seconds * 0.5
        assert (outcome.due - datetime.now(UTC)).total_seconds() <= seconds * 1.5
        assert len(arm.seen) == number
        tried = outcome
    # The next one finds our own limits in a pause: it is told so, and nothing is sent.
    assert tried is not None
    again = await azure.start(node, "true", tried, 1)
    assert isinstance(again, Pending)
    assert (again.due - tried.due).total_seconds() == pytest.approx(0, abs=3)
    assert replace(again, due=tried.due) == tried
    assert len(arm.seen) == 2


async def test_what_has_kept_azure_away_for_too_long_is_an_error(arm: Arm, azure: Azure, node: Node) -> None:
    arm.on("POST", POST, Answer(429, error("OperationNotAllowed", "limit"), {"retry-after-ms": "10"}))
    now = datetime.now(UTC)
    away = Pending(now, now, tries=30, away_since=now - timedelta(seconds=AWAY_SECONDS - 60))
    kept = await azure.start(node, "true", away, 1)
    assert isinstance(kept, Pending)
    assert kept.away_since == away.away_since
    await until(kept)
    gone = replace(kept, away_since=now - timedelta(seconds=AWAY_SECONDS))
    outcome = await azure.start(node, "true", gone, 1)
    assert isinstance(outcome, Problem)
    assert (outcome.status, outcome.may_have_run) == (Status.ERROR, False)
    assert "rate limits" in outcome.reason


async def test_a_node_that_is_busy_after_an_outage_has_all_its_time(arm: Arm, azure: Azure, node: Node) -> None:
    arm.on("POST", POST, Answer(409, BUSY))
    now = datetime.now(UTC)
    old = now - timedelta(seconds=600)
    outcome = await azure.start(node, "true", Pending(now, old, tries=20, away_since=old), 1)
    assert isinstance(outcome, Pending)
    assert outcome.since >= now
    assert outcome.away_since is None
    outcome = await azure.start(node, "true", Pending(now, old, tries=20), 1)
    assert isinstance(outcome, Problem)


@pytest.mark.parametrize(
    "met",
    [
        Fault(429, "OperationNotAllowed", "limit"),
        Fault(503, "ServiceUnavailable", "away"),
        Fault(401, "ExpiredAuthenticationToken", "expired"),
    ],
)
@pytest.mark.parametrize("every", [2, 4])
def test_a_node_that_is_busy_in_turns_with_other_trouble_is_not_tried_for_ever(met: Fault, every: int) -> None:
    settings = Settings()
    refusals = itertools.cycle([*[BUSY_FAULT] * (every - 1), met])
    now = began = datetime.now(UTC)
    tried = untaken(settings, None, Refusal(next(refusals)), now, harmless=True)
    slept = timedelta()
    while tried is not None:
        now = tried.due
        if slept == timedelta() and now - began > timedelta(seconds=300):
            slept = timedelta(hours=2)  # nobody came meanwhile, which is nothing that Azure answered
            now += slept
        tried = ADAPTER.validate_json(ADAPTER.dump_json(tried, exclude_defaults=True))
        tried = untaken(settings, tried, Refusal(next(refusals)), now, harmless=True)
    most = AWAY_SECONDS + settings.busy_wait_seconds
    assert most <= (now - began - slept).total_seconds() < most + 60


def test_a_try_that_was_stored_without_its_first_one_has_all_the_time() -> None:
    now = datetime.now(UTC)
    stored = ADAPTER.validate_json(f'{{"due": "{now.isoformat()}", "since": "{now.isoformat()}", "tries": 3}}')
    tried = untaken(Settings(), stored, Refusal(BUSY_FAULT), now, harmless=True)
    assert tried is not None
    assert tried.first == now


async def test_no_connection_is_no_started_command(token: Token, node: Node) -> None:
    nowhere = Settings(arm_endpoint="https://localhost:1", command_seconds=0.1, busy_wait_seconds=0)
    async with Azure(nowhere, token) as client:
        pending = await client.start(node, "true", None, 1)
        assert isinstance(pending, Pending)
        assert pending.away_since is not None
        long_ago = replace(pending, away_since=pending.away_since - timedelta(seconds=AWAY_SECONDS))
        outcome = await client.start(node, "true", long_ago, 1)
    assert isinstance(outcome, Problem)
    assert outcome.code == "unreachable"
    assert "started" not in outcome.reason


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        (
            Answer(
                200, {"status": "Failed", "error": {"code": "VMAgentStatusCommunicationError", "message": "silent"}}
            ),
            "VMAgentStatusCommunicationError",
            "agent",
        ),
        (Answer(409, error("VMAgentStatusCommunicationError", "silent")), "VMAgentStatusCommunicationError", "agent"),
        (Answer(500, error("VMAgentStatusCommunicationError", "silent")), "VMAgentStatusCommunicationError", "agent"),
        (Answer(409, error("VMExtensionProvisioningError", "bad")), "VMExtensionProvisioningError", "failed"),
        (
            Answer(200, result("Enable failed: no", "ProvisioningState/failed/3")),
            "ProvisioningState/failed/3",
            "failed",
        ),
        (Answer(200, result("Enable succeeded: Last script execution didn't finish.")), "did_not_finish", "cut off"),
        (Answer(200, result("Enable succeeded: ")), "no_output", "without any output"),
        (Answer(200, result(message("", ""))), "no_output", "without any output"),
        (Answer(200, {"value": []}), "no_output", "without any output"),
        (Answer(200, {"value": None, "status": "Succeeded"}), "no_output", "without any output"),
        (Answer(200, {"status": "Canceled"}), "OperationFailed", "canceled"),
        (Answer(404, error("NotFound", "x")), "expired", "no longer knows"),
        (Answer(410, text=""), "expired", "no longer knows"),
        (Answer(403, error("AuthorizationFailed", "x")), "AuthorizationFailed", "locations/operations/read"),
    ],
)
async def test_a_failed_command_is_a_problem_without_further_looks(
    arm: Arm, azure: Azure, node: Node, reply: Answer, code: str, words: str
) -> None:
    arm.on("POST", POST, accepted())
    polls(arm, reply)
    outcome = await run(azure, node)
    assert isinstance(outcome, Problem)
    assert (outcome.status, outcome.code) == (Status.ERROR, code)
    assert words in outcome.reason
    assert outcome.hint
    assert arm.count("GET") == (2 if reply.status == 404 else 1)


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(500, error("InternalServerError")),
        Answer(503, text="<html>"),
        Answer(429, error("TooManyRequests"), {"retry-after-ms": "10"}),
        Answer(drop=True),
        Answer(200, text="{not json"),
        Answer(401, error("ExpiredAuthenticationToken")),
    ],
)
async def test_trouble_while_polling_passes(arm: Arm, azure: Azure, node: Node, trouble: Answer) -> None:
    arm.on("POST", POST, accepted())
    polls(arm, trouble, trouble, Answer(200, result(message(FRAME))))
    assert await run(azure, node) == CommandResult(FRAME, "")
    # A look that is refused its token has a second try of its own.
    assert (arm.count("POST"), arm.count("GET")) == (1, 3)


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (Answer(200, text="{not json"), "malformed"),
        (Answer(200, [1]), "malformed"),
        (Answer(200, text="no gzip", headers={"Content-Encoding": "gzip"}), "malformed"),
        (Answer(200, text="x" * 1_100_000), "malformed"),
        (Answer(401, error("InvalidAuthenticationToken")), "InvalidAuthenticationToken"),
    ],
)
async def test_trouble_that_stays_is_not_looked_at_forever(
    arm: Arm, azure: Azure, node: Node, trouble: Answer, code: str
) -> None:
    arm.on("POST", POST, accepted())
    polls(arm, trouble)
    outcome = await run(azure, node)
    assert isinstance(outcome, Problem)
    assert outcome.code == code
    assert arm.count("GET") == (6 if trouble.status == 401 else 3)


async def test_a_command_that_never_ends_meets_our_deadline(arm: Arm, azure: Azure, node: Node) -> None:
    arm.on("POST", POST, accepted())
    polls(arm, Answer(202))
    outcome = await run(azure, node)
    assert isinstance(outcome, Problem)
    assert (outcome.status, outcome.code, outcome.may_have_run) == (Status.ERROR, "deadline", True)
    assert "may have run" in outcome.reason
    assert "1.5 s" in outcome.reason
    assert "443" in outcome.hint
    assert 1.5 <= arm.seen[-1].at - arm.seen[0].at < 5


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(500, error("InternalServerError", "oops")),
        Answer(429, error("TooManyRequests"), {"retry-after-ms": "10"}),
        Answer(drop=True),
    ],
)
async def test_azure_that_is_away_ends_no_command_that_may_have_ended(
    arm: Arm, azure: Azure, node: Node, trouble: Answer
) -> None:
    """Neither at the deadline, nor for a process that comes back long after it."""
    arm.on("POST", POST, accepted())
    started = await begin(azure, node)
    assert isinstance(started, Pending)
    assert started.started is not None
    ago = timedelta(seconds=AWAY_SECONDS + 600)
    late = replace(started, started=started.started - ago, looks=9)
    polls(arm, trouble)
    away = await azure.look(node, late)
    assert isinstance(away, Pending)
    assert away.away_since is not None
    await until(replace(away, due=min(away.due, datetime.now(UTC) + timedelta(seconds=0.1))))
    given_up = await azure.look(node, replace(away, away_since=away.away_since - ago))
    assert isinstance(given_up, Problem)
    assert given_up.code == "deadline"
    polls(arm, Answer(200, result(message(FRAME))))
    assert await azure.look(node, away) == CommandResult(FRAME, "")


async def test_looks_come_closer_together_than_a_run_may_end_late(arm: Arm, node: Node, token: Token) -> None:
    arm.on("POST", POST, accepted())
    polls(arm, Answer(202))
    async with Azure(Settings(arm_endpoint=arm.base), token) as azure:
        started = await azure.start(node, "true", None, 30)
        assert isinstance(started, Pending)
        assert started.started is not None
        assert (started.due - started.started).total_seconds() == 30
        for age, looks, step in ((30, 0, 8.8), (40, 1, 11.4), (60, 9, 12), (119, 30, 12), (200, 40, 15), (599, 9, 1)):
            then = datetime.now(UTC) - timedelta(seconds=age)
            outcome = await azure.look(node, replace(started, started=then, looks=looks))
            looked = datetime.now(UTC)  # a slow machine took its time in between
            assert isinstance(outcome, Pending)
            assert (outcome.due - then).total_seconds() - age >= step - 0.5
            assert (outcome.due - looked).total_seconds() <= step + 0.5
            assert outcome.looks == looks + 1


async def test_what_was_not_started_cannot_be_looked_at(azure: Azure, node: Node) -> None:
    now = datetime.now(UTC)
    with pytest.raises(ValueError, match="not started"):
        await azure.look(node, Pending(now, now))


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/x",
        "https://localhost.evil.example/x",
        "https://127.0.0.1:1/x",
        "http://localhost/x",
        "https://user@localhost/x",
    ],
)
async def test_no_token_goes_to_another_host(arm: Arm, azure: Azure, node: Node, address: str) -> None:
    arm.on("POST", POST, accepted(Location=address + "?secret=1"))
    outcome = await run(azure, node)
    assert isinstance(outcome, Problem)
    assert outcome.code == "foreign_host"
    assert "secret" not in outcome.reason
    assert len(arm.seen) == 1


async def test_a_script_that_the_extension_would_drop_is_refused(arm: Arm, azure: Azure, node: Node) -> None:
    with pytest.raises(ValueError, match="base64"):
        await azure.start(node, "x" * 200_000, None, 1)
    assert not arm.seen
