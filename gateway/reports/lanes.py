"""Lanes over request rates as inline SVG: one per model, coloured by which hardware is cheaper there, with today's traffic on it.

The axis is logarithmic. Colours are classes that the page's style sets; `gateway.reports.page` calls this.
"""

import itertools
import math
from collections.abc import Sequence

import msgspec

from gateway.reports import charts

PITCH, BAR, TOP = 46, 13, 4
LEFT, RIGHT = 6, 12
LANES_MAX = 12  # as bars
MARGIN = 10 ** (1 / 3)
"""Beyond the outermost figure on either side."""


class Lane(msgspec.Struct, frozen=True):
    """CPU below `perhaps`, GPU from `surely` on, between them it depends; None: never. `mean` to `peak` is the traffic."""

    name: str
    words: str
    mean: float
    peak: float
    perhaps: float | None
    surely: float | None
    titles: tuple[str, str, str]


def draw(lanes: Sequence[Lane], label: str, *, title: str) -> str:
    """The first `LANES_MAX` of them, each below its name. Rates must be above 0."""
    shown = lanes[:LANES_MAX]
    rates = [rate for lane in shown for rate in (lane.mean, lane.peak, lane.perhaps, lane.surely) if rate]
    low, high = min(rates) / MARGIN, max(rates) * MARGIN
    scale = (charts.WIDTH - LEFT - RIGHT) / math.log10(high / low)
    floor = TOP + PITCH * len(shown)

    def x(rate: float) -> float:
        return LEFT + math.log10(min(max(rate, low), high) / low) * scale

    drawn = [_tick(x(tick), floor, tick) for tick in _decades(low, high)]
    drawn.append(charts.text(charts.WIDTH / 2, floor + 29, label, "middle"))
    for index, lane in enumerate(shown):
        at = TOP + PITCH * index
        drawn.append(charts.text(LEFT, at + 11, charts.cut(lane.name), "start", "name"))
        drawn.append(charts.text(charts.WIDTH - RIGHT, at + 11, lane.words, "end"))
        ends = (x(low), x(lane.perhaps or high), x(lane.surely or high), x(high))
        for kind, title_, (begin, end) in zip(
            ("cpu", "perhaps", "gpu"), lane.titles, itertools.pairwise(ends), strict=True
        ):
            if end > begin:
                drawn.append(
                    f'<rect class="k-{kind}" x="{begin:.2f}" y="{at + 17}" width="{end - begin:.2f}" height="{BAR}">'
                    f"{charts.hover(title_)}</rect>"
                )
        middle = at + 17 + BAR / 2
        drawn.append(
            f'<line class="reach" x1="{x(lane.mean):.1f}" x2="{x(lane.peak):.1f}" y1="{middle}" y2="{middle}"/>'
        )
        drawn.append(
            f'<circle class="now" cx="{x(lane.mean):.1f}" cy="{middle}" r="5">{charts.hover(lane.words)}</circle>'
        )
    return charts.svg(title, floor + 36, drawn)


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten; where fewer than two of them are on the axis, twice, three and five times as much too."""
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    if last - first < 1:
        steps = [factor * 10.0**power for power in range(first - 1, last + 1) for factor in (1, 2, 3, 5)]
        return [step for step in steps if low <= step <= high]
    step = max(1, (last - first) // 5 + 1 if last - first >= 6 else 1)
    return [10.0**power for power in range(first, last + 1, step)]


def _tick(x: float, floor: float, rate: float) -> str:
    return f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{floor}"/>' + charts.text(
        x, floor + 14, charts.short(rate), "middle"
    )
