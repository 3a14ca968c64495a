"""A line chart as SVG, by hand: one picture is no reason for a plotting library (pure)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT = 820, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 40, 50
_COLOURS = ("#0b6bcb", "#c0392b", "#7f8c8d", "#2c3e50", "#8e44ad", "#16a085")

Line = tuple[str, Sequence[tuple[float, float]]]


def chart(title: str, across: str, lines: Sequence[Line]) -> str:
    """An SVG of the lines (name and points); both axes begin at 0. `across` names the horizontal one."""
    points = [point for _, line in lines for point in line] or [(1.0, 1.0)]
    widest, highest = max(x for x, _ in points) or 1.0, max(y for _, y in points) or 1.0

    def x(value: float) -> float:
        return _LEFT + value / widest * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / highest * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"',
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="22" font-size="15">{escape(title)}</text>',
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 12}" text-anchor="end">{escape(across)}</text>',
    ]
    for tick in _ticks(widest):
        parts.append(_rule(x(tick), _TOP, x(tick), _HEIGHT - _BOTTOM))
        parts.append(f'<text x="{x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    for tick in _ticks(highest):
        parts.append(_rule(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick)))
        parts.append(f'<text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:,.0f}</text>')
    for number, (name, line) in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x(across_):.1f},{y(up):.1f}" for across_, up in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        left, top = _WIDTH - _RIGHT - 220, _HEIGHT - _BOTTOM - 14 - 18 * (len(lines) - 1 - number)
        parts.append(f'<rect x="{left}" y="{top - 9}" width="14" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{left + 20}" y="{top - 3}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _ticks(most: float) -> list[float]:
    """Some round numbers from 0 to `most`."""
    rough = most / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [number * step for number in range(int(most / step) + 1)]
