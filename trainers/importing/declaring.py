"""The signature of a graph: every input and output with its datatype, its shape with the rows first, and its columns' names.

Open dimensions that have no name get one. The declared shapes are written back into the graph, so that both say the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec
import onnx
from onnx import TensorProto

from gateway.contract.manifest import Column, Signature, Tensor
from gateway.contract.words import Datatype
from trainers.errors import ModelInvalid, SpecError
from trainers.importing.asked import OWN_NAME, Changes, Words

BATCH = "batch"
DATATYPES: Mapping[int, Datatype] = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.STRING: "BYTES",
}

Shape = tuple[int | str, ...]
Kind = tuple[str, str]


def declare(model: onnx.ModelProto, changes: Changes, words: Words) -> Signature:
    """Also sets the graph's own shapes. Raises `ModelInvalid` naming the tensor, and the option that helps."""
    graph = model.graph
    ends = {each.name: each for each in (*graph.input, *graph.output)}
    _require_known("--shape", changes.shapes, [*ends])
    _require_known("--columns", [name for name in words.columns if name != OWN_NAME], [*ends])
    rows = _names_of_rows(graph.input)
    frozen: dict[str, int] = {}
    sides = [
        tuple(_tensor(each, rows, changes, words, frozen, is_input=is_input) for each in side)
        for side, is_input in ((graph.input, True), (graph.output, False))
    ]
    # LightGBM's converter calls the labels of any number of rows [1]; whether an output follows its inputs is proven, not believed.
    if not changes.dynamic_batch and any(each.name in frozen for each in graph.input):
        raise ModelInvalid(_frozen(frozen))
    try:
        signature = Signature(*sides)
    except ValueError as error:
        raise ModelInvalid(f"the graph makes no signature: {error}") from error
    _require_used_up(signature, words)
    for tensor in (*signature.inputs, *signature.outputs):
        _write(ends[tensor.name], tensor.shape)
    return signature


def _tensor(
    each: onnx.ValueInfoProto,
    rows: set[str],
    changes: Changes,
    words: Words,
    frozen: dict[str, int],
    *,
    is_input: bool,
) -> Tensor:
    datatype = _datatype(each)
    names = words.columns.get(each.name, ())
    shape = _shape(each, rows, frozen, is_input=is_input)
    shape = _merged(each.name, shape, changes.shapes.get(each.name, ()), "--shape")
    if not names and OWN_NAME in words.columns and is_input and shape == (BATCH, 1):
        names = (each.name,)
    if names:
        shape = _merged(each.name, shape, (BATCH, len(names)), f"--columns with {len(names)} names")
    kind = _column_kind(datatype)
    columns = [Column(name=name, datatype=kind, nullable=is_input and name in words.nullable) for name in names]
    if any(column.nullable for column in columns) and not datatype.startswith("FP"):
        raise SpecError(f"--nullable: '{each.name}' is {datatype}; only floats can be missing")
    return Tensor(name=each.name, datatype=datatype, shape=shape, columns=tuple(columns))


def _datatype(each: onnx.ValueInfoProto) -> Datatype:
    kind = each.type.WhichOneof("value")
    if kind == "sequence_type":
        raise ModelInvalid(
            f"output '{each.name}' is a sequence of maps, scikit-learn's ZipMap; convert with options={{'zipmap': False}} "
            "(onnxmltools: zipmap=False), which gives a plain tensor"
        )
    if kind != "tensor_type":
        raise ModelInvalid(f"tensor '{each.name}' is {kind or 'of no type'}; only dense tensors can be served")
    number = each.type.tensor_type.elem_type
    if number not in DATATYPES:
        found = TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else str(number)
        raise ModelInvalid(f"tensor '{each.name}' is {found}; served are {', '.join(DATATYPES.values())}")
    return DATATYPES[number]


def _names_of_rows(inputs: Sequence[onnx.ValueInfoProto]) -> set[str]:
    """What the file calls the axis of the rows."""
    firsts = [_dimensions(each)[:1] for each in inputs]
    return {first for [first] in filter(None, firsts) if isinstance(first, str) and first}


