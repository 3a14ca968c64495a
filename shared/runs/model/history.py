"""What earlier runs knew of a node, and what that says of a new finding (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from shared.controls import control
from shared.models import Finding, History, Outcome, Status

SEEN_AGAIN = timedelta(days=30)
"""How long what is remembered stands without being written again, so that a node that still is there is known to be."""

Past = Mapping[tuple[str, str], History]
"""What is known by node key and control."""


def with_history(finding: Finding, before: History | None) -> Finding:
    """The finding, marked `regressed` where the control was fixed on this node before and fails again."""
    if before is None or finding.status is not Status.FAIL or finding.outcome is not None:
        return finding
    if before.last_fixed is None:
        return replace(finding, last_right=before.last_right)
    return replace(
        finding,
        regressed=True,
        last_right=before.last_right,
        reimaged_since=(before.node_image_version, before.created)
        != (finding.node_image_version, finding.node_created),
    )


LOOKED_AGAIN = timedelta(days=1)
"""How long the time of a look stands without being written again."""


def _looked(finding: Finding, known: History, now: History, *, looks: bool) -> tuple[datetime | None, str]:
    """When the node itself was last looked at, as far as that still says something of it, and by which rule."""
    before = known.looked, known.looked_by
    if finding.witness.startswith("node"):
        rule = control(finding.control).digest
        due = known.looked is None or finding.observed - known.looked >= LOOKED_AGAIN or known.looked_by != rule
        return (finding.observed, rule) if looks and due else before
    parts = ((entry.status, entry.node_image_version, entry.created) for entry in (known, now))
    return before if len(set(parts)) == 1 else (None, "")


def after(
    finding: Finding, node_key: str, before: History | None, proof: str = "", *, looks: bool = False
) -> History | None:
    """What to remember after this finding; None where that is what is remembered already, or it tells nothing.

    It tells nothing where no verdict could be had and no fix was rolled back, which is remembered until the node is
    right. `proof` is the verdict's. Where it had none the last one stays: it names its process, and says nothing of
    another. `looks` says that the times of looks at the node itself are remembered.
    """
    rolled_back = finding.outcome is Outcome.ROLLED_BACK
    if finding.status not in (Status.PASS, Status.FAIL) and not rolled_back:
        return None
    right = finding.status is Status.PASS
    fixed = right and finding.outcome is Outcome.FIXED
    known = before or History(node_key, finding.control, finding.status, finding.observed, None, None, None, None)
    same = before is not None and before.status is finding.status
    now = replace(
        known,
        status=finding.status,
        seen=finding.observed,
        since=known.since if same else finding.observed,
        last_right=finding.observed if right else known.last_right,
        last_fixed=finding.observed if fixed else known.last_fixed,
        # The image is that of the last time it was right: a later one says that it was reimaged since.
        node_image_version=finding.node_image_version if right else known.node_image_version,
        created=finding.node_created if right else known.created,
        proof=proof or known.proof,
        last_rolled_back=finding.observed if rolled_back else None if right else known.last_rolled_back,
    )
    looked, rule = _looked(finding, known, now, looks=looks)
    now = replace(now, looked=looked, looked_by=rule)
    if before is None or finding.observed - before.seen >= SEEN_AGAIN:
        return now
    unchanged = replace(now, seen=before.seen, last_right=before.last_right) == before
    return None if unchanged else now
