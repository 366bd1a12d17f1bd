"""Both doors: what they accept, and that a refusal names the field."""

import json
from typing import Any

import numpy as np
import pytest

from gateway.calls import Sent
from gateway.contract.manifest import Column, Signature, Tensor
from gateway.errors import InvalidInput
from gateway.http.openinference import OpenInference
from gateway.http.rows import Rows
from tests.support.models import TINY_EXAMPLES, TINY_SIGNATURE
from tests.support.residents import resident_of

TINY = resident_of(TINY_SIGNATURE)
IMAGE = resident_of(
    Signature((Tensor("pixels", "UINT8", ("batch", 2, 3)),), (Tensor("scores", "FP32", ("batch", 2)),)), name="image"
)
ROW: dict[str, Any] = dict(TINY_EXAMPLES.rows[0])


def decode_rows(body: object, resident: Any = TINY) -> Any:
    return Rows().decode(Sent(body if isinstance(body, bytes) else json.dumps(body).encode()), resident)


def decode_tensors(body: object, resident: Any = TINY) -> Any:
    return OpenInference().decode(Sent(body if isinstance(body, bytes) else json.dumps(body).encode()), resident)


def tensor(name: str = "numbers", shape: Any = (1, 3), datatype: str = "FP32", data: Any = (1, 2, 3)) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


STRINGS = tensor("categories", (1, 2), "BYTES", ["AA", "JFK"])


def test_rows_become_the_signatures_tensors() -> None:
    decoded = decode_rows({"rows": list(TINY_EXAMPLES.rows)})
    assert decoded.rows == 3
    assert decoded.inputs["categories"].tolist() == [["AA", "JFK"], ["UA", "LGA"], ["ZZ", "EWR"]]
    numbers = decoded.inputs["numbers"]
    assert numbers.dtype == np.float32
    assert numbers[0].tolist() == [7, 733, 12.5]
    assert np.isnan(numbers[1, 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hour": None}, r"Expected `int`, got `null`.*\$\.rows\[0\]\.hour"),
        ({"hour": 24}, r"<= 23.*\$\.rows\[0\]\.hour"),
        ({"hour": 7.5}, r"Expected `int`, got `float`.*hour"),
        ({"hour": True}, r"hour"),
        ({"distance": "far"}, r"Expected `float`, got `str`.*\$\.rows\[0\]\.distance"),
        ({"distance": -1}, r">= 0.*distance"),
        ({"carrier": 7}, r"Expected `str`, got `int`.*carrier"),
        ({"carrer": "AA"}, r"unknown field `carrer`.*\$\.rows\[0\]"),
        ({"wind": [1]}, r"wind"),
    ],
)
def test_a_wrong_value_names_row_and_column(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        decode_rows({"rows": [ROW | change]})


@pytest.mark.parametrize("column", list(ROW))
def test_a_missing_column_is_named(column: str) -> None:
    row = {name: value for name, value in ROW.items() if name != column}
    with pytest.raises(InvalidInput, match=rf"missing required field `{column}` - at `\$\.rows\[1\]`"):
        decode_rows({"rows": [ROW, row]})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"rows": []}, "'rows' is empty"),
        ({}, "missing required field `rows`"),
        ({"rows": {}}, "rows"),
        ({"rows": [ROW], "rowz": 1}, "rowz"),
        (b"", "truncated|malformed"),
        (b'{"rows": [{"carrier": "AA", "wind": NaN}]}', "after the key 'wind'; JSON has no NaN or Infinity"),
        (b'{"rows": [{"carrier": "AA", "wind": -Infinity}]}', "after the key 'wind'; JSON has no NaN or Infinity"),
        (b'{"rows": [{"distance": 1e999}]}', "out of range"),
        (b'{"rows": [{"carrier": "\xff"}]}', "UTF-8"),
        (b"[" * 100_000, "nested too deeply|malformed|Expected"),
        (b'{"rows":' + b"[" * 100_000, "nested too deeply|malformed|Expected"),
        (b'{"rows": [{"carrier": "A', "truncated|malformed"),
    ],
)
def test_a_broken_body_says_where(body: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        decode_rows(body)


def test_a_tensor_without_columns_is_one_field_of_the_row() -> None:
    decoded = decode_rows({"rows": [{"pixels": [[1, 2, 3], [4, 5, 6]]}]}, IMAGE)
    assert decoded.inputs["pixels"].tolist() == [[[1, 2, 3], [4, 5, 6]]]
    for pixels, message in (([[1, 2, 3]], "shape"), ([[1, 2], [3]], "pixels"), ([[1, 2, 300], [4, 5, 6]], "pixels")):
        with pytest.raises(InvalidInput, match=message):
            decode_rows({"rows": [{"pixels": pixels}]}, IMAGE)


LOOSE = resident_of(
    Signature(
        (
            Tensor("count", "INT32", ("batch", 1), (Column("n", "integer"),)),
            Tensor("rate", "FP32", ("batch", 2), (Column("r", "number"), Column("k", "integer", nullable=True))),
            Tensor("words", "BYTES", ("batch", 2)),
        ),
        (Tensor("scores", "FP32", ("batch", 1)),),
    ),
    name="loose",
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 2**40}, "columns 'n' as INT32"),
        ({"r": 1e300}, "columns 'r', 'k' as FP32"),
        ({"k": 10**400}, "columns 'r', 'k' as FP32|out of range"),
        ({"words": ["a"]}, "column 'words' .*expected"),
        ({"words": ["a", "b", "c"]}, "column 'words' .*expected"),
    ],
)
def test_a_value_that_does_not_fit_its_tensor_is_refused(change: dict[str, Any], message: str) -> None:
    row = {"n": 1, "r": 0.5, "k": None, "words": ["a", "b"]}
    assert decode_rows({"rows": [row, row]}, LOOSE).rows == 2
    with pytest.raises(InvalidInput, match=message):
        decode_rows({"rows": [row | change]}, LOOSE)


