"""KServe's V1 protocol and SageMaker's invocations: what they take, what they answer, what they refuse."""

import json
from typing import Any

import numpy as np
import pytest

from gateway.calls import Sent
from gateway.errors import InvalidInput, ModelNotFound
from gateway.http.kservev1 import V1
from gateway.http.rows import Rows
from gateway.http.sagemaker import Invocations, model_of
from tests.support import identities
from tests.support.models import TINY_EXAMPLES, TINY_SIGNATURE
from tests.support.residents import resident_of

TINY = resident_of(TINY_SIGNATURE)
IMAGE = resident_of(identities.signature({"x": ("FP32", (2, 2))}), "image")
TEXT = resident_of(identities.TEXT_SIGNATURE, "text")
HALF = resident_of(identities.signature({"x": ("FP16", (1,))}), "half")
PAIR = resident_of(identities.signature({"a": ("FP32", (2,)), "b": ("INT64", ())}), "pair")
ROWS: list[Any] = list(TINY_EXAMPLES.rows)
CSV = b'AA,JFK,7,733.0,12.5\r\nUA,LGA,19,2475.0,\r\n\r\nZZ,"EWR",12,184,3\n'


def v1(body: object, resident: Any = TINY) -> Any:
    return V1().decode(Sent(json.dumps(body).encode()), resident)


def invoke(body: object, resident: Any = TINY, **headers: bytes) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Invocations().decode(Sent(data, {k.replace("_", "-").encode(): v for k, v in headers.items()}), resident)


def test_instances_are_the_rows_of_the_row_door() -> None:
    want = Rows().decode(Sent(json.dumps({"rows": ROWS}).encode()), TINY).inputs
    for decoded in (
        v1({"instances": ROWS, "signature_name": "x"}),
        v1({"inputs": ROWS}),
        invoke({"rows": ROWS}),
        invoke({"instances": ROWS}),
    ):
        assert decoded.rows == 3
        assert decoded.inputs["categories"].tolist() == want["categories"].tolist()
        assert np.array_equal(decoded.inputs["numbers"], want["numbers"], equal_nan=True)


def test_an_instance_may_be_the_row_of_the_only_input() -> None:
    rows = [[[1, 2], [3, 4]], [[5, 6], [7, 8.5]]]
    for decoded in (
        v1({"instances": rows}, IMAGE),
        v1({"inputs": rows}, IMAGE),
        v1({"inputs": {"x": rows}}, IMAGE),
        invoke({"inputs": rows}, IMAGE),
    ):
        assert decoded.inputs["x"].tolist() == rows
        assert decoded.inputs["x"].dtype == np.float32
    assert v1({"instances": [["a"], ["b"]]}, TEXT).inputs["text"].tolist() == [["a"], ["b"]]
    assert v1({"instances": [{"x": rows[0]}]}, IMAGE).inputs["x"].tolist() == rows[:1]
    by_name = v1({"inputs": {"b": [3, 4], "a": [[1, 2], [3, 4]]}}, PAIR)
    assert (by_name.rows, by_name.inputs["b"].tolist()) == (2, [3, 4])


@pytest.mark.parametrize(
    ("body", "resident", "message"),
    [
        ({}, TINY, "send 'instances', a list with one item per row, or 'inputs', but not both"),
        ({"instances": ROWS, "inputs": ROWS}, TINY, "not both"),
        ({"instances": {}}, TINY, "'instances' must be a list"),
        ({"instances": "AA"}, TINY, "'instances' must be a list"),
        ({"instances": None}, TINY, "'instances' must be a list"),
        ({"instances": [[1, 2]]}, TINY, "has several inputs: an instance must be an object with 'carrier', 'origin', 'hour'"),
        ({"instances": []}, TINY, "'instances' is empty; send at least one row"),
        ({"instances": [ROWS[0] | {"hour": 24}]}, TINY, r"<= 23.*\$\[0\]\.hour"),
        ({"instances": [ROWS[0], 5]}, TINY, r"Expected `object`, got `int` - at `\$\[1\]`"),
        ({"inputs": []}, IMAGE, "'inputs' is empty"),
        ({"instances": [[[1, 2], [3]]]}, IMAGE, "'x', data: lists of different lengths"),
        ({"instances": [[[1, 2]]]}, IMAGE, r"shape \[1, 1, 2\]; expected \[batch, 2, 2\]"),
        ({"instances": [[1, 2], [3, 4]]}, IMAGE, r"'x', data: Expected `array`, got `int`"),
        ({"instances": [[[1, 2], [3, "4"]]]}, IMAGE, "Expected `float`, got `str`"),
        ({"instances": [[[1, 2], [3, 1e39]]]}, IMAGE, "element 3 does not fit FP32"),
        ({"instances": [["a", "b"]]}, TEXT, r"shape \[1, 2\]"),
        ({"instances": [["a"], ["b", "c"]]}, TEXT, "different lengths"),
        ({"instances": [[1]]}, HALF, "FP16 cannot be sent as JSON"),
        ({"inputs": {"a": [[1, 2]]}}, PAIR, "one list of rows for each of model 'pair': 'a', 'b'"),
        ({"inputs": {"a": [[1, 2]], "b": [3, 4]}}, PAIR, "inputs differ in rows"),
        ({"inputs": {"a": [[1, 2]], "b": [2**63]}}, PAIR, "'b', data"),
    ],
)  # fmt: skip
def test_what_is_no_instance_is_refused_with_its_place(body: object, resident: Any, message: str) -> None:
    for decode in (v1, invoke):
        with pytest.raises(InvalidInput, match=message):
            decode(body, resident)


