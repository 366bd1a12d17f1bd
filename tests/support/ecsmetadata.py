"""ECS's task metadata endpoint, as a real local HTTP server that answers what a test gives it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support import httpservers


@contextmanager
def metadata(answers: Mapping[str, Any], status: int = 200) -> Iterator[str]:
    """The address of an endpoint that answers so; what is no JSON yet is sent as it is."""

    class Handler(httpservers.Quiet, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers[self.path]
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with httpservers.serving(Handler) as port:
        yield f"http://127.0.0.1:{port}/v4/abc"
