"""Which class won. The classification extension (OIP-13): an output's largest values as `"value:index[:label]"`, best first, ties
by index. And for the row door `label` and `score` of the largest value, where the manifest has a label for each.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gateway.contract.manifest import Manifest, Tensor
from gateway.errors import InvalidInput
from gateway.http.inferrequest import Parameters
from gateway.runtime.tensors import Array, Tensors


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


def labelled(manifest: Manifest) -> Tensor | None:
    """The output that says one number for each label: the only one with as many, without columns of its own."""
    found = [tensor for tensor in manifest.signature.outputs if tensor.shape == ("batch", len(manifest.labels))]
    names = [name for tensor in manifest.signature.outputs for name in (tensor.name, *(c.name for c in tensor.columns))]
    if len(found) != 1 or found[0].columns or found[0].datatype == "BYTES" or not {"label", "score"}.isdisjoint(names):
        return None
    return found[0]


def winners(
    tensor: Tensor, outputs: Tensors, labels: Sequence[str]
) -> list[dict[str, Any]]:  # Any: text, numpy's scalar
    """By row `label` and `score`, the value that the graph gave it, be it a probability or not; no label where it is no number."""
    values = outputs[tensor.name]
    best = values.argmax(axis=1)
    scores = values[np.arange(len(values)), best]
    return [
        {"label": labels[index] if score == score else None, "score": score}  # noqa: PLR0124 - NaN is not
        for index, score in zip(best.tolist(), scores, strict=True)
    ]
