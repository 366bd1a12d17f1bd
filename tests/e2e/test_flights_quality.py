"""The flights network earns its cost: on months it has never seen it beats logistic regression and matches boosted trees.

Three seeds, about a minute on two cores. The floors are what scikit-learn's HistGradientBoostingClassifier reaches on this split.
"""

import msgspec
import numpy as np
import pytest
import torch

from trainers.arrays import Array
from trainers.baseline import logistic_baseline
from trainers.fit import loop as fitting
from trainers.job import Data
from trainers.objectives import binary
from trainers.recipes import flights

pytestmark = pytest.mark.e2e

ROC_AUC_MIN = 0.702
AVERAGE_PRECISION_MIN = 0.460
BRIER_MAX = 0.168
WEIGHT_BYTES_MAX = 2_000_000


@pytest.fixture(scope="module")
def data() -> Data:
    return flights.load()


@pytest.fixture(scope="module")
def baseline(data: Data) -> dict[str, float]:
    return binary().measure(data.test.targets, logistic_baseline(data))


@pytest.fixture(scope="module", params=[0, 1, 2], ids="seed {}".format)
def fitted(request: pytest.FixtureRequest, data: Data) -> fitting.Fitted:
    job = flights.flights()
    job = msgspec.structs.replace(job, fit=msgspec.structs.replace(job.fit, seed=request.param))
    return fitting.fit(job, data, lambda step, done, total, note="": None, "cpu")


def probabilities(fitted: fitting.Fitted, categories: torch.Tensor, numbers: torch.Tensor) -> Array:
    with torch.no_grad():
        return fitted.module(categories, numbers).sigmoid().numpy()


def test_the_network_beats_the_baseline_and_matches_boosted_trees(data, baseline, fitted):
    rows = fitting.rows(data, data.test, torch.device("cpu"))
    measured = binary().measure(data.test.targets, probabilities(fitted, *rows.inputs))
    assert measured["roc_auc"] > max(ROC_AUC_MIN, baseline["roc_auc"]), measured
    assert measured["average_precision"] > max(AVERAGE_PRECISION_MIN, baseline["average_precision"]), measured
    assert measured["brier"] < min(BRIER_MAX, baseline["brier"]), measured


def test_the_weights_are_small(fitted):
    assert sum(values.nbytes for values in fitted.module.state_dict().values()) < WEIGHT_BYTES_MAX


@pytest.mark.parametrize("column", [0, 1, 2], ids=["carrier", "origin", "dest"])
def test_other_is_as_good_as_an_average_category(data, fitted, column):
    """Rows whose category is hidden are still worth ordering, and their average stays near the truth."""
    rows = fitting.rows(data, data.test, torch.device("cpu"))
    categories, numbers = rows.inputs
    hidden = categories.clone()
    hidden[:, column] = 0
    unknown = probabilities(fitted, hidden, numbers)
    known = probabilities(fitted, *rows.inputs)
    assert binary().measure(data.test.targets, unknown)["roc_auc"] > 0.65
    assert np.mean(unknown) == pytest.approx(np.mean(known), abs=0.04)
