"""What comes with an import: options on the command line, labels, golden rows."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from tests.support import foreign
from tests.support.imports import declared, passed_on
from trainers.errors import DataError, SpecError
from trainers.importing import asked, samples


@pytest.mark.parametrize(
    ("parse", "given", "message"),
    [
        (asked.axes, ["state"], "NAME=VALUE"),
        (asked.axes, ["state=one"], "counted from 0"),
        (asked.constants, ["a=1", "a=2"], "twice"),
        (asked.shapes, ["x=4,batch"], "begin with 'batch'"),
        (asked.shapes, ["x=batch,0"], "no size is 0"),
        (asked.columns, ["x=a,,b"], "empty name"),
        (asked.columns, ["x=a,a"], "twice"),
        (asked.labels, "a,b,a", "twice"),
        (asked.labels, "absent.txt", "No such file"),
    ],
)
def test_options_are_refused_by_name(parse, given, message: str):
    with pytest.raises(SpecError, match=message):
        parse(given)


def test_labels_come_from_words_and_files(tmp_path: Path):
    (tmp_path / "labels.json").write_text('["a", "b, with a comma"]')
    (tmp_path / "labels.txt").write_text("a\nb\n")
    (tmp_path / "bad.json").write_text('{"a": 1}')
    assert asked.labels("a, b") == ("a", "b")
    assert asked.labels(str(tmp_path / "labels.json")) == ("a", "b, with a comma")
    assert asked.labels(str(tmp_path / "labels.txt")) == ("a", "b")
    with pytest.raises(SpecError, match="JSON list"):
        asked.labels(str(tmp_path / "bad.json"))


def golden(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "golden.npz", **arrays)
    return folder / "golden.npz"


def refusal(folder: Path, **arrays: np.ndarray) -> str:
    signature = declared(foreign.classifier(), folder).signature
    with pytest.raises(DataError) as caught:
        samples.read(golden(folder, **arrays), signature)
    return str(caught.value)


def test_golden_rows_are_read_in_the_types_of_the_signature(tmp_path: Path):
    x, classes = foreign.rows_of(128)
    signature = declared(foreign.classifier(), tmp_path).signature
    found = samples.read(golden(tmp_path, x=x.astype(np.float64), targets=classes[:, None]), signature)
    assert found.inputs["x"].dtype == np.float32
    assert found.targets is not None
    assert found.targets.shape == (128,)
    assert found.is_real


def test_golden_files_are_refused_with_what_is_expected(tmp_path: Path):
    x, classes = foreign.rows_of(128)
    assert "128 are needed" in refusal(tmp_path, x=x[:127])
    assert "'x' is missing" in refusal(tmp_path, targets=classes)
    assert "'z' is no tensor" in refusal(tmp_path, x=x, z=x)
    assert "different numbers of rows" in refusal(tmp_path, x=x, targets=classes[:-1])
    assert "shape [128, 31]" in refusal(tmp_path, x=x[:, :31])
    assert "FP32 is expected" in refusal(tmp_path, x=x.astype(str))
    assert "one number per row" in refusal(tmp_path, x=x, targets=classes.astype(str))
    assert "never objects" in refusal(tmp_path, x=x.astype(object))


def test_a_golden_file_that_is_no_npz_is_refused(tmp_path: Path):
    signature = declared(foreign.classifier(), tmp_path).signature
    (tmp_path / "golden.npz").write_bytes(b"not a zip file")
    with pytest.raises(DataError, match="cannot be read"):
        samples.read(tmp_path / "golden.npz", signature)


def test_whole_numbers_that_would_change_are_refused(tmp_path: Path):
    signature = declared(passed_on(TensorProto.INT8), tmp_path).signature
    with pytest.raises(DataError, match="cannot hold"):
        samples.read(golden(tmp_path, x=np.full((128, 2), 300)), signature)
    with pytest.raises(DataError, match="INT8 is expected"):
        samples.read(golden(tmp_path, x=np.full((128, 2), 0.5)), signature)
