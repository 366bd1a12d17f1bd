"""The ASGI application: prediction routes first, Litestar for everything else, one shape for every failure."""

import logging
from typing import Any

import msgspec
from litestar import Litestar, Request, Response
from litestar.di import Provide
from litestar.exceptions import HTTPException

from gateway.errors import GatewayError
from gateway.http import docs, problems
from gateway.http.infer import InferRoutes, Receive, Scope, Send, request_ids
from gateway.http.routes import HANDLERS
from gateway.http.service import Service

logger = logging.getLogger(__name__)


class HttpOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`body_timeout_s`: how long a client may take to send its body. `drain_s`: how long requests in flight may take after a
    signal; with the ledger's own 10 s that stays below the 30 s after which Fargate kills.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    body_bytes_max: int = 16 * 1024 * 1024
    body_timeout_s: float = 10.0
    keep_alive_s: int = 75
    drain_s: int = 15


class App:
    """One gateway's ASGI application over a service that is already open."""

    def __init__(self, service: Service, options: HttpOptions) -> None:
        self._routes = InferRoutes(
            service.dataplane,
            body_bytes_max=options.body_bytes_max,
            body_timeout_s=options.body_timeout_s,
            request_ids=request_ids(service.instance),
        )
        self._litestar = Litestar(
            route_handlers=[*HANDLERS, *docs.assets()],
            dependencies={"service": Provide(lambda: service, sync_to_thread=False)},
            openapi_config=docs.config(service.version),
            tags=["server"],
            exception_handlers={
                GatewayError: _gateway_error,
                HTTPException: _http_error,
                UnicodeDecodeError: _bad_body,
                RecursionError: _bad_body,
                Exception: _internal_error,
            },
            request_max_body_size=options.body_bytes_max,
            logging_config=None,
        )
        schema = self._litestar.openapi_schema
        schema.paths = {**docs.prediction_paths(), **(schema.paths or {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.match(scope["path"]) if scope["type"] == "http" else None
        if route is not None:
            await self._routes.answer(route, scope, receive, send)
        else:
            await self._litestar(scope, receive, send)  # type: ignore[arg-type]  # ASGI's dict, typed more narrowly there


def _gateway_error(_: Request[Any, Any, Any], error: GatewayError) -> Response[bytes]:
    status, body, headers = problems.describe(error)
    return _json(status, body, {name.decode(): value.decode() for name, value in headers})


def _http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Litestar's own refusals, in our shape. A missing route names itself; other details are Litestar's sentence."""
    detail = (
        f"no route {request.method} {request.url.path[:128]}; see /docs" if error.status_code == 404 else error.detail
    )
    return _json(error.status_code, problems.body(detail), dict(error.headers or {}))


def _bad_body(_: Request[Any, Any, Any], __: Exception) -> Response[bytes]:
    return _json(400, problems.body("the body is not UTF-8 JSON of sensible depth"), {})


def _internal_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _json(500, problems.body("internal error"), {})


def _json(status: int, body: bytes, headers: dict[str, str]) -> Response[bytes]:
    return Response(body, status_code=status, headers=headers, media_type="application/json")
