"""One input of a model as a torch module takes it: strings as indices of their vocabularies, the rest as it is."""

from collections.abc import Mapping

import numpy as np
import torch

from gateway.contract.manifest import Tensor
from trainers.arrays import Array


def encoded(tensor: Tensor, values: Array, vocabularies: Mapping[str, tuple[str, ...]]) -> torch.Tensor:
    """[rows, ...] of this input; k columns of strings become int64 [rows, k], 0 for what their vocabularies do not have."""
    if tensor.datatype != "BYTES":
        return torch.from_numpy(np.ascontiguousarray(values))
    columns = zip(tensor.columns, values.T, strict=True)
    indices = [_indices(vocabularies[column.name], texts) for column, texts in columns]
    return torch.from_numpy(np.stack(indices, axis=1))


def _indices(known: tuple[str, ...], texts: Array) -> Array:
    index = {text: i + 1 for i, text in enumerate(known)}
    return np.fromiter((index.get(text, 0) for text in texts), np.int64, len(texts))
