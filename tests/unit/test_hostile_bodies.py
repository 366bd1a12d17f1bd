"""Whatever bytes a door gets, it reads them or refuses them as the caller's fault; no other exception leaves it."""

import json
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.calls import Sent
from gateway.errors import RequestError
from gateway.http import inferrequest
from gateway.http.kservev1 import V1
from gateway.http.openinference import HEADER, OpenInference
from gateway.http.rows import Rows
from gateway.http.sagemaker import Invocations
from tests.support import identities
from tests.support.models import TINY_EXAMPLES, TINY_SIGNATURE
from tests.support.residents import resident_of

TINY = resident_of(TINY_SIGNATURE)
PAIR = resident_of(identities.signature({"a": ("FP32", (2,)), "b": ("BYTES", ("n",))}), "pair")

HEAD = {
    "id": "x",
    "inputs": [
        {"name": "a", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
        {"name": "b", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}},
    ],
    "outputs": [{"name": "a_out", "parameters": {"binary_data": True, "classification": 2}}],
    "parameters": {"timeout": 5, "priority": 1, "binary_data_output": False},
}
TEXT = json.dumps(HEAD).encode()
PLAIN = [
    {"name": "a", "shape": [2, 2], "datatype": "FP32", "data": [[1, -2.5e3], [0, 1]]},
    {"name": "b", "shape": [2, 1], "datatype": "BYTES", "data": ["ü", "\\"]},
]
CSV = b'AA,JFK,7,733.0,12.5\r\n"U""A",LGA,19,2475.0,\n'
CASES: list[tuple[Any, Any, bytes, dict[bytes, bytes]]] = [
    (OpenInference(), PAIR, TEXT + struct.pack("<2f", 1, 2) + b"\x02\0\0\0ab", {HEADER: b"%d" % len(TEXT)}),
    (OpenInference(), PAIR, json.dumps({"inputs": PLAIN, "parameters": {"x": 1.5}}).encode(), {}),
    (OpenInference(), PAIR, b"\0" * 20, {HEADER: b"0"}),
    (Rows(), TINY, json.dumps({"rows": list(TINY_EXAMPLES.rows)}).encode(), {}),
    (V1(), TINY, json.dumps({"instances": list(TINY_EXAMPLES.rows)}).encode(), {}),
    (V1(), PAIR, json.dumps({"inputs": {"a": [[1, 2]], "b": [["x", "y"]]}}).encode(), {}),
    (Invocations(), TINY, CSV, {b"content-type": b"text/csv"}),
    (Invocations(), PAIR, json.dumps({"inputs": PLAIN}).encode(), {}),
]
PIECES = st.one_of(
    st.binary(max_size=4),
    st.sampled_from([b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"\\u00", b"\\ud800", b"NaN", b"1e999", b"-", b"0", b"null"]),
    st.sampled_from([b"9" * 30, b"9" * 5000, b"[" * 150, b'{"a":' * 150, b"\xff", b"\0", b'"name":"a",', b"1.5", b"true", b"\n"]),
)  # fmt: skip


@st.composite
def changed(draw: st.DrawFn, body: bytes) -> bytes:
    """The body with up to three cuts, in each of which something else is put."""
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(body)))
        end = draw(st.integers(begin, min(len(body), begin + 12)))
        body = body[:begin] + draw(PIECES) + body[end:]
    return body


@pytest.mark.parametrize("case", range(len(CASES)))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_door_reads_or_refuses(case: int, data: st.DataObject) -> None:
    door, resident, body, headers = CASES[case]
    door.decode(Sent(body, headers), resident) if case != 2 else None
    sent = data.draw(changed(body))
    length = headers.get(HEADER)
    if length is not None:
        lengths = [length, b"%d" % (len(TEXT) + len(sent) - len(body)), b"%d" % len(sent), b"1", b"-1"]
        headers = {HEADER: data.draw(st.sampled_from(lengths))}
    try:
        decoded = door.decode(Sent(memoryview(sent) if data.draw(st.booleans()) else sent, headers), resident)
    except RequestError:
        return
    assert decoded.rows == {len(array) for array in decoded.inputs.values()}.pop()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_fast_reader_reads_or_refuses(data: st.DataObject) -> None:
    body = data.draw(changed(CASES[1][2]))
    try:
        found = inferrequest.read_long(body)
    except RequestError:
        return
    assert found is None or len(found[0].inputs) >= len(found[1])
