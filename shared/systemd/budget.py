"""What a unit may cost, counted before anything is made of it: a node's files are not ours to trust."""

from __future__ import annotations

from collections.abc import Sequence

from .text import UnitError, size

LONGEST_STRING = 128 * 1024
"""Bytes of one argument or environment variable, its NUL included (the kernel's MAX_ARG_STRLEN, 32 pages)."""

MOST_BYTES = 2 * 1024 * 1024
"""Bytes of all arguments and variables, 8 more for each (the kernel's: a quarter of a stack of 8 MiB; execve(2))."""

_POINTER = 8

MOST_CHARACTERS = 512 * 1024
"""Of unit and environment files, and of what specifiers make."""

MOST_THINGS = 20_000
"""Settings, words, variables, arguments and their parts."""


class TooLarge(UnitError):
    """The unit is beyond a limit: the kernel's (systemd would not start it), or one of ours. The text says whose."""


class Budget:
    """What is left for one unit, by limits of our own. A real kubelet's needs a hundredth."""

    __slots__ = ("_characters", "_things")

    def __init__(self, spent: tuple[int, int] = (0, 0)) -> None:
        self._characters = MOST_CHARACTERS - spent[0]
        self._things = MOST_THINGS - spent[1]

    @property
    def spent(self) -> tuple[int, int]:
        """Characters and things so far."""
        return MOST_CHARACTERS - self._characters, MOST_THINGS - self._things

    def raise_to(self, spent: tuple[int, int]) -> None:
        """Count what was counted once already, where the same was made; never less than now."""
        self._characters = min(self._characters, MOST_CHARACTERS - spent[0])
        self._things = min(self._things, MOST_THINGS - spent[1])

    def read(self, characters: int, where: str) -> None:
        """Count characters of a file, or made by specifiers. Raises TooLarge."""
        self._characters -= characters
        if self._characters < 0:
            raise TooLarge(f"{where}: the unit's files have more than {MOST_CHARACTERS:,} characters, our limit")

    def make(self, things: int, where: str) -> None:
        """Count settings, words, variables, arguments or parts of them. Raises TooLarge."""
        self._things -= things
        if self._things < 0:
            raise TooLarge(f"{where}: more than {MOST_THINGS:,} settings, words, variables and arguments, our limit")


class Execve:
    """The kernel's limits for the arguments and the environment that a program is started with."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MOST_BYTES

    def add(self, length: int, where: str) -> None:
        """Count strings of `length` bytes without their NUL. Raises TooLarge."""
        if length + 1 > LONGEST_STRING:
            raise TooLarge(f"{where} is longer than {LONGEST_STRING - 1:,} bytes, the kernel's limit for one string")
        self._left -= length + 1 + _POINTER
        if self._left < 0:
            raise TooLarge(
                f"{where}: arguments and environment are more than {MOST_BYTES:,} bytes, the kernel's limit for them"
            )

    def add_all(self, texts: Sequence[str], where: str) -> None:
        """Count each of these. Raises TooLarge."""
        together = "".join(texts)
        most = len(together) + (1 + _POINTER) * len(texts)
        if together.isascii() and most <= self._left and len(together) < LONGEST_STRING:
            self._left -= most
            return
        for text in texts:
            self.add(size(text), where)

    def add_variable(self, name: str, value: str) -> None:
        """Count `NAME=value`. Raises TooLarge."""
        self.add(size(name) + 1 + size(value), f"the environment variable {name}")
