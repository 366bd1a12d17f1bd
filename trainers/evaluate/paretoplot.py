"""The trade-offs of a manifest as a picture for its card: cost of a row against size, every variant with its name.

Same manifest, same bytes: no date, no version, no font of the machine. Draws, decides nothing. Called by `trainers.run`.
"""

import io

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gateway.contract.manifest import Gate, Manifest, Tradeoff, Variant

WIDTH_IN, HEIGHT_IN, DPI = 7.0, 4.2, 120
SPACE = 1.35
"""The axes end so much beyond the largest file and the dearest row: a name and the legend fit in."""

NAME_HEIGHT, NAME_WIDTH = 0.05, 0.35
"""Of the axes: names closer than this would lie on each other."""

UNDER_NAMES = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}

FRONT, BEATEN, REFUSED = "#0b7285", "#868e96", "#c92a2a"


def draw(manifest: Manifest) -> bytes | None:
    """A PNG; None when the manifest records no trade-offs. What is lower and further left is better."""
    lines = [(variant, variant.tradeoff) for variant in manifest.variants if isinstance(variant.tradeoff, Tradeoff)]
    if not lines:
        return None
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "steelyard"}):
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)  # whatever a user's matplotlibrc says
        axes = figure.add_subplot()
        places = [_place(manifest, *line) for line in lines]
        right, top = (SPACE * max(place[axis] for place in places) for axis in (0, 1))
        for (variant, line), name_y in zip(lines, names_y(places, right, top), strict=True):
            _point(axes, manifest, variant, line, name_y)
        _staircase(axes, manifest, lines)
        axes.set_xlabel("file, MB")
        axes.set_ylabel("CPU per row, microseconds")
        axes.set_title(f"{manifest.model}: serves {manifest.serve}", loc="left")
        axes.set_xlim(0, right)
        axes.set_ylim(0, top)
        _legend(axes)
        axes.grid(visible=True, alpha=0.25)
        image = io.BytesIO()
        figure.savefig(image, format="png", metadata={"Software": None})
    return image.getvalue()


def _point(axes: "mpl.axes.Axes", manifest: Manifest, variant: Variant, line: Tradeoff, name_y: float) -> None:
    """With the bounds of its cost as a bar; fp32's own are zero."""
    x, y = _place(manifest, variant, line)
    unit = y / line.ratio.median
    bounds = [[max(0.0, y - line.ratio.low * unit)], [max(0.0, line.ratio.high * unit - y)]]
    color = _color(manifest.gates, variant, line)
    served = variant.id == manifest.serve
    axes.errorbar(x, y, yerr=bounds, fmt="*" if served else "o", ms=13 if served else 6, color=color, capsize=3)
    axes.annotate(variant.id, (x, name_y), textcoords="offset points", xytext=(8, -3), color=color, bbox=UNDER_NAMES)


def names_y(places: list[tuple[float, float]], right: float, top: float) -> list[float]:
    """How high the name of each point stands: beside it, or above the name that is there already."""
    placed: dict[int, tuple[float, float]] = {}
    for index in sorted(range(len(places)), key=lambda index: places[index][1]):
        x, y = places[index]
        for other_x, other_y in sorted(placed.values(), key=lambda place: place[1]):
            if abs(x - other_x) < NAME_WIDTH * right and abs(y - other_y) < NAME_HEIGHT * top:
                y = other_y + NAME_HEIGHT * top
        placed[index] = (x, y)
    return [placed[index][1] for index in range(len(places))]


def _legend(axes: "mpl.axes.Axes") -> None:
    meanings = {"no other one beats it": FRONT, "another one beats it": BEATEN, "failed a gate": REFUSED}
    dots = [Line2D([], [], ls="", marker="o", ms=6, color=color) for color in meanings.values()]
    star = Line2D([], [], ls="", marker="*", ms=11, color="black")
    axes.legend([star, *dots], ["served", *meanings], loc="upper center", ncols=4, fontsize=8, frameon=False)


def _staircase(axes: "mpl.axes.Axes", manifest: Manifest, lines: list[tuple[Variant, Tradeoff]]) -> None:
    """Through what nobody beats, load aside: that has no axis here."""
    places = sorted(_place(manifest, variant, line) for variant, line in lines if line.is_pareto)
    steps: list[tuple[float, float]] = []
    for place in places:
        if not steps or place[1] < steps[-1][1]:
            steps.append(place)
    axes.step([x for x, _ in steps], [y for _, y in steps], where="post", color=FRONT, alpha=0.4)


def _place(manifest: Manifest, variant: Variant, line: Tradeoff) -> tuple[float, float]:
    return manifest.file(variant.file).size / 1e6, line.row_cpu_ns / 1e3


def _color(gates: tuple[Gate, ...], variant: Variant, line: Tradeoff) -> str:
    if any(gate.variant == variant.id and not gate.passed for gate in gates):
        return REFUSED
    return FRONT if line.is_pareto else BEATEN
