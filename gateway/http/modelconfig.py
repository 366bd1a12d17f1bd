"""A model's configuration in Triton's words (OIP E12, section 4): what perf_analyzer and other clients of Triton ask for."""

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.contract.manifest import Manifest, Tensor
from gateway.http.service import Service
from gateway.runtime.tensors import wire_shape


class Reshape(msgspec.Struct, frozen=True):
    """What `dims` really are, where Triton does not let them be empty."""

    shape: list[int]


class TensorConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """`dims` do not count the rows; -1 is a variable dimension."""

    name: str
    data_type: str
    dims: list[int]
    reshape: Reshape | None = None


class DynamicBatching(msgspec.Struct, frozen=True):
    """Requests are batched; how is the gateway's business."""


class TransactionPolicy(msgspec.Struct, frozen=True):
    """One answer for each request."""

    decoupled: bool = False


class ResponseCache(msgspec.Struct, frozen=True):
    """Answers are not cached."""

    enable: bool = False


class ModelConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """E12. `max_batch_size` is the variant's that is served; longer requests are run in parts."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[TensorConfig]
    output: list[TensorConfig]
    model_transaction_policy: TransactionPolicy
    response_cache: ResponseCache
    dynamic_batching: DynamicBatching | None = None


@get("/v2/models/{model:str}/config", summary="A model's configuration as Triton shows it")
async def model_config(service: NamedDependency[Service], model: FromPath[str]) -> ModelConfig:
    return config(await service.repository.manifest(model))


@get("/v2/models/{model:str}/versions/{version:str}/config", summary="The configuration of one version")
async def version_config(
    service: NamedDependency[Service], model: FromPath[str], version: FromPath[str]
) -> ModelConfig:
    return config(await service.repository.manifest(model, version))


def config(manifest: Manifest) -> ModelConfig:
    """Of the variant that the manifest says to serve."""
    variant = manifest.variant(manifest.serve)
    return ModelConfig(
        name=manifest.model,
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        max_batch_size=variant.max_batch,
        input=[_tensor(tensor) for tensor in manifest.signature.inputs],
        output=[_tensor(tensor) for tensor in manifest.signature.outputs],
        model_transaction_policy=TransactionPolicy(),
        response_cache=ResponseCache(),
        dynamic_batching=DynamicBatching() if variant.batch_invariant else None,
    )


def _tensor(tensor: Tensor) -> TensorConfig:
    datatype = "TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"
    dims = wire_shape(tensor.shape[1:])
    return TensorConfig(tensor.name, datatype, dims or [1], None if dims else Reshape([]))


HANDLERS = [model_config, version_config]
