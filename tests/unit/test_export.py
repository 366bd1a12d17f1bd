"""Export with the vocabulary in the graph: the same answers as torch for anything a caller may send, or a refusal."""

import logging
import warnings

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from gateway.contract.manifest import Examples, Signature, Tensor
from tests.support.tinyjob import TinyModule, tiny_data, tiny_module
from trainers.errors import ExportError
from trainers.export.exporting import export
from trainers.job import Data, Split
from trainers.objectives import binary, multiclass


def module(data: Data) -> torch.nn.Module:
    torch.manual_seed(0)
    return tiny_module(data)


@pytest.fixture(scope="module")
def data() -> Data:
    return tiny_data()


@pytest.fixture(scope="module")
def graph(data: Data) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return export(module(data), data, binary())


def test_export_is_silent(data: Data, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture):
    export(module(data), data, binary())
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []


def test_the_interface_is_the_signature(graph: bytes, data: Data):
    session = ort.InferenceSession(graph)
    assert [(node.name, node.type, node.shape) for node in session.get_inputs()] == [
        ("categories", "tensor(string)", ["batch", 2]),
        ("numbers", "tensor(float)", ["batch", 3]),
    ]
    assert [(node.name, node.type, node.shape) for node in session.get_outputs()] == [
        ("probability", "tensor(float)", ["batch", 1])
    ]


def test_the_same_weights_make_the_same_bytes_and_name_no_source(graph: bytes, data: Data):
    assert export(module(data), data, binary()) == graph
    assert b"tinyjob" not in graph
    assert b".py" not in graph


def test_unknown_categories_are_the_other_one_and_missing_numbers_are_answered(graph: bytes, data: Data):
    session = ort.InferenceSession(graph)
    categories = np.array([["AA", "JFK"], ["ZZ", "JFK"], ["", "\N{SNOWMAN}"], ["aa", "LGA"]], dtype=object)
    numbers = np.array([[7, 500, 3], [7, 500, np.nan], [np.nan] * 3, [0, 0, 0]], np.float32)
    indices = torch.tensor([[1, 1], [0, 1], [0, 0], [0, 2]])
    with torch.no_grad():
        expected = torch.sigmoid(module(data).eval()(indices, torch.from_numpy(numbers))).numpy()
    (got,) = session.run(None, {"categories": categories, "numbers": numbers})
    np.testing.assert_allclose(got[:, 0], expected, atol=1e-6)


def test_every_known_category_has_its_own_index(graph: bytes, data: Data):
    encoders = [node for node in onnx.load_from_string(graph).graph.node if node.op_type == "LabelEncoder"]
    for encoder, known in zip(encoders, data.vocabularies.values(), strict=True):
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in encoder.attribute}
        assert attributes["keys_strings"] == [category.encode() for category in known]
        assert list(attributes["values_int64s"]) == list(range(1, len(known) + 1))
        assert attributes["default_int64"] == 0


class Moody(TinyModule):
    """What the exporter takes for a constant, and torch evaluates anew at every call."""

    calls = 0

    def forward(self, categories: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(categories, numbers) + 0.1 * self.calls


class Frozen(TinyModule):
    """Knows only the batch it was traced with."""

    def forward(self, categories: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        logits = super().forward(categories, numbers)
        return logits + torch.arange(3)


def test_a_graph_that_is_not_the_module_is_refused(data: Data):
    with pytest.raises(ExportError, match="differ from the module's by up to"):
        export(Moody([3, 2]), data, binary())


def test_a_module_of_one_batch_size_is_refused(data: Data):
    with pytest.raises(ExportError, match="torch cannot export"):
        export(Frozen([3, 2]), data, binary())


def test_a_string_column_without_vocabulary_is_refused(data: Data):
    incomplete = msgspec.structs.replace(data, vocabularies={"carrier": ("AA",)})
    with pytest.raises(ExportError, match="'origin' has no vocabulary; there are: carrier"):
        export(module(data), incomplete, binary())


def test_a_signature_that_is_not_the_modules_is_refused(data: Data):
    numbers = data.signature.inputs[1]
    other = msgspec.structs.replace(data, signature=Signature(inputs=(numbers,), outputs=data.signature.outputs))
    with pytest.raises(ExportError, match="missing a required argument: 'numbers'"):
        export(module(data), other, binary())


def test_two_outputs_are_refused(data: Data):
    outputs = (*data.signature.outputs, Tensor("other", "FP32", ("batch", 1)))
    other = msgspec.structs.replace(data, signature=Signature(inputs=data.signature.inputs, outputs=outputs))
    with pytest.raises(ExportError, match="must have one output; it has 2"):
        export(module(data), other, binary())


class Windows(torch.nn.Module):
    """Series of any length to three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv1d(1, 4, 5, padding=2)
        self.classes = torch.nn.Linear(4, 3)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classes(self.convolution(samples.unsqueeze(1)).relu().mean(dim=2))
        return logits


def series(shape: tuple[int | str, ...]) -> Data:
    rng = np.random.default_rng(0)
    split = Split({"samples": rng.normal(size=(40, 24)).astype(np.float32)}, np.arange(40) % 3)
    signature = Signature((Tensor("samples", "FP32", shape),), (Tensor("probabilities", "FP32", ("batch", 3)),))
    return Data(
        train=split,
        validation=split,
        test=split,
        sources=(),
        examples=Examples((), ()),
        signature=signature,
    )


def test_rows_of_any_length_are_answered_with_probabilities_of_every_class():
    data = series(("batch", "length"))
    graph = export(Windows(), data, multiclass(3), lengths=(9, 16))
    session = ort.InferenceSession(graph)
    for rows, length in ((1, 5), (3, 77)):
        (got,) = session.run(None, {"samples": np.ones((rows, length), np.float32)})
        assert got.shape == (rows, 3)
        np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-6)


def test_a_length_that_the_module_fixes_is_refused():
    class Fixed(Windows):
        def forward(self, samples: torch.Tensor) -> torch.Tensor:
            return (
                super().forward(samples) + samples[:, :23].reshape(-1, 23)[:, :1] * 0 + samples.reshape(-1, 23)[:, :3]
            )

    with pytest.raises(ExportError, match="at batch 1 the module or its graph fails: shape"):
        export(Fixed(), series(("batch", "length")), multiclass(3))
