"""Making findings: a verdict or a problem, put in its place (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from shared.controls import Verdict, catalogue
from shared.models import Finding, Node, Problem, ScopeProblem
from shared.plain import plain_fields


def from_verdict(run_id: str, observed: datetime, node: Node, control_id: str, verdict: Verdict) -> Finding:
    """The finding of a control that was judged on a node, or should have been."""
    known = catalogue()
    rule = known.controls.get(control_id)
    made = Finding(
        run_id=run_id,
        observed=observed,
        control=control_id,
        title=rule.title if rule is not None else "",
        catalogue=known.digest,
        severity=rule.severity if rule is not None else "",
        status=verdict.status,
        subscription=node.subscription,
        resource_group=node.resource_group,
        cluster=node.cluster,
        location=node.location,
        node_pool=node.node_pool,
        scale_set=node.scale_set,
        instance_id=node.instance_id,
        node=node.name,
        actual=verdict.actual,
        expected=rule.expected if rule is not None else None,
        source=verdict.source,
        reason=verdict.reason,
        hint=verdict.hint,
        code=str(verdict.code),
        witness=verdict.witness,
        restart_pending=verdict.restart_pending,
        node_image_version=node.node_image_version,
        node_created=node.created,
        resource_id=node.id,
    )
    return plain_fields(made)


def reported_by(finding: Finding, version: str) -> Finding:
    """The finding as a version of the benchmark has it ('': the catalogue's default)."""
    known = catalogue()
    benchmark = known.benchmarks.get(version or known.default)
    entry = benchmark.entry(finding.control) if benchmark is not None else None
    if benchmark is None or entry is None:
        return finding
    return replace(finding, benchmark=benchmark.name, title=entry.title or finding.title)


def key_of(node: Node, control_id: str) -> str:
    """`Finding.key` of this node's and control's finding."""
    return f"{node.key}|{control_id.lower()}"


def from_problem(
    run_id: str,
    observed: datetime,
    node: Node,
    control_ids: Iterable[str],
    problem: Problem,
    unfit: Mapping[str, Verdict] | None = None,
) -> list[Finding]:
    """One finding a control for a node that could not be looked at; `unfit` has those that do not apply to it."""
    verdict = Verdict(problem.status, problem.code, None, "", problem.reason, problem.hint, witness="")
    known = unfit or {}
    return [from_verdict(run_id, observed, node, name, known.get(name, verdict)) for name in control_ids]


def from_scope(run_id: str, observed: datetime, control_ids: Iterable[str], scope: ScopeProblem) -> list[Finding]:
    """One finding a control for a subscription, cluster or pool whose nodes could not be listed."""
    place = Node(
        subscription=scope.subscription,
        resource_group=scope.resource_group,
        cluster=scope.cluster,
        location="",
        node_pool=scope.node_pool,
        node_resource_group="",
        scale_set="",
        instance_id="",
        name="",
        os="",
        power="",
        provisioning="",
        kubernetes_version=None,
        node_image_version=None,
        created=None,
        cluster_provisioning="",
        pool_provisioning="",
        locked=False,
    )
    return from_problem(run_id, observed, place, control_ids, scope.problem)
