"""What must hold after a trial, whatever struck it. Each check adds to the trial's `broken` what does not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from bench.world import Look, World
from sandbox import service
from sandbox.fleet import Member
from sandbox.states import CHAINS, STATES
from shared.controls import catalogue
from shared.models import Finding, Outcome, Run, RunKind, RunState, Status
from shared.runs import documents
from shared.runs.model import keys
from shared.runs.steps import plan_pages
from shared.store import FindingQuery, Store, open_store

COMMON = ("compliant_default", "compliant_file", "false_file", "false_flag", "compliant_flag", "false_dropin")
"""States that a fix leaves well: where they are wrong, they can be planned for and put right."""

UNWELL = ("unhealthy_when_fixed", "dies_when_fixed")
"""States whose kubelet is not well once it is right: a fix has to put the old file back."""

# Whose senders died so often is not sent to again: a person has to look.
_DEATHS = 4
# What a fix keeps on a node, but for the journal: that is there only while something is under way.
_OWN, _JOURNAL = "/var/lib/kubelet-guard/", "/var/lib/kubelet-guard/journal"

Planned = Mapping[str, Mapping[str, Set[str | None]]]
"""By node and path: the SHA-256 that a fix may give a file (None: any)."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a trial left in its store: all runs, newest first; findings by run; what its fixes were to change."""

    runs: Sequence[Run] = ()
    findings: Mapping[str, Sequence[Finding]] = field(default_factory=dict)
    planned: Planned = field(default_factory=dict)

    @property
    def survey(self) -> Run | None:
        """The newest audit or plan."""
        return next((run for run in self.runs if run.kind is not RunKind.FIX), None)

    @property
    def fixes(self) -> list[Run]:
        """The fixes, newest first."""
        return [run for run in self.runs if run.kind is RunKind.FIX]


async def read(location: str) -> Stored:
    """What is in a store."""
    async with open_store(location) as store:
        runs = (await store.runs(1000)).runs
        findings = {run.id: [item async for item in store.all_findings(FindingQuery(run_id=run.id))] for run in runs}
        planned: defaultdict[str, defaultdict[str, set[str | None]]] = defaultdict(lambda: defaultdict(set))
        for run in runs:
            if run.kind is RunKind.FIX:
                await _add_planned(store, run, planned)
    return Stored(runs, findings, planned)


async def _add_planned(store: Store, fix: Run, planned: defaultdict[str, defaultdict[str, set[str | None]]]) -> None:
    gathered = await documents.find(store, fix.id, keys.GATHERED, documents.GATHERED)
    for pool, nodes in enumerate(gathered.pools if gathered is not None else ()):
        for plan in (await plan_pages.load(store, fix.id, pool, range(nodes))).values():
            files = planned[plan.node.name]
            for edit in plan.edits:
                files[edit.path].add(edit.new_digest)


def check_runs(world: World, stored: Stored) -> None:
    """Every run is over and adds up, every node found is recorded, and no verdict is wrong or lost for nothing."""
    trial, broken = world.trial, world.trial.broken
    # Of an audit whose process was killed nobody hears until somebody looks (a day).
    killed = [run for run in stored.runs if run.kind is not RunKind.FIX and _begun_before_the_kill(world, run)]
    going = [run for run in stored.runs if not run.state.final and run not in killed[:1]]
    if going:
        broken.append(f"not over: {[(run.kind.value, run.state.value) for run in going]}")
    if not trial.both_keys and stored.fixes:
        broken.append(f"a fix was recorded without both keys: {stored.fixes[0].id}")
    survey = stored.survey
    if trial.how == "fix, one key":
        return
    if survey is None:
        # Where the store could not even be opened there is nothing to record it in; the exit status says so.
        if world.status != 2 or not trial.faults["store away"]:
            broken.append("no survey was recorded")
        return
    surveyed = stored.findings[survey.id]
    late = bool(stored.fixes) and stored.fixes[-1].started < survey.started and survey.id != stored.fixes[0].plan_run
    complete = _check_survey(world, survey, surveyed, late=late)
    _check_verdicts(world, surveyed, late=late)
    of_chains = [item for item in surveyed if item.control == CHAINS]
    if trial.both_keys:
        failing = {item.node for item in of_chains if item.status is Status.FAIL} if complete else set()
        _check_fixes(world, stored, failing, complete=complete)
    trial.statuses.update(item.status.value for item in of_chains)


def _asked(run: Run) -> Sequence[str]:
    """The controls that a run judges."""
    given = run.request.get("controls")
    return [str(name) for name in given] if isinstance(given, list | tuple) and given else catalogue().of()


def _begun_before_the_kill(world: World, run: Run) -> bool:
    return world.killed is not None and not run.state.final and run.started.timestamp() < world.killed


