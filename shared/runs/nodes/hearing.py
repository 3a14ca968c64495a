"""What a node's kubelet told its cluster, as verdicts; and whether the node is to be looked at besides (pure)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from shared.controls import CONFIGZ, Code, Verdict, catalogue, control, judge_told
from shared.models import History, Node, Problem, Status, Told
from shared.runs.model.history import Past
from shared.runs.nodes.verdicts import inapplicable

OTHER_SETTINGS = Problem(
    Status.ERROR,
    "other_settings",
    "the kubelet was asked by another catalogue of controls than the one that it is judged by now.",
    "The app or its catalogue was changed while the run was going. Run again.",
)


def digest_of(names: Sequence[str]) -> str:
    """Names a list of settings; see `Told.settings`."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()[:16]


def still_told(told: Mapping[str, Told]) -> dict[str, Told]:
    """What kubelets told, by node, as far as they were asked for what is judged now: a setting that nobody asked for
    must not pass for one that the kubelet left out."""
    now = digest_of(catalogue().settings)
    return {
        key: one if one.trouble is not None or one.settings == now else replace(one, values={}, trouble=OTHER_SETTINGS)
        for key, one in told.items()
    }


def heard(
    node: Node, control_ids: Sequence[str], told: Told, known: Past, why: Problem | None = None
) -> dict[str, Verdict]:
    """The verdicts by a kubelet that was heard, by control. `why` says why the node itself was not looked at.

    Of what only the node can show, a verdict of an earlier look that still counts is repeated, with its date.
    """
    unfit = inapplicable(node, control_ids)
    made = {}
    for name in control_ids:
        if name in unfit:
            made[name] = unfit[name]
            continue
        verdict = judge_told(control(name), told, node.kubernetes_version, why.reason.rstrip(".") if why else "")
        before = known.get((node.key, name))
        if verdict.code == Code.NEEDS_NODE and why is None and before is not None and _still_right(node, name, before):
            verdict = _repeated(name, before)
        made[name] = verdict
    return made


def _still_right(node: Node, control_id: str, before: History) -> bool:
    """Whether the node was looked at and found right by the same rule, and is the same machine with the same image."""
    same = before.node_image_version == node.node_image_version and before.created == node.created
    same = same and before.looked_by == control(control_id).digest
    return before.status is Status.PASS and before.looked is not None and same


def _repeated(name: str, before: History) -> Verdict:
    assert before.looked is not None  # it still counts
    rule = control(name)
    subject = rule.subject[0].upper() + rule.subject[1:]
    reason = f"{subject} was right when the node was looked at, on {before.looked:%Y-%m-%d %H:%M} UTC"
    return Verdict(Status.PASS, Code.RIGHT, None, "", reason, "", witness=CONFIGZ)


def needs_look(node: Node, control_ids: Sequence[str], told: Told, known: Past, since: datetime) -> bool:
    """Whether `smart` looks at a node itself: it fails, is unclear or new, or was not looked at since then."""
    if told.trouble is not None:
        return True
    for name, verdict in heard(node, control_ids, told, known).items():
        if verdict.status is Status.NOT_APPLICABLE:
            continue
        before = known.get((node.key, name))
        if verdict.status is not Status.PASS or before is None or not _still_right(node, name, before):
            return True
        assert before.looked is not None  # it still counts
        if before.looked < since:
            return True
    return False
