"""What may be answered instead of what was asked for (RFC 9457): one table of them, which docs/api.md shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem. Programs go by `type`, which stays as it is; `title` is for people."""

    name: str
    status: int
    title: str
    meaning: str

    @property
    def type(self) -> str:
        """The URN that an answer carries as its `type`."""
        return f"urn:kubelet-guard:problem:{self.name}"


BAD_REQUEST = Kind("bad-request", 400, "Bad request", "a field or parameter is wrong; `errors` names the first 20")
NOT_JSON = Kind("not-json", 400, "Not JSON", "the body cannot be read as JSON")
FIX_NOT_ALLOWED = Kind(
    "fix-not-allowed",
    403,
    "Fixing is not allowed here",
    "the app has no `GUARD_ALLOW_FIX=true`, or its `GUARD_FIX_CONTROLS` does not name a control of the request",
)
NO_SUCH_RUN = Kind("no-such-run", 404, "No such run", "there is no run with this id")
NO_PLAN = Kind("no-plan", 404, "No plan", "the run has no plan, or none yet")
GOING = Kind("going", 409, "A run on the same scope is going", "`run` and `Location` say which; nothing was started")
HELD = Kind("held", 409, "Fixes are held", "`DELETE /api/hold` releases them; nothing was started")
OVER = Kind("over", 409, "The run is over", "it cannot be cancelled any more")
NOTHING_TO_APPROVE = Kind("nothing-to-approve", 409, "Nothing to approve", "the run waits for no approval")
CANCELLED = Kind("cancelled", 409, "The run is being cancelled", "its plan cannot be approved any more")
EXPIRED = Kind("approval-expired", 409, "Too late", "`GUARD_APPROVAL_HOURS` have passed; nothing was changed")
OTHER_PLAN = Kind("other-plan", 409, "Not this plan", "the digest is another plan's")
DECIDED = Kind("decided", 409, "Already decided", "the opposite was said to this plan before")
LOST = Kind("lost", 409, "The run is lost", "nothing goes on with it now; it is begun again, or ended, in a minute")
TOO_LARGE = Kind("too-large", 413, "Too large", "the body has more than 256 KiB")
NOT_JSON_TYPE = Kind("not-json-type", 415, "Not JSON", "the body's Content-Type is not application/json")
BAD_SETTINGS = Kind(
    "bad-settings",
    503,
    "The app has a bad setting",
    "`detail` names each, and what would be right; nothing works until then",
)
BAD_PACKAGE = Kind(
    "bad-package",
    503,
    "The app cannot run as it was deployed",
    "its packages are missing or were built for another Python: only `health` and `live` are there, with what is wrong",
)
CROWDED = Kind("crowded", 503, "Busy", "other runs are being started; again in `Retry-After` seconds")
UNAVAILABLE = Kind(
    "unavailable",
    503,
    "The app cannot do this now",
    "storage, identity or Durable Functions fail; again in `Retry-After` seconds",
)

KINDS: tuple[Kind, ...] = (
    BAD_REQUEST,
    NOT_JSON,
    FIX_NOT_ALLOWED,
    NO_SUCH_RUN,
    NO_PLAN,
    GOING,
    HELD,
    OVER,
    NOTHING_TO_APPROVE,
    CANCELLED,
    EXPIRED,
    OTHER_PLAN,
    DECIDED,
    LOST,
    TOO_LARGE,
    NOT_JSON_TYPE,
    BAD_SETTINGS,
    BAD_PACKAGE,
    CROWDED,
    UNAVAILABLE,
)
"""Every kind, by status."""


def as_markdown() -> str:
    """The table as it stands in docs/api.md."""
    rows = ["| `type`: `urn:kubelet-guard:problem:` and | Status | When |", "|---|---|---|"]
    rows += [f"| `{kind.name}` | {kind.status} | {kind.meaning} |" for kind in KINDS]
    return "\n".join(rows) + "\n"
