"""Clients that mean harm or fail half way, over real sockets. Each attack is seeded, ends by itself and returns what it heard.

An attack asserts only what its own clients must see; whether the gateway is well afterwards is for the test that sends it.
"""

import base64
import contextlib
import functools
import gzip
import json
import random
import re
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np

from tests.support import models
from tests.support.gateways import Gateway, until

Statuses = Counter[int]
Attack = Callable[[Gateway, random.Random], Statuses]

IDLE_CLIENTS = 300
PATIENCE_S = 100
"""For what must happen; a limit, not a measurement. All attacks at once keep a gateway busy for 5 s, and one that is given a tenth
of a CPU for ten times as long.
"""

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [\w ]+\r\n")
_RESET = struct.pack("ii", 1, 0)
_PIECES = (b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"\\ud800", b"NaN", b"1e999", b"-", b"null", b"9" * 5000, b"\xff",
           b"\0", b"[" * 150, b'{"a":' * 150, b"\r\n", b" ", b"%00", b"..%2F", b"chunked", b"Content-Length: 7\r\n")  # fmt: skip


class Door(msgspec.Struct, frozen=True):
    """A POST that is answered with 200."""

    path: str
    body: bytes
    headers: dict[str, str] = {}

    @property
    def wire(self) -> bytes:
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return (
            f"POST {self.path} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {len(self.body)}\r\n\r\n".encode()
            + self.body
        )


def _json(path: str, body: object, **headers: str) -> Door:
    return Door(path, json.dumps(body).encode(), {name.replace("_", "-"): value for name, value in headers.items()})


ROW = dict(models.TINY_EXAMPLES.rows[0])
X = [round(0.01 * at, 2) for at in range(32)]
TENSORS = [
    {"name": "categories", "shape": [1, 2], "datatype": "BYTES", "data": ["AA", "JFK"]},
    {"name": "numbers", "shape": [1, 3], "datatype": "FP32", "data": [7, 733.0, 12.5]},
]
_FEATURES = {"name": "features", "shape": [1, 32], "datatype": "FP32"}
_HEAD = json.dumps({"inputs": [_FEATURES | {"parameters": {"binary_data_size": 128}}]}).encode()
_LENGTH = "Inference-Header-Content-Length"
_TARGET = "X-Amzn-SageMaker-Target-Model"

PREDICTIONS = (
    _json("/v1/predict/tiny", {"rows": [ROW]}),
    _json("/v2/models/tiny/infer", {"inputs": TENSORS}),
    _json("/v2/models/mlp/infer", {"inputs": [_FEATURES | {"data": X}]}),
    Door("/v2/models/mlp/infer", _HEAD + np.array(X, "<f4").tobytes(), {_LENGTH: str(len(_HEAD))}),
    _json("/v1/models/mlp:predict", {"instances": [X]}),
    _json("/invocations", {"instances": [X]}, **{_TARGET: "mlp"}),
    Door("/invocations", b"AA,JFK,7,733.0,12.5\n", {_TARGET: "tiny", "Content-Type": "text/csv"}),
)
REPOSITORY = (
    _json("/v2/repository/index", {"ready": False}),
    _json("/v2/repository/models/spare/load", {"parameters": {}}),
    _json("/v2/repository/models/spare/unload", {"parameters": {"unload_dependents": False}}),
)
DOORS = PREDICTIONS + REPOSITORY


async def publish(store: "models.ObjectStore") -> None:
    """What the storms ask for: `tiny` and `mlp` run on the event loop, `cnn` in workers, `spare` may be unloaded."""
    await models.publish_tiny(store)
    await models.publish_mlp(store)
    await models.publish_mlp(store, "spare", seed=1)
    await models.publish_cnn(store)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """With up to three cuts, in each of which something else is put."""
    for _ in range(rng.randint(1, 3)):
        begin = rng.randint(0, len(data))
        end = min(len(data), begin + rng.randint(0, 12))
        piece = rng.randbytes(rng.randint(0, 4)) if rng.random() < 0.3 else rng.choice(_PIECES)
        data = data[:begin] + piece + data[end:]
    return data


# Attacks.


