"""The options of `server`, with their reasons; `gateway.settings` gathers them."""

import msgspec


class HttpOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one client may do to the server, and how it stops.

    `head_timeout_s`, `body_timeout_s`: for a whole head and a whole body, from their first byte. `write_timeout_s`: how long a
    client may leave its answer unread. `linger_s`: how long to go on accepting after SIGTERM while readiness says 503, so that a
    load balancer notices first. `drain_s`: how long requests in flight may take then; with `linger_s` and the ledger's own 10 s
    that stays below the 30 s after which Fargate kills.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    connections_max: int = 4096
    head_bytes_max: int = 32 * 1024
    headers_max: int = 100
    body_bytes_max: int = 16 * 1024 * 1024
    head_timeout_s: float = 10.0
    body_timeout_s: float = 10.0
    write_timeout_s: float = 30.0
    keep_alive_s: float = 75.0
    linger_s: float = 0.0
    drain_s: float = 15.0
