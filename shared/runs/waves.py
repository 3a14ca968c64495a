"""How many nodes of a pool are fixed at once (pure)."""

from __future__ import annotations


def waves(nodes: int, max_unavailable: str, *, canary: bool) -> list[int]:
    """The sizes of the waves that fix `nodes` nodes of one pool, in order.

    `max_unavailable` is a number, or a share of the nodes such as `10%`, of which the whole part counts, at least one.
    """
    if nodes == 0:
        return []
    text = max_unavailable.removesuffix("%")
    most = int(text) if text == max_unavailable else max(1, nodes * int(text) // 100)
    first = [1] if canary else []
    left = nodes - len(first)
    return first + [min(most, left - at) for at in range(0, left, most)]
