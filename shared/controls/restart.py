"""What a restart would run, and whether that is known at all (pure).

It is known where systemd itself would start a kubelet whose command line comes out of the unit's files, where that is
also how the running one was started (or the files were changed since), and where a restart by hand would bring the
kubelet back. Everything else is a wrapper, a generator or a trap: then only the running value is told.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from shared.controls.codes import Code
from shared.controls.inputs import DELETED, Inputs, inputs, is_kubelet, resolved
from shared.controls.paths import way
from shared.controls.proof import clock_step, has_own_root
from shared.controls.running import unknown_version
from shared.controls.verdict import Trouble
from shared.kubelet import Resolution
from shared.models import Condition, Evidence
from shared.remembered import Remembered
from shared.systemd import (
    MissingEnvironmentFile,
    ServiceRules,
    StartCommand,
    TooLarge,
    UnitError,
    UnknownToUs,
    service_rules,
    start_command,
)

_ENVIRONMENT_FILE = re.compile(r"(?m)^[ \t]*EnvironmentFile[ \t]*=[ \t]*-?(/[^\s*?\[%\\]+)[ \t]*\r?$")
_MASKED = "/dev/null"


@dataclass(frozen=True, slots=True)
class OnDisk:
    """What systemd would start, by which of its rules, and what the kubelet would make of it."""

    command: StartCommand
    rules: ServiceRules
    resolution: Resolution
    inputs: Inputs

    @property
    def directory(self) -> str:
        """The working directory that it would have."""
        return working_directory(self.rules)


def next_start(evidence: Evidence, version: str | None) -> OnDisk | Trouble:
    """What a restart now (after a daemon-reload) would run, where that is known."""
    changed = _changed(evidence)
    made = on_disk(evidence, version)
    if isinstance(made, Trouble):
        # What is as it was when the kubelet started did start it.
        started = made.code is Code.NEXT_START_REFUSED and not changed and evidence.process is not None
        return _unsure(made) if started else made
    for why in _surprises(evidence, made, version, changed):
        return Trouble(Code.UNPROVED, why)
    return made


def on_disk(evidence: Evidence, version: str | None) -> OnDisk | Trouble:
    """What the unit's files come to, as they are now, whether or not a restart would come to the same."""
    command = start(evidence)
    if isinstance(command, Trouble):
        return command
    fragment, *dropins = evidence.units
    try:
        rules = service_rules(fragment, dropins, unit_texts(evidence), systemd_version=evidence.systemd_version)
    except UnitError as error:
        return _refused(error)
    argv = command.texts
    directory = working_directory(rules)
    read = inputs(argv, evidence, directory)
    if isinstance(read, Trouble):
        return read
    resolution = resolved(argv, read, evidence, version, directory, starts=True)
    if isinstance(resolution, Trouble):
        return resolution
    return OnDisk(command, rules, resolution, read)


def start(evidence: Evidence) -> StartCommand | Trouble:
    """The command line that the unit's files come to, as they are now, where it is a kubelet's."""
    if not evidence.units:
        return Trouble(Code.UNPROVED, "systemd names no unit file for the kubelet")
    texts = unit_texts(evidence)
    environments = sorted(_environment_files(evidence))
    missing = [path for path in evidence.units if path not in texts]
    missing += [path for path in environments if path not in texts and path not in evidence.gone]
    if missing:
        return Trouble(Code.UNPROVED, f"{missing[0]} was not collected")
    for path in (*evidence.units, *environments):
        if path in evidence.files and not evidence.files[path].whole:
            return Trouble(Code.UNPROVED, f"{path} was not collected whole")
    fragment, *dropins = evidence.units
    if not texts[fragment]:
        return Trouble(Code.NEXT_START_REFUSED, f"the unit is masked: {fragment} is empty", fails=True)
    try:
        command = start_command(
            fragment,
            dropins,
            texts,
            base_environment=evidence.manager_environment,
            systemd_version=evidence.systemd_version,
        )
    except UnitError as error:
        return _refused(error)
    if not is_kubelet(command.executable):
        return Trouble(Code.UNPROVED, f"the unit starts {command.executable}, which is not the kubelet itself")
    return command


def _refused(error: UnitError) -> Trouble:
    match error:
        case TooLarge():
            return Trouble(Code.TOO_LARGE, str(error))
        case UnknownToUs():
            return Trouble(Code.UNPROVED, str(error))
        case MissingEnvironmentFile():
            return Trouble(Code.CONFIG_UNREADABLE, str(error), fails=True)
        case _:
            return Trouble(Code.NEXT_START_REFUSED, str(error), fails=True)


def working_directory(rules: ServiceRules) -> str:
    """The directory in which systemd starts the service."""
    return rules.working_directory or "/"


def unit_texts(evidence: Evidence) -> dict[str, str]:
    """Path → text of every file that was read; of a drop-in that is masked by a link to /dev/null, the empty text."""
    masked = {path: "" for path in evidence.units[1:] if way(path, evidence.links).end == _MASKED}
    return {**evidence.texts, **masked}


