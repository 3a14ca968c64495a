"""What a control asks of a value: a small set of kinds, as data (pure).

A rule is a mapping whose first key names its kind: `{equals: false}`, `{at_least: 5, or_zero: true}`. Each kind says
whether a value complies, in words what must be (the end of the sentence "must …"), and what a fix would write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from shared.models import Metadata

Scalar = bool | int | str

_FILE_MODE = 0o7777

SET_ID = 0o6000
"""The bits of a mode by which a program runs as its file's owner or group."""


class Rule(BaseModel):
    """Base of the kinds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @property
    def kind(self) -> str:
        """Its name in a catalogue."""
        return next(name for name, kind in _KINDS.items() if type(self) is kind)

    @property
    def values(self) -> tuple[Scalar, ...]:
        """The values that it compares with."""
        return ()


class Equals(Rule):
    """One value complies (`true` is not `1`)."""

    equals: Scalar

    @property
    def values(self) -> tuple[Scalar, ...]:
        return (self.equals,)

    def complies(self, value: object) -> bool:
        """Whether this effective value is right."""
        return type(value) is type(self.equals) and value == self.equals

    @property
    def must(self) -> str:
        return f"be {show(self.equals)}"

    @property
    def right(self) -> Scalar | None:
        return self.equals


class OneOf(Rule):
    """Several values comply; a fix writes the first."""

    one_of: tuple[Scalar, ...] = Field(min_length=1, strict=False)

    @property
    def values(self) -> tuple[Scalar, ...]:
        return self.one_of

    def complies(self, value: object) -> bool:
        """Whether this effective value is right."""
        return any(type(value) is type(each) and value == each for each in self.one_of)

    @property
    def must(self) -> str:
        return f"be {' or '.join(map(show, self.one_of))}"

    @property
    def right(self) -> Scalar | None:
        return self.one_of[0]


class NoneOf(Rule):
    """All but some values comply."""

    none_of: tuple[Scalar, ...] = Field(min_length=1, strict=False)

    @property
    def values(self) -> tuple[Scalar, ...]:
        return self.none_of

    def complies(self, value: object) -> bool:
        """Whether this effective value is right."""
        return value is not None and not any(type(value) is type(each) and value == each for each in self.none_of)

    @property
    def must(self) -> str:
        return f"not be {' or '.join(map(show, self.none_of))}"

    @property
    def right(self) -> Scalar | None:
        return None


class NonZeroDuration(Rule):
    """A duration, as Go prints it, that is not zero."""

    non_zero_duration: Literal[True]

    def complies(self, value: object) -> bool:
        """Whether this effective value is right."""
        return isinstance(value, str) and any(digit in value for digit in "123456789")

    @property
    def must(self) -> str:
        return "not be 0"

    @property
    def right(self) -> Scalar | None:
        return None


class AtLeast(Rule):
    """A number from `at_least` on; with `or_zero` 0 complies as well."""

    at_least: int
    or_zero: bool = False

    @property
    def values(self) -> tuple[Scalar, ...]:
        return (self.at_least,)

    def complies(self, value: object) -> bool:
        """Whether this effective value is right."""
        return type(value) is int and (value >= self.at_least or (self.or_zero and value == 0))

    @property
    def must(self) -> str:
        return f"be {'0, or ' if self.or_zero else ''}{self.at_least} or more"

    @property
    def right(self) -> Scalar | None:
        return self.at_least


class Present(Rule):
    """A file is named, and is there."""

    present: Literal["file"]

    def complies(self, value: object) -> bool:
        """Whether a file is named. Whether it is there is for whoever sees the node (running.py)."""
        return isinstance(value, str) and value != ""

    @property
    def must(self) -> str:
        return "name a file that is there"

    @property
    def right(self) -> Scalar | None:
        return None


class ModeAtMost(Rule):
    """A file's mode has no other bits than this one (octal digits): "644 or more restrictive"."""

    mode_at_most: str = Field(pattern=r"^[0-7]{3,4}$")

    @property
    def allowed(self) -> int:
        """The bits that may be set."""
        return int(self.mode_at_most, 8)

    def holds(self, file: Metadata) -> bool:
        """Whether the file's mode is right."""
        return not file.mode & _FILE_MODE & ~self.allowed

    def seen(self, file: Metadata) -> str:
        """What is judged of the file."""
        return f"{file.mode & _FILE_MODE:03o}"

    def mended(self, file: Metadata) -> Metadata:
        """The file as it would be right: what is too much goes, nothing is added."""
        return replace(file, mode=file.mode & self.allowed)

    @property
    def must(self) -> str:
        return f"be {self.mode_at_most} or stricter"


class Owner(Rule):
    """A file belongs to this user and group: `root:root`, or their numbers."""

    owner: str = Field(pattern=r"^(root|[0-9]{1,10}):(root|[0-9]{1,10})$")

    @property
    def ids(self) -> tuple[int, int]:
        """User and group as numbers."""
        user, _, group = self.owner.replace("root", "0").partition(":")
        return int(user), int(group)

    def holds(self, file: Metadata) -> bool:
        """Whether the file's owner and group are right."""
        return (file.uid, file.gid) == self.ids

    def seen(self, file: Metadata) -> str:
        """What is judged of the file."""
        return ":".join("root" if number == 0 else str(number) for number in (file.uid, file.gid))

    def mended(self, file: Metadata) -> Metadata:
        """The file as it would be right. As with chown(2) no set-user-ID and set-group-ID bit stays: what its old owner
        wrote there would run as the new one."""
        uid, gid = self.ids
        return replace(file, uid=uid, gid=gid, mode=file.mode & ~SET_ID)

    @property
    def must(self) -> str:
        return f"be {self.owner}"


_KINDS: Mapping[str, type[Rule]] = {
    "equals": Equals,
    "one_of": OneOf,
    "none_of": NoneOf,
    "non_zero_duration": NonZeroDuration,
    "at_least": AtLeast,
    "present": Present,
    "mode_at_most": ModeAtMost,
    "owner": Owner,
}

KINDS = tuple(_KINDS)
"""The names of the kinds, as a catalogue writes them."""


def _kind(value: Any) -> str | None:
    """The kind of a rule that is read, or made already; None (which pydantic refuses) where it has none, or several."""
    names = type(value).model_fields if isinstance(value, Rule) else value if isinstance(value, Mapping) else ()
    found = [name for name in names if name in _KINDS]
    return found[0] if len(found) == 1 else None


SettingRule = Equals | OneOf | NoneOf | NonZeroDuration | AtLeast | Present
FileRule = ModeAtMost | Owner

AnyRule = Annotated[
    Annotated[Equals, Tag("equals")]
    | Annotated[OneOf, Tag("one_of")]
    | Annotated[NoneOf, Tag("none_of")]
    | Annotated[NonZeroDuration, Tag("non_zero_duration")]
    | Annotated[AtLeast, Tag("at_least")]
    | Annotated[Present, Tag("present")]
    | Annotated[ModeAtMost, Tag("mode_at_most")]
    | Annotated[Owner, Tag("owner")],
    Discriminator(
        _kind,
        custom_error_type="rule_kind",
        custom_error_message=f"must have one kind of rule: {', '.join(KINDS)}",
    ),
]


def show(value: object) -> str:
    """A value as a person writes it in a config file."""
    if value is None:
        return "not set"
    if value == "":
        return "empty"
    return str(value).lower() if isinstance(value, bool) else str(value)
