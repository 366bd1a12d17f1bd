"""A webhook's receiver over real HTTP: keeps every request, and answers what the test wants, late if it wants."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import msgspec

from tests.support import httpservers


class Receiver:
    """`status` is what it answers next; while `gate` is closed it does not. `bodies` by arrival, each with its headers."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/hook?team=ml"
        self.status = 204
        self.location = ""
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Event()

    @property
    def told(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(body) for body in self.bodies]


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that is up while the block runs."""

    class Handler(httpservers.Quiet, BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
            receiver.paths.append(self.path)
            receiver.arrived.set()
            receiver.gate.wait(20)
            with contextlib.suppress(OSError):  # whoever asked may have left
                self.send_response(receiver.status)
                if receiver.location:
                    self.send_header("location", receiver.location)
                self.send_header("content-length", "0")
                self.end_headers()

    with httpservers.serving(Handler) as port:
        receiver = Receiver(port)
        try:
            yield receiver
        finally:
            receiver.gate.set()
