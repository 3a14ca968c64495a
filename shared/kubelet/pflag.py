"""How the kubelet reads its command line.

Source: `spf13/pflag` (`flag.go`) with Kubernetes' WordSepNormalizeFunc: in a long flag's name `_` is `-`. The kubelet
parses twice where it reads a config: the second time over the config, with the libraries' flags replaced by
ones that ignore their value and always want one (`newFakeFlagSet` in `cmd/kubelet/app/server.go`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.kubelet.flags import Flag, FlagSet
from shared.kubelet.flagvalues import parse_value
from shared.kubelet.gotypes import GoError, quote
from shared.kubelet.source import Source

HELP: Final = "the kubelet prints its help and exits"


@dataclass(frozen=True, slots=True)
class GivenFlag:
    """One occurrence of a flag: its value, and where it stands in argv."""

    flag: Flag
    value: object
    source: Source


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What was read up to the first error; `error` is None where there was none."""

    given: tuple[GivenFlag, ...]
    arguments: tuple[str, ...]
    error: str | None


def parse_flags(argv: Sequence[str], known: FlagSet, *, again: bool = False, tolerant: bool = False) -> CommandLine:
    """Reads argv[1:]. `again`: the second time, over a config. `tolerant`: past all errors, and values are texts."""
    parser = _Parser(argv, known, again, tolerant)
    while parser.at < len(argv):
        try:
            parser.next()
        except GoError as error:
            if not tolerant:
                return CommandLine(tuple(parser.given), tuple(parser.arguments), str(error))
    return CommandLine(tuple(parser.given), tuple(parser.arguments), None)


class _Parser:
    def __init__(self, argv: Sequence[str], known: FlagSet, again: bool, as_text: bool) -> None:
        self.argv = argv
        self.known = known
        self.again = again
        self.as_text = as_text
        self.at = 1
        self.given: list[GivenFlag] = []
        self.arguments: list[str] = []

    def next(self) -> None:
        """Reads one argument, and the value after it where it needs one. Raises GoError."""
        start = self.at
        argument = self.argv[start]
        self.at += 1
        if argument == "--":
            self.arguments.extend(self.argv[self.at :])
            self.at = len(self.argv)
        elif argument.startswith("--"):
            self.long(argument, start)
        elif argument.startswith("-") and argument != "-":
            self.short(argument, start)
        else:
            self.arguments.append(argument)

    def long(self, argument: str, start: int) -> None:
        if argument[2] in "-=":
            raise GoError(f"bad flag syntax: {argument}")
        name, equals, value = argument[2:].partition("=")
        flag = self.lookup(self.known.by_name.get(name.replace("_", "-")))
        if flag is None:
            raise GoError(HELP if name == "help" else f"unknown flag: --{name}")
        if not equals:
            value = self.implied(flag) or self.following(f"flag needs an argument: {argument}")
        self.set(flag, value, start)

    def short(self, argument: str, start: int) -> None:
        letters = argument[1:]
        while letters:
            letter, rest = letters[0], letters[1:]
            flag = self.lookup(self.known.by_shorthand.get(letter))
            if flag is None:
                raise GoError(HELP if letter == "h" else f"unknown shorthand flag: {letter!r} in -{letters}")
            if len(rest) > 1 and rest[0] == "=":
                value, letters = rest[1:], ""
            elif self.implied(flag):
                value, letters = self.implied(flag), rest
            elif rest:
                value, letters = rest, ""
            else:
                value, letters = self.following(f"flag needs an argument: {letter!r} in -{letter}"), ""
            self.set(flag, value, start)

    def lookup(self, flag: Flag | None) -> Flag | None:
        """--help is not among the flags of the second reading."""
        return None if flag is not None and self.again and flag.scope == "help" else flag

    def implied(self, flag: Flag) -> str:
        return "" if self.again and flag.scope == "global" else flag.alone

    def following(self, error: str) -> str:
        if self.at >= len(self.argv):
            raise GoError(error)
        self.at += 1
        return self.argv[self.at - 1]

    def set(self, flag: Flag, text: str, start: int) -> None:
        if self.again and flag.scope == "global":
            return
        try:
            value = text if self.as_text else parse_value(flag.kind, text)
        except GoError as error:
            name = f"-{flag.shorthand}, --{flag.name}" if flag.shorthand else f"--{flag.name}"
            raise GoError(f"invalid argument {quote(text)} for {quote(name)} flag: {error}") from error
        words = tuple(self.argv[start : self.at])
        source = Source("flag", text=" ".join(words), position=start, words=len(words))
        self.given.append(GivenFlag(flag, value, source))
