"""The terminal command `kubelet-guard`: the same runs as the serverless app's, in this process.

Findings go to stdout, everything else to stderr. Exit status: 0 all pass, 1 some fail, 2 some could not be determined
(or the run itself failed), 64 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import logging
import os
import shlex
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from shared.errors import GuardError, UsageError
from shared.plain import PlainFormatter, plain

# What a command needs is imported by the command: `--help` and a wrong option answer at once.
if TYPE_CHECKING:
    from shared.models import Finding, Run
    from shared.report import Changes
    from shared.runs.hosts.terminal import OnBegun
    from shared.runs.model.plans import NodePlan
    from shared.runs.model.request import Request
    from shared.runs.services import Services
    from shared.settings import Settings
    from shared.store import Store

EX_USAGE = 64
INTERRUPTED = 130

_SUPPORT_POLICY = """\
AKS's support policy: changes made to nodes through the IaaS APIs, scale-set run command among them, can make a
cluster unsupportable. AKS also documents manual changes to a node as lost at its next upgrade, reimage or scaling:
a fixed node can come back as it was. Each fix but that of a file's mode or owner restarts the node's kubelet, which can
show it NotReady for a moment; running pods stay."""

# What findings can be narrowed down to, as fields of theirs.
_PLACES = ("subscription", "cluster", "node_pool", "node", "control")

# The options that say what is to be fixed and how, by the name that they have in a request.
_SCOPE = {
    "subscriptions": "--subscription",
    "clusters": "--cluster",
    "node_pools": "--node-pool",
    "controls": "--control",
    "benchmark": "--benchmark",
    "management_group": "--management-group",
    "method": "--method",
}
_WAVES = {
    "max_unavailable": "--max-unavailable",
    "max_failures": "--max-failures",
    "canary": "--no-canary",
    "pause_seconds": "--pause",
    "retry_rolled_back": "--retry-rolled-back",
}


class _Parser(argparse.ArgumentParser):
    """Subcommands' parsers are of this class too. No option is taken for another one that it is the beginning of."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


_NOTHING = "there is no finding: no AKS node is in scope"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="kubelet-guard", description="Prove, and keep, the kubelet settings of every AKS node.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    audit = _command(commands.add_parser, "audit", "look at every node and judge it", audit_command)
    _scope_options(audit)
    _output_options(audit)

    plan = _command(commands.add_parser, "plan", "show what a fix would change, and write a plan file", plan_command)
    _scope_options(plan)
    _fix_options(plan)
    plan.add_argument("--out", metavar="FILE", default="kubelet-guard-plan.json", help="default: %(default)s")
    _store_option(plan)

    fix = _command(commands.add_parser, "fix", "change failing nodes as planned, in waves", fix_command)
    _scope_options(fix)
    _fix_options(fix)
    fix.add_argument("--plan", metavar="FILE", help="carry out exactly this plan (default: plan now)")
    fix.add_argument("--resume", metavar="RUN", help="go on with a fix that was broken off")
    fix.add_argument("--yes", action="store_true", help="do not ask")
    _output_options(fix)

    findings = _command(commands.add_parser, "findings", "show what an earlier run found", findings_command)
    findings.add_argument(
        "--run",
        metavar="ID",
        dest="run_id",
        help="the run (default: the latest complete audit of everything, else the latest complete one)",
    )
    findings.add_argument("--status", choices=["pass", "fail", "error", "skipped", "not_applicable"])
    for place in _PLACES:
        findings.add_argument(f"--{place.replace('_', '-')}", metavar="NAME")
    _output_options(findings)

    controls = _command(commands.add_parser, "controls", "show what is judged, in short", controls_command)
    controls.add_argument("--benchmark", metavar="VERSION", default="", help="those of this version (default: all)")
    _text_or_json(controls)

    explain = _command(commands.add_parser, "explain", "show everything about one control", explain_command)
    explain.add_argument("control", metavar="CONTROL", help="its id, such as 3.2.6")
    _text_or_json(explain)

    hold = _command(commands.add_parser, "hold", "hold all fixes: no start and no further wave", hold_command)
    hold.set_defaults(judges=False)
    what = hold.add_mutually_exclusive_group()
    what.add_argument("--reason", metavar="TEXT", default="", help="why, for whoever meets it")
    what.add_argument("--release", action="store_true", help="let fixes go on")
    what.add_argument("--show", action="store_true", help="say whether fixes are held; the exit status is 1 if so")
    _store_option(hold)

    copy = _command(commands.add_parser, "copy-store", "copy runs and findings into another store", copy_command)
    copy.set_defaults(judges=False)
    copy.add_argument("--to", metavar="PATH_OR_URL", required=True, help="the store that they go into, as --store")
    _store_option(copy)
    return parser


