"""A trained torch module to one ONNX graph that takes what a caller sends: strings and numbers in, probability out. Fails closed.

Not an optimizer: the graph stays as exported, so that `trainers.quantize` can rewrite it. Nothing is returned that has not passed
the checker, loaded in onnxruntime and given the module's answers at several batch sizes. Called by `trainers.run`.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper

from gateway.contract.manifest import Tensor
from trainers.errors import ExportError
from trainers.job import Array, Data

OPSET = 20
ML_OPSET = 4
"""LabelEncoder with tensors of strings needs 4; onnxruntime 1.32 runs it."""

MODULE = "module/"
PARITY_BATCHES = (1, 2, 7, 64)
PARITY_TOLERANCE = 1e-5
UNKNOWN_CATEGORY = "\N{WHITE QUESTION MARK ORNAMENT} not in any vocabulary"


class _Interface(msgspec.Struct, frozen=True):
    """The signature's three tensors by their part in the graph."""

    categories: Tensor
    numbers: Tensor
    probability: Tensor


def export(module: torch.nn.Module, data: Data) -> bytes:
    """The graph of `module` behind its vocabularies, with the inputs and the output that `data.signature` declares.

    `module` takes (int64 [batch, k], float32 [batch, m]) and returns logits [batch]. Raises `ExportError` saying what is wrong.
    """
    interface = _interface(data)
    traced = _trace(module.eval(), len(interface.categories.columns), len(interface.numbers.columns))
    graph = _assemble(traced, interface, data)
    session = _load(graph, interface)
    for batch in PARITY_BATCHES:
        _require_parity(session, module, interface, data, batch)
    return graph


def _interface(data: Data) -> _Interface:
    by_datatype = {tensor.datatype: tensor for tensor in data.signature.inputs}
    outputs = data.signature.outputs
    if len(data.signature.inputs) != 2 or by_datatype.keys() != {"BYTES", "FP32"} or len(outputs) != 1:
        raise ExportError("the signature must have one BYTES input, one FP32 input and one output")
    for column in by_datatype["BYTES"].columns:
        if column.name not in data.vocabularies:
            raise ExportError(
                f"string column '{column.name}' has no vocabulary; there are: {', '.join(data.vocabularies)}"
            )
    return _Interface(by_datatype["BYTES"], by_datatype["FP32"], outputs[0])


def _trace(module: torch.nn.Module, categories: int, numbers: int) -> onnx.ModelProto:
    """The module alone, all its names under `MODULE`.

    Asking the exporter for a natural output name can produce a duplicate one and an invalid file (pytorch #158094, seen in 2.13);
    with reserved names and a prefix of our own nothing can clash. Its notes, which hold source paths, are dropped.
    """
    example = (torch.zeros(3, categories, dtype=torch.int64), torch.zeros(3, numbers))
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                dynamic_shapes=({0: "batch"}, {0: "batch"}),
                input_names=["__indices", "__numbers"],
                output_names=["__logits"],
                opset_version=OPSET,
                optimize=True,
                verify=False,
                verbose=False,
            )
    except Exception as error:  # torch lets the tracer's own exceptions through, whatever they are
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ExportError(f"torch cannot export this module for any batch size: {reason}") from error
    if program is None:
        raise ExportError("torch.onnx.export returned nothing; see its log")
    model = program.model_proto
    if model.functions:
        raise ExportError(f"the exporter left {len(model.functions)} functions in the graph; inline them in the module")
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]
    return onnx.compose.add_prefix(model, MODULE)


