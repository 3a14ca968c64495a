"""The smallest edits that make controls comply on one node (pure).

A plan is computed from what a restart would run, as systemd and the kubelet would see it, and proved by computing that
again with the edits made: what cannot be proved is not planned.

Source: the seed's remediation methods, 1 (the config file) and 2 (the arguments); method 3 is the proof on the live
process, which applying the plan does (fixing.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from shared.controls import Control, OnDisk, Trouble, absolute, catalogue, next_start, on_disk
from shared.controls.files import file_of
from shared.controls.inputs import by_arguments
from shared.controls.restart import named_files, start, unit_texts
from shared.controls.rules import FileRule, ModeAtMost, Scalar, show
from shared.kubelet import GATES, Assignment, Resolution, Source, flag_text, has_setting, named_by
from shared.kubelet.edit import EditError, add_setting, config_text, replace_value
from shared.models import Evidence, File, Metadata
from shared.node.fixing import CannotApply, ModeEdit, file_edit
from shared.plain import plain as plain_text
from shared.systemd import CannotEdit, append_argument, replace_argument

Method = Literal["auto", "config", "flags"]

# More than any node needs: what is wrong is corrected, then what is missing is added, then both are looked at again.
_MOST_ROUNDS = 4
_MOST_VALUES = 64
_MOST_FLAGS = 8

# What comes with the node image and is lost, or cannot be written: /usr is read-only on some images.
_IMAGE_MANAGED = ("/usr/", "/lib/", "/run/")


class CannotPlan(Exception):
    """There is no safe plan for this node, or for one of its controls. The text says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What makes controls comply.

    `texts` are new texts by path, `modes` what else changes of files. `restart` says whether the kubelet is to be
    restarted: with texts always, and alone where what is on disk is right and only that is missing. `present` are
    arguments that the new process must have, `absent` ones that it must not have. `steps` say in words what is edited
    where. `controls` are those that comply then, `refused` why there is no plan for the others.
    """

    controls: tuple[str, ...]
    refused: Mapping[str, str]
    texts: Mapping[str, str]
    modes: tuple[ModeEdit, ...]
    restart: bool
    present: tuple[str, ...]
    absent: tuple[str, ...]
    steps: tuple[str, ...]


def plan(controls: Sequence[Control], evidence: Evidence, version: str | None = None, method: Method = "auto") -> Plan:
    """The edits that make `controls` comply, for those for which there is a safe plan.

    `version` is the node's, which counts where the process does not tell its own. Every bad value is corrected where it
    is written, also where another one wins over it. Method `config` and `flags` besides make sure that the setting is
    written explicitly there; `auto` adds it only where the kubelet's default does not comply: in the config file where
    there is one, else as an argument. Edits of one file are one; none of them makes another control comply no more.
    """
    refused: dict[str, str] = {}
    steps: list[str] = []
    now, settings = evidence, []
    version = (evidence.process.version if evidence.process else "") or version
    for control in controls:
        if control.file is not None:
            continue
        begun = len(steps)
        try:
            now = _planned(control, now, version, method, evidence, steps)
            settings.append(control)
        except CannotPlan as error:
            del steps[begun:]
            refused[control.id] = str(error)
    modes: dict[str, Metadata] = {}
    for control in controls:
        if control.file is not None:
            try:
                _mend(control, evidence, modes, steps)
            except CannotPlan as error:
                refused[control.id] = str(error)
    texts = {path: file.text for path, file in now.files.items() if file.text != evidence.files[path].text}
    present, absent = _arguments(settings, evidence, now, version) if settings else (set(), set())
    return Plan(
        controls=tuple(control.id for control in controls if control.id not in refused),
        refused=refused,
        texts=texts,
        modes=tuple(_mode_edit(evidence.metadata[path], after) for path, after in sorted(modes.items())),
        restart=bool(settings),
        present=tuple(sorted(present)),
        absent=tuple(sorted(absent)),
        steps=tuple(plain_text(step, None) for step in steps),
    )


def _planned(
    control: Control, now: Evidence, version: str | None, method: Method, before: Evidence, steps: list[str]
) -> Evidence:
    """The node with the edits made that one control needs. Raises CannotPlan."""
    if control.by_hand or control.right is None:
        raise CannotPlan(control.by_hand or "what would be right is not known")
    if not has_setting(control.setting, version):
        raise CannotPlan(f"the kubelet of Kubernetes {version} has no {control.setting}")
    if before.process is None:
        raise CannotPlan("no kubelet process runs, so that nothing shows what a restart would have to come to")
    mine = named_files(before, _started(next_start(before, version)))
    made = _comply(control, control.right, now, version, method, mine, steps)
    edited = [path for path, file in made.files.items() if file.text != before.files[path].text]
    if len({mine[path] for path in edited}) < len(edited):
        raise CannotPlan(f"one file would be edited under several names: {', '.join(sorted(edited))}")
    for path in edited:
        if made.files[path].text != now.files[path].text:
            _check_edit(before.files[path], made.files[path].text)
    was, after = (_started(on_disk(seen, version)) for seen in (now, made))
    if why := _ends_for_want_of_a_cluster(was, after):
        raise CannotPlan(why)
    for other in catalogue().controls.values():
        if other.file is not None or not has_setting(other.setting, version):
            continue
        if _complies(other, was.resolution) and not _complies(other, after.resolution):
            raise CannotPlan(f"{other.id} ({other.setting}) would not comply any more")
    return made


def _check_edit(file: File, text: str) -> None:
    """Raises CannotPlan for a new text that could not be sent: one control's must not keep the others from theirs."""
    try:
        file_edit(file, text)
    except CannotApply as error:
        raise CannotPlan(str(error)) from None


