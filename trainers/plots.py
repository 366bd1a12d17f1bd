"""The plots of a model card, as PNG bytes that depend on nothing but the figures: learning, calibration, confusion, residuals.

Called by `trainers.run`. matplotlib is imported when the first one is drawn.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trainers.arrays import Array
from trainers.fit.loop import Epoch
from trainers.objectives import Objective, flat

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 10
WIDTH_IN, HEIGHT_IN, DPI = 6.0, 4.0, 120
NAMED_CLASSES_MAX = 30
RESIDUAL_ROWS_MAX = 5000
ACCENT, MUTED = "#1f5fa8", "#9aa5b1"


def plots(
    objective: Objective, history: Sequence[Epoch], targets: Array, answers: Array, labels: Sequence[str]
) -> dict[str, tuple[str, bytes]]:
    """By file name: title and PNG. `answers` [rows, ...] are those of the served variant to the judged rows."""
    answers = flat(answers)
    drawn: dict[str, tuple[str, Callable[[Axes], None]]] = {
        "plot-learning.png": ("Learning curves", lambda axes: _learning(axes, objective, history))
    }
    if objective.head != "identity":
        drawn["plot-calibration.png"] = ("Calibration", lambda axes: _calibration(axes, targets, answers))
    if objective.head == "softmax":
        drawn["plot-confusion.png"] = ("Confusion", lambda axes: _confusion(axes, targets, answers, labels))
    if objective.task == "regress":
        drawn["plot-residuals.png"] = ("Residuals", lambda axes: _residuals(axes, targets, answers))
    return {name: (title, _png(title, draw)) for name, (title, draw) in drawn.items()}


def reliability(targets: Array, answers: Array) -> list[tuple[float, float, int]]:
    """Per tenth of the predicted probability: its mean, how often it was right, and of how many rows. Empty tenths are left out.

    Of several classes it is the probability of the one that was named.
    """
    if answers.ndim == 2:
        predicted, right = answers.max(axis=1), answers.argmax(axis=1) == targets
    else:
        predicted, right = answers, targets != 0
    bins = np.minimum((predicted * BINS).astype(int), BINS - 1)
    found = [(predicted[bins == i], right[bins == i]) for i in range(BINS) if (bins == i).any()]
    return [(float(p.mean()), float(r.mean()), len(p)) for p, r in found]


def _learning(axes: "Axes", objective: Objective, history: Sequence[Epoch]) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = range(1, len(history) + 1)
    axes.plot(epochs, [epoch.train_loss for epoch in history], "o-", color=MUTED, label="training loss")
    axes.set(xlabel="epoch", ylabel="training loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    watched = objective.watched.name
    other = axes.twinx()
    other.plot(epochs, [epoch.validation[watched] for epoch in history], "s-", color=ACCENT)
    other.set_ylabel(f"validation {watched}", color=ACCENT)


def _calibration(axes: "Axes", targets: Array, answers: Array) -> None:
    bins = reliability(targets, answers)
    axes.plot([0, 1], [0, 1], "--", color=MUTED)
    axes.plot([p for p, _, _ in bins], [r for _, r, _ in bins], "o-", color=ACCENT)
    for predicted, right, rows in bins:
        axes.annotate(f"{rows:,}", (predicted, right), xytext=(4, -10), textcoords="offset points", fontsize=7)
    axes.set(
        xlabel="predicted probability (rows beside the points)", ylabel="observed frequency", xlim=(0, 1), ylim=(0, 1)
    )


def _confusion(axes: "Axes", targets: Array, answers: Array, labels: Sequence[str]) -> None:
    classes = answers.shape[1]
    counts = np.zeros((classes, classes))
    np.add.at(counts, (targets.astype(int), answers.argmax(axis=1)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = list(labels) if len(labels) == classes else [str(i) for i in range(classes)]
    if classes <= NAMED_CLASSES_MAX:
        size = 7 if classes > BINS else 8
        # A label is no formula, whatever dollars it has.
        axes.set_xticks(range(classes), names, rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(range(classes), names, fontsize=size, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true")


def _residuals(axes: "Axes", targets: Array, answers: Array) -> None:
    rows = np.linspace(0, len(targets) - 1, min(len(targets), RESIDUAL_ROWS_MAX)).astype(int)
    axes.axhline(0, linestyle="--", color=MUTED)
    axes.plot(answers[rows], (targets - answers)[rows], ".", color=ACCENT, markersize=3, alpha=0.5)
    axes.set(xlabel="predicted", ylabel="true minus predicted")


def _png(title: str, draw: Callable[["Axes"], None]) -> bytes:
    """Without the metadata that would tell two equal plots apart."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes)
    axes.set_title(title, loc="left")
    out = io.BytesIO()
    metadata: Mapping[str, Any] = {"Software": None}
    figure.savefig(out, format="png", metadata=dict(metadata))
    return out.getvalue()
