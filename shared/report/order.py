"""In which order findings and controls are shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from shared.models import Finding
from shared.plain import plain_fields


def sorted_by_place(findings: Iterable[Finding]) -> list[Finding]:
    """Findings in the order of subscription, cluster, pool, node and control, in plain characters."""
    return sorted(
        map(plain_fields, findings),
        key=lambda item: (
            *(item.subscription, item.cluster, item.node_pool, item.node),
            *(item.place, by_number(item.control), item.key),
        ),
    )


def by_number(control_id: str) -> tuple[tuple[int, str], ...]:
    """A key by which 3.2.9 comes before 3.2.10."""
    return tuple((int(part) if part.isdecimal() else -1, part) for part in re.split(r"([0-9]+)", control_id) if part)


def spans(names: Iterable[str], order: Sequence[str]) -> str:
    """Names in the order that they have in `order`; three and more in a row by the first and the last: `a to c, e`."""
    places = sorted(order.index(name) for name in names)
    rows: list[list[int]] = []
    for place in places:
        if rows and place == rows[-1][-1] + 1:
            rows[-1].append(place)
        else:
            rows.append([place])
    return ", ".join(
        f"{order[row[0]]} to {order[row[-1]]}" if len(row) > 2 else ", ".join(order[place] for place in row)
        for row in rows
    )
