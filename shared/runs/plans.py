"""Plans as they are stored, shown, written to a file and bound to an approval: one entry a node, one digest for all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.controls import control
from shared.errors import UsageError
from shared.models import Evidence, Node
from shared.node.fixing import CannotApply, FileEdit, file_edit
from shared.node.planning import CannotPlan, Method, plan
from shared.plaintext import readable

FORMAT = "kubelet-guard plan 1"


class NodePlan(BaseModel):
    """What would be done to one node, or `refused`: why nothing is planned.

    `running_pid` is the kubelet that was looked at: where only a restart is missing (no edits), another one means that
    it happened meanwhile.
    """

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    node: Node
    controls: tuple[str, ...]
    edits: tuple[FileEdit, ...] = ()
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    running_pid: int = 0
    steps: tuple[str, ...] = ()
    diff: str = ""
    refused: str = ""


class PlanFile(BaseModel):
    """A whole plan: of which run, made when, and its nodes."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    format: str = FORMAT
    run_id: str
    made: datetime
    nodes: tuple[NodePlan, ...]
    digest: str = ""


def plan_node(node: Node, control_ids: tuple[str, ...], evidence: Evidence, method: Method) -> NodePlan:
    """The plan for one node from its evidence: it makes `control_ids` (those that fail there) comply."""
    try:
        made = plan([control(control_id) for control_id in control_ids], evidence, node.kubernetes_version, method)
        edits = tuple(file_edit(evidence.files[path], text) for path, text in sorted(made.texts.items()))
    except (CannotPlan, CannotApply) as error:
        return NodePlan(node=node, controls=control_ids, refused=readable(str(error)))
    return NodePlan(
        node=node,
        controls=control_ids,
        edits=edits,
        present=made.present,
        absent=made.absent,
        running_pid=evidence.process.pid if evidence.process else 0,
        steps=(*made.steps, "restart the kubelet"),
        diff=made.diff(evidence),
    )


def digest(plans: Iterable[NodePlan]) -> str:
    """The SHA-256 over all entries, in the order of their nodes: what an approval is bound to."""
    entries = sorted((plan.node.key, plan.model_dump_json()) for plan in plans)
    return hashlib.sha256("\n".join(text for _, text in entries).encode("utf-8", "replace")).hexdigest()


def read_plan_file(text: str, name: str) -> PlanFile:
    """A plan file's plan. Raises UsageError where it is none, or was changed after it was written."""
    try:
        plan_file = PlanFile.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(
            f"{name} is not a plan file: {error.errors()[0]['msg']}; make one with: kubelet-guard plan"
        ) from None
    if plan_file.format != FORMAT:
        raise UsageError(f"{name} is in the format {plan_file.format!r}; this version reads {FORMAT!r}")
    if plan_file.digest != digest(plan_file.nodes):
        raise UsageError(f"{name} was changed after it was written: its digest does not match. Make a new plan")
    return plan_file
