"""Reading answers and judging faults: the pure parts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.azure.pipeline import same_service
from shared.azure.problems import _TABLE, Fault, Target, judge, passing, response_fault, tidy, word
from shared.azure.runcommand import STREAM_LIMIT, CommandResult, read_answer, split_message
from shared.models import Status
from tests.support.arm import message, result

TARGET = Target("node n1", "Some/action", "/subscriptions/x")


@pytest.mark.parametrize(
    ("text", "stdout", "stderr"),
    [
        (message("out\n", "err\n"), "out\n", "err\n"),
        (message("", "err"), "", "err"),
        (message("out"), "out", ""),
        ("Enable succeeded: \n[stdout]\nout\n\n[stderr]", "out\n", ""),
        ("Enable succeeded: \n[stdout]\n[stderr]\nerr", "", "err"),
        ("Enable succeeded: \n[stdout]\nonly", "only", ""),
        # The text in the middle of a line divides nothing.
        (message("see [stderr] there\nx", "e"), "see [stderr] there\nx", "e"),
        # A line of its own in stdout: the last possible division is taken.
        (message("a\n[stderr]\nframe", "e"), "a\n[stderr]\nframe", "e"),
        (message("[stdout]\nx", ""), "[stdout]\nx", ""),
        # A full stdout: a division that would make it longer than the extension lets through is impossible.
        (message("x" * STREAM_LIMIT, "a\n[stderr]\nb"), "x" * STREAM_LIMIT, "a\n[stderr]\nb"),
        (message("ä" * (STREAM_LIMIT // 2), "a\n[stderr]\nb"), "ä" * (STREAM_LIMIT // 2), "a\n[stderr]\nb"),
        # A tail that begins inside a character.
        (
            message("\ufffd" + "x" * (STREAM_LIMIT - 1), "[stderr]\nb"),
            "\ufffd" + "x" * (STREAM_LIMIT - 1),
            "[stderr]\nb",
        ),
    ],
)
def test_streams_are_divided_where_the_extension_joined_them(text: str, stdout: str, stderr: str) -> None:
    assert split_message(text) == CommandResult(stdout, stderr)


def test_a_message_without_streams_has_none() -> None:
    assert split_message("Enable succeeded: ") is None


lines = st.lists(st.sampled_from(["[stderr]", "[stdout]", "", "x", "[stderr] y", "ü"]), max_size=6).map("\n".join)


@given(stdout=lines, stderr=lines)
def test_nothing_of_stdout_is_ever_lost(stdout: str, stderr: str) -> None:
    streams = split_message(message(stdout, stderr))
    assert streams is not None
    assert streams.stdout.startswith(stdout)
    if "[stderr]" not in stderr.split("\n"):
        assert streams == CommandResult(stdout, stderr)


@given(st.integers(100, 599), st.binary(max_size=200))
def test_any_answer_is_read_without_an_exception(status: int, body: bytes) -> None:
    answer = read_answer(status, body)
    if isinstance(answer, Fault):
        assert judge(answer, TARGET).reason


jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["value", "error", "status", "properties", "output", "message", "code"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from([200, 202, 404, 409, 500]), jsons)
def test_any_json_is_read_without_an_exception(status: int, body: object) -> None:
    answer = read_answer(status, json.dumps(body).encode())
    if isinstance(answer, Fault):
        assert judge(answer, TARGET).reason


def test_a_result_in_both_forms() -> None:
    plain = result(message("o", "e"))
    assert read_answer(200, json.dumps(plain).encode()) == CommandResult("o", "e")
    wrapped = {"status": "Succeeded", "properties": {"output": plain}}
    assert read_answer(200, json.dumps(wrapped).encode()) == CommandResult("o", "e")
    assert read_answer(202, b"") is None
    assert read_answer(202, b'{"status": "InProgress"}') is None
    assert read_answer(200, b'{"status": "InProgress"}') is None


@pytest.mark.parametrize("row", sorted(_TABLE))
def test_every_row_says_what_and_what_to_do(row: str) -> None:
    problem = judge(Fault(None, row, "Azure's words {braces} too"), TARGET)
    assert problem.status in {Status.ERROR, Status.SKIPPED}
    assert problem.code == row
    assert problem.reason
    assert problem.hint
    assert "{what}" not in problem.reason + problem.hint


@pytest.mark.parametrize(
    ("fault", "row"),
    [
        (Fault(429, "OperationNotAllowed", "x"), "throttled"),
        (Fault(409, "Conflict", "Run command extension execution is in progress. Please wait"), "busy"),
        (Fault(409, "Conflict", "The request failed due to conflict with a concurrent request."), "busy"),
        (Fault(409, "Conflict", "something else"), "conflict"),
        (
            Fault(409, "OperationNotAllowed", "Cannot modify extensions in the VM when the VM is not running."),
            "not_running",
        ),
        (Fault(401, "", ""), "unauthorized"),
        (Fault(401, "InvalidAuthenticationTokenTenant", ""), "wrong_tenant"),
        (Fault(403, "Whatever", ""), "forbidden"),
        (Fault(403, "", "HTTP 403: Blocked by the proxy"), "other"),
        (Fault(404, "ResourceGroupNotFound", ""), "missing"),
        (Fault(502, "", ""), "server_error"),
        (Fault(400, "BadRequest", ""), "other"),
        (Fault(None, "ProvisioningState/failed/1", ""), "command_failed"),
    ],
)
def test_codes_find_their_row(fault: Fault, row: str) -> None:
    assert word(fault) == row


def test_what_passes_and_what_lasts() -> None:
    assert passing(Fault(503, "", ""))
    assert passing(Fault(500, "InternalServerError", ""))
    assert passing(Fault(429, "x", ""))
    assert passing(Fault(None, "connection_lost", ""))
    assert not passing(Fault(500, "VMAgentStatusCommunicationError", ""))
    assert not passing(Fault(409, "", ""))
    assert not passing(Fault(None, "untrusted", ""))


def test_azures_words_are_shortened_and_keep_no_signature() -> None:
    text = tidy("see\n\x1b[31mhttps://x.blob.core.windows.net/a?sig=SECRET&x=1 and " + "y" * 600)
    assert "SECRET" not in text
    assert "https://x.blob.core.windows.net/a?…" in text
    assert "\x1b" not in text
    assert len(text) == 400
    assert len(tidy("http://" * 1_000_000)) == 400


def test_bodies_that_are_not_in_the_error_shape() -> None:
    assert response_fault(502, "<html>") == Fault(502, "", "HTTP 502")
    assert response_fault(502, "<html><h1>Bad\n gateway</h1>") == Fault(502, "", "HTTP 502: Bad gateway")
    assert response_fault(502, "[" * 100_000).message.startswith("HTTP 502: [[")
    assert response_fault(500, '{"error": "text"}') == Fault(500, "", "text")
    assert response_fault(500, "[]") == Fault(500, "", "HTTP 500")
    assert response_fault(409, '{"error": {"code": "C", "message": "M"}}') == Fault(409, "C", "M")


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://management.azure.com/x", True),
        ("https://MANAGEMENT.azure.com:443/x", True),
        ("https://westeurope.management.azure.com/x", True),
        ("https://management.azure.com.evil.example/x", False),
        ("https://evilmanagement.azure.com/x", False),
        ("https://management.azure.com@evil.example/x", False),
        ("https://management.azure.com:8443/x", False),
        ("https://management.azure.com:99999999/x", False),
        ("http://management.azure.com/x", False),
        ("/subscriptions", False),
        ("", False),
    ],
)
def test_only_the_endpoints_own_host_is_the_same_service(url: str, same: bool) -> None:
    assert same_service(url, "https://management.azure.com") is same
