"""What the running kubelet has in effect for one setting, and by which witness (pure).

The witnesses in their order: the kubelet's own log of what it runs with; its arguments, which beat every file; the
files, where they are proved to be what it read (proof.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from shared.controls.catalogue import Control
from shared.controls.codes import Code
from shared.controls.inputs import Inputs, by_arguments, inputs, placed, resolved
from shared.controls.proof import doubt, fingerprint
from shared.controls.rules import show
from shared.controls.verdict import Trouble
from shared.kubelet import GATES, NotTold, Resolution, Source, modelled, told
from shared.models import Evidence, Process
from shared.systemd import ServiceRules

_UNPROVED = (
    "Nothing says that anything is wrong. What proves it: the next restart by whoever owns the node, a look at the"
    " cluster's configz, or from Kubernetes 1.37 on the kubelet's own log."
)
OTHER_VERSION = "Use a version of this tool that knows the kubelet's version."
_LOG = "the kubelet's own log"


@dataclass(frozen=True, slots=True)
class Look:
    """What the running kubelet's arguments and files come to.

    `alone` is what the arguments come to without any file, `whole` with the files as they are now. `doubt` says why
    these may not be what the process read, '' where they are proved to be; then `proof` is their fingerprint. `version`
    is the kubelet's, None where nothing tells it.
    """

    process: Process
    version: str | None
    alone: Resolution | Trouble
    whole: Resolution | Trouble
    doubt: str
    proof: str


@dataclass(frozen=True, slots=True)
class Running:
    """A value that is certain: what it is, where it comes from, and what else is to be said (`note`, or '').

    `written` are the places that write a wrong value, as far as they are known.
    """

    value: object
    source: str
    note: str
    written: tuple[Source, ...]


def look(
    evidence: Evidence, process: Process, version: str | None, proofs: Collection[str], rules: ServiceRules | None
) -> Look:
    """Resolve what the process's arguments and files come to, and whether the files are what it read.

    `proofs` are the fingerprints of what earlier looks proved, `rules` are those of the unit that
    started it, None where they are not known.
    """
    alone = by_arguments(process.argv, evidence, version, process.directory)
    read = inputs(process.argv, evidence, process.directory)
    if not isinstance(read, Inputs):
        return Look(process, version, alone, read, read.reason, "")
    whole = resolved(process.argv, read, evidence, version, process.directory)
    why = doubt(evidence, process, read, rules)
    print_now = fingerprint(evidence, process, read)
    if why and print_now and print_now in proofs:
        why = ""
    return Look(process, version, alone, whole, why, "" if why else print_now)


def running(control: Control, evidence: Evidence, seen: Look) -> Running | Trouble:
    """The value that the running kubelet has for this control's setting."""
    if evidence.log is not None:
        return _by_log(control, evidence.log, seen)
    for resolution in (seen.alone, seen.whole):
        # By its name: of a feature gate that only its group's flag switches, a file may say otherwise.
        if isinstance(resolution, Resolution) and resolution.accepted:
            source = resolution.source(control.setting)
            if source.kind == "flag":
                return _certain(control, resolution, seen)
    if isinstance(seen.whole, Trouble):
        return seen.whole
    if not seen.whole.accepted:
        return _refused(seen, seen.whole)
    if seen.doubt:
        return Trouble(
            # The same words for every control, so that a node's trouble can be said once.
            Code.UNPROVED,
            f"{seen.doubt}, so that what it read cannot be proved",
            _UNPROVED,
        )
    return _certain(control, seen.whole, seen)


def _certain(control: Control, resolution: Resolution, seen: Look) -> Running | Trouble:
    value = resolution.effective(control.setting)
    source = str(placed(resolution.decided_by(control.setting), seen.process.directory))
    if control.complies(value) and not resolution.modelled:
        return Trouble(
            Code.VERSION_UNKNOWN,
            f"{unknown_version(seen.version)}; by the nearest ones {control.setting} is {show(value)} ({source})",
            OTHER_VERSION,
        )
    written = seen.whole if isinstance(seen.whole, Resolution) else resolution
    return Running(value, source, "", _written(control, written, seen))


def _written(control: Control, resolution: Resolution, seen: Look) -> tuple[Source, ...]:
    """Every place that writes another value than the control wants."""
    wrong = [item.source for item in resolution.assignments(control.setting) if not control.complies(item.value)]
    return tuple(placed(source, seen.process.directory) for source in wrong)


def _refused(seen: Look, resolution: Resolution) -> Trouble:
    if seen.doubt:
        return Trouble(
            Code.CONFIG_REFUSED,
            f"{seen.doubt}, and a kubelet refuses what is there now: {resolution.error}",
            "Correct the file before anything restarts the kubelet.",
        )
    if not resolution.modelled:
        return Trouble(
            Code.VERSION_UNKNOWN,
            f"{unknown_version(seen.version)}; the nearest ones refuse what it runs with: {resolution.error}",
            OTHER_VERSION,
        )
    return Trouble(
        Code.NOT_UNDERSTOOD,
        f"the kubelet runs with what this version's rules refuse: {resolution.error}",
        "Report this case, with the kubelet's version.",
    )


def _by_log(control: Control, log: Mapping[str, str], seen: Look) -> Running | Trouble:
    """The value in the kubelet's own log. A field that is left out there has Go's zero value, and no default."""
    try:
        value = told(control.setting, log, seen.version)
    except NotTold as error:
        return Trouble(
            Code.NOT_UNDERSTOOD,
            f"the kubelet's own log says {error}",
            "Report this case, with the kubelet's version.",
        )
    if control.setting.startswith(GATES) and control.setting not in log and not modelled(seen.version):
        return Trouble(Code.VERSION_UNKNOWN, unknown_version(seen.version), OTHER_VERSION)
    if not isinstance(seen.whole, Resolution):
        return Running(value, _LOG, "", ())
    written = _written(control, seen.whole, seen)
    if not seen.whole.accepted:
        return Running(value, _LOG, "", written)
    source = str(placed(seen.whole.decided_by(control.setting), seen.process.directory))
    by_files = seen.whole.effective(control.setting)
    if by_files == value:
        return Running(value, f"{source}; {_LOG} agrees", "", written)
    note = f"its arguments and files, as they are now, come to {show(by_files)} ({source})"
    return Running(value, _LOG, note, written)


def unknown_version(version: str | None) -> str:
    """That there are no rules for the kubelet's version."""
    if not version:
        return "nothing tells the kubelet's version, and so its rules"
    return f"this version of the tool does not know the rules of Kubernetes {version}"
