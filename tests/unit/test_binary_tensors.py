"""The binary tensor extension: bytes become tensors and tensors bytes, and every lie about lengths is a sentence (OIP-15 to 20)."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.calls import Decoded, Sent
from gateway.contract.words import Datatype
from gateway.errors import InvalidInput
from gateway.http.openinference import HEADER, OpenInference
from gateway.runtime.tensors import DTYPES
from tests.support import identities
from tests.support.residents import resident_of

DOOR = OpenInference()
EVERY = resident_of(identities.EVERY_SIGNATURE, "every")
TEXT = resident_of(identities.TEXT_SIGNATURE, "text")
OPEN = resident_of(identities.OPEN_SIGNATURE, "open")
PAIR = resident_of(identities.signature({"a": ("FP32", (2,)), "b": ("BYTES", (2,))}), "pair")
FLAG = resident_of(identities.signature({"flag": ("BOOL", (2,))}), "flag")
LOOSE = resident_of(identities.signature({"x": ("FP32", ("m", "n"))}), "loose")

A = struct.pack("<4f", 1, 2.5, 3, -4)
B = b"\x01\x00\x00\x00a\x00\x00\x00\x00\x02\x00\x00\x00\xc3\xbc\x01\x00\x00\x00d"


def put(name: str, datatype: str, shape: Any, size: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def decode(head: Any, data: bytes, resident: Any = PAIR, length: bytes | None = None, before: int = 0) -> Decoded:
    """`before` shifts the whole body in memory: tensors begin wherever the JSON ends."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    body = memoryview(b"x" * before + text + data)[before:]
    return DOOR.decode(Sent(body, {HEADER: b"%d" % len(text) if length is None else length}), resident)


def pair(a: Any = 16, b: Any = 20) -> dict[str, Any]:
    return {"inputs": [put("a", "FP32", [2, 2], a), put("b", "BYTES", [2, 2], b)]}


@pytest.mark.parametrize("before", range(9))
def test_tensors_lie_behind_the_json_in_the_order_of_the_inputs(before: int) -> None:  # OIP-16, 17
    decoded = decode(pair(), A + B, before=before)
    assert decoded.rows == 2
    assert decoded.inputs["a"].tolist() == [[1, 2.5], [3, -4]]
    assert decoded.inputs["a"].flags.aligned
    assert decoded.inputs["b"].tolist() == [["a", ""], ["ü", "d"]]
    turned = {"inputs": [*reversed(pair()["inputs"])]}
    assert decode(turned, B + A, before=before).inputs["a"].tolist() == [[1, 2.5], [3, -4]]


def test_numbers_are_a_view_of_the_body_where_they_lie_well() -> None:
    head = json.dumps({"inputs": [put("numbers", "FP32", [1, 2, 2], 16)]}).encode()
    head += b" " * (-len(head) % 8)
    body = head + A
    array = DOOR.decode(Sent(body, {HEADER: b"%d" % len(head)}), OPEN).inputs["numbers"]
    assert np.shares_memory(array, np.frombuffer(body, np.uint8))


def test_json_and_bytes_may_be_mixed() -> None:
    head = {
        "inputs": [{"name": "a", "datatype": "FP32", "shape": [2, 2], "data": [1, 2.5, 3, -4]}, pair()["inputs"][1]]
    }
    assert decode(head, B).inputs["b"][1, 0] == "ü"
    assert decode(head, B).inputs["a"].tolist() == [[1, 2.5], [3, -4]]
    long = {
        "inputs": [
            put("a", "FP32", [2000, 2], 16000),
            {"name": "b", "datatype": "BYTES", "shape": [2000, 2], "data": ["a"] * 4000},
        ]
    }
    assert decode(long, bytes(16000)).rows == 2000


