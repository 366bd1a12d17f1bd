"""Whether what a recipe loaded is what its own signature declares, before anything is trained on it. Called by `trainers.intake`.

Without it a wrong type or width becomes a traceback out of torch, and a missing number a loss that is NaN an epoch later.
"""

import numpy as np

from gateway.contract.manifest import Signature, Tensor
from trainers.arrays import Array
from trainers.errors import DataError
from trainers.job import Data, Split

DTYPES = {"FP16": "float16", "FP32": "float32", "FP64": "float64", "BOOL": "bool"}
"""How numpy calls what the protocol calls otherwise; INT64 is int64 and BYTES are strings."""


def require(data: Data) -> None:
    """Raises `DataError` naming the split and the input."""
    for name, split in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        _require(name, split, data.signature)


def _require(name: str, split: Split, signature: Signature) -> None:
    lengths = {split.rows, *(len(values) for values in split.inputs.values())}
    if len(lengths) != 1 or not split.rows:
        raise DataError(f"the {name} split is empty or ragged: its arrays have {sorted(lengths)} rows")
    declared = {tensor.name: tensor for tensor in signature.inputs}
    if split.inputs.keys() != declared.keys():
        raise DataError(f"the {name} split has inputs {sorted(split.inputs)}; the signature has {sorted(declared)}")
    for tensor in signature.inputs:
        what = f"input '{tensor.name}' of the {name} split"
        _require_form(what, split.inputs[tensor.name], tensor)
        _require_numbers(what, split.inputs[tensor.name], tensor)


def _require_form(what: str, values: Array, tensor: Tensor) -> None:
    wanted = DTYPES.get(tensor.datatype, tensor.datatype.lower())
    is_right = values.dtype.kind in "OUST" if tensor.datatype == "BYTES" else values.dtype.name == wanted
    if not is_right:
        hint = "strings" if tensor.datatype == "BYTES" else f"{wanted}, as `.astype('{wanted}')` makes them"
        raise DataError(f"{what} is {values.dtype.name}; the signature says {tensor.datatype}: {hint}")
    fixed = [
        size == axis for size, axis in zip(values.shape[1:], tensor.shape[1:], strict=False) if isinstance(axis, int)
    ]
    if values.ndim != len(tensor.shape) or not all(fixed):
        raise DataError(f"{what} has shape {list(values.shape)}; the signature says {list(tensor.shape)}")


def _require_numbers(what: str, values: Array, tensor: Tensor) -> None:
    """Columns that may not be null have no NaN; images and series, which have no columns, are their recipe's business."""
    if values.dtype.kind != "f":
        return
    for index, column in enumerate(tensor.columns):
        missing = int(np.isnan(values[:, index]).sum())
        if missing and not column.nullable:
            raise DataError(
                f"{what}: column '{column.name}' is NaN in {missing:,} of {len(values):,} rows; fill them, or say "
                "`nullable=True` in its Column and let the module handle NaN"
            )
