"""Proof that an imported graph may be served: it runs, its answers have the declared shapes and are the file's, and those that the
golden file expects. The only door to onnxruntime of this room.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from gateway.contract.manifest import Signature
from trainers.arrays import Array
from trainers.errors import ModelInvalid
from trainers.importing import samples
from trainers.importing.asked import Changes
from trainers.importing.declaring import Declared
from trainers.importing.reading import first_line
from trainers.importing.samples import Samples

BATCHES = (1, 2, 7)
TOLERANCE = 1e-5
"""Between batches, of 1 + the value's size: rounding in another order."""

EXPECTED_TOLERANCE = 1e-4
"""Against answers that another library computed, likewise. skl2onnx and onnxmltools stay below 1e-6, torch below 1e-5."""

COMPARED_ROWS = 32

ort.set_default_logger_severity(3)  # warnings about other people's graphs help nobody who imports them

Outputs = dict[str, Array]


def session(graph: bytes) -> ort.InferenceSession:
    """As the file is, on one thread. Raises `ModelInvalid` with what onnxruntime says."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own and bare RuntimeError alike
        raise ModelInvalid(f"onnxruntime {ort.__version__} refuses the graph: {first_line(error)}") from error


def folded(graph: bytes) -> bytes:
    """The graph without the branches that its constants decide: quantization looks at what always runs."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(path)
        try:
            ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # as above
            raise ModelInvalid(f"onnxruntime {ort.__version__} refuses the graph: {first_line(error)}") from error
        return path.read_bytes()


def drawn(declared: Declared) -> Samples:
    """Rows of the declared types that the graph takes, or the last that were tried."""
    opened, rows = session(declared.graph), None
    for below in samples.INTEGERS:
        rows = samples.drawn(declared.signature, below)
        try:
            _run(opened, declared.signature, _rows(rows.inputs, 0, 1), rows)
        except ModelInvalid:
            continue
        break
    assert rows is not None
    return rows


def require_sound(declared: Declared, given: Samples, *, rows_opened: bool) -> None:
    """The first rows alone, and in batches of 2 and 7: answers of the declared shapes. Raises `ModelInvalid`.

    `rows_opened`: the number of rows was frozen, so equal answers are the proof that opening it was right. Of other graphs a gate
    finds out whether they may share a batch.
    """
    opened, signature = session(declared.graph), declared.signature
    rows = min(max(BATCHES), given.rows)
    alone = [_run(opened, signature, _rows(given.inputs, i, i + 1), given) for i in range(rows)]
    for batch in BATCHES[1:]:
        together = _run(opened, signature, _rows(given.inputs, 0, min(batch, rows)), given)
        for name, values in together.items() if rows_opened else ():
            apart = max(difference(values[i : i + 1], alone[i][name]) for i in range(len(values)))
            if apart > TOLERANCE:
                raise ModelInvalid(
                    f"--dynamic-batch: output '{name}' of a row alone and in a batch of {batch} differ by {apart:.2g}, allowed "
                    f"is {TOLERANCE:g}; export the model with an open first dimension instead"
                )


def require_unchanged(original: onnx.ModelProto, declared: Declared, changes: Changes, given: Samples) -> None:
    """What was rewritten answers as the file itself, asked in the file's own names and axes. Raises `ModelInvalid`."""
    before, after = session(original.SerializeToString()), session(declared.graph)
    published = {tensor.name for tensor in declared.signature.outputs}
    rows = _rows_of(original, changes) or min(COMPARED_ROWS, given.rows)
    inputs = {name: np.resize(values, (rows, *values.shape[1:])) for name, values in given.inputs.items()}
    got = _run(after, declared.signature, inputs, given)
    fed = _as_the_file_takes(original, changes, inputs)
    if len(fed) < len(before.get_inputs()):
        return  # what only dropped outputs needed has no values here
    names = [each.name for each in before.get_outputs() if changes.renames.get(each.name, each.name) in published]
    try:
        said = before.run(names, fed)
    except Exception as error:  # as in `session`
        raise ModelInvalid(f"the file itself refuses these rows: {first_line(error)}") from error
    for name, answer in zip(names, said, strict=True):
        moved = np.moveaxis(np.asarray(answer), changes.batch_axes.get(name, 0), 0)
        if (apart := difference(moved, got[changes.renames.get(name, name)])) > TOLERANCE:
            raise ModelInvalid(f"output '{name}' differs by {apart:.2g} from the file's after the changes asked for")


