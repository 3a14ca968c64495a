"""YAML's event stream as go-yaml reads it: PyYAML's scanner and parser, with go-yaml's rules where they differ.

The kubelet reads YAML with go-yaml v2 (vendored by sigs.k8s.io/yaml), a port of libyaml. PyYAML's own scanner is
stricter about tabs and differs in plain scalars and escapes; those methods follow libyaml's `scannerc` here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, cast

from yaml.error import MarkedYAMLError, YAMLError
from yaml.events import DocumentEndEvent, Event
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.scanner import Scanner, ScannerError
from yaml.tokens import DirectiveToken, ScalarToken, Token

from shared.kubelet.tree import MAX_DEPTH, DocumentError

_BREAKS: Final = "\r\n\x85\u2028\u2029"
_BLANK_OR_END: Final = "\0 \t" + _BREAKS
_FLOW_ENDS: Final = ",?[]{}"


class _Events(Reader, Scanner, Parser):
    """PyYAML's reader, scanner and parser; the methods below replace its own of these names."""

    ESCAPE_REPLACEMENTS = {  # type: ignore[misc]  # noqa: RUF012 - go-yaml v2 knows \' and not \/
        **{char: value for char, value in Scanner.ESCAPE_REPLACEMENTS.items() if char != "/"},
        "'": "'",
    }

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)

    def fetch_flow_collection_start(self, TokenClass: type[Token]) -> None:
        if self.flow_level >= MAX_DEPTH:
            raise DocumentError(f"yaml: exceeded max depth of {MAX_DEPTH}")
        super().fetch_flow_collection_start(TokenClass)

    def add_indent(self, column: int) -> bool:
        added = super().add_indent(column)
        if added and len(self.indents) > MAX_DEPTH:
            raise DocumentError(f"yaml: exceeded max depth of {MAX_DEPTH}")
        return added

    def stale_possible_simple_keys(self) -> None:
        """A key and its colon stand on one line, 1,024 characters apart at most.

        The possible keys are in the order of their flow levels, the outermost and oldest first: where that one may
        still be a key, all may. (PyYAML looks at every level for every token, which makes deep nesting quadratic.)
        """
        while self.possible_simple_keys:
            level, key = next(iter(self.possible_simple_keys.items()))
            if key.line == self.line and self.index - key.index <= 1024:
                return
            if key.required:
                raise ScannerError(
                    "while scanning a simple key", key.mark, "could not find expected ':'", self.get_mark()
                )
            del self.possible_simple_keys[level]

    def next_possible_simple_key(self) -> int | None:
        key = next(iter(self.possible_simple_keys.values()), None)
        return None if key is None else cast("int", key.token_number)

    def scan_to_next_token(self) -> None:
        """Tabs separate tokens in flow context, and in block context where no simple key may start."""
        while True:
            while self.index <= 1 and self.column == 0 and self.peek() == "\ufeff":
                self.forward()  # a mark takes no column; the reader drops one and the scanner another
            while self.peek() == " " or (self.peek() == "\t" and (self.flow_level > 0 or not self.allow_simple_key)):
                self.forward()
            if self.peek() == "#":
                while self.peek() not in "\0" + _BREAKS:
                    self.forward()
            if not self._line_break():
                return
            if not self.flow_level:
                self.allow_simple_key = True

    def scan_directive(self) -> DirectiveToken:
        """go-yaml knows no other directives; PyYAML passes over them."""
        token = super().scan_directive()
        if token.name not in ("YAML", "TAG"):
            mark = token.start_mark
            raise ScannerError("while scanning a directive", mark, "found unknown directive name", mark)
        return token

    def process_directives(self) -> object:
        """What stands before a document; no version but 1.1 is taken."""
        found = super().process_directives()  # type: ignore[no-untyped-call]
        if self.yaml_version not in (None, (1, 1)):
            raise DocumentError("yaml: found incompatible YAML document")
        return found

    def scan_plain(self) -> ScalarToken:
        """Plain scalars may hold tabs; a tab may not stand in for indentation."""
        parts: list[str] = []
        start = end = self.get_mark()
        indent = self.indent + 1
        blanks, breaks = "", ""
        while not self._at_document_mark() and self.peek() != "#":
            length = self._plain_run()
            if length:
                parts.append(_folded(breaks) if breaks else blanks)
                parts.append(self.prefix(length))
                self.forward(length)
                end = self.get_mark()
                blanks, breaks = "", ""
            if self.peek() not in " \t" + _BREAKS:
                break
            while self.peek() in " \t" + _BREAKS:
                if self.peek() not in " \t":
                    breaks += self._line_break()
                    continue
                if breaks and self.column < indent and self.peek() == "\t":
                    problem = "found a tab character that violates indentation"
                    raise ScannerError("while scanning a plain scalar", start, problem, self.get_mark())
                if not breaks:
                    blanks += self.peek()
                self.forward()
            if not self.flow_level and self.column < indent:
                break
        self.allow_simple_key = bool(breaks)
        return ScalarToken("".join(parts), True, start, end)

    def _at_document_mark(self) -> bool:
        return self.column == 0 and self.prefix(3) in ("---", "...") and self.peek(3) in _BLANK_OR_END

    def _plain_run(self) -> int:
        """How many characters go on before a blank, ": " or, in flow context, an indicator."""
        length = 0
        while True:
            char = self.peek(length)
            if char in _BLANK_OR_END or (char == ":" and self.peek(length + 1) in _BLANK_OR_END):
                return length
            if self.flow_level and char in _FLOW_ENDS:
                return length
            length += 1

    def _line_break(self) -> str:
        """Moves past a line break; what it stands for, "" where there is none."""
        return cast("str", self.scan_line_break())  # type: ignore[no-untyped-call]


