"""Writes the files beside it: models of other tools as their own converters write them, and what these tools answer.

Not run by any test. Made with scikit-learn 1.9.1, skl2onnx 1.20.0, onnxmltools 1.16.0, xgboost 3.2.0, lightgbm 4.7.0 and protobuf
6.33.6: with protobuf 7 skl2onnx cannot convert the histogram.
"""

from pathlib import Path

import numpy as np
from lightgbm import LGBMClassifier
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

HERE = Path(__file__).parent


def main() -> None:
    x, y = load_iris(return_X_y=True)
    mixed = np.random.default_rng(0).permutation(len(x))
    x, y = x[mixed].astype(np.float32), y[mixed]
    types = [("X", FloatTensorType([None, 4]))]
    converters = {
        "logistic": (make_pipeline(StandardScaler(), LogisticRegression()), _sklearn),
        "histogram": (HistGradientBoostingClassifier(max_iter=3, max_leaf_nodes=4), _sklearn),
        "xgboost": (XGBClassifier(n_estimators=3, max_depth=2), lambda m, _: convert_xgboost(m, initial_types=types)),
        "lightgbm": (
            LGBMClassifier(n_estimators=3, num_leaves=4, verbose=-1),
            lambda m, _: convert_lightgbm(m, initial_types=types, zipmap=False),
        ),
    }
    answers = {}
    for name, (model, convert) in converters.items():
        model.fit(x, y)
        (HERE / f"{name}.onnx").write_bytes(convert(model, x).SerializeToString())
        answers[name] = model.predict_proba(x).astype(np.float32)
    (HERE / "zipmap.onnx").write_bytes(to_onnx(converters["logistic"][0], x[:1]).SerializeToString())
    np.savez(HERE / "iris.npz", X=x, targets=y, **answers)


def _sklearn(model, x):
    return to_onnx(model, x[:1], options={"zipmap": False})


if __name__ == "__main__":
    main()
