"""Two readers of JSON tensors, one judgement: what the fast one takes is what the careful one reads."""

import contextlib
import json
import math
import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.contract.manifest import Tensor
from gateway.errors import InvalidInput
from gateway.http import inferrequest, jsonbody, longjson, tensorjson
from gateway.runtime.tensors import DTYPES, Array

FLOATS = st.one_of(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-(2**70), 2**70))
WHOLE = st.integers(0, 127)
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([-0.0, 128, 255, 256, -1, 2**31, 2**63, 2**64 - 1, 1e39, 3.4028235677973366e38, 5e-324, 1e-46]),
)
ODD = st.sampled_from(
    ["1.", "01", "+1", "NaN", "Infinity", "-", "1e400", "-1e400", "1E5", "0e0", "1e-400", '"1"', "null", "true", "[]", "[1]",
     "{}", "1 ", "\t2", "1" * 30, "123456789012345678901234567890.5", '"\\ud800"', "2_0", "0x1", "1,", ""]
)  # fmt: skip
SPACES = st.sampled_from(["", " ", "\n\t "])


@st.composite
def nested_texts(draw: st.DrawFn, shape: tuple[int, ...], elements: st.SearchStrategy[str], spoil: bool) -> str:
    """JSON of nested lists of this shape; spoiled, some of its lists have an element more or less."""
    if not shape:
        return draw(elements)
    size = shape[0] + (draw(st.integers(-1, 1)) if spoil and draw(st.booleans()) else 0)
    parts = [draw(nested_texts(shape[1:], elements, spoil)) for _ in range(size)]
    return "[" + ",".join(parts) + "]"


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Whole requests: mostly right, some wrong in one of the many ways that bodies are wrong."""
    datatype = draw(st.sampled_from(["FP32", "FP32", "FP64", "UINT8", "INT64", "UINT64", *DTYPES, "BF16"]))
    elements: st.SearchStrategy[str] = (FLOATS if datatype.startswith("FP") else WHOLE).map(repr)
    if draw(st.integers(0, 3)) == 0:
        elements = st.one_of(elements, NUMBERS.map(repr), ODD)
    shape = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    if draw(st.booleans()):
        data = draw(nested_texts(shape, elements, draw(st.integers(0, 3)) == 0))
    else:
        count = math.prod(shape) + draw(st.sampled_from([*[0] * 8, 1, -1]))
        data = "[" + draw(SPACES) + ",".join(draw(elements) for _ in range(count)) + "]"
    name = draw(st.sampled_from([*['"x"'] * 20, '"\\u0078"', '"\\ud800"', "7"]))
    shown = draw(st.sampled_from([*[json.dumps(shape)] * 30, "[]", "[1.0,2]", "[-1]", "[true]", "3", "[[1]]"]))
    fields = [f'"name":{name}', f'"shape":{shown}', f'"datatype":"{datatype}"', f'"data":{draw(SPACES)}{data}']
    fields += draw(
        st.lists(
            st.sampled_from(
                ['"extra":[1,[2]]', '"extra":"]["', '"parameters":{}', '"parameters":{"a":1,"a":{}}', '"shape":[1]', '"data":5',
                 '"data":[1]', '"name":{},"name":"x"', '"parameters":{"binary_data_size":9}', '"parameters":[1]']
            ),
            max_size=draw(st.sampled_from([0, 0, 1])),
        )
    )  # fmt: skip
    around = draw(
        st.lists(
            st.sampled_from(
                ['"id":"a"', '"id":"\\ud83d"', '"id":7', '"id":null', '"outputs":[]', '"outputs":[{"name":"y"}]', '"outputs":7',
                 '"outputs":[{"name":7}]', '"model_name":"m"', '"inputs":5', '"inputs":[]', '"parameters":{"timeout":5}',
                 '"parameters":{"x":[1]}', '"parameters":null', '"x":' + "[" * 120 + "]" * 120, '"x":"\\u0000"', '"x":"\x01"',
                 '"x":' + '{"x":' * 120 + "1" + "}" * 120]
            ),
            max_size=draw(st.sampled_from([0, 0, 1, 2])),
        )
    )  # fmt: skip
    body = "{" + ",".join([*around, '"inputs":[{' + ",".join(draw(st.permutations(fields))) + "}]"]) + "}"
    end = draw(st.sampled_from([*[""] * 12, " \n", "x", "\x00"]))
    return (body + end).encode(errors="surrogatepass")


def carefully(body: bytes) -> list[tuple[inferrequest.RequestInput, Array]] | None:
    """What msgspec and the careful decoder make of it; None for a refusal."""
    try:
        request = jsonbody.decode(msgspec.json.Decoder(inferrequest.InferRequest), body)
        return [(sent, _array(sent)) for sent in request.inputs if memoryview(sent.data)]
    except InvalidInput:
        return None


def _array(sent: inferrequest.RequestInput) -> Array:
    if sent.datatype not in DTYPES or not sent.shape or min(sent.shape) < 1:
        raise InvalidInput("as the door would say")
    tensor = Tensor("x", sent.datatype, ("batch",))  # type: ignore[arg-type]
    return tensorjson.array(tensor, sent.data, sent.shape)


@settings(max_examples=600, deadline=None)
@given(bodies())
@example(b'{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[[1,2],[]]}]}')
@example(b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[[[1,2],[]]]}]}')
@example(b'{"inputs":[{"name":"x","shape":[2,1],"datatype":"FP32","data":[[1],[2]],"data":[1,2]}]}')
@example(b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[-129]}]}')
@example(b'{"inputs":[{"name":"x","shape":[1],"datatype":"UINT64","data":[18446744073709551615]}]}')
@example(b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[12345678901234567890123]}]}')
def test_what_the_fast_reader_takes_is_what_the_careful_one_reads(body: bytes) -> None:
    try:
        fast = inferrequest.read_long(body)
    except InvalidInput:
        assert carefully(body) is None, "refused by the fast reader alone"
        return
    if fast is None:
        return  # the careful one decides
    slow = carefully(body)
    assert slow is not None, "taken by the fast reader alone"
    request, arrays = fast
    assert request.id == msgspec.json.decode(body, type=inferrequest.InferRequest).id
    sent = [(each, arrays[at]) for at, each in enumerate(request.inputs) if at in arrays]
    assert len(sent) == len(slow)
    for (fast_input, fast_array), (slow_input, slow_array) in zip(sent, slow, strict=True):
        assert (fast_input.name, fast_input.shape, fast_input.datatype) == (
            slow_input.name, slow_input.shape, slow_input.datatype,
        )  # fmt: skip
        assert fast_input.parameters == slow_input.parameters
        assert fast_array.dtype == slow_array.dtype
        assert np.array_equal(fast_array.reshape(-1), slow_array.reshape(-1))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_nested_lists_are_read_alike(data: st.DataObject) -> None:
    """As the V1 door has them: their shape is their own."""
    shape = tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    datatype = data.draw(st.sampled_from(["FP32", "FP64", "UINT8", "INT64", "BOOL", "BYTES"]))
    elements: st.SearchStrategy[str] = (FLOATS if datatype.startswith("FP") else WHOLE).map(repr)
    if data.draw(st.integers(0, 2)) == 0:
        elements = st.one_of(elements, elements, elements, NUMBERS.map(repr), ODD)
    text = data.draw(nested_texts(shape, elements, data.draw(st.integers(0, 3)) == 0))
    dimensions = data.draw(st.sampled_from([len(shape), len(shape), len(shape) + 1]))
    tensor = Tensor("x", datatype, ("batch", *(f"d{at}" for at in range(1, dimensions))))
    try:
        fast = longjson.nested(msgspec.Raw(text.encode()), datatype, dimensions)
    except (ValueError, OverflowError):
        with pytest.raises(InvalidInput):
            tensorjson.nested(tensor, msgspec.Raw(text.encode()))
        return
    if fast is not None:
        slow = tensorjson.nested(tensor, msgspec.Raw(text.encode()))  # too short for the fast reader to be asked
        assert (fast.dtype, fast.tolist()) == (slow.dtype, slow.tolist())


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("datatype", ["FP32", "FP64", "UINT8", "INT64", "UINT64"])
def test_plain_long_bodies_do_go_the_fast_way(datatype: Any, nested: bool) -> None:
    shape = [4, 3, 50]
    values = np.random.default_rng(0).integers(0, 200, shape).astype(DTYPES[datatype])
    data = values.tolist() if nested else values.ravel().tolist()
    body = json.dumps(
        {"id": "a", "inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}],
         "outputs": [{"name": "y", "parameters": {"binary_data": True}}], "parameters": {"timeout": 5}}
    ).encode()  # fmt: skip
    found = inferrequest.read_long(body)
    assert found is not None
    request, arrays = found
    assert np.array_equal(arrays[0].reshape(shape), values)
    assert (request.id, request.parameters, request.outputs) == (
        "a", {"timeout": 5}, [inferrequest.RequestOutput("y", {"binary_data": True})],
    )  # fmt: skip
    assert np.array_equal(inferrequest.read(memoryview(body + b" " * 5000), 64)[1][0], arrays[0])


def test_plain_long_instances_do_go_the_fast_way() -> None:
    values = np.random.default_rng(0).random((4, 3, 200), np.float32)
    text = msgspec.Raw(json.dumps(values.tolist()).encode())
    found = longjson.nested(text, "FP32", 3)
    assert found is not None
    assert np.array_equal(found, values)
    assert np.array_equal(tensorjson.nested(Tensor("x", "FP32", ("batch", 3, 200)), text), values)
    ragged = msgspec.Raw(json.dumps([*values.tolist(), values.tolist()[0][:2]]).encode())
    with pytest.raises(InvalidInput, match="'x', data"):
        tensorjson.nested(Tensor("x", "FP32", ("batch", 3, 200)), ragged)


def test_a_parser_survives_documents_that_are_still_held() -> None:
    body = json.dumps({"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 3]}]}).encode()
    held = longjson.parse(body)
    found = inferrequest.read_long(body)
    assert held is not None
    assert found is None or found[1][0].tolist() == [1, 2, 3]
    del held
    assert inferrequest.read_long(body) is not None


def test_arrays_outlive_the_parser_that_made_them() -> None:
    made = []
    for seed in range(20):
        values = [random.Random(seed).random() for _ in range(500)]
        body = json.dumps({"inputs": [{"name": "x", "shape": [500], "datatype": "FP64", "data": values}]}).encode()
        found = inferrequest.read_long(body)
        assert found is not None
        made.append((values, found[1][0]))
    for values, array in made:
        assert array.tolist() == values


@pytest.mark.parametrize(
    ("body", "is_deep"),
    [
        (b"[" * 100 + b"]" * 100, False),
        (b"[" * 101 + b"]" * 101, True),
        (b'{"a":' * 101 + b"1" + b"}" * 101, True),
        (b"[" * 250_000, True),
        (b'["' + b"[" * 5000 + b'"]', False),
        (b'["\\"' + b"[" * 5000 + b'"]', False),
        (b'["' + b"]" * 5000 + b'",' + b"[" * 101, True),  # closing brackets in a string close nothing
        (b"[" + b"[]," * 5000 + b"[]]", False),
        (b"[" * 60 + b"]" * 60 + b"," + b"[" * 99, False),
    ],
)
def test_depth_is_counted_outside_strings(body: bytes, is_deep: bool) -> None:  # OIP-22
    if not is_deep:
        jsonbody.check_structure(body)
        return
    with pytest.raises(InvalidInput, match="nested too deeply: more than 100 levels"):
        jsonbody.check_structure(body)


@pytest.mark.parametrize(
    "body", [b'\\"' * 500_000 + b"[" * 200, b'"' * 999_999 + b"[" * 200, b'"\\' * 400_000 + b"{" * 200]
)
def test_no_body_makes_the_depth_expensive(body: bytes) -> None:
    """A pattern that looks twice at the same bytes would take minutes here, and the run would end in the suite's time-out."""
    with contextlib.suppress(InvalidInput):  # it is no JSON
        jsonbody.check_structure(body)