# A kubelet asks the API server for these, and without one it ends at its start (`cmd/kubelet/app/auth.go`, BuildAuth).
_OF_A_CLUSTER = {"authorization.mode": "Webhook", "authentication.webhook.enabled": True}


def _ends_for_want_of_a_cluster(was: OnDisk, after: OnDisk) -> str:
    """Why the kubelet would end for want of an API server, though it takes its configuration; '' where it would not."""
    if named_by(after.command.texts, "--kubeconfig"):
        return ""
    for setting, value in _OF_A_CLUSTER.items():
        if after.resolution.value(setting) == value != was.resolution.value(setting):
            return f"without --kubeconfig this kubelet has no API server, and would end with {setting} {show(value)}"
    return ""


def _complies(control: Control, resolution: Resolution) -> bool:
    return control.complies(resolution.effective(control.setting))


def _arguments(
    controls: Sequence[Control], evidence: Evidence, planned: Evidence, version: str | None
) -> tuple[set[str], set[str]]:
    """The arguments that the new process must have, and those that it must not have any more."""
    process = evidence.process
    assert process is not None  # else nothing was planned
    final = _started(on_disk(planned, version))
    running = by_arguments(process.argv, evidence, version, process.directory)
    flags = {
        word
        for control in controls
        for assignment in final.resolution.assignments(control.setting)
        for word in _words(assignment.source, final.command.texts)
    }
    wrong = {
        word
        for control in controls
        for assignment in (() if isinstance(running, Trouble) else running.assignments(control.setting))
        if not control.complies(assignment.value)
        for word in _words(assignment.source, process.argv)
    }
    return flags, wrong.difference(final.command.texts)


def _words(source: Source, argv: Sequence[str]) -> Sequence[str]:
    """The arguments that a flag stands in: one, or its name and its value; an empty one cannot be looked for."""
    words = argv[source.position : source.position + source.words] if source.kind == "flag" else ()
    return tuple(filter(None, words))


