"""Everything that is not a prediction: health, metadata, what is loaded. Ordinary Litestar handlers.

Bodies follow the Open Inference Protocol; the numbers in the docstrings are those of its endpoints E1 to E7 and rules. The
endpoints of its extensions are in `gateway.http.repository`, `gateway.http.modelconfig` and `gateway.http.statistics`.
"""

import asyncio
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.access.caller import Caller
from gateway.contract.manifest import Manifest, Tensor
from gateway.errors import ModelNotReady
from gateway.http.metrics_route import metrics
from gateway.http.service import Service
from gateway.repository.serving import ServingState
from gateway.runtime.tensors import wire_shape

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "schedule_policy",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "model_repository_extension",
    "statistics",
)
"""What E3 lists: only what is true. `model_repository_extension` is KServe's word for `model_repository`."""


class Live(msgspec.Struct, frozen=True):
    """E1."""

    live: bool


class Ready(msgspec.Struct, frozen=True):
    """E2, with both keys that clients look for (rule 4)."""

    ready: bool
    live: bool = True


class ServerMetadata(msgspec.Struct, frozen=True):
    """E3; an extension is listed only when it is true."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(msgspec.Struct, frozen=True):
    """A tensor as E4 shows it: -1 is a variable dimension."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct, frozen=True):
    """E4; `columns` says what the row door takes."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    description: str
    columns: list[Any]  # Any: gateway.contract.manifest.Column, whose default fields are omitted


class ModelReady(msgspec.Struct, frozen=True):
    """E5."""

    name: str
    ready: bool


class Models(msgspec.Struct, frozen=True):
    """E7."""

    models: list[str]


class LoadedVersion(msgspec.Struct, frozen=True):
    """What this container holds in memory; `problem` is why its name did not move on to the version its alias says.

    `signed_by` is the id of the pinned key that signed it, "" when no key is pinned.
    """

    name: str
    version: str
    variant: str
    loaded_ns: int
    resident_bytes: int
    problem: str
    signed_by: str


@get("/", sync_to_thread=False, summary="What this is and where the documentation lies")
def root(service: NamedDependency[Service], request: Request[Any, Any, Any]) -> dict[str, str]:
    """`status` is what KServe's V1 clients look for."""
    base_path = request.app.state.base_path
    return {
        "name": "steelyard",
        "version": service.version,
        "status": "alive",
        "docs": f"{base_path}/docs",
        "openapi": f"{base_path}/docs/openapi.json",
    }


@get("/v2/health/live", sync_to_thread=False, summary="The process answers")
def live() -> Live:
    return Live(live=True)


@get("/v2/health/ready", sync_to_thread=False, summary="Requests may be sent here")
def ready(service: NamedDependency[Service]) -> Response[Ready]:
    return Response(Ready(ready=service.ready), status_code=200 if service.ready else 503)


@get("/v2", sync_to_thread=False, summary="Name, version and protocol extensions")
def server_metadata(service: NamedDependency[Service]) -> ServerMetadata:
    return ServerMetadata(name="steelyard", version=service.version, extensions=list(EXTENSIONS))


@get("/v2/models", summary="Published models")
async def models(service: NamedDependency[Service], request: Request[Any, Any, Any]) -> Models:
    caller: Caller = request.state.caller
    return Models([name for name in await service.repository.registry.names() if caller.may(name)])


@get("/v1/models", summary="Published models, in KServe's V1 protocol")
async def v1_models(service: NamedDependency[Service], request: Request[Any, Any, Any]) -> Models:
    caller: Caller = request.state.caller
    return Models([name for name in await service.repository.registry.names() if caller.may(name)])


@get("/v1/models/{model:str}", summary="Whether the model is loaded, in KServe's V1 protocol")
async def v1_model(service: NamedDependency[Service], model: FromPath[str]) -> Response[ModelReady]:
    return await _readiness(service, model, None)


@get("/ping", sync_to_thread=False, summary="Requests may be sent here, as SageMaker asks")
def ping(service: NamedDependency[Service]) -> Response[Ready]:
    return Response(Ready(ready=service.ready), status_code=200 if service.ready else 503)


@get("/v1/loaded", sync_to_thread=False, summary="What this container holds in memory; asks no store")
def loaded(service: NamedDependency[Service], request: Request[Any, Any, Any]) -> list[LoadedVersion]:
    caller: Caller = request.state.caller
    return [
        LoadedVersion(
            name=resident.name,
            version=str(resident.version),
            variant=resident.variant.id,
            loaded_ns=resident.loaded_ns,
            resident_bytes=resident.model.resident_bytes,
            problem=problem,
            signed_by=resident.signed_by,
        )
        for resident, problem in service.repository.residents()
        if caller.may(resident.name)
    ]


@get("/v1/releases", sync_to_thread=False, summary="Champion, canaries and shadow of every loaded name; asks no store")
def releases(service: NamedDependency[Service], request: Request[Any, Any, Any]) -> list[ServingState]:
    caller: Caller = request.state.caller
    return [serving for serving in service.repository.servings() if caller.may(serving.name)]


@get("/v2/models/{model:str}", summary="A model's signature")
async def model_metadata(service: NamedDependency[Service], model: FromPath[str]) -> ModelMetadata:
    manifest = await service.repository.manifest(model)
    return await _metadata(service, manifest)


@get("/v2/models/{model:str}/versions/{version:str}", summary="The signature of one version")
async def version_metadata(
    service: NamedDependency[Service], model: FromPath[str], version: FromPath[str]
) -> ModelMetadata:
    manifest = await service.repository.manifest(model, version)
    return await _metadata(service, manifest)


@get("/v2/models/{model:str}/ready", summary="Whether the model is loaded; asking starts a load that is not under way")
async def model_ready(service: NamedDependency[Service], model: FromPath[str]) -> Response[ModelReady]:
    return await _readiness(service, model, None)


@get("/v2/models/{model:str}/versions/{version:str}/ready", summary="Whether this version is loaded")
async def version_ready(
    service: NamedDependency[Service], model: FromPath[str], version: FromPath[str]
) -> Response[ModelReady]:
    return await _readiness(service, model, version)


async def _metadata(service: Service, manifest: Manifest) -> ModelMetadata:
    signature = manifest.signature
    versions = await service.repository.registry.versions(manifest.model)
    return ModelMetadata(
        name=manifest.model,
        versions=[str(version) for version in versions],
        platform="onnxruntime_onnx",
        inputs=_tensors(signature.inputs),
        outputs=_tensors(signature.outputs),
        description=manifest.description,
        columns=[column for tensor in signature.inputs for column in tensor.columns],
    )


def _tensors(tensors: tuple[Tensor, ...]) -> list[TensorMetadata]:
    return [TensorMetadata(tensor.name, tensor.datatype, wire_shape(tensor.shape)) for tensor in tensors]


async def _readiness(service: Service, model: str, version: str | None) -> Response[ModelReady]:
    """Waits a moment for a load, so that a small model is ready at the first question; a long load goes on without us."""
    try:
        async with asyncio.timeout(service.ready_wait_s):
            await service.repository.ready(model, version)
    except TimeoutError:
        raise ModelNotReady(f"model '{model}' is being loaded; ask again") from None
    return Response(ModelReady(name=model, ready=True))


HANDLERS = [
    root,
    live,
    ready,
    metrics,
    server_metadata,
    models,
    v1_models,
    v1_model,
    ping,
    loaded,
    releases,
    model_metadata,
    version_metadata,
    model_ready,
    version_ready,
]
