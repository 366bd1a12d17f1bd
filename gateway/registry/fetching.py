"""A published version as a folder: its files under their names, and its manifest, every digest verified on the way.

For people and tools that want an artifact in hand (`steelyard models download`), and for signing one that is published already.
Gateways do not come this way: they fetch what they serve into a cache (`gateway.repository.blobs`).
"""

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from gateway.contract import layout
from gateway.contract.manifest import File, Manifest
from gateway.errors import CacheUnusable, DigestMismatch, InvalidInput, ObjectNotFound
from gateway.objectstore import verified
from gateway.objectstore.blocking import in_thread
from gateway.objectstore.protocol import ObjectStore
from gateway.registry.reading import Registry

BLOCK_BYTES = 1 << 20


async def fetch(store: ObjectStore, model: str, manifest_sha256: str, folder: Path) -> Manifest:
    """Make `folder`, which must not exist or be empty, the artifact and nothing else. It appears whole or not at all.

    Raises `InvalidInput` when there is something in the folder, `CacheUnusable` when it cannot be written, an `ArtifactError` when
    the store does not hold what was published, or a store error.
    """
    manifest, body = await Registry(store).manifest_bytes(model, manifest_sha256)
    with _appearing(folder) as partial:
        for file in manifest.files:
            await _fetch(store, model, file, partial / file.name)
        (partial / layout.MANIFEST).write_bytes(body)
    return manifest


@contextlib.contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A new folder beside it, which takes its name when the block is done."""
    partial = folder.parent / f".{folder.name}-{secrets.token_hex(4)}.partial"
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise InvalidInput(f"{folder} is not empty; name a folder that does not exist yet")
        partial.mkdir(parents=True)
        yield partial
        partial.rename(folder)  # takes the place of an empty folder
    except OSError as error:
        raise CacheUnusable(f"{folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


async def _fetch(store: ObjectStore, model: str, file: File, path: Path) -> None:
    chunks = store.stream(layout.blob(model, file.sha256))
    try:
        with path.open("xb") as out:
            async for block in verified.blocks(chunks, block_bytes=BLOCK_BYTES, sha256=file.sha256, size=file.size):
                await in_thread(out.write, block)
    except ObjectNotFound:
        raise DigestMismatch(f"model '{model}': file '{file.name}' is missing from the store") from None
    except DigestMismatch as error:
        raise DigestMismatch(f"model '{model}': file '{file.name}': {error}") from error
