"""SageMaker's `POST /invocations`: one path for every format, told apart by content type and by the body's keys.

JSON with `rows` or `instances` is answered with `predictions`, a list of protocol tensors in `inputs` with protocol tensors, and
`text/csv` with CSV when the caller accepts it. The receipt is in the headers only.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.calls import Decoded, Encoded, Prediction, Sent
from gateway.contract.manifest import TextInput
from gateway.errors import InvalidInput, ModelNotFound
from gateway.http import jsonbody, kservev1, rowplan
from gateway.http.kservev1 import V1Request
from gateway.http.openinference import HEADER, OpenInference
from gateway.repository.residents import Resident
from gateway.runtime.model import LoadedModel
from gateway.runtime.tensors import Tensors

TARGET = b"x-amzn-sagemaker-target-model"


class _Body(V1Request):
    rows: msgspec.Raw = msgspec.Raw()


class _CsvAsked(msgspec.Struct, frozen=True):
    """The caller sent CSV; whether it takes CSV back."""

    is_accepted: bool


_bodies = msgspec.json.Decoder(_Body)
_tensors = OpenInference()


def model_of(headers: Mapping[bytes, bytes], default_model: str) -> str:
    """The model that an invocation is for. Raises `ModelNotFound` when neither the header nor the option names one."""
    target = headers.get(TARGET)
    if target is not None:
        return target.decode("latin-1")
    if not default_model:
        raise ModelNotFound(
            "name a model in the header X-Amzn-SageMaker-Target-Model, or start the gateway with sagemaker.default_model"
        )
    return default_model


class Invocations:
    """The door that `POST /invocations` uses."""

    name = "sagemaker"

    def decode(self, sent: Sent, resident: Resident[LoadedModel]) -> Decoded:
        if _media_type(sent.headers.get(b"content-type", b"")) == b"text/csv":
            return _of_csv(sent, resident)
        if HEADER in sent.headers:
            return _tensors.decode(sent, resident)
        body = jsonbody.decode(_bodies, sent.body)
        if _is_tensors(body.inputs):
            return _tensors.decode(sent, resident)
        if memoryview(body.rows):
            body = _Body(instances=body.rows)
        return kservev1.decoded(body, resident)

    def encode(self, outputs: Tensors, decoded: Decoded, resident: Resident[LoadedModel]) -> Encoded:
        if decoded.asked is None:
            return Encoded(kservev1.predictions(outputs, resident))
        if not isinstance(decoded.asked, _CsvAsked):
            return _tensors.encode(outputs, decoded, resident)
        if not decoded.asked.is_accepted:
            return Encoded(kservev1.predictions(outputs, resident))
        return Encoded(_csv(rowplan.predictions(outputs, resident.manifest)), b"text/csv")

    def seal(self, prediction: Prediction) -> bytes:
        return prediction.answer.body


def _is_tensors(inputs: msgspec.Raw) -> bool:
    """Whether `inputs` is a list of objects that say their datatype."""
    if not bytes(memoryview(inputs)[:64]).translate(None, b" \t\r\n").startswith(b"[{"):
        return False
    return b'"datatype"' in bytes(inputs)


def _media_type(content_type: bytes) -> bytes:
    return content_type.partition(b";")[0].strip().lower()


def _of_csv(sent: Sent, resident: Resident[LoadedModel]) -> Decoded:
    """Lines without a head; the cells are the columns in the signature's order, an empty one is null, or an empty text."""
    text = resident.manifest.text
    of_text = text.tensors if isinstance(text, TextInput) else ()
    if not all(tensor.columns or tensor.name in of_text for tensor in resident.manifest.signature.inputs):
        raise InvalidInput(f"model '{resident.name}' has inputs without columns; send application/json")
    plan = rowplan.plan_of(resident)
    try:
        lines = [line for line in csv.reader(io.StringIO(str(sent.body, "utf-8"), newline="")) if line]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidInput(f"the body is not CSV: {error}") from None
    if not lines:
        raise InvalidInput("the body has no line; send at least one row")
    asked = _CsvAsked(b"text/csv" in sent.headers.get(b"accept", b""))
    return plan.decoded([_row(plan, number, cells) for number, cells in enumerate(lines, 1)], asked)


def _row(plan: rowplan.RowPlan, number: int, cells: Sequence[str]) -> Any:  # Any: the plan's row type
    if len(cells) != len(plan.names):
        raise InvalidInput(f"line {number} has {len(cells)} cells; the columns are {', '.join(plan.names)}")
    named = {name: cell if name == plan.text else cell or None for name, cell in zip(plan.names, cells, strict=True)}
    try:
        return msgspec.convert(named, plan.row, strict=False)  # not strict: a cell is text, whatever it means
    except msgspec.ValidationError as error:
        raise InvalidInput(f"line {number}: {error}") from None


def _csv(predictions: Sequence[dict[str, Any]]) -> bytes:
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(prediction.values() for prediction in predictions)
    return lines.getvalue().encode()
