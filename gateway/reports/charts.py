"""Plots as inline SVG: stacked columns over time, bars by name, points. Colours are classes that the page's style sets.

All are drawn 400 units wide, so that their text stays readable from a phone's width to half a desktop's. Numbers are floats here:
a plot is for the eye, the exact ones stand in the table. `gateway.reports.page` calls this.
"""

import math
from collections.abc import Callable, Sequence
from html import escape

import msgspec

WIDTH, HEIGHT = 400, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 24, 34
BARS_MAX = 12  # more do not fit a phone's screen; the table has all
NAME_CHARACTERS = 24
NAME_PX = 11  # its line's height
COLUMN_WIDTH_MAX = 40
SMALLEST = 1e-9  # of an axis: less is drawn as next to nothing
LABELS_MAX = 5  # of moments below columns, side by side on a phone


class Part(msgspec.Struct, frozen=True):
    """A coloured piece of a column or bar: `kind` is a word of ours that names its colour."""

    kind: str
    value: float
    title: str


class Column(msgspec.Struct, frozen=True):
    """A stack with its name below or before it."""

    name: str
    parts: tuple[Part, ...]

    @property
    def total(self) -> float:
        """The stack's height."""
        return sum(part.value for part in self.parts)


class Point(msgspec.Struct, frozen=True):
    """`name` is written beside it when not empty."""

    x: float
    y: float
    title: str
    name: str = ""


class Axis(msgspec.Struct, frozen=True):
    """`label` says what is measured and its unit. The axis begins at 0 and ends at `until`, or at a round number above the data."""

    label: str
    until: float | None = None


def columns(stacks: Sequence[Column], axis: Axis, *, title: str) -> str:
    """One stack per moment, from left to right."""
    top, ticks = _ticks(max((stack.total for stack in stacks), default=0), axis.until)
    y = _scaled(0, top, HEIGHT - BOTTOM, TOP)
    step = (WIDTH - LEFT - RIGHT) / max(1, len(stacks))
    width = min(COLUMN_WIDTH_MAX, step * (0.8 if len(stacks) < 60 else 1))
    every = max(1, math.ceil(len(stacks) / LABELS_MAX))
    drawn = [_grid_y(ticks, y), _label_y(axis.label)]
    for index, stack in enumerate(stacks):
        middle = LEFT + step * (index + 0.5)
        below = 0.0
        for part in stack.parts:
            foot, head = y(below), y(below + part.value)
            drawn.append(_rect(middle - width / 2, head, width, foot - head, part))
            below += part.value
        if index % every == 0:
            drawn.append(text(middle, HEIGHT - BOTTOM + 14, stack.name, "middle"))
    return svg(title, HEIGHT, drawn)


def bars(rows: Sequence[Column], axis: Axis, *, title: str) -> str:
    """The first `BARS_MAX` rows as bars from left to right, each below its name."""
    shown = rows[:BARS_MAX]
    top, ticks = _ticks(max((row.total for row in shown), default=0), axis.until)
    x = _scaled(0, top, 4, WIDTH - 12)
    pitch, top_y = 30, 6
    floor = top_y + pitch * max(1, len(shown))
    drawn = [f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top_y}" y2="{floor}"/>' for tick in ticks]
    drawn += [text(x(tick), floor + 14, short(tick), "start" if tick == 0 else "middle") for tick in ticks]
    drawn.append(text(WIDTH / 2, floor + 29, axis.label, "middle"))
    for index, row in enumerate(shown):
        at = top_y + pitch * index
        drawn.append(text(4, at + 10, cut(row.name), "start", "name"))
        before = 0.0
        for part in row.parts:
            drawn.append(_rect(x(before), at + 14, x(before + part.value) - x(before), 10, part))
            before += part.value
    return svg(title, floor + 36, drawn)


def points(found: Sequence[Point], horizontal: Axis, vertical: Axis, *, title: str) -> str:
    """One dot each; a name stands on the side with more room."""
    right, x_ticks = _ticks(max((point.x for point in found), default=0), horizontal.until)
    top, y_ticks = _ticks(max((point.y for point in found), default=0), vertical.until)
    x, y = _scaled(0, right, LEFT, WIDTH - RIGHT - 6), _scaled(0, top, HEIGHT - BOTTOM, TOP)
    drawn = [_grid_y(y_ticks, y), _label_y(vertical.label)]
    drawn += [text(x(tick), HEIGHT - BOTTOM + 14, short(tick), "middle") for tick in x_ticks]
    drawn.append(text((LEFT + WIDTH) / 2, HEIGHT - 4, horizontal.label, "middle"))
    names: list[tuple[float, float]] = []
    for point in sorted(found, key=lambda point: point.y):
        at_x, at_y = x(point.x), y(point.y)
        drawn.append(f'<circle class="dot" cx="{at_x:.1f}" cy="{at_y:.1f}" r="4.5">{hover(point.title)}</circle>')
        if point.name:
            side = ("start", 8) if at_x < WIDTH * 0.6 else ("end", -8)
            name_y = _free(names, at_x, at_y + 4)
            drawn.append(text(at_x + side[1], name_y, cut(point.name), side[0], "name"))
    return svg(title, HEIGHT, drawn)


def _free(names: list[tuple[float, float]], x: float, y: float) -> float:
    """Where a name stands on no other: as near as there is room, above rather than below. In a full plot they may."""
    near = [other_y for other_x, other_y in names if abs(x - other_x) < WIDTH / 3]
    above = [y - step for step in range(int(max(0, y - TOP - NAME_PX)) + 1)]
    below = [y + step for step in range(int(max(0, HEIGHT - BOTTOM - y)) + 1)]
    places = [place for place in (*above, *below) if all(abs(place - other) >= NAME_PX for other in near)]
    found = min(places, key=lambda place: abs(place - y), default=y)
    names.append((x, found))
    return found


def _ticks(largest: float, until: float | None) -> tuple[float, list[float]]:
    """The axis's end and three to six round steps up to it."""
    end = until or (max(largest, SMALLEST) if largest else 1.0)
    power = 10.0 ** math.floor(math.log10(end / 4))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if end / (power * factor) <= 5)
    count = math.ceil(end / step - 1e-9)
    return (until or count * step), [index * step for index in range(count + 1)]


def _scaled(low: float, high: float, first: float, last: float) -> Callable[[float], float]:
    return lambda value: first + (value - low) / (high - low) * (last - first)


def _grid_y(ticks: Sequence[float], y: Callable[[float], float]) -> str:
    lines = (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        + text(LEFT - 5, y(tick) + 3.5, short(tick), "end")
        for tick in ticks
    )
    return "".join(lines)


def _label_y(words: str) -> str:
    return text(2, 8, words, "start")


def _rect(x: float, y: float, width: float, height: float, part: Part) -> str:
    if height <= 0 or width <= 0:
        return ""
    return (
        f'<rect class="k-{escape(part.kind)}" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}">'
        f"{hover(part.title)}</rect>"
    )


def hover(title: str) -> str:
    """What a browser shows when the pointer rests on the element around it."""
    return f"<title>{escape(title)}</title>"


def text(x: float, y: float, words: str, anchor: str, kind: str = "tick") -> str:
    """Words at a point."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def cut(name: str) -> str:
    """The end stays: it is the version."""
    return name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 6]}…{name[-5:]}"


def short(value: float) -> str:
    """A tick: at most four digits, thousands as k and M."""
    for limit, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.4g}{suffix}"
    return f"{value:.4g}"


def svg(title: str, height: float, drawn: Sequence[str]) -> str:
    """The whole plot."""
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">{"".join(drawn)}</svg>'
