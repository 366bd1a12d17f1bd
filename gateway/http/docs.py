"""OpenAPI for every route and an interactive page for it whose assets come from this process, never from the internet.

The page is Swagger UI, served from the files of the `flask-swagger-ui` distribution (extra `docs`), never imported. Without
it `/docs` is the plain OpenAPI document.
"""

from importlib import metadata
from pathlib import Path
from typing import Any

from litestar import Router
from litestar.connection import ASGIConnection
from litestar.exceptions import NotFoundException
from litestar.handlers import BaseRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import (
    Example,
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    PathItem,
    RequestBody,
    Schema,
    Server,
    Tag,
)
from litestar.static_files import create_static_files_router

from gateway.http import problems

ASSETS = "/docs/assets"

_ROWS = {"rows": [{"carrier": "UA", "origin": "EWR", "dest": "SFO", "...": "every column of the model"}]}
_TEXTS = {"rows": [{"text": "a model of text reads strings"}]}
_INSTANCES = {"instances": [[0.5, 1.5], [2.5, 3.5]]}
_TENSORS = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 1.5]}]}


def config(version: str, base_path: str = "") -> OpenAPIConfig:
    """Where the document and the page are; a browser finds everything below `base_path`."""
    return OpenAPIConfig(
        title="Steelyard gateway",
        version=version,
        description='Predictions with their cost. Every failure is `{"error": "a sentence"}`.',
        path="/docs",
        tags=[Tag(name="predictions"), Tag(name="server")],
        servers=[Server(url=base_path or "/")],
        render_plugins=[*_page(base_path + ASSETS), JsonRenderPlugin(path="/openapi.json")],
    )


def assets() -> list[Router]:
    """The page's scripts and styles, when they are installed."""
    folder = _swagger_folder()
    if folder is None:
        return []
    names = frozenset(file.name for file in folder.iterdir())

    def is_there(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        """Litestar asks the file system for any name, which fails for a NUL or a long one."""
        if str(connection.path_params["file_path"]).lstrip("/") not in names:
            raise NotFoundException

    return [create_static_files_router(path=ASSETS, directories=[folder], guards=[is_there])]


def prediction_paths() -> dict[str, PathItem]:
    """The routes that Litestar does not see, for its OpenAPI document."""
    tensors = _operation("infer", "Open Inference Protocol tensors in, tensors out, as JSON or as bytes", _TENSORS)
    tensors.parameters = [_header("Inference-Header-Content-Length", "where the JSON ends, when raw tensors follow it")]
    _also(tensors, "application/octet-stream", "the JSON, then the tensors of the inputs with binary_data_size")
    rows = _operation("predict", "Rows of named values in, predictions and a receipt out", _ROWS, texts=_TEXTS)
    v1 = _operation("v1_predict", "KServe's V1 protocol: instances in, predictions out", _INSTANCES)
    invoke = _operation(
        "invocations", "SageMaker: rows, instances, tensors or CSV in, predictions out", _ROWS, texts=_TEXTS
    )
    _also(invoke, "text/csv", "lines of the model's columns in their order, without a head")
    invoke.parameters = [_header("X-Amzn-SageMaker-Target-Model", "the model; without it sagemaker.default_model")]
    return {
        "/v2/models/{model}/infer": _item(tensors, "model"),
        "/v2/models/{model}/versions/{version}/infer": _item(tensors, "model", "version"),
        "/v1/predict/{model}": _item(rows, "model"),
        "/v1/predict/{model}/versions/{version}": _item(rows, "model", "version"),
        "/v1/models/{model}:predict": _item(v1, "model"),
        "/v1/models/{model}/versions/{version}:predict": _item(v1, "model", "version"),
        "/invocations": _item(invoke),
    }


def _page(assets_path: str) -> list[OpenAPIRenderPlugin]:
    if _swagger_folder() is None:
        return []
    return [
        SwaggerRenderPlugin(
            path="/",
            js_url=f"{assets_path}/swagger-ui-bundle.js",
            css_url=f"{assets_path}/swagger-ui.css",
            standalone_preset_js_url=f"{assets_path}/swagger-ui-standalone-preset.js",
            favicon=f'<link rel="icon" href="{assets_path}/favicon-32x32.png">',
        )
    ]


def _swagger_folder() -> Path | None:
    try:
        distribution = metadata.distribution("flask-swagger-ui")
    except metadata.PackageNotFoundError:
        return None
    return Path(str(distribution.locate_file("flask_swagger_ui/dist")))


def _also(operation: Operation, media_type: str, description: str) -> None:
    """Another form that the body may have."""
    assert isinstance(operation.request_body, RequestBody)
    schema = Schema(type=OpenAPIType.STRING, description=description)
    operation.request_body.content[media_type] = OpenAPIMediaType(schema=schema)


def _header(name: str, description: str) -> Parameter:
    return Parameter(name=name, param_in="header", description=description, schema=Schema(type=OpenAPIType.STRING))


def _item(operation: Operation, *names: str) -> PathItem:
    parameters = [Parameter(name=name, param_in="path", schema=Schema(type=OpenAPIType.STRING)) for name in names]
    suffix = "_version" if "version" in names else ""
    return PathItem(
        post=Operation(
            tags=operation.tags,
            summary=operation.summary,
            operation_id=f"{operation.operation_id}{suffix}",
            parameters=[*parameters, *(operation.parameters or [])],
            request_body=operation.request_body,
            responses=operation.responses,
        )
    )


def _operation(operation_id: str, summary: str, example: object, **others: object) -> Operation:
    headers = {
        "steelyard-request-id": "the id this answer has in the ledger",
        "steelyard-model": "name@version that answered",
        "steelyard-cost-picousd": "direct cost of this request in 1e-12 USD, an integer; `unpriced` where vCPUs have no price",
        "steelyard-cost-full-picousd-estimated": "with its share of idle and common costs, as they were in the last window",
        "server-timing": "milliseconds of decode, queue, run and encode",
    }
    answer = OpenAPIResponse(
        description="The prediction",
        headers={name: OpenAPIHeader(name="", param_in="header", description=text) for name, text in headers.items()},
        content={"application/json": OpenAPIMediaType(schema=Schema(type=OpenAPIType.OBJECT))},
    )
    refusals = {str(status): OpenAPIResponse(description="Refused, with a sentence") for status in _refusals()}
    return Operation(
        tags=["predictions"],
        summary=summary,
        operation_id=operation_id,
        request_body=RequestBody(
            required=True,
            content={
                "application/json": OpenAPIMediaType(
                    schema=Schema(type=OpenAPIType.OBJECT),
                    examples={name: Example(value=value) for name, value in {"example": example, **others}.items()},
                )
            },
        ),
        responses={"200": answer, **refusals},
    )


def _refusals() -> list[int]:
    return sorted(set(problems.STATUS.values()) - {500})