def _folded(breaks: str) -> str:
    """Line folding: one line feed is a space, what follows it stands; other breaks stay."""
    first, rest = breaks[:1], breaks[1:]
    if first == "\n":
        return rest or " "
    return first + rest


def first_document(text: str) -> Iterator[Event]:
    """The events of the first document; what follows it is not read. Raises DocumentError as go-yaml words it."""
    try:
        stream = _Events(text)
        while stream.check_event():
            event = cast("Event", stream.get_event())  # type: ignore[no-untyped-call]
            yield event
            if isinstance(event, DocumentEndEvent):
                return
    except DocumentError:
        raise
    except ReaderError as error:
        raise DocumentError("yaml: control characters are not allowed") from error
    except MarkedYAMLError as error:
        raise DocumentError(_words(error)) from error
    except (YAMLError, ValueError, OverflowError) as error:  # PyYAML's chr() of an impossible escape
        raise DocumentError("yaml: found invalid Unicode character escape code") from error


_SAME: Final = {
    "mapping values are not allowed here": "mapping values are not allowed in this context",
    "could not find expected ':'": "could not find expected ':'",
    "sequence entries are not allowed here": "block sequence entries are not allowed in this context",
    "mapping keys are not allowed here": "mapping keys are not allowed in this context",
    "found unexpected end of stream": "found unexpected end of stream",
    "expected <document start>, but found": "did not find expected <document start>",
    "expected <block end>, but found": "did not find expected key",
    "expected ',' or ']', but got": "did not find expected ',' or ']'",
    "expected ',' or '}', but got": "did not find expected ',' or '}'",
    "expected the node content, but found": "did not find expected node content",
    "cannot start any token": "found character that cannot start any token",
}


def _words(error: MarkedYAMLError) -> str:
    problem = str(error.problem or "unknown problem parsing YAML content")
    for theirs, go in _SAME.items():
        if theirs in problem:
            problem = go
    line = error.problem_mark.line if error.problem_mark is not None else 0
    if line and isinstance(error, ScannerError):
        line += 1
    return f"yaml: line {line}: {problem}" if line else f"yaml: {problem}"