def _command(
    add: Callable[..., argparse.ArgumentParser],
    name: str,
    summary: str,
    function: Callable[[argparse.Namespace, Settings], Awaitable[int]],
) -> argparse.ArgumentParser:
    parser = add(name, help=summary, description=(function.__doc__ or "").replace("`", ""))
    parser.set_defaults(function=function, judges=True)
    return parser


# An option that is not given leaves no trace: the default is the request's, and what was given can be told.
def _scope_options(parser: argparse.ArgumentParser) -> None:
    scope = parser.add_argument_group(
        "scope (each may be given several times; the default is everything)", argument_default=argparse.SUPPRESS
    )
    scope.add_argument("--subscription", metavar="ID", dest="subscriptions", action="append")
    scope.add_argument("--cluster", metavar="NAME", dest="clusters", action="append")
    scope.add_argument("--node-pool", metavar="NAME", dest="node_pools", action="append")
    scope.add_argument("--control", metavar="ID", dest="controls", action="append")
    scope.add_argument(
        "--witness",
        choices=["node", "configz", "both", "smart"],
        help="who is asked: the nodes by run command, the clusters for configz, both, or smart: configz, and the nodes"
        " that fail, are unclear, new or due (default: $GUARD_WITNESS, else node)",
    )
    scope.add_argument(
        "--management-group", metavar="ID", help="the subscriptions below it, or those of them that are named"
    )
    scope.add_argument(
        "--benchmark", metavar="VERSION", help="judge and report by this version of the benchmark (once; see controls)"
    )


def _fix_options(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how to fix", argument_default=argparse.SUPPRESS)
    how.add_argument("--method", choices=["auto", "config", "flags"], help="default: auto")
    how.add_argument("--max-unavailable", metavar="N|P%", help="nodes of a pool at once (default: 1)")
    how.add_argument(
        "--max-failures", metavar="N", type=int, help="failed fixes in a pool before it is left (default: 0)"
    )
    how.add_argument(
        "--no-canary",
        dest="canary",
        action="store_false",
        default=argparse.SUPPRESS,
        help="no first wave of one node",
    )
    how.add_argument("--pause", metavar="SECONDS", dest="pause_seconds", type=int, help="between waves (default: 15)")
    how.add_argument(
        "--retry-rolled-back",
        action="store_true",
        default=argparse.SUPPRESS,
        help="also nodes on which the last fix was rolled back",
    )


def _output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", choices=["table", "json", "csv"], default="table", help="default: table")
    _store_option(parser)


def _text_or_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", choices=["table", "json"], default="table", help="default: %(default)s")


def _store_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        metavar="PATH_OR_URL",
        help="where runs are kept: an SQLite file, or a table service such as https://ACCOUNT.table.core.windows.net"
        f" (default: $GUARD_STORE, else {_default_store()})",
    )


def _default_store() -> str:
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return str(Path(state) / "kubelet-guard" / "runs.db")


def _request(kind: type[Request], arguments: argparse.Namespace) -> Request:
    from shared.runs.model.request import parse_request

    given = vars(arguments)
    return parse_request(kind, {name: given[name] for name in kind.model_fields if name in given})