@pytest.mark.parametrize(
    ("body", "is_refused"),
    [
        (b"[" + b"[]," * (jsonbody.CONTAINERS_MAX - 1) + b"1]", False),
        (b"[" + b"[]," * jsonbody.CONTAINERS_MAX + b"1]", True),
        (b"[" + b'{"\\"":[]},' * (jsonbody.CONTAINERS_MAX // 2) + b"1]", True),
        (b'["' + b"{[" * jsonbody.CONTAINERS_MAX + b'"]', False),
        (b"[" + b'"\\\\[",' * jsonbody.CONTAINERS_MAX + b"1]", False),
    ],
)
def test_arrays_and_objects_are_counted_outside_strings(body: bytes, is_refused: bool) -> None:
    if not is_refused:
        jsonbody.check_structure(body)
        return
    with pytest.raises(InvalidInput, match="more than 262144 arrays and objects; send fewer rows"):
        jsonbody.check_structure(body)


TREES = st.recursive(
    st.one_of(st.none(), st.integers(), st.text('[]{}"\\a', max_size=6)),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text('[{"\\', max_size=3), inner)),
    max_leaves=30,
)


@given(TREES, st.integers(80, 110))
def test_structure_is_what_a_parser_sees(tree: Any, around: int) -> None:
    def depth(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth, inner), default=0) if isinstance(value, list | dict) else 0

    body = b"[" * around + json.dumps(tree).encode() + b"]" * around + b" " + json.dumps("[" * 200).encode()
    if around + depth(tree) <= jsonbody.DEPTH_MAX:
        jsonbody.check_structure(body)
        return
    with pytest.raises(InvalidInput, match="nested too deeply"):
        jsonbody.check_structure(body)


