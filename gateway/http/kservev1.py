"""KServe's V1 protocol, which is TensorFlow Serving's: `{"instances": [...]}` in, `{"predictions": [...]}` out.

An instance is an object of named values, as for the row door, or, for a model with one input, that input's row as nested lists; for
a model of text and nothing else, it may be the text.
`inputs` may stand for `instances`, or hold one list of all rows for each input by name.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.calls import Decoded, Encoded, Prediction, Sent
from gateway.contract.manifest import Tensor
from gateway.errors import InvalidInput
from gateway.http import jsonbody, rowplan, tensorjson
from gateway.repository.residents import Resident
from gateway.runtime.model import LoadedModel
from gateway.runtime.tensors import Tensors, common_rows


class V1Request(msgspec.Struct):
    """The body; unknown keys, such as `signature_name`, are ignored."""

    instances: msgspec.Raw = msgspec.Raw()
    inputs: msgspec.Raw = msgspec.Raw()


_requests = msgspec.json.Decoder(V1Request)
_by_name = msgspec.json.Decoder(dict[str, msgspec.Raw])
_texts: "msgspec.json.Decoder[Sequence[str]]" = msgspec.json.Decoder(list[rowplan.TEXT])


class V1:
    """The door that `POST /v1/models/{model}:predict` uses."""

    name = "v1"

    def decode(self, sent: Sent, resident: Resident[LoadedModel]) -> Decoded:
        request = jsonbody.decode(_requests, sent.body)
        return decoded(request, resident)

    def encode(self, outputs: Tensors, decoded: Decoded, resident: Resident[LoadedModel]) -> Encoded:
        return Encoded(predictions(outputs, resident))

    def seal(self, prediction: Prediction) -> bytes:
        return prediction.answer.body


def decoded(request: V1Request, resident: Resident[LoadedModel]) -> Decoded:
    """What was sent. Raises `InvalidInput`."""
    if bool(memoryview(request.instances)) == bool(memoryview(request.inputs)):
        raise InvalidInput("send 'instances', a list with one item per row, or 'inputs', but not both")
    if memoryview(request.instances):
        return _of_instances(request.instances, resident, "instances")
    if _first(request.inputs) == b"{":
        inputs = _of_columns(request.inputs, resident)
        return Decoded(inputs, common_rows(inputs))
    return _of_instances(request.inputs, resident, "inputs")


def predictions(outputs: Tensors, resident: Resident[LoadedModel]) -> bytes:
    """`{"predictions": [...]}`: values where there is one output, objects by name where there are several."""
    declared = resident.manifest.signature.outputs
    values: Any = rowplan.predictions(outputs, resident.manifest)
    if len(declared) == 1 and len(declared[0].columns) < 2:
        values = [value for row in values for value in row.values()]
    return b'{"predictions":%b}' % jsonbody.encode_numbers(values)


def _of_instances(data: msgspec.Raw, resident: Resident[LoadedModel], field: str) -> Decoded:
    if _first(data) != b"[":
        raise InvalidInput(f"'{field}' must be a list with one item per row")
    first = _first(data, b"[ \t\r\n")
    if first == b"]" and not _first(data, b"[] \t\r\n"):
        raise InvalidInput(f"'{field}' is empty; send at least one row")
    if first == b"{":
        return rowplan.plan_of(resident).decoded(_rows(data, resident))
    plan = rowplan.plan_of(resident)
    if first == b'"' and plan.names == (plan.text,):
        return plan.of_texts(jsonbody.decode_part(_texts, data), {})
    declared = resident.manifest.signature.inputs
    if len(declared) > 1:
        names = ", ".join(f"'{name}'" for name in plan.names)
        raise InvalidInput(f"model '{resident.name}' has several inputs: an instance must be an object with {names}")
    array = tensorjson.nested(declared[0], data)
    return Decoded({declared[0].name: array}, len(array))


def _rows(data: msgspec.Raw, resident: Resident[LoadedModel]) -> list[Any]:  # Any: the plan's row type
    memo = resident.model.memo
    if "v1 decoder" not in memo:
        kind: Any = list[rowplan.plan_of(resident).row]  # type: ignore[misc]  # a type made at run time
        memo["v1 decoder"] = msgspec.json.Decoder(kind)
    rows: list[Any] = jsonbody.decode_part(memo["v1 decoder"], data)
    return rows


def _of_columns(data: msgspec.Raw, resident: Resident[LoadedModel]) -> Tensors:
    declared: dict[str, Tensor] = {tensor.name: tensor for tensor in resident.manifest.signature.inputs}
    sent = jsonbody.decode_part(_by_name, data)
    if sent.keys() != declared.keys():
        names = ", ".join(f"'{name}'" for name in declared)
        raise InvalidInput(f"'inputs' must have one list of rows for each of model '{resident.name}': {names}")
    return {name: tensorjson.nested(tensor, sent[name]) for name, tensor in declared.items()}


def _first(data: msgspec.Raw, skipped: bytes = b" \t\r\n") -> bytes:
    """The first byte that is none of those."""
    return bytes(memoryview(data)[:256]).lstrip(skipped)[:1]