def _dimensions(each: onnx.ValueInfoProto) -> Shape:
    """An open dimension without a name is ''."""
    return tuple(one.dim_param or one.dim_value or "" for one in each.type.tensor_type.shape.dim)


def _shape(each: onnx.ValueInfoProto, rows: set[str], frozen: dict[str, int], *, is_input: bool) -> Shape:
    found = _dimensions(each)
    if not each.type.tensor_type.HasField("shape"):
        raise ModelInvalid(f"tensor '{each.name}' has no shape; declare one where it is converted")
    if not found:
        help_ = f"; bake it in with --constant {each.name}=VALUE" if is_input else "; leave it out with --outputs"
        raise ModelInvalid(f"tensor '{each.name}' is one value for all rows, and every tensor needs rows{help_}")
    if isinstance(found[0], int):
        elsewhere = [i for i, size in enumerate(found) if i and size in rows | {BATCH}]
        open_ = elsewhere or [i for i, size in enumerate(found) if isinstance(size, str)]
        if elsewhere or (open_ and found[0] != 1):
            raise ModelInvalid(
                f"tensor '{each.name}' has shape {list(found)}, and its first axis must be the rows; "
                f"if they are on axis {open_[0]}: --batch-axis {each.name}={open_[0]}"
            )
        frozen[each.name] = found[0]
    taken = {BATCH, ""} | rows
    rest = [f"{each.name}_{i}" if size in taken else size for i, size in enumerate(found)]
    return (BATCH, *rest[1:])


def _merged(name: str, shape: Shape, asked: Shape, option: str) -> Shape:
    """What the file leaves open may be declared; what it says stays."""
    if not asked:
        return shape
    clash = len(asked) != len(shape) or any(
        isinstance(has, int) and has != want for has, want in zip(shape, asked, strict=False)
    )
    if clash:
        raise SpecError(f"{option}: tensor '{name}' has shape {list(shape)}, which {list(asked)} contradicts")
    return asked


def _frozen(frozen: Mapping[str, int]) -> str:
    sizes = ", ".join(f"'{name}' for {size}" for name, size in frozen.items())
    return (
        f"the graph is made for a fixed number of rows ({sizes}). Export it with an open first dimension "
        "(torch: dynamic_shapes={'x': {0: 'batch'}}; skl2onnx: FloatTensorType([None, n])), "
        "or try --dynamic-batch, which opens it and proves the answers"
    )


def _column_kind(datatype: Datatype) -> Literal["string", "number", "integer", "boolean"]:
    if datatype == "BYTES":
        return "string"
    return "boolean" if datatype == "BOOL" else "number" if datatype.startswith("FP") else "integer"


def _require_known(option: str, names: Iterable[str], ends: Sequence[str]) -> None:
    for name in names:
        if name not in ends:
            raise SpecError(f"{option} '{name}' is no tensor of this model; it has: {', '.join(ends)}")


def _require_used_up(signature: Signature, words: Words) -> None:
    columns = {column.name for tensor in signature.inputs for column in tensor.columns}
    _require_known("--nullable", sorted(words.nullable), sorted(columns) or ["no columns, see --columns"])
    widths = [tensor.shape[-1] for tensor in signature.outputs if len(tensor.shape) > 1]
    fits = any(isinstance(width, str) or width == len(words.labels) for width in widths)
    if words.labels and not fits and widths != [1]:
        raise SpecError(
            f"--labels has {len(words.labels)} names; the outputs have {', '.join(map(str, widths)) or 'no'} classes"
        )


def _write(each: onnx.ValueInfoProto, shape: Shape) -> None:
    dimensions = each.type.tensor_type.shape.dim
    del dimensions[:]
    for size in shape:
        added = dimensions.add()
        if isinstance(size, int):
            added.dim_value = size
        else:
            added.dim_param = size


class Declared(msgspec.Struct, frozen=True):
    """A graph that says what its signature says."""

    model: onnx.ModelProto
    signature: Signature

    @property
    def graph(self) -> bytes:
        return bytes(self.model.SerializeToString(deterministic=True))
