"""The plots of a card: which ones belong to which objective, and that equal figures give equal bytes."""

import numpy as np
import pytest

from trainers.fit.loop import Epoch
from trainers.objectives import Objective, binary, multiclass, regression
from trainers.plots import plots, reliability

PNG = b"\x89PNG\r\n\x1a\n"
ROWS = 200
RNG = np.random.default_rng(0)
CLASSES = RNG.integers(0, 3, ROWS)


def history(objective: Objective) -> list[Epoch]:
    return [Epoch(1 / (n + 1), {metric.name: n / 10 for metric in objective.metrics}, 1000.0) for n in range(3)]


@pytest.mark.parametrize(
    ("objective", "targets", "answers", "expected"),
    [
        (binary(), CLASSES > 0, RNG.random(ROWS), {"learning", "calibration"}),
        (multiclass(3), CLASSES, RNG.dirichlet((1, 1, 1), ROWS), {"learning", "calibration", "confusion"}),
        (regression(), RNG.normal(size=ROWS), RNG.normal(size=ROWS), {"learning", "residuals"}),
    ],
)
def test_each_objective_has_its_plots_and_they_are_reproducible(objective, targets, answers, expected):
    drawn = [plots(objective, history(objective), targets, answers, ("a", "b", "c")) for _ in range(2)]
    assert {name.removeprefix("plot-").removesuffix(".png") for name in drawn[0]} == expected
    assert all(png.startswith(PNG) and len(png) > 2000 for _, png in drawn[0].values())
    assert drawn[0] == drawn[1]


def test_reliability_counts_every_row_once_and_knows_what_calibrated_means():
    rng = np.random.default_rng(1)
    predicted = rng.random(20_000)
    targets = rng.random(20_000) < predicted
    bins = reliability(targets, predicted)
    assert sum(rows for _, _, rows in bins) == 20_000
    assert all(abs(mean - observed) < 0.04 for mean, observed, _ in bins)
    assert reliability(np.array([1]), np.array([1.0])) == [(1.0, 1.0, 1)]


def test_of_several_classes_the_named_one_counts():
    answers = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05]])
    assert reliability(np.array([0, 0]), answers) == [(0.9, 0.5, 2)]


def test_dollars_in_labels_are_no_formula():
    labels = ("under $50", r"$\frac{$", "from $10 to $20")
    drawn = plots(multiclass(3), history(multiclass(3)), CLASSES, RNG.dirichlet((1, 1, 1), ROWS), labels)
    assert drawn["plot-confusion.png"][1].startswith(PNG)
