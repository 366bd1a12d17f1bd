"""Inputs to measure with: the golden vectors that the publisher recorded, else zeros. In batches, and cut to shorter lengths."""

from collections.abc import Iterator

import numpy as np

from gateway.contract.golden import Golden
from gateway.contract.manifest import Manifest, Signature
from gateway.repository import golden as recorded
from gateway.runtime.tensors import DTYPES, Array, Tensors

LENGTH_ZEROS = 16
"""Of an axis that varies, where nothing real is recorded."""

LENGTHS = (1, 2, 4)
"""The whole length, a half and a quarter of it: as the publisher measures."""


def real_or_zeros(manifest: Manifest, golden: Golden | None) -> Tensors:
    """As many rows as there are; one of zeros (or of empty strings) when none was recorded."""
    if golden is not None:
        return {tensor.name: recorded.array(tensor) for tensor in golden.inputs}
    zeros: Tensors = {}
    for tensor in manifest.signature.inputs:
        shape = (1, *(size if isinstance(size, int) else LENGTH_ZEROS for size in tensor.shape[1:]))
        fill = "" if tensor.datatype == "BYTES" else 0
        zeros[tensor.name] = np.full(shape, fill, DTYPES[tensor.datatype])
    return zeros


def feeds(inputs: Tensors, signature: Signature, batches: tuple[int, ...]) -> Iterator[tuple[int, int, Tensors]]:
    """Rows, length, tensors: every batch size at every length, the longest first; each pair once."""
    seen: set[tuple[int, int]] = set()
    for part in LENGTHS if signature.has_length else LENGTHS[:1]:
        cut = {tensor.name: _cut(inputs[tensor.name], tensor.shape, part) for tensor in signature.inputs}
        length = signature.length({name: values.shape for name, values in cut.items()})
        for rows in batches:
            if (rows, length) not in seen:
                seen.add((rows, length))
                yield rows, length, {name: np.resize(values, (rows, *values.shape[1:])) for name, values in cut.items()}


def _cut(values: Array, shape: tuple[int | str, ...], part: int) -> Array:
    wanted = [slice(None)]
    for axis, size in zip(shape[1:], values.shape[1:], strict=True):
        wanted.append(slice(max(1, -(-size // part))) if isinstance(axis, str) else slice(None))
    return values[tuple(wanted)]