@pytest.mark.parametrize("field", ["inputs", "outputs"])
@pytest.mark.parametrize("beside", ["1", "9" * 30], ids=["simdjson", "msgspec"])
def test_tensors_are_counted_before_they_are_read(field: str, beside: str) -> None:
    tensors = {"inputs": [], "outputs": []} | {field: [{"name": "x" * 20, "shape": [], "datatype": "FP32"}] * 101}
    body = json.dumps(tensors).replace("{", f'{{"z":{beside},', 1).encode()
    assert len(body) > longjson.LONG_BYTES
    with pytest.raises(InvalidInput, match=f"has 101 {field}; at most 100 are read"):
        inferrequest.read(body, 100)
    assert len(inferrequest.read(body, 101)[0].outputs or []) == (101 if field == "outputs" else 0)


@pytest.mark.parametrize(
    ("last", "message"),
    [("[1, 2]", "different lengths"), ("1", "different lengths"), ("[300]", "element 4000 does not fit INT8")],
)
def test_what_long_numbers_make_impossible_is_said_without_an_object_for_each(last: str, message: str) -> None:
    text = "[" + "[1]," * 4000 + last + "]"
    with pytest.raises(InvalidInput, match=message):
        tensorjson.nested(Tensor("x", "INT8", ("batch", 1)), msgspec.Raw(text.encode()))
    body = '{"inputs":[{"name":"x","shape":[4001,1],"datatype":"INT8","data":' + text + "}]}"
    with pytest.raises(InvalidInput, match=message):
        inferrequest.read_long(body.encode())


