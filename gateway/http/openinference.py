"""The Open Inference Protocol's door: tensors as JSON, as bytes, or mixed, in and out. Rules are cited by number (OIP-15).

A body is JSON, followed by raw tensors when the header `Inference-Header-Content-Length` says where the JSON ends. That header
decides, never the content type (OIP-5). An answer carries `model_name`, which clients insist on (OIP-9).

A model of text takes its tokens, as its metadata says, or in their place the texts: BYTES of shape [rows] or [rows, 1] under the
name of the text's column.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gateway.calls import Decoded, Encoded, Prediction, Sent
from gateway.contract.manifest import Manifest, Tensor, TextInput
from gateway.errors import InvalidInput
from gateway.http import classification, inferrequest, jsonbody, rawrequest, rowplan, tensorbytes, tensorjson
from gateway.http.inferrequest import InferRequest, RequestInput, RequestOutput
from gateway.repository.residents import Resident
from gateway.runtime.model import LoadedModel
from gateway.runtime.tensors import Array, Tensors, check_elements, check_shape, common_rows, shaped
from gateway.runtime.texts import CHARACTERS_MAX

HEADER = b"inference-header-content-length"
SURPLUS_MAX = 16
"""Inputs or outputs beyond the model's that are read, to be named in the refusal; more are only counted."""
_RESERVED = b'{"model_name":%b,"model_version":"%d"'


class Wanted(msgspec.Struct, frozen=True):
    """One output to answer with. `head` is its JSON up to the shape; `classes` 0 means the tensor itself."""

    tensor: Tensor
    head: bytes
    is_binary: bool = False
    classes: int = 0


class _Asked(msgspec.Struct, frozen=True):
    id: str | None
    outputs: Sequence[Wanted]


Declared = Mapping[str, tuple[Tensor, list[int] | None, int]]
"""Inputs by name: each tensor, the shape of its rows where nothing is open, and how many elements that is."""


class _Plan:
    """What one version's requests are read and answered with, made once."""

    def __init__(self, resident: Resident[LoadedModel]) -> None:
        signature = resident.manifest.signature
        self.inputs: Declared = {
            tensor.name: (tensor, row := _row_shape(tensor), math.prod(row or ())) for tensor in signature.inputs
        }
        text = resident.manifest.text
        self.text = text.column if isinstance(text, TextInput) else ""
        self.beside_text = _beside_text(text, self.inputs) if isinstance(text, TextInput) else {}
        self.outputs = {tensor.name: _wanted(tensor) for tensor in signature.outputs}
        self.tensors_max = max(len(self.inputs), len(self.outputs)) + SURPLUS_MAX
        self.as_json = tuple(self.outputs.values())
        self.as_bytes = tuple(_wanted(tensor, is_binary=True) for tensor in signature.outputs)
        self.head = _RESERVED % (jsonbody.encode(resident.name), resident.version)


class OpenInference:
    """The door that `POST /v2/models/{model}/infer` uses."""

    name = "oip"

    def decode(self, sent: Sent, resident: Resident[LoadedModel]) -> Decoded:
        plan = _plan(resident)
        length = sent.headers.get(HEADER)
        if length is None:
            head, rest = sent.body, None
        else:
            end = _json_bytes(length, len(sent.body))
            if not end:
                inputs = rawrequest.read(resident.manifest, memoryview(sent.body))
                return Decoded(inputs, 1, _Asked(None, plan.as_bytes))
            body = memoryview(sent.body)
            head, rest = body[:end], body[end:]
        request, arrays = inferrequest.read(head, plan.tensors_max)
        dimensions = _text_dimensions(plan, request) if plan.text else 0
        declared = plan.beside_text[dimensions] if dimensions else plan.inputs
        inputs = _inputs(declared, resident.manifest, request, arrays, rest)
        asked = _Asked(request.id, _outputs(plan, resident.manifest, request))
        if dimensions:
            return _of_texts(plan, resident, request, inputs, asked)
        if not request.parameters:
            return Decoded(inputs, common_rows(inputs), asked)
        inferrequest.refuse_unserved(request.parameters)
        return Decoded(
            inputs,
            common_rows(inputs),
            asked,
            inferrequest.whole_parameter(request.parameters, "timeout"),
            inferrequest.whole_parameter(request.parameters, "priority"),
        )

    def encode(self, outputs: Tensors, decoded: Decoded, resident: Resident[LoadedModel]) -> Encoded:
        asked = decoded.asked
        assert isinstance(asked, _Asked)
        raw: list[memoryview] = []
        parts = [_output(wanted, outputs[wanted.tensor.name], resident.manifest, raw) for wanted in asked.outputs]
        own_id = b"" if asked.id is None else b',"id":' + jsonbody.encode(asked.id)
        head = b'%b%b,"outputs":[%b]}' % (_plan(resident).head, own_id, b",".join(parts))
        if not raw:
            return Encoded(head)
        return Encoded(b"".join([head, *raw]), b"application/octet-stream", ((HEADER, b"%d" % len(head)),))

    def seal(self, prediction: Prediction) -> bytes:
        return prediction.answer.body


