"""Rows of named values, in and out: `{"rows": [{"carrier": "UA", ...}]}` becomes the signature's tensors.

Column names, types, bounds and missing columns are checked against the manifest by a decoder made once per version, so a refusal
names the row and the column, and checking costs what parsing costs.
"""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np

from gateway.contract.manifest import Column, Manifest, Tensor
from gateway.dataplane import Decoded, Encoded, Prediction, Sent
from gateway.errors import InvalidInput
from gateway.http import jsonbody, tensorjson
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
        values = [msgspec.structs.astuple(row) for row in rows]
        inputs = {tensor.name: _gather(tensor, [row[own] for row in values]) for tensor, own in plan.tensors}
        return Decoded(inputs, common_rows(inputs))

    def encode(self, outputs: Tensors, decoded: Decoded, resident: Resident[LoadedModel]) -> Encoded:
        """The `predictions` array alone; `seal` adds the receipt, which is only known once this has been paid for."""
        names: list[str] = []
        columns: list[list[Any]] = []
        for tensor in resident.manifest.signature.outputs:
            values = outputs[tensor.name]
            if tensor.columns:
                names += [column.name for column in tensor.columns]
                columns += [_listed(column) for column in values.T]
            else:
                names.append(tensor.name)
                columns.append(_listed(values))
        predictions = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        return Encoded(jsonbody.encode_numbers(predictions))

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
        self.tensors: list[tuple[Tensor, slice]] = []
        for tensor in manifest.signature.inputs:
            own = [(c.name, _column_kind(c)) for c in tensor.columns] or [(tensor.name, _tensor_kind(tensor))]
            fields = [f"f{len(kinds) + i}" for i in range(len(own))]
            kinds += [(field, kind) for field, (_, kind) in zip(fields, own, strict=True)]
            names |= {field: name for field, (name, _) in zip(fields, own, strict=True)}
            self.tensors.append((tensor, slice(len(kinds) - len(own), len(kinds))))
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


def _gather(tensor: Tensor, values: Sequence[Sequence[Any]]) -> Array:  # Any: by column
    """The tensor of all rows; null becomes NaN. Raises `InvalidInput` for what does not fit the tensor's datatype or shape."""
    try:
        return _of_columns(tensor, values) if tensor.columns else _of_field(tensor, values)
    except (ValueError, OverflowError, TypeError, FloatingPointError) as error:
        raise InvalidInput(f"{_named(tensor)} as {tensor.datatype}: {error}") from None


def _of_columns(tensor: Tensor, values: Sequence[Sequence[Any]]) -> Array:
    flat = list(chain.from_iterable(values))
    if None in flat:
        flat = [math.nan if value is None else value for value in flat]
    return tensorjson.from_list(tensor.datatype, flat).reshape(len(values), len(tensor.columns))


def _of_field(tensor: Tensor, values: Sequence[Sequence[Any]]) -> Array:
    with np.errstate(over="raise"):
        array = np.array([value for [value] in values], dtype=DTYPES[tensor.datatype])
    if array.ndim != len(tensor.shape) or any(
        isinstance(want, int) and got != want for got, want in zip(array.shape, tensor.shape, strict=True)
    ):
        raise InvalidInput(f"{_named(tensor)} has shape {list(array.shape[1:])}; expected {list(tensor.shape[1:])}")
    return array


def _named(tensor: Tensor) -> str:
    names = ", ".join(f"'{column.name}'" for column in tensor.columns)
    return f"columns {names}" if names else f"column '{tensor.name}'"


def _listed(values: Array) -> list[Any]:
    """By rows; numbers stay numpy's, so that a float32 is written with its own digits."""
    return values.tolist() if values.dtype == np.object_ else list(values)