def _check_survey(world: World, run: Run, findings: Sequence[Finding], *, late: bool) -> bool:
    """Found = recorded: every node once for each control, or with all of a pool, cluster or subscription that could not
    be listed.

    Gives whether the survey came to its end.
    """
    broken = world.trial.broken
    if run.state is RunState.FAILED and "list of subscriptions" in run.error:
        paths = world.excuses.given_up if world.excuses.unlisted is None else world.excuses.unlisted
        if "/subscriptions" in {path.rstrip("/") for path in paths}:
            return False  # Azure was away when it was to begin, and it says so
    if run.state is not RunState.COMPLETED:
        broken.append(f"the {run.kind} ended {run.state}: {run.error}")
        return False
    _check_summary(world, run, findings)
    found, asked = Counter((item.node, item.control) for item in findings if item.node), _asked(run)
    group = {(member.subscription.id, member.cluster.name): member.cluster.node_group for member in world.members}
    scopes = {(item.subscription, item.cluster, item.node_pool) for item in findings if not item.node}
    for subscription, cluster, pool in sorted(scopes):
        cluster_known = [group[subscription, cluster]] if cluster else []
        if not world.excuses.listing(subscription, *cluster_known, late=late):
            broken.append(f"{subscription}/{cluster}/{pool} could not be listed, and nothing struck its list")
    for member in world.members:
        place = (member.subscription.id, member.cluster.name, member.pool.name)
        covered = any(place[: len(scope)] == scope for scope in (tuple(filter(None, scope)) for scope in scopes))
        counts = {found[member.name, control] for control in asked}
        if len(counts) > 1 or max(counts) > 1 or (counts == {0} and not covered):
            broken.append(f"{member.name} ({member.state}) has {sorted(counts)} findings for each of {asked}")
    if beside := {control for _, control in found} - {*asked}:
        broken.append(f"the {run.kind} judged what it was not asked for: {sorted(beside)}")
    return True


def _check_summary(world: World, run: Run, findings: Sequence[Finding]) -> None:
    """What a run says that it came to is what it recorded."""
    told = run.summary
    statuses = Counter(item.status for item in findings)
    outcomes = Counter(item.outcome for item in findings if item.outcome is not None)
    nodes = len({item.node for item in findings if item.node})
    if told is None or (told.nodes, told.statuses, told.outcomes) != (nodes, statuses, outcomes):
        counted = {name.value: count for name, count in (*statuses.items(), *outcomes.items())}
        world.trial.broken.append(f"the {run.kind}'s summary says {told}, and there are {nodes} nodes, {counted}")


def _check_verdicts(world: World, findings: Sequence[Finding], *, late: bool) -> None:
    """No verdict is a guess; and how many nodes have none that would have had one."""
    by_name = {member.name: member for member in world.members}
    lost = set()
    for item in findings:
        member = by_name.get(item.node)
        if member is None:
            continue
        expected = STATES[member.state].expects(item.control)
        if item.status is Status.PASS and item.control == CHAINS and late and world.trial.both_keys:
            expected = "pass"  # a fix was there before
        if {item.status, expected} == {Status.PASS, "fail"} or {item.status, expected} == {Status.FAIL, "pass"}:
            world.trial.broken.append(f"{member.name} ({member.state}) is said to {item.status} {item.control}")
        if item.status is Status.ERROR and expected in ("pass", "fail") and member.name not in lost:
            lost.add(member.name)
            if not world.excuses.verdict(member.name, late=late):
                text = f"{member.name} ({member.state}) lost its verdict to nothing that may cost it"
                world.trial.broken.append(f"{text}: {item.control}: {item.code}: {item.reason}")
    world.trial.lost += len(lost)


# Fixes


def _check_fixes(world: World, stored: Stored, failing: Set[str], *, complete: bool) -> None:
    """A fix that was asked for with both keys is there and came to its end, whatever died meanwhile."""
    broken = world.trial.broken
    by_name = {member.name: member for member in world.members}
    if not stored.fixes:
        # A terminal records none where nothing can be planned.
        if wanted := sorted(name for name in failing if by_name[name].state in (*COMMON, *UNWELL)):
            broken.append(f"no fix was recorded, and these fail: {wanted}")
        return
    for fix in stored.fixes:
        if fix.state is not RunState.COMPLETED and (complete or "the plan failed" not in fix.error):
            broken.append(f"the fix ended {fix.state}: {fix.error}")
        if fix.state.final:
            _check_summary(world, fix, stored.findings[fix.id])
        _check_said(world, stored.findings[fix.id])
        world.trial.outcomes.update(item.outcome.value for item in stored.findings[fix.id] if item.outcome is not None)
    newest = stored.findings[stored.fixes[0].id]
    told = Counter(item.node for item in newest if item.node)
    if missing := sorted(name for name in failing if told[name] == 0):
        broken.append(f"of the fix there is nothing of {missing}")
    if twice := sorted(name for name, count in told.items() if count > 1):
        broken.append(f"the fix has more than one finding of {twice}")
    _check_hindered(world, newest, again=len(stored.fixes) > 1)


def chains_are_kept(root: Path) -> bool:
    """Whether the kubelet of this node folder has makeIPTablesUtilChains true."""
    now = service.effective(root)
    return now is not None and now.value("makeIPTablesUtilChains") is True


