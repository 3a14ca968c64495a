"""Whether the running kubelet answers: a process that is there and does nothing proves nothing (pure)."""

from __future__ import annotations

from ipaddress import ip_address

from shared.controls.codes import Code
from shared.controls.running import Look
from shared.controls.verdict import Trouble
from shared.kubelet import Resolution
from shared.models import Evidence

# proc_pid_stat(5), and F of the collector's own: a frozen control group shows the kernel's S. The collector looks again
# before it says D, so that a disk access is not taken for a hang.
_STATES = {
    "T": "is stopped by a signal",
    "t": "is stopped by a debugger",
    "D": "hangs in the kernel",
    "F": "is frozen with its control group",
    "Z": "has ended and waits for systemd",
    "X": "has ended",
}
_LOOPBACKS = ("127.0.0.1", "::1")

_HINT = (
    "Look at the kubelet with `systemctl status kubelet` and `journalctl -u kubelet` on the node; nothing is restarted"
    " from here."
)


def not_answering(evidence: Evidence, seen: Look) -> Trouble | None:
    """Why this kubelet is not known to work, or None."""
    process = seen.process
    if process.state in _STATES:
        return Trouble(Code.NOT_ANSWERING, f"the kubelet's process {_STATES[process.state]}", _HINT)
    answered = [health for health in evidence.health if health.answer.strip() == "ok"]
    where = _where(seen)
    if where is None:
        if answered:
            return None
        asked = ", ".join(f"{health.address}:{health.port}" for health in evidence.health) or "nowhere"
        return Trouble(Code.NOT_ANSWERING, f"the kubelet does not answer healthz (asked: {asked})", _HINT)
    address, port = where
    if not port:
        if evidence.active_state == "active":
            return None
        return Trouble(
            Code.NOT_ANSWERING,
            f"healthz is off, and systemd says that the unit is {evidence.active_state or 'in no state'}",
            _HINT,
        )
    if any(health.port == port and _same(health.address, address) for health in answered):
        return None
    return Trouble(Code.NOT_ANSWERING, f"the kubelet does not answer healthz at {address}:{port}", _HINT)


def is_off(seen: Look) -> bool:
    """Whether this kubelet is known to answer no healthz at all."""
    where = _where(seen)
    return where is not None and not where[1]


def _where(seen: Look) -> tuple[str, int] | None:
    """Address and port (0: off) of the running kubelet's healthz; None where files decide it that are not proved."""
    if not isinstance(seen.whole, Resolution) or not seen.whole.accepted or seen.doubt:
        return None
    port = seen.whole.value("healthzPort")
    return str(seen.whole.value("healthzBindAddress")), port if isinstance(port, int) else 0


def _same(asked: str, bound: str) -> bool:
    """Whether what was asked is where it listens; one that listens everywhere is asked at the loopback address."""
    one, other = _address(asked), _address(bound)
    return one == other or (other in ("0.0.0.0", "::") and one in _LOOPBACKS)  # noqa: S104 - compared, not bound


def _address(text: str) -> str:
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        return text