def _plan(resident: Resident[LoadedModel]) -> _Plan:
    memo = resident.model.memo
    plan = memo.get(OpenInference.name)
    if plan is None:
        plan = memo[OpenInference.name] = _Plan(resident)
    found: _Plan = plan
    return found


def _beside_text(text: TextInput, inputs: Declared) -> dict[int, Declared]:
    """The inputs with the texts in place of their tokens, by the dimensions of the texts' shape."""
    others = {name: input_ for name, input_ in inputs.items() if name not in text.tensors}
    flat, column = Tensor(text.column, "BYTES", ("batch",)), Tensor(text.column, "BYTES", ("batch", 1))
    return {1: others | {text.column: (flat, [], 1)}, 2: others | {text.column: (column, [1], 1)}}


def _text_dimensions(plan: _Plan, request: InferRequest) -> int:
    """Of the texts' shape, 1 or 2; 0 when tokens were sent."""
    found = next((sent for sent in request.inputs if sent.name == plan.text), None)
    return 0 if found is None else 2 if len(found.shape) == 2 else 1


def _of_texts(
    plan: _Plan, resident: Resident[LoadedModel], request: InferRequest, inputs: Tensors, asked: _Asked
) -> Decoded:
    common_rows(inputs)
    texts: list[str] = inputs.pop(plan.text).ravel().tolist()
    longest = max(map(len, texts))
    if longest > CHARACTERS_MAX:
        raise InvalidInput(
            f"input '{plan.text}' has a text of {longest} characters; at most {CHARACTERS_MAX} are taken"
        )
    decoded = rowplan.plan_of(resident).of_texts(texts, inputs, asked)
    inferrequest.refuse_unserved(request.parameters)
    return msgspec.structs.replace(
        decoded,
        timeout_us=inferrequest.whole_parameter(request.parameters, "timeout"),
        priority=inferrequest.whole_parameter(request.parameters, "priority"),
    )


def _json_bytes(header: bytes, body_bytes: int) -> int:
    """Where the JSON ends (OIP-20). 0 means that there is none."""
    if not header.isdigit():
        raise InvalidInput("Inference-Header-Content-Length must be a whole number of bytes")
    if len(header) > 18 or int(header) > body_bytes:
        raise InvalidInput(f"Inference-Header-Content-Length is more than the body's {body_bytes} bytes")
    return int(header)


def _inputs(
    declared: Declared, manifest: Manifest, request: InferRequest, arrays: inferrequest.Arrays, rest: memoryview | None
) -> Tensors:
    inputs: Tensors = {}
    at = 0
    for index, sent in enumerate(request.inputs):
        if sent.name not in declared:
            raise InvalidInput(f"model '{manifest.model}' has no input '{sent.name[:64]}'; it has: {_listed(declared)}")
        tensor, row_shape, row_elements = declared[sent.name]
        if sent.name in inputs:
            raise InvalidInput(f"input '{sent.name}' appears twice")
        if sent.datatype != tensor.datatype:
            raise InvalidInput(f"input '{tensor.name}' is {sent.datatype[:16]}; the model takes {tensor.datatype}")
        shape = sent.shape
        if not (shape and shape[0] > 0 and shape[1:] == row_shape):
            check_shape(tensor, shape)
        else:
            check_elements(tensor, shape[0] * row_elements)
        if index in arrays:
            _refuse_both(sent)
            inputs[sent.name] = shaped(tensor, arrays[index], shape)
        elif memoryview(sent.data):
            _refuse_both(sent)
            inputs[sent.name] = tensorjson.array(tensor, sent.data, shape)
        else:
            piece = _piece(sent, rest, at)
            at += len(piece)
            inputs[sent.name] = tensorbytes.read(tensor, piece, shape)
    if rest is not None and at != len(rest):
        raise InvalidInput(f"{len(rest) - at} bytes follow the last tensor")
    if len(inputs) != len(declared):
        missing = min(declared.keys() - inputs.keys())
        raise InvalidInput(f"input '{missing}' is missing; model '{manifest.model}' needs: {_listed(declared)}")
    if len(inputs) == 1:
        return inputs
    return {name: inputs[name] for name in declared}  # in one order, so that those in any order share a batch


