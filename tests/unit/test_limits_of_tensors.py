"""How many elements a tensor may have and how deep its JSON may be: both sides of each limit, through the doors."""

import json
from typing import Any

import pytest

from gateway.calls import Sent
from gateway.errors import InvalidInput
from gateway.http import tensorjson
from gateway.http.jsonbody import DEPTH_MAX
from gateway.http.openinference import HEADER, OpenInference
from gateway.http.rows import Rows
from gateway.runtime import tensors
from gateway.runtime.tensors import ELEMENTS_MAX
from tests.support import identities
from tests.support.residents import resident_of

FLAGS = resident_of(identities.signature({"a": ("BOOL", (2,))}), "flags")
OPEN = resident_of(identities.signature({"a": ("BOOL", ("n",))}), "open")


def sent(shape: list[int], data: bytes = b"") -> Sent:
    one = {"name": "a", "shape": shape, "datatype": "BOOL", "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [one]}).encode()
    return Sent(head + data, {HEADER: b"%d" % len(head)})


@pytest.mark.parametrize(("model", "shape"), [(FLAGS, [ELEMENTS_MAX // 2 + 1, 2]), (OPEN, [1, ELEMENTS_MAX + 1])])
def test_a_tensor_of_too_many_elements_is_refused_for_its_shape(model: Any, shape: list[int]) -> None:
    with pytest.raises(InvalidInput, match=f"at most {ELEMENTS_MAX} are taken"):
        OpenInference().decode(sent(shape), model)


def test_a_tensor_of_as_many_elements_as_allowed_is_read() -> None:
    assert OpenInference().decode(sent([ELEMENTS_MAX // 2, 2], bytes(ELEMENTS_MAX)), FLAGS).rows == ELEMENTS_MAX // 2


def test_rows_are_limited_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "ELEMENTS_MAX", 3)  # sixteen million rows would be a test of msgspec's
    rows = [{"a": [True, False]}]
    assert Rows().decode(Sent(json.dumps({"rows": rows}).encode()), FLAGS).rows == 1
    with pytest.raises(InvalidInput, match="at most 3 are taken"):
        Rows().decode(Sent(json.dumps({"rows": rows * 4}).encode()), FLAGS)


@pytest.mark.parametrize(("depth", "refused"), [(DEPTH_MAX, False), (DEPTH_MAX + 1, True)])
def test_json_may_be_as_deep_as_allowed(depth: int, *, refused: bool) -> None:
    body = json.dumps({"inputs": [{"name": "a", "shape": [1, 2], "datatype": "BOOL", "data": [True, True]}]})
    deep = body[:-1] + ',"x":' + "[" * (depth - 1) + "]" * (depth - 1) + "}"
    if refused:
        with pytest.raises(InvalidInput, match=f"more than {DEPTH_MAX} levels"):
            OpenInference().decode(Sent(deep.encode()), FLAGS)
    else:
        assert OpenInference().decode(Sent(deep.encode()), FLAGS).rows == 1


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_the_first_element_that_does_not_fit_is_named(count: int) -> None:
    for at in {0, count // 2, count - 1}:
        values = [0] * at + [999] * (count - at)
        with pytest.raises(OverflowError, match=f"^element {at} does not fit INT8$"):
            tensorjson.from_list("INT8", values)