def _refuse_together(arguments: argparse.Namespace) -> None:
    """Raises UsageError where options are given besides `--plan` or `--resume` that these would not heed."""
    given = vars(arguments)
    if arguments.resume is not None:
        what, why = "--resume", "a fix that was broken off goes on as it was asked for"
        options = {"plan": "--plan", **_SCOPE, **_WAVES} if arguments.plan is not None else {**_SCOPE, **_WAVES}
    elif arguments.plan is not None:
        what, why = "--plan", "the plan says which nodes are changed, and how (kubelet-guard plan makes another)"
        options = _SCOPE
    else:
        return
    wrong = [option for name, option in options.items() if name in given]
    if wrong:
        raise UsageError(f"{what} does not go together with {', '.join(wrong)}: {why}")


def _location(arguments: argparse.Namespace, settings: Settings) -> str:
    location: str = arguments.store or settings.store.get_secret_value() or _default_store()
    return location


@asynccontextmanager
async def _store(arguments: argparse.Namespace, settings: Settings) -> AsyncIterator[Store]:
    from shared.store import open_store

    async with open_store(_location(arguments, settings), authority=settings.authority) as store:
        yield store


@asynccontextmanager
async def _services(arguments: argparse.Namespace, settings: Settings) -> AsyncIterator[tuple[Services, OnBegun]]:
    """The store and Azure, and whom to tell of the run: its id, its progress and its interruption go to stderr."""
    from shared.azure import Azure
    from shared.meter import meter
    from shared.runs.services import Services

    run: Run | None = None

    def begun(started: Run) -> None:
        nonlocal run
        run = started
        _say(f"run {run.id}")

    try:
        async with _store(arguments, settings) as store, Azure(settings) as azure:
            with meter() as shown:
                yield Services(azure, store, settings, shown.on_found, shown.on_findings), begun
            await _tidy(store, settings)
    except asyncio.CancelledError:
        _say(f"kubelet-guard: {_interrupted(arguments, run)}")
        raise


async def _tidy(store: Store, settings: Settings) -> None:
    from shared.runs.hosts.tidying import tidy_here

    try:
        await tidy_here(store, settings, datetime.now(UTC))
    except GuardError as error:  # the run itself is over, and told
        _say(f"kubelet-guard: what is old could not be deleted: {error}")


def _interrupted(arguments: argparse.Namespace, run: Run | None) -> str:
    """What Ctrl-C has left behind, and how to go on."""
    from shared.models import RunKind
    from shared.settings import may_hold_secret

    if run is None:
        return "interrupted before anything was done"
    store = ""
    if arguments.store:
        store = " --store …" if may_hold_secret(arguments.store) else f" --store {shlex.quote(arguments.store)}"
    show = f"kubelet-guard findings --run {run.id}{store}"
    if run.kind is not RunKind.FIX:
        return f"interrupted; what the run {run.id} found so far: {show}"
    return f"interrupted; the fix {run.id} goes on with: kubelet-guard fix --resume {run.id}{store}\nso far: {show}"


async def _findings(store: Store, run_id: str, **narrower: str | None) -> list[Finding]:
    from shared.models import Status
    from shared.store import FindingQuery

    status = narrower.pop("status", None)
    query = FindingQuery(run_id=run_id, status=Status(status) if status else None, **narrower)
    return [finding async for finding in store.all_findings(query)]


async def audit_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Look at the kubelet of every node in scope, judge it, record the findings and show them."""
    from shared.models import RunKind
    from shared.runs.hosts.terminal import survey_here
    from shared.runs.model.request import RunRequest

    request = _request(RunRequest, arguments)
    async with _services(arguments, settings) as (services, begun):
        run = await survey_here(services, RunKind.AUDIT, request, begun)
        return await _show_run(services.store, run.id, arguments.output)


async def plan_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Look at every node in scope, and show as diffs what a fix would change on those that fail.

    Nothing is changed. The plan file is what `kubelet-guard fix --plan FILE` carries out. The exit status is that of
    an audit.
    """
    from shared import report
    from shared.models import RunKind
    from shared.runs.hosts.terminal import plans_of, survey_here
    from shared.runs.model.plans import PlanFile, digest
    from shared.runs.model.request import FixRequest, settled

    request = settled(RunKind.PLAN, _request(FixRequest, arguments), settings)
    async with _services(arguments, settings) as (services, begun):
        run = await survey_here(services, RunKind.PLAN, request, begun)
        plans = await plans_of(services, run)
        findings = await _findings(services.store, run.id)
    report.plans_as_text(plans, sys.stdout)
    whole = PlanFile(
        run_id=run.id,
        made=datetime.now(UTC),
        controls=request.control_ids,
        method=request.method,
        nodes=tuple(plans),
        digest=digest(plans),
    )
    _write(Path(arguments.out), whole.model_dump_json(indent=1))
    _say(f"the plan is in {arguments.out}; carry it out with: kubelet-guard fix --plan {arguments.out}")
    return report.exit_code(findings)


