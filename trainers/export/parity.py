"""Whether an exported graph answers what its module answers: at several batch sizes and lengths, and for rows out of the ordinary.

The first row of every batch has unknown categories only, the last one every number that may be missing missing, and where rows
have padding the last one is nothing else. Called by `exporting`.
"""

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
import torch

from gateway.contract.manifest import Tensor
from trainers.arrays import Array
from trainers.encoding import encoded
from trainers.errors import ExportError
from trainers.job import Data, cut
from trainers.objectives import Objective

BATCHES = (1, 2, 7, 64)
TOLERANCE = 1e-5
"""Of a probability; of other answers relative to the largest."""

LONG_BATCH_MAX = 7
"""Rows with a length cost more: what a large batch would show, a middle one shows."""

UNKNOWN_CATEGORY = "\N{WHITE QUESTION MARK ORNAMENT} not in any vocabulary"


def require(
    session: ort.InferenceSession, module: torch.nn.Module, data: Data, objective: Objective, lengths: Sequence[int]
) -> None:
    """Raises `ExportError` naming the first batch size and length at which they differ."""
    has_length = data.signature.has_length
    for length in (*lengths, None) if has_length else (None,):
        for batch in BATCHES:
            if not has_length or batch <= LONG_BATCH_MAX:
                where = f"at batch {batch}" + (f" of length {length}" if length else "")
                _require(session, module, data, objective, _rows(data, batch, length), where)


def _rows(data: Data, batch: int, length: int | None) -> dict[str, Array]:
    made = {}
    for tensor in data.signature.inputs:
        whole = data.test.inputs[tensor.name]
        values = np.resize(whole, (batch, *whole.shape[1:])).copy()
        values = values if length is None else cut(values, tensor.shape[1:], length)
        _make_unusual(values, tensor, is_mask=tensor.name == data.mask)
        made[tensor.name] = values
    return made


def _make_unusual(values: Array, tensor: Tensor, *, is_mask: bool) -> None:
    if tensor.datatype == "BYTES":
        values[0] = UNKNOWN_CATEGORY
    elif is_mask:
        values[-1] = 0
    elif tensor.datatype.startswith("FP"):
        for i, column in enumerate(tensor.columns):
            values[-1, i] = np.nan if column.nullable else values[-1, i]


def _require(
    session: ort.InferenceSession,
    module: torch.nn.Module,
    data: Data,
    objective: Objective,
    inputs: dict[str, Array],
    where: str,
) -> None:
    taken = [encoded(tensor, inputs[tensor.name], data.vocabularies) for tensor in data.signature.inputs]
    try:
        with torch.no_grad():
            answers = objective.answers(module(*taken))
        (got,) = session.run(None, inputs)
    except Exception as error:  # whatever a module or onnxruntime raises for a shape it cannot take
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"{where} the module or its graph fails: {reason}") from error
    expected = answers.reshape(-1, 1).numpy() if got.ndim == 2 and answers.ndim == 1 else answers.numpy()
    if got.shape != expected.shape:
        raise ExportError(f"{where} the graph returns shape {got.shape}, the module {expected.shape}")
    if (np.isnan(got) != np.isnan(expected)).any():
        raise ExportError(f"{where} the graph and the module differ in where they return NaN")
    scale = 1.0 if objective.head != "identity" else max(1.0, float(np.nanmax(np.abs(expected), initial=0.0)))
    difference = float(np.nanmax(np.abs(got - expected), initial=0.0)) / scale
    if difference > TOLERANCE:
        raise ExportError(
            f"{where} the graph's answers differ from the module's by up to {difference:.2e}; "
            f"allowed is {TOLERANCE:.0e}"
        )
