"""Two servers that behave as a test says, for what a gateway does rarely: refusing, dying, failing. Ready as long as they run."""

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

HANGS = 0


class Seen(msgspec.Struct, frozen=True):
    """A request as it arrived."""

    stub: int
    path: str
    headers: dict[str, str]
    body: bytes


class Pair:
    """Two stubs. `script` says how the next requests are answered, whichever stub they reach; after its end with 200.

    A step is a status, a status with headers, None (the connection closes without an answer) or HANGS (none comes before the end).
    """

    def __init__(self) -> None:
        self.script: deque[int | tuple[int, dict[str, str]] | None] = deque()
        self.seen: list[Seen] = []
        self.broken: set[int] = set()
        self.over = threading.Event()
        self.stubs = [_Stub(self, number) for number in range(2)]

    def begin(self, *steps: int | tuple[int, dict[str, str]] | None) -> None:
        self.seen.clear()
        self.script = deque(steps)


class _Stub(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, pair: Pair, number: int) -> None:
        self.pair = pair
        self.number = number
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Envoy closes a connection when it likes."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece: in two, the second waits 40 ms for the first to be acknowledged
    server: _Stub

    def do_GET(self) -> None:
        if self.path == "/v2/health/ready":
            self._answer(200, {})
        else:
            self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        stub = self.server
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        stub.pair.seen.append(Seen(stub.number, self.path, headers, body))
        step: Any = stub.pair.script.popleft() if stub.pair.script else 200
        if step == HANGS:
            stub.pair.over.wait()
        if step is None or step == HANGS or stub.number in stub.pair.broken:
            self.close_connection = True
        elif isinstance(step, int):
            self._answer(step, {})
        else:
            self._answer(*step)

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": "2", "stub": str(self.server.number)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - as it is called there
        """Nothing to say."""


@contextlib.contextmanager
def running() -> Iterator[Pair]:
    pair = Pair()
    threads = [threading.Thread(target=stub.serve_forever, args=(0.05,)) for stub in pair.stubs]
    for thread in threads:
        thread.start()
    try:
        yield pair
    finally:
        pair.over.set()
        for stub, thread in zip(pair.stubs, threads, strict=True):
            stub.shutdown()
            stub.server_close()
            thread.join()
