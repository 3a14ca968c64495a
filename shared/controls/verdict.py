"""What comes of judging: a verdict, or why something cannot be known."""

from __future__ import annotations

from dataclasses import dataclass

from shared.controls.codes import Code
from shared.models import Status


@dataclass(frozen=True, slots=True)
class Verdict:
    """One control's verdict on one node's evidence: the finding without its place.

    `actual` is the running kubelet's value, None where it cannot be known; `source` says where that value comes from;
    `reason` is a sentence for a person, `hint` what to do, `code` a short word for machines. `proof` is the fingerprint
    of what the process is proved to have read (proof.py), empty where that is not proved. `witness` says who was asked:
    `node`, `configz`, or `node+configz`.
    """

    status: Status
    code: str
    actual: bool | int | str | tuple[str, ...] | None
    source: str
    reason: str
    hint: str
    restart_pending: bool = False
    proof: str = ""
    witness: str = "node"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why something cannot be known. `fails` says that a kubelet started like this would fail for certain."""

    code: Code
    reason: str
    hint: str = ""
    fails: bool = False

    @property
    def verdict(self) -> Verdict:
        """The verdict where this is all that can be said."""
        status = Status.NOT_APPLICABLE if self.code is Code.NOT_FOR_THIS_NODE else Status.ERROR
        return Verdict(status, self.code, None, "", self.reason, self.hint)
