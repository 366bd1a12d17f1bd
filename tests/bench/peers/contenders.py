"""Who is measured, on what, and in which JSON: the bare callable, this gateway and five peers; a small MLP and a small CNN."""

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.objectstore.local import LocalStore
from tests.bench.peers import environments, table
from tests.support import models

Rows = NDArray[np.float64]  # not float32: its 17 digits in JSON would be nobody's


class Subject(msgspec.Struct, frozen=True):
    """A model: its one input's name and the shape of one row, its graph, and how a store gets it."""

    name: str
    input: str
    shape: tuple[int, ...]
    graph: Callable[[], bytes]
    publish: Callable[[LocalStore, str], Coroutine[Any, Any, object]]


class Wire(msgspec.Struct, frozen=True):
    """Where a server takes one row, how it wants it, and where its answer has the numbers."""

    path: str
    request: Callable[[str, Rows], object]
    answer: Callable[[Any], Any]  # Any: whatever JSON came back


class Contender(msgspec.Struct, frozen=True):
    """A server. `arguments` are its Python's, with {graph}, {store} and {port} left open; no `package`: this very environment."""

    name: str
    wire: Wire
    arguments: tuple[str, ...]
    package: str = ""


def _open_inference(path: str = "/v2/models/model/infer") -> Wire:
    def request(name: str, x: Rows) -> object:
        return {"inputs": [{"name": name, "shape": x.shape, "datatype": "FP32", "data": x.ravel().tolist()}]}

    return Wire(path, request, lambda answer: answer["outputs"][0]["data"])


def _plain(path: str) -> Wire:
    """For servers that leave the JSON to their user."""
    return Wire(path, lambda _, x: {"x": x[0].tolist()}, lambda answer: answer["y"])


def _peer(name: str, package: str, wire: Wire) -> Contender:
    arguments = ("-m", f"tests.bench.peers.{package}", "{graph}", "{port}")
    return Contender(f"{name} {environments.version(package)}", wire, arguments, package)


SUBJECTS = (
    Subject("MLP", "features", (32,), models.mlp_graph, models.publish_mlp),
    Subject("CNN", "image", (3, models.CNN_PIXELS, models.CNN_PIXELS), models.cnn_graph, models.publish_cnn),
)
CONTENDERS = (
    Contender("bare ASGI", _open_inference("/"), ("-m", "tests.bench.bare", "{graph}", "{port}")),
    Contender(
        table.BASE,
        _open_inference(),
        ("-m", "gateway", "serve", "--store", "{store}", "--port", "{port}", "--preload", "model"),
    ),
    _peer("MLServer", "mlserver", _open_inference()),
    _peer("KServe", "kserve", _open_inference()),
    _peer("LitServe", "litserve", _plain("/predict")),
    _peer("BentoML", "bentoml", _plain("/predict")),
    _peer("Mosec", "mosec", _plain("/inference")),
)
