"""Run command's contract, with the real SDK client and real scripts."""

from __future__ import annotations

import asyncio
import base64
import stat
import time
from typing import Any, Literal

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ServiceRequestError

from sandbox import Fault, serve
from sandbox.compute import Compute, Instance
from sandbox.fleet import Timing, members
from sandbox.runcommand import Runner
from sandbox.states import Command
from tests.support.fleets import azure, code, fleet, until

BUSY = "Run command extension execution is in progress. Please wait for completion before invoking a run command."


async def test_a_script_reads_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("false_flag")) as box, azure(box, monkeypatch) as clients:
        text = await clients.stdout('cat "$KUBELET_GUARD_ROOT/etc/default/kubelet"')
        assert text == (box.node_dir(clients.node(0)) / "etc/default/kubelet").read_text()
        assert "--make-iptables-util-chains=false" in text
        assert text.count(" --") > 30
        assert box.stats()["commands"] == {clients.node(0): 1}


async def test_only_the_tail_of_each_stream_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("no_kubelet")) as box, azure(box, monkeypatch) as clients:
        message = await clients.run("printf '%05000d' 1; printf END; printf '%05000d' 2 >&2; printf EOF >&2")
        head, stderr = message.split("\n[stderr]\n")
        stdout = head.removeprefix("Enable succeeded: \n[stdout]\n")
        assert (len(stdout), len(stderr)) == (4096, 4096)
        assert stdout.endswith("01END")
        assert stderr.endswith("02EOF")


async def test_the_exit_status_is_not_reported_and_a_shebang_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("no_kubelet")) as box, azure(box, monkeypatch) as clients:
        assert await clients.stdout("#!/bin/sh\necho before\nexit 3") == "before\n"
        assert "\r" not in await clients.stdout("echo one\r\necho two\r")
        assert await clients.stdout("\ufeffecho three") == "three\n"
        assert await clients.stdout("#!/bin/cat\nas it is") == "#!/bin/cat\nas it is"


async def test_what_it_keeps_on_the_node_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("no_kubelet")) as box, azure(box, monkeypatch) as clients:
        for _ in range(2):
            await clients.run("echo out; echo err >&2")
        kept = box.node_dir(clients.node(0)) / "var/lib/waagent/run-command/download"
        assert sorted(path.name for path in kept.iterdir()) == ["0", "1"]
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (kept / "1").iterdir()}
        assert modes == {"script.sh": 0o500, "stdout": 0o600, "stderr": 0o600}
        assert stat.S_IMODE((kept / "1").stat().st_mode) == 0o700
        assert (kept / "1/stdout").read_text() == "out\n"


async def test_a_script_over_the_limit_is_not_run_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("no_kubelet")) as box, azure(box, monkeypatch) as clients:
        script = f"touch $KUBELET_GUARD_ROOT/ran\necho done # {'x' * 200_000}"
        assert len(base64.b64encode(script.encode())) > 256 * 1024
        assert await clients.run(script) == "Enable succeeded: \n[stdout]\n\n[stderr]\n"
        assert not (box.node_dir(clients.node(0)) / "ran").exists()


async def test_one_at_a_time_on_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("no_kubelet", "no_kubelet")) as box, azure(box, monkeypatch) as clients:
        wait = "while [ ! -e $KUBELET_GUARD_ROOT/go ]; do sleep 0.05; done"
        first = asyncio.create_task(clients.run(f"{wait}; echo first"))
        await until(lambda: bool(box.stats()["commands"]))
        with pytest.raises(ResourceExistsError) as caught:
            await clients.run("echo second")
        assert code(caught.value) == "Conflict"
        assert BUSY in str(caught.value)
        assert "other" in await clients.run("echo other", number=1)
        (box.node_dir(clients.node(0)) / "go").touch()
        assert "first" in await first
        assert "second" in await clients.run("echo second")


