"""The smallest edits that make controls comply on one node (pure).

A plan is computed from what a restart would run, as systemd and the kubelet would see it, and proved by computing that
again with the edits made: what cannot be proved is not planned.

Source: the seed's remediation methods, 1 (the config file) and 2 (the arguments); method 3 is the proof on the live
process, which applying the plan does (fixing.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from shared.controls import Control, OnDisk, Trouble, absolute, next_start, on_disk
from shared.controls.inputs import by_arguments
from shared.controls.restart import named_files, start, unit_texts
from shared.kubelet import Assignment, Source
from shared.kubelet.edit import EditError, add_setting, config_text, replace_value
from shared.models import Evidence
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
    """There is no safe plan for this node. The text says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """New texts by path (none: what is on disk is right, and only a restart is missing).

    `present` are arguments that the new process must have, `absent` ones that it must not have. `steps` say in words
    what is edited where.
    """

    texts: Mapping[str, str]
    present: tuple[str, ...]
    absent: tuple[str, ...]
    steps: tuple[str, ...]


def plan(controls: Sequence[Control], evidence: Evidence, version: str | None = None, method: Method = "auto") -> Plan:
    """The edits that make `controls` comply after a restart. Raises CannotPlan.

    `version` is the node's, which counts where the process does not tell its own. Every bad value is corrected where it
    is written, also where another one wins over it. Method `config` and `flags` besides make sure that the setting is
    written explicitly there; `auto` adds it only where the kubelet's default does not comply: in the config file where
    there is one, else as an argument.
    """
    process = evidence.process
    if process is None:
        raise CannotPlan("no kubelet process runs, so that nothing shows what a restart would have to come to")
    version = process.version or version
    known = _started(next_start(evidence, version))
    mine = named_files(evidence, known)
    steps: list[str] = []
    now = evidence
    for control in controls:
        now = _comply(control, now, version, method, mine, steps)
    final = _started(on_disk(now, version)).resolution
    flags = {
        assignment.source.text
        for control in controls
        for assignment in final.assignments(control.setting)
        if assignment.source.kind == "flag"
    }
    running = by_arguments(process.argv, evidence, version, process.directory)
    wrong = {
        assignment.source.text
        for control in controls
        for assignment in (() if isinstance(running, Trouble) else running.assignments(control.setting))
        if assignment.source.kind == "flag" and not control.complies(assignment.value)
    }
    texts = {path: file.text for path, file in now.files.items() if file.text != evidence.files[path].text}
    if len({mine[path] for path in texts}) < len(texts):
        raise CannotPlan(f"one file would be edited under several names: {', '.join(sorted(texts))}")
    return Plan(
        texts=texts,
        present=tuple(sorted(flags)),
        absent=tuple(sorted(wrong - flags)),
        steps=tuple(plain_text(step, None) for step in steps),
    )


def _comply(
    control: Control,
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
            right = control.complies(disk.resolution.value(control.setting))
            kinds = {assignment.source.kind for assignment in written}
            if right and (method == "auto" or {"config": "file", "flags": "flag"}[method] in kinds):
                return evidence
            evidence = _edited(evidence, _add(control, method, disk, evidence, steps), mine)
            continue
        if len(wrong) > _MOST_VALUES:
            raise CannotPlan(f"{control.setting} is written wrongly {len(wrong)} times; {_MOST_VALUES} are corrected")
        flags = [assignment.source for assignment in wrong if assignment.source.kind == "flag"]
        if len(flags) > _MOST_FLAGS:
            raise CannotPlan(
                f"{control.flag} is given {len(flags)} times with a wrong value: {_MOST_FLAGS} are corrected"
            )
        evidence = _edited(evidence, _corrected_files(control, wrong, disk, evidence, steps), mine)
        for source in flags:
            evidence = _edited(evidence, _corrected_flag(control, source, evidence, steps), mine)
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
    control: Control, wrong: Sequence[Assignment], disk: OnDisk, evidence: Evidence, steps: list[str]
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
            text = replace_value(text, span, control.expected)
        texts[path] = text
        value = config_text(control.expected)
        steps += [f"set {control.setting} to {value} in {path}, line {line}" for line in sorted(spans.values())]
    return texts


def _corrected_flag(control: Control, source: Source, evidence: Evidence, steps: list[str]) -> Mapping[str, str]:
    """The new texts where a flag is corrected where it is written."""
    command = start(evidence)
    if isinstance(command, Trouble):
        raise CannotPlan(f"the edits lead to a unit that does not start: {command.reason}")
    value = config_text(control.expected)
    name = source.text.split("=", 1)[0].split(" ", 1)[0]
    index, new = (source.position + 1, value) if source.words == 2 else (source.position, f"{name}={value}")
    try:
        texts = replace_argument(unit_texts(evidence), command, index, new)
    except CannotEdit as error:
        raise CannotPlan(f"the argument {source.text} cannot be corrected where it is written: {error}") from None
    steps.append(f"correct {source.text} to {name}={value} in {', '.join(texts)}")
    return texts


def _add(control: Control, method: Method, disk: OnDisk, evidence: Evidence, steps: list[str]) -> Mapping[str, str]:
    """Write the setting explicitly where nothing writes it yet."""
    config = disk.inputs.config
    value = config_text(control.expected)
    if method == "config" and not config:
        raise CannotPlan("this kubelet reads no config file; use the method flags")
    if config and method != "flags":
        try:
            text = add_setting(evidence.files[config].text, control.setting, control.expected)
        except EditError as error:
            raise CannotPlan(f"{control.setting} cannot be added to {config}: {error}") from None
        steps.append(f"add {control.setting}: {value} to {config}")
        return {config: text}
    new = f"{control.flag}={value}"
    try:
        texts = append_argument(unit_texts(evidence), disk.command, new)
    except CannotEdit as error:
        raise CannotPlan(f"{new} cannot be appended: {error}") from None
    steps.append(f"append {new} in {', '.join(texts)}")
    return texts
