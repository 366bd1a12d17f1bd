"""The Open Inference Protocol's JSON tensors, in and out. Rules are cited by their numbers in protocol v2's REST text.

Tensor data may be nested or flat, row-major (rule 8); an answer carries `model_name`, which clients insist on (rule 9).
"""

from functools import cache
from typing import Any

import msgspec
import numpy as np

from gateway.contract.manifest import Manifest, Tensor
from gateway.contract.words import Datatype
from gateway.dataplane import Decoded, Encoded, Prediction, Sent
from gateway.errors import InvalidInput
from gateway.http import jsonbody
from gateway.repository.residents import Resident
from gateway.runtime.model import LoadedModel
from gateway.runtime.tensors import DTYPES, Array, Tensors, check_shape, common_rows, shaped

Parameter = str | float | bool | None


class RequestInput(msgspec.Struct):
    """One input tensor as sent; `data` stays raw until its datatype is known."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw
    parameters: dict[str, Parameter] = {}


class RequestOutput(msgspec.Struct):
    """One output the caller wants."""

    name: str
    parameters: dict[str, Parameter] = {}


class InferRequest(msgspec.Struct):
    """The body of `POST .../infer`; unknown keys are ignored (rule 6)."""

    inputs: list[RequestInput]
    id: str | None = None
    outputs: list[RequestOutput] | None = None
    parameters: dict[str, Parameter] = {}


class ResponseOutput(msgspec.Struct):
    """One output tensor; `data` is flat."""

    name: str
    shape: list[int]
    datatype: Datatype
    data: list[Any]  # Any: numbers, booleans or strings, by datatype


class InferResponse(msgspec.Struct, omit_defaults=True):
    """The answer's body."""

    model_name: str
    model_version: str
    outputs: list[ResponseOutput]
    id: str | None = None


class _Asked(msgspec.Struct, frozen=True):
    id: str | None
    outputs: list[str]


_requests = msgspec.json.Decoder(InferRequest)

_ELEMENTS: dict[str, type] = {"BOOL": bool, "BYTES": str, "FP32": float, "FP64": float}


class JsonTensors:
    """The door that `POST /v2/models/{model}/infer` uses."""

    name = "oip"

    def decode(self, sent: Sent, resident: Resident[LoadedModel]) -> Decoded:
        manifest = resident.manifest
        request = jsonbody.decode(_requests, sent.body)
        declared = {tensor.name: tensor for tensor in manifest.signature.inputs}
        inputs: Tensors = {}
        for tensor in request.inputs:
            if tensor.name not in declared:
                raise InvalidInput(
                    f"model '{manifest.model}' has no input '{tensor.name}'; it has: {_listed(declared)}"
                )
            if tensor.name in inputs:
                raise InvalidInput(f"input '{tensor.name}' appears twice")
            inputs[tensor.name] = _tensor(declared[tensor.name], tensor)
        missing = declared.keys() - inputs.keys()
        if missing:
            raise InvalidInput(
                f"input '{min(missing)}' is missing; model '{manifest.model}' needs: {_listed(declared)}"
            )
        return Decoded(inputs, common_rows(inputs), _Asked(request.id, _wanted(request, manifest)))

    def encode(self, outputs: Tensors, decoded: Decoded, resident: Resident[LoadedModel]) -> Encoded:
        asked = decoded.asked
        assert isinstance(asked, _Asked)
        datatypes = {tensor.name: tensor.datatype for tensor in resident.manifest.signature.outputs}
        answer = jsonbody.encode(
            InferResponse(
                model_name=resident.name,
                model_version=str(resident.version),
                id=asked.id,
                outputs=[
                    ResponseOutput(name, list(outputs[name].shape), datatypes[name], outputs[name].ravel().tolist())
                    for name in asked.outputs
                ],
            )
        )
        return Encoded(answer)

    def seal(self, prediction: Prediction) -> bytes:
        return prediction.answer.body


def _wanted(request: InferRequest, manifest: Manifest) -> list[str]:
    """The outputs to answer with: all, or exactly those asked for (rule 10)."""
    known = [tensor.name for tensor in manifest.signature.outputs]
    if not request.outputs:
        return known
    names = [output.name for output in request.outputs]
    for name in names:
        if name not in known:
            raise InvalidInput(f"model '{manifest.model}' has no output '{name}'; it has: {_listed(known)}")
        if names.count(name) > 1:
            raise InvalidInput(f"output '{name}' already exists in request")
    return names


def _tensor(tensor: Tensor, sent: RequestInput) -> Array:
    if sent.datatype != tensor.datatype:
        raise InvalidInput(f"input '{tensor.name}' is {sent.datatype[:16]}; the model takes {tensor.datatype}")
    if tensor.datatype == "FP16":
        raise InvalidInput(f"input '{tensor.name}': FP16 cannot be sent as JSON (rule 11)")
    check_shape(tensor, sent.shape)
    depth = _depth(sent.data)
    try:
        values = _decoder(tensor.datatype, depth).decode(sent.data)
        flat = np.array(values, dtype=DTYPES[tensor.datatype])
    except (msgspec.ValidationError, OverflowError, ValueError) as error:
        raise InvalidInput(f"input '{tensor.name}', data: {error}") from None
    if flat.ndim != depth or (depth > 1 and list(flat.shape) != sent.shape):
        raise InvalidInput(f"input '{tensor.name}', data: nested as {list(flat.shape)}; its shape says {sent.shape}")
    return shaped(tensor, flat.ravel(), sent.shape)


def _depth(raw: msgspec.Raw) -> int:
    """How deeply the data is nested: the brackets it opens with."""
    head = bytes(memoryview(raw)[:256]).translate(None, b" \t\r\n")
    return len(head) - len(head.lstrip(b"["))


@cache
def _decoder(datatype: Datatype, depth: int) -> "msgspec.json.Decoder[Any]":  # Any: nested lists of the element type
    if not 1 <= depth <= 16:
        raise ValueError("expected an array nested at most 16 deep")
    kind: Any = _ELEMENTS.get(datatype, int)
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind)


def _listed(names: Any) -> str:  # Any: any iterable of names
    return ", ".join(f"'{name}'" for name in names)
