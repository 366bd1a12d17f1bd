"""scikit-learn, XGBoost and LightGBM as their own converters write them: imported, and proven to answer as these tools did."""

from pathlib import Path

import numpy as np
import pytest

from tests.integration.test_imports import invoke, published
from trainers import exits

CONVERTED = Path(__file__).parent / "converted"
NAMES = "--columns=X=sepal_length,sepal_width,petal_length,petal_width", "--labels=setosa,versicolor,virginica"


@pytest.mark.parametrize("name", ["logistic", "histogram", "xgboost", "lightgbm"])
def test_a_converted_model_answers_as_the_tool_that_trained_it(name: str, tmp_path: Path):
    iris = np.load(CONVERTED / "iris.npz")
    np.savez(tmp_path / "golden.npz", X=iris["X"], targets=iris["targets"], probabilities=iris[name])
    asked = ("--golden", "golden.npz", "--outputs", "probabilities", *NAMES)
    result = invoke(tmp_path, CONVERTED / f"{name}.onnx", "--name", name, *asked)
    assert result.exit_code == 0, result.output
    _, manifest = published(tmp_path, name)
    assert manifest.serve == "fp32"
    assert manifest.evaluations[0].metrics["accuracy"] > 0.8


def test_another_tools_answers_are_not_its_own(tmp_path: Path):
    iris = np.load(CONVERTED / "iris.npz")
    np.savez(tmp_path / "golden.npz", X=iris["X"], probabilities=iris["xgboost"])
    result = invoke(tmp_path, CONVERTED / "lightgbm.onnx", "--name", "m", "--golden", "golden.npz")
    assert result.exit_code == exits.BAD_MODEL
    assert "not the model that made the golden file" in result.output


def test_a_zipmap_says_how_to_convert_again(tmp_path: Path):
    result = invoke(tmp_path, CONVERTED / "zipmap.onnx", "--name", "m")
    assert result.exit_code == exits.BAD_MODEL
    assert "options={'zipmap': False}" in result.output
