"""Rows of named values, in and out: `{"rows": [{"carrier": "UA", ...}]}` becomes the signature's tensors.

Column names, types, bounds and missing columns are checked against the manifest by a decoder made once per version, so a refusal
names the row and the column, and checking costs what parsing costs.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from gateway.contract.manifest import Column, Manifest, Tensor
from gateway.dataplane import Decoded, Encoded, Prediction, Sent
from gateway.errors import InvalidInput
from gateway.http import jsonbody
from gateway.repository.residents import Resident
from gateway.runtime.model import LoadedModel
from gateway.runtime.tensors import DTYPES, Array, Tensors, common_rows

Kind = Any  # a type expression for msgspec, built from data
_SCALARS: dict[str, type] = {"string": str, "number": float, "integer": int, "boolean": bool}
_ELEMENTS: dict[str, type] = {"BOOL": bool, "BYTES": str, "FP16": float, "FP32": float, "FP64": float}


class Rows:
    """The door that `POST /v1/predict/{model}` uses."""

    name = "rows"

    def decode(self, sent: Sent, resident: Resident[LoadedModel]) -> Decoded:
        plan = _plan(resident)
        rows = jsonbody.decode(plan.decoder, sent.body).rows
        if not rows:
            raise InvalidInput("'rows' is empty; send at least one row")
        inputs = {tensor.name: _gather(tensor, fields, rows) for tensor, fields in plan.tensors}
        return Decoded(inputs, common_rows(inputs))

    def encode(self, outputs: Tensors, decoded: Decoded, resident: Resident[LoadedModel]) -> Encoded:
        """The `predictions` array alone; `seal` adds the receipt, which is only known once this has been paid for."""
        names: list[str] = []
        columns: list[list[Any]] = []
        for tensor in resident.manifest.signature.outputs:
            values = outputs[tensor.name].tolist()
            if tensor.columns:
                names += [column.name for column in tensor.columns]
                columns += [list(column) for column in zip(*values, strict=True)]
            else:
                names.append(tensor.name)
                columns.append(values)
        return Encoded(jsonbody.encode([dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]))

    def seal(self, prediction: Prediction) -> bytes:
        receipt = prediction.receipt
        return b'{"model":"%s","version":%d,"predictions":%s,"receipt":%s}' % (
            receipt.model.encode(),
            receipt.version,
            prediction.answer.body,
            jsonbody.encode(receipt),
        )


def _plan(resident: Resident[LoadedModel]) -> "_Plan":
    memo = resident.model.memo
    if Rows.name not in memo:
        memo[Rows.name] = _Plan(resident.manifest)
    plan: _Plan = memo[Rows.name]
    return plan


class _Plan:
    """How one version's rows become its tensors."""

    def __init__(self, manifest: Manifest) -> None:
        kinds: list[tuple[str, Kind]] = []
        names: dict[str, str] = {}
        self.tensors: list[tuple[Tensor, list[str]]] = []
        for tensor in manifest.signature.inputs:
            own = [(c.name, _column_kind(c)) for c in tensor.columns] or [(tensor.name, _tensor_kind(tensor))]
            fields = [f"f{len(kinds) + i}" for i in range(len(own))]
            kinds += [(field, kind) for field, (_, kind) in zip(fields, own, strict=True)]
            names |= {field: name for field, (name, _) in zip(fields, own, strict=True)}
            self.tensors.append((tensor, fields))
        row = msgspec.defstruct("Row", kinds, rename=names, forbid_unknown_fields=True, gc=False)
        self.decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
            msgspec.defstruct("Body", [("rows", list[row])], forbid_unknown_fields=True)  # type: ignore[valid-type]  # a type made at run time
        )


def _column_kind(column: Column) -> Kind:
    kind: Kind = _SCALARS[column.datatype]
    whole = column.datatype == "integer"
    for bound, meta in ((column.minimum, _at_least), (column.maximum, _at_most)):
        if bound is not None:
            kind = Annotated[kind, meta(int(bound) if whole else bound)]
    return kind | None if column.nullable else kind


def _at_least(bound: float) -> msgspec.Meta:
    return msgspec.Meta(ge=bound)


def _at_most(bound: float) -> msgspec.Meta:
    return msgspec.Meta(le=bound)


def _tensor_kind(tensor: Tensor) -> Kind:
    """A tensor without columns is one field of the row: a value, or nested lists for the axes after `batch`."""
    kind: Kind = _ELEMENTS.get(tensor.datatype, int)
    for _ in tensor.shape[1:]:
        kind = list[kind]
    return kind


def _gather(tensor: Tensor, fields: Sequence[str], rows: Sequence[Any]) -> Array:
    """The tensor of all rows; null becomes NaN. Raises `InvalidInput` for what does not fit the tensor's datatype or shape."""
    what = "columns" if tensor.columns else "column"
    names = ", ".join(f"'{column.name}'" for column in tensor.columns) or f"'{tensor.name}'"
    values = [[getattr(row, field) for field in fields] for row in rows]
    try:
        with np.errstate(over="raise"):
            array = np.array(values if tensor.columns else [row[0] for row in values], dtype=DTYPES[tensor.datatype])
    except (ValueError, OverflowError, TypeError, FloatingPointError) as error:
        raise InvalidInput(f"{what} {names} as {tensor.datatype}: {error}") from None
    if array.ndim != len(tensor.shape) or any(
        isinstance(want, int) and got != want for got, want in zip(array.shape, tensor.shape, strict=True)
    ):
        raise InvalidInput(f"{what} {names} has shape {list(array.shape[1:])}; expected {list(tensor.shape[1:])}")
    return array
