"""The simplest model worth beating: logistic regression on the same splits, so that a network has to earn its cost.

Not published and not tuned. Called by `trainers.run`, which reports it beside the network as `baseline:logistic`.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from trainers.job import Data, Split

ITERATIONS_MAX = 500
"""`lbfgs` needs about 60 on the flights; it warns when this is not enough."""


def logistic_baseline(data: Data) -> NDArray[np.float64]:
    """Probability of a positive outcome for each row of the test split, learned from the train split."""
    strings = sum(len(tensor.columns) for tensor in data.signature.inputs if tensor.datatype == "BYTES")
    train = _table(data, data.train)
    model = _pipeline(strings, train.shape[1])
    model.fit(train, data.train.targets)
    probabilities: NDArray[np.float64] = model.predict_proba(_table(data, data.test))[:, 1]
    return probabilities


def _table(data: Data, split: Split) -> NDArray[np.object_]:
    """The split as one table of Python objects, string columns first."""
    tensors = sorted(data.signature.inputs, key=lambda tensor: tensor.datatype != "BYTES")
    return np.concatenate([split.inputs[tensor.name].astype(object) for tensor in tensors], axis=1)


def _pipeline(strings: int, columns: int) -> Pipeline:
    numbers = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler())
    columns_by_kind = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), list(range(strings))),
        (numbers, list(range(strings, columns))),
    )
    return make_pipeline(columns_by_kind, LogisticRegression(max_iter=ITERATIONS_MAX))