def _assemble(traced: onnx.ModelProto, interface: _Interface, data: Data) -> bytes:
    """Vocabulary in front, sigmoid behind. The result carries no trace of the exporter's own inputs and outputs."""
    vocabulary, columns = _vocabulary_nodes(interface.categories, data)
    nodes = [
        *vocabulary,
        helper.make_node("Identity", [interface.numbers.name], [f"{MODULE}__numbers"], name="numbers"),
        *traced.graph.node,
        helper.make_node("Sigmoid", [f"{MODULE}__logits"], ["probability/flat"], name="sigmoid"),
        helper.make_node(
            "Reshape", ["probability/flat", "probability/shape"], [interface.probability.name], name="column"
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "steelyard",
        [
            helper.make_tensor_value_info(interface.categories.name, TensorProto.STRING, interface.categories.shape),
            helper.make_tensor_value_info(interface.numbers.name, TensorProto.FLOAT, interface.numbers.shape),
        ],
        [helper.make_tensor_value_info(interface.probability.name, TensorProto.FLOAT, interface.probability.shape)],
        [
            *traced.graph.initializer,
            *columns,
            onnx.numpy_helper.from_array(np.array([-1, 1], np.int64), "probability/shape"),
        ],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=traced.ir_version, producer_name="steelyard")
    return bytes(model.SerializeToString(deterministic=True))


def _vocabulary_nodes(tensor: Tensor, data: Data) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """One column of strings after the other to its index: 0 for anything unknown, i + 1 for category i."""
    nodes, constants = [], []
    for i, column in enumerate(tensor.columns):
        known = data.vocabularies[column.name]
        which, text, index = (f"vocabulary/{what}_{i}" for what in ("column", "text", "index"))
        constants.append(onnx.numpy_helper.from_array(np.array([i], np.int64), which))
        nodes += [
            helper.make_node("Gather", [tensor.name, which], [text], name=text, axis=1),
            helper.make_node(
                "LabelEncoder",
                [text],
                [index],
                name=index,
                domain="ai.onnx.ml",
                keys_strings=known,
                values_int64s=range(1, len(known) + 1),
                default_int64=0,
            ),
        ]
    indices = [f"vocabulary/index_{i}" for i in range(len(tensor.columns))]
    nodes.append(helper.make_node("Concat", indices, [f"{MODULE}__indices"], name="vocabulary/indices", axis=1))
    return nodes, constants


def _load(graph: bytes, interface: _Interface) -> ort.InferenceSession:
    """The checked graph in onnxruntime; its batch dimension must be symbolic and called `batch`."""
    try:
        onnx.checker.check_model(graph, full_check=True)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnx and onnxruntime raise classes of their own and bare RuntimeError alike
        raise ExportError(f"the exported graph is not valid: {error}") from error
    found = {node.name: tuple(node.shape) for node in (*session.get_inputs(), *session.get_outputs())}
    declared = {
        tensor.name: tensor.shape for tensor in (interface.categories, interface.numbers, interface.probability)
    }
    if found != declared:
        raise ExportError(f"the exported graph has the shapes {found}; the signature declares {declared}")
    return session


def _require_parity(
    session: ort.InferenceSession, module: torch.nn.Module, interface: _Interface, data: Data, batch: int
) -> None:
    """Test rows, one with unknown categories only and one with every number missing, through both."""
    categories = np.resize(
        data.test.inputs[interface.categories.name], (batch, len(interface.categories.columns))
    ).copy()
    numbers = np.resize(data.test.inputs[interface.numbers.name], (batch, len(interface.numbers.columns))).copy()
    categories[0] = UNKNOWN_CATEGORY
    numbers[-1] = np.nan
    with torch.no_grad():
        logits = module(torch.from_numpy(_indices(categories, interface, data)), torch.from_numpy(numbers))
    expected = torch.sigmoid(logits).reshape(-1, 1).numpy()
    (got,) = session.run(None, {interface.categories.name: categories, interface.numbers.name: numbers})
    if got.shape != expected.shape:
        raise ExportError(f"at batch {batch} the graph returns shape {got.shape}, the module {expected.shape}")
    if (np.isnan(got) != np.isnan(expected)).any():
        raise ExportError(f"at batch {batch} the graph and the module differ in where they return NaN")
    difference = float(np.nanmax(np.abs(got - expected), initial=0.0))
    if difference > PARITY_TOLERANCE:
        raise ExportError(
            f"at batch {batch} the graph's probabilities differ from the module's by up to {difference:.2e}; "
            f"allowed is {PARITY_TOLERANCE:.0e}"
        )


def _indices(categories: Array, interface: _Interface, data: Data) -> Array:
    """What the vocabulary part of the graph must compute."""
    lookups = [
        {category: i for i, category in enumerate(data.vocabularies[column.name], start=1)}
        for column in interface.categories.columns
    ]
    return np.array(
        [[lookup.get(text, 0) for lookup, text in zip(lookups, row, strict=True)] for row in categories], np.int64
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints, logs and warns about packages it did not find; none of it is about the model."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