def test_predictions_are_values_of_one_output_and_objects_of_several() -> None:
    one = {"probability": np.array([[0.25], [0.5]], np.float32)}
    assert json.loads(V1().encode(one, v1({"instances": ROWS[:2]}), TINY).body) == {"predictions": [0.25, 0.5]}
    image = {"x_out": np.array([[[1, 2], [3, np.nan]]], np.float32)}
    assert json.loads(V1().encode(image, v1({"instances": [[[1, 2], [3, 4]]]}, IMAGE), IMAGE).body) == {
        "predictions": [[[1, 2], [3, None]]]
    }
    several = {"a_out": np.array([[1, 2]], np.float32), "b_out": np.array([3])}
    asked = v1({"inputs": {"b": [3], "a": [[1, 2]]}}, PAIR)
    assert json.loads(V1().encode(several, asked, PAIR).body) == {"predictions": [{"a_out": [1, 2], "b_out": 3}]}
    text = {"text_out": np.array([["ä"]], np.object_)}
    assert json.loads(V1().encode(text, v1({"instances": [["a"]]}, TEXT), TEXT).body) == {"predictions": [["ä"]]}


def test_invocations_take_csv_and_give_it_to_who_accepts_it() -> None:
    decoded = invoke(CSV, content_type=b"Text/CSV; charset=utf-8")
    want = invoke({"rows": ROWS})
    assert decoded.inputs["categories"].tolist() == want.inputs["categories"].tolist()
    assert np.array_equal(decoded.inputs["numbers"], want.inputs["numbers"], equal_nan=True)
    outputs = {"probability": np.array([[0.25], [0.5], [0.1]], np.float32)}
    assert json.loads(Invocations().encode(outputs, decoded, TINY).body)["predictions"] == [0.25, 0.5, 0.1]
    answer = Invocations().encode(outputs, invoke(CSV, content_type=b"text/csv", accept=b"text/csv"), TINY)
    assert (answer.body, answer.content_type) == (b"0.25\n0.5\n0.1\n", b"text/csv")


def test_invocations_take_protocol_tensors() -> None:
    x = {"name": "x", "shape": [1, 2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}
    decoded = invoke({"id": "mine", "inputs": [x]}, IMAGE)
    answer = json.loads(Invocations().encode({"x_out": decoded.inputs["x"]}, decoded, IMAGE).body)
    assert (answer["id"], answer["outputs"][0]["data"]) == ("mine", [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("body", "resident", "message"),
    [
        (b"", TINY, "no line"),
        (b"\n\n", TINY, "no line"),
        (b"AA,JFK,7", TINY, "line 1 has 3 cells; the columns are carrier, origin, hour, distance, wind"),
        (CSV + b"AA,JFK,x,1,1", TINY, r"line 4: Expected `int`, got `str` - at `\$\.hour`"),
        (b"AA,JFK,25,1,1", TINY, r"line 1: .*<= 23"),
        (b"AA,JFK,,1,1", TINY, r"line 1: Expected `int`, got `null`"),
        (b"AA,JFK,1,nan,1", TINY, "line 1: "),
        (b"\xff,JFK,1,1,1", TINY, "the body is not CSV"),
        (b"AA,JFK,1,1," + b"1" * 200_000, TINY, "the body is not CSV"),
        (b"1,2", IMAGE, "has inputs without columns; send application/json"),
    ],
)
def test_csv_that_does_not_fit_names_its_line(body: bytes, resident: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        invoke(body, resident, content_type=b"text/csv")


def test_an_invocations_model_is_in_the_header_or_the_option() -> None:
    target = {b"x-amzn-sagemaker-target-model": b"flights"}
    assert model_of(target, "other") == "flights"
    assert model_of({}, "other") == "other"
    with pytest.raises(
        ModelNotFound, match=r"X-Amzn-SageMaker-Target-Model, or start the gateway with sagemaker.default_model"
    ):
        model_of({}, "")
