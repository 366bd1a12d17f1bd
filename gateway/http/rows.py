"""Rows of named values, in and out: `{"rows": [{"carrier": "UA", ...}]}` becomes the signature's tensors. Where the manifest has
labels, an answer begins with the `label` that won and its `score`.

What a row must be is `gateway.http.rowplan`'s business.
"""

from typing import Any

import msgspec

from gateway.calls import Decoded, Encoded, Prediction, Sent
from gateway.errors import InvalidInput
from gateway.http import classification, jsonbody, rowplan
from gateway.repository.residents import Resident
from gateway.runtime.model import LoadedModel
from gateway.runtime.tensors import Tensors


class Rows:
    """The door that `POST /v1/predict/{model}` uses."""

    name = "rows"

    def decode(self, sent: Sent, resident: Resident[LoadedModel]) -> Decoded:
        memo = resident.model.memo
        decoder = memo.get("rows decoder")
        if decoder is None:
            decoder = memo["rows decoder"] = _decoder(rowplan.plan_of(resident).row)
        rows = jsonbody.decode(decoder, sent.body).rows
        if not rows:
            raise InvalidInput("'rows' is empty; send at least one row")
        return rowplan.plan_of(resident).decoded(rows)

    def encode(self, outputs: Tensors, decoded: Decoded, resident: Resident[LoadedModel]) -> Encoded:
        """The `predictions` array alone; `seal` adds the receipt, which is only known once this has been paid for."""
        predictions = rowplan.predictions(outputs, resident.manifest)
        memo = resident.model.memo
        if "labelled" not in memo:
            memo["labelled"] = classification.labelled(resident.manifest)
        if (tensor := memo["labelled"]) is not None:
            named = classification.winners(tensor, outputs, resident.manifest.labels)
            predictions = [{**label, **row} for label, row in zip(named, predictions, strict=True)]
        return Encoded(jsonbody.encode_numbers(predictions))

    def seal(self, prediction: Prediction) -> bytes:
        receipt = prediction.receipt
        return b'{"model":"%s","version":%d,"predictions":%s,"receipt":%s}' % (
            receipt.model.encode(),
            receipt.version,
            prediction.answer.body,
            jsonbody.encode(receipt),
        )


def _decoder(row: Any) -> "msgspec.json.Decoder[Any]":  # Any: a type made at run time
    return msgspec.json.Decoder(msgspec.defstruct("Body", [("rows", list[row])], forbid_unknown_fields=True))