def _refuse_both(sent: RequestInput) -> None:
    if sent.parameters:
        inferrequest.refuse_unserved(sent.parameters)
        if "binary_data_size" in sent.parameters:
            raise InvalidInput(f"input '{sent.name}' has both 'data' and 'binary_data_size'; send one of them")


def _piece(sent: RequestInput, rest: memoryview | None, at: int) -> memoryview:
    """The bytes of an input that has no `data` (OIP-16)."""
    inferrequest.refuse_unserved(sent.parameters)
    if "binary_data_size" not in sent.parameters:
        raise InvalidInput(f"input '{sent.name}' has neither 'data' nor the parameter 'binary_data_size'")
    size = inferrequest.whole_parameter(sent.parameters, "binary_data_size")
    if rest is None:
        raise InvalidInput(
            f"input '{sent.name}' is binary; the header Inference-Header-Content-Length must say where the JSON ends"
        )
    if size > len(rest) - at:
        raise InvalidInput(f"input '{sent.name}' says {size} bytes; {len(rest) - at} are left of the body")
    return rest[at : at + size]


def _outputs(plan: _Plan, manifest: Manifest, request: InferRequest) -> Sequence[Wanted]:
    """The outputs to answer with: all, or exactly those asked for (OIP-10), as JSON or as bytes (OIP-18)."""
    is_binary = bool(request.parameters) and inferrequest.flag_parameter(
        request.parameters, "binary_data_output", default=False
    )
    if not request.outputs:
        return plan.as_bytes if is_binary else plan.as_json
    names = set()
    for output in request.outputs:
        if output.name not in plan.outputs:
            known = _listed(plan.outputs)
            raise InvalidInput(f"model '{manifest.model}' has no output '{output.name[:64]}'; it has: {known}")
        if output.name in names:
            raise InvalidInput(f"output '{output.name}' already exists in request")
        names.add(output.name)
    return [_asked_for(plan.outputs[output.name], output, is_binary=is_binary) for output in request.outputs]


def _asked_for(wanted: Wanted, output: RequestOutput, *, is_binary: bool) -> Wanted:
    if output.parameters:
        inferrequest.refuse_unserved(output.parameters)
        is_binary = inferrequest.flag_parameter(output.parameters, "binary_data", default=is_binary)
        return _wanted(
            wanted.tensor, is_binary=is_binary, classes=classification.classes(wanted.tensor, output.parameters)
        )
    return _wanted(wanted.tensor, is_binary=is_binary) if is_binary else wanted


def _wanted(tensor: Tensor, *, is_binary: bool = False, classes: int = 0) -> Wanted:
    datatype = b"BYTES" if classes else tensor.datatype.encode()
    head = b'{"name":%b,"datatype":"%b","shape":' % (jsonbody.encode(tensor.name), datatype)
    return Wanted(tensor, head, is_binary, classes)


def _output(wanted: Wanted, array: Array, manifest: Manifest, raw: list[memoryview]) -> bytes:
    """The output's JSON; its bytes go to `raw` when they are to follow."""
    if wanted.classes:
        array = classification.classify(array, wanted.classes, manifest.labels)
    shape = jsonbody.encode_numbers(array.shape)
    if not wanted.is_binary:
        return b'%b%b,"data":%b}' % (wanted.head, shape, tensorjson.encode(array))
    data = tensorbytes.write(array)
    raw.append(data)
    return b'%b%b,"parameters":{"binary_data_size":%d}}' % (wanted.head, shape, data.nbytes)


def _row_shape(tensor: Tensor) -> list[int] | None:
    """The shape after the rows, when the signature leaves nothing open: one comparison says that a request's is right."""
    dimensions = [dimension for dimension in tensor.shape[1:] if isinstance(dimension, int)]
    return dimensions if len(dimensions) == len(tensor.shape) - 1 else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