async def fix_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Change failing nodes as planned, restart their kubelets, verify, and roll back where one is not well.

    Pools are fixed side by side, each in waves, a canary first; a pool is left at the first sign of trouble. Needs
    GUARD_ALLOW_FIX=true besides.
    """
    from shared import report
    from shared.models import RunKind
    from shared.runs.hosts.terminal import fix_here, plans_in_file, plans_of, survey_here
    from shared.runs.model.findings import key_of
    from shared.runs.model.plans import read_plan_file
    from shared.runs.model.request import FixRequest, refuse_others, settled

    _refuse_together(arguments)
    if not settings.allow_fix:
        raise UsageError(
            "fixing is not allowed here: it needs a second key besides this command."
            " Where you may, set GUARD_ALLOW_FIX=true"
        )
    if arguments.resume is not None:
        return await _resume(arguments, settings)
    request = settled(RunKind.FIX, _request(FixRequest, arguments), settings)
    plan_file = None if arguments.plan is None else read_plan_file(_read(Path(arguments.plan)), arguments.plan)
    if plan_file is not None:
        refuse_others(plan_file.controls, settings.fix_controls)
    survey: Run | None
    async with _services(arguments, settings) as (services, begun):
        if plan_file is not None:
            plans, survey = await plans_in_file(services, plan_file, request, begun)
        else:
            survey = await survey_here(services, RunKind.PLAN, request, begun)
            plans = await plans_of(services, survey)
        surveyed = [] if survey is None else await _findings(services.store, survey.id)
    if plan_file is not None:
        keys = {key_of(plan.node, item) for plan in plan_file.nodes for item in (*plan.controls, *plan.left)}
        surveyed = [finding for finding in surveyed if finding.key in keys]
    report.plans_as_text(plans, sys.stderr)
    if all(plan.refused for plan in plans):
        _say("there is nothing to fix")
        if survey is None:
            return 1 if plans else 0
        return _show(surveyed, arguments.output)
    _ask(arguments, plans)
    async with _services(arguments, settings) as (services, begun):
        run = await fix_here(services, request, plans, begun)
        fixed = await _findings(services.store, run.id)
    # What the survey found elsewhere is as true as before: a node that could not be looked at must not vanish.
    known = {finding.key for finding in fixed}
    return _show([*fixed, *(finding for finding in surveyed if finding.key not in known)], arguments.output)


async def _resume(arguments: argparse.Namespace, settings: Settings) -> int:
    """Go on with a fix that was broken off, after the same question as before it."""
    from shared import report
    from shared.runs.hosts.terminal import left_to_fix, resume_fix_here

    async with _services(arguments, settings) as (services, _):
        left = await left_to_fix(services, arguments.resume)
    report.plans_as_text(left, sys.stderr)
    if left:
        _ask(arguments, left)
    async with _services(arguments, settings) as (services, begun):
        run = await resume_fix_here(services, arguments.resume, begun)
        findings = await _findings(services.store, run.id)
    return _show(findings, arguments.output)


async def findings_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Show the findings of an earlier run from the store: of the latest complete audit where none is named.

    Of a node that is named also what became of it over time is shown (not in CSV).
    The exit status is that of the findings shown; but 2 instead of 0 where the run was not carried out to its end.
    """
    from shared.models import RunState
    from shared.runs.steps.node_changes import changes_of

    narrower = {name: getattr(arguments, name) for name in ("status", *_PLACES)}
    async with _store(arguments, settings) as store:
        if arguments.run_id is not None:
            run = await store.run(arguments.run_id)
            if run is None:
                raise UsageError(f"the store holds no run {arguments.run_id}")
        else:
            run = await _latest_audit(store)
        findings = await _findings(store, run.id, **narrower)
        if not findings:
            await _refuse_unknown(store, run, {name: narrower[name] for name in _PLACES})
        changes = await changes_of(store, run, findings) if arguments.node is not None else None
    whole = run.state is RunState.COMPLETED
    if not whole:
        why = f" ({run.error})" if run.error else ""
        _say(f"the run {run.id} is {run.state.replace('_', ' ')}{why}: findings may be missing")
    if not findings and (not whole or any(narrower.values())):
        _say("no finding matches" if any(narrower.values()) else "it has no finding")
        _print(findings, arguments.output)
        return 0 if whole else 2
    code = _show(findings, arguments.output, changes)
    return code if whole else code or 2