@pytest.mark.parametrize(("drop", "started"), [("before", 0), ("after", 1)])
async def test_a_lost_answer_does_not_tell_whether_the_command_started(
    drop: Literal["before", "after"], started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(fleet("no_kubelet")) as box, azure(box, monkeypatch) as clients:
        box.inject(Fault("runCommand", drop=drop))
        with pytest.raises(ServiceRequestError):
            await clients.run("echo lost")
        assert box.stats()["commands"].get(clients.node(0), 0) == started


async def test_both_ways_of_polling_end_as_azure_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = fleet("no_kubelet", throttle=False, timing={"latency": [3, 3], "retry_after": 7})
    async with serve(slow) as box, azure(box, monkeypatch) as clients:
        accepted = await clients.post("echo hello")
        assert (accepted.status, accepted.body) == (202, b"")
        assert accepted.headers["Retry-After"] == "7"
        location, status = accepted.headers["Location"], accepted.headers["Azure-AsyncOperation"]
        assert "/providers/Microsoft.Compute/locations/westeurope/operations/" in location
        assert ("monitor=true" in location, "monitor=true" in status) == (True, False)
        pending = await clients.send("GET", location)
        assert (pending.status, pending.body) == (202, b"")
        assert pending.headers["Location"] == location
        assert (await clients.send("GET", status)).json()["status"] == "InProgress"
        await clients.ended(location)
        result = {
            "code": "ProvisioningState/succeeded",
            "level": "Info",
            "displayStatus": "Provisioning succeeded",
            "message": "Enable succeeded: \n[stdout]\nhello\n\n[stderr]\n",
        }
        assert (await clients.send("GET", location)).json() == {"value": [result]}
        body = (await clients.send("GET", status)).json()
        assert (body["status"], body["properties"]) == ("Succeeded", {"output": {"value": [result]}})
        unsigned = await clients.send("GET", location.replace("&s=", "&x="))
        assert unsigned.status == 403


@pytest.mark.parametrize(
    ("state", "more", "status", "expected"),
    [
        ("vanished", {}, 404, "ResourceNotFound"),
        ("vanished_inactive", {}, 400, "InvalidParameter"),
        ("forbidden", {}, 403, "AuthorizationFailed"),
        ("deallocated", {}, 409, "OperationNotAllowed"),
        ("stopped", {}, 409, "OperationNotAllowed"),
        ("busy_stuck", {}, 409, "Conflict"),
        ("no_kubelet", {"cluster": "lockdown: true,"}, 403, "DenyAssignmentAuthorizationFailed"),
        ("no_kubelet", {"cluster": "power: Stopped,"}, 409, "OperationNotAllowed"),
        ("no_kubelet", {"pool": "os: Windows,"}, 400, "BadRequest"),
    ],
)
async def test_refusals(
    state: str, more: dict[str, Any], status: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(fleet(state, **more)) as box, azure(box, monkeypatch) as clients:
        with pytest.raises(HttpResponseError) as caught:
            await clients.run("echo never")
        assert caught.value.status_code == status
        assert code(caught.value) == expected
        assert box.stats()["commands"] == {}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "InvalidRequestContent"),
        ("[]", "InvalidRequestContent"),
        ('{"commandId": "ifconfig"}', "BadRequest"),
        ('{"commandId": "RunShellScript", "script": "echo"}', "InvalidParameter"),
        (
            '{"commandId": "RunShellScript", "script": [], "parameters": [{"name": "a", "value": "b"}]}',
            "InvalidParameter",
        ),
    ],
)
async def test_bodies_that_are_none(content: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("no_kubelet")) as box, azure(box, monkeypatch) as clients:
        path = f"{clients.path(0)}/runCommand?api-version=2026-04-01"
        answer = await clients.send("POST", path, data=content)
        assert (answer.status, answer.code()) == (400, expected)


@pytest.mark.parametrize(
    ("state", "expected"),
    [("dead_agent", "VMAgentStatusCommunicationError"), ("extension_failed", "VMExtensionProvisioningError")],
)
async def test_operations_that_fail(state: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet(state)) as box, azure(box, monkeypatch) as clients:
        with pytest.raises(HttpResponseError) as caught:
            await clients.run("echo never")
        assert code(caught.value) == expected
        accepted = await clients.post("echo never")
        await clients.ended(accepted.headers["Location"])
        body = (await clients.send("GET", accepted.headers["Azure-AsyncOperation"])).json()
        assert (body["status"], body["error"]["code"]) == ("Failed", expected)
        failed = await clients.send("GET", accepted.headers["Location"])
        assert (failed.status, failed.code()) == (409, expected)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("no_output", "Enable succeeded: \n[stdout]\n\n[stderr]\n"),
        ("did_not_finish", "Enable succeeded: Last script execution didn't finish."),
    ],
)
async def test_output_that_is_lost(state: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet(state)) as box, azure(box, monkeypatch) as clients:
        assert await clients.run("echo lost; touch $KUBELET_GUARD_ROOT/ran") == expected
        assert (box.node_dir(clients.node(0)) / "ran").exists()


