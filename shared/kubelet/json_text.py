"""JSON as Go's encoding/json reads it, keeping doubled keys, number texts and places.

Source: the Go standard library's scanner (grammar, wording of errors) and decoder (strings).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NoReturn

from shared.kubelet.tree import MAX_DEPTH, Budget, DocumentError, Lines, Node

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_STRING: Final = re.compile(r'"[^"\\\x00-\x1f]*"')
_CHUNK: Final = re.compile(r'[^"\\\x00-\x1f]*')
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_HEX: Final = re.compile(r"[0-9a-fA-F]{4}")
_ESCAPES: Final = {
    '"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t",
}  # fmt: skip
_LITERALS: Final = (("true", "bool"), ("false", "bool"), ("null", "null"))


def parse_json(path: str, text: str, budget: Budget) -> Node:
    """Reads one JSON value that fills `text`. Raises DocumentError in Go's words, LimitError beyond the budget."""
    budget.text(text)
    reader = _Reader(path, text, budget)
    value = reader.value()
    reader.skip_space()
    if reader.at < len(text):
        reader.fail("after top-level value")
    return value


@dataclass(slots=True)
class _Open:
    """An object or array that has begun: what is in it so far, and the key of what comes next."""

    start: int
    items: list[Node] | None
    members: list[tuple[str, Node]]
    key: str = ""


class _Reader:
    def __init__(self, path: str, text: str, budget: Budget) -> None:
        self.text = text
        self.at = 0
        self.lines = Lines(path, text)
        self.budget = budget
        self.open: list[_Open] = []

    def fail(self, where: str) -> NoReturn:
        if self.at < len(self.text):
            raise DocumentError(f"invalid character {_quoted(self.text[self.at])} {where}")
        if where.startswith(("in ", "after decimal")) and where != "in string literal":
            raise DocumentError(f"invalid character ' ' {where}")  # Go feeds its scanner a space at the end
        raise DocumentError("unexpected end of JSON input")

    def skip_space(self) -> str:
        """Moves past white space; the character found there, "" at the end."""
        match = _SPACE.match(self.text, self.at)
        assert match is not None  # it may be empty
        self.at = match.end()
        return self.text[self.at : self.at + 1]

    def value(self) -> Node:
        """One value with all that is in it."""
        while True:
            done = self.begin()
            while done is not None:
                if not self.open:
                    return done
                done = self.add(done)

    def begin(self) -> Node | None:
        """Reads a scalar or an empty collection; None where a collection is now open and its first value comes next."""
        char = self.skip_space()
        self.budget.values()
        start = self.at
        if char in ("{", "["):
            if len(self.open) >= MAX_DEPTH:
                raise DocumentError("exceeded max depth")
            self.at += 1
            if self.skip_space() == ("}" if char == "{" else "]"):
                self.at += 1
                return Node("object" if char == "{" else "array", self.lines.source(start), (start, self.at))
            self.open.append(_Open(start, [] if char == "[" else None, []))
            if char == "{":
                self.key()
            return None
        return self.scalar(char, start)

    def key(self) -> None:
        if self.skip_space() != '"':
            self.fail("looking for beginning of object key string")
        self.open[-1].key = self.string()
        if self.skip_space() != ":":
            self.fail("after object key")
        self.at += 1

    def add(self, value: Node) -> Node | None:
        """Puts a value into the innermost collection; the collection where that ends with it, else None."""
        inner = self.open[-1]
        char = self.skip_space()
        if inner.items is None:
            inner.members.append((inner.key, value))
            if char not in (",", "}"):
                self.fail("after object key:value pair")
        else:
            inner.items.append(value)
            if char not in (",", "]"):
                self.fail("after array element")
        self.at += 1
        if char == ",":
            if inner.items is None:
                self.key()
            return None
        self.open.pop()
        source, span = self.lines.source(inner.start), (inner.start, self.at)
        if inner.items is None:
            return Node("object", source, span, members=tuple(inner.members))
        return Node("array", source, span, items=tuple(inner.items))

    def scalar(self, char: str, start: int) -> Node:
        source = self.lines.source(start)
        if char == '"':
            content = self.string()
            return Node("string", source, (start, self.at), text=content)
        match = _NUMBER.match(self.text, start)
        if match is not None:
            self.at = match.end()
            self.check_number(match.group())
            return Node("number", source, (start, self.at), text=match.group())
        for word, kind in _LITERALS:
            if char == word[0]:
                self.literal(word)
                if kind == "null":
                    return Node("null", source, (start, self.at))
                return Node("bool", source, (start, self.at), truth=word == "true")
        if char == "-":
            self.at += 1
        return self.fail("in numeric literal" if char == "-" else "looking for beginning of value")

    def check_number(self, digits: str) -> None:
        """After a number that could have gone on ("1." or "1e") Go complains about the next character."""
        following = self.text[self.at : self.at + 1]
        if following == "." and "." not in digits and "e" not in digits.lower():
            self.at += 1
            self.fail("after decimal point in numeric literal")
        if following and following in "eE" and "e" not in digits.lower():
            self.at += 1
            if self.text[self.at : self.at + 1] in ("+", "-"):
                self.at += 1
            self.fail("in exponent of numeric literal")

    def literal(self, word: str) -> None:
        for index, letter in enumerate(word):
            if self.text[self.at : self.at + 1] != letter:
                self.fail(f"in literal {word} (expecting {_quoted(word[index])})")
            self.at += 1

    def string(self) -> str:
        simple = _STRING.match(self.text, self.at)
        if simple is not None:
            self.at = simple.end()
            return _no_bytes(simple.group()[1:-1])
        parts: list[str] = []
        self.at += 1
        while True:
            chunk = _CHUNK.match(self.text, self.at)
            assert chunk is not None  # it may be empty
            parts.append(_no_bytes(chunk.group()))
            self.at = chunk.end()
            char = self.text[self.at : self.at + 1]
            if char == '"':
                self.at += 1
                # surrogate pairs written as two escapes become one character, lone ones U+FFFD
                return _valid("".join(parts))
            if char != "\\":
                self.fail("in string literal")
            self.at += 1
            parts.append(self.escape())

    def escape(self) -> str:
        char = self.text[self.at : self.at + 1]
        if char == "u":
            self.at += 1
            match = _HEX.match(self.text, self.at)
            if match is None:
                while self.text[self.at : self.at + 1] in tuple("0123456789abcdefABCDEF"):
                    self.at += 1
                self.fail("in \\u hexadecimal character escape")
            self.at += 4
            return chr(int(match.group(), 16))
        if char not in _ESCAPES or not char:
            self.fail("in string escape code")
        self.at += 1
        return _ESCAPES[char]


def _no_bytes(text: str) -> str:
    """Text as it stands in the file: what is not UTF-8 (a surrogate here) is read as U+FFFD, byte by byte."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _valid(text: str) -> str:
    """What Go's decoder makes of surrogates: a pair is one character, a lone one U+FFFD."""
    if not any("\ud800" <= char <= "\udfff" for char in text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _quoted(char: str) -> str:
    """A character as Go's scanner quotes it in an error."""
    if char == "'":
        return r"'\''"
    if char == '"':
        return "'\"'"
    return repr(char)
