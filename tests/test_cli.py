"""The terminal command as a person uses it: another process, on the sandbox's four variables alone."""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import json
import os
import re
import shlex
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
import pytest_asyncio

import sandbox
from shared import cli
from shared.controls import builtin, install
from shared.models import Finding, Run, RunKind, RunState
from shared.node.fixing import FileEdit, Splice
from shared.runs.model.plans import NodePlan, SeenFile, digest, read_plan_file
from shared.runs.model.request import RunRequest
from shared.settings import Settings
from shared.store import FindingQuery, open_store
from tests.support.bench import DEMO, environment, one_pool

pytestmark = pytest.mark.sandboxed


class Terminal:
    """Runs `kubelet-guard` as another process with an environment of its own."""

    def __init__(self, box: sandbox.Sandbox, home: Path) -> None:
        self.box = box
        self.home = home
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "GUARD_COMMAND_SECONDS": "0.5",
            "GUARD_SETTLE_SECONDS": "1",
            **box.environ,
        }

    async def __call__(self, *arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "shared", *arguments],
            env={**self.environ, **environ},
            cwd=Path(__file__).parent.parent,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    async def interrupted(
        self, when: Callable[[Run, list[Finding]], bool], *arguments: str, **environ: str
    ) -> tuple[int | None, str]:
        """Ctrl-C, once what is in the store is so: exit status and stderr."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "shared", *arguments),
            env={**self.environ, **environ},
            cwd=Path(__file__).parent.parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            # A run in the background of a shell ignores Ctrl-C, and its children would too.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        async with asyncio.timeout(60), open_store(str(self.store)) as store:
            while True:
                run = await store.latest_run()
                if run is not None:
                    found = [item async for item in store.all_findings(FindingQuery(run_id=run.id))]
                    if when(run, found):
                        break
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = await process.communicate()
        return process.returncode, stderr.decode()

    @property
    def store(self) -> Path:
        return self.home / ".local/state/kubelet-guard/runs.db"


@pytest_asyncio.fixture
async def terminal(tmp_path: Path) -> AsyncIterator[Terminal]:
    async with sandbox.serve(DEMO, latency=(0.2, 0.3)) as box:
        yield Terminal(box, tmp_path)


async def test_audit_then_findings(terminal: Terminal) -> None:
    done = await terminal("audit")
    assert done.returncode == 1, done.stderr
    assert "24 nodes, 13 controls · 6 pass · 10 fail · 3 error · 4 skipped · 2 n/a" in done.stdout
    assert "24 of 24 nodes" in done.stderr
    assert "\x1b" not in done.stdout, "no colours where nobody looks"
    assert stat.S_IMODE(terminal.store.stat().st_mode) == 0o600

    again = await terminal("findings", "--output", "json")
    findings = json.loads(again.stdout)
    assert again.returncode == 1
    assert len(findings) == 25 * 13
    assert again.stderr == f"of the audit {findings[0]['run_id']} of everything\n"
    assert f"run {findings[0]['run_id']}\n" in done.stderr
    place = "subscription resource_group cluster node_pool scale_set instance_id node"
    keys = {*place.split(), *["control", "status", "actual", "expected", "source", "reason"]}
    assert all(keys <= set(finding) for finding in findings)

    some = await terminal("findings", "--status", "pass", "--cluster", "AKS-retail-prod-weu", "--output", "csv")
    assert some.returncode == 0
    assert {row["status"] for row in csv.DictReader(io.StringIO(some.stdout))} == {"pass"}


async def test_audit_as_json_within_a_scope(terminal: Terminal) -> None:
    done = await terminal(
        "audit", "--cluster", "aks-retail-prod-weu", "--node-pool", "system", "--control", "3.2.6", "--output", "json"
    )
    assert done.returncode == 0, done.stderr
    assert [(item["status"], item["actual"]) for item in json.loads(done.stdout)] == [("pass", True)] * 3
    none = await terminal("findings", "--status", "fail", "--output", "json")
    assert (none.returncode, json.loads(none.stdout)) == (0, [])
    scope = "clusters aks-retail-prod-weu; node pools system; controls 3.2.6"
    assert re.fullmatch(rf"of the audit \S+ of {scope}\nno finding matches\n", none.stderr)
    locked = await terminal("audit", "--cluster", "aks-payments-frc", "--store", str(terminal.home / "other.db"))
    assert locked.returncode == 2
    assert (terminal.home / "other.db").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "required: COMMAND"),
        (("audit", "--output", "xml"), "invalid choice"),
        (("audit", "--subscription", "prod"), "'prod' is not a subscription id"),
        (("audit", "--control", "1.2.3"), "no control '1.2.3'; there is: "),
        (("findings",), "holds no complete audit yet; make one with: kubelet-guard audit"),
        (("findings", "--run", "20260101T000000Z-abcdef"), "holds no run 20260101T000000Z-abcdef"),
        (("findings", "--run", "yesterday"), "'yesterday' is not a run id"),
        (("audit", "--cl", "aks-test-eus2"), "unrecognized arguments: --cl"),
        (("fix", "--node", "apps", "--yes"), "unrecognized arguments: --node apps"),
        (("fix", "--y"), "unrecognized arguments: --y"),
        (("fix",), "GUARD_ALLOW_FIX=true"),
        (("fix", "--plan", "/nonexistent"), "GUARD_ALLOW_FIX=true"),
    ],
)
def test_wrong_usage_that_asks_nobody(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with environment({"HOME": str(tmp_path), "GUARD_ARM_ENDPOINT": "https://localhost:9"}):
        try:
            code = cli.main(arguments)
        except SystemExit as refused:  # by argparse
            code = int(refused.code or 0)
    shown = capsys.readouterr()
    assert (code, shown.out) == (64, ""), shown.err
    assert says in shown.err


async def test_wrong_usage_that_azure_tells(terminal: Terminal) -> None:
    nowhere = ("--subscription", "00000000-0000-0000-0000-000000000001")
    for arguments, code, *says in (
        (nowhere, 64, "no subscription 00000000", "there is: 5f1d6c1e-"),
        (("--cluster", "aks-none"), 64, "no cluster named aks-none"),
        (("--cluster", "aks-test-eus"), 64, "there is: aks-test-eus2, aks-"),
        (("--node-pool", "none"), 64, "no node pool named none"),
        (("--store", "/proc/nowhere/runs.db"), 2, "/proc/nowhere"),
    ):
        done = await terminal("audit", *arguments)
        assert (done.returncode, done.stdout) == (code, ""), (arguments, done.stderr)
        assert all(part in done.stderr for part in says), (arguments, done.stderr)
        assert "Traceback" not in done.stderr, arguments
    assert "runCommand" not in terminal.box.stats()["calls"]


async def test_wrong_surroundings(terminal: Terminal) -> None:
    cases: tuple[tuple[dict[str, str], int, str], ...] = (
        ({"GUARD_ARM_ENDPOINT": "ftp://x"}, 64, "GUARD_ARM_ENDPOINT='ftp://x': must be an https URL"),
        ({"GUARD_ARM_ENDPOINT": "https://localhost:9"}, 2, "https://localhost:9"),
        ({"IDENTITY_HEADER": "wrong"}, 2, "az login"),
        ({"SSL_CERT_FILE": "/dev/null"}, 2, "certificate"),
    )
    for environ, code, says in cases:
        done = await terminal("audit", **environ)
        assert done.returncode == code, (environ, done.stderr)
        assert says in done.stderr, (environ, done.stderr)
        assert "Traceback" not in done.stderr, environ


async def test_doctor(terminal: Terminal) -> None:
    done = await terminal("doctor")
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    assert "What will not work\n  cluster aks-payments-frc (b27c9a40-6e15-4c7f-8d2e-91f0d3a84c66)\n" in done.stdout
    command = "→ az aks update --subscription b27c9a40-6e15-4c7f-8d2e-91f0d3a84c66 --resource-group rg-payments-frc"
    assert command in done.stdout, "on one line, however long"
    assert "runCommand" not in terminal.box.stats()["calls"]
    assert not terminal.box.stats()["commands"]

    only = ("--subscription", "5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1", "--output", "json")
    well = await terminal("doctor", *only)
    assert well.returncode == 0, well.stdout
    rows = json.loads(well.stdout)
    assert all(set(row) == {"area", "subject", "what", "status", "reason", "command"} for row in rows)
    assert {row["status"] for row in rows} == {"ok"}
    with sqlite3.connect(terminal.store) as database:
        assert database.execute("SELECT count(*) FROM rows WHERE family = 'runs'").fetchone() == (0,)

    terminal.box.inject(sandbox.Fault("permissions.list", count=9, status=400, code="Teapot", message="no tea"))
    unknown = await terminal("doctor", *only, "--store", str(terminal.home / "other.db"))
    assert unknown.returncode == 2
    assert [row["area"] for row in json.loads(unknown.stdout) if row["status"] == "unknown"] == ["rights"]


async def test_doctor_without_a_store_and_without_an_identity(terminal: Terminal) -> None:
    done = await terminal("doctor", "--store", "/proc/nowhere/runs.db", "--output", "json", IDENTITY_HEADER="wrong")
    assert done.returncode == 1, done.stderr
    failing = {row["area"]: row["reason"] for row in json.loads(done.stdout) if row["status"] == "fail"}
    assert set(failing) == {"store", "identity"}
    assert "/proc/nowhere" in failing["store"]
    assert "az login" in failing["identity"]
    assert "Traceback" not in done.stderr
    wrong = await terminal("doctor", "--subscription", "prod")
    assert (wrong.returncode, wrong.stdout) == (64, "")
    assert "'prod' is not a subscription id" in wrong.stderr


def test_no_option_is_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    parser = cli._parser()
    (commands,) = (item for item in parser._actions if isinstance(item, argparse._SubParsersAction))
    tried = 0
    for name, command in commands.choices.items():
        options = command._option_string_actions
        for option in options:
            for end in range(3, len(option)):
                if option[:end] not in options:
                    with pytest.raises(SystemExit) as refused:
                        parser.parse_args([name, option[:end], "1"])
                    assert refused.value.code == cli.EX_USAGE
                    tried += 1
    assert tried > 200


async def test_findings_are_narrowed_down_by_names_that_there_are(tmp_path: Path) -> None:
    async with sandbox.serve(sandbox.parse(one_pool("compliant_default", "compliant_flag"))) as box:
        terminal = Terminal(box, tmp_path)
        assert (await terminal("audit")).returncode == 0
        of_one = ("--control", "3.2.6")
        found = json.loads((await terminal("findings", *of_one, "--output", "json")).stdout)
        (node, other) = (item["node"] for item in found)
        for option, name, noun in (
            ("--node", node[:-1] + "7", "node"),
            ("--node-pool", "apps", "node pool"),
            ("--cluster", "aks-tes", "cluster"),
            ("--subscription", "x", "subscription"),
            ("--control", "9.9.9", "control"),
        ):
            done = await terminal("findings", option, name)
            assert (done.returncode, done.stdout) == (64, ""), done.stderr
            assert f"no {noun} named {name} in the run" in done.stderr
            assert "there is: " in done.stderr
            assert (option != "--node") or (node in done.stderr and other in done.stderr)
        (shown,) = json.loads((await terminal("findings", "--node", node, *of_one, "--output", "json")).stdout)
        assert [change["status"] for change in shown["changes"]] == ["pass"]
        assert re.search(
            rf"{node} over time.*\n  \d.* UTC  Pass\n$", (await terminal("findings", "--node", node, *of_one)).stdout
        )
        upper = await terminal("findings", "--node", node.upper(), "--status", "fail")
        assert (upper.returncode, upper.stderr.splitlines()[1:]) == (0, ["no finding matches"])


def test_help_is_quick_and_loads_no_sdk() -> None:
    heavy = ("azure", "aiohttp", "pydantic", "rich")
    code = f"import sys, shared.cli; sys.exit(any(name.startswith({heavy!r}) for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


async def test_plan_then_fix_exactly_that(tmp_path: Path) -> None:
    fleet = sandbox.parse(one_pool("false_file", "false_flag", "compliant_default", "false_dropin"))
    async with sandbox.serve(fleet) as box:
        terminal = Terminal(box, tmp_path)
        file = tmp_path / "plan.json"
        plan = str(file)
        planned = await terminal("plan", "--out", plan)
        assert planned.returncode == 1, planned.stderr
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert '+    "makeIPTablesUtilChains": true' in planned.stdout
        assert "3 nodes would be changed, 0 cannot be planned" in planned.stdout
        assert "runCommand" in box.stats()["calls"]

        unsure = await terminal("fix", "--plan", plan, GUARD_ALLOW_FIX="true")
        assert unsure.returncode == 64
        assert "add --yes" in unsure.stderr
        assert "support policy" in unsure.stderr

        done = await terminal(
            "fix", "--plan", plan, "--yes", "--pause", "0", "--output", "json", GUARD_ALLOW_FIX="true"
        )
        assert done.returncode == 0, done.stderr
        fixed = json.loads(done.stdout)
        assert [(item["outcome"], item["status"], item["actual"]) for item in fixed] == [("fixed", "pass", True)] * 3

        twice = await terminal(
            "fix", "--plan", plan, "--yes", "--pause", "0", "--output", "json", GUARD_ALLOW_FIX="true"
        )
        assert [item["outcome"] for item in json.loads(twice.stdout)] == ["already_right"] * 3

        after = await terminal("audit")
        assert after.returncode == 0, after.stdout


async def test_a_plan_file_is_no_way_to_change_other_files(tmp_path: Path) -> None:
    """A file whose edits, digests and all fit each other, but which is not what was planned."""
    async with sandbox.serve(sandbox.parse(one_pool("false_file", "false_flag"))) as box:
        terminal = Terminal(box, tmp_path)
        planned, evil = tmp_path / "plan.json", tmp_path / "evil.json"
        await terminal("plan", "--out", str(planned))
        whole = read_plan_file(planned.read_text(), "plan")
        first, second = whole.nodes
        old, new = b"root:x:0:0\n", b"evil:x:0:0\n"
        passwd = box.node_dir(second.node.name) / "etc/passwd"
        passwd.write_bytes(old)
        seen = SeenFile("/etc/passwd", old, sha256(old).hexdigest())
        edit = FileEdit(seen.path, seen.digest, (Splice(0, 4, b"root", b"evil"),), sha256(new).hexdigest())
        bad = NodePlan.model_validate({**dict(second), "edits": (edit,), "files": (seen,)})
        made = whole.model_copy(update={"nodes": (first, bad), "digest": digest((first, bad))})
        evil.write_text(made.model_dump_json())
        fix = ("fix", "--yes", "--pause", "0", "--output", "json", "--plan")
        commands = dict(box.stats()["commands"])
        done = await terminal(*fix, str(evil), GUARD_ALLOW_FIX="true")
        assert (done.returncode, done.stdout) == (64, ""), done.stderr
        assert f"is not what the run {whole.run_id} planned ({second.node.name}), so nothing was sent" in done.stderr
        assert box.stats()["commands"] == commands

        # A store that has never seen the plan: the nodes themselves say what it would have to be.
        other = ("--store", str(tmp_path / "other.db"))
        done = await terminal(*fix, str(evil), *other, GUARD_ALLOW_FIX="true")
        assert done.returncode == 1, done.stderr
        assert "its plan is another one now: make a new plan" in " ".join(done.stderr.split())
        shown = {item["node"]: item["outcome"] for item in json.loads(done.stdout)}
        assert shown == {first.node.name: "fixed", second.node.name: "not_tried"}
        assert passwd.read_bytes() == old
        done = await terminal(*fix, str(planned), *other, GUARD_ALLOW_FIX="true")
        assert done.returncode == 0, done.stderr
        shown = {item["node"]: (item["outcome"], item["status"]) for item in json.loads(done.stdout)}
        assert shown == {first.node.name: (None, "pass"), second.node.name: ("fixed", "pass")}


async def test_a_node_that_was_rolled_back_waits_to_be_asked_for(tmp_path: Path) -> None:
    async with sandbox.serve(sandbox.parse(one_pool("unhealthy_when_fixed"))) as box:
        terminal = Terminal(box, tmp_path)
        fix = ("fix", "--yes", "--pause", "0", "--output", "json")
        settings = {"GUARD_ALLOW_FIX": "true", "GUARD_RESTART_SECONDS": "5"}
        done = await terminal(*fix, **settings)
        (finding,) = json.loads(done.stdout)
        assert (done.returncode, finding["outcome"], finding["status"]) == (1, "rolled_back", "fail"), done.stderr
        assert "was not well: healthz" in finding["reason"]
        commands = dict(box.stats()["commands"])

        left = await terminal(*fix, **settings)
        assert left.returncode == 1
        assert "there is nothing to fix" in left.stderr
        assert "was rolled back, on 20" in left.stderr
        assert "--retry-rolled-back" in left.stderr
        assert sum(box.stats()["commands"].values()) == sum(commands.values()) + 1, "one more look, no fix"

        asked = tmp_path / "asked.json"
        await terminal("plan", "--retry-rolled-back", "--out", str(asked))
        unsaid = await terminal(*fix, "--plan", str(asked), **settings)
        assert (unsaid.returncode, unsaid.stdout) == (1, ""), unsaid.stderr
        assert "there is nothing to fix" in unsaid.stderr
        assert "was rolled back, on 20" in unsaid.stderr

        again = await terminal(*fix, "--retry-rolled-back", **settings)
        assert [item["outcome"] for item in json.loads(again.stdout)] == ["rolled_back"]


async def test_a_plan_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    async with sandbox.serve(sandbox.parse(one_pool("false_file"))) as box:
        terminal = Terminal(box, tmp_path)
        plan = tmp_path / "plan.json"
        await terminal("plan", "--out", str(plan))
        whole = plan.read_text()
        plan.write_text(whole.replace("kubeletconfig.json", "kubeletconfig.JSON"))
        for text, says in (
            (plan.read_text(), "its digest does not match"),
            ("{}", "not a plan file"),
            ('{"format": "kubelet-guard plan 1", "nodes": []}', "in the format 'kubelet-guard plan 1'"),
            (whole.replace('"3.2.6"', '"9.9.9"'), "no control '9.9.9'; there is: 3.1.1, "),
            ("x", "not a plan file"),
        ):
            plan.write_text(text)
            done = await terminal("fix", "--plan", str(plan), "--yes", GUARD_ALLOW_FIX="true")
            assert (done.returncode, done.stdout) == (64, "")
            assert says in done.stderr


SCOPE = ("--subscription", "--cluster", "--node-pool", "--control", "--benchmark")
WAVES = ("--max-unavailable", "--max-failures", "--pause")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *((("--plan", "plan.json"), (option, "1")) for option in SCOPE),
        (("--plan", "plan.json"), ("--method", "auto")),
        *((("--resume", "20260101T000000Z-abcdef"), (option, "1")) for option in (*SCOPE, *WAVES)),
        (("--resume", "20260101T000000Z-abcdef"), ("--method", "auto")),
        (("--resume", "20260101T000000Z-abcdef"), ("--no-canary",)),
        (("--resume", "20260101T000000Z-abcdef"), ("--retry-rolled-back",)),
        (("--resume", "20260101T000000Z-abcdef"), ("--plan", "plan.json")),
    ],
)
def test_options_that_do_not_go_together(
    first: tuple[str, str], second: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with environment({"GUARD_ALLOW_FIX": "true", "HOME": str(tmp_path), "GUARD_ARM_ENDPOINT": "https://localhost:9"}):
        assert cli.main(["fix", "--yes", *second, *first]) == 64
    shown = capsys.readouterr()
    assert f"{first[0]} does not go together with {second[0]}: " in shown.err
    assert shown.out == ""
    assert list(tmp_path.iterdir()) == [], "no store was made"


async def test_fix_shows_what_it_did_not_touch(tmp_path: Path) -> None:
    async with sandbox.serve(sandbox.parse(one_pool("false_flag", "garbled", "compliant_default"))) as box:
        terminal = Terminal(box, tmp_path)
        done = await terminal("fix", "--yes", "--pause", "0", "--output", "json", GUARD_ALLOW_FIX="true")
        assert done.returncode == 2, done.stderr
        shown = sorted(json.loads(done.stdout), key=lambda item: str(item["instance_id"]))
        assert [(item["status"], item["outcome"]) for item in shown] == [
            ("pass", "fixed"),
            ("error", None),
            ("pass", None),
        ]
        again = await terminal("fix", "--output", "json", GUARD_ALLOW_FIX="true")
        assert again.returncode == 2, again.stderr
        assert "there is nothing to fix" in again.stderr
        assert sorted(item["status"] for item in json.loads(again.stdout)) == ["error", "pass", "pass"]


async def test_an_interrupted_audit_can_be_read(tmp_path: Path) -> None:
    async with sandbox.serve(sandbox.parse(one_pool("compliant_default", "hang"))) as box:
        terminal = Terminal(box, tmp_path)
        seen: list[Run] = []

        def one_is_done(run: Run, found: list[Finding]) -> bool:
            seen.append(run)
            return bool(found)

        code, said = await terminal.interrupted(one_is_done, "audit")
        assert seen[-1].state is RunState.RUNNING
        run_id = seen[-1].id
        assert code == cli.INTERRUPTED
        assert f"run {run_id}\n" in said
        assert f"what the run {run_id} found so far: kubelet-guard findings --run {run_id}" in said
        assert "Traceback" not in said
        none = await terminal("findings")
        assert (none.returncode, f"kubelet-guard findings --run {run_id}" in none.stderr) == (64, True), "not complete"
        done = await terminal("findings", "--run", run_id, "--output", "json")
        shown = sorted((item["status"], item["code"]) for item in json.loads(done.stdout))
        assert shown == [("error", "cancelled")] * 13 + [("pass", "right")] * 13
        assert done.returncode == 2, "half an audit proves nothing"
        assert f"the run {run_id} is cancelled" in done.stderr


async def test_an_interrupted_fix_goes_on_as_it_says(tmp_path: Path) -> None:
    async with sandbox.serve(sandbox.parse(one_pool("false_flag", "false_file"))) as box:
        terminal = Terminal(box, tmp_path)
        terminal_key = {"GUARD_ALLOW_FIX": "true"}
        code, said = await terminal.interrupted(
            lambda run, found: run.kind == "fix" and bool(found), "fix", "--yes", "--pause", "8", **terminal_key
        )
        assert code == cli.INTERRUPTED
        assert "Traceback" not in said
        command = said.split("goes on with: kubelet-guard ")[1].splitlines()[0]
        again = shlex.split(command)
        assert again[:2] == ["fix", "--resume"]
        assert (await terminal("findings", "--run", again[2])).returncode == 2

        unsure = await terminal(*again, **terminal_key)
        assert unsure.returncode == 64, unsure.stderr
        assert "support policy" in unsure.stderr
        assert "1 nodes would be changed" in unsure.stderr
        done = await terminal(*again, "--yes", "--output", "json", **terminal_key)
        assert done.returncode == 0, done.stderr
        assert [item["outcome"] for item in json.loads(done.stdout)] == ["fixed"] * 2
        over = await terminal(*again, "--yes", **terminal_key)
        assert over.returncode == 64
        assert "is complete" in over.stderr


def test_a_hold_names_its_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def hold(*options: str) -> tuple[int, str]:
        arguments = cli._parser().parse_args(["hold", "--store", str(tmp_path / "runs.db"), *options])
        code = await cli.hold_command(arguments, Settings())
        return code, capsys.readouterr().err

    async def work() -> None:
        where = f"(in the store {tmp_path / 'runs.db'})\n"
        assert await hold("--show") == (0, f"fixes are not held {where}")
        code, said = await hold("--reason", "change freeze")
        assert (code, said.startswith("fixes are held since "), said.endswith(f": change freeze {where}")) == (0, 1, 1)
        assert (await hold("--show"))[0] == 1
        assert await hold("--release") == (0, f"fixes are not held {where}")

    asyncio.run(work())


@pytest.mark.parametrize(
    "options", [("--show", "--release"), ("--release", "--reason", "x"), ("--show", "--reason", "x")]
)
def test_a_hold_is_made_or_shown_or_released(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli._parser().parse_args(["hold", *options])
    assert ended.value.code == cli.EX_USAGE
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("store", "shown"),
    [
        ("my runs.db", " --store 'my runs.db'"),
        ("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=c2VjcmV0==", " --store …"),
        ("TableEndpoint=https://a.table.core.windows.net;SharedAccessSignature=sv=1&sig=c2VjcmV0", " --store …"),
    ],
)
def test_how_to_go_on_shows_no_secret(store: str, shown: str) -> None:
    run = Run("20260101T000000Z-abcdef", RunKind.AUDIT, RunState.RUNNING, datetime.now(UTC))
    said = cli._interrupted(argparse.Namespace(store=store), run)
    assert said.endswith(f"kubelet-guard findings --run {run.id}{shown}")


async def test_the_latest_audit_is_named_with_its_scope(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = RunRequest(management_group="platform", clusters=("aks-one",)).model_dump(mode="json")
    async with open_store(str(tmp_path / "runs.db")) as store:
        run_id = "20260101T000000Z-abcdef"
        await store.save_run(Run(run_id, RunKind.AUDIT, RunState.COMPLETED, datetime.now(UTC), request=request))
        await cli._latest_audit(store)
    assert capsys.readouterr().err == f"of the audit {run_id} of management group platform; clusters aks-one\n"


@pytest.fixture
def plain_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """`kubelet-guard` in this process, for what asks nobody."""

    def run(*arguments: str, **environ: str) -> tuple[int, str, str]:
        with environment({"HOME": str(tmp_path), **environ}):
            code = cli.main(arguments)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    yield run
    install(builtin())


def test_the_catalogue_is_shown(plain_terminal: Callable[..., tuple[int, str, str]]) -> None:
    code, shown, _ = plain_terminal("controls")
    assert (code, shown.count(" must ")) == (0, 13)
    code, shown, _ = plain_terminal("controls", "--benchmark", "v1.7", "--output", "json")
    assert (code, len(json.loads(shown))) == (0, 13)
    code, shown, _ = plain_terminal("explain", "3.2.6")
    assert code == 0
    assert "Fixed here      yes" in shown
    assert "no: GUARD_FIX_CONTROLS" in plain_terminal("explain", "3.2.6", GUARD_FIX_CONTROLS="3.2.1")[1]
    code, shown, _ = plain_terminal("explain", "3.2.4", "--output", "json")
    assert (code, json.loads(shown)["rule"]) == (0, {"equals": 0})
    for arguments, says in (
        (("explain", "3.2.66"), "no control '3.2.66'; there is: 3.2.6, "),
        (("controls", "--benchmark", "v1.9"), "no version 'v1.9' of the benchmark; there is: v1.8, v1.7"),
    ):
        code, shown, said = plain_terminal(*arguments)
        assert (code, shown) == (64, "")
        assert says in said


@pytest.mark.parametrize(
    "command", [("audit",), ("plan",), ("fix",), ("findings",), ("controls",), ("explain", "3.2.6")], ids=" ".join
)
def test_a_wrong_catalogue_is_said_before_anything_is_done(
    command: tuple[str, ...], tmp_path: Path, plain_terminal: Callable[..., tuple[int, str, str]]
) -> None:
    file = tmp_path / "ours.yaml"
    file.write_text("controls:\n  - id: ORG-1\n    severity: worst\n")
    code, shown, said = plain_terminal(*command, GUARD_CONTROLS_FILE=str(file), GUARD_ALLOW_FIX="true")
    assert (code, shown) == (64, "")
    assert (
        f"bad setting: GUARD_CONTROLS_FILE: the catalogue {file}: line 2: title: is missing; line 3: severity: " in said
    )
    assert list(tmp_path.iterdir()) == [file], "no store was made"


def test_fixes_can_be_held_whatever_is_wrong_with_a_catalogue(
    plain_terminal: Callable[..., tuple[int, str, str]],
) -> None:
    assert plain_terminal("hold", GUARD_CONTROLS_FILE="/nowhere/ours.yaml")[0] == 0


async def test_a_catalogue_of_ones_own_from_audit_to_fix(tmp_path: Path) -> None:
    """One control of each kind is added (those of the page), one of this version's takes another form."""
    page = (Path(__file__).parent.parent / "docs/adding-a-control.md").read_text()
    own = re.findall(r"```yaml\ncontrols:\n(.*?)```", page, re.DOTALL)
    (versions,) = re.findall(r"```yaml\n(benchmarks:\n.*?)```", page, re.DOTALL)
    ours = "  - {id: 3.2.6, title: Ours, severity: high, setting: makeIPTablesUtilChains, rule: {equals: false},"
    ours += " flag: --make-iptables-util-chains, rationale: the other way round, fix: set it}\n"
    file = tmp_path / "ours.yaml"
    file.write_text(f"controls:\n{''.join(own)}{ours}{versions}")
    async with sandbox.serve(sandbox.parse(one_pool("compliant_default", "false_file"))) as box:
        terminal = Terminal(box, tmp_path)
        for path in (box.node_dir(name) / "etc/default/kubelet" for name in box.folders):
            path.chmod(0o666)
        settings = {"GUARD_CONTROLS_FILE": str(file), "GUARD_FIX_CONTROLS": "ORG-7", "GUARD_ALLOW_FIX": "true"}
        done = await terminal("audit", "--output", "json", **settings)
        assert done.returncode == 1, done.stderr
        found = json.loads(done.stdout)
        assert {item["catalogue"] for item in found} == {sha256(file.read_bytes()).hexdigest()}
        statuses = {(item["instance_id"], item["control"]): item["status"] for item in found}
        others = [f"ORG-{number}" for number in (1, 2, 3, 4, 5, 6, 8)]
        for node, of_3_2_6 in (("0", "fail"), ("1", "pass")):
            assert {statuses[node, control] for control in others} == {"pass"}
            assert (statuses[node, "ORG-7"], statuses[node, "3.2.6"]) == ("fail", of_3_2_6)
        assert len(found) == 2 * 9, "the default version is the file's"
        (title,) = {item["title"] for item in found if item["control"] == "3.2.6"}
        assert title == "Ours"

        planned = await terminal("plan", "--out", str(tmp_path / "plan.json"), **settings)
        assert planned.returncode == 1, planned.stderr
        assert planned.stdout.count("set the mode of /etc/default/kubelet from 666 to 600") == 2
        assert planned.stdout.count("also fails: 3.2.6; not asked for") == 1
        assert "restart the kubelet" not in planned.stdout
        fix = ("fix", "--plan", str(tmp_path / "plan.json"), "--pause", "0", "--output", "json")
        without = await terminal(*fix, "--yes", GUARD_ALLOW_FIX="true")
        assert without.returncode == 64, "it is a control of another catalogue"
        assert "no control 'ORG-7'" in without.stderr
        done = await terminal(*fix, "--yes", **settings)
        assert done.returncode == 0, done.stderr
        assert [(item["control"], item["outcome"]) for item in json.loads(done.stdout)] == [("ORG-7", "fixed")] * 2
