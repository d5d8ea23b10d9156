"""Curves on a logarithmic scale: SVG, in light and dark colours, without any other package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from math import ceil, floor, log10

_LEFT, _TOP, _WIDE, _HIGH = 64, 52, 480, 260
_RIGHT, _BELOW = 176, 56
_LIGHT = ("#3f51b5", "#c2410c", "#00796b", "#8e24aa", "#6d4c41", "#455a64")
_DARK = ("#9fa8da", "#ffab91", "#80cbc4", "#ce93d8", "#bcaaa4", "#b0bec5")
_DASHES = ("none", "7 3", "2 3", "9 3 2 3", "4 4", "12 4")
_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

At = Callable[[float, float], tuple[float, float]]


def curves(series: Mapping[str, Sequence[float]], title: str, x: str, y: str) -> str:
    """Draws up to six curves by their names; the n-th value of each is at n. What is below a
    billionth of the largest is cut off. Raises ValueError."""
    if not 1 <= len(series) <= len(_LIGHT) or min(map(len, series.values())) < 2:
        raise ValueError(f"There are {len(series)} curves: give 1 to 6, of two values or more.")
    top = max(max(values) for values in series.values())
    if top <= 0:
        raise ValueError("No value is above 0, and only such are on a logarithmic scale.")
    lowest = max(
        top * 1e-9, min(value for values in series.values() for value in values if value > 0)
    )
    high = ceil(log10(top))
    low = min(high - 1, floor(log10(lowest)))
    last = max(map(len, series.values())) - 1
    width, height = _LEFT + _WIDE + _RIGHT, _TOP + _HIGH + _BELOW

    def at(number: float, value: float) -> tuple[float, float]:
        part = (high - log10(max(value, 10.0**low))) / (high - low)
        return _LEFT + _WIDE * number / last, _TOP + _HIGH * part

    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" style="max-width:100%">',
            f"<style>{_style()}</style>",
            f'<rect class="page" width="{width}" height="{height}" rx="8"/>',
            f'<text class="title" x="{_LEFT}" y="30">{escape(title)}</text>',
            *_axes(at, last, low, high),
            f'<text x="{_LEFT + _WIDE / 2}" y="{height - 14}" text-anchor="middle">'
            f"{escape(x)}</text>",
            f'<text transform="translate(16 {_TOP + _HIGH / 2}) rotate(-90)" '
            f'text-anchor="middle">{escape(y)}</text>',
            *_drawn(at, series, 10.0**low),
            "</svg>\n",
        ]
    )


def _axes(at: At, last: int, low: int, high: int) -> Iterator[str]:
    for power in range(low, high + 1, 1 + (high - low) // 8):
        _, y = at(0, 10.0**power)
        yield f'<path class="grid" d="M{_LEFT} {y:.1f}h{_WIDE}"/>'
        yield (
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">10'
            f'<tspan dy="-5" font-size="9">{power}</tspan></text>'
        )
    step = next((step for step in _STEPS if last / step <= 8), last)
    for number in range(0, last + 1, step):
        x, _ = at(number, 1)
        yield f'<path class="grid" d="M{x:.1f} {_TOP}v{_HIGH}"/>'
        yield (f'<text x="{x:.1f}" y="{_TOP + _HIGH + 18}" text-anchor="middle">{number}</text>')


def _drawn(at: At, series: Mapping[str, Sequence[float]], least: float) -> Iterator[str]:
    """Each up to where it is too small to be shown, with a key beside them all."""
    for number, (name, values) in enumerate(series.items()):
        until = next((n for n, value in enumerate(values) if value < least), len(values) - 1)
        points = " ".join(
            "{:.1f},{:.1f}".format(*at(n, value)) for n, value in enumerate(values[: until + 1])
        )
        line = f'class="curve c{number}" stroke-dasharray="{_DASHES[number]}"'
        x, y = _LEFT + _WIDE + 14, _TOP + 10 + 24 * number
        yield f'<polyline {line} points="{points}"/>'
        yield f'<path {line} d="M{x} {y}h28"/>'
        yield f'<text x="{x + 36}" y="{y + 4}">{escape(name)}</text>'


def _style() -> str:
    light, dark = (
        "".join(f".c{number} {{ stroke: {colour}; }}\n" for number, colour in enumerate(colours))
        for colours in (_LIGHT, _DARK)
    )
    return (
        "\ntext { font-family: system-ui, sans-serif; font-size: 13px; fill: #37474f; }\n"
        ".title { font-weight: 600; fill: #1a237e; }\n.page { fill: #ffffff; }\n"
        ".grid { stroke: #e3e6ef; }\n.curve { fill: none; stroke-width: 2; }\n"
        f"{light}@media (prefers-color-scheme: dark) {{\ntext {{ fill: #cfd8dc; }}\n"
        ".title { fill: #c5cae9; }\n.page { fill: #14161b; }\n.grid { stroke: #2a2e39; }\n"
        f"{dark}}}\n"
    )