def _check_said(world: World, findings: Sequence[Finding]) -> None:
    """What is said of a fix is what the nodes are; trouble ends a pool."""
    broken = world.trial.broken
    by_name = {member.name: member for member in world.members}
    for item in findings:
        member = by_name.get(item.node)
        if member is None:
            continue
        right = item.outcome in (Outcome.FIXED, Outcome.ALREADY_RIGHT) or item.status is Status.PASS
        if item.control != CHAINS:
            broken.append(f"a fix of {CHAINS} says something of {item.control} ({member.name})")
        if right and not chains_are_kept(world.box.node_dir(member.name)):
            broken.append(f"{member.name} ({member.state}) is said to be right ({item.outcome}), and is not")
        if item.outcome is None:
            broken.append(f"{member.name} ({member.state}) has no outcome in a fix")
    trouble = Counter(item.scale_set for item in findings if item.outcome in (Outcome.FAILED, Outcome.ROLLED_BACK))
    if most := [pool for pool, count in trouble.items() if count > 1]:
        broken.append(f"pools went on after trouble: {most}")


def _check_hindered(world: World, findings: Sequence[Finding], *, again: bool) -> None:
    """Where nothing struck a pool that may cost it a fix, every node of it is fixed that can be, and what cannot be is
    rolled back. With `again` an earlier fix may have left a node for a person."""
    if world.trial.kills >= _DEATHS:
        return
    by_name = {member.name: member for member in world.members}
    excused = {member.scale_set for member in world.members if _may_fail(world, member)}
    rolled_back = {item.scale_set for item in findings if item.outcome is Outcome.ROLLED_BACK}
    for item in findings:
        if item.node not in by_name or by_name[item.node].scale_set in excused:
            continue
        state = by_name[item.node].state
        allowed = {Outcome.ROLLED_BACK} if state in UNWELL else {Outcome.FIXED, Outcome.ALREADY_RIGHT}
        if (item.scale_set in rolled_back and state not in UNWELL) or (state in UNWELL and again):
            allowed.add(Outcome.NOT_TRIED)
        if item.outcome not in allowed:
            text = f"{item.node} ({state}) is {item.outcome} although nothing hindered it"
            world.trial.broken.append(f"{text}: {item.reason}")


def _may_fail(world: World, member: Member) -> bool:
    owner, cluster = f"/subscriptions/{member.subscription.id}/resourcegroups/", member.cluster
    managed = f"{cluster.resource_group}/providers/Microsoft.ContainerService/managedClusters/{cluster.name}"
    seen = (managed, f"{cluster.node_group}/providers/")
    return (
        member.state not in (*COMMON, *UNWELL)
        or world.excuses.fix(member.name)
        or world.excuses.wave(*(f"{owner}{place}" for place in seen))
    )


# Nodes


def check_nodes(world: World, before: Mapping[str, Look], after: Mapping[str, Look], planned: Planned) -> None:
    """Nothing was changed but as planned and with both keys, nothing was sent twice, and every kubelet is as well as it
    was."""
    _check_sent(world, planned)
    broken = world.trial.broken
    for member in world.members:
        name, old, new = f"{member.name} ({member.state})", before[member.name], after[member.name]
        changed = {path for path in {*old.files, *new.files} if old.files.get(path) != new.files.get(path)}
        if changed and not world.trial.both_keys:
            broken.append(f"{name} was changed without both keys: {sorted(changed)}")
            continue
        if _JOURNAL in changed:
            broken.append(f"{name} has a fix under way when all is over")
        changed = {path for path in changed if not path.startswith(_OWN)}
        if changed and STATES[member.state].expected == "pass":
            broken.append(f"{name} was changed although it is right: {sorted(changed)}")
        if changed and member.state in UNWELL:
            broken.append(f"{name} was not rolled back: {sorted(changed)}")
        files = planned.get(member.name, {})
        if beside := sorted(path for path in changed if not {new.files.get(path), None} & files.get(path, set())):
            broken.append(f"{name} was changed beside the plan: {beside}")
        if old.well and not new.well:
            broken.append(f"{name} is not well any more")


def _check_sent(world: World, planned: Planned) -> None:
    """No node gets two commands at once, or one twice, but where its sender died or was not answered."""
    broken, kills, doubts = world.trial.broken, world.trial.kills, world.excuses.doubts
    if world.fixed_at_once:
        broken.append(f"more than one node of a pool was changed at once: {sorted(world.fixed_at_once)}")
    for node, commands in world.in_the_way.items():
        if len(commands) > kills + doubts(node):
            broken.append(f"a command was sent while one went on {node}, {len(commands)} times")
    for (node, _), count in world.changes.items():
        if count > 1 + kills:
            broken.append(f"the same change was sent {count} times to {node}")
    for (node, _), count in world.nonces.items():
        if count > 1 + kills + doubts(node):
            broken.append(f"the same request was sent {count} times to {node}")
    if not world.trial.both_keys and world.changers:
        broken.append(f"what changes a node was sent without both keys to {sorted(world.changers)}")
    elif beside := sorted(world.changers - set(planned)):
        broken.append(f"what changes a node was sent beside the plan to {beside}")