@given(st.data())
def test_every_datatype_comes_back_as_it_went(data: st.DataObject) -> None:
    datatype: Datatype = data.draw(st.sampled_from([d for d in DTYPES if d != "BYTES"]))
    dtype = DTYPES[datatype]
    width = dtype.itemsize
    raw = data.draw(st.binary(min_size=3 * width, max_size=3 * width))
    if datatype == "BOOL":
        raw = bytes(byte & 1 for byte in raw)
    one = resident_of(identities.signature({"x": (datatype, (3,))}), "one")
    decoded = decode(
        {"inputs": [put("x", datatype, [1, 3], 3 * width)], "parameters": {"binary_data_output": True}}, raw, one
    )
    answer = DOOR.encode({"x_out": decoded.inputs["x"]}, decoded, one)
    head = int(dict(answer.headers)[HEADER])
    assert answer.body[head:] == raw
    assert json.loads(answer.body[:head])["outputs"] == [
        {"name": "x_out", "datatype": datatype, "shape": [1, 3], "parameters": {"binary_data_size": len(raw)}}
    ]


@given(st.lists(st.text(max_size=20), min_size=1, max_size=8))
def test_text_comes_back_as_it_went(texts: list[str]) -> None:
    raw = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts)
    head = {
        "inputs": [put("text", "BYTES", [len(texts), 1], len(raw))],
        "outputs": [{"name": "text_out", "parameters": {"binary_data": True}}],
    }
    decoded = decode(head, raw, TEXT)
    assert decoded.inputs["text"].ravel().tolist() == texts
    answer = DOOR.encode({"text_out": decoded.inputs["text"]}, decoded, TEXT)
    assert answer.body.endswith(raw)
    assert answer.content_type == b"application/octet-stream"


def test_an_empty_output_is_no_bytes() -> None:  # OIP-18
    decoded = decode(pair() | {"parameters": {"binary_data_output": True}}, A + B)
    empty = {"a_out": np.zeros((0, 2), np.float32), "b_out": np.zeros((0, 2), np.object_)}
    answer = DOOR.encode(empty, decoded, PAIR)
    assert int(dict(answer.headers)[HEADER]) == len(answer.body)
    assert [o["parameters"] for o in json.loads(answer.body)["outputs"]] == [{"binary_data_size": 0}] * 2


@pytest.mark.parametrize(
    ("everything", "own", "is_binary"),
    [(None, None, False), (True, None, True), (True, False, False), (False, True, True), (None, True, True)],
)
def test_an_outputs_own_wish_wins(everything: bool | None, own: bool | None, is_binary: bool) -> None:  # OIP-18
    head = pair() | {
        "outputs": [{"name": "a_out", "parameters": {} if own is None else {"binary_data": own}}],
        "parameters": {} if everything is None else {"binary_data_output": everything},
    }
    decoded = decode(head, A + B)
    answer = DOOR.encode({"a_out": decoded.inputs["a"], "b_out": decoded.inputs["b"]}, decoded, PAIR)
    assert (HEADER in dict(answer.headers)) is is_binary
    assert answer.body.endswith(A) is is_binary


