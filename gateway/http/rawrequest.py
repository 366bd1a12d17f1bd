"""A raw request (OIP-19): no JSON, the whole body is the model's only input, one row of it. Every output comes back as bytes."""

import math

import numpy as np

from gateway.contract.manifest import Manifest, Tensor
from gateway.errors import InvalidInput
from gateway.http import tensorbytes
from gateway.runtime.tensors import DTYPES, Array, Tensors, describe


def read(manifest: Manifest, body: memoryview) -> Tensors:
    """The input. Raises `InvalidInput` when the model's signature does not tell the shape from the number of bytes."""
    inputs = manifest.signature.inputs
    if len(inputs) != 1:
        raise InvalidInput(
            f"a raw request needs a model with one input; '{manifest.model}' has {len(inputs)}: send an inference header"
        )
    [tensor] = inputs
    return {tensor.name: _text(tensor, body) if tensor.datatype == "BYTES" else _numbers(tensor, body)}


def _text(tensor: Tensor, body: memoryview) -> Array:
    """The body is the one element itself, without a length before it."""
    if any(dimension != 1 for dimension in tensor.shape[1:]):
        raise InvalidInput(
            f"a raw request carries one element; input '{tensor.name}' is BYTES {describe(tensor.shape)}"
        )
    found = np.empty((1,) * len(tensor.shape), np.object_)
    found.flat[0] = tensorbytes.text(tensor, body, 0)
    return found


def _numbers(tensor: Tensor, body: memoryview) -> Array:
    variable = [at for at, dimension in enumerate(tensor.shape) if at and isinstance(dimension, str)]
    if len(variable) > 1:
        raise InvalidInput(
            f"a raw request may leave one dimension open; input '{tensor.name}' is {describe(tensor.shape)}"
        )
    shape = [dimension if isinstance(dimension, int) else 1 for dimension in tensor.shape]
    row_bytes = math.prod(shape) * DTYPES[tensor.datatype].itemsize
    for at in variable:
        shape[at] = len(body) // row_bytes
    if not len(body) or math.prod(shape) * DTYPES[tensor.datatype].itemsize != len(body):
        raise InvalidInput(
            f"the raw request is {len(body)} bytes; one row of input '{tensor.name}' "
            f"{describe(tensor.shape)} takes {'a multiple of ' if variable else ''}{row_bytes}"
        )
    return tensorbytes.read(tensor, body, shape)
