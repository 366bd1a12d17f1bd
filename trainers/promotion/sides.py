"""The two versions that are compared: an artifact in a folder, opened as the gateway would and asked for answers.

Champion and candidate go the same way, so no difference between them is one of how they were run. Also says whether the one can
stand in for the other at all. Called by `trainers.promotion.decision`.
"""

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from gateway.contract.manifest import Column, Manifest, Tensor, Variant
from gateway.contract.registry import Promotion
from gateway.objectstore.protocol import ObjectStore
from gateway.registry.fetching import fetch
from trainers.arrays import Array
from trainers.evaluate import serving
from trainers.evaluate.coldload import Opening
from trainers.job import Split, trimmed

CHUNK_ROWS = 128


class Side(msgspec.Struct, frozen=True):
    """One version: its manifest, and the folder its files are in."""

    manifest: Manifest
    folder: Path

    @property
    def served(self) -> Variant:
        return self.manifest.variant(self.manifest.serve)

    @property
    def graph(self) -> Path:
        return self.folder / self.served.file

    def file(self, role: str) -> bytes | None:
        """The first file of this role."""
        found = next((file.name for file in self.manifest.files if file.role == role), None)
        return None if found is None else (self.folder / found).read_bytes()


async def fetched(store: ObjectStore, promotion: Promotion, folder: Path) -> Side:
    """The version that an alias answers with, every digest verified. Raises an `ArtifactError`."""
    return Side(await fetch(store, promotion.model, promotion.manifest_sha256, folder), folder)


def opening(side: Side) -> Opening:
    """How the gateway will open the served variant."""
    only_rows_vary = not side.manifest.signature.has_length
    return Opening(str(side.graph), side.served.optimized_by or "", only_rows_vary)


def opener(side: Side) -> "partial[Any]":  # Any: onnxruntime, whose session it makes, has few doors
    how = opening(side)
    return partial(serving.open_session, side.graph, optimized_by=how.optimized_by, only_rows_vary=how.only_rows_vary)


def answers(side: Side, split: Split, mask: str, output: str) -> Array:
    """Of the served variant, float64 [rows, ...], in batches that it would be given; rows of like length go together."""
    signature = side.manifest.signature
    session = opener(side)()
    order = np.argsort((split.inputs[mask] != 0).sum(axis=1), kind="stable") if mask else np.arange(split.rows)
    rows = min(CHUNK_ROWS, side.served.max_batch)
    parts = [
        session.run([output], trimmed(split.picked(order[start : start + rows]).inputs, signature, mask))[0]
        for start in range(0, split.rows, rows)
    ]
    answered: Array = np.concatenate(parts).astype(np.float64)[np.argsort(order, kind="stable")]
    return answered


def incompatible(champion: Manifest, candidate: Manifest) -> list[str]:
    """Why a caller of the champion could not call the candidate; empty when it can.

    New categories and new outputs are fine. A narrower range or a number that may no longer be null would refuse rows that are
    served today.
    """
    found = []
    before, after = champion.signature, candidate.signature
    if champion.task != candidate.task:
        found.append(f"the task was {champion.task}, is {candidate.task}")
    if [tensor.name for tensor in before.inputs] != [tensor.name for tensor in after.inputs]:
        found.append(f"the inputs were {_names(before.inputs)}, are {_names(after.inputs)}")
    else:
        found += [
            f"input {problem}" for pair in zip(before.inputs, after.inputs, strict=True) for problem in _input(*pair)
        ]
    outputs = {tensor.name: tensor for tensor in after.outputs}
    found += [problem for tensor in before.outputs for problem in _output(tensor, outputs.get(tensor.name))]
    if champion.labels and champion.labels != candidate.labels:
        found.append("the labels, or their order, changed")
    if _text(champion) != _text(candidate):
        found.append("text becomes other tokens")
    return found


def _input(before: Tensor, after: Tensor) -> list[str]:
    if (before.datatype, before.shape) != (after.datatype, after.shape):
        return [f"'{before.name}' was {_kind(before)}, is {_kind(after)}"]
    if [column.name for column in before.columns] != [column.name for column in after.columns]:
        return [f"'{before.name}' has other columns"]
    pairs = zip(before.columns, after.columns, strict=True)
    return [f"column '{old.name}' accepts less" for old, new in pairs if _accepts_less(old, new)]


def _accepts_less(before: Column, after: Column) -> bool:
    lower = after.minimum is not None and (before.minimum is None or after.minimum > before.minimum)
    upper = after.maximum is not None and (before.maximum is None or after.maximum < before.maximum)
    return before.datatype != after.datatype or (before.nullable and not after.nullable) or lower or upper


def _output(before: Tensor, after: Tensor | None) -> list[str]:
    if after is None:
        return [f"output '{before.name}' is gone"]
    if (before.datatype, before.shape) != (after.datatype, after.shape):
        return [f"output '{before.name}' was {_kind(before)}, is {_kind(after)}"]
    names = [column.name for column in before.columns]
    return [] if names == [column.name for column in after.columns] else [f"output '{before.name}' has other columns"]


def _text(manifest: Manifest) -> object:
    """What decides which tokens a text becomes."""
    text, tokenizer = manifest.text, manifest.tokenizer
    if isinstance(text, msgspec.UnsetType) or tokenizer is None:
        return None
    return (text.column, text.length_max, text.tensors, tokenizer.sha256)


def _kind(tensor: Tensor) -> str:
    return f"{tensor.datatype} [{', '.join(map(str, tensor.shape))}]"


def _names(tensors: tuple[Tensor, ...]) -> str:
    return ", ".join(tensor.name for tensor in tensors)
