"""The catalogue for people and programs: all controls in short, and everything about one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import IO, Any

from rich.console import Console
from rich.text import Text

from shared.controls import Benchmark, Catalogue, Control, Recommendation
from shared.controls.rules import show
from shared.kubelet import GATES, Usual, usual
from shared.plain import plain
from shared.report.words import indented

_MARGIN = 16


def controls_as_text(known: Catalogue, chosen: Sequence[str], out: IO[str]) -> None:
    """Two lines and more a control: what it is, what is judged, what a fix would do, and which benchmarks have it."""
    console = Console(file=out, highlight=False)
    width = max((len(name) for name in chosen), default=0) + 2
    for name in chosen:
        control = known.controls[name]
        console.print()
        indented(console, plain(control.title, None), width, "bold", name)
        indented(console, f"{control.subject} must {control.must}", width)
        words = f"severity {control.severity} · {_FIXED[_fixed(control)]} · {_in_short(known, name)}"
        indented(console, words, width, "dim")
    console.print()
    versions = ", ".join(
        f"{one.version} is {plain(one.name)}{' (the default)' if version == known.default else ''}"
        for version, one in known.benchmarks.items()
    )
    indented(console, f"{len(chosen)} controls. {versions}. `kubelet-guard explain ID` says more.", 0)


def controls_as_json(known: Catalogue, chosen: Sequence[str], out: IO[str]) -> None:
    """The same as a JSON array."""
    _write([_as_json(known, known.controls[name]) for name in chosen], out)


def explained_as_json(known: Catalogue, control: Control, out: IO[str]) -> None:
    """Everything about a control as a JSON object; `defaults` are the kubelet's own, by minor."""
    defaults = [
        {**asdict(each), "first": f"1.{each.first}", "last": f"1.{each.last}"}
        for each in (usual(control.setting) if control.setting else ())
    ]
    _write({**_as_json(known, control), "defaults": defaults}, out)


def explained_as_text(known: Catalogue, control: Control, fixed_here: bool, out: IO[str]) -> None:
    """Everything about a control; `fixed_here` says whether this deployment's settings let a fix touch it."""
    console = Console(file=out, highlight=False)
    console.print()
    indented(console, plain(control.title, None), len(control.id) + 1, "bold", control.id)
    console.print(Text(f"severity {control.severity}", "dim"))
    console.print()
    for heading, text in _parts(known, control, fixed_here):
        for number, raw in enumerate(text if isinstance(text, list) else [text]):
            line = plain(raw, None)
            first = "" if number else heading
            if line.startswith("https://"):  # whole, so that it can be clicked
                console.print(Text(f"{first:{_MARGIN}}{line}"), soft_wrap=True)
            else:
                indented(console, line, _MARGIN, "", first)


def _parts(known: Catalogue, control: Control, fixed_here: bool) -> Iterator[tuple[str, str | list[str]]]:
    yield "What is judged", _judged(control)
    yield "Rule", f"must {control.must}"
    yield "Applies to", _applies(control)
    if control.setting:
        yield "Default", [_default(each) for each in usual(control.setting)]
    yield "Why", control.rationale
    if control.impact:
        yield "Impact", control.impact
    yield "What to do", control.fix
    if control.by_hand:
        yield "By hand", control.by_hand
    yield "A fix", _what_a_fix_does(control)
    if not control.by_hand:
        yield "Fixed here", "yes" if fixed_here else f"no: GUARD_FIX_CONTROLS does not name {control.id}"
    yield (
        "Benchmarks",
        [f"{benchmark.name}: {_entry(control, entry)}" for benchmark, entry in _benchmarks(known, control.id)]
        or "none: a control of one's own, which is judged whatever the benchmark is",
    )
    if control.references:
        yield "References", list(control.references)


def _judged(control: Control) -> str:
    if control.file is not None:
        return control.subject
    if control.setting.startswith(GATES):
        return f"the kubelet's feature gate {control.setting.removeprefix(GATES)} ({control.setting}; {control.flag})"
    return f"the kubelet's setting {control.setting}" + (f" ({control.flag})" if control.flag else "")


def _applies(control: Control) -> str:
    nodes = f"{' and '.join(control.applies.os)} nodes"
    if len(control.applies.machines) == 1:
        nodes += f" that are each a {control.applies.machines[0].replace('_', ' ')}"
    versions = control.applies.kubernetes
    every = versions == type(versions)()
    return nodes + ("" if every else f" of Kubernetes {versions}")


def _default(found: Usual) -> str:
    minors = f"1.{found.first} to 1.{found.last}" if found.first < found.last else f"1.{found.first}"
    if not found.known:
        return f"there is no such setting ({minors})"
    alone = "" if found.with_file == found.arguments_alone else f"; {show(found.arguments_alone)} without a config file"
    return f"{show(found.with_file)}{alone} ({minors})"


_FIXED = {
    "by_hand": "by hand",
    "with_restart": "fixed with a restart",
    "without_restart": "fixed without a restart",
}


def _fixed(control: Control) -> str:
    if control.by_hand:
        return "by_hand"
    return "with_restart" if control.file is None else "without_restart"


def _what_a_fix_does(control: Control) -> str:
    if control.by_hand:
        return "is not planned"
    if control.file is not None:
        return f"changes {control.subject}; the kubelet is not restarted"
    argument = f", or {control.argument} among its arguments" if control.argument else ""
    return f"writes {control.setting}: {show(control.right)} in the config file{argument}, and restarts the kubelet"


def _entry(control: Control, entry: Recommendation) -> str:
    words = [
        entry.number or control.id,
        f"Level {entry.level}" if entry.level else "its level is not known",
        "automated" if entry.automated else "manual",
    ]
    return ", ".join(words) + (f" ({entry.title})" if entry.title else "")


def _in_short(known: Catalogue, control_id: str) -> str:
    """`v1.7, v1.8 (Level 1)`."""
    versions: dict[str, list[str]] = {}
    for benchmark, entry in _benchmarks(known, control_id):
        number = entry.number if entry.number != control_id else ""
        said = ", ".join(filter(None, (number, f"Level {entry.level}" if entry.level else "")))
        versions.setdefault(said, []).append(benchmark.version)
    words = [", ".join(names) + (f" ({said})" if said else "") for said, names in versions.items()]
    return ", ".join(words) or "in no benchmark"


def _benchmarks(known: Catalogue, control_id: str) -> list[tuple[Benchmark, Recommendation]]:
    return [
        (benchmark, entry)
        for benchmark in known.benchmarks.values()
        if (entry := benchmark.entry(control_id)) is not None
    ]


def _as_json(known: Catalogue, control: Control) -> dict[str, Any]:
    return {
        **control.model_dump(mode="json", by_alias=True),
        "judged": control.subject,
        "must": control.must,
        "fixed": _fixed(control),
        "benchmarks": [
            {"version": benchmark.version, "name": benchmark.name, **entry.model_dump(mode="json", exclude={"control"})}
            for benchmark, entry in _benchmarks(known, control.id)
        ],
    }


def _write(value: object, out: IO[str]) -> None:
    out.write(json.dumps(value, indent=2) + "\n")
