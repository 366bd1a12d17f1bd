"""How one version's rows of named values become its tensors, and its tensors rows again; the doors that speak of rows share it.

Column names, types, bounds and missing columns are checked against the manifest by a type made once per version, so a refusal names
the row and the column, and checking costs what parsing costs.
"""

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np

from gateway.calls import Decoded
from gateway.contract.manifest import Column, Manifest, Tensor, TextInput
from gateway.errors import InvalidInput
from gateway.http import tensorjson
from gateway.repository.residents import Resident
from gateway.runtime.model import LoadedModel
from gateway.runtime.parts import Ragged
from gateway.runtime.tensors import Array, Tensors, check_elements
from gateway.runtime.texts import CHARACTERS_MAX, Texts, is_long

Kind = Any  # a type expression for msgspec, built from data
_SCALARS: dict[str, type] = {"string": str, "number": float, "integer": int, "boolean": bool}
_ELEMENTS: dict[str, type] = {"BOOL": bool, "BYTES": str, "FP16": float, "FP32": float, "FP64": float}


TEXT: Kind = Annotated[str, msgspec.Meta(max_length=CHARACTERS_MAX)]


class RowPlan:
    """`row` is the type of one row, a Struct; `names` are its columns in the signature's order. `text` names the one, if any, that
    `texts` reads; the tensors it becomes are no columns.
    """

    def __init__(self, manifest: Manifest, texts: Texts | None = None) -> None:
        kinds: list[tuple[str, Kind]] = []
        names: dict[str, str] = {}
        text = manifest.text if isinstance(manifest.text, TextInput) else None
        self.text = text.column if text else ""
        self._texts = texts
        self._text_at = -1
        self._order = tuple(tensor.name for tensor in manifest.signature.inputs)
        self._tensors: list[tuple[Tensor, slice]] = []
        for tensor in manifest.signature.inputs:
            if text and tensor.name in text.tensors:
                if tensor.name == text.ids:
                    self._text_at = len(kinds)
                    names[f"f{len(kinds)}"] = text.column
                    kinds.append((f"f{len(kinds)}", TEXT))
                continue
            own = [(c.name, _column_kind(c)) for c in tensor.columns] or [(tensor.name, _tensor_kind(tensor))]
            fields = [f"f{len(kinds) + i}" for i in range(len(own))]
            kinds += [(field, kind) for field, (_, kind) in zip(fields, own, strict=True)]
            names |= {field: name for field, (name, _) in zip(fields, own, strict=True)}
            self._tensors.append((tensor, slice(len(kinds) - len(own), len(kinds))))
        self.names = tuple(names.values())
        self.row: Kind = msgspec.defstruct("Row", kinds, rename=names, forbid_unknown_fields=True, gc=False)

    def decoded(self, rows: Sequence[Any], asked: object = None) -> Decoded:  # Any: instances of `row`
        """The request of these rows. Raises `InvalidInput` naming the columns that do not fit their tensor."""
        for tensor, own in self._tensors:
            check_elements(tensor, len(rows) * (own.stop - own.start))
        values = [msgspec.structs.astuple(row) for row in rows]
        inputs = {tensor.name: _gather(tensor, [row[own] for row in values]) for tensor, own in self._tensors}
        if self._text_at < 0:
            return Decoded(inputs, len(rows), asked)
        return self.of_texts([row[self._text_at] for row in values], inputs, asked)

    def of_texts(self, texts: Sequence[str], others: Tensors, asked: object = None) -> Decoded:
        """The request of these texts, and of the inputs beside them. Raises `InvalidInput`."""
        reader = self._texts
        assert reader is not None

        def read(is_over: Callable[[], bool] = lambda: False) -> tuple[Tensors, Ragged] | None:
            found = reader.read(texts, is_over)
            if found is None:
                return None
            inputs = others | found[0]
            return {name: inputs[name] for name in self._order}, found[1]  # in one order, so that all share batches

        if is_long(texts):
            return Decoded({}, len(texts), asked, rest=read)
        found = read()
        assert found is not None
        return Decoded(found[0], len(texts), asked, ragged=found[1])


def plan_of(resident: Resident[LoadedModel]) -> RowPlan:
    """Made once per version in memory."""
    memo = resident.model.memo
    plan = memo.get("rows")
    if plan is None:
        texts = None if resident.manifest.tokenizer is None else resident.model.texts
        plan = memo["rows"] = RowPlan(resident.manifest, texts)
    found: RowPlan = plan
    return found


def predictions(
    outputs: Tensors, manifest: Manifest
) -> list[dict[str, Any]]:  # Any: numbers, text, lists, numpy's arrays
    """One object per row, by output column, or by tensor where there are no columns."""
    names: list[str] = []
    columns: list[list[Any]] = []
    for tensor in manifest.signature.outputs:
        values = outputs[tensor.name]
        if tensor.columns:
            names += [column.name for column in tensor.columns]
            columns += [_listed(column) for column in values.T]
        else:
            names.append(tensor.name)
            columns.append(_listed(values))
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


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
    except (ValueError, OverflowError, TypeError) as error:
        raise InvalidInput(f"{_named(tensor)} as {tensor.datatype}: {error}") from None


def _of_columns(tensor: Tensor, values: Sequence[Sequence[Any]]) -> Array:
    flat = list(chain.from_iterable(values))
    if None in flat:
        if not tensor.datatype.startswith("FP"):
            raise ValueError(f"null cannot be {tensor.datatype}")
        flat = [math.nan if value is None else value for value in flat]
    return tensorjson.from_list(tensor.datatype, flat).reshape(len(values), len(tensor.columns))


def _of_field(tensor: Tensor, values: Sequence[Sequence[Any]]) -> Array:
    array = tensorjson.from_lists(tensor.datatype, [value for [value] in values], len(tensor.shape))
    if any(isinstance(want, int) and got != want for got, want in zip(array.shape, tensor.shape, strict=True)):
        raise InvalidInput(f"{_named(tensor)} has shape {list(array.shape[1:])}; expected {list(tensor.shape[1:])}")
    return array


def _named(tensor: Tensor) -> str:
    names = ", ".join(f"'{column.name}'" for column in tensor.columns)
    return f"columns {names}" if names else f"column '{tensor.name}'"


def _listed(values: Array) -> list[Any]:
    """By rows; floats stay numpy's, so that a float32 is written with its own digits.

    Whole numbers do not: onnxruntime's int64 is numpy's longlong, which orjson does not know as a scalar.
    """
    is_whole = values.ndim == 1 and values.dtype.kind in "iu"
    return values.tolist() if values.dtype == np.object_ or is_whole else list(values)
