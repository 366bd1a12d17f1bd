"""The baseline: an ASGI callable that decodes, runs and encodes, and does nothing else. No checks, no receipt, no batching.

python -m tests.bench.bare MODEL.onnx PORT
"""

import asyncio
import socket
import sys
from typing import Any

import msgspec
import numpy as np

from tests.bench.session import session


class Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw


class Request(msgspec.Struct):
    inputs: list[Input]


class Output(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Response(msgspec.Struct):
    model_name: str
    model_version: str
    outputs: list[Output]


_floats = msgspec.json.Decoder(list[float])
_requests = msgspec.json.Decoder(Request)
_encoder = msgspec.json.Encoder()


class Bare:
    """One model with one float input and one output."""

    def __init__(self, path: str) -> None:
        self._session = session(path)
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def answer(self, body: bytes) -> bytes:
        sent = _requests.decode(body).inputs[0]
        x = np.array(_floats.decode(sent.data), np.float32).reshape(sent.shape)
        [y] = self._session.run([self._output], {self._input: x})
        return _encoder.encode(Response("bare", "1", [Output(self._output, list(y.shape), "FP32", y.ravel().tolist())]))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        body: bytes = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        answer = self.answer(body)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def main() -> None:
    import uvicorn
    import uvloop

    path, port = sys.argv[1], int(sys.argv[2])
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    config = uvicorn.Config(Bare(path), http="httptools", lifespan="off", log_level="warning", access_log=False)
    asyncio.Runner(loop_factory=uvloop.new_event_loop).run(uvicorn.Server(config).serve(sockets=[listening]))


if __name__ == "__main__":
    main()