def _mend(control: Control, evidence: Evidence, modes: dict[str, Metadata], steps: list[str]) -> None:
    """Set a file's mode or owner right. Raises CannotPlan."""
    assert isinstance(control.rule, FileRule)
    path = file_of(control, evidence)
    file = modes.get(path) or evidence.metadata.get(path)
    if file is None or not file.regular:
        raise CannotPlan(f"{path or control.subject} was not seen as a file")
    if not file.hosted:
        raise CannotPlan(f"the kubelet's process has another {path} than the host")
    if path.startswith(_IMAGE_MANAGED):
        raise CannotPlan(f"{path} belongs to the node image and is not touched")
    right = control.rule.mended(file)
    for other in catalogue().controls.values():
        rule = other.rule
        if isinstance(rule, FileRule) and file_of(other, evidence) == path and rule.holds(file) > rule.holds(right):
            raise CannotPlan(f"{other.id} ({other.subject}) would not comply any more")
    modes[path] = right
    step = (
        f"set {'the mode' if isinstance(control.rule, ModeAtMost) else 'the owner'} of {path} from"
        f" {control.rule.seen(file)} to {control.rule.seen(right)}"
    )
    if not isinstance(control.rule, ModeAtMost) and right.mode != file.mode:
        step += f", which takes its set-ID bits away (mode {file.mode:o} to {right.mode:o})"
    steps.append(step)


def _mode_edit(before: Metadata | None, after: Metadata) -> ModeEdit:
    assert before is not None  # it was seen, or nothing was planned for it
    return ModeEdit(before.path, before.mode, before.uid, before.gid, after.mode, after.uid, after.gid)


def _comply(
    control: Control,
    right: Scalar,
    evidence: Evidence,
    version: str | None,
    method: Method,
    mine: Mapping[str, str],
    steps: list[str],
) -> Evidence:
    """The node with the edits made. `mine` are the files that may be edited, and where each really is.

    What is to be corrected is corrected at once: to resolve a node's files is what costs.
    """
    for _ in range(_MOST_ROUNDS):
        disk = _started(on_disk(evidence, version))
        written = disk.resolution.assignments(control.setting)
        wrong = [assignment for assignment in written if not control.complies(assignment.value)]
        if not wrong:
            complies = _complies(control, disk.resolution)
            kinds = {assignment.source.kind for assignment in written}
            if complies and (method == "auto" or {"config": "file", "flags": "flag"}[method] in kinds):
                return evidence
            evidence = _edited(evidence, _add(control, right, method, disk, evidence, steps), mine)
            continue
        if len(wrong) > _MOST_VALUES:
            raise CannotPlan(f"{control.setting} is written wrongly {len(wrong)} times; {_MOST_VALUES} are corrected")
        flags = [assignment.source for assignment in wrong if assignment.source.kind == "flag"]
        if len(flags) > _MOST_FLAGS:
            raise CannotPlan(
                f"{control.flag} is given {len(flags)} times with a wrong value: {_MOST_FLAGS} are corrected"
            )
        evidence = _edited(evidence, _corrected_files(control, right, wrong, disk, evidence, steps), mine)
        for source in flags:
            evidence = _edited(evidence, _corrected_flag(control, right, source, evidence, steps), mine)
    raise CannotPlan(f"{control.setting} does not comply after {_MOST_ROUNDS} rounds of edits")


def _edited(evidence: Evidence, texts: Mapping[str, str], mine: Mapping[str, str]) -> Evidence:
    """The node with these new texts. Raises CannotPlan for a file that is not to be edited."""
    for path in texts:
        _check_file(path, evidence, mine)
    files = {path: replace(evidence.files[path], text=text) for path, text in texts.items()}
    return replace(evidence, files={**evidence.files, **files})


def _started(disk: OnDisk | Trouble) -> OnDisk:
    if isinstance(disk, Trouble):
        what = "the kubelet could not be started again" if disk.fails else "what a restart would run is not known"
        raise CannotPlan(f"{what}: {disk.reason}")
    if not disk.resolution.accepted:
        raise CannotPlan(f"the kubelet would refuse to start with what is on disk: {disk.resolution.error}")
    return disk