async def controls_command(arguments: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001 - as all commands
    """Show the controls of the catalogue (and of GUARD_CONTROLS_FILE), in short."""
    from shared import report
    from shared.controls import catalogue
    from shared.runs.model import names

    known = catalogue()
    version: str = arguments.benchmark
    if version and version not in known.benchmarks:
        raise UsageError(f"no version {version!r} of the benchmark; {names.there_is([version], known.benchmarks)}")
    chosen = known.of(version) if version else tuple(known.controls)
    show = report.controls_as_json if arguments.output == "json" else report.controls_as_text
    show(known, chosen, sys.stdout)
    return 0


async def explain_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Show everything about one control: what it asks for and why, the kubelet's default, what a fix would do."""
    from shared import report
    from shared.controls import catalogue
    from shared.runs.model import names

    known = catalogue()
    wanted: str = arguments.control
    control = known.controls.get(wanted)
    if control is None:
        raise UsageError(f"no control {wanted!r}; {names.there_is([wanted], known.controls)}")
    if arguments.output == "json":
        report.explained_as_json(known, control, sys.stdout)
    else:
        report.explained_as_text(known, control, wanted in settings.fix_controls, sys.stdout)
    return 0


async def hold_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Hold all fixes, here and in the app that uses the same store: none starts, and none begins another wave.

    What is in hand on a node comes to its end. A held fix waits, and goes on when the hold is released.
    """
    from shared.runs.hosts.starting import held_words
    from shared.settings import place_of
    from shared.store import Hold

    async with _store(arguments, settings) as store:
        if arguments.release:
            await store.release_hold()
        elif not arguments.show:
            by = f"{getpass.getuser()} at {socket.gethostname()}"
            await store.set_hold(Hold(by=by, since=datetime.now(UTC), reason=arguments.reason or "no reason was given"))
        held = await store.hold()
    # Another store's fixes go on: whoever holds the app's must see whether this is it.
    where = f"(in the store {place_of(_location(arguments, settings))})"
    if held is None:
        _say(f"fixes are not held {where}")
        return 0
    _say(f"{held_words(held)} {where}")
    return 1 if arguments.show else 0


async def copy_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Copy all runs, findings, plans and histories into another store: for a move, or to keep them.

    Made again, it goes over what is there. Nothing may be going; a hold is not copied.
    """
    from shared.settings import place_of
    from shared.store import copy, open_store

    if _location(arguments, settings).strip() == arguments.to.strip():
        raise UsageError("--to names the store itself; name another one")
    async with (
        _store(arguments, settings) as source,
        open_store(arguments.to, authority=settings.authority) as target,
    ):
        copied = await copy(source, target)
    parts = ", ".join(f"{count:,} rows of {table}" for table, count in copied.items())
    _say(f"copied into {place_of(arguments.to)}: {parts}")
    return 0


async def _latest_audit(store: Store) -> Run:
    """The audit that is meant where none is named; says which one. Raises UsageError where there is none."""
    from shared.runs.model import names
    from shared.runs.model.request import scope_of

    run = await store.latest_audit()
    if run is None:
        other = await store.latest_run()
        show = f"; of the {other.kind} {other.id}: kubelet-guard findings --run {other.id}" if other else ""
        raise UsageError(f"the store holds no complete audit yet; make one with: kubelet-guard audit{show}")
    parts = [
        f"{name.replace('_', ' ')} {names.listed([wanted] if isinstance(wanted, str) else wanted)}"
        for name, wanted in scope_of(run).items()
        if wanted
    ]
    _say(f"of the audit {run.id} of {'; '.join(parts) or 'everything'}")
    return run


async def _refuse_unknown(store: Store, run: Run, wanted: Mapping[str, str | None]) -> None:
    """Raises UsageError where one of the wanted names is in no finding of the run at all."""
    from shared.runs.model import names

    known: dict[str, set[str]] = {place: set() for place, name in wanted.items() if name}
    if known:
        for finding in await _findings(store, run.id):
            for place, there in known.items():
                there.add(getattr(finding, place))
    for place, there in known.items():
        missing = names.unknown([wanted[place] or ""], there)
        if missing:
            noun = place.replace("_", " ")
            raise UsageError(f"no {noun} named {missing[0]} in the run {run.id}; {names.there_is(missing, there)}")


async def _show_run(store: Store, run_id: str, output: str) -> int:
    """All findings of a run on stdout, as `_show`; but for a table none are held."""
    from shared import report
    from shared.store import FindingQuery

    if output == "table":
        return _show(await _findings(store, run_id), output)
    entries = {"json": report.json_entries, "csv": report.csv_entries}[output](sys.stdout)
    statuses = await report.stream(store.all_findings(FindingQuery(run_id=run_id)), entries)
    if not statuses:
        _say(_NOTHING)
    return report.exit_code_of(statuses)


def _show(findings: Sequence[Finding], output: str, changes: Changes | None = None) -> int:
    """Findings on stdout, with their nodes' changes where given; gives the exit status that they stand for."""
    from shared import report

    _print(findings, output, changes)
    if not findings:
        _say(_NOTHING)
    return report.exit_code(findings)


def _print(findings: Sequence[Finding], output: str, changes: Changes | None = None) -> None:
    from shared import report

    match output:
        case "json":
            report.as_json(findings, sys.stdout, changes)
        case "csv":
            report.as_csv(findings, sys.stdout)
        case _:
            report.as_table(findings, sys.stdout)
            report.changes_as_text(findings, changes or {}, sys.stdout)


def _ask(arguments: argparse.Namespace, plans: Sequence[NodePlan]) -> None:
    """The second thought before nodes are changed. Raises UsageError where nobody can be asked, or the answer is no."""
    _say(_SUPPORT_POLICY)
    if arguments.yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("nobody can be asked here; where you are sure, add --yes")
    restarts = [plan.restart for plan in plans if not plan.refused]
    how = "restart their kubelets" if all(restarts) else f"restart {sum(restarts) or 'none'} of their kubelets"
    print(f"Change {len(restarts)} nodes and {how}? Type yes: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != "yes":
        raise UsageError("nothing was changed")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the plan {path} cannot be read: {error}") from None


def _write(path: Path, text: str) -> None:
    from shared.files import write_private

    try:
        write_private(path, text)
    except OSError as error:
        raise UsageError(f"the plan cannot be written to {path}: {error}") from None


def _say(text: str) -> None:
    # An error may quote Azure, a node or a plan file.
    print("\n".join(plain(line, None) for line in text.split("\n")), file=sys.stderr)


def _log_to_stderr() -> None:
    """Warnings of the run go to stderr, in plain characters."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(PlainFormatter("kubelet-guard: %(message)s"))
    logging.basicConfig(handlers=[handler])


def main(argv: Sequence[str] | None = None) -> int:
    """The console script: parse, run, and turn errors into sentences and exit statuses."""
    arguments = _parser().parse_args(argv)
    _log_to_stderr()
    function: Callable[[argparse.Namespace, Settings], Awaitable[int]] = arguments.function

    async def run() -> int:
        from shared.settings import load

        settings = load(os.environ)
        # Whoever holds fixes must be able to, whatever is wrong with a catalogue.
        if arguments.judges:
            from shared.runs.hosts.own_catalogue import install_own

            await install_own(settings)
        return await function(arguments, settings)

    try:
        return asyncio.run(run())
    except GuardError as error:
        _say(f"kubelet-guard: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        _say("kubelet-guard: interrupted")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
