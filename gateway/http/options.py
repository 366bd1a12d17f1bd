"""The options of `server`, `compression` and `sagemaker`, with their reasons; `gateway.settings` gathers them."""

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.config import Amount, Bytes, Seconds, Timeout

_BASE_PATH = re.compile(r"(/[\w.~-]+)+", re.ASCII)


class HttpOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one client may do to the server, and how it stops.

    `head_timeout_s`, `body_timeout_s`: for a whole head and a whole body, from their first byte. `write_timeout_s`: how long a
    client may leave its answer unread. `linger_s`: how long to go on accepting after SIGTERM while readiness says 503, so that a
    load balancer notices first. `drain_s`: how long requests in flight may take then; with `linger_s`, twice `runtime.stop_s` and
    the ledger's own 10 s that stays below the 30 s after which Fargate kills. `base_path`: a prefix that a proxy leaves in front of
    every path, such as `/models`: it is taken off, and requests without it are served too.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    connections_max: Amount = 4096
    head_bytes_max: Amount = 32 * 1024
    headers_max: Amount = 100
    body_bytes_max: Amount = 16 * 1024 * 1024
    head_timeout_s: Timeout = 10.0
    body_timeout_s: Timeout = 10.0
    write_timeout_s: Timeout = 30.0
    keep_alive_s: Timeout = 75.0
    linger_s: Seconds = 0.0
    drain_s: Seconds = 15.0
    base_path: str = ""

    def __post_init__(self) -> None:
        if self.base_path and not _BASE_PATH.fullmatch(self.base_path):
            raise ValueError("'base_path' must be like '/models' or '/a/b': unreserved characters, no '/' at its end")


class CompressionOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`inflated_bytes_max`: what a compressed body may become. `answers_from_bytes`: shorter answers are sent as they are, since
    clients accept compression without asking whether it pays; 0 compresses none.

    `level` 1 is six times as fast as 6 on JSON numbers (8 against 49 ms per MB) and gives 13 % more bytes.
    `loop_bytes_max`: longer compressed bodies are inflated in a thread, for one may become a thousand times as long, and 4 MB take
    12 ms. Answers are always deflated in a thread.
    """

    inflated_bytes_max: Amount = 64 * 1024 * 1024
    answers_from_bytes: Bytes = 16 * 1024
    level: Annotated[int, Meta(ge=1, le=9)] = 1
    loop_bytes_max: Bytes = 4096


class SageMakerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`default_model`: who answers `/invocations` without the header `X-Amzn-SageMaker-Target-Model`; empty means nobody."""

    default_model: str = ""
