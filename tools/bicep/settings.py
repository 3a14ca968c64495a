"""The parameter `settings` of infra/main.bicep, made of the table of settings in the code (shared/settings.py)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from shared.settings import TABLE, Setting, default_of
from tools.bicep.combinations import INFRA, literal

OTHERWISE: Final[Mapping[str, str]] = {
    "GUARD_ALLOW_FIX": "allowFix",
    "GUARD_ARM_ENDPOINT": "",
    "GUARD_MODE": "mode",
    "GUARD_SCHEDULE": "schedule",
    "GUARD_SUBSCRIPTIONS": "subscriptions",
}
"""Settings that are deployed by a parameter of their own; an empty one is the cloud's."""

_FILE: Final = INFRA / "main.bicep"
_DECLARATION: Final = re.compile(r"(?<=\n)param settings \{\n.*?\n\} = \{\}\n", re.DOTALL)
# A link in the table is one of docs/, beside which a template does not stand.
_LINK: Final = re.compile(r"\(\[[^\]]+\]\(([^)]+)\)\)")


def described(field: str) -> str:
    """What a deployer is told of a setting: what it does, what it takes, and what holds where it is not given."""
    row = TABLE[field]
    meaning = _LINK.sub(r"(docs/\1)", row.meaning)
    default = {"–": "nothing"}.get(row.default, default_of(field))
    kept = "; a secret" if row.secret else ""
    return f"{meaning[0].upper()}{meaning[1:]}. It takes {row.limits}{kept}. Not given: {default}."


def declared() -> str:
    """The declaration of the parameter as Bicep text, in the compiler's own format."""
    lines = [
        line
        for field, row in sorted(TABLE.items(), key=lambda item: item[1].name)
        if row.name not in OTHERWISE
        for line in (f"  @description({literal(described(field))})", f"  {row.name}: {_type(row)}", "")
    ]
    return "\n".join(["param settings {", *lines[:-1], "} = {}", ""])


def write() -> bool:
    """Put the declaration into infra/main.bicep: whether that changed it. Raises ValueError where there is none."""
    text = _FILE.read_text()
    if len(_DECLARATION.findall(text)) != 1:
        raise ValueError(f"{_FILE} has not one declaration `param settings {{ … }} = {{}}`")
    new = _DECLARATION.sub(lambda _: declared(), text)
    _FILE.write_text(new)
    return new != text


def _type(row: Setting) -> str:
    return f"({' | '.join(map(literal, row.words))})?" if row.words else "string?"