@pytest.mark.parametrize(
    ("head", "data", "message"),
    [
        (pair(a=-1), A + B, "'binary_data_size' must be a whole number from 0"),
        (pair(a="16"), A + B, "'binary_data_size' must be a whole number from 0"),
        (pair(a=16.0), A + B, "'binary_data_size' must be a whole number from 0"),
        (pair(a=True), A + B, "'binary_data_size' must be a whole number from 0"),
        (pair(a=None), A + B, "'binary_data_size' must be a whole number from 0"),
        (pair(a=2**63 - 1), A + B, "input 'a' says 9223372036854775807 bytes; 36 are left of the body"),
        (pair(a=2**63), A + B, r"Expected `int` <= 9223372036854775807 - at `\$.inputs\[0\].parameters"),
        (pair(a=10**30), A + B, "Expected `int` <= 9223372036854775807"),
        (pair(b=len(B) + 1), A + B, "input 'b' says 21 bytes; 20 are left"),
        (pair(a=12), A + B, r"input 'a' is 12 bytes; shape \[2, 2\] of FP32 takes 16"),
        (pair(a=0), A + B, "input 'a' is 0 bytes"),
        (pair(), A + B + b"x", "1 bytes follow the last tensor"),
        (pair(), A, "input 'b' says 20 bytes; 0 are left"),
        (pair(), b"", "input 'a' says 16 bytes; 0 are left"),
        (pair(), A + b"\xff\xff\xff\xff" + B[4:], "the length of element 0 points beyond its data"),
        (pair(), A + B[:-1] + b"\xff", "element 3 is not UTF-8 at byte 0"),
        (pair(b=8), A + B[:8], "is 8 bytes, too few for 4 elements of BYTES"),
        (pair(b=16), A + bytes(15) + b"x", "the length of element 3 points beyond its data"),
        (pair(b=18), A + bytes(18), "2 bytes follow its 4 elements"),
        ({"inputs": [put("a", "FP32", [2**62, 2**62], 16), pair()["inputs"][1]]}, A + B, r"shape \[.*; expected \[batch, 2\]"),
        ({"inputs": [put("a", "FP32", [2**62, 2], 16), pair()["inputs"][1]]}, A + B, "has 9223372036854775808 elements; at most"),
        ({"inputs": [pair()["inputs"][0], put("b", "BYTES", [2**62, 2], 20)]}, A + B, "has 9223372036854775808 elements; at most"),
        ({"inputs": [put("a", "FP32", [-2, -2], 16), pair()["inputs"][1]]}, A + B, r"shape \[-2, -2\]"),
        ({"inputs": [put("a", "BF16", [2, 2], 8), pair()["inputs"][1]]}, A + B, "'a' is BF16; the model takes FP32"),
        ({"inputs": [pair()["inputs"][0], *pair()["inputs"]]}, A + A + B, "'a' appears twice"),
        ({"inputs": [pair()["inputs"][0] | {"data": [1, 2, 3, 4]}, pair()["inputs"][1]]}, B, "both 'data' and 'binary_data_size'"),
        ({"inputs": [{"name": "a", "datatype": "FP32", "shape": [2, 2]}, pair()["inputs"][1]]}, A + B, "neither 'data' nor"),
        (pair() | {"parameters": {"binary_data_output": 1}}, A + B, "'binary_data_output' must be true or false"),
        (pair() | {"outputs": [{"name": "a_out", "parameters": {"binary_data": "yes"}}]}, A + B, "'binary_data' must be true"),
        (pair() | {"parameters": {"timeout": -5}}, A + B, "'timeout' must be a whole number from 0"),
        (pair() | {"parameters": {"priority": "high"}}, A + B, "'priority' must be a whole number from 0"),
        (pair() | {"parameters": {"x": [1]}}, A + B, "parameters"),
        (pair() | {"outputs": [{"name": "a_out", "parameters": {"classification": 0}}]}, A + B, "must be a whole number from 1"),
        (pair() | {"outputs": [{"name": "a_out", "parameters": {"classification": 2**62}}]}, A + B, None),
        (b'{"inputs":[{"name":"a","datatype":"FP32","shape":[' + b"9" * 4299 + b"," + b"9" * 4299 + b"]}]}", A, "<= 9223372"),
        (b"", b"", "truncated|malformed|one input"),
        (b"[1]", b"", "Expected `object`, got `array`"),
    ],
)  # fmt: skip
def test_a_lie_about_lengths_is_a_sentence(head: Any, data: bytes, message: str | None) -> None:
    if message is None:
        decode(head, data)
        return
    with pytest.raises(InvalidInput, match=message):
        decode(head, data)


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (b"-1", "must be a whole number"),
        (b"+5", "must be a whole number"),
        (b"1e3", "must be a whole number"),
        (b"0x10", "must be a whole number"),
        (b"", "must be a whole number"),
        (b"\xb2", "must be a whole number"),
        (b"100000", "is more than the body's"),
        (b"2147483648", "is more than the body's"),
        (b"9" * 5000, "is more than the body's"),
        (b"10", "truncated|malformed"),
    ],
)
def test_a_head_length_that_lies_is_refused(length: bytes, message: str) -> None:  # OIP-20
    with pytest.raises(InvalidInput, match=message):
        decode(pair(), A + B, length=length)


