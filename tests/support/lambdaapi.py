"""A real HTTP server that plays Lambda's Runtime API and Extensions API, as the AWS Lambda developer guide describes them.

Lambda itself cannot be had here, nor its emulator: nothing freezes, nothing is billed, and no one but the test stops the process.
"""

import base64
import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

WAIT_S = 30
LONG_BYTES = 2048  # from here on an event comes in chunks, as from a server that does not know its length yet


class Outcome(msgspec.Struct, frozen=True):
    """What the runtime made of an invocation: `how` is response or error."""

    how: str
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:  # Any: JSON
        return json.loads(self.body)

    @property
    def content(self) -> bytes:
        """The body that a caller of the URL gets."""
        assert self.how == "response", self.body
        body: str = self.json["body"]
        return base64.b64decode(body) if self.json["isBase64Encoded"] else body.encode()

    @property
    def error(self) -> str:
        sentence: str = self.json["errorMessage"] if self.how == "error" else json.loads(self.content)["error"]
        return sentence


class LambdaApi:
    """`asked` is every request's method and path, in their order; `init_errors` what was told of a start that failed."""

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self.asked: list[str] = []
        self.registered: list[tuple[str, bytes]] = []
        self.init_errors: list[dict[str, str]] = []
        self.answer_status = 202
        self.waiting: queue.Queue[tuple[dict[str, str], bytes] | None] = queue.Queue()
        self.outcomes: queue.Queue[tuple[str, Outcome]] = queue.Queue()
        self.is_closed = threading.Event()
        self._count = 0

    def invoke(self, event: bytes | object, *, left_ms: int = 30_000, trace: str = "Root=1-5bef4de7") -> Outcome:
        """One invocation, and its outcome."""
        self._count += 1
        wanted = f"request-{self._count}"
        headers = {
            "Lambda-Runtime-Aws-Request-Id": wanted,
            "Lambda-Runtime-Deadline-Ms": str(time.time_ns() // 1_000_000 + left_ms),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-central-1:123456789012:function:flights",
            "Lambda-Runtime-Trace-Id": trace,
        }
        self.waiting.put((headers, event if isinstance(event, bytes) else json.dumps(event).encode()))
        found, outcome = self.outcomes.get(timeout=WAIT_S)
        assert found == wanted
        return outcome

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Outcome:
        """One request to the function's URL. Keyword names become header names."""
        return self.invoke(event(method, path, body, **headers))

    def close(self) -> None:
        """Whoever waits for an invocation is cut off."""
        self.is_closed.set()
        self.waiting.put(None)


def event(method: str, path: str, body: bytes | None = None, **headers: str) -> dict[str, Any]:
    """As Lambda writes it for a function URL: a body that is no text is base64."""
    path, _, query = path.partition("?")
    text: str | None = None
    is_binary = False
    if body is not None:
        try:
            text = body.decode()
        except UnicodeDecodeError:
            text, is_binary = base64.b64encode(body).decode(), True
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {
            "host": "abc.lambda-url.eu-central-1.on.aws",
            "x-forwarded-for": "203.0.113.9",
            "x-amzn-trace-id": "Root=1-5bef4de7",
            **({"content-length": str(len(body))} if body is not None else {}),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
        "requestContext": {
            "accountId": "anonymous",
            "domainName": "abc.lambda-url.eu-central-1.on.aws",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.9"},
            "requestId": "e1506fd5",
            "stage": "$default",
        },
        "body": text,
        "isBase64Encoded": is_binary,
    }


@contextlib.contextmanager
def playing() -> Iterator[LambdaApi]:
    """The API while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            api.asked.append(f"GET {self.path}")
            if self.path == "/2020-01-01/extension/event/next":
                assert self.headers["lambda-extension-identifier"] == "extension-1"
                api.is_closed.wait()
                self.close_connection = True
                return
            assert self.path == "/2018-06-01/runtime/invocation/next"
            if (found := api.waiting.get()) is None:
                self.close_connection = True
                return
            headers, body = found
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            if len(body) < LONG_BYTES:
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for at in range(0, len(body), 1 << 16):
                piece = body[at : at + (1 << 16)]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

        def do_POST(self) -> None:
            api.asked.append(f"POST {self.path}")
            body = self.rfile.read(int(self.headers["content-length"]))
            status, extra = 202, {}
            if self.path == "/2020-01-01/extension/register":
                api.registered.append((self.headers["lambda-extension-name"], body))
                status, extra = 200, {"Lambda-Extension-Identifier": "extension-1"}
            elif self.path == "/2018-06-01/runtime/init/error":
                api.init_errors.append(json.loads(body))
            else:
                *_, invocation, how = self.path.split("/")
                headers = {name.lower(): value for name, value in self.headers.items()}
                api.outcomes.put((invocation, Outcome(how, body, headers)))
                status = api.answer_status
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        api = LambdaApi(server.server_port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield api
        finally:
            api.close()
            server.shutdown()
            thread.join()