NARROW = resident_of(
    Signature(
        (
            Tensor("half", "FP16", ("batch", 1), (Column("h", "number", nullable=True),)),
            Tensor("flag", "BOOL", ("batch", 1), (Column("f", "boolean", nullable=True),)),
            Tensor("text", "BYTES", ("batch", 1), (Column("t", "string", nullable=True),)),
            Tensor("whole", "INT8", ("batch", 1), (Column("w", "integer", nullable=True),)),
        ),
        (Tensor("scores", "FP32", ("batch", 1)),),
    ),
    name="narrow",
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"h": 70_000}, "columns 'h' as FP16: element 1 does not fit FP16"),
        ({"f": None}, "columns 'f' as BOOL: null cannot be BOOL"),
        ({"t": None}, "columns 't' as BYTES: null cannot be BYTES"),
        ({"w": None}, "columns 'w' as INT8: null cannot be INT8"),
        ({"w": 128}, "columns 'w' as INT8: element 1 does not fit INT8"),
    ],
)
def test_null_is_a_missing_number_and_nothing_else(change: dict[str, Any], message: str) -> None:
    row = {"h": None, "f": True, "t": "a", "w": 1}
    decoded = decode_rows({"rows": [row, row | {"h": 0.5}]}, NARROW)
    assert np.isnan(decoded.inputs["half"][0, 0])
    assert decoded.inputs["half"].dtype == np.float16
    with pytest.raises(InvalidInput, match=message):
        decode_rows({"rows": [row, row | change]}, NARROW)


def test_rows_that_differ_in_shape_are_refused() -> None:
    row = {"n": 1, "r": 0.5, "k": None}
    with pytest.raises(InvalidInput, match="'words'"):
        decode_rows({"rows": [row | {"words": ["a"]}, row | {"words": ["b", "c"]}]}, LOOSE)


def test_predictions_are_objects_by_output_column() -> None:
    body = Rows().encode(
        {"probability": np.array([[0.25], [0.5]], np.float32)}, decode_rows({"rows": [ROW, ROW]}), TINY
    )
    assert json.loads(body.body) == [{"late_probability": 0.25}, {"late_probability": 0.5}]


