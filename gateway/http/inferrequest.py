"""The JSON of an Open Inference Protocol request, read but not yet checked against a model.

Two readers give the same: msgspec for most bodies, simdjson for long ones, which turns a tensor's numbers into an array without a
Python object for each. The second takes plain bodies only and leaves every other, and so nearly every refusal, to the first.
"""

from collections.abc import Mapping
from typing import Annotated, Any, get_args

import msgspec
import simdjson

from gateway.contract.words import Datatype
from gateway.errors import InvalidInput
from gateway.http import jsonbody, longjson
from gateway.runtime.tensors import Array

Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # longer ones are nobody's, and cannot all be printed
Parameter = str | Whole | float | bool | None
Parameters = dict[str, Parameter]

_FIELDS_MAX = 32  # of a plain object: simdjson looks for each from the first on, which is a square
_INPUTS_MAX = 64  # of a plain request
_DATATYPES = frozenset(get_args(Datatype))


class RequestInput(msgspec.Struct):
    """One input tensor as sent; `data` stays raw until its datatype is known, and is empty when it was not sent."""

    name: str
    shape: list[Whole]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: Parameters = {}


class RequestOutput(msgspec.Struct):
    """One output the caller wants."""

    name: str
    parameters: Parameters = {}


class InferRequest(msgspec.Struct):
    """The body of `POST .../infer`; unknown keys are ignored (OIP-6)."""

    inputs: list[RequestInput]
    id: str | None = None
    outputs: list[RequestOutput] | None = None
    parameters: Parameters = {}


Arrays = Mapping[int, Array]
"""Flat data that is read already, by the input's position."""

_NONE: Arrays = {}
_requests = msgspec.json.Decoder(InferRequest)


class _Counted(msgspec.Struct):
    inputs: list[msgspec.Raw] = []
    outputs: list[msgspec.Raw] | None = None


_counted = msgspec.json.Decoder(_Counted)


def read(body: jsonbody.Text, tensors_max: int) -> tuple[InferRequest, Arrays]:
    """The request. Raises `InvalidInput`: where the JSON breaks, which field has the wrong type, or that a long body has more than
    `tensors_max` inputs or outputs: those are counted before they are read.
    """
    if len(body) >= longjson.LONG_BYTES:
        found = read_long(body)
        if found is not None:
            return found
        jsonbody.check_structure(body)
        if jsonbody.opened(body)[1] > tensors_max:
            _refuse_many(jsonbody.decode_part(_counted, body), tensors_max)
        return jsonbody.decode_part(_requests, body), _NONE
    return jsonbody.decode(_requests, body), _NONE


def read_long(body: jsonbody.Text) -> tuple[InferRequest, Arrays] | None:
    """The same by simdjson, or None when the body is not plain: `read` then asks msgspec. Raises `InvalidInput`."""
    document = longjson.parse(body)
    if not isinstance(document, simdjson.Object):
        return None
    try:
        return _plain_request(document, *jsonbody.opened(body))
    except _NotPlainError:
        return None


def _refuse_many(request: _Counted, tensors_max: int) -> None:
    for field, tensors in (("inputs", request.inputs), ("outputs", request.outputs or [])):
        if len(tensors) > tensors_max:
            raise InvalidInput(f"the request has {len(tensors)} {field}; at most {tensors_max} are read for this model")


class _NotPlainError(Exception):
    """Not a refusal: msgspec decides."""


def _plain_request(document: simdjson.Object, brackets: int, braces: int) -> tuple[InferRequest, Arrays]:
    """Plain means: no key twice, no arrays but those the protocol has, and so no depth worth checking."""
    if braces >= jsonbody.DEPTH_MAX - longjson.DIMENSIONS_MAX - 4 or brackets > jsonbody.CONTAINERS_MAX:
        raise _NotPlainError
    fields = _fields(document)
    sent = fields.get("inputs")
    if not isinstance(sent, simdjson.Array) or len(sent) > _INPUTS_MAX:
        raise _NotPlainError
    inputs = [_fields(item) for item in sent]
    datas = [item.pop("data", None) for item in inputs]
    request = _converted(
        {
            "inputs": [_known(item) for item in inputs],
            "id": fields.get("id"),
            "outputs": _outputs(fields.get("outputs")),
            "parameters": _plain(fields.get("parameters", {})),
        }
    )
    arrays = {}
    known_brackets = 1 + len(inputs) + (request.outputs is not None)
    for at, data in enumerate(datas):
        if data is not None:
            arrays[at], count = _numbers(request.inputs[at], data)
            known_brackets += count
    if brackets != known_brackets:
        raise _NotPlainError
    return request, arrays


def _converted(plain: dict[str, Any]) -> InferRequest:  # Any: JSON
    try:
        return msgspec.convert(plain, InferRequest)
    except msgspec.ValidationError:
        raise _NotPlainError from None


def _numbers(sent: RequestInput, data: Any) -> tuple[Array, int]:  # Any: JSON
    if not isinstance(data, simdjson.Array) or sent.datatype not in _DATATYPES:
        raise _NotPlainError
    try:
        found = longjson.numbers(data, sent.datatype, sent.shape)  # type: ignore[arg-type]  # it is a datatype
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"input '{sent.name[:64]}', data: {error}") from None
    if found is None:
        raise _NotPlainError
    return found


def _fields(item: Any) -> dict[str, Any]:  # Any: JSON
    """An object's fields, if none is there twice."""
    if not isinstance(item, simdjson.Object):
        raise _NotPlainError
    names = list(item.keys())
    if len(names) > _FIELDS_MAX or len(names) != len(set(names)):
        raise _NotPlainError
    return {name: item[name] for name in names}  # `items()` would make Python objects of everything below


def _known(fields: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    return {name: _plain(fields[name]) for name in ("name", "shape", "datatype", "parameters") if name in fields}


def _outputs(outputs: Any) -> Any:  # Any: JSON
    if outputs is None:
        return None
    if not isinstance(outputs, simdjson.Array) or len(outputs) > _INPUTS_MAX:
        raise _NotPlainError
    return [_known(_fields(item)) for item in outputs]


def _plain(value: Any) -> Any:  # Any: JSON
    if isinstance(value, simdjson.Object):
        return {name: _plain(field) for name, field in _fields(value).items()}
    return value.as_list() if isinstance(value, simdjson.Array) else value


def whole_parameter(parameters: Parameters, name: str) -> int:
    """A parameter that is a whole number from 0; 0 when it is not there. Raises `InvalidInput`."""
    value = parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(f"parameter '{name}' must be a whole number from 0")
    return value


def flag_parameter(parameters: Parameters, name: str, *, default: bool) -> bool:
    """A parameter that is true or false. Raises `InvalidInput`."""
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidInput(f"parameter '{name}' must be true or false")
    return value


def refuse_unserved(parameters: Parameters) -> None:
    """Sequences (OIP-14) and shared memory are refused rather than answered wrongly. Raises `InvalidInput`."""
    if not parameters:
        return
    if parameters.get("sequence_id") or parameters.get("sequence_start") or parameters.get("sequence_end"):
        raise InvalidInput("sequences are not served: every request stands alone; leave 'sequence_id' out")
    if "shared_memory_region" in parameters:
        raise InvalidInput("shared memory is not served; send the tensor in the body")