def test_binary_data_without_its_header_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Inference-Header-Content-Length must say where the JSON ends"):
        DOOR.decode(Sent(json.dumps(pair()).encode(), {}), PAIR)
    with pytest.raises(InvalidInput, match=r"malformed|UTF-8"):
        DOOR.decode(Sent(json.dumps(pair()).encode() + A + B, {}), PAIR)


def test_a_boolean_is_zero_or_one() -> None:
    head = {"inputs": [put("flag", "BOOL", [1, 2], 2)]}
    assert decode(head, b"\x01\x00", FLAG).inputs["flag"].tolist() == [[True, False]]
    with pytest.raises(InvalidInput, match="a BOOL is one byte, 0 or 1"):
        decode(head, b"\x02\x00", FLAG)


@pytest.mark.parametrize(
    ("resident", "body", "shape"),
    [(OPEN, A, [1, 2, 2]), (OPEN, A[:8], [1, 1, 2]), (FLAG, b"\x00\x01", [1, 2]), (TEXT, "grün".encode(), [1, 1])],
)
def test_a_raw_request_is_one_row_of_the_only_input(resident: Any, body: bytes, shape: list[int]) -> None:  # OIP-19
    decoded = DOOR.decode(Sent(body, {HEADER: b"0"}), resident)
    [array] = decoded.inputs.values()
    assert list(array.shape) == shape
    assert decoded.rows == 1
    if resident is TEXT:
        assert array[0, 0] == "grün"
    [output] = resident.manifest.signature.outputs
    answer = DOOR.encode({output.name: array}, decoded, resident)
    assert HEADER in dict(answer.headers)


@pytest.mark.parametrize(
    ("resident", "body", "message"),
    [
        (PAIR, A, "needs a model with one input; 'pair' has 2"),
        (LOOSE, A, "may leave one dimension open"),
        (OPEN, A[:-1], r"is 15 bytes; one row of input 'numbers' \[batch, length, 2\] takes a multiple of 8"),
        (OPEN, b"", "is 0 bytes"),
        (FLAG, b"\x00", "takes 2"),
        (FLAG, b"\x00\x05", "0 or 1"),
        (TEXT, b"\xff", "not UTF-8"),
        (resident_of(identities.signature({"t": ("BYTES", (2,))}), "two"), b"ab", "carries one element"),
    ],
)
def test_a_raw_request_that_says_too_little_is_refused(resident: Any, body: bytes, message: str) -> None:  # OIP-19
    with pytest.raises(InvalidInput, match=message):
        DOOR.decode(Sent(body, {HEADER: b"0"}), resident)


def test_timeout_and_priority_are_handed_on() -> None:  # OIP-12
    decoded = decode(pair() | {"parameters": {"timeout": 2_000_000, "priority": 3, "mine": 1.5}}, A + B)
    assert (decoded.timeout_us, decoded.priority) == (2_000_000, 3)


def test_garbage_keys_are_ignored_and_garbage_inputs_are_not() -> None:  # OIP-6, 22
    keys = {f"key{i}": {"deep": [i, None, "x"]} for i in range(10_000)}
    assert decode(pair() | keys, A + B).rows == 2
    garbage = [{"name": f"n{i}", "datatype": "FP32", "shape": [1], "data": [1]} for i in range(10_000)]
    with pytest.raises(InvalidInput, match="has 10000 inputs; at most 18 are read"):
        decode({"inputs": garbage}, b"")
    with pytest.raises(InvalidInput, match="has no input 'n0'"):
        decode({"inputs": garbage[:18]}, b"")