def _as_the_file_takes(original: onnx.ModelProto, changes: Changes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    fed: dict[str, Array] = {}
    for each in original.graph.input:
        values = inputs.get(changes.renames.get(each.name, each.name))
        if each.name in changes.constants:
            dtype = helper.tensor_dtype_to_np_dtype(each.type.tensor_type.elem_type)
            fed[each.name] = np.array(changes.constants[each.name], dtype)
        elif values is not None:
            fed[each.name] = np.moveaxis(values, 0, changes.batch_axes.get(each.name, 0))
    return fed


def _rows_of(original: onnx.ModelProto, changes: Changes) -> int:
    """How many rows the file is made for; 0 when any number will do."""
    for each in original.graph.input:
        dimensions = each.type.tensor_type.shape.dim
        axis = changes.batch_axes.get(each.name, 0)
        if each.name not in changes.constants and axis < len(dimensions) and dimensions[axis].dim_value:
            return int(dimensions[axis].dim_value)
    return 0


def require_expected(declared: Declared, given: Samples) -> None:
    """The answers that the golden file says. Raises `ModelInvalid` naming the output, the row and both values."""
    if not given.expected:
        return
    found = answers(declared, given)
    for name, expected in given.expected.items():
        got = found[name]
        apart = difference(expected, got)
        if apart > EXPECTED_TOLERANCE:
            row = next(i for i in range(len(got)) if difference(expected[i], got[i]) > EXPECTED_TOLERANCE)
            raise ModelInvalid(
                f"this is not the model that made the golden file: output '{name}' differs by {apart:.2g} "
                f"(allowed: {EXPECTED_TOLERANCE:g}), first in row {row}"
            )


def answers(declared: Declared, given: Samples) -> Outputs:
    """To all rows, by output."""
    opened = session(declared.graph)
    parts = [
        _run(opened, declared.signature, _rows(given.inputs, i, i + COMPARED_ROWS), given)
        for i in range(0, given.rows, COMPARED_ROWS)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def difference(one: Array, other: Array) -> float:
    """The largest, of 1 + the value's size; infinite for another shape, other text, or NaN in other places."""
    if one.shape != other.shape:
        return float("inf")
    if one.dtype.kind in "OUS" or other.dtype.kind in "OUS":
        return 0.0 if (one.astype(object) == other.astype(object)).all() else float("inf")
    a, b = one.astype(np.float64), other.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(a - b) / (1.0 + np.abs(a)))
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))


def _rows(inputs: Mapping[str, Array], start: int, stop: int) -> dict[str, Array]:
    return {name: values[start:stop] for name, values in inputs.items()}


def _run(opened: ort.InferenceSession, signature: Signature, inputs: Mapping[str, Array], given: Samples) -> Outputs:
    names = [tensor.name for tensor in signature.outputs]
    rows = len(next(iter(inputs.values())))
    try:
        said = opened.run(names, dict(inputs))
    except Exception as error:  # as in `session`
        raise ModelInvalid(_fails(rows, error, given)) from error
    found = dict(zip(names, map(np.asarray, said), strict=True))
    for tensor in signature.outputs:
        _require_shape(tensor.name, tensor.shape, found[tensor.name].shape, rows)
    return found


def _fails(rows: int, error: Exception, given: Samples) -> str:
    said = f"a run of {rows} rows fails: {first_line(error)}"
    if given.is_real:
        return said
    return f"{said}. These rows were drawn: if the model needs others, give real ones with --golden, and lengths with --shape"


def _require_shape(name: str, declared: Sequence[int | str], got: Sequence[int], rows: int) -> None:
    wanted = (rows, *declared[1:])
    if len(got) != len(wanted) or any(isinstance(w, int) and w != g for w, g in zip(wanted, got, strict=False)):
        raise ModelInvalid(
            f"output '{name}' has shape {list(got)} for {rows} rows; declared is {list(declared)}. Its rows may be on another "
            f"axis (--batch-axis {name}=AXIS), or the graph works for another number of rows only"
        )