def started_by(evidence: Evidence) -> ServiceRules | None:
    """The rules by which systemd started the running kubelet; None where the unit was changed since."""
    texts = unit_texts(evidence)
    if not evidence.units or not texts.keys() >= set(evidence.units) or _changed(evidence):
        return None
    fragment, *dropins = evidence.units
    try:
        return service_rules(fragment, dropins, texts, systemd_version=evidence.systemd_version)
    except UnitError:
        return None


def _unsure(trouble: Trouble) -> Trouble:
    return Trouble(Code.UNPROVED, f"the unit was not changed since it started this kubelet, and yet: {trouble.reason}")


def _environment_files(evidence: Evidence) -> frozenset[str]:
    """The plain paths that the units name as environment files; a superset of what systemd reads does no harm."""
    texts = tuple(evidence.files[path].text for path in evidence.units if path in evidence.files)
    if not texts:
        return frozenset()
    return _NAMED.get(
        texts,
        lambda: frozenset(path for text in texts for path in _ENVIRONMENT_FILE.findall(text)),
        lambda found: 500 + sum(80 + 4 * len(text) for text in (*texts, *found)),
    )


_NAMED: Remembered[tuple[str, ...], frozenset[str]] = Remembered(entries=256, weight=8 * 1024 * 1024)


def _changed(evidence: Evidence) -> bool:
    """Whether the unit, a drop-in or an environment file was certainly changed since the kubelet started."""
    if evidence.needs_daemon_reload:
        return True
    step, process = clock_step(evidence), evidence.process
    if step is None or process is None or process.started is None:
        return False
    limit = process.started + abs(step)
    for path in (*evidence.units, *_environment_files(evidence)):
        if path in evidence.files and evidence.files[path].changed > limit:
            return True
        if any(evidence.links[link].changed > limit for link in way(path, evidence.links).links):
            return True
    return False


def _surprises(evidence: Evidence, made: OnDisk, version: str | None, changed: bool) -> Iterator[str]:
    """Why a restart might come to something else than what the files come to, or to nothing."""
    yield from _not_by_hand(evidence, made.rules)
    if not made.resolution.modelled:
        yield unknown_version(version)
    for path in made.inputs.paths:
        if not evidence.files[path].hosted:
            yield f"the kubelet's process has another {path} than the host"
    process = evidence.process
    if process is None:
        return
    if process.executable.endswith(DELETED):
        yield f"{process.executable.removesuffix(DELETED)} was replaced since the kubelet started"
    program = made.command.texts[0]
    if program != re.sub("/+", "/", process.argv[0]):
        yield f"the unit starts {program}, and {process.argv[0]} runs"
    if posixpath.normpath(made.directory) != process.directory and _relative(made):
        yield f"the kubelet would start in {made.directory}, and runs in {process.directory}"
    given = made.command.texts[1:]
    if not changed and _comparable(given) != _comparable(process.argv[1:]):
        yield "the unit was not changed since the kubelet started, and gives other arguments than it runs with"


def _relative(made: OnDisk) -> bool:
    return any(not source.startswith("/") for source in made.resolution.files_read)


def _not_by_hand(evidence: Evidence, rules: ServiceRules) -> Iterator[str]:
    """Why a restart by hand would not bring the kubelet back, or not to the same."""
    if evidence.refuses_manual or rules.refuse_manual_stop or rules.refuse_manual_start:
        yield "the unit refuses to be restarted by hand (RefuseManualStop= or RefuseManualStart=)"
    if rules.exec_condition:
        yield "ExecCondition= decides at each start whether the kubelet is started"
    if len(rules.conditions) > len(evidence.conditions):
        yield f"whether {rules.conditions[len(evidence.conditions)]} holds is not known"
    for kind in ("Condition", "Assert"):
        yield from _unmet([item for item in evidence.conditions if item.text.startswith(kind)])
    if rules.user not in ("", "root", "0"):
        yield f"the unit starts the kubelet as the user {rules.user}"
    if has_own_root(rules):
        yield "the unit starts the kubelet in a root directory of its own"


def _unmet(conditions: list[Condition]) -> Iterator[str]:
    """systemd.unit(5): all that are written without `|` must hold, and of those with it at least one."""
    triggers = [item for item in conditions if item.text.partition("=")[2].lstrip().startswith("|")]
    for item in conditions:
        if item not in triggers and not item.holds:
            yield f"{item.text} does not hold now" if item.holds is False else f"whether {item.text} holds is not known"
    if triggers and not any(item.holds for item in triggers):
        yield f"{triggers[0].text} does not hold now, or it is not known whether it does"


def _comparable(arguments: Sequence[str]) -> list[str]:
    """Arguments as they can be compared where values were masked: by how many characters may differ with quoting."""
    return [re.sub(r"\*+", "*", argument) if "**" in argument else argument for argument in arguments]


def named_files(evidence: Evidence, made: OnDisk) -> Mapping[str, str]:
    """The files that are the kubelet's by the evidence, and where each really is: what an edit may touch."""
    paths = {*evidence.units, *_environment_files(evidence), *made.inputs.paths}
    return {path: end for path in paths if (end := way(path, evidence.links).end) is not None}
