"""A trained torch module to one ONNX graph that takes what a caller sends and answers what is served. Fails closed.

Strings go through their vocabularies inside the graph, the objective's head is its last node. Not an optimizer: the graph stays as
exported, so that `trainers.quantize` can rewrite it. Nothing is returned that has not passed the checker, loaded in onnxruntime
and given the module's answers at several batch sizes and lengths. Called by `trainers.run`.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper

from gateway.contract.manifest import Signature, Tensor
from trainers.encoding import encoded
from trainers.errors import ExportError
from trainers.export import parity
from trainers.job import Data, cut
from trainers.objectives import Objective

OPSET = 20
ML_OPSET = 4
"""LabelEncoder with tensors of strings needs 4; onnxruntime 1.32 runs it."""

MODULE = "module/"
ELEMENTS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "INT8": TensorProto.INT8,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
EXAMPLE_ROWS = 3


def export(module: torch.nn.Module, data: Data, objective: Objective, lengths: Sequence[int] = ()) -> bytes:
    """The graph of `module` between its vocabularies and its head, with the inputs and the output that `data.signature` declares.

    `module` takes one tensor per input, in order: int64 [batch, k] for k columns of strings. `lengths` are what the symbolic axes
    are tried with besides the whole length of the test rows. Raises `ExportError` saying what is wrong.
    """
    signature = data.signature
    _require_supported(signature, data)
    traced = _trace(module.eval(), data)
    graph = _assemble(traced, signature, data, objective)
    session = _load(graph, signature)
    parity.require(session, module, data, objective, lengths)
    return graph


def _require_supported(signature: Signature, data: Data) -> None:
    if len(signature.outputs) != 1:
        raise ExportError(f"the signature must have one output; it has {len(signature.outputs)}")
    for tensor in (*signature.inputs, *signature.outputs):
        if tensor.datatype not in ELEMENTS:
            raise ExportError(f"tensor '{tensor.name}': no module takes {tensor.datatype}; use {', '.join(ELEMENTS)}")
        if tensor.datatype == "BYTES" and not tensor.columns:
            raise ExportError(f"tensor '{tensor.name}' has strings but no columns: a vocabulary belongs to a column")
        for column in tensor.columns if tensor.datatype == "BYTES" else ():
            if column.name not in data.vocabularies:
                raise ExportError(
                    f"string column '{column.name}' has no vocabulary; there are: {', '.join(data.vocabularies)}"
                )


def _trace(module: torch.nn.Module, data: Data) -> onnx.ModelProto:
    """The module alone, all its names under `MODULE`.

    Asking the exporter for a natural output name can produce a duplicate one and an invalid file (pytorch #158094, seen in 2.13);
    with reserved names and a prefix of our own nothing can clash. Its notes, which hold source paths, are dropped.
    """
    inputs = data.signature.inputs
    example = tuple(_example(tensor, data) for tensor in inputs)
    axes = tuple({i: size for i, size in enumerate(tensor.shape) if isinstance(size, str)} for tensor in inputs)
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                dynamic_shapes=_by_parameter(module, axes),
                input_names=[f"__{tensor.name}" for tensor in inputs],
                output_names=["__outputs"],
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


def _by_parameter(module: torch.nn.Module, axes: tuple[dict[int, str], ...]) -> tuple[Any, ...]:  # Any: torch's own
    """One entry per parameter of `forward`; all in one where it takes `*inputs`."""
    code = type(module).forward.__code__
    takes_any = bool(code.co_flags & 0x04)  # inspect.CO_VARARGS
    return (axes,) if takes_any and code.co_argcount == 1 else axes


def _example(tensor: Tensor, data: Data) -> torch.Tensor:
    """Rows to trace with: real ones, as an index of zeros may mean something else to a module than most others."""
    values = np.resize(data.test.inputs[tensor.name], (EXAMPLE_ROWS, *data.test.inputs[tensor.name].shape[1:]))
    longest = max(
        (size for size, axis in zip(values.shape[1:], tensor.shape[1:], strict=True) if isinstance(axis, str)),
        default=1,
    )
    return encoded(tensor, cut(values, tensor.shape[1:], max(2, longest - 1)), data.vocabularies)


def _assemble(traced: onnx.ModelProto, signature: Signature, data: Data, objective: Objective) -> bytes:
    """Vocabularies in front, the head behind. The result carries no trace of the exporter's own inputs and outputs."""
    nodes, constants = [], []
    for tensor in signature.inputs:
        inside = f"{MODULE}__{tensor.name}"
        if tensor.datatype == "BYTES":
            added, columns = _vocabulary_nodes(tensor, inside, data)
            nodes += added
            constants += columns
        else:
            nodes.append(helper.make_node("Identity", [tensor.name], [inside], name=f"input/{tensor.name}"))
    head, shapes = _head(signature.outputs[0], objective)
    graph = helper.make_graph(
        [*nodes, *traced.graph.node, *head],
        "steelyard",
        [_value(tensor) for tensor in signature.inputs],
        [_value(tensor) for tensor in signature.outputs],
        [*traced.graph.initializer, *constants, *shapes],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=traced.ir_version, producer_name="steelyard")
    return bytes(model.SerializeToString(deterministic=True))


def _value(tensor: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, ELEMENTS[tensor.datatype], tensor.shape)


def _head(output: Tensor, objective: Objective) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """From the module's outputs to the answers; one value per row becomes [batch, 1] where the signature says so."""
    kinds = {"sigmoid": "Sigmoid", "softmax": "Softmax", "identity": "Identity"}
    attributes: dict[str, Any] = {"axis": -1} if objective.head == "softmax" else {}
    is_column = output.shape[1:] == (1,)
    answer = "head/flat" if is_column else output.name
    nodes = [
        helper.make_node(
            kinds[objective.head], [f"{MODULE}__outputs"], [answer], name=f"head/{objective.head}", **attributes
        )
    ]
    if not is_column:
        return nodes, []
    nodes.append(helper.make_node("Reshape", [answer, "head/shape"], [output.name], name="head/column"))
    return nodes, [onnx.numpy_helper.from_array(np.array([-1, 1], np.int64), "head/shape")]


def _vocabulary_nodes(tensor: Tensor, indices: str, data: Data) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """One column of strings after the other to its index: 0 for anything unknown, i + 1 for category i."""
    nodes, constants = [], []
    for i, column in enumerate(tensor.columns):
        known = data.vocabularies[column.name]
        which, text, index = (f"vocabulary/{tensor.name}/{what}_{i}" for what in ("column", "text", "index"))
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
    columns = [f"vocabulary/{tensor.name}/index_{i}" for i in range(len(tensor.columns))]
    nodes.append(helper.make_node("Concat", columns, [indices], name=f"vocabulary/{tensor.name}/indices", axis=1))
    return nodes, constants


def _load(graph: bytes, signature: Signature) -> ort.InferenceSession:
    """The checked graph in onnxruntime, whose inputs and outputs must be the signature's: symbolic axes by their names."""
    try:
        onnx.checker.check_model(graph, full_check=True)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnx and onnxruntime raise classes of their own and bare RuntimeError alike
        raise ExportError(f"the exported graph is not valid: {error}") from error
    found = {node.name: tuple(node.shape) for node in (*session.get_inputs(), *session.get_outputs())}
    declared = {tensor.name: tensor.shape for tensor in (*signature.inputs, *signature.outputs)}
    if found != declared:
        raise ExportError(f"the exported graph has the shapes {found}; the signature declares {declared}")
    return session


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
