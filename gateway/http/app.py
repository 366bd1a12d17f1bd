"""The Litestar application: everything but predictions, with one shape for every failure."""

import logging
from typing import Any

from litestar import Litestar, Request, Response
from litestar.di import Provide
from litestar.exceptions import HTTPException

from gateway.access import rights
from gateway.access.caller import Caller
from gateway.errors import Forbidden, GatewayError
from gateway.http import costs, docs, modelconfig, problems, repository, routes, statistics
from gateway.http.service import Service

logger = logging.getLogger(__name__)


def application(service: Service, *, body_bytes_max: int, base_path: str = "") -> Litestar:
    """One gateway's application over a service that is already open. Its OpenAPI document lists the prediction routes too.

    Requests come without `base_path`; only the documentation and what leads there say it, to browsers.
    """
    app = Litestar(
        route_handlers=[
            *routes.HANDLERS,
            *repository.HANDLERS,
            *modelconfig.HANDLERS,
            *statistics.HANDLERS,
            *costs.HANDLERS,
            *docs.assets(),
        ],
        dependencies={"service": Provide(lambda: service, sync_to_thread=False)},
        openapi_config=docs.config(service.version, base_path),
        tags=["server"],
        before_request=_let_in,
        exception_handlers={
            GatewayError: _gateway_error,
            HTTPException: _http_error,
            UnicodeDecodeError: _bad_body,
            RecursionError: _bad_body,
            Exception: _internal_error,
        },
        request_max_body_size=body_bytes_max,
        logging_config=None,
    )
    app.state.access = service.access
    app.state.base_path = base_path
    schema = app.openapi_schema
    schema.paths = {**docs.prediction_paths(), **(schema.paths or {})}
    return app


def _let_in(request: Request[Any, Any, Any]) -> None:
    """Raises `Unauthenticated` or `Forbidden`. Predictions never come here; `gateway.http.predictions` asks for theirs.

    The path is the scope's: `request.url` is made of the Host header, a stranger's text.
    """
    access = request.app.state.access
    right = rights.needed(request.method, request.scope["path"], metrics_open=access.options.metrics_open)
    if right is None:
        return
    authorization, key = (request.headers.get(name) for name in ("authorization", "steelyard-key"))
    caller: Caller = access.caller(authorization and authorization.encode("latin-1"), key and key.encode("latin-1"))
    caller.require(right)
    model = request.path_params.get("model")
    if model is not None and not caller.may(model):
        raise Forbidden(f"this key may not know of model '{model[:64]}'")
    request.state.caller = caller


def _gateway_error(_: Request[Any, Any, Any], error: GatewayError) -> Response[bytes]:
    status, body, headers = problems.describe(error)
    return _json(status, body, {name.decode(): value.decode() for name, value in headers})


def _http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Litestar's own refusals, in our shape. A missing route names itself; other details are Litestar's sentence."""
    detail = (
        f"no route {request.method} {request.scope['path'][:128]}; see {request.app.state.base_path}/docs"
        if error.status_code == 404
        else error.detail
    )
    return _json(error.status_code, problems.body(detail), dict(error.headers or {}))


def _bad_body(_: Request[Any, Any, Any], __: Exception) -> Response[bytes]:
    return _json(400, problems.body("the body is not UTF-8 JSON of sensible depth"), {})


def _internal_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    logger.error("%s %s failed", request.method, request.scope["path"][:200], exc_info=error)
    return _json(500, problems.body("internal error"), {})


def _json(status: int, body: bytes, headers: dict[str, str]) -> Response[bytes]:
    return Response(body, status_code=status, headers=headers, media_type="application/json")
