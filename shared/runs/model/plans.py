"""Plans as they are stored, shown, written to a file and bound to an approval: one entry a node, one digest for all."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from shared.controls import Trouble, catalogue, control, on_disk
from shared.controls.rules import SET_ID
from shared.errors import UsageError
from shared.models import Evidence, File, Node
from shared.node.edits import Method, plan
from shared.node.fixing import HEALTHZ, HEALTHZ_OFF, CannotApply, FileEdit, ModeEdit, Splice, file_edit
from shared.plain import plain as plain_text
from shared.runs.model.history import Past
from shared.runs.model.names import there_is
from shared.runs.model.request import ControlId
from shared.settings import Settings

FORMAT = "kubelet-guard plan 4"


@dataclass(frozen=True, slots=True)
class SeenFile:
    """A file as the node's evidence had it: `text` may have values masked, `digest` is of the file as it really is."""

    path: str
    text: bytes
    digest: str


class NodePlan(BaseModel):
    """What would be done to one node for `controls`, or `refused`: why nothing is planned.

    `catalogue` is the digest of the catalogue of one's own that it was made by ('': none).
    `left` are controls that fail there and for which there is no plan, by their ids, with the reason; `also` those that
    fail and were not asked for. Without `restart` only `modes` change. `files` are those that the edits may touch: the
    node's own evidence named them as its kubelet's. `running_pid` is the kubelet that was looked at: where only a
    restart is missing (no edits), another one means that it happened meanwhile. `healthz` is where the restarted one
    says that it is healthy (see `apply_script`).
    """

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    node: Node
    controls: tuple[str, ...]
    catalogue: str = ""
    left: Mapping[str, str] = {}
    also: tuple[str, ...] = ()
    edits: tuple[FileEdit, ...] = ()
    modes: tuple[ModeEdit, ...] = ()
    restart: bool = True
    files: tuple[SeenFile, ...] = ()
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    running_pid: int = 0
    healthz: str = HEALTHZ
    steps: tuple[str, ...] = ()
    refused: str = ""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        why = _misfit(self)
        if why:
            raise ValueError(why)
        return self

    @property
    def diff(self) -> str:
        """A unified diff, made from the edits now: what it shows is what is done.

        Values that the node masked stay masked; what is no character to be shown, and a byte that is not UTF-8, is
        shown as an escape (`\\xNN`), so that no line of a file can look like two.
        """
        seen = {file.path: file for file in self.files}
        lines: list[str] = []
        for edit in self.edits:
            before, after = (
                _lines(text) for text in (seen[edit.path].text, spliced(seen[edit.path].text, edit.splices))
            )
            for line in difflib.unified_diff(before, after, edit.path, edit.path):
                whole = line.endswith("\n")
                lines.append(plain_text(line.removesuffix("\n"), None))
                lines += [] if whole else ["\\ No newline at end of file"]
        return "".join(f"{line}\n" for line in lines)