def _check_file(path: str, evidence: Evidence, mine: Mapping[str, str]) -> None:
    """Raises CannotPlan for a file that is not this node's to edit."""
    if path not in mine or path not in evidence.files:
        raise CannotPlan(f"{path} is not one of the files that the node named as the kubelet's")
    for name in (path, mine[path]):
        if name.startswith(_IMAGE_MANAGED):
            raise CannotPlan(f"{name} belongs to the node image and is not edited")
    if not evidence.files[path].whole:
        raise CannotPlan(f"{path} was not collected whole")
    if not evidence.files[path].hosted:
        raise CannotPlan(f"the kubelet's process has another {path} than the host")


def _corrected_files(
    control: Control,
    right: Scalar,
    wrong: Sequence[Assignment],
    disk: OnDisk,
    evidence: Evidence,
    steps: list[str],
) -> dict[str, str]:
    """New texts of the files that write a wrong value: from their ends to their starts, so that places stay true."""
    places: dict[str, dict[tuple[int, int], int]] = {}
    for assignment in wrong:
        if assignment.source.kind == "file" and assignment.span is not None:
            path = absolute(assignment.source.path, disk.directory)
            places.setdefault(path, {})[assignment.span] = assignment.source.line
    texts = {}
    for path, spans in places.items():
        text = evidence.files[path].text
        for span in sorted(spans, reverse=True):
            text = replace_value(text, span, right)
        texts[path] = text
        value = config_text(right)
        steps += [f"set {control.setting} to {value} in {path}, line {line}" for line in sorted(spans.values())]
    return texts


def _corrected_flag(
    control: Control, right: Scalar, source: Source, evidence: Evidence, steps: list[str]
) -> Mapping[str, str]:
    """The new texts where a flag is corrected where it is written."""
    command = start(evidence)
    if isinstance(command, Trouble):
        raise CannotPlan(f"the edits lead to a unit that does not start: {command.reason}")
    name, given = re.split("[ =]", source.text, maxsplit=1) if re.search("[ =]", source.text) else (source.text, "")
    value = _flag_value(control, right, given)
    between, index = (" ", source.position + 1) if source.words == 2 else ("=", source.position)
    new = value if source.words == 2 else f"{name}={value}"
    try:
        texts = replace_argument(unit_texts(evidence), command, index, new)
    except CannotEdit as error:
        raise CannotPlan(f"the argument {source.text} cannot be corrected where it is written: {error}") from None
    steps.append(f"correct {source.text} to {name}{between}{value} in {', '.join(texts)}")
    return texts


def _flag_value(control: Control, right: Scalar, given: str) -> str:
    """What a flag is to be given in the place of `given`: of a list of feature gates one changes, the others stay."""
    gate = control.setting.removeprefix(GATES)
    if gate == control.setting:
        return flag_text(right)
    pairs = [pair.partition("=") for pair in given.split(",")]
    return ",".join(
        f"{name}={flag_text(right)}" if name.strip() == gate else f"{name}{equals}{value}"
        for name, equals, value in pairs
    )


def _add(
    control: Control, right: Scalar, method: Method, disk: OnDisk, evidence: Evidence, steps: list[str]
) -> Mapping[str, str]:
    """Write the setting explicitly where nothing writes it yet."""
    config = disk.inputs.config
    if method == "config" and not config:
        raise CannotPlan("this kubelet reads no config file; use the method flags")
    if config and method != "flags":
        try:
            text = add_setting(evidence.files[config].text, control.setting, right)
        except EditError as error:
            raise CannotPlan(f"{control.setting} cannot be added to {config}: {error}") from None
        steps.append(f"add {control.setting}: {config_text(right)} to {config}")
        return {config: text}
    new = control.argument
    if not new:
        raise CannotPlan(f"no flag sets {control.setting}, and this kubelet reads no config file")
    try:
        texts = append_argument(unit_texts(evidence), disk.command, new)
    except CannotEdit as error:
        raise CannotPlan(f"{new} cannot be appended: {error}") from None
    steps.append(f"append {new} in {', '.join(texts)}")
    return texts
