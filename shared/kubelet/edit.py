"""Writing a setting into a kubelet config file, JSON or YAML, touching nothing else (pure).

Order, comments, indentation, quoting and line ends stay. Whether the kubelet then reads what was meant is for the
caller to prove by resolving the new text; these functions only find the place.
"""

from __future__ import annotations

import json
import re

import yaml

from shared.kubelet.json_text import parse_json
from shared.kubelet.tree import Budget, DocumentError, Node, last_member

Value = bool | int | str | tuple[str, ...]


class EditError(Exception):
    """There is no place in this text where the setting can be written. The text says why."""


def config_text(value: Value) -> str:
    """A value as it is written in JSON, which is also its YAML form."""
    return json.dumps(value)


def flag_text(value: Value) -> str:
    """A value as pflag reads it behind the `=` of a flag: text as it is, without quotes."""
    if isinstance(value, tuple):
        return ",".join(value)
    return value if isinstance(value, str) else json.dumps(value)


def replace_value(text: str, span: tuple[int, int], value: Value) -> str:
    """`text` with the value at `span` (start, end; characters) written anew."""
    start, end = span
    # An empty YAML value has no characters of its own: `key:` needs a space before what comes.
    gap = " " if start == end and start and not text[start - 1].isspace() else ""
    return text[:start] + gap + config_text(value) + text[end:]


def add_setting(text: str, setting: str, value: Value) -> str:
    """`text` with the setting (a path such as `authentication.anonymous.enabled`), which is not in it yet, added.

    Raises EditError where the text is not a JSON or YAML mapping, or something other than a mapping stands on the way.
    """
    keys = setting.split(".")
    return _add_json(text, keys, value) if text.lstrip().startswith("{") else _add_yaml(text, keys, value)


def _add_json(text: str, keys: list[str], value: Value) -> str:
    try:
        node = parse_json("", text, Budget())
    except DocumentError as error:
        raise EditError(f"it is not JSON: {error}") from None
    start = text.index("{")
    while len(keys) > 1 and (child := last_member(node, keys[0])) is not None:
        if child.kind != "object" or child.span is None:
            raise EditError(f"{keys[0]} is not an object there")
        node, start, keys = child, child.span[0], keys[1:]
    written = config_text(value)
    for key in reversed(keys[1:]):
        written = f'{{"{key}": {written}}}'
    colon = ":" if re.search(r'"\s*:[^\s]', text) and not re.search(r'":\s', text) else ": "
    entry = f'"{keys[0]}"{colon}{written}'
    if not node.members:
        return f"{text[: start + 1]}{entry}{text[start + 1 :]}"
    last = max(_end(child) for _, child in node.members)
    # A member on a line of its own gets company in the same way, with the same indentation and line end.
    before = text[start + 1 : last]
    newline = re.search(r"(\r?\n[ \t]*)\S", before)
    if newline:
        return f"{text[:last]},{newline[1]}{entry}{text[last:]}"
    return f"{text[:last]},{'' if colon == ':' else ' '}{entry}{text[last:]}"


def _end(node: Node) -> int:
    assert node.span is not None  # it was read from this text
    return node.span[1]


def _add_yaml(text: str, keys: list[str], value: Value) -> str:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise EditError(f"it is not YAML: {error}") from None
    except RecursionError:
        raise EditError("it is nested too deeply") from None
    while isinstance(node, yaml.MappingNode) and len(keys) > 1:
        child = next((found for key, found in node.value if key.value == keys[0]), None)
        if child is None:
            break
        node, keys = child, keys[1:]
    if not isinstance(node, yaml.MappingNode):
        raise EditError("it does not hold a mapping there")
    if node.flow_style:
        at = node.start_mark.index + 1
        written = config_text(value)
        for key in reversed(keys[1:]):
            written = f"{{{key}: {written}}}"
        return f"{text[:at]}{keys[0]}: {written}{', ' if node.value else ''}{text[at:]}"
    column, at = _place(text, node)
    end_of_line = "\r\n" if "\r\n" in text else "\n"
    lines = [f"{' ' * (column + 2 * depth)}{key}:" for depth, key in enumerate(keys)]
    lines[-1] += f" {config_text(value)}"
    block = end_of_line.join(lines)
    if at == len(text) and not text.endswith("\n"):
        return f"{text}{end_of_line}{block}"
    return f"{text[:at]}{block}{end_of_line}{text[at:]}"


def _place(text: str, node: yaml.MappingNode) -> tuple[int, int]:
    """The column of a block mapping's keys, and the index of a line's start where one more key may stand.

    That is behind its last key that has its value on the same line (what follows a longer value is hard to tell from
    it), or else before its first key.
    """
    for key, child in reversed(node.value):
        on_one_line = key.start_mark.line == child.start_mark.line == child.end_mark.line
        if isinstance(child, yaml.ScalarNode) and on_one_line and child.style not in ("|", ">"):
            newline = text.find("\n", child.end_mark.index)
            return key.start_mark.column, newline + 1 if newline >= 0 else len(text)
    if not node.value:
        raise EditError("the mapping there is empty")
    first = node.value[0][0].start_mark
    start = first.index - first.column
    if text[start : first.index].strip():
        raise EditError("its first key does not stand on a line of its own")
    return first.column, start
