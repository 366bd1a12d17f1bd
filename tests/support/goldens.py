"""Golden vectors for the small models of `tests.support.models`, right ones and wrong ones."""

from collections.abc import Mapping

import msgspec
import numpy as np
import onnxruntime as ort

from gateway.contract import codec
from gateway.contract.golden import DTYPES, Expected, Golden, GoldenTensor, Tolerance
from gateway.contract.manifest import Manifest
from gateway.contract.registry import VersionRecord
from gateway.objectstore.protocol import ObjectStore
from tests.support import models
from tests.support.models import Array
from trainers import publish
from trainers.signing import Signer

ROWS: Mapping[str, Array] = {
    "categories": np.array([["AA", "JFK"], ["UA", "LGA"], ["ZZ", "EWR"]], object),
    "numbers": np.array([[7, 733, 12.5], [19, 2475, np.nan], [12, 184, 3]], np.float32),
}


async def publish_tiny(
    store: ObjectStore,
    *,
    seed: int = 0,
    error: float = 0.0,
    promote_to: str | None = "champion",
    signer: Signer | None = None,
) -> VersionRecord:
    """`publish_tiny` with vectors; those with an `error` say that its outputs are so much larger than they are."""
    graph = models.tiny_graph(seed * 101)
    manifest, contents = models.manifest_of("tiny", models.TINY_SIGNATURE, {"fp32": graph})
    artifact = with_golden(manifest, contents, error=error)
    return await models.publish_files(store, *artifact, promote_to=promote_to, signer=signer)


def with_golden(
    manifest: Manifest, contents: Mapping[str, bytes], *, error: float = 0.0, batch_rows: int = 3
) -> tuple[Manifest, dict[str, bytes]]:
    body = codec.encode(golden(manifest, contents, error=error, batch_rows=batch_rows))
    file = publish.describe("golden.json", body, "golden")
    return msgspec.structs.replace(manifest, files=(*manifest.files, file)), {**contents, file.name: body}


def golden(manifest: Manifest, contents: Mapping[str, bytes], *, error: float = 0.0, batch_rows: int = 3) -> Golden:
    """Of every variant, by onnxruntime."""
    expected = []
    for variant in manifest.variants:
        session = ort.InferenceSession(contents[variant.file], providers=["CPUExecutionProvider"])
        names = [tensor.name for tensor in manifest.signature.outputs]
        outputs = dict(zip(names, session.run(names, dict(ROWS)), strict=True))
        tensors = tuple(tensor(name, values + np.float32(error)) for name, values in outputs.items())
        tolerances = dict.fromkeys(names, Tolerance(absolute=1e-4, relative=0.0))
        expected.append(Expected(variant.id, batch_rows, tensors, tolerances))
    return Golden(3, tuple(tensor(name, values) for name, values in ROWS.items()), tuple(expected))


def tensor(name: str, values: Array) -> GoldenTensor:
    if values.dtype == object:
        return GoldenTensor(name, "BYTES", values.shape, strings=tuple(values.ravel()))
    datatype = next(datatype for datatype, code in DTYPES.items() if np.dtype(code) == values.dtype)
    return GoldenTensor(name, datatype, values.shape, data=values.tobytes())
