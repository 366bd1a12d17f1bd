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

from gateway.contract.manifest import Column
from trainers.job import Data, Split

CATEGORIES_MAX = 31
"""Whole numbers with more values than a month has days are amounts."""

ITERATIONS_MAX = 500
"""`lbfgs` needs about 60 on the flights; it warns when this is not enough."""


def logistic_baseline(data: Data) -> NDArray[np.float64]:
    """Probability of a positive outcome for each row of the test split, learned from the train split."""
    columns = [column for tensor in data.signature.inputs for column in tensor.columns]
    train = _table(data, data.train)
    categorical = [i for i, column in enumerate(columns) if _is_categorical(column, train[:, i])]
    model = _pipeline(categorical, [i for i in range(len(columns)) if i not in categorical])
    model.fit(train, data.train.targets)
    probabilities: NDArray[np.float64] = model.predict_proba(_table(data, data.test))[:, 1]
    return probabilities


def _table(data: Data, split: Split) -> NDArray[np.object_]:
    """The columns of all inputs, in the order of the signature."""
    return np.concatenate([split.inputs[tensor.name].astype(object) for tensor in data.signature.inputs], axis=1)


def _is_categorical(column: Column, values: NDArray[np.object_]) -> bool:
    """Strings, and whole numbers with few values: a line through the months of a year says nothing about the next one."""
    return column.datatype == "string" or (column.datatype == "integer" and len(set(values)) <= CATEGORIES_MAX)


def _pipeline(categorical: list[int], numeric: list[int]) -> Pipeline:
    numbers = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler())
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), categorical), (numbers, numeric))
    return make_pipeline(columns, LogisticRegression(max_iter=ITERATIONS_MAX))
