"""Change one argument of a unit's command line exactly where it is written, and nothing else.

Each function proposes edits, the smallest first, and takes the first that it can prove: the model is run again on
the new texts, and the command line must be the intended one, argument by argument, every other variable and every
other setting as before. Where none can be proved, CannotEdit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from itertools import takewhile
from typing import NamedTuple

from . import envfile, unitfile
from .budget import Budget
from .command import Argument, StartCommand, start_command
from .environment import Variable
from .text import UnitError, Written

_BLANKS = " \t"
_CONTINUATION = re.compile(r"[ \t]*\\(\r\n|\r|\n)")


class CannotEdit(ValueError):
    """No edit can be proved to do exactly what is asked. The text says why."""


class _Place(NamedTuple):
    """A span of `files[path]`, in the definition of this variable (None: in ExecStart= itself)."""

    path: str
    start: int
    end: int
    variable: str | None


class _Splice(NamedTuple):
    """Write this text at this place, instead of what is there."""

    place: _Place
    text: str


def replace_argument(files: Mapping[str, str], command: StartCommand, index: int, new: str) -> dict[str, str]:
    """The files that change (path to new text) so that `command.argv[index]` becomes `new`.

    `command` must be what `start_command` makes of `files`. Of an argument that several definitions give, the one
    that carries the difference is changed. Nothing changes, and the answer is empty, where `new` is the argument
    already. Raises CannotEdit, and IndexError where there is no such argument.
    """
    argument = _argument(command, index)
    if argument.text == new:
        return {}
    wanted = list(command.texts)
    wanted[index] = new
    return _first_proved(files, command, wanted, _replacements(files, command, argument, new))


def remove_argument(files: Mapping[str, str], command: StartCommand, index: int) -> dict[str, str]:
    """The files that change so that `command.argv[index]` is gone, with the blanks that only it needed.

    Raises as `replace_argument` does.
    """
    argument = _argument(command, index)
    wanted = list(command.texts)
    del wanted[index]
    return _first_proved(files, command, wanted, _removals(files, argument))


def append_argument(files: Mapping[str, str], command: StartCommand, new: str) -> dict[str, str]:
    """The files that change so that `new` is the last argument.

    It goes to the variable that ExecStart= expands last as a word of its own (`$KUBELET_FLAGS`), where its winning
    definition is; to ExecStart= itself where there is none, or where other words follow it. Raises CannotEdit.
    """
    wanted = [*command.texts, new]
    return _first_proved(files, command, wanted, _appendices(command, new))


def _argument(command: StartCommand, index: int) -> Argument:
    if not 0 <= index < len(command.texts):
        raise IndexError(f"there is no argument {index}; the command line has {len(command.texts)}")
    if index == 0:
        raise CannotEdit("argument 0 is the program's name, which is not edited")
    return command.argv[index]


# The proof


def _first_proved(
    files: Mapping[str, str], command: StartCommand, wanted: Sequence[str], splices: Iterator[_Splice]
) -> dict[str, str]:
    again = _again(files, command)
    if again != command or again.argv != command.argv:
        raise CannotEdit("the command line was not made from these files")
    for splice in splices:
        path, start, end, variable = splice.place
        changed = files[path][:start] + splice.text + files[path][end:]
        if _proved(files, command, wanted, path, changed, variable):
            return {path: changed}
    raise CannotEdit(
        f"no edit of {command.unit.fragment}, its drop-ins or its environment files was found that makes exactly this "
        "change: the argument may come from several places, or its definition may be used more than once"
    )


def _proved(
    files: Mapping[str, str],
    command: StartCommand,
    wanted: Sequence[str],
    path: str,
    changed: str,
    variable: str | None,
) -> bool:
    """Whether exactly the wanted command line comes out, and nothing but this variable and one line changes."""
    try:
        after = _again({**files, path: changed}, command)
        return (
            list(after.texts) == list(wanted)
            and after.executable == command.executable
            and _values(after, but=variable) == _values(command, but=variable)
            and _differing_lines(command, path, files[path], changed) == 1
        )
    except UnitError:
        return False


def _again(files: Mapping[str, str], command: StartCommand) -> StartCommand:
    unit = command.unit
    return start_command(
        unit.fragment,
        unit.dropins,
        files,
        base_environment=unit.base_environment,
        hostname=unit.hostname,
        systemd_version=unit.systemd_version,
    )


def _values(command: StartCommand, but: str | None) -> dict[str, str]:
    return {name: variable.value for name, variable in command.variables.items() if name != but}


def _differing_lines(command: StartCommand, path: str, before: str, after: str) -> int:
    """How many settings of a unit file, or assignments of an environment file, differ; -1 where their number does."""
    old, new = _lines(command, path, before), _lines(command, path, after)
    if len(old) != len(new):
        return -1
    return sum(one != other for one, other in zip(old, new, strict=True))


def _lines(command: StartCommand, path: str, text: str) -> list[tuple[str, str, str]]:
    if _is_unit_file(command, path):
        return [(line.section, line.key, line.value.text) for line in unitfile.settings(path, text, Budget())]
    # Where the two readings of comments differ, start_command() has been told the version, or has refused.
    version = command.unit.systemd_version
    continued = version is not None and version < envfile.COMMENTS_END_SINCE
    return [("", line.name, line.value.text) for line in envfile.assignments(path, text, comments_continue=continued)]


def _is_unit_file(command: StartCommand, path: str) -> bool:
    return path in (command.unit.fragment, *command.unit.dropins)


# The proposals


def _replacements(files: Mapping[str, str], command: StartCommand, argument: Argument, new: str) -> Iterator[_Splice]:
    """First only the characters that differ, within the quotes that are there; then the whole word."""
    old, origin = "".join(piece.text for piece in argument.pieces), argument.origin
    before = _common_length(old, new)
    behind = _common_length(old[before:][::-1], new[before:][::-1])
    stop = len(old) - behind
    text = new[before : len(new) - behind]
    if before < stop:
        places = _together(argument.pieces, before, stop)
    else:
        places = [place._replace(start=place.end) for place in _together(argument.pieces, before - 1, before)]
        places += [place._replace(end=place.start) for place in _together(argument.pieces, before, before + 1)]
    split = origin.variable is not None
    for place in places:
        if place.path in files:
            for form in _forms(command, place, text, split=split, whole=False):
                yield _Splice(place, form)
    word = _Place(origin.path, origin.start, origin.end, origin.variable)
    if _on_one_line(files, word):
        for form in _forms(command, word, new, split=split, whole=True):
            yield _Splice(word, form)


def _common_length(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _together(pieces: Sequence[Written], start: int, stop: int) -> list[_Place]:
    """The one place that the characters from `start` to `stop` are written at; none where they are written apart."""
    found: _Place | None = None
    last = 0
    for piece in pieces:
        for at in range(max(start, 0), min(stop, len(piece))):
            begin, end = piece.starts[at], piece.ends[at]
            if found is None:
                found = _Place(piece.path, begin, end, piece.variable)
            # Characters that one specifier makes have the same span.
            elif (piece.path, piece.variable) == (found.path, found.variable) and begin in (last, found.end):
                found = found._replace(end=end)
            else:
                return []
            last = begin
        start, stop = start - len(piece), stop - len(piece)
    return [found] if found else []


def _on_one_line(files: Mapping[str, str], place: _Place) -> bool:
    """Whether it is in a file, and holds no line end: replacing one could swallow a comment."""
    return place.path in files and not re.search(r"[\r\n]", files[place.path][place.start : place.end])


def _removals(files: Mapping[str, str], argument: Argument) -> Iterator[_Splice]:
    """The word, with the line or the blanks that only it needed."""
    path, _, start, end, variable = astuple(argument.origin)
    if not _on_one_line(files, _Place(path, start, end, variable)):
        return
    text = files[path]
    line_start = max(text.rfind("\n", 0, start), text.rfind("\r", 0, start)) + 1
    indent = text[line_start:start]
    spans: list[tuple[int, int]] = []
    if not indent.strip(_BLANKS):
        if continued := _CONTINUATION.match(text, end):
            spans.append((line_start, continued.end()))
        if (before := _end_of_continued_line(text, line_start)) is not None:
            spans.append((before, end))
    if blanks := len(indent) - len(indent.rstrip(_BLANKS)):
        spans.append((start - blanks, end))
    spans.append((start, end + len(text[end:]) - len(text[end:].lstrip(_BLANKS))))
    spans.append((start, end))
    for span in spans:
        yield _Splice(_Place(path, *span, variable), "")


def _end_of_continued_line(text: str, next_line: int) -> int | None:
    """Where the text of the line before `next_line` ends, its backslash and blanks left out; None if it has none."""
    line = text[max(text.rfind(end, 0, next_line - 2) for end in "\r\n") + 1 : next_line]
    content = line.rstrip("\r\n")
    if not content.endswith("\\") or content.lstrip().startswith(("#", ";")):
        return None
    return next_line - len(line) + len(content[:-1].rstrip(_BLANKS))


def _appendices(command: StartCommand, new: str) -> Iterator[_Splice]:
    for word in reversed(command.words):
        if word.variable is None:
            break
        if variable := command.variables.get(word.variable):
            yield from _appended_to(command, variable, new)
    origin = command.words[-1].origin
    end = _Place(origin.path, origin.end, origin.end, None)
    for form in _forms(command, end, new, split=False, whole=True):
        yield _Splice(end, " " + form)


def _appended_to(command: StartCommand, variable: Variable, new: str) -> Iterator[_Splice]:
    origin = variable.origin
    if variable.written:
        separator = "" if variable.value[-1] in _BLANKS else " "
        offsets = [variable.written.ends[-1]]
    else:
        separator = ""
        offsets = [origin.start + 1, origin.start, origin.end]  # within quotes first, if there are any
    for offset in offsets:
        place = _Place(origin.path, offset, offset, variable.name)
        for word in _value_words(new, whole=True):
            for form in _value_forms(command, place, separator + word):
                yield _Splice(place, form)


def _forms(command: StartCommand, place: _Place, text: str, *, split: bool, whole: bool) -> Iterator[str]:
    """The ways to write `text` at this place.

    `split`: it becomes part of a value that `$NAME` splits. `whole`: it is a word of its own, so that quotes may go
    around it.
    """
    if place.variable is None:
        if whole and (not text or re.search(r"[\s;#]", text)):
            yield '"' + _unit_escaped(text.replace("$", "$$"), blanks=False) + '"'
        yield _unit_escaped(text.replace("$", "$$"), blanks=True)
        yield _unit_escaped(text, blanks=True)  # with the prefix `:`
        return
    for value in _value_words(text, whole=whole) if split else [text]:
        yield from _value_forms(command, place, value)


def _value_words(text: str, *, whole: bool) -> Iterator[str]:
    """In a value that `$NAME` splits, a backslash makes any character plain."""
    yield re.sub(r"""([\s\\"'])""", r"\\\1", text)
    if whole:
        yield '"' + re.sub(r'([\\"])', r"\\\1", text) + '"'
        yield "'" + re.sub(r"([\\'])", r"\\\1", text) + "'"


def _value_forms(command: StartCommand, place: _Place, value: str) -> Iterator[str]:
    if _is_unit_file(command, place.path):
        yield _unit_escaped(value, blanks=False)
        yield _unit_escaped(value, blanks=True)
    else:
        yield value
        yield re.sub(r'(["\\`$])', r"\\\1", value)  # in double quotes
        yield value.replace("\\", "\\\\")  # without quotes


def _unit_escaped(text: str, *, blanks: bool) -> str:
    """For a word of a unit file. `blanks`: escape these too, for there are no quotes around it."""
    out = []
    for char in text:
        if char == "%":
            out.append("%%")
        elif char in "\\\"'":
            out.append("\\" + char)
        elif char < " " or char == "\x7f" or (blanks and char == " "):
            out.append(f"\\x{ord(char):02x}")
        else:
            out.append(char)
    return "".join(out)
