"""A real HTTP server that speaks EC2's instance metadata protocol, version 2: no answer without a token, and tokens expire.

Written from docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html.
"""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PREFIX = "/latest/meta-data/"


class MetadataServer:
    """`texts` is what the paths below `/latest/meta-data/` answer; `requests` what was asked."""

    def __init__(self) -> None:
        self.texts = {
            "instance-type": "g5.xlarge",
            "placement/availability-zone": "eu-west-1b",
            "instance-life-cycle": "spot",
        }
        self.requests: list[str] = []
        self.tokens: set[str] = set()
        self.gives_tokens = True
        self.asked = threading.Condition()
        self.url = ""

    def expire(self) -> None:
        self.tokens.clear()

    def wait_for(self, count: int) -> None:
        """Until so many requests have come."""
        with self.asked:
            assert self.asked.wait_for(lambda: len(self.requests) >= count, timeout=30)

    @contextlib.contextmanager
    def running(self) -> Iterator["MetadataServer"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        state = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                state._note(f"PUT {self.path}")
                seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
                if self.path != "/latest/api/token" or not seconds.isdigit() or not 1 <= int(seconds) <= 21_600:
                    self._answer(400)
                elif not state.gives_tokens:
                    self._answer(403)
                else:
                    token = f"token-{len(state.requests)}=="
                    state.tokens.add(token)
                    self._answer(200, token)

            def do_GET(self) -> None:
                state._note(f"GET {self.path}")
                if self.headers.get("X-aws-ec2-metadata-token") not in state.tokens:
                    self._answer(401)
                elif (text := state.texts.get(self.path.removeprefix(PREFIX))) is None:
                    self._answer(404, "<html>Not Found</html>")
                else:
                    self._answer(200, text)

            def _answer(self, status: int, text: str = "") -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Quiet."""

        return Handler

    def _note(self, request: str) -> None:
        with self.asked:
            self.requests.append(request)
            self.asked.notify_all()
