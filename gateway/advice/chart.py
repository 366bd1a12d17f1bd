"""Dollars and grams against request rate as an SVG drawn by hand: each offer a line, an assumed GPU a band, today's traffic and the
rate from which a GPU pays marks.

All axes are logarithmic. Self-contained: no script, no font, no address.
"""

from collections.abc import Callable, Iterator, Sequence
from html import escape
from math import floor, log10

import msgspec

from gateway.advice.advised import Advice
from gateway.advice.wording import dollars, rate

WIDTH, PANEL, HEIGHT = 960, 500, 1030
LEFT, RIGHT, TOP, BOTTOM = 86, 170, 74, 64
COLOURS = ("#1b6ca8", "#2a9d8f", "#7a4ea3", "#4a4e57", "#6a994e", "#3d5a80")
GPU_COLOURS = ("#d1495b", "#e08e45", "#b5838d", "#8f2d56", "#bc6c25", "#a44a3f")
NG_PER_G = 10**9
LABEL_PX = 16
"""Between the labels at the right, so that none hides another."""


class Curve(msgspec.Struct, frozen=True):
    """Points (requests a second, pico-dollars per million), and the same at both ends of a range, empty where there is none.

    `grams`: (requests a second, nanograms per million), empty where nothing is known.
    """

    name: str
    is_gpu: bool
    points: tuple[tuple[float, int], ...]
    low: tuple[tuple[float, int], ...] = ()
    high: tuple[tuple[float, int], ...] = ()
    grams: tuple[tuple[float, int], ...] = ()


def draw(curves: Sequence[Curve], advice: Advice) -> str:
    """The document."""
    measured = advice.measured
    title = f"{measured.model}@{measured.version}: dollars and grams of CO2e per million requests, by request rate"
    under = f"list prices of {advice.region}; in bands the GPU's throughput is assumed; confidence of the verdict: {advice.tier}"
    carbon = [msgspec.structs.replace(curve, points=curve.grams, low=(), high=()) for curve in curves if curve.grams]
    body = [
        f'<text x="{LEFT}" y="30" class="title">{escape(title)}</text>',
        f'<text x="{LEFT}" y="52" class="small">{escape(under)}</text>',
        *_panel(curves, advice, 0, dollars),
        *(_panel(carbon, advice, HEIGHT - PANEL, grams) if carbon else ()),
        f'<text x="{LEFT}" y="{HEIGHT - PANEL + 52}" class="small">grams: modelled, the middle of their range</text>',
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">'
        f"<title>{escape(title)}</title><desc>{escape(advice.verdict)}</desc><style>{_STYLE}</style>"
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{"".join(body)}</svg>\n'
    )


def grams(nanograms: int) -> str:
    """`1,000 g`, `0.01 g`: of a power of ten."""
    value = nanograms / NG_PER_G
    return f"{value:,.0f} g" if value >= 1 else f"{value:.3g} g"


def _panel(curves: Sequence[Curve], advice: Advice, top: int, tick: Callable[[int], str]) -> Iterator[str]:
    plane = _Plane(curves)
    yield f'<g transform="translate(0 {top})">'
    yield from plane.grid(tick)
    yield from plane.curves(curves)
    yield from plane.mark(advice.traffic.mean_rps, f"today, {rate(advice.traffic.mean_rps)}", 14)
    pays = [option.break_even_rps for option in advice.options if option.break_even_rps]
    if pays:
        yield from plane.mark(min(pays), f"a GPU may pay from {rate(min(pays))}", 32)
    yield "</g>"


_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#333}.title{font-size:17px;font-weight:600;fill:#111}.small{font-size:12px;fill:#666}"
    ".grid{stroke:#e3e6ea}.line{fill:none;stroke-width:2.2;stroke-linejoin:round}.mark{stroke:#111;stroke-dasharray:5 4}"
)


class _Plane:
    """From rates and costs to pixels."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        points = [point for curve in curves for part in (curve.points, curve.low, curve.high) for point in part]
        rates, costs = zip(*points, strict=True) if points else ((1.0,), (1,))
        self._x = (log10(min(rates)), max(log10(max(rates)), log10(min(rates)) + 1))
        self._y = (floor(log10(min(costs))), max(floor(log10(max(costs))) + 1, floor(log10(min(costs))) + 1))

    def at(self, rps: float, picousd: float) -> tuple[float, float]:
        x = (log10(rps) - self._x[0]) / (self._x[1] - self._x[0])
        y = (log10(picousd) - self._y[0]) / (self._y[1] - self._y[0])
        return LEFT + x * (WIDTH - LEFT - RIGHT), PANEL - BOTTOM - y * (PANEL - TOP - BOTTOM)

    def grid(self, tick: Callable[[int], str]) -> Iterator[str]:
        bottom, right = PANEL - BOTTOM, WIDTH - RIGHT
        for power in range(self._y[0], self._y[1] + 1):
            _, y = self.at(10 ** self._x[0], 10**power)
            yield f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick(10**power)}</text>'
        for power in range(floor(self._x[0]), floor(self._x[1]) + 1):
            x, _ = self.at(10**power, 10 ** self._y[0])
            if LEFT - 1 <= x <= right + 1:
                yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>'
                yield f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{rate(10**power)}</text>'
        yield f'<text x="{(LEFT + right) / 2:.0f}" y="{bottom + 46}" text-anchor="middle" class="small">requests a second</text>'

    def curves(self, curves: Sequence[Curve]) -> Iterator[str]:
        labels: list[tuple[float, str, str]] = []
        drawn = {True: 0, False: 0}
        for curve in curves:
            colour = (GPU_COLOURS if curve.is_gpu else COLOURS)[drawn[curve.is_gpu] % len(COLOURS)]
            drawn[curve.is_gpu] += 1
            if curve.low:
                yield f'<polygon points="{self._path((*curve.low, *reversed(curve.high)))}" fill="{colour}" opacity="0.1"/>'
            yield f'<polyline class="line" stroke="{colour}" points="{self._path(curve.points)}"/>'
            labels.append((self.at(*curve.points[-1])[1], curve.name, colour))
        above = float(PANEL - BOTTOM + LABEL_PX)
        for y, name, colour in sorted(labels, reverse=True):
            above = min(y, above - LABEL_PX)
            yield f'<text x="{WIDTH - RIGHT + 10}" y="{above + 4:.1f}" style="fill:{colour}">{escape(name)}</text>'

    def mark(self, rps: float, words: str, below: int) -> Iterator[str]:
        x, _ = self.at(min(max(rps, 10 ** self._x[0]), 10 ** self._x[1]), 10 ** self._y[0])
        anchor = "end" if x > WIDTH / 2 else "start"
        yield f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{PANEL - BOTTOM}"/>'
        yield f'<text x="{x + (-7 if anchor == "end" else 7):.1f}" y="{TOP + below}" text-anchor="{anchor}">{escape(words)}</text>'

    def _path(self, points: Sequence[tuple[float, int]]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(*point) for point in points))