async def test_output_that_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"echo {'A' * 300}; echo header 1 2 3"
    whole = f"{'A' * 300}\nheader 1 2 3\n"
    states = ("truncated", "garbled", "hostile")
    async with serve(fleet(*states)) as box, azure(box, monkeypatch) as clients:
        truncated, garbled, hostile = [await clients.run(script, number) for number in range(3)]
    assert f"[stdout]\n{whole[:-100]}\n[stderr]" in truncated
    assert whole not in garbled
    assert garbled.count("A") == 299
    assert len(hostile) > 2_000_000
    assert hostile.count("[stdout]") == hostile.count("[stderr]") == 2
    assert "header 2 3 4" in hostile
    assert "\x00" in hostile


async def test_a_result_without_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("empty_result")) as box, azure(box, monkeypatch) as clients:
        accepted = await clients.post("echo lost")
        await clients.ended(accepted.headers["Location"])
        assert (await clients.send("GET", accepted.headers["Location"])).json() == {"value": []}


async def test_a_hanging_command_has_run_and_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("hang")) as box, azure(box, monkeypatch) as clients:
        accepted = await clients.post("touch $KUBELET_GUARD_ROOT/ran")
        await until((box.node_dir(clients.node(0)) / "ran").exists)
        assert (await clients.send("GET", accepted.headers["Location"])).status == 202
        assert (await clients.post("echo")).status == 409


async def test_busy_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        serve(fleet("busy", throttle=False, timing={"busy_seconds": 3})) as box,
        azure(box, monkeypatch) as clients,
    ):
        for _ in range(2):
            answer = await clients.post("echo")
            assert answer.status == 409
            assert answer.json()["error"] == {"code": "Conflict", "message": BUSY}
        async with asyncio.timeout(60):
            while (accepted := await clients.post("echo mine")).status == 409:  # noqa: ASYNC110 - Azure says no more
                await asyncio.sleep(0.2)
        location = accepted.headers["Location"]
        await clients.ended(location)
        assert b"mine" in (await clients.send("GET", location)).body


async def test_stuck_until_the_extension_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("busy_stuck")) as box, azure(box, monkeypatch) as clients:
        assert (await clients.post("echo")).status == 409
        await clients.run([], command="RemoveRunCommandLinuxExtension")
        assert "free" in await clients.run("echo free")


async def test_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("slow", timing={"slow_seconds": 0.7})) as box, azure(box, monkeypatch) as clients:
        before = time.monotonic()
        assert "at last" in await clients.run("echo at last")
        assert time.monotonic() - before > 0.7


@pytest.mark.slow
async def test_two_hundred_nodes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        serve(fleet(*["no_kubelet"] * 200, throttle=False, timing={"latency": [15, 15]})) as box,
        azure(box, monkeypatch) as clients,
    ):
        messages = await asyncio.gather(*(clients.run("echo $KUBELET_GUARD_ROOT", number) for number in range(200)))
        assert len(set(messages)) == 200
        assert box.stats()["most_commands_at_once"] > 100


async def test_leaving_ends_what_still_runs_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(fleet("no_kubelet")) as box, azure(box, monkeypatch) as clients:
        await clients.post("echo $$ >$KUBELET_GUARD_ROOT/pid; sleep 600")
        file = box.node_dir(clients.node(0)) / "pid"
        await until(lambda: file.exists() and file.read_text() != "")
        pid = int(file.read_text())
        directory = box.directory
        began = time.monotonic()
    assert time.monotonic() - began < 60
    assert not directory.exists()
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_with_a_seed_a_command_takes_as_long_every_time() -> None:
    def seconds(seed: str) -> list[float]:
        instance = Instance(next(members(fleet("no_kubelet"))), None)
        compute = Compute(Timing(latency=(1, 9)), Runner(1), {}, seed=seed)
        taken = []
        for _ in range(3):
            compute.commands[instance.member.name] += 1
            taken.append(compute._seconds(instance, Command.WORKS))
        return taken

    assert seconds("a") == seconds("a") != seconds("b")
    assert len(set(seconds("a"))) == 3
    assert seconds("") != seconds("")
