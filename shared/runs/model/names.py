"""Names that fit nothing, and what there is instead (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import islice

from shared.plain import plain

_SHOWN = 10
_LONGEST = 100
# Comparing takes some 50 µs a name; of more names than these the first ones are compared.
_COMPARED = 5_000


def unknown(wanted: Iterable[str], known: Iterable[str]) -> list[str]:
    """The wanted names that are not among the known ones; case does not count, as in Azure."""
    there = {name.lower() for name in known}
    return [name for name in wanted if name.lower() not in there]


def listed(names: Sequence[str]) -> str:
    """Names in a row, ten at most, and how many more there are."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(plain(name, _LONGEST) for name in names[:_SHOWN]) + more


def there_is(missing: Iterable[str], known: Iterable[str]) -> str:
    """`there is: …` with the known names, those that look like one of the first ten missing first, and ten at most."""
    names = sorted({*known} - {""})
    by_case = {name.lower(): name for name in names[:_COMPARED]}
    close = [
        by_case[found] for name in islice(missing, _SHOWN) for found in get_close_matches(name.lower(), by_case, n=3)
    ]
    ordered = list(dict.fromkeys([*close, *names]))
    return f"there is: {listed(ordered) or 'none'}"
