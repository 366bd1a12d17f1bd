"""One model version from verified files to a model that was seen to compute the right thing here. No budget, no aliases.

`gateway.repository.memory` is its caller; `ModelLoader` is what it asks of the runtime.
"""

import asyncio
import contextlib
from pathlib import Path
from time import perf_counter_ns
from typing import Generic, Protocol, TypeVar

import msgspec

from gateway.contract import codec
from gateway.contract.golden import Golden
from gateway.contract.ledger import Phases
from gateway.contract.manifest import Manifest, Variant
from gateway.errors import UnsupportedModel
from gateway.repository import golden
from gateway.repository.blobs import BlobCache
from gateway.repository.outputs import Array, Tensors
from gateway.repository.shadows import Ran

GOLDEN_BYTES_MAX = 16 << 20
"""A few rows; an artifact that claims more is not what a publisher of ours writes."""


class Model(Protocol):
    """Anything that knows what memory it takes."""

    @property
    def resident_bytes(self) -> int: ...


M = TypeVar("M", bound=Model)


class ModelLoader(Protocol[M]):
    """What turns verified files into a model; `gateway.runtime.model.Loader` is one."""

    def variant(self, manifest: Manifest) -> Variant: ...

    async def load(
        self, manifest: Manifest, variant: Variant, path: Path, tokenizer: Path | None = None
    ) -> tuple[M, int]: ...

    async def answer(self, model: M, inputs: dict[str, Array]) -> Ran:
        """One run off the event loop, and not in the threads that answer callers."""
        ...


class Loaded(msgspec.Struct, Generic[M], frozen=True):
    """`cpu_ns` of building and checking it; `spent` by phase; `is_checked`: golden vectors are recorded for this variant."""

    model: M
    cpu_ns: int
    spent: Phases
    is_checked: bool

    @property
    def reload_ns(self) -> int:
        """What it would take again, with its files on disk."""
        return self.spent.verify_ns + self.spent.session_ns


async def load(blobs: BlobCache, loader: ModelLoader[M], manifest: Manifest, variant: Variant) -> Loaded[M]:
    """Fetch, verify, build, compare with the golden vectors. Raises an `ArtifactError`, `CacheUnusable` or a store error."""
    spent = Phases()
    vectors = await _golden(blobs, manifest, spent)
    async with contextlib.AsyncExitStack() as files:
        path = await files.enter_async_context(blobs.held(manifest.model, manifest.file(variant.file), spent))
        tokenizer = None
        if manifest.tokenizer is not None:
            tokenizer = await files.enter_async_context(blobs.held(manifest.model, manifest.tokenizer, spent))
        began_ns = perf_counter_ns()
        model, cpu_ns = await loader.load(manifest, variant, path, tokenizer)
        spent.session_ns += perf_counter_ns() - began_ns

    async def run(inputs: dict[str, Array]) -> Tensors:
        nonlocal cpu_ns
        ran = await loader.answer(model, inputs)
        cpu_ns += ran.cpu_ns
        return ran.outputs

    began_ns = perf_counter_ns()
    is_checked = vectors is not None and await golden.check(vectors, variant.id, manifest.model, run)
    spent.verify_ns += perf_counter_ns() - began_ns
    return Loaded(model, cpu_ns, spent, is_checked)


async def _golden(blobs: BlobCache, manifest: Manifest, spent: Phases) -> Golden | None:
    file = next((file for file in manifest.files if file.role == "golden"), None)
    if file is None:
        return None
    if file.size > GOLDEN_BYTES_MAX:
        raise UnsupportedModel(
            f"model '{manifest.model}': '{file.name}' is {file.size:,} bytes; golden vectors have at most {GOLDEN_BYTES_MAX:,}"
        )
    async with blobs.held(manifest.model, file, spent) as path:
        body = await asyncio.to_thread(path.read_bytes)
    return codec.decode(body, Golden, what=f"'{file.name}' of model '{manifest.model}'")
