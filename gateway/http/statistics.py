"""The statistics extension (OIP E11, section 4), read from what the gateway's own metrics count."""

from collections.abc import Iterable
from typing import Any

import msgspec
from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.access.caller import Caller
from gateway.http.service import Service
from gateway.telemetry.series import Span, VersionMeasures


class InferenceStatistics(msgspec.Struct, frozen=True):
    """What requests went through; the steps are those of answered ones. No answer is cached, so nothing hits or misses."""

    success: Span
    fail: Span
    queue: Span
    compute_input: Span
    compute_infer: Span
    compute_output: Span
    cache_hit: Span = Span()
    cache_miss: Span = Span()


class BatchStatistics(msgspec.Struct, frozen=True):
    """Runs of one size."""

    batch_size: int
    compute_input: Span
    compute_infer: Span
    compute_output: Span


class MemoryUsage(msgspec.Struct, frozen=True):
    """Memory that a version holds while it is loaded."""

    type: str
    id: int
    byte_size: int


class ModelStatistics(msgspec.Struct, frozen=True):
    """One version. `last_inference` is in milliseconds since 1970, `inference_count` in rows, `execution_count` in runs."""

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics
    batch_stats: list[BatchStatistics]
    memory_usage: list[MemoryUsage]
    response_stats: dict[str, str] = {}  # of models with many answers to a request; there are none


class Statistics(msgspec.Struct, frozen=True):
    """E11."""

    model_stats: list[ModelStatistics]


@get("/v2/models/stats", sync_to_thread=False, summary="Statistics of everything in memory")
def all_statistics(service: NamedDependency[Service], request: Request[Any, Any, Any]) -> Statistics:
    caller: Caller = request.state.caller
    return _of(service, [(name, version) for name, version in sorted(_held(service)) if caller.may(name)])


@get("/v2/models/{model:str}/stats", summary="Statistics of a model's versions in memory, else of all its versions")
async def model_statistics(service: NamedDependency[Service], model: FromPath[str]) -> Statistics:
    versions = [version for name, version in sorted(_held(service)) if name == model]
    if not versions:
        await service.repository.manifest(model)  # says so when there is no such model
        versions = await service.repository.registry.versions(model)
    return _of(service, [(model, version) for version in versions])


@get("/v2/models/{model:str}/versions/{version:str}/stats", summary="Statistics of one version")
async def version_statistics(
    service: NamedDependency[Service], model: FromPath[str], version: FromPath[str]
) -> Statistics:
    number, _ = await service.repository.registry.resolve(model, version)
    return _of(service, [(model, number)])


def statistics(name: str, version: int, measured: VersionMeasures, resident_bytes: int | None) -> ModelStatistics:
    """In the protocol's words. `resident_bytes` None: it is not in memory."""
    return ModelStatistics(
        name=name,
        version=str(version),
        last_inference=measured.last_ns // 1_000_000,
        inference_count=measured.rows,
        execution_count=measured.executions,
        inference_stats=InferenceStatistics(
            measured.success, measured.fail, measured.queue, measured.decode, measured.run, measured.encode
        ),
        batch_stats=[BatchStatistics(rows, b.decode, b.run, b.encode) for rows, b in measured.batches.items()],
        memory_usage=[] if resident_bytes is None else [MemoryUsage("CPU", 0, resident_bytes)],
    )


def _held(service: Service) -> dict[tuple[str, int], int]:
    """What is in memory, with its bytes."""
    return {(r.name, r.version): r.model.resident_bytes for r, _ in service.repository.residents()}


def _of(service: Service, versions: Iterable[tuple[str, int]]) -> Statistics:
    held = _held(service)
    return Statistics(
        [
            statistics(name, version, service.measures.snapshot(name, version), held.get((name, version)))
            for name, version in versions
        ]
    )


HANDLERS = [all_statistics, model_statistics, version_statistics]
