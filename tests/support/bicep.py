"""Reads Bicep files with tree-sitter's grammar, as far as the tests need it: what is declared, what is used, and with
which keys. It judges nothing; it finds no types. Line numbers count from 1."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tree_sitter_bicep
from tree_sitter import Language, Node, Parser

INFRA = Path(__file__).resolve().parents[2] / "infra"

# The grammar knows parameters as they are declared, not as a .bicepparam file assigns them; a variable's declaration
# has the same form as such an assignment.
_ASSIGNMENT = re.compile(r"^param(?= \w+ =)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A declared parameter: its decorators' names and whether it may be left out."""

    name: str
    decorators: frozenset[str]
    optional: bool


@dataclass(frozen=True, slots=True)
class Block:
    """A resource or module: `target` is the type with its version, or the module's path; `body` its object."""

    name: str
    target: str
    existing: bool
    body: Node


@dataclass(frozen=True, slots=True)
class File:
    """One parsed file. `uses`: identifiers that expressions read; `outputs_used`: each `module.outputs.name`."""

    path: Path
    problems: tuple[str, ...]
    scope: str
    parameters: tuple[Parameter, ...]
    variables: frozenset[str]
    resources: tuple[Block, ...]
    modules: tuple[Block, ...]
    outputs: dict[str, frozenset[str]]
    uses: frozenset[str]
    outputs_used: frozenset[tuple[str, str]]

    def resource(self, name: str) -> Block:
        """The resource with that symbolic name."""
        return next(block for block in self.resources if block.name == name)


def files() -> list[Path]:
    """Every Bicep file of the project."""
    return sorted(INFRA.rglob("*.bicep"))


@cache
def read(path: Path) -> File:
    """Parses one .bicep or .bicepparam file."""
    text = path.read_text()
    if path.suffix == ".bicepparam":
        text = _ASSIGNMENT.sub("var", text)
    root = Parser(Language(tree_sitter_bicep.language())).parse(text.encode()).root_node
    nodes = list(_walk(root))
    return File(
        path=path,
        problems=tuple(
            f"{path.name}:{node.start_point[0] + 1}: {text_of(node)[:60]!r}"
            for node in nodes
            if node.is_error or node.is_missing
        ),
        scope=next((_string(node) for node in nodes if node.type == "target_scope_assignment"), "resourceGroup"),
        parameters=tuple(_parameter(node) for node in root.named_children if node.type == "parameter_declaration"),
        variables=frozenset(_name(node) for node in root.named_children if node.type == "variable_declaration"),
        resources=tuple(_block(node) for node in nodes if node.type == "resource_declaration"),
        modules=tuple(_block(node) for node in nodes if node.type == "module_declaration"),
        outputs={_name(node): _decorators(node) for node in root.named_children if node.type == "output_declaration"},
        uses=frozenset(_uses(nodes)),
        outputs_used=frozenset(re.findall(r"(\w+)(?:\[\w+\])?!?\.\??outputs\.(\w+)", text)),
    )


def variable(path: Path, name: str) -> Node:
    """The value of a variable. Raises StopIteration where the file declares none of that name."""
    root = Parser(Language(tree_sitter_bicep.language())).parse(path.read_bytes()).root_node
    declared = (node for node in root.named_children if node.type == "variable_declaration" and _name(node) == name)
    return next(declared).named_children[-1]


def text_of(node: Node) -> str:
    """The node's own source text."""
    return (node.text or b"").decode()


def keys(body: Node) -> dict[str, Node]:
    """The properties of an object node: name to value."""
    found = {}
    for entry in body.named_children:
        if entry.type == "object_property" and len(entry.named_children) >= 2:
            found[text_of(entry.named_children[0]).strip("'")] = entry.named_children[-1]
    return found


def at(body: Node, path: str) -> Node:
    """The value at a dotted path of properties. Raises KeyError naming what is missing."""
    for key in path.split("."):
        body = keys(body)[key]
    return body


def objects(array: Node) -> list[Node]:
    """The objects in an array literal."""
    return [child for child in array.named_children if child.type == "object"]


def literal(node: Node) -> str:
    """The text of a literal, without quotes: `true`, `12`, `Standard`."""
    return text_of(node).strip("'")


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _name(node: Node) -> str:
    return text_of(next(child for child in node.named_children if child.type == "identifier"))


def _string(node: Node) -> str:
    return text_of(next(child for child in node.named_children if child.type == "string")).strip("'")


def _decorators(node: Node) -> frozenset[str]:
    before = node.prev_named_sibling
    if before is None or before.type != "decorators":
        return frozenset()
    return frozenset(text_of(child).lstrip("@").split("(")[0] for child in before.named_children)


def _parameter(node: Node) -> Parameter:
    return Parameter(
        name=_name(node),
        decorators=_decorators(node),
        optional=any(text_of(child) == "=" for child in node.children),
    )


def _block(node: Node) -> Block:
    body = next(child for child in _walk(node) if child.type == "object")
    head = text_of(node)[: body.start_byte - node.start_byte]
    return Block(name=_name(node), target=_string(node), existing=" existing " in head, body=body)


def _uses(nodes: list[Node]) -> Iterator[str]:
    declarations = {"parameter_declaration", "variable_declaration", "output_declaration", "resource_declaration"}
    for node in nodes:
        if node.type != "identifier" or node.parent is None:
            continue
        parent = node.parent
        first = parent.named_children[0]
        if parent.type in declarations | {"module_declaration"} and node.id == first.id:
            continue
        if parent.type == "object_property" and node.id == first.id:
            continue
        yield text_of(node)