@given(st.lists(st.floats(width=32), min_size=1, max_size=20), st.sampled_from(["FP32", "FP16", "FP64"]))
def test_numbers_come_back_as_they_went(values: list[float], datatype: Any) -> None:
    with np.errstate(over="ignore"):
        array = np.array(values).astype(DTYPES[datatype])
    text = tensorjson.encode(array)
    back = [math.nan if value is None else value for value in json.loads(text)]
    finite = np.where(np.isfinite(array), array, np.nan)  # JSON has no word for the others
    assert np.array_equal(np.array(back).astype(array.dtype), finite, equal_nan=True)


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join(b'"k%d":1' % at for at in range(300_000)) + b"}",
        b'{"inputs":[{' + b",".join(b'"k%d":1' % at for at in range(300_000)) + b"}]}",
        b'{"inputs":[],"parameters":{' + b",".join(b'"k%d":1' % at for at in range(300_000)) + b"}}",
        b'{"inputs":[' + b'{"name":"x"},' * 300_000 + b"{}]}",
    ],
)
def test_many_keys_and_inputs_are_nothing_for_the_fast_reader(body: bytes) -> None:
    """It looks for a key from the first on: with so many it would take minutes, and the run end in the suite's time-out."""
    assert inferrequest.read_long(body) is None