@pytest.mark.parametrize("data", [[1, 2.5, 3], [[1, 2.5, 3]], [1.0, 2.5, 3.0]])
def test_tensor_data_is_flat_or_nested(data: Any) -> None:
    decoded = decode_tensors({"inputs": [STRINGS, tensor(data=data)], "extra": 1})
    assert decoded.inputs["numbers"].tolist() == [[1, 2.5, 3]]
    assert decoded.inputs["categories"].tolist() == [["AA", "JFK"]]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([STRINGS], "input 'numbers' is missing"),
        ([STRINGS, tensor("nombers")], "has no input 'nombers'; it has: 'categories', 'numbers'"),
        ([STRINGS, STRINGS, tensor()], "'categories' appears twice"),
        ([STRINGS, tensor(datatype="FP64")], "'numbers' is FP64; the model takes FP32"),
        ([STRINGS, tensor(shape=[1, 4], data=[1, 2, 3, 4])], r"shape \[1, 4\]; expected \[batch, 3\]"),
        ([STRINGS, tensor(shape=[3])], "1 dimensions"),
        ([STRINGS, tensor(shape=[0, 3], data=[])], r"shape \[0, 3\]"),
        ([STRINGS, tensor(shape=[-1, 3])], r"shape \[-1, 3\]"),
        ([STRINGS, tensor(shape=[2**62, 3])], "has 13835058055282163712 elements; at most"),
        ([STRINGS, tensor(data=[1, 2])], r"2 elements; shape \[1, 3\] needs 3"),
        ([STRINGS, tensor(data=[1, 2, "x"])], r"'numbers', data: Expected `float`, got `str`.*\[2\]"),
        ([STRINGS, tensor(data=[1, 2, None])], "'numbers', data: Expected `float`, got `null`"),
        ([STRINGS, tensor(data=[[1, 2], [3]])], "'numbers', data"),
        ([STRINGS, tensor(data=[[1], [2], [3]])], r"nested as \[3, 1\]; its shape says \[1, 3\]"),
        ([tensor("categories", (1, 2), "BYTES", [["AA"], ["B", "C"]]), tensor()], "'categories', data"),
        ([STRINGS, tensor(data="123")], "'numbers', data"),
        ([STRINGS, tensor(data={})], "'numbers', data"),
        ([tensor("categories", (1, 2), "BYTES", ["AA", 3]), tensor()], "'categories', data: Expected `str`, got `int`"),
        ([STRINGS, tensor(shape=(2, 3), data=[1] * 6)], "inputs differ in rows: 'categories' has 1, 'numbers' has 2"),
    ],
)
def test_a_wrong_tensor_is_named(inputs: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        decode_tensors({"inputs": inputs})


@pytest.mark.parametrize(
    ("value", "ok"), [(0, True), (255, True), (256, False), (-1, False), (1.5, False), (True, False)]
)
def test_integers_must_fit_their_datatype(value: Any, ok: bool) -> None:
    body = {"inputs": [tensor("pixels", (1, 2, 3), "UINT8", [value] * 6)]}
    if ok:
        assert decode_tensors(body, IMAGE).inputs["pixels"].dtype == np.uint8
    else:
        with pytest.raises(InvalidInput, match="'pixels', data"):
            decode_tensors(body, IMAGE)


def test_the_answer_is_the_protocols_and_echoes_the_id() -> None:
    decoded = decode_tensors({"id": "mine", "inputs": [STRINGS, tensor()]})
    answer = json.loads(OpenInference().encode({"probability": np.array([[0.5]], np.float32)}, decoded, TINY).body)
    assert answer == {
        "model_name": "tiny",
        "model_version": "3",
        "id": "mine",
        "outputs": [{"name": "probability", "shape": [1, 1], "datatype": "FP32", "data": [0.5]}],
    }


@pytest.mark.parametrize(
    ("outputs", "message"),
    [([{"name": "nope"}], "has no output 'nope'"), ([{"name": "probability"}] * 2, "already exists in request")],
)
def test_outputs_asked_for_must_exist_once(outputs: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        decode_tensors({"inputs": [STRINGS, tensor()], "outputs": outputs})