def random_bytes(gateway: Gateway, rng: random.Random) -> Statuses:
    """As connections, as heads, as chunks, and as the body of every door."""
    beginnings = (
        b"",
        b"POST ",
        b"\x16\x03\x01",
        DOORS[0].wire[:60],
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    seen = Statuses()
    for _ in range(60):
        seen += _said(gateway, rng.choice(beginnings) + rng.randbytes(rng.choice((1, 10, 1000, 100_000))))
    for door in DOORS:
        for _ in range(5):
            body = rng.randbytes(rng.choice((1, 100, 10_000)))
            seen[_asked(gateway, msgspec.structs.replace(door, body=body))] += 1
    return seen


def mutated_requests(gateway: Gateway, rng: random.Random) -> Statuses:
    """Valid requests with a few bytes changed: anywhere, then in the body only."""
    seen = Statuses()
    for door in DOORS:
        for _ in range(12):
            seen += _said(gateway, mutated(door.wire, rng) + rng.choice((b"", door.wire)))
            seen[_asked(gateway, msgspec.structs.replace(door, body=mutated(door.body, rng)))] += 1
    return seen


def unread_floods(gateway: Gateway, rng: random.Random) -> Statuses:
    """Requests sent ahead for ever by clients that never read: each is cut off."""
    with contextlib.ExitStack() as open_:
        clients = [open_.enter_context(socket.socket()) for _ in range(8)]
        _flood(gateway, clients, rng)
    return Statuses()


def _flood(gateway: Gateway, clients: list[socket.socket], rng: random.Random) -> None:
    poll = select.poll()
    flooding: dict[int, tuple[socket.socket, bytes]] = {}
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", gateway.port))
        client.setblocking(False)
        flood = b"".join(rng.choice(PREDICTIONS).wire for _ in range(300)) + b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n"
        flooding[client.fileno()] = client, flood
        poll.register(client, select.POLLOUT)
    until_s = time.monotonic() + PATIENCE_S
    while flooding:
        assert time.monotonic() < until_s, f"{len(flooding)} clients that read nothing were not cut off"
        for descriptor, _ in poll.poll(1000):
            client, flood = flooding[descriptor]
            try:
                client.send(flood)
            except BlockingIOError:
                pass
            except ConnectionError:
                poll.unregister(descriptor)
                del flooding[descriptor]


def leavers(gateway: Gateway, rng: random.Random) -> Statuses:
    """Half a head, half a body, a whole request and gone."""
    for _ in range(100):
        wire = rng.choice(DOORS).wire
        with _connected(gateway) as client:
            client.sendall(wire[: rng.randint(1, len(wire))])
            _leave(client, rng)
    return Statuses()


def leavers_in_the_queue(gateway: Gateway, rng: random.Random) -> Statuses:
    """Gone while they wait for a worker."""
    rows = 4
    image = {"name": "image", "shape": [rows, 3, 96, 96], "datatype": "FP32"}
    head = json.dumps({"inputs": [image | {"parameters": {"binary_data_size": 110_592 * rows}}]}).encode()
    pixels = np.full(27_648 * rows, rng.random(), "<f4").tobytes()
    wire = Door("/v2/models/cnn/infer", head + pixels, {_LENGTH: str(len(head))}).wire
    with contextlib.ExitStack() as open_:
        clients = [open_.enter_context(_connected(gateway)) for _ in range(30)]

        def is_waiting() -> bool:
            """Some of them; all ask again where all were answered before anybody looked."""
            if in_flight(gateway) > 0:
                return True
            for client in clients:
                with contextlib.suppress(ConnectionError):  # one that was refused for want of room
                    client.sendall(wire)
            return False

        until(is_waiting, "nobody waited")
        for client in rng.sample(clients, len(clients)):
            _leave(client, rng)
    return Statuses()


def leavers_in_the_answer(gateway: Gateway, rng: random.Random) -> Statuses:
    """Gone when the first bytes of a long answer are there: of many predictions, of a large file."""
    rows = Door("/v1/predict/tiny", json.dumps({"rows": [ROW] * 2000}).encode()).wire
    for wire in (rows, rows * 3, b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 3) * 4:
        with _connected(gateway) as client:
            client.sendall(wire)
            assert client.recv(12) == b"HTTP/1.1 200"
            _leave(client, rng)
    return Statuses()


def tiny_chunks(gateway: Gateway, rng: random.Random) -> Statuses:
    """One good body in 65,536 chunks of a byte."""
    door = PREDICTIONS[rng.randrange(2)]
    body = door.body + b" " * (65_536 - len(door.body))
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = f"POST {door.path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    seen = _said(gateway, head + chunks, is_whole=True)
    assert seen == {200: 1}
    return seen


def bombs(gateway: Gateway, rng: random.Random) -> Statuses:
    """A few kilobytes that become a hundred megabytes, once or twice packed."""
    once = gzip.compress(bytes(100 << 20), 1)
    packed = ((once, "gzip"), (gzip.compress(once), "gzip, gzip"))
    seen = Statuses()
    for door in PREDICTIONS:
        for body, coding in rng.sample(packed, 1):
            asked = msgspec.structs.replace(door, body=body, headers=door.headers | {"Content-Encoding": coding})
            seen[_asked(gateway, asked)] += 1
    assert set(seen) <= {400, 413}, seen
    return seen


def growing_bodies(gateway: Gateway, rng: random.Random) -> Statuses:
    """Bodies of 12 to 31 MB, packed and at once, so that many threads hold one."""
    bodies = [gzip.compress(b"[" * (megabytes << 20), 1) for megabytes in (12, 20, 31)]
    headers = {"Content-Encoding": "gzip"}
    doors = [Door("/v2/models/mlp/infer", rng.choice(bodies), headers) for _ in range(16)]
    with ThreadPoolExecutor(8) as clients:
        seen = Statuses(clients.map(functools.partial(_asked, gateway), doors))
    assert set(seen) <= {400, 429}, seen
    return seen


def deep_json(gateway: Gateway, rng: random.Random) -> Statuses:
    """250,000 levels, at every door that reads JSON, alone and where a value may be."""
    seen = Statuses()
    for door in DOORS:
        for deep in (b"[" * 250_000, b'{"a":' * 250_000, b'{"parameters":' + b"[" * 250_000 + b"]" * 250_000 + b"}"):
            if "Content-Type" not in door.headers:
                seen[_asked(gateway, msgspec.structs.replace(door, body=deep, headers=_headers(door, deep)))] += 1
    assert set(seen) == {400}, seen
    return seen


def garbage_keys(gateway: Gateway, rng: random.Random) -> Statuses:
    """10,000 keys that nobody knows, beside the good ones."""
    garbage = {f"{rng.getrandbits(64):x}": {"deep": [at]} for at in range(10_000)}
    seen = Statuses()
    for door in DOORS:
        if door.body.startswith(b"{") and door.body.endswith(b"}"):
            body = json.dumps(json.loads(door.body) | garbage).encode()
            seen[_asked(gateway, msgspec.structs.replace(door, body=body))] += 1
    assert set(seen) <= {200, 400}, seen
    return seen


def files_in_a_load(gateway: Gateway, rng: random.Random) -> Statuses:
    """A model in base64 where a load names files: refused, within the limit of a body and beyond."""
    seen = Statuses()
    for megabytes in (6, 15):
        file = base64.b64encode(rng.randbytes(1 << 20) * megabytes).decode()
        body = json.dumps({"parameters": {"file:1/model.onnx": file}}).encode()
        seen += _said(
            gateway, Door("/v2/repository/models/spare/load", body, {"Connection": "close"}).wire, is_whole=True
        )
    assert set(seen) <= {400, 413}, seen  # a refusal is lost where it makes the kernel reset a client that still sends
    assert 400 in seen, seen
    return seen


def idle_clients(gateway: Gateway, rng: random.Random) -> Statuses:
    """Hundreds of connections that say nothing, or not enough, until the gateway ends them."""
    seen = Statuses()
    with contextlib.ExitStack() as open_:
        clients = [open_.enter_context(_connected(gateway)) for _ in range(IDLE_CLIENTS)]
        for client in clients:
            client.sendall(rng.choice((b"", b"", b"POST /v1/pre", DOORS[0].wire[:-5])))
        for client in clients:
            seen += _heard(client)
    assert set(seen) == {408}, seen
    return seen


ATTACKS: tuple[Attack, ...] = (
    random_bytes,
    mutated_requests,
    unread_floods,
    leavers,
    leavers_in_the_queue,
    leavers_in_the_answer,
    tiny_chunks,
    bombs,
    growing_bodies,
    deep_json,
    garbage_keys,
    files_in_a_load,
    idle_clients,
)


def in_flight(gateway: Gateway) -> int:
    """Requests that wait for a load or a worker, as the gateway counts them."""
    found = re.search(r"^steelyard_in_flight_requests ([\d.]+)$", gateway.get("/metrics").body.decode(), re.MULTILINE)
    assert found
    return int(float(found[1]))


# What attacks are made of.


@contextlib.contextmanager
def _connected(gateway: Gateway) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_S) as client:
        yield client


def _leave(client: socket.socket, rng: random.Random) -> None:
    """With a goodbye, or with a reset."""
    if rng.random() < 0.5:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.close()


def _said(gateway: Gateway, data: bytes, *, is_whole: bool = False) -> Statuses:
    """Send, end the sending side unless the request says itself that it is the last, and hear all answers."""
    with _connected(gateway) as client:
        with contextlib.suppress(ConnectionError):  # it may be refused before all of it is sent
            client.sendall(data)
            if not is_whole:
                client.shutdown(socket.SHUT_WR)
        return _heard(client)


def _heard(client: socket.socket) -> Statuses:
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while data := client.recv(1 << 16):
            received += data
    return Statuses(int(status) for status in _STATUS.findall(received))


def _asked(gateway: Gateway, door: Door) -> int:
    """A whole request; a refusal is a sentence."""
    answer = gateway.request("POST", door.path, door.body, **door.headers)
    if answer.status != 200:
        assert answer.error, door.path
    return answer.status


def _headers(door: Door, body: bytes) -> dict[str, str]:
    return door.headers | ({_LENGTH: str(len(body))} if _LENGTH in door.headers else {})
