"""The classification extension (OIP-13): an output's largest values as `"value:index[:label]"`, best first, ties by index."""

from collections.abc import Sequence

import numpy as np

from gateway.contract.manifest import Tensor
from gateway.errors import InvalidInput
from gateway.http.inferrequest import Parameters
from gateway.runtime.tensors import Array


def classes(tensor: Tensor, parameters: Parameters) -> int:
    """How many classes are asked for; 0 means the tensor itself. Raises `InvalidInput`."""
    if "classification" not in parameters:
        return 0
    count = parameters["classification"]
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InvalidInput(f"output '{tensor.name}': 'classification' must be a whole number from 1")
    if tensor.datatype == "BYTES":
        raise InvalidInput(f"output '{tensor.name}' is BYTES; only numbers can be classified")
    return count


def classify(output: Array, count: int, labels: Sequence[str]) -> Array:
    """BYTES [rows, count], or fewer when a row has fewer elements. `labels` are used when there is one for each element."""
    flat = output.reshape(len(output), -1)
    ascending_last = np.argsort(flat[:, ::-1], axis=1, kind="stable")  # reversed, so that ties end lowest index first
    best = flat.shape[1] - 1 - ascending_last[:, ::-1][:, :count]
    found = np.empty(best.shape, np.object_)
    suffixes = [f":{label}" for label in labels] if len(labels) == flat.shape[1] else [""] * flat.shape[1]
    for at, index in np.ndenumerate(best):
        found[at] = f"{flat[at[0], index]!s}:{index}{suffixes[index]}"  # `!s`: a float32 with its own digits
    return found
