"""What the running kubelet has in effect for one setting, and by which witness (pure).

The witnesses in their order: the kubelet's own word for what it runs with (by configz, where its cluster was asked, and
in its log); its arguments, which beat every file; the files, where they are proved to be what it read (proof.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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

CONFIGZ = "configz"
_LOG = "the kubelet's own log"
_UNPROVED = (
    "Nothing says that anything is wrong. What proves it: the next restart by whoever owns the node, a look at the"
    " cluster's configz, or from Kubernetes 1.37 on the kubelet's own log."
)
# A kubelet that is given no certificate makes itself one, and names it here when it has written its log.
_AFTER_THE_LOG = {"tlsCertFile", "tlsPrivateKeyFile"}
OTHER_VERSION = "Use a version of this tool that knows the kubelet's version."


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


@dataclass(frozen=True, slots=True)
class Word:
    """What the running kubelet itself says: who brought it (for a person), and the settings that it tells."""

    witness: str
    values: Mapping[str, str]


def words(evidence: Evidence, configz: Mapping[str, str] | None) -> list[Word]:
    """What the running kubelet says of itself: by configz, where that is of this process, and in its log."""
    found = [] if configz is None else [Word(CONFIGZ, configz)]
    return found if evidence.log is None else [*found, Word(_LOG, evidence.log)]


def running(control: Control, seen: Look, said: Sequence[Word]) -> Running | Trouble:
    """The value that the running kubelet has for this control's setting."""
    if control.setting in _AFTER_THE_LOG:
        said = [word for word in said if word.witness != _LOG or control.setting in word.values]
    if said:
        return _by_word(control, said, seen)
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


def _by_word(control: Control, said: Sequence[Word], seen: Look) -> Running | Trouble:
    """The value that the kubelet says it has, where all that it says is the same."""
    values = [value_told(control, word, seen.version) for word in said]
    for value in values:
        if isinstance(value, Trouble):
            return value
    value, who = values[0], " and ".join(word.witness for word in said)
    told_by = [(value, word.witness) for value, word in zip(values, said, strict=True)]
    # A flag of the process, or files that it is proved to have read: the node's own word for the same process.
    asked = said[0].witness == CONFIGZ and control.setting not in _AFTER_THE_LOG
    certain = running(control, seen, ()) if asked else None
    if isinstance(certain, Running):
        told_by.append((certain.value, certain.source))
    if any(other != value for other, _ in told_by):
        each = ", ".join(f"{show(told)} ({who})" for told, who in told_by)
        return Trouble(
            Code.WITNESSES_DISAGREE,
            f"of one process {control.setting} is said to be {each}",
            "Look at the kubelet on the node; where it is well, report this case with the kubelet's version.",
        )
    if not isinstance(seen.whole, Resolution):
        return Running(value, who, "", ())
    written = _written(control, seen.whole, seen)
    if not seen.whole.accepted:
        return Running(value, who, "", written)
    source = str(placed(seen.whole.decided_by(control.setting), seen.process.directory))
    by_files = seen.whole.effective(control.setting)
    if by_files == value:
        return Running(value, f"{source}; {who} {'agrees' if len(said) == 1 else 'agree'}", "", written)
    note = f"its arguments and files, as they are now, come to {show(by_files)} ({source})"
    return Running(value, who, note, written)


def value_told(control: Control, word: Word, version: str | None) -> object | Trouble:
    """The value that the kubelet tells. A field that it leaves out has Go's zero value, and no default."""
    try:
        value = told(control.setting, word.values, version)
    except NotTold as error:
        hint = "Report this case, with the kubelet's version."
        return Trouble(Code.NOT_UNDERSTOOD, f"{word.witness} says {error}", hint)
    if control.setting.startswith(GATES) and control.setting not in word.values and not modelled(version):
        return Trouble(Code.VERSION_UNKNOWN, unknown_version(version), OTHER_VERSION)
    return value


def without_setting(control: Control, version: str | None) -> Trouble:
    """Why a control says nothing of a kubelet that does not have its setting."""
    if not modelled(version):
        return Trouble(Code.VERSION_UNKNOWN, unknown_version(version), OTHER_VERSION)
    reason = f"the kubelet of Kubernetes {version} has no {control.setting}"
    return Trouble(Code.NOT_FOR_THIS_NODE, reason, "Nothing to do.")


def unknown_version(version: str | None) -> str:
    """That there are no rules for the kubelet's version."""
    if not version:
        return "nothing tells the kubelet's version, and so its rules"
    return f"this version of the tool does not know the rules of Kubernetes {version}"
