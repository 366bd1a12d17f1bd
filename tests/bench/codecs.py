"""`python -m tests.bench.codecs`: JSON codecs on the two bodies that matter, as ratios of what the gateway does.

Decoding ends in a float32 array and begins with the whole request, so each candidate pays for finding the data too. Rounds
alternate and the fastest counts: whatever else runs on the machine only ever adds.
"""

import importlib.metadata
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import orjson
import simdjson

from gateway.calls import Sent
from gateway.contract.manifest import Signature, Tensor
from gateway.http import inferrequest, jsonbody, longjson, tensorbytes, tensorjson
from gateway.http.openinference import HEADER, OpenInference
from tests.support.residents import resident_of

ROUNDS = 15
SHAPES = {"MLP, 32 floats": (1, 32), "CNN, 3x96x96 floats": (1, 3, 96, 96)}


class Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(msgspec.Struct):
    inputs: list[Input]


_typed = msgspec.json.Decoder(Request)
_raw = msgspec.json.Decoder(inferrequest.InferRequest)
_encoder = msgspec.json.Encoder()
_parser = simdjson.Parser()


def main() -> None:
    print(
        ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("msgspec", "orjson", "pysimdjson", "numpy"))
    )
    for what, shape in SHAPES.items():
        _decoding(what, shape)
    _encoding()
    _doors()
    for module in ("orjson", "simdjson", "msgspec"):
        print(f"import {module}: {_import_ms(module):.1f} ms more than a bare interpreter")


def _decoding(what: str, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).random(shape).round(6)
    body = json.dumps(
        {"inputs": [{"name": "x", "shape": shape, "datatype": "FP32", "data": values.ravel().tolist()}]},
        separators=(",", ":"),
    ).encode()
    tensor = Tensor("x", "FP32", ("batch", *shape[1:]))

    def careful() -> Any:
        sent = jsonbody.decode(_raw, body).inputs[0]
        return tensorjson.array(tensor, sent.data, sent.shape)

    def fast() -> Any:
        found = inferrequest.read_long(body)
        assert found is not None
        return found[1][0].reshape(shape)

    def simdjson_alone() -> Any:
        data = _parser.parse(body)["inputs"].at_pointer("/0/data")
        return np.frombuffer(data.as_buffer(of_type="d"), np.float64).astype(np.float32).reshape(shape)

    candidates: dict[str, Callable[[], Any]] = {
        "msgspec, struct (gateway, short bodies)": careful,
        "simdjson, checked (gateway, long bodies)": fast,
        "simdjson, unchecked": simdjson_alone,
        "msgspec list[float], np.array": lambda: np.array(_typed.decode(body).inputs[0].data, np.float32).reshape(
            shape
        ),
        "orjson, np.array": lambda: np.array(orjson.loads(body)["inputs"][0]["data"], np.float32).reshape(shape),
        "json, np.array": lambda: np.array(json.loads(body)["inputs"][0]["data"], np.float32).reshape(shape),
    }
    for name, candidate in candidates.items():
        assert np.array_equal(candidate(), values.astype(np.float32)), name
    kept = "simdjson, checked (gateway, long bodies)" if len(body) >= longjson.LONG_BYTES else next(iter(candidates))
    _print(f"decode {what} ({len(body)} bytes)", candidates, kept)


def _encoding() -> None:
    for what, count in (("10", 10), ("27,648", 27648)):
        array = np.random.default_rng(0).random(count, np.float32)
        candidates: dict[str, Callable[[], Any]] = {
            "orjson on the array (gateway)": lambda array=array: tensorjson.encode(array),  # type: ignore[misc]
            "msgspec on a list": lambda array=array: _encoder.encode(array.tolist()),  # type: ignore[misc]
            "orjson on a list": lambda array=array: orjson.dumps(array.tolist()),  # type: ignore[misc]
        }
        sizes = ", ".join(f"{len(candidate())} bytes" for candidate in candidates.values())
        _print(f"encode {what} float32 ({sizes})", candidates, next(iter(candidates)))


def _doors() -> None:
    """The whole door on the small body, as JSON and as bytes, beside decoding its numbers alone."""
    door = OpenInference()
    resident = resident_of(
        Signature((Tensor("x", "FP32", ("batch", 32)),), (Tensor("y", "FP32", ("batch", 10)),)), "mlp"
    )
    outputs = {"y": np.random.default_rng(0).random((1, 10), np.float32)}
    x = np.random.default_rng(0).random((1, 32)).round(6).astype(np.float32)
    head = {"name": "x", "shape": [1, 32], "datatype": "FP32"}
    as_json = Sent(json.dumps({"inputs": [head | {"data": x.ravel().tolist()}]}).encode())
    text = json.dumps({"inputs": [head | {"parameters": {"binary_data_size": 128}}],
                       "parameters": {"binary_data_output": True}}).encode()  # fmt: skip
    as_bytes = Sent(text + tensorbytes.write(x), {HEADER: b"%d" % len(text)})
    data = json.dumps(x.ravel().tolist()).encode()
    candidates: dict[str, Callable[[], Any]] = {
        "decode the list of 32 alone": lambda: np.array(msgspec.json.decode(data, type=list[float]), np.float32),
        "decode and encode, JSON": lambda: door.encode(outputs, door.decode(as_json, resident), resident),
        "decode and encode, binary": lambda: door.encode(outputs, door.decode(as_bytes, resident), resident),
    }
    _print("the whole door, MLP", candidates, next(iter(candidates)))


def _print(title: str, candidates: dict[str, Callable[[], Any]], kept: str) -> None:
    times_us = _fastest_us(candidates)
    print(f"\n{title}")
    for name, time_us in times_us.items():
        print(f"  {name:<42} {time_us:9.2f} us  {time_us / times_us[kept]:5.2f}")


def _fastest_us(candidates: dict[str, Callable[[], Any]]) -> dict[str, float]:
    fastest = dict.fromkeys(candidates, float("inf"))
    counts = {name: max(1, int(2e6 / _once_ns(candidate))) for name, candidate in candidates.items()}
    for _ in range(ROUNDS):
        for name, candidate in candidates.items():
            began_ns = time.perf_counter_ns()
            for _ in range(counts[name]):
                candidate()
            fastest[name] = min(fastest[name], (time.perf_counter_ns() - began_ns) / counts[name] / 1e3)
    return fastest


def _once_ns(candidate: Callable[[], Any]) -> int:
    candidate()
    began_ns = time.perf_counter_ns()
    candidate()
    return max(1, time.perf_counter_ns() - began_ns)


def _import_ms(module: str) -> float:
    """The gateway has imported most of what these import."""
    common = "import json, uuid, zoneinfo, pathlib, dataclasses, enum, typing, datetime, decimal"
    code = f"import time; {common}; t = time.perf_counter_ns(); import {module}; print(time.perf_counter_ns() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(5)]
    return min(int(run) for run in runs) / 1e6


if __name__ == "__main__":
    main()