class PlanFile(BaseModel):
    """A whole plan: of which planning run, made when, for which controls and how, and its nodes."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    format: str = FORMAT
    run_id: str
    made: datetime
    controls: tuple[ControlId, ...]
    method: Method
    nodes: tuple[NodePlan, ...]
    digest: str = ""


def fault(plan: NodePlan) -> str:
    """Why a plan cannot be one of this version's, '' where it can: a control that is not known, or edits that do not
    fit the files that it was made from (pure)."""
    known = catalogue().controls
    strange = [control_id for control_id in (*plan.controls, *plan.left) if control_id not in known]
    if strange:
        return f"this version does not know the control {strange[0]!r}; {there_is(strange, known)}"
    return _misfit(plan)


def _misfit(plan: NodePlan) -> str:
    """Why the edits do not fit the files that they were made from, whatever the catalogue is by now."""
    seen = {file.path: file for file in plan.files}
    if plan.edits and not plan.restart:
        return "it edits files and does not restart the kubelet"
    for mode in plan.modes:
        if mode.new_mode & ~mode.mode:
            return f"it would allow more of {mode.path!r} than its mode does now"
        if (mode.new_uid, mode.new_gid) != (mode.uid, mode.gid) and mode.new_mode & SET_ID:
            return f"{mode.path!r} would run as its new owner"
    if len({edit.path for edit in plan.edits}) < len(plan.edits):
        return "a file has more than one edit"
    for edit in plan.edits:
        file = seen.get(edit.path)
        if file is None:
            return f"it edits {edit.path!r}, which the node's evidence does not name as its kubelet's"
        if edit.digest != file.digest or not _fit(file.text, edit.splices):
            return f"the edit of {edit.path!r} is not of the text that the node's evidence has"
        # Where values are masked only the node can know what comes out.
        whole = _digest(file.text) == file.digest
        if edit.new_digest != (_digest(spliced(file.text, edit.splices)) if whole else None):
            return f"the edit of {edit.path!r} does not give what it says"
    return ""


def not_now(plan: NodePlan, settings: Settings) -> str:
    """Why a plan is not carried out by the deployment as it is set up now; '' where it is (pure)."""
    if not settings.allow_fix:
        return "this deployment does not allow fixes (GUARD_ALLOW_FIX)"
    others = set(plan.controls) - set(settings.fix_controls)
    if others:
        return f"this deployment does not fix {', '.join(sorted(others))} (GUARD_FIX_CONTROLS)"
    return outdated(plan)


def outdated(plan: NodePlan) -> str:
    """Why a plan is of other controls than there are by now; '' where it is not."""
    if plan.catalogue == catalogue().digest:
        return ""
    return "the catalogue is another one than the plan was made by (GUARD_CONTROLS_FILE): make a new plan"


def _lines(text: bytes) -> list[str]:
    """Lines with their ends, which are line feeds and nothing else."""
    return [line.decode("utf-8", "surrogateescape") for line in re.findall(rb"[^\n]*\n|[^\n]+", text)]


def _fit(text: bytes, splices: Sequence[Splice]) -> bool:
    end = 0
    for splice in splices:
        if splice.start < end or text[splice.start : splice.start + splice.length] != splice.old:
            return False
        if splice.length != len(splice.old):
            return False
        end = splice.start + splice.length
    return end <= len(text)


def spliced(text: bytes, splices: Sequence[Splice]) -> bytes:
    """The text with ascending splices made (pure)."""
    parts, at = [], 0
    for splice in splices:
        parts += [text[at : splice.start], splice.new]
        at = splice.start + splice.length
    return b"".join([*parts, text[at:]])


def plan_node(
    node: Node, control_ids: tuple[str, ...], evidence: Evidence, method: Method, also: tuple[str, ...] = ()
) -> NodePlan:
    """The plan for one node from its evidence: it makes those of `control_ids` (which fail there) comply that can be
    planned. `also` fail there as well, and were not asked for."""
    made = plan([control(control_id) for control_id in control_ids], evidence, node.kubernetes_version, method)
    left = {control_id: plain_text(why, None) for control_id, why in made.refused.items()}
    try:
        edits = tuple(file_edit(evidence.files[path], text) for path, text in sorted(made.texts.items()))
    except CannotApply as error:
        return NodePlan(node=node, controls=control_ids, also=also, refused=plain_text(str(error), None))
    if not made.controls:
        why = "; ".join(f"{name}: {why}" if len(left) > 1 else why for name, why in left.items())
        return NodePlan(node=node, controls=control_ids, also=also, refused=why)
    return NodePlan(
        node=node,
        controls=made.controls,
        catalogue=catalogue().digest,
        left=left,
        also=also,
        edits=edits,
        modes=made.modes,
        restart=made.restart,
        files=tuple(_seen(evidence.files[edit.path]) for edit in edits),
        present=made.present,
        absent=made.absent,
        running_pid=evidence.process.pid if evidence.process else 0,
        healthz=_healthz(evidence, node.kubernetes_version) if made.restart else HEALTHZ,
        steps=(*made.steps, *(["restart the kubelet"] if made.restart else [])),
    )


def _healthz(evidence: Evidence, version: str | None) -> str:
    """Where the kubelet will say that it is healthy after a restart: ADDRESS:PORT, or HEALTHZ_OFF."""
    after = on_disk(evidence, version)
    if isinstance(after, Trouble):
        return HEALTHZ
    port = after.resolution.value("healthzPort")
    if not port:
        return HEALTHZ_OFF
    address = str(after.resolution.value("healthzBindAddress"))
    if address in ("0.0.0.0", "::"):  # noqa: S104 - asked, not bound: who listens everywhere listens there too
        address = "127.0.0.1"
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _seen(file: File) -> SeenFile:
    return SeenFile(file.path, file.text.encode("utf-8", "surrogateescape"), file.digest)


def held_back(plan: NodePlan, known: Past, *, retry: bool) -> NodePlan:
    """The plan; refused where the last fix of its node was rolled back and nobody asked to `retry` (pure)."""
    times = [entry.last_rolled_back for (key, _), entry in known.items() if key == plan.node.key]
    since = max((time for time in times if time is not None), default=None)
    if plan.refused or retry or since is None or (plan.node.created is not None and plan.node.created > since):
        return plan
    why = (
        f"the last fix of this node was rolled back, on {since:%Y-%m-%d %H:%M} UTC: look at the node first;"
        " to try again, ask for it with --retry-rolled-back (retry_rolled_back over HTTP)"
    )
    return refused(plan, why)


def refused(plan: NodePlan, why: str) -> NodePlan:
    """The plan with nothing of it done: not for one of the controls that fail and were asked for (pure)."""
    controls = (*plan.controls, *(name for name in plan.left if name not in plan.controls))
    return NodePlan(node=plan.node, controls=controls, also=plan.also, refused=why)


def same(plan: NodePlan, other: NodePlan) -> bool:
    """Whether two plans do the same to the same node: what they only say, and what changes by itself, is left out."""
    one, two = (
        (
            item.node.key,
            item.node.created,
            item.node.node_image_version,
            item.controls,
            item.edits,
            item.modes,
            item.restart,
            item.present,
            item.absent,
            item.healthz,
            0 if item.edits else item.running_pid,
            bool(item.refused),
        )
        for item in (plan, other)
    )
    return one == two


def digest(plans: Iterable[NodePlan]) -> str:
    """The SHA-256 over all entries, in the order of their nodes: what an approval is bound to."""
    return index_digest((plan.node.key, entry_digest(plan)) for plan in plans)


def entry_digest(plan: NodePlan) -> str:
    """The SHA-256 of one entry."""
    return _digest(plan.model_dump_json().encode("utf-8", "replace"))


def index_digest(entries: Iterable[tuple[str, str]]) -> str:
    """`digest` of the entries with these nodes' keys and digests."""
    return _digest("\n".join(text for _, text in sorted(entries)).encode())


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


class _Format(BaseModel):
    format: str


def read_plan_file(text: str, name: str) -> PlanFile:
    """A plan file's plan. Raises UsageError where it is none, its edits do not fit, or it was changed.

    That its entries are what a planning run made is not known yet (`plans_in_file`).
    """
    try:
        form = _Format.model_validate_json(text).format
        if form != FORMAT:
            raise UsageError(f"{name} is in the format {form[:40]!r}; this version reads {FORMAT!r}: make a new plan")
        plan_file = PlanFile.model_validate_json(text)
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(f"{name} is not a plan file: {why}; make one with: kubelet-guard plan") from None
    if why := next((why for plan in plan_file.nodes if (why := fault(plan))), ""):
        raise UsageError(f"{name} is not a plan file: {why}; make one with: kubelet-guard plan")
    if plan_file.digest != digest(plan_file.nodes):
        raise UsageError(f"{name} was changed after it was written: its digest does not match. Make a new plan")
    return plan_file
